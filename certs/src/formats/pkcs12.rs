//! PKCS#12 ([RFC 7292]): `keystore.p12` and `truststore.p12`.
//!
//! A library writes them, but does not read them: a stored file may be expensive to open. The
//! reader here accepts only files as [`write`] makes them, derives at most three keys with
//! [`ITERATIONS`] each, and otherwise takes time by the bounded size of the file.
//!
//! [RFC 7292]: https://www.rfc-editor.org/rfc/rfc7292

mod asn1;

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::digest::{self, Digest, SHA256};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{hmac, pbkdf2};
use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use der::{Decode, Reader as _, SliceReader, Tag, Tagged as _};
use p12_keystore::{
    Certificate, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey, PrivateKeyChain,
};
use pkcs8::AlgorithmIdentifierRef;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use self::asn1::{
    Attribute, Bag, CertificateBag, EncryptedData, Pbes2, Pbkdf2, Pfx, Safes, parameters,
};
use super::{EncryptedKey, Entries, FormatError, MAX_SIZE, failed, utf16};
use crate::encoding;

/// Iterations of OpenSSL 3, a fifth of those of Java 17. More would gain nothing: the same Secret
/// holds the private key unencrypted.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(2048).expect("not zero");

const MAC_SALT_LEN: usize = 8;
const SALT_LEN: usize = 32;
const IV_LEN: usize = 16;
const KEY_LEN: usize = 32;
const SHA256_BLOCK_LEN: usize = 64;

const DATA: ObjectIdentifier = oid("1.2.840.113549.1.7.1");
const ENCRYPTED_DATA: ObjectIdentifier = oid("1.2.840.113549.1.7.6");
const PBES2: ObjectIdentifier = oid("1.2.840.113549.1.5.13");
const PBKDF2: ObjectIdentifier = oid("1.2.840.113549.1.5.12");
const AES_256_CBC: ObjectIdentifier = oid("2.16.840.1.101.3.4.1.42");
const HMAC_SHA256: AlgorithmIdentifierRef<'_> = algorithm("1.2.840.113549.2.9", Some(AnyRef::NULL));
const MAC_SHA256: AlgorithmIdentifierRef<'_> = algorithm("2.16.840.1.101.3.4.2.1", None);
const KEY_BAG: ObjectIdentifier = oid("1.2.840.113549.1.12.10.1.2");
const CERTIFICATE_BAG: ObjectIdentifier = oid("1.2.840.113549.1.12.10.1.3");
const X509: ObjectIdentifier = oid("1.2.840.113549.1.9.22.1");
const FRIENDLY_NAME: ObjectIdentifier = oid("1.2.840.113549.1.9.20");
const LOCAL_KEY_ID: ObjectIdentifier = oid("1.2.840.113549.1.9.21");
/// Java's attribute of a trusted certificate: the purposes that it is trusted for.
const TRUSTED_FOR: ObjectIdentifier = oid("2.16.840.1.113894.746875.1.1");
const ANYTHING: ObjectIdentifier = oid("2.5.29.37.0");

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

const fn algorithm<'a>(text: &str, parameters: Option<AnyRef<'a>>) -> AlgorithmIdentifierRef<'a> {
    AlgorithmIdentifierRef {
        oid: oid(text),
        parameters,
    }
}

pub(super) fn write(entries: &Entries<'_>, password: &str) -> Result<Vec<u8>, FormatError> {
    let mut store = KeyStore::new();
    match entries {
        Entries::Identity {
            alias,
            private_key,
            chain,
        } => {
            // Connects the key with its certificate.
            let local_key_id = encoding::fingerprint(&chain[0]);
            let private_key = PrivateKey::from_der(private_key).map_err(failed)?;
            let chain = chain.iter().map(certificate);
            let chain: Vec<_> = chain.collect::<Result<_, _>>()?;
            let entry = PrivateKeyChain::new(local_key_id, private_key, chain);
            store.add_entry(alias, KeyStoreEntry::PrivateKeyChain(entry));
        }
        Entries::Trust(roots) => {
            for (alias, root) in roots {
                // The library marks it as trusted for every purpose: Java ignores others.
                store.add_entry(alias, KeyStoreEntry::Certificate(certificate(root)?));
            }
        }
    }
    store
        .writer(password)
        .encryption_iterations(ITERATIONS.get())
        .mac_algorithm(MacAlgorithm::HmacSha256)
        .mac_iterations(ITERATIONS.get())
        .write()
        .map_err(failed)
}

