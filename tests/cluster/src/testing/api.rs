//! A client of the API server that blocks, as tests do.
//!
//! A request takes a millisecond or two of processor time. `kubectl` takes more than fifty times
//! as much, so tests use it where they test what people read of it.

use std::path::Path;
use std::sync::LazyLock;

use anyhow::Context as _;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::params::Preconditions;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

/// Runs the connections of all clients of this process.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build();
    runtime.expect("the system has threads")
});

/// The kinds that tests use: resource, singular, version, kind, whether it has a namespace.
const KINDS: &[(&str, &str, &str, &str, bool)] = &[
    ("pkis", "pki", "box.com/v1", "Pki", true),
    ("pkipolicies", "pkipolicy", "box.com/v1", "PkiPolicy", false),
    ("secrets", "secret", "v1", "Secret", true),
    ("pods", "pod", "v1", "Pod", true),
    ("configmaps", "configmap", "v1", "ConfigMap", true),
    ("namespaces", "namespace", "v1", "Namespace", false),
    ("services", "service", "v1", "Service", true),
    (
        "serviceaccounts",
        "serviceaccount",
        "v1",
        "ServiceAccount",
        true,
    ),
    ("resourcequotas", "quota", "v1", "ResourceQuota", true),
    (
        "resourcequotas",
        "resourcequota",
        "v1",
        "ResourceQuota",
        true,
    ),
    ("events", "event", "events.k8s.io/v1", "Event", true),
    ("deployments", "deployment", "apps/v1", "Deployment", true),
    ("daemonsets", "daemonset", "apps/v1", "DaemonSet", true),
    (
        "statefulsets",
        "statefulset",
        "apps/v1",
        "StatefulSet",
        true,
    ),
    ("replicasets", "replicaset", "apps/v1", "ReplicaSet", true),
    ("leases", "lease", "coordination.k8s.io/v1", "Lease", true),
    (
        "clusterroles",
        "clusterrole",
        "rbac.authorization.k8s.io/v1",
        "ClusterRole",
        false,
    ),
    (
        "customresourcedefinitions",
        "crd",
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        false,
    ),
    (
        "validatingwebhookconfigurations",
        "validatingwebhookconfiguration",
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        false,
    ),
    (
        "validatingadmissionpolicies",
        "validatingadmissionpolicy",
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicy",
        false,
    ),
    (
        "validatingadmissionpolicybindings",
        "validatingadmissionpolicybinding",
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicyBinding",
        false,
    ),
    (
        "clusterrolebindings",
        "clusterrolebinding",
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        false,
    ),
    (
        "roles",
        "role",
        "rbac.authorization.k8s.io/v1",
        "Role",
        true,
    ),
    (
        "rolebindings",
        "rolebinding",
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        true,
    ),
    (
        "clustertrustbundles",
        "clustertrustbundle",
        "certificates.k8s.io/v1beta1",
        "ClusterTrustBundle",
        false,
    ),
];

/// The API server, asked from this process.
#[derive(Clone)]
pub struct Api {
    client: Client,
}

