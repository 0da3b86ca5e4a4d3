//! Whose a Secret is: what others made stays as it is, and of two Pkis one writes.

use crate::harness::{Namespace, SHARED, eventually, notes};
use pki_cluster::testing::manifest;
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;

/// A Secret in the way of the Pki of its name, and why it cannot be the Pki's. In that, `NAME` and
/// `NAMESPACE` stand for its own.
struct Stranger {
    name: &'static str,
    type_: &'static str,
    metadata: Value,
    immutable: bool,
    why: String,
}

const TLS: &str = "kubernetes.io/tls";

fn stranger(name: &'static str, metadata: Value, why: &str) -> Stranger {
    Stranger {
        name,
        type_: TLS,
        metadata,
        immutable: false,
        why: why.to_owned(),
    }
}

/// With the UIDs of a ConfigMap `owner` and a Pki `elsewhere`.
fn strangers(owner: &Value, elsewhere: &Value) -> Vec<Stranger> {
    let reference = |kind: &str, version: &str, name: &str, uid: &Value, controller: bool| json!({"ownerReferences": [{"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": controller}]});
    let config_map = |controller| reference("ConfigMap", "v1", "owner", owner, controller);
    let controlled = |by: &str| {
        format!(
            "{by} controls it; delete the Secret, choose another spec.secretName, or, if its content may be replaced, remove that \
             owner reference and annotate the Secret with box.com/adopt=NAME"
        )
    };
    let nobodys = "delete the Secret, choose another spec.secretName, or annotate the Secret with box.com/adopt=NAME if its \
                   content may be replaced";
    let delete = "delete the Secret (kubectl delete secret NAME --namespace NAMESPACE) and the operator makes one";
    let of_type = |name, type_, metadata| {
        let why = format!(
            "its type is {type_}, a Pki needs kubernetes.io/tls, and the type of a Secret cannot change; {delete} of that type at once, \
             or choose another spec.secretName"
        );
        Stranger {
            type_,
            ..stranger(name, metadata, &why)
        }
    };
    let labelled = json!({"labels": {"app.kubernetes.io/managed-by": "pki-operator"}, "annotations": {"box.com/pki": "labels"}});
    let unproven = format!(
        "it has no owner and the operator's labels, but was not issued for this Pki: tls.crt is not a readable certificate; \
         {nobodys}"
    );
    let immutable = format!(
        "it is immutable, so nothing can be written into it; {delete} at once, or choose another spec.secretName"
    );
    let offered = "its annotation box.com/adopt names \"another\"; delete the Secret, choose another spec.secretName, or write \
                   box.com/adopt=NAME if its content may be replaced";
    let annotated = |key: &str, value: &str| json!({"annotations": {key: value}});
    vec![
        of_type("opaque", "Opaque", json!({})),
        of_type(
            "offered-opaque",
            "Opaque",
            annotated("box.com/adopt", "offered-opaque"),
        ),
        of_type(
            "token",
            "kubernetes.io/service-account-token",
            annotated("kubernetes.io/service-account.name", "default"),
        ),
        stranger("tls", json!({}), nobodys),
        stranger("labels", labelled, &unproven),
        stranger(
            "forged",
            reference("Pki", "box.com/v1", "elsewhere", elsewhere, true),
            &controlled("Pki elsewhere"),
        ),
        stranger("owned", config_map(true), &controlled("ConfigMap owner")),
        stranger("half-owned", config_map(false), nobodys),
        stranger("offered", annotated("box.com/adopt", "another"), offered),
        Stranger {
            immutable: true,
            ..stranger(
                "immutable",
                annotated("box.com/adopt", "immutable"),
                &immutable,
            )
        },
    ]
}

#[test]
fn a_secret_that_somebody_else_made_is_left_as_it_is_and_issued_once_it_is_gone() {
    let ns = SHARED.namespace("foreign");
    ns.apply_object(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}}),
    );
    let owner = ns.get("configmap", "owner").unwrap()["metadata"]["uid"].clone();
    ns.apply_pki("elsewhere", r#"{"serviceName": "app2"}"#);
    let elsewhere = ns.wait_until_ready("elsewhere")["metadata"]["uid"].clone();
    for stranger in strangers(&owner, &elsewhere) {
        let Stranger { name, why, .. } = stranger;
        let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "type": stranger.type_, "metadata": stranger.metadata,
            "immutable": stranger.immutable, "stringData": {"tls.crt": "theirs", "tls.key": "theirs"}});
        secret["metadata"]["name"] = name.into();
        ns.apply_object(&secret);
        ns.pod_with(name, name);
        eventually("Kubernetes has done its part", || {
            let secret = ns.get("secret", name)?;
            (name != "token" || secret["data"]["token"].is_string()).then_some(())
        });
        let before = ns.get("secret", name);
        ns.apply_pki(name, r#"{"serviceName": "app1"}"#);
        let message = ns.wait_until_refused(name, "PkiSecretForeign");
        let why = why.replace("NAMESPACE", &ns.name).replace("NAME", name);
        let sentence = format!(
            "Secret {name} exists and does not belong to Pki {}/{name}, so it is left as it is: {why}",
            ns.name
        );
        assert_eq!(message, sentence);
        for kind in ["Pod", "Pki"] {
            let published = eventually(&format!("{kind} {name} gets an Event"), || {
                Some(notes(&ns.events(kind, name))).filter(|published| !published.is_empty())
            });
            assert_eq!(published, [format!("Warning: {sentence}")]);
        }
        assert_eq!(
            ns.get("secret", name),
            before,
            "not a byte of {name} has changed"
        );

        ns.delete("secret", name);
        let pki = ns.wait_until_ready(name);
        assert_eq!(controller(&ns, name), pki["metadata"]["uid"]);
    }
}

