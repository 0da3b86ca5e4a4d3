//! People read which annotations and labels of `box.com/` have no effect.

use crate::harness::{Namespace, SHARED, eventually};
use pki_cluster::install::RELEASE;
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::Stdio;

/// Applies a manifest. Returns the standard error of kubectl.
fn apply(ns: &Namespace<'_>, manifest: &Value) -> String {
    let mut kubectl = SHARED.cluster.kubectl();
    kubectl.args(["apply", "--namespace", &ns.name, "--filename", "-"]);
    kubectl.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = kubectl.stdout(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(manifest.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

fn pki(name: &str, metadata: &Value, spec: &Value) -> Value {
    let mut pki =
        json!({"apiVersion": "box.com/v1", "kind": "Pki", "metadata": metadata, "spec": spec});
    pki["metadata"]["name"] = json!(name);
    pki
}

/// Waits until `kubectl describe` shows this reason and this part of a message.
fn wait_for_description(ns: &Namespace<'_>, kind: &str, name: &str, part: &str) {
    let what = format!("kubectl describe {kind} {name} shows {part}");
    eventually(&what, || {
        has_event(&ns.name, part).then_some(())?;
        let shown = ns.kubectl(&["describe", kind, name]).ok()?;
        (shown.contains("PkiAnnotationIgnored") && shown.contains(part)).then_some(())
    });
}

/// Whether there is an Event with this part of a message. To ask so first costs less than kubectl.
fn has_event(namespace: &str, part: &str) -> bool {
    let selector = "reason=PkiAnnotationIgnored";
    let events = SHARED.api.list("events", namespace, "", selector);
    let events = events.unwrap_or_default();
    let mut notes = events.iter().filter_map(|event| event["note"].as_str());
    notes.any(|note| note.contains(part))
}

/// Waits until `kubectl get events` shows this part of a message.
fn wait_for_event(namespace: &str, part: &str) {
    let selector = "--field-selector=reason=PkiAnnotationIgnored";
    eventually(&format!("kubectl get events shows {part}"), || {
        has_event(namespace, part).then_some(())?;
        let shown = SHARED.kubectl(&["get", "events", "-n", namespace, selector]);
        shown.ok()?.contains(part).then_some(())
    });
}

#[test]
fn kubectl_apply_warns_of_annotations_of_a_pki_and_a_policy_that_have_no_effect() {
    let ns = SHARED.namespace("ignored");
    let spec = json!({"serviceName": "app1"});
    for (metadata, expected) in [
        (
            json!({"annotations": {"box.com/keep-secrets": "true"}}),
            "metadata.annotations: \"box.com/keep-secrets\" is unknown and has no effect; did you mean \"box.com/keep-secret\"?",
        ),
        (
            json!({"annotations": {"box.com/keep-secret": "yes"}}),
            "metadata.annotations: \"box.com/keep-secret\" has no effect with the value \"yes\": write \"true\" or \"false\"",
        ),
        (
            json!({"labels": {"box.com/renewal-events": "false"}}),
            "metadata.labels: \"box.com/renewal-events\" has no effect as label: write it as annotation, in metadata.annotations",
        ),
        (
            json!({"annotations": {"box.com/adopt": "a"}}),
            "metadata.annotations: \"box.com/adopt\" has no effect on a Pki: write it as annotation of a Secret",
        ),
    ] {
        let said = apply(&ns, &pki("app1-pki", &metadata, &spec));
        assert_eq!(said.trim(), format!("Warning: {expected}"), "{metadata}");
    }
    // A refusal does not hide it.
    let metadata = json!({"annotations": {"box.com/keep-secrets": "true"}});
    let said = apply(
        &ns,
        &pki("other", &metadata, &json!({"serviceName": "appp1"})),
    );
    assert!(
        said.contains("Warning: metadata.annotations: ") && said.contains("did you mean \"app1\"?"),
        "{said}"
    );
    let fine =
        json!({"annotations": {"box.com/keep-secret": "True", "box.com/renewal-events": "0"}});
    assert_eq!(apply(&ns, &pki("fine", &fine, &spec)), "");

    let mut policy = json!({"apiVersion": "box.com/v1", "kind": "PkiPolicy", "metadata": {"name": ns.name},
        "spec": {"serviceNames": ["app1"], "namespaces": {"names": [ns.name]}}});
    policy["metadata"]["annotations"] = json!({"box.com/keep-secret": "true"});
    let said = apply(&ns, &policy);
    ns.withdraw();
    assert!(
        said.contains(
            "Warning: metadata.annotations: \"box.com/keep-secret\" has no effect on a PkiPolicy"
        ),
        "{said}"
    );
}

#[test]
fn a_secret_is_kept_with_each_spelling_of_true_and_only_with_these() {
    let ns = SHARED.namespace("spellings");
    for (name, value, is_kept) in [
        ("upper", "True", true),
        ("digit", "1", true),
        ("other", "yes", false),
        ("no", "F", false),
    ] {
        let metadata = json!({"annotations": {"box.com/keep-secret": value}});
        apply(&ns, &pki(name, &metadata, &json!({"serviceName": "app1"})));
        ns.wait_until_ready(name);
        let secret = ns.get("secret", name).unwrap();
        let owners = &secret["metadata"]["ownerReferences"];
        assert_eq!(owners.is_null(), is_kept, "{value} {owners}");
    }
    wait_for_description(&ns, "pki", "other", "has no effect with the value \"yes\"");
}

#[test]
fn pods_workloads_secrets_and_namespaces_are_told_by_an_event() {
    let ns = SHARED.namespace("misled");
    let restart = json!({"box.com/restart-on-renewal": "true"});
    let workload = |kind: &str, name: &str, own: Value, of_pods: Value| {
        let labels = json!({"app": name});
        let pod = json!({"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "c"}]});
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "annotations": own},
            "spec": {"replicas": 2, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels, "annotations": of_pods}, "spec": pod}}})
    };
    apply(&ns, &workload("Deployment", "template", json!({}), restart));
    let unreadable = json!({"box.com/restart-on-renewal": "yes"});
    apply(
        &ns,
        &workload("Deployment", "unreadable", unreadable, json!({})),
    );
    let mistyped = json!({"box.com/restart-on-renewl": "true"});
    let mut stateful = workload("StatefulSet", "mistyped", mistyped, json!({}));
    stateful["spec"]["serviceName"] = json!("mistyped");
    apply(&ns, &stateful);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "offered", "annotations": {"box.com/adopt": "App 1"}}});
    apply(&ns, &secret);
    ns.label("box.com/trust-bundle", Some("yes"));
    ns.annotate("namespace", &ns.name, "box.com/trust-bundel", "true");

    // Each of both replicas.
    let pods = eventually("there are two pods", || {
        Some(ns.list("pods", "app=template")).filter(|pods| pods.len() == 2)
    });
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let part = "has no effect on a Pod: write it as annotation of a Deployment, a StatefulSet or a DaemonSet, not of its pod template";
        wait_for_description(&ns, "pod", name, part);
    }
    wait_for_description(
        &ns,
        "deployment",
        "unreadable",
        "has no effect with the value \"yes\"",
    );
    wait_for_description(
        &ns,
        "statefulset",
        "mistyped",
        "did you mean \"box.com/restart-on-renewal\"?",
    );
    wait_for_event(
        &ns.name,
        "\"box.com/adopt\" has no effect with the value \"App 1\"",
    );
    wait_for_event(
        &ns.name,
        "\"box.com/trust-bundle\" has no effect with the value \"yes\"",
    );
    wait_for_event(
        &ns.name,
        "\"box.com/trust-bundel\" is unknown and has no effect; did you mean \"box.com/trust-bundle\"?",
    );

    // Each object got one Event.
    let events = ns.events("Deployment", "unreadable");
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["action"], "Read");
}

#[test]
fn a_mistyped_annotation_of_the_secret_of_the_ca_gets_an_event() {
    let annotate = |value: Option<&str>| {
        let (api, key) = (&SHARED.api, "box.com/rotate-nwo");
        // An operator that has just become ready may not have made it yet.
        eventually("the Secret is annotated", || {
            api.annotate("secret", RELEASE, "pki-operator-ca", key, value)
                .ok()
        });
    };
    annotate(Some("force"));
    wait_for_event(
        RELEASE,
        "\"box.com/rotate-nwo\" is unknown and has no effect; did you mean \"box.com/rotate-now\"?",
    );
    annotate(None);
}
