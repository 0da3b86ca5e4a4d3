//! Writes to Pkis themselves: the status, annotations that were served, finalizers.

use super::plan::facts::FINALIZER;
use super::{Context, ReconcileError};
use crate::api::{Pki, PkiStatus};
use crate::k8s::object_key::Key;
use crate::k8s::tolerant::Lenient;
use crate::k8s::{api_error, patch};
use crate::model::renewal_request::RENEW_NOW;
use kube::api::Patch;
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

/// Writes the status. Returns the Pki as it is then, unless it is gone.
pub(super) async fn write_status(
    pki: &Pki,
    status: &PkiStatus,
    context: &Context,
) -> Result<Option<Pki>, ReconcileError> {
    let key = Key::of(pki);
    // A replacement costs the API server less than a patch. Its version makes it a conflict when
    // the Pki has changed, or has been deleted and created again. Metadata and spec go along
    // unchanged: API servers before 1.36 take what is left out for removed by its owner.
    let replacement = Lenient(Pki {
        metadata: ObjectMeta {
            managed_fields: None,
            ..pki.metadata.clone()
        },
        spec: pki.spec.clone(),
        status: Some(status.clone()),
    });
    let (pkis, params) = (context.pkis(&key.namespace), patch::post());
    let written = pkis.replace_status(&key.name, &params, &replacement).await;
    conclude_write(pki, written, context, ReconcileError::WriteStatus)
}

/// Serves a request for a renewal: writes the status of this Pki, which serves it, and removes the
/// annotation. Returns the Pki as it is then, unless it is gone.
pub(super) async fn serve_request(
    pki: &Pki,
    context: &Context,
) -> Result<Option<Pki>, ReconcileError> {
    let status = pki.status.clone().unwrap_or_default();
    let Some(pki) = write_status(pki, &status, context).await? else {
        return Ok(None);
    };
    // Another value, which somebody has written meanwhile, is another request.
    let served = ["metadata", "annotations", RENEW_NOW];
    let value = json!(pki.annotations().get(RENEW_NOW));
    let operations = [patch::test(&served, value), patch::remove(&served)];
    let patch = Patch::Json(patch::unless_changed(&pki, operations));
    change(&pki, &patch, context).await
}

/// Removes the finalizer of version 0.1, after the Secret has been released.
pub(super) async fn remove_finalizer(pki: &Pki, context: &Context) -> Result<(), ReconcileError> {
    let mut finalizers = pki.finalizers().to_vec();
    finalizers.retain(|known| known != FINALIZER);
    let mut removal = json!({ "metadata": { "finalizers": finalizers } });
    patch::bind(&mut removal, pki);
    change(pki, &Patch::Merge(removal), context).await.map(drop)
}

/// Removes that finalizer from a Pki that is being deleted and cannot be read.
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
        Err(source) => Err(ReconcileError::WritePki(key, source)),
    }
}

async fn change(
    pki: &Pki,
    patch: &Patch<Value>,
    context: &Context,
) -> Result<Option<Pki>, ReconcileError> {
    let key = Key::of(pki);
    let pkis = context.pkis(&key.namespace);
    let changed = pkis.patch(&key.name, &patch::patch(), patch).await;
    conclude_write(pki, changed, context, ReconcileError::WritePki)
}

/// Applies the answer to a write to the cache, before the watch delivers it. After a conflict the
/// cache returns to what the watch delivered.
fn conclude_write(
    pki: &Pki,
    answer: Result<Lenient<Pki>, kube::Error>,
    context: &Context,
    error: impl FnOnce(Key, kube::Error) -> ReconcileError,
) -> Result<Option<Pki>, ReconcileError> {
    match answer {
        Ok(Lenient(written)) => {
            context.cache.apply_own_write(written.clone());
            Ok(Some(written))
        }
        Err(source) if api_error::is_not_found(&source) => Ok(None),
        Err(source) if api_error::is_conflict(&source) => {
            context.cache.discard_own_write(&Key::of(pki));
            Err(ReconcileError::outdated(pki))
        }
        Err(source) => Err(error(Key::of(pki), source)),
    }
}
