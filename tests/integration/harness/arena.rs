//! Clusters for tests that disturb: each has one for itself, as a fresh installation leaves it.

use super::Installed;
use pki_cluster::Options;
use pki_cluster::install::{self, RELEASE};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// A cluster without an operator, for one test at a time: it starts the replicas it needs, and may
/// kill them. There are as many as tests run side by side (`.cargo/config.toml`).
pub(crate) fn arena() -> MutexGuard<'static, Installed> {
    static ARENAS: [LazyLock<Mutex<Installed>>; 6] = [const { LazyLock::new(new) }; 6];
    fn new() -> Mutex<Installed> {
        let started = Installed::start(&["app1", "app2"], Options::default());
        Mutex::new(started.expect("another cluster starts"))
    }
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    let free = ARENAS.iter().find_map(|arena| arena.try_lock().ok());
    let arena = free.unwrap_or_else(|| {
        let arena = ARENAS[turn % ARENAS.len()].lock();
        arena.unwrap_or_else(PoisonError::into_inner)
    });
    arena.reset().expect("the arena is as before");
    arena
}

impl Installed {
    /// Removes what the test before may have left behind, and restores what it changed.
    fn reset(&self) -> anyhow::Result<()> {
        self.release_pkis()?;
        for kind in ["pkis", "pkipolicies"] {
            self.delete_all(kind);
        }
        self.api.delete_if_there("lease", RELEASE, "pki-operator")?;
        for namespace in self
            .api
            .list("namespaces", "", "box.com/trust-bundle", "")?
        {
            let name = namespace["metadata"]["name"].as_str().unwrap_or_default();
            self.api
                .label("namespace", "", name, "box.com/trust-bundle", None)?;
        }
        self.remove_other_webhook_cas()?;
        self.forget_pod_certificates()?;
        // A role that was replaced by hand would conflict with Helm.
        for role in ["pki-operator", "pki-operator-namespace"] {
            self.api.delete_later("clusterrole", "", role)?;
        }
        self.restore_release()?;
        self.remove_admission_policy();
        Ok(())
    }

    /// Brings the objects of the chart back to what it says. Helm has to do it where it has
    /// changed them since.
    pub(crate) fn restore_release(&self) -> anyhow::Result<()> {
        let release = self.release.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(objects) = release.clone() else {
            drop(release);
            return self.install();
        };
        for mut object in objects {
            if object["kind"] == "ValidatingWebhookConfiguration" {
                self.keep_path(&mut object)?;
            }
            self.api.apply_as("helm", RELEASE, &object)?;
        }
        Ok(())
    }

    /// Leaves the path of the webhooks to the operator, as the chart does.
    fn keep_path(&self, configuration: &mut Value) -> anyhow::Result<()> {
        let name = configuration["metadata"]["name"].as_str();
        let name = name.unwrap_or_default();
        let live = self.api.get("validatingwebhookconfiguration", "", name)?;
        let url = &live.unwrap_or_default()["webhooks"][0]["clientConfig"]["url"];
        let Some((_, segment)) = url
            .as_str()
            .and_then(|url| url.strip_suffix("/validate")?.rsplit_once('/'))
            .filter(|(_, segment)| segment.len() == 64)
        else {
            return Ok(());
        };
        let url = format!("https://{}/{segment}/validate", self.webhook);
        for webhook in configuration["webhooks"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            webhook["clientConfig"]["url"] = json!(url);
        }
        Ok(())
    }

    /// Removes a webhook's CA that has others beside it, which a test before has made, so that a
    /// fresh one is made.
    fn remove_other_webhook_cas(&self) -> anyhow::Result<()> {
        let name = "pki-operator-webhook-ca";
        let Some(secret) = self.api.get("secret", RELEASE, name)? else {
            return Ok(());
        };
        let has = |file: &str| {
            secret["data"]
                .get(file)
                .is_some_and(|content| content != "")
        };
        if has("previous.crt") || has("ca.crt") {
            self.api.delete("secret", RELEASE, name)?;
        }
        Ok(())
    }

    /// Removes a CA that has signed pod certificates: it would be trusted until they end.
    fn forget_pod_certificates(&self) -> anyhow::Result<()> {
        let map = self.api.get("configmap", RELEASE, "pki-operator-ca")?;
        let data = map.unwrap_or_default()["data"].to_string();
        if data.contains("pod-certificates-until") || data.contains("podCertificatesUntil") {
            self.forget_cas();
        }
        Ok(())
    }

    /// Notes which objects the chart has, to restore them without Helm.
    pub(super) fn note_release(&self) -> anyhow::Result<()> {
        let mut helm = self.cluster.helm()?;
        helm.args(["get", "manifest", RELEASE, "--namespace", RELEASE]);
        let manifest = install::run(&mut helm)?;
        let mut objects: Vec<Value> = serde_saphyr::from_multiple(&manifest)?;
        for object in &mut objects {
            // Helm adds these, and takes no object without them for its own.
            for field in ["name", "namespace"] {
                let key = format!("meta.helm.sh/release-{field}");
                object["metadata"]["annotations"][&key] = json!(RELEASE);
            }
        }
        *self.release.lock().unwrap_or_else(PoisonError::into_inner) = Some(objects);
        Ok(())
    }

    /// Helm, for a test that changes the release by it.
    pub(crate) fn helm(&self) -> anyhow::Result<std::process::Command> {
        *self.release.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.cluster.helm()
    }
}
