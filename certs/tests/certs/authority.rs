//! Authorities: made, read, and refused with a reason.

use jiff::{SignedDuration, Timestamp};
use pki_certs::{Authority, AuthorityError, NameProblem, PathMember, anchors};
use rcgen::{
    CertificateParams, DistinguishedName, IsCa, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256 as P256,
};

use crate::fixtures::{
    BACKDATED, DAY, TEN_YEARS, authority, certificate_pem, date, der, now, request, root,
};

#[test]
fn a_generated_authority_reads_back_the_same() {
    let made = authority();
    let read = Authority::from_pem(
        made.ca().certificate_pem().as_bytes(),
        b"",
        made.private_key_pem().as_bytes(),
        now(),
    )
    .unwrap();
    assert_eq!(read.ca().certificate_pem(), made.ca().certificate_pem());
    assert_eq!(
        read.private_key_pem().as_str(),
        made.private_key_pem().as_str()
    );
    assert_eq!(read.ca().fingerprint(), made.ca().fingerprint());
    assert_eq!(read.ca().not_after(), made.ca().not_after());
}

#[test]
fn a_generated_authority_lives_as_long_as_asked_from_five_minutes_ago() {
    let made = authority();
    assert_eq!(made.ca().not_after(), now() + TEN_YEARS);
    let reads_at = |at| {
        read(
            made.ca().certificate_pem(),
            made.private_key_pem().as_str(),
            at,
        )
    };
    assert!(reads_at(now() - BACKDATED).is_ok());
    assert!(reads_at(now() - BACKDATED - SignedDuration::from_secs(1)).is_err());
}

#[test]
fn a_fingerprint_is_lower_case_sha_256() {
    let fingerprint = authority().ca().fingerprint().to_owned();
    assert_eq!(fingerprint.len(), 64);
    assert!(
        fingerprint
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    );
}

#[test]
fn two_authorities_of_one_common_name_have_two_distinguished_names() {
    let [one, other] = [authority(), authority()].map(|authority| {
        let der = der(authority.ca().certificate_pem());
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        certificate.subject().to_string()
    });
    assert!(one.starts_with("CN=Example CA, "), "{one}");
    assert_ne!(one, other);
}

#[test]
fn debug_does_not_print_the_key() {
    let printed = format!("{:?}", authority());
    assert!(
        printed.starts_with("Authority { ca: CaCertificate { subject: ")
            && !printed.contains("key")
    );
}

#[test]
fn text_around_the_certificate_is_dropped() {
    let (certificate, key) = root(&P256, |_| ());
    let read = read(
        &format!("subject=CN = Brought CA\n{certificate}\n"),
        &key,
        now(),
    )
    .unwrap();
    assert_eq!(
        read.ca().certificate_pem(),
        certificate.replace("\r\n", "\n")
    );
}

#[test]
fn an_authority_needs_a_valid_common_name() {
    let error = Authority::generate("", TEN_YEARS, now()).unwrap_err();
    let (name, problem) = (String::new(), NameProblem::Empty);
    assert_eq!(error, AuthorityError::CommonName(name, problem));
    assert_eq!(
        error.to_string(),
        r#"the common name "" of the CA is empty; choose another"#
    );
}

#[test]
fn an_authority_needs_a_lifetime_after_1970() {
    let lifetime = SignedDuration::ZERO;
    let error = Authority::generate("CA", lifetime, now()).unwrap_err();
    assert_eq!(
        error,
        AuthorityError::Lifetime {
            lifetime,
            now: now()
        }
    );
    assert_eq!(
        error.to_string(),
        "a CA cannot live for 0s from 2026-03-01T12:00:00Z: give a lifetime of at least a second, \
         and check the clock"
    );
    for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH] {
        let error = Authority::generate("CA", TEN_YEARS, now).unwrap_err();
        assert_eq!(
            error,
            AuthorityError::Lifetime {
                lifetime: TEN_YEARS,
                now
            }
        );
    }
}

#[test]
fn the_longest_authority_ends_with_the_year_9999() {
    let authority = Authority::generate("CA", SignedDuration::MAX, now()).unwrap();
    assert_eq!(
        authority.ca().not_after().to_string(),
        "9999-12-30T22:00:00Z"
    );
    assert!(authority.issue(&request(), now()).is_ok());
}

#[test]
fn an_unreadable_certificate_is_refused() {
    let (certificate, key) = root(&P256, |_| ());
    let mut trailing = der(&certificate);
    trailing.push(0);
    let trailing = String::from_utf8(certificate_pem(&trailing)).unwrap();
    for damaged in ["", "no PEM", &certificate[..200], &trailing, &key] {
        expect(
            read(damaged, &key, now()),
            &AuthorityError::Unreadable,
            "the CA certificate is not readable; give X.509 certificates in PEM, \
             that of the CA first",
        );
    }
}

