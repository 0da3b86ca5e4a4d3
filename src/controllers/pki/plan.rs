//! The decision: from the facts about a Pki to what is to be done, and why. Pure, and the only
//! place that decides it.

use crate::api::Delivery;
use crate::controllers::pki::content::{Owner, SecretContent};
use crate::controllers::pki::issue_backoff::Failure;
use crate::k8s::clock::MAX_FUTURE;
use crate::k8s::object_key::Key;
use crate::k8s::secret::{self, Obstacle};
use crate::model::ca::Ca;
use crate::model::outcome::{Certificate, Terms};
use crate::model::renewal_request::RenewalRequestState;
use crate::policy::{Approved, Violation};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use pki_certs::{Bundle, Verified, VerifyError};

pub use due::{IssueReason, due};
pub use facts::{Observed, SecretState};
use facts::{has_finalizer, is_being_deleted, is_unpublished, outdated_former};

mod due;
pub mod facts;

/// The work to do, and its reason.
#[derive(Debug)]
pub struct Plan {
    /// The state of the request for a renewal that the Pki carries.
    pub request: Option<RenewalRequestState>,
    /// A Secret that is in use although the Pki names another one, and whose `ca.crt` is outdated.
    pub outdated_former: Option<Key>,
    /// The action on the Secret that the Pki names.
    pub action: Action,
}

/// An action on a Secret.
#[derive(Debug)]
pub enum Action {
    /// Make a certificate and write the Secret.
    Issue(Box<Approved>, IssueReason),
    /// Write what is missing or outdated around a valid certificate.
    Repair(Current),
    /// Nothing: the Secret is as it should be.
    Keep(Current),
    /// Report what the Pki breaks of the rule book.
    Refuse {
        /// The broken rules.
        violations: Vec<Violation>,
        /// Whether its Secret, which is in use, has an outdated `ca.crt`.
        is_unpublished: bool,
    },
    /// Report that pods get their certificates by themselves.
    ServePods(Box<Approved>),
    /// Report that another Pki comes first.
    Conflict {
        /// The other Pki.
        winner: Key,
    },
    /// Report that the Secret belongs to somebody else. It stays as it is.
    Foreign(Obstacle),
    /// Own a Secret without an owner, whose certificate proves that it was issued for this Pki.
    Adopt,
    /// Report that nothing is known of the CA, so that the owner of the Secret is unknown.
    CaUnavailable(String),
    /// Wait until Kubernetes has removed the Secret, whose Pki is deleted or writes another one.
    WaitForDeletion,
    /// Report that the API server does not show the Secret.
    Fail(Failure),
    /// Give up the Secret, which is to outlive the Pki.
    ReleaseSecret,
    /// Take off the finalizer of version 0.1.
    RemoveFinalizer,
    /// Nothing: the Pki is being deleted, and its Secret goes with it.
    BeingDeleted,
}

/// The valid certificate in the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// The certificate.
    pub verified: Verified,
    /// When to renew.
    pub renew_at: Timestamp,
    /// The approval in force for it: defaults may have changed since it was issued.
    pub approved: Box<Approved>,
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

/// Decides.
pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let action = decide(observed, now).unwrap_or_else(|action| action);
    let is_blocked = matches!(
        action,
        Action::Refuse { .. } | Action::Conflict { .. } | Action::Foreign(_)
    );
    Plan {
        request: observed.request,
        outdated_former: is_blocked
            .then(|| outdated_former(&observed.pki, observed.ca))
            .flatten(),
        action,
    }
}

/// The checks in their order of precedence: the end of Secret or Pki before rules before ownership
/// before arbitration before content. A check that fails returns what is to be done about it.
fn decide(observed: &Observed<'_>, now: Timestamp) -> Result<Action, Action> {
    secret_is_readable(observed)?;
    secret_stays_with_pki(observed)?;
    pki_has_no_finalizer(observed)?;
    pki_is_not_deleted(observed)?;
    let approved = rules_permit(observed)?;
    secret_is_wanted(observed, approved)?;
    let secret = match &observed.secret {
        SecretState::Unchanged(verified) => {
            return not_due(observed, approved, approved.in_force(), verified, now)
                .map(Action::Keep);
        }
        SecretState::Stored(secret, owner) => {
            secret_is_ours(observed, approved, secret, owner)?;
            secret
        }
        SecretState::Absent | SecretState::Unreadable(_) => return Err(create(observed, approved)),
    };
    let bundle = secret::bundle(secret);
    let (in_force, verified) = certificate_is_valid(bundle, approved, observed.ca, now)?;
    let current = not_due(observed, approved, in_force, &verified, now)?;
    let content = SecretContent {
        pki: &observed.pki,
        approved: in_force,
        bundle,
        trust: &observed.ca.trust,
        passwords: observed.passwords_for(in_force),
    };
    Ok(if content.is_in(secret) {
        Action::Keep(current)
    } else {
        Action::Repair(current)
    })
}

