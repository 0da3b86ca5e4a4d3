//! The times of the next reconciles, by the wall clock.

use crate::k8s::object_key::Key;
use crate::util::sync::lock;
use jiff::Timestamp;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;

/// The time of the next reconcile of each Pki.
#[derive(Debug, Default)]
pub struct Schedule {
    times: Mutex<Times>,
    /// There is an earlier first time.
    hastened: Notify,
}

#[derive(Debug, Default)]
struct Times {
    in_order: BTreeSet<(Timestamp, Key)>,
    by_key: HashMap<Key, Timestamp>,
}

impl Schedule {
    /// Sets or moves the time of a Pki.
    pub fn set(&self, key: Key, at: Timestamp) {
        self.set_in(&mut self.times(), key, at);
    }

    /// Sets the time of a Pki, unless it has an earlier one.
    pub fn hasten(&self, key: Key, at: Timestamp) {
        let mut times = self.times();
        if times.by_key.get(&key).is_none_or(|known| at < *known) {
            self.set_in(&mut times, key, at);
        }
    }

    fn set_in(&self, times: &mut Times, key: Key, at: Timestamp) {
        times.forget(&key);
        let is_first = times.in_order.first().is_none_or(|(first, _)| at < *first);
        times.in_order.insert((at, key.clone()));
        times.by_key.insert(key, at);
        if is_first {
            self.hastened.notify_one();
        }
    }

    /// Returns when there is an earlier first time since the last call. For one listener.
    pub async fn hastened(&self) {
        self.hastened.notified().await;
    }

    /// Takes a Pki off the schedule.
    pub fn forget(&self, key: &Key) {
        self.times().forget(key);
    }

    /// Takes those off whose time has come, the earliest first.
    pub fn take_due(&self, now: Timestamp) -> Vec<Key> {
        let mut times = self.times();
        let mut due = Vec::new();
        while let Some((at, _)) = times.in_order.first()
            && *at <= now
        {
            due.extend(times.in_order.pop_first().map(|(_, key)| key));
        }
        for key in &due {
            times.by_key.remove(key);
        }
        due
    }

    /// The pause before the clock is read again: until the next time, at most `longest`, and long
    /// enough not to spin.
    pub fn pause(&self, now: Timestamp, longest: Duration) -> Duration {
        let times = self.times();
        let next = times.in_order.first().map(|(at, _)| at.duration_since(now));
        let until = next.map_or(longest, |until| until.try_into().unwrap_or(Duration::ZERO));
        until.clamp(Duration::from_millis(100), longest)
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        lock(&self.times)
    }
}

impl Times {
    fn forget(&mut self, key: &Key) {
        if let Some(at) = self.by_key.remove(key) {
            self.in_order.remove(&(at, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_is_due_is_taken_once_and_in_order() {
        let schedule = Schedule::default();
        let (a, b, c) = (
            Key::new("ns", "a"),
            Key::new("ns", "b"),
            Key::new("ns", "c"),
        );
        schedule.set(a.clone(), at(30));
        schedule.set(b.clone(), at(10));
        schedule.set(c.clone(), at(10));
        schedule.set(a.clone(), at(5));
        schedule.forget(&c);
        assert_eq!(schedule.take_due(at(4)), []);
        assert_eq!(schedule.take_due(at(10)), [a, b]);
        assert_eq!(schedule.take_due(at(100)), []);
    }

    #[tokio::test]
    async fn an_earlier_time_is_heard_of_and_a_later_one_does_not_put_it_off() {
        use futures::FutureExt as _;
        let (schedule, a) = (Schedule::default(), Key::new("ns", "a"));
        let is_heard = || schedule.hastened().now_or_never().is_some();
        schedule.set(a.clone(), at(30));
        assert!(is_heard() && !is_heard());
        schedule.hasten(a.clone(), at(40));
        schedule.set(Key::new("ns", "b"), at(50));
        assert!(!is_heard());
        schedule.hasten(a.clone(), at(10));
        assert!(is_heard());
        assert_eq!(schedule.take_due(at(10)), [a]);
    }

    #[test]
    fn a_clock_that_jumps_ahead_is_noticed_within_the_longest_pause() {
        let schedule = Schedule::default();
        let longest = Duration::from_secs(30);
        assert_eq!(schedule.pause(at(0), longest), longest);
        schedule.set(Key::new("ns", "a"), at(3600));
        assert_eq!(schedule.pause(at(0), longest), longest);
        assert_eq!(schedule.pause(at(3590), longest), Duration::from_secs(10));
        assert_eq!(
            schedule.pause(at(4000), longest),
            Duration::from_millis(100)
        );
        assert_eq!(schedule.take_due(at(4000)).len(), 1);
    }
}
