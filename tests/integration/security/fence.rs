//! The API server refuses the operator's own account writes that RBAC would permit.

use crate::harness::{Installed, Namespace, arena, eventually};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use pki_cluster::install::RELEASE;
use pki_cluster::testing;
use serde_json::{Value, json};

/// How a refusal begins, after the words of the API server.
const FENCE: &str = "the fence permits the operator's account to ";

/// A write, and the object that it is about: `(apiVersion, kind, namespace, name)`.
#[derive(Clone, Debug)]
enum Write {
    Create(Value),
    /// A merge patch.
    Merge(Object, Value),
    /// A JSON patch.
    Json(Object, Value),
    Delete(Object),
}

#[derive(Clone, Debug)]
struct Object {
    api_version: &'static str,
    kind: &'static str,
    namespace: Option<String>,
    name: String,
}

/// The operator's account, as whoever has its token uses it.
struct Account {
    server: testing::Api,
}

impl Account {
    fn of(installed: &Installed) -> Self {
        let server = testing::Api::new(&installed.kubeconfig);
        Self {
            server: server.expect("a kubeconfig"),
        }
    }

    /// Sends the write; the error is the API server's refusal.
    fn try_to(&self, write: &Write, dry_run: bool) -> Result<(), String> {
        let done = self.server.block_on(self.write(write, dry_run));
        done.map_err(|error| match error {
            kube::Error::Api(status) => format!("{}: {}", status.code, status.message),
            other => other.to_string(),
        })
    }

    async fn write(&self, write: &Write, dry_run: bool) -> Result<(), kube::Error> {
        let patch = PatchParams {
            dry_run,
            ..PatchParams::default()
        };
        match write {
            Write::Create(manifest) => {
                let post = PostParams {
                    dry_run,
                    ..PostParams::default()
                };
                let object: DynamicObject =
                    serde_json::from_value(manifest.clone()).expect("an object");
                let types = object.types.clone().expect("it has a type");
                let api = self.api(
                    &types.api_version,
                    &types.kind,
                    object.metadata.namespace.as_deref(),
                );
                api.create(&post, &object).await.map(drop)
            }
            Write::Merge(object, change) => {
                let api = self.api_of(object);
                let change = Patch::Merge(change);
                api.patch(&object.name, &patch, &change).await.map(drop)
            }
            Write::Json(object, change) => {
                let change = serde_json::from_value(change.clone()).expect("a JSON patch");
                let api = self.api_of(object);
                let change = Patch::<()>::Json(change);
                api.patch(&object.name, &patch, &change).await.map(drop)
            }
            Write::Delete(object) => {
                let delete = DeleteParams {
                    dry_run,
                    ..DeleteParams::default()
                };
                self.api_of(object)
                    .delete(&object.name, &delete)
                    .await
                    .map(drop)
            }
        }
    }

    fn api_of(&self, object: &Object) -> Api<DynamicObject> {
        self.api(object.api_version, object.kind, object.namespace.as_deref())
    }

    fn api(&self, api_version: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let client = self.server.client();
        match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        }
    }

    /// Tries it without effect until the fence is in force, then in earnest.
    fn is_refused(&self, write: &Write) {
        let refused = |dry_run| {
            let refusal = self.try_to(write, dry_run).err()?;
            let is_by_fence = refusal.starts_with("403: ") && refusal.contains(FENCE);
            assert!(
                is_by_fence,
                "{write:?} is refused by something else: {refusal}"
            );
            Some(())
        };
        eventually(&format!("this is refused: {write:?}"), || refused(true));
        refused(false).unwrap_or_else(|| panic!("it was done: {write:?}"));
    }

    fn is_permitted(&self, write: &Write) {
        self.try_to(write, true)
            .unwrap_or_else(|refusal| panic!("{write:?} is refused: {refusal}"));
    }
}

/// Makes the account's objects known by short names.
struct Stage<'a> {
    ns: &'a Namespace<'a>,
}

