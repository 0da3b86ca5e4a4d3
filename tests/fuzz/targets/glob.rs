//! Globs of service names and of namespaces: a pattern, a name, and a namespace if there is a third
//! line.

use super::{lossy, oracle, pki, policy, rule_book};
use pki_operator::api::PkiPolicy;
use pki_operator::policy::{PolicyFault, faults};
use serde_json::json;
use std::time::{Duration, Instant};

/// Longer than any that the schema takes, so that time would show.
const LONGEST: usize = 2000;

/// Compares every glob with the oracle's.
pub fn glob(data: &[u8]) {
    let text = lossy(data);
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (pattern, name, namespace) = (next(), next(), next());
    if text.len() > LONGEST {
        return;
    }
    let begin = Instant::now();
    of_service_names(pattern, name, namespace);
    of_namespaces(pattern, name);
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "it took {took:?}");
}

fn of_service_names(pattern: &str, name: &str, namespace: &str) {
    let policy = policy("p", json!({"serviceNames": [pattern]}));
    let is_permitted = permits(&policy, namespace, name);
    let expected = oracle::allows_service(&policy.spec, namespace, name);
    assert_eq!(is_permitted, expected, "{pattern:?} {name:?} {namespace:?}");
    let faults = faults(&policy.spec, &super::settings());
    if cannot_match(&faults) {
        assert!(!is_permitted, "{pattern:?} matches {name:?}: {faults:?}");
    }
    let witness = witness(&oracle::expand(pattern, "n"));
    if faults.is_empty() && witness.len() <= 63 {
        assert!(
            permits(&policy, "n", &witness),
            "{pattern:?} matches nothing, not even {witness:?}"
        );
    }
}

/// A policy is for every namespace that a glob of its own matches, and for no other.
fn of_namespaces(glob: &str, namespace: &str) {
    let policy = policy(
        "p",
        json!({"namespaces": {"names": [glob]}, "serviceNames": ["a"]}),
    );
    let is_match = oracle::glob_matches(glob, namespace);
    assert_eq!(
        permits(&policy, namespace, "a"),
        is_match,
        "{glob:?} {namespace:?}"
    );
    let known = rule_book([&policy]);
    assert_eq!(known.policies_for(namespace).count(), usize::from(is_match));
}

fn permits(policy: &PkiPolicy, namespace: &str, service: &str) -> bool {
    let asked = pki(namespace, json!({"serviceName": service}));
    let rules = rule_book([policy]);
    let is_permitted = rules.evaluate(&asked).is_ok();
    assert_eq!(is_permitted, rules.admits(&asked).is_some());
    is_permitted
}

fn cannot_match(faults: &[PolicyFault]) -> bool {
    let mut faults = faults.iter();
    faults.any(|fault| {
        fault.message.contains("can never match") || fault.message.contains("has a placeholder")
    })
}

/// A short name that a glob matches, if it matches any: a star is nothing in the middle, and a
/// letter at the ends.
fn witness(glob: &str) -> String {
    let last = glob.len().saturating_sub(1);
    let letters = glob.char_indices().filter_map(|(index, c)| match c {
        '*' if index == 0 || index == last => Some('a'),
        '*' => None,
        c => Some(c),
    });
    letters.collect()
}
