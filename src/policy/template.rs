//! Labels and annotations that Kubernetes accepts and applications may set.

use super::violation::{BrokenRule, Field, Violation};
use crate::api::SecretTemplate;
use crate::util::text::is_subdomain;

/// Maximum number of labels, and of annotations, as in the schema.
const MAX_ENTRIES: usize = 32;

/// Notes every key and value that cannot be used.
pub(super) fn check(template: &SecretTemplate, violations: &mut Vec<Violation>) {
    let labels = Field::of("spec.secretTemplate.labels");
    let annotations = Field::of("spec.secretTemplate.annotations");
    for (field, count) in [
        (labels, template.labels.len()),
        (annotations, template.annotations.len()),
    ] {
        if count > MAX_ENTRIES {
            let most = MAX_ENTRIES;
            violations.push(Violation::new(field, BrokenRule::Count { count, most }));
            return;
        }
    }
    for (key, value) in &template.labels {
        check_key(labels, key, violations);
        if !is_label_value(value) {
            let (key, value) = (key.clone(), value.clone());
            violations.push(Violation::new(
                labels,
                BrokenRule::LabelValue { key, value },
            ));
        }
    }
    for key in template.annotations.keys() {
        check_key(annotations, key, violations);
    }
}

fn check_key(field: Field, key: &str, violations: &mut Vec<Violation>) {
    if !is_key(key) {
        violations.push(Violation::new(
            field,
            BrokenRule::TemplateKeyShape(key.to_owned()),
        ));
    } else if is_reserved(key) {
        violations.push(Violation::new(
            field,
            BrokenRule::TemplateKeyReserved(key.to_owned()),
        ));
    }
}

/// The key of a label or annotation: a name, with a domain and a slash before it or without.
pub(crate) fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_qualified(name),
        None => is_qualified(key),
    }
}

pub(crate) fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_qualified(value)
}

/// Whether the domain of a key is one that controls Kubernetes or this operator.
fn is_reserved(key: &str) -> bool {
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    ["kubernetes.io", "k8s.io", "box.com"].iter().any(|domain| {
        let below = prefix.strip_suffix(domain);
        below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
    })
}

/// At most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends.
fn is_qualified(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let outer = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let bytes = name.as_bytes();
    name.len() <= 63
        && name.bytes().all(inner)
        && outer(bytes.first().copied())
        && outer(bytes.last().copied())
}
