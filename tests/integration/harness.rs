//! One cluster with one operator for most tests of this binary, another for those that disturb; and
//! what tests say often.

use k8s_openapi::ByteString;
use pki_certs::Authority;
use pki_cluster::install::{self, Install, Operator, Replica};
use pki_cluster::testing::{self, Api, AuditLog, Request, manifest};
use pki_cluster::{Cluster, Options, needs};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::Duration;

pub(crate) use admission_policy::RESERVED;
pub(crate) use arena::arena;
pub(crate) use hook::Hook;
pub(crate) use line::Line;
pub(crate) use pki_cluster::testing::{PATIENCE, eventually, openssl, serial_of};

mod admission_policy;
mod arena;
mod barrier;
mod hook;
mod line;
pub(crate) mod random;
mod removal;

/// The cluster that most tests share, and the replica that leads in it.
pub(crate) static SHARED: LazyLock<Shared> = LazyLock::new(|| {
    let installed =
        Installed::start(&["app1", "app2"], Options::default()).expect("the shared cluster starts");
    let operator = installed.first_replica("operator-1", &[]);
    Shared {
        operator: operator.expect("the operator starts"),
        installed,
    }
});

/// A cluster and its one operator.
pub(crate) struct Shared {
    pub(crate) operator: Operator,
    installed: Installed,
}

impl Deref for Shared {
    type Target = Installed;

    fn deref(&self) -> &Installed {
        &self.installed
    }
}

/// A cluster with the chart installed.
pub(crate) struct Installed {
    pub(crate) cluster: Cluster,
    pub(crate) kubeconfig: PathBuf,
    /// The API server, asked as its administrator.
    pub(crate) api: Api,
    audit: AuditLog,
    /// The objects of the chart, unless Helm has changed the release since.
    release: Mutex<Option<Vec<Value>>>,
    /// Where the API server looks for the webhook.
    pub(crate) webhook: SocketAddr,
    allowed_names: Vec<String>,
}

impl Installed {
    /// Starts a cluster and installs the chart with these allowed names.
    pub(crate) fn start(allowed_names: &[&str], options: Options) -> anyhow::Result<Self> {
        needs::check(&[needs::OPENSSL])?;
        let cluster = Cluster::start(options)?;
        let kubeconfig = cluster.dir().join("operator.kubeconfig");
        let installed = Self {
            api: Api::new(cluster.kubeconfig())?,
            audit: AuditLog::of(&cluster),
            release: Mutex::default(),
            cluster,
            kubeconfig,
            webhook: install::free_address()?,
            allowed_names: allowed_names.iter().map(ToString::to_string).collect(),
        };
        installed.install()?;
        install::service_account_kubeconfig(|| installed.cluster.kubectl(), &installed.kubeconfig)?;
        Ok(installed)
    }

    /// Installs the chart, or brings back what is missing of it.
    pub(crate) fn install(&self) -> anyhow::Result<()> {
        self.install_with(&[])?;
        self.note_release()
    }

    /// The same with further values, as in `namespaces={a,b}`.
    pub(crate) fn install_with(&self, values: &[&str]) -> anyhow::Result<()> {
        let names: Vec<_> = self.allowed_names.iter().map(String::as_str).collect();
        let install = Install {
            allowed_names: &names,
            webhook: &self.webhook.to_string(),
            values,
        };
        install.run(self.helm()?).map(drop)
    }

    /// The objects of one template of the chart, rendered with these options.
    fn render(&self, template: &str, options: &[&str]) -> Vec<Value> {
        let mut helm = self.cluster.helm().expect("there is Helm");
        helm.args(["template", install::RELEASE]).arg(chart());
        helm.args(["--namespace", install::RELEASE, "--show-only", template]);
        let rendered = install::run(helm.args(options)).expect("it is rendered");
        serde_saphyr::from_multiple(&rendered).expect("the chart is YAML")
    }

    /// Takes the webhooks away, so that whatever the schema takes is stored.
    pub(crate) fn without_webhooks(&self) {
        let configuration = "validatingwebhookconfiguration";
        self.api
            .delete(configuration, "", "pki-operator")
            .expect("it is deleted");
    }

