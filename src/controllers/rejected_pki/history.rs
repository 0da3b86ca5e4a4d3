//! Which refusals are remembered, and what is to be said of them. Without I/O.

use super::{MAX_PER_NAMESPACE, NAMESPACE_LAG, Provider, RESOLUTION_RETENTION, RETENTION};
use crate::events::{Aspect, EventKind, EventTemplate, NOTE_BYTES, Notice, reference_to_pki};
use crate::k8s::object_key::Key;
use crate::store::cached_pod::SecretUser;
use crate::store::rejections::{MAX_REJECTIONS, Rejection};
use crate::util::text;
use crate::util::time::whole_second;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

/// What a word to the pods depends on.
pub(super) trait Surroundings {
    /// The UID of the namespace that has this name now, if it is known.
    fn namespace_uid(&self, name: &str) -> Option<Arc<str>>;
    /// Whether it is there.
    fn has_secret(&self, secret: &Key) -> bool;
    /// The pods that use it.
    fn users(&self, secret: &Key) -> Vec<Arc<SecretUser>>;
    /// A Pki that breaks no rule and provides that Secret, or another one of that name, if there is
    /// one by now.
    fn provider(&self, pki: &Key, secret: &Key) -> Option<Provider>;
}

/// The refusals by namespace, those of one in the order of their last time.
#[derive(Debug, Default)]
pub(super) struct RejectionHistory {
    by_namespace: BTreeMap<String, Vec<Remembered>>,
}

#[derive(Debug)]
struct Remembered {
    refusal: Rejection,
    /// The UID of its namespace, once that is known: who gets the name later is another tenant.
    namespace_uid: Option<Arc<str>>,
    first: Timestamp,
    last: Timestamp,
    /// UIDs of the objects whose readers were told of the last time.
    told: HashSet<String>,
    /// Which pods there were at the last look, as a hash: the same ones need not be told again.
    seen: Option<u64>,
    /// Nobody is told any more: a Pki is stored that speaks for itself, or it was long ago.
    is_settled: bool,
}

impl RejectionHistory {
    /// What is refused again and again for the same reason is one refusal; for another reason it
    /// takes the place of the one before.
    pub(super) fn note(&mut self, refusal: Rejection, now: Timestamp) {
        self.forget_old(now);
        let of_namespace = self
            .by_namespace
            .entry(refusal.pki.namespace.to_string())
            .or_default();
        let before = of_namespace
            .iter()
            .position(|known| known.refusal.pki == refusal.pki);
        let before = before.map(|index| of_namespace.remove(index));
        let first = before
            .filter(|before| before.refusal == refusal && !before.is_settled)
            .map_or(now, |before| before.first);
        if of_namespace.len() >= MAX_PER_NAMESPACE {
            of_namespace.remove(0);
        }
        of_namespace.push(Remembered {
            refusal,
            namespace_uid: None,
            first,
            last: now,
            told: HashSet::new(),
            seen: None,
            is_settled: false,
        });
        self.make_room();
    }

    /// Drops what was refused in namespaces that are gone, also if there are others of that name by
    /// now.
    pub(super) fn leave(&mut self, surroundings: &impl Surroundings, now: Timestamp) {
        self.by_namespace.retain(|name, all| {
            let uid = surroundings.namespace_uid(name);
            all.retain_mut(|known| known.is_of(uid.as_ref(), now));
            !all.is_empty()
        });
    }

    /// Takes from the namespace that has the most.
    fn make_room(&mut self) {
        let count: usize = self.by_namespace.values().map(Vec::len).sum();
        let largest = self.by_namespace.values_mut().max_by_key(|all| all.len());
        if let Some(largest) = largest.filter(|_| count > MAX_REJECTIONS) {
            largest.remove(0);
        }
    }

