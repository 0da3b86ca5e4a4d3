//! Fixtures of the pages for platform teams.

use super::walk::Walk;
use pki_cluster::workspace_dir;
use std::fs;

/// A Pki and a Deployment of a team that a policy of its own permits.
const TEAM_A: &str = "kubectl create namespace team-a
    sed 's/namespace: app1/namespace: team-a/' tests/manifests/app1.yaml > team-a.yaml
    kubectl apply -f policy-of-team-a.yaml
    kubectl apply -f team-a.yaml
    kubectl wait --for=condition=Ready pki/app1-pki --namespace team-a";
const POLICY_OF_TEAM_A: &str = "apiVersion: box.com/v1
kind: PkiPolicy
metadata:
  name: team-a
spec:
  namespaces: {names: [team-a]}
  serviceNames: [app3]
";
/// A CA in `NAME.crt` and `NAME.key`.
const MAKE_CA: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
    -subj /CN=NAME -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout NAME.key -out NAME.crt";

fn team_a(walk: &Walk<'_>) {
    walk.write("policy-of-team-a.yaml", POLICY_OF_TEAM_A);
    walk.given(TEAM_A);
}

pub(crate) fn policies(walk: &mut Walk<'_>) {
    walk.save("teams.yaml");
    walk.save_app1("app1.yaml");
    walk.write(
        "manifests/web.yaml",
        "apiVersion: box.com/v1\nkind: Pki\nmetadata: {name: web, namespace: team-a}\nspec: {serviceName: web}\n",
    );
    let guide = "src/guide/kubectl-pki.md";
    walk.save_from(guide, "expect: admitted", "policies/tests.yaml");
    // The last of its cases is there to fail.
    walk.given(
        "cp teams.yaml policies/
        sed -i '/nor before they are live/,$ d' policies/tests.yaml
        kubectl apply -f app1.yaml
        kubectl wait --for=condition=Ready pki/app1-pki --namespace app1",
    );
    walk.until("Find out why a team was refused");
    // The record on the page is of a refusal by the policy that is left.
    walk.given(
        "kubectl create namespace team-a
        kubectl delete pkipolicy teams
        sleep 2
        sed 's/namespace: app1/namespace: team-a/' tests/manifests/app1-typo.yaml > typo.yaml
        ! kubectl apply -f typo.yaml > refusal.txt",
    );
}

pub(crate) fn by_example(walk: &mut Walk<'_>) {
    walk.save("policy.yaml");
}

pub(crate) fn policy_rules(walk: &mut Walk<'_>) {
    walk.save("short.yaml");
}

pub(crate) fn operations(walk: &mut Walk<'_>) {
    walk.save("config.yaml");
    // With this file alone, what is wrong is the cluster that is missing.
    walk.given(
        "! KUBECONFIG=missing pki-operator run --config config.yaml > error.txt
        ! grep drain error.txt",
    );
}

pub(crate) fn monitoring(walk: &mut Walk<'_>) {
    for (plural, kind) in [
        ("prometheusrules", "PrometheusRule"),
        ("servicemonitors", "ServiceMonitor"),
    ] {
        let definition = format!(
            "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {plural}.monitoring.coreos.com}}
spec:
  group: monitoring.coreos.com
  names: {{kind: {kind}, plural: {plural}}}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
"
        );
        walk.write(&format!("crds/{plural}.yaml"), &definition);
    }
    walk.given("kubectl apply -f crds/; kubectl wait --for=condition=Established -f crds/");
}

pub(crate) fn network(walk: &mut Walk<'_>) {
    walk.until("Replace that client CA");
    walk.given("cat clients-ca.crt clients-ca.crt > both-cas.crt");
    walk.rest();
    walk.wait_for_replicas();
    // The API server of this node has no certificate for the webhook, so nobody could install.
    walk.given("kubectl delete validatingwebhookconfiguration pki-operator");
}

pub(crate) fn stolen(walk: &mut Walk<'_>) {
    team_a(walk);
    walk.until("The key of one Pki");
    // A Pki is renewed on request once in five minutes.
    walk.given(
        "kubectl delete pki app1-pki --namespace team-a
        kubectl apply -f team-a.yaml
        kubectl wait --for=condition=Ready pki/app1-pki --namespace team-a",
    );
    walk.rest();
    walk.wait_for_replicas();
}

