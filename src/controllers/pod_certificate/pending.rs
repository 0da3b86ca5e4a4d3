//! The requests that are open, and the order in which they are decided: namespaces take turns.

use super::decision::Fault;
use super::request::Request;
use crate::k8s::object_key::Key;
use crate::model::fair::Fair;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The number of open requests that are kept. Those beyond it are decided when they are asked for
/// again.
const MAX_OPEN: usize = 100_000;
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
    /// When it was first seen.
    seen: Instant,
}

/// The open requests of one term as leader.
#[derive(Debug, Default)]
pub(super) struct Pending {
    open: HashMap<Key, Open>,
    queue: Fair,
    queued: HashSet<Key>,
    busy: HashSet<Key>,
    /// Those to process again once they are not busy any more.
    again: HashSet<Key>,
    due: BTreeSet<(Instant, Key)>,
}

impl Pending {
    /// Adds or replaces a request, or removes one that is decided.
    pub(super) fn apply(&mut self, request: Request) {
        let key = request.key.clone();
        if request.is_decided {
            self.remove(&key);
            return;
        }
        let is_full = self.open.len() >= MAX_OPEN;
        match self.open.get_mut(&key) {
            Some(open) if open.request.uid == request.uid => open.request = Arc::new(request),
            _ if is_full => return,
            _ => {
                let open = Open {
                    request: Arc::new(request),
                    published: None,
                    attempts: 0,
                    seen: Instant::now(),
                };
                self.open.insert(key.clone(), open);
            }
        }
        self.enqueue(key);
    }

    /// Removes a request that is gone or decided.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Open> {
        self.again.remove(key);
        self.open.remove(key)
    }

    /// Keeps the requests of this list.
    pub(super) fn retain(&mut self, listed: &HashSet<Key>) {
        self.open.retain(|key, _| listed.contains(key));
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
