//! The other ways by which people change a Pki, and what kubectl makes of them: each behaves as for
//! any object.

use crate::harness::{Namespace, SHARED, notes};
use pki_cluster::testing::manifest;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

const TYPO: &str = "ServiceName: appp1 in pki: app1-pki is not found in allowedNames: [app1 app2]; did you mean \"app1\"?";

fn manifest(spec: &Value) -> String {
    manifest::pki("app1-pki", spec).to_string()
}

/// Runs kubectl in the namespace on a manifest of this spec.
fn on(ns: &Namespace<'_>, arguments: &[&str], spec: &Value) -> anyhow::Result<String> {
    let file = ["--namespace", &ns.name, "--filename=-"];
    SHARED.kubectl_with(&manifest(spec), &[arguments, &file].concat())
}

/// Runs kubectl in the namespace with all that it prints; an edit goes through this editor.
fn kubectl(ns: &Namespace<'_>, arguments: &[&str], editor: &str) -> Output {
    let mut kubectl = SHARED.cluster.kubectl();
    kubectl
        .args(arguments)
        .args(["--namespace", &ns.name])
        .env("KUBE_EDITOR", editor);
    kubectl.output().expect("kubectl runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn version(ns: &Namespace<'_>) -> Value {
    ns.wait_until_ready("app1-pki")["metadata"]["resourceVersion"].clone()
}

/// Runs `kubectl diff` against a manifest of this spec: its exit code, and the lines that differ.
fn diff(ns: &Namespace<'_>, spec: &Value) -> (Option<i32>, Vec<String>) {
    let file = SHARED.cluster.dir().join(format!("{}-diff.json", ns.name));
    fs::write(&file, manifest(spec)).unwrap();
    let output = kubectl(ns, &["diff", "--filename", file.to_str().unwrap()], "");
    let differs = |line: &&str| {
        let is_sign = line.starts_with(['+', '-']);
        is_sign && !line.starts_with("+++") && !line.starts_with("---")
    };
    let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
    let lines = printed
        .lines()
        .filter(|line| differs(line) || output.status.code() > Some(1));
    (output.status.code(), lines.map(str::to_owned).collect())
}

#[test]
fn a_diff_shows_what_would_change_and_nothing_that_was_filled_in() {
    let ns = SHARED.namespace("diff");
    let spec = json!({ "serviceName": "app1" });
    on(&ns, &["apply"], &spec).unwrap();
    ns.wait_until_ready("app1-pki");
    assert_eq!(diff(&ns, &spec), (Some(0), vec![]));
    let (code, lines) = diff(&ns, &json!({ "serviceName": "app1", "duration": "720h" }));
    let expected = ["-  generation: 1", "+  generation: 2", "+  duration: 720h"];
    assert_eq!(
        (code, lines),
        (Some(1), expected.map(str::to_owned).to_vec())
    );

    ns.pod_with("waits", "other");
    let (code, lines) = diff(
        &ns,
        &json!({ "serviceName": "appp1", "secretName": "other" }),
    );
    assert!(
        code > Some(1) && lines.concat().contains(TYPO),
        "{code:?} {lines:?}"
    );
    ns.barrier();
    assert_eq!(
        notes(&ns.events("Pod", "waits")),
        [] as [&str; 0],
        "nobody was refused anything"
    );
}

#[test]
fn two_managers_share_an_object_and_neither_owns_what_was_filled_in() {
    let ns = SHARED.namespace("managers");
    let apply = |manager: &str, spec: &Value| {
        on(
            &ns,
            &[
                "apply",
                "--server-side",
                &format!("--field-manager={manager}"),
            ],
            spec,
        )
    };
    let first = json!({ "serviceName": "app1" });
    let second = json!({ "duration": "720h", "privateKey": { "algorithm": "ECDSA", "size": 384 }, "usages": ["server auth"] });
    apply("first", &first).unwrap();
    version(&ns);
    apply("second", &second).unwrap();
    let before = version(&ns);
    for _ in 0..2 {
        apply("first", &first).unwrap();
        apply("second", &second).unwrap();
    }
    assert_eq!(
        version(&ns),
        before,
        "to apply the same again changes nothing"
    );
    let mut merged = second.clone();
    json_patch::merge(&mut merged, &json!({ "serviceName": "app1" }));
    assert_eq!(ns.get("pki", "app1-pki").unwrap()["spec"], merged);

    let conflict = apply("second", &json!({ "serviceName": "app2" }))
        .unwrap_err()
        .to_string();
    let fields: Vec<_> = conflict
        .lines()
        .filter(|line| line.contains(".spec"))
        .collect();
    assert!(conflict.contains("conflict with \"first\""), "{conflict}");
    assert!(
        fields.iter().all(|line| line.contains(".spec.serviceName")),
        "{conflict}"
    );

    apply("second", &json!({ "usages": ["server auth"] })).unwrap();
    let spec = &ns.wait_until_ready("app1-pki")["spec"];
    assert_eq!(
        (&spec["duration"], &spec["privateKey"]["size"]),
        (&Value::Null, &Value::Null),
        "the policy decides again"
    );
}

/// An editor that keeps each file it is given, and then runs `sed` with this script on it.
fn editor(ns: &Namespace<'_>, script: &str) -> (String, impl Fn() -> Vec<String>) {
    let dir = SHARED.cluster.dir().join(format!("{}-editor", ns.name));
    fs::create_dir_all(&dir).unwrap();
    let (path, kept) = (dir.join("edit"), dir.join("kept"));
    let run = format!(
        "#!/bin/sh\nmkdir -p {0}\ncp \"$1\" {0}/$(ls {0} | wc -l)\nsed -i '{script}' \"$1\"\n",
        kept.display()
    );
    fs::write(&path, run).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let opened = move || {
        let count = fs::read_dir(&kept).map_or(0, Iterator::count);
        let read = |number: usize| fs::read_to_string(kept.join(number.to_string())).unwrap();
        (0..count).map(read).collect()
    };
    (path.display().to_string(), opened)
}

#[test]
fn an_edit_that_is_refused_is_opened_again_with_the_reason_and_then_given_up() {
    let ns = SHARED.namespace("editor");
    on(&ns, &["apply"], &json!({ "serviceName": "app1" })).unwrap();
    let before = version(&ns);
    let edit = ["edit", "pki", "app1-pki"];

    let (bad, opened) = editor(&ns, "s/serviceName: app1$/serviceName: appp1/");
    let output = kubectl(&ns, &edit, &bad);
    let files = opened();
    assert!(
        !output.status.success() && files.len() == 2,
        "{output:?} {files:?}"
    );
    let comment = files[1].lines().filter(|line| line.starts_with('#'));
    let comment: Vec<_> = comment
        .map(|line| line.trim_start_matches(['#', ' ']))
        .collect();
    assert!(
        comment
            .join(" ")
            .contains(&format!("spec.serviceName: {TYPO}")),
        "{}",
        files[1]
    );
    assert!(
        files[1].contains("serviceName: appp1\n"),
        "what was written is still there"
    );
    assert!(
        stderr(&output).contains("no valid changes were saved"),
        "{}",
        stderr(&output)
    );
    assert_eq!(version(&ns), before);

    let (good, _) = editor(&ns, "s/serviceName: app1$/serviceName: app2/");
    let output = kubectl(&ns, &edit, &good);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        ns.wait_until_ready("app1-pki")["spec"]["serviceName"],
        "app2"
    );
}

