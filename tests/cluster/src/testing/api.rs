//! A client of the API server that blocks, as tests do.
//!
//! A request takes a millisecond or two of processor time. `kubectl` takes more than fifty times
//! as much, so tests use it where they test what people read of it.

use std::path::Path;
use std::sync::LazyLock;

use anyhow::Context as _;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GetParams, GroupVersionKind, ListParams, Patch,
    PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{Request, request};
use kube::{Client, Config, Resource as _};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

/// The number of requests of [`Api::create_all`] at a time.
const CONCURRENCY: usize = 8;

/// Runs the connections of all clients of this process.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build();
    runtime.expect("the system has threads")
});

type HttpRequest = http::Request<Vec<u8>>;

/// The kinds that tests use and that have a namespace, by version.
const NAMESPACED: &[(&str, &[&str])] = &[
    (
        "v1",
        &[
            "Secret",
            "Pod",
            "ConfigMap",
            "Service",
            "ServiceAccount",
            "ResourceQuota",
        ],
    ),
    ("box.com/v1", &["Pki"]),
    ("events.k8s.io/v1", &["Event"]),
    (
        "apps/v1",
        &["Deployment", "DaemonSet", "StatefulSet", "ReplicaSet"],
    ),
    ("coordination.k8s.io/v1", &["Lease"]),
    ("certificates.k8s.io/v1", &["PodCertificateRequest"]),
    ("rbac.authorization.k8s.io/v1", &["Role", "RoleBinding"]),
];

/// Those without a namespace.
const CLUSTER_SCOPED: &[(&str, &[&str])] = &[
    ("v1", &["Namespace", "Node"]),
    ("box.com/v1", &["PkiPolicy"]),
    (
        "rbac.authorization.k8s.io/v1",
        &["ClusterRole", "ClusterRoleBinding"],
    ),
    ("apiextensions.k8s.io/v1", &["CustomResourceDefinition"]),
    (
        "admissionregistration.k8s.io/v1",
        &[
            "ValidatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
        ],
    ),
    ("certificates.k8s.io/v1", &["ClusterTrustBundle"]),
    ("authorization.k8s.io/v1", &["SubjectAccessReview"]),
];

/// Short names, as `kubectl` takes them.
const SHORT_NAMES: [(&str, &str); 2] = [
    ("crd", "CustomResourceDefinition"),
    ("quota", "ResourceQuota"),
];

/// A client with the address and the credentials of this kubeconfig, for a program with a runtime
/// of its own. It connects at its first request.
pub async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    // One provider in a process; another client may have set it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    Ok(Client::try_from(config)?)
}

/// The API server, asked from this process.
#[derive(Clone)]
pub struct Api {
    client: Client,
}

impl Api {
    /// The API server of this kubeconfig, with its credentials.
    pub fn new(kubeconfig: &Path) -> anyhow::Result<Self> {
        let client = RUNTIME.block_on(client(kubeconfig))?;
        Ok(Self { client })
    }

    /// The same, as an administrator who acts as somebody else.
    pub fn acting_as(kubeconfig: &Path, user: &str, groups: &[&str]) -> anyhow::Result<Self> {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let client = RUNTIME.block_on(async {
            let options = KubeConfigOptions::default();
            let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            config.auth_info.impersonate = Some(user.to_owned());
            let groups = groups.iter().map(ToString::to_string);
            config.auth_info.impersonate_groups = Some(groups.collect());
            anyhow::Ok(Client::try_from(config)?)
        })?;
        Ok(Self { client })
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
        let request = requests(kind, namespace).get(name, &GetParams::default())?;
        match self.ask_again(&request) {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
            found => Ok(Some(without_managed_fields(found?))),
        }
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
        let mut parameters = ListParams::default();
        if !labels.is_empty() {
            parameters = parameters.labels(labels);
        }
        if !fields.is_empty() {
            parameters = parameters.fields(fields);
        }
        let mut list = self.ask_again(&requests(kind, namespace).list(&parameters)?)?;
        let items = match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        Ok(items.into_iter().map(without_managed_fields).collect())
    }

    /// Creates an object; the error is the status of the API server.
    pub fn create(&self, namespace: &str, object: &Value) -> anyhow::Result<Value> {
        self.create_with(namespace, object, false)
    }

