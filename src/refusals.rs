//! What admission refused lately, so that the pods that wait for it hear of it: the Deployment of a manifest is stored
//! even when the Pki beside it is not, and its pods then wait for a Secret that nobody will write.
//!
//! It is kept in memory, by the replica that refused, for [ten minutes](MEMORY), and within [bounds](MOST). It is
//! forgotten when a Pki is stored that breaks no rule, or where there was none; once that one is ready, those who were told
//! hear that too. The words are the refusal's own. [`Memory`] decides, [`follow`] asks it once a second while there is something to tell.

use crate::api::{Pki, READY};
use crate::cache::{self, Cache};
use crate::events::Publisher;
use crate::index::{Key, NamesSecrets};
use crate::pods::SecretUser;
use crate::policy::RuleBook;
use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;
use memory::{Memory, Surroundings};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

mod memory;

/// How long a refusal is told to pods that come.
const MEMORY: SignedDuration = SignedDuration::from_mins(10);
/// So many are kept, and so many of one namespace.
const MOST: usize = 1000;
const MOST_OF_NAMESPACE: usize = 50;
/// Between two looks at the pods.
const POLL: Duration = Duration::from_secs(1);

/// A Pki that was not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The Pki that would have been stored.
    pub pki: Key,
    /// The Secret that it would have written, in the same namespace.
    pub secret: String,
    /// Whether one is stored, and this would have changed it.
    pub is_edit: bool,
    /// The reason, as an Event has it.
    pub reason: String,
    /// The rules it breaks, each with its field.
    pub lines: Vec<String>,
}

/// What was refused lately.
#[derive(Debug, Default)]
pub struct Refusals {
    memory: Mutex<Memory>,
    changed: Notify,
}

/// A Pki that is stored where one was refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Provider {
    /// It has the name of the one that was refused, and breaks a rule as well.
    Invalid,
    /// It breaks no rule, and is being seen to.
    Valid,
    /// Its Secret is there.
    Ready {
        /// What its condition says.
        message: String,
        /// Since when.
        since: Timestamp,
    },
}

impl Refusals {
    /// Keeps a refusal in mind.
    pub fn note(&self, refusal: Refusal, now: Timestamp) {
        self.memory().note(refusal, now);
        self.changed.notify_one();
    }

    /// Whether a Pki that would have written this Secret was refused.
    pub fn concern(&self, secret: &Key) -> bool {
        self.memory().concern(secret)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the pods for as long as it is polled.
pub async fn follow(cache: Arc<Cache>, publisher: Publisher) {
    cache.synced().await;
    let refusals = &cache.refusals;
    loop {
        if refusals.memory().is_empty() {
            refusals.changed.notified().await;
        } else {
            let _ = tokio::time::timeout(POLL, refusals.changed.notified()).await;
        }
        let notices = refusals.memory().look(&*cache, Timestamp::now());
        for notice in notices {
            publisher.offer(notice);
        }
    }
}

impl Surroundings for Cache {
    fn has_secret(&self, secret: &Key) -> bool {
        Cache::has_secret(self, secret)
    }

    fn users(&self, secret: &Key) -> Vec<Arc<SecretUser>> {
        cache::read(&self.pods).naming(secret).cloned().collect()
    }

    /// A Pki of that name, or one that claims that Secret.
    fn provider(&self, pki: &Key, secret: &Key) -> Option<Provider> {
        let claimants: Vec<_> = cache::read(&self.claims)
            .naming(secret)
            .map(|claim| claim.key())
            .collect();
        let rules = self.rules();
        let named = |key: &Key| {
            self.pkis
                .get(&ObjectRef::new(&key.name).within(&key.namespace))
        };
        let stored = std::iter::once(pki).chain(&claimants).filter_map(named);
        let providers = stored.filter_map(|stored| provider(stored.0.as_ref().ok()?, &rules));
        let same = named(pki).map(|_| Provider::Invalid);
        providers.chain(same).max()
    }
}

/// What it provides, unless it breaks a rule.
fn provider(pki: &Pki, rules: &RuleBook) -> Option<Provider> {
    rules.evaluate(pki).ok()?;
    let ready = pki.condition(READY).filter(|ready| {
        ready.status == "True" && ready.observed_generation == pki.metadata.generation
    });
    Some(ready.map_or(Provider::Valid, |ready| Provider::Ready {
        message: ready.message.clone(),
        since: ready.last_transition_time.0,
    }))
}
