//! The operator of some namespaces: it serves these, and nothing of the others.

use crate::harness::{
    Hook, Installed, Line, Namespace, arena, eventually, file, notes, operator_binary, quiet,
};
use pki_cluster::install::{self, Operator, Replica};
use pki_cluster::testing::Api;
use std::process::Command;
use std::thread;
use std::time::Duration;

const PKI: &str = r#"{"serviceName": "app1"}"#;
const TYPO: &str = r#"{"serviceName": "appp1"}"#;
const BUNDLE: &str = "pki-trust-bundle";

/// The chart with these namespaces.
fn install(arena: &Installed, served: &[&Namespace<'_>]) {
    arena.install_with(&[&value(served)]).unwrap();
}

fn value(served: &[&Namespace<'_>]) -> String {
    format!("namespaces={{{}}}", names(served))
}

/// The operator, as that chart would run it.
fn start(arena: &Installed, served: &[&Namespace<'_>]) -> Operator {
    let flag = format!("--namespaces={}", names(served));
    let flags = [&flag, "--ca-step-seconds=1"];
    arena.first_replica("operator-1", &flags).unwrap()
}

fn names(served: &[&Namespace<'_>]) -> String {
    let names: Vec<_> = served.iter().map(|ns| ns.name.as_str()).collect();
    names.join(",")
}

#[test]
fn the_listed_namespaces_are_served_and_nothing_else_is_touched() {
    let arena = arena();
    let [one, two, elsewhere] = ["one", "two", "elsewhere"].map(|prefix| arena.namespace(prefix));
    arena
        .api
        .delete_later("clustertrustbundle", "", BUNDLE)
        .unwrap();
    install(&arena, &[&one, &two]);
    let operator = start(&arena, &[&one, &two]);
    for ns in [&one, &two, &elsewhere] {
        ns.pod_with("app1", "app1-pki");
        ns.label("box.com/trust-bundle", Some("true"));
    }

    for ns in [&one, &two] {
        let refusal = ns.try_apply_pki("app1-pki", TYPO).unwrap_err();
        assert!(refusal.contains(r#"did you mean "app1"?"#), "{refusal}");
        let published = notes(&ns.wait_for_events("Pod", "app1", 1));
        assert!(
            published[0].contains(r#"did you mean "app1"?"#),
            "{published:?}"
        );
        ns.apply_pki("app1-pki", PKI);
        ns.wait_until_ready("app1-pki");
        eventually("the CA bundle is there", || ns.get("configmap", BUNDLE));
    }

    // `helm test` asks where the operator is asked.
    let hook = Hook::with(
        &arena,
        "templates/tests/refusal.yaml",
        "pki-operator-test",
        &[&value(&[&one, &two])],
    );
    let mut test = Command::new(operator_binary());
    test.args(["self-test", "--namespace", &one.name, "--admits=app1"]);
    install::run(test.env("KUBECONFIG", &hook.kubeconfig)).unwrap();

    // Nobody objects to it, fills in a default, or issues anything.
    elsewhere.apply_pki("typo", TYPO);
    elsewhere.apply_pki("app1-pki", PKI);
    // Nothing tells when an operator that does not watch a namespace has had the time to touch it.
    quiet();
    let stored = elsewhere.get("pki", "app1-pki").unwrap();
    assert_eq!(stored["spec"].to_string(), PKI.replace(' ', ""));
    assert_eq!(stored.get("status"), None);
    assert_eq!(elsewhere.get("secret", "app1-pki"), None);
    assert_eq!(elsewhere.get("configmap", BUNDLE), None);
    assert_eq!(elsewhere.events("Pod", "app1").len(), 0);
    assert_eq!(elsewhere.operator_writes().len(), 0);
    let bundle = arena.api.get("clustertrustbundle", "", BUNDLE).unwrap();
    assert_eq!(
        bundle, None,
        "what the whole cluster reads is not for the operator of some namespaces"
    );

    assert_eq!(read_secrets(&arena, &elsewhere).unwrap_err(), "forbidden");
    assert_eq!(read_secrets(&arena, &one), Ok(()));
    assert_eq!(operator.get("/readyz").unwrap(), (200, "ok\n".into()));
    let log = operator.process.log();
    assert!(
        !log.contains("the watch broke") && !log.contains("forbidden"),
        "{log}"
    );
    // Other tests count those that ask.
    for ns in [&one, &two, &elsewhere] {
        ns.label("box.com/trust-bundle", None);
    }
}

#[test]
fn a_ca_outside_of_the_namespaces_that_are_served_is_rotated_all_the_same() {
    let arena = arena();
    let ns = arena.namespace("rotated");
    install(&arena, &[&ns]);
    let _operator = start(&arena, &[&ns]);
    ns.apply_pki("app1-pki", PKI);
    ns.wait_until_ready("app1-pki");
    let before = roots(&ns);
    rotate(&arena);
    wait_until_rotated(&ns, &before);
}

#[test]
fn a_namespace_that_may_not_be_read_keeps_nobody_from_being_served() {
    let arena = arena();
    let [readable, refused] = ["readable", "refused"].map(|prefix| arena.namespace(prefix));
    install(&arena, &[&readable, &refused]);
    refused.delete("rolebinding", "pki-operator-namespace");
    eventually("it may not be read", || {
        read_secrets(&arena, &refused).err()
    });
    let operator = start(&arena, &[&readable, &refused]);
    for ns in [&readable, &refused] {
        ns.apply_pki("app1-pki", PKI);
    }
    readable.wait_until_ready("app1-pki");
    let expected = format!(
        "ok\nnot served: namespace {}, whose configmaps, daemonsets, deployments, pkis, podcertificaterequests, pods, secrets, serviceaccounts, statefulsets may not be read\n",
        refused.name
    );
    eventually("it is said what is not served", || {
        (operator.get("/readyz").ok()? == (200, expected.clone())).then_some(())
    });
    let metric = format!(
        "pki_operator_namespace_refused{{namespace=\"{}\",resource=\"pkis\"}} 1\n",
        refused.name
    );
    let (_, page) = operator.get("/metrics").unwrap();
    assert!(page.contains(&metric), "{page}");
    assert_eq!(refused.get("secret", "app1-pki"), None);

    // There may be certificates of which nothing is known.
    let before = roots(&readable);
    rotate(&arena);
    let waits = "pki_operator_ca_rotation_waiting_for{reason=\"unpublished\"} 1\n";
    let is_waiting = || {
        let is_known = roots(&readable).matches("BEGIN CERTIFICATE").count() == 2;
        let (_, page) = operator.get("/metrics").ok()?;
        (is_known && page.contains(waits)).then_some(())
    };
    eventually("the next CA is made known", is_waiting);
    // Longer than the CA controller waits until it evaluates the CA again, and than a step.
    thread::sleep(Duration::from_secs(12));
    assert_eq!(is_waiting(), Some(()));

    install(&arena, &[&readable, &refused]);
    refused.wait_until_ready("app1-pki");
    wait_until_rotated(&readable, &before);
    eventually("all is served", || {
        (operator.get("/readyz").ok()? == (200, "ok\n".into())).then_some(())
    });

    // Once it is known, it is followed like any other.
    refused.delete("secret", "app1-pki");
    eventually("the Secret is back", || refused.get("secret", "app1-pki"));
    refused.delete("pki", "app1-pki");
    let gone = format!("{{namespace=\"{}\",name=\"app1-pki\"}}", refused.name);
    eventually("the Pki is forgotten", || {
        let (_, page) = operator.get("/metrics").ok()?;
        (!page.contains(&gone)).then_some(())
    });
}

#[test]
fn changes_while_a_namespace_may_not_be_read_are_reconciled_afterwards() {
    let arena = arena();
    let [kept, lost] = ["kept", "lost"].map(|prefix| arena.namespace(prefix));
    install(&arena, &[&kept, &lost]);
    let line = Line::to(&arena.kubeconfig);
    let flag = format!("--namespaces={},{}", kept.name, lost.name);
    let flags = [flag.as_str()];
    let replica = Replica {
        kubeconfig: &line.kubeconfig,
        ..arena.described("operator-1", arena.webhook, &flags)
    };
    let operator = replica.start(|name, command| arena.cluster.spawn(name, command));
    let operator = operator.unwrap();
    for (ns, name) in [(&kept, "app1-pki"), (&lost, "app1-pki"), (&lost, "gone")] {
        ns.apply_pki(name, PKI);
        ns.wait_until_ready(name);
    }
    let serial =
        |ns: &Namespace<'_>| ns.get("pki", "app1-pki").unwrap()["status"]["serialNumber"].clone();
    let before = [serial(&kept), serial(&lost)];

    lost.delete("rolebinding", "pki-operator-namespace");
    eventually("it may not be read", || read_secrets(&arena, &lost).err());
    line.cut();
    let refused = format!("not served: namespace {}", lost.name);
    eventually("that is noticed", || {
        operator
            .get("/readyz")
            .ok()?
            .1
            .contains(&refused)
            .then_some(())
    });
    lost.delete("pki", "gone");
    lost.delete("secret", "app1-pki");
    lost.apply_pki("new", PKI);
    kept.apply_pki("new", PKI);
    kept.wait_until_ready("new");

    install(&arena, &[&kept, &lost]);
    lost.wait_until_ready("new");
    eventually("the Secret is back", || lost.get("secret", "app1-pki"));
    let (_, page) = eventually("all is served", || {
        let is_served = operator.get("/readyz").ok()? == (200, "ok\n".into());
        is_served.then(|| operator.get("/metrics").ok()).flatten()
    });
    let ready = page
        .lines()
        .filter(|line| line.starts_with("pki_operator_pki_ready{"));
    assert_eq!(ready.count(), 4, "{page}");
    assert_eq!(
        serial(&kept),
        before[0],
        "the other namespace has not noticed"
    );
    assert_ne!(serial(&lost), before[1]);
}

#[test]
fn where_no_namespace_may_be_read_it_is_not_ready() {
    let arena = arena();
    let ns = arena.namespace("unbound");
    install(&arena, &[&ns]);
    ns.delete("rolebinding", "pki-operator-namespace");
    eventually("it may not be read", || read_secrets(&arena, &ns).err());
    let flag = format!("--namespaces={}", ns.name);
    let flags = [flag.as_str()];
    let replica = arena.described("operator-1", arena.webhook, &flags);
    let operator = replica.launch(|name, command| arena.cluster.spawn(name, command));
    let operator = operator.unwrap();
    let unready = "not ready: none of the namespaces to serve may be read\n";
    eventually("it says why", || {
        let (status, answer) = operator.get("/readyz").ok()?;
        (status == 503 && answer.starts_with(unready)).then_some(())
    });
    install(&arena, &[&ns]);
    eventually("it is ready", || {
        (operator.get("/readyz").ok()?.0 == 200).then_some(())
    });
}

/// Reads with the permissions of the operator.
fn read_secrets(arena: &Installed, ns: &Namespace<'_>) -> Result<(), &'static str> {
    let operator = Api::new(&arena.kubeconfig).expect("a kubeconfig");
    match operator.list("secrets", &ns.name, "", "") {
        Ok(_) => Ok(()),
        Err(error) => {
            let message = error.to_string();
            let is_forbidden = message.contains("cannot list resource \"secrets\"");
            assert!(is_forbidden, "{message}");
            Err("forbidden")
        }
    }
}

fn rotate(arena: &Installed) {
    let (ca, key) = ("pki-operator-ca", "box.com/rotate-now");
    let annotated = arena
        .api
        .annotate("secret", install::RELEASE, ca, key, Some(""));
    annotated.unwrap();
}

fn wait_until_rotated(ns: &Namespace<'_>, before: &str) {
    eventually("another CA is the only one", || {
        let roots = roots(ns);
        (roots != before && roots.matches("BEGIN CERTIFICATE").count() == 1).then_some(())
    });
}

fn roots(ns: &Namespace<'_>) -> String {
    file(&ns.get("secret", "app1-pki").unwrap(), "ca.crt")
}
