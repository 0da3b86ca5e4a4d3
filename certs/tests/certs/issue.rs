//! The leaves of `issue`, and the requests that it refuses.

use aws_lc_rs::digest;
use jiff::{SignedDuration, Timestamp};
use pki_certs::{
    IssueError, KeyAlgorithm, KeyEncoding, LeafRequest, NameProblem, Usage, VerifyError,
};
use rcgen::{GeneralSubtree, NameConstraints};
use x509_parser::extensions::ParsedExtension;

use crate::fixtures::{
    BACKDATED, DAY, NINETY_DAYS, Path, Stored, TEN_YEARS, authority, brought, date, der, now,
    request,
};

#[test]
fn a_leaf_begins_five_minutes_ago_and_lasts_as_requested() {
    let leaf = authority().issue(&request(), now()).unwrap();
    assert_eq!(leaf.not_before, now() - BACKDATED);
    assert_eq!(leaf.not_after, now() + NINETY_DAYS);
}

#[test]
fn fractions_of_a_second_are_dropped() {
    let fraction = SignedDuration::from_millis(900);
    let request = LeafRequest {
        duration: NINETY_DAYS + fraction,
        ..request()
    };
    let leaf = authority().issue(&request, now() + fraction).unwrap();
    assert_eq!(leaf.not_before, now() - BACKDATED);
    assert_eq!(leaf.not_after, now() + NINETY_DAYS);
}

#[test]
fn a_leaf_never_outlives_its_authority() {
    let authority = authority();
    for duration in [TEN_YEARS, TEN_YEARS + DAY, SignedDuration::MAX] {
        let leaf = authority
            .issue(
                &LeafRequest {
                    duration,
                    ..request()
                },
                now(),
            )
            .unwrap();
        assert_eq!(leaf.not_after, authority.ca().not_after(), "{duration}");
        assert_eq!(leaf.cut_short, duration > TEN_YEARS);
    }
}

#[test]
fn each_leaf_has_a_serial_and_a_key_of_its_own() {
    let authority = authority();
    let [one, other] = [(); 2].map(|()| authority.issue(&request(), now()).unwrap());
    assert_ne!(one.serial, other.serial);
    assert_ne!(one.private_key_pem.as_str(), other.private_key_pem.as_str());
}

#[test]
fn serials_are_positive_and_have_up_to_127_bits() {
    let authority = authority();
    let serials: Vec<_> = (0..64)
        .map(|_| authority.issue(&request(), now()).unwrap().serial)
        .collect();
    for serial in &serials {
        let value = u128::from_str_radix(serial, 16).unwrap();
        assert!(0 < value && value >> 127 == 0, "{serial}");
        assert_eq!(*serial, serial.to_uppercase());
    }
    let widest = serials.iter().map(String::len).max().unwrap();
    assert_eq!(
        widest, 32,
        "64 serials of 127 bits all begin with a zero byte"
    );
}

/// RFC 7093, method 1: of the key alone, and not of what stands around it in the certificate.
#[test]
fn a_certificate_is_named_by_the_hash_of_its_key() {
    let authority = authority();
    let leaf = authority.issue(&request(), now()).unwrap();
    for pem in [&*leaf.chain_pem, authority.ca().root_pem()] {
        let der = der(pem);
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        let key = &certificate.public_key().subject_public_key.data;
        let hash = digest::digest(&digest::SHA256, key);
        let identifier = certificate.iter_extensions().find_map(|extension| {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
                _ => None,
            }
        });
        assert_eq!(identifier.unwrap(), &hash.as_ref()[..20]);
    }
}

#[test]
fn a_name_given_twice_is_written_once() {
    let name = "app1.team-a.svc";
    let twice = LeafRequest {
        dns_names: vec![name.to_owned(); 2],
        ip_addresses: vec!["10.0.0.1".parse().unwrap(); 2],
        ..request()
    };
    let leaf = authority().issue(&twice, now()).unwrap();
    let der = der(&leaf.chain_pem);
    let written = der
        .windows(name.len())
        .filter(|bytes| *bytes == name.as_bytes())
        .count();
    assert_eq!(written, 1);
}

#[test]
fn a_leaf_may_have_names_of_one_kind_only() {
    let nothing = LeafRequest {
        dns_names: vec![],
        ip_addresses: vec![],
        uris: vec![],
        ..request()
    };
    let [mut names, mut addresses, mut uris] = [(); 3].map(|()| nothing.clone());
    names.dns_names = request().dns_names;
    addresses.ip_addresses = request().ip_addresses;
    uris.uris = request().uris;
    for request in [names, addresses, uris] {
        assert!(authority().issue(&request, now()).is_ok(), "{request:?}");
    }
}

