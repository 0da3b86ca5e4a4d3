//! JKS, the keystore of Java before PKCS#12: `keystore.jks` and `truststore.jks`.
//!
//! The format is that of `OpenJDK`: [JavaKeyStore] for the file, [KeyProtector] for the private
//! key. The one crate for it (jks 0.3) panics on damaged files, which a Secret may hold. Its
//! weak cryptography does not matter: the same Secret holds the private key unencrypted.
//!
//! [JavaKeyStore]: https://github.com/openjdk/jdk17u/blob/master/src/java.base/share/classes/sun/security/provider/JavaKeyStore.java
//! [KeyProtector]: https://github.com/openjdk/jdk17u/blob/master/src/java.base/share/classes/sun/security/provider/KeyProtector.java

use aws_lc_rs::digest::{Context, Digest, SHA1_FOR_LEGACY_USE_ONLY as SHA1};
use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use der::{Decode as _, Encode as _};
use pkcs8::AlgorithmIdentifierRef;
use zeroize::Zeroizing;

use super::{EncryptedKey, Entries, FormatError, MAX_SIZE, failed, utf16};

const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
const PRIVATE_KEY: u32 = 1;
const TRUSTED_CERTIFICATE: u32 = 2;
const CERTIFICATE_TYPE: &str = "X.509";
/// Constant between the password and the file in the digest at its end.
const WHITENER: &[u8] = b"Mighty Aphrodite";
/// Length of the digest, and of the salt before an encrypted key.
const SHA1_LEN: usize = 20;
/// Sun's identifier of its encryption of a key.
const KEY_PROTECTOR: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.42.2.17.1.1");

pub(super) fn write(entries: &Entries<'_>, password: &str) -> Result<Vec<u8>, FormatError> {
    let password = utf16(password);
    let mut file = Writer(Vec::new());
    file.number(MAGIC);
    file.number(VERSION);
    match entries {
        Entries::Identity {
            alias,
            private_key,
            chain,
        } => {
            file.length(1)?;
            file.number(PRIVATE_KEY);
            // Java looks for the lower-case one only.
            file.text(&alias.to_ascii_lowercase())?;
            file.time(&chain[0])?;
            file.block(&protect(private_key, &password)?)?;
            file.length(chain.len())?;
            for certificate in chain {
                file.certificate(certificate)?;
            }
        }
        Entries::Trust(roots) => {
            file.length(roots.len())?;
            for (alias, root) in roots {
                file.number(TRUSTED_CERTIFICATE);
                file.text(alias)?;
                file.time(root)?;
                file.certificate(root)?;
            }
        }
    }
    let digest = digest(&[&password, WHITENER, &file.0]);
    file.bytes(digest.as_ref());
    Ok(file.0)
}

pub(super) fn holds(stored: &[u8], entries: &Entries<'_>, password: &str) -> bool {
    read_and_compare(stored, entries, &utf16(password)).unwrap_or_default()
}

/// Compares a file with the expected entries. `None` if it cannot be read. No file costs more than
/// a digest of it and the decryption of a key as long as the expected one.
fn read_and_compare(stored: &[u8], entries: &Entries<'_>, password: &[u8]) -> Option<bool> {
    if stored.len() > MAX_SIZE {
        return None;
    }
    let (body, closing) = stored.split_at_checked(stored.len().checked_sub(SHA1_LEN)?)?;
    if digest(&[password, WHITENER, body]).as_ref() != closing {
        return None;
    }
    let mut file = Reader(body);
    let mut equal = file.number()? == MAGIC && file.number()? == VERSION;
    let count = usize::try_from(file.number()?).ok()?;
    match entries {
        Entries::Identity {
            private_key, chain, ..
        } => {
            equal &= count == 1 && file.number()? == PRIVATE_KEY;
            file.text()?;
            file.time()?;
            equal &= *unprotect(file.block()?, password, private_key.len())? == **private_key;
            equal &= usize::try_from(file.number()?).ok()? == chain.len();
            for certificate in chain {
                equal &= file.certificate()? == certificate.as_ref();
            }
        }
        Entries::Trust(roots) => {
            equal &= count == roots.len();
            for (alias, root) in roots {
                equal &= file.number()? == TRUSTED_CERTIFICATE;
                equal &= file.text()? == alias.as_bytes();
                file.time()?;
                equal &= file.certificate()? == root.as_ref();
            }
        }
    }
    Some(equal && file.0.is_empty())
}

/// Encrypts a key. The data are salt, encrypted key, and digest of password and key.
fn protect(private_key: &[u8], password: &[u8]) -> Result<Vec<u8>, FormatError> {
    let mut salt = [0; SHA1_LEN];
    aws_lc_rs::rand::fill(&mut salt).map_err(failed)?;
    let data = [
        &salt[..],
        &mask(private_key, &salt, password),
        digest(&[password, private_key]).as_ref(),
    ]
    .concat();
    let protected = EncryptedKey {
        algorithm: AlgorithmIdentifierRef {
            oid: KEY_PROTECTOR,
            parameters: Some(AnyRef::NULL),
        },
        data: OctetStringRef::new(&data).map_err(failed)?,
    };
    protected.to_der().map_err(failed)
}

