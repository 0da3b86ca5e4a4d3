//! Makes a certificate and writes it.

use super::issue_backoff::Failure;
use super::plan::{Current, IssueReason, Observed, due};
use super::priority_queue::Priority;
use super::{Context, ReconcileError, secret_writes};
use crate::api::{Pki, PkiStatus};
use crate::k8s::object_key::Key;
use crate::k8s::{api_error, secret};
use crate::model::keystore::Unmade;
use crate::model::outcome::{Certificate, Outcome};
use crate::policy::Approved;
use jiff::{SignedDuration, Timestamp};
use pki_certs::{Authority, Bundle, PrivateKeyPem, Verified};
use std::sync::Arc;

/// Time for which a Pki waits for its key before its status reports it.
const SILENT_WAIT: SignedDuration = SignedDuration::from_secs(5);

/// The error of an issuance, for the author of the Pki.
#[derive(Debug, thiserror::Error)]
enum IssueError {
    #[error(transparent)]
    Certificate(#[from] pki_certs::IssueError),
    #[error("{}", api_error::message(.0))]
    Write(#[from] kube::Error),
}

/// Makes a certificate and writes the Secret. A failure is an outcome, reported to the author and
/// tried again; a conflict is none. There is no outcome while the key is being made.
pub(super) async fn issue(
    observed: &Observed<'_>,
    approved: &Approved,
    reason: &IssueReason,
    context: &Context,
    now: Timestamp,
) -> Result<Option<Outcome>, ReconcileError> {
    let signer = match &observed.ca.signer {
        Ok(signer) => signer.clone(),
        Err(alarm) => {
            context.metrics.issuance_failed("ca");
            return Ok(Some(Outcome::Unsigned(alarm.to_string())));
        }
    };
    let pki = &observed.pki;
    let is_damage = reason.is_damage() && secret_writes::was_written(observed, context);
    if let Some(held) = secret_writes::held(observed, is_damage, context, now) {
        return Ok(Some(held));
    }
    let kept = kept_key(observed, approved, &signer, now);
    let key = match kept.map_or_else(|| new_key(observed, approved, reason, context, now), Ok) {
        Ok(key) => key,
        Err(NoKey::Failed(error)) => {
            return Ok(Some(failed(
                pki,
                (&error).into(),
                "certificate",
                context,
                now,
            )));
        }
        Err(NoKey::Ordered(since)) => return Ok(await_key(pki, approved, since, context, now)),
    };
    match write_certificate(observed, approved, signer, &key, context, now).await {
        Ok((certificate, unmade)) => {
            context.metrics.issued(reason.label());
            tracing::info!(pki = %Key::of(pki), secret = approved.secret_name, serial = certificate.serial,
                not_after = %certificate.not_after, %reason, "issued");
            secret_writes::note_write(observed, is_damage, context, now);
            context.issue_backoff.forget(&Key::of(pki));
            // Each certificate gets a key of its own.
            context.keys.forget(&Key::of(pki));
            Ok(Some(Outcome::of(certificate, unmade)))
        }
        Err(IssueError::Certificate(error)) => Ok(Some(failed(
            pki,
            (&error).into(),
            "certificate",
            context,
            now,
        ))),
        Err(IssueError::Write(error)) => write_failed(pki, &error, context, now).map(Some),
    }
}

/// The outcome of a write of a Secret that failed. A conflict is none.
pub(super) fn write_failed(
    pki: &Pki,
    error: &kube::Error,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, ReconcileError> {
    if api_error::is_conflict(error) {
        return Err(ReconcileError::outdated(pki));
    }
    Ok(failed(pki, error.into(), "api", context, now))
}

/// Counts a failure, by the metric's `reason`. The outcome has the time of the next attempt.
pub(super) fn failed(
    pki: &Pki,
    failure: Failure,
    reason: &'static str,
    context: &Context,
    now: Timestamp,
) -> Outcome {
    context.metrics.issuance_failed(reason);
    tracing::warn!(pki = %Key::of(pki), error = failure.error, "failed to issue");
    context.issue_backoff.failed(pki, failure, now)
}

/// There is no key for a certificate.
enum NoKey {
    /// The key is ordered since this time, and not made yet.
    Ordered(Timestamp),
    /// The key cannot be made.
    Failed(pki_certs::IssueError),
}

/// The key in the Secret, if it is to be kept and fits the approval.
fn kept_key(
    observed: &Observed<'_>,
    approved: &Approved,
    signer: &Authority,
    now: Timestamp,
) -> Option<PrivateKeyPem> {
    let secret = observed.stored()?;
    if !approved.keeps_key || !secret::is_owned_by(secret, &observed.pki) {
        return None;
    }
    let key = secret::file(secret, "tls.key");
    let leaf = signer.issue_for(&approved.certificate, key, at_earliest(signer, now));
    leaf.ok().map(|leaf| leaf.private_key_pem)
}

/// A new key. A key that takes long to make is ordered.
fn new_key(
    observed: &Observed<'_>,
    approved: &Approved,
    reason: &IssueReason,
    context: &Context,
    now: Timestamp,
) -> Result<PrivateKeyPem, NoKey> {
    let algorithm = approved.certificate.key;
    let made = if algorithm.is_slow() {
        let priority = if reason.is_damage() {
            Priority::New
        } else {
            Priority::Renewal
        };
        let made = context.keys.get(&observed.pki, algorithm, priority, now);
        made.map_err(NoKey::Ordered)?
    } else {
        algorithm.private_key()
    };
    made.map_err(NoKey::Failed)
}

/// The outcome for a Pki without a certificate whose key takes long. A Pki with one has no news:
/// its certificate is in use meanwhile.
fn await_key(
    pki: &Pki,
    approved: &Approved,
    since: Timestamp,
    context: &Context,
    now: Timestamp,
) -> Option<Outcome> {
    let status = pki.status.as_ref();
    if status.is_some_and(PkiStatus::has_certificate) {
        return None;
    }
    let silent_until = since + SILENT_WAIT;
    if now < silent_until {
        context.schedule.hasten(context.key(pki), silent_until);
        return None;
    }
    Some(Outcome::AwaitKey(approved.certificate.key))
}

/// Signs a certificate for this key and writes it.
async fn write_certificate(
    observed: &Observed<'_>,
    approved: &Approved,
    signer: Arc<Authority>,
    key: &PrivateKeyPem,
    context: &Context,
    now: Timestamp,
) -> Result<(Certificate, Vec<Unmade>), IssueError> {
    let now = at_earliest(&signer, now);
    let leaf = signer.issue_for(&approved.certificate, key.as_bytes(), now)?;
    let bundle = Bundle {
        certificate: leaf.chain_pem.as_bytes(),
        private_key: leaf.private_key_pem.as_bytes(),
    };
    let verified = Verified {
        serial: leaf.serial,
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        issuer: signer.ca().fingerprint().to_owned(),
        cut_short: leaf.cut_short,
    };
    let unmade = secret_writes::store(observed, approved, bundle, &verified, context).await?;
    let (renew_at, _) = due(&observed.pki, approved, &verified, observed.ca, now);
    let approved = Box::new(approved.clone());
    let current = Current {
        verified,
        renew_at,
        approved,
    };
    Ok((current.certificate(observed.ca), unmade))
}

/// The time to issue at: the clock may have gone back since the CA was made.
fn at_earliest(signer: &Authority, now: Timestamp) -> Timestamp {
    now.max(signer.ca().not_before())
}