impl Stage<'_> {
    fn object(&self, api_version: &'static str, kind: &'static str, name: &str) -> Object {
        Object {
            api_version,
            kind,
            namespace: Some(self.ns.name.clone()),
            name: name.to_owned(),
        }
    }

    fn secret(&self, name: &str) -> Object {
        self.object("v1", "Secret", name)
    }

    /// A Secret to create, with this type and metadata.
    fn new_secret(&self, type_: &str, metadata: &Value) -> Write {
        let mut manifest = json!({"apiVersion": "v1", "kind": "Secret", "type": type_,
            "metadata": {"name": "new", "namespace": self.ns.name},
            "stringData": {"tls.crt": "", "tls.key": ""}});
        json_patch::merge(&mut manifest["metadata"], metadata);
        Write::Create(manifest)
    }

    /// An owner reference of a Pki of that name.
    fn owner(&self, kind: &str, name: &str, controller: bool) -> Value {
        let uid = self.ns.get("pki", name).unwrap_or_default()["metadata"]["uid"].clone();
        let uid = uid
            .as_str()
            .unwrap_or("5a5cf4ab-0000-4000-8000-000000000000");
        let api_version = if kind == "Pki" { "box.com/v1" } else { "v1" };
        json!({"ownerReferences": [{"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": controller}]})
    }

    fn apply(&self, manifest: &Value) {
        self.ns.apply_object(manifest);
    }
}

