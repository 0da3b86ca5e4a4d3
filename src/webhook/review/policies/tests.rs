//! Reviews of policies as the API server sends them, and the answers.

use super::*;
use crate::webhook::review::read;
use serde_json::{Value, json};
use std::iter;
use std::sync::Arc;

fn policy(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "box.com/v1", "kind": "PkiPolicy", "metadata": { "name": name }, "spec": spec })
}

fn request(operation: &str, object: &Value, old: &Value) -> Request {
    let kind = json!({ "group": "box.com", "version": "v1", "kind": "PkiPolicy" });
    let resource = json!({ "group": "box.com", "version": "v1", "resource": "pkipolicies" });
    let name = [object, old]
        .into_iter()
        .find_map(|object| object["metadata"]["name"].as_str());
    let review = json!({ "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
        "uid": "0c9a8d74", "kind": kind, "resource": resource, "name": name, "operation": operation,
        "userInfo": { "username": "ann" }, "object": object, "oldObject": old, "dryRun": false } });
    read(review.to_string().as_bytes()).expect("a review")
}

fn rules(policies: &[Value]) -> RuleBook {
    let policies = policies
        .iter()
        .map(|policy| serde_json::from_value(policy.clone()).unwrap());
    RuleBook::new(Arc::default(), &policies.collect::<Vec<PkiPolicy>>())
}

/// A Pki that has a certificate.
fn stored(namespace: &str, name: &str, service: &str) -> Pki {
    let pki = json!({ "apiVersion": "box.com/v1", "kind": "Pki", "metadata": { "namespace": namespace, "name": name },
        "spec": { "serviceName": service }, "status": { "serialNumber": "01" } });
    serde_json::from_value(pki).unwrap()
}

fn without_secret(mut pki: Pki) -> Pki {
    pki.status = None;
    pki
}

#[test]
fn a_policy_is_admitted_when_each_of_its_rules_can_match() {
    let judge = |spec: &Value| {
        let request = request("CREATE", &policy("p", spec), &Value::Null);
        validate_policy(&request, &RuleBook::default(), iter::empty(), || true)
    };
    let good = judge(&json!({ "serviceNames": ["app1"], "dnsNames": ["*.example.com"] }));
    assert!(good.allowed && good.warnings.is_none());

    let bad = judge(&json!({ "serviceNames": ["App1"], "ipAddresses": ["10.0.0.0/99"] }));
    assert!(!bad.allowed);
    let message = &bad.result.message;
    assert!(
        message.starts_with("PkiPolicy p:\n  spec.serviceNames[0]: \"App1\" can never match"),
        "{message}"
    );
    let causes = &bad.result.details.as_ref().unwrap().causes;
    let fields: Vec<_> = causes.iter().map(|cause| cause.field.as_str()).collect();
    assert_eq!(fields, ["spec.serviceNames[0]", "spec.ipAddresses[0]"]);

    for unreadable in [
        json!(null),
        json!({}),
        json!({ "serviceNames": 5 }),
        json!([1]),
    ] {
        let response = judge(&unreadable);
        assert!(!response.allowed, "{unreadable}");
        assert_eq!(response.result.code, 422);
    }
}

