//! One namespace does not delay another, and an annotation that comes again and again does not
//! renew again and again.

use crate::harness::{Namespace, SHARED, arena, eventually, notes};
use pki_cluster::testing::manifest;
use serde_json::{Value, json};
use std::time::Instant;

const FLOOD: usize = 150;

fn rsa() -> Value {
    json!({"serviceName": "app1", "privateKey": {"algorithm": "RSA", "size": 4096}})
}

/// How many Pkis of the flood have their Secrets.
fn served(flood: &Namespace<'_>) -> usize {
    let secrets = flood.list("secrets", "");
    let names = secrets
        .iter()
        .filter_map(|it| it["metadata"]["name"].as_str());
    names.filter(|name| name.starts_with("p-")).count()
}

/// Waits for another Pki. Returns how many of the flood were served meanwhile; none while
/// Kubernetes collects the Secrets of a flood that was deleted.
fn overtakes(flood: &Namespace<'_>, ns: &Namespace<'_>, name: &str, spec: &str) -> usize {
    let (begin, before) = (Instant::now(), served(flood));
    ns.apply_pki(name, spec);
    ns.wait_until_ready(name);
    let (took, meanwhile) = (begin.elapsed(), served(flood).saturating_sub(before));
    println!("{name}: ready after {took:.1?}, while {meanwhile} of {FLOOD} RSA keys were made");
    meanwhile
}

#[test]
fn a_namespace_with_150_rsa_keys_to_make_does_not_delay_another() {
    let arena = arena();
    let _operator = arena.first_replica("operator-1", &[]).unwrap();
    let [flood, other] = ["flood", "other"].map(|prefix| arena.namespace(prefix));
    let refused = flood.create_all(&vec![rsa(); FLOOD], false);
    assert!(refused.is_empty(), "{refused:?}");

    let quick = r#"{"serviceName": "app1"}"#;
    let meanwhile = overtakes(&flood, &other, "ecdsa", quick);
    assert!(meanwhile < 10, "{meanwhile}");
    let meanwhile = overtakes(&flood, &flood, "ecdsa", quick);
    assert!(meanwhile < 10, "not even in the same one: {meanwhile}");
    let meanwhile = overtakes(&flood, &other, "rsa", &rsa().to_string());
    assert!(meanwhile < 10, "its key is made in turn: {meanwhile}");
    let served = served(&flood);
    assert!(served < FLOOD / 2, "the flood is over: {served}");

    let last = format!("p-{}", FLOOD - 1);
    let said = flood.wait_until_refused(&last, "PkiKeyPending");
    assert!(
        said.contains("as soon as there is a new RSA 4096 key"),
        "{said}"
    );
    assert!(flood.events("Pki", &last).is_empty(), "it is no fault");
    flood.delete_all_later("pkis");
    let meanwhile = overtakes(&flood, &other, "later", &rsa().to_string());
    assert!(
        meanwhile <= 2,
        "no key is made for who is gone: {meanwhile}"
    );
}

/// How many certificates were written here.
fn issued(ns: &Namespace<'_>) -> usize {
    let writes = ns.operator_writes().into_iter();
    let secrets = writes.filter(|(write, _)| write.what.ends_with(" secrets") && write.code < 300);
    secrets.map(|(_, count)| count).sum()
}

fn request(ns: &Namespace<'_>, value: &str) {
    ns.annotate("pki", "app1-pki", "box.com/renew-now", value);
}

#[test]
fn requests_in_a_row_renew_once_and_the_same_value_never_again() {
    let ns = SHARED.namespace("requests");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    let first = ns.wait_until_ready("app1-pki");
    let pki = || ns.get("pki", "app1-pki").unwrap();
    let message = || {
        let message = pki()["status"]["renewalRequest"]["message"].take();
        message.as_str().unwrap_or_default().to_owned()
    };
    for number in 1..=15 {
        request(&ns, &format!("request-{number}"));
    }
    eventually("it is renewed", || {
        (pki()["status"]["serialNumber"] != first["status"]["serialNumber"]).then_some(())
    });
    eventually("the message says when the last request is served", || {
        message()
            .contains("; the next request is served at 20")
            .then_some(())
    });
    ns.barrier();
    assert_eq!(issued(&ns), 2, "the first one, and one on request");
    let status = pki()["status"].clone();
    let published = notes(&ns.wait_for_events("Pki", "app1-pki", 1));
    let published_when = published
        .iter()
        .any(|note| note.starts_with("Normal: renewed on request at 20"));
    assert!(published_when, "{published:?}");
    assert!(
        message().contains(status["renewalTime"].as_str().unwrap()),
        "{status}"
    );
    assert_eq!(
        pki()["metadata"]["annotations"]["box.com/renew-now"],
        "request-15",
        "it is still to be served"
    );

    // More than five minutes pass.
    let long_ago = json!({"status": {"renewalRequest": {"servedTime": "2026-01-01T00:00:00Z"}}});
    ns.merge_status("app1-pki", &long_ago);
    request(&ns, "request-16");
    eventually("the next request is served", || {
        let is_taken = pki()["metadata"]["annotations"]["box.com/renew-now"].is_null();
        (is_taken && issued(&ns) == 3).then_some(())
    });
    eventually("its value is known", || {
        (pki()["status"]["renewalRequest"]["value"] == "request-16").then_some(())
    });

    // As a repository does that is applied again and again.
    for _ in 0..3 {
        request(&ns, "request-16");
    }
    eventually("the message says that it is a repetition", || {
        message()
            .contains("each value is served once")
            .then_some(())
    });
    ns.barrier();
    assert_eq!(issued(&ns), 3, "the same value renews nothing");
}

#[test]
fn a_manifest_that_carries_the_annotation_for_ever_renews_once() {
    let ns = SHARED.namespace("repository");
    let apply = |annotations: Value| {
        let mut pki = manifest::pki("app1-pki", &json!({"serviceName": "app1"}));
        pki["metadata"]["annotations"] = annotations;
        ns.apply_object(&pki);
        ns.wait_until_ready("app1-pki");
    };
    let again_and_again = |value: &str, expected: usize| {
        for _ in 0..3 {
            apply(json!({"box.com/renew-now": value}));
            eventually("it is served", || (issued(&ns) >= expected).then_some(()));
            ns.barrier();
            assert_eq!(issued(&ns), expected, "{value}");
        }
    };
    // The first certificate is new by itself.
    again_and_again("first", 1);
    ns.forget_renewal("app1-pki");
    again_and_again("second", 2);
}
