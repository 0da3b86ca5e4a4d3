//! The rule book as tables: what is permitted, what is refused, and in which words.

mod costs;
mod defaults;
mod expressions;
mod faults;
mod fields;
mod identifiers;
mod keys;
mod look_alikes;
mod names;
mod pods;
mod secret;
mod service;
mod transitions;

use super::*;
use jiff::SignedDuration;
use serde_json::{Value, json};

/// A rule book of policies with these specs, named `policy-0` and so on.
fn rules(policies: &[Value]) -> RuleBook {
    let settings = Settings {
        namespace: "pki-operator".into(),
        reserved_secrets: vec!["ca".into(), "webhook-ca".into()],
        reserved_addresses: ["10.96.0.1", "fd00:96::/112"]
            .map(|it| range(it).unwrap())
            .into(),
        ..Settings::default()
    };
    let policies: Vec<PkiPolicy> = policies
        .iter()
        .enumerate()
        .map(|(number, spec)| {
            let spec = serde_json::from_value(spec.clone()).expect("a policy");
            PkiPolicy::new(&format!("policy-{number}"), spec)
        })
        .collect();
    RuleBook::new(Arc::new(settings), &policies)
}

fn allowing(names: &[&str]) -> RuleBook {
    rules(&[json!({ "serviceNames": names })])
}

/// Judges a Pki named `app1-pki`.
fn judge(rules: &RuleBook, namespace: &str, spec: &Value) -> Result<Approved, Vec<Violation>> {
    let mut pki = Pki::new(
        "app1-pki",
        serde_json::from_value(spec.clone()).expect("a spec"),
    );
    pki.metadata.namespace = Some(namespace.into());
    rules.evaluate(&pki)
}

fn approve(rules: &RuleBook, namespace: &str, spec: &Value) -> Approved {
    judge(rules, namespace, spec)
        .unwrap_or_else(|violations| panic!("{spec} is refused: {violations:?}"))
}

/// Field and message of each violation.
fn refuse(rules: &RuleBook, namespace: &str, spec: &Value) -> Vec<String> {
    let violations =
        judge(rules, namespace, spec).expect_err(&format!("{spec} in {namespace} is approved"));
    assert!(!violations.is_empty(), "{spec} is refused without a reason");
    violations
        .iter()
        .map(|v| format!("{}: {v}", v.field()))
        .collect()
}
