//! Traces: what belongs together can be found, in the log and at the collector.

use crate::admission::webhook::client::Webhook;
use crate::admission::webhook::review;
use crate::harness::{Installed, PATIENCE, arena, eventually};
use collector::{Collector, Span};
use jiff::{SignedDuration, Timestamp};
use pki_certs::Authority;
use pki_cluster::Signal;
use pki_cluster::install::Operator;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;

mod collector;

/// What an API server sends along that traces its requests.
const THEIRS: &str = "0af7651916cd43dd8448eb211c80319c";

#[test]
fn each_record_about_a_request_or_a_pki_has_its_trace_id() {
    let arena = arena();
    let operator = arena
        .first_replica("operator-1", &["--log-format=json"])
        .unwrap();
    ask_in_a_trace(&arena, "d1fc1f56");
    let refused = records(&operator, "refused", |span| span["trace_id"] == THEIRS).remove(0);
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
    ns.try_apply_pki("wrong", wrong).unwrap_err();
    ns.try_apply_pki("wrong", wrong).unwrap_err();
    ns.apply_pki("right", r#"{"serviceName": "app1"}"#);
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

#[test]
fn a_collector_gets_a_span_of_each_request_and_each_reconcile() {
    let (arena, collector) = (arena(), Collector::start());
    let endpoint = format!("--otlp-endpoint={}", collector.url);
    let flags = ["--log-format=json", &endpoint];
    let operator = arena.first_replica("operator-1", &flags).unwrap();
    let ns = arena.namespace("exported");
    ns.apply_pki("right", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("right");
    ns.try_apply_pki("wrong", r#"{"serviceName": "appp1"}"#)
        .unwrap_err();
    ask_in_a_trace(&arena, "d1fc1f56");

    let of = |webhook: &str, name: &str| {
        let is_such = |span: &Span| span.name == webhook && span.attribute("object.name") == name;
        eventually(&format!("a span {webhook} of {name} is exported"), || {
            collector.spans(is_such).pop()
        })
    };
    let admitted = of("validate", "right");
    for (name, expected) in [
        ("admission.allowed", "true"),
        ("admission.dry_run", "false"),
        ("admission.operation", "Create"),
        ("object.kind", "Pki"),
        ("object.namespace", &ns.name),
    ] {
        assert_eq!(admitted.attribute(name), expected, "{admitted:?}");
    }
    for (name, expected) in [
        ("service.name", "pki-operator"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", "operator-1"),
        ("k8s.namespace.name", "pki-operator"),
    ] {
        assert_eq!(admitted.resource[name], expected, "{admitted:?}");
    }
    let refused = of("validate", "wrong");
    assert_eq!(refused.attribute("admission.allowed"), "false");
    assert_eq!(
        refused.attribute("admission.reasons"),
        "PkiServiceNameError"
    );
    let asked = of("validate", "app1-pki");
    assert_eq!(
        (asked.trace_id.as_str(), asked.parent.as_str()),
        (THEIRS, "b7ad6b7169203331")
    );
    assert_eq!(asked.attribute("admission.uid"), "d1fc1f56");

    let is_issuance = |span: &Span| span.attribute("pki.issuance") == "missing";
    let issuance = collector.spans(is_issuance).pop().unwrap();
    assert_eq!(issuance.name, "reconcile");
    assert_eq!(issuance.attribute("object.name"), "right");
    assert_eq!(issuance.attribute("pki.reason"), "PkiReady");
    let issued = records(&operator, "issued", |span| span["object"] == "right");
    assert_eq!(issued[0]["span"]["trace_id"], issuance.trace_id.as_str());

    // The spans have no other attributes.
    let published = collector.spans(|_| true);
    let names: BTreeSet<_> = published
        .iter()
        .flat_map(|span| span.attributes.keys())
        .collect();
    let expected = [
        "admission.allowed",
        "admission.dry_run",
        "admission.operation",
        "admission.reasons",
        "admission.uid",
        "object.kind",
        "object.name",
        "object.namespace",
        "pki.issuance",
        "pki.reason",
    ];
    assert_eq!(Vec::from_iter(names), expected);

    ns.try_apply_pki("last", r#"{"serviceName": "appp1"}"#)
        .unwrap_err();
    operator.process.signal(Signal::TERM).unwrap();
    operator.process.wait(PATIENCE).unwrap();
    assert!(
        !collector
            .spans(|span| span.attribute("object.name") == "last")
            .is_empty(),
        "what was not sent yet is sent at the end"
    );
}

#[test]
fn a_collector_is_believed_only_if_its_ca_is_known() {
    let arena = arena();
    let authority = |name| {
        let authority = Authority::generate(name, SignedDuration::from_hours(1), Timestamp::now());
        authority.unwrap()
    };
    let (known, other) = (authority("known"), authority("other"));
    let ca = arena.cluster.dir().join("collector-ca.crt");
    fs::write(&ca, known.ca().root_pem()).unwrap();
    let ca = format!("--otlp-ca={}", ca.display());
    let run = |collector: &Collector| {
        let endpoint = format!("--otlp-endpoint={}", collector.url);
        arena
            .first_replica("operator-1", &[&endpoint, &ca])
            .unwrap()
    };
    let ns = arena.namespace("tls");
    let apply = |name: &str| ns.apply_pki(name, r#"{"serviceName": "app1"}"#);

    let collector = Collector::start_tls(&known);
    let operator = run(&collector);
    apply("first");
    eventually("spans are exported", || {
        collector
            .spans(|span| span.attribute("object.name") == "first")
            .pop()
    });
    drop(operator);

    let collector = Collector::start_tls(&other);
    let operator = run(&collector);
    apply("second");
    eventually("it is logged why", || {
        operator
            .process
            .log()
            .contains("UnknownIssuer")
            .then_some(())
    });
    assert!(collector.spans(|_| true).is_empty());
}

#[test]
fn a_collector_that_does_not_answer_does_no_harm() {
    let arena = arena();
    // Its system takes the connections, and nobody reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("--otlp-endpoint=http://{}", silent.local_addr().unwrap());
    let operator = arena.first_replica("operator-1", &[&endpoint]).unwrap();
    let ns = arena.namespace("silent");
    for number in 0..3 {
        let pki = format!("pki-{number}");
        ns.apply_pki(&pki, r#"{"serviceName": "app1"}"#);
        ns.wait_until_ready(&pki);
    }
    let warning = "the collector does not accept traces, so they are dropped";
    let warned = || {
        let log = operator.process.log();
        log.lines()
            .find(|line| line.contains(warning))
            .map(str::to_owned)
    };
    let published = eventually("it is logged", warned);
    assert!(
        published.contains("it does not answer within 5 s"),
        "{published}"
    );
    ns.apply_pki("more", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("more");
    operator.process.signal(Signal::TERM).unwrap();
    assert!(operator.process.wait(PATIENCE).unwrap().success());
}

/// Has the webhook refuse a review that comes from a request which the API server traces.
fn ask_in_a_trace(arena: &Installed, uid: &str) {
    let traceparent = format!("traceparent: 00-{THEIRS}-b7ad6b7169203331-01");
    let body = review(uid, "appp1").to_string();
    let (status, _) = Webhook::of(arena).post_with("/validate", &traceparent, body.as_bytes());
    assert_eq!(status, 200);
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
