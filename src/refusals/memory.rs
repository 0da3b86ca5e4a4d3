//! Which refusals are remembered, and what is to be said of them. Without I/O.

use super::{MEMORY, MOST, MOST_OF_NAMESPACE, Provider, Refusal};
use crate::events::{Aspect, Kind, NOTE_BYTES, Notice, Words, reference_by_name};
use crate::index::Key;
use crate::pods::SecretUser;
use crate::policy::text;
use crate::reconcile::status::whole_second;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// What a word to the pods depends on.
pub(super) trait Surroundings {
    /// Whether it is there.
    fn has_secret(&self, secret: &Key) -> bool;
    /// The pods that use it.
    fn users(&self, secret: &Key) -> Vec<Arc<SecretUser>>;
    /// The Pki of that name, or one that breaks no rule and provides that Secret, if one is stored by now.
    fn provider(&self, pki: &Key, secret: &Key) -> Option<Provider>;
}

/// The refusals by namespace, those of one in the order of their last time.
#[derive(Debug, Default)]
pub(super) struct Memory {
    by_namespace: BTreeMap<String, Vec<Remembered>>,
}

#[derive(Debug)]
struct Remembered {
    refusal: Refusal,
    first: Timestamp,
    last: Timestamp,
    /// UIDs of the objects whose readers were told of the last time.
    told: HashSet<String>,
    /// A Pki is stored that speaks for itself, so that nobody is told any more.
    is_settled: bool,
}

impl Memory {
    /// What is refused again and again for the same reason is one refusal; for another reason it takes the place of
    /// the one before.
    pub(super) fn note(&mut self, refusal: Refusal, now: Timestamp) {
        self.forget_old(now);
        let of_namespace = self
            .by_namespace
            .entry(refusal.pki.namespace.clone())
            .or_default();
        let before = of_namespace
            .iter()
            .position(|known| known.refusal.pki == refusal.pki);
        let before = before.map(|index| of_namespace.remove(index));
        let first = before
            .filter(|before| before.refusal == refusal && !before.is_settled)
            .map_or(now, |before| before.first);
        if of_namespace.len() >= MOST_OF_NAMESPACE {
            of_namespace.remove(0);
        }
        of_namespace.push(Remembered {
            refusal,
            first,
            last: now,
            told: HashSet::new(),
            is_settled: false,
        });
        self.make_room();
    }

    /// Takes from the namespace that has the most.
    fn make_room(&mut self) {
        let count: usize = self.by_namespace.values().map(Vec::len).sum();
        let largest = self.by_namespace.values_mut().max_by_key(|all| all.len());
        if let Some(largest) = largest.filter(|_| count > MOST) {
            largest.remove(0);
        }
    }

    fn forget_old(&mut self, now: Timestamp) {
        self.by_namespace.retain(|_, all| {
            all.retain(|known| now.duration_since(known.last) < MEMORY);
            !all.is_empty()
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_namespace.is_empty()
    }

    pub(super) fn concern(&self, secret: &Key) -> bool {
        let all = self.by_namespace.get(&secret.namespace);
        let mut all = all.into_iter().flatten();
        all.any(|known| known.refusal.secret == secret.name && !known.is_settled)
    }

    /// What is to be said now, to those who have not heard it.
    pub(super) fn look(&mut self, surroundings: &impl Surroundings, now: Timestamp) -> Vec<Notice> {
        self.forget_old(now);
        let mut notices = Vec::new();
        self.by_namespace.retain(|_, all| {
            all.retain_mut(|known| known.look(surroundings, &mut notices));
            !all.is_empty()
        });
        notices
    }
}

impl Remembered {
    /// Whether to keep it in mind.
    fn look(&mut self, surroundings: &impl Surroundings, notices: &mut Vec<Notice>) -> bool {
        let pki = &self.refusal.pki;
        let secret = Key::new(pki.namespace.clone(), &self.refusal.secret);
        // A change was refused of a Pki that is stored, and which is wrong by now.
        let provider = surroundings
            .provider(pki, &secret)
            .filter(|provider| !(self.refusal.is_edit && *provider == Provider::Invalid));
        match provider {
            None if !self.is_settled => {
                if !surroundings.has_secret(&secret) {
                    let users = surroundings.users(&secret);
                    let told = self
                        .words()
                        .to_users(&secret.name, &users, &reference_by_name(pki));
                    // Those who hear it for the first time.
                    let told = told.into_iter().filter(|notice| {
                        let uid = notice.regarding.uid.clone().unwrap_or_default();
                        self.told.insert(uid)
                    });
                    notices.extend(told);
                }
                true
            }
            Some(Provider::Ready { message, since }) => {
                let words = mended(message, since);
                let told = words.to_users(
                    &secret.name,
                    &surroundings.users(&secret),
                    &reference_by_name(pki),
                );
                let has_heard = |notice: &Notice| {
                    let uid = notice.regarding.uid.as_ref();
                    uid.is_some_and(|uid| self.told.contains(uid))
                };
                notices.extend(told.into_iter().filter(has_heard));
                false
            }
            provider => {
                self.is_settled |= provider.is_some();
                // Nobody is owed a word.
                !self.told.is_empty()
            }
        }
    }

    /// The time is that of the first refusal; how often and when last, the series of the Event tells.
    fn words(&self) -> Words {
        let Refusal { reason, lines, .. } = &self.refusal;
        let name = text::printable(&self.refusal.pki.name);
        let beginning = |when: &str| {
            if self.refusal.is_edit {
                format!("a change of Pki {name} was refused{when}: ")
            } else {
                format!("Pki {name} was refused{when} and is not stored: ")
            }
        };
        let at = format!(" at {}", whole_second(self.first));
        Words {
            aspect: Aspect::Refusal,
            kind: Kind::Warning,
            reason: reason.clone(),
            message: text::list(&beginning(&at), lines, NOTE_BYTES),
            topic: Some(text::list(&beginning(""), lines, NOTE_BYTES)),
            since: self.last,
        }
    }
}

/// What the reconciler says as well, if it knows whom to tell.
fn mended(message: String, since: Timestamp) -> Words {
    Words {
        aspect: Aspect::Refusal,
        kind: Kind::Normal,
        reason: "PkiReady".to_owned(),
        message,
        topic: None,
        since,
    }
}

#[cfg(test)]
mod tests;
