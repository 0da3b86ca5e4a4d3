//! What pods hear of a Pki that was never stored, and of a Secret whose name is mistyped.

use crate::harness::{Namespace, SHARED, eventually, notes};
use pki_cluster::testing::manifest;
use serde_json::json;

const SENTENCE: &str = "spec.serviceName: ServiceName: appp1 in pki: app1-pki is not found in allowedNames: [app1 app2]; \
                        did you mean \"app1\"?";

fn refuse(ns: &Namespace<'_>) {
    ns.try_apply_pki("app1-pki", r#"{"serviceName": "appp1"}"#)
        .unwrap_err();
}

#[test]
fn waiting_pods_get_an_event_of_a_refused_pki_and_one_when_it_is_resolved() {
    let ns = SHARED.namespace("refused");
    ns.pod_with("first", "app1-pki");
    ns.pod_with("other", "other");
    refuse(&ns);
    let events = ns.wait_for_events("Pod", "first", 1);
    let event = &events[0];
    let note = event["note"].as_str().unwrap();
    assert!(
        note.starts_with("Pki app1-pki was refused at 20") && note.ends_with(SENTENCE),
        "{note}"
    );
    assert_eq!(
        (&event["type"], &event["reason"]),
        (&"Warning".into(), &"PkiServiceNameError".into())
    );
    assert_eq!(event["related"]["name"], "app1-pki");
    ns.pod_with("second", "app1-pki");
    let second = ns.wait_for_events("Pod", "second", 1);
    assert_eq!(second[0]["note"], note, "it tells when that was");
    let printed = ns.kubectl(&["describe", "pod", "second"]).unwrap();
    let lines: Vec<_> = printed
        .lines()
        .filter(|line| line.contains("PkiServiceNameError"))
        .collect();
    assert_eq!(lines.len(), 1, "{printed}");
    assert!(
        lines[0].contains(" pki-operator ") && lines[0].contains(SENTENCE),
        "{printed}"
    );

    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("app1-pki");
    let resolved = format!("Normal: {}", ns.ready_field("app1-pki", "message"));
    for pod in ["first", "second"] {
        let published = notes(&ns.wait_for_events("Pod", pod, 2));
        assert_eq!(published[1], resolved);
    }
    ns.pod_with("third", "app1-pki");
    ns.barrier();
    for pod in ["third", "other"] {
        assert_eq!(notes(&ns.events("Pod", pod)), Vec::<String>::new());
    }
    assert_eq!(ns.events("Pod", "first").len(), 2, "once is enough");
}

#[test]
fn a_refusal_that_comes_again_is_the_same_event() {
    let ns = SHARED.namespace("again");
    ns.pod_with("app1", "app1-pki");
    refuse(&ns);
    let first = ns.wait_for_events("Pod", "app1", 1);
    let series = eventually("it is counted", || {
        refuse(&ns);
        let events = ns.events("Pod", "app1");
        assert_eq!(events.len(), 1);
        events[0]["series"]["count"].as_u64()
    });
    assert!(series >= 2);
    assert_eq!(ns.events("Pod", "app1")[0]["note"], first[0]["note"]);
}

#[test]
fn a_dry_run_and_a_secret_that_is_there_cause_no_event() {
    let ns = SHARED.namespace("unheard");
    ns.pod_with("waits", "app1-pki");
    ns.pod_with("has-it", "served");
    ns.apply_pki("served", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("served");
    ns.try_apply_pki("served", r#"{"serviceName": "appp1"}"#)
        .unwrap_err();
    let refused = manifest::pki("app1-pki", &json!({"serviceName": "appp1"}));
    SHARED.api.dry_run(&ns.name, &refused).unwrap_err();
    ns.barrier();
    for pod in ["waits", "has-it"] {
        assert_eq!(notes(&ns.events("Pod", pod)), Vec::<String>::new());
    }
}

#[test]
fn a_change_that_is_refused_is_published_on_the_waiting_pods() {
    let ns = SHARED.namespace("change");
    ns.permit(&["db"], "");
    ns.apply_pki("app1-pki", r#"{"serviceName": "db", "secretName": "tls"}"#);
    ns.wait_until_ready("app1-pki");
    ns.withdraw();
    ns.wait_until_refused("app1-pki", "PkiServiceNameError");
    ns.delete("secret", "tls");
    ns.pod_with("waits", "tls");
    let stored = ns.wait_for_events("Pod", "waits", 1);
    assert_eq!(
        notes(&stored),
        [format!(
            "Warning: {}",
            ns.ready_field("app1-pki", "message")
        )]
    );
    ns.try_apply_pki(
        "app1-pki",
        r#"{"serviceName": "appp1", "secretName": "tls"}"#,
    )
    .unwrap_err();
    let events = ns.wait_for_events("Pod", "waits", 2);
    let note = events[1]["note"].as_str().unwrap();
    assert!(
        note.starts_with("a change of Pki app1-pki was refused at 20"),
        "{note}"
    );
}

#[test]
fn a_pod_that_waits_for_a_mistyped_secret_gets_a_hint_and_no_other_pod_does() {
    let ns = SHARED.namespace("hint");
    ns.apply_pki("frontend-pki", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("frontend-pki");
    ns.foreign_secret("frontend-pkis");
    ns.pod_with("exists", "frontend-pkis");
    ns.pod_with("unlike", "backend-pki");
    ns.pod_with("number", "frontend2-pki");
    ns.pod(
        "optional",
        r#""volumes": [{"name": "v", "secret": {"secretName": "frontent-pki", "optional": true}}]"#,
    );
    // The last one: when it has its Event, the others have been considered too.
    ns.pod_with("typo", "fronted-pki");
    assert_eq!(
        notes(&ns.wait_for_events("Pod", "typo", 1)),
        [format!(
            "Warning: no Pki provides Secret fronted-pki: did you mean frontend-pki, which Pki {}/frontend-pki provides? Write \
             frontend-pki in the pod, or secretName: fronted-pki in the spec of the Pki",
            ns.name
        )]
    );
    ns.barrier();
    for pod in ["exists", "unlike", "number", "optional"] {
        assert_eq!(notes(&ns.events("Pod", pod)), Vec::<String>::new(), "{pod}");
    }
}

#[test]
fn a_namespace_with_the_name_of_a_former_one_gets_none_of_its_events() {
    let before = SHARED.namespace("tenant");
    before.pod_with("former", "app1-pki");
    refuse(&before);
    before.wait_for_events("Pod", "former", 1);
    SHARED.api.delete("namespace", "", &before.name).unwrap();
    let again = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": before.name}});
    SHARED.api.create("", &again).unwrap();
    let ns = Namespace {
        installed: &SHARED,
        name: before.name,
    };
    ns.pod_with("next", "app1-pki");
    ns.pod_with("marker", "app2-pki");
    ns.try_apply_pki("app2-pki", r#"{"serviceName": "appp2"}"#)
        .unwrap_err();
    ns.wait_for_events("Pod", "marker", 1);
    ns.barrier();
    assert_eq!(notes(&ns.events("Pod", "next")), Vec::<String>::new());
    refuse(&ns);
    let own = ns.wait_for_events("Pod", "next", 1);
    assert!(notes(&own)[0].ends_with(SENTENCE), "{own:?}");
}