    fn forget_old(&mut self, now: Timestamp) {
        self.by_namespace.retain(|_, all| {
            for known in &mut *all {
                known.is_settled |= now.duration_since(known.last) >= RETENTION;
            }
            let is_owed = |known: &Remembered| {
                !known.told.is_empty() && now.duration_since(known.last) < RESOLUTION_RETENTION
            };
            all.retain(|known| !known.is_settled || is_owed(known));
            !all.is_empty()
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_namespace.is_empty()
    }

    /// The Secrets that are not written because of what is remembered.
    pub(super) fn missed(&self) -> HashSet<Key> {
        let all = self.by_namespace.values().flatten();
        let unsettled = all.filter(|known| !known.is_settled);
        unsettled.map(|known| known.refusal.secret()).collect()
    }

    /// What is to be said now, to those who have not heard it.
    pub(super) fn look(&mut self, surroundings: &impl Surroundings, now: Timestamp) -> Vec<Notice> {
        self.forget_old(now);
        self.leave(surroundings, now);
        let mut notices = Vec::new();
        self.by_namespace.retain(|_, all| {
            all.retain_mut(|known| {
                known.namespace_uid.is_none() || known.look(surroundings, &mut notices)
            });
            !all.is_empty()
        });
        notices
    }
}

impl Remembered {
    /// Whether it was refused in the namespace of this UID, which its name has now.
    fn is_of(&mut self, uid: Option<&Arc<str>>, now: Timestamp) -> bool {
        if self.namespace_uid.is_some() {
            return self.namespace_uid.as_ref() == uid;
        }
        self.namespace_uid = uid.cloned();
        now.duration_since(self.last) < NAMESPACE_LAG
    }

    /// Whether to keep it in mind.
    fn look(&mut self, surroundings: &impl Surroundings, notices: &mut Vec<Notice>) -> bool {
        let secret = self.refusal.secret();
        // A change was refused of a Pki that is stored all along.
        let provider = surroundings
            .provider(&self.refusal.pki, &secret)
            .filter(|provider| !(self.refusal.is_edit && *provider == Provider::Other));
        match provider {
            None if !self.is_settled => {
                if !surroundings.has_secret(&secret) {
                    self.tell(&surroundings.users(&secret), notices);
                }
                true
            }
            Some(Provider::Ready { message, since }) => {
                let (words, related) = (mended(message, since), self.pki());
                let users = surroundings.users(&secret);
                let told = words.for_users(&secret.name, &users, &related);
                notices.extend(told.into_iter().filter(|notice| self.has_told(notice)));
                false
            }
            provider => {
                self.is_settled |= provider.is_some();
                // Else nobody is owed a word.
                !self.told.is_empty()
            }
        }
    }

    /// Tells those who have not been told.
    fn tell(&mut self, users: &[Arc<SecretUser>], notices: &mut Vec<Notice>) {
        let mut hasher = DefaultHasher::new();
        for pod in users {
            pod.uid.hash(&mut hasher);
        }
        let seen = Some(hasher.finish());
        if self.seen == seen {
            return;
        }
        self.seen = seen;
        let told = self
            .words()
            .for_users(&self.refusal.secret, users, &self.pki());
        for notice in told {
            if !self.has_told(&notice) {
                self.told.extend(notice.regarding.uid.clone());
                notices.push(notice);
            }
        }
    }

    fn has_told(&self, notice: &Notice) -> bool {
        let uid = notice.regarding.uid.as_ref();
        uid.is_some_and(|uid| self.told.contains(uid))
    }

    fn pki(&self) -> ObjectReference {
        reference_to_pki(&self.refusal.pki, None)
    }

    /// The time is that of the first refusal; how often and when last, the series of the Event
    /// tells.
    fn words(&self) -> EventTemplate {
        let Rejection { reason, rules, .. } = &self.refusal;
        let name = text::printable(&self.refusal.pki.name);
        let say = |when: &str| {
            let beginning = if self.refusal.is_edit {
                format!("a change of Pki {name} was refused{when}: ")
            } else {
                format!("Pki {name} was refused{when} and is not stored: ")
            };
            text::fit(&beginning, rules, "", NOTE_BYTES)
        };
        EventTemplate {
            aspect: Aspect::Refusal,
            kind: EventKind::Warning,
            reason: reason.clone(),
            message: say(&format!(" at {}", whole_second(self.first))),
            topic: Some(say("")),
            since: self.last,
        }
    }
}

impl Rejection {
    fn secret(&self) -> Key {
        Key::new(self.pki.namespace.clone(), &*self.secret)
    }
}

/// What the reconciler says as well, if it knows whom to tell.
fn mended(message: String, since: Timestamp) -> EventTemplate {
    EventTemplate {
        aspect: Aspect::Refusal,
        kind: EventKind::Normal,
        reason: "PkiReady".to_owned(),
        message,
        topic: None,
        since,
    }
}

#[cfg(test)]
mod tests;
