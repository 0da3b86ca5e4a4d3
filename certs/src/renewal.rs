//! When a leaf is due for renewal.

use jiff::{SignedDuration, Timestamp};

use crate::validity::BACKDATED;

/// When to renew: `renew_before` ahead of `not_after`, by default a third of the duration.
///
/// The answer always lies strictly between `not_before` and `not_after`, given that they are at
/// least two seconds apart. The duration counts from the moment of issue, so it leaves out the few
/// minutes by which certificates are backdated.
///
/// A `renew_before` that is not positive, or leaves no time between issue and renewal, is ignored
/// in favour of the default: obeyed, it would make every leaf overdue at birth. That also happens
/// to a sensible value once the end of the authority cuts leaves short.
pub fn at(
    not_before: Timestamp,
    not_after: Timestamp,
    renew_before: Option<SignedDuration>,
) -> Timestamp {
    let duration = duration_since_issue(not_before, not_after);
    let ahead = renew_before
        .filter(|ahead| ahead.is_positive() && *ahead < duration)
        .unwrap_or_else(|| SignedDuration::from_secs((duration.as_secs() / 3).max(1)));
    not_after
        .saturating_sub(ahead)
        .expect("a signed duration has no calendar units to refuse")
}

fn duration_since_issue(not_before: Timestamp, not_after: Timestamp) -> SignedDuration {
    let lifetime = not_after.duration_since(not_before);
    // A shorter certificate cannot be one of ours: nothing tells when it was issued.
    if lifetime > BACKDATED {
        lifetime - BACKDATED
    } else {
        lifetime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NINETY_DAYS: SignedDuration = SignedDuration::from_hours(2160);

    #[test]
    fn a_leaf_is_renewed_when_a_third_of_its_duration_is_left() {
        let (not_before, not_after) = issued_for(NINETY_DAYS);
        let thirty_days = SignedDuration::from_hours(720);
        assert_eq!(at(not_before, not_after, None), not_after - thirty_days);
    }

    #[test]
    fn a_leaf_is_renewed_as_long_before_its_end_as_asked() {
        let (not_before, not_after) = issued_for(NINETY_DAYS);
        let a_day = SignedDuration::from_hours(24);
        assert_eq!(at(not_before, not_after, Some(a_day)), not_after - a_day);
    }

    #[test]
    fn a_renew_before_that_makes_a_leaf_overdue_at_birth_is_ignored() {
        let (not_before, not_after) = issued_for(NINETY_DAYS);
        let default = at(not_before, not_after, None);
        for absurd in [NINETY_DAYS, NINETY_DAYS * 2, SignedDuration::MAX] {
            assert_eq!(at(not_before, not_after, Some(absurd)), default, "{absurd}");
        }
    }

    #[test]
    fn a_renew_before_that_is_not_positive_is_ignored() {
        let (not_before, not_after) = issued_for(NINETY_DAYS);
        let default = at(not_before, not_after, None);
        for absurd in [SignedDuration::ZERO, -NINETY_DAYS, SignedDuration::MIN] {
            assert_eq!(at(not_before, not_after, Some(absurd)), default, "{absurd}");
        }
    }

    #[test]
    fn the_shortest_certificate_is_renewed_while_it_is_valid() {
        let not_after = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(2);
        let due = at(Timestamp::UNIX_EPOCH, not_after, None);
        assert!(Timestamp::UNIX_EPOCH < due && due < not_after);
    }

    fn issued_for(duration: SignedDuration) -> (Timestamp, Timestamp) {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        (now - BACKDATED, now + duration)
    }
}
