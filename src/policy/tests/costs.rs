//! The limits of rules in CEL, and what happens to rules over them.

use super::*;
use crate::policy::expression::{MAX_RULES, POLICY_STEPS, fault};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// The rule that was found to take most of what a rule may.
const WORST: &str = "pki.spec.uris.all(a, pki.spec.dnsNames.all(b, !b.startsWith(a)))";

/// A policy for all names with these rules.
fn with(expressions: &[&str]) -> Value {
    let rule =
        |expression: &&str| json!({ "expression": expression, "message": "write something else" });
    let rules: Vec<_> = expressions.iter().map(rule).collect();
    json!({
        "serviceNames": ["*"], "dnsNames": ["*.example.com"], "uris": ["spiffe://example.com/*"], "validations": rules
    })
}

fn faults_of(expressions: &[&str]) -> Vec<String> {
    let spec = serde_json::from_value(with(expressions)).unwrap();
    let faults = faults(&spec, &Settings::default());
    faults.iter().map(ToString::to_string).collect()
}

/// A Pki with this number of names and URIs.
fn spec(names: usize) -> Value {
    let name = |number| format!("{number}.example.com");
    let uri = |number| format!("spiffe://example.com/{number}");
    json!({
        "serviceName": "app1", "dnsNames": (0..names).map(name).collect::<Vec<_>>(),
        "uris": (0..names).map(uri).collect::<Vec<_>>()
    })
}

/// `[e, e, ...]` with this number of elements.
fn list(element: &str, count: usize) -> String {
    format!("[{}]", vec![element; count].join(","))
}

#[test]
fn a_rule_that_costs_too_much_is_a_fault_and_holds_for_no_pki() {
    let many_empty = list("''", 240) + r".all(x, !x.matches(r'\w{100}'))";
    let long_list = list("1", 257) + ".size() == 257";
    let patterns = (0..9).map(|number| format!("''.matches('{number}')"));
    let patterns = patterns.collect::<Vec<_>>().join(" || ");
    for (expression, expected, reason) in [
        (
            many_empty.as_str(),
            r"the pattern '\w{100}' takes more than 512 KiB compiled: write it shorter",
            "it cannot be read",
        ),
        (
            "pki.spec.uris.all(a, pki.spec.uris.all(b, !a.contains(b)))",
            "steps for the largest Pki: write one that takes at most 250000",
            "it takes more steps than a rule may",
        ),
        (
            "pki.spec.uris.all(a, a.matches(pki.spec.serviceName))",
            "the pattern of matches() is computed: write it as a literal between quotes",
            "it cannot be read",
        ),
        (
            long_list.as_str(),
            "it has a list or map that is too long: write at most 256 elements",
            "it cannot be read",
        ),
        (
            r"''.matches('^\\w+$') || ''.matches('^\\w+-$') || ''.matches('^\\w+_$')",
            "it has too many large patterns: write at most 2",
            "it cannot be read",
        ),
        (
            patterns.as_str(),
            "it has too many patterns: write at most 8 different ones",
            "it cannot be read",
        ),
    ] {
        let fault = fault(expression).unwrap_or_else(|| panic!("{expression} is taken"));
        assert!(fault.contains(expected), "{fault}");
        let found = faults_of(&["true", expression]);
        assert!(
            found[0].starts_with("spec.validations[1].expression: "),
            "{found:?}"
        );
        let refused = refuse(&rules(&[with(&[expression])]), "ns", &spec(1));
        assert!(refused[0].contains(reason), "{refused:?}");
    }
}

#[test]
fn the_rules_of_a_policy_are_bounded_in_number_and_in_total_cost() {
    let eleven = ["true"; 11];
    assert_eq!(
        faults_of(&eleven),
        ["spec.validations: 11 rules are too many: write at most 10"]
    );
    assert_eq!(MAX_RULES, 10);
    let refused = refuse(&rules(&[with(&eleven)]), "ns", &spec(0));
    assert!(
        refused[0].contains("its policy has more than 10 rules"),
        "{refused:?}"
    );
    approve(&rules(&[with(&eleven[..10])]), "ns", &spec(0));

    assert_eq!(faults_of(&[WORST]), [""; 0]);
    let other = WORST.replace("startsWith", "endsWith");
    let found = faults_of(&[WORST, &other]);
    assert!(
        found[0].starts_with("spec.validations: together they take up to")
            && found[0].ends_with(&format!("write rules that take at most {POLICY_STEPS}")),
        "{found:?}"
    );
    let refused = refuse(&rules(&[with(&[WORST, &other])]), "ns", &spec(0));
    assert!(
        refused[0].contains("the rules of its policy take more steps together"),
        "{refused:?}"
    );
}

