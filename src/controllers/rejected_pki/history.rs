//! The refusals that are remembered, and the Events about them. Without I/O.

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

/// The part of the cluster that the Events depend on.
pub(super) trait ClusterView {
    /// The UID of the namespace that has this name now, if it is known.
    fn namespace_uid(&self, name: &str) -> Option<Arc<str>>;
    fn has_secret(&self, secret: &Key) -> bool;
    /// The pods that use it.
    fn users(&self, secret: &Key) -> Vec<Arc<SecretUser>>;
    /// The pods that wait for a pod certificate of this Pki.
    fn certified(&self, pki: &Key) -> Vec<Arc<SecretUser>>;
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
    /// UIDs of the objects with an Event about the last time.
    published: HashSet<String>,
    /// Hash of the pods at the last sweep: the same pods need no other Events.
    seen: Option<u64>,
    /// No more Events: a Pki is stored that has a status of its own, or it was long ago.
    is_over: bool,
}

impl RejectionHistory {
    /// Records a refusal. A repeated one with the same reason stays one refusal; with another
    /// reason it replaces the one before.
    pub(super) fn record(&mut self, refusal: Rejection, now: Timestamp) {
        self.forget_old(now);
        let namespace = refusal.pki.namespace.to_string();
        let of_namespace = self.by_namespace.entry(namespace).or_default();
        let mut all = of_namespace.iter();
        let before = all.position(|known| known.refusal.pki == refusal.pki);
        let before = before.map(|index| of_namespace.remove(index));
        let first = before
            .filter(|before| before.refusal == refusal && !before.is_over)
            .map_or(now, |before| before.first);
        if of_namespace.len() >= MAX_PER_NAMESPACE {
            of_namespace.remove(0);
        }
        of_namespace.push(Remembered {
            refusal,
            namespace_uid: None,
            first,
            last: now,
            published: HashSet::new(),
            seen: None,
            is_over: false,
        });
        self.make_room();
    }

    /// Drops the refusals of namespaces that are gone, also if another one has the name by now.
    pub(super) fn forget_namespaces(&mut self, around: &impl ClusterView, now: Timestamp) {
        self.by_namespace.retain(|name, all| {
            let uid = around.namespace_uid(name);
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
                known.is_over |= now.duration_since(known.last) >= RETENTION;
            }
            let is_unresolved = |known: &Remembered| {
                !known.published.is_empty() && now.duration_since(known.last) < RESOLUTION_RETENTION
            };
            all.retain(|known| !known.is_over || is_unresolved(known));
            !all.is_empty()
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_namespace.is_empty()
    }

    /// The Secrets that are not written because of what is remembered.
    pub(super) fn missed(&self) -> HashSet<Key> {
        let all = self.by_namespace.values().flatten();
        let active = all.filter(|known| !known.is_over);
        active.map(|known| known.refusal.secret()).collect()
    }

    /// The Events that are due, on objects that have none yet.
    pub(super) fn due(&mut self, around: &impl ClusterView, now: Timestamp) -> Vec<Notice> {
        self.forget_old(now);
        self.forget_namespaces(around, now);
        let mut notices = Vec::new();
        self.by_namespace.retain(|_, all| {
            all.retain_mut(|known| {
                known.namespace_uid.is_none() || known.update(around, &mut notices)
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

    /// Adds the Events that are due. Returns whether to keep it.
    fn update(&mut self, around: &impl ClusterView, notices: &mut Vec<Notice>) -> bool {
        let secret = self.refusal.secret();
        // A change was refused of a Pki that is stored all along.
        let provider = around
            .provider(&self.refusal.pki, &secret)
            .filter(|provider| !(self.refusal.is_edit && *provider == Provider::Other));
        match provider {
            None if !self.is_over => {
                let mut users = around.certified(&self.refusal.pki);
                if !around.has_secret(&secret) {
                    users.extend(around.users(&secret));
                }
                self.publish(&users, notices);
                true
            }
            Some(Provider::Ready { message, since }) => {
                let template = resolved(message, since);
                let all = template.for_users(&secret.name, &around.users(&secret), &self.pki());
                notices.extend(all.into_iter().filter(|notice| self.has_event(notice)));
                false
            }
            provider => {
                self.is_over |= provider.is_some();
                // Without an Event there is nothing to resolve.
                !self.published.is_empty()
            }
        }
    }

    /// Adds Events on the pods that have none yet.
    fn publish(&mut self, users: &[Arc<SecretUser>], notices: &mut Vec<Notice>) {
        let mut hasher = DefaultHasher::new();
        for pod in users {
            pod.uid.hash(&mut hasher);
        }
        let seen = Some(hasher.finish());
        if std::mem::replace(&mut self.seen, seen) == seen {
            return;
        }
        let template = self.event();
        for notice in template.for_users(&self.refusal.secret, users, &self.pki()) {
            if !self.has_event(&notice) {
                self.published.extend(notice.regarding.uid.clone());
                notices.push(notice);
            }
        }
    }

    fn has_event(&self, notice: &Notice) -> bool {
        let uid = notice.regarding.uid.as_ref();
        uid.is_some_and(|uid| self.published.contains(uid))
    }

    fn pki(&self) -> ObjectReference {
        reference_to_pki(&self.refusal.pki, None)
    }

    /// The time in the message is that of the first refusal. The series of the Event has the count
    /// and the last time.
    fn event(&self) -> EventTemplate {
        let Rejection { reason, rules, .. } = &self.refusal;
        let name = text::printable(&self.refusal.pki.name);
        let message = |when: &str| {
            let beginning = if self.refusal.is_edit {
                format!("a change of Pki {name} was refused{when}: ")
            } else {
                format!("Pki {name} was refused{when} and is not stored: ")
            };
            text::fit(&beginning, rules, "", NOTE_BYTES)
        };
        let at = format!(" at {}", whole_second(self.first));
        EventTemplate {
            topic: Some(message("")),
            since: self.last,
            ..EventTemplate::warning(Aspect::Refusal, reason, message(&at))
        }
    }
}

impl Rejection {
    fn secret(&self) -> Key {
        Key::new(self.pki.namespace.clone(), &*self.secret)
    }
}

/// The Event that the reconciler publishes as well, on the pods that it knows.
fn resolved(message: String, since: Timestamp) -> EventTemplate {
    EventTemplate {
        since,
        ..EventTemplate::new(Aspect::Refusal, EventKind::Normal, "PkiReady", message)
    }
}

#[cfg(test)]
mod tests;
