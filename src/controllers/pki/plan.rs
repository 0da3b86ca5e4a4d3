//! The decision: from what was observed to what is to be done. Pure, and the only place that
//! decides it.

use crate::api::{Pki, PkiStatus};
use crate::controllers::pki::content::formats::Passwords;
use crate::controllers::pki::content::{Owner, SecretContent};
use crate::k8s::clock::MAX_FUTURE;
use crate::k8s::object_key::Key;
use crate::k8s::secret::{self, Obstacle};
use crate::model::ca::Ca;
use crate::model::outcome::{Certificate, Terms};
use crate::model::renewal_request::{self, RENEW_NOW};
use crate::policy::{Approved, Violation};
use crate::util::time::whole_second;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use pki_certs::{Bundle, Verified, VerifyError, renewal};
use std::fmt;

/// The facts about one Pki, gathered before anything is decided.
pub struct Observed<'a> {
    /// The Pki.
    pub pki: &'a Pki,
    /// What the rule book says.
    pub verdict: Result<Approved, Vec<Violation>>,
    /// The Pki whose turn it is to create the Secret, when it is another one.
    pub rival: Option<Key>,
    /// The Secret, as far as it was looked at.
    pub secret: SecretState,
    /// The passwords of its keystores.
    pub passwords: Passwords,
    /// The CA.
    pub ca: &'a Ca,
}

impl Observed<'_> {
    /// The passwords of the keystores that are in force, or of those of the next certificate.
    pub fn passwords_for(&self, approved: &Approved) -> &Passwords {
        let next = self.verdict.as_ref().unwrap_or(approved);
        self.passwords.of(approved, next)
    }
}

/// What is known of a Secret.
#[derive(Debug)]
pub enum SecretState {
    /// Not enough.
    Unread,
    /// There is none.
    Absent,
    /// It has not changed since it was found as it should be, with this certificate.
    Unchanged(Verified),
    /// As it is stored, and whose it is.
    Stored(Box<Secret>, Owner),
}

impl Observed<'_> {
    /// The Secret as it is stored, if it was read.
    pub fn stored(&self) -> Option<&Secret> {
        match &self.secret {
            SecretState::Stored(secret, _) => Some(secret),
            _ => None,
        }
    }
}

/// What is to be done.
#[derive(Debug)]
pub enum Plan {
    /// Read the Secret, and decide then.
    Read,
    /// Make a certificate and write the Secret.
    Issue(Box<Approved>, IssueReason),
    /// The certificate is as it should be, and something else in the Secret is not: write that.
    Mend(Current),
    /// The Secret is as it should be.
    Keep(Current),
    /// The Pki breaks the rule book.
    Refuse {
        /// What it breaks.
        violations: Vec<Violation>,
        /// Whether its Secret, which is in use, has an outdated `ca.crt`.
        is_unpublished: bool,
    },
    /// Another Pki comes first.
    Conflict {
        /// That Pki.
        winner: Key,
    },
    /// The Secret is not this Pki's: it stays as it is.
    Foreign(Obstacle),
    /// The Secret is nobody's, and its certificate proves that it was issued for this Pki: the Pki
    /// takes it up again.
    TakeUp,
    /// Nothing is known of the CA, for this reason, so that nobody can tell whose the Secret is.
    Unsigned(String),
    /// The Secret is about to be removed: its Pki is deleted, or writes another one by now.
    Await,
    /// The Pki is being deleted: its Secret goes with it.
    Gone,
}

/// The certificate in the Secret, found sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// The certificate.
    pub verified: Verified,
    /// When to renew.
    pub renew_at: Timestamp,
    /// The approval in force for it: defaults may have changed since it was issued.
    pub approved: Box<Approved>,
}

/// Why a certificate is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssueReason {
    /// There is no Secret.
    NoSecret,
    /// The Secret does not hold what it should.
    Unsound(VerifyError),
    /// It is time.
    Renewal,
    /// Somebody asked for it.
    Request,
    /// The CA that signed it is being replaced.
    OtherCa,
}

