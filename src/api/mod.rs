//! The objects people write: [`Pki`] and [`PkiPolicy`], group `box.com`, version `v1`.
//!
//! The schema holds what is true of one field by itself (bounds and shapes, as CEL rules, so that
//! the refusal is a sentence and not a regular expression). What depends on a policy or on another
//! field's default is the business of [`crate::policy`], which never trusts that the schema was
//! enforced: an object may have been stored under an older one.
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

use conditions::{MAX_CONDITIONS, MAX_FORMER_SECRETS};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::DeserializeGuard;
use kube::{CustomResource, CustomResourceExt, KubeSchema, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub use certificate::{
    KeyAlgorithm, KeyEncoding, Keystore, Outputs, PrivateKey, RotationPolicy, SecretKeyReference,
    SecretTemplate, Usage,
};
pub use defaults::Defaults;
pub use policy::{
    LabelOperator, LabelRequirement, NamespaceScope, NamespaceSelector, PermittedKey, PkiPolicy,
    PkiPolicySpec, PkiPolicyStatus, Validation,
};

pub mod annotations;
mod certificate;
pub mod conditions;
mod defaults;
mod policy;
mod rules;
mod stored;

/// The API group of both kinds.
pub const GROUP: &str = "box.com";
/// The API version of both kinds.
pub const VERSION: &str = "v1";

/// What an application team asks for: a certificate for one of its services.
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
    doc = "A certificate for one service of this namespace. Mount the Secret of the same name to use it.",
    printcolumn(
        name = "Service",
        type_ = "string",
        json_path = ".spec.serviceName",
        description = "The service that the certificate is for"
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
        description = "The Secret to mount"
    ),
    printcolumn(
        name = "Expires",
        type_ = "string",
        json_path = ".status.notAfter",
        description = "When the certificate expires"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        description = "Why the Pki is, or is not, ready",
        priority = 1
    ),
    printcolumn(
        name = "Renewal",
        type_ = "string",
        json_path = ".status.renewalTime",
        description = "When the certificate is renewed",
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
pub struct PkiSpec {
    /// Name of the Kubernetes Service that the certificate is for, as in `metadata.name` of the
    /// Service: a DNS label of at most 63 characters. The certificate is valid for
    /// `<serviceName>.<namespace>.svc` and `<serviceName>.<namespace>.svc.<cluster domain>`. A
    /// PkiPolicy must allow the name. No PkiPolicy can allow kubernetes in namespace default, the
    /// API server.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("must be a DNS label: lower-case letters, digits and '-', starting and ending with a letter or digit, for example app1"))]
    pub service_name: String,

    /// Common name in the certificate's subject, at most 64 characters: the serviceName or one of
    /// the certificate's DNS names. Default: `<serviceName>.<namespace>.svc`, or none if that has
    /// more than 64 characters. A certificate with the default of version 0.2, the serviceName,
    /// keeps it until its renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub common_name: Option<String>,

    /// Further DNS names for the certificate, besides the two that follow from serviceName. A
    /// PkiPolicy must allow each. Names of pods below the Service are
    /// `<pod>.<serviceName>.<namespace>.svc`, or with `*` for all of them. Default: none. At most
    /// 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 253)))]
    pub dns_names: Vec<String>,

    /// Name of the Secret that holds `tls.crt`, `tls.key` and `ca.crt`. Default: the name of the
    /// Pki.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')")
        .message("must be the name of a Secret: lower-case letters, digits, '-' and '.', for example app1-pki"))]
    pub secret_name: Option<String>,

    /// Lifetime of the certificate in hours, minutes and seconds, for example 2160h or 1h30m; at
    /// least 1h. A PkiPolicy may set an upper limit. Default: that of the PkiPolicy, else 2160h (90
    /// days), or the upper limit if that is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = rules::lifetime())]
    pub duration: Option<String>,

    /// IP addresses for the certificate, IPv4 or IPv6, for example 10.1.2.3. A PkiPolicy must allow
    /// each; none can allow loopback, link-local, multicast and cloud metadata addresses. Default:
    /// none. At most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 2, max = 45)))]
    pub ip_addresses: Vec<String>,

    /// URIs for the certificate, for example spiffe://example.com/ns/team-a/app1. A PkiPolicy must
    /// allow each. Default: none. At most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 2048)))]
    pub uris: Vec<String>,

    /// Usages of the certificate in TLS: `server auth`, `client auth` or both. Default: those of
    /// the PkiPolicy, else all that it permits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub usages: Vec<Usage>,

    /// How long before its expiry the certificate is renewed, written like duration; at most nine
    /// tenths of it. Default: that of the PkiPolicy, else a third of the duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = rules::time_before())]
    pub renew_before: Option<String>,

    /// How long before its expiry the certificate is renewed, in percent of the duration, from 1 to
    /// 90; instead of renewBefore. Default: that of the PkiPolicy, else a third of the duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 90))]
    pub renew_before_percentage: Option<i32>,

    /// Kind of the certificate's private key. Default, field by field: that of the PkiPolicy, else
    /// ECDSA with the curve P-256, in PKCS8, a new key for each certificate; or the first kind that
    /// the PkiPolicy permits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PrivateKey>,

    /// Labels and annotations for the Secret, besides those of the PkiPolicy and the operator's
    /// own. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_template: Option<SecretTemplate>,

    /// Further files for the Secret, for servers that cannot read `tls.crt` and `tls.key`. Default,
    /// field by field: those of the PkiPolicy, else none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Outputs>,
}

