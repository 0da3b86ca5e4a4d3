//! Tests of the reader of PKCS#12.

use std::sync::LazyLock;

use aws_lc_rs::cipher::{EncryptionContext, PaddedBlockEncryptingKey};
use der::{Encode as _, Sequence};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::asn1::{ContentInfo, DigestInfo, MacData};
use super::*;
use crate::{Authority, Trust};

const PASSWORD: &str = "changeit";
const SALT: [u8; SALT_LEN] = [5; SALT_LEN];
const IV: [u8; IV_LEN] = [7; IV_LEN];
const HMAC_SHA512: AlgorithmIdentifierRef<'_> =
    algorithm("1.2.840.113549.2.11", Some(AnyRef::NULL));
const SHA512: AlgorithmIdentifierRef<'_> = algorithm("2.16.840.1.101.3.4.2.3", None);
const SCRYPT: ObjectIdentifier = oid("1.3.6.1.4.1.11591.4.11");
const ONE_GIB: u64 = 1 << 20;

#[test]
fn a_store_that_is_put_together_again_holds() {
    let (original, entries) = identity();
    assert!(holds(&original, &entries, PASSWORD));
    let anew = Change::default().of(&original);
    assert!(holds(&anew, &entries, PASSWORD));
    let safe = plain(&original);
    let anew = Change::certificates(&safe).of(&original);
    assert!(holds(&anew, &entries, PASSWORD));
}

#[test]
fn another_structure_is_refused_before_there_is_a_password() {
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

/// With the right MAC: anyone who reads the Secret knows the password.
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
    /// Anyone who knows the password may have stored it.
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

/// A store and its certificates, decrypted.
static WRITTEN: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let (original, _) = identity();
    let plain = plain(&original).to_vec();
    (original, plain)
});

/// The difference between a store and its original, made with the password.
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

        let mut certificates: EncryptedData<'_> = safes.certificates.read(ENCRYPTED_DATA).unwrap();
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

/// Key and certificate of an authority: the reader does not parse them.
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