impl fmt::Display for IssueReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSecret => f.write_str("there is no Secret"),
            Self::Unsound(fault) => fault.fmt(f),
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
            Self::Unsound(_) => "unsound",
            Self::Renewal => "renewal",
            Self::Request => "request",
            Self::OtherCa => "ca",
        }
    }

    /// Whether somebody else took away or damaged what was written.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::NoSecret | Self::Unsound(_))
    }
}

/// Decides. The order of the checks is the order of precedence: rules before ownership before
/// arbitration before content.
pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let Observed { pki, ca, .. } = observed;
    if pki.metadata.deletion_timestamp.is_some() {
        return Plan::Gone;
    }
    let approved = match &observed.verdict {
        Ok(approved) => approved,
        Err(_) if matches!(observed.secret, SecretState::Unread) && matters(pki, ca) => {
            return Plan::Read;
        }
        Err(violations) => {
            return Plan::Refuse {
                violations: violations.clone(),
                is_unpublished: is_unpublished(observed),
            };
        }
    };
    let secret = match (&observed.secret, &observed.rival) {
        (SecretState::Unread, _) => return Plan::Read,
        (SecretState::Unchanged(verified), _) => return keep(observed, approved, verified, now),
        (SecretState::Stored(secret, Owner::Ours), _) => secret,
        (SecretState::Stored(secret, Owner::Foreign(obstacle)), _) => {
            return stranger(observed, approved, secret, obstacle);
        }
        (SecretState::Stored(_, Owner::Rival(winner)), _)
        | (SecretState::Stored(_, Owner::FormerPki) | SecretState::Absent, Some(winner)) => {
            let winner = winner.clone();
            return Plan::Conflict { winner };
        }
        (SecretState::Stored(_, Owner::FormerPki), None) => return Plan::Await,
        (SecretState::Absent, None) => {
            return Plan::Issue(Box::new(approved.clone()), IssueReason::NoSecret);
        }
    };
    // Verified before written: whoever restarts, relists or takes over the lead finds nothing to do
    // here.
    let bundle = secret::bundle(secret);
    let (in_force, verified) = match verify(bundle, approved, ca, now) {
        Ok(found) => found,
        Err(fault) => return Plan::Issue(Box::new(approved.clone()), IssueReason::Unsound(fault)),
    };
    let (renew_at, need) = due(pki, in_force, &verified, ca, now);
    if renew_at <= now {
        return Plan::Issue(Box::new(approved.clone()), need);
    }
    let current = Current {
        verified,
        renew_at,
        approved: Box::new(in_force.clone()),
    };
    let content = SecretContent {
        pki,
        approved: in_force,
        bundle,
        trust: &ca.trust,
        passwords: observed.passwords_for(in_force),
    };
    if content.is_in(secret) {
        Plan::Keep(current)
    } else {
        Plan::Mend(current)
    }
}

/// Verifies the certificate against what is in force for it. The status, which tells that, may not
/// be written yet: so what counts for the next certificate will do as well.
fn verify<'a>(
    bundle: Bundle<'_>,
    approved: &'a Approved,
    ca: &Ca,
    now: Timestamp,
) -> Result<(&'a Approved, Verified), VerifyError> {
    let issuers: Vec<_> = ca.issuers.iter().collect();
    let verify_at = |it: &Approved, now| pki_certs::verify(&bundle, &it.certificate, &issuers, now);
    let verify = |it: &'a Approved| {
        let verified = match verify_at(it, now) {
            // Another leader issued it, whose clock was ahead of this one.
            Err(VerifyError::NotYetValid(not_before))
                if not_before.duration_since(now) <= MAX_FUTURE =>
            {
                verify_at(it, not_before)
            }
            verdict => verdict,
        };
        verified.map(|verified| (it, verified))
    };
    let in_force = approved.in_force();
    verify(in_force).or_else(|fault| {
        let next = Some(approved).filter(|next| *next != in_force);
        next.and_then(|next| verify(next).ok()).ok_or(fault)
    })
}

