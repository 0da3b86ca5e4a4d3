//! Times as certificates carry them: whole seconds, backdated.

use jiff::{SignedDuration, Timestamp};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;

/// How long before its issue a certificate becomes valid, for clients whose clocks are slow.
pub(crate) const BACKDATING: SignedDuration = SignedDuration::from_mins(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

impl Validity {
    /// From `backdating` before `now` to `duration` after it, but at most to `latest`. `None` if
    /// empty, or before 1970, which verifiers do not read.
    pub(crate) fn from_now(
        now: Timestamp,
        backdating: SignedDuration,
        duration: SignedDuration,
        latest: Timestamp,
    ) -> Option<Self> {
        let not_before = whole_seconds(now).checked_sub(backdating).ok()?;
        let not_after = end(not_before, backdating, duration, latest);
        let is_possible = not_before >= Timestamp::UNIX_EPOCH && not_after > whole_seconds(now);
        is_possible.then_some(Self {
            not_before,
            not_after,
        })
    }

    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Option<Self> {
        let validity = certificate.validity();
        Some(Self {
            not_before: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
            not_after: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
        })
    }

    pub(crate) fn not_yet(&self, now: Timestamp) -> bool {
        whole_seconds(now) < self.not_before
    }

    /// The second named by notAfter still belongs to the validity ([RFC 5280, 4.1.2.5]).
    ///
    /// [RFC 5280, 4.1.2.5]: https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.5
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        self.not_after < whole_seconds(now)
    }
}

/// The end of a certificate that begins at `not_before`, and was issued for `duration` after
/// `backdating`.
pub(crate) fn end(
    not_before: Timestamp,
    backdating: SignedDuration,
    duration: SignedDuration,
    latest: Timestamp,
) -> Timestamp {
    let since_not_before = backdating.saturating_add(SignedDuration::from_secs(duration.as_secs()));
    let end = not_before
        .saturating_add(since_not_before)
        .expect("a signed duration has no calendar units to refuse");
    whole_seconds(end.min(latest))
}

pub(crate) fn asn1_time(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.as_second())
        .expect("both libraries end with the year 9999")
}

fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).expect("the seconds of a timestamp are one")
}