#[test]
fn for_a_verdict_the_rules_that_cost_least_come_first() {
    let no = |number: usize| {
        with(&[&format!(
            "{WORST} && pki.spec.serviceName == 'other-{number}'"
        )])
    };
    let yes = with(&[&format!(
        "{WORST} && pki.spec.serviceName != 'other' && true"
    )]);
    let cheap = with(&["pki.spec.dnsNames.all(name, !name.startsWith('admin.'))"]);
    let mut policies = vec![no(0), no(1), no(2), yes];
    let costly = rules(&policies);
    assert_eq!(approve(&costly, "ns", &spec(1)).policy, "policy-3");
    assert_eq!(
        costly.admits(&pki(&spec(100))),
        None,
        "there is nothing left for it"
    );
    refuse(&costly, "ns", &spec(100));
    policies.push(cheap);
    let all = rules(&policies);
    assert_eq!(approve(&all, "ns", &spec(1)).policy, "policy-3");
    assert_eq!(approve(&all, "ns", &spec(100)).policy, "policy-4");
    assert_eq!(all.admits(&pki(&spec(100))), Some("policy-4"));
    assert!(all.is_slow("ns") && !rules(&policies[4..]).is_slow("ns"));
}

fn pki(spec: &Value) -> Pki {
    let mut pki = Pki::new("app1-pki", serde_json::from_value(spec.clone()).unwrap());
    pki.metadata.namespace = Some("ns".into());
    pki
}

#[test]
fn a_value_longer_than_the_estimate_costs_its_real_size() {
    let policies = rules(&[with(&[
        &(list("1", 256) + ".all(x, !pki.metadata.annotations.a.contains('b'))")
    ])]);
    let judge = |bytes: usize| {
        let mut pki = pki(&spec(0));
        pki.metadata.annotations = Some([("a".to_owned(), "a".repeat(bytes))].into());
        policies.evaluate(&pki)
    };
    judge(4096).unwrap();
    judge(10_000).unwrap();
    let refused = judge(250_000).unwrap_err();
    assert!(
        refused[0]
            .to_string()
            .contains("more steps together than one decision may"),
        "{refused:?}"
    );
}

#[test]
fn a_verdict_that_takes_too_long_all_the_same_begins_no_further_rule() {
    thread_local! {
        static NOW: Cell<(Option<Instant>, u32)> = const { Cell::new((None, 0)) };
    }
    /// A second later at every look.
    fn clock() -> Instant {
        let (begin, looks) = NOW.get();
        let begin = begin.unwrap_or_else(Instant::now);
        NOW.set((Some(begin), looks + 1));
        begin + Duration::from_secs(looks.into())
    }
    let five = ["1 > 0", "2 > 0", "3 > 0", "4 > 0", "5 > 0"];
    let timed = rules(&[with(&five)]).with_clock(clock);
    let refused = refuse(&timed, "ns", &spec(0));
    assert_eq!(
        refused.len(),
        3,
        "the first two were asked in time: {refused:?}"
    );
    assert!(
        refused[0].contains("the decision takes too long"),
        "{refused:?}"
    );
    approve(&rules(&[with(&five)]), "ns", &spec(0));
}

#[test]
fn rules_take_no_more_steps_than_estimated() {
    let listed = list("1", 200) + ".all(x, x > 0)";
    for (expression, names, least) in [
        (WORST, 100, 10_000),
        (
            "pki.spec.dnsNames.all(a, pki.spec.dnsNames.exists_one(b, a == b))",
            100,
            10_000,
        ),
        (
            "pki.spec.dnsNames.filter(a, a.contains('example')).size() == 100",
            100,
            100,
        ),
        (listed.as_str(), 0, 200),
        ("pki.spec.serviceName.matches('^app[0-9]+$')", 0, 1),
    ] {
        let steps = measure(expression, &pki(&spec(names))).expect(expression);
        assert!(steps.taken >= least, "{expression}: {steps:?}");
        assert!(steps.taken <= steps.estimated, "{expression}: {steps:?}");
        assert!(steps.estimated <= steps.most, "{expression}: {steps:?}");
        assert!(steps.most <= RULE_STEPS, "{expression}: {steps:?}");
    }
}
