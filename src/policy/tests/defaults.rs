//! Values that a Pki leaves out: the policy's default, else the built-in value narrowed to what the
//! policy permits.

use super::*;
use crate::api::{Defaults, PkiStatus};

/// Each value with who decides it, as in `duration=24h (Policy)`.
fn values(approved: &Approved) -> Vec<String> {
    let values = approved.effective_values().into_iter();
    values
        .map(|it| format!("{}={} ({:?})", it.field, it.value, it.origin))
        .collect()
}

/// Approves `spec` under a policy with these fields, and checks the values that are listed.
fn check(policy: &Value, spec: &Value, expected: &[&str]) {
    let mut with_names = json!({ "serviceNames": ["app1"] });
    json_patch::merge(&mut with_names, policy);
    let mut pki = json!({ "serviceName": "app1" });
    json_patch::merge(&mut pki, spec);
    let values = values(&approve(&rules(&[with_names]), "ns", &pki));
    for wanted in expected {
        assert!(
            values.iter().any(|value| value == wanted),
            "{policy} {spec}: {wanted} is not among {values:?}"
        );
    }
}

#[test]
fn without_defaults_the_built_in_values_are_narrowed_to_permitted_ones() {
    let none = || json!({});
    check(
        &none(),
        &none(),
        &[
            "duration=2160h (BuiltIn)",
            "renewBefore=720h, a third of the duration (BuiltIn)",
            "usages=server auth, client auth (BuiltIn)",
            "privateKey.algorithm=ECDSA (BuiltIn)",
            "privateKey.size=256 (BuiltIn)",
            "privateKey.encoding=PKCS8 (BuiltIn)",
            "privateKey.rotationPolicy=Always (BuiltIn)",
        ],
    );
    for (policy, expected) in [
        (json!({ "maxDuration": "720h" }), "duration=720h (BuiltIn)"),
        (json!({ "maxDuration": "1h" }), "duration=1h (BuiltIn)"),
        (
            json!({ "maxDuration": "9000h" }),
            "duration=2160h (BuiltIn)",
        ),
        (
            json!({ "usages": ["server auth"] }),
            "usages=server auth (BuiltIn)",
        ),
        (
            json!({ "usages": ["client auth"] }),
            "usages=client auth (BuiltIn)",
        ),
        (
            json!({ "privateKeys": [{ "algorithm": "ECDSA", "minSize": 384 }] }),
            "privateKey.size=384 (BuiltIn)",
        ),
        (
            json!({ "privateKeys": [{ "algorithm": "RSA", "minSize": 2049 }] }),
            "privateKey.size=3072 (BuiltIn)",
        ),
        (
            json!({ "privateKeys": [{ "algorithm": "Ed25519" }, { "algorithm": "RSA" }] }),
            "privateKey.algorithm=Ed25519 (BuiltIn)",
        ),
        (
            json!({ "privateKeys": [{ "algorithm": "RSA" }, { "algorithm": "ECDSA" }] }),
            "privateKey.algorithm=ECDSA (BuiltIn)",
        ),
        // One of which nothing can be made is no kind of key.
        (
            json!({ "privateKeys": [{ "algorithm": "ECDSA", "minSize": 521 }, { "algorithm": "RSA", "minSize": 4096 }] }),
            "privateKey.size=4096 (BuiltIn)",
        ),
    ] {
        check(&policy, &none(), &[expected]);
    }
}