/// What the operator last saw and did.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PkiStatus {
    /// `Ready` says whether the Secret holds a valid certificate that matches the spec; its reason
    /// and message say why not, in the words that `kubectl apply` would have used.
    #[serde(
        default,
        deserialize_with = "stored::conditions",
        skip_serializing_if = "Vec::is_empty"
    )]
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
    #[serde(
        default,
        deserialize_with = "stored::time",
        skip_serializing_if = "Option::is_none"
    )]
    pub not_before: Option<Time>,
    /// End of the certificate's validity.
    #[serde(
        default,
        deserialize_with = "stored::time",
        skip_serializing_if = "Option::is_none"
    )]
    pub not_after: Option<Time>,
    /// When the certificate is renewed.
    #[serde(
        default,
        deserialize_with = "stored::time",
        skip_serializing_if = "Option::is_none"
    )]
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
    #[serde(
        default,
        deserialize_with = "stored::time",
        skip_serializing_if = "Option::is_none"
    )]
    pub next_attempt_time: Option<Time>,
    /// The last renewal that was asked for with the annotation `box.com/renew-now`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_request: Option<RenewalRequest>,
    /// The Secrets that the Pki wrote before `spec.secretName` was changed, the last ten, in order.
    #[serde(
        default,
        deserialize_with = "stored::former_secrets",
        skip_serializing_if = "Vec::is_empty"
    )]
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
    #[serde(
        default,
        deserialize_with = "stored::time",
        skip_serializing_if = "Option::is_none"
    )]
    pub replaced_time: Option<Time>,
    /// End of the certificate in it, if there ever was one.
    #[serde(
        default,
        deserialize_with = "stored::time",
        skip_serializing_if = "Option::is_none"
    )]
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
    #[serde(
        default,
        deserialize_with = "stored::time",
        skip_serializing_if = "Option::is_none"
    )]
    pub served_time: Option<Time>,
    /// The reason why the annotation that the Pki has now is not served, and the time when it will
    /// be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Pki {
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

    /// The condition [`READY`], if it says of this very spec that its Secret is as it should be.
    pub fn ready(&self) -> Option<&Condition> {
        self.condition(READY).filter(|ready| {
            ready.status == "True" && ready.observed_generation == self.metadata.generation
        })
    }
}

/// A [`Pki`] as stored. One that was stored under another schema and cannot be read must not hide
/// the others, so it is carried along with its error.
pub type StoredPki = DeserializeGuard<Pki>;
/// A [`PkiPolicy`] as stored.
pub type StoredPolicy = DeserializeGuard<PkiPolicy>;

/// The type of the one condition that sums a [`Pki`] up.
pub const READY: &str = "Ready";

