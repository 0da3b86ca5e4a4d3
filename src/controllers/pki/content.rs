//! The content and the owner of the Secret of a Pki.

use crate::api::Pki;
use crate::api::annotations::ADOPT;
use crate::k8s::object_key::Key;
use crate::k8s::patch;
use crate::k8s::secret::{
    Obstacle, Ownership, TLS, file, is_controlled_by, is_kept, is_labelled, other_owners, owner_of,
    owner_reference,
};
use crate::model::keystore::Unmade;
use crate::model::output::{OPTIONAL, Output};
use crate::policy::Approved;
use crate::store::cached_pki::KnownPki;
use crate::store::cached_secret::{SecretHolder, SecretOwner};
use crate::store::secret_index::{ReferencesSecrets, SecretIndex};
use formats::Passwords;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use pki_certs::{Bundle, Trust};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub mod formats;

/// The owner of a Secret, by its controller reference. Labels prove nothing: anybody may set them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This Pki, by its UID; or nobody, and its annotation offers it to this Pki.
    Ours,
    /// Another Pki, which claims the Secret too.
    Rival(Key),
    /// A Pki that is gone, or going: Kubernetes is about to collect the Secret with it. Or a Pki
    /// that writes another Secret by now, and is about to remove this one.
    FormerPki,
    /// Another object's, or nobody's: its content is not ours to change.
    Foreign(Obstacle),
}

/// The owner of this Secret. `pkis` are all Pkis.
pub fn owner(secret: &Secret, pki: &Pki, pkis: &SecretIndex<KnownPki>) -> Owner {
    if is_controlled_by(secret, pki) {
        return Owner::Ours;
    }
    let Some(obstacle) = Obstacle::of(secret, pki) else {
        return Owner::Ours;
    };
    let key = Key::new(pki.namespace().unwrap_or_default(), secret.name_any());
    match SecretOwner::of(secret, &key).holder(&key, pkis) {
        SecretHolder::Claimant(rival) if *rival.key() != Key::of(pki) => {
            Owner::Rival(rival.key().clone())
        }
        SecretHolder::Former => Obstacle::held(secret).map_or(Owner::FormerPki, Owner::Foreign),
        _ => Owner::Foreign(Obstacle::held(secret).unwrap_or(obstacle)),
    }
}

/// The content of the Secret of a Pki.
#[derive(Debug)]
pub struct SecretContent<'a> {
    /// The Pki.
    pub pki: &'a Pki,
    /// Its approval.
    pub approved: &'a Approved,
    /// Its certificate and key.
    pub bundle: Bundle<'a>,
    /// The CA certificates that clients trust.
    pub trust: &'a Trust,
    /// The passwords of the keystores.
    pub passwords: &'a Passwords,
}

impl SecretContent<'_> {
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
        let bundle = &self.bundle;
        let mut files = BTreeMap::from([
            ("tls.crt".to_owned(), ByteString(bundle.certificate.into())),
            ("tls.key".to_owned(), ByteString(bundle.private_key.into())),
            ("ca.crt".to_owned(), ByteString(self.trust.pem().into())),
        ]);
        let (further, unmade) = formats::files(self, observed);
        files.extend(further);
        (files, unmade)
    }

    /// The entries that the operator has written, by `managedFields`, and would not write any more.
    /// Entries of others stay.
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
                    && OPTIONAL.contains(&key)
                    && !Output::wants(&self.approved.outputs, key)
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

#[cfg(test)]
mod tests;
