//! Events on pods that wait for something that the operator does not provide.

use crate::harness::{Namespace, SHARED, eventually, notes};
use serde_json::{Value, json};

/// Makes two pods with this spec, as of a Deployment; their names.
fn replicas(ns: &Namespace<'_>, name: &str, spec: &Value) -> [String; 2] {
    let spec = spec.to_string();
    let fields = spec.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
    let fields = fields.expect("it is an object");
    let names = ["1", "2"].map(|number| format!("{name}-{number}"));
    for pod in &names {
        ns.pod(pod, fields);
    }
    names
}

fn volume(source: &Value) -> Value {
    let mut volume = json!({"name": "v"});
    json_patch::merge(&mut volume, source);
    json!({"volumes": [volume]})
}

fn items(key: &str, optional: bool) -> Value {
    let items = json!([{"key": key, "path": "f"}]);
    volume(&json!({"secret": {"secretName": "web", "items": items, "optional": optional}}))
}

/// The one line that each of these pods reads from the operator in `kubectl describe pod`.
fn described(ns: &Namespace<'_>, pods: &[String], reason: &str) -> String {
    let mut lines = pods.iter().map(|pod| {
        eventually(&format!("{pod} has {reason}"), || {
            let events = ns.events("Pod", pod);
            events.iter().find(|event| event["reason"] == reason)?;
            let printed = ns.kubectl(&["describe", "pod", pod]).ok()?;
            let mut lines = printed
                .lines()
                .filter(|line| line.contains(" pki-operator "));
            let line = lines.next()?;
            assert_eq!(lines.next(), None, "{printed}");
            let (head, said) = line.split_once(" pki-operator ")?;
            assert!(
                head.contains("Warning") && head.contains(reason),
                "{printed}"
            );
            Some(said.trim().to_owned())
        })
    });
    let first = lines.next().unwrap();
    assert!(lines.all(|line| line == first));
    first
}

#[test]
fn a_file_that_the_secret_does_not_have_is_named_with_what_adds_it() {
    let ns = SHARED.namespace("files");
    ns.apply_pki("web", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("web");
    let env =
        json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "web", "key": "key.der"}}}]);
    let init = json!({"initContainers": [{"name": "i", "image": "i", "env": env}]});
    let begin = format!("Secret web of Pki {}/web has no", ns.name);
    let end = "; the files are ca.crt, tls.crt, tls.key";
    let keystore = replicas(&ns, "keystore", &items("keystore.p12", false));
    let typo = replicas(&ns, "typo", &items("tls.cert", false));
    let der = replicas(&ns, "der", &init);
    ns.pod_with("whole", "web");
    for (name, spec) in [
        ("optional", items("keystore.p12", true)),
        ("usual", items("tls.crt", false)),
    ] {
        replicas(&ns, name, &spec);
    }
    assert_eq!(
        described(&ns, &keystore, "PkiFileMissing"),
        format!(
            "{begin} keystore.p12: add spec.outputs.pkcs12 to Pki web (pkcs12: {{passwordSecretRef: {{name: <a Secret with a \
             password>, key: <its key>}}}}){end}"
        )
    );
    assert_eq!(
        described(&ns, &typo, "PkiFileMissing"),
        format!("{begin} tls.cert: did you mean tls.crt?{end}")
    );
    assert_eq!(
        described(&ns, &der, "PkiFileMissing"),
        format!("{begin} key.der: add spec.outputs.derKey to Pki web (derKey: true){end}")
    );
    for pod in ["whole", "optional-1", "usual-1"] {
        assert_eq!(notes(&ns.events("Pod", pod)), Vec::<String>::new(), "{pod}");
    }

    ns.apply_pki(
        "web",
        r#"{"serviceName": "app1", "outputs": {"derKey": true}}"#,
    );
    for pod in &der {
        let published = notes(&ns.wait_for_events("Pod", pod, 2));
        assert_eq!(
            published[1],
            "Normal: Secret web has key.der now: the pod continues when its kubelet tries again, within two minutes"
        );
    }
    // The removal of a file that pods name is warned of.
    let spec = r#"{"apiVersion": "box.com/v1", "kind": "Pki", "metadata": {"name": "web"}, "spec": {"serviceName": "app1"}}"#;
    let apply = [
        "apply",
        "--server-side",
        "--dry-run=server",
        "--filename=-",
        "--warnings-as-errors",
        "--namespace",
        &ns.name,
    ];
    let warned = ns
        .installed
        .kubectl_with(spec, &apply)
        .unwrap_err()
        .to_string();
    let expected = "Warning: spec.outputs: key.der is removed, and 2 pods read Secret web (der-1, der-2) by that name: a pod that \
                    reads it cannot start again";
    assert!(warned.contains(expected), "{warned}");
}

