//! A policy that flips every second, over many pods: what the API server is asked to write stays
//! within the budgets, the last word is the right one, and a Pki that has nothing to do with it
//! gets its certificate meanwhile.
//!
//! The small storm is part of every run; the large one is run by name (see `.ci/run`) and prints
//! its figures: `cargo test --test integration -- --ignored storm --nocapture`.

use crate::harness::{Installed, Namespace, arena, eventually, quiet};
use pki_cluster::install::Operator;
use pki_cluster::testing::manifest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

/// Events for one object at once, and for all objects together: then one in five minutes, and 200 a
/// second.
const PER_OBJECT: u64 = 25;
const IN_ALL: (u64, u64) = (1000, 200);

struct Storm {
    namespaces: usize,
    pods: usize,
    flips: u32,
}

#[test]
fn a_policy_that_flips_every_second_keeps_within_the_budgets() {
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let storm = Storm {
        namespaces: 4,
        pods: 25,
        flips: 10,
    };
    storm.rage(&arena, &operator);
}

#[test]
#[ignore = "takes minutes: cargo test --test integration -- --ignored storm --nocapture"]
fn a_policy_that_flips_over_five_thousand_pods_keeps_within_the_budgets() {
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let storm = Storm {
        namespaces: 50,
        pods: 100,
        flips: 60,
    };
    storm.rage(&arena, &operator);
}

impl Storm {
    fn rage(&self, arena: &Installed, operator: &Operator) {
        allow(arena, "db");
        let namespaces: Vec<_> = (0..self.namespaces)
            .map(|_| arena.namespace("storm"))
            .collect();
        let calm = arena.namespace("calm");
        for some in namespaces.chunks(self.namespaces.div_ceil(4)) {
            thread::scope(|scope| {
                for ns in some {
                    scope.spawn(|| self.fill(ns));
                }
            });
        }
        for ns in &namespaces {
            ns.wait_until_ready("app1-pki");
        }
        quiet();
        let before = (
            delays(&calm, "before", 5),
            operator.process.usage().unwrap(),
        );

        let (begin, mut during) = (Instant::now(), Vec::new());
        for flip in 0..self.flips {
            allow(arena, if flip % 2 == 0 { "dc" } else { "db" });
            if flip % 5 == 0 {
                during.append(&mut delays(&calm, &format!("during-{flip}"), 1));
            }
            let next = Duration::from_secs((flip + 1).into());
            thread::sleep(next.saturating_sub(begin.elapsed()));
        }
        allow(arena, "dc");
        for ns in &namespaces {
            ns.wait_until_refused("app1-pki", "PkiServiceNameError");
        }
        let pods = self.namespaces * self.pods;
        eventually("the last word of every pod is that it is refused", || {
            let last = last_words(arena);
            (last.len() == pods && last.values().all(|kind| kind == "Warning")).then_some(())
        });
        let seconds = begin.elapsed().as_secs();
        let most = counts(arena).into_values().max().unwrap_or_default();
        let (writes, others) = writes(arena);
        let after = operator.process.usage().unwrap();
        println!(
            "{pods} pods in {} namespaces, {} flips, {seconds} s until the last word:\n  \
             writes of Events {writes}, at most {most} for one object; other writes {others}\n  \
             resident memory (MiB) before {:.0}, after {:.0}, at most {:.0}; processor seconds {:.1}\n  \
             issuance of another Pki (ms, slowest) before {}, during {}",
            self.namespaces,
            self.flips,
            before.1.resident,
            after.resident,
            after.most_resident,
            after.cpu - before.1.cpu,
            slowest(&before.0),
            slowest(&during),
        );
        assert!(
            // Each fault may end, which is another Event.
            most <= 2 * (PER_OBJECT + seconds / 300 + 1),
            "{most} for one object"
        );
        assert!(
            writes <= IN_ALL.0 + IN_ALL.1 * (seconds + 1),
            "{writes} in {seconds} s"
        );
        assert_eq!(during.len(), self.flips.div_ceil(5) as usize);
    }

