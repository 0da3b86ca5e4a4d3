//! `kubectl pki` against the real API server: it says what `kubectl apply` says, and as much as its
//! user may know.

use crate::harness::{Namespace, SHARED, file, serial_of};
use pki_cluster::install;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

mod check;

/// What a run of the plugin came to.
#[derive(Debug)]
struct Run {
    status: i32,
    stdout: String,
    stderr: String,
}

/// Runs the plugin by this kubeconfig, with this on its standard input.
fn run_as(kubeconfig: &str, arguments: &[&str], input: &str) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-pki"));
    command.args(arguments).env("KUBECONFIG", kubeconfig);
    finish(command, input)
}

fn finish(mut command: Command, input: &str) -> Run {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    // It may fail before it has read all of it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it prints text");
    Run {
        status: output.status.code().expect("it is not killed"),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

fn admin() -> String {
    let kubeconfig = SHARED.cluster.kubeconfig();
    kubeconfig.to_str().expect("its path is text").to_owned()
}

/// Runs the plugin as the administrator, in this namespace.
fn run(ns: &Namespace<'_>, arguments: &[&str]) -> Run {
    run_as(&admin(), &[arguments, &["-n", &ns.name]].concat(), "")
}

/// What it prints when all is well.
fn page(ns: &Namespace<'_>, arguments: &[&str]) -> String {
    let run = run(ns, arguments);
    assert_eq!(run.status, 0, "{run:?}");
    run.stdout
}

fn scratch(ns: &Namespace<'_>, name: &str, content: &str) -> PathBuf {
    let path = SHARED.cluster.dir().join(format!("{}-{name}", ns.name));
    std::fs::write(&path, content).unwrap();
    path
}

/// The kubeconfig of somebody who has Kubernetes' role `view` in this namespace, and nothing else.
fn viewer(ns: &Namespace<'_>) -> String {
    account(ns, "view")
}

/// The kubeconfig of somebody who has this role in this namespace, and nothing else.
fn account(ns: &Namespace<'_>, role: &str) -> String {
    ns.kubectl(&["create", "serviceaccount", role]).unwrap();
    let subject = format!("--serviceaccount={}:{role}", ns.name);
    let role_flag = format!("--clusterrole={role}");
    ns.kubectl(&["create", "rolebinding", role, &role_flag, &subject])
        .unwrap();
    let path = SHARED
        .cluster
        .dir()
        .join(format!("{}-{role}.kubeconfig", ns.name));
    install::account_kubeconfig(|| SHARED.cluster.kubectl(), &ns.name, role, &path).unwrap();
    path.to_str().unwrap().to_owned()
}

fn manifest(spec: &str) -> String {
    format!(
        r#"{{"apiVersion": "box.com/v1", "kind": "Pki", "metadata": {{"name": "app1-pki"}}, "spec": {spec}}}"#
    )
}

#[test]
fn explain_shows_all_of_a_ready_pki_but_the_key() {
    let ns = SHARED.namespace("plugin");
    ns.pod_with("web", "app1-pki");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("app1-pki");
    let secret = ns.get("secret", "app1-pki").unwrap();
    let shown = page(&ns, &["explain", "app1-pki"]);
    let serial = serial_of(&file(&secret, "tls.crt"));
    for part in [
        "Pki plugin-",
        " for the service app1\n  Ready for ",
        "Policies\n  PkiPolicy ",
        "of type kubernetes.io/tls, belongs to this Pki",
        &format!(
            "certificate for app1.{}.svc, app1.{}.svc.cluster.local",
            ns.name, ns.name
        ),
        &serial,
        "89d left",
        "the private key in tls.key is that of the certificate",
        "clients that trust ca.crt accept the certificate",
        "Pods that use it\n  web has not started",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    let restricted = run_as(&viewer(&ns), &["explain", "app1-pki"], "");
    assert_eq!(restricted.status, 0, "{restricted:?}");
    for part in [
        "Ready for ",
        "you may not read the policies",
        "you may not read Secrets here",
        &format!("according to the status, it holds the certificate {serial}, valid until "),
        "web has not started",
    ] {
        assert!(restricted.stdout.contains(part), "{part}\n{restricted:?}");
    }
}

#[test]
fn explain_shows_why_a_pki_is_refused_and_the_events_of_pods() {
    let ns = SHARED.namespace("plugin");
    ns.permit(&["other"], "");
    ns.pod_with("web", "app1-pki");
    ns.apply_pki("app1-pki", r#"{"serviceName": "other", "duration": "2h"}"#);
    ns.wait_until_ready("app1-pki");
    ns.withdraw();
    ns.wait_until_refused("app1-pki", "PkiServiceNameError");
    ns.wait_for_events("Pod", "web", 1);
    let expected = [
        "Not ready for ",
        "PkiServiceNameError",
        "ServiceName: other in pki: app1-pki is not found in allowedNames: [app1 app2]",
        "What to do\n",
        "Warning to Pod web",
        "Warning to Pki app1-pki",
    ];
    for kubeconfig in [admin(), viewer(&ns)] {
        let run = run_as(&kubeconfig, &["explain", "app1-pki", "-n", &ns.name], "");
        for part in expected {
            assert!(run.stdout.contains(part), "{part}\n{}", run.stdout);
        }
    }
    let shown = page(&ns, &["explain", "app1-pki"]);
    assert!(
        shown.contains("no policy permits it as it is:\n    spec.serviceName: "),
        "{shown}"
    );
}

#[test]
fn explain_shows_a_foreign_secret_and_a_pki_that_was_never_stored() {
    let ns = SHARED.namespace("plugin");
    ns.foreign_secret("taken");
    ns.apply_pki("taken", r#"{"serviceName": "app1"}"#);
    ns.wait_until_refused("taken", "PkiSecretForeign");
    let shown = page(&ns, &["explain", "taken"]);
    for part in [
        "Why (PkiSecretForeign)",
        "of type Opaque, does not belong to this Pki",
        "without a certificate",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    ns.pod_with("waiting", "gone");
    ns.try_apply_pki("gone", r#"{"serviceName": "appp1"}"#)
        .unwrap_err();
    ns.wait_for_events("Pod", "waiting", 1);
    let explained = run(&ns, &["explain", "gone"]);
    assert_eq!(explained.status, 1, "{explained:?}");
    let shown = explained.stdout;
    for part in [
        "There is no Pki",
        "Why (PkiServiceNameError)",
        "Warning to Pod waiting",
        "was refused at 20",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}

#[test]
fn status_lists_what_has_no_certificate_first_then_what_ends_first() {
    let ns = SHARED.namespace("plugin");
    ns.apply_pki("long", r#"{"serviceName": "app1", "duration": "200h"}"#);
    ns.apply_pki("short", r#"{"serviceName": "app2", "duration": "2h"}"#);
    ns.foreign_secret("taken");
    ns.apply_pki("taken", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("long");
    ns.wait_until_ready("short");
    ns.wait_until_refused("taken", "PkiSecretForeign");
    let table = page(&ns, &["status"]);
    let names: Vec<_> = table
        .lines()
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    assert_eq!(names, ["NAME", "taken", "short", "long"], "{table}");
    assert!(
        // Of two hours, less what has passed.
        table.contains("PkiSecretForeign") && table.contains(" 11"),
        "{table}"
    );
    let list: Value = serde_json::from_str(&page(&ns, &["status", "-o", "json"])).unwrap();
    assert_eq!(list[1]["name"], "short");
    assert_eq!(
        (&list[1]["ready"], &list[1]["service"]),
        (&json!("True"), &json!("app2"))
    );
    let all = page(&ns, &["status", "-A"]);
    assert!(all.contains(&ns.name), "{all}");
    let restricted = run_as(&viewer(&ns), &["status"], "");
    assert_eq!(restricted.stdout.lines().count(), 4, "{restricted:?}");
}

#[test]
fn renew_waits_for_another_certificate_and_says_why_there_is_none() {
    let ns = SHARED.namespace("plugin");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("app1-pki");
    let serial = || serial_of(&file(&ns.get("secret", "app1-pki").unwrap(), "tls.crt"));
    let before = serial();
    let shown = page(&ns, &["renew", "app1-pki"]);
    assert_ne!(serial(), before);
    assert!(
        shown.starts_with(&format!(
            "pki app1-pki renewed: certificate {}, valid until ",
            serial()
        )),
        "{shown}"
    );

    ns.foreign_secret("taken");
    ns.apply_pki("taken", r#"{"serviceName": "app1"}"#);
    ns.wait_until_refused("taken", "PkiSecretForeign");
    let early = page(&ns, &["renew", "app1-pki", "--wait=false"]);
    assert!(
        early.starts_with("pki app1-pki was renewed on request at 20")
            && early.contains("; the next request is served at 20"),
        "{early}"
    );
    let started = std::time::Instant::now();
    let early = run(&ns, &["renew", "app1-pki"]);
    assert!(
        early.status == 1 && early.stdout.contains("pki app1-pki is not renewed yet: "),
        "{early:?}"
    );
    assert!(
        started.elapsed().as_secs() < 30,
        "nobody waits for the timeout: {early:?}"
    );
    ns.forget_renewal("app1-pki");
    let before = serial();
    let all = run(&ns, &["renew", "--all"]);
    assert_eq!(all.status, 1, "{all:?}");
    assert_ne!(serial(), before);
    assert!(
        all.stdout
            .contains("pki taken is not renewed, because it is not ready: PkiSecretForeign: "),
        "{all:?}"
    );
    let nobody = run(&ns, &["renew", "nobody"]);
    assert_eq!(nobody.status, 2, "{nobody:?}");
    assert!(
        nobody.stderr.contains("pkis.box.com \"nobody\" not found"),
        "{nobody:?}"
    );
    let forbidden = run_as(&viewer(&ns), &["renew", "app1-pki", "--wait=false"], "");
    assert!(
        forbidden.status == 2 && forbidden.stderr.contains("you may not patch pkis here"),
        "{forbidden:?}"
    );
}

#[test]
fn inspect_shows_a_secret_and_never_its_key() {
    let ns = SHARED.namespace("plugin");
    ns.apply_pki(
        "app1-pki",
        r#"{"serviceName": "app1", "usages": ["server auth"], "secretName": "tls"}"#,
    );
    ns.wait_until_ready("app1-pki");
    let secret = ns.get("secret", "tls").unwrap();
    let shown = page(&ns, &["inspect", "secret/tls"]);
    assert_eq!(page(&ns, &["inspect", "pki/app1-pki"]), shown);
    let serial = serial_of(&file(&secret, "tls.crt"));
    for part in [
        "tls.crt, certificate 1 of 1:",
        "ECDSA P-256",
        "server authentication",
        &serial,
        "accept the certificate",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    let key = file(&secret, "tls.key");
    let lines = key.lines().filter(|line| !line.is_empty());
    assert!(
        lines.into_iter().all(|line| !shown.contains(line)),
        "{shown}"
    );
    assert!(!shown.contains("PRIVATE KEY"));

    let combined = format!(
        "{}{key}{}",
        file(&secret, "tls.crt"),
        file(&secret, "ca.crt")
    );
    let run = run_as("/dev/null", &["inspect", "-"], &combined);
    assert!(
        run.stdout
            .contains("the private key in - is that of the certificate"),
        "{run:?}"
    );
    assert!(
        key.lines()
            .all(|line| line.is_empty() || !run.stdout.contains(line)),
        "{run:?}"
    );
}

#[test]
fn kubectl_finds_the_plugin_on_the_path() {
    let ns = SHARED.namespace("plugin");
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_kubectl-pki"));
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", binary.parent().unwrap().display());
    let mut kubectl = SHARED.cluster.kubectl();
    kubectl.args(["pki", "check", "-f", "-", "-n", &ns.name]);
    kubectl.env("PATH", path);
    let run = finish(kubectl, &manifest(r#"{"serviceName": "appp1"}"#));
    assert_eq!(run.status, 1, "{run:?}");
    assert!(run.stdout.contains("did you mean \"app1\"?"), "{run:?}");
}

#[test]
fn bash_completes_the_flags_of_a_command() {
    let plugin = env!("CARGO_BIN_EXE_kubectl-pki");
    let script = format!(
        r#"source <({plugin} completion bash)
        COMP_WORDS=(kubectl-pki check --pol) COMP_CWORD=2
        "$(complete -p kubectl-pki | sed 's/.* -F \([^ ]*\) .*/\1/')" kubectl-pki --pol check
        echo "${{COMPREPLY[@]}}""#
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]);
    let run = finish(bash, "");
    assert_eq!(run.stdout, "--policy\n", "{run:?}");
}

#[test]
fn nothing_of_a_kubeconfig_that_cannot_be_read_is_shown() {
    let broken = "apiVersion: v1\nkind: Config\nusers:\n- name: u\n  user:\n    token: SECRET-TOKEN\n   client-key-data: SECRET-KEY\n";
    let path = SHARED.cluster.dir().join("broken.kubeconfig");
    std::fs::write(&path, broken).unwrap();
    let run = run_as(path.to_str().unwrap(), &["status"], "");
    assert_eq!(run.status, 2, "{run:?}");
    assert!(
        !run.stderr.contains("SECRET") && run.stderr.lines().count() == 1,
        "{run:?}"
    );

    let plugin = "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nclusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: sh, args: ['-c', 'echo SECRET; exit 1'], env: [{name: PW, value: SECRET}], interactiveMode: Never}}}]\n";
    let path = SHARED.cluster.dir().join("plugin.kubeconfig");
    std::fs::write(&path, plugin).unwrap();
    let run = run_as(path.to_str().unwrap(), &["status"], "");
    assert_eq!(run.status, 2, "{run:?}");
    assert!(!run.stderr.contains("SECRET"), "{run:?}");
}
