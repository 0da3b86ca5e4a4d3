//! `verify` finds what is damaged, foreign or out of time, and names it in a sentence.

use pki_certs::{Authority, LeafRequest, Usage, Verified, VerifyError, verify};
use rcgen::{DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, PKCS_ECDSA_P256_SHA256 as P256};

use crate::fixtures::{
    BACKDATED, NINETY_DAYS, Path, Stored, TEN_YEARS, authority, brought, certificate_pem, date,
    der, expect_fault, forge, now, request,
};

const SECOND: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

#[test]
fn a_new_leaf_is_verified_with_its_serial_and_validity() {
    let authority = authority();
    let leaf = authority.issue(&request(), now()).unwrap();
    let verified = Stored::new(&leaf).verify(&request(), &authority, now());
    let Verified {
        serial,
        not_before,
        not_after,
        issuer,
        cut_short,
    } = verified.unwrap();
    assert_eq!(
        (serial, not_before, not_after),
        (leaf.serial, leaf.not_before, leaf.not_after)
    );
    assert_eq!(issuer, authority.ca().fingerprint());
    assert!(!cut_short && !leaf.cut_short);
}

#[test]
fn the_forgery_all_tests_start_from_is_valid() {
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
            VerifyError::CertificateUnreadable,
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
            (0, VerifyError::CertificateUnreadable),
            (1, VerifyError::PrivateKeyUnreadable),
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
    for entry in 0..2 {
        let entry = stored.entry(entry);
        *entry = str::from_utf8(entry)
            .unwrap()
            .replace('\n', "\r\n\n")
            .into_bytes();
    }
    assert!(stored.verify(&request(), &authority, now()).is_ok());
}

#[test]
fn a_certificate_too_many_is_found() {
    let authority = authority();
    let mut stored = Stored::issued(&authority, &request());
    stored
        .certificate
        .extend_from_slice(authority.ca().certificate_pem().as_bytes());
    expect_fault(
        &stored,
        &request(),
        &authority,
        VerifyError::ChainLength {
            found: 2,
            expected: 1,
        },
        "tls.crt holds 2 certificates instead of 1",
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
            VerifyError::PrivateKeyUnreadable,
            "tls.key is not a readable private key",
        );
    }
}

#[test]
fn a_leaf_of_either_authority_is_valid_while_one_is_replaced() {
    let (old, new) = (authority(), authority());
    let issuers = [new.ca(), old.ca()];
    for signer in [&old, &new] {
        let stored = Stored::issued(signer, &request());
        let verified = verify(&stored.bundle(), &request(), &issuers, now()).unwrap();
        assert_eq!(verified.issuer, signer.ca().fingerprint());
    }
}

#[test]
fn a_leaf_is_valid_while_the_certificate_of_its_authority_is_renewed_for_the_same_key() {
    let path = Path::of(1, |_, _| ());
    let signer = path.read().unwrap();
    let later = path.renewed(|params| params.not_after = date(now() + TEN_YEARS / 2));
    let later = later.read().unwrap();
    let eternal = LeafRequest {
        duration: TEN_YEARS * 2,
        ..request()
    };
    for signer in [&signer, &later] {
        let stored = Stored::issued(signer, &eternal);
        for issuers in [[signer.ca(), later.ca()], [later.ca(), signer.ca()]] {
            let verified = verify(&stored.bundle(), &eternal, &issuers, now()).unwrap();
            assert_eq!(verified.issuer, signer.ca().fingerprint());
        }
    }
}

#[test]
fn without_issuers_no_leaf_is_valid() {
    let stored = Stored::issued(&authority(), &request());
    let fault = verify(&stored.bundle(), &request(), &[], now());
    assert_eq!(fault, Err(VerifyError::OtherIssuer));
}

#[test]
fn a_chain_that_does_not_lead_to_the_root_is_found() {
    let signer = Path::of(2, |_, _| ()).read().unwrap();
    let sound = Stored::issued(&signer, &request());
    let pems = sound.certificates();
    let [leaf, own, above] = &pems[..] else {
        panic!("{} certificates", pems.len())
    };
    for (chain, found) in [
        (leaf.clone(), 1),
        (format!("{leaf}{own}"), 2),
        (format!("{leaf}{own}{above}{}", signer.ca().root_pem()), 4),
    ] {
        let mut stored = sound.clone();
        stored.certificate = chain.into_bytes();
        let fault = VerifyError::ChainLength { found, expected: 3 };
        let sentence = format!("tls.crt holds {found} certificates instead of 3");
        expect_fault(&stored, &request(), &signer, fault, &sentence);
    }
    for chain in [
        format!("{leaf}{above}{own}"),
        format!("{leaf}{own}{}", signer.ca().root_pem()),
    ] {
        let mut stored = sound.clone();
        stored.certificate = chain.into_bytes();
        let sentence =
            "tls.crt holds other certificates than those between it and the root of its CA";
        expect_fault(&stored, &request(), &signer, VerifyError::Chain, sentence);
    }
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
        Err(VerifyError::OtherIssuer)
    );
}

