//! Other formats of what was issued, held against the request to write them.

use std::sync::LazyLock;

use p12_keystore::{
    Certificate, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey, PrivateKeyChain,
};
use pki_certs::formats::{
    FormatError, KeystoreKind, combined_pem, key_der, keystore, keystore_holds, truststore,
    truststore_holds,
};
use pki_certs::{Authority, Bundle, KeyAlgorithm, KeyEncoding, Leaf, LeafRequest, Trust};
use proptest::prelude::*;

use crate::fixtures::{Path, authority, now, request};

pub(crate) const PASSWORD: &str = "change it: ~!\"$%&";
const ALIAS: &str = "App1";
pub(crate) const KINDS: [KeystoreKind; 2] = [KeystoreKind::Pkcs12, KeystoreKind::Jks];
pub(crate) const KEYS: [KeyAlgorithm; 4] = [
    KeyAlgorithm::EcdsaP256,
    KeyAlgorithm::EcdsaP384,
    KeyAlgorithm::Rsa2048,
    KeyAlgorithm::Ed25519,
];

#[test]
fn a_store_holds_what_was_written() {
    for kind in KINDS {
        for key in KEYS {
            let leaf = leaf(key);
            assert!(holds(kind, &store(kind, &leaf), &leaf), "{kind:?} {key}");
        }
        let authorities: Vec<_> = (0..12).map(|_| authority()).collect();
        let trust = Trust::of(authorities.iter().map(Authority::ca));
        let store = truststore(kind, &trust, PASSWORD).unwrap();
        assert!(truststore_holds(kind, &store, &trust, PASSWORD));
    }
}

#[test]
fn a_store_of_something_else_does_not_hold() {
    let (one, other) = (leaf(KeyAlgorithm::EcdsaP256), leaf(KeyAlgorithm::EcdsaP256));
    let (own, _) = one
        .chain_pem
        .split_at(one.chain_pem.rfind("-----BEGIN").unwrap());
    let with_certificate = |certificate| Bundle {
        certificate,
        ..bundle(&one)
    };
    let bundles = [
        bundle(&one),
        bundle(&other),
        with_certificate(other.chain_pem.as_bytes()),
        with_certificate(own.as_bytes()),
    ];
    let (first, second) = (authority(), authority());
    let trusts = [
        Trust::of([first.ca()]),
        Trust::of([second.ca()]),
        Trust::of([first.ca(), second.ca()]),
        Trust::of([second.ca(), first.ca()]),
    ];
    for kind in KINDS {
        for (index, (written, trusted)) in bundles.iter().zip(&trusts).enumerate() {
            let key_store = keystore(kind, written, ALIAS, PASSWORD).unwrap();
            let trust_store = truststore(kind, trusted, PASSWORD).unwrap();
            for (other, (bundle, trust)) in bundles.iter().zip(&trusts).enumerate() {
                let same = index == other;
                assert_eq!(keystore_holds(kind, &key_store, bundle, PASSWORD), same);
                assert_eq!(truststore_holds(kind, &trust_store, trust, PASSWORD), same);
                assert!(!keystore_holds(kind, &trust_store, bundle, PASSWORD));
                assert!(!truststore_holds(kind, &key_store, trust, PASSWORD));
            }
        }
    }
}

#[test]
fn a_store_of_another_kind_or_password_does_not_hold() {
    let leaf = leaf(KeyAlgorithm::EcdsaP256);
    let trust = trust();
    for (kind, other) in [(KINDS[0], KINDS[1]), (KINDS[1], KINDS[0])] {
        let key_store = store(kind, &leaf);
        let trust_store = truststore(kind, &trust, PASSWORD).unwrap();
        assert!(!holds(other, &key_store, &leaf));
        assert!(!truststore_holds(other, &trust_store, &trust, PASSWORD));
        for wrong in ["", "changeit", "change it: ~!\"$%", "pässword", "🔑"] {
            assert!(!keystore_holds(kind, &key_store, &bundle(&leaf), wrong));
            assert!(!truststore_holds(kind, &trust_store, &trust, wrong));
        }
    }
}

/// What a PKCS#12 file asks for is in its header; see there for all that is refused.
#[test]
fn a_pkcs12_store_with_other_parameters_does_not_hold() {
    // Its key is in PKCS#8, whatever is asked for.
    let leaf = leaf(KeyAlgorithm::Ed25519);
    let key = PrivateKey::from_der(&key_der(&bundle(&leaf)).unwrap()).unwrap();
    let certificates = pem::parse_many(&leaf.chain_pem).unwrap();
    let chain = certificates
        .iter()
        .map(|pem| Certificate::from_der(pem.contents()).unwrap());
    let entry = PrivateKeyChain::new("id", key, chain.collect::<Vec<_>>());
    let mut store = KeyStore::new();
    store.add_entry("other", KeyStoreEntry::PrivateKeyChain(entry));
    for (encryption, mac, algorithm, expected) in [
        (2048, 2048, MacAlgorithm::HmacSha256, true),
        (10_000, 2048, MacAlgorithm::HmacSha256, false),
        (1, 2048, MacAlgorithm::HmacSha256, false),
        (2048, 10_000, MacAlgorithm::HmacSha256, false),
        (2048, 1, MacAlgorithm::HmacSha256, false),
        (2048, 2048, MacAlgorithm::HmacSha1, false),
    ] {
        let writer = store.writer(PASSWORD).encryption_iterations(encryption);
        let writer = writer.mac_iterations(mac).mac_algorithm(algorithm);
        let written = writer.write().unwrap();
        assert_eq!(holds(KeystoreKind::Pkcs12, &written, &leaf), expected);
    }
}

