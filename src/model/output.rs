//! The further files of a Secret, by the fields of `spec.outputs`.

use crate::api::Outputs;
use pki_certs::formats::KeystoreKind;

/// Private key and certificates in one file.
pub const COMBINED_PEM: &str = "tls-combined.pem";

/// The private key in DER.
pub const DER_KEY: &str = "key.der";

/// Files that may be in a Secret besides `tls.crt`, `tls.key` and `ca.crt`.
pub const OPTIONAL: [&str; 6] = [
    COMBINED_PEM,
    DER_KEY,
    KEYSTORES[0].0,
    KEYSTORES[0].1,
    KEYSTORES[1].0,
    KEYSTORES[1].1,
];

/// Keystore and truststore of each kind.
pub const KEYSTORES: [(&str, &str, KeystoreKind); 2] = [
    ("keystore.p12", "truststore.p12", KeystoreKind::Pkcs12),
    ("keystore.jks", "truststore.jks", KeystoreKind::Jks),
];

/// A field of `spec.outputs`, which adds further files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// `combinedPem`.
    CombinedPem,
    /// `derKey`.
    DerKey,
    /// `pkcs12`.
    Pkcs12,
    /// `jks`.
    Jks,
}

impl Output {
    /// The one that adds the file of this name.
    pub fn of(file: &str) -> Option<Self> {
        let [(p12, trusted_p12, _), (jks, trusted_jks, _)] = KEYSTORES;
        match file {
            COMBINED_PEM => Some(Self::CombinedPem),
            DER_KEY => Some(Self::DerKey),
            _ if file == p12 || file == trusted_p12 => Some(Self::Pkcs12),
            _ if file == jks || file == trusted_jks => Some(Self::Jks),
            _ => None,
        }
    }

    /// Whether the further file of this name is among these outputs.
    pub fn wants(outputs: &Outputs, file: &str) -> bool {
        Self::of(file).is_some_and(|output| output.is_in(outputs))
    }

    /// Whether these outputs have it.
    pub fn is_in(self, outputs: &Outputs) -> bool {
        match self {
            Self::CombinedPem => outputs.combined_pem == Some(true),
            Self::DerKey => outputs.der_key == Some(true),
            Self::Pkcs12 => outputs.pkcs12.is_some(),
            Self::Jks => outputs.jks.is_some(),
        }
    }

    /// A value of the field, as people write it.
    pub fn example(self) -> &'static str {
        match self {
            Self::CombinedPem | Self::DerKey => "true",
            Self::Pkcs12 | Self::Jks => {
                "{passwordSecretRef: {name: <a Secret with a password>, key: <its key>}}"
            }
        }
    }

    /// The name of the field.
    pub fn field(self) -> &'static str {
        match self {
            Self::CombinedPem => "combinedPem",
            Self::DerKey => "derKey",
            Self::Pkcs12 => "pkcs12",
            Self::Jks => "jks",
        }
    }
}
