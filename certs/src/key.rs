//! Private keys: made, read, written in either encoding, and kept out of sight.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer as _, EcPrivateKeyRfc5915Der, Pkcs8V1Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, RsaKeyPair,
};
use pkcs8::PrivateKeyInfoRef;
use rcgen::{KeyIdMethod, KeyPair, PublicKeyData, RsaKeySize};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use crate::encoding;

/// The kind of key a leaf gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyAlgorithm {
    /// ECDSA on the curve P-256.
    EcdsaP256,
    /// ECDSA on the curve P-384.
    EcdsaP384,
    /// RSA with a modulus of 2048 bits. Making one takes about a tenth of a second.
    Rsa2048,
    /// RSA with a modulus of 3072 bits. Making one takes up to a second.
    Rsa3072,
    /// RSA with a modulus of 4096 bits. Making one takes up to a few seconds.
    Rsa4096,
    /// Ed25519, which browsers do not accept in certificates.
    Ed25519,
}

impl KeyAlgorithm {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::Ed25519,
    ];

    /// Whether making one key may take longer than other work should wait.
    pub fn is_slow(self) -> bool {
        matches!(self, Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096)
    }

    pub(crate) fn generate(self) -> Result<Zeroizing<KeyPair>, rcgen::Error> {
        let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
        match self {
            Self::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::Rsa2048 => rsa(RsaKeySize::_2048),
            Self::Rsa3072 => rsa(RsaKeySize::_3072),
            Self::Rsa4096 => rsa(RsaKeySize::_4096),
            Self::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        }
        .map(Zeroizing::new)
    }

    /// The names of all kinds, as a list to read.
    pub(crate) fn all_names() -> String {
        let names = Self::ALL.map(|algorithm| algorithm.to_string());
        names.join(", ")
    }

    /// `None` for a kind that leaves do not get.
    pub(crate) fn of(key: &impl PublicKeyData) -> Option<Self> {
        let algorithm = key.algorithm();
        if *algorithm == rcgen::PKCS_ECDSA_P256_SHA256 {
            Some(Self::EcdsaP256)
        } else if *algorithm == rcgen::PKCS_ECDSA_P384_SHA384 {
            Some(Self::EcdsaP384)
        } else if *algorithm == rcgen::PKCS_ED25519 {
            Some(Self::Ed25519)
        } else {
            match rsa_bits(key)? {
                2048 => Some(Self::Rsa2048),
                3072 => Some(Self::Rsa3072),
                4096 => Some(Self::Rsa4096),
                _ => None,
            }
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256 => "ECDSA P-256",
            Self::EcdsaP384 => "ECDSA P-384",
            Self::Rsa2048 => "RSA 2048",
            Self::Rsa3072 => "RSA 3072",
            Self::Rsa4096 => "RSA 4096",
            Self::Ed25519 => "Ed25519",
        })
    }
}

/// How a private key is written into its PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeyEncoding {
    /// `PRIVATE KEY`: PKCS#8 ([RFC 5958], version 1, which every reader knows).
    ///
    /// [RFC 5958]: https://www.rfc-editor.org/rfc/rfc5958
    #[default]
    Pkcs8,
    /// The formats before PKCS#8: `RSA PRIVATE KEY` (PKCS#1, [RFC 8017, A.1.2]) or `EC PRIVATE KEY`
    /// (SEC 1, [RFC 5915]). Ed25519 is younger and has PKCS#8 only, so there it means that.
    ///
    /// [RFC 8017, A.1.2]: https://www.rfc-editor.org/rfc/rfc8017#appendix-A.1.2
    /// [RFC 5915]: https://www.rfc-editor.org/rfc/rfc5915
    Traditional,
}

impl KeyEncoding {
    /// The encoding of keys of this kind: Ed25519 has only PKCS#8.
    pub(crate) fn for_keys(self, algorithm: KeyAlgorithm) -> Self {
        match algorithm {
            KeyAlgorithm::Ed25519 => Self::Pkcs8,
            _ => self,
        }
    }
}

