//! The status of a [`Pki`](super::Pki).

use super::Defaults;
use super::conditions::{MAX_CONDITIONS, MAX_FORMER_SECRETS};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What the operator last saw and did.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PkiStatus {
    /// `Ready` says whether the Secret holds a valid certificate that matches the spec; its reason
    /// and message say why not, in the words that `kubectl apply` would have used.
    #[serde(default, deserialize_with = "super::stored::conditions")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_CONDITIONS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The PkiPolicy that permits the Pki and decides what its spec leaves out, for as long as it
    /// permits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Values that the certificate in the Secret has for fields that the spec leaves out. Changed
    /// defaults count from the next renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Defaults>,
    /// The Secret that holds the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Serial number of the certificate, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// Start of the certificate's validity.
    #[serde(default, deserialize_with = "super::stored::time")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// End of the certificate's validity.
    #[serde(default, deserialize_with = "super::stored::time")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// When the certificate is renewed.
    #[serde(default, deserialize_with = "super::stored::time")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal_time: Option<Time>,
    /// SHA-256 fingerprint of the CA certificate that signed, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_fingerprint: Option<String>,
    /// SHA-256 fingerprint of the CA certificates in `ca.crt`, in hexadecimal: it changes while the
    /// CA is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_fingerprint: Option<String>,
    /// How many attempts to issue have failed in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_attempts: Option<i32>,
    /// When the next attempt is made, after a failed one.
    #[serde(default, deserialize_with = "super::stored::time")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
    /// The last renewal that was asked for with the annotation `box.com/renew-now`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_request: Option<RenewalRequest>,
    /// The Secrets that the Pki wrote before `spec.secretName` was changed, the last ten, in order.
    #[serde(default, deserialize_with = "super::stored::former_secrets")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_FORMER_SECRETS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub former_secrets: Vec<FormerSecret>,
}

/// A Secret that a Pki wrote before `spec.secretName` was changed. It is not renewed, and it is
/// removed when no pod uses it, at the latest at its end.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FormerSecret {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// When another Secret took its place.
    #[serde(default, deserialize_with = "super::stored::time")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_time: Option<Time>,
    /// End of the certificate in it, if there ever was one.
    #[serde(default, deserialize_with = "super::stored::time")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
}

/// A renewal on request. Each value of the annotation is served once, and a Pki is renewed on
/// request once in five minutes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RenewalRequest {
    /// The value of the annotation `box.com/renew-now` that was served last; of a long one its
    /// SHA-256.
    #[serde(default)]
    pub value: String,
    /// When it was served.
    #[serde(default, deserialize_with = "super::stored::time")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served_time: Option<Time>,
    /// The reason why the annotation that the Pki has now is not served, and the time when it will
    /// be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
