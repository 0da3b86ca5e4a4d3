//! `recognize` proves where a certificate comes from, and whom it is for, and nothing else.

use pki_certs::{Authority, KeyAlgorithm, KeyEncoding, LeafRequest, Usage, VerifyError, recognize};
use rcgen::{IsCa, KeyIdMethod, PKCS_ECDSA_P256_SHA256 as P256};

use crate::fixtures::{DAY, Path, Stored, authority, brought, date, forge, now, request};

fn recognized(stored: &Stored, authorities: &[&Authority]) -> Result<(), VerifyError> {
    let issuers: Vec<_> = authorities.iter().map(|it| it.ca()).collect();
    recognize(&stored.bundle(), &request(), &issuers)
}

#[test]
fn a_leaf_for_the_same_names_is_recognized_after_other_changes() {
    let (before, other) = (authority(), authority());
    let long_ago = Authority::generate("Example CA", 1000 * DAY, now() - 900 * DAY).unwrap();
    let issued = |change: fn(&mut LeafRequest)| {
        let mut requested = request();
        change(&mut requested);
        Stored::issued(&before, &requested)
    };
    for stored in [
        issued(|_| ()),
        issued(|r| r.usages = vec![Usage::ServerAuth]),
        issued(|r| r.duration = DAY),
        issued(|r| r.key = KeyAlgorithm::EcdsaP384),
        issued(|r| r.key_encoding = KeyEncoding::Traditional),
        issued(|r| r.dns_names.reverse()),
    ] {
        assert_eq!(recognized(&stored, &[&before]), Ok(()));
        assert_eq!(recognized(&stored, &[&other, &before]), Ok(()));
        assert_eq!(
            recognized(&stored, &[&other]),
            Err(VerifyError::OtherIssuer)
        );
        assert_eq!(recognized(&stored, &[]), Err(VerifyError::OtherIssuer));
    }
    let expired = long_ago.issue(&request(), now() - 800 * DAY).unwrap();
    assert_eq!(recognized(&Stored::new(&expired), &[&long_ago]), Ok(()));
    let intermediate = Path::of(2, |_, _| ()).read().unwrap();
    let stored = Stored::issued(&intermediate, &request());
    assert_eq!(recognized(&stored, &[&intermediate]), Ok(()));
}

#[test]
fn other_names_other_keys_and_other_signers_are_not() {
    let authority = authority();
    let issued = |change: fn(&mut LeafRequest)| {
        let mut requested = request();
        change(&mut requested);
        Stored::issued(&authority, &requested)
    };
    let common_name = issued(|r| r.common_name = Some("app2".to_owned()));
    assert!(matches!(
        recognized(&common_name, &[&authority]),
        Err(VerifyError::CommonName { .. })
    ));
    for stored in [
        issued(|r| r.dns_names.push("a.example.com".to_owned())),
        issued(|r| r.dns_names.truncate(1)),
        issued(|r| r.dns_names[0] = "app1.team-b.svc".to_owned()),
        issued(|r| r.ip_addresses.clear()),
        issued(|r| r.uris[0].push('x')),
    ] {
        let fault = recognized(&stored, &[&authority]);
        assert!(matches!(fault, Err(VerifyError::Names { .. })), "{fault:?}");
    }
    let mut other_key = issued(|_| ());
    other_key.private_key = issued(|_| ()).private_key;
    assert_eq!(
        recognized(&other_key, &[&authority]),
        Err(VerifyError::PrivateKeyMismatch)
    );
    let mut missing = issued(|_| ());
    missing.private_key.clear();
    assert_eq!(
        recognized(&missing, &[&authority]),
        Err(VerifyError::PrivateKeyUnreadable)
    );
    missing.certificate.clear();
    assert_eq!(
        recognized(&missing, &[&authority]),
        Err(VerifyError::CertificateUnreadable)
    );

    // Somebody who signs in the name of the CA, with its key identifier.
    let twin =
        || brought(|params| params.key_identifier_method = KeyIdMethod::PreSpecified(vec![7; 20]));
    let (impostor, present) = (twin(), twin());
    let forged = Stored::issued(&impostor, &request());
    assert_eq!(
        recognized(&forged, &[&present]),
        Err(VerifyError::Signature)
    );
    let a_ca = forge(&authority, &P256, |params| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_after = date(now() + DAY);
    });
    let fault = recognized(&a_ca, &[&authority]);
    assert!(
        matches!(fault, Err(VerifyError::Rejected { .. })),
        "{fault:?}"
    );
}