#[test]
fn a_secret_that_can_be_neither_repaired_nor_removed_is_tried_less_and_less_often() {
    let ns = SHARED.namespace("stuck");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("app1-pki");
    let patch = json!([
        {"op": "replace", "path": "/data/ca.crt", "value": "dGhlaXJz"},
        {"op": "add", "path": "/immutable", "value": true},
        {"op": "add", "path": "/metadata/finalizers", "value": ["example.com/hold"]},
    ]);
    let api = &ns.installed.api;
    api.patch("secret", &ns.name, "app1-pki", &patch).unwrap();
    ns.delete_later("secret", "app1-pki");
    let message = ns.wait_until_refused("app1-pki", "PkiIssuanceFailed");
    let remedy = "the Secret is immutable: delete it (kubectl delete secret), and the operator writes a new one at once, with \
                  another certificate; then restart the pods that mounted it";
    assert!(message.contains(remedy), "{message}");
    // Each of these is an event of the watch, and none of them is worth an attempt.
    for number in 0..10 {
        ns.annotate("secret", "app1-pki", "note", &number.to_string());
        thread::sleep(Duration::from_millis(250));
    }
    ns.barrier();
    let writes = ns.operator_writes().into_iter();
    let refused = writes.filter(|(write, _)| write.what == "patch secrets" && write.code >= 400);
    let refused: usize = refused.map(|(_, count)| count).sum();
    assert!((1..=6).contains(&refused), "{refused}");

    let free = json!({"metadata": {"finalizers": null}});
    ns.merge("secret", "app1-pki", &free);
    ns.wait_until_ready("app1-pki");
}

#[test]
fn a_secret_left_by_a_pki_that_is_gone_is_waited_out_and_no_fault() {
    let ns = SHARED.namespace("former");
    let secret = r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "app1-pki", "ownerReferences": [{"apiVersion":
        "box.com/v1", "kind": "Pki", "name": "gone", "uid": "5a5cf4ab-0000-4000-8000-000000000000", "controller": true}]}}"#;
    ns.apply(secret);
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    let pki = ns.wait_until_ready("app1-pki");
    assert_eq!(controller(&ns, "app1-pki"), pki["metadata"]["uid"]);
    ns.barrier();
    assert_eq!(notes(&ns.events("Pki", "app1-pki")), Vec::<String>::new());
}

#[test]
fn of_two_pkis_with_one_secret_the_first_has_it_and_the_other_takes_over() {
    let ns = SHARED.namespace("rivals");
    let spec = r#"{"serviceName": "app1", "secretName": "shared"}"#;
    ns.pod_with("web", "shared");
    ns.apply_pki("winner", spec);
    ns.wait_until_ready("winner");
    ns.apply_pki("loser", spec);
    let message = ns.wait_until_refused("loser", "PkiSecretConflict");
    let sentence = format!(
        "Secret shared belongs to Pki {0}/winner, which claimed it first: choose another spec.secretName for Pki {0}/loser",
        ns.name
    );
    assert_eq!(message, sentence);
    let secret = ns.get("secret", "shared");
    ns.barrier();
    assert_eq!(ns.get("secret", "shared"), secret);
    assert_eq!(ns.ready_field("winner", "status"), "True");
    let published = notes(&ns.events("Pod", "web"));
    assert_eq!(published, Vec::<String>::new(), "its Secret is there");

    ns.delete("pki", "winner");
    let pki = ns.wait_until_ready("loser");
    assert_eq!(controller(&ns, "shared"), pki["metadata"]["uid"]);
    let resolved = pki["status"]["conditions"][0]["message"].as_str().unwrap();
    let published = eventually("the former loser gets an Event", || {
        Some(notes(&ns.events("Pki", "loser"))).filter(|published| published.len() >= 2)
    });
    assert_eq!(
        published,
        [
            format!("Warning: {sentence}"),
            format!("Normal: {resolved}")
        ]
    );
}

