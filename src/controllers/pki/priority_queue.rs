//! The queue of Pkis: new ones before renewals, renewals before re-checks. Each priority has a
//! share of the slots, so that a burst in one does not hold up the others for long.
//!
//! Within a priority, namespaces are served [round robin](Fair). A namespace holds at most
//! [`MAX_HELD_PER_FREE`] slots for each one that is free, so that one is left for others.

use crate::api::{Pki, StoredPki};
use crate::k8s::object_key::Key;
use crate::model::fair::Fair;
use crate::model::renewal_request::{self, RenewalRequestState};
use crate::util::sync::lock;
use futures::{Stream, stream};
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// The urgency of a reconcile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// A pod waits for a certificate, or its owner for the reason why there is none.
    New,
    /// The certificate is to be replaced, which has some time.
    Renewal,
    /// Most likely all is as it should be.
    Check,
}

/// The priority that each slot prefers. If it is empty, the first one with a key takes the slot.
const SLOT_PRIORITIES: [Priority; 8] = {
    use Priority::{Check, New, Renewal};
    [New, New, Renewal, New, New, Renewal, New, Check]
};

/// Number of slots that a namespace may hold for each free one: alone it holds three quarters.
const MAX_HELD_PER_FREE: usize = 3;

impl Priority {
    /// The priority of a Pki. `has_secret` is whether the Secret that it names exists.
    pub(super) fn of(stored: &StoredPki, has_secret: bool, now: Timestamp) -> Self {
        match &stored.0 {
            Ok(pki) if !has_secret || !is_served(pki, now) => Self::New,
            Ok(pki) if is_due(pki, now) => Self::Renewal,
            _ => Self::Check,
        }
    }
}

/// Whether the present spec has a certificate, which is in force.
fn is_served(pki: &Pki, now: Timestamp) -> bool {
    pki.status.as_ref().is_some_and(|status| {
        let is_over = status.not_after.as_ref().is_some_and(|end| end.0 <= now);
        let is_of_this = status.observed_generation == pki.metadata.generation;
        status.has_certificate() && is_of_this && !is_over
    })
}

fn is_due(pki: &Pki, now: Timestamp) -> bool {
    let renewal = pki.status.as_ref().and_then(|it| it.renewal_time.as_ref());
    renewal.is_some_and(|time| time.0 <= now)
        || renewal_request::of(pki, now) == Some(RenewalRequestState::New)
}

/// The keys that wait, each once.
#[derive(Debug, Default)]
struct Waiting {
    keys: [Fair; 3],
    /// The priority in which each waits. Where another priority has it still, it has moved.
    priority_of: HashMap<Key, Priority>,
    /// The keys that are being processed, and the priority of another pass, if one was requested.
    busy: HashMap<Key, Option<Priority>>,
    /// Number of keys that are being processed, by namespace.
    held: HashMap<Arc<str>, usize>,
    /// Counts the slots that were given.
    slot: usize,
}

impl Waiting {
    fn push(&mut self, key: Key, priority: Priority) {
        if let Some(again) = self.busy.get_mut(&key) {
            *again = Some(again.map_or(priority, |known| known.min(priority)));
            return;
        }
        let known = self.priority_of.get(&key);
        if known.is_none_or(|known| *known > priority) {
            self.priority_of.insert(key.clone(), priority);
            self.keys[priority as usize].push(key);
        }
    }

    /// The next one, if there is a slot for it among `slots`. It is busy from then on.
    fn next(&mut self, slots: usize) -> Option<Key> {
        let free = slots
            .checked_sub(self.busy.len())
            .filter(|free| *free > 0)?;
        let first = SLOT_PRIORITIES[self.slot % SLOT_PRIORITIES.len()];
        let priorities = [first, Priority::New, Priority::Renewal, Priority::Check];
        let key = priorities
            .into_iter()
            .find_map(|priority| self.pop(priority, free))?;
        self.slot += 1;
        self.priority_of.remove(&key);
        if self.priority_of.is_empty() {
            // A burst is over, and what it took up is given back. What is left in a priority has
            // moved to another.
            self.priority_of.shrink_to_fit();
            self.keys = Default::default();
        }
        *self.held.entry(key.namespace.clone()).or_default() += 1;
        self.busy.insert(key.clone(), None);
        Some(key)
    }

