//! What has been said, to whom, and how much more may be.

use super::notice::{Hash, Kind, Notice};
use super::refusal_budget::RefusalBudget;
use crate::budget::{Bucket, Limit};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::events::v1::Event;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How much one object is told, as client-go's event correlator has it: what is more than that waits.
pub(super) const PER_OBJECT: Limit = Limit {
    burst: 25,
    period: Duration::from_secs(300),
};
/// So much of that is kept for news.
const RESERVE: u32 = 10;
/// The watch cache may be this much behind the status that was written: a fault that seems to have begun so little
/// after the Event about it is the same fault.
const CACHE_LAG: SignedDuration = SignedDuration::from_secs(5);
/// So much is remembered of each kind; what is forgotten is found on the API server.
const MOST: usize = 50_000;

/// Of the Events of this process.
#[derive(Debug)]
pub(super) struct Memory {
    reminder: Duration,
    told: HashMap<Hash, Told>,
    /// The sentence that was last said on a matter, and when.
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

/// When an Event was last sent, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) count: i32,
    last: Timestamp,
    /// The version that says so: a replica that leads again must not count on from where it once stopped.
    pub(super) version: Option<String>,
}

impl From<&Event> for Told {
    fn from(event: &Event) -> Self {
        let first = event.event_time.as_ref().map(|time| time.0);
        let series = event.series.as_ref();
        Self {
            count: series.map_or(1, |series| series.count),
            last: series
                .map(|series| series.last_observed_time.0)
                .or(first)
                .unwrap_or(Timestamp::UNIX_EPOCH),
            version: event.metadata.resource_version.clone(),
        }
    }
}

impl Memory {
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
    pub(super) fn told(&self, notice: &Notice) -> Option<Told> {
        self.told.get(&notice.sentence()).cloned()
    }

    /// Whether to say it again: at once when it is news, as a reminder when it lasts.
    pub(super) fn due(&self, notice: &Notice, told: &Told, now: Timestamp) -> Due {
        // Since then something else was said.
        let last = self.last.get(&notice.matter());
        match last {
            Some((sentence, at)) if *sentence != notice.sentence() && *at > told.last => Due::News,
            _ => told.due(notice, self.reminder, now),
        }
    }

    /// Takes note of what is said by now; `Event` is what the API server has.
    pub(super) fn note(&mut self, notice: &Notice, event: &Event) -> Told {
        let told = Told::from(event);
        self.told.insert(notice.sentence(), told.clone());
        let last = (notice.sentence(), told.last);
        self.last.insert(notice.matter(), last);
        told
    }

    /// As [`take`](Self::take), for a reminder: it leaves enough for news, which is to be told at once.
    pub(super) fn take_for_reminder(&mut self, notice: &Notice, now: Instant) -> bool {
        let bucket = self.budgets.entry(notice.budget()).or_default();
        bucket.left(PER_OBJECT, now) > RESERVE && self.take(notice, now).is_ok()
    }

    /// Takes one from what the object may be told; or says when there will be one. Refusals have budgets of their own.
    pub(super) fn take(&mut self, notice: &Notice, now: Instant) -> Result<(), Instant> {
        if notice.is_refusal() {
            self.refusals.take(notice.namespace(), now)?;
        }
        let bucket = self.budgets.entry(notice.budget()).or_default();
        let taken = bucket.take(PER_OBJECT, now);
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
            bucket.give_back(PER_OBJECT);
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
            self.last
                .retain(|_, (sentence, _)| told.contains_key(sentence));
        }
        if self.budgets.len() > MOST {
            self.budgets.retain(|_, bucket| !bucket.is_full(instant));
        }
    }
}

