//! A Secret that has lost its owner: taken up again by the Pki that it was issued for, and by no
//! other.

use crate::harness::{Installed, Namespace, SHARED, arena, eventually, file, notes};
use pki_cluster::pages::{Block, Page};
use pki_cluster::testing::manifest;
use serde_json::{Value, json};
use std::path::Path;

const SPEC: &str = r#"{"serviceName": "app1"}"#;

fn merge(ns: &Namespace<'_>, kind: &str, name: &str, change: &Value) {
    ns.merge(kind, name, change);
}

/// Waits until the Secret belongs to the Pki that there is now, and the Pki is ready.
fn wait_until_taken_up(ns: &Namespace<'_>, name: &str) -> Value {
    eventually(&format!("Secret {name} has its Pki again"), || {
        let owner = ns.get("secret", name)?["metadata"]["ownerReferences"][0]["uid"].clone();
        (owner == ns.get("pki", name)?["metadata"]["uid"]).then_some(())
    });
    ns.wait_until_ready(name)
}

/// The sentence of the Event.
fn taken_up(ns: &Namespace<'_>, name: &str) -> String {
    format!(
        "Normal: Secret {name} had no owner, as after a restore, and belongs to Pki {}/{name} again: its certificate was issued by \
         this CA for exactly these names",
        ns.name
    )
}

#[test]
fn a_pki_that_is_made_again_takes_up_the_secret_that_it_left_behind() {
    let ns = SHARED.namespace("orphan");
    ns.pod_with("app1", "app1-pki");
    ns.apply_pki("app1-pki", SPEC);
    let first = ns.wait_until_ready("app1-pki");
    let before = ns.get("secret", "app1-pki").unwrap();
    ns.kubectl(&["delete", "pki", "app1-pki", "--cascade=orphan"])
        .unwrap();
    eventually("the Secret has no owner", || {
        let secret = ns.get("secret", "app1-pki")?;
        secret["metadata"]["ownerReferences"]
            .is_null()
            .then_some(())
    });
    let again = manifest::pki("app1-pki", &json!({"serviceName": "app1"}));
    let again = manifest::in_namespace(&ns.name, again);
    let apply = ["apply", "--warnings-as-errors", "--filename=-"];
    ns.installed
        .kubectl_with(&again.to_string(), &apply)
        .expect("there is no warning");
    let second = wait_until_taken_up(&ns, "app1-pki");
    assert_eq!(
        second["status"]["serialNumber"],
        first["status"]["serialNumber"]
    );
    assert_ne!(second["metadata"]["uid"], first["metadata"]["uid"]);
    let after = ns.get("secret", "app1-pki").unwrap();
    assert_eq!(after["data"], before["data"]);
    assert_eq!(after["metadata"]["labels"], before["metadata"]["labels"]);
    let published = notes(&ns.wait_for_events("Pki", "app1-pki", 1));
    assert_eq!(published, [taken_up(&ns, "app1-pki")]);
    let described = ns.kubectl(&["describe", "pki", "app1-pki"]).unwrap();
    assert!(described.contains("PkiSecretTakenUp"), "{described}");
    assert_eq!(
        notes(&ns.events("Pod", "app1")),
        Vec::<String>::new(),
        "nothing is wrong for the pod"
    );

    // Also where the Pki lives, whoever has taken the owner away; and one that is to be kept stays
    // without.
    merge(
        &ns,
        "secret",
        "app1-pki",
        &json!({"metadata": {"ownerReferences": null}}),
    );
    wait_until_taken_up(&ns, "app1-pki");
    ns.annotate("pki", "app1-pki", "box.com/keep-secret", "true");
    let offer = || {
        let meta = ns.get("secret", "app1-pki")?["metadata"].take();
        let is_offered = meta["annotations"]["box.com/adopt"] == "app1-pki";
        (is_offered && meta["ownerReferences"].is_null()).then_some(())
    };
    eventually("it is kept", offer);
    merge(
        &ns,
        "secret",
        "app1-pki",
        &json!({"metadata": {"annotations": {"box.com/adopt": null}}}),
    );
    eventually("it is kept again", offer);
    let third = ns.wait_until_ready("app1-pki");
    assert_eq!(
        third["status"]["serialNumber"],
        first["status"]["serialNumber"]
    );
}