#[test]
fn secrets_are_those_of_pkis() {
    let arena = arena();
    let _operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("secrets");
    let stage = Stage { ns: &ns };
    for name in ["app1-pki", "app2-pki"] {
        ns.apply_pki(name, r#"{"serviceName": "app1"}"#);
        ns.wait_until_ready(name);
    }
    let tls = "kubernetes.io/tls";
    for (name, type_) in [("opaque", "Opaque"), ("theirs", tls)] {
        stage.apply(
            &json!({"apiVersion": "v1", "kind": "Secret", "type": type_, "metadata": {"name": name},
            "stringData": {"tls.crt": "", "tls.key": ""}}),
        );
    }
    let account = Account::of(&arena);
    let ours = stage.owner("Pki", "app1-pki", true);
    let offer = |name: &str| json!({"annotations": {"box.com/adopt": name}});
    let own = |name: &str| Object {
        namespace: Some(RELEASE.into()),
        ..stage.secret(name)
    };
    let metadata = |metadata: Value| json!({ "metadata": metadata });
    let token = |namespace: &str, account: &str| {
        Write::Create(
            json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": "token", "namespace": namespace, "annotations": {"kubernetes.io/service-account.name": account}}}),
        )
    };
    let named = |name: &str, namespace: &str| {
        Write::Create(json!({"apiVersion": "v1", "kind": "Secret", "type": tls,
            "metadata": {"name": name, "namespace": namespace}, "stringData": {"tls.crt": "", "tls.key": ""}}))
    };
    let data = json!({"data": {"tls.key": "AAAA"}});
    // Helm reads this key in a Secret of any type that has its label.
    let release = json!({"data": {"release": "AAAA"}});
    let helm =
        json!({"labels": {"owner": "helm", "name": RELEASE, "status": "deployed", "version": "9"}});
    let mut stored_release = stage.new_secret(tls, &ours);
    if let Write::Create(manifest) = &mut stored_release {
        json_patch::merge(manifest, &release);
    }
    for write in [
        // A token of these kinds lets its holder act as anybody.
        token(&ns.name, "default"),
        token("kube-system", "clusterrole-aggregation-controller"),
        stage.new_secret("Opaque", &json!({})),
        stage.new_secret("Opaque", &ours),
        stage.new_secret(tls, &json!({})),
        stored_release,
        Write::Merge(stage.secret("app1-pki"), release),
        stage.new_secret(tls, &stage.owner("ConfigMap", "app1-pki", true)),
        stage.new_secret(tls, &stage.owner("Pki", "app1-pki", false)),
        stage.new_secret(
            tls,
            &json!({"labels": {"app.kubernetes.io/managed-by": "pki-operator"}}),
        ),
        named("pki-operator-ca", &ns.name),
        named("another", RELEASE),
        Write::Merge(stage.secret("opaque"), data.clone()),
        Write::Merge(stage.secret("opaque"), metadata(ours.clone())),
        Write::Merge(stage.secret("theirs"), data.clone()),
        Write::Merge(stage.secret("theirs"), metadata(ours.clone())),
        Write::Merge(stage.secret("theirs"), metadata(offer("app1-pki"))),
        Write::Merge(
            stage.secret("app1-pki"),
            metadata(json!({"ownerReferences": null})),
        ),
        Write::Merge(
            stage.secret("app1-pki"),
            metadata(stage.owner("Pki", "app2-pki", true)),
        ),
        Write::Merge(
            stage.secret("app1-pki"),
            json!({"metadata": {"ownerReferences": null, "annotations": {"box.com/adopt": "app2-pki"}}}),
        ),
        Write::Delete(stage.secret("opaque")),
        Write::Delete(stage.secret("theirs")),
        Write::Delete(own("pki-operator-ca")),
        Write::Delete(own("pki-operator-webhook-ca")),
        Write::Merge(own("pki-operator-ca"), metadata(helm.clone())),
        Write::Merge(own("pki-operator-webhook-ca"), metadata(helm)),
    ] {
        account.is_refused(&write);
    }
    let kept = json!({"metadata": {"ownerReferences": null, "annotations": {"box.com/adopt": "app1-pki"}}});
    for write in [
        stage.new_secret(tls, &ours),
        stage.new_secret(tls, &offer("new")),
        Write::Merge(stage.secret("app1-pki"), data.clone()),
        Write::Merge(stage.secret("app1-pki"), kept),
        Write::Merge(own("pki-operator-ca"), data.clone()),
        Write::Merge(own("pki-operator-webhook-ca"), data),
        Write::Delete(stage.secret("app1-pki")),
    ] {
        account.is_permitted(&write);
    }
    // Others are asked nothing.
    ns.delete("secret", "theirs");
}

#[test]
fn a_secret_that_lost_its_owner_gets_a_pki_and_nothing_else() {
    let arena = arena();
    let ns = arena.namespace("orphans");
    let stage = Stage { ns: &ns };
    arena.without_webhooks();
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    let labels = json!({"app.kubernetes.io/managed-by": "pki-operator"});
    let offer = |name: &str| json!({"annotations": {"box.com/adopt": name}});
    let tls = "kubernetes.io/tls";
    // One that lives: else Kubernetes collects the Secret.
    ns.apply_object(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}));
    let mut controlled = stage.owner("ConfigMap", "a", true);
    controlled["ownerReferences"][0]["uid"] =
        ns.get("configmap", "a").unwrap()["metadata"]["uid"].clone();
    for (name, type_, labels, metadata) in [
        ("orphan", tls, &labels, json!({"annotations": {"a": "b"}})),
        ("offered", tls, &labels, offer("other")),
        ("controlled", tls, &labels, controlled),
        ("opaque", "Opaque", &labels, json!({})),
        ("theirs", tls, &json!({"a": "b"}), json!({})),
    ] {
        let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "type": type_, "metadata": metadata,
            "stringData": {"tls.crt": "", "tls.key": ""}});
        json_patch::merge(
            &mut secret["metadata"],
            &json!({"name": name, "labels": labels}),
        );
        stage.apply(&secret);
    }
    let account = Account::of(&arena);
    let ours = stage.owner("Pki", "app1-pki", true);
    let metadata = |metadata: Value| json!({ "metadata": metadata });
    let with_owner = |mut change: Value| {
        change["metadata"]["ownerReferences"] = ours["ownerReferences"].clone();
        change
    };
    let merge = |name: &str, change: Value| Write::Merge(stage.secret(name), change);
    let data = json!({"data": {"tls.key": "AAAA"}});
    for write in [
        merge("orphan", data.clone()),
        merge("orphan", with_owner(data)),
        merge("orphan", with_owner(json!({"immutable": true}))),
        merge(
            "orphan",
            with_owner(metadata(json!({"labels": {"a": "b"}}))),
        ),
        merge(
            "orphan",
            with_owner(metadata(json!({"annotations": {"a": null}}))),
        ),
        merge(
            "orphan",
            with_owner(metadata(json!({"finalizers": ["example.com/hold"]}))),
        ),
        merge("orphan", metadata(stage.owner("ConfigMap", "a", true))),
        merge("orphan", metadata(stage.owner("Pki", "app1-pki", false))),
        merge("offered", with_owner(json!({}))),
        merge("controlled", with_owner(json!({}))),
        merge("opaque", with_owner(json!({}))),
        merge("theirs", with_owner(json!({}))),
        merge("theirs", with_owner(metadata(json!({ "labels": labels })))),
        Write::Delete(stage.secret("orphan")),
    ] {
        account.is_refused(&write);
    }
    for write in [
        merge("orphan", with_owner(json!({}))),
        merge("orphan", metadata(offer("app1-pki"))),
    ] {
        account.is_permitted(&write);
    }
}

