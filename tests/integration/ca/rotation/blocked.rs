//! A rotation of the CA ends in spite of blockers: the operator names them, and goes on without
//! them.

use super::*;
use crate::harness::PATIENCE;
use std::process::Command;
use std::time::Instant;

/// How long a step takes where the steps are counted. By force there are two and a half, and half a
/// step is left for a slow machine.
const LONG_STEP: Duration = Duration::from_secs(12);
/// A step that no test waits for.
const ENDLESS_STEP: &str = "--ca-step-seconds=60";
/// Those in the way, by the names of their objects.
const NAMED: [&str; 4] = ["frozen", "moved", "pki-trust-bundle", "refused"];

fn apply(ns: &Namespace<'_>, name: &str, spec: &Value) {
    ns.apply_pki(name, &spec.to_string());
    ns.wait_until_ready(name);
}

fn merge(ns: &Namespace<'_>, kind: &str, name: &str, change: &Value) {
    ns.merge(kind, name, change);
}

/// All that a tenant can do to keep a rotation waiting.
fn block(ns: &Namespace<'_>) {
    for name in ["frozen", "held", "moved"] {
        apply(ns, name, &json!({"serviceName": "app1"}));
    }
    ns.password();
    let reference = json!({"passwordSecretRef": {"name": "password", "key": "password"}});
    let outputs = json!({"serviceName": "app1", "outputs": {"pkcs12": reference}});
    apply(ns, "keystore", &outputs);
    ns.permit(&["app3"], "");
    apply(
        ns,
        "refused",
        &json!({"serviceName": "app3", "duration": "80000h"}),
    );
    ns.label("box.com/trust-bundle", Some("true"));
    eventually("the CA bundle is there", || {
        ns.get("configmap", "pki-trust-bundle")
    });

    merge(ns, "secret", "frozen", &json!({"immutable": true}));
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    merge(ns, "pki", "held", &hold);
    ns.delete_later("pki", "held");
    ns.apply_object(&theirs());
    merge(
        ns,
        "pki",
        "moved",
        &json!({"spec": {"secretName": "theirs"}}),
    );
    ns.wait_until_refused("moved", "PkiSecretForeign");
    ns.delete("secret", "password");
    ns.wait_until_refused("keystore", "PkiKeystoreNotWritten");
    let frozen = json!({"immutable": true, "metadata": {"finalizers": ["example.com/hold"]}});
    merge(ns, "configmap", "pki-trust-bundle", &frozen);
    ns.withdraw();
    ns.wait_until_refused("refused", "PkiServiceNameError");
}

/// Removes the finalizers, so that nothing outlives the test.
fn release(ns: &Namespace<'_>) {
    let release = json!({"metadata": {"finalizers": null}});
    merge(ns, "configmap", "pki-trust-bundle", &release);
    merge(ns, "pki", "held", &release);
}

/// A Secret of somebody else.
fn theirs() -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": "theirs"}})
}

fn ask(arena: &Installed, value: &str) {
    annotate(arena, "box.com/rotate-now", value);
}

/// The names of those in the way, as the ledger has them now.
fn blockers(arena: &Installed) -> Vec<String> {
    let report = ledger(arena)["rotation.json"].take();
    let report: Value = serde_json::from_str(report.as_str().unwrap_or("{}")).unwrap();
    let found = report["blockers"].as_array().cloned().unwrap_or_default();
    let names = found
        .iter()
        .map(|it| it["name"].as_str().unwrap().to_owned());
    names.collect()
}

fn page_of_plugin(arena: &Installed) -> String {
    let kubeconfig = arena.cluster.kubeconfig();
    let plugin = Command::new(env!("CARGO_BIN_EXE_kubectl-pki"))
        .args(["status", "--all-namespaces"])
        .env("KUBECONFIG", kubeconfig)
        .output()
        .unwrap();
    String::from_utf8(plugin.stdout).unwrap()
}

