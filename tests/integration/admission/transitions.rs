//! From each of thirty specs to each other one, by client-side apply, server-side apply and merge
//! patch, against the real API server and the real webhook: what comes of it is what a first apply
//! gives, and nothing that nobody wrote.

use crate::harness::{Namespace, SHARED};
use futures::stream::{self, StreamExt};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use pki_cluster::testing::manifest;
use serde_json::{Value, json};
use std::thread;

fn specs() -> Vec<Value> {
    let specs = include_str!("../../../src/policy/tests/specs.json");
    serde_json::from_str(specs).expect("a list of specs")
}

#[test]
fn all_transitions_end_as_a_first_apply_would() {
    let ns = SHARED.namespace("transitions");
    ns.permit(&["app1"], r#", "dnsNames": ["*.example.com"]"#);
    let specs = specs();
    assert_eq!(specs.len(), 30);
    let all = |prefix: &str| {
        list(
            specs
                .iter()
                .enumerate()
                .map(|(i, spec)| pki(prefix, i, spec)),
        )
    };
    let first = apply(&ns, &all("first"), &["--dry-run=server"]);
    for (spec, first) in specs.iter().zip(&first) {
        assert_eq!(first["spec"], *spec, "nothing is filled in");
    }
    // Each spec is stored once for each manager, and everything from there on is a dry run.
    apply(&ns, &all("c"), &[]);
    apply(&ns, &all("s"), &["--server-side"]);
    let pairs = specs.iter().enumerate();
    let pairs: Vec<_> = pairs
        .flat_map(|(i, before)| specs.iter().map(move |after| (i, before, after)))
        .collect();

    let (client_side, (server_side, merged)) = thread::scope(|scope| {
        let by_client = scope.spawn(|| {
            // By two kubectls, which take one object after the other.
            let halves = pairs.chunks(pairs.len() / 2).map(|half| {
                let (ns, half) = (&ns, half.to_vec());
                scope.spawn(move || {
                    let objects = half.iter().map(|(i, _, after)| pki("c", *i, after));
                    apply(ns, &list(objects), &["--dry-run=server"])
                })
            });
            let halves: Vec<_> = halves.collect();
            let halves = halves.into_iter().map(|half| half.join().expect("it ends"));
            halves.flatten().collect::<Vec<_>>()
        });
        let by_server = by_server(&ns, &pairs);
        (by_client.join().expect("it ends"), by_server)
    });
    let mut count = 0;
    for (way, results) in [
        ("client-side apply", client_side),
        ("server-side apply", server_side),
        ("merge patch", merged),
    ] {
        assert_eq!(results.len(), pairs.len(), "{way}");
        for ((_, before, after), result) in pairs.iter().zip(&results) {
            assert_eq!(
                meaning(&result["spec"]),
                meaning(after),
                "{way}: {before} -> {after}: {result}"
            );
            count += 1;
        }
    }
    assert_eq!(count, 2700);
}

#[test]
fn an_object_of_version_0_2_takes_another_algorithm() {
    let ns = SHARED.namespace("stored");
    // As its webhook stored it, beside what kubectl noted that it applied.
    let stored = r#"{"serviceName": "app1", "duration": "2160h", "secretName": "app1-pki", "privateKey": {"algorithm": "ECDSA", "size": 256}}"#;
    ns.kubectl_apply_pki("app1-pki", stored).unwrap();
    let applied = r#"{"apiVersion":"box.com/v1","kind":"Pki","metadata":{"annotations":{},"name":"app1-pki"},"spec":{"serviceName":"app1"}}"#;
    let annotation = format!("kubectl.kubernetes.io/last-applied-configuration={applied}");
    let annotate = ["annotate", "pki", "app1-pki", "--overwrite", &annotation];
    ns.kubectl(&annotate).unwrap();
    ns.wait_until_ready("app1-pki");
    let rsa = r#"{"serviceName": "app1", "privateKey": {"algorithm": "Ed25519"}}"#;
    ns.kubectl_apply_pki("app1-pki", rsa).unwrap();
    let pki = ns.wait_until_ready("app1-pki");
    assert_eq!(
        pki["spec"]["privateKey"],
        json!({"algorithm": "Ed25519", "size": 256}),
        "kubectl leaves alone what it did not apply"
    );
    let secret = ns.get("secret", "app1-pki").unwrap();
    let certificate = crate::harness::file(&secret, "tls.crt");
    let text = crate::harness::openssl(&["x509", "-noout", "-text"], &certificate);
    assert!(text.contains("ED25519"), "{text}");
}

/// A spec without maps that say nothing: after server-side apply the API server stores `null` for a
/// map that lost its last field.
fn meaning(spec: &Value) -> Value {
    let fields = spec.as_object().into_iter().flatten();
    let says = |value: &Value| !value.is_null() && *value != json!({});
    let said = fields.filter(|(_, value)| says(value));
    said.map(|(name, value)| (name.clone(), value.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Server-side apply and merge patch, by many requests at a time.
fn by_server(ns: &Namespace<'_>, pairs: &[(usize, &Value, &Value)]) -> (Vec<Value>, Vec<Value>) {
    let server = &ns.installed.api;
    let kind = GroupVersionKind::gvk("box.com", "v1", "Pki");
    let pkis = ApiResource::from_gvk(&kind);
    let api = Api::namespaced_with(server.client(), &ns.name, &pkis);
    server.block_on(async {
        let apply = PatchParams {
            dry_run: true,
            field_manager: Some("kubectl".into()),
            ..PatchParams::default()
        };
        let merge = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let applied = pairs.iter().map(|(i, _, after)| {
            let patch = Patch::Apply(pki("s", *i, after));
            patched(&api, format!("s-{i}"), apply.clone(), patch)
        });
        let merged = pairs.iter().map(|(i, before, after)| {
            let patch = Patch::Merge(json!({ "spec": difference(before, after) }));
            patched(&api, format!("c-{i}"), merge.clone(), patch)
        });
        let applied = stream::iter(applied).buffered(8).collect().await;
        let merged = stream::iter(merged).buffered(8).collect().await;
        (applied, merged)
    })
}

async fn patched(
    api: &Api<DynamicObject>,
    name: String,
    params: PatchParams,
    patch: Patch<Value>,
) -> Value {
    match api.patch(&name, &params, &patch).await {
        Ok(object) => object.data,
        Err(error) => json!({ "error": error.to_string() }),
    }
}

/// The patch from one manifest to the next, as Helm and `kubectl edit` compute it (RFC 7386).
fn difference(before: &Value, after: &Value) -> Value {
    let (Some(was), Some(is)) = (before.as_object(), after.as_object()) else {
        return after.clone();
    };
    let removed = was.keys().filter(|name| !is.contains_key(*name));
    let removed = removed.map(|name| (name.clone(), Value::Null));
    let changed = is
        .iter()
        .filter(|(name, value)| was.get(*name) != Some(value));
    let changed = changed.map(|(name, value)| {
        let patch = was
            .get(name)
            .map_or_else(|| value.clone(), |was| difference(was, value));
        (name.clone(), patch)
    });
    removed
        .chain(changed)
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn pki(prefix: &str, index: usize, spec: &Value) -> Value {
    let name = format!("{prefix}-{index}");
    // Each has a Secret of its own by default.
    manifest::pki(&name, spec)
}

fn list(items: impl Iterator<Item = Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items.collect::<Vec<_>>()})
}

/// `kubectl apply` of a list; what the API server answers for each.
fn apply(ns: &Namespace<'_>, list: &Value, options: &[&str]) -> Vec<Value> {
    let apply = [
        "apply",
        "--filename=-",
        "--output=json",
        "--namespace",
        &ns.name,
    ];
    let input = list.to_string();
    let printed = ns
        .installed
        .kubectl_with(&input, &[&apply, options].concat());
    let printed: Value = serde_json::from_str(&printed.expect("all are taken")).expect("JSON");
    printed["items"].as_array().expect("a list").clone()
}
