//! The UIDs of service accounts and nodes, by watches of their metadata alone.

use crate::k8s::object_key::Key;
use crate::k8s::scope::Scope;
use crate::k8s::tolerant;
use crate::k8s::uids::Uids;
use crate::util::sync::{read, write};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use std::collections::BTreeSet;
use std::sync::{Arc, RwLock};
use tokio::sync::watch;

/// The UIDs that are known.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    service_accounts: RwLock<Uids>,
    nodes: RwLock<Uids>,
    /// The kinds of which a whole list has come.
    synced: watch::Sender<BTreeSet<&'static str>>,
}

const SERVICE_ACCOUNTS: &str = "serviceaccounts";
const NODES: &str = "nodes";

impl Identities {
    /// Follows the watches for as long as it is polled.
    pub(super) async fn follow(&self, client: &Client, scope: &Scope) {
        let config = watcher::Config::default;
        let accounts = Api::all(client.clone());
        let accounts =
            scope.watch::<PartialObjectMeta<ServiceAccount>>(SERVICE_ACCOUNTS, accounts, config());
        let nodes = Api::all(client.clone());
        let nodes = tolerant::watch::<PartialObjectMeta<Node>>(NODES, nodes, config());
        futures::future::join(
            self.keep(SERVICE_ACCOUNTS, accounts, &self.service_accounts),
            self.keep(NODES, nodes, &self.nodes),
        )
        .await;
    }

    /// Waits until both are known, so that a new leader does not take them for absent.
    pub(super) async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = synced.wait_for(|synced| synced.len() == 2).await;
    }

    /// The UID of a service account.
    pub(super) fn service_account(&self, key: &Key) -> Option<Arc<str>> {
        read(&self.service_accounts).get(key)
    }

    /// The UID of a node.
    pub(super) fn node(&self, name: &str) -> Option<Arc<str>> {
        read(&self.nodes).of_name(name)
    }

    async fn keep<K: Resource<DynamicType = ()>>(
        &self,
        kind: &'static str,
        events: impl Stream<Item = Event<PartialObjectMeta<K>>>,
        uids: &RwLock<Uids>,
    ) {
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            write(uids).apply(&event);
            if matches!(event, Event::InitDone) {
                self.synced.send_if_modified(|synced| synced.insert(kind));
            }
        }
    }
}