    /// Creates objects of one kind, a few at a time, or asks whether they would be created.
    ///
    /// An error is the message of the API server.
    pub fn create_all(
        &self,
        namespace: &str,
        objects: impl IntoIterator<Item = Value>,
        is_dry_run: bool,
    ) -> Vec<Result<Value, String>> {
        let parameters = post(is_dry_run);
        let objects: Vec<_> = objects.into_iter().collect();
        let mut results = Vec::with_capacity(objects.len());
        for some in objects.chunks(CONCURRENCY) {
            let created = some.iter().map(|object| {
                let requests = requests_of(namespace, object).expect("it has a kind");
                let request = requests.create(&parameters, object.to_string().into_bytes());
                let (client, request) = (self.client(), request.expect("a request"));
                RUNTIME.spawn(async move { client.request::<Value>(request).await })
            });
            let created: Vec<_> = created.collect();
            let created = created.into_iter().map(|it| RUNTIME.block_on(it));
            results.extend(created.map(|created| match created.expect("no panic") {
                Ok(object) => Ok(without_managed_fields(object)),
                Err(kube::Error::Api(status)) => Err(status.message.clone()),
                Err(error) => panic!("{error}"),
            }));
        }
        results
    }

    /// Asks whether an object would be created.
    pub fn dry_run(&self, namespace: &str, object: &Value) -> anyhow::Result<Value> {
        self.create_with(namespace, object, true)
    }

    fn create_with(
        &self,
        namespace: &str,
        object: &Value,
        is_dry_run: bool,
    ) -> anyhow::Result<Value> {
        let body = object.to_string().into_bytes();
        self.changed(requests_of(namespace, object)?.create(&post(is_dry_run), body))
    }

