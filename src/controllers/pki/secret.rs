//! The Secret of a Pki: what it looks like, and whose it is.

use crate::api::Pki;
use crate::api::annotations::{KEEP_SECRET, flag};
use crate::k8s::object_key::Key;
use crate::k8s::patch;
use crate::policy::Approved;
use crate::store::cached_pki::KnownPki;
use crate::store::secret_index::{BySecret, NamesSecrets};
use crate::util::hash::digest;
use formats::{Passwords, Unmade};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use pki_certs::{Bundle, Trust};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub use crate::api::annotations::ADOPT;

pub mod formats;
mod obstacle;

pub use obstacle::Obstacle;

/// The type of the Secret: the API server makes sure that both of its keys are there.
pub const TLS: &str = "kubernetes.io/tls";

/// Whose a Secret is, by its controller reference. Labels prove nothing: anybody may set them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This Pki, by its UID; or nobody, and its annotation offers it to this Pki.
    Ours,
    /// Another Pki, which claims the Secret too.
    Rival(Key),
    /// A Pki that is gone, or going: Kubernetes is about to collect the Secret with it. Or a Pki that
    /// writes another Secret by now, and is about to remove this one.
    FormerPki,
    /// Another object's, or nobody's: its content is not ours to change.
    Foreign(Obstacle),
}

/// The Secret of a Pki.
pub fn key(pki: &Pki) -> Key {
    Key::new(pki.namespace().unwrap_or_default(), pki.secret_name())
}

/// Whose this Secret is. `pkis` tells which others there are.
pub fn owner(secret: &Secret, pki: &Pki, pkis: &BySecret<KnownPki>) -> Owner {
    let key = |name: &str| Key::new(pki.namespace().unwrap_or_default(), name);
    let claims_it = |pki: &KnownPki| pki.claims(&secret.name_any());
    let ownership = owner_of(secret, pki);
    if ownership == Some(Ownership::Ours) {
        return Owner::Ours;
    }
    let Some(obstacle) = Obstacle::of(secret, pki) else {
        return Owner::Ours;
    };
    match ownership {
        Some(Ownership::Pki { name, uid }) => {
            let other = pkis.get(&key(name));
            match other.filter(|owner| owner.lives_as(digest(uid))) {
                None => return Obstacle::held(secret).map_or(Owner::FormerPki, Owner::Foreign),
                Some(owner) if claims_it(owner) => return Owner::Rival(owner.key().clone()),
                Some(owner) if owner.wrote(&secret.name_any()) => {
                    return Obstacle::held(secret).map_or(Owner::FormerPki, Owner::Foreign);
                }
                Some(_) => {}
            }
        }
        None => {
            if let Obstacle::OfferedTo(name) = &obstacle
                && let Some(rival) = pkis.get(&key(name)).filter(|pki| claims_it(pki))
            {
                return Owner::Rival(rival.key().clone());
            }
        }
        _ => {}
    }
    Owner::Foreign(Obstacle::held(secret).unwrap_or(obstacle))
}

/// Whether the Secret is this Pki's by its controller reference, and so goes with it.
pub fn is_controlled_by(secret: &Secret, pki: &Pki) -> bool {
    owner_of(secret, pki) == Some(Ownership::Ours)
}

/// The owners of the Secret besides this Pki.
pub fn other_owners<'a>(
    secret: &'a Secret,
    pki: &'a Pki,
) -> impl Iterator<Item = &'a OwnerReference> {
    let owners = secret.metadata.owner_references.iter().flatten();
    owners.filter(|owner| Some(&owner.uid) != pki.metadata.uid.as_ref())
}

/// Whether the Secret is this Pki's: by its controller reference, or as one that is to be kept.
pub fn is_owned_by(secret: &Secret, pki: &Pki) -> bool {
    match owner_of(secret, pki) {
        Some(ownership) => ownership == Ownership::Ours,
        None => is_kept(pki) && is_offered(secret, pki),
    }
}

/// Whether the Secret stays when the Pki is deleted.
pub fn is_kept(pki: &Pki) -> bool {
    is_kept_by(pki.metadata.annotations.as_ref())
}

/// Whether the Secret of a Pki with these annotations stays when the Pki is deleted.
pub(crate) fn is_kept_by(annotations: Option<&BTreeMap<String, String>>) -> bool {
    annotations.and_then(|annotations| flag(annotations, KEEP_SECRET)) == Some(true)
}

