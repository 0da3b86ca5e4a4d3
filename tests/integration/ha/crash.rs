//! The operator is killed at any moment, again and again.

use crate::ha::replicas::expect_one_issuance_each;
use crate::harness::{Namespace, arena, eventually};
use pki_cluster::testing::manifest;
use serde_json::{Value, json};
use std::hash::{BuildHasher as _, RandomState};
use std::thread;
use std::time::Duration;

const ROUNDS: usize = 15;
const BURST: usize = 8;

#[test]
fn killed_at_any_moment_it_issues_once_and_publishes_once() {
    let arena = arena();
    let mut operator = arena.first_replica("operator-1", &[]).unwrap();
    let (ns, other) = (arena.namespace("crash"), arena.namespace("faulty"));
    other.permit(&["appp1"], "");
    other.apply_pki("app1-pki", r#"{"serviceName": "appp1"}"#);
    other.wait_until_ready("app1-pki");
    other.withdraw();
    other.pod_with("app1", "app1-pki");
    let events = || [other.events("Pod", "app1"), other.events("Pki", "app1-pki")];
    let published = eventually("the fault is published", || {
        Some(events()).filter(|events| events.iter().all(|events| events.len() == 1))
    });

    for round in 0..ROUNDS {
        let burst = burst(round);
        thread::scope(|scope| {
            // Some of it may come too late for the webhook of this process, and is applied to the
            // next one.
            scope.spawn(|| apply_whole_burst(&ns, &burst).ok());
            thread::sleep(random(Duration::from_millis(400)));
            operator.process.kill().unwrap();
        });
        operator = arena.first_replica("operator-1", &[]).unwrap();
        eventually("the burst is stored", || {
            apply_whole_burst(&ns, &burst).ok()
        });
    }
    expect_one_issuance_each(&ns, ROUNDS * BURST);
    assert_eq!(
        events(),
        published,
        "the very Events of before the first crash, with no count"
    );
}

#[test]
fn a_restart_with_a_thousand_certificates_writes_nothing() {
    const PKIS: usize = 1000;
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("restart");
    let pki = |number| manifest::pki(&format!("p{number}"), &json!({"serviceName": "app1"}));
    for created in arena.api.create_all(&ns.name, (0..PKIS).map(pki), false) {
        created.unwrap();
    }
    expect_one_issuance_each(&ns, PKIS);
    let before = ns.operator_writes();
    operator.process.kill().unwrap();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    eventually("every Pki has been reconciled", || {
        let page = operator.get("/metrics").ok()?.1;
        let count = "pki_operator_reconcile_duration_seconds_count ";
        let reconciles = page.lines().find_map(|line| line.strip_prefix(count))?;
        (reconciles.parse::<usize>().ok()? >= PKIS).then_some(())
    });
    ns.barrier();
    assert_eq!(ns.operator_writes(), before);
    println!("{PKIS} certificates, restarted: {before:?}, and none since");
    ns.delete_later("namespace", &ns.name);
}

/// The API server takes this time, and the library that reads it does not. No object may stop the
/// operator.
#[test]
fn a_time_beyond_belief_in_the_managed_fields_of_one_object_harms_no_other() {
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("hostile");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("app1-pki");
    ns.pod_with("app1", "app1-pki");
    for (kind, name) in [("secret", "app1-pki"), ("pki", "app1-pki"), ("pod", "app1")] {
        let patch = r#"[{"op": "replace", "path": "/metadata/managedFields/0/time", "value": "9999-12-31T23:59:59Z"},
            {"op": "add", "path": "/metadata/annotations", "value": {"hostile": "yes"}}]"#;
        ns.kubectl(&["patch", kind, name, "--type=json", "--patch", patch])
            .unwrap();
        let stored = ns.kubectl(&["get", kind, name, "--output=yaml", "--show-managed-fields"]);
        assert!(
            stored.unwrap().contains("9999-12-31T23:59:59Z"),
            "{kind} holds it"
        );
    }
    operator.process.kill().unwrap();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    ns.apply_pki("other", r#"{"serviceName": "app2"}"#);
    ns.wait_until_ready("other");
    ns.merge("secret", "app1-pki", &json!({"data": {"tls.crt": ""}}));
    eventually("it is repaired", || {
        let secret = ns.get("secret", "app1-pki")?;
        (!crate::harness::file(&secret, "tls.crt").is_empty()).then_some(())
    });
    assert!(
        !operator.process.log().contains("tls.key"),
        "no Secret is in the log"
    );
}

fn burst(round: usize) -> Vec<Value> {
    let pki = |number| {
        manifest::pki(
            &format!("r{round}-{number}"),
            &json!({"serviceName": "app2"}),
        )
    };
    (0..BURST).map(pki).collect()
}

/// Applies each, whatever becomes of the others; returns the first refusal.
fn apply_whole_burst(ns: &Namespace<'_>, burst: &[Value]) -> anyhow::Result<()> {
    let mut applied = Ok(());
    for pki in burst {
        let one = ns.installed.api.apply(&ns.name, pki);
        applied = applied.and(one.map(drop));
    }
    applied
}

/// A new random pause of at most this.
fn random(most: Duration) -> Duration {
    let dice = RandomState::new().hash_one(0) % 1000;
    most * u32::try_from(dice).expect("less than a thousand") / 1000
}
