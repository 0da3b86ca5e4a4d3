//! The copies of the CA bundle: which namespaces want one, and how far they have come.

use crate::api::annotations::parse_bool;
use tokio::sync::watch;

pub use crate::api::annotations::TRUST_BUNDLE as LABEL;

/// The file in the `ConfigMap`.
pub const FILE: &str = "ca.crt";

/// Whether a namespace asks for a copy, by the value of its label.
pub fn is_wanted(label: Option<&str>) -> bool {
    label.and_then(parse_bool) == Some(true)
}

/// Progress of the copies, by the fingerprint of the last roots that were written everywhere. A
/// namespace that asks later does not take it back: nobody there has read others.
#[derive(Debug, Default)]
pub struct Published {
    /// Fingerprint of the last roots that all `ConfigMaps` hold.
    pub config_maps: watch::Sender<Option<String>>,
    /// Fingerprint of the last roots that the `ClusterTrustBundle` holds.
    pub bundle: watch::Sender<Option<String>>,
    /// The copies that have yet to be written.
    pub pending: watch::Sender<Vec<(String, String)>>,
}

impl Published {
    /// Whether every copy has held these roots, except those that keep being refused.
    pub fn holds(&self, fingerprint: &str) -> bool {
        [&self.config_maps, &self.bundle]
            .iter()
            .all(|part| part.borrow().as_deref() == Some(fingerprint))
    }

    /// Namespace and name of each copy that has yet to be written, or keeps being refused.
    pub fn pending(&self) -> Vec<(String, String)> {
        self.pending.borrow().clone()
    }
}