/// What the controller reference says.
#[derive(Debug, PartialEq, Eq)]
enum Ownership<'a> {
    Ours,
    Pki { name: &'a str, uid: &'a str },
    Foreign,
}

fn owner_of<'a>(secret: &'a Secret, pki: &Pki) -> Option<Ownership<'a>> {
    let controller = controller(secret)?;
    Some(if !is_pki(controller) {
        Ownership::Foreign
    } else if Some(&controller.uid) == pki.metadata.uid.as_ref() {
        Ownership::Ours
    } else {
        Ownership::Pki {
            name: &controller.name,
            uid: &controller.uid,
        }
    })
}

/// Who controls an object, by its owner references.
pub(crate) fn controller(object: &impl ResourceExt) -> Option<&OwnerReference> {
    let mut references = object.owner_references().iter();
    references.find(|reference| reference.controller == Some(true))
}

/// Whether that is a Pki.
pub(crate) fn is_pki(controller: &OwnerReference) -> bool {
    controller.kind == Pki::kind(&()) && controller.api_version == Pki::api_version(&())
}

/// A Secret of another type cannot become one of ours, nor can one that may not change.
fn is_offered(secret: &Secret, pki: &Pki) -> bool {
    Obstacle::of(secret, pki).is_none()
}

/// Whether the Secret has the labels of the operator's own. Anybody may set them: they are no
/// proof.
pub fn is_labelled(secret: &impl ResourceExt) -> bool {
    patch::has_all(secret.labels(), &patch::labels())
}

/// The merge patch that makes an unowned Secret this Pki's again. No byte of its content changes.
pub fn take_up(secret: &Secret, pki: &Pki) -> Value {
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

/// What goes into the Secret of a Pki.
#[derive(Debug)]
pub struct Content<'a> {
    /// The Pki.
    pub pki: &'a Pki,
    /// What it may have.
    pub approved: &'a Approved,
    /// Its certificate and key.
    pub bundle: Bundle<'a>,
    /// What clients trust.
    pub trust: &'a Trust,
    /// For the keystores.
    pub passwords: &'a Passwords,
}

