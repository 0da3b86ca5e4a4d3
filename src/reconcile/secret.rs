//! The Secret of a Pki: what it looks like, and whose it is.

use crate::api::Pki;
use crate::claims::Claim;
use crate::index::{BySecret, Key, NamesSecrets};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use pki_certs::{Authority, Bundle, Leaf};
use std::collections::BTreeMap;

/// The type of the Secret: the API server makes sure that both of its keys are there.
pub const TLS: &str = "kubernetes.io/tls";

/// Whose a Secret is, by its controller reference. Labels and annotations prove nothing: anybody may set them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This Pki, by its UID.
    Ours,
    /// Another Pki, which claims the Secret too.
    Rival(Key),
    /// A Pki that is gone, or going; Kubernetes is about to collect the Secret with it.
    FormerPki,
    /// Somebody else, or nobody: its content is not ours to change.
    Foreign,
}

/// Whose this Secret is. `claims` tells which other Pkis there are.
pub fn owner(secret: &Secret, pki: &Pki, claims: &BySecret<Claim>) -> Owner {
    let mut references = secret.metadata.owner_references.iter().flatten();
    let Some(controller) = references.find(|reference| reference.controller == Some(true)) else {
        return Owner::Foreign;
    };
    if controller.kind != Pki::kind(&()) || controller.api_version != Pki::api_version(&()) {
        return Owner::Foreign;
    }
    if Some(&controller.uid) == pki.metadata.uid.as_ref() {
        return Owner::Ours;
    }
    let other = Key::new(pki.namespace().unwrap_or_default(), &controller.name);
    match claims
        .get(&other)
        .filter(|claim| claim.lives_as(&controller.uid))
    {
        None => Owner::FormerPki,
        Some(claim) if claim.secrets().any(|name| name == secret.name_any()) => Owner::Rival(other),
        Some(_) => Owner::Foreign,
    }
}

/// The Secret to write. `observed` is the one to be changed; its UID and version become preconditions, so that a
/// write which comes late, from a replica that no longer leads, is refused.
pub fn manifest(
    pki: &Pki,
    name: &str,
    leaf: &Leaf,
    authority: &Authority,
    observed: Option<&Secret>,
) -> Secret {
    let file =
        |name: &str, content: &str| (name.to_owned(), ByteString(content.as_bytes().to_vec()));
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: pki.namespace(),
            uid: observed.and_then(ResourceExt::uid),
            resource_version: observed.and_then(ResourceExt::resource_version),
            labels: Some(BTreeMap::from([(
                "app.kubernetes.io/managed-by".into(),
                "pki-operator".into(),
            )])),
            owner_references: Some(vec![owner_reference(pki)]),
            ..ObjectMeta::default()
        },
        type_: Some(TLS.into()),
        data: Some(BTreeMap::from([
            file("tls.crt", &leaf.chain_pem),
            file("tls.key", leaf.private_key_pem.as_str()),
            file("ca.crt", authority.certificate_pem()),
        ])),
        ..Secret::default()
    }
}

/// The certificate files of a Secret; a missing one is empty, which no check takes for sound.
pub fn bundle(secret: &Secret) -> Bundle<'_> {
    let file = |name: &str| {
        secret
            .data
            .as_ref()
            .and_then(|data| data.get(name))
            .map_or(&[][..], |bytes| &bytes.0)
    };
    Bundle {
        certificate: file("tls.crt"),
        private_key: file("tls.key"),
        authority: file("ca.crt"),
    }
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
mod tests {
    use super::*;
    use kube::runtime::watcher::Event;
    use serde_json::{Value, json};

    fn pki() -> Pki {
        let mut pki = Pki::new("app1-pki", crate::api::PkiSpec::default());
        (pki.metadata.namespace, pki.metadata.uid) = (Some("ns".into()), Some("uid-1".into()));
        pki
    }

