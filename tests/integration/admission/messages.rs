//! Messages to the author of a Pki at `kubectl apply`, and the stored object.

use crate::harness::{Namespace, SHARED, eventually};
use pki_cluster::install::RELEASE;
use serde_json::{Value, json};
use std::process::Output;

const NOT_FOUND: &str = "ServiceName: appp1 in pki: app1-pki is not found in allowedNames: [app1 app2]; did you mean \"app1\"?";

fn refusal(ns: &Namespace<'_>, spec: &Value) -> String {
    match ns.kubectl_apply_pki("app1-pki", &spec.to_string()) {
        Ok(printed) => panic!("{spec} is stored: {printed}"),
        Err(refusal) => refusal.to_string(),
    }
}

fn manifest(metadata: &Value, spec: &Value) -> String {
    json!({ "apiVersion": "box.com/v1", "kind": "Pki", "metadata": metadata, "spec": spec })
        .to_string()
}

/// Runs kubectl in the namespace with all that it prints.
fn kubectl(ns: &Namespace<'_>, arguments: &[&str]) -> Output {
    let mut kubectl = ns.installed.cluster.kubectl();
    kubectl.args(arguments).args(["--namespace", &ns.name]);
    kubectl.output().expect("kubectl runs")
}

#[test]
fn one_fault_is_one_line_with_its_field_and_what_to_write_instead() {
    let ns = SHARED.namespace("fault");
    let name = &ns.name;
    for (spec, said) in [
        (json!({ "serviceName": "appp1" }), format!("spec.serviceName: {NOT_FOUND}")),
        (
            json!({ "serviceName": "billing" }),
            "spec.serviceName: ServiceName: billing in pki: app1-pki is not found in allowedNames: [app1 app2]; use one \
             of these names, or ask the platform team to allow yours in PkiPolicy pki-operator-allowed-names"
                .into(),
        ),
        (
            json!({ "serviceName": "app1", "commonName": "app2" }),
            "spec.commonName: \"app2\" cannot be the common name: write app1 or one of the certificate's DNS names, with \
             at most 64 characters, or leave commonName out"
                .into(),
        ),
        (
            json!({ "serviceName": "app1", "dnsNames": ["www.example.com"] }),
            "spec.dnsNames[0]: \"www.example.com\" is not permitted: PkiPolicy pki-operator-allowed-names permits none; \
             remove it, or ask the platform team to permit it"
                .into(),
        ),
        (
            json!({ "serviceName": "app1", "dnsNames": ["app1", "db.victim.svc"] }),
            format!(
                "\n* spec.dnsNames[0]: \"app1\" is a name inside the cluster, which belongs to the service it points to: \
                 remove it; the certificate always includes app1.{name}.svc\n* spec.dnsNames[1]: \"db.victim.svc\" is a \
                 name inside the cluster, which belongs to Service db of namespace victim: remove it; the certificate always includes \
                 app1.{name}.svc"
            ),
        ),
        (
            json!({ "serviceName": "app1", "dnsNames": ["a_b"] }),
            "spec.dnsNames[0]: \"a_b\" is not a DNS name: write labels of letters, digits and '-' separated by dots, for \
             example api.example.com"
                .into(),
        ),
        (
            json!({ "serviceName": "app1", "duration": "999999h" }),
            "spec.duration: \"999999h\" is not a lifetime: write at least 1h and at most 876000h in hours, minutes and \
             seconds, for example 2160h"
                .into(),
        ),
        (
            json!({ "serviceName": "app1", "renewBefore": "2160h" }),
            "spec.renewBefore: \"2160h\" is not a time before expiry: write more than 0s and at most 1944h, nine tenths \
             of the duration, for example 720h, or leave renewBefore out"
                .into(),
        ),
    ] {
        let expected = format!("The Pki \"app1-pki\" is invalid: {said}");
        assert_eq!(refusal(&ns, &spec), expected);
    }
    assert!(ns.get("pki", "app1-pki").is_none());
}

