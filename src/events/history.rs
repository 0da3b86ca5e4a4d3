//! What has been said, to whom, and how much more may be.

use super::notice::{EventKind, Hash, Notice};
use super::refusal_budget::RefusalBudget;
use crate::util::rate_limit::{Bucket, Limit};
use crate::util::time::whole_second;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How much one object is told, as client-go's event correlator has it: what is more than that
/// waits.
pub(super) const PER_OBJECT: Limit = Limit {
    burst: 25,
    period: Duration::from_secs(300),
};
/// Limit of Normal Events for one object. It is above that of faults and refusals together, so that
/// each of these can be followed by an Event about its end.
const PER_OBJECT_NORMAL: Limit = Limit {
    burst: 75,
    period: Duration::from_secs(100),
};
/// So much of that is kept for news.
const RESERVE: u32 = 10;
/// The watch cache may be this much behind the status that was written: a fault that seems to have
/// begun so little after the Event about it is the same fault.
const CACHE_LAG: SignedDuration = SignedDuration::from_secs(5);
/// So much is remembered of each kind; what is forgotten is found on the API server.
const MOST: usize = 50_000;

/// Of the Events of this process.
#[derive(Debug)]
pub(super) struct EventHistory {
    reminder: Duration,
    told: HashMap<Hash, PublishedEvent>,
    /// The line that was last written on a matter, and when.
    last: HashMap<Hash, (Hash, Timestamp)>,
    budgets: HashMap<Hash, Bucket>,
    refusals: RefusalBudget,
}

/// Whether something that was said before is to be said again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// It is news again.
    News,
    /// It still is so, and it is time to say that.
    Reminder,
    /// No.
    Not,
}

/// Content, time and count of an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublishedEvent {
    pub(super) count: i32,
    last: Timestamp,
    /// The [sentence](Notice::content), if it is known.
    content: Option<Hash>,
    /// The version that says so: a replica that leads again must not count on from where it once
    /// stopped.
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
}

impl EventHistory {
    pub(super) fn new(reminder: Duration) -> Self {
        Self {
            reminder,
            told: HashMap::new(),
            last: HashMap::new(),
            budgets: HashMap::new(),
            refusals: RefusalBudget::default(),
        }
    }

    /// When this was last said, if that is known.
    pub(super) fn told(&self, notice: &Notice) -> Option<PublishedEvent> {
        self.told.get(&notice.event_id()).cloned()
    }

    /// Whether to say it again: at once when it is news, as a reminder when it lasts.
    pub(super) fn due(&self, notice: &Notice, told: &PublishedEvent, now: Timestamp) -> Due {
        // Since then another line was written, or this one says something else.
        let last = self.last.get(&notice.dedup_key());
        let is_overtaken =
            last.is_some_and(|(line, at)| *line != notice.event_id() && *at > told.last);
        if is_overtaken || told.content != Some(notice.content()) {
            return Due::News;
        }
        told.due(notice, self.reminder, now)
    }

    /// Time until the end of the second in which another line about the matter was written, if that
    /// is the current one.
    pub(super) fn until_next_second(&self, notice: &Notice, now: Timestamp) -> Option<Duration> {
        let (line, at) = self.last.get(&notice.dedup_key())?;
        let is_same = whole_second(now) == *at;
        let passed = now.duration_since(*at);
        let rest = SignedDuration::from_secs(1).checked_sub(passed)?;
        let rest = Duration::try_from(rest).ok()?;
        (*line != notice.event_id() && is_same).then_some(rest)
    }

    /// Takes note of what is said by now; `Event` is what the API server has.
    pub(super) fn note(&mut self, notice: &Notice, event: &Event) -> PublishedEvent {
        let told = PublishedEvent {
            content: Some(notice.content()),
            ..PublishedEvent::of(event, notice)
        };
        self.told.insert(notice.event_id(), told.clone());
        let last = (notice.event_id(), told.last);
        self.last.insert(notice.dedup_key(), last);
        told
    }