#[test]
fn a_leaf_never_outlives_any_certificate_above_it() {
    for shortest in 0..3 {
        let path = Path::of(2, |above, params| {
            if above == shortest {
                params.not_after = date(now() + DAY);
            }
        });
        let authority = path.read().unwrap();
        assert_eq!(authority.ca().not_after(), now() + DAY);
        let leaf = authority.issue(&request(), now()).unwrap();
        assert_eq!(leaf.not_after, now() + DAY);
        assert!(leaf.cut_short);
    }
}

#[test]
fn the_chain_of_a_leaf_leads_to_the_root_without_it() {
    let path = Path::of(2, |_, _| ());
    let authority = path.read().unwrap();
    let leaf = authority.issue(&request(), now()).unwrap();
    let certificates = Stored::new(&leaf).certificates();
    assert_eq!(certificates.len(), 3);
    assert_eq!(certificates[1..].concat(), authority.ca().chain_pem());
    assert_eq!(certificates[1], authority.ca().certificate_pem());
    assert!(!leaf.chain_pem.contains(authority.ca().root_pem()));
}

#[test]
fn a_leaf_is_issued_for_a_key_there_is_in_any_encoding() {
    let authority = authority();
    for key in [
        KeyAlgorithm::EcdsaP256,
        KeyAlgorithm::EcdsaP384,
        KeyAlgorithm::Rsa2048,
        KeyAlgorithm::Ed25519,
    ] {
        let [pkcs8, traditional] =
            [KeyEncoding::Pkcs8, KeyEncoding::Traditional].map(|key_encoding| LeafRequest {
                key,
                key_encoding,
                ..request()
            });
        let first = authority.issue(&pkcs8, now()).unwrap();
        let first_key = first.private_key_pem.as_bytes();
        let second = authority.issue_for(&traditional, first_key, now()).unwrap();
        assert_ne!(second.serial, first.serial);
        let second_key = second.private_key_pem.as_bytes();
        let third = authority.issue_for(&pkcs8, second_key, now()).unwrap();
        assert_eq!(third.private_key_pem.as_bytes(), first_key);
    }
}

#[test]
fn a_leaf_is_issued_for_a_key_with_blank_lines_around() {
    let authority = authority();
    let first = authority.issue(&request(), now()).unwrap();
    let key = format!("\n{}\n\n", first.private_key_pem.as_str());
    let second = authority.issue_for(&request(), key.as_bytes(), now());
    let second = second.unwrap().private_key_pem;
    assert_eq!(second.as_str(), first.private_key_pem.as_str());
}

#[test]
fn a_key_of_another_kind_is_not_issued_for() {
    let leaf = authority().issue(&request(), now()).unwrap();
    let requested = KeyAlgorithm::Rsa2048;
    let request = LeafRequest {
        key: requested,
        ..request()
    };
    let key = leaf.private_key_pem.as_bytes();
    let error = authority().issue_for(&request, key, now()).unwrap_err();
    assert_eq!(error, IssueError::KeyAlgorithm(requested));
    let sentence = "the private key to issue for is not an RSA 2048 key";
    assert_eq!(error.to_string(), sentence);
}

#[test]
fn an_unreadable_key_is_not_issued_for() {
    for key in ["", "no PEM", authority().ca().certificate_pem()] {
        let error = authority().issue_for(&request(), key.as_bytes(), now());
        let error = error.unwrap_err();
        assert_eq!(error, IssueError::PrivateKeyUnreadable);
        let sentence = "the private key to issue for is not readable";
        assert_eq!(error.to_string(), sentence);
    }
}

#[test]
fn a_bad_uri_is_refused_by_name() {
    expect(
        &LeafRequest {
            uris: vec!["spiffe://example.com/a".to_owned(), "/app1".to_owned()],
            ..request()
        },
        now(),
        &IssueError::Uri("/app1".to_owned(), NameProblem::UriScheme),
        "the URI \"/app1\" is not absolute: it must begin with a scheme and a colon, \
         such as spiffe:",
    );
}

#[test]
fn a_request_without_usages_is_refused() {
    expect(
        &LeafRequest {
            usages: vec![],
            ..request()
        },
        now(),
        &IssueError::NoUsages,
        "there is no usage to issue for: server authentication, client authentication or both",
    );
}

