//! When the API server asks the operator about a Pki, and when the answer is known without asking.
//! Its audit log tells.

use crate::harness::{Installed, Namespace, arena, eventually};
use serde_json::{Value, json};

#[test]
fn an_edit_of_what_nobody_judges_asks_nobody() {
    let arena = arena();
    let _operator = arena.first_replica("asked", &[]).unwrap();
    let ns = arena.namespace("calls");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    // One that is there, or the garbage collector has the Pki deleted.
    let owner = eventually("there is something", || {
        ns.get("configmap", "kube-root-ca.crt")
    });
    let owner = &owner["metadata"];
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": owner["name"], "uid": owner["uid"]}]);
    let edits = [
        (
            json!({"metadata": {"finalizers": ["example.com/f"]}}),
            [].as_slice(),
        ),
        (json!({"metadata": {"ownerReferences": owner}}), &[]),
        (json!({"metadata": {"ownerReferences": null}}), &[]),
        (
            json!({"metadata": {"labels": {"team": "a"}}}),
            &["validate"],
        ),
        (
            json!({"metadata": {"annotations": {"note": "a"}}}),
            &["validate"],
        ),
        (json!({"spec": {"duration": "48h"}}), &["validate"]),
        (json!({"spec": {"duration": null}}), &["validate"]),
    ];
    for (edit, _) in &edits {
        patch(&ns, edit).unwrap();
    }
    let spec = ns.get("pki", "app1-pki").unwrap()["spec"].clone();
    assert_eq!(spec, json!({"serviceName": "app1"}), "nothing is filled in");

    // Nothing passes along with what is not judged.
    let both = json!({"metadata": {"finalizers": []}, "spec": {"serviceName": "app9"}});
    let refusal = patch(&ns, &both).unwrap_err().to_string();
    assert!(
        refusal.contains("is not found in allowedNames: [app1 app2]"),
        "{refusal}"
    );
    ns.delete_later("pki", "app1-pki");
    patch(
        &ns,
        &json!({"metadata": {"finalizers": null}, "spec": {"duration": null}}),
    )
    .unwrap();

    let asked = eventually("all edits are in the audit log", || {
        Some(asked(&arena, &ns.name)).filter(|asked| asked.len() == edits.len() + 2)
    });
    for ((edit, expected), asked) in edits.iter().zip(&asked) {
        assert_eq!(asked, expected, "{edit}");
    }
    assert_eq!(asked[edits.len()..], [vec!["validate"], vec![]]);
}

fn patch(ns: &Namespace<'_>, edit: &Value) -> anyhow::Result<String> {
    let edit = edit.to_string();
    ns.kubectl(&["patch", "pki", "app1-pki", "--type=merge", "--patch", &edit])
}

/// Which webhooks were asked about each patch of kubectl in this namespace.
fn asked(installed: &Installed, namespace: &str) -> Vec<Vec<&'static str>> {
    let log =
        std::fs::read_to_string(installed.cluster.audit_log()).expect("there is an audit log");
    let entries = log.lines().filter(|line| line.contains(namespace));
    // The last line may be half written.
    let entries = entries.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let patches = entries.filter(|entry| {
        entry["verb"] == "patch"
            && entry["stage"] == "ResponseComplete"
            && entry["requestURI"]
                .as_str()
                .is_some_and(|uri| uri.contains("fieldManager=kubectl-patch"))
    });
    let webhooks = |entry: Value| {
        let annotations = entry["annotations"].to_string();
        let said = [
            ("mutate", r#""webhook\":\"mutate.pkis.box.com\""#),
            ("validate", r#""validate.pkis.box.com/verdict""#),
        ];
        let asked = said
            .into_iter()
            .filter(|(_, said)| annotations.contains(said));
        asked.map(|(webhook, _)| webhook).collect()
    };
    patches.map(webhooks).collect()
}
