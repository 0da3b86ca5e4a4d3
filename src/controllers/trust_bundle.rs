//! Tells clients whom to trust: the roots of the CA, as a `ConfigMap` in every namespace that asks
//! for it, and as a `ClusterTrustBundle` where the API server has that type.
//!
//! So a client needs no Pki of its own to verify a server: it mounts `ca.crt`. These copies follow
//! the CA as the [`CaController`](crate::controllers::ca::CaController) tells of it, so that while
//! it is replaced they hold both roots, like the Secrets; and [`Published`] tells the keeper when
//! all of them do, because nothing may be signed with a CA that clients do not know.
//!
//! What has the name of a copy and is somebody else's is left as it is. The module `queue` decides
//! what to do, without I/O.

use crate::events::Publisher;
use crate::k8s::patch;
use crate::k8s::scope::Scope;
use crate::model::ca::Ca;
use crate::observability::metrics::Metrics;
use bundle::ClusterBundle;
use config_maps::ConfigMaps;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

mod bundle;
mod config_maps;
mod queue;

use crate::model::trust_bundle::{LABEL, Published};

/// How long one write may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// How clients are told.
#[derive(Clone, Debug)]
pub struct TrustBundleSettings {
    /// The name of the `ConfigMaps`, and of the `ClusterTrustBundle`.
    pub name: String,
    /// How often a fault that lasts is said again.
    pub reminder: Duration,
}

/// Writes the copies for one term as leader.
pub struct TrustBundleController {
    config_maps: ConfigMaps,
    bundle: ClusterBundle,
}

impl TrustBundleController {
    /// One that follows `ca` and tells `copies` how far it has come.
    pub fn new(
        client: &Client,
        scope: &Scope,
        settings: &TrustBundleSettings,
        ca: &watch::Receiver<Option<Arc<Ca>>>,
        copies: &Arc<Published>,
        publisher: Publisher,
        metrics: Arc<Metrics>,
    ) -> Self {
        let settings = settings.clone();
        Self {
            bundle: ClusterBundle {
                client: client.clone(),
                is_wanted: matches!(scope, Scope::Cluster),
                name: settings.name.clone(),
                ca: ca.clone(),
                published: copies.clone(),
            },
            config_maps: ConfigMaps {
                client: client.clone(),
                scope: scope.clone(),
                settings,
                ca: ca.clone(),
                published: copies.clone(),
                publisher,
                metrics,
            },
        }
    }

    /// Writes, and mends, for as long as it is polled.
    pub async fn run(self) {
        tokio::join!(self.config_maps.run(), self.bundle.run());
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
