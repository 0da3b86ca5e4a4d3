//! The copies for the whole cluster, which pods mount without a `ConfigMap`: `ClusterTrustBundles`.
//!
//! Kubernetes has the type since 1.27 (beta since 1.33, and on by default since 1.37). So discovery
//! finds it, and the objects have no type here. One bundle has the name that people choose. The
//! other is that of the signer of pod certificates: a pod takes it by the signer's name, beside its
//! certificate.

use super::{ATTEMPT_TIMEOUT, TrustBundleController, is_ours, known, labels};
use crate::api::SIGNER;
use crate::k8s::patch;
use crate::k8s::scope::Scope;
use kube::api::{ApiResource, DynamicObject, Patch};
use kube::error::DiscoveryError;
use kube::{Api, discovery};
use pki_certs::Trust;
use serde_json::json;
use std::time::Duration;

const GROUP: &str = "certificates.k8s.io";
const KIND: &str = "ClusterTrustBundle";
/// The name of the signer's bundle, which begins with the name of the signer.
const SIGNER_BUNDLE: &str = "box.com:pki:ca";
/// The interval at which the object is read: only administrators of the cluster can edit it.
const POLL: Duration = Duration::from_secs(30);
/// The interval at which the type is looked for.
const DISCOVERY: Duration = Duration::from_secs(3600);
/// The pause after the first failure.
const RETRY: Duration = Duration::from_secs(5);
/// Number of failures after which a rotation does not wait any more. The next attempts go on.
const MAX_FAILURES: u32 = 5;

/// A `ClusterTrustBundle` to write.
#[derive(Clone, Copy)]
struct Bundle<'a> {
    name: &'a str,
    signer: Option<&'static str>,
}

/// Results of a reconcile, one for each bundle.
type Outcomes = [Outcome; 2];

/// Result for a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Current,
    Foreign,
    Unserved,
    Unwanted,
}

impl TrustBundleController {
    pub(super) async fn keep_cluster_bundle(&self) {
        let mut ca = self.ca.clone();
        let mut served = None;
        let mut reported = None;
        let mut failures = 0;
        loop {
            let mut pause = DISCOVERY;
            if let Some(ca) = known(&mut ca) {
                match self.try_cluster_bundle(&mut served, &ca.trust).await {
                    Ok(outcomes) => {
                        if reported.replace(outcomes) != Some(outcomes) {
                            self.log_outcomes(outcomes, served.as_ref());
                        }
                        if matches!(outcomes[0], Outcome::Current | Outcome::Foreign) {
                            pause = POLL;
                        }
                        failures = 0;
                    }
                    Err(error) => {
                        let name = &self.settings.name;
                        tracing::warn!(
                            name,
                            error,
                            "failed to write the ClusterTrustBundle; retrying"
                        );
                        failures += 1;
                        pause = POLL.min(RETRY * failures);
                        // The type may not be served any more.
                        served = None;
                    }
                }
                if failures == 0 || failures >= MAX_FAILURES {
                    let fingerprint = ca.trust.fingerprint().to_owned();
                    self.published.bundle.send_replace(Some(fingerprint));
                }
            }
            if let Ok(Err(_)) = tokio::time::timeout(pause, ca.changed()).await {
                // Without the CA controller the term is over.
                return;
            }
        }
    }

    async fn try_cluster_bundle(
        &self,
        served: &mut Option<ApiResource>,
        trust: &Trust,
    ) -> Result<Outcomes, String> {
        let attempt = self.reconcile_cluster_bundles(served, trust);
        match tokio::time::timeout(ATTEMPT_TIMEOUT, attempt).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err("it takes too long".to_owned()),
        }
    }

    async fn reconcile_cluster_bundles(
        &self,
        served: &mut Option<ApiResource>,
        trust: &Trust,
    ) -> Result<Outcomes, kube::Error> {
        // Others may serve the rest of the cluster, with another CA.
        if !matches!(self.scope, Scope::Cluster) {
            return Ok([Outcome::Unwanted; 2]);
        }
        if served.is_none() {
            *served = self.discover().await?;
        }
        let Some(resource) = served else {
            return Ok([Outcome::Unserved; 2]);
        };
        let mut outcomes = [Outcome::Unserved; 2];
        for (bundle, outcome) in self.bundles().into_iter().zip(&mut outcomes) {
            *outcome = self.reconcile_bundle(bundle, resource, trust).await?;
        }
        Ok(outcomes)
    }

    fn bundles(&self) -> [Bundle<'_>; 2] {
        let (name, signer) = (&*self.settings.name, Some(SIGNER));
        let own = Bundle { name, signer: None };
        let name = SIGNER_BUNDLE;
        [own, Bundle { name, signer }]
    }

    async fn reconcile_bundle(
        &self,
        bundle: Bundle<'_>,
        resource: &ApiResource,
        trust: &Trust,
    ) -> Result<Outcome, kube::Error> {
        let Bundle { name, signer } = bundle;
        let bundles = Api::<DynamicObject>::all_with(self.client.clone(), resource);
        let mut spec = json!({ "spec": { "trustBundle": trust.pem() } });
        if let Some(signer) = signer {
            spec["spec"]["signerName"] = json!(signer);
        }
        let Some(stored) = bundles.get_opt(name).await? else {
            let mut bundle = DynamicObject::new(name, resource).data(spec);
            bundle.metadata.labels = Some(labels());
            bundles.create(&patch::post(), &bundle).await?;
            tracing::info!(name, "wrote the ClusterTrustBundle");
            return Ok(Outcome::Current);
        };
        if !is_ours(&stored.metadata) {
            return Ok(Outcome::Foreign);
        }
        if stored.data["spec"]["trustBundle"] != trust.pem() {
            patch::bind(&mut spec, &stored);
            let change = Patch::Merge(&spec);
            bundles.patch(name, &patch::patch(), &change).await?;
            tracing::info!(name, "repaired the ClusterTrustBundle");
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

    fn log_outcomes(&self, outcomes: Outcomes, served: Option<&ApiResource>) {
        let bundles = self.bundles().into_iter().zip(outcomes);
        // An outcome of the type is logged once.
        let is_of_type = matches!(outcomes[0], Outcome::Unserved | Outcome::Unwanted);
        for (Bundle { name, .. }, outcome) in bundles.take(if is_of_type { 1 } else { 2 }) {
            log_outcome(name, outcome, served);
        }
    }
}

fn log_outcome(name: &str, outcome: Outcome, served: Option<&ApiResource>) {
    match outcome {
        Outcome::Current => {
            let version = served.map(|resource| resource.api_version.as_str());
            tracing::info!(name, version, "the ClusterTrustBundle holds the CA bundle");
        }
        Outcome::Foreign => tracing::warn!(
            name,
            "the ClusterTrustBundle does not belong to the operator, which leaves it alone: delete it"
        ),
        Outcome::Unserved => tracing::info!(
            "the API server has no ClusterTrustBundle; the CA bundle is in ConfigMaps only"
        ),
        Outcome::Unwanted => tracing::info!(
            "the CA bundle is in ConfigMaps only, because a ClusterTrustBundle would reach namespaces that the operator does not serve"
        ),
    }
}