#[test]
fn all_faults_are_listed_at_once() {
    let ns = SHARED.namespace("faults");
    let spec = json!({ "serviceName": "appp1", "commonName": "x", "dnsNames": ["localhost"], "duration": "48h", "renewBefore": "9999h" });
    let refusal = refusal(&ns, &spec);
    let lines: Vec<_> = refusal.lines().collect();
    assert_eq!(lines.len(), 5, "{refusal}");
    assert_eq!(lines[0], "The Pki \"app1-pki\" is invalid: ");
    for (line, field) in
        lines[1..]
            .iter()
            .zip(["dnsNames[0]", "commonName", "renewBefore", "serviceName"])
    {
        assert!(line.starts_with(&format!("* spec.{field}: ")), "{refusal}");
    }
    assert!(lines[4].ends_with(NOT_FOUND), "{refusal}");
}

#[test]
fn a_policy_of_the_namespace_is_quoted_with_its_limits() {
    let ns = SHARED.namespace("limits");
    ns.permit(
        &["{namespace}-web", "app3"],
        r#", "dnsNames": ["*.{namespace}.example.com"], "maxDuration": "3000h""#,
    );
    let name = &ns.name;
    assert_eq!(
        refusal(
            &ns,
            &json!({ "serviceName": "app3", "duration": "3001h", "dnsNames": ["www.example.com"] })
        ),
        format!(
            "The Pki \"app1-pki\" is invalid: \n* spec.dnsNames[0]: \"www.example.com\" is not permitted: PkiPolicy {name} \
             permits [*.{name}.example.com]; remove it, or ask the platform team to permit it\n* spec.duration: 3001h is \
             too long: PkiPolicy {name} permits at most 3000h; write duration: 3000h"
        )
    );
    let good = json!({
        "serviceName": format!("{name}-web"), "duration": "3000h", "commonName": format!("a.{name}.example.com"),
        "dnsNames": [format!("a.{name}.example.com")]
    });
    ns.apply_pki("app1-pki", &good.to_string());
    ns.wait_until_ready("app1-pki");
}

#[test]
fn a_dry_run_is_judged_alike_and_stores_nothing() {
    let ns = SHARED.namespace("dry-run");
    let run = |service: &str| {
        let pki = manifest(
            &json!({ "name": "app1-pki" }),
            &json!({ "serviceName": service }),
        );
        let arguments = [
            "apply",
            "--dry-run=server",
            "--filename",
            "-",
            "--namespace",
            &ns.name,
        ];
        SHARED.kubectl_with(&pki, &arguments)
    };
    assert_eq!(
        run("app1").unwrap(),
        "pki.box.com/app1-pki created (server dry run)\n"
    );
    let refusal = run("appp1").unwrap_err().to_string();
    assert_eq!(
        refusal,
        format!("The Pki \"app1-pki\" is invalid: spec.serviceName: {NOT_FOUND}")
    );
    assert!(ns.get("pki", "app1-pki").is_none());
}

#[test]
fn nothing_is_filled_in_and_the_second_apply_changes_nothing() {
    let ns = SHARED.namespace("defaults");
    let apply = || {
        let applied = ns.kubectl_apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
        applied.unwrap()
    };
    assert_eq!(apply(), "pki.box.com/app1-pki created\n");
    let pki = ns.wait_until_ready("app1-pki");
    assert_eq!(pki["spec"], json!({ "serviceName": "app1" }));
    let status = &pki["status"];
    assert_eq!(status["policy"], "pki-operator-allowed-names");
    assert_eq!(
        status["defaults"],
        json!({
            "duration": "2160h", "renewBefore": "720h", "usages": ["server auth", "client auth"],
            "privateKey": { "algorithm": "ECDSA", "size": 256, "encoding": "PKCS8" }
        })
    );
    assert_eq!(apply(), "pki.box.com/app1-pki unchanged\n");
    assert_eq!(
        ns.get("pki", "app1-pki").unwrap()["metadata"]["resourceVersion"],
        pki["metadata"]["resourceVersion"]
    );
}

