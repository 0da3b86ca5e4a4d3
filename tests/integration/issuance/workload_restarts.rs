//! Workloads whose pods have read the certificate before are restarted, if they ask for it.

use crate::harness::{Installed, Namespace, arena, eventually, notes, quiet};
use jiff::{SignedDuration, Timestamp};
use pki_cluster::install::Operator;
use pki_cluster::testing::manifest;
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;

const SPEC: &str = r#"{"serviceName": "app1"}"#;
const RESTARTED: &str = "Normal: Restarted, because Secret app1-pki was renewed (Pki app1-pki) and its pods used the previous \
                         certificate";

/// Starts the operator, or the next one.
fn operator(arena: &Installed) -> Operator {
    let at_once = ["--restart-spread-seconds", "0", "--reminder-seconds", "5"];
    arena.first_replica("operator-1", &at_once).unwrap()
}

/// Makes a workload of one pod that mounts the Secret `app1-pki`.
fn apply(ns: &Namespace<'_>, kind: &str, name: &str, asks: &str) {
    let labels = json!({"app": name});
    let pod = manifest::pod(name, &manifest::secret_volume("app1-pki"))["spec"].take();
    let mut workload = json!({"apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": name, "annotations": {"box.com/restart-on-renewal": asks}},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}});
    match kind {
        "Deployment" => workload["spec"]["strategy"] = json!({"type": "Recreate"}),
        "StatefulSet" => workload["spec"]["serviceName"] = json!(name),
        _ => {}
    }
    ns.apply_object(&workload);
}

/// Plays the kubelet: a pod of this workload runs, since `started` if that is given. Returns its
/// UID.
fn run(ns: &Namespace<'_>, name: &str, started: Option<&str>) -> String {
    let pod = eventually(&format!("{name} has a pod"), || pods(ns, name).pop());
    let mut status = json!({"phase": "Running"});
    if let Some(started) = started {
        let state = json!({"running": {"startedAt": started}});
        status["containerStatuses"] = json!([{"name": "c", "image": "c", "imageID": "", "ready": true,
            "restartCount": 0, "state": state}]);
    }
    let (pod_name, uid) = (&pod["metadata"]["name"], &pod["metadata"]["uid"]);
    let (api, pod_name) = (&ns.installed.api, pod_name.as_str().unwrap());
    api.merge_status("pod", &ns.name, pod_name, &json!({ "status": status }))
        .unwrap();
    uid.as_str().unwrap().to_owned()
}

fn pods(ns: &Namespace<'_>, name: &str) -> Vec<Value> {
    let mut pods = ns.list("pods", &format!("app={name}"));
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    pods
}

/// Waits until the operator knows the pods, and each is older than a certificate that is issued
/// from now on. The times are whole seconds.
fn let_pods_age(ns: &Namespace<'_>) {
    ns.barrier();
    let second = SignedDuration::from_secs(1);
    eventually("the pods are older", || {
        let pods = ns.list("pods", "");
        let times = pods.iter().flat_map(|pod| {
            let state = &pod["status"]["containerStatuses"][0]["state"];
            [
                pod["metadata"]["creationTimestamp"].as_str(),
                state["running"]["startedAt"].as_str(),
            ]
        });
        let mut times = times.flatten().map(str::parse::<Timestamp>);
        let is_older = times.all(|time| Timestamp::now().duration_since(time.unwrap()) > second);
        is_older.then_some(())
    });
}

/// Renews the certificate of `app1-pki`, when the pods that run are old enough to be told from new
/// ones.
fn renew(ns: &Namespace<'_>) {
    let serial = || ns.get("pki", "app1-pki").unwrap()["status"]["serialNumber"].clone();
    let_pods_age(ns);
    ns.forget_renewal("app1-pki");
    let before = serial();
    ns.annotate("pki", "app1-pki", "box.com/renew-now", "");
    eventually("it is renewed", || (serial() != before).then_some(()));
}

fn restarted_at(ns: &Namespace<'_>, kind: &str, name: &str) -> Option<String> {
    let workload = ns.get(kind, name)?;
    let annotations = &workload["spec"]["template"]["metadata"]["annotations"];
    let at = annotations["kubectl.kubernetes.io/restartedAt"].as_str();
    at.map(str::to_owned)
}

fn wait_until_restarted(ns: &Namespace<'_>, kind: &str, name: &str) -> String {
    eventually(&format!("{kind} {name} is restarted"), || {
        restarted_at(ns, kind, name)
    })
}

