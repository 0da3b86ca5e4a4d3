//! Every kind of use, with every kind of fault, in pods that were there before and in pods that
//! come later, with and without a restart of the operator in between: each gets one Event, and no
//! other pod gets any.

use crate::harness::{Installed, Namespace, arena, eventually};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use pki_cluster::Signal;
use pki_cluster::install::{Operator, RELEASE};
use pki_cluster::testing::manifest;
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
    for (name, spec) in uses() {
        ns.apply_pod(&manifest::pod(&format!("{prefix}-{name}"), &spec));
    }
    let name = format!("{prefix}-ephemeral");
    let container = json!({"name": "e", "image": "e", "envFrom": [{"secretRef": {"name": "tls"}}]});
    let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": [container]}}));
    let api = &ns.installed.api;
    let pods = kube::Api::<Pod>::namespaced(api.client(), &ns.name);
    let parameters = PatchParams::default();
    api.block_on(pods.patch_ephemeral_containers(&name, &parameters, &patch))
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
            ns.foreign_secret("tls");
            store(ns, "app1");
        },
    },
    Fault {
        reason: "PkiIssuanceFailed",
        happen: |ns| {
            ns.forbid_secrets();
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
            ns.merge_status("app1-pki", &times);
            ns.annotate("pki", "app1-pki", "reconcile", "1");
        },
    },
];

/// Of the Events with this reason, by the pod: UID and note of each.
type Published = BTreeMap<String, Vec<(String, String)>>;

fn published(ns: &Namespace<'_>, reason: &str) -> Published {
    let selector = format!("reason={reason},regarding.kind=Pod");
    let events = ns.installed.api.list("events", &ns.name, "", &selector);
    let mut published = Published::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for event in events.unwrap() {
        assert_eq!(event["type"], "Warning");
        let entry = published
            .entry(text(&event["regarding"]["name"]))
            .or_default();
        entry.push((text(&event["metadata"]["uid"]), text(&event["note"])));
    }
    published
}

/// Waits until every pod with this prefix that uses the Secret has the Event.
fn wait_until_published(ns: &Namespace<'_>, prefix: &str, reason: &str) {
    let users = uses().len() - 2;
    let begins = |name: &&String| name.starts_with(prefix);
    eventually(
        &format!("all of {prefix} get {reason} in {}", ns.name),
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
            ns.try_apply_pki("probe", pki).ok()
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

    arena.restore_release().unwrap();
    let _operator = restart(&arena, &operator);
    for (ns, _) in &cases {
        make_pods(ns, "later");
    }
    for (ns, fault) in &cases {
        wait_until_published(ns, "later", fault.reason);
    }
    arena.barrier();
    for ((ns, fault), before) in cases.iter().zip(&before) {
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
    // An operator that has just become ready may not have made it yet.
    eventually("the CA is deleted", || {
        arena.api.delete("secret", RELEASE, "pki-operator-ca").ok()
    });
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
