//! `pki-operator self-test`, with no more than what the chart gives to its test.

use crate::harness::{Hook, arena, eventually, operator_binary};
use pki_cluster::install::RELEASE;
use std::path::Path;
use std::process::Command;

#[test]
fn an_installation_passes_and_one_that_nobody_asks_does_not() {
    let arena = arena();
    let hook = Hook::of(&arena, "templates/tests/refusal.yaml", "pki-operator-test");
    let test = |admits: &str| run(&hook.kubeconfig, Some(admits));

    let operator = arena.first_replica("tested", &[]).unwrap();
    let said = test("app1").unwrap();
    assert!(
        said.contains("a forbidden name is refused: Pki pki-operator/pki-operator-self-test:\n  "),
        "{said}"
    );
    assert!(
        said.contains("a Pki for the service app1 is admitted\n"),
        "{said}"
    );
    let error = test("app9").unwrap_err();
    let sentence = "a Pki for the service app9 was not admitted: admission webhook";
    assert!(error.contains(sentence), "{error}");

    // By default there is no policy, or none for this namespace.
    arena.delete_all("pkipolicies");
    eventually("no policy refuses it as well", || {
        run(&hook.kubeconfig, None)
            .ok()
            .filter(|said| said.contains("no PkiPolicy applies to"))
    });

    operator.process.kill().unwrap();
    let error = test("app1").unwrap_err();
    let sentence = "the API server cannot ask the operator: ";
    assert!(error.contains(sentence), "{error}");

    arena.without_webhooks();
    let error = test("app1").unwrap_err();
    let sentence =
        "check whether there is a ValidatingWebhookConfiguration with validate.pkis.box.com";
    assert!(error.contains(sentence), "{error}");
    let stored = arena.api.list("pkis", "", "", "").unwrap();
    assert_eq!(stored, [] as [serde_json::Value; 0]);
}

fn run(kubeconfig: &Path, admits: Option<&str>) -> Result<String, String> {
    let mut operator = Command::new(operator_binary());
    operator.args(["self-test", "--namespace", RELEASE]);
    operator.args(admits.map(|service| format!("--admits={service}")));
    let output = operator.env("KUBECONFIG", kubeconfig).output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}
