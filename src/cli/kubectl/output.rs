//! Shows the findings of a check to people, to programs, and beside the lines of a file.

use super::check::CheckReport;
use super::finding::{Finding, Severity};
use super::words::count;
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde::Serialize;

mod github;
mod sarif;

/// A form of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One line per finding, in the form of a compiler.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// SARIF 2.1.0, for code scanners.
    Sarif,
    /// Workflow commands of GitHub Actions, which annotate a pull request.
    Github,
}

/// The findings in this form. The printer removes colours where there is no terminal.
pub fn render(report: &CheckReport, format: Format) -> String {
    match format {
        Format::Text => report.findings.iter().map(line).collect(),
        Format::Json => pretty(&Json::from(report)),
        Format::Sarif => pretty(&sarif::log(report)),
        Format::Github => report.findings.iter().map(github::command).collect(),
    }
}

/// The summary of a report in one line.
pub fn summary(report: &CheckReport) -> String {
    let mut checked = vec![count(report.pkis, "Pki", "Pkis")];
    if report.policies > 0 {
        checked.push(count(report.policies, "policy", "policies"));
    }
    format!(
        "checked {}: {}, {}",
        checked.join(" and "),
        count(report.violations(), "error", "errors"),
        count(report.warnings(), "warning", "warnings")
    )
}

fn line(finding: &Finding) -> String {
    let colour = match finding.severity {
        Severity::Error => AnsiColor::Red,
        Severity::Warning => AnsiColor::Yellow,
    };
    let (bold, severity) = (Style::new().bold(), colour.on_default().bold());
    let (place, text) = (finding.place(), finding.text());
    let name = finding.severity.name();
    format!("{bold}{place}:{bold:#} {severity}{name}:{severity:#} {text}\n")
}

/// A report for programs. Fields stay as they are; more may be added.
#[derive(Serialize)]
struct Json<'a> {
    findings: Vec<JsonFinding<'a>>,
    checked: usize,
    violations: usize,
    warnings: usize,
}

#[derive(Serialize)]
struct JsonFinding<'a> {
    file: &'a str,
    line: usize,
    column: usize,
    severity: &'static str,
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    field: &'a str,
    reason: &'a str,
    message: &'a str,
}

impl<'a> From<&'a CheckReport> for Json<'a> {
    fn from(report: &'a CheckReport) -> Self {
        Self {
            findings: report.findings.iter().map(JsonFinding::from).collect(),
            checked: report.pkis + report.policies,
            violations: report.violations(),
            warnings: report.warnings(),
        }
    }
}

impl<'a> From<&'a Finding> for JsonFinding<'a> {
    fn from(finding: &'a Finding) -> Self {
        Self {
            file: &finding.file,
            line: finding.at.line,
            column: finding.at.column,
            severity: finding.severity.name(),
            kind: &finding.object.kind,
            namespace: &finding.object.namespace,
            name: &finding.object.name,
            field: &finding.field,
            reason: &finding.reason,
            message: &finding.message,
        }
    }
}

/// JSON for a file or a terminal, with a line break at its end.
pub(super) fn pretty(value: &impl Serialize) -> String {
    let json = serde_json::to_string_pretty(value).expect("texts and numbers are JSON");
    json + "\n"
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::kubectl::finding::FindingObject;
    use crate::util::yaml::Position;
    use serde_json::{Value, json};

    /// A finding with whatever could break a format.
    pub(in crate::cli::kubectl) fn report() -> CheckReport {
        let finding = Finding {
            file: "a b/äpp1,x:y%.yaml".into(),
            at: Position {
                line: 9,
                column: 16,
            },
            severity: Severity::Error,
            object: FindingObject {
                kind: "Pki".into(),
                namespace: "app1".into(),
                name: "app1-pki".into(),
            },
            field: "spec.serviceName".into(),
            reason: "PkiServiceNameError".into(),
            message: "100% \"wrong\":\r\n::error::\u{1b}[31m, write app1".into(),
        };
        let warning = Finding {
            file: "-".into(),
            at: Position::START,
            severity: Severity::Warning,
            object: FindingObject::default(),
            field: String::new(),
            reason: "InvalidYaml".into(),
            message: "no".into(),
        };
        CheckReport {
            findings: vec![finding, warning],
            pkis: 1,
            policies: 2,
        }
    }

    #[test]
    fn people_read_one_line_a_finding_and_nothing_that_steers_their_terminal() {
        let shown = render(&report(), Format::Text);
        let plain = anstream::adapter::strip_str(&shown).to_string();
        let expected = "a b/äpp1,x:y%.yaml:9:16: error: Pki app1/app1-pki: spec.serviceName: \
            100% \"wrong\":\\r\\n::error::\\u{1b}[31m, write app1\n-:1:1: warning: no\n";
        assert_eq!(plain, expected);
        assert!(
            shown.contains("\u{1b}[1m"),
            "there are colours to take away"
        );
    }

    #[test]
    fn programs_read_one_object_of_a_fixed_shape() {
        let read: Value = serde_json::from_str(&render(&report(), Format::Json)).unwrap();
        assert_eq!(read["checked"], 3);
        assert_eq!(
            (&read["violations"], &read["warnings"]),
            (&json!(1), &json!(1))
        );
        let expected = json!({
            "file": "a b/äpp1,x:y%.yaml", "line": 9, "column": 16, "severity": "error", "kind": "Pki",
            "namespace": "app1", "name": "app1-pki", "field": "spec.serviceName", "reason": "PkiServiceNameError",
            "message": "100% \"wrong\":\r\n::error::\u{1b}[31m, write app1",
        });
        assert_eq!(read["findings"][0], expected);
    }

    #[test]
    fn the_summary_counts_what_there_is() {
        assert_eq!(
            summary(&report()),
            "checked 1 Pki and 2 policies: 1 error, 1 warning"
        );
        let nothing = CheckReport {
            pkis: 2,
            ..CheckReport::default()
        };
        assert_eq!(summary(&nothing), "checked 2 Pkis: 0 errors, 0 warnings");
    }
}
