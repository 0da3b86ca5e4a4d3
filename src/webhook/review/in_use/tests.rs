use crate::api::{Pki, PkiPolicy};
use crate::policy::RuleBook;
use crate::store::cached_pki::KnownPki;
use crate::store::cached_pod::SecretUser;
use crate::store::cached_secret::KnownSecret;
use crate::store::secret_index::SharedIndex;
use crate::webhook::review::{ValidationContext, read, validate};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use std::sync::Arc;

/// The namespace `ns` with a Pki `web` that writes the Secret `tls`, and wrote `old` before.
struct Namespace {
    pkis: SharedIndex<KnownPki>,
    secrets: SharedIndex<KnownSecret>,
    pods: SharedIndex<SecretUser>,
}

fn stored(spec: &Value) -> Value {
    json!({
        "apiVersion": "box.com/v1", "kind": "Pki", "spec": spec,
        "metadata": { "name": "web", "namespace": "ns", "uid": "web", "generation": 1,
            "creationTimestamp": "2030-01-01T00:00:00Z" },
        "status": { "secretName": "tls", "serialNumber": "0A", "notAfter": "2030-03-01T00:00:00Z",
            "formerSecrets": [{ "name": "old", "notAfter": "2030-02-01T00:00:00Z" }] }
    })
}

fn current() -> Value {
    json!({ "serviceName": "app1", "secretName": "tls", "outputs": { "derKey": true, "combinedPem": true } })
}

impl Namespace {
    /// With this many pods that mount each of these Secrets, and one that names files of `tls`.
    fn with(users: &[(&str, usize)]) -> Self {
        let pkis = SharedIndex::default();
        let web = serde_json::from_value::<Pki>(stored(&current())).unwrap();
        pkis.write().apply(Event::Apply(web.into()));
        let pods = SharedIndex::default();
        let volume =
            |secret: Value| json!({"containers": [], "volumes": [{"name": "v", "secret": secret}]});
        let add = |name: String, spec: Value, status: &str| {
            let pod = json!({"metadata": {"namespace": "ns", "name": name, "uid": name}, "spec": spec, "status": {"phase": status}});
            let pod = serde_json::from_value::<Pod>(pod).unwrap();
            pods.write().apply(Event::Apply(pod.into()));
        };
        for (secret, count) in users {
            for number in 0..*count {
                let spec = volume(json!({"secretName": secret}));
                add(format!("{secret}-{number}"), spec, "Running");
            }
        }
        let items = json!([{"key": "key.der", "path": "k"}, {"key": "tls.crt", "path": "c"}]);
        let spec = volume(json!({"secretName": "tls", "items": items}));
        add("files".to_owned(), spec, "Running");
        Self {
            pkis,
            secrets: SharedIndex::default(),
            pods,
        }
    }

    fn judge(&self, operation: &str, object: &Value, old: &Value, options: &Value) -> Vec<String> {
        let kind = json!({ "group": "box.com", "version": "v1", "kind": "Pki" });
        let resource = json!({ "group": "box.com", "version": "v1", "resource": "pkis" });
        let review = json!({
            "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": "1", "kind": kind, "resource": resource, "name": "web", "namespace": "ns", "operation": operation,
                "userInfo": {}, "object": object, "oldObject": old, "options": options
            }
        });
        let spec = json!({ "serviceNames": ["app1"] });
        let policy = PkiPolicy::new("policy", serde_json::from_value(spec).unwrap());
        let context = ValidationContext {
            rules: &RuleBook::new(Arc::default(), [&policy]),
            pkis: &self.pkis,
            secrets: &self.secrets,
            pods: &self.pods,
            ca: None,
            now: "2030-01-01T00:00:00Z".parse().unwrap(),
        };
        let request = read(review.to_string().as_bytes()).expect("a review");
        let response = validate(&request, &context);
        assert!(response.allowed, "{response:?}");
        response.warnings.unwrap_or_default()
    }

    fn edited(&self, spec: &Value) -> Vec<String> {
        self.judge("UPDATE", &stored(spec), &stored(&current()), &Value::Null)
    }

    fn deleted(&self, old: &Value, options: &Value) -> Vec<String> {
        self.judge("DELETE", &Value::Null, old, options)
    }
}

const NONE: [&str; 0] = [];

