//! Every kind of use, with every kind of fault, in pods that were there before and in pods that
//! come later, with and without a restart of the operator in between: each hears it once, and
//! nobody else does.

use crate::harness::{Installed, Namespace, arena, eventually, quiet};
use jiff::{SignedDuration, Timestamp};
use pki_cluster::Signal;
use pki_cluster::install::Operator;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const OPTIONAL: &str =
    "; the pod does not wait for the Secret, because its reference says optional: true";

/// How a pod uses the Secret `tls`, by name.
fn uses() -> Vec<(&'static str, Value)> {
    let all = json!([{"secretRef": {"name": "tls"}}]);
    let one =
        json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "tls", "key": "tls.crt"}}}]);
    let container = |name: &str, field: &str, value: &Value| json!([{"name": name, "image": "c", field: value}]);
    let volume = |source: Value| {
        let mut volume = json!({"name": "v"});
        json_patch::merge(&mut volume, &source);
        json!({"volumes": [volume]})
    };
    vec![
        ("volume", volume(json!({"secret": {"secretName": "tls"}}))),
        (
            "optional",
            volume(json!({"secret": {"secretName": "tls", "optional": true}})),
        ),
        (
            "projected",
            volume(json!({"projected": {"sources": [{"secret": {"name": "tls"}}]}})),
        ),
        (
            "csi",
            volume(json!({"csi": {"driver": "d", "nodePublishSecretRef": {"name": "tls"}}})),
        ),
        ("env", json!({"containers": container("c", "env", &one)})),
        (
            "env-from",
            json!({"containers": container("c", "envFrom", &all)}),
        ),
        (
            "init",
            json!({"initContainers": container("i", "env", &one)}),
        ),
        ("ephemeral", json!({})),
        // These don't use it.
        ("other", volume(json!({"secret": {"secretName": "other"}}))),
        ("pull", json!({"imagePullSecrets": [{"name": "tls"}]})),
    ]
}

