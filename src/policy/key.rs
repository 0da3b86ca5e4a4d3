//! The kinds of private key that are offered.

use crate::api::{KeyAlgorithm, KeyEncoding, PrivateKey};
use std::fmt;

/// A kind of key. Ed25519 has no size to speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) algorithm: KeyAlgorithm,
    pub(super) size: i32,
    pub(super) encoding: KeyEncoding,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.has_one_size() {
            self.algorithm.fmt(f)
        } else {
            write!(f, "{}-{}", self.algorithm, self.size)
        }
    }
}

impl Key {
    /// The sizes that are offered, the default first.
    pub(super) fn sizes(algorithm: KeyAlgorithm) -> &'static [i32] {
        match algorithm {
            KeyAlgorithm::Ecdsa => &[256, 384],
            KeyAlgorithm::Rsa => &[2048, 3072, 4096],
            KeyAlgorithm::Ed25519 => &[],
        }
    }

    pub(super) fn has_one_size(self) -> bool {
        Self::sizes(self.algorithm).is_empty()
    }

    /// Whether an algorithm has this size.
    pub(super) fn is_offered(algorithm: KeyAlgorithm, size: i32) -> bool {
        Self::sizes(algorithm).contains(&size)
    }

    /// Whether keys of an algorithm are written so.
    pub(super) fn is_encoded(algorithm: KeyAlgorithm, encoding: KeyEncoding) -> bool {
        match encoding {
            KeyEncoding::Pkcs8 => true,
            KeyEncoding::Pkcs1 => algorithm == KeyAlgorithm::Rsa,
            KeyEncoding::Sec1 => algorithm == KeyAlgorithm::Ecdsa,
        }
    }

    pub(super) fn certified(self) -> pki_certs::KeyAlgorithm {
        use pki_certs::KeyAlgorithm as Certified;
        match (self.algorithm, self.size) {
            (KeyAlgorithm::Ecdsa, 384) => Certified::EcdsaP384,
            (KeyAlgorithm::Ecdsa, _) => Certified::EcdsaP256,
            (KeyAlgorithm::Rsa, 4096) => Certified::Rsa4096,
            (KeyAlgorithm::Rsa, 3072) => Certified::Rsa3072,
            (KeyAlgorithm::Rsa, _) => Certified::Rsa2048,
            (KeyAlgorithm::Ed25519, _) => Certified::Ed25519,
        }
    }

    pub(super) fn certified_encoding(self) -> pki_certs::KeyEncoding {
        match self.encoding {
            KeyEncoding::Pkcs8 => pki_certs::KeyEncoding::Pkcs8,
            KeyEncoding::Pkcs1 | KeyEncoding::Sec1 => pki_certs::KeyEncoding::Traditional,
        }
    }
}

/// The size that version 0.2 stored for a missing `privateKey`, beside an algorithm written later
/// that has no such size: the stored size counts as left out.
pub fn ignored_size(written: &PrivateKey) -> Option<(i32, KeyAlgorithm)> {
    const STORED: i32 = 256;
    let algorithm = written.algorithm.filter(|it| *it != KeyAlgorithm::Ecdsa)?;
    let size = written.size.filter(|size| *size == STORED)?;
    Some((size, algorithm))
}
