//! Authorities below a root: read with their path, and refused with a reason.

use jiff::SignedDuration;
use pki_certs::{Authority, AuthorityError, CaCertificate, PathMember, Trust};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose};

use crate::fixtures::{DAY, Path, TEN_YEARS, authority, date, now, request, root};

#[test]
fn an_authority_below_a_root_reads_with_its_path() {
    let path = Path::of(2, |_, _| ());
    let authority = path.read().unwrap();
    let ca = authority.ca();
    let lines = |pem: &str| pem.replace("\r\n", "\n");
    assert_eq!(ca.certificate_pem(), lines(&path.below_root[0]));
    assert_eq!(ca.chain_pem(), lines(&path.below_root.concat()));
    assert_eq!(ca.root_pem(), lines(&path.root));
    assert_eq!(ca.subject(), "CN=CA 2");
    assert_eq!(ca.not_before(), now() - DAY);
    assert_eq!(ca.not_after(), now() + TEN_YEARS);
}

#[test]
fn a_root_has_no_chain_and_is_its_own_root() {
    let authority = authority();
    let ca = authority.ca();
    assert_eq!(ca.chain_pem(), "");
    assert_eq!(ca.root_pem(), ca.certificate_pem());
    assert!(
        ca.subject().starts_with("CN=Example CA, "),
        "{}",
        ca.subject()
    );
}

#[test]
fn the_root_may_stand_at_the_end_of_the_chain_or_apart_or_both() {
    let path = Path::of(1, |_, _| ());
    let apart = path.read().unwrap();
    let with_root = format!("{}{}", path.below_root[0], path.root);
    for root in ["", "\n", &path.root] {
        let read = CaCertificate::from_pem(with_root.as_bytes(), root.as_bytes(), now());
        assert_eq!(&read.unwrap(), apart.ca());
    }
    let root = path.root.as_bytes();
    let alone = CaCertificate::from_pem(root, b"", now()).unwrap();
    assert_eq!(
        CaCertificate::from_pem(root, root, now()).as_ref(),
        Ok(&alone)
    );
}

#[test]
fn the_longest_path_that_clients_follow_is_accepted_and_a_longer_one_refused() {
    let longest = Path::of(6, |_, _| ()).read().unwrap();
    assert!(longest.issue(&request(), now()).is_ok());
    expect(
        &Path::of(7, |_, _| ()),
        &AuthorityError::TooManyCertificates(8),
        "there are 8 certificates from the CA to its root, more than clients follow; \
         give a shorter path",
    );
}

#[test]
fn a_missing_root_is_found() {
    let mut path = Path::of(2, |_, _| ());
    path.root.clear();
    expect(
        &path,
        &AuthorityError::NoRoot(above(2, "CN=CA 1")),
        r#"certificate 2 on the path of the CA ("CN=CA 1") is not self-signed, and the root is missing; give the root too"#,
    );
    path.below_root.pop();
    expect(
        &path,
        &AuthorityError::NoRoot(PathMember::Ca),
        "the CA certificate is not self-signed, and the root is missing; give the root too",
    );
}

#[test]
fn a_root_that_is_none_is_found() {
    let mut path = Path::of(2, |_, _| ());
    path.root = path.below_root.pop().unwrap();
    expect(
        &path,
        &AuthorityError::NotSelfSigned(above(2, "CN=CA 1")),
        r#"certificate 2 on the path of the CA ("CN=CA 1") is not self-signed; give the root itself"#,
    );
}

#[test]
fn an_unreadable_root_is_found() {
    let mut path = Path::of(1, |_, _| ());
    path.root = "no PEM".to_owned();
    expect(
        &path,
        &AuthorityError::RootUnreadable,
        "the root of the CA is not readable; give one X.509 certificate in PEM",
    );
}

#[test]
fn two_roots_are_found() {
    let mut path = Path::of(1, |_, _| ());
    path.root += authority().ca().root_pem();
    expect(
        &path,
        &AuthorityError::TooManyRoots(2),
        "there are 2 certificates where the root of the CA belongs; give the root alone",
    );
}

