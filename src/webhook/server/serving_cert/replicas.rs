//! Finds replicas that do not answer at a secret path.
//!
//! During a rolling upgrade, older replicas serve beside this one. They know the plain path alone,
//! and may be asked until their pods are gone. The chart annotates the pods of newer versions. So
//! the secret path is published when no pod lacks that annotation. In a rollback it is taken back
//! as soon as such a pod appears, before the pod is ready.
//!
//! An operator outside the cluster has no pods. There the annotation of the webhook configuration
//! decides alone: all replicas are upgraded before the chart is.

use super::path::SECRET_PATH;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};

/// The pods of the operator.
#[derive(Clone, Debug)]
pub struct Replicas {
    /// The operator's own namespace.
    pub namespace: String,
    /// A label selector that all its pods match, and no other.
    pub selector: String,
}

impl Replicas {
    /// The name of a pod that knows the plain path alone, if there is one.
    pub(super) async fn older(&self, client: &Client) -> Result<Option<String>, kube::Error> {
        let pods = Api::<Pod>::namespaced(client.clone(), &self.namespace);
        // Failed or evicted pods get no more requests.
        let alive = ListParams::default()
            .labels(&self.selector)
            .fields("status.phase!=Failed,status.phase!=Succeeded");
        let pods = pods.list_metadata(&alive).await?.items;
        let mut older = pods.iter().filter(|pod| !knows_secret_paths(pod));
        Ok(older.next().map(ResourceExt::name_any))
    }

    /// The arguments of a watch on all pods.
    pub(super) fn watched(
        &self,
        client: &Client,
    ) -> (Api<PartialObjectMeta<Pod>>, watcher::Config) {
        let api = Api::namespaced(client.clone(), &self.namespace);
        (api, watcher::Config::default().labels(&self.selector))
    }
}

fn knows_secret_paths(pod: &PartialObjectMeta<Pod>) -> bool {
    pod.annotations()
        .get(SECRET_PATH)
        .is_some_and(|value| value == "true")
}
