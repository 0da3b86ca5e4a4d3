//! Limits logged refusals: anyone who reaches the port can cause any number of them.

use crate::util::rate_limit::{Bucket, Limit};
use crate::util::sync::lock;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// More refusals than people cause, and not more than harm a log.
const LIMIT: Limit = Limit {
    burst: 100,
    period: Duration::from_secs(1),
};

#[derive(Debug, Default)]
pub(super) struct RefusalLog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    bucket: Bucket,
    unlogged: u64,
}

impl RefusalLog {
    /// Whether the next refusal is logged; if so, how many before it were not.
    pub(super) fn admits(&self, now: Instant) -> Option<u64> {
        let mut state = lock(&self.0);
        if state.bucket.take(LIMIT, now).is_err() {
            state.unlogged += 1;
            return None;
        }
        Some(std::mem::take(&mut state.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_refusals_of_a_flood_are_logged_and_the_others_counted() {
        let (log, start) = (RefusalLog::default(), Instant::now());
        for _ in 0..LIMIT.burst {
            assert_eq!(log.admits(start), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(log.admits(start), None);
        }
        assert_eq!(log.admits(start + LIMIT.period), Some(1000));
        assert_eq!(log.admits(start + LIMIT.period), None);
        assert_eq!(log.admits(start + 2 * LIMIT.period), Some(1));
    }
}
