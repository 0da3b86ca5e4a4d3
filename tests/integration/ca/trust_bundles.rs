//! What clients trust: the CA bundle in the namespaces that ask for it, and for the whole cluster.

use crate::harness::{Installed, Namespace, SHARED, arena, eventually, file, notes, openssl};
use pki_cluster::Options;
use pki_cluster::install::RELEASE;
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;

const NAME: &str = "pki-trust-bundle";
const SIGNER_BUNDLE: &str = "box.com:pki:ca";
const CA: &str = "pki-operator-ca";
/// The time in which the operator writes once in a namespace.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
const LABEL: &str = "box.com/trust-bundle";

#[test]
fn a_namespace_that_asks_gets_the_bundle_and_loses_it_when_it_asks_no_more() {
    let ns = SHARED.namespace("clients");
    let server = SHARED.namespace("server");
    server.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    server.wait_until_ready("app1-pki");
    let secret = server.get("secret", "app1-pki").unwrap();
    ask(&ns);
    let bundle = wait_for_bundle(&ns);
    assert_eq!(bundle.trim_end(), file(&secret, "ca.crt").trim_end());

    // What a client does with it.
    let path = SHARED.cluster.dir().join(format!("{}.crt", ns.name));
    std::fs::write(&path, bundle).unwrap();
    let host = format!("app1.{}.svc", server.name);
    let path = path.to_str().unwrap();
    let verify = |host: &str| {
        let arguments = [
            "verify",
            "-x509_strict",
            "-purpose",
            "sslserver",
            "-verify_hostname",
            host,
            "-CAfile",
            path,
        ];
        openssl(&arguments, &file(&secret, "tls.crt"))
    };
    assert_eq!(verify(&host), "stdin: OK");
    assert_eq!(verify("other.example"), "");

    assert_eq!(config_map(&server), None, "it was not asked for here");
    ns.label(LABEL, None);
    eventually("the bundle is gone", || {
        config_map(&ns).is_none().then_some(())
    });
    ns.label(LABEL, Some("yes"));
    thread::sleep(MIN_INTERVAL);
    barrier(&SHARED);
    assert_eq!(config_map(&ns), None, "only true asks");
    for (label, is_asking) in [("True", true), ("no", false), ("1", true), ("F", false)] {
        ns.label(LABEL, Some(label));
        eventually(label, || {
            (config_map(&ns).is_some() == is_asking).then_some(())
        });
    }
}

#[test]
fn a_config_map_that_somebody_else_made_is_left_as_it_is_and_replaced_once_it_is_gone() {
    let labels =
        json!({"app.kubernetes.io/managed-by": "pki-operator", "box.com/trust-bundle": "true"});
    for (labels, manager) in [
        (json!({}), "kubectl"),
        (labels, "kubectl"),
        (json!({}), "pki-operator"),
    ] {
        let ns = SHARED.namespace("theirs");
        let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "labels": labels},
            "data": {"ca.crt": "theirs"}});
        SHARED.api.apply_as(manager, &ns.name, &theirs).unwrap();
        let before = config_map(&ns);
        ask(&ns);
        let published = eventually("it is said", || {
            let published = notes(&ns.events("ConfigMap", NAME));
            (!published.is_empty()).then_some(published)
        });
        let sentence = format!(
            "Warning: ConfigMap {}/{NAME} exists and is not the operator's, so the operator does not change it and it does not follow \
             the CA: delete it to get the CA bundle there, or remove the label box.com/trust-bundle from the namespace",
            ns.name
        );
        assert_eq!(published, [sentence]);
        ns.label(LABEL, None);
        barrier(&SHARED);
        ask(&ns);
        barrier(&SHARED);
        assert_eq!(config_map(&ns), before, "not a byte has changed");
        assert_eq!(ns.operator_writes().into_keys().collect::<Vec<_>>(), []);

        ns.delete("configmap", NAME);
        wait_for_bundle(&ns);
    }
}

