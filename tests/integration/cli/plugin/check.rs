//! `kubectl pki check` and `kubectl apply` say the same.

use super::{Run, account, admin, manifest, run_as, scratch, viewer};
use crate::harness::SHARED;
use serde_json::{Value, json};

/// Specs that the schema takes and the webhook does not.
const REFUSED: [&str; 7] = [
    r#"{"serviceName": "appp1"}"#,
    r#"{"serviceName": "app1", "duration": "900000h"}"#,
    r#"{"serviceName": "app1", "commonName": "other"}"#,
    r#"{"serviceName": "app1", "dnsNames": ["a.example.com", "db.victim.svc", "a_b"]}"#,
    r#"{"serviceName": "nobody", "uris": ["spiffe://example.com/x", "x"], "ipAddresses": ["::ffff:10.0.0.1"]}"#,
    r#"{"serviceName": "app1", "secretTemplate": {"labels": {"kubernetes.io/x": "y"}}}"#,
    r#"{"serviceName": "app1", "renewBefore": "2159h"}"#,
];

/// Prints the findings as kubectl prints the causes in the answer of the API server, in the order
/// of `said`: that of the webhook, and not that of the file.
fn as_kubectl_says(run: &Run, said: &str) -> String {
    let mut checked: Value = serde_json::from_str(&run.stdout).unwrap();
    let findings = checked["findings"].as_array_mut().unwrap();
    findings.sort_by_key(|it| said.find(it["message"].as_str().unwrap()));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let line = |it: &Value| format!("{}: {}", text(&it["field"]), text(&it["message"]));
    match findings.as_slice() {
        [only] => format!("The Pki \"app1-pki\" is invalid: {}", line(only)),
        all => {
            let lines: Vec<_> = all.iter().map(|it| format!("* {}", line(it))).collect();
            format!("The Pki \"app1-pki\" is invalid: \n{}", lines.join("\n"))
        }
    }
}

