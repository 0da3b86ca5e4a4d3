//! A tenant's objects use up neither the memory nor the processor of a replica.

use crate::harness::{Namespace, arena, eventually};
use pki_cluster::install::Operator;
use pki_cluster::testing::manifest;
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;

/// Creates these objects, some at a time.
fn create(ns: &Namespace<'_>, objects: impl Iterator<Item = Value>) {
    for created in ns.installed.api.create_all(&ns.name, objects, false) {
        created.unwrap();
    }
}

#[test]
fn objects_with_long_annotations_do_not_use_up_the_memory() {
    let arena = arena();
    let ns = arena.namespace("large");
    let secret = |number| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {
            "name": format!("large-{number}"), "annotations": {"long": "x".repeat(250_000)}}})
    };
    create(&ns, (0..200).map(secret));
    let operator = arena.first_replica("operator-large", &[]).unwrap();
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    // Nothing is issued before all Secrets are known.
    ns.wait_until_ready("app1-pki");
    let most = operator.process.usage().unwrap().most_resident;
    ns.delete_all_later("secrets");
    println!("{most:.0} MiB at most");
    // All of them together have 50 MB, which were in memory twice.
    assert!(most < 100.0, "{most} MiB");
}

/// Processor time that a replica takes up in this time, as a share of one core.
fn share(operator: &Operator, time: Duration) -> f64 {
    let usage = || operator.process.usage().unwrap().cpu;
    let before = usage();
    thread::sleep(time);
    (usage() - before) / time.as_secs_f64()
}

#[test]
fn refusals_for_a_secret_that_many_claim_cost_little() {
    let arena = arena();
    let operator = arena.first_replica("operator-claims", &[]).unwrap();
    let ns = arena.namespace("claims");
    ns.pod_with("pod", "one");
    let refused = vec![json!({"serviceName": "appp1", "secretName": "one"}); 50];
    assert_eq!(ns.create_all(&refused, false).len(), 50);
    eventually("the pod has its Events", || {
        (ns.events("Pod", "pod").len() >= 20).then_some(())
    });
    // Somebody else's, so that none of those that claim it is ever ready.
    ns.foreign_secret("one");
    let pki = |number| {
        let spec = json!({"serviceName": "app1", "secretName": "one"});
        manifest::pki(&format!("q-{number}"), &spec)
    };
    create(&ns, (0..400).map(pki));
    ns.wait_until_refused("q-399", "PkiSecretForeign");
    eventually("the refusals are settled at little cost", || {
        let share = share(&operator, Duration::from_secs(3));
        println!("{share:.2} cores");
        (share < 0.08).then_some(())
    });
    ns.delete_all_later("pkis");
}
