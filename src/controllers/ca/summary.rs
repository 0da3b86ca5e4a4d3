//! What every replica knows of the CA, to warn at `kubectl apply`: when it ends, and whether it is
//! being replaced.

use crate::k8s::object_key::Key;
use crate::model::ca::CaSummary;
use crate::model::ledger::CaState;
use crate::store::Cache;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use std::sync::Arc;
use std::time::Duration;

/// A CA changes once in years; this is soon enough.
const POLL: Duration = Duration::from_secs(30);

/// Reads the ledger from time to time, for as long as it is polled. What cannot be read leaves what
/// was known.
pub async fn follow(client: Client, ledger: Key, cache: Arc<Cache>) {
    let maps = Api::<ConfigMap>::namespaced(client, &ledger.namespace);
    loop {
        match maps.get_opt(&ledger.name).await {
            Ok(Some(map)) => {
                if let Ok(ledger) = CaState::read(&map, Timestamp::now()) {
                    cache.set_ca_summary(CaSummary {
                        end: ledger.current.not_after(),
                        is_being_replaced: ledger.next.is_some(),
                    });
                }
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "cannot read what becomes of the CA"),
        }
        tokio::time::sleep(POLL).await;
    }
}
