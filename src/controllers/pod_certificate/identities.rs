//! The UIDs of service accounts and nodes, by watches of their metadata alone.

use crate::k8s::object_key::Key;
use crate::k8s::scope::Scope;
use crate::k8s::tolerant;
use crate::util::sync::{read, write};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt as _};
use std::collections::HashMap;
use std::sync::RwLock;

/// The UIDs that are known.
#[derive(Debug, Default)]
pub(super) struct Identities {
    service_accounts: RwLock<HashMap<Key, String>>,
    nodes: RwLock<HashMap<Key, String>>,
}

impl Identities {
    /// Follows the watches for as long as it is polled.
    pub(super) async fn follow(&self, client: &Client, scope: &Scope) {
        let config = watcher::Config::default;
        let accounts = Api::all(client.clone());
        let accounts =
            scope.watch::<PartialObjectMeta<ServiceAccount>>("serviceaccounts", accounts, config());
        let nodes = Api::all(client.clone());
        let nodes = tolerant::watch::<PartialObjectMeta<Node>>("nodes", nodes, config());
        futures::future::join(
            keep(accounts, &self.service_accounts),
            keep(nodes, &self.nodes),
        )
        .await;
    }

    /// The UID of a service account.
    pub(super) fn service_account(&self, key: &Key) -> Option<String> {
        read(&self.service_accounts).get(key).cloned()
    }

    /// The UID of a node.
    pub(super) fn node(&self, name: &str) -> Option<String> {
        read(&self.nodes).get(&Key::new("", name)).cloned()
    }
}

async fn keep<K: Resource<DynamicType = ()>>(
    events: impl Stream<Item = Event<PartialObjectMeta<K>>>,
    known: &RwLock<HashMap<Key, String>>,
) {
    let mut listed = HashMap::new();
    let mut events = std::pin::pin!(events);
    let entry = |object: &PartialObjectMeta<K>| (Key::of(object), object.uid().unwrap_or_default());
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => listed.extend([entry(&object)]),
            Event::InitDone => *write(known) = std::mem::take(&mut listed),
            Event::Apply(object) => write(known).extend([entry(&object)]),
            Event::Delete(object) => drop(write(known).remove(&Key::of(&object))),
        }
    }
}