pub(super) fn holds(stored: &[u8], entries: &Entries<'_>, password: &str) -> bool {
    open_and_compare(stored, entries, password).unwrap_or_default()
}

/// Compares a store with the expected entries. `None` if it cannot be opened.
fn open_and_compare(stored: &[u8], entries: &Entries<'_>, password: &str) -> Option<bool> {
    let sealed = Sealed::read(stored)?;
    if !sealed.is_authentic(password) {
        return None;
    }
    let safe = sealed.certificates.open(password)?;
    let found = certificates(&safe)?;
    match (entries, &sealed.key) {
        (
            Entries::Identity {
                private_key, chain, ..
            },
            Some((key, attributes)),
        ) => {
            let id = attributes.local_key_id?;
            let equal = found.first()?.attributes.local_key_id == Some(id)
                && found.iter().all(|one| !one.attributes.trusted)
                && found
                    .iter()
                    .map(|one| one.der)
                    .eq(chain.iter().map(AsRef::as_ref));
            Some(equal && *key.open(password)? == **private_key)
        }
        (Entries::Trust(roots), None) => {
            // Both are sorted by alias.
            let mut pairs = found.iter().zip(roots);
            let equal = pairs.all(|(one, (alias, root))| {
                one.attributes.trusted
                    && one.attributes.friendly_name == Some(&utf16(alias))
                    && one.der == root.as_ref()
            });
            Some(equal && found.len() == roots.len())
        }
        _ => Some(false),
    }
}

/// A store as it is read without its password.
struct Sealed<'a> {
    /// The bytes that the MAC authenticates.
    authenticated: &'a [u8],
    mac_salt: [u8; MAC_SALT_LEN],
    mac: &'a [u8],
    certificates: Encrypted<'a>,
    key: Option<(Encrypted<'a>, Attributes<'a>)>,
}

impl<'a> Sealed<'a> {
    /// `None` unless it is as [`write`] makes it. Derives no key.
    fn read(stored: &'a [u8]) -> Option<Self> {
        if stored.len() > MAX_SIZE {
            return None;
        }
        let pfx = Pfx::from_der(stored).ok()?;
        let mac = pfx.mac;
        let is_mac = mac.digest.algorithm == MAC_SHA256 && mac.iterations == ITERATIONS.get();
        if pfx.version != 3 || !is_mac {
            return None;
        }
        let authenticated = octets(pfx.safes.read(DATA)?);
        let Safes { certificates, keys } = Safes::from_der(authenticated).ok()?;
        let encrypted: EncryptedData<'_> = certificates.read(ENCRYPTED_DATA)?;
        let content = encrypted.content;
        if encrypted.version != 0 || content.kind != DATA {
            return None;
        }
        let keys: Vec<Bag<'_>> = Decode::from_der(octets(keys.read(DATA)?)).ok()?;
        let key = match &keys[..] {
            [] => None,
            [bag] => {
                let key: EncryptedKey<'_> = bag.read(KEY_BAG)?;
                let key = Encrypted::read(key.algorithm, key.data)?;
                Some((key, Attributes::read(bag.attributes)?))
            }
            _ => return None,
        };
        Some(Self {
            authenticated,
            mac_salt: mac.salt.try_into().ok()?,
            mac: octets(mac.digest.digest),
            certificates: Encrypted::read(content.algorithm, content.data)?,
            key,
        })
    }

    fn is_authentic(&self, password: &str) -> bool {
        let key = mac_key(self.mac_salt, password);
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_ref());
        hmac::verify(&key, self.authenticated, self.mac).is_ok()
    }
}

/// Data encrypted with AES-256-CBC, under a key of PBKDF2 with HMAC-SHA-256 and [`ITERATIONS`].
struct Encrypted<'a> {
    salt: [u8; SALT_LEN],
    iv: [u8; IV_LEN],
    data: &'a [u8],
}

