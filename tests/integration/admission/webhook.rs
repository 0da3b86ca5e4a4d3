//! The webhook by HTTPS, with no API server between: whatever is sent, the answer is a clear one.

pub(crate) mod client;
mod fuzz;

use crate::harness::SHARED;
use client::Webhook;
use serde_json::{Value, json};
use std::thread;

pub(crate) const JSON: &str = "application/json";

/// A review of a Pki of namespace `ns` that is being created, as the API server writes it.
pub(crate) fn review(uid: &str, service: &str) -> Value {
    let kind = json!({ "group": "box.com", "version": "v1", "kind": "Pki" });
    let resource = json!({ "group": "box.com", "version": "v1", "resource": "pkis" });
    let metadata = json!({
        "name": "app1-pki", "namespace": "ns", "uid": "4d5f", "generation": 1,
        "creationTimestamp": "2030-01-01T00:00:00Z", "labels": { "app": "app1" },
        "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{}\n" },
        "managedFields": [{
            "manager": "kubectl", "operation": "Update", "apiVersion": "box.com/v1", "time": "2030-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { ".": {}, "f:serviceName": {} } }
        }]
    });
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": uid, "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "name": "app1-pki", "namespace": "ns", "operation": "CREATE",
            "userInfo": { "username": "ann", "groups": ["system:authenticated"], "extra": { "a": ["b"] } },
            "object": {
                "apiVersion": "box.com/v1", "kind": "Pki", "metadata": metadata,
                "spec": {
                    "serviceName": service, "secretName": "app1-pki", "duration": "2160h",
                    "privateKey": { "algorithm": "ECDSA", "size": 256 }
                }
            },
            "oldObject": null, "dryRun": false,
            "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "kubectl" }
        }
    })
}

/// The answer to a review, which is one.
pub(crate) fn ask(webhook: &mut Webhook, path: &str, review: &Value) -> Value {
    let (status, body) = webhook.post(path, JSON, review.to_string().as_bytes());
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
    answer["response"].clone()
}

#[test]
fn a_review_is_answered_over_a_connection_that_the_ca_bundle_vouches_for() {
    let mut webhook = Webhook::of(&SHARED);
    for dry_run in [json!(true), json!(false), Value::Null] {
        for (service, allowed) in [("app1", true), ("appp1", false)] {
            let mut review = review(&format!("{service} {dry_run}"), service);
            if dry_run.is_null() {
                review["request"].as_object_mut().unwrap().remove("dryRun");
            } else {
                review["request"]["dryRun"] = dry_run.clone();
            }
            let response = ask(&mut webhook, "/validate", &review);
            assert_eq!(response["allowed"], allowed, "{response}");
        }
    }
    // The webhook writes nothing into the object.
    let mut bare = review("1", "app1");
    bare["request"]["object"]["spec"] = json!({ "serviceName": "app1" });
    let response = ask(&mut webhook, "/validate", &bare);
    assert_eq!(response["allowed"], true);
    assert_eq!(response["patch"], Value::Null);
    let body = bare.to_string();
    let (status, _) = webhook.post("/mutate", JSON, body.as_bytes());
    assert_eq!(status, 404, "the path of version 0.2");
}

#[test]
fn what_is_no_review_is_a_bad_request() {
    let mut webhook = Webhook::of(&SHARED);
    let good = review("1", "app1");
    let changed = |change: fn(&mut Value)| {
        let mut review = good.clone();
        change(&mut review);
        review.to_string()
    };
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    for (body, said) in [
        (String::new(), "the body is not an AdmissionReview"),
        ("garbage".into(), "the body is not an AdmissionReview"),
        ("null".into(), "the body is not an AdmissionReview"),
        ("[]".into(), "the body is not an AdmissionReview"),
        ("{}".into(), "the body is not an AdmissionReview"),
        (deep, "the body is not an AdmissionReview"),
        (
            changed(|r| r["kind"] = json!("Pki")),
            "the body is a Pki of admission.k8s.io/v1, not an AdmissionReview",
        ),
        (
            changed(|r| r["apiVersion"] = json!("admission.k8s.io/v1beta1")),
            "of admission.k8s.io/v1beta1, not an",
        ),
        (
            changed(|r| r["request"] = Value::Null),
            "the AdmissionReview has no request",
        ),
        (
            changed(|r| r["request"] = json!(5)),
            "the body is not an AdmissionReview",
        ),
        (
            changed(|r| r["request"]["operation"] = json!("PATCH")),
            "the body is not an AdmissionReview",
        ),
        (
            changed(|r| r["request"]["object"] = json!("text")),
            "the body is not an AdmissionReview",
        ),
        (
            changed(|r| r["kind"] = json!("\u{1b}[2J")),
            r"the body is a \u{1b}[2J of",
        ),
    ] {
        let (status, answer) = webhook.post("/validate", JSON, body.as_bytes());
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains(said), "{answer}");
        assert!(
            answer.ends_with('\n') && answer.lines().count() == 1,
            "{answer:?}"
        );
    }
}

