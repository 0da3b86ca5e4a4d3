//! The story itself: what is typed, and what has to be seen.

use anyhow::ensure;
use pki_cluster::install::Install;

use crate::shell::Shell;

/// Message for the author of the typo, at `kubectl apply` and on the pod.
const SENTENCE: &str =
    "ServiceName: appp1 in pki: app1-pki is not found in allowedNames: [app1 app2]";

/// Command of the pod's owner.
const DESCRIBE: &str =
    "kubectl describe pod -n app1 -l app=app1 --show-events | sed -n '/^Events:/,$p'";

/// The platform team installs the chart.
pub(crate) fn install(shell: &Shell, install: &Install<'_>) -> anyhow::Result<()> {
    chapter(
        "The platform team installs the operator, and permits the service names app1 and app2.",
    );
    shell.must(&install.command())?;
    shell.must("kubectl get pkipolicies")?;
    Ok(())
}

/// The application teams use it.
pub(crate) fn tell(shell: &Shell, install: &Install<'_>, has_node: bool) -> anyhow::Result<()> {
    good(shell)?;
    refused(shell)?;
    drifted(shell, install, has_node)?;
    resolved(shell, has_node)?;
    if has_node && serves_pod_certificates(shell)? {
        without_secrets(shell)?;
    }
    Ok(())
}

/// Whether this is Kubernetes 1.37 or newer, so that kubelets ask for certificates.
fn serves_pod_certificates(shell: &Shell) -> anyhow::Result<bool> {
    let kinds = shell.run("kubectl api-resources --api-group=certificates.k8s.io -o name")?;
    Ok(kinds.text.contains("podcertificaterequests"))
}

fn good(shell: &Shell) -> anyhow::Result<()> {
    chapter("Team app2 applies a good Pki, and mounts the Secret of the same name.");
    shell.must("kubectl apply -f tests/manifests/app2.yaml")?;
    shell.must("kubectl wait --for=condition=Ready --timeout=60s -n app2 pki/app2-pki")?;
    shell.must("kubectl get pki -n app2")?;
    let certificate = shell.must(
        "kubectl get secret app2-pki -n app2 -o jsonpath='{.data.tls\\.crt}' | base64 -d | \
         openssl x509 -noout -subject -ext subjectAltName -enddate",
    )?;
    ensure!(
        certificate.contains("DNS:app2.app2.svc"),
        "the certificate should be for app2.app2.svc"
    );
    Ok(())
}

fn refused(shell: &Shell) -> anyhow::Result<()> {
    chapter(
        "Team app1 makes a typo: spec.serviceName is appp1. kubectl apply shows the error at once.",
    );
    let refusal = shell.run("kubectl apply -f tests/manifests/app1-typo.yaml")?;
    ensure!(!refusal.success, "kubectl apply should have failed");
    ensure!(
        refusal.text.contains(SENTENCE),
        "kubectl should have said: {SENTENCE}"
    );

    chapter(
        "The Deployment of the same file is stored, though. Its pod shows the error too, as an Event.",
    );
    let events = shell.until(DESCRIBE, "that the Pki was refused", |text| {
        text.contains("Pki app1-pki was refused at ") && text.contains(SENTENCE)
    })?;
    warning(&events, "Pki app1-pki was refused")?;
    // So that the next chapter has a pod of its own.
    shell.must("kubectl delete deployment app1 -n app1")?;
    let pods = "kubectl get pods -n app1 -o name";
    let gone = shell.wait_for(pods, "no pod", |got| got.success && got.text.is_empty());
    gone.map(drop)
}

/// The line that has these words is a Warning with the reason of the typo.
fn warning(events: &str, words: &str) -> anyhow::Result<()> {
    let line = events.lines().find(|line| line.contains(words));
    let line = line.unwrap_or_default();
    ensure!(
        line.contains("Warning") && line.contains("PkiServiceNameError"),
        "the line should be a Warning: {line}"
    );
    Ok(())
}