#[test]
fn a_policy_that_was_stored_unchecked_can_be_labelled_and_repaired_but_not_made_worse() {
    let bad = policy("p", &json!({ "serviceNames": ["App1"] }));
    let mut labelled = bad.clone();
    labelled["metadata"]["labels"] = json!({ "a": "b" });
    let judge = |new: &Value| {
        validate_policy(
            &request("UPDATE", new, &bad),
            &RuleBook::default(),
            iter::empty(),
            || true,
        )
    };
    let response = judge(&labelled);
    assert!(response.allowed);
    let warnings = response.warnings.unwrap();
    assert!(
        warnings[0].starts_with("still invalid: spec.serviceNames[0]: "),
        "{warnings:?}"
    );
    assert!(judge(&policy("p", &json!({ "serviceNames": ["app1"] }))).allowed);
    assert!(!judge(&policy("p", &json!({ "serviceNames": ["App2"] }))).allowed);
    let mut leaving = policy("p", &json!({ "serviceNames": ["App3"] }));
    leaving["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
    assert!(judge(&leaving).allowed);
}

#[test]
fn a_change_that_leaves_pkis_without_a_policy_is_a_warning() {
    let first = policy("first", &json!({ "serviceNames": ["app*"] }));
    let second = policy(
        "second",
        &json!({ "serviceNames": ["app2"], "namespaces": { "names": ["b"] } }),
    );
    let rules = rules(&[first.clone(), second.clone()]);
    let pkis = [
        stored("a", "one", "app1"),
        stored("a", "two", "app2"),
        stored("b", "two", "app2"),
        stored("b", "never", "web"),
    ];
    let warned = |operation: &str, object: &Value, old: &Value| {
        let response = validate_policy(
            &request(operation, object, old),
            &rules,
            pkis.iter().cloned(),
            || true,
        );
        assert!(response.allowed, "{response:?}");
        response.warnings.unwrap_or_default()
    };
    let narrowed = policy("first", &json!({ "serviceNames": ["app1"] }));
    assert_eq!(
        warned("UPDATE", &narrowed, &first),
        ["1 Pki is no longer permitted: a/two; it keeps its Secret, but is not renewed"]
    );
    assert_eq!(
        warned("DELETE", &Value::Null, &first),
        [
            "2 Pkis are no longer permitted: a/one, a/two; they keep their Secrets, but are not renewed"
        ]
    );
    let none: [String; 0] = [];
    assert_eq!(
        warned("DELETE", &Value::Null, &second),
        none,
        "the first permits it too"
    );
    assert_eq!(
        warned(
            "UPDATE",
            &policy("first", &json!({ "serviceNames": ["*"] })),
            &first
        ),
        none
    );
    assert_eq!(
        warned(
            "CREATE",
            &policy("third", &json!({ "serviceNames": ["x"] })),
            &Value::Null
        ),
        none
    );
}

#[test]
fn only_pkis_with_a_secret_are_reported_to_keep_it() {
    let all = policy("all", &json!({ "serviceNames": ["*"] }));
    let rules = rules(std::slice::from_ref(&all));
    let request = request("DELETE", &Value::Null, &all);
    for (with_secret, without, expected) in [
        (0, 1, "; it has no Secret, and gets none"),
        (0, 2, "; they have no Secrets, and get none"),
        (
            1,
            1,
            "; 1 of them keeps its Secret, but is not renewed; the other one gets no Secret",
        ),
        (
            2,
            3,
            "; 2 of them keep their Secrets, but are not renewed; the others get no Secrets",
        ),
    ] {
        let pki = |n: usize| stored("ns", &format!("pki-{n}"), "app");
        let bare = (0..without).map(|n| without_secret(pki(n)));
        let pkis = bare.chain((without..without + with_secret).map(pki));
        let response = validate_policy(&request, &rules, pkis, || true);
        let warnings = response.warnings.unwrap();
        assert!(warnings[0].ends_with(expected), "{warnings:?}");
    }
}

#[test]
fn of_many_the_first_few_are_named() {
    let all = policy("all", &json!({ "serviceNames": ["*"] }));
    let pkis: Vec<_> = (0..1000)
        .map(|n| stored("ns", &format!("pki-{n:04}"), "app"))
        .collect();
    let response = validate_policy(
        &request("DELETE", &Value::Null, &all),
        &rules(std::slice::from_ref(&all)),
        pkis.iter().cloned(),
        || true,
    );
    assert_eq!(
        response.warnings.unwrap(),
        [
            "1000 Pkis are no longer permitted: ns/pki-0000, ns/pki-0001, ns/pki-0002, ns/pki-0003, ns/pki-0004 and \
          995 more; they keep their Secrets, but are not renewed"
        ]
    );
}

#[test]
fn pkis_that_there_was_no_time_to_judge_are_a_warning() {
    let all = policy("all", &json!({ "serviceNames": ["*"] }));
    let pkis = ["a", "b", "c", "d"].map(|name| stored("ns", name, "app"));
    let request = request("DELETE", &Value::Null, &all);
    let rules = rules(&[all]);
    let warned = |turns: u32| {
        let left = std::cell::Cell::new(turns);
        let has_time = || left.replace(left.get().saturating_sub(1)) > 0;
        let response = validate_policy(&request, &rules, pkis.iter().cloned(), has_time);
        assert!(response.allowed, "{response:?}");
        response.warnings.unwrap().join("\n")
    };
    let broken =
        "2 Pkis are no longer permitted: ns/a, ns/b; they keep their Secrets, but are not renewed";
    let rest = |judged| {
        format!(
            "only the first {judged} Pkis were checked in time: more of them may no longer be permitted"
        )
    };
    assert_eq!(warned(2), format!("{broken}\n{}", rest(2)));
    assert_eq!(warned(0), rest(0));
    assert!(!warned(4).contains("in time"));
}
