use super::*;
use crate::api;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

/// A cluster in which the Pki `ns/app1-pki` has written the Secret of its name.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a state that a test may choose"
)]
struct Cluster {
    outputs: Value,
    spoken_for: bool,
    removal: Option<Removal>,
    namesake: Option<&'static str>,
    is_for_pods: bool,
    label: Option<&'static str>,
    is_unknown: bool,
    serves_some: bool,
    /// Besides that of the Pki.
    has_all: bool,
}

impl ClusterView for Cluster {
    fn has_secret(&self, secret: &Key) -> bool {
        self.has_all || &*secret.name == "app1-pki"
    }

    fn is_explained_elsewhere(&self, _: &Key) -> bool {
        self.spoken_for
    }

    fn removal(&self, _: &Key) -> Option<Removal> {
        self.removal.clone()
    }

    fn written_by_namesake(&self, _: &Key) -> Option<Arc<str>> {
        self.namesake.map(Arc::from)
    }

    fn is_for_pods(&self, _: &Key) -> bool {
        self.is_for_pods
    }

    fn holder(&self, secret: &Key) -> Option<Pki> {
        (&*secret.name == "app1-pki").then(|| api::tests::pki(json!({ "outputs": self.outputs })))
    }

    fn knows(&self, _: &str) -> bool {
        !self.is_unknown
    }

    fn label(&self, _: &str) -> Option<String> {
        self.label.map(str::to_owned)
    }

    fn serves_cluster(&self) -> bool {
        !self.serves_some
    }
}

fn pod(spec: &Value) -> Arc<SecretUser> {
    let mut pod = json!({"metadata": {"namespace": "ns", "name": "a", "uid": "a"}, "spec": {"containers": []}});
    json_patch::merge(&mut pod["spec"], spec);
    Arc::new(serde_json::from_value::<Pod>(pod).unwrap().into())
}

fn volume(source: &Value) -> Value {
    let mut volume = json!({"name": "v"});
    json_patch::merge(&mut volume, source);
    json!({"volumes": [volume]})
}

fn secret(name: &str) -> Value {
    volume(&json!({"secret": {"secretName": name}}))
}

fn items(files: &[&str]) -> Value {
    let items: Vec<_> = files
        .iter()
        .map(|file| json!({"key": file, "path": file}))
        .collect();
    volume(&json!({"secret": {"secretName": "app1-pki", "items": items}}))
}

fn bundle() -> Value {
    volume(&json!({"configMap": {"name": "pki-trust-bundle"}}))
}

/// The Events on a pod with this spec. `present` are the files of the object that it names; `None`
/// if there is none.
fn messages(spec: &Value, cluster: &Cluster, present: Option<&[&str]>) -> Vec<String> {
    let present = present.map(|files| files.iter().map(ToString::to_string).collect::<Vec<_>>());
    let found = find(&[pod(spec)], "pki-trust-bundle", cluster);
    let mut messages: Vec<_> = found
        .keys()
        .filter(|finding| finding.unknown_object().is_none() || finding.holds(present.as_deref()))
        .map(|finding| {
            let words = finding.event(present.as_deref().unwrap_or_default());
            format!("{}: {}", words.reason, words.message)
        })
        .collect();
    messages.sort();
    messages
}

const USUAL: Option<&[&str]> = Some(&["ca.crt", "tls.crt", "tls.key"]);

#[test]
fn a_missing_file_is_reported_with_the_field_that_adds_it() {
    let begin = "PkiFileMissing: Secret app1-pki of Pki ns/app1-pki has no";
    let end = "; the files are ca.crt, tls.crt, tls.key";
    let example = "{passwordSecretRef: {name: <a Secret with a password>, key: <its key>}}";
    let env = |name: &str, key: &str| {
        json!({"containers": [{"name": "c", "env": [
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}]}]})
    };
    let init = json!({"initContainers": env("app1-pki", "key.der")["containers"]});
    let projected = volume(&json!({"projected": {"sources": [
        {"secret": {"name": "app1-pki", "items": [{"key": "key.der", "path": "k"}]}}]}}));
    for (spec, message) in [
        (
            items(&["keystore.p12"]),
            format!(" keystore.p12: add spec.outputs.pkcs12 to Pki app1-pki (pkcs12: {example})"),
        ),
        (
            items(&["truststore.p12", "keystore.p12"]),
            format!(
                " keystore.p12, truststore.p12: add spec.outputs.pkcs12 to Pki app1-pki (pkcs12: {example})"
            ),
        ),
        (
            items(&["tls-combined.pem"]),
            " tls-combined.pem: add spec.outputs.combinedPem to Pki app1-pki (combinedPem: true)"
                .into(),
        ),
        (
            init,
            " key.der: add spec.outputs.derKey to Pki app1-pki (derKey: true)".into(),
        ),
        (
            projected,
            " key.der: add spec.outputs.derKey to Pki app1-pki (derKey: true)".into(),
        ),
        (
            env("app1-pki", "tls.cert"),
            " tls.cert: did you mean tls.crt?".into(),
        ),
        (
            items(&["keystore.jk"]),
            format!(
                " keystore.jk: did you mean keystore.jks? Then add spec.outputs.jks to Pki app1-pki (jks: {example})"
            ),
        ),
        (
            items(&["certificate-for-the-backend"]),
            " certificate-for-the-backend: remove certificate-for-the-backend from the pod".into(),
        ),
    ] {
        let expected = format!("{begin}{message}{end}");
        assert_eq!(messages(&spec, &Cluster::default(), USUAL), [expected]);
    }
}