#[test]
fn another_root_than_the_one_in_the_chain_is_found() {
    let mut path = Path::of(1, |_, _| ());
    path.below_root.push(path.root);
    path.root = authority().ca().root_pem().to_owned();
    expect(
        &path,
        &AuthorityError::OtherRoot,
        "the chain of the CA ends with another root than the one given for it; \
         give the root that signed it",
    );
}

#[test]
fn certificates_after_the_root_are_found() {
    let mut path = Path::of(1, |_, _| ());
    path.below_root.push(path.root.clone());
    path.below_root.push(authority().ca().root_pem().to_owned());
    path.root.clear();
    expect(
        &path,
        &AuthorityError::AfterRoot(above(2, "CN=CA 0")),
        r#"certificates follow certificate 2 on the path of the CA ("CN=CA 0"), which is self-signed; give the CA certificate, those between it and the root in order, and nothing after the root"#,
    );
    let (certificate, key) = root(&rcgen::PKCS_ECDSA_P256_SHA256, |_| ());
    let twice = certificate.repeat(2);
    let error = Authority::from_pem(twice.as_bytes(), b"", key.as_bytes(), now());
    let root = PathMember::Ca;
    assert_eq!(error.unwrap_err(), AuthorityError::AfterRoot(root));
}

#[test]
fn a_root_that_did_not_sign_is_found() {
    let mut path = Path::of(1, |_, _| ());
    let same_name = Path::of(1, |_, _| ());
    let other_name = authority();
    let other_subject = other_name.ca().subject();
    for (root, subject) in [
        (same_name.root, "CN=CA 0"),
        (other_name.ca().root_pem().to_owned(), &other_subject),
    ] {
        path.root = root;
        let next = above(2, subject);
        let sentence = format!(
            "the CA certificate is not signed by {next}; give the certificates in order, \
             each followed by the one that signed it"
        );
        let which = PathMember::Ca;
        expect(
            &path,
            &AuthorityError::BrokenPath { which, next },
            &sentence,
        );
    }
}

#[test]
fn a_link_that_is_missing_or_out_of_order_is_found() {
    let whole = Path::of(3, |_, _| ());
    let mut missing = whole.clone();
    missing.below_root.remove(1);
    expect_broken(&missing, PathMember::Ca, above(2, "CN=CA 1"));
    let mut swapped = whole.clone();
    swapped.below_root.swap(1, 2);
    expect_broken(&swapped, PathMember::Ca, above(2, "CN=CA 1"));
    let mut last_missing = whole;
    last_missing.below_root.pop();
    expect_broken(&last_missing, above(2, "CN=CA 2"), above(3, "CN=CA 0"));
}

#[test]
fn an_unreadable_certificate_on_the_path_is_found() {
    let mut path = Path::of(2, |_, _| ());
    path.below_root[1].truncate(200);
    assert_eq!(path.read().unwrap_err(), AuthorityError::Unreadable);
}

#[test]
fn a_certificate_on_the_path_that_is_no_authority_is_found() {
    expect_above(
        |params| params.is_ca = IsCa::ExplicitNoCa,
        AuthorityError::NotAnAuthority,
        "is not that of a CA; make one with basicConstraints CA:TRUE",
    );
}

#[test]
fn a_certificate_on_the_path_that_may_not_sign_is_found() {
    expect_above(
        |params| params.key_usages = vec![KeyUsagePurpose::CrlSign],
        AuthorityError::MayNotSign,
        "may not sign certificates; make one with keyUsage keyCertSign",
    );
}

#[test]
fn above_the_ca_a_missing_key_usage_allows_everything() {
    let path = Path::of(2, |above, params| {
        if above < 2 {
            params.key_usages.clear();
        }
    });
    assert!(path.read().unwrap().issue(&request(), now()).is_ok());
}

