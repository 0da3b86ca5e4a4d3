//! What happens to a pair of replicas in production, while requests go on.

use crate::load::Load;
use crate::node::{Node, Replica, eventually, node};
use pki_cluster::install::RELEASE;
use pki_cluster::testing::manifest;
use serde_json::json;
use std::thread;
use std::time::Duration;

/// The chart before this one, as it was packaged.
const PREVIOUS_CHART: &str = "tests/integration/chart/upgrade/pki-operator-0.1.0.tgz";

#[test]
#[ignore = "needs root and packages: cargo test --test e2e -- --ignored"]
fn no_request_fails_while_replicas_come_and_go_in_an_orderly_way() {
    let node = node();
    node.uninstall();
    node.install_chart(PREVIOUS_CHART, &[]);
    node.pair();
    let load = Load::start(node.cluster.kubeconfig());
    let (mut requests, mut failures) = (0, Vec::new());
    let mut during = |what: &str, event: &dyn Fn()| {
        let (sent, failed) = load.during(what, event);
        requests += sent;
        failures.extend(failed);
    };
    let mut upgrade = |what: &str, values: &[&str]| {
        during(what, &|| {
            let (leader, other) = node.pair();
            node.install(values);
            wait_until_replaced(&node, &[&leader, &other]);
        });
    };
    upgrade("helm upgrade from the previous chart", &[]);
    // Until then Helm owns the plain path, and conflicts with an operator that writes another.
    eventually("the operator owns the path", || {
        has_secret_path(&node).then_some(())
    });
    // Helm renders first and writes seconds later: the operator replaces the path between the two.
    request_rotation(&node);
    // For the rotation below, whose end one would wait for until tomorrow.
    upgrade(
        "helm upgrade of a value",
        &["config.webhook-ca-overlap-seconds=20"],
    );
    assert!(has_secret_path(&node));
    during("the leader is deleted", &|| {
        let (leader, _) = node.pair();
        delete(&node, &leader, &[]);
        wait_until_replaced(&node, &[&leader]);
    });
    during("a replica is deleted without grace", &|| {
        let (_, other) = node.pair();
        delete(&node, &other, &["--force", "--grace-period=0"]);
        wait_until_replaced(&node, &[&other]);
    });
    during("a pod is drained", &|| {
        let (leader, _) = node.pair();
        evict(&node, &leader);
        wait_until_replaced(&node, &[&leader]);
    });
    during("the webhook's CA is replaced", &|| {
        replace_webhook_ca(&node);
    });
    load.stop();
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
#[ignore = "needs root and packages: cargo test --test e2e -- --ignored"]
fn what_is_lost_with_a_replica_that_crashes_goes_well_at_the_next_try() {
    let node = node();
    node.install(&[]);
    node.pair();
    let load = Load::start(node.cluster.kubeconfig());
    // What is on its way to a process is lost with it, and so is what is sent there before the node
    // learns of it.
    for what in ["the leader is killed", "the other one is killed"] {
        let (_, failures) = load.during(what, || {
            let (leader, other) = node.pair();
            let killed = if what.contains("leader") {
                leader
            } else {
                other
            };
            killed.signal("KILL");
            eventually("it is started again", || {
                let (a, b) = node.pair();
                let now = [a, b].into_iter().find(|now| now.name == killed.name)?;
                (now.restarts > killed.restarts).then_some(())
            });
        });
        let lost = |failure: &String| failure.contains("failed calling webhook");
        assert!(failures.iter().all(lost), "{failures:#?}");
    }
    // Nothing has been waiting until now.
    let (_, failures) = load.during("after that", || thread::sleep(Duration::from_secs(3)));
    load.stop();
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
#[ignore = "needs root and packages: cargo test --test e2e -- --ignored"]
fn a_leader_that_was_frozen_writes_nothing_late() {
    let node = node();
    // Nobody is asked, so that the frozen one holds up nothing.
    node.install(&["webhook.failurePolicy=Ignore", "webhook.timeoutSeconds=1"]);
    let (leader, other) = node.pair();
    let names: Vec<_> = (0..60).map(|number| format!("frozen-{number}")).collect();
    let (early, late) = names.split_at(40);
    create_pkis(&node, early);
    leader.signal("STOP");
    create_pkis(&node, late);
    eventually("the other one leads", || {
        let lease = node.get(&["lease", "pki-operator", "--namespace", RELEASE]);
        (lease["spec"]["holderIdentity"] == *other.name).then_some(())
    });
    wait_until_ready(&node, &names);
    leader.signal("CONT");
    eventually("it notices", || {
        // On a slow machine kubelet may have found it dead, and started another in its place.
        let logs = ["logs", &leader.name, "--namespace", RELEASE];
        let previous = [&logs[..], &["--previous"]].concat();
        let is_told = |logs: &[&str]| {
            node.kubectl(logs)
                .is_ok_and(|logs| logs.contains("no longer leading"))
        };
        (is_told(&logs) || is_told(&previous)).then_some(())
    });
    let more = ["frozen-after".to_owned()];
    create_pkis(&node, &more);
    wait_until_ready(&node, &more);
    let issued = node.writes_of_secrets(|name| name.starts_with("frozen-"));
    let twice: Vec<_> = issued.iter().filter(|(_, writes)| **writes != 1).collect();
    assert!(
        twice.is_empty() && issued.len() == 61,
        "{} Secrets, {twice:?}",
        issued.len()
    );
    node.kubectl(&["delete", "pkis", "--all", "--namespace=default"])
        .unwrap();
}

fn create_pkis(node: &Node, names: &[String]) {
    let pki = |name: &String| manifest::pki(name, &json!({"serviceName": "app1"}));
    let list = manifest::list(names.iter().map(pki));
    node.kubectl_with(&list.to_string(), &["create", "--filename=-"])
        .unwrap();
}

fn wait_until_ready(node: &Node, names: &[String]) {
    let names: Vec<_> = names.iter().map(|name| format!("pki/{name}")).collect();
    let mut wait = vec!["wait", "--for=condition=Ready", "--timeout=120s"];
    wait.extend(names.iter().map(String::as_str));
    node.kubectl(&wait).unwrap();
}

/// Whether the path of each webhook has a secret segment.
fn has_secret_path(node: &Node) -> bool {
    let configuration = node.get(&["validatingwebhookconfiguration", "pki-operator"]);
    let mut webhooks = configuration["webhooks"].as_array().unwrap().iter();
    webhooks.all(|webhook| {
        let path = webhook["clientConfig"]["service"]["path"].as_str();
        path.is_some_and(|path| path.len() > "/validate".len() && path.ends_with("/validate"))
    })
}

const WEBHOOK_CA: [&str; 4] = ["secret", "pki-operator-webhook-ca", "--namespace", RELEASE];

/// Asks for another CA and another path of the webhook.
fn request_rotation(node: &Node) {
    let annotate = [&["annotate"], &WEBHOOK_CA[..], &["box.com/rotate-now="]].concat();
    node.kubectl(&annotate).unwrap();
}

/// Has it replaced, and waits until the one before is trusted no more.
fn replace_webhook_ca(node: &Node) {
    let current = || node.get(&WEBHOOK_CA)["data"]["tls.crt"].clone();
    let before = current();
    request_rotation(node);
    eventually("only the next one is trusted", || {
        let configuration = node.get(&["validatingwebhookconfiguration", "pki-operator"]);
        let now = current();
        let trusted = &configuration["webhooks"][0]["clientConfig"]["caBundle"];
        (now != before && *trusted == now).then_some(())
    });
}

fn delete(node: &Node, replica: &Replica, options: &[&str]) {
    let delete = ["delete", "pod", &replica.name, "--namespace", RELEASE];
    node.kubectl(&[&delete, options].concat()).unwrap();
}

/// What `kubectl drain` does to each pod; the disruption budget has its say.
fn evict(node: &Node, replica: &Replica) {
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": replica.name, "namespace": RELEASE}
    });
    let path = format!(
        "/api/v1/namespaces/{RELEASE}/pods/{}/eviction",
        replica.name
    );
    node.kubectl_with(
        &eviction.to_string(),
        &["create", "--raw", &path, "--filename=-"],
    )
    .unwrap();
}

/// Waits until two replicas are ready, and these have ended.
fn wait_until_replaced(node: &Node, gone: &[&Replica]) {
    eventually("others take their place", || {
        let pods = node.get(&["pods", "--namespace", RELEASE]);
        let pods = pods["items"].as_array().unwrap();
        let is_there = |replica: &&&Replica| {
            pods.iter()
                .any(|pod| pod["metadata"]["name"] == *replica.name)
        };
        gone.iter().find(is_there).is_none().then_some(())
    });
    node.pair();
}