#[test]
fn server_side_apply_is_judged_and_stable() {
    let ns = SHARED.namespace("server-side");
    let apply = |service: &str| {
        let pki = manifest(
            &json!({ "name": "app1-pki" }),
            &json!({ "serviceName": service }),
        );
        let arguments = [
            "apply",
            "--server-side",
            "--filename",
            "-",
            "--namespace",
            &ns.name,
        ];
        SHARED.kubectl_with(&pki, &arguments)
    };
    let refusal = apply("appp1").unwrap_err().to_string();
    assert_eq!(
        refusal,
        format!("The Pki \"app1-pki\" is invalid: spec.serviceName: {NOT_FOUND}")
    );
    apply("app1").unwrap();
    let first = ns.wait_until_ready("app1-pki");
    apply("app1").unwrap();
    let second = ns.get("pki", "app1-pki").unwrap();
    assert_eq!(
        first["metadata"]["resourceVersion"],
        second["metadata"]["resourceVersion"]
    );
    let refusal = apply("appp1").unwrap_err().to_string();
    assert!(refusal.ends_with(NOT_FOUND), "{refusal}");
    apply("app2").unwrap();
    assert_eq!(
        ns.get("pki", "app1-pki").unwrap()["spec"]["serviceName"],
        "app2"
    );
}

#[test]
fn an_edit_that_breaks_the_rules_is_refused_and_changes_nothing() {
    let ns = SHARED.namespace("edit");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    let edit =
        |kind: &str, patch: &str| ns.kubectl(&["patch", "pki", "app1-pki", kind, "--patch", patch]);
    let refusal = edit("--type=merge", r#"{"spec": {"serviceName": "appp1"}}"#)
        .unwrap_err()
        .to_string();
    assert_eq!(
        refusal,
        format!("The Pki \"app1-pki\" is invalid: spec.serviceName: {NOT_FOUND}")
    );
    let remove = r#"[{"op": "remove", "path": "/spec/serviceName"}]"#;
    let refusal = edit("--type=json", remove).unwrap_err().to_string();
    assert!(
        refusal.contains(
            "* spec.serviceName: Required value
"
        ),
        "{refusal}"
    );
    assert_eq!(
        ns.get("pki", "app1-pki").unwrap()["spec"]["serviceName"],
        "app1"
    );
    edit("--type=merge", r#"{"spec": {"serviceName": "app2"}}"#).unwrap();
}

#[test]
fn what_has_become_invalid_can_be_labelled_and_deleted_but_not_changed_for_the_worse() {
    let ns = SHARED.namespace("drift");
    ns.permit(&["app3"], "");
    let metadata = json!({ "name": "app1-pki", "finalizers": ["example.com/hold"] });
    ns.apply(&manifest(&metadata, &json!({ "serviceName": "app3" })));
    ns.withdraw();
    let message = ns.wait_until_refused("app1-pki", "PkiServiceNameError");

    let labelled = kubectl(&ns, &["label", "pki", "app1-pki", "a=b"]);
    assert!(labelled.status.success(), "{labelled:?}");
    let warning = String::from_utf8_lossy(&labelled.stderr).into_owned();
    assert_eq!(
        warning,
        format!("Warning: still invalid: spec.serviceName: {message}\n")
    );
    let worse = r#"--patch={"spec": {"secretName": "other"}}"#;
    let refusal = ns
        .kubectl(&["patch", "pki", "app1-pki", "--type=merge", worse])
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains("ServiceName: app3 in pki: app1-pki is not found"),
        "{refusal}"
    );

    ns.kubectl(&["delete", "pki", "app1-pki", "--wait=false"])
        .unwrap();
    assert!(
        ns.get("pki", "app1-pki").is_some(),
        "the finalizer holds it"
    );
    let release = r#"--patch={"metadata": {"finalizers": null}}"#;
    ns.kubectl(&["patch", "pki", "app1-pki", "--type=merge", release])
        .unwrap();
    eventually("it is gone", || {
        ns.get("pki", "app1-pki").is_none().then_some(())
    });
}

#[test]
fn a_pki_with_a_generated_name_has_a_secret_of_that_name() {
    let ns = SHARED.namespace("generated");
    let create = |service: &str| {
        let pki = manifest(
            &json!({ "generateName": "app1-" }),
            &json!({ "serviceName": service }),
        );
        SHARED.kubectl_with(
            &pki,
            &[
                "create",
                "--filename",
                "-",
                "--namespace",
                &ns.name,
                "--output",
                "name",
            ],
        )
    };
    let refusal = create("appp1").unwrap_err().to_string();
    assert!(refusal.starts_with("The Pki \"app1-"), "{refusal}");
    assert!(
        refusal.contains("ServiceName: appp1 in pki: app1-"),
        "{refusal}"
    );
    let created = create("app1").unwrap();
    let name = created
        .trim()
        .strip_prefix("pki.box.com/")
        .expect("a name")
        .to_owned();
    let pki = ns.wait_until_ready(&name);
    assert_eq!(pki["status"]["secretName"], name);
    assert!(ns.get("secret", &name).is_some());
}

#[test]
fn the_operators_own_secrets_are_refused_by_name() {
    let pki = |name: &str, secret: &str| {
        let spec = json!({ "serviceName": "app1", "secretName": secret });
        let pki = manifest(&json!({ "name": name }), &spec);
        SHARED.kubectl_with(
            &pki,
            &[
                "apply",
                "--dry-run=server",
                "--filename",
                "-",
                "--namespace",
                RELEASE,
            ],
        )
    };
    for secret in ["pki-operator-ca", "pki-operator-webhook-ca"] {
        assert_eq!(
            pki("a", secret).unwrap_err().to_string(),
            format!(
                "The Pki \"a\" is invalid: spec.secretName: Secret {secret} belongs to the operator: choose another name"
            )
        );
    }
    pki("a", "a").unwrap();
}

#[test]
fn the_sample_manifests_apply_as_they_are_and_the_typo_alone_is_refused() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/manifests");
    let apply = |file: &str| {
        let path = format!("{dir}/{file}");
        let mut kubectl = SHARED.cluster.kubectl();
        kubectl
            .args(["apply", "--filename", &path])
            .output()
            .expect("kubectl runs")
    };
    let printed = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();

    let app2 = apply("app2.yaml");
    assert!(app2.status.success(), "{app2:?}");

    let typo = apply("app1-typo.yaml");
    assert_eq!(typo.status.code(), Some(1));
    assert_eq!(
        printed(&typo.stdout),
        "namespace/app1 created\ndeployment.apps/app1 created\n"
    );
    assert_eq!(
        printed(&typo.stderr),
        format!("The Pki \"app1-pki\" is invalid: spec.serviceName: {NOT_FOUND}\n")
    );

    let resolved = apply("app1.yaml");
    assert!(resolved.status.success(), "{resolved:?}");
    assert!(
        printed(&resolved.stdout).contains("deployment.apps/app1 unchanged\n"),
        "{resolved:?}"
    );
    for app in ["app1", "app2"] {
        let ns = Namespace {
            installed: &SHARED,
            name: app.into(),
        };
        ns.wait_until_ready(&format!("{app}-pki"));
    }
}

