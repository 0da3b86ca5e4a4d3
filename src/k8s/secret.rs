//! The owner of a Secret, and its files.

use crate::api::Pki;
use crate::api::annotations::{ADOPT, KEEP_SECRET, flag};
use crate::k8s::object_key::Key;
use crate::k8s::patch;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use pki_certs::Bundle;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub use obstacle::Obstacle;

mod obstacle;

/// The type of the Secret: the API server makes sure that both of its keys are there.
pub const TLS: &str = "kubernetes.io/tls";

/// Whether the Secret stays when the Pki is deleted.
pub fn is_kept(pki: &Pki) -> bool {
    is_kept_by(pki.metadata.annotations.as_ref())
}

/// Whether the Secret of a Pki with these annotations stays when the Pki is deleted.
pub fn is_kept_by(annotations: Option<&BTreeMap<String, String>>) -> bool {
    annotations.and_then(|annotations| flag(annotations, KEEP_SECRET)) == Some(true)
}

/// The controller of an object, by its owner references.
pub fn controller(object: &impl ResourceExt) -> Option<&OwnerReference> {
    let mut references = object.owner_references().iter();
    references.find(|reference| reference.controller == Some(true))
}

/// Whether that is a Pki.
pub fn is_pki(controller: &OwnerReference) -> bool {
    controller.kind == Pki::kind(&()) && controller.api_version == Pki::api_version(&())
}

/// Whether the Secret has the labels of the operator's own. Anybody may set them: they are no
/// proof.
pub fn is_labelled(secret: &impl ResourceExt) -> bool {
    patch::has_all(secret.labels(), &patch::labels())
}

/// Certificate and key of a Secret. A missing file is empty, which is never valid.
pub fn bundle(secret: &Secret) -> Bundle<'_> {
    Bundle {
        certificate: file(secret, "tls.crt"),
        private_key: file(secret, "tls.key"),
    }
}

/// One file of a Secret; empty if it is not there.
pub fn file<'a>(secret: &'a Secret, name: &str) -> &'a [u8] {
    let file = secret.data.as_ref().and_then(|data| data.get(name));
    file.map_or(&[], |bytes| &bytes.0)
}

/// The manager that wrote the Secret last, besides the operator, as `managedFields` have it.
pub fn other_writer(secret: &Secret) -> Option<&str> {
    let entries = secret.metadata.managed_fields.iter().flatten();
    entries
        .filter(|entry| entry.manager.as_deref() != Some(patch::FIELD_MANAGER))
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0))
        .and_then(|entry| entry.manager.as_deref())
}

/// The controller reference of this Pki.
pub fn owner_reference(pki: &Pki) -> OwnerReference {
    OwnerReference {
        api_version: Pki::api_version(&()).into_owned(),
        kind: Pki::kind(&()).into_owned(),
        name: pki.name_any(),
        uid: pki.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The owners of the Secret besides this Pki.
pub fn other_owners<'a>(
    secret: &'a Secret,
    pki: &'a Pki,
) -> impl Iterator<Item = &'a OwnerReference> {
    let owners = secret.metadata.owner_references.iter().flatten();
    owners.filter(|owner| Some(&owner.uid) != pki.metadata.uid.as_ref())
}

/// Whether the Secret is this Pki's by its controller reference, and so goes with it.
pub fn is_controlled_by(secret: &Secret, pki: &Pki) -> bool {
    owner_of(secret, pki) == Some(Ownership::Ours)
}

/// Whether the Secret is this Pki's: by its controller reference, or as one that is to be kept.
pub fn is_owned_by(secret: &Secret, pki: &Pki) -> bool {
    match owner_of(secret, pki) {
        Some(ownership) => ownership == Ownership::Ours,
        None => is_kept(pki) && is_offered(secret, pki),
    }
}

/// The relation of a controller to a Pki.
#[derive(Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This Pki.
    Ours,
    /// Another object, or a Pki of another UID.
    Foreign,
}

/// The controller of a Secret, as this Pki sees it; `None` if it has none.
pub fn owner_of(secret: &Secret, pki: &Pki) -> Option<Ownership> {
    let controller = controller(secret)?;
    let is_ours = is_pki(controller) && Some(&controller.uid) == pki.metadata.uid.as_ref();
    Some(if is_ours {
        Ownership::Ours
    } else {
        Ownership::Foreign
    })
}

/// A Secret of another type cannot become one of ours, nor can one that may not change.
fn is_offered(secret: &Secret, pki: &Pki) -> bool {
    Obstacle::of(secret, pki).is_none()
}

/// The merge patch by which a Secret stays when its Pki is deleted, and is offered to that Pki.
pub fn release(secret: &Secret, pki: &Pki) -> Value {
    let mut change = json!({ "metadata": {
        "ownerReferences": other_owners(secret, pki).collect::<Vec<_>>(),
        "annotations": { ADOPT: pki.name_any() },
    }});
    patch::bind(&mut change, secret);
    change
}

/// The merge patch that makes an unowned Secret this Pki's again. No byte of its content changes.
pub fn adoption(secret: &Secret, pki: &Pki) -> Value {
    let mut change = if is_kept(pki) {
        json!({ "metadata": { "annotations": { ADOPT: pki.name_any() } } })
    } else {
        let ours = owner_reference(pki);
        let owners: Vec<_> = other_owners(secret, pki).chain([&ours]).collect();
        json!({ "metadata": { "ownerReferences": owners } })
    };
    patch::bind(&mut change, secret);
    change
}

/// The Secret of a Pki.
pub fn key(pki: &Pki) -> Key {
    Key::new(pki.namespace().unwrap_or_default(), pki.secret_name())
}