    /// Pods that nobody schedules, and their Pki.
    fn fill(&self, ns: &Namespace<'_>) {
        let pods = (0..self.pods).map(|number| {
            let mut spec = manifest::secret_volume("app1-pki");
            spec["schedulingGates"] = json!([{"name": "example.com/never"}]);
            manifest::pod(&format!("app1-{number}"), &spec)
        });
        let list = manifest::list(pods);
        eventually("the service account is there", || {
            ns.get("serviceaccount", "default").map(drop)
        });
        let create = ["create", "--filename=-", "--namespace", &ns.name];
        ns.installed
            .kubectl_with(&list.to_string(), &create)
            .unwrap();
        eventually("the policy is in force", || {
            ns.kubectl_apply_pki("app1-pki", r#"{"serviceName": "db"}"#)
                .ok()
        });
    }
}

/// Permits this name, and no other, in the namespaces of the storm.
fn allow(arena: &Installed, name: &str) {
    let spec = json!({"namespaces": {"names": ["storm-*"]}, "serviceNames": [name]});
    let policy = manifest::policy("storm", &spec);
    arena
        .kubectl_with(&policy.to_string(), &["apply", "--filename=-"])
        .unwrap();
}

/// How long it takes from the apply of a Pki until it is seen to be ready, one after another.
fn delays(ns: &Namespace<'_>, prefix: &str, count: usize) -> Vec<Duration> {
    let delay = |number| {
        let (name, begin) = (format!("{prefix}-{number}"), Instant::now());
        ns.apply_pki(&name, r#"{"serviceName": "app1"}"#);
        let ready = [
            "wait",
            "--for=condition=Ready",
            "--timeout=60s",
            "pki",
            &name,
        ];
        ns.kubectl(&ready).unwrap();
        begin.elapsed()
    };
    (0..count).map(delay).collect()
}

fn slowest(delays: &[Duration]) -> u128 {
    delays.iter().max().map_or(0, Duration::as_millis)
}

/// The Events about pods of the storm.
fn events(arena: &Installed) -> Vec<Value> {
    let printed = arena.kubectl(&[
        "get",
        "events.events.k8s.io",
        "--all-namespaces",
        "--output=json",
        "--field-selector=regarding.kind=Pod",
    ]);
    let list: Value = serde_json::from_str(&printed.unwrap()).unwrap();
    let mut events = list["items"].as_array().unwrap().clone();
    events.retain(|event| {
        let namespace = event["metadata"]["namespace"].as_str();
        event["reportingController"] == "pki-operator"
            && namespace.is_some_and(|namespace| namespace.starts_with("storm-"))
    });
    events
}

/// The type of the latest Event of each pod.
fn last_words(arena: &Installed) -> BTreeMap<String, String> {
    let mut last = BTreeMap::<String, (String, String)>::new();
    for event in events(arena) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let time = [&event["series"]["lastObservedTime"], &event["eventTime"]].map(text);
        let time = time.into_iter().find(|time| !time.is_empty()).unwrap();
        let said = (time, text(&event["type"]));
        let known = last.entry(text(&event["regarding"]["uid"])).or_default();
        *known = said.max(std::mem::take(known));
    }
    last.into_iter()
        .map(|(pod, (_, kind))| (pod, kind))
        .collect()
}

/// The number of Events on each pod.
fn counts(arena: &Installed) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for event in events(arena) {
        let uid = event["regarding"]["uid"].as_str().unwrap().to_owned();
        *counts.entry(uid).or_default() += event["series"]["count"].as_u64().unwrap_or(1);
    }
    counts
}

/// How often the operator wrote an Event, and anything else, in the namespaces of the storm.
fn writes(arena: &Installed) -> (u64, u64) {
    let writes = arena.operator_writes_where(|namespace| namespace.starts_with("storm-"));
    let events = writes
        .iter()
        .filter(|write| write.what.ends_with(" events"))
        .count();
    (events as u64, (writes.len() - events) as u64)
}
