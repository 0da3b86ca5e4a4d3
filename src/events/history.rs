//! The Events that were published, and how many more may be.

use super::notice::{EventKind, Hash, Notice};
use super::refusal_budget::RefusalBudget;
use crate::util::rate_limit::{Bucket, Limit};
use crate::util::time::whole_second;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Limit of Warnings for one object, as client-go's event correlator has it. The rest waits.
pub(super) const PER_OBJECT: Limit = Limit {
    burst: 25,
    period: Duration::from_secs(300),
};
/// Limit of Normal Events for one object, above that of faults and refusals together: each of these
/// can be followed by an Event about its end.
const PER_OBJECT_NORMAL: Limit = Limit {
    burst: 75,
    period: Duration::from_secs(100),
};
/// The part of the limit that reminders leave for news.
const RESERVE: u32 = 10;
/// Maximum lag of the watch cache behind the status that was written. A fault that seems to have
/// begun so little after its Event is the same fault.
const CACHE_LAG: SignedDuration = SignedDuration::from_secs(5);
/// Maximum number of entries of each map. A forgotten Event is found on the API server.
const MAX_ENTRIES: usize = 50_000;

/// The Events of this process.
#[derive(Debug, Default)]
pub(super) struct EventHistory {
    reminder: Duration,
    /// By event id.
    published: HashMap<Hash, PublishedEvent>,
    /// By dedup key: the id of the last Event, and when it was written.
    last: HashMap<Hash, (Hash, Timestamp)>,
    budgets: HashMap<Hash, Bucket>,
    refusals: RefusalBudget,
}

/// Whether an Event is due that was published before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    News,
    /// The fault lasts, and a reminder is due.
    Reminder,
    Not,
}

/// Content, time and count of an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublishedEvent {
    pub(super) count: i32,
    last: Timestamp,
    /// The [content](Notice::content), if it is known.
    content: Option<Hash>,
    /// The `resourceVersion`. A replica that leads again must not count on from where it stopped.
    pub(super) version: Option<String>,
}

impl PublishedEvent {
    /// Reads the Event that has the name of this notice. Anybody may have written it, with the
    /// fields of either generation of the API.
    pub(super) fn of(event: &Event, notice: &Notice) -> Self {
        let series = event.series.as_ref();
        let counts = [series.and_then(|series| series.count), event.count];
        let observed = series.and_then(|series| series.last_observed_time.as_ref());
        let times = [
            observed.map(|time| time.0),
            event.last_timestamp.as_ref().map(|time| time.0),
        ];
        let first = event.event_time.as_ref().map(|time| time.0);
        let last = times.into_iter().flatten().max().or(first);
        let is_same = event.message.as_ref() == Some(&notice.message());
        Self {
            count: counts.into_iter().flatten().max().unwrap_or(1),
            last: whole_second(last.unwrap_or(Timestamp::UNIX_EPOCH)),
            content: is_same.then(|| notice.content()),
            version: event.metadata.resource_version.clone(),
        }
    }

    fn due(&self, notice: &Notice, reminder: Duration, now: Timestamp) -> Due {
        // Anybody who may edit Events can date them: a sum could overflow, and the future is now.
        let last = self.last.min(now);
        let since = whole_second(notice.since).duration_since(last);
        let passed = now.duration_since(last);
        // Reconciles are not on the dot. One a little early must not skip a reminder.
        let reminder = SignedDuration::try_from(reminder * 9 / 10).unwrap_or(SignedDuration::MAX);
        // A Normal Event is published by the process that wrote the status, without a cache.
        let lag = match notice.kind {
            EventKind::Warning => CACHE_LAG,
            EventKind::Normal => SignedDuration::ZERO,
        };
        if since > lag {
            Due::News
        } else if notice.kind == EventKind::Warning && passed >= reminder {
            Due::Reminder
        } else {
            Due::Not
        }
    }
}

