//! Every [`Pki`], packed, beside the few fields that are read often.
//!
//! A Pki takes up 2 KiB as a structure, 1 KiB as text, and 300 bytes compressed with a dictionary.
//! Unpacking takes microseconds, and a reconcile takes milliseconds.

use crate::api::annotations::Carrier;
use crate::api::{Delivery, Outputs, Pki, StoredPki};
use crate::k8s::object_key::Key;
use crate::k8s::projection::Projection;
use crate::store::ignored::Ignored;
use crate::store::secret_index::ReferencesSecrets;
use crate::util::hash::digest;
use jiff::Timestamp;
use kube::Resource;
use kube::core::error_boundary::InvalidObject;
use kube::core::{DeserializeGuard, ObjectMeta};
use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};
use std::num::NonZeroU64;
use std::sync::Arc;

/// A Pki. It is found by the Secret that it claims, by those with the passwords of its keystores,
/// and by those that it wrote before.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownPki {
    key: Key,
    /// A digest of its UID.
    uid: u64,
    /// When it was made.
    pub created: Timestamp,
    is_being_deleted: bool,
    /// `None` for an object that cannot be read, or that is being deleted; it claims nothing.
    claimed: Option<Arc<str>>,
    passwords: Box<[Arc<str>]>,
    /// The Secrets that it wrote before.
    formers: Box<[Arc<str>]>,
    /// A digest of what its author edits. The status, which the operator writes, is not in it.
    pub edition: u64,
    /// Whether its certificates are delivered to pods.
    is_for_pods: bool,
    /// Whether the status reports a certificate for the present spec.
    pub ready: bool,
    /// Annotations and labels without an effect.
    pub ignored: Ignored,
    /// The resource version, if that is a number.
    version: Option<NonZeroU64>,
    /// The state that the watch delivered last, if this is an own write that it has not reached.
    last_watched: Option<Arc<Self>>,
    packed: Packed,
}

/// The whole.
#[derive(Clone, Debug, PartialEq)]
enum Packed {
    /// JSON, compressed with the [`DICTIONARY`].
    Readable(Box<[u8]>),
    /// The error, and the metadata.
    Unreadable(Box<(String, ObjectMeta)>),
}

/// Dictionary of the compression: text that most Pkis have, in about this order.
const DICTIONARY: &[u8] = concat!(
    r#""duration":"2160h","dnsNames":["","secretName":"-tls","#,
    r#""message":", which a PkiPolicy permits, is not found in allowedNames: ["#,
    r#","reason":"ServiceNameNotAllowed","status":"False","type":"Ready""#,
    r#"{"apiVersion":"box.com/v1","kind":"Pki","metadata":{"#,
    r#""annotations":{"kubectl.kubernetes.io/last-applied-configuration":"#,
    r#""{\"apiVersion\":\"box.com/v1\",\"kind\":\"Pki\",\"metadata\":{\"annotations\":{},"#,
    r#"\"name\":\"-pki\",\"namespace\":\"default\"},\"spec\":{\"serviceName\":\""}}\n"},"#,
    r#""creationTimestamp":"2026-01-01T00:00:00Z","generation":1,"#,
    r#""labels":{"app.kubernetes.io/managed-by":"Helm"},"#,
    r#""name":"-pki","namespace":"default","resourceVersion":"1","uid":""},"#,
    r#""spec":{"serviceName":"app"},"#,
    r#""status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","#,
    r#""message":"Secret -pki holds a certificate for , valid until 2027-01-01T00:00:00Z","#,
    r#""observedGeneration":1,"reason":"PkiReady","status":"True","type":"Ready"}],"#,
    r#""issuerFingerprint":"","notAfter":"2027-01-01T00:00:00Z","notBefore":"2026-01-01T00:00:00Z","#,
    r#""observedGeneration":1,"policy":"pki-operator-allowed-names","defaults":{"duration":"2160h","#,
    r#""renewBefore":"720h","usages":["server auth","client auth"],"privateKey":{"algorithm":"ECDSA","#,
    r#""size":256,"encoding":"PKCS8"}},"renewalTime":"2027-01-01T00:00:00Z","secretName":"-pki","#,
    r#""serialNumber":"","trustFingerprint":""}}"#
)
.as_bytes();