    /// As [`take`](Self::take), for a reminder: it leaves enough for news, which is to be told at
    /// once.
    pub(super) fn take_for_reminder(&mut self, notice: &Notice, now: Instant) -> bool {
        let bucket = self.budgets.entry(notice.budget()).or_default();
        bucket.left(PER_OBJECT, now) > RESERVE && self.take(notice, now).is_ok()
    }

    /// Takes one from what the object may be told; or says when there will be one. Refusals have
    /// budgets of their own.
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

    /// What was taken was not used.
    pub(super) fn give_back(&mut self, notice: &Notice) {
        if notice.is_refusal() {
            self.refusals.give_back(notice.namespace());
        }
        if let Some(bucket) = self.budgets.get_mut(&notice.budget()) {
            bucket.give_back(limit(notice));
        }
    }

    /// Keeps it from growing.
    pub(super) fn prune(&mut self, now: Timestamp, instant: Instant) {
        if self.told.len() > MOST {
            let cutoff = now - 2 * self.reminder;
            self.told.retain(|_, told| told.last > cutoff);
            if self.told.len() > MOST {
                self.told.clear();
            }
        }
        if self.last.len() > MOST {
            let told = &self.told;
            self.last.retain(|_, (line, _)| told.contains_key(line));
        }
        if self.budgets.len() > MOST {
            self.budgets.retain(|_, bucket| !bucket.is_full(instant));
        }
    }
}

/// The limit that the notice counts towards.
fn limit(notice: &Notice) -> Limit {
    match notice.kind {
        EventKind::Warning => PER_OBJECT,
        EventKind::Normal => PER_OBJECT_NORMAL,
    }
}