/// A workload that asks for restarts, or does not.
fn workload(kind: &str, name: &str, asks: &str) -> Value {
    let labels = json!({"app": name});
    let pod = json!({"metadata": {"labels": labels, "annotations": {"theirs": "stays"}},
        "spec": {"containers": [{"name": "c", "image": "c"}]}});
    let mut workload = json!({"apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": name, "labels": labels, "annotations": {"box.com/restart-on-renewal": asks}},
        "spec": {"selector": {"matchLabels": labels}, "template": pod}});
    if kind == "StatefulSet" {
        workload["spec"]["serviceName"] = json!(name);
    }
    workload
}

#[test]
fn workloads_are_restarted_and_nothing_else() {
    let arena = arena();
    let ns = arena.namespace("workloads");
    let stage = Stage { ns: &ns };
    let account = Account::of(&arena);
    let restart = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "2030-01-01T12:00:00Z"}}});
    let template = |template: Value| json!({"spec": {"template": template}});
    for (kind, yes) in [
        ("Deployment", "true"),
        ("StatefulSet", "True"),
        ("DaemonSet", "1"),
    ] {
        stage.apply(&workload(kind, "asks", yes));
        stage.apply(&workload(kind, "silent", "false"));
        let asks = stage.object("apps/v1", kind, "asks");
        let silent = stage.object("apps/v1", kind, "silent");
        let pod = |pod: Value| template(json!({ "spec": pod }));
        for change in [
            pod(json!({"containers": [{"name": "c", "image": "theirs"}]})),
            pod(json!({"containers": [{"name": "c", "image": "c", "command": ["sh"]}]})),
            pod(json!({"serviceAccountName": "other"})),
            pod(json!({"hostNetwork": true})),
            template(json!({"metadata": {"annotations": {"other": "1"}}})),
            template(json!({"metadata": {"annotations": {"theirs": null}}})),
            template(json!({"metadata": {"annotations": null}})),
            template(json!({"metadata": {"labels": {"other": "1"}}})),
            json!({"spec": {"minReadySeconds": 7}}),
            json!({"spec": {"revisionHistoryLimit": 0}}),
            json!({"metadata": {"labels": {"other": "1"}}}),
            json!({"metadata": {"annotations": {"other": "1"}}}),
            json!({"metadata": {"annotations": {"box.com/restart-on-renewal": null}}}),
            json!({"metadata": {"finalizers": ["example.com/hold"]}}),
            json!({"metadata": stage.owner("ConfigMap", "a", true)}),
        ] {
            account.is_refused(&Write::Merge(asks.clone(), change.clone()));
            // Together with what is permitted, it is refused all the same.
            let mut both = template(restart.clone());
            json_patch::merge(&mut both, &change);
            if !change.to_string().contains("null") {
                account.is_refused(&Write::Merge(asks.clone(), both));
            }
        }
        account.is_refused(&Write::Merge(silent, template(restart.clone())));
        account.is_permitted(&Write::Merge(asks, template(restart.clone())));
    }
    for kind in ["Deployment", "StatefulSet"] {
        let scaled = json!({"spec": {"replicas": 0}});
        account.is_refused(&Write::Merge(stage.object("apps/v1", kind, "asks"), scaled));
    }
}

/// The certificate of the cluster's CA, in base64.
fn ca(arena: &Installed) -> String {
    let kubeconfig = std::fs::read_to_string(&arena.kubeconfig).expect("a kubeconfig");
    let kubeconfig: Value = serde_json::from_str(&kubeconfig).expect("JSON");
    let ca = &kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"];
    ca.as_str().expect("a certificate").to_owned()
}