#[test]
fn a_certificate_on_the_path_out_of_time_is_found() {
    let yesterday = now() - DAY / 2;
    expect_above(
        move |params| params.not_after = date(yesterday),
        move |which| AuthorityError::Expired(which, yesterday),
        "expired at 2026-03-01T00:00:00Z; replace it",
    );
    let later = now() + SignedDuration::from_secs(1);
    expect_above(
        move |params| params.not_before = date(later),
        move |which| AuthorityError::NotYetValid(which, later),
        "is not valid before 2026-03-01T12:00:01Z; wait, or check the clock",
    );
}

#[test]
fn a_path_longer_than_one_above_allows_is_found() {
    for (constrained, allowed) in [(0, 1), (1, 0)] {
        let path = |allowed| {
            Path::of(2, move |above, params| {
                if above == constrained {
                    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(allowed));
                }
            })
        };
        let authority = path(allowed + 1).read().unwrap();
        assert!(authority.issue(&request(), now()).is_ok());
        let below = usize::from(allowed) + 1;
        let which = above(below + 1, &format!("CN=CA {constrained}"));
        let sentence = format!(
            "{which} allows a path length of {allowed}, but there are {below} CAs between it and \
             the leaves; make one with a greater pathLenConstraint, or sign with a CA nearer to it"
        );
        let allowed = u32::from(allowed);
        let error = AuthorityError::PathLength {
            which,
            allowed,
            below,
        };
        expect(&path(u8::try_from(allowed).unwrap()), &error, &sentence);
    }
}

#[test]
fn trust_is_in_the_roots_each_once_and_in_order() {
    let one = Path::of(1, |_, _| ());
    let renewed = one.renewed(|_| ()).read().unwrap();
    let (one, other) = (one.read().unwrap(), authority());
    let trust = Trust::of([one.ca(), other.ca(), renewed.ca()]);
    let roots = format!("{}{}", one.ca().root_pem(), other.ca().root_pem());
    assert_eq!(trust.pem(), roots);
    assert_eq!(trust, Trust::of([one.ca(), other.ca()]));

    let reordered = Trust::of([other.ca(), one.ca()]);
    let alone = Trust::of([other.ca()]);
    assert_eq!(alone.fingerprint(), other.ca().fingerprint());
    let different = [&trust, &reordered, &alone].map(Trust::fingerprint);
    assert!(different[0] != different[1] && different[1] != different[2]);
    assert_ne!(trust, reordered);
}

#[test]
fn trust_is_published_as_exactly_its_roots() {
    let (one, other) = (authority(), authority());
    let trust = Trust::of([one.ca(), other.ca()]);
    let blank_lines = trust.pem().replace('\n', "\r\n\n");
    for published in [trust.pem(), &blank_lines] {
        assert!(trust.is_published_in(published.as_bytes()));
    }
    let with_text = format!("text\n{}", trust.pem());
    let twice = trust.pem().repeat(2);
    let reordered = Trust::of([other.ca(), one.ca()]);
    for not in [
        "",
        "no PEM",
        one.ca().root_pem(),
        &with_text,
        &twice,
        reordered.pem(),
    ] {
        assert!(!trust.is_published_in(not.as_bytes()), "{not}");
    }
}

fn above(place: usize, subject: &str) -> PathMember {
    let subject = subject.to_owned();
    PathMember::Above { place, subject }
}

#[track_caller]
fn expect(path: &Path, error: &AuthorityError, sentence: &str) {
    assert_eq!(error.to_string(), sentence);
    assert_eq!(path.read().unwrap_err(), *error);
}

#[track_caller]
fn expect_broken(path: &Path, which: PathMember, next: PathMember) {
    let error = path.read().unwrap_err();
    assert_eq!(error, AuthorityError::BrokenPath { which, next });
}

/// Damages each of the upper two of a path of root, intermediate and CA.
#[track_caller]
fn expect_above(
    change: impl Fn(&mut CertificateParams),
    error: impl Fn(PathMember) -> AuthorityError,
    sentence: &str,
) {
    for damaged in [0, 1] {
        let path = Path::of(2, |above, params| {
            if above == damaged {
                change(params);
            }
        });
        let which = above(3 - damaged, &format!("CN=CA {damaged}"));
        let sentence = format!("{which} {sentence}");
        expect(&path, &error(which), &sentence);
    }
}
