//! What waits to be sent: of each matter the latest word, and the namespaces in turn, so that one
//! in which much happens does not keep the others waiting. Within a namespace, who has heard
//! nothing for the longest comes first.
//!
//! It never grows past [`MOST`], and nobody waits to put something in. What is overtaken by later
//! news is not sent at all: of a policy that flips every second, readers hear how it stands and not
//! each flip.

use super::notice::{EventKind, Hash, Notice};
use crate::util::sync::lock;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// So many notices wait at the most.
const MOST: usize = 20_000;
/// So many are sent side by side in one namespace, so that one in which every request hangs does
/// not take all places.
const MOST_BUSY: usize = 2;
/// After a failure a namespace pauses this long, and twice as long each time that the next attempt
/// fails too.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The queue. Many put in, one takes out.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

/// A notice on its way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waiting {
    pub(super) notice: Notice,
    /// When this word was put in.
    pub(super) since: Instant,
    place: Place,
}

/// A place in the order of a namespace: whether it is about a refusal, of which anybody can make
/// any number, so that these come last; when its readers last heard of the matter; then when it was
/// put in.
type Place = (bool, Option<Instant>, u64);

/// What became of what was put in.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Offered {
    /// It waits.
    Queued,
    /// These are overtaken, and will not be sent.
    Overtaken(Vec<Notice>),
    /// There is no room for this one.
    Full(Box<Notice>),
}

impl Queue {
    pub(super) fn offer(&self, notice: Notice) -> Offered {
        let offered = self.state().offer(notice, Instant::now());
        self.changed.notify_one();
        offered
    }

    /// The next one to send; `None` when the queue is closed and what could be sent at once has
    /// been taken.
    pub(super) async fn next(&self) -> Option<Waiting> {
        loop {
            let taken = self.state().take(Instant::now());
            match taken {
                Taken::Notice(waiting) => return Some(*waiting),
                Taken::End => return None,
                Taken::Nothing { until: None } => self.changed.notified().await,
                Taken::Nothing { until: Some(until) } => {
                    let changed = self.changed.notified();
                    let _ = tokio::time::timeout_at(until.into(), changed).await;
                }
            }
        }
    }

    /// The one that was taken has been dealt with: its readers heard it, or nothing.
    pub(super) fn finish(&self, notice: &Notice, was_heard: bool) {
        self.state().finish(notice, was_heard, Instant::now());
        self.changed.notify_one();
    }

    /// Puts one back that may not be sent before `at`; what this overtakes.
    pub(super) fn defer(&self, waiting: Waiting, at: Instant) -> Vec<Notice> {
        let overtaken = self.state().put_back(waiting, Some(at));
        self.changed.notify_one();
        overtaken
    }

    /// Puts one back that could not be sent, and lets its namespace pause for at least `pause`;
    /// what this overtakes.
    pub(super) fn retry(&self, waiting: Waiting, pause: Duration) -> Vec<Notice> {
        let mut state = self.state();
        state.pause(waiting.notice.namespace(), pause, Instant::now());
        // It may have been written all the same.
        state.heard.remove(&waiting.notice.dedup_key());
        let overtaken = state.put_back(waiting, None);
        self.changed.notify_one();
        overtaken
    }

    /// Nothing more will be put in, and what waits is tried once more, now.
    pub(super) fn close(&self) {
        self.state().close();
        self.changed.notify_one();
    }

    /// Whether it is [closed](Self::close).
    pub(super) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Gives up what waits and is not to be kept, and what is known of what readers have heard.
    pub(super) fn clear(&self, is_kept: impl Fn(&Notice) -> bool) {
        self.state().clear(is_kept);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<Hash, Waiting>,
    by_namespace: HashMap<String, NamespaceQueue>,
    /// The namespaces that have something to send, in turn.
    turns: VecDeque<String>,
    /// What has to wait for a time.
    later: BTreeSet<(Instant, Later)>,
    /// The matters that are being sent.
    busy: HashSet<Hash>,
    /// What readers last heard of a matter, and when.
    heard: HashMap<Hash, (EventKind, Instant)>,
    /// How much has been put in.
    offered: u64,
    is_closed: bool,
}

/// A namespace.
#[derive(Debug, Default)]
struct NamespaceQueue {
    /// Those that may be sent.
    ready: BTreeMap<Place, Hash>,
    /// These, and those that have to wait for a time.
    waiting: BTreeMap<Place, Hash>,
    /// How many are being sent.
    busy: usize,
    is_in_turn: bool,
    is_paused: bool,
    /// Failures in a row.
    failures: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Later {
    Matter(Hash),
    Namespace(String),
}

#[derive(Debug)]
enum Taken {
    Notice(Box<Waiting>),
    Nothing { until: Option<Instant> },
    End,
}

impl State {
    fn offer(&mut self, notice: Notice, now: Instant) -> Offered {
        let matter = notice.dedup_key();
        if let Some(waiting) = self.waiting.get_mut(&matter) {
            let before = std::mem::replace(&mut waiting.notice, notice);
            waiting.since = now;
            // Another budget may have room.
            if waiting.notice.budget() != before.budget() {
                let namespace = before.namespace().to_owned();
                self.ready(matter, &namespace);
            }
            return Offered::Overtaken(self.settle(matter, before));
        }
        let crowded_out = if self.waiting.len() < MOST {
            None
        } else if let Some(last) = self.make_room(&notice) {
            Some(last)
        } else {
            return Offered::Full(Box::new(notice));
        };
        let namespace = notice.namespace().to_owned();
        self.offered += 1;
        let heard = self.heard.get(&matter).map(|(_, at)| *at);
        let waiting = Waiting {
            place: (notice.is_refusal(), heard, self.offered),
            notice,
            since: now,
        };
        self.waiting.insert(matter, waiting);
        self.enter(matter, &namespace);
        self.ready(matter, &namespace);
        crowded_out.map_or(Offered::Queued, |last| Offered::Full(Box::new(last)))
    }

