//! PKCS#12 ([RFC 7292]): `keystore.p12` and `truststore.p12`.
//!
//! A library writes them. It does not read them: what is stored may be the work of anyone with
//! access to the Secret, who knows the password too, and a file says itself what opening it costs.
//! The reader here takes nothing but what [`write`] makes. Of any file, it derives three keys at
//! most, each with [`ITERATIONS`], and what else it does grows with the size of the file alone,
//! which is bounded.
//!
//! [RFC 7292]: https://www.rfc-editor.org/rfc/rfc7292

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::digest::{self, Digest, SHA256};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{hmac, pbkdf2};
use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use der::{Decode, DecodeValue, FixedTag, Reader as _, Sequence, SliceReader, Tag, Tagged as _};
use p12_keystore::{
    Certificate, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey, PrivateKeyChain,
};
use pkcs8::AlgorithmIdentifierRef;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::{Entries, FormatError, failed};
use super::{MAX_SIZE, utf16};
use crate::encoding;

/// The count of OpenSSL 3, and a fifth of that of Java 17. A greater one would cost time at every
/// look and gain nothing: the same Secret holds the same private key unencrypted.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(2048).expect("not zero");

/// Of the key for the MAC, and of those for encryption.
const MAC_SALT_LEN: usize = 8;
const SALT_LEN: usize = 32;
const IV_LEN: usize = 16;
const KEY_LEN: usize = 32;
const SHA256_BLOCK_LEN: usize = 64;

const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ENCRYPTED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.6");
const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");
const PBKDF2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.12");
const AES_256_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42");
const HMAC_SHA256: AlgorithmIdentifierRef<'_> = AlgorithmIdentifierRef {
    oid: ObjectIdentifier::new_unwrap("1.2.840.113549.2.9"),
    parameters: Some(AnyRef::NULL),
};
const MAC_SHA256: AlgorithmIdentifierRef<'_> = AlgorithmIdentifierRef {
    oid: ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"),
    parameters: None,
};
const KEY_BAG: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.2");
const CERTIFICATE_BAG: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.3");
const X509: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.22.1");
const FRIENDLY_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.20");
const LOCAL_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.21");
/// Java's mark of those to trust, and for what.
const TRUSTED_FOR: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.113894.746875.1.1");
const ANYTHING: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");

