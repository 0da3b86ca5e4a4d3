//! The writes of Secrets that a [`Plan`](super::plan::Plan) comes to, each bound to the version that it was decided on.

use super::plan::{Current, Need, Observed, due};
use super::secret::formats::FormatError;
use super::secret::{self, Content};
use super::status::{Certificate, Outcome};
use super::{Context, Error, write};
use crate::api::Pki;
use crate::index::Key;
use crate::policy::Approved;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Patch;
use kube::{Api, ResourceExt};
use pki_certs::{Authority, Bundle, KeyAlgorithm, Leaf, LeafRequest, Verified};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use tokio::sync::Semaphore;

/// Why no certificate was written, which the Pki's author hears.
#[derive(Debug, thiserror::Error)]
enum IssueError {
    #[error(transparent)]
    Certificate(#[from] pki_certs::IssueError),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("{}", api_message(.0))]
    Write(#[from] kube::Error),
}

/// The API server's own sentence (a quota, a missing permission), without this client's wrapping.
fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Makes a certificate and writes the Secret. Failure is an outcome, told to the author and tried again; that somebody
/// was faster is none.
pub(super) async fn issue(
    observed: &Observed<'_>,
    approved: &Approved,
    need: &Need,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, Error> {
    let signer = match &observed.ca.signer {
        Ok(signer) => signer.clone(),
        Err(alarm) => {
            context.metrics.issuance_failed("ca");
            return Ok(Outcome::Unsigned(alarm.to_string()));
        }
    };
    let is_damage = need.is_damage() && was_settled(observed);
    if is_damage && let Some(contested) = contested(observed, context, now) {
        return Ok(contested);
    }
    let pki = observed.pki;
    match write_certificate(observed, approved, signer, context, now).await {
        Ok(certificate) => {
            context.metrics.issued(need.label());
            tracing::info!(pki = %Key::of(pki), secret = approved.secret_name, serial = certificate.serial,
                not_after = %certificate.not_after, why = %need, "issued");
            if is_damage {
                note_repair(observed, context, now);
            }
            context.retries.forget(&Key::of(pki));
            Ok(Outcome::Ready(certificate))
        }
        Err(error) => failure(pki, &error, context, now),
    }
}

/// Writes what is missing or outdated around a sound certificate.
pub(super) async fn mend(
    observed: &Observed<'_>,
    approved: &Approved,
    current: Current,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, Error> {
    let (secret, _) = observed.secret.as_ref().expect("what is mended is there");
    let is_damage = was_settled(observed);
    if is_damage && let Some(contested) = contested(observed, context, now) {
        return Ok(contested);
    }
    let written = store(observed, approved, secret::bundle(secret), context).await;
    match written {
        Ok(()) => {
            tracing::info!(pki = %Key::of(observed.pki), secret = approved.secret_name, "mended the Secret");
            if is_damage {
                note_repair(observed, context, now);
            }
            context.retries.forget(&Key::of(observed.pki));
            Ok(Outcome::Ready(Certificate::of(&current, observed.ca)))
        }
        Err(error) => failure(observed.pki, &error, context, now),
    }
}

/// Makes the CA known in the Secret of a Pki that gets no new certificate. Whether that was possible.
pub(super) async fn publish(observed: &Observed<'_>, context: &Context) -> Result<bool, Error> {
    let Some((secret, _)) = &observed.secret else {
        return Ok(false);
    };
    let trust = k8s_openapi::ByteString(observed.ca.trust.pem().into());
    let mut change = json!({ "data": { "ca.crt": trust } });
    write::bind(&mut change, secret);
    match change_secret(observed.pki, secret, &change, context).await {
        Ok(()) => Ok(true),
        Err(error) if write::is_conflict(&error) => Err(outdated(observed.pki)),
        Err(error) => {
            tracing::warn!(pki = %Key::of(observed.pki), %error, "cannot make the CA known in its Secret");
            Ok(false)
        }
    }
}

fn failure(
    pki: &Pki,
    error: &IssueError,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, Error> {
    let reason = match error {
        IssueError::Write(error) if write::is_conflict(error) => return Err(outdated(pki)),
        IssueError::Write(_) => "api",
        IssueError::Format(_) => "format",
        IssueError::Certificate(_) => "certificate",
    };
    context.metrics.issuance_failed(reason);
    let (attempts, pause) = context.retries.failed(pki);
    tracing::warn!(pki = %Key::of(pki), attempts, %error, "cannot issue");
    Ok(Outcome::Failed {
        error: error.to_string(),
        attempts,
        next: now + pause,
    })
}

pub(super) fn outdated(pki: &Pki) -> Error {
    Error::Outdated { pki: Key::of(pki) }
}

/// Whether the Secret was as it should be when it was last looked at, by the present spec and CA: then somebody else has
/// changed it.
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
    let (repairs, next) = context.contests.may_repair(&key, &wanted, now).err()?;
    let secret = observed.secret.as_ref().map(|(secret, _)| secret);
    Some(Outcome::Contested {
        by: secret.and_then(secret::other_writer).map(str::to_owned),
        repairs,
        next,
    })
}

fn note_repair(observed: &Observed<'_>, context: &Context, now: Timestamp) {
    let wanted = wanted(observed);
    context
        .contests
        .repaired(&Key::of(observed.pki), &wanted, now);
}

/// A name for what was to be written.
fn wanted(observed: &Observed<'_>) -> String {
    let meta = &observed.pki.metadata;
    let (uid, generation) = (meta.uid.as_deref(), meta.generation);
    let trust = observed.ca.trust.fingerprint();
    format!("{uid:?} {generation:?} {trust}")
}

async fn write_certificate(
    observed: &Observed<'_>,
    approved: &Approved,
    signer: Arc<Authority>,
    context: &Context,
    now: Timestamp,
) -> Result<Certificate, IssueError> {
    let secret = observed.secret.as_ref().map(|(secret, _)| secret);
    let kept =
        secret.filter(|secret| approved.keeps_key && secret::is_owned_by(secret, observed.pki));
    let kept = kept.map(|secret| secret::file(secret, "tls.key"));
    let leaf = make(signer.clone(), &approved.certificate, kept, now).await?;
    let bundle = Bundle {
        certificate: leaf.chain_pem.as_bytes(),
        private_key: leaf.private_key_pem.as_bytes(),
    };
    store(observed, approved, bundle, context).await?;
    let verified = Verified {
        serial: leaf.serial,
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        issuer: signer.ca().fingerprint().to_owned(),
        cut_short: leaf.cut_short,
    };
    let (renew_at, _) = due(observed.pki, approved, &verified, observed.ca, now);
    let current = Current { verified, renew_at };
    Ok(Certificate::of(&current, observed.ca))
}

/// An RSA key takes up to seconds of computing, which nothing else should wait for; but not every core of the machine.
static RSA: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new((cores / 2).max(1))
});

/// Signs for the key that is to be kept, if there is one that will do; else for a new one.
async fn make(
    signer: Arc<Authority>,
    request: &LeafRequest,
    kept: Option<&[u8]>,
    now: Timestamp,
) -> Result<Leaf, pki_certs::IssueError> {
    if let Some(key) = kept
        && let Ok(leaf) = signer.issue_for(request, key, now)
    {
        return Ok(leaf);
    }
    if !matches!(
        request.key,
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096
    ) {
        return signer.issue(request, now);
    }
    let _permit = RSA.acquire().await.expect("the semaphore is never closed");
    let request = request.clone();
    let made = tokio::task::spawn_blocking(move || signer.issue(&request, now)).await;
    made.expect("issuing does not panic")
}

/// Writes the Secret with this certificate and key.
async fn store(
    observed: &Observed<'_>,
    approved: &Approved,
    bundle: Bundle<'_>,
    context: &Context,
) -> Result<(), IssueError> {
    let pki = observed.pki;
    let wanted = Content {
        pki,
        approved,
        bundle,
        trust: &observed.ca.trust,
        passwords: &observed.passwords,
    };
    if let Some((secret, _)) = &observed.secret {
        change_secret(pki, secret, &wanted.change(secret)?, context).await?;
    } else {
        // A create and no apply: of two writers, one is told that the Secret exists.
        let namespace = pki.namespace().unwrap_or_default();
        let secrets = Api::<Secret>::namespaced(context.client.clone(), &namespace);
        secrets.create(&write::post(), &wanted.manifest()?).await?;
    }
    Ok(())
}

pub(super) async fn change_secret(
    pki: &Pki,
    secret: &Secret,
    change: &Value,
    context: &Context,
) -> Result<(), kube::Error> {
    let namespace = pki.namespace().unwrap_or_default();
    let secrets = Api::<Secret>::namespaced(context.client.clone(), &namespace);
    let patch = Patch::Merge(change);
    secrets
        .patch(&secret.name_any(), &write::patch(), &patch)
        .await?;
    Ok(())
}
