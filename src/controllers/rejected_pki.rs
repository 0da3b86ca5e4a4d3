//! Publishes refusals of admission on the pods that wait for the Secret: the Deployment of a
//! manifest is stored even when the Pki beside it is not, and its pods then wait for a Secret that
//! nobody will write.
//!
//! The replica that refused keeps a refusal in memory for ten minutes, within bounds. The refusal
//! ends when a Pki is stored that breaks no rule, or where there was none. Once that one is ready,
//! pods with an Event get another one. The module `history` decides.

use crate::api::Pki;
use crate::events::Publisher;
use crate::k8s::object_key::Key;
use crate::policy::RuleBook;
use crate::store::cached_pod::SecretUser;
use crate::store::{self, Cache, claims};
use history::{ClusterView, RejectionHistory};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;

mod history;

/// How long a refusal is published on new pods.
const RETENTION: SignedDuration = SignedDuration::from_mins(10);
/// How long a refusal is remembered for an Event about its end.
const RESOLUTION_RETENTION: SignedDuration = SignedDuration::from_hours(1);
/// How much later than a refusal its namespace may become known. Without one it is dropped.
const NAMESPACE_LAG: SignedDuration = SignedDuration::from_mins(1);
const MAX_PER_NAMESPACE: usize = 50;
/// The pause between two sweeps over the pods.
const POLL: Duration = Duration::from_secs(1);

/// A Pki that is stored where one was refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Provider {
    /// A Pki of the refused name, which breaks a rule as well, or is for another Secret.
    Other,
    /// A Pki that breaks no rule, and whose Secret is being written.
    Valid,
    /// A Pki whose Secret is there, with its condition.
    Ready { message: String, since: Timestamp },
}

/// Publishes for as long as it is polled.
pub async fn follow(cache: Arc<Cache>, publisher: Publisher) {
    cache.synced().await;
    let (refusals, mut history) = (&cache.rejections, RejectionHistory::default());
    loop {
        if history.is_empty() {
            refusals.changed().await;
        } else {
            let _ = tokio::time::timeout(POLL, refusals.changed()).await;
        }
        history.forget_namespaces(&*cache, Timestamp::now());
        for (refusal, at) in refusals.take_new() {
            history.record(refusal, at);
        }
        for notice in history.due(&*cache, Timestamp::now()) {
            publisher.offer(notice);
        }
        refusals.set_missed(history.missed());
    }
}

impl ClusterView for Cache {
    fn namespace_uid(&self, name: &str) -> Option<Arc<str>> {
        Cache::namespace_uid(self, name)
    }

    fn has_secret(&self, secret: &Key) -> bool {
        Cache::has_secret(self, secret)
    }

    fn users(&self, secret: &Key) -> Vec<Arc<SecretUser>> {
        Cache::users(self, secret)
    }

    fn certified(&self, pki: &Key) -> Vec<Arc<SecretUser>> {
        let mut users = self.certified_users(pki);
        users.retain(|pod| pod.is_pending);
        users
    }

    fn provider(&self, pki: &Key, secret: &Key) -> Option<Provider> {
        let pkis = self.pkis.read();
        // Any number may claim it, and to judge them all would take too long.
        let holder = claims::holder(&pkis, secret).cloned();
        let same = pkis.get(pki).map(|_| Provider::Other);
        drop(pkis);
        let rules = self.rules();
        let holder = holder.and_then(|pki| pki.unpack().0.ok());
        let provider = holder.and_then(|pki| provider(&pki, &rules));
        provider.into_iter().chain(same).max()
    }
}

/// The provider, unless it breaks a rule.
fn provider(pki: &Pki, rules: &RuleBook) -> Option<Provider> {
    let namespace = pki.metadata.namespace.as_deref().unwrap_or_default();
    store::evaluate_with(rules, namespace, || rules.admits(pki).map(drop))?;
    let Some(ready) = pki.ready() else {
        return Some(Provider::Valid);
    };
    Some(Provider::Ready {
        message: ready.message.clone(),
        since: ready.last_transition_time.0,
    })
}