    /// After the notice `before` was overtaken by what waits now: that something is mended goes
    /// without saying where the last word was that all is well. Where it is not known what readers
    /// heard, from a former process say, they are told.
    fn settle(&mut self, matter: Hash, before: Notice) -> Vec<Notice> {
        let mut overtaken = vec![before];
        let after = self.waiting.get(&matter).map(|after| after.notice.kind);
        let is_mended = (overtaken[0].kind, after) == (EventKind::Warning, Some(EventKind::Normal));
        let heard = self.heard.get(&matter).map(|(kind, _)| *kind);
        if is_mended && heard == Some(EventKind::Normal) {
            overtaken.extend(self.remove(matter).map(|waiting| waiting.notice));
        }
        overtaken
    }

    /// Gives up the last of the longest queue, if that is longer than the one of the notice;
    /// else a refusal of the same queue, unless the notice is one.
    fn make_room(&mut self, notice: &Notice) -> Option<Notice> {
        let own = self.by_namespace.get(notice.namespace());
        let length = own.map_or(0, |of_namespace| of_namespace.waiting.len());
        let longest = self
            .by_namespace
            .values()
            .max_by_key(|of_namespace| of_namespace.waiting.len());
        let longest = longest.filter(|of_namespace| of_namespace.waiting.len() > length);
        let ((is_refusal, ..), last) = longest.or(own)?.waiting.last_key_value()?;
        let gives_way = longest.is_some() || (*is_refusal && !notice.is_refusal());
        let last = gives_way.then_some(*last)?;
        self.remove(last).map(|waiting| waiting.notice)
    }

    fn remove(&mut self, matter: Hash) -> Option<Waiting> {
        let waiting = self.waiting.remove(&matter)?;
        if let Some(of_namespace) = self.by_namespace.get_mut(waiting.notice.namespace()) {
            of_namespace.waiting.remove(&waiting.place);
            of_namespace.ready.remove(&waiting.place);
        }
        Some(waiting)
    }

    fn enter(&mut self, matter: Hash, namespace: &str) {
        if let Some(waiting) = self.waiting.get(&matter) {
            let of_namespace = self.by_namespace.entry(namespace.to_owned()).or_default();
            of_namespace.waiting.insert(waiting.place, matter);
        }
    }

    /// Lets it be sent, unless another word on the matter is on its way: that has to arrive first.
    fn ready(&mut self, matter: Hash, namespace: &str) {
        let waiting = self.waiting.get(&matter);
        let Some(waiting) = waiting.filter(|_| !self.busy.contains(&matter)) else {
            return;
        };
        let of_namespace = self.by_namespace.entry(namespace.to_owned()).or_default();
        of_namespace.ready.insert(waiting.place, matter);
        self.take_turn(namespace);
    }

    fn take_turn(&mut self, namespace: &str) {
        let Some(of_namespace) = self.by_namespace.get_mut(namespace) else {
            return;
        };
        let may_send = !of_namespace.is_paused && of_namespace.busy < MOST_BUSY;
        if may_send && !of_namespace.is_in_turn && !of_namespace.ready.is_empty() {
            of_namespace.is_in_turn = true;
            self.turns.push_back(namespace.to_owned());
        }
    }

    fn close(&mut self) {
        self.is_closed = true;
        while let Some((_, later)) = self.later.pop_first() {
            self.resume(later);
        }
    }

    fn clear(&mut self, is_kept: impl Fn(&Notice) -> bool) {
        let all = self.waiting.iter();
        let given_up = all.filter(|(_, waiting)| !is_kept(&waiting.notice));
        let given_up: Vec<_> = given_up.map(|(matter, _)| *matter).collect();
        for matter in given_up {
            self.remove(matter);
        }
        self.heard.clear();
    }