pub(super) fn write(entries: &Entries<'_>, password: &str) -> Result<Vec<u8>, FormatError> {
    let mut store = KeyStore::new();
    match entries {
        Entries::Identity {
            alias,
            private_key,
            chain,
        } => {
            // Ties the key to its certificate; any bytes will do.
            let local_key_id = encoding::fingerprint(&chain[0]);
            let private_key = PrivateKey::from_der(private_key).map_err(failed)?;
            let chain = chain.iter().map(certificate);
            let chain: Vec<_> = chain.collect::<Result<_, _>>()?;
            let entry = PrivateKeyChain::new(local_key_id, private_key, chain);
            store.add_entry(alias, KeyStoreEntry::PrivateKeyChain(entry));
        }
        Entries::Trust(roots) => {
            for (alias, root) in roots {
                // Marked as trusted for every purpose, without which Java looks past it.
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

/// `None` if it cannot be opened.
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

/// What there is to know of a store without its password.
struct Sealed<'a> {
    /// What the MAC is of.
    authenticated: &'a [u8],
    mac_salt: [u8; MAC_SALT_LEN],
    mac: &'a [u8],
    certificates: Encrypted<'a>,
    key: Option<(Encrypted<'a>, Attributes<'a>)>,
}

impl<'a> Sealed<'a> {
    /// `None` unless it is as [`write`] makes it. Without a password, this can derive no key,
    /// whatever `stored` asks for.
    fn read(stored: &'a [u8]) -> Option<Self> {
        if stored.len() > MAX_SIZE {
            return None;
        }
        let Pfx {
            version,
            safes,
            mac,
        } = Pfx::from_der(stored).ok()?;
        if version != 3 || mac.digest.algorithm != MAC_SHA256 || mac.iterations != ITERATIONS.get()
        {
            return None;
        }
        let authenticated = octets(safes.read(DATA)?);
        let Safes { certificates, keys } = Safes::from_der(authenticated).ok()?;
        let EncryptedData {
            version: 0,
            content,
        } = certificates.read(ENCRYPTED_DATA)?
        else {
            return None;
        };
        if content.kind != DATA {
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

/// Under a key of PBKDF2 with HMAC-SHA-256 and [`ITERATIONS`], with AES-256-CBC.
struct Encrypted<'a> {
    salt: [u8; SALT_LEN],
    iv: [u8; IV_LEN],
    data: &'a [u8],
}

impl<'a> Encrypted<'a> {
    fn read(algorithm: AlgorithmIdentifierRef<'a>, data: &'a OctetStringRef) -> Option<Self> {
        let Pbes2 { derivation, cipher } = parameters(algorithm, PBES2)?;
        let Pbkdf2 {
            salt,
            iterations,
            function,
        } = parameters(derivation, PBKDF2)?;
        if iterations != ITERATIONS.get() || function != HMAC_SHA256 {
            return None;
        }
        let iv: &OctetStringRef = parameters(cipher, AES_256_CBC)?;
        Some(Self {
            salt: salt.try_into().ok()?,
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

/// By the derivation that PKCS#12 has of its own ([RFC 7292, B.2]), which is this simple for a key
/// as long as the digest.
///
/// [RFC 7292, B.2]: https://www.rfc-editor.org/rfc/rfc7292#appendix-B.2
fn mac_key(salt: [u8; MAC_SALT_LEN], password: &str) -> Digest {
    const FOR_MAC: u8 = 3;
    let mut password = utf16(password);
    // The NUL at the end of it.
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

/// `None` if there is anything else, such as a key, which would be encrypted as its writer likes.
fn certificates(safe: &[u8]) -> Option<Vec<Found<'_>>> {
    let bags: Vec<Bag<'_>> = Decode::from_der(safe).ok()?;
    let found = bags.into_iter().map(|bag| {
        let CertificateBag { kind, der } = bag.read(CERTIFICATE_BAG)?;
        let attributes = Attributes::read(bag.attributes)?;
        (kind == X509).then_some(Found {
            der: octets(der),
            attributes,
        })
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
    /// `None` if there are unknown ones.
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

/// `PFX`, with the MAC that the standard leaves out at will.
#[derive(Sequence)]
struct Pfx<'a> {
    version: u8,
    safes: ContentInfo<'a>,
    mac: MacData<'a>,
}

#[derive(Sequence)]
struct MacData<'a> {
    digest: DigestInfo<'a>,
    salt: &'a OctetStringRef,
    iterations: u32,
}

#[derive(Sequence)]
struct DigestInfo<'a> {
    algorithm: AlgorithmIdentifierRef<'a>,
    digest: &'a OctetStringRef,
}

/// `AuthenticatedSafe`, of as many as are written.
#[derive(Sequence)]
struct Safes<'a> {
    certificates: ContentInfo<'a>,
    keys: ContentInfo<'a>,
}

#[derive(Sequence)]
struct ContentInfo<'a> {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    content: AnyRef<'a>,
}

#[derive(Sequence)]
struct EncryptedData<'a> {
    version: u8,
    content: EncryptedContentInfo<'a>,
}

#[derive(Sequence)]
struct EncryptedContentInfo<'a> {
    kind: ObjectIdentifier,
    algorithm: AlgorithmIdentifierRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    data: &'a OctetStringRef,
}

#[derive(Sequence)]
struct EncryptedKey<'a> {
    algorithm: AlgorithmIdentifierRef<'a>,
    data: &'a OctetStringRef,
}

#[derive(Sequence)]
struct Pbes2<'a> {
    derivation: AlgorithmIdentifierRef<'a>,
    cipher: AlgorithmIdentifierRef<'a>,
}

#[derive(Sequence)]
struct Pbkdf2<'a> {
    salt: &'a OctetStringRef,
    iterations: u32,
    function: AlgorithmIdentifierRef<'a>,
}

#[derive(Sequence)]
struct Bag<'a> {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    value: AnyRef<'a>,
    attributes: AnyRef<'a>,
}

#[derive(Sequence)]
struct CertificateBag<'a> {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    der: &'a OctetStringRef,
}

#[derive(Sequence)]
struct Attribute<'a> {
    kind: ObjectIdentifier,
    values: AnyRef<'a>,
}

impl<'a> ContentInfo<'a> {
    fn read<T: DecodeValue<'a> + FixedTag + 'a>(&self, kind: ObjectIdentifier) -> Option<T> {
        read(self.kind == kind, self.content)
    }
}

impl<'a> Bag<'a> {
    fn read<T: DecodeValue<'a> + FixedTag + 'a>(&self, kind: ObjectIdentifier) -> Option<T> {
        read(self.kind == kind, self.value)
    }
}

fn parameters<'a, T: DecodeValue<'a> + FixedTag + 'a>(
    algorithm: AlgorithmIdentifierRef<'a>,
    oid: ObjectIdentifier,
) -> Option<T> {
    read(algorithm.oid == oid, algorithm.parameters?)
}

