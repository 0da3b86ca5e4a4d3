//! A `PodCertificateRequest`, as far as the signer needs it.

use crate::api::SIGNER;
use crate::k8s::object_key::Key;
use crate::k8s::projection::Projection;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::PodCertificateRequest;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// The types of the conditions that end a request (`certificates/v1`).
const FINAL: [&str; 3] = ["Issued", "Denied", "Failed"];
/// The longest lifetime where the request names none, as the API server sets it.
const DEFAULT_EXPIRATION: SignedDuration = SignedDuration::from_hours(24);

/// A request of a kubelet, or of somebody who says so.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) key: Key,
    pub(super) uid: String,
    pub(super) version: String,
    pub(super) created: Timestamp,
    /// The pod, in the namespace of the request.
    pub(super) pod: Identity,
    pub(super) service_account: Identity,
    pub(super) node: Identity,
    /// The longest lifetime, backdating included.
    pub(super) max_expiration_seconds: i32,
    pub(super) annotations: BTreeMap<String, String>,
    /// A PKCS#10 request in DER.
    pub(super) csr: Vec<u8>,
    /// Whether the signer has nothing to do.
    pub(super) is_decided: bool,
}

/// Name and UID of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) uid: String,
}

impl Projection for Request {
    type Whole = PodCertificateRequest;

    fn of(whole: PodCertificateRequest) -> Self {
        let (spec, status) = (whole.spec.clone(), whole.status.as_ref());
        let mut conditions = status.and_then(|it| it.conditions.as_ref()).into_iter();
        let is_final = conditions.any(|them| {
            let mut types = them.iter().map(|condition| condition.type_.as_str());
            types.any(|type_| FINAL.contains(&type_))
        });
        let identity = |name: String, uid: String| Identity { name, uid };
        let hours = spec.max_expiration_seconds;
        let default = i32::try_from(DEFAULT_EXPIRATION.as_secs()).unwrap_or(i32::MAX);
        Self {
            key: Key::of(&whole),
            uid: whole.uid().unwrap_or_default(),
            version: whole.resource_version().unwrap_or_default(),
            created: whole
                .creation_timestamp()
                .map_or(Timestamp::MAX, |time| time.0),
            pod: identity(spec.pod_name, spec.pod_uid),
            service_account: identity(spec.service_account_name, spec.service_account_uid),
            node: identity(spec.node_name, spec.node_uid),
            max_expiration_seconds: hours.unwrap_or(default),
            annotations: spec.unverified_user_annotations.unwrap_or_default(),
            csr: spec.stub_pkc_s10_request.0,
            is_decided: is_final || spec.signer_name != SIGNER,
        }
    }
}

impl Request {
    /// The longest lifetime.
    pub(super) fn max_expiration(&self) -> SignedDuration {
        SignedDuration::from_secs(self.max_expiration_seconds.into())
    }

    /// The pod.
    pub(super) fn pod_key(&self) -> Key {
        self.key.beside(&self.pod.name.as_str().into())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A request for pod `app-1`, with the key `csr` in base64.
    pub(in super::super) fn request(csr: &str) -> Value {
        json!({
            "metadata": {
                "namespace": "ns", "name": "req-1", "uid": "r", "resourceVersion": "7",
                "creationTimestamp": "2026-03-01T12:00:00Z"
            },
            "spec": {
                "signerName": "box.com/pki", "podName": "app-1", "podUID": "p",
                "serviceAccountName": "app", "serviceAccountUID": "s", "nodeName": "node", "nodeUID": "n",
                "maxExpirationSeconds": 3600, "stubPKCS10Request": csr,
                "unverifiedUserAnnotations": {"box.com/pki": "app1-pki"}
            }
        })
    }

    fn read(object: Value) -> Request {
        Request::of(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_request_is_open_until_it_is_issued_denied_or_failed() {
        assert!(!read(request("")).is_decided);
        for (type_, is_decided) in [
            ("Issued", true),
            ("Denied", true),
            ("Failed", true),
            ("Other", false),
        ] {
            let mut object = request("");
            object["status"] = json!({"conditions": [
                {"type": type_, "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-03-01T12:00:00Z"}
            ]});
            assert_eq!(read(object).is_decided, is_decided, "{type_}");
        }
    }

    #[test]
    fn a_request_to_another_signer_is_none_of_ours() {
        let mut object = request("");
        object["spec"]["signerName"] = json!("example.com/other");
        assert!(read(object).is_decided);
    }

    #[test]
    fn a_request_without_a_lifetime_has_that_of_the_api_server() {
        let mut object = request("");
        object["spec"]["maxExpirationSeconds"] = Value::Null;
        assert_eq!(read(object).max_expiration(), DEFAULT_EXPIRATION);
    }
}