    fn pop(&mut self, priority: Priority, free: usize) -> Option<Key> {
        let (held, priority_of) = (&self.held, &self.priority_of);
        let has_share = |namespace: &str| {
            let held = held.get(namespace);
            held.is_none_or(|held| *held < free.saturating_mul(MAX_HELD_PER_FREE))
        };
        let waits_here = |key: &Key| priority_of.get(key) == Some(&priority);
        self.keys[priority as usize].pop(has_share, waits_here)
    }

    fn done(&mut self, key: &Key) {
        let Some(again) = self.busy.remove(key) else {
            return;
        };
        if let Some(held) = self.held.get_mut(&key.namespace) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&key.namespace);
            }
        }
        if let Some(priority) = again {
            self.push(key.clone(), priority);
        }
    }
}

/// A queue that several tasks fill and one takes from.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// A key or a slot may be available.
    changed: Notify,
    /// Number of keys that may be processed at the same time.
    slots: usize,
}

impl Queue {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            changed: Notify::new(),
            slots,
        }
    }

    /// Enqueues a key.
    pub(super) fn push(&self, key: Key, priority: Priority) {
        lock(&self.waiting).push(key, priority);
        self.changed.notify_one();
    }

    /// Frees the slot of a key that has been processed.
    pub(super) fn done(&self, key: &Key) {
        lock(&self.waiting).done(key);
        self.changed.notify_one();
    }

    /// The next key, whenever there is a slot for it. For one listener.
    pub(super) fn keys(self: Arc<Self>) -> impl Stream<Item = Key> + Send + 'static {
        stream::unfold(self, |queue| async move {
            loop {
                if let Some(key) = queue.next() {
                    return Some((key, queue));
                }
                queue.changed.notified().await;
            }
        })
    }

    fn next(&self) -> Option<Key> {
        lock(&self.waiting).next(self.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api;
    use kube::core::DeserializeGuard;
    use serde_json::json;

    const SLOTS: usize = 32;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    /// Takes all there are, and is done with each at once.
    fn take(waiting: &mut Waiting) -> String {
        let mut names = Vec::new();
        while let Some(key) = waiting.next(SLOTS) {
            waiting.done(&key);
            names.push(key.name);
        }
        names.join(" ")
    }

    #[test]
    fn new_ones_go_before_renewals_before_checks_and_each_priority_has_its_turns() {
        let mut waiting = Waiting::default();
        for (name, priority) in [
            ("c", Priority::Check),
            ("r", Priority::Renewal),
            ("n", Priority::New),
        ] {
            for number in 0..8 {
                waiting.push(key(&format!("{name}{number}")), priority);
            }
        }
        assert_eq!(
            take(&mut waiting),
            "n0 n1 r0 n2 n3 r1 n4 c0 n5 n6 r2 n7 r3 r4 r5 c1 r6 r7 c2 c3 c4 c5 c6 c7"
        );
        waiting.push(key("c"), Priority::Check);
        assert_eq!(
            take(&mut waiting),
            "c",
            "nobody waits for those who are not there"
        );
    }

    #[test]
    fn who_waits_already_waits_once_and_moves_to_the_better_priority_only() {
        let mut waiting = Waiting::default();
        waiting.push(key("a"), Priority::Check);
        waiting.push(key("b"), Priority::Check);
        waiting.push(key("b"), Priority::New);
        waiting.push(key("b"), Priority::Renewal);
        waiting.push(key("a"), Priority::Check);
        assert_eq!(take(&mut waiting), "b a");
        assert!(waiting.priority_of.is_empty() && waiting.busy.is_empty());
    }

    #[test]
    fn who_is_being_looked_at_gets_another_look_afterwards() {
        let mut waiting = Waiting::default();
        waiting.push(key("a"), Priority::New);
        let a = waiting.next(SLOTS).unwrap();
        waiting.push(key("a"), Priority::Check);
        waiting.push(key("a"), Priority::New);
        waiting.push(key("a"), Priority::Renewal);
        assert_eq!(waiting.next(SLOTS), None, "not by two at once");
        waiting.done(&a);
        assert_eq!(take(&mut waiting), "a");
    }

    #[tokio::test]
    async fn there_are_no_more_looks_at_once_than_there_may_be() {
        use futures::{FutureExt as _, StreamExt as _};
        let queue = Arc::new(Queue::new(2));
        for name in ["a", "b", "c"] {
            queue.push(key(name), Priority::New);
        }
        let mut turns = std::pin::pin!(queue.clone().keys());
        let mut next = || turns.next().now_or_never().flatten().map(|key| key.name);
        assert_eq!(
            [next(), next(), next()],
            [Some("a".into()), Some("b".into()), None]
        );
        queue.done(&key("a"));
        assert_eq!([next(), next()], [Some("c".into()), None]);
    }

    #[test]
    fn namespaces_take_turns_within_a_priority_and_priorities_keep_their_order() {
        let mut waiting = Waiting::default();
        for number in 0..4 {
            waiting.push(Key::new("flood", format!("n{number}")), Priority::New);
            waiting.push(Key::new("flood", format!("c{number}")), Priority::Check);
        }
        waiting.push(Key::new("other", "n"), Priority::New);
        waiting.push(Key::new("other", "r"), Priority::Renewal);
        waiting.push(Key::new("other", "c"), Priority::Check);
        assert_eq!(take(&mut waiting), "n0 n r n1 n2 n3 c0 c c1 c2 c3");
        assert!(waiting.held.is_empty());
    }

    #[test]
    fn no_namespace_holds_all_slots() {
        let mut waiting = Waiting::default();
        let flood = |waiting: &mut Waiting, namespace: &str| {
            for number in 0..100 {
                waiting.push(Key::new(namespace, number.to_string()), Priority::New);
            }
            std::iter::from_fn(|| waiting.next(SLOTS)).count()
        };
        assert_eq!(flood(&mut waiting, "a"), 24, "three quarters, alone");
        assert_eq!(flood(&mut waiting, "b"), 6, "three quarters of the rest");
        waiting.push(Key::new("c", "1"), Priority::Check);
        assert_eq!(waiting.next(SLOTS).unwrap().to_string(), "c/1");
        assert_eq!(waiting.next(1), None, "no slot is free");
        assert_eq!(flood(&mut Waiting::default(), "a"), 24);
        let mut alone = Waiting::default();
        alone.push(key("a"), Priority::New);
        assert!(alone.next(1).is_some(), "one slot is anybody's");
    }

    #[test]
    fn a_priority_is_told_by_the_status() {
        let now = "2030-02-01T00:00:00Z".parse().unwrap();
        let settled = json!({ "serialNumber": "0A", "observedGeneration": 1 });
        let renewal = |time: &str| json!({ "serialNumber": "0A", "observedGeneration": 1, "renewalTime": time });
        for (status, is_requested, priority) in [
            (json!(null), false, Priority::New),
            (json!(null), true, Priority::New),
            (json!({ "observedGeneration": 1 }), false, Priority::New),
            (
                json!({ "serialNumber": "0A", "observedGeneration": 0 }),
                false,
                Priority::New,
            ),
            (settled.clone(), false, Priority::Check),
            (settled, true, Priority::Renewal),
            (renewal("2030-02-01T00:00:01Z"), false, Priority::Check),
            (renewal("2030-02-01T00:00:00Z"), false, Priority::Renewal),
            (
                json!({ "serialNumber": "0A", "observedGeneration": 1, "notAfter": "2030-02-01T00:00:00Z" }),
                false,
                Priority::New,
            ),
        ] {
            let mut pki = api::tests::pki(json!({}));
            pki.status = serde_json::from_value(status.clone()).unwrap();
            if is_requested {
                let annotation = (renewal_request::RENEW_NOW.into(), String::new());
                pki.metadata.annotations = Some([annotation].into());
            }
            let pki = DeserializeGuard(Ok(pki));
            let found = Priority::of(&pki, true, now);
            assert_eq!(found, priority, "{status} {is_requested}");
            assert_eq!(
                Priority::of(&pki, false, now),
                Priority::New,
                "its Secret is gone"
            );
        }
    }
}
