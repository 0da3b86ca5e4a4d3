//! Keys and certificates in the formats of programs that do not read `tls.crt` and `tls.key`.

mod jks;
mod pkcs12;

use std::collections::BTreeMap;

use der::Sequence;
use der::asn1::OctetStringRef;
use pkcs8::AlgorithmIdentifierRef;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::bundle::Bundle;
use crate::encoding;
use crate::key::{self, KeyEncoding};
use crate::trust::Trust;

/// `tls-combined.pem`: the private key, then its certificate and those between it and the root.
pub fn combined_pem(bundle: &Bundle<'_>) -> Zeroizing<Vec<u8>> {
    let key = bundle.private_key;
    // Allocated in its final size: a buffer that grows leaves copies of the key behind.
    let size = key.len() + 1 + bundle.certificate.len();
    let mut combined = Zeroizing::new(Vec::with_capacity(size));
    combined.extend_from_slice(key);
    if !key.ends_with(b"\n") {
        combined.push(b'\n');
    }
    combined.extend_from_slice(bundle.certificate);
    combined
}

/// `key.der`: the private key without PEM, in the same encoding. `None` if there is none.
pub fn key_der(bundle: &Bundle<'_>) -> Option<Zeroizing<Vec<u8>>> {
    key::der(bundle.private_key)
}

/// The formats of keystores and truststores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeystoreKind {
    /// PKCS#12 ([RFC 7292]), encrypted with AES-256-CBC under PBKDF2 with HMAC-SHA-256, and with a
    /// MAC of HMAC-SHA-256, as OpenSSL 3 and Java 17 write it. Java reads it from 8u301 on. Its
    /// password has at least one character.
    ///
    /// [RFC 7292]: https://www.rfc-editor.org/rfc/rfc7292
    Pkcs12,
    /// JKS, the keystore of Java before PKCS#12. Its password has at least six characters, as
    /// keytool asks for.
    Jks,
}

/// `keystore.p12` or `keystore.jks`: the private key of a program and its certificates.
///
/// `alias` names the entry; Java ignores its case, and keeps the lower one. `password` protects the
/// store and the key in it. Both are printable ASCII.
///
/// Salts are random, so no two stores are alike: ask [`keystore_holds`] before writing one anew.
pub fn keystore(
    kind: KeystoreKind,
    bundle: &Bundle<'_>,
    alias: &str,
    password: &str,
) -> Result<Vec<u8>, FormatError> {
    check_alias(alias)?;
    write(kind, &Entries::of(bundle, alias)?, password)
}

/// `truststore.p12` or `truststore.jks`: the roots that a program trusts. The first one is named
/// `ca`, the others `ca-2` and so on.
///
/// `password` is of printable ASCII. Salts are random, so no two stores are alike: ask
/// [`truststore_holds`] before writing one anew.
pub fn truststore(
    kind: KeystoreKind,
    trust: &Trust,
    password: &str,
) -> Result<Vec<u8>, FormatError> {
    write(kind, &Entries::trust(trust)?, password)
}

/// Whether `stored` opens with this password, and holds exactly the key and the certificates of the
/// bundle, under any alias. False for PKCS#12 from another writer, as opening it has no time bound.
pub fn keystore_holds(
    kind: KeystoreKind,
    stored: &[u8],
    bundle: &Bundle<'_>,
    password: &str,
) -> bool {
    Entries::of(bundle, "").is_ok_and(|entries| holds(kind, stored, &entries, password))
}

/// Whether `stored` opens with this password, and holds exactly the entries of [`truststore`].
pub fn truststore_holds(kind: KeystoreKind, stored: &[u8], trust: &Trust, password: &str) -> bool {
    Entries::trust(trust).is_ok_and(|entries| holds(kind, stored, &entries, password))
}

/// The reason why no keystore was written, with a remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The private key cannot be parsed, or is of a kind that leaves do not have.
    #[error("the private key for the keystore is not readable")]
    PrivateKeyUnreadable,
    /// The chain cannot be parsed, is empty or holds anything else.
    #[error("the certificates for the keystore are not readable")]
    ChainUnreadable,
    /// The truststore would be empty.
    #[error("there is no root to put into the truststore")]
    NoRoots,
    /// Not every reader accepts this alias.
    #[error(
        "the alias {0:?} of the keystore entry is empty, longer than {MAX_ALIAS} characters or \
         not printable ASCII; choose another"
    )]
    Alias(String),
    /// Readers disagree on the bytes of this password.
    #[error(
        "the keystore password is not printable ASCII; programs read other characters differently"
    )]
    PasswordCharacter,
    /// The password is shorter than this number of characters, the least that readers accept.
    #[error("the keystore password is too short: choose one of at least {0} characters")]
    PasswordTooShort(usize),
    /// The library failed with this error.
    #[error("the keystore could not be written: {0}")]
    Library(String),
}