impl PublishedEvent {
    fn due(&self, notice: &Notice, reminder: Duration, now: Timestamp) -> Due {
        // Whoever may edit Events may have dated it: no sum with it, which could overflow, and the
        // future is now.
        let last = self.last.min(now);
        let since = whole_second(notice.since).duration_since(last);
        let passed = now.duration_since(last);
        // Looks do not come on the dot; one a little early must not put the reminder off to the
        // next.
        let reminder = SignedDuration::try_from(reminder * 9 / 10).unwrap_or(SignedDuration::MAX);
        // That all is well is said with the status that says so, by whoever wrote that.
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

#[cfg(test)]
mod tests {
    use super::super::notice::Aspect;
    use super::super::notice::tests::{notice, notice_to};
    use super::*;
    use k8s_openapi::api::core::v1::EventSeries;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

    const REMINDER: Duration = Duration::from_secs(300);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn since(kind: EventKind, second: i64) -> Notice {
        let mut notice = notice(kind, "note");
        notice.since = at(second);
        notice
    }

    #[test]
    fn a_fault_is_published_again_as_a_reminder_or_when_it_comes_back() {
        let told = PublishedEvent {
            count: 1,
            last: at(1000),
            content: None,
            version: None,
        };
        for (second, now, fault, mended) in [
            (990, 1100, Due::Not, Due::Not),
            (1000, 1100, Due::Not, Due::Not),
            (1003, 1100, Due::Not, Due::News),
            (990, 1300, Due::Reminder, Due::Not),
            (1050, 1100, Due::News, Due::News),
        ] {
            let due = |kind| told.due(&since(kind, second), REMINDER, at(now));
            assert_eq!(due(EventKind::Warning), fault, "{second} {now}");
            assert_eq!(due(EventKind::Normal), mended, "{second} {now}");
        }
    }

    #[test]
    fn an_event_before_another_is_news_again() {
        let mut history = EventHistory::new(REMINDER);
        let (bad, good) = (
            since(EventKind::Warning, 1000),
            since(EventKind::Normal, 1001),
        );
        let event = |notice: &Notice, second| notice.event("instance", at(second));
        let told = history.note(&bad, &event(&bad, 1000));
        assert_eq!(history.due(&bad, &told, at(1001)), Due::Not);
        let later = history.note(&good, &event(&good, 1001));
        assert_eq!(history.due(&bad, &told, at(1001)), Due::News);
        assert_eq!(history.due(&good, &later, at(1001)), Due::Not);
        // Another replica has said meanwhile that it is mended.
        history.note(&bad, &event(&bad, 1002));
        let by_another = PublishedEvent::of(&event(&good, 1003), &good);
        assert_eq!(history.due(&good, &by_another, at(1004)), Due::Not);
    }

    #[test]
    fn another_message_in_the_same_event_is_news() {
        let mut history = EventHistory::new(REMINDER);
        let fault = |note: &str| Notice {
            note: String::from(note),
            ..since(EventKind::Warning, 1000)
        };
        let (first, second) = (fault("first"), fault("second"));
        let event = first.event("instance", at(1000));
        let told = history.note(&first, &event);
        assert_eq!(history.due(&first, &told, at(1001)), Due::Not);
        assert_eq!(history.due(&second, &told, at(1001)), Due::News);
        // So it is for a replica that finds the Event of another one.
        let found = PublishedEvent::of(&event, &second);
        assert_eq!(history.due(&second, &found, at(1001)), Due::News);
        let found = PublishedEvent::of(&event, &first);
        assert_eq!(history.due(&first, &found, at(1001)), Due::Not);
        let topical = |note: &str| Notice {
            topic: Some("topic".into()),
            ..fault(note)
        };
        let told = history.note(&topical("3 pods"), &event);
        assert_eq!(history.due(&topical("4 pods"), &told, at(1001)), Due::Not);
    }

    #[test]
    fn two_events_of_one_dedup_key_are_written_in_different_seconds() {
        let mut history = EventHistory::new(REMINDER);
        let (bad, good) = (
            since(EventKind::Warning, 1000),
            since(EventKind::Normal, 1000),
        );
        let later = |milliseconds| Timestamp::from_millisecond(milliseconds).unwrap();
        assert_eq!(history.until_next_second(&bad, later(1_000_200)), None);
        history.note(&bad, &bad.event("instance", later(1_000_200)));
        for (now, wait) in [
            (1_000_000, Some(1000)),
            (1_000_300, Some(700)),
            (1_000_999, Some(1)),
            (1_001_000, None),
            (999_999, None),
            (9_000_000, None),
        ] {
            let wait = wait.map(Duration::from_millis);
            assert_eq!(history.until_next_second(&good, later(now)), wait, "{now}");
            assert_eq!(history.until_next_second(&bad, later(now)), None, "{now}");
        }
    }

    #[test]
    fn reminders_leave_enough_for_news() {
        let (mut history, now) = (EventHistory::new(REMINDER), Instant::now());
        let fault = notice(EventKind::Warning, "fault");
        let reminders = (0..25).filter(|_| history.take_for_reminder(&fault, now));
        assert_eq!(reminders.count(), 15);
        for _ in 0..RESERVE {
            assert_eq!(history.take(&fault, now), Ok(()));
        }
        assert!(history.take(&fault, now).is_err());
    }

    #[test]
    fn a_series_continues_from_its_count() {
        let fault = notice(EventKind::Warning, "note");
        let mut stored = fault.event("instance", at(1000));
        stored.metadata.resource_version = Some("5".into());
        let as_stored = |count, last| PublishedEvent {
            count,
            last,
            content: Some(fault.content()),
            version: Some("5".into()),
        };
        assert_eq!(PublishedEvent::of(&stored, &fault), as_stored(1, at(1000)));
        stored.series = Some(EventSeries {
            count: Some(7),
            last_observed_time: Some(MicroTime(at(1300))),
        });
        assert_eq!(PublishedEvent::of(&stored, &fault), as_stored(7, at(1300)));
        // A writer that knows one generation of the API changes the fields of that alone.
        (stored.count, stored.last_timestamp) = (Some(9), Some(Time(at(1400))));
        assert_eq!(PublishedEvent::of(&stored, &fault), as_stored(9, at(1400)));
        let other = notice(EventKind::Warning, "other");
        assert_eq!(PublishedEvent::of(&stored, &other).content, None);
        let nothing = Event::default();
        let unknown = PublishedEvent {
            count: 1,
            last: at(0),
            content: None,
            version: None,
        };
        assert_eq!(PublishedEvent::of(&nothing, &fault), unknown);
    }

    #[test]
    fn an_object_has_one_budget_for_all_faults() {
        let (mut history, now) = (EventHistory::new(REMINDER), Instant::now());
        for number in 0..25 {
            let notice = notice(EventKind::Warning, &number.to_string());
            assert_eq!(history.take(&notice, now), Ok(()));
        }
        let one_more = notice(EventKind::Warning, "more");
        assert_eq!(history.take(&one_more, now), Err(now + PER_OBJECT.period));
        history.give_back(&one_more);
        assert_eq!(history.take(&one_more, now), Ok(()));
        let mut other = one_more.clone();
        other.regarding.uid = Some("other".into());
        assert_eq!(history.take(&other, now), Ok(()));
    }

    #[test]
    fn the_end_of_a_fault_is_published_at_once() {
        let (mut history, mut now) = (EventHistory::new(REMINDER), Instant::now());
        let good = notice(EventKind::Normal, "good");
        let fault = notice(EventKind::Warning, "fault");
        let refusal = Notice {
            aspect: Aspect::Refusal,
            ..fault.clone()
        };
        let mut count = 0;
        // A day of somebody who breaks and mends it every minute.
        for _ in 0..24 * 60 {
            now += Duration::from_secs(60);
            for bad in [&fault, &refusal] {
                if history.take(bad, now).is_ok() {
                    assert_eq!(history.take(&good, now), Ok(()), "after {count}");
                    count += 1;
                }
            }
        }
        assert!((600..700).contains(&count), "{count}");
    }

    #[test]
    fn refusals_take_nothing_from_the_budget_for_faults() {
        let (mut history, now) = (EventHistory::new(REMINDER), Instant::now());
        let refusal = Notice {
            aspect: Aspect::Refusal,
            ..notice(EventKind::Warning, "refused")
        };
        for _ in 0..PER_OBJECT.burst {
            assert_eq!(history.take(&refusal, now), Ok(()));
        }
        assert!(history.take(&refusal, now).is_err());
        assert!(!history.take_for_reminder(&refusal, now));
        let fault = notice(EventKind::Warning, "fault");
        for _ in 0..PER_OBJECT.burst {
            assert_eq!(history.take(&fault, now), Ok(()));
        }
        assert!(history.take(&fault, now).is_err());
        history.give_back(&refusal);
        assert_eq!(history.take(&refusal, now), Ok(()));
    }

    #[test]
    fn refusals_are_bounded_in_a_namespace_over_all_objects() {
        let (mut history, now) = (EventHistory::new(REMINDER), Instant::now());
        let refusal = |pod: usize| Notice {
            aspect: Aspect::Refusal,
            ..notice_to("ns", &pod.to_string(), EventKind::Warning, "refused")
        };
        let told = (0..10_000).filter(|pod| history.take(&refusal(*pod), now).is_ok());
        assert_eq!(told.count(), 500);
        let fault = notice_to("ns", "0", EventKind::Warning, "fault");
        assert_eq!(history.take(&fault, now), Ok(()));
    }

    #[test]
    fn what_is_long_past_is_forgotten() {
        let mut history = EventHistory::new(REMINDER);
        for number in 0..=MOST {
            let notice = notice_to("ns", &number.to_string(), EventKind::Warning, "note");
            let last = if number == 0 { at(10_000) } else { at(0) };
            history.note(&notice, &notice.event("instance", last));
        }
        let now = Instant::now();
        history.prune(at(10_000), now);
        assert_eq!(history.told.len(), 1);
    }
}