    /// Pkis that live: app1-pki, its rival, and one with another Secret.
    fn claims() -> BySecret<Claim> {
        let mut claims = BySecret::default();
        for (name, secret, uid) in [
            ("app1-pki", "app1-pki", "uid-1"),
            ("rival", "app1-pki", "uid-2"),
            ("other", "other", "uid-3"),
        ] {
            let pki = serde_json::from_value(json!({
                "apiVersion": "box.com/v1", "kind": "Pki",
                "metadata": {"namespace": "ns", "name": name, "uid": uid},
                "spec": {"serviceName": "app1", "secretName": secret}
            }));
            let stored: crate::api::StoredPki = kube::core::DeserializeGuard(Ok(pki.unwrap()));
            claims.apply(Event::Apply(stored.into()));
        }
        claims
    }

    fn owned(references: &Value) -> Owner {
        let secret = serde_json::from_value(json!({"metadata": {"name": "app1-pki",
            "labels": {"app.kubernetes.io/managed-by": "pki-operator"}, "ownerReferences": references}}));
        owner(&secret.unwrap(), &pki(), &claims())
    }

    fn reference(kind: &str, api_version: &str, name: &str, uid: &str, controller: bool) -> Value {
        json!([{"kind": kind, "apiVersion": api_version, "name": name, "uid": uid, "controller": controller}])
    }

    fn pki_reference(name: &str, uid: &str) -> Value {
        reference("Pki", "box.com/v1", name, uid, true)
    }

    #[test]
    fn a_secret_is_ours_by_uid_alone() {
        assert_eq!(owned(&pki_reference("app1-pki", "uid-1")), Owner::Ours);
        for foreign in [
            json!([]),
            reference("Pki", "box.com/v1", "app1-pki", "uid-1", false),
            reference("Pki", "example.com/v1", "app1-pki", "uid-1", true),
            reference("Deployment", "apps/v1", "app1-pki", "uid-1", true),
        ] {
            assert_eq!(owned(&foreign), Owner::Foreign, "{foreign}");
        }
    }

    #[test]
    fn a_secret_of_another_pki_is_its_own_while_that_lives() {
        assert_eq!(
            owned(&pki_reference("rival", "uid-2")),
            Owner::Rival(Key::new("ns", "rival"))
        );
        assert_eq!(
            owned(&pki_reference("other", "uid-3")),
            Owner::Foreign,
            "left behind by a Pki that names another Secret now"
        );
        for gone in [("app1-pki", "uid-0"), ("rival", "uid-0"), ("gone", "uid-9")] {
            assert_eq!(
                owned(&pki_reference(gone.0, gone.1)),
                Owner::FormerPki,
                "{gone:?}"
            );
        }
    }

    #[test]
    fn what_is_written_is_ours_and_bound_to_what_was_seen() {
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        let authority =
            Authority::generate("ca", jiff::SignedDuration::from_hours(48), now).unwrap();
        let request = pki_certs::LeafRequest {
            common_name: "app1".into(),
            dns_names: vec!["app1.ns.svc".into()],
            ip_addresses: vec![],
            duration: jiff::SignedDuration::from_hours(24),
            key: pki_certs::KeyAlgorithm::EcdsaP256,
        };
        let leaf = authority.issue(&request, now).unwrap();
        let made = manifest(&pki(), "app1-pki", &leaf, &authority, None);
        assert_eq!(
            (
                owner(&made, &pki(), &claims()),
                &made.metadata.resource_version
            ),
            (Owner::Ours, &None)
        );
        assert!(pki_certs::verify(&bundle(&made), &request, &authority, now).is_ok());

        let mut seen = Secret::default();
        (seen.metadata.uid, seen.metadata.resource_version) = (Some("u".into()), Some("7".into()));
        let update = manifest(&pki(), "app1-pki", &leaf, &authority, Some(&seen)).metadata;
        assert_eq!(
            (update.uid, update.resource_version),
            (Some("u".into()), Some("7".into()))
        );
    }
}
