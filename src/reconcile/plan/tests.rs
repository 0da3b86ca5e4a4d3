use super::*;
use crate::api::PkiSpec;
use crate::reconcile::secret::manifest;
use jiff::SignedDuration;
use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pki_certs::{KeyAlgorithm, LeafRequest};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn now() -> Timestamp {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

fn authority() -> Authority {
    Authority::generate("ca", 1000 * HOUR, now() - HOUR).unwrap()
}

fn pki() -> Pki {
    let mut pki = Pki::new("app1-pki", PkiSpec::default());
    (pki.metadata.namespace, pki.metadata.uid) = (Some("ns".into()), Some("uid".into()));
    pki
}

fn approved() -> Approved {
    Approved {
        certificate: LeafRequest {
            common_name: "app1".into(),
            dns_names: vec!["app1.ns.svc".into(), "app1.ns.svc.cluster.local".into()],
            ip_addresses: vec![],
            duration: 90 * HOUR,
            key: KeyAlgorithm::EcdsaP256,
        },
        secret_name: "app1-pki".into(),
        renew_before: Some(30 * HOUR),
        policy: "default".into(),
    }
}

fn violation() -> Violation {
    Violation::ServiceNameShape {
        name: "App1".into(),
    }
}

fn rival() -> Key {
    Key::new("ns", "rival")
}

/// The Secret that `request` gets from `authority` at `now`.
fn secret_of(request: &LeafRequest, authority: &Authority, now: Timestamp) -> Secret {
    let leaf = authority.issue(request, now).unwrap();
    manifest(&pki(), "app1-pki", &leaf, authority, None)
}

/// The plan for an approved Pki whose own Secret this is.
fn plan_for(secret: Secret, authority: &Authority, now: Timestamp) -> Plan {
    let observed = Observed {
        pki: &pki(),
        verdict: Ok(approved()),
        rival: None,
        secret: Some((secret, Owner::Ours)),
        authority,
    };
    plan(observed, now)
}

fn set(secret: &mut Secret, file: &str, content: &[u8]) {
    let data = secret.data.as_mut().unwrap();
    data.insert(file.into(), ByteString(content.to_vec()));
}

fn take(secret: &Secret, file: &str) -> Vec<u8> {
    secret.data.as_ref().unwrap()[file].0.clone()
}

/// What is found when everything that could be wrong is, and then one thing after the other is mended.
#[test]
fn deletion_comes_before_rules_before_ownership_before_arbitration() {
    let authority = authority();
    let decide = |deleting: bool, refused: bool, rival: Option<Key>, owner: Option<Owner>| {
        let mut pki = pki();
        pki.metadata.deletion_timestamp = deleting.then(|| Time(now()));
        let secret = secret_of(&approved().certificate, &authority, now());
        let observed = Observed {
            pki: &pki,
            verdict: if refused {
                Err(vec![violation()])
            } else {
                Ok(approved())
            },
            rival,
            secret: owner.map(|owner| (secret, owner)),
            authority: &authority,
        };
        match plan(observed, now()) {
            Plan::Issue(_, need) => format!("issue: {need}"),
            Plan::Keep { .. } => "keep".into(),
            Plan::Refuse(violations) => format!("refuse: {}", violations.len()),
            Plan::Conflict { winner } => format!("conflict: {winner}"),
            Plan::Foreign => "foreign".into(),
            Plan::Await => "await".into(),
            Plan::Gone => "gone".into(),
        }
    };
    let holder = || Some(Owner::Rival(Key::new("ns", "holder")));
    for (deleting, refused, rival, owner, decision) in [
        (true, true, Some(rival()), Some(Owner::Foreign), "gone"),
        (
            false,
            true,
            Some(rival()),
            Some(Owner::Foreign),
            "refuse: 1",
        ),
        (false, false, Some(rival()), Some(Owner::Foreign), "foreign"),
        (false, false, None, Some(Owner::Foreign), "foreign"),
        (false, false, Some(rival()), holder(), "conflict: ns/holder"),
        (false, false, None, holder(), "conflict: ns/holder"),
        (
            false,
            false,
            Some(rival()),
            Some(Owner::FormerPki),
            "conflict: ns/rival",
        ),
        (false, false, None, Some(Owner::FormerPki), "await"),
        (false, false, Some(rival()), None, "conflict: ns/rival"),
        (false, false, None, None, "issue: there is no Secret"),
        (false, false, Some(rival()), Some(Owner::Ours), "keep"),
        (false, false, None, Some(Owner::Ours), "keep"),
    ] {
        let case = format!("{deleting} {refused} {rival:?} {owner:?}");
        assert_eq!(decide(deleting, refused, rival, owner), decision, "{case}");
    }
}

#[test]
fn a_sound_secret_is_kept_whatever_else_is_in_it() {
    let authority = authority();
    let mut secret = secret_of(&approved().certificate, &authority, now());
    set(&mut secret, "keystore.p12", b"made by somebody else");
    secret.metadata.labels = None;
    let Plan::Keep { verified, renew_at } = plan_for(secret, &authority, now()) else {
        panic!("it is sound");
    };
    assert_eq!(verified.not_after, now() + 90 * HOUR);
    assert_eq!(renew_at, now() + 60 * HOUR);
}

#[test]
fn renewal_is_due_at_its_time_and_not_a_moment_before() {
    let authority = authority();
    let secret = secret_of(&approved().certificate, &authority, now());
    let due = now() + 60 * HOUR;
    let at = |time| match plan_for(secret.clone(), &authority, time) {
        Plan::Keep { renew_at, .. } => format!("keep until {renew_at}"),
        Plan::Issue(_, need) => need.label().into(),
        other => panic!("{other:?}"),
    };
    let a_moment = SignedDuration::from_nanos(1);
    assert_eq!(at(due - a_moment), format!("keep until {due}"));
    assert_eq!(at(due), "renewal");
    assert_eq!(at(now() + 89 * HOUR), "renewal");
    assert_eq!(at(now() + 91 * HOUR), "unsound", "it has expired meanwhile");
}

fn expect_fault(secret: Secret, authority: &Authority, time: Timestamp, fault: &str) {
    match plan_for(secret, authority, time) {
        Plan::Issue(_, Need::Unsound(found)) => {
            let found = format!("{found:?}");
            assert!(found.starts_with(fault), "{found} instead of {fault}");
        }
        other => panic!("{fault}: {other:?}"),
    }
}

#[test]
fn every_kind_of_damage_is_mended_by_a_new_certificate() {
    let authority = authority();
    let request = approved().certificate;
    let sound = secret_of(&request, &authority, now());
    let another = secret_of(&request, &authority, now());
    let stranger = Authority::generate("ca", 1000 * HOUR, now() - HOUR).unwrap();
    let twice = [take(&sound, "tls.crt"), take(&another, "tls.crt")].concat();
    let other_key = take(&another, "tls.key");
    let other_ca = stranger.certificate_pem().as_bytes();
    for (file, content, fault) in [
        ("tls.crt", &b""[..], "CertificateUnreadable"),
        ("tls.crt", b"garbage", "CertificateUnreadable"),
        ("tls.crt", &twice, "NotOneCertificate"),
        ("tls.key", b"", "PrivateKeyUnreadable"),
        ("tls.key", b"garbage", "PrivateKeyUnreadable"),
        ("tls.key", &other_key, "PrivateKeyMismatch"),
        ("ca.crt", b"", "AuthorityMissing"),
        ("ca.crt", b"garbage", "AuthorityUnreadable"),
        ("ca.crt", other_ca, "AuthorityMissing"),
    ] {
        let mut secret = sound.clone();
        set(&mut secret, file, content);
        expect_fault(secret, &authority, now(), fault);
    }
    let nothing = Secret {
        data: None,
        ..sound
    };
    expect_fault(nothing, &authority, now(), "CertificateUnreadable");
}

#[test]
fn a_certificate_that_is_not_what_is_wanted_gives_way_to_a_new_one() {
    let authority = authority();
    let requested = |change: fn(&mut LeafRequest)| {
        let mut other = approved().certificate;
        change(&mut other);
        secret_of(&other, &authority, now())
    };
    for (secret, fault) in [
        (
            requested(|r| r.dns_names[0] = "app2.ns.svc".into()),
            "Names",
        ),
        (
            requested(|r| r.dns_names.push("x.example.com".into())),
            "Names",
        ),
        (requested(|r| r.common_name = "app2".into()), "CommonName"),
        (requested(|r| r.duration = 80 * HOUR), "Duration"),
    ] {
        expect_fault(secret, &authority, now(), fault);
    }
    let request = approved().certificate;
    let old = secret_of(&request, &authority, now() - HOUR / 2);
    expect_fault(old, &authority, now() + 90 * HOUR, "Expired");
    let early = secret_of(&request, &authority, now() + 200 * HOUR);
    expect_fault(early, &authority, now(), "NotYetValid");

    let stranger = Authority::generate("ca", 1000 * HOUR, now() - HOUR).unwrap();
    let mut of_stranger = secret_of(&request, &stranger, now());
    let ca = authority.certificate_pem().as_bytes();
    set(&mut of_stranger, "ca.crt", ca);
    expect_fault(of_stranger, &authority, now(), "OtherIssuer");
}

#[test]
fn the_reason_to_issue_is_one_word_for_the_metrics_and_a_sentence_for_the_log() {
    let unsound = Need::Unsound(Fault::PrivateKeyMismatch);
    for (need, word, sentence) in [
        (Need::NoSecret, "missing", "there is no Secret"),
        (unsound, "unsound", "tls.key does not belong to tls.crt"),
        (Need::Renewal, "renewal", "renewal is due"),
    ] {
        assert_eq!((need.label(), need.to_string().as_str()), (word, sentence));
    }
}
