//! The decision on a workload that is due: pure, on what was read of it just now.

use super::workload::is_marked;
use crate::k8s::patch;
use jiff::{SignedDuration, Timestamp};
use kube::core::DynamicObject;
use serde_json::{Value, json};

/// The annotation of a pod template by which `kubectl rollout restart` makes it another one, and
/// with it all pods.
pub(super) const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// How far ahead a restart may lie: people write it with the clocks of their own machines.
const MAX_RESTART_FUTURE: SignedDuration = SignedDuration::from_hours(1);

/// Decision on a workload.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// Restart it, with this merge patch.
    Restart(Value),
    /// Its owner has paused it, and with it all changes to its pods.
    Paused,
    /// Nothing, because of this.
    Leave(&'static str),
}

/// Decides on a workload, as it is stored, whose pods may be older than a certificate that was
/// issued at this time. `uid` is that of the workload that asked.
pub(super) fn decide(
    stored: &DynamicObject,
    uid: &str,
    issued: Timestamp,
    now: Timestamp,
) -> Decision {
    if stored.metadata.deletion_timestamp.is_some() || stored.metadata.uid.as_deref() != Some(uid) {
        return Decision::Leave("it was replaced since then");
    }
    if !is_marked(stored) {
        return Decision::Leave("it no longer asks for a restart");
    }
    let at = stored.data.pointer("/spec/template/metadata/annotations");
    let at = at.and_then(|annotations| annotations.get(RESTARTED_AT)?.as_str());
    if at.is_some_and(|at| is_after(at, issued, now)) {
        return Decision::Leave("it was restarted since then");
    }
    // `kubectl rollout restart` refuses it too: the change would wait, unseen, until it is resumed.
    if stored.data.pointer("/spec/paused") == Some(&Value::Bool(true)) {
        return Decision::Paused;
    }
    Decision::Restart(restart(stored, now))
}

/// Whether a restart at this time brought pods that know what was issued. A time that lies far
/// ahead is none: it would be the last restart for ever.
fn is_after(restarted: &str, issued: Timestamp, now: Timestamp) -> bool {
    restarted
        .parse::<Timestamp>()
        .is_ok_and(|at| issued <= at && at.duration_since(now) <= MAX_RESTART_FUTURE)
}

fn restart(stored: &DynamicObject, now: Timestamp) -> Value {
    // In whole seconds, as kubectl writes it.
    let now = format!("{now:.0}");
    let metadata = json!({ "annotations": { RESTARTED_AT: now } });
    let mut change = json!({ "spec": { "template": { "metadata": metadata } } });
    patch::bind(&mut change, stored);
    change
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_workload_is_restarted_once_a_certificate_and_only_if_it_asks() {
        let base = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"namespace": "ns", "name": "web", "uid": "u", "resourceVersion": "7",
                "annotations": {"box.com/restart-on-renewal": "true"}},
            "spec": {"template": {"metadata": {"annotations": {"theirs": "stays"}}}},
        });
        let annotated = |value: Value| json!({"metadata": {"annotations": {"box.com/restart-on-renewal": value}}});
        let restarted = |at: &str| json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: at}}}}});
        let restart = Decision::Restart(json!({
            "metadata": {"uid": "u", "resourceVersion": "7"},
            "spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: "2030-01-01T12:05:00Z"}}}},
        }));
        let since = Decision::Leave("it was restarted since then");
        let another = Decision::Leave("it was replaced since then");
        let unasked = Decision::Leave("it no longer asks for a restart");
        for (change, expected) in [
            (json!({}), &restart),
            (json!({"spec": {"paused": false}}), &restart),
            (json!({"spec": {"template": {"metadata": null}}}), &restart),
            (restarted("2030-01-01T11:59:59Z"), &restart),
            (restarted("2030-01-01T12:00:00Z"), &since),
            (restarted("2030-01-01T13:00:00+01:00"), &since),
            (restarted("2030-01-01T12:59:59+01:00"), &restart),
            // The clock of whoever restarted it may be a little ahead.
            (restarted("2030-01-01T12:30:00Z"), &since),
            (restarted("9999-01-01T00:00:00Z"), &restart),
            (restarted("yesterday"), &restart),
            (json!({"spec": {"paused": true}}), &Decision::Paused),
            (annotated(json!("false")), &unasked),
            (annotated(Value::Null), &unasked),
            (json!({"metadata": {"uid": "v"}}), &another),
            (
                json!({"metadata": {"deletionTimestamp": "2030-01-01T12:01:00Z"}}),
                &another,
            ),
        ] {
            let mut stored = base.clone();
            json_patch::merge(&mut stored, &change);
            let stored = serde_json::from_value(stored).unwrap();
            let (issued, now) = (at("2030-01-01T12:00:00Z"), at("2030-01-01T12:05:00.9Z"));
            assert_eq!(decide(&stored, "u", issued, now), *expected, "{change}");
        }
    }

    #[test]
    fn a_restart_counts_as_one_after_what_it_was_made_for() {
        let mut stored: Value = json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"namespace": "ns", "name": "web", "uid": "u",
                "annotations": {"box.com/restart-on-renewal": "true"}},
        });
        // In the very second of the issue, as may be without a spread.
        let (issued, now) = (at("2030-01-01T12:00:00Z"), at("2030-01-01T12:00:00.4Z"));
        let decide = |stored: &Value| {
            let stored = serde_json::from_value(stored.clone()).unwrap();
            decide(&stored, "u", issued, now)
        };
        let Decision::Restart(change) = decide(&stored) else {
            panic!("{stored}")
        };
        json_patch::merge(&mut stored, &change);
        stored["metadata"]["uid"] = json!("u");
        assert_eq!(
            decide(&stored),
            Decision::Leave("it was restarted since then")
        );
    }
}
