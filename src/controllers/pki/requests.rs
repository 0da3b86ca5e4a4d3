//! What people ask for by annotation: a renewal now, a Secret that outlives its Pki.

use super::act::{change_secret, outdated};
use super::conclude::write_status;
use super::{Context, ReconcileError};
use crate::api::Pki;
use crate::api::annotations::{ADOPT, KEEP_SECRET};
use crate::events;
use crate::k8s::object_key::Key;
use crate::k8s::tolerant::Lenient;
use crate::k8s::{api_error, patch, secret};
use crate::model::renewal_request::{self, RENEW_NOW, RenewalRequestState};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Patch;
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

/// By it version 0.1 held the deletion of a Pki whose Secret is to be kept, until that had been let
/// go.
const FINALIZER: &str = KEEP_SECRET;

/// Takes note of what annotations ask for, before anything else is done: a renewal now becomes the
/// renewal time in the status, beside the value that asked for it, and its annotation goes. The Pki
/// as it is then, if it changed.
///
/// A request that has to wait, or that was served before, keeps its annotation; people are told
/// what becomes of it.
pub(super) async fn note(
    pki: &Pki,
    context: &Context,
    now: Timestamp,
) -> Result<Option<Pki>, ReconcileError> {
    match renewal_request::of(pki, now) {
        None => return Ok(None),
        Some(RenewalRequestState::New) => {}
        Some(RenewalRequestState::Early { .. } | RenewalRequestState::Served { .. }) => {
            if let Some(notice) = events::about_request(pki, now) {
                context.publisher.offer(notice);
            }
            return Ok(None);
        }
    }
    let status = renewal_request::served(pki, now);
    let Some(pki) = write_status(pki, &status, context).await? else {
        return Ok(None);
    };
    // Another value, which somebody has written meanwhile, is another request.
    let served = ["metadata", "annotations", RENEW_NOW];
    let value = json!(pki.annotations().get(RENEW_NOW));
    let operations = [patch::test(&served, value), patch::remove(&served)];
    let patch = Patch::Json(patch::unless_changed(&pki, operations));
    change_pki(&pki, &patch, context).await
}

/// Lets the Secret go on by itself, if it is to be kept and is not yet; whether that was so.
pub(super) async fn let_go(
    pki: &Pki,
    secret: &Secret,
    context: &Context,
) -> Result<bool, ReconcileError> {
    if !secret::is_kept(pki) || !secret::is_controlled_by(secret, pki) {
        return Ok(false);
    }
    let key = Key::of(secret);
    let mut change = json!({ "metadata": {
        "ownerReferences": secret::other_owners(secret, pki).collect::<Vec<_>>(),
        "annotations": { ADOPT: pki.name_any() },
    }});
    patch::bind(&mut change, secret);
    match change_secret(pki, secret, &change, context).await {
        Ok(_) => {
            tracing::info!(pki = %Key::of(pki), secret = %key, "let the Secret go, which is to be kept");
            Ok(true)
        }
        Err(error) if api_error::is_conflict(&error) => Err(outdated(pki)),
        Err(source) => Err(ReconcileError::ChangeSecret {
            secret: key,
            source,
        }),
    }
}

/// Takes leave of a Pki that is being deleted and held.
pub(super) async fn part(pki: &Pki, context: &Context) -> Result<(), ReconcileError> {
    if !is_held(pki) {
        return Ok(());
    }
    let key = secret::key(pki);
    if let Some(secret) = context.read_secret(&key).await? {
        let_go(pki, &secret, context).await?;
    }
    release(pki, context).await.map(drop)
}

/// Takes the finalizer off a Pki, which does not need it once its Secret has been let go; whether
/// it was there.
pub(super) async fn release(pki: &Pki, context: &Context) -> Result<bool, ReconcileError> {
    if !is_held(pki) {
        return Ok(false);
    }
    let mut finalizers = pki.finalizers().to_vec();
    finalizers.retain(|known| known != FINALIZER);
    let mut change = json!({ "metadata": { "finalizers": finalizers } });
    patch::bind(&mut change, pki);
    let patch = Patch::Merge(change);
    change_pki(pki, &patch, context).await.map(|_| true)
}

fn is_held(pki: &Pki) -> bool {
    pki.finalizers().iter().any(|known| known == FINALIZER)
}

/// Lets a Pki go that is being deleted and cannot be read: what it wished cannot be known.
pub(super) async fn release_unreadable(
    meta: &ObjectMeta,
    context: &Context,
) -> Result<(), ReconcileError> {
    let finalizers = meta.finalizers.clone().unwrap_or_default();
    let others: Vec<_> = finalizers
        .iter()
        .filter(|known| *known != FINALIZER)
        .collect();
    if others.len() == finalizers.len() {
        return Ok(());
    }
    let (namespace, name) = (meta.namespace.clone(), meta.name.clone());
    let key = Key::new(namespace.unwrap_or_default(), name.unwrap_or_default());
    let change = json!({ "metadata": {
        "finalizers": others, "uid": meta.uid, "resourceVersion": meta.resource_version,
    }});
    let pkis = Api::<PartialObjectMeta<Pki>>::namespaced(context.client.clone(), &key.namespace);
    match pkis
        .patch_metadata(&key.name, &patch::patch(), &Patch::Merge(&change))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if api_error::is_not_found(&error) => Ok(()),
        Err(source) => Err(ReconcileError::WritePki { pki: key, source }),
    }
}

/// Changes the Pki itself; what it is then, unless it is gone.
async fn change_pki(
    pki: &Pki,
    patch: &Patch<Value>,
    context: &Context,
) -> Result<Option<Pki>, ReconcileError> {
    let key = Key::of(pki);
    let pkis = context.pkis(&key.namespace);
    match pkis.patch(&key.name, &patch::patch(), patch).await {
        Ok(Lenient(changed)) => {
            context.cache.learn(changed.clone());
            Ok(Some(changed))
        }
        Err(error) if api_error::is_not_found(&error) => Ok(None),
        Err(error) if api_error::is_conflict(&error) => {
            context.cache.doubt(&key);
            Err(outdated(pki))
        }
        Err(source) => Err(ReconcileError::WritePki { pki: key, source }),
    }
}