#[test]
fn a_leaf_may_be_for_one_usage_only() {
    for usage in [Usage::ServerAuth, Usage::ClientAuth] {
        let request = LeafRequest {
            usages: vec![usage; 2],
            ..request()
        };
        assert!(authority().issue(&request, now()).is_ok(), "{usage}");
    }
}

#[test]
fn a_leaf_may_have_a_wildcard_and_a_common_name_beyond_ascii() {
    let request = LeafRequest {
        common_name: Some("Zahlungen für alle".to_owned()),
        dns_names: vec!["*.team-a.svc".to_owned()],
        ..request()
    };
    assert!(authority().issue(&request, now()).is_ok());
}

#[test]
fn a_leaf_does_not_print_its_key() {
    let leaf = authority().issue(&request(), now()).unwrap();
    let printed = format!("{leaf:?}");
    assert!(
        printed.contains("PrivateKeyPem(..)") && !printed.contains("PRIVATE"),
        "{printed}"
    );
}

#[test]
fn a_bad_dns_name_is_refused_by_name() {
    let request = LeafRequest {
        dns_names: vec!["app1".to_owned(), "App_1".to_owned()],
        ..request()
    };
    expect(
        &request,
        now(),
        &IssueError::DnsName("App_1".to_owned(), NameProblem::Character),
        r#"the DNS name "App_1" may hold only lower-case letters, digits, hyphens and dots"#,
    );
}

#[test]
fn a_bad_common_name_is_refused_by_name() {
    let name = "a".repeat(65);
    let request = LeafRequest {
        common_name: Some(name.clone()),
        ..request()
    };
    expect(
        &request,
        now(),
        &IssueError::CommonName(name, NameProblem::CommonNameTooLong),
        &format!(
            r#"the common name "{}" is longer than 64 characters"#,
            "a".repeat(65)
        ),
    );
}

#[test]
fn a_request_without_names_is_refused() {
    expect(
        &LeafRequest {
            dns_names: vec![],
            ip_addresses: vec![],
            uris: vec![],
            ..request()
        },
        now(),
        &IssueError::NoNames,
        "there is no DNS name, IP address or URI to issue for",
    );
}

#[test]
fn a_duration_of_no_time_is_refused() {
    let duration = SignedDuration::from_millis(999);
    expect(
        &LeafRequest {
            duration,
            ..request()
        },
        now(),
        &IssueError::Duration(duration),
        "the duration 999ms is shorter than a second",
    );
    for duration in [SignedDuration::ZERO, -NINETY_DAYS, SignedDuration::MIN] {
        let refused = authority().issue(
            &LeafRequest {
                duration,
                ..request()
            },
            now(),
        );
        assert_eq!(refused.unwrap_err(), IssueError::Duration(duration));
    }
}

#[test]
fn an_expired_authority_issues_nothing() {
    let not_after = now() + TEN_YEARS;
    expect(
        &request(),
        not_after,
        &IssueError::AuthorityExpired(not_after),
        "the CA expired at 2036-02-27T12:00:00Z",
    );
}

#[test]
fn an_authority_issues_in_its_last_second() {
    let authority = authority();
    let last = authority.ca().not_after() - SignedDuration::from_secs(1);
    assert_eq!(
        authority.issue(&request(), last).unwrap().not_after,
        authority.ca().not_after()
    );
}

#[test]
fn an_authority_not_yet_valid_issues_nothing() {
    let not_before = now() - BACKDATED;
    expect(
        &request(),
        not_before - SignedDuration::from_secs(1),
        &IssueError::AuthorityNotYetValid(not_before),
        "the CA is not valid before 2026-03-01T11:55:00Z",
    );
}

#[test]
fn a_leaf_the_authority_may_not_sign_is_not_handed_out() {
    let constrained = brought(|params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".to_owned())],
            excluded_subtrees: vec![],
        });
    });
    let error = constrained.issue(&request(), now()).unwrap_err();
    let reason = "NameConstraintViolation".to_owned();
    assert_eq!(error, IssueError::Unusable(VerifyError::Rejected(reason)));
}

#[track_caller]
fn expect(request: &LeafRequest, now: Timestamp, error: &IssueError, sentence: &str) {
    assert_eq!(error.to_string(), sentence);
    assert_eq!(authority().issue(request, now).unwrap_err(), *error);
}
