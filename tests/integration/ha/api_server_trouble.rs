//! Trouble with the API server. The operator retries refused requests at growing intervals, and
//! publishes how to resolve the cause. After that it needs no restart. No restart of any program
//! issues a certificate twice.

use crate::harness::{Installed, Namespace, Write, arena, eventually, notes};
use pki_cluster::Signal;
use pki_cluster::install::Operator;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

const PKIS: [&str; 3] = ["a", "b", "c"];
/// For how long requests are counted. The operator tries at once, after 5 s and after 15 s, and
/// the last of these attempts succeeds.
const WINDOW: Duration = Duration::from_secs(13);

/// Applies the Pkis, and a pod that waits for each.
fn apply(ns: &Namespace<'_>) {
    for name in PKIS {
        ns.pod_with(name, name);
        ns.apply_pki(name, r#"{"serviceName": "app1"}"#);
    }
}

/// Waits until each Pki says these words, and then that fewer requests than one a second are made
/// for each.
fn published_with_pauses(ns: &Namespace<'_>, words: &[&str], begin: Instant) {
    for name in PKIS {
        let message = ns.wait_until_refused(name, "PkiIssuanceFailed");
        for said in words {
            assert!(message.contains(said), "{message}");
        }
        let wide = ns.kubectl(&["get", "pki", name, "--output=wide"]).unwrap();
        assert!(wide.contains(&message), "{wide}");
    }
    expect_no_haste(ns, 0, begin);
}

/// Fewer requests than one a second are made for each Pki, not counting the first ones.
fn expect_no_haste(ns: &Namespace<'_>, before: usize, begin: Instant) {
    thread::sleep(WINDOW.saturating_sub(begin.elapsed()));
    let seconds = u32::try_from(begin.elapsed().as_secs()).expect("not long");
    let mut requests = ns.installed.operator_requests(|other| other == ns.name);
    let requests = requests.split_off(before);
    let count = u32::try_from(requests.len()).expect("not many");
    let most = seconds * u32::try_from(PKIS.len()).expect("a few");
    let rate = f64::from(count) / f64::from(most);
    println!("{}: {rate:.2} requests a second for each Pki", ns.name);
    assert!(count < most, "{:?} in {seconds} s", summary(&requests));
}

fn summary(requests: &[Write]) -> BTreeMap<&Write, usize> {
    let mut summary = BTreeMap::new();
    for request in requests {
        *summary.entry(request).or_default() += 1;
    }
    summary
}

/// Each pod has an Event that says the same, and the Pkis become ready by themselves.
fn published_and_resolved(ns: &Namespace<'_>, words: &[&str], operator: &Operator) {
    for name in PKIS {
        let published = notes(&ns.wait_for_events("Pod", name, 1));
        assert!(
            published[0].starts_with("Warning: ")
                && words.iter().all(|said| published[0].contains(said)),
            "{published:?}"
        );
    }
    let begin = Instant::now();
    for name in PKIS {
        ns.wait_until_ready(name);
    }
    println!(
        "{}: ready after {:.1} s",
        ns.name,
        begin.elapsed().as_secs_f64()
    );
    assert!(operator.process.try_wait().unwrap().is_none());
}

#[test]
fn a_quota_that_permits_no_secret_is_published_with_who_can_raise_it() {
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("quota");
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"},
        "spec": {"hard": {"secrets": "0"}}});
    ns.apply_object(&quota);
    eventually("the quota is in force", || {
        let quota = ns.get("quota", "none")?;
        quota["status"]["hard"]["secrets"].is_string().then_some(())
    });
    let words = [
        "exceeded quota: none",
        "ask the owner of that ResourceQuota",
    ];
    let begin = Instant::now();
    apply(&ns);
    published_with_pauses(&ns, &words, begin);
    ns.delete("quota", "none");
    published_and_resolved(&ns, &words, &operator);
}

#[test]
fn a_revoked_permission_is_published_with_who_can_restore_it() {
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("revoked");
    let name = "pki-operator-namespace";
    let role = arena.api.get("clusterrole", "", name);
    let mut role = role.unwrap().unwrap();
    role["metadata"] = json!({"name": name, "labels": role["metadata"]["labels"],
        "annotations": role["metadata"]["annotations"]});
    let mut without = role.clone();
    let rules = without["rules"].as_array_mut().unwrap();
    rules.retain(|rule| rule["resources"] != json!(["secrets"]));
    let replace = |role: &Value| {
        arena.api.replace("", role).unwrap();
    };
    replace(&without);
    may_create_secrets(&ns, false);
    let words = [
        r#"cannot create resource "secrets""#,
        "the platform team must restore it",
    ];
    let begin = Instant::now();
    apply(&ns);
    published_with_pauses(&ns, &words, begin);
    replace(&role);
    may_create_secrets(&ns, true);
    published_and_resolved(&ns, &words, &operator);
}

/// Waits until the API server sees the permission so.
fn may_create_secrets(ns: &Namespace<'_>, may: bool) {
    let create = json!({"verb": "create", "resource": "secrets", "namespace": ns.name});
    eventually("the permission is changed", || {
        (ns.installed.operator_may(&create) == may).then_some(())
    });
}