fn secret_is_readable(observed: &Observed<'_>) -> Result<(), Action> {
    match &observed.secret {
        SecretState::Unreadable(failure) => Err(Action::Fail(failure.clone())),
        _ => Ok(()),
    }
}

/// A Secret that is to outlive its Pki loses its owner, also where the Pki is refused: somebody may
/// be about to delete the Pki for that.
fn secret_stays_with_pki(observed: &Observed<'_>) -> Result<(), Action> {
    let pki = &observed.pki;
    let is_released = |secret| secret::is_kept(pki) && secret::is_controlled_by(secret, pki);
    if observed.stored().is_some_and(is_released) {
        return Err(Action::ReleaseSecret);
    }
    Ok(())
}

fn pki_has_no_finalizer(observed: &Observed<'_>) -> Result<(), Action> {
    if has_finalizer(&observed.pki) {
        return Err(Action::RemoveFinalizer);
    }
    Ok(())
}

fn pki_is_not_deleted(observed: &Observed<'_>) -> Result<(), Action> {
    if is_being_deleted(&observed.pki) || observed.is_leaving {
        return Err(Action::BeingDeleted);
    }
    Ok(())
}

fn rules_permit<'a>(observed: &'a Observed<'_>) -> Result<&'a Approved, Action> {
    observed
        .verdict
        .as_ref()
        .map_err(|violations| Action::Refuse {
            violations: violations.clone(),
            is_unpublished: is_unpublished(observed),
        })
}

fn secret_is_wanted(observed: &Observed<'_>, approved: &Approved) -> Result<(), Action> {
    match observed.pki.delivery() {
        Delivery::Secret => Ok(()),
        Delivery::Pod => Err(Action::ServePods(Box::new(approved.clone()))),
    }
}

/// Decides about a Secret that does not exist.
fn create(observed: &Observed<'_>, approved: &Approved) -> Action {
    match &observed.rival {
        Some(winner) => conflict(winner),
        None => Action::Issue(Box::new(approved.clone()), IssueReason::NoSecret),
    }
}

fn conflict(winner: &Key) -> Action {
    let winner = winner.clone();
    Action::Conflict { winner }
}

fn secret_is_ours(
    observed: &Observed<'_>,
    approved: &Approved,
    secret: &Secret,
    owner: &Owner,
) -> Result<(), Action> {
    Err(match (owner, &observed.rival) {
        (Owner::Ours, _) => return Ok(()),
        (Owner::Foreign(obstacle), _) => adopt(observed, approved, secret, obstacle),
        (Owner::Rival(winner), _) | (Owner::FormerPki, Some(winner)) => conflict(winner),
        (Owner::FormerPki, None) => Action::WaitForDeletion,
    })
}

/// Decides about a Secret that is not this Pki's by any reference. One that has lost its owner, to
/// `--cascade=orphan` or in a backup, is recognized by its certificate and key: labels only say
/// that it is worth verifying.
fn adopt(
    observed: &Observed<'_>,
    approved: &Approved,
    secret: &Secret,
    obstacle: &Obstacle,
) -> Action {
    if *obstacle != Obstacle::Unclaimed || !secret::is_labelled(secret) {
        return Action::Foreign(obstacle.clone());
    }
    let ca = observed.ca;
    if let (true, Err(alarm)) = (ca.issuers.is_empty(), &ca.signer) {
        // Nothing is proven without a CA, and nothing refuted.
        return Action::CaUnavailable(alarm.to_string());
    }
    let issuers: Vec<_> = ca.issuers.iter().collect();
    match pki_certs::recognize(&secret::bundle(secret), &approved.certificate, &issuers) {
        Err(fault) => Action::Foreign(Obstacle::Unproven(fault)),
        Ok(()) => observed.rival.as_ref().map_or(Action::Adopt, conflict),
    }
}

/// Verifies the certificate against what is in force for it, so that a restart or a new leader
/// issues nothing. The status, which has what is in force, may not be written yet: a certificate
/// that fits the next approval is valid as well.
fn certificate_is_valid<'a>(
    bundle: Bundle<'_>,
    approved: &'a Approved,
    ca: &Ca,
    now: Timestamp,
) -> Result<(&'a Approved, Verified), Action> {
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
        next.and_then(|next| verify(next).ok())
            .ok_or_else(|| Action::Issue(Box::new(approved.clone()), IssueReason::Invalid(fault)))
    })
}

fn not_due(
    observed: &Observed<'_>,
    approved: &Approved,
    in_force: &Approved,
    verified: &Verified,
    now: Timestamp,
) -> Result<Current, Action> {
    let (renew_at, reason) = due(&observed.pki, in_force, verified, observed.ca, now);
    if renew_at <= now {
        return Err(Action::Issue(Box::new(approved.clone()), reason));
    }
    Ok(Current {
        verified: verified.clone(),
        renew_at,
        approved: Box::new(in_force.clone()),
    })
}

#[cfg(test)]
mod tests;
