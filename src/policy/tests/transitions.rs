//! From each of thirty specs to each other one, by each way to apply it: what comes of it is what a
//! first apply gives.
//!
//! The ways are computed as kubectl and the API server do it.
//! `tests/integration/admission/transitions.rs` asks the real ones.

use super::*;
use crate::api::PkiStatus;

/// Specs that say little, each something else. `tests/integration/admission/transitions.rs` has the
/// same.
fn specs() -> Vec<Value> {
    serde_json::from_str(include_str!("specs.json")).expect("a list of specs")
}

/// How a spec is applied: the stored one after `before` was applied and `after` now is.
type Way = fn(&Value, &Value, &Value) -> Value;

const WAYS: [(&str, Way); 3] = [
    ("client-side apply", client_side_apply),
    ("server-side apply", server_side_apply),
    ("merge patch", merge_patch),
];

/// As `kubectl apply`: what the last applied one has and the new one lacks is deleted; what the new
/// one says is set.
fn client_side_apply(live: &Value, last: &Value, new: &Value) -> Value {
    let mut live = live.clone();
    json_patch::merge(&mut live, &deletions(last, new));
    json_patch::merge(&mut live, new);
    live
}

/// As the API server: fields that this manager owned and does not apply any more go, with maps that
/// become empty so.
fn server_side_apply(live: &Value, last: &Value, new: &Value) -> Value {
    fn without(live: &mut Value, last: &Value, new: &Value) {
        let (Some(fields), Some(last)) = (live.as_object_mut(), last.as_object()) else {
            return;
        };
        for (name, was) in last {
            let is_applied = new.get(name);
            match (fields.get_mut(name), is_applied) {
                (Some(value), Some(new)) => without(value, was, new),
                (Some(value), None) => {
                    without(value, was, &Value::Null);
                    if value.as_object().is_none_or(serde_json::Map::is_empty) {
                        fields.remove(name);
                    }
                }
                (None, _) => {}
            }
        }
    }
    let mut live = live.clone();
    without(&mut live, last, new);
    json_patch::merge(&mut live, new);
    live
}

/// As `kubectl edit`, Helm and others: the difference of the two, as RFC 7386 has it.
fn merge_patch(live: &Value, last: &Value, new: &Value) -> Value {
    fn difference(last: &Value, new: &Value) -> Value {
        let mut patch = deletions(last, new);
        for (name, value) in new.as_object().into_iter().flatten() {
            match last.get(name) {
                Some(was) if was == value => {}
                Some(was) if was.is_object() && value.is_object() => {
                    patch[name] = difference(was, value);
                }
                _ => patch[name] = value.clone(),
            }
        }
        patch
    }
    let mut live = live.clone();
    json_patch::merge(&mut live, &difference(last, new));
    live
}

fn deletions(last: &Value, new: &Value) -> Value {
    let mut patch = json!({});
    for (name, was) in last.as_object().into_iter().flatten() {
        match new.get(name) {
            None => patch[name] = Value::Null,
            Some(value) if was.is_object() && value.is_object() => {
                patch[name] = deletions(was, value);
            }
            Some(_) => {}
        }
    }
    patch
}

/// Policies of which each permits all of the specs.
fn books() -> [RuleBook; 3] {
    let policy = |more: Value| {
        let mut policy = json!({ "serviceNames": ["*"], "dnsNames": ["*.example.com"] });
        json_patch::merge(&mut policy, &more);
        rules(&[policy])
    };
    [
        policy(json!({})),
        policy(json!({ "maxDuration": "2160h", "privateKeys": [
            { "algorithm": "ECDSA" }, { "algorithm": "RSA" }, { "algorithm": "Ed25519" }] })),
        policy(json!({ "defaults": {
            "duration": "720h", "renewBefore": "240h", "usages": ["server auth"],
            "privateKey": { "algorithm": "RSA", "size": 3072, "rotationPolicy": "Never" },
            "outputs": { "derKey": true }, "secretTemplate": { "labels": { "team": "z" } } } })),
    ]
}

#[test]
fn all_transitions_end_as_a_first_apply_would() {
    let specs = specs();
    assert_eq!(specs.len(), 30);
    let mut count = 0;
    for book in books() {
        for before in &specs {
            let issued = approve(&book, "ns", before);
            for after in &specs {
                let first = approve(&book, "ns", after);
                for (way, apply) in WAYS {
                    let stored = apply(before, before, after);
                    assert_eq!(stored, *after, "{way}: {before}");
                    // The certificate of the spec before is there, and the status has it.
                    let mut pki = crate::api::tests::pki(stored);
                    pki.status = Some(PkiStatus {
                        serial_number: Some("0A".into()),
                        policy: Some(issued.policy.clone()),
                        defaults: Some(issued.recorded()),
                        ..PkiStatus::default()
                    });
                    let judged = book.evaluate(&pki).unwrap();
                    let what = format!("{way}: {before} -> {after}");
                    let in_force = judged.in_force();
                    for judged in [&judged, in_force] {
                        assert_eq!(judged.certificate, first.certificate, "{what}");
                        assert_eq!(judged.template, first.template, "{what}");
                        assert_eq!(judged.outputs, first.outputs, "{what}");
                    }
                    count += 1;
                }
            }
        }
    }
    assert_eq!(count, 3 * 2700);
}

#[test]
fn from_an_object_with_the_stored_defaults_of_version_0_2_too() {
    let book = &books()[0];
    for before in specs() {
        let mut live = json!({ "duration": "2160h", "secretName": "app1-pki",
            "privateKey": { "algorithm": "ECDSA", "size": 256 } });
        // The webhook filled in what was missing, and the schema the algorithm.
        if let Some(key) = before.get("privateKey") {
            live["privateKey"] = json!({ "algorithm": "ECDSA" });
            json_patch::merge(&mut live["privateKey"], key);
        }
        json_patch::merge(&mut live, &before);
        for after in specs() {
            for (way, apply) in WAYS {
                let what = format!("{way}: {before} -> {after}");
                let stored = apply(&live, &before, &after);
                let judged = judge(book, "ns", &stored);
                let judged = judged.unwrap_or_else(|refused| panic!("{what}: {refused:?}"));
                let first = approve(book, "ns", &after);
                let is_same = judged.certificate == first.certificate;
                // An algorithm that the schema stored beside another field of the key cannot be
                // told from one that was written; so it is the built-in one here.
                assert!(is_same, "{what}: {stored}");
            }
        }
    }
}