/// What the owners of a workload have read, from the `count`th Event on.
fn wait_for_notes(ns: &Namespace<'_>, kind: &str, name: &str, count: usize) -> Vec<String> {
    eventually(&format!("{kind} {name} has {count} Events"), || {
        Some(notes(&ns.events(kind, name))).filter(|notes| notes.len() >= count)
    })
}

fn restarts(operator: &Operator, result: &str) -> u64 {
    let (_, page) = operator.get("/metrics").unwrap();
    let metric = format!("pki_operator_restarts_total{{result=\"{result}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&metric));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_deployment_that_asks_is_restarted_once_after_each_renewal_and_no_other_is() {
    let arena = arena();
    let first = operator(&arena);
    let ns = arena.namespace("restart");
    ns.apply_pki("app1-pki", SPEC);
    ns.wait_until_ready("app1-pki");
    apply(&ns, "Deployment", "web", "true");
    apply(&ns, "Deployment", "other", "false");
    let before = run(&ns, "web", None);
    run(&ns, "other", None);
    renew(&ns);
    let at = wait_until_restarted(&ns, "Deployment", "web");
    let issued = &ns.get("pki", "app1-pki").unwrap()["status"]["notBefore"];
    assert!(issued.as_str().unwrap() < at.as_str(), "{issued} {at}");
    assert_eq!(wait_for_notes(&ns, "Deployment", "web", 1), [RESTARTED]);
    let event = &ns.events("Deployment", "web")[0];
    assert_eq!(event["reason"], "PkiRestarted");
    assert_eq!(event["related"]["name"], "app1-pki");
    eventually("its pods are others", || {
        let uid = pods(&ns, "web").pop()?["metadata"]["uid"].clone();
        (uid != before.as_str()).then_some(())
    });
    let counts = || (restarts(&first, "restarted"), restarts(&first, "failed"));
    assert_eq!(counts(), (1, 0));

    // The next process has nothing to go by but what is stored.
    run(&ns, "web", None);
    drop(first);
    let second = operator(&arena);
    ns.annotate("pki", "app1-pki", "reconcile", "1");
    ns.barrier();
    assert_eq!(restarted_at(&ns, "Deployment", "web"), Some(at.clone()));
    assert_eq!(restarts(&second, "restarted"), 0);

    renew(&ns);
    eventually("it is restarted again", || {
        let again = restarted_at(&ns, "Deployment", "web")?;
        (again > at).then_some(())
    });
    // As long as the queue keeps the next attempt on a workload waiting.
    quiet();
    assert_eq!(restarts(&second, "restarted"), 1);
    assert_eq!(restarted_at(&ns, "Deployment", "other"), None);
    assert_eq!(ns.events("Deployment", "other").len(), 0);
    let writes = ns.operator_writes().into_iter();
    let patches = writes.filter(|(write, _)| write.what == "patch deployments");
    assert_eq!(patches.map(|(_, count)| count).sum::<usize>(), 2);
}

#[test]
fn the_first_certificate_restarts_nothing_although_its_pods_were_there_before() {
    let arena = arena();
    let first = operator(&arena);
    let ns = arena.namespace("first");
    apply(&ns, "Deployment", "web", "true");
    eventually("web has a pod", || pods(&ns, "web").pop());
    let_pods_age(&ns);
    ns.apply_pki("app1-pki", SPEC);
    ns.wait_until_ready("app1-pki");
    ns.barrier();
    // The pod waited for the Secret, and then began, in a later second.
    thread::sleep(Duration::from_secs(1));
    let now = format!("{:.0}", jiff::Timestamp::now());
    run(&ns, "web", Some(&now));
    drop(first);
    let _second = operator(&arena);
    ns.annotate("pki", "app1-pki", "reconcile", "1");
    ns.barrier();
    assert_eq!(restarted_at(&ns, "Deployment", "web"), None);
    renew(&ns);
    wait_until_restarted(&ns, "Deployment", "web");
}

#[test]
fn stateful_sets_and_daemon_sets_are_restarted_too_also_when_they_ask_later() {
    let arena = arena();
    let _operator = operator(&arena);
    let ns = arena.namespace("kinds");
    ns.apply_pki("app1-pki", SPEC);
    ns.wait_until_ready("app1-pki");
    apply(&ns, "StatefulSet", "db", "True");
    apply(&ns, "DaemonSet", "log", "true");
    apply(&ns, "DaemonSet", "later", "false");
    for name in ["log", "later"] {
        // There is no node that the controller could make one for.
        let uid = ns.get("daemonset", name).unwrap()["metadata"]["uid"].clone();
        let owner = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": name, "uid": uid, "controller": true});
        let mut pod = manifest::pod(name, &manifest::secret_volume("app1-pki"));
        pod["metadata"]["labels"] = json!({ "app": name });
        pod["metadata"]["ownerReferences"] = json!([owner]);
        ns.apply_object(&pod);
    }
    for name in ["db", "log", "later"] {
        run(&ns, name, None);
    }
    renew(&ns);
    for (kind, name) in [("StatefulSet", "db"), ("DaemonSet", "log")] {
        wait_until_restarted(&ns, kind, name);
        assert_eq!(wait_for_notes(&ns, kind, name, 1), [RESTARTED]);
    }
    ns.barrier();
    assert_eq!(restarted_at(&ns, "DaemonSet", "later"), None);
    ns.annotate("daemonset", "later", "box.com/restart-on-renewal", "true");
    wait_until_restarted(&ns, "DaemonSet", "later");
}

#[test]
fn a_paused_deployment_gets_an_event_and_is_restarted_when_it_is_resumed() {
    let arena = arena();
    let operator = operator(&arena);
    let ns = arena.namespace("paused");
    ns.apply_pki("app1-pki", SPEC);
    ns.wait_until_ready("app1-pki");
    apply(&ns, "Deployment", "web", "true");
    run(&ns, "web", None);
    ns.kubectl(&["rollout", "pause", "deployment/web"]).unwrap();
    renew(&ns);
    let paused = "Warning: Not restarted after Secret app1-pki was renewed (Pki app1-pki), because it is paused: its pods keep \
                  the previous certificate until `kubectl rollout resume deployment/web`";
    assert_eq!(wait_for_notes(&ns, "Deployment", "web", 1), [paused]);
    ns.barrier();
    assert_eq!(restarted_at(&ns, "Deployment", "web"), None);
    ns.kubectl(&["rollout", "resume", "deployment/web"])
        .unwrap();
    wait_until_restarted(&ns, "Deployment", "web");
    assert_eq!(
        wait_for_notes(&ns, "Deployment", "web", 2),
        [paused, RESTARTED]
    );
    assert_eq!(restarts(&operator, "failed"), 0);
}

/// The chart's permissions, which come back in any case: Helm would not take what others changed.
struct Permissions<'a> {
    arena: &'a Installed,
    rules: Value,
}

