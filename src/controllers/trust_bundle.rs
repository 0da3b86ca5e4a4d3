//! Publishes the roots of the CA to clients: as a `ConfigMap` in every namespace that asks for it,
//! and as a `ClusterTrustBundle` where the API server has that type.
//!
//! A client needs no Pki of its own to verify a server: it mounts `ca.crt`. The copies follow the
//! [`Ca`], so during a rotation they hold both roots, like the Secrets. [`Published`] holds back
//! the [`CaController`](crate::controllers::ca::CaController) until all copies do, because nothing
//! may be signed with a CA that clients do not know.
//!
//! An object with the name of a copy that is somebody else's stays as it is.

use crate::events::Publisher;
use crate::k8s::patch;
use crate::k8s::scope::Scope;
use crate::model::ca::Ca;
use crate::model::trust_bundle::{LABEL, Published};
use crate::observability::metrics::Metrics;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

mod cluster_bundle;
mod config_maps;
mod copy;
mod queue;

/// Timeout of one write.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// Settings of the CA bundle.
#[derive(Clone, Debug)]
pub struct TrustBundleSettings {
    /// The name of the `ConfigMaps`, and of the `ClusterTrustBundle`.
    pub name: String,
    /// The interval at which a fault that lasts is published again.
    pub reminder: Duration,
}

/// Writes the copies for one term as leader.
pub struct TrustBundleController {
    pub(crate) client: Client,
    pub(crate) scope: Scope,
    pub(crate) settings: TrustBundleSettings,
    pub(crate) ca: watch::Receiver<Option<Arc<Ca>>>,
    pub(crate) published: Arc<Published>,
    pub(crate) publisher: Publisher,
    pub(crate) metrics: Arc<Metrics>,
}

impl TrustBundleController {
    /// Writes and repairs the copies for as long as it is polled.
    pub async fn run(self) {
        tokio::join!(self.keep_config_maps(), self.keep_cluster_bundle());
    }
}

impl Drop for TrustBundleController {
    /// A replica that does not lead any more does not know the copies.
    fn drop(&mut self) {
        self.metrics.trust_bundles(&[]);
    }
}

/// The CA, once there are roots to trust.
fn known(ca: &mut watch::Receiver<Option<Arc<Ca>>>) -> Option<Arc<Ca>> {
    let ca = ca.borrow_and_update().clone();
    ca.filter(|ca| !ca.trust.pem().is_empty())
}

/// The labels of a copy.
fn labels() -> BTreeMap<String, String> {
    let mut labels = patch::labels();
    labels.insert(LABEL.into(), "true".into());
    labels
}

/// Whether the operator wrote this copy.
fn is_ours(object: &ObjectMeta) -> bool {
    patch::is_ours(object, &labels())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ours_is_what_has_the_labels_and_was_written_by_the_operator() {
        let ours = [
            ("app.kubernetes.io/managed-by", "pki-operator"),
            ("box.com/trust-bundle", "true"),
        ];
        for (labels, managers, expected) in [
            (ours.as_slice(), ["pki-operator"].as_slice(), true),
            (&ours, &["kubectl", "pki-operator"], true),
            (&ours, &["kubectl"], false),
            (&ours, &[], false),
            (&ours[..1], &["pki-operator"], false),
            (&[], &["pki-operator"], false),
            (
                &[ours[0], ("box.com/trust-bundle", "false")],
                &["pki-operator"],
                false,
            ),
        ] {
            let managers: Vec<_> = managers
                .iter()
                .map(|name| json!({"manager": name}))
                .collect();
            let labels: BTreeMap<_, _> = labels.iter().copied().collect();
            let object = json!({"labels": labels, "managedFields": managers});
            assert_eq!(
                is_ours(&serde_json::from_value(object.clone()).unwrap()),
                expected,
                "{object}"
            );
        }
    }

    #[test]
    fn what_is_published_is_in_every_copy() {
        let published = Published::default();
        assert!(!published.holds("a"));
        published.config_maps.send_replace(Some("a".into()));
        assert!(!published.holds("a"));
        published.bundle.send_replace(Some("a".into()));
        assert!(published.holds("a") && !published.holds("b"));
    }
}
