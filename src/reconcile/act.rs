//! What a [`Plan`](super::plan::Plan) comes to: the writes, each bound to the version that it was decided on.

use super::plan::{Current, Need, Observed, RENEW_NOW, due};
use super::secret::formats::FormatError;
use super::secret::{self, ADOPT, Content};
use super::status::{self, Certificate, Outcome};
use super::{Context, Error, write};
use crate::api::{Pki, PkiStatus};
use crate::cache;
use crate::events;
use crate::index::Key;
use crate::policy::Approved;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use pki_certs::{Authority, Bundle, KeyAlgorithm, Leaf, LeafRequest, Verified};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use std::time::Instant;
use tokio::sync::Semaphore;

/// Annotation on a Pki: its Secret stays when the Pki is deleted. `"true"` switches it on.
pub(super) const KEEP_SECRET: &str = "box.com/keep-secret";
/// Holds the deletion of such a Pki until its Secret has been let go.
const FINALIZER: &str = "box.com/keep-secret";

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

fn outdated(pki: &Pki) -> Error {
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

async fn change_secret(
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

/// Writes the status if it changed, tells those who should hear, and says when to look again.
pub(super) async fn conclude(
    pki: &Pki,
    outcome: &Outcome,
    context: &Context,
    now: Timestamp,
) -> Result<Action, Error> {
    let key = Key::of(pki);
    if matches!(outcome, Outcome::Ready(_)) {
        remove_former(pki, context).await?;
    }
    let status = status::after(pki, outcome, now);
    let users: Vec<_> = {
        let secret = Key::new(key.namespace.clone(), pki.secret_name());
        cache::read(&context.cache.pods)
            .naming(&secret)
            .cloned()
            .collect()
    };
    for notice in events::about(pki, outcome, &status, &users) {
        context.publisher.offer(notice);
    }
    if pki.status.as_ref() != Some(&status) {
        write_status(pki, &status, context).await?;
    }
    match outcome {
        Outcome::Ready(certificate) => context.schedule.set(key, certificate.renew_at),
        _ => context.schedule.forget(&key),
    }
    Ok(match outcome {
        Outcome::Failed { next, .. } | Outcome::Contested { next, .. } => {
            Action::requeue(next.duration_since(now).unsigned_abs())
        }
        fault if fault.is_fault() && !users.is_empty() => Action::requeue(context.reminder),
        _ => Action::await_change(),
    })
}

/// Deletes the Secret that this Pki wrote before `spec.secretName` was changed, if it is still its own.
async fn remove_former(pki: &Pki, context: &Context) -> Result<(), Error> {
    let former = pki
        .status
        .as_ref()
        .and_then(|status| status.secret_name.as_deref());
    let Some(former) = former.filter(|former| *former != pki.secret_name()) else {
        return Ok(());
    };
    let key = Key::new(pki.namespace().unwrap_or_default(), former);
    let Some(secret) = context.read_secret(&key).await? else {
        return Ok(());
    };
    if !secret::is_owned_by(&secret, pki) {
        return Ok(());
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: secret.uid(),
            resource_version: secret.resource_version(),
        }),
        ..DeleteParams::default()
    };
    let secrets = Api::<Secret>::namespaced(context.client.clone(), &key.namespace);
    match secrets.delete(&key.name, &params).await {
        Ok(_) => {
            tracing::info!(pki = %Key::of(pki), secret = %key, "removed the Secret that it no longer names");
            Ok(())
        }
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(()),
        Err(error) if write::is_conflict(&error) => Err(outdated(pki)),
        Err(source) => Err(Error::ChangeSecret {
            secret: key,
            source,
        }),
    }
}

/// Takes note of what annotations ask for, before anything else is done: a renewal now becomes the renewal time in the
/// status, and its annotation goes; a Secret that is to be kept gets the finalizer. The Pki as it is then, if it changed.
pub(super) async fn note_wishes(
    pki: &Pki,
    context: &Context,
    now: Timestamp,
) -> Result<Option<Pki>, Error> {
    let is_requested = pki.annotations().contains_key(RENEW_NOW);
    let is_held = pki.finalizers().iter().any(|known| known == FINALIZER);
    if !is_requested && is_held == keeps_secret(pki) {
        return Ok(None);
    }
    let mut pki = pki.clone();
    if is_requested
        && let Some(status) = pki.status.clone()
        && status
            .renewal_time
            .as_ref()
            .is_some_and(|time| time.0 > now)
    {
        let renewal_time = Some(Time(status::whole_second(now)));
        let status = PkiStatus {
            renewal_time,
            ..status
        };
        match write_status(&pki, &status, context).await? {
            Some(written) => pki = written,
            None => return Ok(None),
        }
    }
    let mut finalizers = pki.finalizers().to_vec();
    finalizers.retain(|known| known != FINALIZER);
    if keeps_secret(&pki) {
        finalizers.push(FINALIZER.to_owned());
    }
    let change = json!({ "metadata": {
        "annotations": { RENEW_NOW: null },
        "finalizers": finalizers,
    }});
    change_pki(&pki, change, context).await
}