#[test]
fn another_kind_of_object_is_refused_and_left_as_it_is() {
    let mut webhook = Webhook::of(&SHARED);
    let mut review = review("1", "app1");
    review["request"]["kind"] = json!({ "group": "", "version": "v1", "kind": "Pod" });
    let response = ask(&mut webhook, "/validate", &review);
    assert_eq!(response["allowed"], false);
    assert_eq!(
        response["status"]["message"],
        "this webhook judges Pkis and PkiPolicies of box.com/v1, not Pod of /v1"
    );
}

#[test]
fn only_json_is_taken() {
    let mut webhook = Webhook::of(&SHARED);
    let body = review("1", "app1").to_string();
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
    ] {
        assert_eq!(
            webhook.post("/validate", content_type, body.as_bytes()).0,
            200,
            "{content_type}"
        );
    }
    for content_type in [
        "text/plain",
        "application/yaml",
        "application/jsonx",
        "application/json-patch+json",
        "",
    ] {
        let (status, answer) = webhook.post("/validate", content_type, body.as_bytes());
        assert_eq!(
            (status, answer.as_str()),
            (415, "send an AdmissionReview as application/json\n"),
            "{content_type}"
        );
    }
}

#[test]
fn only_posts_to_the_two_paths_are_answered() {
    let mut webhook = Webhook::of(&SHARED);
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        assert_eq!(
            webhook.send(method, "/validate", JSON, b"").0,
            405,
            "{method}"
        );
    }
    for path in [
        "/",
        "/validate/",
        "/validate/x",
        "//validate",
        "/metrics",
        "/livez",
        "/VALIDATE",
        "/%00",
        "/../validate",
    ] {
        assert_eq!(webhook.post(path, JSON, b"{}").0, 404, "{path}");
    }
}

/// A review whose object is good but for an annotation of this many bytes.
fn large(bytes: usize) -> String {
    let mut review = review("large", "app1");
    review["request"]["object"]["metadata"]["annotations"]["large"] = json!("x".repeat(bytes));
    review.to_string()
}

#[test]
fn six_megabytes_are_judged_and_eight_refused_before_they_are_sent() {
    let mut webhook = Webhook::of(&SHARED);
    let (status, answer) = webhook.post("/validate", JSON, large(6_000_000).as_bytes());
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains(r#""allowed":true"#), "{answer}");
    let (status, answer) = webhook.announce("/validate", JSON, 8_000_000);
    assert_eq!(
        (status, answer.as_str()),
        (413, "the body is larger than 7340032 bytes\n")
    );
    // A body of unknown size is refused when it turns out to be too large: at the one byte
    // more, after which nothing is under way that could break the connection before the answer is
    // read.
    let (status, _) =
        Webhook::of(&SHARED).post_chunked("/validate", JSON, &vec![b' '; 7_340_032 + 1]);
    assert_eq!(status, 413);
}

#[test]
fn what_would_become_large_in_memory_is_refused_unread() {
    let mut webhook = Webhook::of(&SHARED);
    let mut review = review("intricate", "app1");
    for (many, count) in [(json!({"a": 0}), 25_000), (json!(0), 400_000)] {
        let spec = &mut review["request"]["object"]["spec"];
        spec["many"] = Value::Array(vec![many; count]);
        let (status, answer) = webhook.post("/validate", JSON, review.to_string().as_bytes());
        assert_eq!(status, 413, "{answer}");
        let said =
            "the body has more than 25000 lists and objects, or more than 400000 values in them\n";
        assert_eq!(answer, said);
    }
}

#[test]
fn many_large_reviews_take_turns_and_small_ones_do_not_wait_for_them() {
    let body = large(3_000_000);
    thread::scope(|scope| {
        // It has a turn and does not use it.
        let mut idle = Webhook::of(&SHARED);
        idle.begin("/validate", JSON, 3_000_000);
        for _ in 0..8 {
            scope.spawn(|| {
                assert_eq!(
                    Webhook::of(&SHARED)
                        .post("/validate", JSON, body.as_bytes())
                        .0,
                    200
                );
            });
        }
        let mut webhook = Webhook::of(&SHARED);
        for n in 0..100 {
            let response = ask(&mut webhook, "/validate", &review(&n.to_string(), "app1"));
            assert_eq!(response["allowed"], true);
        }
    });
}
