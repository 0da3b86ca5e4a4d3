//! The clients, caches and backoffs of the reconciler.

use super::error_backoff::ErrorBackoff;
use super::former::LastUses;
use super::issue_backoff::IssueBackoff;
use super::keys::Keys;
use super::repair_backoff::RepairBackoff;
use super::schedule::Schedule;
use super::verified_secrets::VerifiedSecrets;
use super::{PkiSettings, ReconcileError};
use crate::api::Pki;
use crate::events::Publisher;
use crate::k8s::clock::Clock;
use crate::k8s::object_key::Key;
use crate::k8s::tolerant::Lenient;
use crate::model::ca::Ca;
use crate::model::outcome::Certificate;
use crate::observability::metrics::Metrics;
use crate::store::Cache;
use crate::store::cached_pod::SecretUser;
use crate::store::secret_index::ReferencesSecrets as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use std::sync::Arc;
use tokio::sync::watch;

/// Called with each Pki that is ready, its certificate, and the pods that use its Secret.
pub type OnReady = Box<dyn Fn(&Pki, &Certificate, &[Arc<SecretUser>]) + Send + Sync>;

/// The clients, caches and backoffs of one term as leader.
pub struct Context {
    /// The API server, as the operator's service account.
    pub client: Client,
    /// The state of the cluster.
    pub cache: Arc<Cache>,
    /// The CA. It is known before the first reconcile.
    pub(super) ca: watch::Receiver<Option<Arc<Ca>>>,
    /// Publishes Events.
    pub publisher: Publisher,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Tells the time, while it is trusted.
    pub clock: Arc<Clock>,
    pub(super) settings: PkiSettings,
    /// Restarts workloads after a renewal, if that is wanted.
    pub(super) on_ready: Option<OnReady>,
    pub(super) schedule: Schedule,
    pub(super) issue_backoff: IssueBackoff,
    pub(super) repair_backoff: RepairBackoff,
    pub(super) error_backoff: ErrorBackoff,
    pub(super) verified_secrets: VerifiedSecrets,
    pub(super) keys: Keys,
    pub(super) former_uses: LastUses,
}

impl Context {
    /// A context for one term as leader.
    pub fn new(
        client: Client,
        cache: Arc<Cache>,
        ca: watch::Receiver<Option<Arc<Ca>>>,
        publisher: Publisher,
        metrics: Arc<Metrics>,
        clock: Arc<Clock>,
        settings: PkiSettings,
    ) -> Self {
        Self {
            client,
            cache,
            ca,
            publisher,
            metrics,
            clock,
            settings,
            on_ready: None,
            schedule: Schedule::default(),
            issue_backoff: IssueBackoff::default(),
            repair_backoff: RepairBackoff::default(),
            error_backoff: ErrorBackoff::default(),
            verified_secrets: VerifiedSecrets::default(),
            keys: Keys::default(),
            former_uses: LastUses::default(),
        }
    }

    /// The same, with workloads that are restarted after a renewal.
    #[must_use]
    pub fn with_on_ready(self, on_ready: Option<OnReady>) -> Self {
        Self { on_ready, ..self }
    }

    /// The CA as it is now.
    pub(super) fn ca(&self) -> Arc<Ca> {
        let ca = self.ca.borrow().clone();
        ca.expect("reconciling begins when the CA is known")
    }

    pub(super) fn secrets(&self, namespace: &str) -> Api<Lenient<Secret>> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(super) fn pkis(&self, namespace: &str) -> Api<Lenient<Pki>> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The key of a Pki, sharing the cache's memory.
    pub(super) fn key(&self, pki: &Pki) -> Key {
        let key = Key::of(pki);
        let known = self.cache.pkis.read();
        known.get(&key).map_or(key, |known| known.key().clone())
    }

    pub(super) async fn read_secret(&self, key: &Key) -> Result<Option<Secret>, ReconcileError> {
        let read = self.secrets(&key.namespace).get_opt(&key.name).await;
        let read = read.map_err(|source| ReconcileError::ReadSecret(key.clone(), source))?;
        Ok(read.map(|Lenient(secret)| secret))
    }

    /// Drops what is kept of a Pki that is gone.
    pub(super) fn forget(&self, key: &Key) {
        self.schedule.forget(key);
        self.issue_backoff.forget(key);
        self.repair_backoff.forget(key);
        self.error_backoff.forget(key);
        self.verified_secrets.forget(key);
        self.keys.forget(key);
        self.former_uses.forget(key);
    }
}
