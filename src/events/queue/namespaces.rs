//! The namespaces of the queue: round robin, with a limit and pauses for each.

use super::super::notice::Hash;
use super::Place;
use crate::util::backoff::Backoff;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

/// Maximum number of notices of one namespace that are sent at a time. A namespace in which every
/// request hangs must leave slots for others.
pub(super) const MAX_SENDING: usize = 2;
/// The pause of a namespace after failures in a row.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(500),
    longest: Duration::from_secs(30),
};

/// The namespaces with notices that wait or are being sent.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    by_name: HashMap<String, Namespace>,
    /// Those with something to send, in the order in which they are served.
    order: VecDeque<String>,
}

#[derive(Debug, Default)]
struct Namespace {
    /// The dedup keys that may be sent.
    ready: BTreeMap<Place, Hash>,
    /// These, and those that wait for a time.
    waiting: BTreeMap<Place, Hash>,
    sending: usize,
    is_in_order: bool,
    is_paused: bool,
    /// The number of failures in a row.
    failures: u32,
}

impl Namespaces {
    pub(super) fn insert(&mut self, name: &str, place: Place, key: Hash) {
        let namespace = self.by_name.entry(name.to_owned()).or_default();
        namespace.waiting.insert(place, key);
    }

    pub(super) fn remove(&mut self, name: &str, place: &Place) {
        if let Some(namespace) = self.by_name.get_mut(name) {
            namespace.waiting.remove(place);
            namespace.ready.remove(place);
        }
    }

    pub(super) fn make_ready(&mut self, name: &str, place: Place, key: Hash) {
        if let Some(namespace) = self.by_name.get_mut(name) {
            namespace.ready.insert(place, key);
            self.enqueue(name);
        }
    }

    /// Takes the next notice to send out of its namespace. Call [`end_sending`](Self::end_sending)
    /// when it is sent.
    pub(super) fn begin_sending(&mut self) -> Option<Hash> {
        while let Some(name) = self.order.pop_front() {
            let Some(namespace) = self.by_name.get_mut(&name) else {
                continue;
            };
            namespace.is_in_order = false;
            if !namespace.is_paused
                && let Some((place, key)) = namespace.ready.pop_first()
            {
                namespace.waiting.remove(&place);
                namespace.sending += 1;
                self.enqueue(&name);
                return Some(key);
            }
            self.forget_idle(&name);
        }
        None
    }

    pub(super) fn end_sending(&mut self, name: &str) {
        if let Some(namespace) = self.by_name.get_mut(name) {
            namespace.sending -= 1;
            self.enqueue(name);
        }
    }

    pub(super) fn reset_failures(&mut self, name: &str) {
        if let Some(namespace) = self.by_name.get_mut(name) {
            namespace.failures = 0;
        }
    }

    /// Pauses a namespace, and returns for how long. `None` if it pauses already: of the notices
    /// that fail side by side only the first lengthens the pause.
    pub(super) fn pause(&mut self, name: &str, least: Duration) -> Option<Duration> {
        let namespace = self.by_name.entry(name.to_owned()).or_default();
        if namespace.is_paused {
            return None;
        }
        namespace.is_paused = true;
        namespace.failures = namespace.failures.saturating_add(1);
        let pause = BACKOFF.pause(namespace.failures).max(least);
        Some(pause.min(BACKOFF.longest))
    }

    pub(super) fn resume(&mut self, name: &str) {
        if let Some(namespace) = self.by_name.get_mut(name) {
            namespace.is_paused = false;
            self.enqueue(name);
            self.forget_idle(name);
        }
    }

    /// The notice to drop for another one of this namespace: the last of the longest namespace, if
    /// that is longer; else a refusal of the same namespace, unless the other one is a refusal.
    pub(super) fn least_important(&self, name: &str, is_refusal: bool) -> Option<Hash> {
        let own = self.by_name.get(name);
        let own_length = own.map_or(0, |namespace| namespace.waiting.len());
        let longest = self.by_name.values().max_by_key(|it| it.waiting.len());
        let longest = longest.filter(|it| it.waiting.len() > own_length);
        let ((is_last_refusal, ..), last) = longest.or(own)?.waiting.last_key_value()?;
        (longest.is_some() || *is_last_refusal && !is_refusal).then_some(*last)
    }

    /// Forgets a namespace in which nothing goes on.
    pub(super) fn forget_idle(&mut self, name: &str) {
        let is_idle = |it: &Namespace| {
            it.waiting.is_empty() && it.sending == 0 && !it.is_in_order && !it.is_paused
        };
        if self.by_name.get(name).is_some_and(is_idle) {
            self.by_name.remove(name);
        }
    }

    /// Puts a namespace at the end of the order, if it may send.
    fn enqueue(&mut self, name: &str) {
        let Some(namespace) = self.by_name.get_mut(name) else {
            return;
        };
        let may_send = !namespace.is_paused && namespace.sending < MAX_SENDING;
        if may_send && !namespace.is_in_order && !namespace.ready.is_empty() {
            namespace.is_in_order = true;
            self.order.push_back(name.to_owned());
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}
