//! Events on the pods that wait.

use crate::harness::{Namespace, SHARED, arena, eventually, notes};
use serde_json::{Value, json};
use std::sync::{Mutex, MutexGuard, PoisonError};

const BOX_SENTENCE: &str = "ServiceName: appp1 in pki: app1-pki is not found in allowedNames: [app1 app2]; did you mean \"app1\"?";

/// Stores app1-pki with the typo while it is permitted, and then withdraws the permission.
///
/// A refusal hints at another namespace that may have the name. So one test at a time has it
/// permitted, as long as it holds what this returns.
fn drift(ns: &Namespace<'_>) -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    ns.permit(&["appp1"], "");
    let spec = r#"{"serviceName": "appp1", "duration": "48h"}"#;
    ns.apply_pki("app1-pki", spec);
    ns.wait_until_ready("app1-pki");
    ns.withdraw();
    assert_eq!(
        ns.wait_until_refused("app1-pki", "PkiServiceNameError"),
        BOX_SENTENCE
    );
    alone
}

#[test]
fn the_pods_that_use_the_secret_and_the_pki_get_the_message_of_the_refusal_and_no_other_pod_does() {
    let ns = SHARED.namespace("heard");
    ns.pod_with("volume", "app1-pki");
    ns.pod("projected", r#""volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "app1-pki"}}]}}]"#);
    ns.pod(
        "env",
        r#""initContainers": [{"name": "i", "image": "i", "envFrom": [{"secretRef": {"name": "app1-pki"}}]}]"#,
    );
    ns.pod_with("other", "other");
    ns.pod("pull", r#""imagePullSecrets": [{"name": "app1-pki"}]"#);
    let _alone = drift(&ns);
    let pki = ns.get("pki", "app1-pki").unwrap();
    for pod in ["volume", "projected", "env"] {
        let event = &ns.wait_for_events("Pod", pod, 1)[0];
        assert_eq!(
            (&event["type"], &event["reason"]),
            (&"Warning".into(), &"PkiServiceNameError".into())
        );
        assert_eq!(event["note"], BOX_SENTENCE);
        assert_eq!(
            event["regarding"]["uid"],
            ns.get("pod", pod).unwrap()["metadata"]["uid"]
        );
        assert_eq!(event["related"]["uid"], pki["metadata"]["uid"]);
    }
    assert_eq!(
        notes(&ns.wait_for_events("Pki", "app1-pki", 1)),
        [format!("Warning: {BOX_SENTENCE}")]
    );
    ns.barrier();
    for pod in ["other", "pull"] {
        assert_eq!(notes(&ns.events("Pod", pod)), Vec::<String>::new());
    }
}

#[test]
fn a_later_pod_gets_the_event_when_it_appears_and_all_get_one_when_it_is_resolved() {
    let ns = SHARED.namespace("later");
    let _alone = drift(&ns);
    ns.pod_with("later", "app1-pki");
    assert_eq!(
        notes(&ns.wait_for_events("Pod", "later", 1)),
        [format!("Warning: {BOX_SENTENCE}")]
    );
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("app1-pki");
    let resolved = format!("Normal: {}", ns.ready_field("app1-pki", "message"));
    for (kind, name) in [("Pod", "later"), ("Pki", "app1-pki")] {
        let published = notes(&ns.wait_for_events(kind, name, 2));
        assert_eq!(
            published,
            [format!("Warning: {BOX_SENTENCE}"), resolved.clone()]
        );
    }
    ns.pod_with("latest", "app1-pki");
    ns.annotate("pki", "app1-pki", "reconcile", "1");
    ns.barrier();
    assert_eq!(notes(&ns.events("Pod", "latest")), Vec::<String>::new());
    assert_eq!(ns.events("Pod", "later").len(), 2, "once is enough");
}

#[test]
fn another_reason_is_another_event() {
    let ns = SHARED.namespace("reasons");
    ns.pod_with("app1", "app1-pki");
    let _alone = drift(&ns);
    ns.wait_for_events("Pod", "app1", 1);
    ns.permit(&["appp1"], r#", "maxDuration": "24h""#);
    ns.wait_until_refused("app1-pki", "PkiDurationError");
    let events = ns.wait_for_events("Pod", "app1", 2);
    let reasons: Vec<_> = events
        .iter()
        .map(|event| event["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["PkiServiceNameError", "PkiDurationError"]);
    ns.withdraw();
}

#[test]
fn kubectl_describe_shows_a_fault_that_lasts_as_one_line_with_a_count() {
    let arena = arena();
    let _operator = arena
        .first_replica("operator-1", &["--reminder-seconds", "1"])
        .unwrap();
    let ns = arena.namespace("count");
    ns.pod_with("app1", "app1-pki");
    let _alone = drift(&ns);
    let line = eventually("the line has a count", || {
        let count = ns.events("Pod", "app1").first()?["series"]["count"].as_u64()?;
        if count < 3 {
            return None;
        }
        let printed = ns.kubectl(&["describe", "pod", "app1"]).ok()?;
        let mut lines = printed
            .lines()
            .filter(|line| line.contains("PkiServiceNameError"));
        let line = lines
            .next()
            .filter(|line| {
                let count = line
                    .split_once("(x")
                    .and_then(|(_, rest)| rest.split_once(" over "));
                count.is_some_and(|(count, _)| count.parse::<u64>().unwrap() >= 3)
            })?
            .to_owned();
        assert_eq!(lines.next(), None, "{printed}");
        Some(line)
    });
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words[..2], ["Warning", "PkiServiceNameError"]);
    assert!(
        line.contains(" pki-operator ") && line.ends_with(BOX_SENTENCE),
        "{line}"
    );

    let events = ns.events("Pod", "app1");
    let (uid, name) = (
        &events[0]["metadata"]["uid"],
        events[0]["metadata"]["name"].as_str().unwrap(),
    );
    let count = json!({"series": {"count": 50, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}});
    ns.merge("event", name, &count);
    eventually(
        "a count that another replica has reached is counted on",
        || {
            let count = ns.events("Pod", "app1")[0]["series"]["count"].as_u64()?;
            (count > 50).then_some(())
        },
    );
    ns.delete("event", name);
    eventually(
        "an Event that was deleted comes back with the next reminder",
        || {
            ns.events("Pod", "app1")
                .first()
                .filter(|event| event["metadata"]["uid"] != *uid)
                .map(drop)
        },
    );
}

#[test]
fn what_was_stored_while_there_was_no_webhook_is_refused_where_its_pods_wait() {
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("drift");
    arena.without_webhooks();
    let missing = eventually("the operator is not ready", || {
        let (status, body) = operator.get("/readyz").ok()?;
        (status == 503 && body.contains("Validating")).then_some(body)
    });
    assert_eq!(
        missing,
        "not ready: there is no ValidatingWebhookConfiguration pki-operator, which the chart installs\n"
    );
    ns.apply_pki("app1-pki", r#"{"serviceName": "appp1"}"#);
    ns.pod_with("app1", "app1-pki");
    assert_eq!(
        notes(&ns.wait_for_events("Pod", "app1", 1)),
        [format!("Warning: {BOX_SENTENCE}")]
    );
    assert!(ns.get("secret", "app1-pki").is_none());

    arena.restore_release().unwrap();
    eventually("the operator is ready again", || {
        operator
            .get("/readyz")
            .ok()
            .filter(|(status, _)| *status == 200)
            .map(drop)
    });
    let refusal = ns
        .try_apply_pki("other", r#"{"serviceName": "appp1"}"#)
        .unwrap_err();
    assert!(
        refusal.contains("is not found in allowedNames"),
        "{refusal}"
    );
}

#[test]
fn a_pki_that_cannot_be_read_gets_an_event_and_does_not_hide_the_others() {
    let arena = arena();
    let _operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("unreadable");
    let crd = arena.api.get("crd", "", "pkis.box.com").unwrap().unwrap();
    let schema = "/spec/versions/0/schema/openAPIV3Schema";
    let set_schema = |value: &Value| {
        let patch = json!([{"op": "replace", "path": schema, "value": value}]);
        let api = &arena.api;
        api.patch("crd", "", "pkis.box.com", &patch).unwrap();
    };
    arena.without_webhooks();
    set_schema(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    eventually("a Pki that is none is stored", || {
        ns.try_apply_pki("broken", r#"{"serviceName": ["app1"], "dnsNames": 5}"#)
            .ok()
    });
    let event = ns.wait_for_events("Pki", "broken", 1).remove(0);
    assert_eq!(event["reason"], "PkiUnreadable");
    let note = event["note"].as_str().unwrap();
    assert!(
        note.starts_with(
            "The Pki cannot be read: compare its spec with what `kubectl explain pki.spec` prints"
        ),
        "{note}"
    );
    ns.apply_pki("good", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("good");
    ns.delete("pki", "broken");
    set_schema(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
}
