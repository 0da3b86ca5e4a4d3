//! Exponential backoff: the pause after each failure in a row is twice the one before.

use std::time::Duration;

/// The bounds of the pauses.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Pause after the first failure.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
}

impl Backoff {
    /// Pause after this many failures in a row; none after none.
    pub fn pause(self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else {
            return Duration::ZERO;
        };
        let pause = self.first.saturating_mul(2_u32.saturating_pow(doublings));
        pause.min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pause_is_twice_the_one_before_up_to_the_longest() {
        let backoff = Backoff {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(5),
        };
        let seconds = [0, 1, 2, 3, 4, 5, u32::MAX].map(|count| backoff.pause(count).as_secs());
        assert_eq!(seconds, [0, 1, 2, 4, 5, 5, 5]);
        let endless = Backoff {
            first: Duration::MAX,
            longest: Duration::MAX,
        };
        assert_eq!(endless.pause(u32::MAX), Duration::MAX);
    }
}