#[test]
fn create_and_replace_are_judged_alike() {
    let ns = SHARED.namespace("replace");
    let (good, bad) = (
        json!({ "serviceName": "app1" }),
        json!({ "serviceName": "appp1" }),
    );
    for verb in ["create", "replace"] {
        if verb == "replace" {
            on(&ns, &["create"], &good).unwrap();
            version(&ns);
        }
        let refusal = on(&ns, &[verb], &bad).unwrap_err().to_string();
        let expected = format!("The Pki \"app1-pki\" is invalid: spec.serviceName: {TYPO}");
        assert_eq!(refusal, expected);
    }
    let replaced = on(&ns, &["replace"], &json!({ "serviceName": "app2" })).unwrap();
    assert_eq!(replaced, "pki.box.com/app1-pki replaced\n");
    let spec = &ns.wait_until_ready("app1-pki")["spec"];
    let filled_in = (&spec["serviceName"], &spec["duration"], &spec["secretName"]);
    assert_eq!(
        filled_in,
        (&json!("app2"), &Value::Null, &Value::Null),
        "nothing is filled in"
    );
}

#[test]
fn a_patch_is_a_merge_or_a_list_of_operations() {
    let ns = SHARED.namespace("patch");
    on(&ns, &["create"], &json!({ "serviceName": "app1" })).unwrap();
    let patch = |kind: &str, patch: &Value| {
        let patch = patch.to_string();
        ns.kubectl(&[
            "patch", "pki", "app1-pki", "--type", kind, "--patch", &patch,
        ])
    };
    let replace =
        |value: &str| json!([{ "op": "replace", "path": "/spec/serviceName", "value": value }]);
    let merge = |value: &str| json!({ "spec": { "serviceName": value } });
    for (kind, good, bad) in [
        ("merge", merge("app2"), merge("appp1")),
        ("json", replace("app1"), replace("appp1")),
    ] {
        let refusal = patch(kind, &bad).unwrap_err().to_string();
        assert!(refusal.ends_with(TYPO), "{kind}: {refusal}");
        patch(kind, &good).unwrap();
    }
    assert_eq!(
        ns.wait_until_ready("app1-pki")["spec"]["serviceName"],
        "app1"
    );
    // kubectl's own default, which Kubernetes has for its own kinds alone.
    let refusal = patch("strategic", &merge("app2")).unwrap_err().to_string();
    assert!(
        refusal.contains("application/merge-patch+json"),
        "{refusal}"
    );
}