#[test]
fn a_secret_in_use_is_not_lost_to_an_older_pki_that_is_edited_to_name_it() {
    let ns = SHARED.namespace("older");
    ns.apply_pki("older", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("older");
    ns.apply_pki("younger", r#"{"serviceName": "app2"}"#);
    ns.wait_until_ready("younger");
    let secret = ns.get("secret", "younger");
    ns.apply_pki(
        "older",
        r#"{"serviceName": "app1", "secretName": "younger"}"#,
    );
    let message = ns.wait_until_refused("older", "PkiSecretConflict");
    assert!(message.contains("belongs to Pki older-"), "{message}");
    assert!(
        message.contains("/younger, which claimed it first"),
        "{message}"
    );
    ns.barrier();
    assert_eq!(ns.get("secret", "younger"), secret);
    assert_eq!(ns.ready_field("younger", "status"), "True");
    assert_eq!(notes(&ns.events("Pki", "younger")), Vec::<String>::new());

    ns.apply_pki("older", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("older");
}

#[test]
fn of_two_pkis_made_in_the_same_second_exactly_one_has_the_secret() {
    let ns = SHARED.namespace("same");
    let pairs = 0..8;
    // The second of each pair comes first by name, after the first may have been issued already.
    for pair in pairs.clone() {
        let spec = json!({"serviceName": "app1", "secretName": format!("s{pair}")});
        for first in ["z", "a"] {
            ns.apply_object(&manifest::pki(&format!("{first}{pair}"), &spec));
        }
    }
    for pair in pairs {
        let names = [format!("a{pair}"), format!("z{pair}")];
        let is_settled = || {
            let reasons = names.each_ref().map(|name| ns.ready_field(name, "reason"));
            let secret = controller(&ns, &format!("s{pair}"));
            let winner = reasons.iter().position(|reason| reason == "PkiReady")?;
            let loser = &names[1 - winner];
            let is_owner = ns.get("pki", &names[winner])?["metadata"]["uid"] == secret;
            let is_told = reasons[1 - winner] == "PkiSecretConflict"
                && ns.ready_field(loser, "message").contains(&names[winner]);
            (is_owner && is_told).then_some(())
        };
        eventually(&format!("pair {pair} is settled"), is_settled);
    }
}

#[test]
fn the_secret_goes_with_its_pki() {
    let ns = SHARED.namespace("gone");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("app1-pki");
    ns.delete("pki", "app1-pki");
    let secret_is_gone = || ns.get("secret", "app1-pki").is_none().then_some(());
    eventually("Kubernetes collects the Secret", secret_is_gone);
    ns.barrier();
    assert!(secret_is_gone().is_some(), "and it stays away");
}

#[test]
fn a_pki_that_is_made_again_has_a_secret_of_its_own() {
    let ns = SHARED.namespace("again");
    let spec = r#"{"serviceName": "app1"}"#;
    ns.apply_pki("app1-pki", spec);
    let first = ns.wait_until_ready("app1-pki");
    ns.delete("pki", "app1-pki");
    ns.apply_pki("app1-pki", spec);
    let second = ns.wait_until_ready("app1-pki");
    assert_ne!(
        first["status"]["serialNumber"],
        second["status"]["serialNumber"]
    );
    assert_eq!(controller(&ns, "app1-pki"), second["metadata"]["uid"]);
    let warnings = notes(&ns.events("Pki", "app1-pki"));
    assert_eq!(
        warnings,
        Vec::<String>::new(),
        "that the old Secret was there is no fault"
    );
}

/// The UID of the controller of a Secret.
fn controller(ns: &Namespace<'_>, secret: &str) -> Value {
    let secret = ns.get("secret", secret).unwrap_or_default();
    secret["metadata"]["ownerReferences"][0]["uid"].clone()
}

/// The pods lack a Secret then, and hear of both Pkis that name it.
#[test]
fn while_the_first_of_two_pkis_cannot_have_the_secret_pods_get_events_about_both() {
    let ns = SHARED.namespace("both");
    ns.pod_with("web", "tls");
    ns.forbid_secrets();
    let spec = r#"{"serviceName": "app1", "secretName": "tls"}"#;
    ns.apply_pki("elder", spec);
    ns.wait_until_refused("elder", "PkiIssuanceFailed");
    ns.apply_pki("younger", spec);
    let conflict = ns.wait_until_refused("younger", "PkiSecretConflict");
    eventually("the pod hears of both", || {
        let published = notes(&ns.events("Pod", "web"));
        let is_told = |text: &str| published.iter().any(|note| note.contains(text));
        (is_told("exceeded quota") && is_told(&conflict)).then_some(())
    });
}
