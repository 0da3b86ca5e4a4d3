//! The objects that people write: [`Pki`] and [`PkiPolicy`], group `box.com`, version `v1`.
//!
//! The schema has the rules of single fields, as CEL rules with readable refusals. The rules that
//! depend on a policy or another field's default are in [`crate::policy`], which also checks those
//! of the schema: an object may have been stored under an older one.
#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a function"
)]
#![allow(
    clippy::doc_markdown,
    reason = "comments on fields are what `kubectl explain` prints"
)]
#![allow(
    clippy::duplicated_attributes,
    reason = "each printer column has its own"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::DeserializeGuard;
use kube::{CustomResource, KubeSchema, ResourceExt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use certificate::{
    Delivery, KeyAlgorithm, KeyEncoding, Keystore, Outputs, PrivateKey, RotationPolicy,
    SecretKeyReference, SecretTemplate, Usage,
};
pub use crd::{VERSION_LABEL, crds_yaml, definitions, schema};
pub use defaults::Defaults;
pub use policy::{
    LabelOperator, LabelRequirement, NamespaceScope, NamespaceSelector, PermittedKey, PkiPolicy,
    PkiPolicySpec, PkiPolicyStatus, Validation,
};
pub use status::{FormerSecret, PkiStatus, RenewalRequest};

pub mod annotations;
mod certificate;
pub mod conditions;
mod crd;
mod defaults;
mod policy;
mod rules;
mod status;
mod stored;

/// The API group of both kinds.
pub const GROUP: &str = "box.com";
/// The API version of both kinds.
pub const VERSION: &str = "v1";
/// The name of the signer of pod certificates, which pods write as `signerName`.
pub const SIGNER: &str = "box.com/pki";

/// Request of an application team: a certificate for one of its services.
#[derive(
    CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq,
)]
#[kube(
    group = "box.com",
    version = "v1",
    kind = "Pki",
    plural = "pkis",
    shortname = "pki",
    category = "pki-operator",
    namespaced,
    status = "PkiStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Request for a certificate for one Service of this namespace. To use the certificate, mount the Secret of the same name.",
    printcolumn(
        name = "Service",
        type_ = "string",
        json_path = ".spec.serviceName",
        description = "Service that the certificate is for"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        description = "Whether the Secret holds a valid certificate that matches the spec"
    ),
    printcolumn(
        name = "Secret",
        type_ = "string",
        json_path = ".status.secretName",
        description = "Secret to mount"
    ),
    printcolumn(
        name = "Expires",
        type_ = "string",
        json_path = ".status.notAfter",
        description = "Expiry of the certificate"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        description = "Why the Pki is ready or not",
        priority = 1
    ),
    printcolumn(
        name = "Renewal",
        type_ = "string",
        json_path = ".status.renewalTime",
        description = "Time of the next renewal",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::one_renewal_time())]
#[x_kube(validation = rules::no_secret_of_pods())]
#[x_kube(validation = rules::no_key_of_pods())]
pub struct PkiSpec {
    /// Name of the Kubernetes Service that the certificate is for, as in `metadata.name` of the
    /// Service: a DNS label of at most 63 characters. The certificate is valid for
    /// `<serviceName>.<namespace>.svc` and `<serviceName>.<namespace>.svc.<cluster domain>`. A
    /// PkiPolicy must permit the name. No PkiPolicy can permit `kubernetes` in namespace default,
    /// which is the API server. Example: app1.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("must be a DNS label: lower-case letters, digits and '-', starting and ending with a letter or digit, for example app1"))]
    pub service_name: String,

    /// Common name in the certificate's subject, at most 64 characters. Write the serviceName or
    /// one of the certificate's DNS names. Default: `<serviceName>.<namespace>.svc`, or none if
    /// that has more than 64 characters. A certificate with the default of version 0.2, the
    /// serviceName, keeps it until its renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub common_name: Option<String>,

    /// More DNS names for the certificate, besides the two that follow from serviceName. At most
    /// 100. A PkiPolicy must permit each. For pods behind the Service, write
    /// `<pod>.<serviceName>.<namespace>.svc`, or `*` as the pod for all of them. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 253)))]
    pub dns_names: Vec<String>,

