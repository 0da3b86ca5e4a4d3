//! The parts of a [`PkiSpec`](super::PkiSpec): its key, its usages, and the form of its Secret.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The kind of private key.
// Version 0.2 stored 256 for everybody, so that it may stand beside another algorithm by now.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.size) || self.size == 256 || (self.size == 384 && (!has(self.algorithm) || self.algorithm == 'ECDSA')) || (self.size in [2048, 3072, 4096] && (!has(self.algorithm) || self.algorithm == 'RSA'))")
    .message("must be 256 or 384 for ECDSA, 2048, 3072 or 4096 for RSA, and left out for Ed25519")
    .field_path(".size"))]
#[x_kube(validation = Rule::new("!has(self.encoding) || self.encoding == 'PKCS8' || (self.encoding == 'PKCS1' && (!has(self.algorithm) || self.algorithm == 'RSA')) || (self.encoding == 'SEC1' && (!has(self.algorithm) || self.algorithm == 'ECDSA'))")
    .message("must be PKCS8, or PKCS1 for RSA, or SEC1 for ECDSA")
    .field_path(".encoding"))]
pub struct PrivateKey {
    /// Algorithm of the key: ECDSA, RSA or Ed25519. Default: that of the PkiPolicy, else ECDSA, or
    /// the first key that the PkiPolicy permits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<KeyAlgorithm>,
    /// Size of the key in bits: 256 or 384 for ECDSA (the curves P-256 and P-384), 2048, 3072 or
    /// 4096 for RSA. Ed25519 has one size. Default: that of the PkiPolicy, else 256 for ECDSA and
    /// 2048 for RSA, or the minimum of the PkiPolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i32>,
    /// Encoding of `tls.key`: PKCS8, or for older servers PKCS1 (RSA) or SEC1 (ECDSA). Default:
    /// that of the PkiPolicy, else PKCS8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<KeyEncoding>,
    /// Whether a renewed certificate gets a new key (`Always`) or keeps its key (`Never`). Default:
    /// that of the PkiPolicy, else Always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_policy: Option<RotationPolicy>,
}

/// How pods get a certificate.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
// The schema takes the description of the field.
#[schemars(description = "")]
pub enum Delivery {
    /// By a Secret.
    #[default]
    Secret,
    /// By a pod certificate (KEP-4317).
    Pod,
}

/// Algorithm of a private key.
#[derive(
    JsonSchema,
    Serialize,
    Deserialize,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
)]
// The schema takes the description of the field.
#[schemars(description = "")]
pub enum KeyAlgorithm {
    /// Elliptic curve (FIPS 186-5).
    #[default]
    #[serde(rename = "ECDSA")]
    Ecdsa,
    /// RSA (RFC 8017).
    #[serde(rename = "RSA")]
    Rsa,
    /// Edwards curve 25519 (RFC 8032).
    Ed25519,
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Encoding of a private key.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "UPPERCASE")]
// The schema takes the description of the field.
#[schemars(description = "")]
pub enum KeyEncoding {
    /// For every algorithm (RFC 5958).
    #[default]
    Pkcs8,
    /// For RSA (RFC 8017, appendix A.1.2).
    Pkcs1,
    /// For ECDSA (RFC 5915).
    Sec1,
}

impl fmt::Display for KeyEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Key of a renewed certificate.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
// The schema takes the description of the field.
#[schemars(description = "")]
pub enum RotationPolicy {
    /// A new key.
    #[default]
    Always,
    /// The same key.
    Never,
}

/// Usage of a certificate (RFC 5280, 4.2.1.12).
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub enum Usage {
    /// By a TLS server.
    #[serde(rename = "server auth")]
    ServerAuth,
    /// By a TLS client.
    #[serde(rename = "client auth")]
    ClientAuth,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Labels and annotations of the Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct SecretTemplate {
    /// Labels for the Secret, at most 32. Keys of kubernetes.io, k8s.io and box.com are reserved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
    /// Annotations for the Secret, at most 32. Keys of kubernetes.io, k8s.io and box.com are
    /// reserved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
}

/// Additional files of the Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct Outputs {
    /// Whether to add `tls-combined.pem`: the private key and the certificates in one file.
    /// Default: that of the PkiPolicy, else false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combined_pem: Option<bool>,
    /// Whether to add `key.der`: the private key in DER. Default: that of the PkiPolicy, else
    /// false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub der_key: Option<bool>,
    /// Adds two files in PKCS#12: `keystore.p12` (private key and certificates) and
    /// `truststore.p12` (the CA). Default: that of the PkiPolicy, else neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pkcs12: Option<Keystore>,
    /// Adds two files for old versions of Java: `keystore.jks` (private key and certificates) and
    /// `truststore.jks` (the CA). Default: that of the PkiPolicy, else neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jks: Option<Keystore>,
}

impl Outputs {
    /// The keystores that are wanted, PKCS#12 before JKS.
    pub fn keystores(&self) -> impl Iterator<Item = &Keystore> {
        self.pkcs12.iter().chain(&self.jks)
    }
}

/// Protection of a keystore.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct Keystore {
    /// Entry of a Secret with the password of keystore and truststore: 6 to 256 printable ASCII
    /// characters.
    pub password_secret_ref: SecretKeyReference,
}

/// Entry of a Secret in the namespace of the Pki.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the entry in the Secret. Default: password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

impl SecretKeyReference {
    /// The key of the entry, by default `password`.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or("password")
    }
}
