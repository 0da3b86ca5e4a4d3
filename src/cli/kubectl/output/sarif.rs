//! SARIF 2.1.0 (OASIS, "Static Analysis Results Interchange Format").

use crate::cli::kubectl::check::CheckReport;
use crate::cli::kubectl::finding::{Finding, reason};
use crate::guide;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The log of one run.
pub(super) fn log(report: &CheckReport) -> Value {
    let findings = report.findings.iter();
    let rules: BTreeSet<_> = findings.clone().map(|it| it.reason.as_str()).collect();
    let rules = Vec::from_iter(rules);
    let results = findings.map(|finding| result(finding, &rules));
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "kubectl-pki",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(|rule| describe(rule)).collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": results.collect::<Vec<_>>(),
        }],
    })
}

fn describe(rule: &str) -> Value {
    let own = reason::ALL.iter().find(|(known, _)| *known == rule);
    let advice = guide::advice(rule);
    let of_guide = advice.as_ref().map(|advice| &*advice.cause);
    let cause = own.map(|(_, cause)| *cause).or(of_guide);
    let mut described = json!({
        "id": rule,
        "shortDescription": {"text": cause.unwrap_or(rule)},
    });
    if let Some(advice) = advice {
        described["help"] = json!({"text": advice.remedy});
    }
    described
}

fn result(finding: &Finding, rules: &[&str]) -> Value {
    let level = finding.severity.name();
    json!({
        "ruleId": finding.reason,
        "ruleIndex": rules.binary_search(&finding.reason.as_str()).ok(),
        "level": level,
        "message": {"text": finding.text()},
        "locations": [{
            "physicalLocation": {
                "artifactLocation": {"uri": uri(&finding.file)},
                "region": {"startLine": finding.at.line, "startColumn": finding.at.column},
            },
        }],
    })
}

/// A path as a relative reference (RFC 3986, 4.2), in which colons are escaped.
fn uri(path: &str) -> String {
    let path = if path == "-" { "stdin" } else { path };
    let mut uri = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                uri.push(char::from(byte));
            }
            _ => write!(uri, "%{byte:02X}").expect("writing to a string does not fail"),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::kubectl::output::tests::report;

    #[test]
    fn a_log_has_what_the_standard_requires() {
        let log = log(&report());
        assert_eq!(log["version"], "2.1.0");
        let run = &log["runs"][0];
        let driver = &run["tool"]["driver"];
        assert_eq!(driver["name"], "kubectl-pki");
        let rules = driver["rules"].as_array().unwrap();
        for result in run["results"].as_array().unwrap() {
            assert!(!result["message"]["text"].as_str().unwrap().is_empty());
            assert!(matches!(
                result["level"].as_str(),
                Some("error" | "warning")
            ));
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[index]["id"], result["ruleId"]);
            assert!(rules[index]["shortDescription"]["text"].is_string());
            let region = &result["locations"][0]["physicalLocation"]["region"];
            assert!(
                region["startLine"].as_u64() >= Some(1)
                    && region["startColumn"].as_u64() >= Some(1)
            );
        }
        let place = &run["results"][0]["locations"][0]["physicalLocation"];
        assert_eq!(
            place["artifactLocation"]["uri"],
            "a%20b/%C3%A4pp1%2Cx%3Ay%25.yaml"
        );
    }

    #[test]
    fn every_reason_of_a_rule_is_described() {
        for rule in ["PkiServiceNameError", "PkiUriError", "UnknownField"] {
            let text = describe(rule)["shortDescription"]["text"].clone();
            assert_ne!(text, rule, "{text}");
        }
    }
}