    /// Name of the Secret that the operator writes, with `tls.crt`, `tls.key` and `ca.crt`.
    /// Default: the name of the Pki.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')")
        .message("must be the name of a Secret: lower-case letters, digits, '-' and '.', for example app1-pki"))]
    pub secret_name: Option<String>,

    /// How pods get the certificate. `Secret`: the operator writes a Secret, which pods mount.
    /// `Pod`: no Secret is written. Each pod gets a key and a certificate of its own from the
    /// kubelet, by a projected volume with a `podCertificate` of the signer box.com/pki. It needs
    /// Kubernetes 1.37. Default: Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,

    /// Lifetime of the certificate in hours, minutes and seconds, for example 2160h or 1h30m. At
    /// least 1h; a PkiPolicy may set a maximum. Default: that of the PkiPolicy, else 2160h (90
    /// days), or the maximum if that is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = rules::lifetime())]
    pub duration: Option<String>,

    /// IP addresses for the certificate, IPv4 or IPv6, for example 10.1.2.3. At most 100. A
    /// PkiPolicy must permit each. No PkiPolicy can permit loopback, unspecified, link-local,
    /// multicast, broadcast and cloud metadata addresses. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 2, max = 45)))]
    pub ip_addresses: Vec<String>,

    /// URIs for the certificate, for example spiffe://example.com/ns/team-a/app1. At most 100. A
    /// PkiPolicy must permit each. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 2048)))]
    pub uris: Vec<String>,

    /// Usages of the certificate in TLS: `server auth`, `client auth` or both. Default: those of
    /// the PkiPolicy, else all that it permits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub usages: Vec<Usage>,

    /// Time before expiry at which the certificate is renewed, written like duration, for example
    /// 720h. At most nine tenths of the duration. Default: that of the PkiPolicy, else a third of
    /// the duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = rules::time_before())]
    pub renew_before: Option<String>,

    /// Time before expiry at which the certificate is renewed, in percent of the duration, from 1
    /// to 90. Write this or renewBefore, not both. Default: that of the PkiPolicy, else a third of
    /// the duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 90))]
    pub renew_before_percentage: Option<i32>,

    /// Algorithm, size, encoding and rotation of the private key. Each field has its own default:
    /// that of the PkiPolicy, else ECDSA with the curve P-256, in PKCS8, with a new key for each
    /// certificate. If the PkiPolicy does not permit that key, the default is the first that it
    /// permits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PrivateKey>,

    /// More labels and annotations for the Secret, besides those of the PkiPolicy and of the
    /// operator. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_template: Option<SecretTemplate>,

    /// More files for the Secret, for servers that cannot read `tls.crt` and `tls.key`. Each field
    /// has its own default: that of the PkiPolicy, else none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Outputs>,
}

impl Pki {
    /// How pods get the certificate.
    pub fn delivery(&self) -> Delivery {
        self.spec.delivery.unwrap_or_default()
    }

    /// The Secret that this Pki writes: `spec.secretName`, or the Pki's own name.
    pub fn secret_name(&self) -> &str {
        let own = || self.metadata.name.as_deref().unwrap_or_default();
        self.spec.secret_name.as_deref().unwrap_or_else(own)
    }

    /// The field that names the Secret.
    pub fn secret_name_field(&self) -> &'static str {
        match self.spec.secret_name {
            Some(_) => "spec.secretName",
            None => "metadata.name",
        }
    }

    /// `namespace/name`, as people write it.
    pub fn display_name(&self) -> String {
        format!(
            "{}/{}",
            self.namespace().unwrap_or_default(),
            self.name_any()
        )
    }

    /// The condition of this type as last written, if it ever was.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.status
            .as_ref()?
            .conditions
            .iter()
            .find(|condition| condition.type_ == type_)
    }

    /// The condition [`READY`], if it is true of the present spec.
    pub fn ready(&self) -> Option<&Condition> {
        self.condition(READY).filter(|ready| {
            ready.status == "True" && ready.observed_generation == self.metadata.generation
        })
    }
}

/// A [`Pki`] as stored. An unreadable one is kept with its error, and must not hide the others.
pub type StoredPki = DeserializeGuard<Pki>;
/// A [`PkiPolicy`] as stored.
pub type StoredPolicy = DeserializeGuard<PkiPolicy>;

/// The type of the one condition that sums a [`Pki`] up.
pub const READY: &str = "Ready";

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

#[cfg(test)]
pub(crate) mod tests;
