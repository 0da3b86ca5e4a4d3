//! Notices when somebody else writes what the operator writes, again and again, and slows down.
//!
//! What was damaged once or twice is mended at once. From then on every repair waits, twice as long each time, so that two
//! writers that disagree about a Secret do not issue certificates in circles.

use crate::index::Key;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many repairs are made at once.
const FREE: u32 = 3;
const SHORTEST: SignedDuration = SignedDuration::from_secs(5);
const LONGEST: SignedDuration = SignedDuration::from_secs(300);
/// Nobody has interfered for so long: the contest is over.
const TRUCE: SignedDuration = SignedDuration::from_mins(15);

/// The Secrets that were repaired lately.
#[derive(Debug, Default)]
pub(super) struct Contests(Mutex<HashMap<Key, Contest>>);

#[derive(Debug)]
struct Contest {
    /// What was to be written. A new spec or a new CA is a new beginning.
    of: String,
    repairs: u32,
    last: Timestamp,
}

impl Contests {
    /// Whether a repair of `of` may be made now. If not, how many there have been, and when the next one may.
    pub(super) fn may_repair(
        &self,
        key: &Key,
        of: &str,
        now: Timestamp,
    ) -> Result<(), (u32, Timestamp)> {
        let contests = self.contests();
        let Some(contest) = contests.get(key).filter(|contest| contest.is_on(of, now)) else {
            return Ok(());
        };
        let next = contest.last + pause(contest.repairs);
        if next <= now {
            Ok(())
        } else {
            Err((contest.repairs, next))
        }
    }

    /// A repair was made.
    pub(super) fn repaired(&self, key: &Key, of: &str, now: Timestamp) {
        let mut contests = self.contests();
        // What nobody contests any more is dropped in passing, so that the map stays small.
        contests.retain(|_, contest| contest.is_on(&contest.of, now));
        let contest = contests.entry(key.clone()).or_insert(Contest {
            of: of.to_owned(),
            repairs: 0,
            last: now,
        });
        if contest.of != of {
            (contest.of, contest.repairs) = (of.to_owned(), 0);
        }
        contest.repairs += 1;
        contest.last = now;
    }

    /// Forgets a Pki that is gone.
    pub(super) fn forget(&self, key: &Key) {
        self.contests().remove(key);
    }

    fn contests(&self) -> MutexGuard<'_, HashMap<Key, Contest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contest {
    fn is_on(&self, of: &str, now: Timestamp) -> bool {
        self.of == of && now.duration_since(self.last) < TRUCE
    }
}

fn pause(repairs: u32) -> SignedDuration {
    match repairs.checked_sub(FREE) {
        None => SignedDuration::ZERO,
        Some(more) => (SHORTEST * (1 << more.min(6))).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_900_000_000 + seconds).unwrap()
    }

    #[test]
    fn repairs_come_at_once_at_first_and_then_ever_more_slowly() {
        let (contests, key) = (Contests::default(), Key::new("ns", "a"));
        let (mut now, mut pauses) = (at(0), Vec::new());
        for _ in 0..12 {
            if let Err((_, next)) = contests.may_repair(&key, "spec", now) {
                pauses.push(next.duration_since(now).as_secs());
                now = next;
            }
            assert_eq!(contests.may_repair(&key, "spec", now), Ok(()));
            contests.repaired(&key, "spec", now);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn a_new_spec_or_a_quarter_of_an_hour_of_peace_ends_it() {
        let (contests, key) = (Contests::default(), Key::new("ns", "a"));
        for _ in 0..5 {
            contests.repaired(&key, "spec", at(0));
        }
        assert_eq!(contests.may_repair(&key, "spec", at(1)), Err((5, at(20))));
        assert_eq!(contests.may_repair(&key, "new", at(1)), Ok(()));
        assert_eq!(
            contests.may_repair(&Key::new("ns", "b"), "spec", at(1)),
            Ok(())
        );
        assert_eq!(contests.may_repair(&key, "spec", at(900)), Ok(()));
        contests.repaired(&key, "spec", at(900));
        assert_eq!(contests.may_repair(&key, "spec", at(900)), Ok(()));
    }
}
