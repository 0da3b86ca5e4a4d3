//! The identity of an object in a namespace.

use crate::util::sync::lock;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name within it.
    pub name: Arc<str>,
}

impl Key {
    /// The key of an object.
    pub fn of(object: &impl ResourceExt) -> Self {
        let meta = object.meta();
        let name = meta.name.as_deref().or(meta.generate_name.as_deref());
        let namespace = meta.namespace.as_deref();
        let namespace = shared_namespace(namespace.unwrap_or_default());
        Self::new(namespace, name.unwrap_or_default())
    }

    /// The key of this name in the same namespace.
    pub(crate) fn beside(&self, name: &Arc<str>) -> Self {
        Self::new(self.namespace.clone(), name.clone())
    }

    /// A name, which is that of the key more often than not, and need not be kept twice then.
    pub(crate) fn share_name(&self, name: &str) -> Arc<str> {
        if *name == *self.name {
            self.name.clone()
        } else {
            name.into()
        }
    }

    /// A reference to the object of this kind with this key.
    pub fn reference(
        &self,
        api_version: impl Into<String>,
        kind: impl Into<String>,
        uid: Option<String>,
    ) -> ObjectReference {
        ObjectReference {
            api_version: Some(api_version.into()),
            kind: Some(kind.into()),
            namespace: Some(self.namespace.to_string()),
            name: Some(self.name.to_string()),
            uid,
            ..ObjectReference::default()
        }
    }

    /// A key of these parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// The name of a namespace: there are few of them, and many keys.
fn shared_namespace(name: &str) -> Arc<str> {
    /// Number of names that are kept without regard to their use.
    const MIN_PRUNED_NAMES: usize = 1024;
    /// Length of a DNS label (RFC 1123). A longer text names no namespace, and is not kept.
    const MAX_LABEL_BYTES: usize = 63;
    static SHARED: Mutex<BTreeSet<Arc<str>>> = Mutex::new(BTreeSet::new());
    if name.len() > MAX_LABEL_BYTES {
        return name.into();
    }
    let mut shared = lock(&SHARED);
    if let Some(known) = shared.get(name) {
        return known.clone();
    }
    if shared.len() >= MIN_PRUNED_NAMES && shared.len().is_power_of_two() {
        shared.retain(|name| Arc::strong_count(name) > 1);
    }
    let name = Arc::<str>::from(name);
    shared.insert(name.clone());
    name
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
