//! Box's file of allowed names: one service name a line.

use crate::api::{PkiPolicy, PkiPolicySpec};
use crate::policy;
use crate::util::text;
use crate::util::yaml::Position;

/// The most names that a `PkiPolicy` takes.
const MAX_NAMES: usize = 50_000;

/// A line that is no service name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LineError {
    /// The place of the name.
    pub at: Position,
    /// The fault, and the remedy.
    pub message: String,
}

/// Reads the names in order, or reports every wrong line. Blank lines and comments after `#` are
/// skipped; line ends of Windows are accepted.
pub fn parse(text: &str) -> Result<Vec<String>, Vec<LineError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut names, mut errors) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let written = line.split('#').next().unwrap_or_default();
        let name = written.trim();
        if name.is_empty() {
            continue;
        }
        let before = written.chars().take_while(|c| c.is_whitespace()).count();
        let at = Position {
            line: index + 1,
            column: before + 1,
        };
        let too_many = || {
            let message = format!("write at most {MAX_NAMES} names: a PkiPolicy takes no more");
            (names.len() == MAX_NAMES).then_some(message)
        };
        match fault(name).or_else(too_many) {
            Some(message) => errors.push(LineError { at, message }),
            None => names.push(name.to_owned()),
        }
        if errors.len() == 100 {
            break;
        }
    }
    if errors.is_empty() {
        Ok(names)
    } else {
        Err(errors)
    }
}

/// The policy that permits these names in all namespaces.
pub fn policy(name: &str, service_names: Vec<String>) -> PkiPolicy {
    let spec = PkiPolicySpec {
        service_names,
        ..PkiPolicySpec::default()
    };
    PkiPolicy::new(name, spec)
}

fn fault(name: &str) -> Option<String> {
    if policy::is_service_name(name) {
        return None;
    }
    let shown = text::printable(name);
    Some(if name.contains(['*', '{']) {
        format!(
            "\"{shown}\" is a pattern: write it in spec.serviceNames of a PkiPolicy; here, one service name a line, for example app1"
        )
    } else if name.contains([' ', '\t', ',']) {
        format!("\"{shown}\" is more than a name: write one service name a line, for example app1")
    } else {
        format!(
            "\"{shown}\" is not a service name: write at most 63 lower-case letters, digits and '-', for example app1"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_one_a_line_among_blank_lines_and_comments() {
        let text = "\u{feff}# ours\r\napp1\r\n\r\n  app2  # the second\n\tapp3";
        assert_eq!(parse(text).unwrap(), ["app1", "app2", "app3"]);
        assert_eq!(parse("").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_wrong_line_is_reported_with_its_place_and_a_remedy() {
        for (text, place, message) in [
            (
                "app1\nApp2\n",
                "2:1",
                "\"App2\" is not a service name: write at most 63",
            ),
            (
                "  app1, app2",
                "1:3",
                "\"app1, app2\" is more than a name: write one",
            ),
            (
                "team-*",
                "1:1",
                "\"team-*\" is a pattern: write it in spec.serviceNames of a PkiPolicy",
            ),
            (
                "a\u{1b}[31m",
                "1:1",
                r#""a\u{1b}[31m" is not a service name"#,
            ),
        ] {
            let errors = parse(text).unwrap_err();
            assert_eq!(errors[0].at.to_string(), place, "{text}");
            assert!(errors[0].message.starts_with(message), "{}", errors[0]);
        }
        assert_eq!(parse("A\nB\napp\nC\n").unwrap_err().len(), 3);
    }

    #[test]
    fn no_more_names_are_read_than_a_policy_takes() {
        let names = "a\n".repeat(MAX_NAMES + 1);
        let errors = parse(&names).unwrap_err();
        assert_eq!(errors[0].at.line, MAX_NAMES + 1);
        assert_eq!(parse(&names[2..]).unwrap().len(), MAX_NAMES);
    }
}
