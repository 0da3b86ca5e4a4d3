//! The copy in one namespace: how it is written, checked, repaired and removed.

use super::labels;
use super::queue::{Found, Outcome, Task};
use crate::k8s::{api_error, patch};
use crate::model::trust_bundle::FILE;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, Preconditions};
use kube::{Api, ResourceExt};
use pki_certs::Trust;
use serde_json::{Value, json};

/// The copy in one namespace.
pub(super) struct Copy<'a> {
    pub(super) maps: Api<ConfigMap>,
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
    pub(super) trust: &'a Trust,
}

impl Copy<'_> {
    pub(super) async fn act(&self, task: Task) -> Result<Outcome, kube::Error> {
        match task {
            Task::Create => match self.maps.create(&patch::post(), &self.manifest()).await {
                Ok(created) => {
                    tracing::info!(namespace = self.namespace, "wrote the CA bundle");
                    Ok(self.holds(&created, true))
                }
                // The watch is behind.
                Err(error) if api_error::is_conflict(&error) => self.check().await,
                Err(error) => Err(error),
            },
            Task::Check => self.check().await,
            // Nobody asks for it, so finalizers that hold it are no fault.
            Task::Remove(found) => self.remove(found).await.map(|_| Outcome::Gone),
            // Nothing is written.
            Task::ReportForeign(found) => Ok(Outcome::Foreign(found)),
        }
    }

    async fn check(&self) -> Result<Outcome, kube::Error> {
        let Some(stored) = self.maps.get_opt(self.name).await? else {
            return Ok(Outcome::Gone);
        };
        match judge(&stored, self.trust) {
            Verdict::Current => Ok(self.holds(&stored, false)),
            Verdict::Foreign => Ok(Outcome::Foreign(Found::from(&stored.metadata))),
            // Another deletion would change nothing.
            Verdict::Immutable if stored.metadata.deletion_timestamp.is_some() => Ok(held(&stored)),
            Verdict::Immutable => {
                let left = self.remove(Found::from(&stored.metadata)).await?;
                Ok(left.as_ref().map_or(Outcome::Gone, held))
            }
            Verdict::Outdated(change) => {
                let patch = Patch::Merge(&change);
                let written = self.maps.patch(self.name, &patch::patch(), &patch).await?;
                tracing::info!(namespace = self.namespace, "repaired the CA bundle");
                Ok(self.holds(&written, true))
            }
        }
    }

    /// Deletes it. Returns what finalizers hold.
    async fn remove(&self, found: Found) -> Result<Option<ConfigMap>, kube::Error> {
        let only_this = DeleteParams {
            preconditions: Some(Preconditions {
                uid: found.uid,
                resource_version: found.version,
            }),
            ..DeleteParams::default()
        };
        let left = match self.maps.delete(self.name, &only_this).await {
            Ok(deleted) => deleted.left(),
            Err(error) if api_error::is_not_found(&error) => None,
            Err(error) => return Err(error),
        };
        if left.is_none() {
            tracing::info!(namespace = self.namespace, "removed the CA bundle");
        }
        Ok(left)
    }

    fn manifest(&self) -> ConfigMap {
        let manifest = json!({
            "metadata": { "name": self.name, "namespace": self.namespace, "labels": labels() },
            "data": { FILE: self.trust.pem() },
        });
        serde_json::from_value(manifest).expect("a name and texts are a ConfigMap")
    }

    fn holds(&self, stored: &ConfigMap, is_written: bool) -> Outcome {
        Outcome::Holds {
            found: Found::from(&stored.metadata),
            fingerprint: self.trust.fingerprint().to_owned(),
            is_written,
        }
    }
}

/// The copy cannot be made again before it is gone.
fn held(stored: &ConfigMap) -> Outcome {
    Outcome::Held {
        found: Found::from(&stored.metadata),
        finalizers: stored.finalizers().to_vec(),
    }
}

/// The state of a `ConfigMap` that has the name of a copy.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// A copy that holds the roots.
    Current,
    /// A copy that holds something else, and the merge patch that repairs it. Other entries stay.
    Outdated(Value),
    /// A copy that holds something else and may not be changed: it has to be made again.
    Immutable,
    /// Somebody else's.
    Foreign,
}

pub(super) fn judge(stored: &ConfigMap, trust: &Trust) -> Verdict {
    if !super::is_ours(&stored.metadata) {
        return Verdict::Foreign;
    }
    let found = stored.data.as_ref().and_then(|data| data.get(FILE));
    if found.map(String::as_str) == Some(trust.pem()) {
        return Verdict::Current;
    }
    if stored.immutable == Some(true) {
        return Verdict::Immutable;
    }
    // One key cannot be in both.
    let mut change = json!({ "data": { FILE: trust.pem() }, "binaryData": { FILE: null } });
    patch::bind(&mut change, stored);
    Verdict::Outdated(change)
}