/// Reads the Events of this reason by the command of the guide.
fn notes_on_ca(arena: &Installed, reason: &str) -> String {
    let own = "--namespace=pki-operator";
    let events = arena.kubectl(&["events", own, "--for=secret/pki-operator-ca"]);
    let events = events.unwrap();
    let lines: Vec<_> = events
        .lines()
        .filter(|line| line.contains(reason))
        .collect();
    lines.join("\n")
}

#[test]
fn a_forced_rotation_ends_within_three_steps_in_spite_of_blockers() {
    let arena = arena();
    arena.forget_cas();
    let step = format!("--ca-step-seconds={}", LONG_STEP.as_secs());
    let operator = arena.first_replica("operator-1", &[&step]).unwrap();
    let ns = arena.namespace("forced");
    let shaking = ["server", "client"];
    for name in shaking {
        apply(&ns, name, &json!({"serviceName": "app1"}));
    }
    block(&ns);
    // A password that is missing holds up a keystore, and not its CA.
    let reached = ["server", "client", "keystore"];
    let before = reached.map(|name| ns.get("pki", name).unwrap());
    let old = ledger(&arena)["current.crt"].as_str().unwrap().to_owned();

    let mut named = std::collections::BTreeSet::new();
    shaking_hands(&ns, || {
        ask(&arena, "force");
        let begin = Instant::now();
        loop {
            named.extend(blockers(&arena));
            let ledger = ledger(&arena);
            if ledger["current.crt"] != old.as_str() && ledger["ca.crt"] == ledger["current.crt"] {
                break;
            }
            assert!(begin.elapsed() < 3 * LONG_STEP + PATIENCE, "{ledger}");
            thread::sleep(Duration::from_millis(200));
        }
        let took = begin.elapsed();
        println!("the old root is withdrawn after {took:?}, in steps of {LONG_STEP:?}");
        assert!(took < 3 * LONG_STEP, "{took:?}");
    });
    assert_eq!(named.into_iter().collect::<Vec<_>>(), NAMED);
    for (name, before) in reached.into_iter().zip(before) {
        if shaking.contains(&name) {
            expect_replaced(&ns, name, &before);
        }
        let now = ns.get("pki", name).unwrap();
        assert_ne!(
            now["status"]["issuerFingerprint"], before["status"]["issuerFingerprint"],
            "{name}"
        );
        let trusted = file(&ns.get("secret", name).unwrap(), "ca.crt");
        assert!(!trusted.contains(&old));
    }
    // The Secrets of a refused Pki, and of one that names another by now, are in use and can be
    // written.
    for name in ["refused", "moved"] {
        eventually("the new root is there", || {
            let trusted = file(&ns.get("secret", name)?, "ca.crt");
            (ledger(&arena)["ca.crt"] == trusted).then_some(())
        });
    }
    let secret = secret(&arena);
    assert_eq!(retired_keys(&secret), Vec::<String>::new(), "it was stolen");
    let annotations = &secret["metadata"]["annotations"];
    assert!(annotations["box.com/rotate-now"].is_null(), "{annotations}");
    expect_named(&arena, &operator);
    release(&ns);
}

