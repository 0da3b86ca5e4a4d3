//! Rules in CEL that cost too much: refused at apply; stored all the same they hold up nobody.

use crate::harness::{Installed, Namespace, arena, eventually};
use pki_cluster::install::Operator;
use pki_cluster::testing::manifest;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const POLICIES: usize = 10;

/// Rules that are over the limits. An operator that compiled patterns at every step took seconds
/// for each.
fn rules() -> Vec<Value> {
    let list = vec!["''"; 240].join(",");
    let pattern = format!(r"[{list}].all(x, !x.matches(r'\w{{100}}'))");
    let loops = "pki.spec.uris.all(a, pki.spec.uris.all(b, !a.contains(b)))";
    let rule = |expression: &str| json!({ "expression": expression, "message": "never" });
    let mut rules = vec![rule(&pattern); 9];
    rules.push(rule(loops));
    rules
}

/// A policy whose name sorts before that of the namespace's own policy.
fn policy(number: usize) -> Value {
    let spec = json!({ "serviceNames": ["web", "costly"], "validations": rules() });
    manifest::policy(&format!("a-costly-{number}"), &spec)
}

/// Measures the admission of 20 Pkis.
fn pace(ns: &Namespace<'_>) -> Duration {
    let begin = Instant::now();
    let specs = vec![json!({ "serviceName": "web", "duration": "1h" }); 20];
    let refused = ns.create_all(&specs, true);
    assert!(refused.is_empty(), "{refused:?}");
    begin.elapsed()
}

/// Checks that the operator lives, admits Pkis of another policy as before, and permits nothing by
/// these policies.
fn expect_undisturbed(operator: &Operator, ns: &Namespace<'_>, before: Duration) {
    for _ in 0..3 {
        assert_eq!(operator.get("/livez").expect("it lives").0, 200);
        let pace = pace(ns);
        assert!(pace < before * 10, "{pace:?}, and {before:?} before");
    }
    let refusal = ns.try_apply_pki("costly", r#"{"serviceName": "costly"}"#);
    let refusal = refusal.expect_err("it permits nothing");
    assert!(refusal.contains("never; the rule fails: it "), "{refusal}");
}

/// Prints how long `/livez` takes, and how long the API server waits for the webhook that judges
/// Pkis.
fn print_times(arena: &Installed, operator: &Operator) {
    let times = (0..100).map(|_| {
        let begin = Instant::now();
        operator.get("/livez").expect("it lives");
        begin.elapsed()
    });
    println!("/livez: at most {:?} of 100", times.max().expect("a time"));
    let page = arena.kubectl(&["get", "--raw=/metrics"]).expect("a page");
    let buckets = page.lines().filter(|line| {
        let metric = "apiserver_admission_webhook_admission_duration_seconds_bucket{";
        line.starts_with(metric) && line.contains("name=\"validate.pkis.box.com\"")
    });
    for bucket in buckets.filter(|line| line.contains("operation=\"CREATE\"")) {
        let bound = bucket
            .split("le=\"")
            .nth(1)
            .and_then(|it| it.split('"').next());
        let count = bucket.rsplit(' ').next();
        println!("answers of the webhook within {bound:?} s: {count:?}");
    }
}

fn problem(arena: &Installed, policy: &str) -> Option<String> {
    let policy = arena.api.get("pkipolicy", "", policy).ok()??;
    let mut conditions = policy["status"]["conditions"].as_array()?.iter();
    let failed = conditions.find(|condition| condition["status"] == "False")?;
    failed["message"].as_str().map(str::to_owned)
}

#[test]
fn rules_that_cost_too_much_are_refused_and_hold_up_nobody_when_they_are_stored() {
    let arena = arena();
    let operator = arena.first_replica("operator-costs", &[]).unwrap();
    let ns = arena.namespace("costs");
    ns.permit(&["web"], "");
    let before = pace(&ns);

    let begin = Instant::now();
    let refusal = arena.api.apply("", &policy(0)).unwrap_err().to_string();
    for said in [
        r"spec.validations[0].expression: the pattern '\w{100}' takes more than 512 KiB compiled",
        "spec.validations[9].expression: it takes up to ",
        "steps for the largest Pki: write one that takes at most 250000",
    ] {
        assert!(refusal.contains(said), "{said} is not in {refusal}");
    }
    let took = begin.elapsed();
    assert!(took < before * 10, "{took:?}, and {before:?} before");

    arena.without_webhooks();
    for number in 0..POLICIES {
        eventually("the policy is stored", || {
            arena.api.apply("", &policy(number)).ok()
        });
    }
    for number in 0..POLICIES {
        let name = format!("a-costly-{number}");
        let problem = eventually("the status has the message", || problem(&arena, &name));
        assert!(problem.contains("takes more than 512 KiB"), "{problem}");
    }
    arena.restore_release().unwrap();
    eventually("the webhook is called again", || {
        ns.try_apply_pki("web", r#"{"serviceName": "web"}"#).ok()
    });
    expect_undisturbed(&operator, &ns, before);

    drop(operator);
    let operator = arena.first_replica("operator-costs-2", &[]).unwrap();
    expect_undisturbed(&operator, &ns, before);
    print_times(&arena, &operator);
    ns.wait_until_ready("web");
    for number in 0..POLICIES {
        ns.delete("pkipolicy", &format!("a-costly-{number}"));
    }
}