#[test]
fn the_webhook_configuration_gets_another_ca_bundle_and_path_and_nothing_else() {
    let arena = arena();
    let account = Account::of(&arena);

    let configuration = Object {
        api_version: "admissionregistration.k8s.io/v1",
        kind: "ValidatingWebhookConfiguration",
        namespace: None,
        name: RELEASE.into(),
    };
    let json = |change: Value| Write::Json(configuration.clone(), change);
    let add = |path: &str, value: Value| {
        json(json!([{"op": "add", "path": format!("/webhooks/0/{path}"), "value": value}]))
    };
    let url = |path: &str| json!(format!("https://{}{path}", arena.webhook));
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"], "operations": ["CREATE"]});
    let service = json!({"name": "other", "namespace": RELEASE});
    for write in [
        add("rules/0", rule.clone()),
        add("rules", json!([rule])),
        add("clientConfig/url", json!("https://192.0.2.1/validate")),
        add(
            "clientConfig/url",
            json!(format!("https://{}1/validate", arena.webhook)),
        ),
        add("clientConfig", json!({ "service": service })),
        add("failurePolicy", json!("Ignore")),
        add("timeoutSeconds", json!(30)),
        add("namespaceSelector", json!({"matchLabels": {"a": "b"}})),
        add("objectSelector", json!({"matchLabels": {"a": "b"}})),
        add("matchConditions", json!([])),
        add("name", json!("other.pkis.box.com")),
        add("sideEffects", json!("None")),
        json(json!([{"op": "remove", "path": "/webhooks/0"}])),
        json(json!([{"op": "add", "path": "/metadata/annotations", "value": {"a": "b"}}])),
        json(json!([{"op": "remove", "path": "/metadata/labels"}])),
    ] {
        account.is_refused(&write);
    }
    for write in [
        add("clientConfig/caBundle", json!(ca(&arena))),
        add("clientConfig/url", url("/secret/validate")),
        add("clientConfig/url", url("/")),
    ] {
        account.is_permitted(&write);
    }
}

#[test]
fn what_is_known_by_its_name_is_written_under_that_name() {
    let arena = arena();
    let ns = arena.namespace("names");
    let stage = Stage { ns: &ns };
    let label = json!({"box.com/trust-bundle": "true"});
    let map = |name: &str, namespace: &str, labels: &Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, "labels": labels}});
    let more_labels = json!({"box.com/trust-bundle": "true", "grafana_dashboard": "1"});
    let with_more = |mut map: Value, field: &str| {
        map[field] = json!({"more": "AAAA"});
        map
    };
    let lease = |name: &str| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": RELEASE}});
    let event = |name: &str, controller: &str, source: &Value| {
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": ns.name},
            "eventTime": "2030-01-01T12:00:00.000000Z", "reportingComponent": controller, "reportingInstance": "i", "source": source,
            "action": "a", "reason": "r", "type": "Normal", "involvedObject": {"kind": "Pod", "namespace": ns.name, "name": "p"}})
    };
    let (own, kubelet) = (
        json!({"component": "pki-operator"}),
        json!({"component": "kubelet"}),
    );
    let files = json!({ "data": { "ca.crt": ca(&arena) } });
    let bundle = |name: &str| {
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "ClusterTrustBundle", "metadata": {"name": name},
            "spec": {"trustBundle": crate::harness::file(&files, "ca.crt")}})
    };
    let trust = "pki-trust-bundle";
    let copy = stage.object("v1", "ConfigMap", trust);
    stage.apply(&map(trust, &ns.name, &json!({})));
    stage.apply(&event("theirs", "kubelet", &json!({})));
    // Its source alone tells it from ours.
    stage.apply(&event("older", "pki-operator", &kubelet));
    let events = |name: &str| stage.object("v1", "Event", name);
    let series = json!({"series": {"count": 2, "lastObservedTime": "2030-01-01T13:00:00.000000Z"}});
    let account = Account::of(&arena);
    for write in [
        Write::Create(map("settings", &ns.name, &label)),
        Write::Create(map("coredns", "kube-system", &label)),
        Write::Create(map(trust, "default", &json!({}))),
        Write::Create(map("pki-operator-ca", &ns.name, &label)),
        Write::Create(map(trust, "default", &more_labels)),
        Write::Create(with_more(map(trust, "default", &label), "data")),
        Write::Create(with_more(map(trust, "default", &label), "binaryData")),
        Write::Merge(copy.clone(), json!({"data": {"ca.crt": "other"}})),
        Write::Merge(copy.clone(), json!({"metadata": {"labels": label}})),
        Write::Delete(copy.clone()),
        Write::Create(lease("kube-controller-manager")),
        Write::Create(event("new", "kubelet", &own)),
        Write::Create(event("new", "pki-operator", &kubelet)),
        Write::Create(event("new", "pki-operator", &json!({"host": "node-1"}))),
        Write::Merge(events("theirs"), series.clone()),
        Write::Merge(events("older"), series.clone()),
        Write::Create(bundle("other")),
    ] {
        account.is_refused(&write);
    }
    ns.delete("configmap", trust);
    stage.apply(&map(trust, &ns.name, &label));
    stage.apply(&event("ours", "pki-operator", &own));
    for write in [
        Write::Create(map(trust, "default", &label)),
        Write::Merge(copy.clone(), json!({"data": {"ca.crt": "other"}})),
        Write::Delete(copy.clone()),
        Write::Create(lease("pki-operator")),
        Write::Create(event("new", "pki-operator", &own)),
        Write::Merge(events("ours"), series),
    ] {
        account.is_permitted(&write);
    }
    for change in [
        json!({"data": {"ca.crt": "other", "more": "AAAA"}}),
        json!({"binaryData": {"more": "AAAA"}}),
        json!({"metadata": {"labels": more_labels}}),
    ] {
        account.is_refused(&Write::Merge(copy.clone(), change));
    }
}

