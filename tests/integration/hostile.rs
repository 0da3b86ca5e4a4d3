//! Whatever people write, what others read of it is one printable line within the limits of the API.

use crate::harness::{Namespace, arena, eventually};
use serde_json::{Value, json};

/// Control characters, a terminal's escape sequence, marks that reorder or hide text, and letters of several bytes.
const HOSTILE: &str = "ä€\u{1b}[31m\u{202e}lla\u{2066}\u{200b}\u{ad}\n\r\t\u{7}\u{85}\u{2028}😀";

fn is_printable(text: &str) -> bool {
    let hidden = ['\u{202e}', '\u{2066}', '\u{200b}', '\u{ad}', '\u{2028}'];
    text.chars()
        .all(|c| !c.is_control() && !hidden.contains(&c))
}

/// Specs with something hostile in every field that takes text, as long as the schema lets it be.
fn specs() -> Vec<(&'static str, Value)> {
    let short: String = HOSTILE.chars().take(20).collect();
    let long = HOSTILE.repeat(5);
    let mut specs = vec![
        ("common-name", json!({"commonName": HOSTILE})),
        ("dns-names", json!({"dnsNames": vec![long.clone(); 100]})),
        ("ip-addresses", json!({"ipAddresses": [HOSTILE]})),
        ("uris", json!({"uris": vec![HOSTILE.repeat(50); 20]})),
        (
            "labels",
            json!({"secretTemplate": {"labels": {HOSTILE: HOSTILE, "a": long}}}),
        ),
        (
            "annotations",
            json!({"secretTemplate": {"annotations": {HOSTILE: HOSTILE}}}),
        ),
        (
            "outputs",
            json!({"outputs": {"jks": {"passwordSecretRef": {"name": HOSTILE, "key": short}}}}),
        ),
    ];
    for (_, spec) in &mut specs {
        spec["serviceName"] = json!("app1");
    }
    specs
}

/// Waits for an Event of the operator about an object, and checks each of them.
fn expect_printable(ns: &Namespace<'_>, kind: &str, name: &str) {
    let events = eventually(&format!("{kind} {name} is told"), || {
        Some(ns.events(kind, name)).filter(|events| !events.is_empty())
    });
    for event in events {
        let note = event["note"].as_str().unwrap();
        assert!(is_printable(note), "{note:?}");
        assert!((50..=1024).contains(&note.len()), "{}: {note}", note.len());
    }
}

#[test]
fn events_and_conditions_are_printable_whatever_stands_in_the_fields() {
    let arena = arena();
    let operator = arena
        .first_replica("operator-1", &["--log-level", "debug"])
        .unwrap();
    let ns = arena.namespace("hostile");
    for (name, spec) in specs() {
        ns.pod_with(name, name);
        let refusal = ns.apply_pki(name, &spec.to_string()).unwrap_err();
        let refusal = refusal.to_string().replace('\n', "");
        assert!(is_printable(&refusal), "{refusal:?}");
    }
    arena.without_webhooks();
    for (name, spec) in specs() {
        eventually(&format!("{name} is stored"), || {
            ns.apply_pki(name, &spec.to_string()).ok()
        });
        expect_printable(&ns, "Pki", name);
        expect_printable(&ns, "Pod", name);
        let message = ns.ready_field(name, "message");
        assert!(is_printable(&message), "{message:?}");
        let printed = ns.kubectl(&["describe", "pod", name]).unwrap();
        assert!(is_printable(&printed.replace('\n', "")), "{printed:?}");
    }
    for line in operator.process.log().lines() {
        assert!(is_printable(line), "{line:?}");
    }
}

#[test]
fn a_pod_with_the_longest_name_is_told() {
    let arena = arena();
    let _operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("long");
    let name = format!("{0}.{0}.{0}.{1}", "p".repeat(63), "q".repeat(61));
    assert_eq!(name.len(), 253);
    ns.pod_with(&name, "app1-pki");
    ns.apply_pki("app1-pki", r#"{"serviceName": "appp1"}"#)
        .unwrap_err();
    expect_printable(&ns, "Pod", &name);
}

#[test]
fn the_pki_the_pod_and_the_list_of_events_say_the_same_words() {
    let arena = arena();
    let _operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("words");
    ns.pod_with("app1", "app1-pki");
    ns.permit(&["db"], "");
    ns.apply_pki("app1-pki", r#"{"serviceName": "db"}"#)
        .unwrap();
    ns.wait_until_ready("app1-pki");
    ns.permit(&["dc"], "");
    let message = ns.wait_until_refused("app1-pki", "PkiServiceNameError");
    for arguments in [
        &["describe", "pod", "app1"][..],
        &["describe", "pki", "app1-pki"],
        &["get", "events", "--field-selector=involvedObject.kind=Pod"],
        &[
            "get",
            "events.events.k8s.io",
            "--output=wide",
            "--field-selector=regarding.kind=Pod",
        ],
    ] {
        eventually(&format!("{arguments:?} has the sentence"), || {
            let printed = ns.kubectl(arguments).ok()?;
            printed.contains(&message).then_some(())
        });
    }
    ns.withdraw();
}