#[test]
fn a_leaf_signed_with_another_key_in_the_name_of_the_authority_is_found() {
    let twin =
        || brought(|params| params.key_identifier_method = KeyIdMethod::PreSpecified(vec![7; 20]));
    let (impostor, present) = (twin(), twin());
    let stored = Stored::issued(&impostor, &request());
    expect_fault(
        &stored,
        &request(),
        &present,
        VerifyError::Signature,
        "tls.crt is not signed by the present CA",
    );
}

#[test]
fn a_leaf_is_valid_up_to_its_last_second_and_expired_after_it() {
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
    assert_eq!(fault, VerifyError::Expired(not_after));
    assert_eq!(fault.to_string(), "tls.crt expired at 2026-05-30T12:00:00Z");
}

#[test]
fn a_leaf_is_valid_from_its_first_second_and_not_before() {
    let authority = authority();
    let stored = Stored::issued(&authority, &request());
    let not_before = now() - BACKDATED;
    assert!(stored.verify(&request(), &authority, not_before).is_ok());
    let fault = stored
        .verify(&request(), &authority, not_before - SECOND)
        .unwrap_err();
    assert_eq!(fault, VerifyError::NotYetValid(not_before));
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
        (vec![client], Usage::ServerAuth),
        (vec![server], Usage::ClientAuth),
        (vec![], Usage::ServerAuth),
    ] {
        let stored = forge(&authority, &P256, |params| {
            params.extended_key_usages = usages;
        });
        expect_fault(
            &stored,
            &request(),
            &authority,
            VerifyError::Usage(lacking),
            &format!("tls.crt is not for {lacking}"),
        );
    }
}

#[test]
fn a_leaf_that_has_a_usage_too_many_is_found() {
    let authority = authority();
    for (purpose, name) in [
        (ExtendedKeyUsagePurpose::ClientAuth, "client authentication"),
        (ExtendedKeyUsagePurpose::Any, "any purpose"),
        (ExtendedKeyUsagePurpose::CodeSigning, "code signing"),
        (
            ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 4, 1, 1]),
            "1.3.6.1.4.1.1",
        ),
    ] {
        let stored = forge(&authority, &P256, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, purpose];
        });
        let server_only = LeafRequest {
            usages: vec![Usage::ServerAuth],
            ..request()
        };
        let usage = name.to_owned();
        let sentence = format!("tls.crt is also for {name}, which is not requested");
        let fault = VerifyError::ExtraUsage(usage);
        expect_fault(&stored, &server_only, &authority, fault, &sentence);
    }
}

#[test]
fn a_leaf_whose_authority_is_for_something_else_is_found() {
    let path = Path::of(1, |above, params| {
        if above == 1 {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
    });
    let stored = forge_with_chain(&path.read().unwrap());
    let reason = "its CA is not for server authentication".to_owned();
    expect_fault(
        &stored,
        &request(),
        &path.read().unwrap(),
        VerifyError::Rejected(reason),
        "tls.crt would be rejected by its peers: its CA is not for server authentication",
    );
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
        VerifyError::Rejected("CaUsedAsEndEntity".to_owned()),
        "tls.crt would be rejected by its peers: CaUsedAsEndEntity",
    );
}

#[track_caller]
fn expect_other_issuer(signer: &Authority, present: &Authority) {
    let stored = Stored::issued(signer, &request());
    let sentence = "tls.crt was issued by another CA";
    expect_fault(
        &stored,
        &request(),
        present,
        VerifyError::OtherIssuer,
        sentence,
    );
}

fn forge_with_chain(authority: &Authority) -> Stored {
    let mut stored = forge(authority, &P256, |_| ());
    stored
        .certificate
        .extend_from_slice(authority.ca().chain_pem().as_bytes());
    stored
}
