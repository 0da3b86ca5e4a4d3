//! The lines that a person reads about a pod, in the order in which kubectl prints them.

use crate::harness::{Namespace, PATIENCE, SHARED, eventually};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::Instant;

/// A pod of the application `web`, of which there are two.
fn pod(name: &str, secrets: &[String]) -> Value {
    let volume = |secret: &String| json!({"name": secret, "secret": {"secretName": secret}});
    let volumes: Vec<_> = secrets.iter().map(volume).collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "c"}], "volumes": volumes}})
}

fn apply(ns: &Namespace<'_>, objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    eventually("the objects are applied", || ns.kubectl_apply(&list).ok());
}

/// Events as the scheduler and the kubelet write them. The scheduler uses `events.k8s.io`.
fn of_others(ns: &Namespace<'_>, pod: &str) -> [Value; 2] {
    let uid = ns.get("pod", pod).unwrap()["metadata"]["uid"].clone();
    let object =
        json!({"apiVersion": "v1", "kind": "Pod", "namespace": ns.name, "name": pod, "uid": uid});
    let ago = |seconds| Timestamp::now() - SignedDuration::from_secs(seconds);
    let time = |seconds| ago(seconds).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let name = |seconds| format!("{pod}.{:x}", ago(seconds).as_nanosecond());
    let scheduled = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name(60)},
        "eventTime": ago(60).strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(), "reportingController": "default-scheduler",
        "reportingInstance": "s", "action": "Binding", "reason": "Scheduled", "type": "Normal", "note": "assigned",
        "regarding": object});
    let mount = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name(50)}, "involvedObject": object,
        "firstTimestamp": time(50), "lastTimestamp": time(3), "count": 7, "source": {"component": "kubelet", "host": "node"},
        "reason": "FailedMount", "type": "Warning", "message": "secret not found"});
    [scheduled, mount]
}

/// The reasons that kubectl prints about a pod, in its order.
fn reasons(printed: &str) -> Vec<&str> {
    let known = |word: &&str| {
        let word = *word;
        word.starts_with("Pki") || ["Scheduled", "FailedMount"].contains(&word)
    };
    let lines = printed.lines().map(str::split_whitespace);
    let reasons = lines.filter_map(|mut words| words.by_ref().take(8).find(known));
    reasons.collect()
}

/// Waits until each way to list the Events of a pod ends with these reasons.
fn expect_order(ns: &Namespace<'_>, pod: &str, expected: &[&str]) {
    let object = format!("pod/{pod}");
    let selector = format!("--field-selector=involvedObject.name={pod}");
    let ways = [
        &["describe", "pod", pod][..],
        &["events", "--for", &object],
        &["get", "events", "--sort-by=.lastTimestamp", &selector],
    ];
    for way in ways {
        let read = || ns.kubectl(way).unwrap();
        let begin = Instant::now();
        while reasons(&read()) != expected {
            let printed = read();
            assert!(begin.elapsed() < PATIENCE, "{way:?}: {printed}");
        }
    }
}

/// How often the Event of this reason was sent, as `kubectl describe` prints it.
fn count(ns: &Namespace<'_>, pod: &str, reason: &str) -> u32 {
    let printed = ns.kubectl(&["describe", "pod", pod]).unwrap();
    let mut lines = printed.lines().filter(|line| line.contains(reason));
    let line = lines.next().unwrap_or_default();
    assert_eq!(lines.next(), None, "{printed}");
    let counted = line
        .split_once("(x")
        .and_then(|(_, rest)| rest.split_once(' '));
    counted.map_or(1, |(count, _)| count.parse().unwrap())
}

