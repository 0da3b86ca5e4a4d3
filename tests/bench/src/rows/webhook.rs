//! The webhook by itself, over HTTPS.

use crate::report::Row;
use crate::stage::{NAMESPACE, Stage};
use anyhow::Context as _;
use pki_cluster::testing::manifest;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

const SECONDS: &str = "10s";

/// As much as it answers, and a steady thousand a second.
pub(crate) fn rows(stage: &Stage) -> anyhow::Result<[Row; 2]> {
    let body = stage.cluster.dir().join("review.json");
    fs::write(&body, review().to_string())?;
    let body = body.display().to_string();
    let url = stage.webhook_url()?;
    let ask = |name: &str, options: &[&str]| -> anyhow::Result<Row> {
        let before = stage.usage()?;
        let printed = oha(&[options, &["-D", &body, &url]].concat())?;
        let after = stage.usage()?;
        let seconds = |pointer: &str| printed.pointer(pointer).and_then(Value::as_f64);
        let rate = seconds("/summary/requestsPerSec").context("oha tells no rate")?;
        anyhow::ensure!(
            seconds("/summary/successRate") == Some(1.0),
            "not all requests were answered: {printed}"
        );
        let milliseconds = |pointer: &str| seconds(pointer).map(|seconds| seconds * 1000.0);
        Ok(Row {
            name: name.into(),
            objects: 16,
            rate,
            p50: milliseconds("/latencyPercentiles/p50"),
            p99: milliseconds("/latencyPercentiles/p99"),
            cpu: Some(after.cpu - before.cpu),
            resident: Some(after.resident),
            ..Row::default()
        })
    };
    Ok([
        ask("webhook alone, 16 clients", &["-c", "16", "-z", SECONDS])?,
        ask(
            "webhook alone, 1,000 a second",
            &["-c", "16", "-z", SECONDS, "-q", "1000"],
        )?,
    ])
}

fn oha(arguments: &[&str]) -> anyhow::Result<Value> {
    let mut oha = Command::new("oha");
    oha.args([
        "--no-tui",
        "--insecure",
        "--output-format",
        "json",
        "-m",
        "POST",
        "-T",
        "application/json",
    ]);
    oha.args(arguments);
    let output = oha.output().context("starting oha")?;
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "oha failed: {error}");
    serde_json::from_slice(&output.stdout).context("oha prints JSON")
}

/// The question about an admitted Pki.
fn review() -> Value {
    let pki = manifest::pki("app1", &json!({"serviceName": "app1"}));
    let pki = manifest::in_namespace(NAMESPACE, pki);
    let kind = json!({"group": "box.com", "version": "v1", "kind": "Pki"});
    let resource = json!({"group": "box.com", "version": "v1", "resource": "pkis"});
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "0c9a8d74-0000-0000-0000-000000000000",
            "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "name": "app1", "namespace": NAMESPACE, "operation": "CREATE",
            "userInfo": {"username": "bench", "groups": ["system:authenticated"]},
            "object": pki, "oldObject": null, "dryRun": false, "options": null
        }
    })
}
