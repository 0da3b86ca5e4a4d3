//! Notices when somebody else writes what the operator writes, again and again, and slows down.
//!
//! What was damaged once or twice is mended at once. From then on every repair waits, twice as long
//! each time, so that two writers that disagree about a Secret do not issue certificates in
//! circles.

use crate::k8s::object_key::Key;
use crate::util::backoff::Backoff;
use crate::util::sync::lock;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// So many repairs are made at once.
const FREE: u32 = 3;
/// Between the repairs after those.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(5),
    longest: Duration::from_secs(300),
};
/// Nobody has interfered for so long: the contest is over.
const TRUCE: SignedDuration = SignedDuration::from_mins(15);
/// So many are kept without asking how old they are.
const FEW: usize = 1024;

/// The Secrets that were written lately.
#[derive(Debug, Default)]
pub(super) struct Contests(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    by_key: HashMap<Key, Contest>,
    /// How many there may be before the old ones are dropped.
    prune_at: usize,
}

#[derive(Debug)]
struct Contest {
    /// What was to be written. A new spec or a new CA is a new beginning.
    of: String,
    repairs: u32,
    last: Timestamp,
}

impl Contests {
    /// Whether a repair of `of` may be made now. If not, when the next one may.
    pub(super) fn may_repair(&self, key: &Key, of: &str, now: Timestamp) -> Result<(), Timestamp> {
        let contests = self.contests();
        let contest = contests.by_key.get(key);
        let Some(contest) = contest.filter(|contest| contest.is_on(of, now)) else {
            return Ok(());
        };
        let next = contest.last + pause(contest.repairs);
        if next <= now { Ok(()) } else { Err(next) }
    }

    /// Whether this was written not long ago.
    pub(super) fn has_written(&self, key: &Key, of: &str) -> bool {
        let contests = self.contests();
        contests
            .by_key
            .get(key)
            .is_some_and(|contest| contest.of == of)
    }

    /// This was written, for the first time or as a repair.
    pub(super) fn wrote(&self, key: &Key, of: &str, is_repair: bool, now: Timestamp) {
        let mut contests = self.contests();
        let contest = contests.by_key.entry(key.clone()).or_insert(Contest {
            of: of.to_owned(),
            repairs: 0,
            last: now,
        });
        if !contest.is_on(of, now) {
            (contest.of, contest.repairs) = (of.to_owned(), 0);
        }
        contest.repairs += u32::from(is_repair);
        contest.last = now;
        // What nobody contests any more is dropped now and then, so that the map stays small.
        if contests.by_key.len() > contests.prune_at.max(FEW) {
            contests
                .by_key
                .retain(|_, contest| contest.is_on(&contest.of, now));
            contests.prune_at = 2 * contests.by_key.len();
        }
    }

    /// Forgets a Pki that is gone.
    pub(super) fn forget(&self, key: &Key) {
        self.contests().by_key.remove(key);
    }

    fn contests(&self) -> MutexGuard<'_, Recent> {
        lock(&self.0)
    }
}

impl Contest {
    fn is_on(&self, of: &str, now: Timestamp) -> bool {
        self.of == of && now.duration_since(self.last) < TRUCE
    }
}

fn pause(repairs: u32) -> SignedDuration {
    let pause = BACKOFF.pause((repairs + 1).saturating_sub(FREE));
    SignedDuration::try_from(pause).expect("the longest pause is in range")
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
            if let Err(next) = contests.may_repair(&key, "spec", now) {
                pauses.push(next.duration_since(now).as_secs());
                now = next;
            }
            assert_eq!(contests.may_repair(&key, "spec", now), Ok(()));
            contests.wrote(&key, "spec", true, now);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn a_new_spec_or_a_quarter_of_an_hour_of_peace_ends_it() {
        let (contests, key) = (Contests::default(), Key::new("ns", "a"));
        for _ in 0..5 {
            contests.wrote(&key, "spec", true, at(0));
        }
        assert_eq!(contests.may_repair(&key, "spec", at(1)), Err(at(20)));
        assert_eq!(contests.may_repair(&key, "new", at(1)), Ok(()));
        assert_eq!(
            contests.may_repair(&Key::new("ns", "b"), "spec", at(1)),
            Ok(())
        );
        assert_eq!(contests.may_repair(&key, "spec", at(900)), Ok(()));
        contests.wrote(&key, "spec", true, at(900));
        assert_eq!(contests.may_repair(&key, "spec", at(900)), Ok(()));
    }
}