#[test]
fn another_secret_name_warns_of_the_pods_that_use_the_one_before() {
    let moved =
        json!({ "serviceName": "app1", "secretName": "moved", "outputs": current()["outputs"] });
    let end = "; the Pki writes moved from now on, so write moved in the pods: Secret tls is no longer renewed, and is removed \
               when no pod uses it, at the latest when its certificate ends at 2030-03-01T00:00:00Z";
    for (count, who) in [
        (0, "1 pod uses Secret tls (files)"),
        (1, "2 pods use Secret tls (files, tls-0)"),
        (
            9,
            "10 pods use Secret tls (files, tls-0, tls-1, tls-2, tls-3 and 5 more)",
        ),
    ] {
        let namespace = Namespace::with(&[("tls", count), ("other", 2)]);
        let expected = format!("spec.secretName: {who}{end}");
        assert_eq!(namespace.edited(&moved), [expected]);
    }
    let namespace = Namespace::with(&[("tls", 1)]);
    assert_eq!(namespace.edited(&current()), NONE);
    let renewed = json!({ "serviceName": "app1", "secretName": "tls", "duration": "24h", "outputs": current()["outputs"] });
    assert_eq!(namespace.edited(&renewed), NONE);
}

#[test]
fn a_file_that_is_not_asked_for_any_more_warns_of_the_pods_that_name_it() {
    let namespace = Namespace::with(&[("tls", 3)]);
    let spec =
        |outputs: Value| json!({ "serviceName": "app1", "secretName": "tls", "outputs": outputs });
    let warning = "spec.outputs: key.der is removed, and 1 pod reads Secret tls (files) by that name: a pod that reads it cannot \
                   start again";
    for (outputs, expected) in [
        (json!({}), &[warning][..]),
        (Value::Null, &[warning]),
        (json!({ "combinedPem": true }), &[warning]),
        (json!({ "derKey": true }), &[]),
    ] {
        assert_eq!(
            namespace.edited(&spec(outputs.clone())),
            expected,
            "{outputs}"
        );
    }
}

#[test]
fn a_deletion_is_never_refused_and_warns_of_the_pods_whose_secrets_go() {
    let warning = |who: &str| {
        format!(
            "{who}, which is removed with Pki ns/web: a pod that uses it cannot start again; to keep the Secret, annotate the \
             Pki with box.com/keep-secret=true before it is deleted"
        )
    };
    let namespace = Namespace::with(&[("tls", 1), ("old", 1)]);
    let old = stored(&current());
    let both = [
        warning("2 pods use Secret tls (files, tls-0)"),
        warning("1 pod uses Secret old (old-0)"),
    ];
    assert_eq!(namespace.deleted(&old, &Value::Null), both);
    let options = |policy: &str| json!({ "kind": "DeleteOptions", "propagationPolicy": policy });
    assert_eq!(namespace.deleted(&old, &options("Foreground")), both);
    assert_eq!(namespace.deleted(&old, &options("Orphan")), NONE);
    let mut kept = old.clone();
    kept["metadata"]["annotations"] = json!({ "box.com/keep-secret": "true" });
    assert_eq!(namespace.deleted(&kept, &Value::Null), NONE);
    let mut going = old.clone();
    going["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
    assert_eq!(namespace.deleted(&going, &Value::Null), NONE);
    // A stored object may be broken in any way.
    for broken in [
        json!({}),
        json!({ "spec": 5, "status": { "formerSecrets": [5, {}] } }),
    ] {
        assert_eq!(namespace.deleted(&broken, &Value::Null), NONE, "{broken}");
    }
}

#[test]
fn a_secret_that_others_provide_warns_of_nobody() {
    let namespace = Namespace::with(&[("tls", 1)]);
    let old = stored(&current());
    let foreign = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "namespace": "ns", "name": "tls" } });
    let foreign = serde_json::from_value::<PartialObjectMeta<Secret>>(foreign).unwrap();
    let secrets = || namespace.secrets.write();
    secrets().apply(Event::Apply(foreign.clone().into()));
    assert_eq!(namespace.deleted(&old, &Value::Null), NONE);
    secrets().apply(Event::Delete(foreign.into()));
    assert_eq!(namespace.deleted(&old, &Value::Null).len(), 1);
    let mut rival = old.clone();
    rival["metadata"]["name"] = json!("elder");
    rival["metadata"]["creationTimestamp"] = json!("2029-01-01T00:00:00Z");
    let rival = serde_json::from_value::<Pki>(rival).unwrap();
    let mut pkis = namespace.pkis.write();
    pkis.apply(Event::Apply(rival.into()));
    drop(pkis);
    assert_eq!(namespace.deleted(&old, &Value::Null), NONE);
}