#[test]
fn the_audit_log_names_the_policy_or_rule_of_each_decision() {
    let ns = SHARED.namespace("audit");
    ns.apply_pki("good", r#"{"serviceName": "app1"}"#);
    ns.kubectl_apply_pki("bad", r#"{"serviceName": "appp1"}"#)
        .unwrap_err();
    let log = std::fs::read_to_string(SHARED.cluster.audit_log()).unwrap();
    let noted = |name: &str| {
        let entries = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let mut of_pki = entries.filter(|entry: &Value| {
            let object = &entry["objectRef"];
            object["namespace"] == ns.name.as_str()
                && object["resource"] == "pkis"
                && object["name"] == name
        });
        let annotations = of_pki.next().unwrap()["annotations"].clone();
        ["verdict", "policy", "rules"]
            .map(|key| annotations[format!("validate.pkis.box.com/{key}")].clone())
    };
    let policy = json!("pki-operator-allowed-names");
    assert_eq!(
        noted("good"),
        [json!("allowed"), policy.clone(), Value::Null]
    );
    let rules = json!("PkiServiceNameError");
    assert_eq!(noted("bad"), [json!("denied"), policy, rules]);
}

/// Its `managedFields` have an entry for each annotation, and a review of an edit holds them twice.
#[test]
fn a_pki_with_as_many_annotations_as_fit_can_be_edited() {
    let ns = SHARED.namespace("annotated");
    let annotations: serde_json::Map<_, _> = (0..20_000)
        .map(|number| (format!("k{number}"), json!("")))
        .collect();
    let pki = manifest(
        &json!({"name": "web", "annotations": annotations}),
        &json!({"serviceName": "app1"}),
    );
    let create = ["create", "--namespace", &ns.name, "--filename", "-"];
    SHARED.kubectl_with(&pki, &create).unwrap();
    ns.merge(
        "pki",
        "web",
        &json!({"metadata": {"labels": {"edited": "true"}}}),
    );
    ns.delete("pki", "web");
}