#[test]
fn an_unreadable_private_key_is_refused() {
    let (certificate, key) = root(&P256, |_| ());
    for damaged in [
        "",
        "no PEM",
        &key[..100],
        &key.replace("PRIVATE", "ENCRYPTED PRIVATE"),
    ] {
        expect(
            read(&certificate, damaged, now()),
            &AuthorityError::PrivateKeyUnreadable,
            "the private key of the CA is not readable; give it in PEM (PKCS#8, SEC 1 or PKCS#1), \
             not encrypted",
        );
    }
}

#[test]
fn a_private_key_of_a_rare_kind_is_refused() {
    let (certificate, key) = root(&rcgen::PKCS_ECDSA_P521_SHA512, |_| ());
    expect(
        read(&certificate, &key, now()),
        &AuthorityError::PrivateKeyUnsupported,
        "the private key of the CA is of a kind not supported; use ECDSA P-256 or P-384, \
         RSA of 2048 to 8192 bits, or Ed25519",
    );
}

#[test]
fn the_private_key_of_another_certificate_is_refused() {
    let (certificate, _) = root(&P256, |_| ());
    let (_, other_key) = root(&P256, |_| ());
    expect(
        read(&certificate, &other_key, now()),
        &AuthorityError::PrivateKeyMismatch,
        "the private key does not belong to the CA certificate; \
         give the two that were made together",
    );
}

#[test]
fn a_certificate_that_is_no_authority_is_refused() {
    for not_an_authority in [IsCa::NoCa, IsCa::ExplicitNoCa] {
        expect(
            read_changed(|params| params.is_ca = not_an_authority),
            &AuthorityError::NotAnAuthority(PathMember::Ca),
            "the CA certificate is not that of a CA; make one with basicConstraints CA:TRUE",
        );
    }
}

#[test]
fn an_authority_that_may_not_sign_certificates_is_refused() {
    for usages in [vec![], vec![KeyUsagePurpose::CrlSign]] {
        expect(
            read_changed(|params| params.key_usages = usages),
            &AuthorityError::MayNotSign(PathMember::Ca),
            "the CA certificate may not sign certificates; make one with keyUsage keyCertSign",
        );
    }
}

#[test]
fn an_authority_whose_subject_is_empty_is_refused() {
    expect(
        read_changed(|params| params.distinguished_name = DistinguishedName::new()),
        &AuthorityError::Subject,
        SUBJECT,
    );
}

#[test]
fn an_authority_is_refused_after_its_last_second() {
    let (certificate, key) = root(&P256, |_| ());
    let not_after = now() + TEN_YEARS;
    assert!(read(&certificate, &key, not_after).is_ok());
    expect(
        read(&certificate, &key, not_after + SignedDuration::from_secs(1)),
        &AuthorityError::Expired(PathMember::Ca, not_after),
        "the CA certificate expired at 2036-02-27T12:00:00Z; replace it",
    );
}

#[test]
fn an_authority_is_refused_before_its_first_second() {
    let (certificate, key) = root(&P256, |params| params.not_before = date(now() + DAY));
    expect(
        read(&certificate, &key, now()),
        &AuthorityError::NotYetValid(PathMember::Ca, now() + DAY),
        "the CA certificate is not valid before 2026-03-02T12:00:00Z; wait, or check the clock",
    );
}

pub(crate) const SUBJECT: &str = "the subject of the CA certificate is empty, has an attribute \
    twice or two together, or characters foreign to their string type; make one that has a common \
    name, each attribute once and alone, all in UTF8String";

fn read(certificate: &str, key: &str, now: Timestamp) -> Result<Authority, AuthorityError> {
    Authority::from_pem(certificate.as_bytes(), b"", key.as_bytes(), now)
}

fn read_changed(change: impl FnOnce(&mut CertificateParams)) -> Result<Authority, AuthorityError> {
    let (certificate, key) = root(&P256, change);
    read(&certificate, &key, now())
}

#[track_caller]
fn expect(result: Result<Authority, AuthorityError>, error: &AuthorityError, sentence: &str) {
    assert_eq!(error.to_string(), sentence);
    assert_eq!(result.unwrap_err(), *error);
}

#[test]
fn anchors_are_the_certificates_of_a_file_each_in_pem_of_its_own() {
    let [one, other] = [authority(), authority()].map(|it| it.ca().root_pem().to_owned());
    let file = format!("# the first\r\n{}\n\n{other}", one.replace('\n', "\r\n"));
    assert_eq!(anchors(file.as_bytes()), Some(vec![one.clone(), other]));
    assert_eq!(anchors(b""), Some(vec![]));
    assert_eq!(
        anchors(authority().private_key_pem().as_bytes()),
        Some(vec![])
    );
    for damaged in [&one[..one.len() / 2], &one.replacen("MII", "MIIA", 1)] {
        assert_eq!(anchors(damaged.as_bytes()), None, "{damaged}");
    }
}