impl From<StoredPki> for KnownPki {
    fn from(mut stored: StoredPki) -> Self {
        let meta = stored.meta_mut();
        meta.managed_fields = None;
        let is_being_deleted = meta.deletion_timestamp.is_some();
        let version = meta.resource_version.as_ref();
        let version = version.and_then(|version| version.parse().ok());
        let ignored = Ignored::of(Carrier::Pki, meta);
        let created = meta.creation_timestamp.as_ref();
        let created = created.map_or(Timestamp::MAX, |time| time.0);
        let uid = digest(meta.uid.as_deref().unwrap_or_default());
        // Rules of policies may read labels and annotations.
        let edited = (uid, meta.generation, is_being_deleted);
        let edition = digest((edited, &meta.labels, &meta.annotations));
        let key = Key::of(&stored);
        let pki = stored.0.as_ref().ok();
        let claimed = pki.filter(|pki| !is_being_deleted && pki.delivery() == Delivery::Secret);
        let claimed = claimed.map(|pki| key.share_name(pki.secret_name()));
        Self {
            uid,
            created,
            is_being_deleted,
            claimed,
            passwords: pki.map(passwords).unwrap_or_default(),
            formers: pki.map(formers).unwrap_or_default(),
            edition,
            is_for_pods: pki.is_some_and(|pki| pki.delivery() == Delivery::Pod),
            ready: pki.is_some_and(|pki| pki.ready().is_some()),
            ignored,
            version,
            last_watched: None,
            packed: Packed::of(stored.0),
            key,
        }
    }
}

impl From<Pki> for KnownPki {
    fn from(pki: Pki) -> Self {
        DeserializeGuard(Ok(pki)).into()
    }
}

fn passwords(pki: &Pki) -> Box<[Arc<str>]> {
    let outputs = pki.spec.outputs.iter();
    outputs
        .flat_map(Outputs::keystores)
        .map(|keystore| keystore.password_secret_ref.name.as_str().into())
        .collect()
}

fn formers(pki: &Pki) -> Box<[Arc<str>]> {
    let status = pki.status.iter();
    let formers = status.flat_map(|status| &status.former_secrets);
    formers.map(|former| former.name.as_str().into()).collect()
}

impl Packed {
    fn of(stored: Result<Pki, InvalidObject>) -> Self {
        let invalid = match stored {
            Ok(pki) => match serde_json::to_vec(&pki) {
                Ok(json) => {
                    let packed = compress_prepend_size_with_dict(&json, DICTIONARY);
                    return Self::Readable(packed.into());
                }
                Err(error) => (error.to_string(), pki.metadata),
            },
            Err(InvalidObject { error, metadata }) => (error, metadata),
        };
        Self::Unreadable(Box::new(invalid))
    }
}

impl KnownPki {
    /// The Pki as it is stored, without its `managedFields`.
    pub fn unpack(&self) -> StoredPki {
        let unpacked = match &self.packed {
            Packed::Readable(packed) => {
                let json = decompress_size_prepended_with_dict(packed, DICTIONARY);
                let json = json.expect("what was compressed can be decompressed");
                serde_json::from_slice(&json).map_err(|error| self.unreadable(&error))
            }
            Packed::Unreadable(invalid) => Err(invalid.as_ref().clone()),
        };
        DeserializeGuard(unpacked.map_err(|(error, metadata)| InvalidObject { error, metadata }))
    }

    /// Reports packed text that cannot be read again, as if the Pki could not be read.
    fn unreadable(&self, error: &serde_json::Error) -> (String, ObjectMeta) {
        let metadata = ObjectMeta {
            namespace: Some(self.key.namespace.to_string()),
            name: Some(self.key.name.to_string()),
            ..ObjectMeta::default()
        };
        (error.to_string(), metadata)
    }

    /// The Secret that it claims, if it claims one.
    pub fn claimed(&self) -> Option<&Arc<str>> {
        self.claimed.as_ref()
    }

    /// Whether its certificates are delivered to pods.
    pub fn is_for_pods(&self) -> bool {
        self.is_for_pods
    }

    /// Whether it is being deleted.
    pub fn is_being_deleted(&self) -> bool {
        self.is_being_deleted
    }

    /// Whether it claims the Secret of this name.
    pub fn claims(&self, secret: &str) -> bool {
        self.claimed.as_deref() == Some(secret)
    }

    /// Whether it wrote the Secret of this name before, and writes another one now.
    pub fn wrote(&self, secret: &str) -> bool {
        !self.claims(secret) && self.formers.iter().any(|former| **former == *secret)
    }

