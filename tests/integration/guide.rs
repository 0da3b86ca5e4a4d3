//! The commands of the guide's pages, run as they stand there.

use crate::harness::{Namespace, SHARED, eventually, file};
use std::process::Command;

const STOLEN: &str = include_str!("../../src/guide/a-key-was-stolen.md");

/// The commands in a section of a page, one a line.
fn commands<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let (_, section) = page.split_once(heading).expect("the page has this heading");
    let section = section.split("\n## ").next().unwrap_or_default();
    let commands: Vec<_> = section
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    assert!(!commands.is_empty(), "{heading} has commands");
    commands
}

/// Runs a command of a page in this namespace, which the page calls `team-a`. kubectl would find its plugin by PATH.
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
    let ns = SHARED.namespace("stolen");
    ns.permit(&["app3"], "");
    for (pki, service) in [("app1-pki", "app1"), ("app3-pki", "app3")] {
        let spec = format!(r#"{{"serviceName": "{service}"}}"#);
        ns.apply_pki(pki, &spec).unwrap();
        ns.wait_until_ready(pki);
    }
    ns.kubectl(&["create", "deployment", "app1", "--image=none"])
        .unwrap();
    let key = || file(&ns.get("secret", "app1-pki").unwrap(), "tls.key");
    let stolen = key();
    for command in commands(STOLEN, "## Of one Pki") {
        run(&ns, command);
    }
    eventually("another key is there", || (key() != stolen).then_some(()));
    let deployment = ns.get("deployment", "app1").unwrap();
    let template = &deployment["spec"]["template"]["metadata"]["annotations"];
    assert!(template["kubectl.kubernetes.io/restartedAt"].is_string());

    for command in commands(STOLEN, "## Of one tenant") {
        run(&ns, command);
    }
    assert!(ns.get("pki", "app3-pki").is_none());
    eventually("nothing new is issued", || {
        let refused = ns.apply_pki("app3-pki", r#"{"serviceName": "app3"}"#);
        refused.is_err().then_some(())
    });
}