#[test]
fn a_foreign_rule_about_secrets_is_published_with_how_to_comply() {
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("ruled");
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "labels-on-secrets"}, "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name}},
                "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                    "resources": ["secrets"]}]},
            "validations": [{"expression": "has(object.metadata.labels) && 'team' in object.metadata.labels",
                "message": "every Secret needs the label team"}]}});
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "labels-on-secrets"},
        "spec": {"policyName": "labels-on-secrets", "validationActions": ["Deny"]}});
    ns.apply(&policy.to_string());
    ns.apply(&binding.to_string());
    eventually("the rule is in force", || {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": "probe"}});
        arena.api.dry_run(&ns.name, &secret).err()
    });
    let words = [
        "every Secret needs the label team",
        "add what it requires by spec.secretTemplate",
    ];
    let begin = Instant::now();
    apply(&ns);
    published_with_pauses(&ns, &words, begin);
    // As the message says.
    for name in PKIS {
        let spec = r#"{"serviceName": "app1", "secretTemplate": {"labels": {"team": "a"}}}"#;
        ns.apply_pki(name, spec);
    }
    published_and_resolved(&ns, &words, &operator);
    for kind in [
        "validatingadmissionpolicybinding",
        "validatingadmissionpolicy",
    ] {
        arena.api.delete(kind, "", "labels-on-secrets").unwrap();
    }
}

#[test]
fn in_a_namespace_that_is_being_deleted_nothing_is_tried_in_haste() {
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("ending");
    apply(&ns);
    for name in PKIS {
        ns.wait_until_ready(name);
    }
    // Pods go first: while one is there, so are the Pkis.
    let finalizers = |finalizers: Value| {
        ns.merge("pod", "a", &json!({"metadata": {"finalizers": finalizers}}));
    };
    finalizers(json!(["example.com/hold"]));
    let forbidden = || metric(&operator, "pki_operator_events_total", "\"forbidden\"");
    let before = (
        ns.installed
            .operator_requests(|other| other == ns.name)
            .len(),
        forbidden(),
    );
    ns.delete_later("namespace", &ns.name);
    eventually("the namespace is being deleted", || {
        let namespace = ns.get("namespace", &ns.name)?;
        (namespace["status"]["phase"] == "Terminating").then_some(())
    });
    let begin = Instant::now();
    for name in PKIS {
        ns.delete("secret", name);
    }
    for name in PKIS {
        let message = ns.wait_until_refused(name, "PkiIssuanceFailed");
        assert!(
            message.contains("the namespace is being deleted"),
            "{message}"
        );
    }
    expect_no_haste(&ns, before.0, begin);
    assert_eq!(
        forbidden(),
        before.1,
        "what nobody can do anything about is alerted on"
    );

    finalizers(Value::Null);
    eventually("the namespace is gone", || {
        let namespace = arena.api.get("namespace", "", &ns.name).ok()?;
        namespace.is_none().then_some(())
    });
    assert!(operator.process.try_wait().unwrap().is_none());
}

/// The sum of a metric over the lines that hold this word.
fn metric(operator: &Operator, name: &str, word: &str) -> u64 {
    let (_, page) = operator.get("/metrics").unwrap();
    let lines = page
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(word));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[test]
fn restarts_of_the_control_plane_and_a_compaction_issue_nothing_and_end_nothing() {
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("restarted");
    apply(&ns);
    for name in PKIS {
        ns.wait_until_ready(name);
    }
    ns.barrier();
    let before = ns.operator_writes();
    let (calm, certificates) = (issued(&operator), serials(&ns));

    for service in ["kube-apiserver", "etcd"] {
        arena.cluster.restart_service(service).unwrap();
        steady(&arena, &operator, &format!("after a restart of {service}"));
    }

    // While it sleeps, what it would go on from is forgotten: by etcd, and by the API server, whose
    // restart alone is enough for 410 Gone.
    let awake = operator.process.log().len();
    operator.process.signal(Signal::STOP).unwrap();
    let moved = arena.namespace("moved");
    moved.apply_object(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "moved"}}),
    );
    arena.cluster.compact().unwrap();
    arena.cluster.restart_service("kube-apiserver").unwrap();
    operator.process.signal(Signal::CONT).unwrap();
    steady(&arena, &operator, "after a compaction");
    let log = operator.process.log().split_off(awake);
    let is_relist = |line: &str| line.contains(r#"what="pkis""#) && line.contains("Expired");
    assert!(log.lines().any(is_relist), "Pkis are listed again: {log}");

    ns.barrier();
    assert_eq!(ns.operator_writes(), before);
    assert_eq!(serials(&ns), certificates);
    // One for each time it was seen that it is steady, and one of the barrier.
    assert_eq!(issued(&operator), calm + 4);
    assert!(operator.process.try_wait().unwrap().is_none());
}

/// Waits until a Pki that is applied now becomes ready, and says how long that took.
fn steady(arena: &Installed, operator: &Operator, when: &str) {
    let begin = Instant::now();
    let ns = arena.namespace("steady");
    eventually("a Pki is taken", || {
        ns.try_apply_pki("new", r#"{"serviceName": "app1"}"#).ok()
    });
    ns.wait_until_ready("new");
    eventually("the replica is ready", || {
        operator
            .get("/readyz")
            .ok()
            .filter(|(status, _)| *status == 200)
    });
    println!(
        "{when}: steady within {:.1} s",
        begin.elapsed().as_secs_f64()
    );
}

fn issued(operator: &Operator) -> u64 {
    metric(operator, "pki_operator_issuances_total", "")
}

fn serials(ns: &Namespace<'_>) -> Vec<Value> {
    PKIS.map(|name| ns.get("pki", name).unwrap()["status"]["serialNumber"].clone())
        .into()
}