#[test]
fn no_event_about_files_that_are_there_or_not_needed_or_not_ours() {
    let key = |optional: bool, name: &str| {
        volume(&json!({"secret": {"secretName": name, "optional": optional,
            "items": [{"key": "key.der", "path": "k"}]}}))
    };
    let none = Vec::<String>::new();
    let cluster = Cluster::default();
    assert_eq!(messages(&key(true, "app1-pki"), &cluster, USUAL), none);
    assert_eq!(
        messages(&items(&["tls.crt", "ca.crt"]), &cluster, USUAL),
        none
    );
    let added = Some(&["key.der"][..]);
    assert_eq!(
        messages(&key(false, "app1-pki"), &cluster, added),
        none,
        "by hand"
    );
    assert_eq!(
        messages(&key(false, "app1-pki"), &cluster, None),
        none,
        "it is gone"
    );
    let all = Cluster {
        has_all: true,
        ..Cluster::default()
    };
    assert_eq!(messages(&key(false, "other"), &all, USUAL), none);
    let asked_for = Cluster {
        outputs: json!({"derKey": true}),
        ..Cluster::default()
    };
    assert_eq!(messages(&key(false, "app1-pki"), &asked_for, USUAL), none);
}

#[test]
fn a_secret_removed_with_its_pki_is_reported_with_the_time() {
    let at = "2030-01-01T00:00:00Z".parse().unwrap();
    let cluster = |was_written| Cluster {
        removal: Some(Removal {
            pki: "web".into(),
            at,
            was_written,
        }),
        ..Cluster::default()
    };
    let end = ": apply the Pki again, or remove the Secret from the pod";
    assert_eq!(
        messages(&secret("tls"), &cluster(true), None),
        [format!(
            "PkiSecretRemoved: Secret tls was removed when Pki ns/web was deleted at 2030-01-01T00:00:00Z{end}"
        )]
    );
    assert_eq!(
        messages(&secret("tls"), &cluster(false), None),
        [format!(
            "PkiSecretRemoved: Pki ns/web, which would have written Secret tls, was deleted at 2030-01-01T00:00:00Z{end}"
        )]
    );
    let claimed = Cluster {
        spoken_for: true,
        ..cluster(true)
    };
    assert!(messages(&secret("tls"), &claimed, None).is_empty());
    assert!(messages(&secret("app1-pki"), &cluster(true), None).is_empty());
    let optional = volume(&json!({"secret": {"secretName": "tls", "optional": true}}));
    assert!(messages(&optional, &cluster(true), None).is_empty());
}

#[test]
fn a_pod_with_the_name_of_a_pki_gets_that_of_its_secret() {
    let cluster = Cluster {
        namesake: Some("tls"),
        ..Cluster::default()
    };
    assert_eq!(
        messages(&secret("web"), &cluster, None),
        [
            "PkiSecretNotProvided: no Pki provides Secret web: Pki ns/web writes Secret tls. Write tls in the pod, or \
          secretName: web in the spec of the Pki"
        ]
    );
}

#[test]
fn a_pod_that_mounts_the_secret_of_a_pki_for_pods_gets_the_volume_to_write() {
    let cluster = Cluster {
        is_for_pods: true,
        ..Cluster::default()
    };
    assert_eq!(
        messages(&secret("web"), &cluster, None),
        [
            "PkiSecretNotProvided: Pki ns/web has delivery: Pod and writes no Secret web: mount a podCertificate of the signer \
          box.com/pki with userAnnotations: {box.com/pki: web} in the pod, or write delivery: Secret in the spec of the Pki"
        ]
    );
}

