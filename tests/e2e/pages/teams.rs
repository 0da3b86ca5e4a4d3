//! Fixtures of the pages for application teams.

use super::walk::Walk;

/// The Pki and the Deployment that most pages talk about, with a certificate.
const APP1: &str = "kubectl apply -f tests/manifests/app1.yaml
    kubectl wait --for=condition=Ready pki/app1-pki --namespace app1";

/// The policy behind the values that the page explains.
const TEAMS: &str = "apiVersion: box.com/v1
kind: PkiPolicy
metadata:
  name: teams
spec:
  serviceNames: [app1, db]
  usages: [server auth]
  privateKeys: [{algorithm: ECDSA}, {algorithm: RSA, minSize: 3072}]
  defaults: {duration: 720h}
";

pub(crate) fn readme(walk: &mut Walk<'_>) {
    // The page begins with a picture, and says further down how to install.
    walk.section("Install it");
}

pub(crate) fn application_teams(walk: &mut Walk<'_>) {
    walk.save("app1.yaml");
    walk.write("teams.yaml", TEAMS);
    walk.given("kubectl create namespace team-a");
    walk.until("Values that the policy decides");

    walk.world.change();
    // The certificate of the new key is issued under the new policy.
    walk.given(
        r#"kubectl apply -f teams.yaml
        kubectl delete pkipolicy pki-operator-allowed-names
        sleep 3
        kubectl patch pki app1-pki --namespace app1 --type=merge --patch '{"spec": {"privateKey": {"algorithm": "RSA"}}}'"#,
    );
    walk.until("Change the Secret's name");

    // Restarted in the meantime, it would have a third pod.
    walk.given(
        "kubectl annotate deployment app1 --namespace app1 box.com/restart-on-renewal-
        kubectl scale deployment app1 --namespace app1 --replicas=2
        kubectl rollout status deployment/app1 --namespace app1",
    );
    walk.wait_until(
        r#"kubectl patch pki app1-pki --namespace app1 --type=merge --patch '{"spec": {"secretName": "other"}}' \
            --dry-run=server |& grep ': 2 pods use'"#,
    );
    walk.until("Delete a Pki");

    walk.given(
        r#"kubectl patch deployment app1 --namespace app1 --patch \
            '{"spec": {"template": {"spec": {"volumes": [{"name": "pki", "secret": {"secretName": "app1-tls"}}]}}}}'
        kubectl rollout status deployment/app1 --namespace app1"#,
    );
    walk.wait_until(
        "kubectl delete pki app1-pki --namespace app1 --dry-run=server |& grep ': 2 pods use Secret app1-tls'",
    );
}

pub(crate) fn pod_certificates(walk: &mut Walk<'_>) {
    walk.save("app1.yaml");
}

pub(crate) fn errors(walk: &mut Walk<'_>) {
    walk.given(APP1);
    walk.until("A foreign Secret");

    let (delete, foreign) = (
        "kubectl delete pki app1-pki --namespace app1
        kubectl wait --for=delete secret/app1-pki --namespace app1",
        "kubectl apply -f tests/manifests/app1.yaml
        kubectl wait pki/app1-pki --namespace app1 \
            --for=jsonpath='{.status.conditions[0].reason}'=PkiSecretForeign",
    );
    let ready = "kubectl wait --for=condition=Ready pki/app1-pki --namespace app1";
    walk.given(&format!(
        "{delete}
        kubectl create secret generic app1-pki --namespace app1
        {foreign}"
    ));
    walk.next();
    walk.given(ready);
    walk.given(&format!(
        "{delete}
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=other \
            -keyout other.key -out other.crt
        kubectl create secret tls app1-pki --namespace app1 --cert=other.crt --key=other.key
        {foreign}"
    ));
    walk.next();
    walk.given(ready);
}

pub(crate) fn common_refusals(walk: &mut Walk<'_>) {
    walk.save_app1("app1.yaml");
}

pub(crate) fn index(walk: &mut Walk<'_>) {
    walk.given(APP1);
}

pub(crate) fn gitops(walk: &mut Walk<'_>) {
    walk.save_app1("app1.yaml");
}

pub(crate) fn kubectl_pki(walk: &mut Walk<'_>) {
    walk.save("app1.yaml");
    walk.until("Check in CI");

    walk.save_app1("deploy/app1.yaml");
    walk.save_app1("templates/app1.yaml");
    walk.write(
        "Chart.yaml",
        "apiVersion: v2\nname: applications\nversion: 0.1.0\n",
    );
    walk.write(".helmignore", "charts\ntests\n");
    walk.save_from(
        "src/guide/policies-by-example.md",
        "serviceNames: [app1, app2]",
        "policies/all.yaml",
    );
    walk.until("Explain a Pki");

    walk.save("app2-pki.yaml");
    walk.given(APP1);
    walk.given(
        "kubectl create secret generic taken --namespace app1
        kubectl apply -f app2-pki.yaml",
    );
    walk.until("Test policies");

    walk.save("policies/teams.yaml");
    walk.save("policies/tests.yaml");
}

pub(crate) fn trust(walk: &mut Walk<'_>) {
    walk.given("kubectl get namespace app1 || kubectl create namespace app1");
}
