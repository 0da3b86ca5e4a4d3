//! What a cluster has when its options ask for it.

use std::io::Write as _;
use std::process::{Output, Stdio};

use pki_cluster::{Cluster, Options};
use serde_json::{Value, json};

use crate::run;

/// More than are taken at once.
const MANY: usize = 20;

#[test]
fn a_rate_limit_of_events_answers_429_to_a_burst_but_not_in_the_newer_api() {
    let cluster = Cluster::start(Options {
        event_rate_limit: true,
        ..Options::default()
    })
    .unwrap();
    for (namespace, event, is_limited) in [("core", core_event(), true), ("newer", event(), false)]
    {
        run(cluster.kubectl().args(["create", "namespace", namespace]));
        let Output { stdout, stderr, .. } = create(&cluster, namespace, &vec![event; MANY]);
        let (created, said) = (
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr),
        );
        let taken = created.lines().count();
        assert!(taken > 0, "{namespace}: {said}");
        assert_eq!(taken < MANY, is_limited, "{namespace}: {said}");
        assert_eq!(
            said.contains("(TooManyRequests)"),
            is_limited,
            "{namespace}: {said}"
        );
    }
}

fn core_event() -> Value {
    json!({"apiVersion": "v1", "kind": "Event", "reason": "Test", "message": "m",
        "involvedObject": {"kind": "Pod", "name": "pod"}})
}

fn event() -> Value {
    json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "reason": "Test", "note": "n", "type": "Normal",
        "action": "Test", "eventTime": "2030-01-01T00:00:00.000000Z", "reportingController": "test",
        "reportingInstance": "test", "regarding": {"kind": "Pod", "name": "pod"}})
}

fn create(cluster: &Cluster, namespace: &str, events: &[Value]) -> Output {
    let events = events.iter().cloned().map(|mut event| {
        event["metadata"] = json!({"generateName": "event-", "namespace": namespace});
        for object in ["involvedObject", "regarding"] {
            if let Some(object) = event.get_mut(object) {
                object["namespace"] = json!(namespace);
            }
        }
        event
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": events.collect::<Vec<_>>()});
    let mut kubectl = cluster.kubectl();
    kubectl.args(["create", "--filename=-"]);
    kubectl.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = kubectl.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(list.to_string().as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}
