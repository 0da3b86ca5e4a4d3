//! The lines that a person reads about a pod, in the order in which kubectl prints them.

use crate::harness::{Namespace, PATIENCE, SHARED, eventually, notes};
use jiff::{SignedDuration, Timestamp};
use pki_cluster::testing::manifest;
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

/// A pod of the application `web`, of which there are two.
fn pod(name: &str, secrets: &[String]) -> Value {
    let volume = |secret: &String| json!({"name": secret, "secret": {"secretName": secret}});
    let volumes: Vec<_> = secrets.iter().map(volume).collect();
    let mut pod = manifest::pod(name, &json!({ "volumes": volumes }));
    pod["metadata"]["labels"] = json!({"app": "web"});
    pod
}

/// Creates Events as the scheduler and the kubelet write them. The scheduler uses `events.k8s.io`,
/// the kubelet the Events of the core API.
fn create_events_of_others(ns: &Namespace<'_>, pod: &str) {
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
    let api = &ns.installed.api;
    api.create(&ns.name, &scheduled).unwrap();
    api.create(&ns.name, &mount).unwrap();
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
        loop {
            let printed = read();
            if reasons(&printed) == expected {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{way:?}: {printed}");
            thread::sleep(Duration::from_millis(100));
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
    for name in ["web-1", "web-2"] {
        ns.apply_pod(&pod(name, &mounted));
        create_events_of_others(&ns, name);
    }
    ns.permit(&["shop"], "");
    ns.apply_pki("app1-pki", r#"{"serviceName": "shop"}"#);
    ns.wait_until_ready("app1-pki");
    ns.withdraw();
    let broken = ["Scheduled", "FailedMount", "PkiServiceNameError"];
    expect_order(&ns, "web-1", &broken);

    ns.permit(&["shop"], "");
    let resolved = [&broken[..], &["PkiReady"]].concat();
    expect_order(&ns, "web-1", &resolved);
    // Sorted by name alone, Warnings follow the kubelet's Events, and Normal ones the Warnings.
    let unsorted = ns.kubectl(&[
        "get",
        "events",
        "--field-selector=involvedObject.name=web-1",
    ]);
    assert_eq!(reasons(&unsorted.unwrap()), resolved);

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
    for name in ["web-1", "web-2"] {
        ns.apply_pod(&pod(name, &mounted));
    }
    ns.try_apply_pki("app1-pki", r#"{"serviceName": "appp1"}"#)
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
        let lines = printed.matches("PkiServiceNameError").count();
        assert_eq!(lines, 2, "{command}: {printed}");
    }
}

#[test]
fn a_pod_has_one_line_for_a_pki_with_the_latest_message_and_a_count() {
    let ns = SHARED.namespace("message");
    ns.apply_pod(&pod("web-1", &["app1-pki".to_owned()]));
    for (index, name) in ["appp1", "appp2", "aapp1"].into_iter().enumerate() {
        let spec = json!({ "serviceName": name }).to_string();
        ns.try_apply_pki("app1-pki", &spec).unwrap_err();
        let message = format!("ServiceName: {name} in pki: app1-pki");
        eventually("the Event has the latest message", || {
            let notes = notes(&ns.events("Pod", "web-1"));
            notes
                .iter()
                .any(|note| note.contains(&message))
                .then_some(())
        });
        let printed = ns.kubectl(&["describe", "pod", "web-1"]).unwrap();
        assert!(printed.contains(&message), "{printed}");
        assert_eq!(reasons(&printed), ["PkiServiceNameError"], "{printed}");
        let expected = u32::try_from(index).unwrap() + 1;
        assert_eq!(count(&ns, "web-1", "PkiServiceNameError"), expected);
    }
}

#[test]
fn a_pod_with_more_refusals_than_events_gets_an_event_at_once_when_each_is_resolved() {
    const REFUSED: usize = 30;
    let ns = SHARED.namespace("often");
    let names: Vec<_> = (0..REFUSED).map(|number| format!("p-{number}")).collect();
    ns.apply_pod(&pod("web-1", &names));
    let published = |reason: &str| {
        let events = ns.events("Pod", "web-1");
        let of_reason = events.iter().filter(|event| event["reason"] == reason);
        of_reason.count()
    };
    for name in &names {
        ns.try_apply_pki(name, r#"{"serviceName": "appp1"}"#)
            .unwrap_err();
    }
    eventually("the pod has all Events that it gets at once", || {
        (published("PkiServiceNameError") == 25).then_some(())
    });
    for name in &names {
        ns.apply_pki(name, r#"{"serviceName": "app1"}"#);
    }
    let begin = Instant::now();
    eventually("every Secret is there, and the pod has its Event", || {
        (published("PkiReady") == REFUSED).then_some(())
    });
    println!("resolved after {:?}", begin.elapsed());
    assert_eq!(published("PkiServiceNameError"), 25);
}
