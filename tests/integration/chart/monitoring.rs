//! What the chart gives to Prometheus and Grafana asks for metrics that there are.

use crate::harness::{SHARED, arena, eventually};
use pki_cluster::install::{free_address, get};
use pki_cluster::{Cluster, Process, needs};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

fn path_of_chart(file: &str) -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    format!("{root}/charts/pki-operator/monitoring/{file}")
}

fn of_chart(file: &str) -> Value {
    let path = path_of_chart(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    // All JSON is YAML.
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The families of our metrics in a text: their names without the endings that Prometheus' types
/// add.
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

/// Those that the guide explains.
fn explained() -> BTreeSet<&'static str> {
    let rows = include_str!("../../../src/guide/monitoring.md").lines();
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
    let queries = queries_of_dashboard();
    let shown = families_of(queries.iter().map(String::as_str));
    let unshown: Vec<_> = explained().difference(&shown).copied().collect();
    let elsewhere = [
        "build",
        "certificate_not_before_timestamp_seconds",
        "certificate_renewal_timestamp_seconds",
    ];
    assert_eq!(unshown, elsewhere, "no panel shows them");
    assert!(shown.is_subset(&explained()));
}

fn queries_of_dashboard() -> Vec<String> {
    let dashboard = of_chart("dashboard.json");
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    targets
        .map(|target| target["expr"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
#[ignore = "needs the package prometheus: cargo test --test integration -- --ignored prometheus"]
fn prometheus_reads_our_page_and_answers_what_alerts_and_dashboard_ask() {
    needs::check(&[needs::PROMETHEUS]).unwrap();
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("scraped");
    ns.apply_pki("app1", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("app1");
    ns.try_apply_pki("typo", r#"{"serviceName": "appp1"}"#)
        .unwrap_err();
    arena.without_webhooks();
    eventually("the typo is stored", || {
        ns.try_apply_pki("typo", r#"{"serviceName": "appp1"}"#).ok()
    });
    ns.wait_until_refused("typo", "PkiServiceNameError");

    let prometheus = Prometheus::start(&arena.cluster, operator.metrics);
    for query in queries_of_dashboard() {
        let answer = eventually(&format!("an answer to {query}"), || {
            let answer = prometheus.ask(&format!("query?query={}", encoded(&query)))?;
            assert_eq!(answer["status"], "success", "{query}: {answer}");
            let has_values = answer["data"]["result"] != json!([]);
            // Nothing is the matter with the CA, so these have nothing to show.
            let of_trouble = ["_ca_alarm", "_waiting_for", "_blocked_by"];
            let is_about_trouble = of_trouble.iter().any(|it| query.contains(it));
            (has_values || is_about_trouble).then_some(answer)
        });
        println!("{query}: {}", answer["data"]["result"]);
    }
    let rules = eventually("the rules are evaluated", || {
        let rules = prometheus.ask("rules")?["data"]["groups"][0]["rules"].take();
        let rules = rules.as_array()?.clone();
        rules
            .iter()
            .all(|rule| rule["health"] != "unknown")
            .then_some(rules)
    });
    assert!(rules.len() >= 10);
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    // It has to last for half an hour before somebody is called.
    let refused = rules.iter().find(|rule| rule["name"] == "PkisRefused");
    assert_eq!(refused.unwrap()["state"], "pending");
}

/// A Prometheus that scrapes the operator, with the alerts of the chart.
struct Prometheus {
    address: SocketAddr,
    _process: Process,
}

impl Prometheus {
    fn start(cluster: &Cluster, target: SocketAddr) -> Self {
        let dir = cluster.dir().join("prometheus");
        fs::create_dir_all(&dir).unwrap();
        let address = free_address().unwrap();
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "scrape_configs": [{"job_name": "operator", "static_configs": [{"targets": [target.to_string()]}]}],
            "rule_files": [path_of_chart("alerts.yaml")]
        });
        let file = dir.join("prometheus.yaml");
        fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"));
        let process = cluster.spawn("prometheus", &command).unwrap();
        let prometheus = Self {
            address,
            _process: process,
        };
        eventually("Prometheus is ready", || prometheus.ask("status/buildinfo"));
        prometheus
    }

    /// What its API answers, unless it is not up yet.
    fn ask(&self, path: &str) -> Option<Value> {
        let (_, body) = get(self.address, &format!("/api/v1/{path}")).ok()?;
        // While it starts it says so in plain text.
        serde_json::from_str(&body).ok()
    }
}

/// As a part of a URL.
fn encoded(text: &str) -> String {
    let escape = |url: String, byte: u8| url + &format!("%{byte:02x}");
    text.bytes().fold(String::new(), escape)
}

#[test]
fn every_metric_is_explained() {
    let ns = SHARED.namespace("monitored");
    ns.apply_pki("app1", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("app1");
    let (status, page) = SHARED.operator.get("/metrics").unwrap();
    assert_eq!(status, 200);
    let served = families_of(page.lines().filter(|line| line.starts_with("# TYPE ")));
    assert!(served.len() > 10, "{page}");
    let unexplained: Vec<_> = served.difference(&explained()).copied().collect();
    assert!(
        unexplained.is_empty(),
        "not in monitoring.md: {unexplained:?}"
    );
}
