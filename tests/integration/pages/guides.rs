//! The guides hold on a real cluster: their commands, scripts and statements.

use crate::harness::{Namespace, SHARED, arena, bytes, eventually, file, openssl};
use jiff::{SignedDuration, Timestamp};
use mlua::LuaSerdeExt as _;
use pki_cluster::pages::Page;
use pki_cluster::testing::manifest;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

const PAGES_WITH_POLICIES: [&str; 4] = [
    "src/guide/policies.md",
    "src/guide/policies-by-example.md",
    "src/guide/policy-rules.md",
    "src/guide/common-refusals.md",
];

/// The first fenced block of this language in the guide to Argo CD and Flux.
fn block(language: &str) -> String {
    let page = Page::read("src/guide/gitops.md");
    let mut blocks = page.blocks.into_iter();
    let block = blocks.find(|block| block.language == language);
    block.expect("the page has an example").content
}

/// Health and message of a Pki in Argo CD, by the script of the guide.
fn argo_health(pki: &Value) -> (String, String) {
    let lua = mlua::Lua::new();
    let object = lua.to_value(pki).unwrap();
    lua.globals().set("obj", object).unwrap();
    let health: mlua::Table = lua.load(block("lua")).eval().unwrap();
    (
        health.get("status").unwrap(),
        health.get("message").unwrap(),
    )
}

/// Whether Flux takes the Pki for current, by the expression of the guide.
fn is_current_for_flux(pki: &Value) -> bool {
    let example = block("yaml");
    let mut lines = example.lines().map(str::trim);
    let expression = lines.find_map(|line| line.strip_prefix("current: "));
    let program = cel::Program::compile(expression.unwrap()).unwrap();
    let mut context = cel::Context::default();
    context.add_variable("status", &pki["status"]).unwrap();
    program.execute(&context) == Ok(true.into())
}

