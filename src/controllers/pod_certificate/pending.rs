//! The requests that are open, and the order in which they are decided: namespaces take turns.

use super::decision::Fault;
use super::request::Request;
use crate::k8s::object_key::Key;
use crate::k8s::relist::Relist;
use crate::model::fair::Fair;
use kube::runtime::watcher::Event;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The number of open requests of one namespace that are kept. Those beyond it are decided when the
/// kubelet asks again.
const MAX_OPEN: usize = 20_000;
/// The pauses of an attempt that failed, or that was made on caches that may be behind.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

/// The number of attempts in which the caches may catch up with a request.
const PATIENCE: usize = 2;

/// An open request.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) request: Arc<Request>,
    /// The fault that its pod has heard of, and when the Event was offered last.
    pub(super) published: Option<(Fault, Instant)>,
    /// Attempts without a decision, in a row.
    attempts: usize,
    /// Whether the watch has delivered a decision.
    is_decided: bool,
    /// When it was first seen.
    seen: Instant,
}

/// The open requests of one term as leader.
#[derive(Debug, Default)]
pub(super) struct Pending {
    open: HashMap<Key, Open>,
    /// The number of open requests by namespace.
    counts: HashMap<Arc<str>, usize>,
    queue: Fair,
    queued: HashSet<Key>,
    busy: HashSet<Key>,
    /// Those to process again once they are not busy any more.
    again: HashSet<Key>,
    due: BTreeSet<(Instant, Key)>,
    relist: Relist<Key>,
}

impl Pending {
    /// Follows the watch.
    pub(super) fn follow(&mut self, event: Event<Request>) {
        match event {
            Event::Init => self.relist.begin(self.open.keys()),
            Event::InitApply(request) => {
                self.relist.name(&request.key);
                self.apply(request);
            }
            Event::InitDone => {
                for key in self.relist.end() {
                    self.remove(&key);
                }
            }
            Event::Apply(request) => self.apply(request),
            Event::Delete(request) => drop(self.remove(&request.key)),
        }
    }

    /// Adds or replaces a request, or removes one that is decided.
    fn apply(&mut self, request: Request) {
        let key = request.key.clone();
        if request.is_decided {
            match self.open.get_mut(&key) {
                // The attempt that decided it has not ended yet.
                Some(open) if self.busy.contains(&key) => open.is_decided = true,
                _ => drop(self.remove(&key)),
            }
            return;
        }
        let count = self.counts.get(&key.namespace);
        let is_full = count.is_some_and(|count| *count >= MAX_OPEN);
        match self.open.get_mut(&key) {
            Some(open) if open.request.uid == request.uid => open.request = Arc::new(request),
            _ if is_full => return,
            _ => {
                let open = Open {
                    request: Arc::new(request),
                    published: None,
                    attempts: 0,
                    is_decided: false,
                    seen: Instant::now(),
                };
                if self.open.insert(key.clone(), open).is_none() {
                    *self.counts.entry(key.namespace.clone()).or_default() += 1;
                }
            }
        }
        self.enqueue(key);
    }

    /// Removes a request that is gone or decided.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Open> {
        self.again.remove(key);
        let removed = self.open.remove(key)?;
        if let Some(count) = self.counts.get_mut(&key.namespace) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key.namespace);
            }
        }
        Some(removed)
    }

    /// Enqueues the open requests of these namespaces, or all.
    pub(super) fn enqueue_all(&mut self, namespaces: Option<&BTreeSet<Arc<str>>>) {
        let keys = self.open.keys();
        let meant = keys.filter(|key| namespaces.is_none_or(|them| them.contains(&key.namespace)));
        let meant: Vec<_> = meant.cloned().collect();
        for key in meant {
            self.enqueue(key);
        }
    }

    fn enqueue(&mut self, key: Key) {
        if self.busy.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.queue.push(key);
        }
    }

    /// The next request to process, and whether the caches had time to catch up with it. It is busy
    /// until [`done`](Self::done).
    pub(super) fn next(&mut self) -> Option<(Arc<Request>, bool)> {
        loop {
            let key = self.queue.pop(|_| true, |_| true)?;
            self.queued.remove(&key);
            if let Some(open) = self.open.get(&key) {
                let next = (open.request.clone(), open.attempts >= PATIENCE);
                self.busy.insert(key);
                return Some(next);
            }
        }
    }

    /// Ends the processing of a request.
    pub(super) fn done(&mut self, key: &Key) {
        self.busy.remove(key);
        if self.open.get(key).is_some_and(|open| open.is_decided) {
            self.remove(key);
        }
        if self.again.remove(key) {
            self.enqueue(key.clone());
        }
    }

    /// The open request, if it is there still.
    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Open> {
        self.open.get_mut(key)
    }

    /// Processes a request again at this time.
    pub(super) fn schedule(&mut self, key: &Key, at: Instant) {
        self.due.insert((at, key.clone()));
    }

    /// Processes a request again after a pause, which grows.
    pub(super) fn retry(&mut self, key: &Key, now: Instant) {
        let Some(open) = self.open.get_mut(key) else {
            return;
        };
        let pause = PAUSES[open.attempts.min(PAUSES.len() - 1)];
        open.attempts += 1;
        self.schedule(key, now + pause);
    }

    /// When a request is due next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Enqueues the requests that are due.
    pub(super) fn enqueue_due(&mut self, now: Instant) {
        while let Some((at, key)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, key));
                return;
            }
            if self.open.contains_key(&key) {
                self.enqueue(key);
            }
        }
    }

    /// The number of open requests.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