#[test]
fn a_default_of_the_policy_counts_for_a_field_that_the_pki_leaves_out() {
    let policy = || {
        json!({ "maxDuration": "2160h", "defaults": {
            "duration": "720h", "renewBefore": "240h", "usages": ["server auth"],
            "privateKey": { "algorithm": "RSA", "size": 3072, "encoding": "PKCS1", "rotationPolicy": "Never" },
            "outputs": { "combinedPem": true, "jks": { "passwordSecretRef": { "name": "password" } } },
            "secretTemplate": { "labels": { "team": "a", "stage": "live" } },
        }})
    };
    check(
        &policy(),
        &json!({}),
        &[
            "duration=720h (Policy)",
            "renewBefore=240h (Policy)",
            "usages=server auth (Policy)",
            "privateKey.algorithm=RSA (Policy)",
            "privateKey.size=3072 (Policy)",
            "privateKey.encoding=PKCS1 (Policy)",
            "privateKey.rotationPolicy=Never (Policy)",
            "outputs.combinedPem=true (Policy)",
            "outputs.jks=password in Secret password (Policy)",
            "secretTemplate.labels=team=a (Policy)",
        ],
    );
    for (spec, expected) in [
        (json!({ "duration": "2160h" }), "duration=2160h (Spec)"),
        // Too short for the default of the renewal.
        (
            json!({ "duration": "240h" }),
            "renewBefore=80h, a third of the duration (BuiltIn)",
        ),
        (
            json!({ "renewBeforePercentage": 50 }),
            "renewBefore=50 percent (Spec)",
        ),
        (
            json!({ "usages": ["client auth"] }),
            "usages=client auth (Spec)",
        ),
        // Size and encoding are those of an RSA key.
        (
            json!({ "privateKey": { "algorithm": "ECDSA" } }),
            "privateKey.size=256 (BuiltIn)",
        ),
        (
            json!({ "privateKey": { "algorithm": "ECDSA" } }),
            "privateKey.encoding=PKCS8 (BuiltIn)",
        ),
        (
            json!({ "privateKey": { "algorithm": "ECDSA" } }),
            "privateKey.rotationPolicy=Never (Policy)",
        ),
        (
            json!({ "privateKey": { "size": 4096 } }),
            "privateKey.algorithm=RSA (Policy)",
        ),
        (
            json!({ "privateKey": { "size": 384 } }),
            "privateKey.algorithm=ECDSA (BuiltIn)",
        ),
        (
            json!({ "privateKey": { "algorithm": "RSA", "size": 2048 } }),
            "privateKey.encoding=PKCS1 (Policy)",
        ),
        (
            json!({ "secretTemplate": { "labels": { "team": "b" } } }),
            "secretTemplate.labels=team=b (Spec)",
        ),
        (
            json!({ "secretTemplate": { "labels": { "team": "b" } } }),
            "secretTemplate.labels=stage=live (Policy)",
        ),
        // A password is not looked for in the Secret that is written.
        (
            json!({ "secretName": "password" }),
            "outputs.combinedPem=true (Policy)",
        ),
    ] {
        check(&policy(), &spec, &[expected]);
    }
    let mut with_names = json!({ "serviceNames": ["app1"] });
    json_patch::merge(&mut with_names, &policy());
    let book = rules(&[with_names]);
    for spec in [
        json!({ "serviceName": "app1", "secretName": "password" }),
        json!({ "serviceName": "app1", "outputs": { "combinedPem": false } }),
    ] {
        let listed = values(&approve(&book, "ns", &spec)).join("\n");
        let is_own = spec["secretName"].is_string();
        assert_eq!(listed.contains("outputs.jks"), !is_own, "{listed}");
        assert_eq!(listed.contains("combinedPem"), is_own, "{listed}");
    }
}

#[test]
fn a_default_that_its_policy_does_not_permit_is_never_used() {
    for (policy, expected) in [
        (
            json!({ "maxDuration": "24h", "defaults": { "duration": "48h" } }),
            "duration=24h (BuiltIn)",
        ),
        (
            json!({ "usages": ["server auth"], "defaults": { "usages": ["client auth"] } }),
            "usages=server auth (BuiltIn)",
        ),
        (
            json!({ "privateKeys": [{ "algorithm": "ECDSA" }], "defaults": { "privateKey": { "algorithm": "RSA" } } }),
            "privateKey.algorithm=ECDSA (BuiltIn)",
        ),
        (
            json!({ "privateKeys": [{ "algorithm": "RSA", "minSize": 4096 }], "defaults": { "privateKey": { "algorithm": "RSA", "size": 2048 } } }),
            "privateKey.size=4096 (BuiltIn)",
        ),
        (
            json!({ "defaults": { "duration": "1d", "renewBefore": "x" } }),
            "duration=2160h (BuiltIn)",
        ),
        (
            json!({ "defaults": { "secretTemplate": { "labels": { "kubernetes.io/a": "b" } } } }),
            "duration=2160h (BuiltIn)",
        ),
    ] {
        check(&policy, &json!({}), &[expected]);
    }
}