#[test]
fn a_copy_that_is_edited_or_deleted_comes_back() {
    let ns = SHARED.namespace("edited");
    ask(&ns);
    let bundle = wait_for_bundle(&ns);
    for change in [
        json!({"data": {"ca.crt": "theirs"}}),
        json!({"data": {"ca.crt": null}}),
        json!({"data": null}),
        json!({"data": null, "binaryData": {"ca.crt": "AAAA"}}),
        json!({"data": {"ca.crt": "theirs"}, "immutable": true}),
        json!({"data": {"ca.crt": "theirs", "own.crt": "own"}}),
    ] {
        ns.merge("configmap", NAME, &change);
        eventually(&format!("it is repaired after {change}"), || {
            (content(&config_map(&ns)?) == bundle).then_some(())
        });
    }
    let repaired = config_map(&ns).unwrap();
    assert_eq!(repaired["data"]["own.crt"], "own", "it does no harm");
    ns.delete("configmap", NAME);
    assert_eq!(wait_for_bundle(&ns), bundle);

    ns.annotate("configmap", NAME, "note", "theirs");
    thread::sleep(MIN_INTERVAL);
    barrier(&SHARED);
    let writes = ns.operator_writes();
    ns.merge(
        "configmap",
        NAME,
        &json!({"metadata": {"annotations": {"note": null}}}),
    );
    barrier(&SHARED);
    assert_eq!(ns.operator_writes(), writes, "a valid copy is not written");
}

#[test]
fn a_copy_that_finalizers_hold_is_named_and_left_in_peace_until_it_is_gone() {
    let ns = SHARED.namespace("held");
    ask(&ns);
    let bundle = wait_for_bundle(&ns);
    let patch = json!([
        {"op": "replace", "path": "/data/ca.crt", "value": "theirs"},
        {"op": "add", "path": "/immutable", "value": true},
        {"op": "add", "path": "/metadata/finalizers", "value": ["example.com/hold"]},
    ]);
    let patched = SHARED.api.patch("configmap", &ns.name, NAME, &patch);
    patched.unwrap();
    let published = eventually("it is said", || {
        let published = notes(&ns.events("ConfigMap", NAME));
        (!published.is_empty()).then_some(published)
    });
    let sentence = format!(
        "ConfigMap {}/{NAME} does not hold the CA bundle, is immutable, and its deletion waits for its finalizers \
         [example.com/hold]: remove those, and the operator makes it again",
        ns.name
    );
    assert_eq!(published, [format!("Warning: {sentence}")]);
    eventually("it counts", || {
        let (_, page) = SHARED.operator.get("/metrics").ok()?;
        let failing = "pki_operator_trust_bundles{state=\"failing\"} ";
        let count = page.lines().find_map(|line| line.strip_prefix(failing))?;
        (count != "0").then_some(())
    });
    // Annotations change nothing, though the watch has an event for each.
    for number in 0..5 {
        ns.annotate("configmap", NAME, "note", &number.to_string());
        // The operator tries again after 1, 2 and 4 s.
        thread::sleep(Duration::from_millis(1500));
    }
    let writes = ns.operator_writes().into_iter();
    let writes: Vec<_> = writes
        .map(|(write, count)| (write.what, write.code, count))
        .collect();
    let once = |what: &str, code| (what.to_owned(), code, 1);
    assert_eq!(
        writes,
        [
            once("create configmaps", 201),
            once("delete configmaps", 200)
        ]
    );
    let log = SHARED.operator.process.log();
    assert_eq!(log.matches(&sentence).count(), 1);

    ns.merge(
        "configmap",
        NAME,
        &json!({"metadata": {"finalizers": null}}),
    );
    assert_eq!(wait_for_bundle(&ns), bundle);
}

#[test]
fn a_namespace_with_the_label_can_be_deleted() {
    let ns = SHARED.namespace("going");
    ask(&ns);
    wait_for_bundle(&ns);
    ns.delete("namespace", &ns.name);
    let refused: Vec<_> = ns
        .operator_writes()
        .into_keys()
        .filter(|write| write.code >= 400)
        .collect();
    assert_eq!(refused, []);
}

