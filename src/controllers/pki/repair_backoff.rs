//! Backoff of repairs, where another writer changes a Secret again and again.
//!
//! The first repairs are made at once. Each one after them waits twice as long as the one before,
//! so that two writers that disagree about a Secret do not issue certificates in circles.

use crate::k8s::object_key::Key;
use crate::util::backoff::Backoff;
use crate::util::sync::lock;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Number of repairs that are made at once.
const IMMEDIATE_REPAIRS: u32 = 3;
/// Backoff of the repairs after those.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(5),
    longest: Duration::from_secs(300),
};
/// Time without a repair after which the count begins anew.
const QUIET_PERIOD: SignedDuration = SignedDuration::from_mins(15);
/// Number of entries that are kept without regard to their age.
const MIN_PRUNED_ENTRIES: usize = 1024;

/// The Secrets that were written a short time ago.
#[derive(Debug, Default)]
pub(super) struct RepairBackoff(Mutex<RecentWrites>);

#[derive(Debug, Default)]
struct RecentWrites {
    by_key: HashMap<Key, RecentWrite>,
    /// Number of entries at which old ones are dropped.
    prune_at: usize,
}

#[derive(Debug)]
struct RecentWrite {
    /// Identifies the content. A new spec or a new CA begins anew.
    of: String,
    repairs: u32,
    last: Timestamp,
}

impl RepairBackoff {
    /// Whether a repair of `of` may be made now. The error is the time of the next one.
    pub(super) fn may_repair(&self, key: &Key, of: &str, now: Timestamp) -> Result<(), Timestamp> {
        let writes = self.writes();
        let write = writes.by_key.get(key);
        let Some(write) = write.filter(|write| write.is_on(of, now)) else {
            return Ok(());
        };
        let next = write.last + delay(write.repairs);
        if next <= now { Ok(()) } else { Err(next) }
    }

    /// Whether `of` is what was written last.
    pub(super) fn has_written(&self, key: &Key, of: &str) -> bool {
        let writes = self.writes();
        writes.by_key.get(key).is_some_and(|write| write.of == of)
    }

    /// Counts a write, the first one or a repair.
    pub(super) fn wrote(&self, key: &Key, of: &str, is_repair: bool, now: Timestamp) {
        let mut writes = self.writes();
        let write = writes.by_key.entry(key.clone()).or_insert(RecentWrite {
            of: of.to_owned(),
            repairs: 0,
            last: now,
        });
        if !write.is_on(of, now) {
            (write.of, write.repairs) = (of.to_owned(), 0);
        }
        write.repairs += u32::from(is_repair);
        write.last = now;
        if writes.by_key.len() > writes.prune_at.max(MIN_PRUNED_ENTRIES) {
            writes.by_key.retain(|_, write| write.is_on(&write.of, now));
            writes.prune_at = 2 * writes.by_key.len();
        }
    }

    /// Forgets a Pki that is gone.
    pub(super) fn forget(&self, key: &Key) {
        self.writes().by_key.remove(key);
    }

    fn writes(&self) -> MutexGuard<'_, RecentWrites> {
        lock(&self.0)
    }
}

impl RecentWrite {
    fn is_on(&self, of: &str, now: Timestamp) -> bool {
        self.of == of && now.duration_since(self.last) < QUIET_PERIOD
    }
}

fn delay(repairs: u32) -> SignedDuration {
    let delay = BACKOFF.pause((repairs + 1).saturating_sub(IMMEDIATE_REPAIRS));
    SignedDuration::try_from(delay).expect("the longest pause is in range")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::time::tests::at;

    #[test]
    fn repairs_come_at_once_at_first_and_then_ever_more_slowly() {
        let (writes, key) = (RepairBackoff::default(), Key::new("ns", "a"));
        let (mut now, mut pauses) = (at(0), Vec::new());
        for _ in 0..12 {
            if let Err(next) = writes.may_repair(&key, "spec", now) {
                pauses.push(next.duration_since(now).as_secs());
                now = next;
            }
            assert_eq!(writes.may_repair(&key, "spec", now), Ok(()));
            writes.wrote(&key, "spec", true, now);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn a_new_spec_or_a_quarter_of_an_hour_of_peace_ends_it() {
        let (writes, key) = (RepairBackoff::default(), Key::new("ns", "a"));
        for _ in 0..5 {
            writes.wrote(&key, "spec", true, at(0));
        }
        assert_eq!(writes.may_repair(&key, "spec", at(1)), Err(at(20)));
        assert_eq!(writes.may_repair(&key, "new", at(1)), Ok(()));
        assert_eq!(
            writes.may_repair(&Key::new("ns", "b"), "spec", at(1)),
            Ok(())
        );
        assert_eq!(writes.may_repair(&key, "spec", at(900)), Ok(()));
        writes.wrote(&key, "spec", true, at(900));
        assert_eq!(writes.may_repair(&key, "spec", at(900)), Ok(()));
    }
}