/// Maximum length of an alias, in characters. Formats count it in two bytes.
const MAX_ALIAS: usize = 255;

/// `EncryptedPrivateKeyInfo` of PKCS#8 ([RFC 5208, 6]).
///
/// [RFC 5208, 6]: https://www.rfc-editor.org/rfc/rfc5208#section-6
#[derive(Sequence)]
struct EncryptedKey<'a> {
    algorithm: AlgorithmIdentifierRef<'a>,
    data: &'a OctetStringRef,
}

/// The entries of a keystore, in DER.
enum Entries<'a> {
    Identity {
        alias: &'a str,
        /// PKCS#8.
        private_key: Zeroizing<Vec<u8>>,
        /// The certificate first.
        chain: Vec<CertificateDer<'static>>,
    },
    /// By alias.
    Trust(BTreeMap<String, &'a CertificateDer<'static>>),
}

impl<'a> Entries<'a> {
    fn of(bundle: &Bundle<'_>, alias: &'a str) -> Result<Self, FormatError> {
        let private_key = pkcs8(bundle.private_key).ok_or(FormatError::PrivateKeyUnreadable)?;
        let chain = encoding::only_certificates(bundle.certificate)
            .filter(|chain| !chain.is_empty())
            .ok_or(FormatError::ChainUnreadable)?;
        Ok(Self::Identity {
            alias,
            private_key,
            chain,
        })
    }

    fn trust(trust: &'a Trust) -> Result<Self, FormatError> {
        if trust.roots().is_empty() {
            return Err(FormatError::NoRoots);
        }
        let name = |index| match index {
            0 => "ca".to_owned(),
            _ => format!("ca-{}", index + 1),
        };
        let roots = trust.roots().iter().enumerate();
        Ok(Self::Trust(
            roots.map(|(index, root)| (name(index), root)).collect(),
        ))
    }
}

fn write(
    kind: KeystoreKind,
    entries: &Entries<'_>,
    password: &str,
) -> Result<Vec<u8>, FormatError> {
    // Java and OpenSSL disagree on an empty password of PKCS#12; keytool wants six characters.
    let (least, write): (_, fn(&Entries<'_>, &str) -> _) = match kind {
        KeystoreKind::Pkcs12 => (1, pkcs12::write),
        KeystoreKind::Jks => (6, jks::write),
    };
    check_password(password, least)?;
    write(entries, password)
}

fn holds(kind: KeystoreKind, stored: &[u8], entries: &Entries<'_>, password: &str) -> bool {
    match kind {
        KeystoreKind::Pkcs12 => pkcs12::holds(stored, entries, password),
        KeystoreKind::Jks => jks::holds(stored, entries, password),
    }
}

fn failed(error: impl std::fmt::Display) -> FormatError {
    FormatError::Library(error.to_string())
}

fn pkcs8(private_key_pem: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let key = key::read(private_key_pem)?;
    let pem = key::write(&key, KeyEncoding::Pkcs8).ok()?;
    key::der(pem.as_bytes())
}

fn check_alias(alias: &str) -> Result<(), FormatError> {
    if !alias.is_empty() && alias.len() <= MAX_ALIAS && is_printable(alias) {
        Ok(())
    } else {
        Err(FormatError::Alias(alias.to_owned()))
    }
}

/// Checks a password. Beyond ASCII, OpenSSL and Java encode one password in different bytes.
fn check_password(password: &str, least: usize) -> Result<(), FormatError> {
    if !is_printable(password) {
        Err(FormatError::PasswordCharacter)
    } else if password.len() < least {
        Err(FormatError::PasswordTooShort(least))
    } else {
        Ok(())
    }
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Maximum size of a store in bytes: that of a Secret.
const MAX_SIZE: usize = 1 << 20;

/// A text in UTF-16, big-endian, as Java's characters are.
fn utf16(password: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(password.encode_utf16().flat_map(u16::to_be_bytes).collect())
}
