//! `verify` finds what is damaged, foreign or out of time, and names it in a sentence.

use pki_certs::{Authority, Fault, Verified};
use rcgen::{DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, PKCS_ECDSA_P256_SHA256 as P256};

use crate::fixtures::{
    BACKDATED, NINETY_DAYS, Stored, authority, brought, certificate_pem, der, expect_fault, forge,
    now, request,
};

const SECOND: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

#[test]
fn what_was_issued_is_found_sound_with_its_serial_and_validity() {
    let authority = authority();
    let leaf = authority.issue(&request(), now()).unwrap();
    let verified = Stored::new(&leaf, &authority).verify(&request(), &authority, now());
    let Verified {
        serial,
        not_before,
        not_after,
    } = verified.unwrap();
    assert_eq!(
        (serial, not_before, not_after),
        (leaf.serial, leaf.not_before, leaf.not_after)
    );
}

#[test]
fn the_forgery_all_tests_start_from_is_sound() {
    let authority = authority();
    assert!(
        forge(&authority, &P256, |_| ())
            .verify(&request(), &authority, now())
            .is_ok()
    );
}

#[test]
fn an_unreadable_certificate_is_found() {
    let authority = authority();
    let mut stored = Stored::issued(&authority, &request());
    let mut trailing = der(std::str::from_utf8(&stored.certificate).unwrap());
    trailing.push(0);
    let torn = stored.certificate[..200].to_vec();
    for damaged in [vec![], b"no PEM".to_vec(), torn, certificate_pem(&trailing)] {
        stored.certificate = damaged;
        expect_fault(
            &stored,
            &request(),
            &authority,
            Fault::CertificateUnreadable,
            "tls.crt is not a readable certificate",
        );
    }
}

#[test]
fn anything_else_within_an_entry_is_found() {
    let authority = authority();
    let sound = Stored::issued(&authority, &request());
    let tab_within = |entry: &[u8]| [&entry[..100], b"\t", &entry[100..]].concat();
    let text_before = |entry: &[u8]| [b"text\n", entry].concat();
    let text_after = |entry: &[u8]| [entry, b"text\n"].concat();
    for damage in [tab_within as fn(&[u8]) -> _, text_before, text_after] {
        for (entry, fault) in [
            (0, Fault::CertificateUnreadable),
            (1, Fault::PrivateKeyUnreadable),
            (2, Fault::AuthorityUnreadable),
        ] {
            let mut stored = sound.clone();
            let entry = stored.entry(entry);
            *entry = damage(entry);
            assert_eq!(stored.verify(&request(), &authority, now()), Err(fault));
        }
    }
}

#[test]
fn blank_lines_and_line_ends_do_not_matter() {
    let authority = authority();
    let mut stored = Stored::issued(&authority, &request());
    for entry in 0..3 {
        let entry = stored.entry(entry);
        *entry = str::from_utf8(entry)
            .unwrap()
            .replace('\n', "\r\n\n")
            .into_bytes();
    }
    assert!(stored.verify(&request(), &authority, now()).is_ok());
}

#[test]
fn a_private_key_in_sec1_is_sound() {
    let authority = authority();
    let mut stored = Stored::issued(&authority, &request());
    stored.private_key = crate::openssl::sec1(&stored.private_key);
    assert!(
        stored
            .private_key
            .starts_with(b"-----BEGIN EC PRIVATE KEY-----")
    );
    assert!(stored.verify(&request(), &authority, now()).is_ok());
}

#[test]
fn a_certificate_too_many_is_found() {
    let authority = authority();
    let mut stored = Stored::issued(&authority, &request());
    stored
        .certificate
        .extend_from_slice(authority.certificate_pem().as_bytes());
    expect_fault(
        &stored,
        &request(),
        &authority,
        Fault::NotOneCertificate { found: 2 },
        "tls.crt holds 2 certificates instead of one",
    );
}

#[test]
fn an_unreadable_private_key_is_found() {
    let authority = authority();
    let mut stored = Stored::issued(&authority, &request());
    let certificate = stored.certificate.clone();
    for damaged in [
        vec![],
        b"no PEM".to_vec(),
        stored.private_key[..100].to_vec(),
        certificate,
    ] {
        stored.private_key = damaged;
        expect_fault(
            &stored,
            &request(),
            &authority,
            Fault::PrivateKeyUnreadable,
            "tls.key is not a readable private key",
        );
    }
}

#[test]
fn an_unreadable_ca_crt_is_found() {
    let authority = authority();
    let mut stored = Stored::issued(&authority, &request());
    stored.authority.truncate(200);
    expect_fault(
        &stored,
        &request(),
        &authority,
        Fault::AuthorityUnreadable,
        "ca.crt is not readable",
    );
}

