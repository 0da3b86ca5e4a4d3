//! The time and the reason of the next issuance.

use crate::api::Pki;
use crate::model::ca::Ca;
use crate::model::renewal_request::{self, RENEW_NOW};
use crate::policy::Approved;
use crate::util::time::whole_second;
use jiff::Timestamp;
use kube::ResourceExt;
use pki_certs::{Verified, VerifyError, renewal};
use std::fmt;

/// The reason of an issuance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssueReason {
    /// There is no Secret.
    NoSecret,
    /// The Secret does not hold a valid certificate.
    Invalid(VerifyError),
    /// The certificate is due for renewal.
    Renewal,
    /// An annotation of the Pki asked for it.
    Request,
    /// The CA that signed it is being replaced.
    OtherCa,
}

impl fmt::Display for IssueReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSecret => f.write_str("there is no Secret"),
            Self::Invalid(fault) => fault.fmt(f),
            Self::Renewal => f.write_str("renewal is due"),
            Self::Request => write!(f, "the Pki was annotated with {RENEW_NOW}"),
            Self::OtherCa => f.write_str("its CA is being replaced"),
        }
    }
}

impl IssueReason {
    /// One word for the metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoSecret => "missing",
            Self::Invalid(_) => "unsound",
            Self::Renewal => "renewal",
            Self::Request => "request",
            Self::OtherCa => "ca",
        }
    }

    /// Whether somebody else took away or damaged what was written.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::NoSecret | Self::Invalid(_))
    }
}

/// When a valid certificate is to be replaced, and why then.
pub fn due(
    pki: &Pki,
    approved: &Approved,
    verified: &Verified,
    ca: &Ca,
    now: Timestamp,
) -> (Timestamp, IssueReason) {
    let Verified {
        serial,
        not_before,
        not_after,
        ..
    } = verified;
    let seed = format!("{}/{serial}", pki.uid().unwrap_or_default());
    let by_time = renewal::at(*not_before, *not_after, approved.renew_before);
    // A thousand that were issued together are not renewed together.
    let by_time = renewal::with_jitter(by_time, *not_before, *not_after, seed.as_bytes());
    // As the status will have it, so that the two compare.
    let by_time = whole_second(by_time);
    let mut due = (by_time, IssueReason::Renewal);
    if let Ok(signer) = &ca.signer {
        if signer.ca().fingerprint() == verified.issuer {
            // The next one would end with the CA as well, no later.
            if verified.cut_short && signer.ca().not_after() <= *not_after {
                due.0 = *not_after;
            }
        } else {
            let (since, window) = ca.replacing.unwrap_or_default();
            let turn = since.saturating_add(renewal::spread(window, seed.as_bytes()));
            let turn = whole_second(turn.unwrap_or(since));
            due = std::cmp::min_by_key(due, (turn, IssueReason::OtherCa), |(at, _)| *at);
        }
    }
    if let Some(at) = requested(pki, serial, now).or_else(|| renewal_request::next(pki, now)) {
        due = std::cmp::min_by_key(due, (at, IssueReason::Request), |(at, _)| *at);
    }
    due
}

/// Since when the status, about this very certificate, has a renewal time that has come and that a
/// served request put there. So a request is neither lost nor served twice. Another time is none
/// that the operator wrote, and is replaced.
fn requested(pki: &Pki, serial: &str, now: Timestamp) -> Option<Timestamp> {
    let status = pki.status.as_ref()?;
    let is_of_this = status.serial_number.as_deref() == Some(serial);
    let at = status.renewal_time.as_ref().filter(|_| is_of_this)?;
    let request = status.renewal_request.as_ref()?;
    let is_requested = request.served_time.as_ref() == Some(at);
    (is_requested && at.0 <= now).then_some(at.0)
}