#[test]
fn the_newest_line_stands_last_however_the_events_of_a_pod_are_listed() {
    let ns = SHARED.namespace("newest");
    let mounted = ["app1-pki".to_owned()];
    apply(&ns, &[pod("web-1", &mounted), pod("web-2", &mounted)]);
    let others = ["web-1", "web-2"].map(|pod| of_others(&ns, pod));
    apply(&ns, others.as_flattened());
    ns.permit(&["shop"], "");
    ns.apply_pki("app1-pki", r#"{"serviceName": "shop"}"#);
    ns.wait_until_ready("app1-pki");
    ns.withdraw();
    let broken = ["Scheduled", "FailedMount", "PkiServiceNameError"];
    expect_order(&ns, "web-1", &broken);

    ns.permit(&["shop"], "");
    let mended = [&broken[..], &["PkiReady"]].concat();
    expect_order(&ns, "web-1", &mended);
    // Sorted by name alone, Warnings follow the kubelet's Events, and Normal ones the Warnings.
    let unsorted = ns.kubectl(&[
        "get",
        "events",
        "--field-selector=involvedObject.name=web-1",
    ]);
    assert_eq!(reasons(&unsorted.unwrap()), mended);

    // The line of a fault that comes back moves to the end.
    ns.withdraw();
    let broken_again = [
        "Scheduled",
        "FailedMount",
        "PkiReady",
        "PkiServiceNameError",
    ];
    expect_order(&ns, "web-1", &broken_again);
    assert_eq!(count(&ns, "web-1", "PkiServiceNameError"), 2);
}

/// The commands of the guides that show the Events of all pods of an application.
fn commands_of_the_guides() -> Vec<&'static str> {
    let pages = [
        include_str!("../../../README.md"),
        include_str!("../../../src/guide/errors.md"),
    ];
    let lines = pages.iter().flat_map(|page| page.lines());
    let commands = lines.filter_map(|line| line.strip_prefix("$ kubectl "));
    commands
        .filter(|command| command.starts_with("describe pod ") && command.contains("app=app1"))
        .collect()
}

#[test]
fn the_command_of_the_guides_shows_the_events_of_two_replicas() {
    let ns = SHARED.namespace("replicas");
    let mounted = ["app1-pki".to_owned()];
    apply(&ns, &[pod("web-1", &mounted), pod("web-2", &mounted)]);
    ns.kubectl_apply_pki("app1-pki", r#"{"serviceName": "appp1"}"#)
        .unwrap_err();
    for pod in ["web-1", "web-2"] {
        ns.wait_for_events("Pod", pod, 1);
    }
    let commands = commands_of_the_guides();
    assert_eq!(commands.len(), 2, "{commands:?}");
    for command in commands {
        let command = command.replace("app1", "web");
        let words: Vec<_> = command.split_whitespace().collect();
        let printed = ns.kubectl(&words).unwrap();
        let told = printed.matches("PkiServiceNameError").count();
        assert_eq!(told, 2, "{command}: {printed}");
    }
}

#[test]
fn of_one_matter_a_pod_has_one_line_with_the_latest_message_and_a_count() {
    let ns = SHARED.namespace("message");
    apply(&ns, &[pod("web-1", &["app1-pki".to_owned()])]);
    for (index, name) in ["appp1", "appp2", "aapp1"].into_iter().enumerate() {
        let spec = json!({ "serviceName": name }).to_string();
        ns.kubectl_apply_pki("app1-pki", &spec).unwrap_err();
        let printed = eventually("the line has the latest message", || {
            let printed = ns.kubectl(&["describe", "pod", "web-1"]).unwrap();
            let said = format!("ServiceName: {name} in pki: app1-pki");
            printed.contains(&said).then_some(printed)
        });
        assert_eq!(reasons(&printed), ["PkiServiceNameError"], "{printed}");
        let expected = u32::try_from(index).unwrap() + 1;
        assert_eq!(count(&ns, "web-1", "PkiServiceNameError"), expected);
    }
}

#[test]
fn whoever_was_refused_more_often_than_a_pod_is_told_hears_at_once_that_it_is_mended() {
    const REFUSED: usize = 30;
    let ns = SHARED.namespace("often");
    let names: Vec<_> = (0..REFUSED).map(|number| format!("p-{number}")).collect();
    apply(&ns, &[pod("web-1", &names)]);
    let pki = |service: &str| {
        let pki = |name: &String| json!({"apiVersion": "box.com/v1", "kind": "Pki", "metadata": {"name": name}, "spec": {"serviceName": service}});
        let items: Vec<_> = names.iter().map(pki).collect();
        json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
    };
    let told = |reason: &str| {
        let events = ns.events("Pod", "web-1");
        let told = events.iter().filter(|event| event["reason"] == reason);
        told.count()
    };
    ns.kubectl_apply(&pki("appp1")).unwrap_err();
    eventually("the pod has heard all that it is told at once", || {
        (told("PkiServiceNameError") == 25).then_some(())
    });
    ns.apply(&pki("app1"));
    let begin = Instant::now();
    eventually("all is well, and the pod hears it", || {
        (told("PkiReady") == REFUSED).then_some(())
    });
    println!("mended after {:?}", begin.elapsed());
    assert_eq!(told("PkiServiceNameError"), 25);
}
