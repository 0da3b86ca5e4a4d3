//! Reads when the CA ends and whether it is being replaced, for warnings at `kubectl apply`.

use crate::k8s::object_key::Key;
use crate::model::ca::CaSummary;
use crate::model::ca_state::CaState;
use crate::store::Cache;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use std::sync::Arc;
use std::time::Duration;

/// A CA changes once in years; this is soon enough.
const POLL: Duration = Duration::from_secs(30);

/// Reads the state for as long as it is polled. An unreadable one leaves the summary as it was.
pub async fn follow(client: Client, state: Key, cache: Arc<Cache>) {
    let maps = Api::<ConfigMap>::namespaced(client, &state.namespace);
    loop {
        match maps.get_opt(&state.name).await {
            Ok(map) => {
                let state = map.and_then(|map| CaState::read(&map, Timestamp::now()).ok());
                if let Some(state) = state {
                    cache.set_ca_summary(CaSummary {
                        end: state.current.not_after(),
                        is_being_replaced: state.next.is_some(),
                    });
                }
            }
            Err(error) => tracing::debug!(%error, "failed to read the state of the CA"),
        }
        tokio::time::sleep(POLL).await;
    }
}
