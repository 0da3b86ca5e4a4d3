//! The writes of Secrets that a [`Plan`](super::plan::Plan) comes to, each bound to the version
//! that it was decided on.

use super::plan::{Current, IssueReason, Observed, due};
use super::priority_queue::Priority;
use super::remedy::remedy;
use super::retry::Failure;
use super::{Context, ReconcileError};
use crate::api::Pki;
use crate::controllers::pki::content::SecretContent;
use crate::events;
use crate::k8s::object_key::Key;
use crate::k8s::tolerant::Lenient;
use crate::k8s::{api_error, patch, secret};
use crate::model::ca::Ca;
use crate::model::keystore::Unmade;
use crate::model::outcome::{Certificate, Outcome};
use crate::policy::Approved;
use crate::store::cached_secret::Version;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::Patch;
use pki_certs::{Authority, Bundle, PrivateKeyPem, Verified};
use serde_json::{Value, json};
use std::sync::Arc;

/// How long a Pki waits for its key before its status says so.
const SILENT_WAIT: SignedDuration = SignedDuration::from_secs(5);

/// Why no certificate was written, which the Pki's author hears.
#[derive(Debug, thiserror::Error)]
enum IssueError {
    #[error(transparent)]
    Certificate(#[from] pki_certs::IssueError),
    #[error("{}", api_error::message(.0))]
    Write(#[from] kube::Error),
}

/// Makes a certificate and writes the Secret. Failure is an outcome, told to the author and tried
/// again; that somebody was faster is none. There is no outcome either while the key is being made.
pub(super) async fn issue(
    observed: &Observed<'_>,
    approved: &Approved,
    need: &IssueReason,
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
    let pki = observed.pki;
    if let Some(held) = context.retries.held(pki, now) {
        return Ok(Some(held));
    }
    // Also where the status tells nothing, because somebody else writes that as well.
    let is_damage = need.is_damage() && (was_settled(observed) || has_written(observed, context));
    if is_damage && let Some(contested) = contested(observed, context, now) {
        return Ok(Some(contested));
    }
    let kept = kept_key(observed, approved, &signer, now);
    let key = match kept.map_or_else(|| new_key(observed, approved, need, context, now), Ok) {
        Ok(key) => key,
        Err(NoKey::Failed(error)) => return failure(pki, &error, context, now).map(Some),
        Err(NoKey::Awaited(since)) => return Ok(await_key(pki, approved, since, context, now)),
    };
    match write_certificate(observed, approved, signer, &key, context, now).await {
        Ok((certificate, unmade)) => {
            context.metrics.issued(need.label());
            tracing::info!(pki = %Key::of(pki), secret = approved.secret_name, serial = certificate.serial,
                not_after = %certificate.not_after, why = %need, "issued");
            note_write(observed, is_damage, context, now);
            context.retries.forget(&Key::of(pki));
            // Each certificate gets a key of its own.
            context.keys.forget(&Key::of(pki));
            Ok(Some(Outcome::of(certificate, unmade)))
        }
        Err(error) => failure(pki, &error, context, now).map(Some),
    }
}

/// Why there is no key for a certificate.
enum NoKey {
    /// The key is ordered since this time, and not made yet.
    Awaited(Timestamp),
    /// The key cannot be made, or nothing can be done with it.
    Failed(IssueError),
}

/// The key in the Secret, if it is to be kept and will do.
fn kept_key(
    observed: &Observed<'_>,
    approved: &Approved,
    signer: &Authority,
    now: Timestamp,
) -> Option<PrivateKeyPem> {
    let secret = observed.stored()?;
    if !approved.keeps_key || !secret::is_owned_by(secret, observed.pki) {
        return None;
    }
    let key = secret::file(secret, "tls.key");
    let leaf = signer.issue_for(&approved.certificate, key, at_earliest(signer, now));
    leaf.ok().map(|leaf| leaf.private_key_pem)
}

/// A new key. One that takes long to make is ordered.
fn new_key(
    observed: &Observed<'_>,
    approved: &Approved,
    need: &IssueReason,
    context: &Context,
    now: Timestamp,
) -> Result<PrivateKeyPem, NoKey> {
    let algorithm = approved.certificate.key;
    let made = if algorithm.is_slow() {
        let priority = if need.is_damage() {
            Priority::New
        } else {
            Priority::Renewal
        };
        let made = context.keys.get(observed.pki, algorithm, priority, now);
        made.map_err(NoKey::Awaited)?
    } else {
        algorithm.private_key()
    };
    made.map_err(|error| NoKey::Failed(error.into()))
}

/// A Pki without a certificate whose key takes long says so. Of another one there is nothing to
/// say: its certificate is in use meanwhile.
fn await_key(
    pki: &Pki,
    approved: &Approved,
    since: Timestamp,
    context: &Context,
    now: Timestamp,
) -> Option<Outcome> {
    let status = pki.status.as_ref();
    if status.is_some_and(|status| status.serial_number.is_some()) {
        return None;
    }
    let silent_until = since + SILENT_WAIT;
    if now < silent_until {
        context.schedule.hasten(context.key(pki), silent_until);
        return None;
    }
    Some(Outcome::AwaitKey(approved.certificate.key))
}

/// Writes what is missing or outdated around a sound certificate.
pub(super) async fn mend(
    observed: &Observed<'_>,
    current: Current,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, ReconcileError> {
    let approved = &current.approved;
    if let Some(held) = context.retries.held(observed.pki, now) {
        return Ok(held);
    }
    let secret = observed.stored().expect("what is mended was read");
    let is_damage = was_settled(observed);
    if is_damage && let Some(contested) = contested(observed, context, now) {
        return Ok(contested);
    }
    let bundle = secret::bundle(secret);
    let written = store(observed, approved, bundle, &current.verified, context).await;
    match written {
        Ok(unmade) => {
            tracing::info!(pki = %Key::of(observed.pki), secret = approved.secret_name, "mended the Secret");
            note_write(observed, is_damage, context, now);
            context.retries.forget(&Key::of(observed.pki));
            let certificate = Current::certificate(&current, observed.ca);
            Ok(Outcome::of(certificate, unmade))
        }
        Err(error) => failure(observed.pki, &error, context, now),
    }
}

/// Takes up a Secret again that has lost its owner. Nothing but the owner is written: the next
/// reconcile, which that write brings about, verifies the Secret like any other.
pub(super) async fn take_up(
    observed: &Observed<'_>,
    context: &Context,
    now: Timestamp,
) -> Result<Option<Outcome>, ReconcileError> {
    let pki = observed.pki;
    if let Some(held) = context.retries.held(pki, now) {
        return Ok(Some(held));
    }
    let is_damage = was_settled(observed);
    if is_damage && let Some(contested) = contested(observed, context, now) {
        return Ok(Some(contested));
    }
    let secret = observed.stored().expect("the Secret was read");
    let change = secret::take_up(secret, pki);
    match change_secret(pki, secret, &change, context).await {
        Ok(_) => {
            tracing::info!(pki = %Key::of(pki), secret = %Key::of(secret), "took the Secret up again");
            note_write(observed, is_damage, context, now);
            context.publisher.offer(events::about_adoption(pki, now));
            Ok(None)
        }
        Err(error) => failure(pki, &error.into(), context, now).map(Some),
    }
}

/// Makes the CA known in the Secret of a Pki that gets no new certificate; whether that could be
/// written.
pub(super) async fn publish(
    pki: &Pki,
    secret: &Secret,
    ca: &Ca,
    context: &Context,
) -> Result<bool, ReconcileError> {
    let trust = k8s_openapi::ByteString(ca.trust.pem().into());
    let mut change = json!({ "data": { "ca.crt": trust } });
    patch::bind(&mut change, secret);
    match change_secret(pki, secret, &change, context).await {
        Ok(_) => Ok(true),
        Err(error) if api_error::is_conflict(&error) => Err(outdated(pki)),
        // An immutable Secret, for example, is left behind; the look goes on.
        Err(error) if api_error::is_refusal(&error) => {
            tracing::warn!(pki = %Key::of(pki), %error, "cannot make the CA known in its Secret");
            Ok(false)
        }
        Err(source) => Err(ReconcileError::ChangeSecret {
            secret: Key::of(secret),
            source,
        }),
    }
}

fn failure(
    pki: &Pki,
    error: &IssueError,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, ReconcileError> {
    let reason = match error {
        IssueError::Write(error) if api_error::is_conflict(error) => return Err(outdated(pki)),
        IssueError::Write(_) => "api",
        IssueError::Certificate(_) => "certificate",
    };
    context.metrics.issuance_failed(reason);
    let refusal = match error {
        IssueError::Write(refusal) => Some(refusal),
        IssueError::Certificate(_) => None,
    };
    let failure = Failure {
        error: error.to_string(),
        remedy: refusal.and_then(remedy),
        is_final: refusal.is_some_and(api_error::is_namespace_ending),
    };
    let failed = context.retries.failed(pki, failure, now);
    tracing::warn!(pki = %Key::of(pki), %error, "cannot issue");
    Ok(failed)
}

/// The API server does not let the operator see what there is: told and tried again as when it does
/// not let it write.
pub(super) fn refused(
    pki: &Pki,
    error: kube::Error,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, ReconcileError> {
    match context.retries.held(pki, now) {
        Some(held) => Ok(held),
        None => failure(pki, &IssueError::Write(error), context, now),
    }
}

pub(super) fn outdated(pki: &Pki) -> ReconcileError {
    ReconcileError::Outdated { pki: Key::of(pki) }
}

/// Whether the Secret was as it should be when it was last looked at, by the present spec and CA:
/// then somebody else has changed it.
fn was_settled(observed: &Observed<'_>) -> bool {
    let Observed { pki, ca, .. } = observed;
    pki.status.as_ref().is_some_and(|status| {
        status.serial_number.is_some()
            && status.secret_name.as_deref() == Some(pki.secret_name())
            && status.observed_generation == pki.metadata.generation
            && status.trust_fingerprint.as_deref() == Some(ca.trust.fingerprint())
    })
}

/// That it is too early to repair the Secret once more.
fn contested(observed: &Observed<'_>, context: &Context, now: Timestamp) -> Option<Outcome> {
    let key = Key::of(observed.pki);
    let wanted = wanted(observed);
    let next = context.contests.may_repair(&key, &wanted, now).err()?;
    let by = observed.stored().map(|secret| {
        let other = secret::other_writer(secret);
        other.unwrap_or("another pki-operator").to_owned()
    });
    Some(Outcome::Contested { by, next })
}

/// Whether the very same has been written before, not long ago.
fn has_written(observed: &Observed<'_>, context: &Context) -> bool {
    let key = Key::of(observed.pki);
    context.contests.has_written(&key, &wanted(observed))
}

fn note_write(observed: &Observed<'_>, is_repair: bool, context: &Context, now: Timestamp) {
    let key = context.key(observed.pki);
    context
        .contests
        .wrote(&key, &wanted(observed), is_repair, now);
}

/// A name for what was to be written.
fn wanted(observed: &Observed<'_>) -> String {
    let meta = &observed.pki.metadata;
    let (uid, generation) = (meta.uid.as_deref(), meta.generation);
    let trust = observed.ca.trust.fingerprint();
    let passwords = &observed.passwords.versions;
    format!("{uid:?} {generation:?} {trust} {passwords:?}")
}

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
    let unmade = store(observed, approved, bundle, &verified, context).await?;
    let (renew_at, _) = due(observed.pki, approved, &verified, observed.ca, now);
    let approved = Box::new(approved.clone());
    let current = Current {
        verified,
        renew_at,
        approved,
    };
    Ok((Current::certificate(&current, observed.ca), unmade))
}

/// The time to issue at: the clock may have gone back since the CA was made.
fn at_earliest(signer: &Authority, now: Timestamp) -> Timestamp {
    now.max(signer.ca().not_before())
}

/// Writes the Secret with this certificate and key, and notes what was written, so that it is not
/// read again. Returns the keystores that cannot be written: neither certificate nor CA wait for
/// them.
async fn store(
    observed: &Observed<'_>,
    approved: &Approved,
    bundle: Bundle<'_>,
    verified: &Verified,
    context: &Context,
) -> Result<Vec<Unmade>, IssueError> {
    let pki = observed.pki;
    let wanted = SecretContent {
        pki,
        approved,
        bundle,
        trust: &observed.ca.trust,
        passwords: observed.passwords_for(approved),
    };
    let (stored, unmade) = if let Some(secret) = observed.stored() {
        let (change, unmade) = wanted.change(secret);
        (change_secret(pki, secret, &change, context).await?, unmade)
    } else {
        let (manifest, unmade) = wanted.manifest();
        (create_secret(pki, manifest, context).await?, unmade)
    };
    if !unmade.is_empty() {
        context.metrics.issuance_failed("format");
    }
    // Other webhooks may have had their say. A keystore that is missing is seen only where the
    // passwords are read.
    if unmade.is_empty() && secret::bundle(&stored) == bundle && wanted.is_in(&stored) {
        let version = Version::of(&stored);
        context
            .findings
            .sound(context.key(pki), observed, approved, &version, verified);
    } else {
        context.findings.doubtful(Key::of(pki));
    }
    Ok(unmade)
}

/// A create and no apply: of two writers, one is told that the Secret exists.
async fn create_secret(
    pki: &Pki,
    manifest: Secret,
    context: &Context,
) -> Result<Secret, kube::Error> {
    let secrets = context.secrets(&pki.namespace().unwrap_or_default());
    let created = secrets.create(&patch::post(), &Lenient(manifest)).await;
    if created.as_ref().is_err_and(api_error::is_conflict) {
        context.findings.doubtful(Key::of(pki));
    }
    created.map(|Lenient(secret)| secret)
}

pub(super) async fn change_secret(
    pki: &Pki,
    secret: &Secret,
    change: &Value,
    context: &Context,
) -> Result<Secret, kube::Error> {
    let secrets = context.secrets(&pki.namespace().unwrap_or_default());
    let patch = Patch::Merge(change);
    let Lenient(changed) = secrets
        .patch(&secret.name_any(), &patch::patch(), &patch)
        .await?;
    Ok(changed)
}
