//! What application teams see from the first minute: the seed's two applications, with real pods.

use crate::node::{Node, eventually, node};
use std::time::Instant;

/// What the author of the typo reads, at `kubectl apply` or on the pod.
const SENTENCE: &str =
    "ServiceName: appp1 in pki: app1-pki is not found in allowedNames: [app1 app2]";

#[test]
#[ignore = "needs root and packages: cargo test --test e2e -- --ignored"]
fn from_the_installation_to_the_first_refusal_and_the_first_pod_that_runs() {
    let node = node();
    node.uninstall();
    let begin = Instant::now();
    node.install(&[]);
    let installed = begin.elapsed();
    // After `helm --wait` the first try is refused, and needs no second one.
    let refusal = apply(&node, "app1-typo").unwrap_err().to_string();
    assert!(refusal.contains(SENTENCE), "{refusal}");
    let refused = begin.elapsed();
    apply(&node, "app2").unwrap();
    wait_until_running(&node, "app2");
    println!(
        "helm install --wait: {:.1} s; first refusal after {:.1} s; first pod Running after {:.1} s",
        installed.as_secs_f32(),
        refused.as_secs_f32(),
        begin.elapsed().as_secs_f32()
    );

    let tested = node.helm_test();
    println!("helm test: {}", tested.unwrap());
    let webhooks = "validatingwebhookconfigurations";
    node.kubectl(&["delete", webhooks, "pki-operator"]).unwrap();
    node.helm_test().unwrap_err();
    // Of a test that fails, the pod is kept.
    let logs = ["logs", "pki-operator-test", "--namespace=pki-operator"];
    let said = node.kubectl(&logs).unwrap();
    assert!(
        said.contains("the API server does not ask the operator"),
        "{said}"
    );
}

#[test]
#[ignore = "needs root and packages: cargo test --test e2e -- --ignored"]
fn the_pod_of_a_typo_waits_with_an_event_and_runs_when_the_typo_is_corrected() {
    let node = node();
    node.install(&[]);
    node.kubectl(&["delete", "namespace", "app1", "--ignore-not-found"])
        .unwrap();
    // Stored while nobody was there to refuse it.
    node.kubectl(&["delete", "validatingwebhookconfiguration", "pki-operator"])
        .unwrap();
    eventually("nobody refuses the typo", || apply(&node, "app1-typo").ok());
    node.install(&[]);

    let events = eventually("the pod says why it waits", || {
        let describe = [
            "describe",
            "pod",
            "--namespace=app1",
            "--selector=app=app1",
            "--show-events",
        ];
        let described = node.kubectl(&describe).unwrap();
        let events = described.split_once("\nEvents:")?.1.to_owned();
        let is_told = events.contains(SENTENCE) && events.contains("FailedMount");
        is_told.then_some(events)
    });
    println!("kubectl describe pod, before it is corrected:{events}");
    let line = events.lines().find(|line| line.contains(SENTENCE)).unwrap();
    assert!(
        line.contains("Warning") && line.contains("PkiServiceNameError"),
        "{line}"
    );
    assert!(
        events.contains(r#"secret "app1-pki" not found"#),
        "{events}"
    );
    let pods = node.kubectl(&["get", "pods", "--namespace=app1"]).unwrap();
    assert!(pods.contains("ContainerCreating"), "{pods}");

    apply(&node, "app1").unwrap();
    wait_until_running(&node, "app1");
}

/// Applies a manifest of `tests/manifests`.
pub(crate) fn apply(node: &Node, name: &str) -> anyhow::Result<String> {
    let file = pki_cluster::workspace_dir().join(format!("tests/manifests/{name}.yaml"));
    node.kubectl(&["apply", "--filename", file.to_str().unwrap()])
}

/// Waits until the pod of this application runs.
pub(crate) fn wait_until_running(node: &Node, app: &str) {
    let (namespace, selector) = (
        format!("--namespace={app}"),
        format!("--selector=app={app}"),
    );
    eventually(&format!("the pod of {app} runs"), || {
        let pods = node.get(&["pods", &namespace, &selector]);
        let pods = pods["items"].as_array().unwrap();
        pods.iter()
            .any(|pod| pod["status"]["phase"] == "Running")
            .then_some(())
    });
}