#[test]
fn check_says_what_kubectl_apply_says_with_the_cluster_and_without() {
    let ns = SHARED.namespace("plugin");
    let policies = SHARED
        .kubectl(&["get", "pkipolicies", "--output=yaml"])
        .unwrap();
    let policies = scratch(&ns, "policies.yaml", &policies);
    let kubeconfig = admin();
    for spec in REFUSED {
        let manifest = manifest(spec);
        let said = ns.kubectl_apply(&manifest).unwrap_err().to_string();
        let check = ["check", "-f", "-", "-o", "json", "-n", &ns.name];
        let offline = [&check[..], &["--policy", policies.to_str().unwrap()]].concat();
        for (kubeconfig, arguments) in [(kubeconfig.as_str(), &check[..]), ("/dev/null", &offline)]
        {
            let run = run_as(kubeconfig, arguments, &manifest);
            assert_eq!(run.status, 1, "{run:?}");
            assert_eq!(as_kubectl_says(&run, &said), said, "{spec}");
        }
    }
    let good = manifest(r#"{"serviceName": "app1"}"#);
    let run = run_as(&kubeconfig, &["check", "-f", "-", "-n", &ns.name], &good);
    assert_eq!((run.status, run.stdout.as_str()), (0, ""), "{run:?}");
    assert_eq!(run.stderr, "checked 1 Pki: 0 errors, 0 warnings\n");
}

#[test]
fn check_finds_what_kubectl_apply_refuses_before_any_webhook() {
    let ns = SHARED.namespace("plugin");
    for (spec, both_say) in [
        (
            r#"{"serviceName": "app1", "foo": 1}"#,
            "unknown field \"spec.foo\"",
        ),
        (
            r#"{"serviceName": "app1", "privateKey": {"sise": 1}}"#,
            "unknown field \"spec.privateKey.sise\"",
        ),
        (r#"{"serviceName": true}"#, "spec.serviceName"),
        (
            r#"{"serviceName": "app1", "usages": ["all"]}"#,
            "spec.usages[0]",
        ),
        (
            r#"{"serviceName": "app1", "renewBeforePercentage": 91}"#,
            "spec.renewBeforePercentage",
        ),
        (
            r#"{"serviceName": "app1", "dnsNames": [null]}"#,
            "spec.dnsNames[0]",
        ),
        ("{}", "spec.serviceName"),
    ] {
        let manifest = manifest(spec);
        let said = ns.kubectl_apply(&manifest).unwrap_err().to_string();
        assert!(said.contains(both_say), "{spec}: {said}");
        let run = run_as(&admin(), &["check", "-f", "-", "-n", &ns.name], &manifest);
        assert!(
            run.status == 1 && run.stdout.contains(both_say),
            "{spec}: {run:?}"
        );
    }
    for spec in [
        r#"{"serviceName": "app1", "duration": null, "privateKey": {"size": 384}}"#,
        r#"{"serviceName": "app1", "usages": [], "dnsNames": null}"#,
    ] {
        let manifest = manifest(spec);
        ns.kubectl_apply(&manifest).unwrap();
        let run = run_as(&admin(), &["check", "-f", "-", "-n", &ns.name], &manifest);
        assert_eq!(run.status, 0, "{spec}: {run:?}");
    }
}

#[test]
fn check_reads_yaml_and_json_as_kubectl_does() {
    let ns = SHARED.namespace("plugin");
    let head = "apiVersion: box.com/v1\nkind: Pki\nmetadata: {name: app1-pki}\n";
    let json = manifest(r#"{"serviceName": "app1"}"#);
    for text in [
        "spec: {serviceName: app1, privateKey: {size: 0x180}}",
        "spec: {serviceName: app1, privateKey: {size: 0400}}",
        "spec: {serviceName: app1, privateKey: {size: 2_56}}",
        "spec: {serviceName: app1, privateKey: {size: 256.0}}",
        "spec: {serviceName: app1, privateKey: {size: 2.56e2}}",
        "spec: {serviceName: app1, privateKey: {size: 256.5}}",
        "spec: {serviceName: app1, privateKey: {size: '256'}}",
        "spec: {serviceName: on}",
        "spec: {serviceName: !!str app1}",
        "spec: {serviceName: app1, outputs: {derKey: yes}}",
        "spec: {serviceName: app1, outputs: {derKey: 'yes'}}",
        "spec: {serviceName: app1, commonName: ~, dnsNames: }",
        "spec: {serviceName: app1, y: 1}",
        "spec: &a\n  serviceName: app1\n  <<: {duration: 3h}\nspec2: 1",
        "spec:\n  <<: {serviceName: app1}\n  duration: 3h",
        "spec: {serviceName: &n app1, commonName: *n}",
        "spec: {serviceName: app1, serviceName: app2}",
        "spec:\n  serviceName: app1\n  usages: [server auth\n",
        "spec:\n  serviceName: >-\n    app1\n",
        "spec:\r\n  serviceName: app1\r\n",
        "spec: {serviceName: app1}\n...\n",
        "spec: {serviceName: app1}\n---\n",
        "spec: {serviceName: app1, secretTemplate: {labels: {a: 1}}}",
        "spec: {serviceName: app1, secretTemplate: {annotations: {a: ~}}}",
        "spec: {serviceName: app1}\nstatus: {foo: 1}",
    ]
    .map(|text| format!("{head}{text}"))
    .into_iter()
    .chain([
        json.clone(),
        json.replace(", ", ",\n\t"),
        format!("\u{feff}{json}"),
        format!("{json}\n{json}"),
        format!("{json}{json}"),
        json.replace("app1\"", "\\u0061pp1\""),
        json.replace("\"spec\"", "\"spec\": {}, \"spec\""),
        format!("\u{feff}{head}spec: {{serviceName: app1}}"),
        format!("# a comment\n---\n---\n{head}spec: {{serviceName: app1}}"),
    ]) {
        let apply = ["create", "--dry-run=server", "-f", "-", "-n", &ns.name];
        let applied = SHARED.kubectl_with(&text, &apply);
        let run = run_as(&admin(), &["check", "-f", "-", "-n", &ns.name], &text);
        assert_eq!(
            run.status == 0,
            applied.is_ok(),
            "{text}\n{applied:?}\n{run:?}"
        );
    }
}

#[test]
fn who_may_write_pkis_and_not_read_policies_hears_what_kubectl_apply_says() {
    let ns = SHARED.namespace("plugin");
    let editor = account(&ns, "edit");
    let check = ["check", "-f", "-", "-o", "json"];
    let good = manifest(r#"{"serviceName": "app1"}"#);
    let refused = || REFUSED.iter().copied();
    // A stored Pki is judged with the change.
    for is_stored in [false, true] {
        for spec in refused() {
            let manifest = manifest(spec);
            let said = ns.kubectl_apply(&manifest).unwrap_err().to_string();
            let run = run_as(&editor, &check, &manifest);
            assert_eq!(run.status, 1, "{run:?}");
            assert!(
                run.stderr
                    .starts_with("You may not read the policies: the API server judged"),
                "{run:?}"
            );
            assert_eq!(as_kubectl_says(&run, &said), said, "{spec}");
        }
        let run = run_as(&editor, &check[..3], &good);
        assert_eq!((run.status, run.stdout.as_str()), (0, ""), "{run:?}");
        let is_there = ns.get("pki", "app1-pki").is_some();
        assert_eq!(is_there, is_stored, "nothing is stored by a check");
        ns.kubectl_apply(&good).unwrap();
    }
    // A warning, and a namespace that is not there.
    let other = good.replace("app1-pki", "other").replace(
        r#""serviceName""#,
        r#""secretName": "app1-pki", "serviceName""#,
    );
    let run = run_as(&editor, &check[..3], &other);
    assert!(
        run.status == 0
            && run.stdout.contains("warning: Pki")
            && run.stdout.contains("belongs to Pki"),
        "{run:?}"
    );
    let run = run_as(
        &editor,
        &[&check[..3], &["-n", "elsewhere"]].concat(),
        &good,
    );
    assert_eq!(run.status, 2, "it has the role here alone: {run:?}");
}

#[test]
fn check_judges_metadata_as_the_api_server_does() {
    let ns = SHARED.namespace("plugin");
    let create = ["create", "--dry-run=server", "-f", "-", "-n", &ns.name];
    let label = "a".repeat(64);
    for (metadata, field) in [
        (json!({"name": "App1"}), "metadata.name"),
        (json!({"name": "a_b"}), "metadata.name"),
        (json!({"name": "a".repeat(254)}), "metadata.name"),
        (json!({"generateName": "A-"}), "metadata.generateName"),
        (json!({"generateName": "a_-"}), "metadata.generateName"),
        (json!({"generateName": "a."}), "metadata.generateName"),
        (
            json!({"name": "a", "labels": {"a b": "c"}}),
            "metadata.labels",
        ),
        (
            json!({"name": "a", "labels": {"A.B/c": "c"}}),
            "metadata.labels",
        ),
        (
            json!({"name": "a", "labels": {"a": "b c"}}),
            "metadata.labels",
        ),
        (
            json!({"name": "a", "labels": {"a": label}}),
            "metadata.labels",
        ),
        (
            json!({"name": "a", "annotations": {"a/b/c": ""}}),
            "metadata.annotations",
        ),
        (
            json!({"name": "a", "annotations": {"a": "x".repeat(262_144)}}),
            "metadata.annotations",
        ),
        (
            json!({"name": "a", "finalizers": ["a b"]}),
            "metadata.finalizers[0]",
        ),
        (json!({"name": "a"}), ""),
        (json!({"name": "a.b-c"}), ""),
        (json!({"generateName": "a-"}), ""),
        (json!({"generateName": "a".repeat(100)}), ""),
        (
            json!({"name": "a", "labels": {"a.b/C": "D_e.f", "g": ""}}),
            "",
        ),
        (
            json!({"name": "a", "annotations": {"A.B/c": "any text\n"}}),
            "",
        ),
        (json!({"name": "a", "finalizers": ["example.com/hold"]}), ""),
    ] {
        let pki = json!({"apiVersion": "box.com/v1", "kind": "Pki", "metadata": metadata, "spec": {"serviceName": "app1"}});
        let created = SHARED.kubectl_with(&pki.to_string(), &create);
        let run = run_as(
            &admin(),
            &["check", "-f", "-", "-o", "json", "-n", &ns.name],
            &pki.to_string(),
        );
        assert_eq!(created.is_ok(), field.is_empty(), "{metadata} {created:?}");
        assert_eq!(run.status == 0, field.is_empty(), "{metadata} {run:?}");
        let checked: Value = serde_json::from_str(&run.stdout).unwrap();
        let fields = checked["findings"].as_array().unwrap().iter();
        let fields: Vec<_> = fields.map(|it| it["field"].as_str().unwrap()).collect();
        let expected = Vec::from_iter(Some(field).filter(|field| !field.is_empty()));
        assert_eq!(fields, expected, "{metadata}");
    }
}

#[test]
fn who_may_not_read_policies_and_whose_cluster_is_away_is_told_to_name_files() {
    let ns = SHARED.namespace("plugin");
    let manifest = manifest(r#"{"serviceName": "app1"}"#);
    let forbidden = run_as(&viewer(&ns), &["check", "-f", "-"], &manifest);
    assert_eq!(forbidden.status, 2, "{forbidden:?}");
    for part in [
        "you may not list pkipolicies here",
        &format!(
            "you may not create pkis in namespace {}, not even in a dry run",
            ns.name
        ),
        "ask for the role edit in the namespace, or name files with policies by --policy",
    ] {
        assert!(forbidden.stderr.contains(part), "{forbidden:?}");
    }
    let away = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "c", "user": {}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]});
    let away = scratch(&ns, "away.kubeconfig", &away.to_string());
    let run = run_as(away.to_str().unwrap(), &["check", "-f", "-"], &manifest);
    assert_eq!(run.status, 2, "{run:?}");
    assert!(
        run.stderr.contains("cannot list pkipolicies") && run.stderr.contains("refused"),
        "{run:?}"
    );
}
