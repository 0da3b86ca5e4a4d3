//! Writes to the Secrets of Pkis, each bound to the version that it was decided on, and their
//! backoff.

use super::plan::Observed;
use super::{Context, ReconcileError};
use crate::api::Pki;
use crate::controllers::pki::content::SecretContent;
use crate::k8s::object_key::Key;
use crate::k8s::tolerant::Lenient;
use crate::k8s::{api_error, patch, secret};
use crate::model::ca::Ca;
use crate::model::keystore::Unmade;
use crate::model::outcome::Outcome;
use crate::policy::Approved;
use crate::store::cached_secret::Version;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::Patch;
use pki_certs::{Bundle, Verified};
use serde_json::{Value, json};

/// The outcome of a write that has to wait: the last one failed, or the write is a repair and
/// another writer keeps changing the Secret.
pub(super) fn held(
    observed: &Observed<'_>,
    is_damage: bool,
    context: &Context,
    now: Timestamp,
) -> Option<Outcome> {
    let pki = &observed.pki;
    if let Some(held) = context.issue_backoff.held(pki, now) {
        return Some(held);
    }
    if !is_damage {
        return None;
    }
    let backoff = &context.repair_backoff;
    let next = backoff
        .may_repair(&Key::of(pki), &content_id(observed), now)
        .err()?;
    let by = observed.stored().map(|secret| {
        let other = secret::other_writer(secret);
        other.unwrap_or("another pki-operator").to_owned()
    });
    Some(Outcome::Contested { by, next })
}

/// Counts a write that succeeded.
pub(super) fn note_write(
    observed: &Observed<'_>,
    is_repair: bool,
    context: &Context,
    now: Timestamp,
) {
    let (key, id) = (context.key(&observed.pki), content_id(observed));
    context.repair_backoff.wrote(&key, &id, is_repair, now);
}

/// Whether this content was written before. The status alone is no proof, because another writer
/// may change it as well.
pub(super) fn was_written(observed: &Observed<'_>, context: &Context) -> bool {
    let (key, id) = (Key::of(&observed.pki), content_id(observed));
    was_settled(observed) || context.repair_backoff.has_written(&key, &id)
}

/// Whether the Secret was as it should be at the last reconcile, by the present spec and CA. In
/// that case another writer has changed it.
pub(super) fn was_settled(observed: &Observed<'_>) -> bool {
    let Observed { pki, ca, .. } = observed;
    pki.status.as_ref().is_some_and(|status| {
        status.serial_number.is_some()
            && status.secret_name.as_deref() == Some(pki.secret_name())
            && status.observed_generation == pki.metadata.generation
            && status.trust_fingerprint.as_deref() == Some(ca.trust.fingerprint())
    })
}

/// Identifies the content of a Secret without its certificate.
fn content_id(observed: &Observed<'_>) -> String {
    let meta = &observed.pki.metadata;
    let (uid, generation) = (meta.uid.as_deref(), meta.generation);
    let trust = observed.ca.trust.fingerprint();
    let passwords = &observed.passwords.versions;
    format!("{uid:?} {generation:?} {trust} {passwords:?}")
}

/// Writes the Secret with this certificate and key, and notes what was written, so that it is not
/// read again. Returns the keystores that cannot be written: neither certificate nor CA wait for
/// them.
pub(super) async fn store(
    observed: &Observed<'_>,
    approved: &Approved,
    bundle: Bundle<'_>,
    verified: &Verified,
    context: &Context,
) -> Result<Vec<Unmade>, kube::Error> {
    let pki = &observed.pki;
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
    // Another webhook may have changed the Secret. A missing keystore is found only where the
    // passwords are read.
    if unmade.is_empty() && secret::bundle(&stored) == bundle && wanted.is_in(&stored) {
        let version = Version::of(&stored);
        let key = context.key(pki);
        context
            .verified_secrets
            .note_valid(key, observed, approved, &version, verified);
    } else {
        context.verified_secrets.note_unknown(Key::of(pki));
    }
    Ok(unmade)
}

/// Creates, and does not apply: of two writers, one gets a conflict.
async fn create_secret(
    pki: &Pki,
    manifest: Secret,
    context: &Context,
) -> Result<Secret, kube::Error> {
    let secrets = context.secrets(&pki.namespace().unwrap_or_default());
    let created = secrets.create(&patch::post(), &Lenient(manifest)).await;
    if created.as_ref().is_err_and(api_error::is_conflict) {
        context.verified_secrets.note_unknown(Key::of(pki));
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

/// Writes the CA certificates into the Secret of a Pki that gets no new certificate. Returns
/// whether the API server took them. A Secret that cannot be written, such as an immutable one,
/// stays as it is.
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
        Err(error) if api_error::is_refusal(&error) => {
            tracing::warn!(pki = %Key::of(pki), secret = %Key::of(secret), %error,
                "failed to write the CA certificates into the Secret");
            Ok(false)
        }
        Err(source) => Err(ReconcileError::changing(Key::of(secret), pki, source)),
    }
}