#[test]
fn an_api_server_without_cluster_trust_bundles_is_no_fault() {
    let options = Options {
        before_1_37: true,
        ..Options::default()
    };
    let installed = Installed::start(&["app1"], options).unwrap();
    let operator = installed.first_replica("operator-1", &[]).unwrap();
    let ns = installed.namespace("plain");
    ask(&ns);
    wait_for_bundle(&ns);
    let sentence = "the API server has no ClusterTrustBundle";
    eventually("it is said", || {
        let log = operator.process.log();
        log.contains(sentence).then_some(())
    });
    let log = operator.process.log();
    assert_eq!(log.matches(sentence).count(), 1);
    assert!(!log.contains("failed to write the ClusterTrustBundle"));
}

#[test]
fn a_restart_writes_nothing_and_repairs_what_was_changed_meanwhile() {
    let arena = arena();
    let (ns, other) = (arena.namespace("restart"), arena.namespace("restart"));
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    ask(&ns);
    ask(&other);
    let bundle = wait_for_bundle(&ns);
    wait_for_bundle(&other);
    eventually("the ClusterTrustBundles hold the same", || {
        let is_same = |name| cluster_bundle_called(&arena, name).as_ref() == Some(&bundle);
        (is_same(NAME) && is_same(SIGNER_BUNDLE)).then_some(())
    });
    let seen = || {
        let bundle = arena.api.get("clustertrustbundle", "", NAME).unwrap();
        (config_map(&ns), bundle, ns.operator_writes())
    };
    let before = seen();
    operator.stop().unwrap();

    other.label(LABEL, None);
    let operator = arena.first_replica("operator-2", &[]).unwrap();
    eventually("what is not asked for any more is gone", || {
        config_map(&other).is_none().then_some(())
    });
    eventually("the other is known", || {
        let (_, page) = operator.get("/metrics").ok()?;
        page.contains("pki_operator_trust_bundles{state=\"current\"} 1\n")
            .then_some(())
    });
    barrier(&arena);
    assert_eq!(seen(), before);
    operator.stop().unwrap();

    let pem = openssl(
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "/dev/null",
            "-subj",
            "/CN=theirs",
        ],
        "",
    );
    let change = json!({"spec": {"trustBundle": pem + "\n"}, "metadata": {"annotations": {"note": "theirs"}}});
    arena
        .api
        .merge("clustertrustbundle", "", NAME, &change)
        .unwrap();
    ns.delete("configmap", NAME);
    let _operator = arena.first_replica("operator-3", &[]).unwrap();
    assert_eq!(wait_for_bundle(&ns), bundle);
    eventually("the ClusterTrustBundle is repaired", || {
        (cluster_bundle(&arena)? == bundle).then_some(())
    });
}

