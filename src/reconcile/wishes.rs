//! What people ask for by annotation: a renewal now, a Secret that outlives its Pki.

use super::act::{change_secret, outdated};
use super::conclude::write_status;
use super::plan::RENEW_NOW;
use super::secret::{self, ADOPT};
use super::{Context, Error, status, write};
use crate::api::{Pki, PkiStatus};
use crate::index::Key;
use crate::lenient::Lenient;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::Patch;
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::time::Instant;

/// Annotation on a Pki: its Secret stays when the Pki is deleted. `"true"` switches it on.
const KEEP_SECRET: &str = "box.com/keep-secret";
/// Holds the deletion of such a Pki until its Secret has been let go.
const FINALIZER: &str = "box.com/keep-secret";

/// Takes note of what annotations ask for, before anything else is done: a renewal now becomes the renewal time in the
/// status, and its annotation goes; a Secret that is to be kept gets the finalizer. The Pki as it is then, if it changed.
pub(super) async fn note(
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

/// Lets a Pki go that is being deleted and cannot be read: what it wished cannot be known.
pub(super) async fn release(meta: &ObjectMeta, context: &Context) -> Result<(), Error> {
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
        .patch_metadata(&key.name, &write::patch(), &Patch::Merge(&change))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(()),
        Err(source) => Err(Error::WritePki { pki: key, source }),
    }
}

/// Changes the Pki itself; what it is then, unless it is gone.
async fn change_pki(pki: &Pki, mut change: Value, context: &Context) -> Result<Option<Pki>, Error> {
    let key = Key::of(pki);
    let pkis = context.pkis(&key.namespace);
    write::bind(&mut change, pki);
    match pkis
        .patch(&key.name, &write::patch(), &Patch::Merge(&change))
        .await
    {
        Ok(Lenient(changed)) => {
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
