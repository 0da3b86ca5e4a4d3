//! What admission refused lately, so that the pods that wait for it hear of it: the Deployment of a manifest is stored
//! even when the Pki beside it is not, and its pods then wait for a Secret that nobody will write.
//!
//! It is kept in memory, by the replica that refused, for ten minutes, and within bounds. It is forgotten when a Pki is
//! stored that breaks no rule, or where there was none; once that one is ready, those who were told hear that too. The words
//! are the refusal's own. The module `memory` decides, [`follow`] asks it once a second while there is something to tell.

use crate::api::Pki;
use crate::events::Publisher;
use crate::k8s::object_key::Key;
use crate::policy::RuleBook;
use crate::store::cached_pod::SecretUser;
use crate::store::claims;
use crate::store::{self, Cache};
use crate::util::sync::{lock, read};
use jiff::{SignedDuration, Timestamp};
use memory::{Memory, Surroundings};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

mod memory;

/// How long a refusal is told to pods that come.
const MEMORY: SignedDuration = SignedDuration::from_mins(10);
/// How long those who were told of it are owed a word when it is mended.
const OWED: SignedDuration = SignedDuration::from_hours(1);
/// How much later than a refusal its namespace may become known. A refusal of a namespace that was
/// never heard of is dropped.
const NAMESPACE_LAG: SignedDuration = SignedDuration::from_mins(1);
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
    /// The rules it breaks, each with its field, in no more bytes than an Event has room for.
    pub rules: String,
}

/// What was refused lately. Its locks are held for moments only and never while another one is taken, so that it can be
/// asked from anywhere.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Those that the memory has not been told of.
    new: Mutex<Vec<(Refusal, Timestamp)>>,
    /// The Secrets that are not written because of what the memory knows.
    missed: Mutex<HashSet<Key>>,
    changed: Notify,
}

/// A Pki that is stored where one was refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Provider {
    /// It has the name of the one that was refused; it breaks a rule as well, or is for another Secret.
    Other,
    /// It breaks no rule, and its Secret is being seen to.
    Valid,
    /// The Secret is there.
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
        let mut new = lock(&self.new);
        // Whoever is refused that often within a second will be refused again.
        if new.len() < MOST {
            new.push((refusal, now));
            self.changed.notify_one();
        }
    }

    /// Whether a Pki that would have written this Secret was refused.
    pub fn concern(&self, secret: &Key) -> bool {
        lock(&self.missed).contains(secret)
    }
}

/// Tells the pods for as long as it is polled.
pub async fn follow(cache: Arc<Cache>, publisher: Publisher) {
    cache.synced().await;
    let (refusals, mut memory) = (&cache.refusals, Memory::default());
    loop {
        if memory.is_empty() {
            refusals.changed.notified().await;
        } else {
            let _ = tokio::time::timeout(POLL, refusals.changed.notified()).await;
        }
        memory.leave(&*cache, Timestamp::now());
        for (refusal, at) in std::mem::take(&mut *lock(&refusals.new)) {
            memory.note(refusal, at);
        }
        for notice in memory.look(&*cache, Timestamp::now()) {
            publisher.offer(notice);
        }
        *lock(&refusals.missed) = memory.missed();
    }
}

impl Surroundings for Cache {
    fn namespace_uid(&self, name: &str) -> Option<Arc<str>> {
        Cache::namespace_uid(self, name)
    }

    fn has_secret(&self, secret: &Key) -> bool {
        Cache::has_secret(self, secret)
    }

    fn users(&self, secret: &Key) -> Vec<Arc<SecretUser>> {
        Cache::users(self, secret)
    }

    fn provider(&self, pki: &Key, secret: &Key) -> Option<Provider> {
        let pkis = read(&self.pkis);
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

/// What it provides, unless it breaks a rule.
fn provider(pki: &Pki, rules: &RuleBook) -> Option<Provider> {
    let namespace = pki.metadata.namespace.as_deref().unwrap_or_default();
    store::judging(rules, namespace, || rules.admits(pki).map(drop))?;
    Some(
        pki.ready()
            .map_or(Provider::Valid, |ready| Provider::Ready {
                message: ready.message.clone(),
                since: ready.last_transition_time.0,
            }),
    )
}