/// Decrypts a key. `None`, before any of the costly key stream is made, if it has another length.
fn unprotect(protected: &[u8], password: &[u8], length: usize) -> Option<Zeroizing<Vec<u8>>> {
    let protected = EncryptedKey::from_der(protected).ok()?;
    if protected.algorithm.oid != KEY_PROTECTOR {
        return None;
    }
    let (salt, rest) = protected.data.as_bytes().split_at_checked(SHA1_LEN)?;
    let (masked, closing) = rest.split_at_checked(rest.len().checked_sub(SHA1_LEN)?)?;
    if masked.len() != length {
        return None;
    }
    let private_key = mask(masked, salt, password);
    (digest(&[password, &private_key]).as_ref() == closing).then_some(private_key)
}

/// Encrypts and decrypts: each block of the key stream digests the password and the block before,
/// at first the salt.
fn mask(data: &[u8], salt: &[u8], password: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut masked = Zeroizing::new(data.to_vec());
    let mut block = digest(&[password, salt]);
    for chunk in masked.chunks_mut(SHA1_LEN) {
        for (byte, mask) in chunk.iter_mut().zip(block.as_ref()) {
            *byte ^= mask;
        }
        block = digest(&[password, block.as_ref()]);
    }
    masked
}

fn digest(parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA1);
    for part in parts {
        context.update(part);
    }
    context.finish()
}

/// Writes as `java.io.DataOutputStream` does.
struct Writer(Vec<u8>);

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn number(&mut self, number: u32) {
        self.bytes(&number.to_be_bytes());
    }

    fn length(&mut self, length: usize) -> Result<(), FormatError> {
        // Java has no unsigned numbers.
        let length = i32::try_from(length).map_err(failed)?;
        self.bytes(&length.to_be_bytes());
        Ok(())
    }

    /// The creation time of an entry in milliseconds since 1970: the begin of its certificate.
    fn time(&mut self, der: &[u8]) -> Result<(), FormatError> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(failed)?;
        let seconds = certificate.validity().not_before.timestamp();
        self.bytes(&seconds.saturating_mul(1000).to_be_bytes());
        Ok(())
    }

    /// ASCII, which is the same in Java's modified UTF-8.
    fn text(&mut self, text: &str) -> Result<(), FormatError> {
        let length = u16::try_from(text.len()).map_err(failed)?;
        self.bytes(&length.to_be_bytes());
        self.bytes(text.as_bytes());
        Ok(())
    }

    fn block(&mut self, block: &[u8]) -> Result<(), FormatError> {
        self.length(block.len())?;
        self.bytes(block);
        Ok(())
    }

    fn certificate(&mut self, der: &[u8]) -> Result<(), FormatError> {
        self.text(CERTIFICATE_TYPE)?;
        self.block(der)
    }
}

/// Reads what is left of a file. `None` where it ends too early.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn time(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.array().map(u16::from_be_bytes)?;
        self.take(length.into())
    }

    fn block(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    fn certificate(&mut self) -> Option<&'a [u8]> {
        if self.text()? != CERTIFICATE_TYPE.as_bytes() {
            return None;
        }
        self.block()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls_pki_types::CertificateDer;

    use super::*;

    const PASSWORD: &str = "changeit";

    #[test]
    fn a_file_above_what_a_secret_holds_is_not_read() {
        let key = Zeroizing::new(vec![1; 40]);
        for (length, expected) in [(0, Some(true)), (MAX_SIZE, None)] {
            let certificate = CertificateDer::from(vec![0; length]);
            let (alias, private_key) = ("a", key.clone());
            let password = utf16(PASSWORD);
            let mut file = Writer(Vec::new());
            for number in [MAGIC, VERSION, 1, PRIVATE_KEY] {
                file.number(number);
            }
            file.text(alias).unwrap();
            file.0.extend_from_slice(&[0; 8]);
            file.block(&protect(&private_key, &password).unwrap())
                .unwrap();
            file.number(1);
            file.certificate(&certificate).unwrap();
            let digest = digest(&[&password, WHITENER, &file.0]);
            file.0.extend_from_slice(digest.as_ref());
            let chain = vec![certificate];
            let entries = Entries::Identity {
                alias,
                private_key,
                chain,
            };
            assert_eq!(read_and_compare(&file.0, &entries, &password), expected);
        }
    }

    proptest! {
        /// With the right digest at its end, so that what stands before it is read.
        #[test]
        fn any_file_with_a_valid_digest_is_read_without_panic(body: Vec<u8>) {
            for start in [&[][..], &[0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1]] {
                let mut file = [start, &body].concat();
                let digest = digest(&[&utf16(PASSWORD), WHITENER, &file]);
                file.extend_from_slice(digest.as_ref());
                let private_key = Zeroizing::new(vec![1; 40]);
                let entries = Entries::Identity { alias: "", private_key, chain: vec![] };
                let equal = read_and_compare(&file, &entries, &utf16(PASSWORD));
                prop_assert_ne!(equal, Some(true));
            }
        }

        #[test]
        fn a_protected_key_opens_with_its_password_only(key: Vec<u8>, other: Vec<u8>) {
            let protected = protect(&key, b"password").unwrap();
            let opened = unprotect(&protected, b"password", key.len()).unwrap();
            prop_assert_eq!(&*opened, &key);
            prop_assert!(unprotect(&protected, b"password", key.len() + 1).is_none());
            prop_assume!(other != b"password");
            prop_assert!(unprotect(&protected, &other, key.len()).is_none());
            prop_assert!(unprotect(&other, b"password", key.len()).is_none());
        }
    }
}