#[test]
fn a_missing_ca_bundle_is_published_with_the_label_to_set() {
    let ns = SHARED.namespace("unlabelled");
    let mounted = json!({"configMap": {"name": "pki-trust-bundle"}});
    let projected =
        json!({"projected": {"sources": [{"configMap": {"name": "pki-trust-bundle"}}]}});
    let (optional, other) = (
        json!({"configMap": {"name": "pki-trust-bundle", "optional": true}}),
        json!({"configMap": {"name": "settings"}}),
    );
    let mounted = replicas(&ns, "mounted", &volume(&mounted));
    let projected = replicas(&ns, "projected", &volume(&projected));
    let quiet_ones = [("optional", optional), ("other", other)];
    for (name, source) in &quiet_ones {
        replicas(&ns, name, &volume(source));
    }
    let expected = format!(
        "there is no ConfigMap pki-trust-bundle with the CA bundle, because namespace {0} does not have the label box.com/trust-bundle: label the namespace (kubectl label namespace {0} --overwrite box.com/trust-bundle=true), or ask \
         the platform team to do so",
        ns.name
    );
    for pods in [&mounted, &projected] {
        assert_eq!(described(&ns, pods, "TrustBundleNotRequested"), expected);
    }
    ns.label("box.com/trust-bundle", Some("true"));
    for pod in mounted.iter().chain(&projected) {
        let published = notes(&ns.wait_for_events("Pod", pod, 2));
        let expected = format!(
            "Normal: namespace {} asks for ConfigMap pki-trust-bundle now: ",
            ns.name
        );
        assert!(published[1].starts_with(&expected), "{published:?}");
    }
    for (name, _) in &quiet_ones {
        let pod = format!("{name}-1");
        assert_eq!(
            notes(&ns.events("Pod", &pod)),
            Vec::<String>::new(),
            "{name}"
        );
    }
    // The copy has one file.
    let items = json!([{"key": "ca-bundle.crt", "path": "f"}]);
    let wrong = json!({"configMap": {"name": "pki-trust-bundle", "items": items}});
    let wrong = replicas(&ns, "wrong", &volume(&wrong));
    assert_eq!(
        described(&ns, &wrong, "TrustBundleFileMissing"),
        "ConfigMap pki-trust-bundle has no ca-bundle.crt: the only file is ca.crt"
    );
}

#[test]
fn a_config_map_of_that_name_that_somebody_made_causes_no_event() {
    let ns = SHARED.namespace("own-bundle");
    ns.apply_object(&json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "pki-trust-bundle"}, "data": {"ca.crt": "own"}}));
    let source = json!({"configMap": {"name": "pki-trust-bundle"}});
    replicas(&ns, "own", &volume(&source));
    // One that does wait, to know how long to wait for the others.
    let other = SHARED.namespace("no-bundle");
    let waits = replicas(&other, "waits", &volume(&source));
    described(&other, &waits, "TrustBundleNotRequested");
    ns.barrier();
    assert_eq!(notes(&ns.events("Pod", "own-1")), Vec::<String>::new());
}

#[test]
fn a_pod_that_names_the_pki_instead_of_its_secret_gets_the_name_of_the_secret() {
    let ns = SHARED.namespace("namesake");
    ns.apply_pki("web", r#"{"serviceName": "app1", "secretName": "tls"}"#);
    ns.wait_until_ready("web");
    let pods = replicas(
        &ns,
        "web",
        &volume(&json!({"secret": {"secretName": "web"}})),
    );
    assert_eq!(
        described(&ns, &pods, "PkiSecretNotProvided"),
        format!(
            "no Pki provides Secret web: Pki {}/web writes Secret tls. Write tls in the pod, or secretName: web in the spec of the \
             Pki",
            ns.name
        )
    );
}
