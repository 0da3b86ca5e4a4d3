//! The keys of pod certificates, as pods name them (KEP-4317).

use crate::api::{KeyAlgorithm, PrivateKey};
use pki_certs::KeyAlgorithm as Certified;

/// A `keyType` that the signer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyType {
    /// The name, as in `ECDSAP256`.
    pub name: &'static str,
    /// The kind of key.
    pub algorithm: Certified,
}

/// All of them. Kubernetes has `ECDSAP521` beside them.
pub const KEY_TYPES: [KeyType; 5] = [
    key_type("ECDSAP256", Certified::EcdsaP256),
    key_type("ECDSAP384", Certified::EcdsaP384),
    key_type("ED25519", Certified::Ed25519),
    key_type("RSA3072", Certified::Rsa3072),
    key_type("RSA4096", Certified::Rsa4096),
];

const fn key_type(name: &'static str, algorithm: Certified) -> KeyType {
    KeyType { name, algorithm }
}

impl KeyType {
    /// The type of a key, if the signer takes it.
    pub fn of(algorithm: Certified) -> Option<Self> {
        KEY_TYPES.into_iter().find(|it| it.algorithm == algorithm)
    }

    /// The names of all, as a list to read.
    pub fn names() -> String {
        KEY_TYPES.map(|it| it.name).join(", ")
    }

    /// The key as a Pki writes it.
    pub fn private_key(self) -> PrivateKey {
        let (algorithm, size) = match self.algorithm {
            Certified::EcdsaP384 => (KeyAlgorithm::Ecdsa, Some(384)),
            Certified::Ed25519 => (KeyAlgorithm::Ed25519, None),
            Certified::Rsa3072 => (KeyAlgorithm::Rsa, Some(3072)),
            Certified::Rsa4096 => (KeyAlgorithm::Rsa, Some(4096)),
            _ => (KeyAlgorithm::Ecdsa, Some(256)),
        };
        PrivateKey {
            algorithm: Some(algorithm),
            size,
            ..PrivateKey::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_one_kind_of_key() {
        for key_type in KEY_TYPES {
            assert_eq!(KeyType::of(key_type.algorithm), Some(key_type));
        }
        assert_eq!(KeyType::of(Certified::Rsa2048), None);
        let names = "ECDSAP256, ECDSAP384, ED25519, RSA3072, RSA4096";
        assert_eq!(KeyType::names(), names);
    }
}