#[test]
fn argo_cd_and_flux_find_out_how_a_pki_is() {
    let ns = SHARED.namespace("health");
    ns.kubectl(&["create", "secret", "generic", "taken"])
        .unwrap();
    ns.apply_pki("good", r#"{"serviceName": "app1"}"#);
    ns.apply_pki("bad", r#"{"serviceName": "app1", "secretName": "taken"}"#);
    let good = ns.wait_until_ready("good");
    let message = ns.wait_until_refused("bad", "PkiSecretForeign");
    let bad = ns.get("pki", "bad").unwrap();

    let ready = ns.ready_field("good", "message");
    assert_eq!(argo_health(&good), ("Healthy".into(), ready));
    assert_eq!(argo_health(&bad), ("Degraded".into(), message));
    assert!(is_current_for_flux(&good) && !is_current_for_flux(&bad));
    // Without an expression, Flux asks kstatus, which reads this field.
    for pki in [&good, &bad] {
        assert_eq!(
            pki["status"]["observedGeneration"],
            pki["metadata"]["generation"]
        );
    }

    let mut new = good.clone();
    new.as_object_mut().unwrap().remove("status");
    let mut edited = good.clone();
    edited["metadata"]["generation"] = json!(2);
    let mut waits = bad.clone();
    waits["status"]["conditions"][0]["reason"] = json!("PkiKeyPending");
    for pki in [new, edited, waits] {
        assert_eq!(argo_health(&pki).0, "Progressing", "{pki}");
    }
}

/// A Pki that says everything, as far as fields do not exclude each other.
fn complete() -> Value {
    json!({
        "serviceName": "app1", "commonName": "app1", "dnsNames": ["www.example.com"], "ipAddresses": ["10.0.0.1"],
        "uris": ["https://example.com/app1"], "secretName": "complete-tls", "usages": ["server auth", "client auth"],
        "duration": "48h", "renewBefore": "12h", "secretTemplate": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
        "privateKey": {"algorithm": "ECDSA", "size": 384, "encoding": "PKCS8", "rotationPolicy": "Always"},
        "outputs": {"combinedPem": true, "derKey": true}
    })
}

#[test]
fn a_manifest_that_is_applied_again_changes_nothing_and_differs_in_nothing() {
    let ns = SHARED.namespace("again");
    ns.permit(
        &["app1"],
        r#", "dnsNames": ["*.example.com"], "ipAddresses": ["10.0.0.0/8"], "uris": ["https://example.com/*"]"#,
    );
    let apply = |manifest: &Value, arguments: &[&str]| {
        let common = ["--namespace", &ns.name, "--filename=-"];
        ns.installed
            .kubectl_with(&manifest.to_string(), &[arguments, &common].concat())
    };
    let ways: [&[&str]; 2] = [&["--server-side", "--field-manager=gitops"], &[]];
    for (way, options) in ways.into_iter().enumerate() {
        for (kind, spec) in [
            ("complete", complete()),
            ("minimal", json!({"serviceName": "app1"})),
        ] {
            let name = format!("{kind}-{way}");
            let mut spec = spec;
            if spec["secretName"].is_string() {
                spec["secretName"] = json!(name);
            }
            let mut manifest = manifest::in_namespace(&ns.name, manifest::pki(&name, &spec));
            manifest["metadata"]["labels"] = json!({"by": "git"});
            let apply = |verb: &str| apply(&manifest, &[&[verb], options].concat());
            apply("apply").unwrap();
            let first = ns.wait_until_ready(&name);
            assert_eq!(apply("diff").unwrap(), "", "{name}");
            apply("apply").unwrap();
            let second = ns.get("pki", &name).unwrap();
            assert_eq!(second, first, "{name}");
            assert_eq!(
                second["spec"], manifest["spec"],
                "{name}: nothing is filled in"
            );
        }
    }
}

#[test]
fn the_entries_of_keystores_have_the_aliases_of_the_guide() {
    let ns = SHARED.namespace("aliases");
    ns.password();
    let keystore = json!({"passwordSecretRef": {"name": "password", "key": "password"}});
    let spec = json!({"serviceName": "app1", "outputs": {"pkcs12": keystore}});
    ns.apply_pki("app1-pki", &spec.to_string());
    let secret = eventually("the keystores are there", || {
        let secret = ns.get("secret", "app1-pki")?;
        (!bytes(&secret, "truststore.p12").is_empty()).then_some(secret)
    });
    let guide = include_str!("../../../src/guide/application-teams.md");
    for (index, (store, kind)) in [("keystore", "-nocerts"), ("truststore", "-nokeys")]
        .into_iter()
        .enumerate()
    {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{store}.p12"));
        fs::write(&file, bytes(&secret, &format!("{store}.p12"))).unwrap();
        let path = file.to_str().unwrap();
        let options = [
            "pkcs12",
            kind,
            "-nodes",
            "-passin",
            "pass:changeit",
            "-in",
            path,
        ];
        let printed = openssl(&options, "");
        let names = printed
            .lines()
            .filter_map(|line| line.trim().strip_prefix("friendlyName: "));
        let names: Vec<_> = names.collect();
        let rows = guide
            .lines()
            .skip_while(|line| !line.starts_with("| file | alias |"));
        let row = rows.skip(2).nth(index).unwrap();
        let alias = row.split('|').nth(2).unwrap().split('`').nth(1).unwrap();
        assert_eq!(names.first(), Some(&alias), "{row}: {printed}");
    }
}

/// Runs a command of a page in this namespace, which the page calls `team-a`. kubectl would find
/// its plugin by PATH.
fn run(ns: &Namespace<'_>, command: &str) {
    let command = command.replace("team-a", &ns.name);
    let arguments: Vec<_> = command.split_whitespace().skip(1).collect();
    let (mut program, arguments) = match &arguments[..] {
        ["pki", arguments @ ..] => {
            let mut plugin = Command::new(env!("CARGO_BIN_EXE_kubectl-pki"));
            plugin.env("KUBECONFIG", SHARED.cluster.kubeconfig());
            (plugin, arguments)
        }
        arguments => (SHARED.cluster.kubectl(), arguments),
    };
    let output = program.args(arguments).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
}

#[test]
fn the_commands_after_a_theft_replace_the_key_of_one_pki_and_void_those_of_a_tenant() {
    let page = Page::read("src/guide/a-key-was-stolen.md");
    let ns = SHARED.namespace("stolen");
    ns.permit(&["app3"], "");
    for (pki, service) in [("app1-pki", "app1"), ("app3-pki", "app3")] {
        let spec = format!(r#"{{"serviceName": "{service}"}}"#);
        ns.apply_pki(pki, &spec);
        ns.wait_until_ready(pki);
    }
    ns.kubectl(&["create", "deployment", "app1", "--image=none"])
        .unwrap();
    let key = || file(&ns.get("secret", "app1-pki").unwrap(), "tls.key");
    let stolen = key();
    for command in page.commands_of("The key of one Pki") {
        run(&ns, &command);
    }
    eventually("another key is there", || (key() != stolen).then_some(()));
    let deployment = ns.get("deployment", "app1").unwrap();
    let template = &deployment["spec"]["template"]["metadata"]["annotations"];
    assert!(template["kubectl.kubernetes.io/restartedAt"].is_string());

    for command in page.commands_of("The keys of one tenant") {
        run(&ns, &command);
    }
    assert!(ns.get("pki", "app3-pki").is_none());
    eventually("nothing new is issued", || {
        let refused = ns.kubectl_apply_pki("app3-pki", r#"{"serviceName": "app3"}"#);
        refused.is_err().then_some(())
    });
}

/// The policies of the guides, as they are written there.
fn policies() -> Vec<String> {
    let blocks = PAGES_WITH_POLICIES
        .iter()
        .flat_map(|page| Page::read(page).blocks);
    let examples = blocks
        .filter(|block| block.language == "yaml")
        .map(|block| block.content);
    examples
        .filter(|example| example.contains("kind: PkiPolicy\n"))
        .collect()
}

#[test]
fn a_pki_with_a_service_name_alone_gets_a_certificate_within_each_policy_of_the_guide() {
    let arena = arena();
    let _operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("team");
    arena
        .kubectl(&["label", "namespace", &ns.name, "stage=live"])
        .unwrap();
    // A page permits the same names as the chart.
    let of_chart = "pki-operator-allowed-names";
    arena.api.delete("pkipolicy", "", of_chart).unwrap();
    let all = policies();
    assert!(all.len() >= 12, "{}", all.len());
    for policy in all {
        let mut read: Value = serde_saphyr::from_str(&policy).unwrap();
        // The namespaces of the examples have other names here.
        if !read["spec"]["namespaces"]["names"].is_null() {
            read["spec"]["namespaces"]["names"] = json!([ns.name]);
        }
        let apply = ["apply", "--filename", "-"];
        arena.kubectl_with(&read.to_string(), &apply).unwrap();
        let name = read["metadata"]["name"].as_str().unwrap();
        let service = read["spec"]["serviceNames"][0].as_str().unwrap();
        let service = service.replace("{namespace}", &ns.name).replace('*', "web");
        eventually(&format!("{name} permits {service}"), || {
            let spec = json!({ "serviceName": service }).to_string();
            ns.kubectl_apply_pki("web", &spec).ok()
        });
        let status = ns.wait_until_ready("web")["status"].take();
        assert_eq!(status["policy"], name, "{status}");
        expect_within(
            &read["spec"],
            &status,
            &file(&ns.get("secret", "web").unwrap(), "tls.crt"),
        );
        ns.delete("pki", "web");
        eventually("the Secret is gone", || {
            ns.get("secret", "web").is_none().then_some(())
        });
        arena.kubectl(&["delete", "pkipolicy", name]).unwrap();
    }
}

/// Whether a certificate is within the limits of a policy, as OpenSSL reads it.
fn expect_within(policy: &Value, status: &Value, certificate: &str) {
    let text = openssl(&["x509", "-noout", "-text"], certificate);
    if let Some(longest) = policy["maxDuration"].as_str() {
        let time = |field: &str| {
            status[field]
                .as_str()
                .unwrap()
                .parse::<Timestamp>()
                .unwrap()
        };
        let longest: SignedDuration = longest.parse().unwrap();
        // Certificates are backdated by five minutes.
        let lifetime = time("notAfter").duration_since(time("notBefore"));
        assert!(
            lifetime <= longest + SignedDuration::from_mins(5),
            "{lifetime} {policy}"
        );
    }
    if policy["usages"] == json!(["server auth"]) {
        assert!(!text.contains("TLS Web Client Authentication"), "{text}");
    }
    assert!(text.contains("TLS Web Server Authentication"), "{text}");
    let curve = match policy["defaults"]["privateKey"]["size"].as_u64() {
        Some(384) => "secp384r1",
        _ => "prime256v1",
    };
    assert!(text.contains(curve), "{policy}\n{text}");
}