#[test]
fn of_a_pki_only_what_was_granted_is_taken_away() {
    let arena = arena();
    let ns = arena.namespace("pkis");
    let stage = Stage { ns: &ns };
    // Nobody takes the annotations and finalizers away.
    arena.without_webhooks();
    stage.apply(&json!({"apiVersion": "box.com/v1", "kind": "Pki", "spec": {"serviceName": "app1"}, "metadata": {
        "name": "app1-pki", "finalizers": ["box.com/keep-secret", "example.com/hold"], "labels": {"a": "b"},
        "annotations": {"box.com/renew-now": "1", "box.com/keep-secret": "true", "theirs": "stays"}}}));
    let pki = stage.object("box.com/v1", "Pki", "app1-pki");
    let metadata = |metadata: Value| Write::Merge(pki.clone(), json!({ "metadata": metadata }));
    let account = Account::of(&arena);
    for write in [
        Write::Merge(pki.clone(), json!({"spec": {"serviceName": "app2"}})),
        Write::Merge(
            pki.clone(),
            json!({"spec": {"dnsNames": ["a.example.com"]}}),
        ),
        metadata(json!({"labels": {"a": "c"}})),
        metadata(json!({"labels": null})),
        metadata(json!({"annotations": {"theirs": null}})),
        metadata(json!({"annotations": {"box.com/keep-secret": "false"}})),
        metadata(json!({"annotations": {"box.com/keep-secret": null}})),
        metadata(json!({"annotations": {"box.com/renew-now": "2"}})),
        metadata(json!({"annotations": {"new": "1"}})),
        metadata(json!({"finalizers": ["box.com/keep-secret"]})),
        metadata(json!({"finalizers": null})),
        metadata(
            json!({"finalizers": ["box.com/keep-secret", "example.com/hold", "example.com/more"]}),
        ),
        metadata(stage.owner("ConfigMap", "a", false)),
    ] {
        account.is_refused(&write);
    }
    for write in [
        metadata(json!({"annotations": {"box.com/renew-now": null}})),
        metadata(json!({"finalizers": ["example.com/hold"]})),
    ] {
        account.is_permitted(&write);
    }
    let free = json!({"metadata": {"finalizers": null}});
    ns.merge("pki", "app1-pki", &free);
}

