//! The namespaces that the operator serves: all, or those of a list.
//!
//! For all of them, one watch covers the cluster. For a list, there is one watch for each
//! namespace, because the operator may read nothing else, and `merger` makes one stream of their
//! events.

use crate::api::StoredPki;
use crate::k8s::tolerant::{self, Lenient};
use crate::util::sync::lock;
use futures::{Stream, StreamExt};
use k8s_openapi::api::certificates::v1::PodCertificateRequest;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::core::{DeserializeGuard, NamespaceScope, ObjectMeta, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use merged::{merged, watch_until_permitted};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};

mod merged;
mod merger;

/// The namespaces that are served.
#[derive(Clone, Debug, Default)]
pub enum Scope {
    /// All.
    #[default]
    Cluster,
    /// These.
    Namespaces(Arc<List>),
}

/// The namespaces of a list, and what may not be read there at the moment.
#[derive(Debug)]
pub struct List {
    namespaces: BTreeSet<String>,
    refused: Mutex<BTreeSet<(String, &'static str)>>,
}

/// The resources that may not be read, by namespace.
pub type Refused = BTreeMap<String, Vec<&'static str>>;

/// An object that can be made from its metadata alone, for the event of its deletion.
pub trait Named: Sized {
    /// One with this metadata and nothing else.
    fn with(metadata: ObjectMeta) -> Self;
}

impl<K> Named for PartialObjectMeta<K> {
    fn with(metadata: ObjectMeta) -> Self {
        Self {
            metadata,
            types: None,
            _phantom: std::marker::PhantomData,
        }
    }
}

impl Named for Pod {
    fn with(metadata: ObjectMeta) -> Self {
        Self {
            metadata,
            ..Self::default()
        }
    }
}

impl Named for PodCertificateRequest {
    fn with(metadata: ObjectMeta) -> Self {
        Self {
            metadata,
            ..Self::default()
        }
    }
}

impl Named for StoredPki {
    fn with(metadata: ObjectMeta) -> Self {
        let pki = crate::api::Pki {
            metadata,
            ..Default::default()
        };
        DeserializeGuard(Ok(pki))
    }
}

impl Scope {
    /// These namespaces, or all if there are none.
    pub fn of(namespaces: impl IntoIterator<Item = String>) -> Self {
        let namespaces: BTreeSet<_> = namespaces.into_iter().collect();
        if namespaces.is_empty() {
            return Self::Cluster;
        }
        Self::Namespaces(Arc::new(List {
            namespaces,
            refused: Mutex::default(),
        }))
    }

    /// Whether this namespace is served.
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::Cluster => true,
            Self::Namespaces(list) => list.namespaces.contains(namespace),
        }
    }

    /// The resources of listed namespaces that may not be read.
    pub fn refused(&self) -> Refused {
        let mut refused = Refused::new();
        if let Self::Namespaces(list) = self {
            for (namespace, what) in lock(&list.refused).iter() {
                refused.entry(namespace.clone()).or_default().push(*what);
            }
        }
        refused
    }

    /// Whether this may not be read in a namespace of the list.
    pub fn is_refused(&self, namespace: &str, what: &'static str) -> bool {
        match self {
            Self::Cluster => false,
            Self::Namespaces(list) => {
                let refused = lock(&list.refused);
                refused
                    .iter()
                    .any(|(other, of)| other == namespace && *of == what)
            }
        }
    }

    /// Whether there is any namespace in which nothing is refused.
    pub fn is_served(&self) -> bool {
        match self {
            Self::Cluster => true,
            Self::Namespaces(list) => self.refused().len() < list.namespaces.len(),
        }
    }

    /// A watch of what is in these namespaces; `api` is that of the whole cluster. In a namespace
    /// where the API server does not permit it there is nothing, or what was known before, until it
    /// does.
    pub(crate) fn watch<K>(
        &self,
        what: &'static str,
        api: Api<Lenient<K>>,
        config: watcher::Config,
    ) -> impl Stream<Item = Event<K>> + Send + use<K>
    where
        K: Resource<Scope: NamespaceScope>
            + Named
            + DeserializeOwned
            + Clone
            + fmt::Debug
            + Send
            + 'static,
    {
        let list = match self {
            Self::Cluster => return tolerant::watch(what, api, config).left_stream(),
            Self::Namespaces(list) => list.clone(),
        };
        let watches = list.namespaces.iter();
        let watches = watches.map(|namespace| {
            watch_until_permitted(api.clone().constrain(namespace), config.clone())
        });
        let watches: Vec<_> = watches.collect();
        merged(what, list, watches, true).right_stream()
    }

    /// A watch of these namespaces themselves. It needs permissions by their names, so it is one
    /// for each, too; and where that is refused, nothing is taken for granted: a namespace that
    /// cannot be read is not one that is not there.
    pub(crate) fn watch_namespaces(
        &self,
        client: &Client,
        config: watcher::Config,
    ) -> impl Stream<Item = Event<PartialObjectMeta<Namespace>>> + Send + use<> {
        const WHAT: &str = "namespaces";
        let api = Api::all(client.clone());
        let list = match self {
            Self::Cluster => return tolerant::watch(WHAT, api, config).left_stream(),
            Self::Namespaces(list) => list.clone(),
        };
        let watches = list.namespaces.iter().map(|namespace| {
            let only = config.clone().fields(&format!("metadata.name={namespace}"));
            watch_until_permitted(api.clone(), only)
        });
        let watches: Vec<_> = watches.collect();
        merged(WHAT, list, watches, false).right_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_list_is_the_whole_cluster() {
        let scope = Scope::of([]);
        assert!(matches!(scope, Scope::Cluster) && scope.contains("a") && scope.is_served());
        assert!(scope.refused().is_empty());
    }
}