    fn take(&mut self, now: Instant) -> Taken {
        self.wake(now);
        while let Some(namespace) = self.turns.pop_front() {
            let Some(of_namespace) = self.by_namespace.get_mut(&namespace) else {
                continue;
            };
            of_namespace.is_in_turn = false;
            let next = of_namespace
                .ready
                .first_key_value()
                .filter(|_| !of_namespace.is_paused);
            let next = next.map(|(_, matter)| *matter);
            let taken = next.and_then(|matter| Some((matter, self.remove(matter)?)));
            if let Some((matter, waiting)) = taken {
                self.start(matter, &namespace);
                self.take_turn(&namespace);
                return Taken::Notice(Box::new(waiting));
            }
            self.tidy(&namespace);
        }
        if self.is_closed {
            return Taken::End;
        }
        let until = self.later.first().map(|(at, _)| *at);
        Taken::Nothing { until }
    }

    /// Lets what has waited for its time go on.
    fn wake(&mut self, now: Instant) {
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, later)) = self.later.pop_first() {
                self.resume(later);
            }
        }
    }

    fn resume(&mut self, later: Later) {
        match later {
            Later::Matter(matter) => {
                let waiting = self.waiting.get(&matter);
                if let Some(namespace) = waiting.map(|its| its.notice.namespace().to_owned()) {
                    self.ready(matter, &namespace);
                }
            }
            Later::Namespace(namespace) => {
                if let Some(of_namespace) = self.by_namespace.get_mut(&namespace) {
                    of_namespace.is_paused = false;
                }
                self.take_turn(&namespace);
                self.tidy(&namespace);
            }
        }
    }

    fn start(&mut self, matter: Hash, namespace: &str) {
        self.busy.insert(matter);
        if let Some(of_namespace) = self.by_namespace.get_mut(namespace) {
            of_namespace.busy += 1;
        }
    }

    fn stop(&mut self, matter: Hash, namespace: &str) {
        self.busy.remove(&matter);
        if let Some(of_namespace) = self.by_namespace.get_mut(namespace) {
            of_namespace.busy -= 1;
        }
        self.take_turn(namespace);
    }

    /// Forgets a namespace in which nothing goes on.
    fn tidy(&mut self, namespace: &str) {
        let is_idle = |of_namespace: &NamespaceQueue| {
            of_namespace.waiting.is_empty()
                && of_namespace.busy == 0
                && !of_namespace.is_in_turn
                && !of_namespace.is_paused
        };
        if self.by_namespace.get(namespace).is_some_and(is_idle) {
            self.by_namespace.remove(namespace);
        }
    }

    fn finish(&mut self, notice: &Notice, was_heard: bool, now: Instant) {
        /// So many are remembered; a word too much about the others does no harm.
        const MOST_HEARD: usize = 100_000;
        let matter = notice.dedup_key();
        self.stop(matter, notice.namespace());
        if was_heard {
            self.heard.insert(matter, (notice.kind, now));
            if self.heard.len() > MOST_HEARD {
                self.heard.clear();
            }
        }
        if let Some(of_namespace) = self.by_namespace.get_mut(notice.namespace()) {
            of_namespace.failures = 0;
        }
        self.follow_up(matter, notice.namespace());
    }

    /// What came in on the matter while it was being sent may be sent now.
    fn follow_up(&mut self, matter: Hash, namespace: &str) {
        self.ready(matter, namespace);
        self.tidy(namespace);
    }

    fn put_back(&mut self, waiting: Waiting, at: Option<Instant>) -> Vec<Notice> {
        let matter = waiting.notice.dedup_key();
        let namespace = waiting.notice.namespace().to_owned();
        self.stop(matter, &namespace);
        if self.waiting.contains_key(&matter) {
            let overtaken = self.settle(matter, waiting.notice);
            self.follow_up(matter, &namespace);
            return overtaken;
        }
        self.waiting.insert(matter, waiting);
        self.enter(matter, &namespace);
        match at {
            Some(at) => drop(self.later.insert((at, Later::Matter(matter)))),
            None => self.ready(matter, &namespace),
        }
        Vec::new()
    }

    fn pause(&mut self, namespace: &str, least: Duration, now: Instant) {
        let of_namespace = self.by_namespace.entry(namespace.to_owned()).or_default();
        // Of those that fail side by side only the first lengthens the pause.
        if of_namespace.is_paused {
            return;
        }
        of_namespace.is_paused = true;
        let grown = SHORTEST_PAUSE * (1 << of_namespace.failures.min(6));
        of_namespace.failures += 1;
        let until = now + grown.max(least).min(LONGEST_PAUSE);
        self.later
            .insert((until, Later::Namespace(namespace.to_owned())));
    }
}

#[cfg(test)]
mod tests;
