//! The version and the owner of every Secret, from its metadata.

use crate::api::annotations::{ADOPT, Carrier};
use crate::k8s::object_key::Key;
use crate::k8s::projection::Projection;
use crate::k8s::secret::{Obstacle, controller, is_labelled, is_pki};
use crate::store::cached_pki::KnownPki;
use crate::store::ignored::Ignored;
use crate::store::secret_index::{ReferencesSecrets, SecretIndex};
use crate::util::hash::digest;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use std::iter;
use std::sync::Arc;

/// A Secret. It is found by its own key alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSecret {
    key: Key,
    /// Another one means that something in it has changed.
    pub version: Version,
    /// Annotations and labels without an effect.
    pub ignored: Ignored,
    owner: SecretOwner,
}

/// Identifies one state of one Secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// A digest.
    uid: u64,
    /// The resource version.
    pub resource: Box<str>,
}

/// The owner of a Secret, by its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretOwner {
    /// The Pki of this name, and of the UID with this digest, controls it.
    Pki {
        /// Name of the Pki.
        name: Arc<str>,
        /// Digest of the UID of the Pki.
        uid: u64,
    },
    /// Another object controls it.
    Other,
    /// No object controls it.
    Nobody {
        /// Name of the Pki that it is offered to.
        offered_to: Option<Box<str>>,
        /// Whether the operator made it, as its labels claim.
        is_labelled: bool,
    },
}

/// The holder of a Secret: its owner among the Pkis that exist.
#[derive(Debug)]
pub enum SecretHolder<'a> {
    /// A Pki that claims the Secret controls it, or is offered it.
    Claimant(&'a Arc<KnownPki>),
    /// A Pki controls it that is gone, or writes another Secret by now.
    Former,
    /// Another object has it, or a Pki that does not claim it.
    Other,
    /// Nobody has it.
    Nobody,
}

impl From<PartialObjectMeta<Secret>> for KnownSecret {
    fn from(secret: PartialObjectMeta<Secret>) -> Self {
        let key = Key::of(&secret);
        Self {
            version: Version::of(&secret),
            ignored: Ignored::of(Carrier::Secret, &secret.metadata),
            owner: SecretOwner::of(&secret, &key),
            key,
        }
    }
}

impl Projection for KnownSecret {
    type Whole = PartialObjectMeta<Secret>;

    fn of(secret: Self::Whole) -> Self {
        secret.into()
    }
}

impl Version {
    /// The one that this is.
    pub fn of(secret: &impl ResourceExt) -> Self {
        Self {
            uid: digest(secret.meta().uid.as_deref().unwrap_or_default()),
            resource: secret.resource_version().unwrap_or_default().into(),
        }
    }
}

impl SecretOwner {
    /// The owner of this Secret.
    pub fn of(secret: &impl ResourceExt, key: &Key) -> Self {
        match controller(secret) {
            Some(owner) if is_pki(owner) => Self::Pki {
                name: key.share_name(&owner.name),
                uid: digest(owner.uid.as_str()),
            },
            Some(_) => Self::Other,
            None => {
                let offered_to = secret.annotations().get(ADOPT);
                Self::Nobody {
                    offered_to: offered_to.map(|name| name.as_str().into()),
                    is_labelled: is_labelled(secret),
                }
            }
        }
    }

    /// The holder of the Secret `key` with this owner.
    pub fn holder<'a>(&self, key: &Key, pkis: &'a SecretIndex<KnownPki>) -> SecretHolder<'a> {
        let pki = |name: &str| pkis.get(&key.beside(&name.into()));
        match self {
            Self::Pki { name, uid } => match pki(name).filter(|pki| pki.is_live(*uid)) {
                Some(pki) if pki.claims(&key.name) => SecretHolder::Claimant(pki),
                Some(pki) if !pki.wrote(&key.name) => SecretHolder::Other,
                _ => SecretHolder::Former,
            },
            Self::Other => SecretHolder::Other,
            Self::Nobody { offered_to, .. } => match offered_to.as_deref().map(pki) {
                None => SecretHolder::Nobody,
                Some(Some(pki)) if pki.claims(&key.name) => SecretHolder::Claimant(pki),
                Some(_) => SecretHolder::Other,
            },
        }
    }
}

impl KnownSecret {
    /// Whether it is this Pki's, by its metadata: controlled by the Pki, or offered to it.
    pub fn is_of(&self, pki: &Key, pki_uid: &str) -> bool {
        match &self.owner {
            SecretOwner::Pki { uid, .. } => *uid == digest(pki_uid),
            SecretOwner::Nobody { offered_to, .. } => offered_to.as_deref() == Some(&*pki.name),
            SecretOwner::Other => false,
        }
    }
}

impl ReferencesSecrets for KnownSecret {
    fn key(&self) -> &Key {
        &self.key
    }

    fn secrets(&self) -> impl Iterator<Item = &Arc<str>> {
        iter::empty()
    }
}

