//! What the chart gives to Prometheus and Grafana asks for metrics that there are.

use crate::harness::SHARED;
use serde_json::Value;
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

/// The names of our metrics in an expression, without the endings that Prometheus' types add.
fn metrics(expression: &str) -> Vec<&str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("pki_operator_"));
    let family = |name: &'_ str| {
        ["_total", "_bucket"]
            .iter()
            .find_map(|end| name.strip_suffix(end).map(str::len))
    };
    ours.map(|name| &name[..family(name).unwrap_or(name.len())])
        .collect()
}

fn each_metric_is_there(expression: &str, page: &str) {
    let metrics = metrics(expression);
    assert!(!metrics.is_empty(), "{expression}");
    for metric in metrics {
        assert!(
            page.contains(&format!("# TYPE {metric} ")),
            "{metric} of {expression} is not in {page}"
        );
    }
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let ns = SHARED.namespace("monitored");
    ns.apply_pki("app1", r#"{"serviceName": "app1"}"#).unwrap();
    ns.wait_until_ready("app1");
    let (status, page) = SHARED.operator.get("/metrics").unwrap();
    assert_eq!(status, 200);

    let alerts = of_chart("alerts.yaml");
    let alerts = alerts["groups"][0]["rules"].as_array().unwrap();
    assert!(alerts.len() >= 10);
    for alert in alerts {
        each_metric_is_there(alert["expr"].as_str().unwrap(), &page);
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
    for target in panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
    {
        each_metric_is_there(target["expr"].as_str().unwrap(), &page);
    }
    let shown = panels.iter().map(ToString::to_string).collect::<String>();
    for family in page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE pki_operator_"))
    {
        let name = family.split(' ').next().unwrap();
        let is_elsewhere = [
            "build",
            "certificate_not_before_timestamp_seconds",
            "certificate_renewal_timestamp_seconds",
        ];
        assert!(
            shown.contains(name) || is_elsewhere.contains(&name),
            "no panel shows {name}"
        );
    }
}