/// Decides about a Secret that is not this Pki's by any reference. One that has lost its owner, to
/// `--cascade=orphan` or in a backup, is recognized by its certificate and key: labels only say
/// that it is worth a look.
fn stranger(
    observed: &Observed<'_>,
    approved: &Approved,
    secret: &Secret,
    obstacle: &Obstacle,
) -> Plan {
    if *obstacle != Obstacle::Unclaimed || !secret::is_labelled(secret) {
        return Plan::Foreign(obstacle.clone());
    }
    let ca = observed.ca;
    if let (true, Err(alarm)) = (ca.issuers.is_empty(), &ca.signer) {
        // Nothing is proven without a CA, and nothing refuted.
        return Plan::Unsigned(alarm.to_string());
    }
    let issuers: Vec<_> = ca.issuers.iter().collect();
    match pki_certs::recognize(&secret::bundle(secret), &approved.certificate, &issuers) {
        Err(fault) => Plan::Foreign(Obstacle::Unproven(fault)),
        Ok(()) => match &observed.rival {
            Some(winner) => Plan::Conflict {
                winner: winner.clone(),
            },
            None => Plan::TakeUp,
        },
    }
}

/// Leaves a Secret alone that has not changed, unless the time has come to look into it.
fn keep(observed: &Observed<'_>, approved: &Approved, verified: &Verified, now: Timestamp) -> Plan {
    let in_force = approved.in_force();
    let (renew_at, _) = due(observed.pki, in_force, verified, observed.ca, now);
    let has_begun = verified.not_before.duration_since(now) <= MAX_FUTURE;
    if !has_begun || renew_at <= now {
        return Plan::Read;
    }
    Plan::Keep(Current {
        verified: verified.clone(),
        renew_at,
        approved: Box::new(in_force.clone()),
    })
}

/// When a sound certificate is to be replaced, and why then.
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

/// Whether the Secret of a refused Pki is to be looked into: its certificate is in use, and the CA
/// is being replaced; or it is to be kept.
fn matters(pki: &Pki, ca: &Ca) -> bool {
    pki.status.as_ref().is_some_and(|status| {
        let is_unpublished = lacks_ca(Some(status), ca);
        status.serial_number.is_some() && (is_unpublished || secret::is_kept(pki))
    })
}

/// Whether there is a CA that is not known yet where this status speaks of.
pub fn lacks_ca(status: Option<&PkiStatus>, ca: &Ca) -> bool {
    let known = status.and_then(|status| status.trust_fingerprint.as_deref());
    !ca.trust.pem().is_empty() && known != Some(ca.trust.fingerprint())
}

/// The Secret that is in use although the Pki names another by now, if its `ca.crt` is outdated.
pub fn unpublished_former(pki: &Pki, ca: &Ca) -> Option<Key> {
    let status = pki.status.as_ref()?;
    let former = status.secret_name.as_deref()?;
    let is_unpublished =
        status.serial_number.is_some() && former != pki.secret_name() && lacks_ca(Some(status), ca);
    is_unpublished.then(|| Key::new(pki.namespace().unwrap_or_default(), former))
}

/// Whether clients of the certificate in use would not trust the CA of others: its own Pki may be
/// refused by now.
fn is_unpublished(observed: &Observed<'_>) -> bool {
    let SecretState::Stored(secret, Owner::Ours) = &observed.secret else {
        return false;
    };
    let trust = &observed.ca.trust;
    secret::is_owned_by(secret, observed.pki)
        // Of a CA that nothing is known of there is nothing to publish.
        && !trust.pem().is_empty()
        && !trust.is_published_in(secret::file(secret, "ca.crt"))
}

impl Current {
    /// The certificate that lies in the Secret.
    pub fn certificate(&self, ca: &Ca) -> Certificate {
        let verified = self.verified.clone();
        Certificate {
            serial: verified.serial,
            not_before: verified.not_before,
            not_after: verified.not_after,
            cut_short: verified.cut_short,
            renew_at: self.renew_at,
            issuer: verified.issuer,
            trust: ca.trust.fingerprint().to_owned(),
            terms: Box::new(Terms {
                policy: self.approved.policy.clone(),
                defaults: self.approved.recorded(),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