/// The obstacle that keeps this Pki from writing the Secret of this name, by all that is known. A
/// Secret that another Pki claims is a [conflict](crate::store::claims::predicted_owner) instead.
pub fn predicted_obstacle(
    secrets: &SecretIndex<KnownSecret>,
    pkis: &SecretIndex<KnownPki>,
    pki: &Key,
    secret: &Key,
) -> Option<Obstacle> {
    let owner = &secrets.get(secret)?.owner;
    match (owner, owner.holder(secret, pkis)) {
        (SecretOwner::Other, _) => Some(Obstacle::Controlled { by: None }),
        // The certificate proves the owner, and is not cached.
        (SecretOwner::Nobody { is_labelled, .. }, SecretHolder::Nobody) => {
            (!is_labelled).then_some(Obstacle::Unread)
        }
        (SecretOwner::Nobody { offered_to, .. }, SecretHolder::Other) => {
            let other = offered_to.as_deref().filter(|name| **name != *pki.name)?;
            Some(Obstacle::OfferedTo(other.to_owned()))
        }
        (SecretOwner::Pki { name, .. }, SecretHolder::Other) if *name != pki.name => {
            let by = Some(format!("Pki {name}"));
            Some(Obstacle::Controlled { by })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Pki;
    use kube::runtime::watcher::Event;
    use serde_json::{Value, json};

    fn secret(metadata: &Value) -> KnownSecret {
        let mut all = json!({ "namespace": "ns", "name": "s", "uid": "u", "resourceVersion": "1" });
        all.as_object_mut()
            .unwrap()
            .extend(metadata.as_object().unwrap().clone());
        let object = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": all });
        serde_json::from_value::<PartialObjectMeta<Secret>>(object)
            .unwrap()
            .into()
    }

    #[test]
    fn a_secret_has_changed_when_its_version_has() {
        let mut index = SecretIndex::default();
        for (uid, version, is_news) in [
            ("u", "1", true),
            ("u", "1", false),
            ("u", "2", true),
            ("v", "2", true),
        ] {
            let metadata = json!({ "uid": uid, "resourceVersion": version });
            let changes = index.apply(Event::Apply(secret(&metadata)));
            assert_eq!(changes.len(), usize::from(is_news), "{uid} {version}");
        }
        assert!(index.get(&Key::new("ns", "s")).is_some());
    }

    #[test]
    fn a_secret_is_a_pkis_by_its_controller_or_by_an_offer() {
        let owner = json!({ "ownerReferences": [
            { "apiVersion": "box.com/v1", "kind": "Pki", "name": "a", "uid": "u", "controller": true }] });
        let offer = json!({ "annotations": { "box.com/adopt": "a" } });
        for (metadata, name, uid, expected) in [
            (&owner, "a", "u", true),
            (&owner, "a", "another", false),
            (&offer, "a", "u", true),
            (&offer, "b", "u", false),
            (&json!({}), "a", "u", false),
        ] {
            let is_of = secret(metadata).is_of(&Key::new("ns", name), uid);
            assert_eq!(is_of, expected, "{metadata} {name} {uid}");
        }
    }

    #[test]
    fn a_secret_of_somebody_else_is_predicted_to_stay_as_it_is() {
        let stored = |name: &str, secret: &str| -> Pki {
            let pki = json!({
                "apiVersion": "box.com/v1", "kind": "Pki",
                "metadata": { "namespace": "ns", "name": name, "uid": format!("uid-of-{name}") },
                "spec": { "serviceName": "app", "secretName": secret }
            });
            serde_json::from_value(pki).unwrap()
        };
        let mut pkis = SecretIndex::default();
        for (name, secret) in [("a", "s"), ("moved", "elsewhere"), ("b", "s")] {
            pkis.apply(Event::Apply(KnownPki::from(stored(name, secret))));
        }
        let mut makes_way = stored("makes-way", "elsewhere");
        makes_way.status =
            serde_json::from_value(json!({ "formerSecrets": [{ "name": "s" }] })).unwrap();
        pkis.apply(Event::Apply(KnownPki::from(makes_way)));
        let owned_by = |api_version: &str, kind: &str, name: &str, uid: &str| {
            json!({ "ownerReferences": [
                { "apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true }] })
        };
        for (metadata, is_foreign) in [
            (json!({}), true),
            (json!({ "annotations": { "box.com/adopt": "a" } }), false),
            (json!({ "annotations": { "box.com/adopt": "b" } }), false),
            (json!({ "annotations": { "box.com/adopt": "moved" } }), true),
            (json!({ "annotations": { "box.com/adopt": "gone" } }), true),
            (
                // Its certificate may prove that it is the Pki's.
                json!({ "labels": { "app.kubernetes.io/managed-by": "pki-operator" } }),
                false,
            ),
            (owned_by("v1", "ConfigMap", "a", "uid-of-a"), true),
            (owned_by("example.com/v1", "Pki", "a", "uid-of-a"), true),
            (owned_by("box.com/v1", "Pki", "a", "uid-of-a"), false),
            (owned_by("box.com/v1", "Pki", "a", "of one before"), false),
            (owned_by("box.com/v1", "Pki", "b", "uid-of-b"), false),
            (owned_by("box.com/v1", "Pki", "gone", "x"), false),
            (owned_by("box.com/v1", "Pki", "moved", "uid-of-moved"), true),
            (
                owned_by("box.com/v1", "Pki", "makes-way", "uid-of-makes-way"),
                false,
            ),
        ] {
            let mut secrets = SecretIndex::default();
            secrets.apply(Event::Apply(secret(&metadata)));
            let of = |name: &str| {
                predicted_obstacle(&secrets, &pkis, &Key::new("ns", "a"), &Key::new("ns", name))
                    .is_some()
            };
            assert_eq!(of("s"), is_foreign, "{metadata}");
            assert!(!of("other"), "there is none");
        }
    }
}
