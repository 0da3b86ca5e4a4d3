//! The time at which a leaf is renewed.

use aws_lc_rs::digest;
use jiff::{SignedDuration, Timestamp};

use crate::validity::BACKDATING;

/// The time before its end at which a leaf is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RenewBefore {
    /// A duration.
    Duration(SignedDuration),
    /// Percent of its duration: 1 to 90.
    Percentage(u8),
}

/// When to renew: `renew_before` ahead of `not_after`, by default a third of the duration.
///
/// The answer lies strictly between `not_before` and `not_after`, given that they are at least two
/// seconds apart. The duration counts from the issue, without the minutes of backdating.
///
/// A `renew_before` that is not positive, not shorter than the duration, or not one of the
/// percentages above is ignored, because every leaf would be overdue at its issue. An authority
/// that cuts leaves short may cause this too.
pub fn at(
    not_before: Timestamp,
    not_after: Timestamp,
    renew_before: Option<RenewBefore>,
) -> Timestamp {
    let duration = not_after.duration_since(issued_at(not_before, not_after));
    let ahead = match renew_before {
        Some(RenewBefore::Duration(ahead)) if ahead.is_positive() && ahead < duration => ahead,
        Some(RenewBefore::Percentage(percentage @ 1..=90)) => hundredths(duration, percentage),
        _ => SignedDuration::from_secs((duration.as_secs() / 3).max(1)),
    };
    earlier(not_after, ahead)
}

/// Returns `due`, or up to a tenth of the time since the issue earlier, by `seed`: a thousand
/// leaves issued together are not renewed together.
///
/// A seed gives one answer in all versions, and keeps `due` between `not_before` and `not_after`.
pub fn with_jitter(
    due: Timestamp,
    not_before: Timestamp,
    not_after: Timestamp,
    seed: &[u8],
) -> Timestamp {
    let waiting = due.duration_since(issued_at(not_before, not_after));
    earlier(due, spread(waiting / 10, seed))
}

/// The time at which a leaf with this validity was issued: `BACKDATING` after `not_before`.
pub fn issued_at(not_before: Timestamp, not_after: Timestamp) -> Timestamp {
    // No authority here issues a shorter certificate.
    if not_after.duration_since(not_before) > BACKDATING {
        not_before + BACKDATING
    } else {
        not_before
    }
}

/// A part of `window` by `seed`: at least zero and less than `window`, in whole milliseconds. Zero
/// if there is no window. Seeds spread evenly, and each gives one answer in all versions.
pub fn spread(window: SignedDuration, seed: &[u8]) -> SignedDuration {
    let window = u128::try_from(window.as_millis()).unwrap_or_default();
    let hash = digest::digest(&digest::SHA256, seed);
    let bytes = hash.as_ref()[..6].iter();
    let fraction = bytes.fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    // A window has at most 73 bits, the fraction has 48.
    let millis = (window * fraction) >> 48;
    let seconds = i64::try_from(millis / 1000).expect("it is less than the window");
    let nanoseconds = i32::try_from(millis % 1000 * 1_000_000).expect("it is less than a second");
    SignedDuration::new(seconds, nanoseconds)
}

fn hundredths(duration: SignedDuration, percentage: u8) -> SignedDuration {
    let millis = duration.as_millis() * i128::from(percentage) / 100;
    let millis = i64::try_from(millis).expect("timestamps are less than 2^63 milliseconds apart");
    SignedDuration::from_millis(millis).max(SignedDuration::from_millis(1))
}

