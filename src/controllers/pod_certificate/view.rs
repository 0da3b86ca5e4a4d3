//! The state of the cluster, by the caches and, where those may be behind, by the API server.

use super::attempt::Signer;
use super::decision::{ClusterView, UnknownObject};
use super::request::Request;
use crate::api::{Pki, StoredPki};
use crate::k8s::api_error;
use crate::k8s::object_key::Key;
use crate::model::pod_certificate::KeyType;
use crate::policy::{Approved, Violation};
use crate::store;
use crate::store::cached_pod::SecretUser;
use crate::store::secret_index::ReferencesSecrets as _;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt as _};
use std::sync::Arc;
use std::time::Duration;

/// Timeout of a question to the API server.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

impl ClusterView for Signer {
    fn pod(&self, key: &Key) -> Option<Arc<SecretUser>> {
        self.cache.pods.read().get(key).cloned()
    }

    fn service_account(&self, key: &Key) -> Option<Arc<str>> {
        self.identities.service_account(key)
    }

    fn node(&self, name: &str) -> Option<Arc<str>> {
        self.identities.node(name)
    }

    fn pki(&self, key: &Key) -> Option<StoredPki> {
        self.cache.pki(key)
    }

    fn pkis_of(&self, namespace: &str) -> Vec<(Arc<str>, bool)> {
        let pkis = self.cache.pkis.read();
        let of_namespace = pkis.all().filter(|pki| *pki.key().namespace == *namespace);
        of_namespace
            .filter(|pki| !pki.is_being_deleted())
            .map(|pki| (pki.key().name.clone(), pki.is_for_pods()))
            .collect()
    }

    fn evaluate(&self, pki: &Pki, key: Option<KeyType>) -> Result<Approved, Vec<Violation>> {
        let (namespace, rules) = (pki.namespace().unwrap_or_default(), self.cache.rules());
        let key = key.map(KeyType::private_key);
        store::evaluate_with(&rules, &namespace, || rules.evaluate_for_pod(pki, key))
    }
}

impl Signer {
    /// Whether an object that is not in the caches is not there either; `None` if the API server
    /// does not say.
    pub(super) async fn is_absent(&self, request: &Request, object: UnknownObject) -> Option<bool> {
        let asked = tokio::time::timeout(ASK_TIMEOUT, self.ask(request, object));
        match asked.await {
            Ok(Ok(is_absent)) => Some(is_absent),
            Ok(Err(error)) => {
                let error = api_error::message(&error);
                tracing::warn!(request = %request.key, error, "failed to ask for an object of the request; retrying");
                None
            }
            Err(_) => None,
        }
    }

    async fn ask(&self, request: &Request, object: UnknownObject) -> Result<bool, kube::Error> {
        let (client, namespace) = (self.client.clone(), &*request.key.namespace);
        let (found, expected) = match object {
            UnknownObject::Pod => {
                let pods = Api::<PartialObjectMeta<Pod>>::namespaced(client, namespace);
                let found = pods.get_metadata_opt(&request.pod.name).await?;
                (found.and_then(|it| it.uid()), &request.pod)
            }
            UnknownObject::ServiceAccount => {
                let account = &request.service_account;
                let accounts =
                    Api::<PartialObjectMeta<ServiceAccount>>::namespaced(client, namespace);
                let found = accounts.get_metadata_opt(&account.name).await?;
                (found.and_then(|it| it.uid()), account)
            }
            UnknownObject::Node => {
                let nodes = Api::<PartialObjectMeta<Node>>::all(client);
                let found = nodes.get_metadata_opt(&request.node.name).await?;
                (found.and_then(|it| it.uid()), &request.node)
            }
        };
        Ok(found.as_deref() != Some(&expected.uid))
    }
}