impl Open {
    /// The time since it was first seen.
    pub(super) fn age(&self) -> Duration {
        self.seen.elapsed()
    }

    /// Notes that the caches had all that matters.
    pub(super) fn is_understood(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::pod_certificate::request::tests::request;
    use crate::k8s::projection::Projection as _;
    use serde_json::json;

    fn open(namespace: &str, name: &str) -> Request {
        let mut object = request("");
        object["metadata"]["namespace"] = json!(namespace);
        object["metadata"]["name"] = json!(name);
        Request::of(serde_json::from_value(object).unwrap())
    }

    fn next(pending: &mut Pending) -> Option<String> {
        pending.next().map(|(request, _)| request.key.to_string())
    }

    #[test]
    fn namespaces_take_turns() {
        let mut pending = Pending::default();
        for name in ["1", "2", "3"] {
            pending.apply(open("flood", name));
        }
        pending.apply(open("other", "1"));
        let order: Vec<_> = std::iter::from_fn(|| next(&mut pending)).collect();
        assert_eq!(order, ["flood/1", "other/1", "flood/2", "flood/3"]);
    }

    #[test]
    fn a_request_is_processed_once_at_a_time_and_again_after_a_change() {
        let mut pending = Pending::default();
        let (request, key) = (open("ns", "a"), Key::new("ns", "a"));
        pending.apply(request.clone());
        assert_eq!(next(&mut pending).as_deref(), Some("ns/a"));
        pending.apply(request);
        assert_eq!(next(&mut pending), None, "it is busy");
        pending.done(&key);
        assert_eq!(next(&mut pending).as_deref(), Some("ns/a"));
    }

    #[test]
    fn the_attempt_that_decides_ends_before_its_request_is_forgotten() {
        let mut pending = Pending::default();
        let (mut request, key) = (open("ns", "a"), Key::new("ns", "a"));
        pending.apply(request.clone());
        pending.next().unwrap();
        request.is_decided = true;
        pending.apply(request.clone());
        assert!(pending.get_mut(&key).is_some());
        pending.done(&key);
        assert_eq!(pending.len(), 0);
        // Another one that was decided elsewhere goes at once.
        request.is_decided = false;
        pending.apply(request.clone());
        request.is_decided = true;
        pending.apply(request);
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn attempts_in_vain_are_repeated_with_growing_pauses() {
        let mut pending = Pending::default();
        let (key, now) = (Key::new("ns", "a"), Instant::now());
        pending.apply(open("ns", "a"));
        for pause in PAUSES {
            let (_, is_patient) = pending.next().unwrap();
            assert_eq!(is_patient, pause >= PAUSES[PATIENCE]);
            pending.retry(&key, now);
            pending.done(&key);
            assert_eq!(pending.next_due(), Some(now + pause));
            pending.enqueue_due(now + pause);
        }
    }

    #[test]
    fn a_namespace_with_too_many_requests_leaves_room_for_others() {
        let mut pending = Pending::default();
        for number in 0..=MAX_OPEN {
            pending.apply(open("flood", &number.to_string()));
        }
        assert_eq!(pending.len(), MAX_OPEN);
        pending.apply(open("other", "1"));
        assert_eq!(pending.len(), MAX_OPEN + 1);
        pending.follow(Event::Init);
        pending.follow(Event::InitApply(open("flood", "7")));
        pending.follow(Event::InitDone);
        assert_eq!((pending.len(), pending.counts.len()), (1, 1));
        pending.remove(&Key::new("flood", "7"));
        assert!(pending.counts.is_empty());
    }

    #[test]
    fn only_the_requests_of_changed_namespaces_are_processed_again() {
        let mut pending = Pending::default();
        for namespace in ["a", "b"] {
            pending.apply(open(namespace, "1"));
            let key = pending.next().unwrap().0.key.clone();
            pending.done(&key);
        }
        pending.enqueue_all(Some(&BTreeSet::from(["b".into()])));
        assert_eq!(next(&mut pending).as_deref(), Some("b/1"));
        assert_eq!(next(&mut pending), None);
    }
}