impl Told {
    fn due(&self, notice: &Notice, reminder: Duration, now: Timestamp) -> Due {
        // Whoever may edit Events may have dated it: no sum with it, which could overflow, and the future is now.
        let last = self.last.min(now);
        let (passed, since) = (now.duration_since(last), notice.since.duration_since(last));
        // Looks do not come on the dot; one a little early must not put the reminder off to the next.
        let reminder = SignedDuration::try_from(reminder * 9 / 10).unwrap_or(SignedDuration::MAX);
        // That all is well is said with the status that says so, by whoever wrote that.
        let lag = match notice.kind {
            Kind::Warning => CACHE_LAG,
            Kind::Normal => SignedDuration::ZERO,
        };
        if since > lag {
            Due::News
        } else if notice.kind == Kind::Warning && passed >= reminder {
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
    use k8s_openapi::api::events::v1::EventSeries;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    const REMINDER: Duration = Duration::from_secs(300);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn since(kind: Kind, second: i64) -> Notice {
        let mut notice = notice(kind, "note");
        notice.since = at(second);
        notice
    }

    #[test]
    fn a_fault_is_said_again_as_a_reminder_or_when_it_comes_back() {
        let told = Told {
            count: 1,
            last: at(1000),
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
            assert_eq!(due(Kind::Warning), fault, "{second} {now}");
            assert_eq!(due(Kind::Normal), mended, "{second} {now}");
        }
    }

    #[test]
    fn what_was_said_before_something_else_is_news_again() {
        let mut memory = Memory::new(REMINDER);
        let (bad, good) = (since(Kind::Warning, 1000), since(Kind::Normal, 1001));
        let event = |notice: &Notice, second| notice.event("instance", at(second));
        let told = memory.note(&bad, &event(&bad, 1000));
        assert_eq!(memory.due(&bad, &told, at(1001)), Due::Not);
        let later = memory.note(&good, &event(&good, 1001));
        assert_eq!(memory.due(&bad, &told, at(1001)), Due::News);
        assert_eq!(memory.due(&good, &later, at(1001)), Due::Not);
        // Another replica has said meanwhile that it is mended.
        memory.note(&bad, &event(&bad, 1002));
        let by_another = Told::from(&event(&good, 1003));
        assert_eq!(memory.due(&good, &by_another, at(1004)), Due::Not);
    }

    #[test]
    fn reminders_leave_enough_for_news() {
        let (mut memory, now) = (Memory::new(REMINDER), Instant::now());
        let fault = notice(Kind::Warning, "fault");
        let reminders = (0..25).filter(|_| memory.take_for_reminder(&fault, now));
        assert_eq!(reminders.count(), 15);
        for _ in 0..RESERVE {
            assert_eq!(memory.take(&fault, now), Ok(()));
        }
        assert!(memory.take(&fault, now).is_err());
    }

    #[test]
    fn a_series_is_taken_up_where_it_stood() {
        let mut stored = notice(Kind::Warning, "note").event("instance", at(1000));
        stored.metadata.resource_version = Some("5".into());
        let as_stored = |count, last| Told {
            count,
            last,
            version: Some("5".into()),
        };
        assert_eq!(Told::from(&stored), as_stored(1, at(1000)));
        stored.series = Some(EventSeries {
            count: 7,
            last_observed_time: MicroTime(at(1300)),
        });
        assert_eq!(Told::from(&stored), as_stored(7, at(1300)));
    }

    #[test]
    fn an_object_is_told_so_much_at_once_whatever_it_is_about() {
        let (mut memory, now) = (Memory::new(REMINDER), Instant::now());
        for number in 0..25 {
            let notice = notice(Kind::Warning, &number.to_string());
            assert_eq!(memory.take(&notice, now), Ok(()));
        }
        let one_more = notice(Kind::Normal, "more");
        assert_eq!(memory.take(&one_more, now), Err(now + PER_OBJECT.period));
        memory.give_back(&one_more);
        assert_eq!(memory.take(&one_more, now), Ok(()));
        let mut other = one_more.clone();
        other.regarding.uid = Some("other".into());
        assert_eq!(memory.take(&other, now), Ok(()));
    }

    #[test]
    fn refusals_take_nothing_from_what_an_object_is_told_of_faults() {
        let (mut memory, now) = (Memory::new(REMINDER), Instant::now());
        let refusal = Notice {
            aspect: Aspect::Refusal,
            ..notice(Kind::Warning, "refused")
        };
        for _ in 0..PER_OBJECT.burst {
            assert_eq!(memory.take(&refusal, now), Ok(()));
        }
        assert!(memory.take(&refusal, now).is_err());
        assert!(!memory.take_for_reminder(&refusal, now));
        let fault = notice(Kind::Warning, "fault");
        for _ in 0..PER_OBJECT.burst {
            assert_eq!(memory.take(&fault, now), Ok(()));
        }
        assert!(memory.take(&fault, now).is_err());
        memory.give_back(&refusal);
        assert_eq!(memory.take(&refusal, now), Ok(()));
    }

    #[test]
    fn refusals_are_bounded_in_a_namespace_whichever_objects_hear_of_them() {
        let (mut memory, now) = (Memory::new(REMINDER), Instant::now());
        let refusal = |pod: usize| Notice {
            aspect: Aspect::Refusal,
            ..notice_to("ns", &pod.to_string(), Kind::Warning, "refused")
        };
        let told = (0..10_000).filter(|pod| memory.take(&refusal(*pod), now).is_ok());
        assert_eq!(told.count(), 500);
        let fault = notice_to("ns", "0", Kind::Warning, "fault");
        assert_eq!(memory.take(&fault, now), Ok(()));
    }

    #[test]
    fn what_is_long_past_is_forgotten() {
        let mut memory = Memory::new(REMINDER);
        for number in 0..=MOST {
            let notice = notice(Kind::Warning, &number.to_string());
            let last = if number == 0 { at(10_000) } else { at(0) };
            memory.note(&notice, &notice.event("instance", last));
        }
        let now = Instant::now();
        memory.prune(at(10_000), now);
        assert_eq!(memory.told.len(), 1);
    }
}