fn read<'a, T: DecodeValue<'a> + FixedTag + 'a>(is_it: bool, value: AnyRef<'a>) -> Option<T> {
    if is_it { value.decode_as().ok() } else { None }
}

fn octets(string: &OctetStringRef) -> &[u8] {
    string.as_bytes()
}

fn certificate(der: &CertificateDer<'_>) -> Result<Certificate, FormatError> {
    Certificate::from_der(der).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use aws_lc_rs::cipher::{EncryptionContext, PaddedBlockEncryptingKey};
    use der::Encode as _;
    use jiff::{SignedDuration, Timestamp};
    use proptest::prelude::*;

    use super::*;
    use crate::{Authority, Trust};

    const PASSWORD: &str = "changeit";
    const SALT: [u8; SALT_LEN] = [5; SALT_LEN];
    const IV: [u8; IV_LEN] = [7; IV_LEN];
    const HMAC_SHA512: AlgorithmIdentifierRef<'_> = AlgorithmIdentifierRef {
        oid: ObjectIdentifier::new_unwrap("1.2.840.113549.2.11"),
        parameters: Some(AnyRef::NULL),
    };
    const SHA512: AlgorithmIdentifierRef<'_> = AlgorithmIdentifierRef {
        oid: ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"),
        parameters: None,
    };
    const SCRYPT: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.11591.4.11");
    const ONE_GIB: u64 = 1 << 20;

    #[test]
    fn what_is_put_together_as_it_was_holds() {
        let (original, entries) = identity();
        assert!(holds(&original, &entries, PASSWORD));
        let anew = Change::default().of(&original);
        assert!(holds(&anew, &entries, PASSWORD));
        let safe = plain(&original);
        let anew = Change::certificates(&safe).of(&original);
        assert!(holds(&anew, &entries, PASSWORD));
    }

    #[test]
    fn what_is_not_as_written_is_refused_before_there_is_a_password() {
        let (original, entries) = identity();
        let million = 1_000_000;
        let count = ITERATIONS.get();
        let pbes2_of = |iterations, salt: &[u8], function| {
            let salt = OctetStringRef::new(salt).unwrap();
            let of = Pbkdf2 {
                salt,
                iterations,
                function,
            };
            pbes2(PBKDF2, &of.to_der().unwrap())
        };
        let algorithms = [
            scrypt(ONE_GIB, 8, 16),
            scrypt(2, 1, 1),
            pbes2_of(million, &SALT, HMAC_SHA256),
            pbes2_of(count + 1, &SALT, HMAC_SHA256),
            pbes2_of(count - 1, &SALT, HMAC_SHA256),
            pbes2_of(count, &SALT, HMAC_SHA512),
            pbes2_of(count, &[5; 1000], HMAC_SHA256),
        ];
        let mut changes = vec![];
        for algorithm in algorithms {
            changes.push(Change {
                certificates: Some((algorithm.clone(), vec![0; 32])),
                ..Change::default()
            });
            changes.push(Change {
                key: Some(algorithm),
                ..Change::default()
            });
        }
        let macs = [
            None,
            Some((MAC_SHA256, million)),
            Some((MAC_SHA256, count + 1)),
            Some((SHA512, count)),
        ];
        changes.extend(macs.map(|mac| Change {
            mac,
            ..Change::default()
        }));
        changes.extend([0, 2, 1000].map(|safes_of_keys| Change {
            safes_of_keys,
            ..Change::default()
        }));
        changes.extend([2, 1000].map(|keys| Change {
            keys,
            ..Change::default()
        }));
        for (index, change) in changes.iter().enumerate() {
            let store = change.of(&original);
            assert!(Sealed::read(&store).is_none(), "{index}");
            assert!(!holds(&store, &entries, PASSWORD), "{index}");
        }
    }

    #[test]
    fn a_store_above_what_a_secret_holds_is_refused_before_there_is_a_password() {
        let (original, entries) = identity();
        for (size, read) in [(MAX_SIZE / 2, true), (MAX_SIZE, false), (10 << 20, false)] {
            let change = Change {
                certificates: Some((as_written(), vec![0; size])),
                ..Change::default()
            };
            let store = change.of(&original);
            assert_eq!(Sealed::read(&store).is_some(), read);
            assert!(!holds(&store, &entries, PASSWORD));
        }
    }

    /// With the right MAC: the password is no secret to who reads the Secret.
    #[test]
    fn a_key_among_the_certificates_is_not_opened() {
        let (original, entries) = identity();
        let safe = plain(&original);
        let mut bags: Vec<Bag<'_>> = Decode::from_der(&safe).unwrap();
        let algorithm = scrypt(ONE_GIB, 8, 16);
        let key = EncryptedKey {
            algorithm: Decode::from_der(&algorithm).unwrap(),
            data: OctetStringRef::new(&[0; 32]).unwrap(),
        };
        let key = key.to_der().unwrap();
        bags.push(Bag {
            kind: KEY_BAG,
            value: AnyRef::from_der(&key).unwrap(),
            attributes: bags[0].attributes,
        });
        let safe = bags.to_der().unwrap();
        assert!(certificates(&safe).is_none());
        let store = Change::certificates(&safe).of(&original);
        assert!(Sealed::read(&store).unwrap().is_authentic(PASSWORD));
        assert!(!holds(&store, &entries, PASSWORD));
    }

    #[test]
    fn certificates_of_another_order_or_number_do_not_hold() {
        let roots: Vec<_> = (0..2).map(|_| authority()).collect();
        let trust = Trust::of(roots.iter().map(Authority::ca));
        let entries = Entries::trust(&trust).unwrap();
        let original = write(&entries, PASSWORD).unwrap();
        let safe = plain(&original);
        let bags = || Vec::<Bag<'_>>::from_der(&safe).unwrap();
        let (mut more, mut fewer, mut swapped) = (bags(), bags(), bags());
        more.extend(bags());
        fewer.pop();
        swapped.reverse();
        let empty = vec![];
        for (bags, expected) in [
            (bags(), true),
            (more, false),
            (fewer, false),
            (swapped, false),
            (empty, false),
        ] {
            let change = Change {
                keys: 0,
                ..Change::certificates(&bags.to_der().unwrap())
            };
            let store = change.of(&original);
            assert!(Sealed::read(&store).unwrap().is_authentic(PASSWORD));
            assert_eq!(holds(&store, &entries, PASSWORD), expected);
        }
    }

    #[test]
    fn an_empty_password_opens_nothing() {
        let (original, entries) = identity();
        assert!(!holds(&original, &entries, ""));
        let sealed = Sealed::read(&original).unwrap();
        let opened = sealed.certificates.open("");
        assert_ne!(opened, sealed.certificates.open(PASSWORD));
    }

    proptest! {
        /// As whoever knows the password may have put there.
        #[test]
        fn any_safe_is_read_without_panic(
            index: prop::sample::Index,
            bits in 1..=u8::MAX,
            arbitrary: Vec<u8>,
        ) {
            let (original, plain) = &*WRITTEN;
            let mut store = original.clone();
            store[index.index(original.len())] ^= bits;
            let _ = Sealed::read(&store);
            let mut safe = plain.clone();
            safe[index.index(plain.len())] ^= bits;
            let _ = certificates(&safe);
            let _ = certificates(&arbitrary);
            let set = AnyRef::new(Tag::Set, &arbitrary).unwrap();
            let _ = Attributes::read(set);
        }
    }

    /// And its certificates, decrypted.
    static WRITTEN: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
        let (original, _) = identity();
        let plain = plain(&original).to_vec();
        (original, plain)
    });

    /// How a store differs from the one it is made of, by someone who knows the password.
    struct Change<'a> {
        /// Algorithm and data.
        certificates: Option<(Vec<u8>, Vec<u8>)>,
        /// Algorithm.
        key: Option<Vec<u8>>,
        keys: usize,
        safes_of_keys: usize,
        mac: Option<(AlgorithmIdentifierRef<'a>, u32)>,
    }

    impl Default for Change<'_> {
        fn default() -> Self {
            Self {
                certificates: None,
                key: None,
                keys: 1,
                safes_of_keys: 1,
                mac: Some((MAC_SHA256, ITERATIONS.get())),
            }
        }
    }

    impl Change<'_> {
        fn certificates(safe: &[u8]) -> Self {
            let key = encryption_key(&SALT, PASSWORD).unwrap();
            let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).unwrap();
            let mut data = safe.to_vec();
            let iv = EncryptionContext::Iv128(FixedLength::from(IV));
            key.less_safe_encrypt(&mut data, iv).unwrap();
            Self {
                certificates: Some((as_written(), data)),
                ..Self::default()
            }
        }

        fn of(&self, original: &[u8]) -> Vec<u8> {
            let pfx = Pfx::from_der(original).unwrap();
            let safes = octets(pfx.safes.read(DATA).unwrap());
            let safes = Safes::from_der(safes).unwrap();

            let mut certificates: EncryptedData<'_> =
                safes.certificates.read(ENCRYPTED_DATA).unwrap();
            if let Some((algorithm, data)) = &self.certificates {
                certificates.content.algorithm = Decode::from_der(algorithm).unwrap();
                certificates.content.data = OctetStringRef::new(data).unwrap();
            }
            let certificates = certificates.to_der().unwrap();

            let bags = octets(safes.keys.read(DATA).unwrap());
            let bags: Vec<Bag<'_>> = Decode::from_der(bags).unwrap();
            let key = bags.first().map(|bag| {
                let mut key: EncryptedKey<'_> = bag.read(KEY_BAG).unwrap();
                if let Some(algorithm) = &self.key {
                    key.algorithm = Decode::from_der(algorithm).unwrap();
                }
                key.to_der().unwrap()
            });
            let keys: Vec<_> = (0..self.keys)
                .map(|_| Bag {
                    kind: KEY_BAG,
                    value: AnyRef::from_der(key.as_deref().unwrap()).unwrap(),
                    attributes: bags[0].attributes,
                })
                .collect();
            let keys = keys.to_der().unwrap();

            let mut safes = vec![ContentInfo {
                kind: ENCRYPTED_DATA,
                content: AnyRef::from_der(&certificates).unwrap(),
            }];
            safes.extend((0..self.safes_of_keys).map(|_| data(&keys)));
            let authenticated = safes.to_der().unwrap();

            let version = 3;
            let safes = data(&authenticated);
            let Some((algorithm, iterations)) = self.mac else {
                return Bare { version, safes }.to_der().unwrap();
            };
            let key = mac_key(pfx.mac.salt.try_into().unwrap(), PASSWORD);
            let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_ref());
            let tag = hmac::sign(&key, &authenticated);
            let digest = OctetStringRef::new(tag.as_ref()).unwrap();
            let mac = MacData {
                digest: DigestInfo { algorithm, digest },
                salt: pfx.mac.salt,
                iterations,
            };
            let pfx = Pfx {
                version,
                safes,
                mac,
            };
            pfx.to_der().unwrap()
        }
    }

    /// A store without MAC.
    #[derive(Sequence)]
    struct Bare<'a> {
        version: u8,
        safes: ContentInfo<'a>,
    }

    #[derive(Sequence)]
    struct Scrypt<'a> {
        salt: &'a OctetStringRef,
        cost: u64,
        block_size: u16,
        parallelization: u16,
    }

    fn data(content: &[u8]) -> ContentInfo<'_> {
        ContentInfo {
            kind: DATA,
            content: OctetStringRef::new(content).unwrap().into(),
        }
    }

    fn as_written() -> Vec<u8> {
        let of = Pbkdf2 {
            salt: OctetStringRef::new(&SALT).unwrap(),
            iterations: ITERATIONS.get(),
            function: HMAC_SHA256,
        };
        pbes2(PBKDF2, &of.to_der().unwrap())
    }

    fn scrypt(cost: u64, block_size: u16, parallelization: u16) -> Vec<u8> {
        let of = Scrypt {
            salt: OctetStringRef::new(&SALT).unwrap(),
            cost,
            block_size,
            parallelization,
        };
        pbes2(SCRYPT, &of.to_der().unwrap())
    }

    fn pbes2(derivation: ObjectIdentifier, of: &[u8]) -> Vec<u8> {
        let pbes2 = Pbes2 {
            derivation: AlgorithmIdentifierRef {
                oid: derivation,
                parameters: Some(AnyRef::from_der(of).unwrap()),
            },
            cipher: AlgorithmIdentifierRef {
                oid: AES_256_CBC,
                parameters: Some(OctetStringRef::new(&IV).unwrap().into()),
            },
        };
        let pbes2 = pbes2.to_der().unwrap();
        let algorithm = AlgorithmIdentifierRef {
            oid: PBES2,
            parameters: Some(AnyRef::from_der(&pbes2).unwrap()),
        };
        algorithm.to_der().unwrap()
    }

    fn plain(store: &[u8]) -> Zeroizing<Vec<u8>> {
        let sealed = Sealed::read(store).unwrap();
        sealed.certificates.open(PASSWORD).unwrap()
    }

    /// That of an authority will do: neither the key nor the certificate is looked into.
    fn identity() -> (Vec<u8>, Entries<'static>) {
        let authority = authority();
        let private_key = crate::formats::pkcs8(authority.private_key_pem().as_bytes()).unwrap();
        let chain = encoding::only_certificates(authority.ca().root_pem().as_bytes()).unwrap();
        let entries = Entries::Identity {
            alias: "app1",
            private_key,
            chain,
        };
        (write(&entries, PASSWORD).unwrap(), entries)
    }

    fn authority() -> Authority {
        let life = SignedDuration::from_hours(87_600);
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        Authority::generate("Example CA", life, now).unwrap()
    }
}