#[test]
fn the_account_cannot_change_its_fence() {
    let arena = arena();
    let account = Account::of(&arena);
    for kind in [
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "MutatingAdmissionPolicy",
    ] {
        let api_version = "admissionregistration.k8s.io/v1";
        let fence = Object {
            api_version,
            kind,
            namespace: None,
            name: "pki-operator-fence-secrets".into(),
        };
        let another =
            json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "another"}});
        for write in [
            Write::Merge(fence.clone(), json!({"spec": {"failurePolicy": "Ignore"}})),
            Write::Delete(fence),
            Write::Create(another),
        ] {
            let refusal = account.try_to(&write, false).expect_err("it may not");
            let is_by_rbac = refusal.starts_with("403: ") && refusal.contains(" cannot ");
            assert!(is_by_rbac, "{write:?}: {refusal}");
        }
    }
}

#[test]
fn the_value_of_the_chart_takes_the_fence_away_and_namespaces_do_not() {
    let arena = arena();
    let ns = arena.namespace("fenced");
    let stage = Stage { ns: &ns };
    let account = Account::of(&arena);
    let forbidden = stage.new_secret("Opaque", &json!({}));
    let served = format!("namespaces={{{}}}", ns.name);
    arena.install_with(&[&served]).unwrap();
    account.is_refused(&forbidden);
    arena.install_with(&["fence.enabled=false"]).unwrap();
    eventually("nothing but RBAC is asked", || {
        account.try_to(&forbidden, true).ok()
    });
    arena.install().unwrap();
    account.is_refused(&forbidden);
}

#[test]
fn each_release_fences_its_own_account() {
    let arena = arena();
    let ns = arena.namespace("shared");
    let stage = Stage { ns: &ns };
    let account = Account::of(&arena);
    let forbidden = stage.new_secret("Opaque", &json!({}));
    let other = arena.namespace("other-release");
    let served = format!("--set=namespaces={{{}}}", ns.name);
    let url = format!("--set=webhook.url=https://{}", arena.webhook);
    let helm = |arguments: &[&str]| {
        let mut helm = arena.cluster.helm().expect("there is Helm");
        helm.args(arguments).args(["--namespace", &other.name]);
        pki_cluster::install::run(&mut helm)
    };
    let chart = crate::harness::chart();
    let chart = chart.to_str().expect("a path in UTF-8");
    helm(&[
        "install",
        "second",
        chart,
        "--set=deployment.enabled=false",
        &served,
        &url,
    ])
    .unwrap();
    let name = "second-pki-operator";
    let refusal = || {
        let subject = format!("--as=system:serviceaccount:{}:{name}", other.name);
        let create = [
            "create",
            "secret",
            "generic",
            "new",
            "--dry-run=server",
            &subject,
        ];
        let refusal = ns.kubectl(&create).err()?.to_string();
        refusal.contains(FENCE).then_some(refusal)
    };
    let said = eventually("the other's fence is in force", refusal);
    let removed = helm(&["uninstall", "second"]);
    assert!(
        said.contains("'second-pki-operator-fence-secrets'"),
        "{said}"
    );
    removed.unwrap();
    account.is_refused(&forbidden);
}

#[test]
fn the_api_server_finds_every_expression_of_the_fence_well_typed() {
    let arena = arena();
    let fences = || {
        let all = arena.api.list("validatingadmissionpolicies", "", "", "");
        let all = serde_json::from_value::<Vec<ValidatingAdmissionPolicy>>(json!(all.unwrap()));
        let mut all = all.unwrap();
        all.retain(|policy| {
            let name = policy.metadata.name.as_deref().unwrap_or_default();
            name.starts_with("pki-operator-fence-")
        });
        all
    };
    assert_eq!(fences().len(), 10);
    for fence in fences() {
        let name = fence.metadata.name.unwrap();
        let checked = eventually(&format!("the types of {name} are checked"), || {
            let fences = fences();
            let mut fences = fences.into_iter();
            let fence = fences.find(|it| it.metadata.name.as_ref() == Some(&name))?;
            let status = fence.status?;
            (status.observed_generation == fence.metadata.generation).then_some(())?;
            status.type_checking
        });
        assert_eq!(checked.expression_warnings, None, "{name}");
    }
}
