//! `verify` finds what differs from the request, and names it in a sentence.

use pki_certs::{Authority, KeyAlgorithm, KeyEncoding, LeafRequest, VerifyError};
use rcgen::{
    DistinguishedName, DnType, PKCS_ECDSA_P256_SHA256 as P256, PKCS_ECDSA_P384_SHA384 as P384,
    SanType,
};

use crate::fixtures::{
    BACKDATED, DAY, NINETY_DAYS, Stored, TEN_YEARS, authority, date, expect_fault, forge, now,
    request, root,
};

const SECOND: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

#[test]
fn the_key_of_another_certificate_is_found() {
    let authority = authority();
    let mut stored = Stored::issued(&authority, &request());
    stored.private_key = Stored::issued(&authority, &request()).private_key;
    expect_fault(
        &stored,
        &request(),
        &authority,
        VerifyError::PrivateKeyMismatch,
        "tls.key does not belong to tls.crt",
    );
}

#[test]
fn a_key_of_another_kind_is_found() {
    let authority = authority();
    expect_fault(
        &forge(&authority, &P384, |_| ()),
        &request(),
        &authority,
        VerifyError::KeyAlgorithm(KeyAlgorithm::EcdsaP256),
        "tls.key is not an ECDSA P-256 key",
    );
}

#[test]
fn an_rsa_key_of_another_size_is_found() {
    let authority = authority();
    let requested = KeyAlgorithm::Rsa3072;
    let larger = LeafRequest {
        key: requested,
        ..request()
    };
    expect_fault(
        &forge(&authority, &rcgen::PKCS_RSA_SHA256, |_| ()),
        &larger,
        &authority,
        VerifyError::KeyAlgorithm(requested),
        "tls.key is not an RSA 3072 key",
    );
}

#[test]
fn a_key_in_another_encoding_is_found() {
    let authority = authority();
    for (encoding, other, name) in [
        (
            KeyEncoding::Pkcs8,
            KeyEncoding::Traditional,
            "PKCS#1 (RSA) or SEC 1 (ECDSA)",
        ),
        (KeyEncoding::Traditional, KeyEncoding::Pkcs8, "PKCS#8"),
    ] {
        let [issued, asked_for] = [encoding, other].map(|key_encoding| LeafRequest {
            key_encoding,
            ..request()
        });
        expect_fault(
            &Stored::issued(&authority, &issued),
            &asked_for,
            &authority,
            VerifyError::KeyEncoding(other),
            &format!("tls.key is not encoded in {name}"),
        );
    }
}

#[test]
fn ed25519_keys_have_one_encoding() {
    let authority = authority();
    let [one, other] = [KeyEncoding::Pkcs8, KeyEncoding::Traditional].map(|key_encoding| {
        let key = KeyAlgorithm::Ed25519;
        LeafRequest {
            key,
            key_encoding,
            ..request()
        }
    });
    let stored = Stored::issued(&authority, &one);
    assert!(stored.verify(&other, &authority, now()).is_ok());
}

#[test]
fn another_common_name_is_found() {
    let authority = authority();
    let stored = Stored::issued(&authority, &request());
    let renamed = LeafRequest {
        common_name: Some("app2".to_owned()),
        ..request()
    };
    expect_fault(
        &stored,
        &renamed,
        &authority,
        VerifyError::CommonName {
            found: "CN=app1".to_owned(),
            requested: Some("app2".to_owned()),
        },
        r#"the subject of tls.crt is "CN=app1" instead of "CN=app2""#,
    );
}

#[test]
fn a_subject_of_more_or_less_than_the_common_name_is_found() {
    let authority = authority();
    let more = forge(&authority, &P256, |params| {
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Example");
    });
    let less = forge(&authority, &P256, |params| {
        params.distinguished_name = DistinguishedName::new();
    });
    for (stored, found) in [(more, "CN=app1, O=Example"), (less, "")] {
        let fault = stored.verify(&request(), &authority, now()).unwrap_err();
        let requested = Some("app1".to_owned());
        assert_eq!(
            fault,
            VerifyError::CommonName {
                found: found.to_owned(),
                requested
            }
        );
    }
}