/// Makes a pod of each kind, with this before their names.
fn make_pods(ns: &Namespace<'_>, prefix: &str) {
    let pods = uses().into_iter().map(|(name, spec)| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("{prefix}-{name}")},
            "spec": {"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "c"}]}});
        json_patch::merge(&mut pod["spec"], &spec);
        pod
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": pods.collect::<Vec<_>>()});
    eventually("the pods are made", || {
        ns.kubectl_apply(&list.to_string()).ok()
    });

    let name = format!("{prefix}-ephemeral");
    let mut pod = ns.get("pod", &name).unwrap();
    pod["spec"]["ephemeralContainers"] =
        json!([{"name": "e", "image": "e", "envFrom": [{"secretRef": {"name": "tls"}}]}]);
    let path = format!(
        "/api/v1/namespaces/{}/pods/{name}/ephemeralcontainers",
        ns.name
    );
    ns.installed
        .kubectl_with(
            &pod.to_string(),
            &["replace", "--raw", &path, "--filename=-"],
        )
        .unwrap();
}

/// What has gone wrong, and the reason that pods read.
struct Fault {
    reason: &'static str,
    happen: fn(&Namespace<'_>),
}

fn store(ns: &Namespace<'_>, service: &str) {
    let spec = json!({"serviceName": service, "secretName": "tls"});
    ns.apply_pki("app1-pki", &spec.to_string());
}

const FAULTS: [Fault; 5] = [
    Fault {
        reason: "PkiServiceNameError",
        happen: |ns| store(ns, "appp1"),
    },
    Fault {
        reason: "PkiDurationError",
        happen: |ns| {
            let spec = json!({"serviceName": "app1", "secretName": "tls", "duration": "900000h"});
            ns.apply_pki("app1-pki", &spec.to_string());
        },
    },
    Fault {
        reason: "PkiSecretForeign",
        happen: |ns| {
            ns.kubectl(&["create", "secret", "generic", "tls"]).unwrap();
            store(ns, "app1");
        },
    },
    Fault {
        reason: "PkiIssuanceFailed",
        happen: |ns| {
            forbid_secrets(ns);
            store(ns, "app1");
        },
    },
    Fault {
        reason: "PkiCertificateExpiring",
        happen: |ns| {
            store(ns, "app1");
            ns.wait_until_ready("app1-pki");
            let from_now = |hours| Timestamp::now() + SignedDuration::from_hours(hours);
            let times = json!({"status": {"renewalTime": from_now(-5), "notAfter": from_now(4)}});
            store(ns, "appp1");
            ns.wait_until_refused("app1-pki", "PkiServiceNameError");
            let patch = [
                "patch",
                "pki",
                "app1-pki",
                "--subresource=status",
                "--type=merge",
            ];
            ns.kubectl(&[&patch[..], &["--patch", &times.to_string()]].concat())
                .unwrap();
            ns.merge(
                "pki",
                "app1-pki",
                &json!({"metadata": {"annotations": {"look": "1"}}}),
            );
        },
    },
];

fn forbid_secrets(ns: &Namespace<'_>) {
    ns.kubectl(&["create", "quota", "none", "--hard=secrets=0"])
        .unwrap();
    eventually("the quota is in force", || {
        let quota = ns.get("quota", "none")?;
        quota["status"]["hard"]["secrets"].is_string().then_some(())
    });
}

/// Of the Events with this reason, by the pod: UID and note of each.
type Published = BTreeMap<String, Vec<(String, String)>>;

fn published(ns: &Namespace<'_>, reason: &str) -> Published {
    let selector = format!("--field-selector=reason={reason},regarding.kind=Pod");
    let printed = ns.kubectl(&["get", "events.events.k8s.io", &selector, "--output=json"]);
    let list: Value = serde_json::from_str(&printed.unwrap()).unwrap();
    let mut published = Published::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for event in list["items"].as_array().unwrap() {
        assert_eq!(event["type"], "Warning");
        let entry = published
            .entry(text(&event["regarding"]["name"]))
            .or_default();
        entry.push((text(&event["metadata"]["uid"]), text(&event["note"])));
    }
    published
}

/// Waits until every pod with this prefix that uses the Secret has its Event.
fn wait_until_published(ns: &Namespace<'_>, prefix: &str, reason: &str) {
    let users = uses().len() - 2;
    let begins = |name: &&String| name.starts_with(prefix);
    eventually(
        &format!("all of {prefix} hear {reason} in {}", ns.name),
        || {
            let published = published(ns, reason);
            (published.keys().filter(begins).count() >= users).then_some(())
        },
    );
}

/// Each pod has one Event; its note is the message of the Pki, or, where that is about the
/// certificate, quotes it.
fn expect_one_each(ns: &Namespace<'_>, reason: &str, prefixes: &[&str]) -> Published {
    let published = published(ns, reason);
    let message = ns.ready_field("app1-pki", "message");
    let expected = prefixes.iter().flat_map(|prefix| {
        let users = uses()
            .into_iter()
            .filter(|(name, _)| !matches!(*name, "other" | "pull"));
        users.map(move |(name, _)| format!("{prefix}-{name}"))
    });
    let mut expected: Vec<_> = expected.collect();
    expected.sort();
    assert_eq!(
        published.keys().cloned().collect::<Vec<_>>(),
        expected,
        "{reason}"
    );
    for (pod, events) in &published {
        let [(_, note)] = &events[..] else {
            panic!("{pod} has one Event: {events:?}")
        };
        let is_optional = pod.ends_with("optional");
        let aside = if is_optional { OPTIONAL } else { "" };
        assert!(
            note.ends_with(&format!("{message}{aside}")),
            "{pod}: {note}"
        );
        assert!(note.contains("app1-pki"), "it names the Pki: {note}");
    }
    published
}

fn restart(arena: &Installed, operator: &Operator) -> Operator {
    operator.process.signal(Signal::TERM).unwrap();
    operator.process.wait(Duration::from_secs(30)).unwrap();
    arena.first_replica("operator-1", &[]).unwrap()
}

#[test]
fn every_pod_that_uses_the_secret_in_any_way_gets_one_event_about_each_fault() {
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    // So that whatever is applied is stored.
    arena.without_webhooks();
    let cases: Vec<_> = FAULTS
        .iter()
        .map(|fault| (arena.namespace("table"), fault))
        .collect();
    for (ns, fault) in &cases {
        make_pods(ns, "before");
        eventually("nobody refuses it", || {
            let pki = r#"{"serviceName": "appp1", "secretName": "probe"}"#;
            ns.kubectl_apply_pki("probe", pki).ok()
        });
        ns.delete("pki", "probe");
        (fault.happen)(ns);
    }
    for (ns, fault) in &cases {
        wait_until_published(ns, "before", fault.reason);
        make_pods(ns, "after");
    }
    let mut before = Vec::new();
    for (ns, fault) in &cases {
        wait_until_published(ns, "after", fault.reason);
        before.push(expect_one_each(ns, fault.reason, &["after", "before"]));
    }

    arena.install().unwrap();
    let _operator = restart(&arena, &operator);
    for (ns, _) in &cases {
        make_pods(ns, "later");
    }
    for ((ns, fault), before) in cases.iter().zip(&before) {
        wait_until_published(ns, "later", fault.reason);
        quiet();
        let now = expect_one_each(ns, fault.reason, &["after", "before", "later"]);
        for (pod, events) in before {
            assert_eq!(&now[pod], events, "the Event is still the same");
        }
    }
}

#[test]
fn pods_of_every_kind_get_an_event_about_the_ca() {
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("no-ca");
    make_pods(&ns, "before");
    let ca = ["secret", "pki-operator-ca", "--namespace=pki-operator"];
    arena.kubectl(&[&["delete"], &ca[..]].concat()).unwrap();
    eventually("it is noticed", || {
        let (_, page) = operator.get("/metrics").ok()?;
        page.contains("pki_operator_ca_alarm{").then_some(())
    });
    store(&ns, "app1");
    wait_until_published(&ns, "before", "PkiCaUnavailable");
    make_pods(&ns, "after");
    wait_until_published(&ns, "after", "PkiCaUnavailable");
    let before = expect_one_each(&ns, "PkiCaUnavailable", &["after", "before"]);
    let operator = restart(&arena, &operator);
    make_pods(&ns, "later");
    wait_until_published(&ns, "later", "PkiCaUnavailable");
    let now = expect_one_each(&ns, "PkiCaUnavailable", &["after", "before", "later"]);
    for (pod, events) in before {
        assert_eq!(now[&pod], events, "the Event is still the same");
    }
    drop(operator);
    arena.forget_cas();
}