fn drifted(shell: &Shell, install: &Install<'_>, has_node: bool) -> anyhow::Result<()> {
    chapter("The same typo while the webhook is down: nothing refuses the Pki, so it is stored.");
    shell.must("kubectl delete validatingwebhookconfiguration pki-operator")?;
    // The API server goes on asking for as long as its cache lags behind.
    let try_out = "kubectl apply --dry-run=server -f tests/manifests/app1-typo.yaml";
    shell.wait_for(try_out, "that nobody refuses the Pki", |tried| {
        tried.success
    })?;
    shell.must("kubectl apply -f tests/manifests/app1-typo.yaml")?;
    shell.must(&format!("{} | head -n 3", install.command()))?;

    chapter("The pod waits for its Secret. Its owner runs kubectl describe pod.");
    if has_node {
        shell.until(
            "kubectl get pods -n app1",
            "a pod in ContainerCreating",
            |text| text.contains("ContainerCreating"),
        )?;
    }
    let waiting =
        |text: &str| text.contains(SENTENCE) && (!has_node || text.contains("FailedMount"));
    let events = shell.until(DESCRIBE, "the reason", waiting)?;
    let own = events.lines().filter(|line| line.contains("pki-operator"));
    ensure!(own.count() == 1, "the operator should have said one thing");
    warning(&events, SENTENCE)?;
    shell.must("kubectl get pki -n app1 -o wide")?;
    Ok(())
}

fn resolved(shell: &Shell, has_node: bool) -> anyhow::Result<()> {
    chapter("The owner corrects the name, and the pod gets its Secret.");
    shell.must("kubectl apply -f tests/manifests/app1.yaml")?;
    shell.must("kubectl wait --for=condition=Ready --timeout=60s -n app1 pki/app1-pki")?;
    shell.must("kubectl get secret app1-pki -n app1")?;
    if has_node {
        shell.must("kubectl wait --for=condition=Ready --timeout=180s -n app1 pod -l app=app1")?;
        shell.must("kubectl get pods -n app1")?;
    }
    let events =
        "kubectl get events -n app1 --field-selector involvedObject.kind=Pod,reason=PkiReady";
    shell.until(events, "that it is resolved", |text| {
        text.contains("Normal")
    })?;
    Ok(())
}

fn without_secrets(shell: &Shell) -> anyhow::Result<()> {
    chapter(
        "Team app3 wants no Secret: its pod asks for a certificate by itself. Its Pki has a typo too, and is refused.",
    );
    let refusal = shell.run("kubectl apply -f tests/manifests/app3-typo.yaml")?;
    ensure!(
        !refusal.success && refusal.text.contains("ServiceName: appp2 in pki: app3-pki"),
        "kubectl apply should have failed with the name that is not found"
    );
    let describe =
        "kubectl describe pod -n app3 -l app=app3 --show-events | sed -n '/^Events:/,$p'";
    shell.until(describe, "that the Pki was refused", |text| {
        text.contains("Pki app3-pki was refused at ")
            && text.contains("ServiceName: appp2 in pki: app3-pki")
    })?;

    chapter(
        "Corrected, the pod gets its certificate. There is no Secret, so the key is on the node alone.",
    );
    shell.must("kubectl apply -f tests/manifests/app3.yaml")?;
    shell.must("kubectl wait --for=condition=Ready --timeout=180s -n app3 pod -l app=app3")?;
    shell.must("kubectl get pki,podcertificaterequests -n app3")?;
    shell.must("kubectl get clustertrustbundle box.com:pki:ca -o jsonpath='{.spec.trustBundle}' > target/app3-ca.crt")?;
    let verified = shell.must(
        "kubectl get podcertificaterequests -n app3 -o jsonpath='{.items[0].status.certificateChain}' | \
         openssl verify -x509_strict -verify_hostname app2.app3.svc -CAfile target/app3-ca.crt",
    )?;
    ensure!(
        verified.contains(": OK"),
        "openssl should verify the certificate"
    );
    let secrets = shell.must("kubectl get secrets -n app3")?;
    ensure!(
        secrets.contains("No resources found"),
        "there should be no Secret in namespace app3"
    );
    Ok(())
}

fn chapter(text: &str) {
    println!("\n\n=== {text}");
}