#[test]
fn a_former_common_name_is_accepted_and_never_issued() {
    let authority = authority();
    let stored = Stored::issued(&authority, &request());
    for common_name in [Some("app1.team-a.svc".to_owned()), None] {
        let renamed = LeafRequest {
            common_name: common_name.clone(),
            former_common_name: Some("app1".to_owned()),
            ..request()
        };
        assert!(stored.verify(&renamed, &authority, now()).is_ok());
        let renewed = Stored::issued(&authority, &renamed);
        let without = LeafRequest {
            former_common_name: None,
            ..renamed.clone()
        };
        assert!(renewed.verify(&without, &authority, now()).is_ok());
        let fault = stored.verify(&without, &authority, now()).unwrap_err();
        let found = "CN=app1".to_owned();
        let requested = common_name;
        assert_eq!(fault, VerifyError::CommonName { found, requested });
        // Nothing else may differ.
        let longer = LeafRequest {
            dns_names: vec!["app1.team-b.svc".to_owned()],
            ..renamed
        };
        let fault = stored.verify(&longer, &authority, now()).unwrap_err();
        assert!(matches!(fault, VerifyError::Names { .. }), "{fault}");
    }
}

#[test]
fn missing_and_extra_names_are_found_and_listed() {
    let authority = authority();
    let stored = Stored::issued(&authority, &request());
    let renamed = LeafRequest {
        dns_names: vec!["app1.team-a.svc".to_owned(), "app1.team-b.svc".to_owned()],
        ip_addresses: vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
        uris: vec!["spiffe://example.com/ns/team-b/sa/app1".to_owned()],
        ..request()
    };
    let names = |names: [&str; 3]| names.map(str::to_owned).to_vec();
    expect_fault(
        &stored,
        &renamed,
        &authority,
        VerifyError::Names {
            missing: names([
                "app1.team-b.svc",
                "10.0.0.2",
                "spiffe://example.com/ns/team-b/sa/app1",
            ]),
            extra: names([
                "app1.team-a.svc.cluster.local",
                "2001:db8::1",
                "spiffe://example.com/ns/team-a/sa/app1",
            ]),
        },
        "the names in tls.crt are not the requested ones; missing: app1.team-b.svc, 10.0.0.2, \
         spiffe://example.com/ns/team-b/sa/app1; not requested: app1.team-a.svc.cluster.local, \
         2001:db8::1, spiffe://example.com/ns/team-a/sa/app1",
    );
}

#[test]
fn a_name_of_a_kind_that_cannot_be_requested_is_found() {
    let authority = authority();
    let stored = forge(&authority, &P256, |params| {
        params
            .subject_alt_names
            .push(SanType::Rfc822Name("app1@example.com".try_into().unwrap()));
    });
    let fault = stored.verify(&request(), &authority, now()).unwrap_err();
    assert!(
        matches!(&fault, VerifyError::Names { missing, extra } if missing.is_empty() && extra.len() == 1)
    );
    assert!(fault.to_string().contains("app1@example.com"), "{fault}");
}

#[test]
fn an_address_written_as_a_dns_name_is_found() {
    let authority = authority();
    let stored = forge(&authority, &P256, |params| {
        params
            .subject_alt_names
            .retain(|name| !matches!(name, SanType::IpAddress(ip) if ip.is_ipv4()));
        params
            .subject_alt_names
            .push(SanType::DnsName("10.0.0.1".try_into().unwrap()));
    });
    let address = vec!["10.0.0.1".to_owned()];
    assert_eq!(
        stored.verify(&request(), &authority, now()),
        Err(VerifyError::Names {
            missing: address.clone(),
            extra: address
        })
    );
}