#[test]
fn a_pod_that_waits_for_the_ca_bundle_gets_the_label_that_requests_it() {
    let begin = "TrustBundleNotRequested: there is no ConfigMap pki-trust-bundle with the CA bundle, because namespace ns";
    let end = ": label the namespace (kubectl label namespace ns --overwrite box.com/trust-bundle=true), or ask the platform \
               team to do so";
    let env = json!({"containers": [{"name": "c", "env": [
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "pki-trust-bundle", "key": "ca.crt"}}}]}]});
    let env_from = json!({"containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "pki-trust-bundle"}}]}]});
    let projected =
        volume(&json!({"projected": {"sources": [{"configMap": {"name": "pki-trust-bundle"}}]}}));
    for spec in [bundle(), env, env_from, projected] {
        let expected = format!("{begin} does not have the label box.com/trust-bundle{end}");
        assert_eq!(
            messages(&spec, &Cluster::default(), None),
            [expected],
            "{spec}"
        );
    }
    let labelled = |label| Cluster {
        label: Some(label),
        ..Cluster::default()
    };
    let expected =
        format!("{begin} has the label box.com/trust-bundle=\"yes\", which is not true{end}");
    assert_eq!(messages(&bundle(), &labelled("yes"), None), [expected]);
    assert!(
        messages(&bundle(), &labelled("true"), None).is_empty(),
        "it comes"
    );
    let by_hand = Some(&["ca.crt"][..]);
    assert!(messages(&bundle(), &Cluster::default(), by_hand).is_empty());
    let unknown = Cluster {
        is_unknown: true,
        ..Cluster::default()
    };
    assert!(messages(&bundle(), &unknown, None).is_empty());
    let others = volume(&json!({"configMap": {"name": "settings"}}));
    assert!(messages(&others, &Cluster::default(), None).is_empty());

    let other_file = volume(&json!({"configMap": {"name": "pki-trust-bundle",
        "items": [{"key": "ca-bundle.crt", "path": "c"}]}}));
    assert_eq!(
        messages(&other_file, &labelled("true"), by_hand),
        [
            "TrustBundleFileMissing: ConfigMap pki-trust-bundle has no ca-bundle.crt: the only file is ca.crt"
        ]
    );
}

#[test]
fn an_unwritten_cluster_trust_bundle_is_reported_with_what_to_mount_instead() {
    let spec = volume(&json!({"projected": {"sources": [
        {"clusterTrustBundle": {"name": "pki-trust-bundle", "path": "ca.crt"}}]}}));
    let some = Cluster {
        serves_some: true,
        ..Cluster::default()
    };
    assert_eq!(
        messages(&spec, &some, None),
        [
            "TrustBundleNotServed: the operator serves only some namespaces, so it writes no ClusterTrustBundle \
          pki-trust-bundle: mount ConfigMap pki-trust-bundle instead, in a namespace with the label box.com/trust-bundle=true"
        ]
    );
    assert!(messages(&spec, &Cluster::default(), None).is_empty());
}

#[test]
fn pods_with_an_event_get_another_when_it_is_resolved() {
    let find = |spec: &Value, cluster: &Cluster| {
        let found = find(&[pod(spec)], "pki-trust-bundle", cluster);
        found.into_keys().next().expect("a finding")
    };
    let finding = find(&bundle(), &Cluster::default());
    assert!(!finding.is_resolved(&Cluster::default()));
    let labelled = Cluster {
        label: Some("true"),
        ..Cluster::default()
    };
    assert!(finding.is_resolved(&labelled));
    let (bad, good) = (finding.event(&[]), finding.resolved_event());
    assert_eq!((bad.aspect, good.kind), (good.aspect, EventKind::Normal));
    assert_eq!(
        good.message,
        "namespace ns asks for ConfigMap pki-trust-bundle now: the pod continues when its kubelet tries again, within two minutes"
    );

    let finding = find(&items(&["key.der"]), &Cluster::default());
    let asked_for = Cluster {
        outputs: json!({"derKey": true}),
        ..Cluster::default()
    };
    assert!(!finding.is_resolved(&asked_for), "the Pki is not ready yet");
    assert!(
        finding
            .resolved_event()
            .message
            .starts_with("Secret app1-pki has key.der now: ")
    );
}

#[test]
fn events_are_bounded_whatever_a_pod_names() {
    let files: Vec<_> = (0..100)
        .map(|number| format!("{number}{}", "x".repeat(240)))
        .collect();
    let files: Vec<_> = files.iter().map(String::as_str).collect();
    let spec = items(&files);
    assert!(pod(&spec).needs().len() <= 32);
    let messages = messages(&spec, &Cluster::default(), USUAL);
    assert!(
        messages.len() == 1 && messages[0].len() < 1100,
        "{}",
        messages[0].len()
    );
}
