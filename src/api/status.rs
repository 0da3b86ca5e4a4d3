//! The status of a [`Pki`](super::Pki).

use super::Defaults;
use super::conditions::{MAX_CONDITIONS, MAX_FORMER_SECRETS};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Observed state of a Pki, and the last actions of the operator.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PkiStatus {
    /// `Ready` says whether the Secret holds a valid certificate that matches the spec. If not,
    /// reason and message say why, in the same words as a refusal of `kubectl apply`.
    #[serde(default, deserialize_with = "super::stored::conditions")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_CONDITIONS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// `metadata.generation` that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// PkiPolicy that permits the Pki, and that supplies the fields which its spec omits. The name
    /// stays while that policy permits the Pki.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Values that the certificate in the Secret has for fields that the spec omits. Changed
    /// defaults apply from the next renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Defaults>,
    /// Name of the Secret that holds the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Serial number of the certificate, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// Start of the certificate's validity.
    #[serde(default, deserialize_with = "super::stored::time")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Expiry of the certificate.
    #[serde(default, deserialize_with = "super::stored::time")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// Time of the next renewal.
    #[serde(default, deserialize_with = "super::stored::time")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal_time: Option<Time>,
    /// SHA-256 fingerprint of the CA certificate that signed the certificate, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_fingerprint: Option<String>,
    /// SHA-256 fingerprint of the CA certificates in `ca.crt`, in hexadecimal. It changes during a
    /// rotation of the CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_fingerprint: Option<String>,
    /// Number of consecutive failed attempts to issue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_attempts: Option<i32>,
    /// Time of the next attempt, after a failed one.
    #[serde(default, deserialize_with = "super::stored::time")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
    /// Last renewal that the annotation `box.com/renew-now` requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_request: Option<RenewalRequest>,
    /// Number of pods that use a pod certificate of this Pki, counted every ten seconds at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_certificates: Option<i32>,
    /// Secrets of the Pki from before a change of `spec.secretName`: the last ten, in order.
    #[serde(default, deserialize_with = "super::stored::former_secrets")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_FORMER_SECRETS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub former_secrets: Vec<FormerSecret>,
}

impl PkiStatus {
    /// Whether a certificate was issued, which may have ended since.
    pub fn has_certificate(&self) -> bool {
        self.serial_number.is_some()
    }
}

/// Secret of a Pki from before a change of `spec.secretName`. The operator does not renew it, and
/// removes it when no pod uses it or its certificate expires.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FormerSecret {
    /// Name of the Secret.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Time when another Secret replaced this one.
    #[serde(default, deserialize_with = "super::stored::time")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_time: Option<Time>,
    /// Expiry of the certificate in it, if there ever was one.
    #[serde(default, deserialize_with = "super::stored::time")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
}

/// Renewal on request. Each value of the annotation is served once, and a Pki is renewed on
/// request at most once in five minutes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RenewalRequest {
    /// Value of the annotation `box.com/renew-now` that was served last, or the SHA-256 of a long
    /// value.
    #[serde(default)]
    pub value: String,
    /// Time when it was served.
    #[serde(default, deserialize_with = "super::stored::time")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served_time: Option<Time>,
    /// Reason why the current annotation is not served yet, and the time when it will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