/// The label of a custom resource definition that tells which version of the operator it is of.
pub const VERSION_LABEL: &str = "app.kubernetes.io/version";

/// Both custom resource definitions as YAML documents, ready for `kubectl apply --server-side -f
/// -`.
pub fn crds_yaml() -> String {
    let mut documents = String::new();
    for crd in definitions() {
        let yaml = serde_saphyr::to_string(&crd).expect("a CRD is YAML, as all JSON is");
        documents += "---\n";
        documents += yaml.trim_start_matches("---\n");
    }
    documents
}

/// Both custom resource definitions.
pub fn definitions() -> [Value; 2] {
    [definition::<Pki>(), definition::<PkiPolicy>()]
}

/// The schema of a kind, as the API server has it.
pub fn schema<K: CustomResourceExt>() -> Value {
    let mut crd = definition::<K>();
    let schema = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema");
    schema.expect("a definition has a schema").take()
}

fn definition<K: CustomResourceExt>() -> Value {
    let mut crd = serde_json::to_value(K::crd()).expect("a CRD made of strings and maps is JSON");
    unwrap_descriptions(&mut crd);
    crd["metadata"]["labels"] = json!({ VERSION_LABEL: env!("CARGO_PKG_VERSION") });
    // Where it is part of a release, it outlives that: with it, all Pkis would go.
    crd["metadata"]["annotations"] = json!({ "helm.sh/resource-policy": "keep" });
    crd
}

/// `kubectl explain` fills lines by itself, and would show the line breaks of this file besides its
/// own.
fn unwrap_descriptions(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "description" => *text = text.replace('\n', " "),
                    _ => unwrap_descriptions(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(unwrap_descriptions),
        _ => {}
    }
}

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::policy::{Approved, RuleBook};
    use std::sync::Arc;

    /// A Pki `ns/app1-pki` with UID `uid-1`, for the service app1 and with these other fields.
    pub(crate) fn pki(mut spec: Value) -> Pki {
        spec["serviceName"] = json!("app1");
        let mut pki = Pki::new("app1-pki", serde_json::from_value(spec).expect("a spec"));
        pki.metadata.namespace = Some("ns".into());
        pki.metadata.uid = Some("uid-1".into());
        pki.metadata.generation = Some(1);
        pki
    }

    /// What a policy permits that permits all of it.
    pub(crate) fn approved(pki: &Pki) -> Approved {
        let spec = json!({ "serviceNames": ["*"], "dnsNames": ["*.example.com"] });
        let policy = PkiPolicy::new("policy", serde_json::from_value(spec).expect("a policy"));
        let rules = RuleBook::new(Arc::default(), [&policy]);
        rules.evaluate(pki).expect("it breaks no rule")
    }

    #[test]
    fn kinds_and_usages_are_said_as_they_are_written() {
        let written = |value: Value| value.as_str().expect("a name").to_owned();
        for algorithm in [
            KeyAlgorithm::Ecdsa,
            KeyAlgorithm::Rsa,
            KeyAlgorithm::Ed25519,
        ] {
            assert_eq!(algorithm.to_string(), written(json!(algorithm)));
        }
        for encoding in [KeyEncoding::Pkcs8, KeyEncoding::Pkcs1, KeyEncoding::Sec1] {
            assert_eq!(encoding.to_string(), written(json!(encoding)));
        }
        for usage in [Usage::ServerAuth, Usage::ClientAuth] {
            assert_eq!(usage.to_string(), written(json!(usage)));
        }
    }

    #[test]
    fn a_spec_of_the_first_version_is_a_spec_and_stays_as_short() {
        let spec = json!({ "serviceName": "app1" });
        let read: PkiSpec = serde_json::from_value(spec.clone()).unwrap();
        assert_eq!(json!(read), spec);
    }

    #[test]
    fn explain_fills_the_lines_of_every_description_by_itself() {
        let mut crd = serde_json::to_value(Pki::crd()).unwrap();
        let broken = |crd: &Value| crd.to_string().matches("\\n").count();
        assert!(broken(&crd) > 0, "this file breaks its lines");
        unwrap_descriptions(&mut crd);
        assert_eq!(broken(&crd), 0);
    }
}
