//! Trace ids: what belongs together in the log can be found.

use crate::harness::{arena, eventually};
use crate::webhook::client::Webhook;
use crate::webhook::review;
use pki_cluster::install::Operator;
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn each_record_about_a_request_or_a_pki_has_its_trace_id() {
    let arena = arena();
    let operator = arena
        .first_replica("operator-1", &["--log-format=json"])
        .unwrap();
    let theirs = "0af7651916cd43dd8448eb211c80319c";
    let traceparent = format!("traceparent: 00-{theirs}-b7ad6b7169203331-01");
    let body = review("d1fc1f56", "appp1").to_string();
    let (status, _) = Webhook::of(&arena).post_with("/validate", &traceparent, body.as_bytes());
    assert_eq!(status, 200);
    let refused = records(&operator, "refused", |span| span["trace_id"] == theirs).remove(0);
    for (pointer, expected) in [
        ("/level", "INFO"),
        ("/span/name", "admission"),
        ("/span/webhook", "validate"),
        ("/span/uid", "d1fc1f56"),
        ("/span/object", "app1-pki"),
        ("/fields/operation", "Create"),
        ("/fields/reasons", "PkiServiceNameError"),
        (
            "/fields/rules",
            "spec.serviceName: ServiceName: appp1 in pki: app1-pki is not found in allowedNames: [app1 app2]; did you mean \"app1\"?",
        ),
    ] {
        let found = refused.pointer(pointer).and_then(Value::as_str);
        assert_eq!(found, Some(expected), "{refused}");
    }
    assert_eq!(refused["fields"]["dry_run"], false);

    let ns = arena.namespace("traced");
    let wrong = r#"{"serviceName": "appp1"}"#;
    ns.apply_pki("wrong", wrong).unwrap_err();
    ns.apply_pki("wrong", wrong).unwrap_err();
    ns.apply_pki("right", r#"{"serviceName": "app1"}"#).unwrap();
    ns.wait_until_ready("right");
    let is_here = |span: &Value| span["namespace"] == ns.name.as_str();
    let issued = records(&operator, "issued", is_here);
    assert_eq!(issued.len(), 1);
    assert_eq!(issued[0]["span"]["name"], "reconcile");
    assert_eq!(issued[0]["span"]["object"], "right");
    let refused = records(&operator, "refused", is_here);
    assert_eq!(refused.len(), 2);
    let ids = issued.iter().chain(&refused);
    let ids: BTreeSet<_> = ids
        .map(|it| it["span"]["trace_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 3, "each has its own: {ids:?}");
    for id in ids {
        assert!(
            id.len() == 32 && id.bytes().all(|c| c.is_ascii_hexdigit()),
            "{id}"
        );
    }
}

/// The records with this message in such a span; there is one at least.
fn records(operator: &Operator, message: &str, is_such: impl Fn(&Value) -> bool) -> Vec<Value> {
    eventually(&format!("\"{message}\" is logged"), || {
        let log = operator.process.log();
        // The last line may be half written.
        let records = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found = records.filter(|it| it["fields"]["message"] == message && is_such(&it["span"]));
        Some(found.collect::<Vec<_>>()).filter(|found| !found.is_empty())
    })
}