    /// Sets the URLs of some webhooks, by their places, as `kubectl edit` would.
    pub(crate) fn set_webhook_urls(&self, urls: impl IntoIterator<Item = (usize, String)>) {
        let replace = |(index, url): (usize, String)| json!({"op": "replace", "path": format!("/webhooks/{index}/clientConfig/url"), "value": url});
        let patch: Value = urls.into_iter().map(replace).collect();
        let kind = "validatingwebhookconfiguration";
        self.api
            .patch(kind, "", "pki-operator", &patch)
            .expect("they are set");
    }

    /// Removes every CA, with all that is known of it, while no operator runs.
    pub(crate) fn forget_cas(&self) {
        for (kind, name) in [
            ("secret", "pki-operator-ca"),
            ("secret", "pki-operator-webhook-ca"),
            ("configmap", "pki-operator-ca"),
        ] {
            let deleted = self.api.delete_if_there(kind, install::RELEASE, name);
            deleted.expect("it is deleted");
        }
    }

    /// Puts this CA in the place of the operator's, while no operator runs.
    pub(crate) fn bring_ca(&self, authority: &Authority) {
        self.forget_cas();
        let ca = authority.ca();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "pki-operator-ca", "namespace": install::RELEASE}, "stringData": {
                "tls.crt": if ca.chain_pem().is_empty() { ca.root_pem() } else { ca.chain_pem() },
                "ca.crt": ca.root_pem(), "tls.key": authority.private_key_pem().as_str()}});
        self.api
            .create(install::RELEASE, &secret)
            .expect("it is made");
    }

    /// Starts the replica that the API server asks, and waits until it is ready.
    pub(crate) fn first_replica(&self, identity: &str, flags: &[&str]) -> anyhow::Result<Operator> {
        let replica = self.described(identity, self.webhook, flags);
        replica.start(|name, command| self.cluster.spawn(name, command))
    }

    /// Starts another replica, on a port of its own.
    pub(crate) fn replica(&self, identity: &str, flags: &[&str]) -> anyhow::Result<Operator> {
        let replica = self.described(identity, install::free_address()?, flags);
        replica.start(|name, command| self.cluster.spawn(name, command))
    }

    /// A replica that is yet to be started, with [`spawn`](Cluster::spawn).
    pub(crate) fn described<'a>(
        &'a self,
        identity: &'a str,
        webhook: SocketAddr,
        flags: &'a [&'a str],
    ) -> Replica<'a> {
        Replica {
            binary: operator_binary(),
            kubeconfig: &self.kubeconfig,
            identity,
            webhook,
            host: "127.0.0.1",
            flags,
        }
    }

    /// The identity of the replica that leads.
    pub(crate) fn leader(&self) -> Option<String> {
        let lease = self
            .api
            .get("lease", install::RELEASE, "pki-operator")
            .ok()??;
        let holder = lease["spec"]["holderIdentity"].as_str()?;
        (!holder.is_empty()).then(|| holder.to_owned())
    }

    /// Whether the operator may do this; `action` has the fields of `resourceAttributes`.
    pub(crate) fn operator_may(&self, action: &Value) -> bool {
        let account = format!("system:serviceaccount:{0}:{0}", install::RELEASE);
        let permitted = self.api.is_permitted(&account, action);
        permitted.expect("the API server answers")
    }

    /// What the operator has written in a namespace so far, as the audit log of the API server has
    /// it.
    pub(crate) fn operator_writes(&self, namespace: &str) -> Vec<Write> {
        self.operator_writes_where(|other| other == namespace)
    }

    /// The same for all namespaces whose name is such.
    pub(crate) fn operator_writes_where(&self, is_such: impl Fn(&str) -> bool) -> Vec<Write> {
        let writes = |request: &Request| request.is_write() && is_such(&request.namespace);
        self.audit
            .requests(writes)
            .into_iter()
            .map(Write::from)
            .collect()
    }

    /// What the operator has asked of the API server so far in namespaces whose name is such, also
    /// in vain.
    pub(crate) fn operator_requests(&self, is_such: impl Fn(&str) -> bool) -> Vec<Write> {
        let requests = self.audit.requests(|request| is_such(&request.namespace));
        requests.into_iter().map(Write::from).collect()
    }

    /// Makes a namespace whose name begins with `prefix`.
    pub(crate) fn namespace(&self, prefix: &str) -> Namespace<'_> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{prefix}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.api
            .create("", &namespace)
            .expect("a namespace is made");
        Namespace {
            installed: self,
            name,
        }
    }

    /// Runs kubectl; its standard output, or its standard error as the error.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        testing::kubectl(&self.cluster, arguments)
    }

    /// Runs kubectl with `input` as its standard input.
    pub(crate) fn kubectl_with(&self, input: &str, arguments: &[&str]) -> anyhow::Result<String> {
        testing::kubectl_with(&self.cluster, input, arguments)
    }
}

