//! Rate limits: a bucket of tokens, refilled one by one, as the generic cell rate algorithm (ITU-T
//! I.371) keeps it: one instant, the time at which the bucket is full again.

use std::time::{Duration, Instant};

/// A rate and a burst.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// Maximum number of tokens.
    pub(crate) burst: u32,
    /// The time to refill one token.
    pub(crate) period: Duration,
}

/// The tokens that are left of a [`Limit`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    /// `None` is full.
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes a token, or returns the time of the next one.
    pub(crate) fn take(&mut self, limit: Limit, now: Instant) -> Result<(), Instant> {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + limit.period;
        let most = limit.period * limit.burst;
        match full_at.checked_duration_since(now + most) {
            Some(wait) if !wait.is_zero() => Err(now + wait),
            _ => {
                self.full_at = Some(full_at);
                Ok(())
            }
        }
    }

    /// The number of tokens.
    pub(crate) fn left(&self, limit: Limit, now: Instant) -> u32 {
        let wait = self
            .full_at
            .map(|at| at.saturating_duration_since(now))
            .unwrap_or_default();
        let taken = wait.as_nanos().div_ceil(limit.period.as_nanos());
        limit
            .burst
            .saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX))
    }

    /// Returns an unused token.
    pub(crate) fn give_back(&mut self, limit: Limit) {
        self.full_at = self.full_at.and_then(|at| at.checked_sub(limit.period));
    }

    /// Whether it is full, as a new one is.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit {
        burst: 3,
        period: Duration::from_secs(300),
    };

    #[test]
    fn a_burst_is_taken_at_once_and_then_one_token_a_period() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut taken = |seconds| bucket.take(LIMIT, at(seconds));
        assert_eq!([taken(0), taken(1), taken(2)], [Ok(()); 3]);
        assert_eq!([taken(3), taken(299)], [Err(at(300)); 2]);
        assert_eq!(taken(300), Ok(()));
        assert_eq!(taken(301), Err(at(600)));
        assert_eq!(taken(2000), Ok(()), "it fills up");
        assert_eq!([taken(2000), taken(2000)], [Ok(()); 2]);
        assert_eq!(taken(2000), Err(at(2300)), "and does not overflow");
    }

    #[test]
    fn an_unused_token_can_be_returned() {
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        assert!(bucket.is_full(now));
        assert_eq!(bucket.left(LIMIT, now), 3);
        for _ in 0..3 {
            bucket.take(LIMIT, now).unwrap();
        }
        bucket.give_back(LIMIT);
        assert_eq!(bucket.take(LIMIT, now), Ok(()));
        assert!(bucket.take(LIMIT, now).is_err());
        let left = [0, 299, 300, 600, 900, 9000]
            .map(|seconds| bucket.left(LIMIT, now + Duration::from_secs(seconds)));
        assert_eq!(left, [0, 0, 1, 2, 3, 3]);
        assert!(!bucket.is_full(now + Duration::from_secs(899)));
        assert!(bucket.is_full(now + Duration::from_secs(900)));
    }
}