#[test]
fn an_unknown_field_is_warned_of_or_refused_by_its_name() {
    let ns = SHARED.namespace("unknown");
    let file = SHARED.cluster.dir().join(format!("{}.json", ns.name));
    fs::write(
        &file,
        manifest(&json!({ "serviceName": "app1", "dnsName": "www.example.com" })),
    )
    .unwrap();
    let apply = |validate: &str| {
        kubectl(
            &ns,
            &["apply", "--filename", file.to_str().unwrap(), validate],
            "",
        )
    };
    let strict = apply("--validate=strict");
    assert!(
        !strict.status.success() && stderr(&strict).contains("unknown field \"spec.dnsName\""),
        "{strict:?}"
    );
    assert!(ns.get("pki", "app1-pki").is_none());
    let warned = apply("--validate=warn");
    assert!(warned.status.success(), "{warned:?}");
    assert_eq!(stderr(&warned), "Warning: unknown field \"spec.dnsName\"\n");
    assert!(ns.wait_until_ready("app1-pki")["spec"]["dnsName"].is_null());
}

#[test]
fn the_status_is_nobodys_business_and_there_is_nothing_to_scale() {
    let ns = SHARED.namespace("subresources");
    ns.permit(&["app3"], "");
    on(&ns, &["create"], &json!({ "serviceName": "app3" })).unwrap();
    version(&ns);
    ns.withdraw();
    ns.wait_until_refused("app1-pki", "PkiServiceNameError");
    let status = r#"{"status": {"failedAttempts": 7}}"#;
    let patch = [
        "patch",
        "pki",
        "app1-pki",
        "--subresource=status",
        "--type=merge",
        "--patch",
        status,
    ];
    let patched = kubectl(&ns, &patch, "");
    assert!(patched.status.success(), "{patched:?}");
    assert_eq!(stderr(&patched), "", "nobody judged it");
    let scaled = kubectl(&ns, &["scale", "pki", "app1-pki", "--replicas=2"], "");
    assert!(
        !scaled.status.success() && !stderr(&scaled).contains("Warning"),
        "{scaled:?}"
    );
}