#[test]
fn a_leaf_without_names_is_found() {
    let authority = authority();
    let stored = forge(&authority, &P256, |params| params.subject_alt_names.clear());
    let fault = stored.verify(&request(), &authority, now()).unwrap_err();
    assert!(
        matches!(fault, VerifyError::Names { missing, extra } if missing.len() == 5 && extra.is_empty())
    );
}

#[test]
fn the_order_of_names_and_usages_and_their_repetition_do_not_matter() {
    let authority = authority();
    let stored = Stored::issued(&authority, &request());
    let mut reordered = request();
    reordered.dns_names.reverse();
    reordered.dns_names.extend_from_within(..);
    reordered.ip_addresses.reverse();
    reordered.uris.extend_from_within(..);
    reordered.usages.reverse();
    reordered.usages.extend_from_within(..);
    assert!(stored.verify(&reordered, &authority, now()).is_ok());
}

#[test]
fn another_duration_is_found() {
    let authority = authority();
    let stored = Stored::issued(&authority, &request());
    let longer = LeafRequest {
        duration: NINETY_DAYS + SECOND,
        ..request()
    };
    expect_fault(
        &stored,
        &longer,
        &authority,
        VerifyError::Duration {
            not_after: now() + NINETY_DAYS,
            requested: now() + NINETY_DAYS + SECOND,
        },
        "tls.crt ends at 2026-05-30T12:00:00Z instead of 2026-05-30T12:00:01Z, \
         where the requested duration ends",
    );
}

#[test]
fn a_leaf_that_was_not_backdated_is_found() {
    let authority = authority();
    let stored = forge(&authority, &P256, |params| params.not_before = date(now()));
    let (not_after, requested) = (now() + NINETY_DAYS, now() + NINETY_DAYS + BACKDATED);
    let fault = stored.verify(&request(), &authority, now());
    assert_eq!(
        fault,
        Err(VerifyError::Duration {
            not_after,
            requested
        })
    );
}

#[test]
fn a_leaf_cut_short_by_the_end_of_the_authority_is_valid() {
    let authority = authority();
    let eternal = LeafRequest {
        duration: TEN_YEARS * 2,
        ..request()
    };
    let stored = Stored::issued(&authority, &eternal);
    let verified = stored.verify(&eternal, &authority, now()).unwrap();
    assert!(verified.cut_short);

    let not_after = authority.ca().not_after();
    let fault = stored.verify(&request(), &authority, now());
    assert_eq!(
        fault,
        Err(VerifyError::Duration {
            not_after,
            requested: now() + NINETY_DAYS
        })
    );
}

#[test]
fn a_leaf_that_outlives_the_authority_is_found() {
    let authority = authority();
    let eternal = LeafRequest {
        duration: TEN_YEARS + DAY,
        ..request()
    };
    let not_after = now() + eternal.duration;
    let stored = forge(&authority, &P256, |params| {
        params.not_after = date(not_after);
    });
    let fault = stored.verify(&eternal, &authority, now());
    assert_eq!(
        fault,
        Err(VerifyError::Duration {
            not_after,
            requested: authority.ca().not_after()
        })
    );
}

#[test]
fn a_bundle_does_not_print_its_private_key() {
    let authority = authority();
    let stored = Stored::issued(&authority, &request());
    let bundle = pki_certs::Bundle {
        certificate: &stored.certificate,
        private_key: &stored.private_key,
    };
    assert_eq!(format!("{bundle:?}"), "Bundle(..)");
}

#[test]
fn a_leaf_survives_the_operator_reading_its_authority_again() {
    let (certificate, key) = root(&P256, |_| ());
    let read = || Authority::from_pem(certificate.as_bytes(), b"", key.as_bytes(), now()).unwrap();
    assert!(
        Stored::issued(&read(), &request())
            .verify(&request(), &read(), now())
            .is_ok()
    );
}
