//! Descriptions of certificates.

use crate::fixtures::{DAY, NINETY_DAYS, Stored, authority, now, request};
use jiff::Timestamp;
use pki_certs::describe::{certificates, check_chain, key_matches};
use pki_certs::{KeyAlgorithm, LeafRequest, Usage, VerifyError};

#[test]
fn a_certificate_is_described_as_it_was_asked_for() {
    let authority = authority();
    let leaf = authority.issue(&request(), now()).unwrap();
    let described = certificates(leaf.chain_pem.as_bytes()).unwrap();
    let [leaf_description] = &described[..] else {
        panic!("{described:?}")
    };
    assert_eq!(leaf_description.subject, "CN=app1");
    assert!(leaf_description.issuer.starts_with("CN=Example CA"));
    assert_eq!(leaf_description.names.len(), 5);
    assert!(leaf_description.names.contains(&"2001:db8::1".to_owned()));
    assert_eq!(leaf_description.key, "ECDSA P-256");
    let usages = ["server authentication", "client authentication"];
    assert_eq!(leaf_description.usages, usages);
    assert!(!leaf_description.is_ca);
    assert_eq!(leaf_description.not_after, now() + NINETY_DAYS);
    assert_eq!(
        leaf_description.serial,
        Stored::new(&leaf)
            .verify(&request(), &authority, now())
            .unwrap()
            .serial
    );

    let root = certificates(authority.ca().root_pem().as_bytes())
        .unwrap()
        .remove(0);
    assert!(root.is_ca && root.usages.is_empty() && root.names.is_empty());
    assert_eq!(root.fingerprint, authority.ca().fingerprint());
}

#[test]
fn the_kind_of_every_key_that_is_offered_is_named() {
    let authority = authority();
    for key in [
        KeyAlgorithm::EcdsaP256,
        KeyAlgorithm::EcdsaP384,
        KeyAlgorithm::Rsa2048,
        KeyAlgorithm::Ed25519,
    ] {
        let request = LeafRequest { key, ..request() };
        let stored = Stored::issued(&authority, &request);
        let described = certificates(&stored.certificate).unwrap();
        assert_eq!(described[0].key, key.to_string());
    }
}

#[test]
fn a_chain_is_accepted_by_clients_of_its_root_while_it_is_valid() {
    let (own, other) = (authority(), authority());
    let stored = Stored::issued(&own, &request());
    let check = |roots: &str, at: Timestamp| check_chain(&stored.certificate, roots.as_bytes(), at);
    assert_eq!(check(own.ca().root_pem(), now()), Ok(()));
    assert_eq!(
        check(other.ca().root_pem(), now()),
        Err(VerifyError::OtherIssuer)
    );
    assert_eq!(check("", now()), Err(VerifyError::OtherIssuer));
    let both = format!("{}{}", other.ca().root_pem(), own.ca().root_pem());
    assert_eq!(check(&both, now()), Ok(()));
    assert!(matches!(
        check(&both, now() + NINETY_DAYS + DAY),
        Err(VerifyError::Expired { .. })
    ));
    assert!(matches!(
        check(&both, now() - DAY),
        Err(VerifyError::NotYetValid { .. })
    ));
    let root = own.ca().root_pem().as_bytes();
    assert_eq!(check_chain(root, root, now()), Ok(()));
    assert_eq!(
        check_chain(b"", root, now()),
        Err(VerifyError::CertificateUnreadable)
    );
}

#[test]
fn a_leaf_vouches_for_nobody_not_even_for_itself() {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["app1.example.com".to_owned()]).unwrap();
    let leaf = params.self_signed(&key).unwrap().pem();
    let file = format!("{leaf}{}", authority().ca().root_pem());
    let verdict = check_chain(file.as_bytes(), file.as_bytes(), now());
    assert!(verdict.is_err(), "{verdict:?}");
}

#[test]
fn a_certificate_for_clients_alone_is_checked_as_one() {
    let authority = authority();
    let request = LeafRequest {
        usages: vec![Usage::ClientAuth],
        ..request()
    };
    let stored = Stored::issued(&authority, &request);
    let root = authority.ca().root_pem().as_bytes();
    assert_eq!(check_chain(&stored.certificate, root, now()), Ok(()));
}

#[test]
fn a_key_matches_its_own_certificate_and_no_other() {
    let authority = authority();
    let (one, other) = (
        Stored::issued(&authority, &request()),
        Stored::issued(&authority, &request()),
    );
    assert_eq!(key_matches(&one.certificate, &one.private_key), Some(true));
    assert_eq!(
        key_matches(&one.certificate, &other.private_key),
        Some(false)
    );
    assert_eq!(key_matches(&one.certificate, b"no key"), None);
    assert_eq!(key_matches(b"", &one.private_key), None);
}

#[test]
fn damaged_certificates_are_not_described() {
    assert_eq!(certificates(b"nothing").map(|found| found.len()), Some(0));
    let torn = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    assert_eq!(certificates(torn.as_bytes()), None);
}