#[test]
fn a_store_that_cannot_be_written_is_refused_with_its_reason() {
    let leaf = leaf(KeyAlgorithm::EcdsaP256);
    let sound = bundle(&leaf);
    let with_key = |private_key| Bundle {
        private_key,
        ..sound
    };
    let with_certificate = |certificate| Bundle {
        certificate,
        ..sound
    };
    let no_key = "the private key for the keystore is not readable".to_owned();
    let no_chain = "the certificates for the keystore are not readable".to_owned();
    let bad_alias = |alias: &str| {
        format!(
            "the alias {alias:?} of the keystore entry is empty, longer than 255 characters or \
             not printable ASCII; choose another"
        )
    };
    let long = "a".repeat(256);
    for kind in KINDS {
        for (bundle, alias, sentence) in [
            (with_key(b"no PEM"), ALIAS, no_key.clone()),
            (with_certificate(b""), ALIAS, no_chain.clone()),
            (with_certificate(b"no PEM"), ALIAS, no_chain.clone()),
            (sound, "", bad_alias("")),
            (sound, "ä", bad_alias("ä")),
            (sound, &long, bad_alias(&long)),
        ] {
            let error = keystore(kind, &bundle, alias, PASSWORD).unwrap_err();
            assert_eq!(error.to_string(), sentence);
        }
        let error = truststore(kind, &Trust::of([]), PASSWORD).unwrap_err();
        let sentence = "there is no root to put into the truststore";
        assert_eq!(error.to_string(), sentence);
    }
}

#[test]
fn a_password_that_readers_do_not_take_is_refused() {
    let trust = trust();
    for (kind, shortest) in [(KeystoreKind::Pkcs12, "p"), (KeystoreKind::Jks, "change")] {
        for password in ["pässword", "pass\nword", "pass\tword"] {
            let error = truststore(kind, &trust, password).unwrap_err();
            let sentence = "the keystore password is not printable ASCII; programs read other characters differently";
            assert_eq!(error.to_string(), sentence);
        }
        let least = shortest.len();
        let error = truststore(kind, &trust, &shortest[1..]).unwrap_err();
        assert_eq!(error, FormatError::PasswordTooShort(least));
        let sentence = format!(
            "the keystore password is too short: choose one of at least {least} characters"
        );
        assert_eq!(error.to_string(), sentence);
        assert!(truststore(kind, &trust, shortest).is_ok());
    }
}

#[test]
fn combined_is_the_key_and_then_the_chain() {
    let leaf = leaf(KeyAlgorithm::EcdsaP256);
    let key = leaf.private_key_pem.as_str();
    let expected = format!("{key}{}", leaf.chain_pem);
    for key in [key, key.trim_end()] {
        let combined = combined_pem(&Bundle {
            private_key: key.as_bytes(),
            ..bundle(&leaf)
        });
        assert_eq!(*combined, expected.as_bytes());
    }
}

#[test]
fn a_key_without_pem_is_what_was_in_it() {
    let leaf = leaf(KeyAlgorithm::EcdsaP256);
    let der = key_der(&bundle(&leaf)).unwrap();
    let in_pem = pem::parse(leaf.private_key_pem.as_str()).unwrap();
    assert_eq!(*der, in_pem.contents());
    let nothing = Bundle {
        private_key: b"no PEM",
        ..bundle(&leaf)
    };
    assert!(key_der(&nothing).is_none());
}

proptest! {
    #[test]
    fn a_mutated_store_does_not_hold(index: prop::sample::Index, bits in 1..=u8::MAX) {
        let (leaf, stores) = &*WRITTEN;
        for (kind, store) in KINDS.into_iter().zip(stores) {
            let mut mutated = store.clone();
            mutated[index.index(store.len())] ^= bits;
            prop_assert!(!holds(kind, &mutated, leaf));
        }
    }

    #[test]
    fn a_torn_store_does_not_hold(index: prop::sample::Index) {
        let (leaf, stores) = &*WRITTEN;
        for (kind, store) in KINDS.into_iter().zip(stores) {
            prop_assert!(!holds(kind, &store[..index.index(store.len())], leaf));
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_hold(store: Vec<u8>, password in ".{0,8}") {
        let (leaf, _) = &*WRITTEN;
        for kind in KINDS {
            prop_assert!(!keystore_holds(kind, &store, &bundle(leaf), &password));
        }
    }
}

/// Making one for each case would take most of the time.
static WRITTEN: LazyLock<(Leaf, [Vec<u8>; 2])> = LazyLock::new(|| {
    let leaf = leaf(KeyAlgorithm::EcdsaP256);
    let stores = KINDS.map(|kind| store(kind, &leaf));
    (leaf, stores)
});

/// Below an intermediate authority, and with a key that is not in PKCS#8, if it can be otherwise.
pub(crate) fn leaf(key: KeyAlgorithm) -> Leaf {
    let request = LeafRequest {
        key,
        key_encoding: KeyEncoding::Traditional,
        ..request()
    };
    let authority = Path::of(1, |_, _| ()).read().unwrap();
    authority.issue(&request, now()).unwrap()
}

pub(crate) fn bundle(leaf: &Leaf) -> Bundle<'_> {
    Bundle {
        certificate: leaf.chain_pem.as_bytes(),
        private_key: leaf.private_key_pem.as_bytes(),
    }
}

pub(crate) fn store(kind: KeystoreKind, leaf: &Leaf) -> Vec<u8> {
    keystore(kind, &bundle(leaf), ALIAS, PASSWORD).unwrap()
}

pub(crate) fn holds(kind: KeystoreKind, stored: &[u8], leaf: &Leaf) -> bool {
    keystore_holds(kind, stored, &bundle(leaf), PASSWORD)
}

fn trust() -> Trust {
    let (one, other) = (authority(), authority());
    Trust::of([one.ca(), other.ca()])
}