fn keeps_secret(pki: &Pki) -> bool {
    pki.annotations()
        .get(KEEP_SECRET)
        .is_some_and(|value| value == "true")
}

/// Lets the Secret of a Pki that is being deleted go on by itself, if its annotation asks for that.
pub(super) async fn let_go(pki: &Pki, context: &Context) -> Result<(), Error> {
    if !pki.finalizers().iter().any(|known| known == FINALIZER) {
        return Ok(());
    }
    let key = Key::new(pki.namespace().unwrap_or_default(), pki.secret_name());
    if keeps_secret(pki)
        && let Some(secret) = context.read_secret(&key).await?
        && secret::is_owned_by(&secret, pki)
    {
        let mut owners = secret.metadata.owner_references.clone().unwrap_or_default();
        owners.retain(|owner| Some(&owner.uid) != pki.metadata.uid.as_ref());
        // A Pki of the same name that comes later takes it up again.
        let mut change = json!({ "metadata": {
            "ownerReferences": owners,
            "annotations": { ADOPT: pki.name_any() },
        }});
        write::bind(&mut change, &secret);
        match change_secret(pki, &secret, &change, context).await {
            Ok(()) => tracing::info!(pki = %Key::of(pki), secret = %key, "kept the Secret"),
            Err(error) if write::is_conflict(&error) => return Err(outdated(pki)),
            Err(source) => {
                return Err(Error::ChangeSecret {
                    secret: key,
                    source,
                });
            }
        }
    }
    let mut finalizers = pki.finalizers().to_vec();
    finalizers.retain(|known| known != FINALIZER);
    let change = json!({ "metadata": { "finalizers": finalizers } });
    change_pki(pki, change, context).await.map(drop)
}

/// Changes the Pki itself; what it is then, unless it is gone.
async fn change_pki(pki: &Pki, mut change: Value, context: &Context) -> Result<Option<Pki>, Error> {
    let key = Key::of(pki);
    let pkis = Api::<Pki>::namespaced(context.client.clone(), &key.namespace);
    write::bind(&mut change, pki);
    match pkis
        .patch(&key.name, &write::patch(), &Patch::Merge(&change))
        .await
    {
        Ok(changed) => {
            context.written.remember(&changed, Instant::now());
            Ok(Some(changed))
        }
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(None),
        Err(error) if write::is_conflict(&error) => {
            context.written.forget(&key);
            Err(outdated(pki))
        }
        Err(source) => Err(Error::WritePki { pki: key, source }),
    }
}

/// Writes the status; the Pki as it is then, unless it is gone.
async fn write_status(
    pki: &Pki,
    status: &PkiStatus,
    context: &Context,
) -> Result<Option<Pki>, Error> {
    let key = Key::of(pki);
    let pkis = Api::<Pki>::namespaced(context.client.clone(), &key.namespace);
    // All of it at once: a merge would keep the fields that are no longer set. Naming the version makes this a
    // conflict when the Pki has changed, or has been deleted and made again.
    let patch = serde_json::from_value(json!([
        { "op": "replace", "path": "/metadata/resourceVersion", "value": pki.resource_version() },
        { "op": "add", "path": "/status", "value": status },
    ]));
    let patch = Patch::<()>::Json(patch.expect("a replacement and an addition are a JSON patch"));
    match pkis.patch_status(&key.name, &write::patch(), &patch).await {
        Ok(written) => {
            context.written.remember(&written, Instant::now());
            Ok(Some(written))
        }
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(None),
        Err(error) if write::is_conflict(&error) => {
            // It may be the memory that is wrong, of a cluster that was restored from a backup.
            context.written.forget(&key);
            Err(outdated(pki))
        }
        Err(source) => Err(Error::WriteStatus { pki: key, source }),
    }
}
