//! A replica that goes by what may be out of date says so.

use crate::harness::{Line, arena, eventually};
use pki_cluster::install::{Operator, Replica};
use serde_json::Value;
use std::thread;
use std::time::{Duration, Instant};

/// In seconds.
const LIMIT: u64 = 20;

/// The age of the watch of a resource, as the metrics have it, in seconds.
fn age(operator: &Operator, resource: &str) -> f64 {
    let (_, page) = operator.get("/metrics").unwrap();
    let series = format!("pki_operator_watch_age_seconds{{resource=\"{resource}\"}} ");
    let mut lines = page.lines();
    let age = lines.find_map(|line| line.strip_prefix(&series));
    age.expect(&page).parse().unwrap()
}

#[test]
fn a_replica_is_not_ready_while_the_policies_it_knows_are_not_confirmed() {
    let arena = arena();
    let line = Line::to(&arena.kubeconfig);
    let limit = format!("--max-watch-age-seconds={LIMIT}");
    let flags = [limit.as_str()];
    let replica = Replica {
        kubeconfig: &line.kubeconfig,
        ..arena.described("operator-1", arena.webhook, &flags)
    };
    let operator = replica.start(|name, command| arena.cluster.spawn(name, command));
    let operator = operator.unwrap();
    // A watch that is begun anew is confirmed by that. Those that may go on do not get old, where a
    // bookmark would take a minute to come.
    let until = |is_ready: bool, words: &str| {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(120) {
            line.cut();
            thread::sleep(Duration::from_secs(4));
            let Ok((status, page)) = operator.get("/readyz") else {
                continue;
            };
            if (status == 200) == is_ready && page.contains(words) {
                return page;
            }
        }
        panic!(
            "not ready={is_ready} with {words:?}: {:?}",
            operator.get("/readyz")
        );
    };
    until(true, "ok");

    let role = arena.api.get("clusterrole", "", "pki-operator");
    let role = role.unwrap().unwrap();
    let replace = |rules: Vec<Value>| {
        let mut role = role.clone();
        role["rules"] = rules.into();
        let metadata = role["metadata"].as_object_mut().unwrap();
        metadata.retain(|field, _| ["name", "labels", "annotations"].contains(&field.as_str()));
        arena.api.replace("", &role).unwrap();
    };
    let rules = role["rules"].as_array().unwrap().clone();
    let mut without = rules.clone();
    without.retain(|rule| rule["resources"] != serde_json::json!(["pkipolicies"]));
    assert_eq!(without.len(), rules.len() - 1, "{rules:?}");
    replace(without);
    let page = until(
        false,
        "has not confirmed the watch of pkipolicies for more than 20s",
    );
    assert!(page.contains("probably a permission is missing"), "{page}");
    let (policies, pkis) = (age(&operator, "pkipolicies"), age(&operator, "pkis"));
    println!("{page}policies: {policies:.1} s, Pkis: {pkis:.1} s");
    assert!(policies > 20.0 && pkis < policies, "{policies} {pkis}");

    replace(rules);
    until(true, "ok");
    eventually("the watch is young", || {
        (age(&operator, "pkipolicies") < 20.0).then_some(())
    });
    assert!(
        operator.process.try_wait().unwrap().is_none(),
        "without a restart"
    );
}