impl Content<'_> {
    /// The Secret to create, and the keystores that are missing in it.
    pub fn manifest(&self) -> (Secret, Vec<Unmade>) {
        self.written(None)
    }

    fn written(&self, observed: Option<&Secret>) -> (Secret, Vec<Unmade>) {
        let mut labels = patch::labels();
        labels.extend(self.approved.template.labels.clone());
        let annotations = self.annotations();
        let (files, unmade) = self.files(observed);
        let manifest = Secret {
            metadata: ObjectMeta {
                name: Some(self.approved.secret_name.clone()),
                namespace: self.pki.namespace(),
                labels: Some(labels),
                annotations: (!annotations.is_empty()).then_some(annotations),
                owner_references: (!is_kept(self.pki)).then(|| vec![owner_reference(self.pki)]),
                ..ObjectMeta::default()
            },
            type_: Some(TLS.into()),
            data: Some(files),
            ..Secret::default()
        };
        (manifest, unmade)
    }

    /// The merge patch that makes `observed` what it should be, and the keystores that it leaves as
    /// they are. It takes away what an earlier template or an earlier choice of outputs has put
    /// there, and leaves alone what others added. UID and version are preconditions, so that a
    /// write which comes late, from a replica that no longer leads, is refused.
    pub fn change(&self, observed: &Secret) -> (Value, Vec<Unmade>) {
        let (wanted, unmade) = self.written(Some(observed));
        let mut change = json!({
            "metadata": {
                "labels": wanted.metadata.labels,
                "annotations": wanted.metadata.annotations.unwrap_or_default(),
            },
            "data": wanted.data,
        });
        for (map, key) in self.stale(observed) {
            map.of(&mut change)[key] = Value::Null;
        }
        if observed.annotations().contains_key(ADOPT) && !is_kept(self.pki) {
            change["metadata"]["annotations"][ADOPT] = Value::Null;
        }
        if !self.is_owned_in(observed) {
            let others = other_owners(observed, self.pki);
            let ours = wanted.metadata.owner_references.iter().flatten();
            change["metadata"]["ownerReferences"] =
                others.chain(ours).map(|it| json!(it)).collect();
        }
        patch::bind(&mut change, observed);
        (change, unmade)
    }

    /// Whether `observed`, which has this very certificate and key, is all else that it should be.
    pub fn is_in(&self, observed: &Secret) -> bool {
        self.is_owned_in(observed)
            && self.trust.is_published_in(file(observed, "ca.crt"))
            && patch::has_all(observed.labels(), &self.approved.template.labels)
            && is_labelled(observed)
            && patch::has_all(observed.annotations(), &self.annotations())
            && self.stale(observed).is_empty()
            && formats::are_in(self, observed)
    }

    /// Whether it has the owner that it should have, or none.
    fn is_owned_in(&self, observed: &Secret) -> bool {
        let owner = owner_of(observed, self.pki);
        owner == (!is_kept(self.pki)).then_some(Ownership::Ours)
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        let mut annotations = self.approved.template.annotations.clone();
        if is_kept(self.pki) {
            annotations.insert(ADOPT.to_owned(), self.pki.name_any());
        }
        annotations
    }

    fn files(&self, observed: Option<&Secret>) -> (BTreeMap<String, ByteString>, Vec<Unmade>) {
        let mut files = BTreeMap::from([
            (
                "tls.crt".to_owned(),
                ByteString(self.bundle.certificate.to_vec()),
            ),
            (
                "tls.key".to_owned(),
                ByteString(self.bundle.private_key.to_vec()),
            ),
            ("ca.crt".to_owned(), ByteString(self.trust.pem().into())),
        ]);
        let (further, unmade) = formats::files(self, observed);
        files.extend(further);
        (files, unmade)
    }

    /// What the operator has put there, as `managedFields` have it, and would put there no more. What others added is theirs.
    fn stale(&self, observed: &Secret) -> Vec<(Map, String)> {
        let own = patch::labels();
        let annotations = self.annotations();
        let is_stale = |map: Map, key: &str| match map {
            Map::Labels => {
                observed.labels().contains_key(key)
                    && !self.approved.template.labels.contains_key(key)
                    && !own.contains_key(key)
            }
            Map::Annotations => {
                observed.annotations().contains_key(key) && !annotations.contains_key(key)
            }
            Map::Data => {
                !file(observed, key).is_empty()
                    && formats::OPTIONAL.contains(&key)
                    && !self.approved.wants(key)
            }
        };
        let managed = observed.metadata.managed_fields.iter().flatten();
        let ours = managed.filter(|entry| entry.manager.as_deref() == Some(patch::FIELD_MANAGER));
        let fields = ours.filter_map(|entry| entry.fields_v1.as_ref());
        fields
            .flat_map(|fields| {
                Map::ALL.into_iter().flat_map(move |map| {
                    let keys = fields.0.pointer(map.managed()).and_then(Value::as_object);
                    let keys = keys.into_iter().flat_map(serde_json::Map::keys);
                    keys.filter_map(move |key| Some((map, key.strip_prefix("f:")?)))
                })
            })
            .filter(|(map, key)| is_stale(*map, key))
            .map(|(map, key)| (map, key.to_owned()))
            .collect()
    }
}

/// A map of a Secret whose entries several may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Map {
    Labels,
    Annotations,
    Data,
}

impl Map {
    const ALL: [Self; 3] = [Self::Labels, Self::Annotations, Self::Data];

    /// Where `managedFields` list its keys.
    fn managed(self) -> &'static str {
        match self {
            Self::Labels => "/f:metadata/f:labels",
            Self::Annotations => "/f:metadata/f:annotations",
            Self::Data => "/f:data",
        }
    }

    /// The map in a patch.
    fn of(self, patch: &mut Value) -> &mut Value {
        match self {
            Self::Labels => &mut patch["metadata"]["labels"],
            Self::Annotations => &mut patch["metadata"]["annotations"],
            Self::Data => &mut patch["data"],
        }
    }
}

/// Certificate and key of a Secret; what is missing is empty, which no check takes for sound.
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

fn owner_reference(pki: &Pki) -> OwnerReference {
    OwnerReference {
        api_version: Pki::api_version(&()).into_owned(),
        kind: Pki::kind(&()).into_owned(),
        name: pki.name_any(),
        uid: pki.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

#[cfg(test)]
mod tests;