    /// Whether this is the Pki of the UID with this digest, and it is not being deleted.
    pub(crate) fn is_live(&self, uid: u64) -> bool {
        self.uid == uid && !self.is_being_deleted
    }

    /// This state, which an own write made, while the watch has delivered no more than that.
    #[must_use]
    pub fn unconfirmed(self, last_watched: Arc<Self>) -> Self {
        Self {
            last_watched: Some(last_watched),
            ..self
        }
    }

    /// The state that the watch delivered last, if this one is an own write.
    pub fn last_watched(&self) -> Option<&Arc<Self>> {
        self.last_watched.as_ref()
    }

    /// Whether both are states of one object, and this is the earlier one. Resource versions are
    /// compared as numbers, which Kubernetes promises since 1.35 (KEP-5504). Other versions have no
    /// order.
    pub fn precedes(&self, other: &Self) -> bool {
        let versions = self.version.zip(other.version);
        self.uid == other.uid && versions.is_some_and(|(own, other)| own < other)
    }
}

impl ReferencesSecrets for KnownPki {
    fn key(&self) -> &Key {
        &self.key
    }

    fn secrets(&self) -> impl Iterator<Item = &Arc<str>> {
        let others = self.passwords.iter().chain(&self.formers);
        self.claimed.iter().chain(others)
    }
}

impl Projection for KnownPki {
    type Whole = StoredPki;

    fn of(stored: StoredPki) -> Self {
        stored.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api;
    use kube::ResourceExt as _;
    use serde_json::{Value, json};

    /// One in which everything is said that can be.
    fn full() -> Value {
        json!({
            "apiVersion": "box.com/v1", "kind": "Pki",
            "metadata": {
                "namespace": "ns", "name": "a", "uid": "u", "generation": 3, "resourceVersion": "7",
                "creationTimestamp": "2030-01-01T00:00:00Z", "deletionTimestamp": "2030-01-02T00:00:00Z",
                "deletionGracePeriodSeconds": 0, "finalizers": ["example.com/wait"],
                "labels": {"team": "a"}, "annotations": {"text": "\" \\ \u{202e} \u{0} \n ü"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "o"}]
            },
            "spec": {
                "serviceName": "app1", "commonName": "app1", "dnsNames": ["a.example.com"], "secretName": "tls",
                "duration": "24h", "ipAddresses": ["10.0.0.1"], "uris": ["spiffe://a/b"],
                "usages": ["server auth"], "renewBefore": "1h", "renewBeforePercentage": 7,
                "privateKey": {"algorithm": "RSA", "size": 2048, "encoding": "PKCS1", "rotationPolicy": "Never"},
                "secretTemplate": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
                "outputs": {"combinedPem": true, "derKey": true, "pkcs12": {"passwordSecretRef": {"name": "p", "key": "k"}}}
            },
            "status": {
                "conditions": [{
                    "type": "Ready", "status": "True", "observedGeneration": 3, "reason": "PkiReady", "message": "fine",
                    "lastTransitionTime": "2030-01-01T00:00:00Z"
                }],
                "observedGeneration": 3, "secretName": "tls", "serialNumber": "0A", "notBefore": "2030-01-01T00:00:00Z",
                "notAfter": "2030-01-02T00:00:00Z", "renewalTime": "2030-01-01T12:00:00Z", "issuerFingerprint": "ff",
                "trustFingerprint": "fe", "failedAttempts": 2, "nextAttemptTime": "2030-01-01T00:01:00Z"
            }
        })
    }

