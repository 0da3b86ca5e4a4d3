//! What `issue` makes, and what it refuses.

use jiff::{SignedDuration, Timestamp};
use pki_certs::{Fault, IssueError, LeafRequest, NameProblem};
use rcgen::{GeneralSubtree, NameConstraints};

use crate::fixtures::{
    BACKDATED, DAY, NINETY_DAYS, TEN_YEARS, authority, brought, der, now, request,
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
        assert_eq!(leaf.not_after, authority.not_after(), "{duration}");
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
fn a_leaf_may_have_addresses_only() {
    let addresses = LeafRequest {
        dns_names: vec![],
        ..request()
    };
    assert!(authority().issue(&addresses, now()).is_ok());
}

#[test]
fn a_leaf_may_have_a_wildcard_and_a_common_name_beyond_ascii() {
    let request = LeafRequest {
        common_name: "Zahlungen für alle".to_owned(),
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
        &IssueError::DnsName {
            name: "App_1".to_owned(),
            problem: NameProblem::Character,
        },
        r#"the DNS name "App_1" may hold only lower-case letters, digits, hyphens and dots"#,
    );
}

#[test]
fn a_bad_common_name_is_refused_by_name() {
    let name = "a".repeat(65);
    let request = LeafRequest {
        common_name: name.clone(),
        ..request()
    };
    expect(
        &request,
        now(),
        &IssueError::CommonName {
            name,
            problem: NameProblem::CommonNameTooLong,
        },
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
            ..request()
        },
        now(),
        &IssueError::NoNames,
        "there is neither a DNS name nor an IP address to issue for",
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
        &IssueError::Duration { duration },
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
        assert_eq!(refused.unwrap_err(), IssueError::Duration { duration });
    }
}

#[test]
fn an_expired_authority_issues_nothing() {
    let not_after = now() + TEN_YEARS;
    expect(
        &request(),
        not_after,
        &IssueError::AuthorityExpired { not_after },
        "the CA expired at 2036-02-27T12:00:00Z",
    );
}

#[test]
fn an_authority_issues_in_its_last_second() {
    let authority = authority();
    let last = authority.not_after() - SignedDuration::from_secs(1);
    assert_eq!(
        authority.issue(&request(), last).unwrap().not_after,
        authority.not_after()
    );
}

#[test]
fn an_authority_not_yet_valid_issues_nothing() {
    let not_before = now() - BACKDATED;
    expect(
        &request(),
        not_before - SignedDuration::from_secs(1),
        &IssueError::AuthorityNotYetValid { not_before },
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
    assert_eq!(error, IssueError::Unusable(Fault::Rejected { reason }));
}

#[track_caller]
fn expect(request: &LeafRequest, now: Timestamp, error: &IssueError, sentence: &str) {
    assert_eq!(error.to_string(), sentence);
    assert_eq!(authority().issue(request, now).unwrap_err(), *error);
}