    /// Asks whether a user may do this, as `kubectl auth can-i` does. `action` has the fields of
    /// `resourceAttributes`.
    pub fn is_permitted(&self, user: &str, action: &Value) -> anyhow::Result<bool> {
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
            "spec": {"user": user, "resourceAttributes": action}});
        Ok(self.create("", &review)?["status"]["allowed"] == true)
    }

    /// Puts an object in the place of the one with its name, as `kubectl replace` does.
    pub fn replace(&self, namespace: &str, object: &Value) -> anyhow::Result<Value> {
        let (name, body) = (name_of(object)?, object.to_string().into_bytes());
        self.changed(requests_of(namespace, object)?.replace(name, &post(false), body))
    }

    /// Applies an object on the server's side, and takes over the fields of other managers.
    pub fn apply(&self, namespace: &str, object: &Value) -> anyhow::Result<Value> {
        self.apply_as("kubectl", namespace, object)
    }

    /// Applies an object as this field manager.
    pub fn apply_as(
        &self,
        manager: &str,
        namespace: &str,
        object: &Value,
    ) -> anyhow::Result<Value> {
        let (name, patch) = (name_of(object)?, Patch::Apply(object));
        let parameters = PatchParams::apply(manager).force();
        self.changed(requests_of(namespace, object)?.patch(name, &parameters, &patch))
    }

    /// Changes an object by a merge patch.
    pub fn merge(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        change: &Value,
    ) -> anyhow::Result<Value> {
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(change));
        self.changed(requests(kind, namespace).patch(name, &parameters, &patch))
    }

    /// Changes an object by a merge patch as this field manager.
    pub fn merge_as(
        &self,
        manager: &str,
        kind: &str,
        namespace: &str,
        name: &str,
        change: &Value,
    ) -> anyhow::Result<Value> {
        let parameters = PatchParams {
            field_manager: Some(manager.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(change);
        self.changed(requests(kind, namespace).patch(name, &parameters, &patch))
    }

    /// Changes an object by a JSON patch, which is a list of operations.
    pub fn patch(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        operations: &Value,
    ) -> anyhow::Result<Value> {
        let operations = serde_json::from_value(operations.clone())?;
        let (parameters, patch) = (PatchParams::default(), Patch::<Value>::Json(operations));
        self.changed(requests(kind, namespace).patch(name, &parameters, &patch))
    }

    /// Changes the status of an object by a merge patch.
    pub fn merge_status(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        change: &Value,
    ) -> anyhow::Result<Value> {
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(change));
        let requests = requests(kind, namespace);
        self.changed(requests.patch_subresource("status", name, &parameters, &patch))
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
        let was_there = self.delete_if_there(kind, namespace, name)?;
        anyhow::ensure!(was_there, "there is no {kind} {name}");
        Ok(())
    }

    /// Deletes an object that may be missing, and waits. Returns whether it was there.
    pub fn delete_if_there(&self, kind: &str, namespace: &str, name: &str) -> anyhow::Result<bool> {
        let Some(object) = self.get(kind, namespace, name)? else {
            return Ok(false);
        };
        self.delete_later(kind, namespace, name)?;
        super::eventually(&format!("{kind} {name} is gone"), || {
            let now = self.get(kind, namespace, name).ok()?;
            let uid = |object: &Value| object["metadata"]["uid"].clone();
            now.is_none_or(|now| uid(&now) != uid(&object))
                .then_some(())
        });
        Ok(true)
    }

    /// Deletes an object without waiting for its end; one that is gone already is no error.
    pub fn delete_later(&self, kind: &str, namespace: &str, name: &str) -> anyhow::Result<()> {
        let request = requests(kind, namespace).delete(name, &DeleteParams::background())?;
        match self.ask(request) {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }

    /// Sends a request that changes an object, and returns the object.
    fn changed(&self, request: Result<HttpRequest, request::Error>) -> anyhow::Result<Value> {
        Ok(without_managed_fields(self.ask(request?)?))
    }

    fn ask(&self, request: HttpRequest) -> kube::Result<Value> {
        RUNTIME.block_on(self.client.request(request))
    }

    /// Asks once more if the connection was lost, as that to an API server that has been restarted.
    fn ask_again(&self, request: &HttpRequest) -> kube::Result<Value> {
        match self.ask(request.clone()) {
            Err(kube::Error::HyperError(_) | kube::Error::Service(_)) => self.ask(request.clone()),
            answer => answer,
        }
    }
}

/// Requests about a kind, which is named as for `kubectl`.
fn requests(kind: &str, namespace: &str) -> Request {
    let (resource, is_namespaced) = resource(kind);
    requests_at(&resource, is_namespaced, namespace)
}

/// Requests about this very object, in its version.
fn requests_of(namespace: &str, object: &Value) -> anyhow::Result<Request> {
    let kind = object["kind"].as_str();
    let version = object["apiVersion"].as_str();
    let version = version.context("the object has no apiVersion")?;
    let (resource, is_namespaced) = resource(kind.context("the object has no kind")?);
    let resource = ApiResource::from_gvk(&gvk(version, &resource.kind));
    let own = object["metadata"]["namespace"].as_str();
    Ok(requests_at(
        &resource,
        is_namespaced,
        own.unwrap_or(namespace),
    ))
}

fn requests_at(resource: &ApiResource, is_namespaced: bool, namespace: &str) -> Request {
    let namespace = (is_namespaced && !namespace.is_empty()).then_some(namespace);
    Request::new(DynamicObject::url_path(resource, namespace))
}

/// A kind of the tables by its name in a manifest, its plural, its singular or its short name, and
/// whether it has a namespace.
///
/// Panics if the kind is not in a table.
fn resource(name: &str) -> (ApiResource, bool) {
    let short = SHORT_NAMES.iter().find(|(short, _)| *short == name);
    let name = short.map_or(name, |(_, kind)| kind);
    let tables = [(NAMESPACED, true), (CLUSTER_SCOPED, false)];
    let rows = tables.iter().flat_map(|(table, is_namespaced)| {
        let of_version = |(version, kinds): &'static (&str, &[&str])| {
            kinds.iter().map(|kind| gvk(version, kind))
        };
        let kinds = table.iter().flat_map(of_version);
        kinds.map(|kind| (ApiResource::from_gvk(&kind), *is_namespaced))
    });
    let mut found = rows.filter(|(resource, _)| {
        resource.plural == name || resource.kind.eq_ignore_ascii_case(name)
    });
    let found = found.next();
    found.unwrap_or_else(|| panic!("{name} is not in the tables of kinds: add it"))
}

fn gvk(version: &str, kind: &str) -> GroupVersionKind {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    GroupVersionKind::gvk(group, version, kind)
}

fn post(is_dry_run: bool) -> PostParams {
    PostParams {
        dry_run: is_dry_run,
        ..PostParams::default()
    }
}

fn name_of(object: &Value) -> anyhow::Result<&str> {
    let name = object["metadata"]["name"].as_str();
    name.context("the object has no name")
}

fn without_managed_fields(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    object
}