/// Those that have a certificate of the CA that was withdrawn are named as long as they have it.
fn expect_named(arena: &Installed, operator: &Operator) {
    let page = eventually("the plugin names those who are left", || {
        let page = page_of_plugin(arena);
        page.contains("was withdrawn by force at").then_some(page)
    });
    let notes = notes_on_ca(arena, "CaRotationBlocked");
    for name in ["frozen", "moved", "refused"] {
        assert!(page.contains(&format!("/{name}: Pki")), "{page}");
        assert!(notes.contains(&format!("/{name}: Pki")), "{notes}");
    }
    assert!(!page.contains("/held: "), "{page}");
    let metrics = operator.get("/metrics").unwrap().1;
    for (reason, count) in [("failed", 1), ("foreign", 1), ("refused", 1), ("behind", 0)] {
        let line = format!("pki_operator_ca_rotation_blocked_by{{reason=\"{reason}\"}} {count}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

#[test]
fn a_rotation_goes_on_without_a_secret_that_cannot_be_written_and_its_ca_stays_trusted() {
    let arena = arena();
    arena.forget_cas();
    let flags = ["--ca-step-seconds=3", "--ca-wait-seconds=6"];
    let _operator = arena.first_replica("operator-1", &flags).unwrap();
    let ns = arena.namespace("bounded");
    for name in ["server", "frozen"] {
        apply(&ns, name, &json!({"serviceName": "app1"}));
    }
    merge(&ns, "secret", "frozen", &json!({"immutable": true}));
    let current = || ledger(&arena)["current.crt"].as_str().unwrap().to_owned();
    let first = current();
    ask(&arena, "1");
    eventually("the one in the way is named", || {
        (blockers(&arena) == ["frozen"]).then_some(())
    });
    let page = page_of_plugin(&arena);
    assert!(page.contains("/frozen: PkiIssuanceFailed"), "{page}");
    assert!(page.contains("what to do: "), "{page}");
    // A second request meanwhile is answered, and served later.
    ask(&arena, "2");
    eventually("the second request is answered", || {
        let events = arena.api.list("events", RELEASE, "", "").ok()?;
        let mut events = events.iter();
        events
            .any(|event| event["reason"] == "CaRotationWaits")
            .then_some(())
    });
    let notes = notes_on_ca(&arena, "CaRotationWaits");
    assert!(
        notes.contains("a rotation has been under way since"),
        "{notes}"
    );
    let second = eventually("the next CA signs all the same", || {
        Some(current()).filter(|current| *current != first)
    });
    let trusted = |name: &str| file(&ns.get("secret", name).unwrap(), "ca.crt");
    eventually("its certificate is replaced", || {
        let pki = ns.get("pki", "server")?["status"].take();
        let frozen = ns.get("pki", "frozen")?["status"].take();
        (pki["issuerFingerprint"] != frozen["issuerFingerprint"]).then_some(())
    });
    eventually("the one that was asked for meanwhile signs", || {
        Some(current()).filter(|current| *current != second)
    });
    eventually("the second one is withdrawn", || {
        (!trusted("server").contains(&second)).then_some(())
    });
    assert!(trusted("server").contains(&first), "it is in use");
    assert_eq!(retired_keys(&secret(&arena)).len(), 2);

    ns.delete("secret", "frozen");
    eventually("the first one is withdrawn", || {
        (!trusted("server").contains(&first)).then_some(())
    });
    assert_eq!(retired_keys(&secret(&arena)).len(), 2, "they are kept");
}

/// The status of a Pki speaks for the Secrets that it wrote before, too.
#[test]
fn the_secrets_of_before_get_the_next_root_also_while_their_pki_is_refused() {
    let arena = arena();
    arena.forget_cas();
    let _operator = arena.first_replica("operator-1", &[ENDLESS_STEP]).unwrap();
    let ns = arena.namespace("before");
    let spec = |secret: &str| json!({"serviceName": "app1", "secretName": secret}).to_string();
    for secret in ["first", "second"] {
        ns.pod_with(secret, secret);
        ns.apply_pki("web", &spec(secret));
        eventually("the Secret is in use", || {
            let status = ns.get("pki", "web")?["status"].take();
            (status["secretName"] == secret).then_some(())
        });
    }
    ns.apply_object(&theirs());
    ns.apply_pki("web", &spec("theirs"));
    ns.wait_until_refused("web", "PkiSecretForeign");
    ask(&arena, "1");
    let next = eventually("the next CA is published", || {
        ledger(&arena)["next.crt"].as_str().map(str::to_owned)
    });
    eventually("both Secrets hold both roots", || {
        let secrets = ["first", "second"].map(|name| ns.get("secret", name));
        secrets
            .into_iter()
            .all(|secret| certificates(&file(&secret.unwrap(), "ca.crt")) == 2)
            .then_some(())
    });
    assert_ne!(ledger(&arena)["current.crt"], next.as_str(), "it waits");
}
