//! When Events report that a certificate is not renewed: after most transient failures have gone,
//! and while there is time to act.

use crate::api::{Pki, PkiStatus};
use crate::model::outcome::Outcome;
use crate::util::text::printable;
use jiff::Timestamp;

/// Stage of a certificate that is not renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Half of the time in which it should have been renewed is over.
    Ending,
    Ended,
}

impl Stage {
    /// Stage of the certificate in this status, if its renewal failed.
    pub(super) fn of(outcome: &Outcome, status: &PkiStatus, now: Timestamp) -> Option<Self> {
        let (near, end) = times(outcome, status)?;
        match now {
            _ if now >= end => Some(Self::Ended),
            _ if now >= near => Some(Self::Ending),
            _ => None,
        }
    }

    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Ending => "PkiCertificateExpiring",
            Self::Ended => "PkiCertificateExpired",
        }
    }

    /// Beginning of the message, before the reason why it is not renewed.
    pub(super) fn beginning(self, pki: &Pki, status: &PkiStatus) -> String {
        let end = status.not_after.as_ref();
        let end = end.map(|end| end.0.to_string()).unwrap_or_default();
        let verb = match self {
            Self::Ending => "expires",
            Self::Ended => "has expired",
        };
        let secret = status.secret_name.as_deref();
        format!(
            "the certificate of Pki {} in Secret {} {verb} at {end} and is not renewed: ",
            printable(pki.metadata.name.as_deref().unwrap_or_default()),
            printable(secret.unwrap_or_else(|| pki.secret_name())),
        )
    }
}

/// When the stage changes next.
pub(crate) fn next(outcome: &Outcome, status: &PkiStatus, now: Timestamp) -> Option<Timestamp> {
    let (near, end) = times(outcome, status)?;
    [near, end].into_iter().find(|at| *at > now)
}

/// When a certificate that is not renewed is near its end, and the end.
fn times(outcome: &Outcome, status: &PkiStatus) -> Option<(Timestamp, Timestamp)> {
    let is_unrenewed = matches!(
        outcome,
        Outcome::Refused { .. } | Outcome::Unsigned(_) | Outcome::Failed { .. }
    );
    status.serial_number.as_ref().filter(|_| is_unrenewed)?;
    let (renewal, end) = (
        status.renewal_time.as_ref()?.0,
        status.not_after.as_ref()?.0,
    );
    let near = renewal.saturating_add(end.duration_since(renewal) / 2);
    Some((near.unwrap_or(end), end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::secret::Obstacle;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_900_000_000 + 3600 * hour).unwrap()
    }

    /// Renewed at hour 20, ends at hour 30.
    fn status() -> PkiStatus {
        PkiStatus {
            serial_number: Some("01".into()),
            renewal_time: Some(Time(at(20))),
            not_after: Some(Time(at(30))),
            ..PkiStatus::default()
        }
    }

    #[test]
    fn an_unrenewed_certificate_is_reported_after_half_of_its_renewal_time_and_at_the_end() {
        let outcome = Outcome::Unsigned("no CA".into());
        for (hour, stage, then) in [
            (0, None, Some(25)),
            (20, None, Some(25)),
            (24, None, Some(25)),
            (25, Some(Stage::Ending), Some(30)),
            (29, Some(Stage::Ending), Some(30)),
            (30, Some(Stage::Ended), None),
            (99, Some(Stage::Ended), None),
        ] {
            assert_eq!(Stage::of(&outcome, &status(), at(hour)), stage, "{hour}");
            assert_eq!(next(&outcome, &status(), at(hour)), then.map(at), "{hour}");
        }
    }

    #[test]
    fn only_a_certificate_that_is_in_use_and_not_renewed_can_run_out() {
        let failed = Outcome::Failed {
            error: "quota".into(),
            remedy: None,
            attempts: 1,
            next: at(30),
        };
        assert_eq!(Stage::of(&failed, &status(), at(29)), Some(Stage::Ending));
        let none = PkiStatus::default();
        assert_eq!(Stage::of(&failed, &none, at(29)), None);
        for other in [Outcome::Foreign(Obstacle::Unclaimed), Outcome::Await] {
            assert_eq!(Stage::of(&other, &status(), at(29)), None);
            assert_eq!(next(&other, &status(), at(0)), None);
        }
    }
}