    #[test]
    fn what_is_unpacked_is_what_was_packed_but_for_the_managed_fields() {
        let pki: Pki = serde_json::from_value(full()).unwrap();
        assert_eq!(json!(pki), full(), "nothing that is said here is unknown");
        let mut managed = full();
        managed["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
        let known = KnownPki::from(serde_json::from_value::<Pki>(managed).unwrap());
        assert_eq!(known.unpack().0.unwrap(), pki);
        let minimal = api::tests::pki(json!({}));
        assert_eq!(KnownPki::from(minimal.clone()).unpack().0.unwrap(), minimal);
    }

    #[test]
    fn whatever_the_api_server_takes_can_be_unpacked() {
        let read = |time: &str| {
            let mut object = full();
            object["status"]["notAfter"] = json!(time);
            serde_json::from_value::<Pki>(object).expect("as the API server takes it")
        };
        let end = |pki: &Pki| {
            let end = pki.status.as_ref()?.not_after.as_ref()?;
            Some(end.0.as_second())
        };
        for (time, is_kept) in [
            // It can be read, and once written anew not again.
            ("0000-01-01T00:00:00+14:00", false),
            ("9999-12-31T23:59:59Z", false),
            ("9999-12-31T23:59:59-01:00", false),
            ("0000-01-01T00:00:00Z", true),
            ("9999-12-30T21:59:59.999999999Z", true),
            ("2030-01-01t00:00:00z", true),
            ("2016-12-31T23:59:60Z", true),
        ] {
            let pki = read(time);
            let unpacked = KnownPki::from(pki.clone()).unpack().0;
            let unpacked = unpacked.unwrap_or_else(|invalid| panic!("{time}: {invalid}"));
            assert_eq!(end(&unpacked).is_some(), is_kept, "{time}");
            if is_kept {
                assert_eq!(end(&unpacked), end(&pki), "{time}");
            }
            assert_eq!(unpacked.spec, pki.spec);
        }
    }

    #[test]
    fn of_the_usual_little_is_left() {
        let pki: Pki = serde_json::from_value(json!({
            "apiVersion": "box.com/v1", "kind": "Pki",
            "metadata": {
                "creationTimestamp": "2026-11-25T20:12:03Z", "generation": 1, "name": "app1-pki", "namespace": "team-a",
                "resourceVersion": "39382", "uid": "0b81a8d7-cd8f-4d3a-a5c2-f68f1818011a"
            },
            "spec": {"serviceName": "app1"},
            "status": {
                "conditions": [{
                    "lastTransitionTime": "2026-11-25T20:13:44Z", "observedGeneration": 1, "reason": "PkiReady",
                    "message": "Secret app1-pki holds a certificate for app1, valid until 2027-02-23T20:13:44Z",
                    "status": "True", "type": "Ready"
                }],
                "issuerFingerprint": "c2968a754c69065a0287ee575d547c5ce18dd521ed0fa2abd731ae0cd6208240",
                "notAfter": "2027-02-23T20:13:44Z", "notBefore": "2026-11-25T20:08:44Z", "observedGeneration": 1,
                "renewalTime": "2027-01-19T22:52:36Z", "secretName": "app1-pki",
                "serialNumber": "09373D21B7E873FC2B85749264E5C0A6",
                "trustFingerprint": "c2968a754c69065a0287ee575d547c5ce18dd521ed0fa2abd731ae0cd6208240"
            }
        }))
        .unwrap();
        let whole = json!(pki).to_string().len();
        let Packed::Readable(packed) = KnownPki::from(pki).packed else {
            panic!("it can be read")
        };
        assert!(2 * packed.len() < whole, "{} of {whole}", packed.len());
    }

    #[test]
    fn one_that_cannot_be_read_is_kept_with_what_is_wrong() {
        let mut object = full();
        object["spec"] = json!({"serviceName": 5});
        let stored: StoredPki = serde_json::from_value(object).unwrap();
        let known = KnownPki::from(stored.clone());
        assert_eq!(known.claimed(), None);
        assert_eq!(known.secrets().count(), 0);
        let unpacked = known.unpack();
        assert_eq!(unpacked.uid().as_deref(), Some("u"));
        let (unpacked, stored) = (unpacked.0.unwrap_err(), stored.0.unwrap_err());
        assert_eq!(unpacked.error, stored.error);
        assert_eq!(unpacked.metadata, stored.metadata);
    }

    #[test]
    fn states_of_one_object_are_in_order_and_those_of_two_are_not() {
        let state = |uid: &str, version: &str| {
            let mut pki = api::tests::pki(json!({}));
            pki.metadata.uid = Some(uid.into());
            pki.metadata.resource_version = Some(version.into());
            KnownPki::from(pki)
        };
        for (earlier, later, is_so) in [
            (("u", "9"), ("u", "10"), true),
            (("u", "10"), ("u", "9"), false),
            (("u", "10"), ("u", "10"), false),
            (("u", "9"), ("v", "10"), false),
            (("u", "nine"), ("u", "10"), false),
            (("u", "9"), ("u", "ten"), false),
        ] {
            let precedes = state(earlier.0, earlier.1).precedes(&state(later.0, later.1));
            assert_eq!(precedes, is_so, "{earlier:?} {later:?}");
        }
    }
}
