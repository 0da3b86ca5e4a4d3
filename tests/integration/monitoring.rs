//! What the chart gives to Prometheus and Grafana asks for metrics that there are.

use crate::harness::SHARED;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

fn of_chart(file: &str) -> Value {
    let path = format!(
        "{}/charts/pki-operator/monitoring/{file}",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    // All JSON is YAML.
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The families of our metrics in a text: their names without the endings that Prometheus' types add.
fn families(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter_map(|word| word.strip_prefix("pki_operator_"));
    let family = |name: &'_ str| {
        let endings = ["_total", "_bucket", "_info"];
        endings
            .iter()
            .find_map(|ending| name.strip_suffix(ending))
            .map(str::len)
    };
    ours.map(|name| &name[..family(name).unwrap_or(name.len())])
        .collect()
}

/// Those that the README explains.
fn explained() -> BTreeSet<&'static str> {
    let rows = include_str!("../../README.md").lines();
    families_of(rows.filter(|line| line.starts_with("| `pki_operator_")))
}

fn families_of<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    lines.flat_map(families).collect()
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let alerts = of_chart("alerts.yaml");
    let alerts = alerts["groups"][0]["rules"].as_array().unwrap();
    assert!(alerts.len() >= 10);
    for alert in alerts {
        let asked = families(alert["expr"].as_str().unwrap());
        assert!(
            !asked.is_empty() && asked.is_subset(&explained()),
            "{alert}"
        );
        for text in [
            "/labels/severity",
            "/annotations/summary",
            "/annotations/description",
        ] {
            assert!(
                alert.pointer(text).is_some_and(Value::is_string),
                "{text} of {alert}"
            );
        }
    }
    let dashboard = of_chart("dashboard.json");
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    let shown = families_of(targets.map(|target| target["expr"].as_str().unwrap()));
    let unshown: Vec<_> = explained().difference(&shown).copied().collect();
    let elsewhere = [
        "build",
        "certificate_not_before_timestamp_seconds",
        "certificate_renewal_timestamp_seconds",
    ];
    assert_eq!(unshown, elsewhere, "no panel shows them");
    assert!(shown.is_subset(&explained()));
}

#[test]
fn every_metric_is_explained() {
    let ns = SHARED.namespace("monitored");
    ns.apply_pki("app1", r#"{"serviceName": "app1"}"#).unwrap();
    ns.wait_until_ready("app1");
    let (status, page) = SHARED.operator.get("/metrics").unwrap();
    assert_eq!(status, 200);
    let served = families_of(page.lines().filter(|line| line.starts_with("# TYPE ")));
    assert!(served.len() > 10, "{page}");
    let unexplained: Vec<_> = served.difference(&explained()).copied().collect();
    assert!(unexplained.is_empty(), "not in README.md: {unexplained:?}");
}