/// The chart under test.
pub(crate) fn chart() -> PathBuf {
    pki_cluster::workspace_dir().join("charts/pki-operator")
}

/// The chart of the version before.
pub(crate) fn chart_before() -> PathBuf {
    let packaged = "tests/integration/chart/upgrade/pki-operator-0.1.0.tgz";
    pki_cluster::workspace_dir().join(packaged)
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Write {
    /// As in `create secrets` or `patch pkis/status`.
    pub(crate) what: String,
    pub(crate) code: u64,
}

impl From<Request> for Write {
    fn from(Request { what, code, .. }: Request) -> Self {
        Self { what, code }
    }
}

/// The binary under test.
pub(crate) fn operator_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_pki-operator"))
}

/// A namespace of one test.
pub(crate) struct Namespace<'a> {
    pub(crate) installed: &'a Installed,
    pub(crate) name: String,
}

impl Namespace<'_> {
    /// Runs kubectl in this namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let namespace = ["--namespace", &self.name];
        self.installed.kubectl(&[arguments, &namespace].concat())
    }

    /// Applies a Pki with this spec, in YAML or JSON.
    ///
    /// Panics with the refusal. [`kubectl_apply_pki`](Self::kubectl_apply_pki) returns it.
    pub(crate) fn apply_pki(&self, name: &str, spec: &str) {
        let spec = serde_saphyr::from_str(spec).expect("the spec is YAML");
        self.apply_object(&manifest::pki(name, &spec));
    }

    /// Applies a Pki, or returns the refusal in the words of the API server, without those that
    /// `kubectl` adds.
    pub(crate) fn try_apply_pki(&self, name: &str, spec: &str) -> Result<(), String> {
        let spec = serde_saphyr::from_str(spec).expect("the spec is YAML");
        let api = &self.installed.api;
        let applied = api.apply(&self.name, &manifest::pki(name, &spec));
        applied.map(drop).map_err(|error| error.to_string())
    }

    /// Applies each object of a manifest, and each item of a list.
    ///
    /// Panics with the refusal. [`kubectl_apply`](Self::kubectl_apply) returns it.
    pub(crate) fn apply(&self, manifest: &str) {
        let objects: Vec<Value> =
            serde_saphyr::from_multiple(manifest).expect("the manifest is YAML");
        for object in objects {
            match object["items"].as_array() {
                Some(items) => items.iter().for_each(|item| self.apply_object(item)),
                None => self.apply_object(&object),
            }
        }
    }

    /// Applies an object.
    pub(crate) fn apply_object(&self, object: &Value) {
        let applied = self.installed.api.apply(&self.name, object);
        applied.unwrap_or_else(|error| panic!("{error}: {object}"));
    }

    /// `kubectl apply` of a Pki with this spec, in YAML flow or JSON.
    pub(crate) fn kubectl_apply_pki(&self, name: &str, spec: &str) -> anyhow::Result<String> {
        self.kubectl_apply(&format!(
            r#"{{"apiVersion": "box.com/v1", "kind": "Pki", "metadata": {{"name": "{name}"}}, "spec": {spec}}}"#
        ))
    }

    /// `kubectl apply` of a manifest.
    pub(crate) fn kubectl_apply(&self, manifest: &str) -> anyhow::Result<String> {
        self.installed.kubectl_with(
            manifest,
            &["apply", "--namespace", &self.name, "--filename", "-"],
        )
    }

    /// Deletes an object and waits until it is gone.
    pub(crate) fn delete(&self, kind: &str, name: &str) {
        let deleted = self.installed.api.delete(kind, &self.name, name);
        deleted.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }

    /// Deletes an object without waiting for its end.
    pub(crate) fn delete_later(&self, kind: &str, name: &str) {
        let deleted = self.installed.api.delete_later(kind, &self.name, name);
        deleted.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }

    /// Deletes all objects of a kind without waiting for their end.
    pub(crate) fn delete_all_later(&self, kind: &str) {
        for object in self.list(kind, "") {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            self.delete_later(kind, name);
        }
    }

    /// Sets a label of the namespace itself, or removes it.
    pub(crate) fn label(&self, key: &str, value: Option<&str>) {
        let api = &self.installed.api;
        api.label("namespace", "", &self.name, key, value)
            .expect("the namespace is labelled");
    }

    /// Sets an annotation.
    pub(crate) fn annotate(&self, kind: &str, name: &str, key: &str, value: &str) {
        let api = &self.installed.api;
        let annotated = api.annotate(kind, &self.name, name, key, Some(value));
        annotated.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }

    /// Changes an object by a merge patch.
    pub(crate) fn merge(&self, kind: &str, name: &str, change: &Value) {
        let merged = self.installed.api.merge(kind, &self.name, name, change);
        merged.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }

    /// Creates Pkis `p-0`, `p-1` and so on, a few at a time, or asks whether they would be created.
    /// Returns the refusals by their number, from behind the name on.
    pub(crate) fn create_all(&self, specs: &[Value], is_dry_run: bool) -> BTreeMap<usize, String> {
        let pkis = specs.iter().enumerate();
        let pkis = pkis.map(|(index, spec)| manifest::pki(&format!("p-{index}"), spec));
        let created = self.installed.api.create_all(&self.name, pkis, is_dry_run);
        let refused = created.into_iter().enumerate();
        let refused = refused.filter_map(|(index, result)| Some((index, result.err()?)));
        let named = refused.map(|(index, refusal)| {
            // As in `Pki.box.com "p-1" is invalid`, or in `Pki ns/p-1: ` where the webhook says it.
            let names = [format!("\"p-{index}"), format!("/p-{index}")];
            let ends = names.iter().filter_map(|name| {
                let begin = refusal.find(name.as_str())?;
                Some(begin + name.len())
            });
            let end = ends.min().expect(&refusal);
            (index, refusal[end..].trim_end().to_owned())
        });
        named.collect()
    }

    /// An object as JSON, or `None` when there is none.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Option<Value> {
        self.installed.api.get(kind, &self.name, name).ok()?
    }

    /// The objects of a kind, by a label selector that may be empty.
    pub(crate) fn list(&self, kind: &str, labels: &str) -> Vec<Value> {
        let listed = self.installed.api.list(kind, &self.name, labels, "");
        listed.unwrap_or_else(|error| panic!("{kind}: {error}"))
    }

    /// The condition `Ready` of a Pki.
    pub(crate) fn ready(&self, pki: &str) -> Option<Value> {
        ready_condition(&self.get("pki", pki)?)
    }

    /// A word of the condition `Ready`, or nothing.
    pub(crate) fn ready_field(&self, pki: &str, field: &str) -> String {
        let ready = self.ready(pki).unwrap_or_default();
        ready[field].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the Pki is not ready for this reason; returns the message.
    pub(crate) fn wait_until_refused(&self, name: &str, reason: &str) -> String {
        eventually(&format!("Pki {name} is not ready: {reason}"), || {
            let ready = self.ready(name)?;
            let found = ready["status"] == "False" && ready["reason"] == reason;
            found.then(|| ready["message"].as_str().unwrap_or_default().to_owned())
        })
    }

    /// What the operator has written here so far, without Events: how often each.
    pub(crate) fn operator_writes(&self) -> BTreeMap<Write, usize> {
        let mut counts = BTreeMap::new();
        for write in self.installed.operator_writes(&self.name) {
            if !write.what.ends_with(" events") {
                *counts.entry(write).or_default() += 1;
            }
        }
        counts
    }

    /// Makes a pod that waits for ever, with this spec besides its container.
    pub(crate) fn pod(&self, name: &str, spec: &str) {
        let spec = format!("{{{spec}}}");
        let spec: Value = serde_json::from_str(&spec).expect("the spec is JSON");
        self.apply_pod(&manifest::pod(name, &spec));
    }

    /// Applies a pod.
    pub(crate) fn apply_pod(&self, pod: &Value) {
        // The namespace's service account may come a moment later than the namespace.
        eventually(&format!("a pod is made: {pod}"), || {
            self.installed.api.apply(&self.name, pod).ok()
        });
    }

    /// Makes a pod that mounts a Secret.
    pub(crate) fn pod_with(&self, name: &str, secret: &str) {
        self.apply_pod(&manifest::pod(name, &manifest::secret_volume(secret)));
    }

    /// Permits these service names in this namespace, with other fields of the policy's spec if
    /// need be.
    pub(crate) fn permit(&self, service_names: &[&str], more: &str) {
        let spec = format!(
            r#"{{"namespaces": {{"names": ["{}"]}}, "serviceNames": {service_names:?}{more}}}"#,
            self.name
        );
        let spec = serde_json::from_str(&spec).expect("the spec is JSON");
        let api = &self.installed.api;
        api.apply("", &manifest::policy(&self.name, &spec))
            .expect("the policy is applied");
        // The webhook hears of it moments later.
        let service_name = service_names.last().expect("a name to probe with");
        let probe = json!({"serviceName": service_name, "duration": "1h"});
        let probe = manifest::pki("probe", &probe);
        eventually("the policy is in force", || {
            api.dry_run(&self.name, &probe).ok()
        });
    }

    /// Makes a Secret of somebody else, without content.
    pub(crate) fn foreign_secret(&self, name: &str) {
        self.apply_object(
            &json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": name}}),
        );
    }

    /// Has the API server refuse every Secret, by a quota `none`.
    pub(crate) fn forbid_secrets(&self) {
        self.apply_object(&json!({"apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "none"}, "spec": {"hard": {"secrets": "0"}}}));
        eventually("the quota is in force", || {
            let quota = self.get("quota", "none")?;
            quota["status"]["hard"]["secrets"].is_string().then_some(())
        });
    }

    /// Makes the Secret `password`, for keystores: its key is `password` too.
    pub(crate) fn password(&self) {
        self.apply_object(
            &json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": "password"}, "stringData": {"password": "changeit"}}),
        );
    }

    /// Withdraws what [`permit`](Self::permit) permitted.
    pub(crate) fn withdraw(&self) {
        self.delete("pkipolicy", &self.name);
    }

    /// Waits until the Pki is ready for its current spec; returns it.
    pub(crate) fn wait_until_ready(&self, name: &str) -> Value {
        eventually(&format!("Pki {name} is ready"), || {
            let pki = self.get("pki", name)?;
            let ready = ready_condition(&pki)?;
            let current = ready["observedGeneration"] == pki["metadata"]["generation"];
            (ready["status"] == "True" && current).then_some(pki)
        })
    }

    /// Changes the status of a Pki by a merge patch.
    pub(crate) fn merge_status(&self, pki: &str, change: &Value) {
        let api = &self.installed.api;
        api.merge_status("pki", &self.name, pki, change)
            .expect("the status is patched");
    }

    /// Lets the next renewal on request come at once, as if the last one had been long ago.
    pub(crate) fn forget_renewal(&self, pki: &str) {
        self.merge_status(pki, &json!({"status": {"renewalRequest": null}}));
    }

    /// Waits until there are so many [`events`](Self::events).
    pub(crate) fn wait_for_events(&self, kind: &str, name: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{kind} {name} has {count} Events"), || {
            Some(self.events(kind, name)).filter(|events| events.len() >= count)
        })
    }

    /// The Events of the operator regarding an object, oldest first.
    pub(crate) fn events(&self, kind: &str, name: &str) -> Vec<Value> {
        let selector = format!("regarding.kind={kind},regarding.name={name}");
        let api = &self.installed.api;
        let mut events = api
            .list("events", &self.name, "", &selector)
            .expect("events can be listed");
        events.retain(|event| event["reportingController"] == "pki-operator");
        events.sort_by_key(|event| event["eventTime"].as_str().map(str::to_owned));
        events
    }
}

fn ready_condition(pki: &Value) -> Option<Value> {
    let mut conditions = pki["status"]["conditions"].as_array()?.iter();
    let ready = conditions.find(|condition| condition["type"] == "Ready");
    ready.cloned()
}

/// A file of a Secret, as text.
pub(crate) fn file(secret: &Value, name: &str) -> String {
    String::from_utf8(bytes(secret, name)).expect("it is text")
}

/// A file of a Secret; empty if it is not there.
pub(crate) fn bytes(secret: &Value, name: &str) -> Vec<u8> {
    let content = secret["data"].get(name).cloned().unwrap_or(Value::from(""));
    let decoded = serde_json::from_value::<ByteString>(content);
    decoded.expect("the API server writes base64").0
}

/// Types of the Events and their notes, as in `Warning: ...`.
pub(crate) fn notes(events: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let note = |event: &Value| format!("{}: {}", text(&event["type"]), text(&event["note"]));
    events.iter().map(note).collect()
}

/// How long nothing may happen before a test believes that nothing will.
pub(crate) fn quiet() {
    thread::sleep(Duration::from_secs(2));
}