#[test]
fn a_value_of_a_pki_that_does_not_suit_the_default_is_refused() {
    let book = rules(&[json!({ "serviceNames": ["app1"], "maxDuration": "24h",
        "privateKeys": [{ "algorithm": "RSA" }] })]);
    for (spec, expected) in [
        (
            json!({ "renewBefore": "22h" }),
            "spec.renewBefore: \"22h\" is not a time before expiry: write more than 0s and at most 21h36m, nine tenths of the duration, for example 8h, or leave renewBefore out",
        ),
        (
            json!({ "privateKey": { "size": 384 } }),
            "spec.privateKey.size: 384 is not a supported size of an RSA key: write 2048, 3072 or 4096, or algorithm: ECDSA, which has this size",
        ),
        (
            json!({ "privateKey": { "encoding": "SEC1" } }),
            "spec.privateKey.encoding: SEC1 is not an encoding of RSA keys: write PKCS8, or leave encoding out",
        ),
        (
            json!({ "duration": "48h" }),
            "spec.duration: 48h is too long: PkiPolicy policy-0 permits at most 24h; write duration: 24h",
        ),
    ] {
        let mut pki = json!({ "serviceName": "app1" });
        json_patch::merge(&mut pki, &spec);
        assert_eq!(refuse(&book, "ns", &pki), [expected]);
    }
}

#[test]
fn rules_in_cel_see_the_values_that_count() {
    let book = rules(&[
        json!({ "serviceNames": ["app1"], "defaults": { "duration": "24h" },
            "validations": [{ "expression": "pki.spec.duration == '24h'", "message": "no" }] }),
        json!({ "serviceNames": ["app1"], "maxDuration": "1h",
            "validations": [{ "expression": "pki.spec.duration == '24h'", "message": "no" }] }),
        json!({ "serviceNames": ["app1"], "defaults": { "secretTemplate": { "labels": { "team": "a" } } },
            "validations": [{ "expression": "pki.spec.secretTemplate.labels['team'] == 'a'", "message": "no" }] }),
    ]);
    let approved = approve(&book, "ns", &json!({ "serviceName": "app1" }));
    assert_eq!(approved.policy, "policy-0");
    let spec = json!({ "serviceName": "app1", "duration": "48h" });
    assert_eq!(approve(&book, "ns", &spec).policy, "policy-2");
    let spec = json!({ "serviceName": "app1", "duration": "48h",
        "secretTemplate": { "labels": { "team": "b" } } });
    assert!(!refuse(&book, "ns", &spec).is_empty());
}

fn pki(spec: Value) -> Pki {
    crate::api::tests::pki(spec)
}

/// A Pki whose certificate was issued as this says.
fn issued(spec: Value, approved: &Approved) -> Pki {
    let mut pki = pki(spec);
    pki.status = Some(PkiStatus {
        serial_number: Some("0A".into()),
        policy: Some(approved.policy.clone()),
        defaults: Some(approved.recorded()),
        ..PkiStatus::default()
    });
    pki
}

#[test]
fn the_policy_that_is_recorded_counts_while_it_permits_and_then_the_first_by_name() {
    let policy = |names: &[&str]| json!({ "serviceNames": names });
    let three = rules(&[policy(&["app1"]), policy(&["app1"]), policy(&["app1"])]);
    let mut pki = pki(json!({}));
    assert_eq!(three.evaluate(&pki).unwrap().policy, "policy-0");
    for (recorded, expected) in [
        ("policy-1", "policy-1"),
        ("policy-2", "policy-2"),
        ("policy-9", "policy-0"),
        ("", "policy-0"),
    ] {
        pki.status = Some(PkiStatus {
            policy: Some(recorded.into()),
            ..PkiStatus::default()
        });
        assert_eq!(three.evaluate(&pki).unwrap().policy, expected);
        assert_eq!(three.admits(&pki), Some(expected));
    }
    let two = rules(&[policy(&["app1"]), policy(&["app2"])]);
    pki.status.as_mut().unwrap().policy = Some("policy-1".into());
    assert_eq!(two.evaluate(&pki).unwrap().policy, "policy-0");
}

