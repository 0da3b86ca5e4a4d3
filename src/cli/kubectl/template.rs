//! Recognizes templates that nobody has rendered: `{{ .Values.name }}` in a manifest.

use super::finding::{Fault, reason};
use super::schema::ManifestKind;
use crate::util::text;
use crate::util::yaml::{Node, Position, YamlContent};
use serde_json::Value;

const MAX_QUOTED_BYTES: usize = 60;

/// The message about a text with a template in it. `None` if there is none.
pub(super) fn message(text: &str) -> Option<String> {
    let begin = text.find("{{")?;
    let rest = &text[begin..];
    let line = rest.lines().next().unwrap_or_default();
    let end = line.find("}}").map_or(line.len(), |end| end + 2);
    let quoted = text::cut(&text::line(&line[..end]), MAX_QUOTED_BYTES);
    Some(format!(
        "this is an unrendered template ({quoted}): render it first, for example with `helm template . | kubectl pki check -f -`"
    ))
}

/// Finds the first template in the document that cannot be read at this place, and its message.
pub(super) fn in_document(text: &str, at: Position) -> Option<(Position, String)> {
    let is_separator = |line: &str| line.starts_with("---");
    let lines: Vec<_> = text.lines().collect();
    let fault = at.line.clamp(1, lines.len().max(1)) - 1;
    let before = lines.iter().take(fault + 1);
    let begin = before.enumerate().rfind(|(_, line)| is_separator(line));
    let begin = begin.map_or(0, |(number, _)| number);
    let of_document = lines.iter().enumerate().skip(begin);
    let first = of_document
        .take_while(|(number, line)| *number <= fault || !is_separator(line))
        .find_map(|(number, line)| Some((number, line, line.find("{{")?)));
    let (number, line, byte) = first?;
    let message = message(&line[byte..])?;
    let place = Position {
        line: number + 1,
        column: line[..byte].chars().count() + 1,
    };
    Some((place, message))
}

/// The first template in a Pki or `PkiPolicy`; annotations may hold templates of other programs.
pub(super) fn fault(kind: ManifestKind, object: &Node) -> Option<Fault> {
    in_node(kind, object, object.at, &mut String::new())
}

fn in_node(kind: ManifestKind, node: &Node, at: Position, path: &mut String) -> Option<Fault> {
    let length = path.len();
    let mut inner = |step: &str, node: &Node, at| {
        path.push_str(step);
        let found = in_node(kind, node, at, path);
        path.truncate(length);
        found
    };
    match &node.content {
        YamlContent::Mapping(entries) => entries.iter().find_map(|(key, value)| {
            let separator = if length == 0 { "" } else { "." };
            let step = format!("{separator}{}", key.name);
            inner(&step, value, key.place_of(value))
        }),
        YamlContent::Sequence(elements) => elements
            .iter()
            .enumerate()
            .find_map(|(index, element)| inner(&format!("[{index}]"), element, element.at)),
        YamlContent::Scalar(Value::String(text), _)
            if !path.starts_with("metadata.annotations.") =>
        {
            // In a policy, `{{namespace}}` is more likely a placeholder with too many braces.
            let is_placeholder = kind == ManifestKind::PkiPolicy && text.contains("{{namespace}}");
            let message = message(text).filter(|_| !is_placeholder && text.contains("}}"))?;
            Some(Fault::new(path.clone(), reason::TEMPLATE, message).at(at))
        }
        YamlContent::Scalar(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::yaml;

    const ADVICE: &str =
        "render it first, for example with `helm template . | kubectl pki check -f -`";

    #[test]
    fn a_template_is_quoted_in_part() {
        for (text, quoted) in [
            ("a {{ .Values.x }} b", "{{ .Values.x }}"),
            ("{{- if .Values.x", "{{- if .Values.x"),
            ("{{ a }}{{ b }}", "{{ a }}"),
            ("{{\u{1b}[31m", "{{\\u{1b}[31m"),
        ] {
            let expected = format!("this is an unrendered template ({quoted}): {ADVICE}");
            assert_eq!(message(text), Some(expected));
        }
        assert_eq!(message("a { { b"), None);
        assert!(message(&format!("{{{{{}", "x".repeat(1000))).unwrap().len() < 200);
    }

    #[test]
    fn the_template_is_found_in_the_document_that_cannot_be_read() {
        let text = "a: {{ .x }}\n---\nb: 1\nc: ä{{ .y }}\n---\nd: [\n";
        let found = |line| {
            let at = Position { line, column: 1 };
            in_document(text, at).map(|(at, message)| (at.to_string(), message.contains(".x")))
        };
        assert_eq!(found(1), Some(("1:4".to_owned(), true)));
        assert_eq!(found(4), Some(("4:5".to_owned(), false)));
        assert_eq!(found(6), None);
        assert_eq!(found(99), None);
        assert_eq!(in_document("", Position::START), None);
    }

    #[test]
    fn a_value_that_is_a_template_is_reported_with_its_field() {
        let of = |kind, text: &str| {
            let node = yaml::documents(text).remove(0).unwrap();
            fault(kind, &node).map(|fault| fault.field)
        };
        for (text, field) in [
            (
                "spec: {serviceName: '{{ .Values.x }}'}",
                Some("spec.serviceName"),
            ),
            (
                "spec: {dnsNames: [a, '{{ .x }}.example.com']}",
                Some("spec.dnsNames[1]"),
            ),
            (
                "metadata: {name: \"{{ .Release.Name }}-pki\"}",
                Some("metadata.name"),
            ),
            ("metadata: {annotations: {a: '{{ .x }}'}}", None),
            ("spec: {serviceName: '{namespace}'}", None),
            ("spec: {serviceName: '{{'}", None),
        ] {
            assert_eq!(of(ManifestKind::Pki, text).as_deref(), field, "{text}");
        }
        let policy = "spec: {serviceNames: ['{{namespace}}-*']}";
        assert_eq!(of(ManifestKind::PkiPolicy, policy), None);
        let policy = "spec: {serviceNames: ['{{ .Values.x }}-*']}";
        assert_eq!(
            of(ManifestKind::PkiPolicy, policy).as_deref(),
            Some("spec.serviceNames[0]")
        );
    }
}