impl<'a> Permissions<'a> {
    fn of(arena: &'a Installed) -> Self {
        let role = arena.api.get("clusterrole", "", "pki-operator-namespace");
        let rules = role.unwrap().expect("the chart has it")["rules"].take();
        Self { arena, rules }
    }

    fn set(&self, rules: &Value) {
        let (api, rules) = (&self.arena.api, json!({ "rules": rules }));
        api.merge("clusterrole", "", "pki-operator-namespace", &rules)
            .unwrap();
    }
}

impl Drop for Permissions<'_> {
    fn drop(&mut self) {
        self.set(&self.rules);
    }
}

#[test]
fn without_permission_the_workload_gets_an_event_and_is_restarted_when_it_is_back() {
    let arena = arena();
    let operator = operator(&arena);
    let ns = arena.namespace("forbidden");
    ns.apply_pki("app1-pki", SPEC);
    ns.wait_until_ready("app1-pki");
    apply(&ns, "Deployment", "web", "true");
    run(&ns, "web", None);

    let permissions = Permissions::of(&arena);
    let mut fewer = permissions.rules.clone();
    let is_other = |rule: &Value| rule["apiGroups"] != json!(["apps"]);
    fewer.as_array_mut().unwrap().retain(is_other);
    permissions.set(&fewer);
    renew(&ns);
    let published = wait_for_notes(&ns, "Deployment", "web", 1);
    let begin = "Warning: Cannot be restarted after Secret app1-pki was renewed (Pki app1-pki); the operator tries again: \
                 deployments.apps \"web\" is forbidden: User \"system:serviceaccount:pki-operator:pki-operator\" cannot get";
    assert!(published[0].starts_with(begin), "{published:?}");
    // An attempt that failed is repeated after two seconds.
    quiet();
    assert_eq!(restarted_at(&ns, "Deployment", "web"), None);
    let failed = restarts(&operator, "failed");
    assert!((1..10).contains(&failed), "{failed} attempts");

    drop(permissions);
    wait_until_restarted(&ns, "Deployment", "web");
    let published = wait_for_notes(&ns, "Deployment", "web", 2);
    assert_eq!(published.last().map(String::as_str), Some(RESTARTED));
    assert_eq!(restarts(&operator, "restarted"), 1);
}
