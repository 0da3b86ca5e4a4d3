//! The notices that wait, are being sent and were published. Without I/O.

use super::super::notice::{EventKind, Hash, Notice};
use super::namespaces::Namespaces;
use super::{Offered, QueuedNotice};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

/// Maximum number of notices that wait.
pub(super) const MAX_WAITING: usize = 20_000;
/// Maximum number of published Events that are remembered. A superfluous Event does no harm.
const MAX_PUBLISHED: usize = 100_000;

/// State of the queue. Maps are by dedup key.
#[derive(Debug, Default)]
pub(super) struct QueueState {
    pub(super) waiting: HashMap<Hash, QueuedNotice>,
    pub(super) namespaces: Namespaces,
    timers: BTreeSet<(Instant, Timer)>,
    sending: HashSet<Hash>,
    /// Kind and time of the last Event.
    published: HashMap<Hash, (EventKind, Instant)>,
    offers: u64,
    is_closed: bool,
}

/// Something that waits for a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Notice(Hash),
    Namespace(String),
}

#[derive(Debug)]
pub(super) enum Next {
    Notice(Box<QueuedNotice>),
    Nothing { until: Option<Instant> },
    End,
}

impl QueueState {
    pub(super) fn offer(&mut self, notice: Notice, now: Instant) -> Offered {
        let key = notice.dedup_key();
        if let Some(queued) = self.waiting.get_mut(&key) {
            let before = std::mem::replace(&mut queued.notice, notice);
            queued.since = now;
            // Another budget may have room.
            if queued.notice.budget() != before.budget() {
                self.make_ready(key);
            }
            return Offered::Overtaken(self.overtake(key, before));
        }
        let mut dropped = None;
        if self.waiting.len() >= MAX_WAITING {
            let least = (self.namespaces).least_important(notice.namespace(), notice.is_refusal());
            dropped = least.and_then(|least| self.remove(least));
            if dropped.is_none() {
                return Offered::Full(Box::new(notice));
            }
        }
        self.offers += 1;
        let published = self.published.get(&key).map(|(_, at)| *at);
        let queued = QueuedNotice {
            place: (notice.is_refusal(), published, self.offers),
            since: now,
            notice,
        };
        self.insert(key, queued);
        self.make_ready(key);
        dropped.map_or(Offered::Queued, |notice| Offered::Full(Box::new(notice)))
    }

    pub(super) fn next(&mut self, now: Instant) -> Next {
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            self.fire_first_timer();
        }
        if let Some(key) = self.namespaces.begin_sending()
            && let Some(queued) = self.waiting.remove(&key)
        {
            self.sending.insert(key);
            return Next::Notice(Box::new(queued));
        }
        if self.is_closed {
            return Next::End;
        }
        let until = self.timers.first().map(|(at, _)| *at);
        Next::Nothing { until }
    }

    pub(super) fn finish(&mut self, notice: &Notice, is_published: bool, now: Instant) {
        let key = notice.dedup_key();
        self.end_sending(key, notice.namespace());
        if is_published {
            self.published.insert(key, (notice.kind, now));
            if self.published.len() > MAX_PUBLISHED {
                self.published.clear();
            }
        }
        self.namespaces.reset_failures(notice.namespace());
        self.follow_up(key, notice.namespace());
    }

    /// Takes a notice back that was not sent, until `at`. Returns what is overtaken.
    pub(super) fn put_back(&mut self, queued: QueuedNotice, at: Option<Instant>) -> Vec<Notice> {
        let key = queued.notice.dedup_key();
        self.end_sending(key, queued.notice.namespace());
        if self.waiting.contains_key(&key) {
            let namespace = queued.notice.namespace().to_owned();
            let overtaken = self.overtake(key, queued.notice);
            self.follow_up(key, &namespace);
            return overtaken;
        }
        self.insert(key, queued);
        match at {
            Some(at) => drop(self.timers.insert((at, Timer::Notice(key)))),
            None => self.make_ready(key),
        }
        Vec::new()
    }

    /// As [`put_back`](Self::put_back), with a pause of the namespace.
    pub(super) fn retry(
        &mut self,
        queued: QueuedNotice,
        pause: Duration,
        now: Instant,
    ) -> Vec<Notice> {
        self.pause(queued.notice.namespace(), pause, now);
        // The API server may have written it all the same.
        self.published.remove(&queued.notice.dedup_key());
        self.put_back(queued, None)
    }

    pub(super) fn pause(&mut self, namespace: &str, least: Duration, now: Instant) {
        if let Some(pause) = self.namespaces.pause(namespace, least) {
            let timer = Timer::Namespace(namespace.to_owned());
            self.timers.insert((now + pause, timer));
        }
    }

    pub(super) fn close(&mut self) {
        self.is_closed = true;
        while !self.timers.is_empty() {
            self.fire_first_timer();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(super) fn clear(&mut self, is_kept: impl Fn(&Notice) -> bool) {
        let all = self.waiting.iter();
        let dropped = all.filter(|(_, queued)| !is_kept(&queued.notice));
        let dropped: Vec<_> = dropped.map(|(key, _)| *key).collect();
        for key in dropped {
            self.remove(key);
        }
        self.published.clear();
    }

    pub(super) fn remove(&mut self, key: Hash) -> Option<Notice> {
        let QueuedNotice { notice, place, .. } = self.waiting.remove(&key)?;
        self.namespaces.remove(notice.namespace(), &place);
        Some(notice)
    }

    fn insert(&mut self, key: Hash, queued: QueuedNotice) {
        let namespace = queued.notice.namespace();
        self.namespaces.insert(namespace, queued.place, key);
        self.waiting.insert(key, queued);
    }

    /// Lets a notice be sent, unless another one with its dedup key is being sent.
    fn make_ready(&mut self, key: Hash) {
        if let Some(queued) = self.waiting.get(&key)
            && !self.sending.contains(&key)
        {
            let namespace = queued.notice.namespace();
            self.namespaces.make_ready(namespace, queued.place, key);
        }
    }

    /// Drops `before`, in favour of the notice that waits. The end of a fault is dropped with the
    /// fault if the last published Event was Normal. Without a published Event it stays, because a
    /// former process may have published the fault.
    fn overtake(&mut self, key: Hash, before: Notice) -> Vec<Notice> {
        let after = self.waiting.get(&key).map(|after| after.notice.kind);
        let is_end = before.kind == EventKind::Warning && after == Some(EventKind::Normal);
        let published = self.published.get(&key).map(|(kind, _)| *kind);
        let mut overtaken = vec![before];
        if is_end && published == Some(EventKind::Normal) {
            overtaken.extend(self.remove(key));
        }
        overtaken
    }

    fn fire_first_timer(&mut self) {
        match self.timers.pop_first() {
            Some((_, Timer::Notice(key))) => self.make_ready(key),
            Some((_, Timer::Namespace(namespace))) => self.namespaces.resume(&namespace),
            None => {}
        }
    }

    fn end_sending(&mut self, key: Hash, namespace: &str) {
        self.sending.remove(&key);
        self.namespaces.end_sending(namespace);
    }

    /// Lets a notice be sent that was offered while another one of its dedup key was being sent.
    fn follow_up(&mut self, key: Hash, namespace: &str) {
        self.make_ready(key);
        self.namespaces.forget_idle(namespace);
    }
}
