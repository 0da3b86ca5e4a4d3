//! The copy for the whole cluster, which pods mount without a `ConfigMap`: a `ClusterTrustBundle`,
//! where there is that type.
//!
//! Kubernetes has it since 1.27 (beta since 1.33), and has it switched off by default; so what is
//! served is found out, and the object is written without a type of its own. It names no signer:
//! for that the operator would need a permission that says it speaks for all clients of that
//! signer.

use super::{ATTEMPT_TIMEOUT, is_ours, known, labels};
use crate::k8s::patch;
use crate::model::ca::Ca;
use crate::model::trust_bundle::Published;
use kube::api::{ApiResource, DynamicObject, Patch};
use kube::error::DiscoveryError;
use kube::{Api, Client, discovery};
use pki_certs::Trust;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const GROUP: &str = "certificates.k8s.io";
const KIND: &str = "ClusterTrustBundle";
/// How often it is looked at when nothing calls for it: only administrators of the cluster can edit
/// it.
const POLL: Duration = Duration::from_secs(30);
/// How often to look whether the API server has the type by now.
const DISCOVERY: Duration = Duration::from_secs(3600);
/// Between two attempts that fail.
const RETRY: Duration = Duration::from_secs(5);
/// After so many failures it is not waited for any more; it is tried again all the same.
const MAX_FAILURES: u32 = 5;

/// Keeps the `ClusterTrustBundle`.
pub(super) struct ClusterBundle {
    pub(super) client: Client,
    /// Whether the operator serves the whole cluster. Else it writes nothing that all of it reads:
    /// others may serve the rest, with another CA.
    pub(super) is_wanted: bool,
    pub(super) name: String,
    pub(super) ca: watch::Receiver<Option<Arc<Ca>>>,
    pub(super) published: Arc<Published>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Current,
    Foreign,
    Unserved,
    Unwanted,
}

impl ClusterBundle {
    pub(super) async fn run(self) {
        let mut ca = self.ca.clone();
        let mut served = None;
        let mut said = None;
        let mut failures = 0;
        loop {
            let mut pause = DISCOVERY;
            if let Some(ca) = known(&mut ca) {
                let look = tokio::time::timeout(ATTEMPT_TIMEOUT, self.look(&mut served, &ca.trust));
                let problem = match look.await {
                    Ok(Ok(outcome)) => {
                        if said.replace(outcome) != Some(outcome) {
                            self.say(outcome, served.as_ref());
                        }
                        if matches!(outcome, Outcome::Current | Outcome::Foreign) {
                            pause = POLL;
                        }
                        failures = 0;
                        None
                    }
                    Ok(Err(error)) => Some(error.to_string()),
                    Err(_) => Some("it takes too long".to_owned()),
                };
                if let Some(error) = problem {
                    tracing::warn!(
                        name = self.name,
                        error,
                        "cannot write the ClusterTrustBundle; trying again"
                    );
                    failures += 1;
                    pause = POLL.min(RETRY * failures);
                    // What was served may not be any more.
                    served = None;
                }
                if failures == 0 || failures >= MAX_FAILURES {
                    let fingerprint = ca.trust.fingerprint().to_owned();
                    self.published.bundle.send_replace(Some(fingerprint));
                }
            }
            tokio::select! {
                changed = ca.changed() => {
                    // Without a keeper the term is over.
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn look(
        &self,
        served: &mut Option<ApiResource>,
        trust: &Trust,
    ) -> Result<Outcome, kube::Error> {
        if !self.is_wanted {
            return Ok(Outcome::Unwanted);
        }
        if served.is_none() {
            *served = self.discover().await?;
        }
        let Some(resource) = served else {
            return Ok(Outcome::Unserved);
        };
        let bundles = Api::<DynamicObject>::all_with(self.client.clone(), resource);
        let spec = json!({ "spec": { "trustBundle": trust.pem() } });
        let Some(stored) = bundles.get_opt(&self.name).await? else {
            let mut bundle = DynamicObject::new(&self.name, resource).data(spec);
            bundle.metadata.labels = Some(labels());
            bundles.create(&patch::post(), &bundle).await?;
            tracing::info!(name = self.name, "wrote the ClusterTrustBundle");
            return Ok(Outcome::Current);
        };
        if !is_ours(&stored.metadata) {
            return Ok(Outcome::Foreign);
        }
        if stored.data["spec"]["trustBundle"] != trust.pem() {
            let mut change = spec;
            patch::bind(&mut change, &stored);
            bundles
                .patch(&self.name, &patch::patch(), &Patch::Merge(&change))
                .await?;
            tracing::info!(name = self.name, "mended the ClusterTrustBundle");
        }
        Ok(Outcome::Current)
    }

    /// The type in the most stable version that is served.
    async fn discover(&self) -> Result<Option<ApiResource>, kube::Error> {
        let group = match discovery::group(&self.client, GROUP).await {
            Err(kube::Error::Discovery(DiscoveryError::MissingApiGroup(_))) => return Ok(None),
            group => group?,
        };
        let kinds = group.resources_by_stability().into_iter();
        let mut kinds = kinds.map(|(resource, _)| resource);
        Ok(kinds.find(|resource| resource.kind == KIND))
    }

    fn say(&self, outcome: Outcome, served: Option<&ApiResource>) {
        let (name, version) = (
            &self.name,
            served.map(|resource| resource.api_version.as_str()),
        );
        match outcome {
            Outcome::Current => {
                tracing::info!(name, version, "the ClusterTrustBundle holds the CA bundle");
            }
            Outcome::Foreign => tracing::warn!(
                name,
                "the ClusterTrustBundle is not the operator's, so it is left as it is: delete it, or set another name"
            ),
            Outcome::Unserved => tracing::info!(
                "the API server has no ClusterTrustBundle; the CA bundle is in ConfigMaps only"
            ),
            Outcome::Unwanted => tracing::info!(
                "the CA bundle is in ConfigMaps only, because a ClusterTrustBundle would reach beyond the namespaces that are served"
            ),
        }
    }
}