fn earlier(than: Timestamp, by: SignedDuration) -> Timestamp {
    than.saturating_sub(by)
        .expect("a signed duration has no calendar units to refuse")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NINETY_DAYS: SignedDuration = SignedDuration::from_hours(2160);
    const DAY: SignedDuration = SignedDuration::from_hours(24);

    #[test]
    fn a_leaf_is_renewed_when_a_third_of_its_duration_is_left() {
        let (not_before, not_after) = issued_for(NINETY_DAYS);
        assert_eq!(at(not_before, not_after, None), not_after - DAY * 30);
    }

    #[test]
    fn a_leaf_is_renewed_as_long_before_its_end_as_asked() {
        let (not_before, not_after) = issued_for(NINETY_DAYS);
        for (renew_before, ahead) in [
            (RenewBefore::Duration(DAY), DAY),
            (RenewBefore::Percentage(10), DAY * 9),
            (RenewBefore::Percentage(90), DAY * 81),
        ] {
            let due = at(not_before, not_after, Some(renew_before));
            assert_eq!(due, not_after - ahead, "{renew_before:?}");
        }
    }

    #[test]
    fn a_renew_before_that_makes_a_leaf_overdue_at_birth_is_ignored() {
        for absurd in [NINETY_DAYS, NINETY_DAYS * 2, SignedDuration::MAX] {
            assert_ignored(RenewBefore::Duration(absurd));
        }
        for absurd in [91, 100, 255] {
            assert_ignored(RenewBefore::Percentage(absurd));
        }
    }

    #[test]
    fn a_renew_before_that_is_not_positive_is_ignored() {
        for absurd in [SignedDuration::ZERO, -NINETY_DAYS, SignedDuration::MIN] {
            assert_ignored(RenewBefore::Duration(absurd));
        }
        assert_ignored(RenewBefore::Percentage(0));
    }

    #[test]
    fn the_shortest_certificate_is_renewed_while_it_is_valid() {
        let not_after = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(2);
        for renew_before in [None, Some(RenewBefore::Percentage(1))] {
            let due = at(Timestamp::UNIX_EPOCH, not_after, renew_before);
            assert!(Timestamp::UNIX_EPOCH < due && due < not_after);
        }
    }

    #[test]
    fn jitter_is_up_to_a_tenth_of_the_time_since_the_issue_and_spread_over_it() {
        let (not_before, not_after) = issued_for(NINETY_DAYS);
        let due = at(not_before, not_after, None);
        let mut tenths = [0; 10];
        for seed in 0..1000_u32 {
            let jittered = with_jitter(due, not_before, not_after, &seed.to_be_bytes());
            let ahead = due.duration_since(jittered);
            assert!(!ahead.is_negative() && ahead < DAY * 6, "{ahead}");
            let tenth = ahead.as_secs() * 10 / (DAY * 6).as_secs();
            tenths[usize::try_from(tenth).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| *count > 50), "{tenths:?}");
    }

    /// SHA-256 of "app1" begins with 172dd4a03660, and of six days 0x172dd4a03660 / 2^48 is
    /// 13 h 2 min 17.526 s.
    #[test]
    fn jitter_is_the_same_in_every_version() {
        let (not_before, not_after) = issued_for(NINETY_DAYS);
        let due = at(not_before, not_after, None);
        let jittered = with_jitter(due, not_before, not_after, b"app1");
        assert_eq!(jittered.to_string(), "2026-04-29T22:57:42.474Z");
    }

    #[test]
    fn a_leaf_was_issued_when_its_duration_began() {
        let (not_before, not_after) = issued_for(NINETY_DAYS);
        assert_eq!(issued_at(not_before, not_after), not_after - NINETY_DAYS);
        let too_short = not_before + BACKDATING;
        assert_eq!(issued_at(not_before, too_short), not_before);
    }

    #[test]
    fn without_a_window_nothing_is_spread() {
        for window in [SignedDuration::ZERO, -DAY, SignedDuration::MIN] {
            assert_eq!(spread(window, b"app1"), SignedDuration::ZERO, "{window}");
        }
    }

    fn assert_ignored(renew_before: RenewBefore) {
        let (not_before, not_after) = issued_for(NINETY_DAYS);
        let default = at(not_before, not_after, None);
        let due = at(not_before, not_after, Some(renew_before));
        assert_eq!(due, default, "{renew_before:?}");
    }

    fn issued_for(duration: SignedDuration) -> (Timestamp, Timestamp) {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        (now - BACKDATING, now + duration)
    }
}
