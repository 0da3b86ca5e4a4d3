//! Certificates for keys that somebody else keeps.

use jiff::SignedDuration;
use pki_certs::{CsrError, IssueError, KeyAlgorithm, LeafRequest, PublicKey, VerifyError};
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData as _, RsaKeySize};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::fixtures::{Path, TEN_YEARS, authority, der, now, request};

/// A request as a kubelet makes it: empty but for the key.
fn csr(key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.serialize_request(key).unwrap().der().to_vec()
}

fn keys() -> Vec<(KeyAlgorithm, KeyPair)> {
    let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
    let of = |algorithm| KeyPair::generate_for(algorithm).unwrap();
    vec![
        (KeyAlgorithm::EcdsaP256, of(&rcgen::PKCS_ECDSA_P256_SHA256)),
        (KeyAlgorithm::EcdsaP384, of(&rcgen::PKCS_ECDSA_P384_SHA384)),
        (KeyAlgorithm::Ed25519, of(&rcgen::PKCS_ED25519)),
        (KeyAlgorithm::Rsa3072, rsa(RsaKeySize::_3072)),
        (KeyAlgorithm::Rsa4096, rsa(RsaKeySize::_4096)),
    ]
}

#[test]
fn the_key_of_a_request_is_certified_for_the_names_asked_for() {
    let below = Path::of(2, |_, _| {}).read().unwrap();
    let root = authority();
    for (algorithm, pair) in keys() {
        let key = PublicKey::from_csr(&csr(&pair)).unwrap();
        assert_eq!(key.algorithm(), algorithm);
        let request = LeafRequest {
            key: algorithm,
            ..request()
        };
        for authority in [&root, &below] {
            let certified = authority.certify(&request, &key, now()).unwrap();
            let leaf = der(&certified.chain_pem);
            let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
            assert_eq!(leaf.public_key().raw, pair.subject_public_key_info());
            assert_eq!(certified.verified.issuer, authority.ca().fingerprint());
            let private = pair.serialize_pem();
            let bundle = pki_certs::Bundle {
                certificate: certified.chain_pem.as_bytes(),
                private_key: private.as_bytes(),
            };
            let issuers = [authority.ca()];
            assert_eq!(pki_certs::recognize(&bundle, &request, &issuers), Ok(()));
        }
    }
}

#[test]
fn nothing_of_a_request_but_its_key_counts() {
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["victim.svc".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "victim");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let greedy = params.serialize_request(&pair).unwrap();
    let key = PublicKey::from_csr(greedy.der()).unwrap();
    let certified = authority().certify(&request(), &key, now()).unwrap();
    let leaf = der(&certified.chain_pem);
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    assert!(!leaf.is_ca());
    let text = format!("{leaf:?}");
    assert!(text.contains("app1.team-a.svc") && !text.contains("victim"));
}

#[test]
fn a_certificate_begins_and_ends_as_asked() {
    let key = PublicKey::from_csr(&csr(&KeyPair::generate().unwrap())).unwrap();
    let [backdating, duration] = [2, 58].map(SignedDuration::from_mins);
    let request = LeafRequest {
        backdating,
        duration,
        ..request()
    };
    let verified = authority().certify(&request, &key, now()).unwrap().verified;
    assert_eq!(verified.not_before, now() - backdating);
    assert_eq!(verified.not_after, now() + duration);
    assert!(!verified.cut_short);
    let eternal = LeafRequest {
        duration: TEN_YEARS * 2,
        ..request
    };
    let authority = authority();
    let verified = authority.certify(&eternal, &key, now()).unwrap().verified;
    assert_eq!(verified.not_after, authority.ca().not_after());
    assert!(verified.cut_short);
}

#[test]
fn a_key_of_another_kind_than_asked_for_is_refused() {
    let key = PublicKey::from_csr(&csr(&KeyPair::generate().unwrap())).unwrap();
    let request = LeafRequest {
        key: KeyAlgorithm::EcdsaP384,
        ..request()
    };
    let refused = authority().certify(&request, &key, now()).unwrap_err();
    let fault = VerifyError::KeyAlgorithm(KeyAlgorithm::EcdsaP384);
    assert_eq!(refused, IssueError::Unusable(fault));
}

#[test]
fn other_kinds_of_keys_are_refused_with_those_there_are() {
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let known = PublicKey::from_csr(&csr(&rsa)).unwrap();
    assert_eq!(known.algorithm(), KeyAlgorithm::Rsa2048);
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let refused = PublicKey::from_csr(&csr(&p521)).unwrap_err();
    assert_eq!(refused, CsrError::KeyAlgorithm);
    assert_eq!(
        refused.to_string(),
        "the key is none of ECDSA P-256, ECDSA P-384, RSA 2048, RSA 3072, RSA 4096, Ed25519"
    );
}

#[test]
fn bytes_that_are_no_request_are_refused() {
    let good = csr(&KeyPair::generate().unwrap());
    let longer = [&good[..], &[0]].concat();
    for bytes in [&[][..], b"text", &good[..good.len() - 1], &longer] {
        let refused = PublicKey::from_csr(bytes).unwrap_err();
        assert_eq!(refused, CsrError::Unreadable, "{bytes:?}");
    }
}

#[test]
fn a_request_that_another_key_signed_is_refused() {
    let [own, other] = [(); 2].map(|()| KeyPair::generate().unwrap());
    let mut mixed = csr(&own);
    let mut parts = mixed.windows(own.public_key_raw().len());
    let place = parts.position(|part| part == own.public_key_raw()).unwrap();
    mixed[place..place + own.public_key_raw().len()].copy_from_slice(other.public_key_raw());
    let refused = PublicKey::from_csr(&mixed).unwrap_err();
    assert_eq!(refused, CsrError::Signature);
}

#[test]
fn no_changed_byte_of_a_request_is_certified_for_another_key() {
    let pair = KeyPair::generate().unwrap();
    let good = csr(&pair);
    for place in 0..good.len() {
        let mut bad = good.clone();
        bad[place] ^= 1;
        if let Ok(key) = PublicKey::from_csr(&bad) {
            let certified = authority().certify(&request(), &key, now()).unwrap();
            let leaf = der(&certified.chain_pem);
            let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
            let info = pair.subject_public_key_info();
            assert_eq!(leaf.public_key().raw, info, "{place}");
        }
    }
}