impl EventHistory {
    pub(super) fn new(reminder: Duration) -> Self {
        Self {
            reminder,
            ..Self::default()
        }
    }

    pub(super) fn published(&self, notice: &Notice) -> Option<PublishedEvent> {
        self.published.get(&notice.event_id()).cloned()
    }

    /// Whether to publish it again: news at once, a fault that lasts as a reminder.
    pub(super) fn due(&self, notice: &Notice, event: &PublishedEvent, now: Timestamp) -> Due {
        // Since then another Event was written, or this one has another content.
        let last = self.last.get(&notice.dedup_key());
        let is_overtaken =
            last.is_some_and(|(id, at)| *id != notice.event_id() && *at > event.last);
        if is_overtaken || event.content != Some(notice.content()) {
            return Due::News;
        }
        event.due(notice, self.reminder, now)
    }

    /// Time until this second ends, if another Event with the dedup key was written in it.
    pub(super) fn until_next_second(&self, notice: &Notice, now: Timestamp) -> Option<Duration> {
        let (id, at) = self.last.get(&notice.dedup_key())?;
        let rest = SignedDuration::from_secs(1).checked_sub(now.duration_since(*at))?;
        let is_wait = *id != notice.event_id() && whole_second(now) == *at;
        Duration::try_from(rest).ok().filter(|_| is_wait)
    }

    /// Records a published notice, as the `event` that the API server has.
    pub(super) fn record(&mut self, notice: &Notice, event: &Event) -> PublishedEvent {
        let published = PublishedEvent {
            content: Some(notice.content()),
            ..PublishedEvent::of(event, notice)
        };
        let id = notice.event_id();
        self.published.insert(id, published.clone());
        self.last.insert(notice.dedup_key(), (id, published.last));
        published
    }

    /// As [`take`](Self::take), for a reminder, which leaves a reserve for news.
    pub(super) fn take_for_reminder(&mut self, notice: &Notice, now: Instant) -> bool {
        let bucket = self.budgets.entry(notice.budget()).or_default();
        bucket.left(PER_OBJECT, now) > RESERVE && self.take(notice, now).is_ok()
    }

    /// Takes one Event from the budget of the object, or returns when there will be one. Refusals
    /// count towards budgets of their own.
    pub(super) fn take(&mut self, notice: &Notice, now: Instant) -> Result<(), Instant> {
        if notice.is_refusal() {
            self.refusals.take(notice.namespace(), now)?;
        }
        let bucket = self.budgets.entry(notice.budget()).or_default();
        let taken = bucket.take(limit(notice), now);
        if taken.is_err() && notice.is_refusal() {
            self.refusals.give_back(notice.namespace());
        }
        taken
    }

    /// Returns to the budget an Event that was not sent.
    pub(super) fn give_back(&mut self, notice: &Notice) {
        if notice.is_refusal() {
            self.refusals.give_back(notice.namespace());
        }
        if let Some(bucket) = self.budgets.get_mut(&notice.budget()) {
            bucket.give_back(limit(notice));
        }
    }

    pub(super) fn prune(&mut self, now: Timestamp, instant: Instant) {
        if self.published.len() > MAX_ENTRIES {
            let cutoff = now - 2 * self.reminder;
            self.published.retain(|_, event| event.last > cutoff);
            if self.published.len() > MAX_ENTRIES {
                self.published.clear();
            }
        }
        if self.last.len() > MAX_ENTRIES {
            let published = &self.published;
            self.last.retain(|_, (id, _)| published.contains_key(id));
        }
        if self.budgets.len() > MAX_ENTRIES {
            self.budgets.retain(|_, bucket| !bucket.is_full(instant));
        }
    }
}

fn limit(notice: &Notice) -> Limit {
    match notice.kind {
        EventKind::Warning => PER_OBJECT,
        EventKind::Normal => PER_OBJECT_NORMAL,
    }
}

#[cfg(test)]
mod tests;
