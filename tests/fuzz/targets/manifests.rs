//! Files with manifests, as `kubectl pki check` reads them.

use super::{lossy, oracle, policy, rule_book};
use pki_operator::api::PkiPolicy;
use pki_operator::cli::kubectl::check::{self, CheckReport, CheckSettings};
use pki_operator::cli::kubectl::manifests::{self, Manifests};
use pki_operator::cli::kubectl::output::{Format, render, summary};
use pki_operator::policy::RuleBook;
use pki_operator::util::yaml::{self, Position};
use serde_json::{Value, json};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

static RULES: LazyLock<RuleBook> = LazyLock::new(|| rule_book(&POLICIES[..]));

static POLICIES: LazyLock<[PkiPolicy; 2]> = LazyLock::new(|| {
    let own = json!({
        "serviceNames": ["app1", "{namespace}-*"], "dnsNames": ["*.{namespace}.example.com"], "ipAddresses": ["10.0.0.0/8"],
        "uris": ["spiffe://example.com/ns/{namespace}/*"],
    });
    let labelled = json!({
        "namespaces": {"selector": {"matchLabels": {"team": "payments"}}}, "serviceNames": ["pay-*"], "maxDuration": "720h",
    });
    [policy("own", own), policy("labelled", labelled)]
});

/// Checks a file by a fixed rule book, and by the policies that it has itself; and shows in every
/// form what is found.
pub fn manifests(data: &[u8]) {
    let begin = Instant::now();
    let file = [manifests::parse("a,b:c%.yaml", data)];
    judge(&file, &RULES, data);
    let own = check::policies(&file);
    if !own.is_empty() {
        judge(&file, &rule_book(&own), data);
    }
    for manifest in &file[0].objects {
        reads_its_own_json(&manifest.node.to_json());
    }
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(20), "it took {took:?}");
}

fn judge(file: &[Manifests], rules: &RuleBook, data: &[u8]) {
    let report = report(file, rules);
    check_places(&report, data);
    check_forms(&report);
}

fn report(file: &[Manifests], rules: &RuleBook) -> CheckReport {
    let now = "2030-01-01T00:00:00Z".parse().expect("a time");
    let settings = CheckSettings {
        answers: None,
        rules,
        namespace: "default",
        now,
    };
    let mut objects = 0;
    let report = check::check(file, &settings, || objects += 1);
    assert_eq!(objects, report.pkis + report.policies);
    assert_eq!(objects, file[0].objects.len());
    report
}

/// Every place is one in the file: a character of it, or the end of a line.
fn check_places(report: &CheckReport, data: &[u8]) {
    let text = lossy(data);
    let text = text
        .strip_prefix('\u{feff}')
        .unwrap_or(&text)
        .replace("\r\n", "\n")
        .replace('\r', "\n");
    let lines: Vec<_> = text.split('\n').map(|line| line.chars().count()).collect();
    for finding in &report.findings {
        let Position { line, column } = finding.at;
        let length = lines.get(line.wrapping_sub(1));
        let is_inside = length.is_some_and(|length| (1..=length + 1).contains(&column));
        assert!(is_inside, "{line}:{column} of {lines:?}: {finding:?}");
        assert!(
            !finding.message.is_empty() && !finding.reason.is_empty(),
            "{finding:?}"
        );
    }
}

fn check_forms(report: &CheckReport) {
    let count = report.findings.len();
    let [text, json, sarif, github] = [Format::Text, Format::Json, Format::Sarif, Format::Github]
        .map(|format| render(report, format));
    let colourless = anstream::adapter::strip_str(&text).to_string();
    for (form, lines) in [("text", colourless), ("github", github)] {
        assert_eq!(lines.matches('\n').count(), count, "{form}: {lines:?}");
        assert!(
            lines.split('\n').all(oracle::is_readable),
            "{form}: {lines:?}"
        );
        let begins = |line: &str| {
            form == "text"
                || line.starts_with("::error file=a%2Cb%3Ac%25.yaml,line=")
                || line.starts_with("::warning file=")
        };
        assert!(lines.lines().all(begins), "{form}: {lines:?}");
    }
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["findings"].as_array().map(Vec::len), Some(count));
    assert_eq!(json["violations"], report.violations());
    assert_eq!(json["warnings"], report.warnings());
    check_sarif(&serde_json::from_str(&sarif).expect("JSON"), count);
    assert!(summary(report).starts_with("checked "));
}

/// What SARIF 2.1.0 requires of a log, and scanners of a result.
fn check_sarif(log: &Value, count: usize) {
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let driver = &run["tool"]["driver"];
    assert_eq!(driver["name"], "kubectl-pki");
    let results = run["results"].as_array().expect("results");
    assert_eq!(results.len(), count);
    for result in results {
        let index = result["ruleIndex"].as_u64().expect("a rule");
        let index = usize::try_from(index).expect("an index");
        assert_eq!(driver["rules"][index]["id"], result["ruleId"]);
        assert!(driver["rules"][index]["shortDescription"]["text"].is_string());
        assert!(matches!(
            result["level"].as_str(),
            Some("error" | "warning")
        ));
        assert!(
            result["message"]["text"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "a%2Cb%3Ac%25.yaml");
        let region = &place["region"];
        assert!(
            region["startLine"].as_u64() >= Some(1) && region["startColumn"].as_u64() >= Some(1)
        );
    }
}

/// JSON is YAML: what was read, written as JSON, is read as the same.
fn reads_its_own_json(value: &Value) {
    let documents = yaml::documents(&value.to_string());
    let read: Vec<_> = documents
        .into_iter()
        .map(|document| document.map(|node| node.to_json()))
        .collect();
    assert_eq!(read, [Ok(value.clone())]);
}