#[test]
fn a_changed_default_counts_from_the_next_renewal() {
    let with = |defaults: Value| rules(&[json!({ "serviceNames": ["*"], "defaults": defaults })]);
    let before = with(json!({}));
    for spec in [
        json!({}),
        json!({ "privateKey": { "algorithm": "RSA" } }),
        json!({ "privateKey": { "size": 384 } }),
        json!({ "duration": "100h", "usages": ["server auth"] }),
        json!({ "secretTemplate": { "labels": { "own": "x" } }, "outputs": { "derKey": true } }),
    ] {
        let first = before.evaluate(&pki(spec.clone())).unwrap();
        let stored = issued(spec.clone(), &first);
        for (defaults, is_news) in [
            (json!({ "duration": "24h" }), spec.get("duration").is_none()),
            (json!({ "renewBefore": "50h" }), true),
            (
                json!({ "usages": ["client auth"] }),
                spec.get("usages").is_none(),
            ),
            (
                json!({ "privateKey": { "algorithm": "Ed25519" } }),
                spec.get("privateKey").is_none(),
            ),
            (json!({ "privateKey": { "encoding": "PKCS8" } }), false),
            (json!({ "outputs": { "combinedPem": true } }), true),
            (
                json!({ "secretTemplate": { "labels": { "team": "a" } } }),
                true,
            ),
        ] {
            let after = with(defaults.clone()).evaluate(&stored).unwrap();
            let in_force = after.in_force();
            assert_eq!(in_force.certificate, first.certificate, "{spec} {defaults}");
            assert_eq!(
                in_force.renew_before, first.renew_before,
                "{spec} {defaults}"
            );
            assert_eq!(in_force.template, first.template, "{spec} {defaults}");
            assert_eq!(in_force.outputs, first.outputs, "{spec} {defaults}");
            assert_eq!(
                in_force.recorded(),
                first.recorded(),
                "the record stays as it is"
            );
            assert_eq!(*in_force != after, is_news, "{spec} {defaults}");
            // Issued anew, it is as the defaults are now.
            let renewed = issued(spec.clone(), &after);
            let renewed = with(defaults).evaluate(&renewed).unwrap();
            assert_eq!(renewed.in_force().certificate, after.certificate);
            assert_eq!(renewed.in_force().template, after.template);
        }
    }
}

#[test]
fn a_field_that_is_written_or_removed_counts_at_once() {
    let book = rules(&[json!({ "serviceNames": ["*"], "defaults": { "duration": "720h" } })]);
    let small = json!({ "duration": "24h", "privateKey": { "algorithm": "RSA" }, "usages": ["server auth"] });
    for (before, after) in [(json!({}), small.clone()), (small, json!({}))] {
        let first = book.evaluate(&pki(before.clone())).unwrap();
        let mut stored = issued(before, &first);
        stored.spec = pki(after.clone()).spec;
        let changed = book.evaluate(&stored).unwrap();
        let fresh = book.evaluate(&pki(after)).unwrap();
        assert_eq!(changed.certificate, fresh.certificate);
        assert_eq!(changed.in_force().certificate, fresh.certificate);
    }
}

#[test]
fn a_certificate_of_version_0_2_is_not_issued_anew_for_a_default() {
    let book = rules(&[json!({ "serviceNames": ["*"], "defaults": {
        "duration": "24h", "usages": ["server auth"], "renewBefore": "2h", "privateKey": { "algorithm": "Ed25519" } } })]);
    // As its webhook stored them, or as a Pki that was stored before that was installed.
    let stored = json!({ "duration": "2160h", "privateKey": { "algorithm": "ECDSA", "size": 256 }, "secretName": "app1-pki" });
    for spec in [json!({}), stored] {
        let mut pki = pki(spec);
        pki.status = Some(PkiStatus {
            serial_number: Some("0A".into()),
            ..PkiStatus::default()
        });
        let approved = book.evaluate(&pki).unwrap();
        let in_force = approved.in_force();
        let fresh = allowing(&["*"])
            .evaluate(&crate::api::tests::pki(json!({})))
            .unwrap();
        assert_eq!(in_force.certificate, fresh.certificate);
        assert_eq!(in_force.renew_before, None);
    }
}

#[test]
fn a_status_that_somebody_else_wrote_changes_nothing_for_the_next_certificate() {
    let book =
        rules(&[json!({ "serviceNames": ["*"], "maxDuration": "24h", "usages": ["server auth"] })]);
    let hostile: Defaults = serde_json::from_value(json!({
        "duration": "876000h", "usages": ["client auth"], "renewBefore": "-1h", "renewBeforePercentage": 1000,
        "privateKey": { "algorithm": "RSA", "size": 1, "encoding": "SEC1" },
        "outputs": { "jks": { "passwordSecretRef": { "name": "../x" } }, "pkcs12": { "passwordSecretRef": { "name": "app1-pki" } } },
        "secretTemplate": { "labels": { "app.kubernetes.io/managed-by": "x" } },
    }))
    .unwrap();
    let fresh = book.evaluate(&pki(json!({}))).unwrap();
    let mut forged = issued(json!({}), &fresh);
    forged.status.as_mut().unwrap().defaults = Some(hostile);
    let approved = book.evaluate(&forged).unwrap();
    assert_eq!(approved.certificate, fresh.certificate);
    let in_force = approved.in_force();
    assert_eq!(in_force.certificate.key, fresh.certificate.key);
    assert_eq!(
        (&in_force.template, &in_force.outputs),
        (&fresh.template, &fresh.outputs)
    );
}