#[test]
fn a_secret_that_was_issued_for_something_else_is_taken_up_by_nobody() {
    let (ns, victim) = (SHARED.namespace("lookalikes"), SHARED.namespace("victim"));
    ns.permit(
        &["app3"],
        r#", "dnsNames": ["*.example.com"], "usages": ["server auth", "client auth"]"#,
    );
    let more = r#"{"serviceName": "app3", "dnsNames": ["a.example.com"]}"#;
    for (ns, name, spec) in [
        (&victim, "app1-pki", SPEC),
        (&ns, "more", more),
        (&ns, "other", r#"{"serviceName": "app2"}"#),
        (&ns, "own", SPEC),
    ] {
        ns.apply_pki(name, spec);
        ns.wait_until_ready(name);
    }
    let files = |ns: &Namespace<'_>, name: &str| ns.get("secret", name).unwrap()["data"].take();
    let own = files(&ns, "own");
    let mut mixed = own.clone();
    mixed["tls.key"] = files(&ns, "other")["tls.key"].clone();
    let mut stranger = own.clone();
    stranger["tls.crt"] = json!("Z2FyYmFnZQ==");
    let ours = json!({"app.kubernetes.io/managed-by": "pki-operator"});
    let fault = "has no owner and the operator's labels, but was not issued for this Pki: ";
    for (name, files, labels, why) in [
        (
            "copied",
            files(&victim, "app1-pki"),
            &ours,
            "the subject of tls.crt is \"CN=app1.victim",
        ),
        (
            "wider",
            files(&ns, "more"),
            &ours,
            "the subject of tls.crt is",
        ),
        ("mixed", mixed, &ours, "tls.key does not belong to tls.crt"),
        (
            "garbage",
            stranger,
            &ours,
            "tls.crt is not a readable certificate",
        ),
        ("bare", own, &json!({}), ""),
    ] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": name, "labels": labels}, "data": files});
        ns.apply_object(&secret);
        let before = ns.get("secret", name);
        ns.apply_pki(name, SPEC);
        let said = ns.wait_until_refused(name, "PkiSecretForeign");
        assert_eq!(said.contains(fault), !why.is_empty(), "{name}: {said}");
        assert!(said.contains(why), "{name}: {said}");
        assert!(said.contains(&format!("box.com/adopt={name}")), "{said}");
        ns.barrier();
        assert_eq!(ns.get("secret", name), before, "not a byte of {name}");
    }
    // The certificate of one's own with a name too many: it stays until the Pki asks for that name
    // again.
    ns.kubectl(&["delete", "pki", "more", "--cascade=orphan"])
        .unwrap();
    ns.apply_pki("more", r#"{"serviceName": "app3"}"#);
    let said = ns.wait_until_refused("more", "PkiSecretForeign");
    assert!(said.contains("; not requested: a.example.com"), "{said}");
    ns.apply_pki("more", more);
    wait_until_taken_up(&ns, "more");
}

/// The commands of the guide's page, block by block.
fn page() -> Vec<String> {
    let page = Page::read("src/guide/backup-and-restore.md");
    let blocks = page.blocks.iter().filter(|block| block.has_commands());
    let commands = |block: &Block| block.steps().into_iter().map(|step| step.command);
    blocks
        .map(|block| commands(block).collect::<Vec<_>>().join("\n"))
        .collect()
}

/// Runs what the page says in this folder, as the administrator.
fn run(arena: &Installed, folder: &Path, commands: &str) -> String {
    let kubectl = arena.cluster.kubectl();
    let programs = Path::new(kubectl.get_program()).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = std::process::Command::new("sh");
    for (name, value) in kubectl.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    let ran = shell
        .args(["-euc", commands])
        .env("PATH", format!("{}:{path}", programs.display()))
        .current_dir(folder)
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(ran.status.success(), "{commands}: {}", said(&ran.stderr));
    said(&ran.stdout)
}

#[test]
fn what_the_page_about_backups_says_brings_everything_back_without_a_new_certificate() {
    let arena = arena();
    arena.forget_cas();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let blocks = page();
    let [backup, ca, rest, look, _, replace, unlabel, _] = blocks.as_slice() else {
        panic!("{blocks:?}")
    };
    let teams = ["team-a", "team-b"].map(|team| arena.namespace(team));
    let keystore = r#"{"serviceName": "app1", "outputs": {"pkcs12": {"passwordSecretRef": {"name": "password"}}}}"#;
    for ns in &teams {
        ns.password();
        for (name, spec) in [("app1-pki", SPEC), ("kept", SPEC), ("keystore", keystore)] {
            ns.apply_pki(name, spec);
            ns.wait_until_ready(name);
        }
        ns.annotate("pki", "kept", "box.com/keep-secret", "true");
        eventually("it is kept", || {
            let secret = ns.get("secret", "kept")?;
            secret["metadata"]["ownerReferences"]
                .is_null()
                .then_some(())
        });
    }
    teams[0].permit(&["app3"], "");
    teams[0].apply_pki("app3-pki", r#"{"serviceName": "app3"}"#);
    teams[0].wait_until_ready("app3-pki");
    let state = || {
        let pkis = teams.iter().flat_map(|ns| {
            ns.list("pkis", "").into_iter().map(|pki| {
                let name = pki["metadata"]["name"].as_str().unwrap().to_owned();
                let secret = ns.get("secret", &name).unwrap_or_default();
                (ns.name.clone(), name, secret["data"].clone())
            })
        });
        pkis.collect::<Vec<_>>()
    };
    let before = state();
    assert_eq!(before.len(), 7);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&teams[0].name);
    std::fs::create_dir_all(&folder).unwrap();
    run(&arena, &folder, backup);
    let saved = std::fs::read_to_string(folder.join("secrets.json")).unwrap();
    let saved = serde_json::Deserializer::from_str(&saved).into_iter::<Value>();
    let saved: Vec<_> = saved.collect::<Result<_, _>>().unwrap();
    assert!(saved.len() >= before.len(), "{}", saved.len());
    for secret in &saved {
        assert_eq!(secret["kind"], "Secret");
        let owners = &secret["metadata"]["ownerReferences"];
        assert!(owners.is_null(), "it would be collected: {owners}");
    }

    // Everything is lost.
    let created = teams.each_ref().map(creates);
    operator.process.kill().unwrap();
    arena.delete_all("pkis");
    arena.delete_all("pkipolicies");
    let selector = "--selector=app.kubernetes.io/managed-by=pki-operator";
    arena
        .kubectl(&["delete", "secrets", "--all-namespaces", selector])
        .unwrap();
    arena.forget_cas();

    run(&arena, &folder, ca);
    arena.install().unwrap();
    let _operator = arena.first_replica("operator-1", &[]).unwrap();
    run(&arena, &folder, rest);
    for (namespace, name, _) in &before {
        let ns = teams.iter().find(|ns| ns.name == *namespace).unwrap();
        ns.wait_until_ready(name);
    }
    assert_eq!(state(), before, "not a byte is another one");
    assert_eq!(teams.each_ref().map(creates), created);
    let looked = run(&arena, &folder, look);
    assert_eq!(looked.matches("PkiSecretTakenUp").count(), 5, "{looked}");
    for ns in &teams {
        let published = notes(&ns.events("Pki", "app1-pki"));
        assert_eq!(published, [taken_up(ns, "app1-pki")]);
    }
    let replace = replace.replace("team-a", &teams[0].name);
    run(&arena, &folder, &replace);
    wait_until_taken_up(&teams[0], "app1-pki");
    assert_eq!(state(), before);
    run(&arena, &folder, &unlabel.replace("team-a", &teams[0].name));
    let crt = |data: &Value| file(&json!({"data": data}), "tls.crt");
    assert!(
        before
            .iter()
            .all(|(_, _, data)| crt(data).contains("BEGIN CERTIFICATE"))
    );
}

/// How many Secrets the operator has created here.
fn creates(ns: &Namespace<'_>) -> usize {
    let writes = ns.operator_writes().into_iter();
    let creates = writes.filter(|(write, _)| write.what == "create secrets");
    creates.map(|(_, count)| count).sum()
}