#[test]
fn a_rotation_waits_until_clients_know_the_new_ca_but_not_for_ever() {
    let arena = arena();
    let (ns, stuck) = (arena.namespace("rotate"), arena.namespace("stuck"));
    let operator = arena
        .first_replica("operator-1", &["--ca-step-seconds=1"])
        .unwrap();
    ask(&ns);
    ask(&stuck);
    let old = wait_for_bundle(&ns);
    wait_for_bundle(&stuck);
    forbid_updates(&stuck);

    let (rotate, please) = ("box.com/rotate-now", Some("please"));
    let annotated = arena.api.annotate("secret", RELEASE, CA, rotate, please);
    annotated.unwrap();
    let both = eventually("the copy that can be written holds both", || {
        let bundle = content(&config_map(&ns)?);
        (roots(&bundle) == 2).then_some(bundle)
    });
    assert!(both.contains(old.trim_end()));
    eventually("the ClusterTrustBundle holds both", || {
        (roots(&cluster_bundle(&arena)?) == 2).then_some(())
    });
    // Longer than a step.
    thread::sleep(Duration::from_secs(3));
    assert_eq!(
        ledger(&arena, "next-published"),
        "",
        "it waits for the other"
    );
    assert_ne!(ledger(&arena, "next.crt"), "");
    eventually("it does not wait for ever", || {
        (!ledger(&arena, "previous.crt").is_empty() || !ledger(&arena, "next-published").is_empty())
            .then_some(())
    });
    assert_eq!(content(&config_map(&stuck).unwrap()), old);
    permit_updates(&stuck);

    let new = eventually("the old one is withdrawn", || {
        let bundle = content(&config_map(&ns)?);
        (roots(&bundle) == 1).then_some(bundle)
    });
    assert!(both.contains(new.trim_end()) && new != old);
    eventually("so it is in the others", || {
        let bundles = [content(&config_map(&stuck)?), cluster_bundle(&arena)?];
        (bundles == [new.clone(), new.clone()]).then_some(())
    });
    eventually("the old key is gone", || {
        let secret = arena.api.get("secret", RELEASE, CA).ok()??;
        secret["data"]["next.key"].is_null().then_some(())
    });
    operator.stop().unwrap();
}

fn ask(ns: &Namespace<'_>) {
    ns.label(LABEL, Some("true"));
}

fn config_map(ns: &Namespace<'_>) -> Option<Value> {
    ns.get("configmap", NAME)
}

fn content(config_map: &Value) -> String {
    let content = config_map["data"]["ca.crt"].as_str();
    content.unwrap_or_default().to_owned()
}

/// Waits for the `ConfigMap`; returns what it holds.
fn wait_for_bundle(ns: &Namespace<'_>) -> String {
    eventually("the bundle is there", || {
        let bundle = content(&config_map(ns)?);
        bundle.contains("BEGIN CERTIFICATE").then_some(bundle)
    })
}

fn cluster_bundle(arena: &Installed) -> Option<String> {
    cluster_bundle_called(arena, NAME)
}

fn cluster_bundle_called(arena: &Installed, name: &str) -> Option<String> {
    let bundle = arena.api.get("clustertrustbundle", "", name).ok()??;
    bundle["spec"]["trustBundle"].as_str().map(str::to_owned)
}

fn roots(bundle: &str) -> usize {
    bundle.matches("BEGIN CERTIFICATE").count()
}

/// What the `ConfigMap` about the CA has under this key.
fn ledger(arena: &Installed, key: &str) -> String {
    let map = arena.api.get("configmap", RELEASE, CA).unwrap();
    let map = map.expect("there is a state of the CA");
    map["data"][key].as_str().unwrap_or_default().to_owned()
}

/// Makes the API server refuse updates of the copy in this namespace.
fn forbid_updates(ns: &Namespace<'_>) {
    let name = &ns.name;
    let metadata = json!({"name": name});
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": metadata,
        "spec": {"validations": [{"expression": "false"}], "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
            "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["configmaps"]}]}}});
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": metadata, "spec": {"policyName": name, "validationActions": ["Deny"]}});
    for manifest in [policy, binding] {
        ns.apply(&manifest.to_string());
    }
    let mut probe = 0;
    eventually("updates are refused", || {
        probe += 1;
        let api = &ns.installed.api;
        let annotated = api.annotate("configmap", name, NAME, "probe", Some(&probe.to_string()));
        annotated.err()
    });
}

fn permit_updates(ns: &Namespace<'_>) {
    for kind in [
        "validatingadmissionpolicybinding",
        "validatingadmissionpolicy",
    ] {
        ns.installed.api.delete(kind, "", &ns.name).unwrap();
    }
}

/// Waits until the controller of CA bundles has processed the changes of before: it writes the
/// bundle of a namespace that asks later.
fn barrier(installed: &Installed) {
    let later = installed.namespace("later");
    ask(&later);
    wait_for_bundle(&later);
}