pub(crate) fn ca(walk: &mut Walk<'_>) {
    walk.next();
    walk.given(&MAKE_CA.replace("NAME", "other"));
    walk.given(
        "kubectl create secret tls other --namespace pki-operator --cert=other.crt --key=other.key \
            --dry-run=client --output=json | jq .data > data.json
        kubectl get secret pki-operator-ca --namespace pki-operator --output=json |
            jq --slurpfile data data.json '.data = $data[0]' | kubectl replace -f -",
    );
    let alarm = "kubectl get events --namespace pki-operator | grep -o 'accept-ca=[0-9a-f:]*'";
    walk.wait_until(alarm);
    let found = walk.ask(alarm);
    let fingerprint = found.lines().last().unwrap().replace("accept-ca=", "");
    walk.placeholders.push(("FINGERPRINT", fingerprint));
    walk.section("Where the CA is kept");
    walk.wait_until(
        "kubectl get configmap pki-operator-ca --namespace pki-operator --output=jsonpath='{.data.ca\\.crt}' |
            openssl x509 -noout -subject | grep other",
    );
    for section in [
        "Rotate the CA",
        "When a rotation is blocked",
        "The webhook's CA",
        "The webhook's path",
    ] {
        walk.section(section);
    }

    walk.world.empty();
    for name in ["ca", "next"] {
        walk.given(&MAKE_CA.replace("NAME", name));
    }
    walk.given("cp ca.crt ca-chain.crt; cp ca.crt root.crt; cp next.crt next-chain.crt");
    walk.section("Bring your own CA");
    walk.given(
        "kubectl apply -f tests/manifests/app1.yaml
        kubectl wait --for=condition=Ready pki/app1-pki --namespace app1
        kubectl get secret app1-pki --namespace app1 --output=jsonpath='{.data.ca\\.crt}' | base64 -d |
            openssl x509 -noout -subject | grep 'CN *= *ca'",
    );
    walk.section("Rotate your own CA");
    walk.wait_until(
        "kubectl get secret app1-pki --namespace app1 --output=jsonpath='{.data.ca\\.crt}' | base64 -d |
            grep -c BEGIN | grep 2",
    );
}

pub(crate) fn backup(walk: &mut Walk<'_>) {
    team_a(walk);
    walk.next();
    let serial =
        "kubectl get pki app1-pki --namespace team-a --output=jsonpath='{.status.serialNumber}'";
    let issued = walk.ask(serial);

    walk.world.empty();
    walk.given("kubectl create namespace pki-operator; kubectl create namespace team-a");
    walk.next();
    walk.world.install();
    walk.until("Replace a Pki and keep its certificate");
    let restored = "kubectl wait --for=condition=Ready pki/app1-pki --namespace team-a";
    walk.given(restored);
    assert_eq!(walk.ask(serial), issued);
    walk.next();
    walk.given(restored);
    assert_eq!(walk.ask(serial), issued);

    walk.until("The CA alone is lost");
    walk.given("kubectl delete secret pki-operator-ca --namespace pki-operator");
}

pub(crate) fn chart(walk: &mut Walk<'_>) {
    // The page is for people who have the chart alone.
    walk.folder = workspace_dir().join("charts/pki-operator");
    assert!(fs::exists(walk.folder.join("Chart.yaml")).unwrap());
}

pub(crate) fn install(walk: &mut Walk<'_>) {
    walk.until("Serve some namespaces");
    walk.given("kubectl create namespace team-a; kubectl create namespace team-b");
    walk.until("Remove it and keep the certificates");
    walk.wait_for_replicas();
    walk.until("Remove everything");
    walk.world.install();
    walk.given(
        "kubectl label namespace team-a box.com/trust-bundle=true
        kubectl apply -f tests/manifests/app1.yaml
        kubectl wait --for=condition=Ready pki/app1-pki --namespace app1",
    );
    walk.wait_until("kubectl get configmap pki-trust-bundle --namespace team-a");
    walk.wait_until("kubectl get clustertrustbundles pki-trust-bundle");
}
