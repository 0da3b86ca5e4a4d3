//! Fixtures and tests of the API.

use super::crd::unwrap_descriptions;
use super::*;
use crate::policy::{Approved, RuleBook};
use kube::CustomResourceExt as _;
use serde_json::{Value, json};
use std::sync::Arc;

/// A Pki `ns/app1-pki` with UID `uid-1`, for the service app1 and with these other fields.
pub(crate) fn pki(mut spec: Value) -> Pki {
    spec["serviceName"] = json!("app1");
    let mut pki = Pki::new("app1-pki", serde_json::from_value(spec).expect("a spec"));
    pki.metadata.namespace = Some("ns".into());
    pki.metadata.uid = Some("uid-1".into());
    pki.metadata.generation = Some(1);
    pki
}

/// The approval by a policy that permits everything.
pub(crate) fn approved(pki: &Pki) -> Approved {
    let spec = json!({ "serviceNames": ["*"], "dnsNames": ["*.example.com"] });
    let policy = PkiPolicy::new("policy", serde_json::from_value(spec).expect("a policy"));
    let rules = RuleBook::new(Arc::default(), [&policy]);
    rules.evaluate(pki).expect("it breaks no rule")
}

#[test]
fn the_chart_has_the_definitions_of_this_code() {
    let path = "charts/pki-operator/crds/pkis.yaml";
    let chart = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let chart = std::fs::read_to_string(chart).unwrap();
    let differing = chart
        .lines()
        .zip(crds_yaml().lines().map(str::to_owned))
        .find(|(a, b)| a != b);
    assert!(
        chart == crds_yaml(),
        "write them again: cargo run --bin pki-operator -- crd > {path}\nthe first difference: {differing:?}"
    );
}

#[test]
fn kinds_and_usages_are_displayed_as_they_are_written() {
    let written = |value: Value| value.as_str().expect("a name").to_owned();
    for algorithm in [
        KeyAlgorithm::Ecdsa,
        KeyAlgorithm::Rsa,
        KeyAlgorithm::Ed25519,
    ] {
        assert_eq!(algorithm.to_string(), written(json!(algorithm)));
    }
    for encoding in [KeyEncoding::Pkcs8, KeyEncoding::Pkcs1, KeyEncoding::Sec1] {
        assert_eq!(encoding.to_string(), written(json!(encoding)));
    }
    for usage in [Usage::ServerAuth, Usage::ClientAuth] {
        assert_eq!(usage.to_string(), written(json!(usage)));
    }
}

#[test]
fn a_spec_of_the_first_version_is_a_spec_and_stays_as_short() {
    let spec = json!({ "serviceName": "app1" });
    let read: PkiSpec = serde_json::from_value(spec.clone()).unwrap();
    assert_eq!(json!(read), spec);
}

#[test]
fn explain_fills_the_lines_of_every_description_by_itself() {
    let mut crd = serde_json::to_value(Pki::crd()).unwrap();
    let broken = |crd: &Value| crd.to_string().matches("\\n").count();
    assert!(broken(&crd) > 0, "this file breaks its lines");
    unwrap_descriptions(&mut crd);
    assert_eq!(broken(&crd), 0);
}