impl Api {
    /// A client with the address and the credentials of this kubeconfig. It connects at its first
    /// request.
    pub fn new(kubeconfig: &Path) -> anyhow::Result<Self> {
        // One provider in a process; another client may have set it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let client = RUNTIME.block_on(async {
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            anyhow::Ok(Client::try_from(config)?)
        });
        Ok(Self { client: client? })
    }

    /// The client itself, for what has no method here.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Runs a future of [`client`](Self::client) to its end.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        RUNTIME.block_on(future)
    }

    /// An object as `kubectl get --output=json` prints it, without managed fields.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> anyhow::Result<Option<Value>> {
        let api = self.of_kind(kind, namespace);
        let found = retried(|| RUNTIME.block_on(api.get_opt(name)));
        found?.map(without_managed_fields).transpose()
    }

    /// The objects of a kind, by label and field selectors that may be empty; those of all
    /// namespaces if `namespace` is empty.
    pub fn list(
        &self,
        kind: &str,
        namespace: &str,
        labels: &str,
        fields: &str,
    ) -> anyhow::Result<Vec<Value>> {
        let api = self.of_kind(kind, namespace);
        let mut parameters = ListParams::default();
        if !labels.is_empty() {
            parameters = parameters.labels(labels);
        }
        if !fields.is_empty() {
            parameters = parameters.fields(fields);
        }
        let list = retried(|| RUNTIME.block_on(api.list(&parameters)))?;
        list.items.into_iter().map(without_managed_fields).collect()
    }

    /// Creates an object; the error is the status of the API server.
    pub fn create(&self, namespace: &str, object: &Value) -> anyhow::Result<Value> {
        self.create_with(namespace, object, &PostParams::default())
    }

    /// Asks whether an object would be created.
    pub fn dry_run(&self, namespace: &str, object: &Value) -> anyhow::Result<Value> {
        let parameters = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        self.create_with(namespace, object, &parameters)
    }

    fn create_with(
        &self,
        namespace: &str,
        object: &Value,
        parameters: &PostParams,
    ) -> anyhow::Result<Value> {
        let api = self.of_object(namespace, object)?;
        let object: DynamicObject = serde_json::from_value(object.clone())?;
        let created = RUNTIME.block_on(api.create(parameters, &object));
        without_managed_fields(created?)
    }

    /// Applies an object on the server's side, and takes over the fields of other managers.
    pub fn apply(&self, namespace: &str, object: &Value) -> anyhow::Result<Value> {
        self.apply_as("kubectl", namespace, object)
    }

    /// The same as this field manager.
    pub fn apply_as(
        &self,
        manager: &str,
        namespace: &str,
        object: &Value,
    ) -> anyhow::Result<Value> {
        let api = self.of_object(namespace, object)?;
        let name = object["metadata"]["name"]
            .as_str()
            .context("the object has no name")?;
        let parameters = PatchParams::apply(manager).force();
        let applied = RUNTIME.block_on(api.patch(name, &parameters, &Patch::Apply(object)));
        without_managed_fields(applied?)
    }

    /// Changes an object by a merge patch.
    pub fn merge(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        change: &Value,
    ) -> anyhow::Result<Value> {
        let api = self.of_kind(kind, namespace);
        let patch = Patch::Merge(change);
        let patched = RUNTIME.block_on(api.patch(name, &PatchParams::default(), &patch));
        without_managed_fields(patched?)
    }

    /// Changes the status of an object by a merge patch.
    pub fn merge_status(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        change: &Value,
    ) -> anyhow::Result<Value> {
        let api = self.of_kind(kind, namespace);
        let patch = Patch::Merge(change);
        let patched = RUNTIME.block_on(api.patch_status(name, &PatchParams::default(), &patch));
        without_managed_fields(patched?)
    }

    /// Sets an annotation, or removes it.
    pub fn annotate(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        key: &str,
        value: Option<&str>,
    ) -> anyhow::Result<Value> {
        let change = json!({"metadata": {"annotations": {key: value}}});
        self.merge(kind, namespace, name, &change)
    }

    /// Sets a label, or removes it.
    pub fn label(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        key: &str,
        value: Option<&str>,
    ) -> anyhow::Result<Value> {
        let change = json!({"metadata": {"labels": {key: value}}});
        self.merge(kind, namespace, name, &change)
    }

    /// Deletes an object and waits until this very one is gone, as `kubectl delete` does.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> anyhow::Result<()> {
        let api = self.of_kind(kind, namespace);
        let object = RUNTIME.block_on(api.get(name))?;
        let uid = object.metadata.uid;
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        RUNTIME.block_on(api.delete(name, &parameters))?;
        super::eventually(&format!("{kind} {name} is gone"), || {
            let now = RUNTIME.block_on(api.get_metadata_opt(name)).ok()?;
            now.is_none_or(|now| now.metadata.uid != uid).then_some(())
        });
        Ok(())
    }

    /// Deletes an object without waiting for its end; one that is gone already is no error.
    pub fn delete_later(&self, kind: &str, namespace: &str, name: &str) -> anyhow::Result<()> {
        let api = self.of_kind(kind, namespace);
        match RUNTIME.block_on(api.delete(name, &DeleteParams::background())) {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }

    fn of_kind(&self, kind: &str, namespace: &str) -> kube::Api<DynamicObject> {
        let found = KINDS.iter().find(|(plural, singular, _, name, _)| {
            [plural, singular].contains(&&kind) || *name == kind
        });
        let (plural, _, version, kind, is_namespaced) =
            *found.unwrap_or_else(|| panic!("{kind} is not in the table of kinds: add it"));
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        let client = self.client();
        if is_namespaced && !namespace.is_empty() {
            kube::Api::namespaced_with(client, namespace, &resource)
        } else {
            kube::Api::all_with(client, &resource)
        }
    }

    fn of_object(
        &self,
        namespace: &str,
        object: &Value,
    ) -> anyhow::Result<kube::Api<DynamicObject>> {
        let kind = object["kind"].as_str().context("the object has no kind")?;
        let own = object["metadata"]["namespace"].as_str();
        Ok(self.of_kind(kind, own.unwrap_or(namespace)))
    }
}

/// Asks once more if the connection was lost, as that to an API server that has been restarted.
fn retried<T>(ask: impl Fn() -> kube::Result<T>) -> kube::Result<T> {
    match ask() {
        Err(kube::Error::HyperError(_) | kube::Error::Service(_)) => ask(),
        other => other,
    }
}

fn without_managed_fields(mut object: DynamicObject) -> anyhow::Result<Value> {
    object.metadata.managed_fields = None;
    Ok(serde_json::to_value(object)?)
}