impl fmt::Display for KeyEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pkcs8 => "PKCS#8",
            Self::Traditional => "PKCS#1 (RSA) or SEC 1 (ECDSA)",
        })
    }
}

/// A private key in PEM: in the requested encoding if made here, else as given.
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

/// Reads the first private key in `pem`: PKCS#8, SEC 1 or PKCS#1, not encrypted. Errors are
/// dropped: those of the reader quote its input.
pub(crate) fn read(pem: &[u8]) -> Option<Zeroizing<KeyPair>> {
    key_pair(&*read_der(pem)?)
}

/// Reads the private key and its encoding, if `pem` is nothing else.
pub(crate) fn read_only(pem: &[u8]) -> Option<(Zeroizing<KeyPair>, KeyEncoding)> {
    let der = read_der(pem)?;
    let (label, encoding) = match &*der {
        PrivateKeyDer::Pkcs8(_) => (PKCS8, KeyEncoding::Pkcs8),
        PrivateKeyDer::Sec1(_) => (SEC1, KeyEncoding::Traditional),
        PrivateKeyDer::Pkcs1(_) => (PKCS1, KeyEncoding::Traditional),
        _ => return None,
    };
    let canonical = Zeroizing::new(encoding::pem(label, der.secret_der()));
    let is_canonical = encoding::is(pem, &canonical);
    is_canonical
        .then(|| key_pair(&der))
        .flatten()
        .map(|key| (key, encoding))
}

/// Returns the key identifier of certificates: SHA-256 of the public key, cut to 20 bytes ([RFC
/// 7093, 2], method 1). rcgen's own method hashes more than the key.
///
/// [RFC 7093, 2]: https://www.rfc-editor.org/rfc/rfc7093#section-2
pub(crate) fn identifier(key: &impl PublicKeyData) -> KeyIdMethod {
    let hash = digest::digest(&digest::SHA256, key.der_bytes());
    KeyIdMethod::PreSpecified(hash.as_ref()[..20].to_vec())
}

/// The DER of the first private key in `pem`, in the encoding it has there.
pub(crate) fn der(pem: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let der = read_der(pem)?;
    key_pair(&der)?;
    Some(Zeroizing::new(der.secret_der().to_vec()))
}

/// Writes a key that leaves can have; another kind is an error. rcgen would repeat the encoding
/// that it read, and write Ed25519 in version 2 of PKCS#8, which OpenSSL before 3.2 does not read.
pub(crate) fn write(key: &KeyPair, encoding: KeyEncoding) -> Result<PrivateKeyPem, rcgen::Error> {
    encode(key, encoding).map_err(|_| rcgen::Error::RingUnspecified)
}

fn encode(key: &KeyPair, encoding: KeyEncoding) -> Result<PrivateKeyPem, Unspecified> {
    let given = key.serialized_der();
    match KeyAlgorithm::of(key).ok_or(Unspecified)? {
        KeyAlgorithm::EcdsaP256 => write_ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING, given, encoding),
        KeyAlgorithm::EcdsaP384 => write_ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING, given, encoding),
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
            write_rsa(given, encoding)
        }
        KeyAlgorithm::Ed25519 => {
            let pkcs8 = Ed25519KeyPair::from_pkcs8_maybe_unchecked(given)?.to_pkcs8v1()?;
            Ok(pem(PKCS8, pkcs8.as_ref()))
        }
    }
}

const PKCS8: &str = "PRIVATE KEY";
const PKCS1: &str = "RSA PRIVATE KEY";
const SEC1: &str = "EC PRIVATE KEY";

fn write_ecdsa(
    algorithm: &'static EcdsaSigningAlgorithm,
    given: &[u8],
    encoding: KeyEncoding,
) -> Result<PrivateKeyPem, Unspecified> {
    let key = EcdsaKeyPair::from_private_key_der(algorithm, given)?;
    match encoding {
        KeyEncoding::Pkcs8 => Ok(pem(PKCS8, key.to_pkcs8v1()?.as_ref())),
        // With the curve inside: nothing around it could name it.
        KeyEncoding::Traditional => {
            let sec1: EcPrivateKeyRfc5915Der<'_> = key.private_key().as_der()?;
            Ok(pem(SEC1, sec1.as_ref()))
        }
    }
}

