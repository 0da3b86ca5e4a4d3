//! Private keys: made, read, and kept out of sight.

use std::fmt;

use rcgen::KeyPair;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use crate::encoding;

/// The kind of key a leaf gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyAlgorithm {
    /// ECDSA on the curve P-256, signing with SHA-256.
    EcdsaP256,
}

impl KeyAlgorithm {
    pub(crate) fn generate(self) -> Result<Zeroizing<KeyPair>, rcgen::Error> {
        KeyPair::generate_for(self.signature()).map(Zeroizing::new)
    }

    pub(crate) fn is_that_of(self, key: &KeyPair) -> bool {
        key.is_compatible(self.signature())
    }

    fn signature(self) -> &'static rcgen::SignatureAlgorithm {
        match self {
            Self::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256 => "ECDSA P-256",
        })
    }
}

/// A private key in PEM: PKCS#8 if it was made here, else as it was given.
///
/// Wiped from memory when dropped. `Debug` does not print it.
#[derive(Clone)]
pub struct PrivateKeyPem(Zeroizing<String>);

impl PrivateKeyPem {
    /// The PEM text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The PEM text, as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(crate) fn new(pem: String) -> Self {
        Self(Zeroizing::new(pem))
    }
}

impl fmt::Debug for PrivateKeyPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKeyPem(..)")
    }
}

/// Reads the first private key in `pem`: PKCS#8, SEC 1 or PKCS#1, not encrypted.
///
/// It does not say why it failed, because the reader's errors quote what they could not read.
pub(crate) fn read(pem: &[u8]) -> Option<Zeroizing<KeyPair>> {
    let der = read_der(pem)?;
    key_pair(&der)
}

/// Reads the private key, if `pem` is nothing else.
pub(crate) fn read_only(pem: &[u8]) -> Option<Zeroizing<KeyPair>> {
    let der = read_der(pem)?;
    let label = match &*der {
        PrivateKeyDer::Pkcs8(_) => "PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        _ => return None,
    };
    let canonical = Zeroizing::new(encoding::pem(label, der.secret_der()));
    if encoding::is(pem, &canonical) {
        key_pair(&der)
    } else {
        None
    }
}

fn read_der(pem: &[u8]) -> Option<Zeroizing<PrivateKeyDer<'static>>> {
    PrivateKeyDer::from_pem_slice(pem).ok().map(Zeroizing::new)
}

fn key_pair(der: &PrivateKeyDer<'_>) -> Option<Zeroizing<KeyPair>> {
    KeyPair::try_from(der).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_print_the_key() {
        let key = KeyAlgorithm::EcdsaP256.generate().unwrap();
        let pem = PrivateKeyPem::new(key.serialize_pem());
        assert_eq!(format!("{pem:?}"), "PrivateKeyPem(..)");
    }

    #[test]
    fn a_generated_key_is_pkcs8_and_reads_back() {
        let key = KeyAlgorithm::EcdsaP256.generate().unwrap();
        let pem = PrivateKeyPem::new(key.serialize_pem());
        assert!(pem.as_str().starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert_eq!(
            read(pem.as_bytes()).unwrap().public_key_raw(),
            key.public_key_raw()
        );
    }

    #[test]
    fn what_is_not_a_private_key_is_not_read() {
        let public = KeyAlgorithm::EcdsaP256.generate().unwrap().public_key_pem();
        let torn = "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n";
        for text in ["", "no PEM", torn, &public] {
            assert!(read(text.as_bytes()).is_none(), "{text}");
        }
    }
}
