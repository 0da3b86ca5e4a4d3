//! Rules in CEL.

use super::{lossy, oracle, pki, policy, rule_book, settings};
use pki_operator::api::{Pki, PkiPolicy};
use pki_operator::policy::{PolicyFault, faults};
use serde_json::json;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// What rules are asked about: nothing, something of everything, and many names.
static PKIS: LazyLock<[Pki; 3]> = LazyLock::new(|| {
    let names: Vec<_> = (0..20)
        .map(|number| format!("n{number}.example.com"))
        .collect();
    let mut full = pki(
        "team-a",
        json!({
            "serviceName": "app1", "commonName": "app1", "dnsNames": ["api.example.com", "*.example.com"],
            "ipAddresses": ["10.1.2.3", "2001:db8::1"], "uris": ["spiffe://example.com/ns/team-a/app1"],
            "duration": "24h", "usages": ["server auth"], "secretName": "tls", "privateKey": {"algorithm": "RSA"},
            "secretTemplate": {"labels": {"a": "b"}, "annotations": {"a.example.com/b": "c"}},
        }),
    );
    full.metadata.labels = Some([("team".to_owned(), "payments".to_owned())].into());
    [
        pki("team-a", json!({"serviceName": "app1"})),
        full,
        pki("team-b", json!({"serviceName": "app1", "dnsNames": names})),
    ]
});

/// Reads a rule, asks it about some Pkis, and asks its opposite.
pub fn expression(data: &[u8]) {
    let expression = lossy(data);
    let begin = Instant::now();
    let (policy, faults) = (of(&expression), faults_of(&expression));
    for fault in &faults {
        assert!(fault.field.starts_with("spec.validations[0]."), "{fault}");
        assert!(
            !fault.message.is_empty() && oracle::is_readable(&fault.message),
            "{fault:?}"
        );
    }
    let verdicts = verdicts(&policy);
    if faults.iter().any(is_final) {
        assert_eq!(verdicts, [false; 3], "{faults:?}");
    }
    if faults.is_empty() {
        opposite_is_refused(&expression, verdicts);
    }
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(10), "it took {took:?}");
}

fn of(expression: &str) -> PkiPolicy {
    let validation = json!({"expression": expression, "message": "no"});
    let spec = json!({
        "serviceNames": ["*"], "dnsNames": ["*.example.com"], "ipAddresses": ["0.0.0.0/0", "::/0"],
        "uris": ["spiffe://example.com/*"], "validations": [validation],
    });
    policy("p", spec)
}

fn faults_of(expression: &str) -> Vec<PolicyFault> {
    faults(&of(expression).spec, &settings())
}

/// Which of the Pkis a policy permits.
fn verdicts(policy: &PkiPolicy) -> [bool; 3] {
    let rules = rule_book([policy]);
    PKIS.each_ref().map(|pki| {
        let evaluated = rules.evaluate(pki);
        let is_permitted = evaluated.is_ok();
        assert_eq!(
            is_permitted,
            rules.admits(pki).is_some(),
            "twice asked, and two answers"
        );
        for violation in evaluated.err().into_iter().flatten() {
            let said = violation.to_string();
            assert!(!said.is_empty() && oracle::is_readable(&said), "{said:?}");
        }
        is_permitted
    })
}

/// Whether a fault keeps a rule from ever being true.
fn is_final(fault: &PolicyFault) -> bool {
    [
        "it is false for",
        "it is of type",
        "it is too long",
        "it is nested",
        "it has too many",
        "it has a list",
        "it takes up to",
        "the pattern",
        "matches() takes",
        "line ",
    ]
    .iter()
    .any(|beginning| fault.message.starts_with(beginning))
}

/// What a rule permits, the opposite rule does not; and a rule that fails permits nothing, either
/// way.
fn opposite_is_refused(expression: &str, verdicts: [bool; 3]) {
    let opposite = format!("!(\n{expression}\n)");
    let opposite = super::expression::verdicts(&of(&opposite));
    for (permitted, opposite) in verdicts.into_iter().zip(opposite) {
        assert!(!(permitted && opposite), "permitted, and its opposite too");
    }
}