impl<'a> Encrypted<'a> {
    fn read(algorithm: AlgorithmIdentifierRef<'a>, data: &'a OctetStringRef) -> Option<Self> {
        let Pbes2 { derivation, cipher } = parameters(algorithm, PBES2)?;
        let of: Pbkdf2<'_> = parameters(derivation, PBKDF2)?;
        if of.iterations != ITERATIONS.get() || of.function != HMAC_SHA256 {
            return None;
        }
        let iv: &OctetStringRef = parameters(cipher, AES_256_CBC)?;
        Some(Self {
            salt: of.salt.try_into().ok()?,
            iv: iv.try_into().ok()?,
            data: octets(data),
        })
    }

    fn open(&self, password: &str) -> Option<Zeroizing<Vec<u8>>> {
        let key = encryption_key(&self.salt, password)?;
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).ok()?;
        let iv = DecryptionContext::Iv128(FixedLength::from(self.iv));
        let mut opened = Zeroizing::new(self.data.to_vec());
        let len = key.decrypt(&mut opened, iv).ok()?.len();
        opened.truncate(len);
        Some(opened)
    }
}

fn encryption_key(salt: &[u8], password: &str) -> Option<UnboundCipherKey> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    let function = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(function, ITERATIONS, salt, password.as_bytes(), &mut *key);
    UnboundCipherKey::new(&AES_256, &*key).ok()
}

/// Derives the key of the MAC ([RFC 7292, B.2]), which is simple for one as long as the digest.
///
/// [RFC 7292, B.2]: https://www.rfc-editor.org/rfc/rfc7292#appendix-B.2
fn mac_key(salt: [u8; MAC_SALT_LEN], password: &str) -> Digest {
    const FOR_MAC: u8 = 3;
    let mut password = utf16(password);
    // NUL ends the password.
    password.extend([0, 0]);
    let mut start = Zeroizing::new(vec![FOR_MAC; SHA256_BLOCK_LEN]);
    for part in [&salt[..], &password] {
        let len = part.len().next_multiple_of(SHA256_BLOCK_LEN);
        start.extend(part.iter().cycle().take(len));
    }
    let first = digest::digest(&SHA256, &start);
    (1..ITERATIONS.get()).fold(first, |key, _| digest::digest(&SHA256, key.as_ref()))
}

struct Found<'a> {
    der: &'a [u8],
    attributes: Attributes<'a>,
}

/// Reads certificates. `None` if there is another entry, such as a key.
fn certificates(safe: &[u8]) -> Option<Vec<Found<'_>>> {
    let bags: Vec<Bag<'_>> = Decode::from_der(safe).ok()?;
    let found = bags.into_iter().map(|bag| {
        let CertificateBag { kind, der } = bag.read(CERTIFICATE_BAG)?;
        let (der, attributes) = (octets(der), Attributes::read(bag.attributes)?);
        (kind == X509).then_some(Found { der, attributes })
    });
    found.collect()
}

#[derive(Default)]
struct Attributes<'a> {
    /// In UTF-16.
    friendly_name: Option<&'a [u8]>,
    local_key_id: Option<&'a [u8]>,
    trusted: bool,
}

impl<'a> Attributes<'a> {
    /// Reads attributes. `None` if one is unknown.
    fn read(set: AnyRef<'a>) -> Option<Self> {
        if set.tag() != Tag::Set {
            return None;
        }
        let mut read = Self::default();
        let mut rest = SliceReader::new(set.value()).ok()?;
        while !rest.is_finished() {
            let Attribute { kind, values } = Attribute::decode(&mut rest).ok()?;
            if values.tag() != Tag::Set {
                return None;
            }
            // One value each.
            let value = AnyRef::from_der(values.value()).ok()?;
            match (kind, value.tag()) {
                (FRIENDLY_NAME, Tag::BmpString) => read.friendly_name = Some(value.value()),
                (LOCAL_KEY_ID, Tag::OctetString) => read.local_key_id = Some(value.value()),
                (TRUSTED_FOR, _) => read.trusted = value.decode_as() == Ok(ANYTHING),
                _ => return None,
            }
        }
        Some(read)
    }
}

fn octets(string: &OctetStringRef) -> &[u8] {
    string.as_bytes()
}

fn certificate(der: &CertificateDer<'_>) -> Result<Certificate, FormatError> {
    Certificate::from_der(der).map_err(failed)
}

#[cfg(test)]
mod tests;