fn write_rsa(given: &[u8], encoding: KeyEncoding) -> Result<PrivateKeyPem, Unspecified> {
    let key = RsaKeyPair::from_pkcs8(given).or_else(|_| RsaKeyPair::from_der(given))?;
    let pkcs8: Pkcs8V1Der<'_> = key.as_der()?;
    match encoding {
        KeyEncoding::Pkcs8 => Ok(pem(PKCS8, pkcs8.as_ref())),
        // For RSA, PKCS#8 wraps PKCS#1 (RFC 8017, A.1).
        KeyEncoding::Traditional => {
            let wrapped = PrivateKeyInfoRef::try_from(pkcs8.as_ref()).map_err(|_| Unspecified)?;
            Ok(pem(PKCS1, wrapped.private_key.as_bytes()))
        }
    }
}

fn pem(label: &str, der: &[u8]) -> PrivateKeyPem {
    PrivateKeyPem::new(encoding::pem(label, der))
}

fn rsa_bits(key: &impl PublicKeyData) -> Option<usize> {
    let der = key.subject_public_key_info();
    let (_, info) = SubjectPublicKeyInfo::from_der(&der).ok()?;
    match info.parsed().ok()? {
        PublicKey::RSA(key) => Some(key.key_size()),
        _ => None,
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

    const ALL: [KeyAlgorithm; 4] = [
        KeyAlgorithm::EcdsaP256,
        KeyAlgorithm::EcdsaP384,
        KeyAlgorithm::Rsa2048,
        KeyAlgorithm::Ed25519,
    ];

    #[test]
    fn debug_does_not_print_the_key() {
        let key = KeyAlgorithm::EcdsaP256.generate().unwrap();
        let pem = PrivateKeyPem::new(key.serialize_pem());
        assert_eq!(format!("{pem:?}"), "PrivateKeyPem(..)");
    }

    #[test]
    fn a_key_reads_back_the_same_from_either_encoding_into_either() {
        use KeyEncoding::{Pkcs8, Traditional};
        for algorithm in ALL {
            let key = algorithm.generate().unwrap();
            assert_eq!(KeyAlgorithm::of(&*key), Some(algorithm));
            for encoding in [Pkcs8, Traditional] {
                let pem = write(&key, encoding).unwrap();
                let (read, found) = read_only(pem.as_bytes()).unwrap();
                assert_eq!(found, encoding.for_keys(algorithm));
                assert_eq!(KeyAlgorithm::of(&*read), Some(algorithm));
                assert_eq!(read.public_key_raw(), key.public_key_raw());
                for again in [Pkcs8, Traditional] {
                    let of_read = write(&read, again).unwrap();
                    assert_eq!(of_read.as_str(), write(&key, again).unwrap().as_str());
                }
            }
        }
    }

    #[test]
    fn the_first_line_of_a_key_names_its_encoding() {
        for (algorithm, label) in ALL.into_iter().zip([SEC1, SEC1, PKCS1, PKCS8]) {
            let key = algorithm.generate().unwrap();
            for (encoding, label) in [
                (KeyEncoding::Pkcs8, PKCS8),
                (KeyEncoding::Traditional, label),
            ] {
                let pem = write(&key, encoding).unwrap();
                let line = format!("-----BEGIN {label}-----\n");
                assert!(pem.as_str().starts_with(&line), "{algorithm} {encoding}");
            }
        }
    }

    #[test]
    fn other_text_is_not_read_as_a_private_key() {
        let public = KeyAlgorithm::EcdsaP256.generate().unwrap().public_key_pem();
        let torn = "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n";
        for text in ["", "no PEM", torn, &public] {
            assert!(read(text.as_bytes()).is_none(), "{text}");
        }
    }
}
