//! Backoff of a Pki whose reconcile ended early, with a [`ReconcileError`].
//!
//! A conflict is usually over at the next attempt, and an API server that is away comes back: both
//! are retried soon. An attempt that took too long has cost others time, and is retried more
//! rarely. A fault that stays (an admission webhook that answers 409, an immutable Secret, a
//! missing permission) is retried ever more rarely.

use super::ReconcileError;
use crate::k8s::object_key::Key;
use crate::util::backoff::Backoff;
use crate::util::sync::lock;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

const AFTER_CONFLICT: Duration = Duration::from_millis(200);
const LONGEST_AFTER_CONFLICT: Duration = Duration::from_secs(30);
const AFTER_ERROR: Duration = Duration::from_secs(5);
const LONGEST_AFTER_TIMEOUT: Duration = Duration::from_secs(60);
const LONGEST_AFTER_REFUSAL: Duration = Duration::from_secs(300);

/// Number of consecutive failures, by Pki.
#[derive(Debug, Default)]
pub(super) struct ErrorBackoff(Mutex<HashMap<Key, u32>>);

impl ErrorBackoff {
    /// Counts a failure. Returns the delay of the next attempt.
    pub(super) fn next_delay(&self, key: &Key, error: &ReconcileError) -> Duration {
        let mut counts = lock(&self.0);
        let count = counts.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        let backoff = |first, longest| Backoff { first, longest };
        let backoff = match error {
            ReconcileError::Outdated(_) => backoff(AFTER_CONFLICT, LONGEST_AFTER_CONFLICT),
            error if error.is_refusal() => backoff(AFTER_ERROR, LONGEST_AFTER_REFUSAL),
            ReconcileError::TimedOut => backoff(AFTER_ERROR, LONGEST_AFTER_TIMEOUT),
            _ => backoff(AFTER_ERROR, AFTER_ERROR),
        };
        backoff.pause(*count)
    }

    /// Forgets the failures of a Pki, after a success or with the Pki.
    pub(super) fn forget(&self, key: &Key) {
        lock(&self.0).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::response::Status;

    fn answered(code: u16) -> ReconcileError {
        let status = Status::failure("no", "No").with_code(code);
        ReconcileError::ChangeSecret(key(), kube::Error::Api(Box::new(status)))
    }

    fn key() -> Key {
        Key::new("ns", "a")
    }

    #[test]
    fn a_fault_that_stays_is_retried_ever_more_rarely_and_a_success_begins_anew() {
        let conflict = || ReconcileError::Outdated(key());
        let doubling = [
            200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000,
        ];
        let refused = [
            5000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000,
        ];
        for (error, expected) in [
            (
                &conflict as &dyn Fn() -> ReconcileError,
                doubling.as_slice(),
            ),
            (&|| answered(403), &refused),
            (&|| answered(422), &refused),
            (
                &|| ReconcileError::TimedOut,
                &[5000, 10_000, 20_000, 40_000, 60_000, 60_000],
            ),
            (&|| answered(500), &[5000; 4]),
            (&|| answered(429), &[5000; 4]),
        ] {
            let delays = ErrorBackoff::default();
            for milliseconds in expected {
                let delay = delays.next_delay(&key(), &error());
                assert_eq!(delay.as_millis(), *milliseconds, "{}", error());
            }
            let other = delays.next_delay(&Key::new("ns", "b"), &error());
            assert_eq!(other.as_millis(), expected[0], "each by itself");
            delays.forget(&key());
            assert_eq!(delays.next_delay(&key(), &error()).as_millis(), expected[0]);
        }
    }

    #[test]
    fn the_longest_pause_is_kept_for_ever() {
        let delays = ErrorBackoff::default();
        let last = (0..100)
            .map(|_| delays.next_delay(&key(), &answered(403)))
            .last();
        assert_eq!(last, Some(LONGEST_AFTER_REFUSAL));
    }
}
