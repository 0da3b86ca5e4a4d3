//! What was issued, in the formats of programs that do not read `tls.crt` and `tls.key`.

mod jks;
mod pkcs12;

use std::collections::BTreeMap;

use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::bundle::Bundle;
use crate::encoding;
use crate::key::{self, KeyEncoding};
use crate::trust::Trust;

/// `tls-combined.pem`: the private key, then its certificate and those between it and the root.
pub fn combined_pem(bundle: &Bundle<'_>) -> Zeroizing<Vec<u8>> {
    let key = bundle.private_key;
    // Of the final size, because a buffer that grows leaves copies of the key behind.
    let size = key.len() + 1 + bundle.certificate.len();
    let mut combined = Zeroizing::new(Vec::with_capacity(size));
    combined.extend_from_slice(key);
    if !key.ends_with(b"\n") {
        combined.push(b'\n');
    }
    combined.extend_from_slice(bundle.certificate);
    combined
}

/// `key.der`: the private key without the PEM around it, in the encoding it has there. `None` if
/// there is no readable key.
pub fn key_der(bundle: &Bundle<'_>) -> Option<Zeroizing<Vec<u8>>> {
    key::der(bundle.private_key)
}

/// The formats of keystores and truststores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeystoreKind {
    /// PKCS#12 ([RFC 7292]), encrypted with AES-256-CBC under PBKDF2 with HMAC-SHA-256, and with a
    /// MAC of HMAC-SHA-256: what OpenSSL 3 and Java 17 write, and Java from 8u301 on reads. Its
    /// password has at least one character.
    ///
    /// [RFC 7292]: https://www.rfc-editor.org/rfc/rfc7292
    Pkcs12,
    /// JKS, the keystore of Java before PKCS#12. Its password has at least six characters, as
    /// keytool asks for.
    Jks,
}

/// `keystore.p12` or `keystore.jks`: what a program proves its identity with.
///
/// `alias` names the entry. It is of printable ASCII; Java does not tell upper from lower case, and
/// keeps the lower one. So is `password`, which protects the store and the key in it.
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

/// `truststore.p12` or `truststore.jks`: what a program recognises others by. The first root is
/// named `ca`, the others `ca-2` and so on.
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

/// Does `stored` open with this password, and hold exactly the key and the certificates of the
/// bundle, under whatever alias?
///
/// PKCS#12 from another writer does not, even with the same content: opening it could cost
/// anything.
pub fn keystore_holds(
    kind: KeystoreKind,
    stored: &[u8],
    bundle: &Bundle<'_>,
    password: &str,
) -> bool {
    Entries::of(bundle, "").is_ok_and(|entries| holds(kind, stored, &entries, password))
}

/// Does `stored` open with this password, and hold exactly these roots under the names that
/// [`truststore`] gives them?
pub fn truststore_holds(kind: KeystoreKind, stored: &[u8], trust: &Trust, password: &str) -> bool {
    Entries::trust(trust).is_ok_and(|entries| holds(kind, stored, &entries, password))
}

/// Why there is no keystore: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The private key cannot be parsed, or is of a kind that leaves do not have.
    #[error("the private key for the keystore is not readable")]
    PrivateKeyUnreadable,
    /// The chain cannot be parsed, is empty or holds anything else.
    #[error("the certificates for the keystore are not readable")]
    ChainUnreadable,
    /// A truststore without anyone to trust.
    #[error("there is no root to put into the truststore")]
    NoRoots,
    /// A name that not every reader understands.
    #[error(
        "the alias {alias:?} of the keystore entry is empty, longer than {MAX_ALIAS} characters or \
         not printable ASCII; choose another"
    )]
    Alias {
        /// The name.
        alias: String,
    },
    /// A password that readers understand in different ways.
    #[error("the keystore password is not printable ASCII; readers disagree on all others")]
    PasswordCharacter,
    /// A password below what the readers of the format take.
    #[error("the keystore password is too short: choose one of at least {least} characters")]
    PasswordTooShort {
        /// The least length, in characters.
        least: usize,
    },
    /// The library failed.
    #[error("the keystore could not be written: {reason}")]
    Library {
        /// What it says.
        reason: String,
    },
}

/// Nothing longer is of use to people, and formats count the length in two bytes.
const MAX_ALIAS: usize = 255;

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
    match kind {
        KeystoreKind::Pkcs12 => {
            // Java and OpenSSL disagree on whether an empty password is one.
            check_password(password, 1)?;
            pkcs12::write(entries, password)
        }
        KeystoreKind::Jks => {
            check_password(password, 6)?;
            jks::write(entries, password)
        }
    }
}

fn holds(kind: KeystoreKind, stored: &[u8], entries: &Entries<'_>, password: &str) -> bool {
    match kind {
        KeystoreKind::Pkcs12 => pkcs12::holds(stored, entries, password),
        KeystoreKind::Jks => jks::holds(stored, entries, password),
    }
}

fn failed(error: impl std::fmt::Display) -> FormatError {
    let reason = error.to_string();
    FormatError::Library { reason }
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
        let alias = alias.to_owned();
        Err(FormatError::Alias { alias })
    }
}

/// Beyond ASCII, OpenSSL and Java turn the characters of one password into different bytes.
fn check_password(password: &str, least: usize) -> Result<(), FormatError> {
    if !is_printable(password) {
        Err(FormatError::PasswordCharacter)
    } else if password.len() < least {
        Err(FormatError::PasswordTooShort { least })
    } else {
        Ok(())
    }
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// As much as a Secret has room for. A store that was written and could be saved is never above it,
/// so none is written again and again.
const MAX_SIZE: usize = 1 << 20;

/// Big-endian, as Java's characters are.
fn utf16(password: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(password.encode_utf16().flat_map(u16::to_be_bytes).collect())
}