#[test]
fn a_ca_crt_without_the_authority_is_found() {
    let signer = authority();
    let mut stored = Stored::issued(&signer, &request());
    for other in [vec![], authority().certificate_pem().as_bytes().to_vec()] {
        stored.authority = other;
        expect_fault(
            &stored,
            &request(),
            &signer,
            Fault::AuthorityMissing,
            "ca.crt does not contain the certificate of the present CA",
        );
    }
}

#[test]
fn a_ca_crt_with_the_authority_among_others_is_sound() {
    let signer = authority();
    let mut stored = Stored::issued(&signer, &request());
    let other = authority();
    stored.authority = format!("{}{}", other.certificate_pem(), signer.certificate_pem()).into();
    assert!(stored.verify(&request(), &signer, now()).is_ok());
}

#[test]
fn a_leaf_of_another_authority_is_found() {
    let present = authority();
    expect_other_issuer(&authority(), &present);
}

#[test]
fn a_leaf_of_another_authority_with_the_same_name_is_found() {
    expect_other_issuer(&brought(|_| ()), &brought(|_| ()));
}

#[test]
fn a_leaf_of_another_authority_with_the_same_key_identifier_is_found() {
    let same_identifier = KeyIdMethod::PreSpecified(vec![7; 20]);
    let [one, other] = ["One", "Other"].map(|name| {
        brought(|params| {
            params.key_identifier_method = same_identifier.clone();
            params.distinguished_name.push(DnType::CommonName, name);
        })
    });
    expect_other_issuer(&one, &other);
}

#[test]
fn a_leaf_without_authority_key_identifier_is_found() {
    let authority = authority();
    let stored = forge(&authority, &P256, |params| {
        params.use_authority_key_identifier_extension = false;
    });
    assert_eq!(
        stored.verify(&request(), &authority, now()),
        Err(Fault::OtherIssuer)
    );
}

#[test]
fn a_leaf_signed_with_another_key_in_the_name_of_the_authority_is_found() {
    let twin =
        || brought(|params| params.key_identifier_method = KeyIdMethod::PreSpecified(vec![7; 20]));
    let (impostor, present) = (twin(), twin());
    let mut stored = Stored::issued(&impostor, &request());
    stored.authority = present.certificate_pem().as_bytes().to_vec();
    expect_fault(
        &stored,
        &request(),
        &present,
        Fault::Signature,
        "tls.crt is not signed by the present CA",
    );
}

#[test]
fn a_leaf_is_sound_up_to_its_last_second_and_then_found_expired() {
    let authority = authority();
    let stored = Stored::issued(&authority, &request());
    let not_after = now() + NINETY_DAYS;
    let half_a_second = jiff::SignedDuration::from_millis(500);
    assert!(
        stored
            .verify(&request(), &authority, not_after + half_a_second)
            .is_ok()
    );
    let fault = stored
        .verify(&request(), &authority, not_after + SECOND)
        .unwrap_err();
    assert_eq!(fault, Fault::Expired { not_after });
    assert_eq!(fault.to_string(), "tls.crt expired at 2026-05-30T12:00:00Z");
}

#[test]
fn a_leaf_is_sound_from_its_first_second_and_before_found_not_yet_valid() {
    let authority = authority();
    let stored = Stored::issued(&authority, &request());
    let not_before = now() - BACKDATED;
    assert!(stored.verify(&request(), &authority, not_before).is_ok());
    let fault = stored
        .verify(&request(), &authority, not_before - SECOND)
        .unwrap_err();
    assert_eq!(fault, Fault::NotYetValid { not_before });
    assert_eq!(
        fault.to_string(),
        "tls.crt is not valid before 2026-03-01T11:55:00Z"
    );
}

#[test]
fn a_leaf_that_lacks_a_usage_is_found() {
    let authority = authority();
    let (server, client) = (
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    );
    for (usages, lacking) in [
        (vec![client], "server authentication"),
        (vec![server], "client authentication"),
        (vec![], "server authentication"),
    ] {
        let stored = forge(&authority, &P256, |params| {
            params.extended_key_usages = usages;
        });
        expect_fault(
            &stored,
            &request(),
            &authority,
            Fault::Usage { usage: lacking },
            &format!("tls.crt is not for {lacking}"),
        );
    }
}

#[test]
fn a_leaf_that_is_an_authority_itself_is_found() {
    let authority = authority();
    let stored = forge(&authority, &P256, |params| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    expect_fault(
        &stored,
        &request(),
        &authority,
        Fault::Rejected {
            reason: "CaUsedAsEndEntity".to_owned(),
        },
        "tls.crt would be rejected by its peers: CaUsedAsEndEntity",
    );
}

/// Also when `ca.crt` was already replaced, so that the issuer is all there is to find.
fn expect_other_issuer(signer: &Authority, present: &Authority) {
    let mut stored = Stored::issued(signer, &request());
    stored.authority = present.certificate_pem().as_bytes().to_vec();
    let sentence = "tls.crt was issued by another CA";
    expect_fault(&stored, &request(), present, Fault::OtherIssuer, sentence);
}
