//! What is decided, over time and under all that can happen to a Secret.

use super::facts::needs_secret;
use super::*;
use crate::api::{self, Pki, PkiPolicy, PkiStatus};
use crate::controllers::pki::content::formats::Passwords;
use crate::model::ca::Alarm;
use crate::model::outcome::{self, Outcome};
use crate::model::renewal_request::{self, RENEW_NOW};
use crate::policy::RuleBook;
use crate::util::time::tests::now;
use jiff::SignedDuration;
use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pki_certs::{Authority, LeafRequest, Trust};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn authority() -> Authority {
    Authority::generate("ca", 1000 * HOUR, now() - HOUR).unwrap()
}

fn ca() -> Ca {
    Ca::of(authority())
}

/// For 90 hours, of which 60 pass before it is renewed.
fn pki() -> Pki {
    api::tests::pki(json!({ "duration": "90h", "renewBefore": "30h" }))
}

fn approved() -> Approved {
    api::tests::approved(&pki())
}

/// The Secret that `pki` gets from this CA at `now`.
fn secret_for(pki: &Pki, approved: &Approved, ca: &Ca, now: Timestamp) -> Secret {
    let signer = ca.signer.as_ref().unwrap();
    let leaf = signer.issue(&approved.certificate, now).unwrap();
    let bundle = pki_certs::Bundle {
        certificate: leaf.chain_pem.as_bytes(),
        private_key: leaf.private_key_pem.as_bytes(),
    };
    let content = SecretContent {
        pki,
        approved,
        bundle,
        trust: &ca.trust,
        passwords: &Passwords::default(),
    };
    content.manifest().0
}

/// The Secret of [`pki`] for another request.
fn secret_of(request: &LeafRequest, ca: &Ca, now: Timestamp) -> Secret {
    let mut approved = approved();
    approved.certificate = request.clone();
    secret_for(&pki(), &approved, ca, now)
}

fn sound(ca: &Ca) -> Secret {
    secret_for(&pki(), &approved(), ca, now())
}

/// The plan for this Pki, which no rule refuses and whose own Secret this is.
fn plan_for(pki: &Pki, secret: Secret, ca: &Ca, now: Timestamp) -> Action {
    let verdict = Ok(api::tests::approved(pki));
    let secret = stored(secret, Owner::Ours);
    action(pki.clone(), verdict, None, secret, ca, now)
}

fn action(
    pki: Pki,
    verdict: Result<Approved, Vec<Violation>>,
    rival: Option<Key>,
    secret: SecretState,
    ca: &Ca,
    now: Timestamp,
) -> Action {
    let observed = Observed {
        rival,
        secret,
        ..Observed::of(pki, verdict, ca)
    };
    plan(&observed, now).action
}

fn stored(secret: Secret, owner: Owner) -> SecretState {
    SecretState::Stored(Box::new(secret), owner)
}

/// In few words.
fn said(action: &Action) -> String {
    match action {
        Action::Issue(_, need) => format!("issue: {need}"),
        Action::Repair(..) => "repair".into(),
        Action::Keep(_) => "keep".into(),
        Action::Refuse {
            violations,
            is_unpublished,
        } => format!(
            "refuse: {}, unpublished: {is_unpublished}",
            violations.len()
        ),
        Action::ServePods(approved) => format!("serve pods by {}", approved.policy),
        Action::Conflict { winner } => format!("conflict: {winner}"),
        Action::Foreign(obstacle) => format!("foreign: {obstacle:?}"),
        Action::Adopt => "adopt".into(),
        Action::CaUnavailable(alarm) => format!("unsigned: {alarm}"),
        Action::WaitForDeletion => "wait for deletion".into(),
        Action::BeingDeleted => "being deleted".into(),
        Action::Fail(failure) => format!("fail: {}", failure.error),
        Action::ReleaseSecret => "release".into(),
        Action::RemoveFinalizer => "remove finalizer".into(),
    }
}

fn current(action: Action) -> Current {
    match action {
        Action::Keep(current) | Action::Repair(current) => current,
        other => panic!("{}", said(&other)),
    }
}

fn set(secret: &mut Secret, file: &str, content: &[u8]) {
    let data = secret.data.as_mut().unwrap();
    data.insert(file.into(), ByteString(content.to_vec()));
}

fn take(secret: &Secret, file: &str) -> Vec<u8> {
    secret.data.as_ref().unwrap()[file].0.clone()
}

fn violation() -> Violation {
    Violation::service_name("App1")
}

fn rival() -> Key {
    Key::new("ns", "rival")
}

/// What is found when everything that could be wrong is, and then one thing after the other is
/// repaired.
#[test]
fn deletion_comes_before_rules_before_ownership_before_arbitration() {
    let ca = ca();
    let decide = |deleting: bool, refused: bool, rival: Option<Key>, owner: Option<Owner>| {
        let mut pki = pki();
        pki.metadata.deletion_timestamp = deleting.then(|| Time(now()));
        let verdict = if refused {
            Err(vec![violation()])
        } else {
            Ok(approved())
        };
        let secret = owner.map_or(SecretState::Absent, |owner| stored(sound(&ca), owner));
        said(&action(pki, verdict, rival, secret, &ca, now()))
    };
    let holder = || Some(Owner::Rival(Key::new("ns", "holder")));
    let foreign = || Some(Owner::Foreign(Obstacle::Immutable));
    for (deleting, refused, rival, owner, decision) in [
        (true, true, Some(rival()), foreign(), "being deleted"),
        (
            false,
            true,
            Some(rival()),
            foreign(),
            "refuse: 1, unpublished: false",
        ),
        (false, false, Some(rival()), foreign(), "foreign: Immutable"),
        (false, false, None, foreign(), "foreign: Immutable"),
        (false, false, Some(rival()), holder(), "conflict: ns/holder"),
        (false, false, None, holder(), "conflict: ns/holder"),
        (
            false,
            false,
            Some(rival()),
            Some(Owner::FormerPki),
            "conflict: ns/rival",
        ),
        (
            false,
            false,
            None,
            Some(Owner::FormerPki),
            "wait for deletion",
        ),
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
    let ca = ca();
    let mut secret = sound(&ca);
    set(&mut secret, "notes.txt", b"made by somebody else");
    let labels = secret.metadata.labels.as_mut().unwrap();
    labels.insert("team".into(), "a".into());
    let annotations = [("note".to_owned(), "mine".to_owned())];
    secret.metadata.annotations = Some(annotations.into());
    let plan = plan_for(&pki(), secret, &ca, now());
    assert_eq!(said(&plan), "keep");
    let Current {
        verified, renew_at, ..
    } = current(plan);
    assert_eq!(verified.not_after, now() + 90 * HOUR);
    assert!(!verified.cut_short);
    // Up to a tenth of the waiting earlier, so that not all come at once.
    assert!((now() + 54 * HOUR..=now() + 60 * HOUR).contains(&renew_at));
}

#[test]
fn renewal_is_due_at_its_time_and_not_a_moment_before() {
    let ca = ca();
    let secret = sound(&ca);
    let at = |time| said(&plan_for(&pki(), secret.clone(), &ca, time));
    let due = current(plan_for(&pki(), secret.clone(), &ca, now())).renew_at;
    let a_moment = SignedDuration::from_nanos(1);
    assert_eq!(at(due - a_moment), "keep");
    assert_eq!(at(due), "issue: renewal is due");
    assert_eq!(at(now() + 89 * HOUR), "issue: renewal is due");
    assert_eq!(
        at(now() + 91 * HOUR),
        "issue: tls.crt expired at 2030-01-04T18:00:00Z"
    );
}

fn expect_fault(secret: Secret, ca: &Ca, time: Timestamp, fault: &str) {
    match plan_for(&pki(), secret, ca, time) {
        Action::Issue(_, IssueReason::Invalid(found)) => {
            let found = format!("{found:?}");
            assert!(found.starts_with(fault), "{found} instead of {fault}");
        }
        other => panic!("{fault}: {other:?}"),
    }
}

#[test]
fn every_kind_of_damage_is_repaired_by_a_new_certificate() {
    let ca = ca();
    let (sound, another) = (sound(&ca), sound(&ca));
    let twice = [take(&sound, "tls.crt"), take(&another, "tls.crt")].concat();
    let other_key = take(&another, "tls.key");
    for (file, content, fault) in [
        ("tls.crt", &b""[..], "CertificateUnreadable"),
        ("tls.crt", b"garbage", "CertificateUnreadable"),
        ("tls.crt", &twice, "ChainLength"),
        ("tls.key", b"", "PrivateKeyUnreadable"),
        ("tls.key", b"garbage", "PrivateKeyUnreadable"),
        ("tls.key", &other_key, "PrivateKeyMismatch"),
    ] {
        let mut secret = sound.clone();
        set(&mut secret, file, content);
        expect_fault(secret, &ca, now(), fault);
    }
    let nothing = Secret {
        data: None,
        ..sound
    };
    expect_fault(nothing, &ca, now(), "CertificateUnreadable");
}

#[test]
fn a_certificate_with_the_common_name_of_version_0_2_stays_until_its_renewal() {
    let ca = ca();
    let mut former = approved().certificate;
    assert_eq!(former.common_name.as_deref(), Some("app1.ns.svc"));
    former.common_name = Some("app1".into());
    let secret = secret_of(&former, &ca, now());
    let kept = plan_for(&pki(), secret.clone(), &ca, now());
    assert_eq!(said(&kept), "keep");
    match plan_for(&pki(), secret.clone(), &ca, current(kept).renew_at) {
        Action::Issue(approved, IssueReason::Renewal) => {
            let renewed = approved.certificate.common_name.as_deref();
            assert_eq!(renewed, Some("app1.ns.svc"));
        }
        other => panic!("{other:?}"),
    }
    // A name in the spec is compared as it is.
    let spec = json!({ "commonName": "app1.ns.svc", "duration": "90h", "renewBefore": "30h" });
    let plan = plan_for(&api::tests::pki(spec), secret, &ca, now());
    assert_eq!(
        said(&plan),
        "issue: the subject of tls.crt is \"CN=app1\" instead of \"CN=app1.ns.svc\""
    );
}

#[test]
fn a_certificate_that_is_not_what_is_wanted_gives_way_to_a_new_one() {
    let ca = ca();
    let requested = |change: fn(&mut LeafRequest)| {
        let mut other = approved().certificate;
        change(&mut other);
        secret_of(&other, &ca, now())
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
        (
            requested(|r| r.ip_addresses.push([10, 1, 2, 3].into())),
            "Names",
        ),
        (
            requested(|r| r.uris.push("spiffe://example.com/a".into())),
            "Names",
        ),
        (
            requested(|r| r.common_name = Some("app2".into())),
            "CommonName",
        ),
        (requested(|r| r.duration = 80 * HOUR), "Duration"),
        (
            requested(|r| r.key = pki_certs::KeyAlgorithm::EcdsaP384),
            "KeyAlgorithm",
        ),
        (
            requested(|r| r.key_encoding = pki_certs::KeyEncoding::Traditional),
            "KeyEncoding",
        ),
        (
            requested(|r| r.usages = vec![pki_certs::Usage::ServerAuth]),
            "Usage",
        ),
    ] {
        expect_fault(secret, &ca, now(), fault);
    }
    let request = approved().certificate;
    let old = secret_of(&request, &ca, now() - HOUR / 2);
    expect_fault(old, &ca, now() + 90 * HOUR, "Expired");
    let early = secret_of(&request, &ca, now() + 200 * HOUR);
    expect_fault(early, &ca, now(), "NotYetValid");

    let mut of_stranger = sound(&self::ca());
    set(&mut of_stranger, "ca.crt", ca.trust.pem().as_bytes());
    expect_fault(of_stranger, &ca, now(), "OtherIssuer");
}

#[test]
fn the_reason_to_issue_is_one_word_for_the_metrics_and_a_sentence_for_the_log() {
    let unsound = IssueReason::Invalid(VerifyError::PrivateKeyMismatch);
    for (need, word, is_damage, sentence) in [
        (IssueReason::NoSecret, "missing", true, "there is no Secret"),
        (
            unsound,
            "unsound",
            true,
            "tls.key does not belong to tls.crt",
        ),
        (IssueReason::Renewal, "renewal", false, "renewal is due"),
        (
            IssueReason::Request,
            "request",
            false,
            "the Pki was annotated with box.com/renew-now",
        ),
        (
            IssueReason::OtherCa,
            "ca",
            false,
            "its CA is being replaced",
        ),
    ] {
        assert_eq!((need.label(), need.to_string().as_str()), (word, sentence));
        assert_eq!(need.is_damage(), is_damage, "{word}");
    }
}

/// With labels and annotations of its own.
fn labelled() -> Pki {
    let template = json!({ "labels": { "team": "a" }, "annotations": { "example.com/note": "b" } });
    api::tests::pki(json!({ "duration": "90h", "renewBefore": "30h", "secretTemplate": template }))
}

/// Says that this manager has set these fields.
fn managed(secret: &mut Secret, manager: &str, fields: &Value) {
    let entry = json!({ "manager": manager, "operation": "Update", "fieldsV1": fields });
    let entry = serde_json::from_value(entry).unwrap();
    secret
        .metadata
        .managed_fields
        .get_or_insert_default()
        .push(entry);
}

fn insert(map: &mut Option<std::collections::BTreeMap<String, String>>, key: &str, value: &str) {
    map.get_or_insert_default().insert(key.into(), value.into());
}

type Change = fn(&mut Secret);

#[test]
fn what_is_wrong_around_a_sound_certificate_is_repaired_without_a_new_one() {
    let (ca, pki) = (ca(), labelled());
    let changes: [(&str, Change); 16] = [
        ("ca.crt is gone", |s| set(s, "ca.crt", b"")),
        ("ca.crt is garbage", |s| set(s, "ca.crt", b"garbage")),
        ("ca.crt is another", |s| {
            set(s, "ca.crt", self::ca().trust.pem().as_bytes());
        }),
        ("ca.crt has one more", |s| {
            let more = [take(s, "ca.crt"), self::ca().trust.pem().into()].concat();
            set(s, "ca.crt", &more);
        }),
        ("all labels are gone", |s| s.metadata.labels = None),
        ("a label is gone", |s| {
            drop(s.metadata.labels.as_mut().unwrap().remove("team"));
        }),
        ("a label has changed", |s| {
            insert(&mut s.metadata.labels, "team", "b");
        }),
        ("the operator's label has changed", |s| {
            insert(
                &mut s.metadata.labels,
                "app.kubernetes.io/managed-by",
                "Helm",
            );
        }),
        ("the annotations are gone", |s| {
            s.metadata.annotations = None;
        }),
        ("an annotation has changed", |s| {
            insert(&mut s.metadata.annotations, "example.com/note", "");
        }),
        ("a label is left of an earlier template", |s| {
            insert(&mut s.metadata.labels, "tier", "1");
            managed(
                s,
                "pki-operator",
                &json!({ "f:metadata": { "f:labels": { ".": {}, "f:tier": {} } } }),
            );
        }),
        ("an annotation is left of an earlier template", |s| {
            insert(&mut s.metadata.annotations, "example.com/tier", "1");
            let fields = json!({ "f:metadata": { "f:annotations": { "f:example.com/tier": {} } } });
            managed(s, "pki-operator", &fields);
        }),
        ("a keystore is left of an earlier choice", |s| {
            set(s, "keystore.p12", b"old");
            managed(
                s,
                "pki-operator",
                &json!({ "f:data": { "f:keystore.p12": {} } }),
            );
        }),
        ("a combined file is left of an earlier choice", |s| {
            set(s, "tls-combined.pem", b"old");
            managed(
                s,
                "pki-operator",
                &json!({ "f:data": { "f:tls-combined.pem": {} } }),
            );
        }),
        ("it is offered and belongs to nobody", |s| {
            s.metadata.owner_references = None;
            insert(&mut s.metadata.annotations, "box.com/adopt", "app1-pki");
        }),
        ("the Pki is not its controller", |s| {
            s.metadata.owner_references.as_mut().unwrap()[0].controller = None;
        }),
    ];
    let sound = secret_for(&pki, &api::tests::approved(&pki), &ca, now());
    let serial = current(plan_for(&pki, sound.clone(), &ca, now()))
        .verified
        .serial;
    for (case, change) in changes {
        let mut secret = sound.clone();
        change(&mut secret);
        let plan = plan_for(&pki, secret, &ca, now());
        assert_eq!(said(&plan), "repair", "{case}");
        assert_eq!(current(plan).verified.serial, serial, "{case}");
    }
}

#[test]
fn what_others_have_added_is_theirs() {
    let (ca, pki) = (ca(), labelled());
    let changes: [(&str, Change); 9] = [
        ("nothing has changed", |_| {}),
        ("ca.crt has blank lines", |s| {
            let spaced = [b"\n", take(s, "ca.crt").as_slice(), b"\n\n"].concat();
            set(s, "ca.crt", &spaced);
        }),
        ("a label of nobody", |s| {
            insert(&mut s.metadata.labels, "tier", "1");
        }),
        ("a label of somebody else", |s| {
            insert(&mut s.metadata.labels, "tier", "1");
            managed(
                s,
                "kubectl-label",
                &json!({ "f:metadata": { "f:labels": { "f:tier": {} } } }),
            );
        }),
        ("a label that was the operator's and is gone", |s| {
            managed(
                s,
                "pki-operator",
                &json!({ "f:metadata": { "f:labels": { "f:tier": {} } } }),
            );
        }),
        ("what the operator has set and would set again", |s| {
            let labels = json!({ "f:team": {}, "f:app.kubernetes.io/managed-by": {} });
            let metadata =
                json!({ "f:labels": labels, "f:annotations": { "f:example.com/note": {} } });
            let data = json!({ "f:ca.crt": {}, "f:tls.crt": {}, "f:tls.key": {} });
            managed(
                s,
                "pki-operator",
                &json!({ "f:metadata": metadata, "f:data": data }),
            );
        }),
        ("an annotation that steers another tool", |s| {
            insert(
                &mut s.metadata.annotations,
                "reflector.example.com/on",
                "true",
            );
        }),
        ("a file of a name that the operator could write", |s| {
            set(s, "keystore.p12", b"made by somebody else");
            managed(s, "keytool", &json!({ "f:data": { "f:keystore.p12": {} } }));
        }),
        ("a file of any other name", |s| {
            set(s, "notes.txt", b"text");
            managed(
                s,
                "pki-operator",
                &json!({ "f:data": { "f:notes.txt": {} } }),
            );
        }),
    ];
    let sound = secret_for(&pki, &api::tests::approved(&pki), &ca, now());
    for (case, change) in changes {
        let mut secret = sound.clone();
        change(&mut secret);
        assert_eq!(said(&plan_for(&pki, secret, &ca, now())), "keep", "{case}");
    }
}

#[test]
fn an_offered_secret_gets_a_certificate_if_it_has_none_that_will_do() {
    let ca = ca();
    let mut secret = sound(&self::ca());
    secret.metadata.owner_references = None;
    insert(
        &mut secret.metadata.annotations,
        "box.com/adopt",
        "app1-pki",
    );
    assert_eq!(
        said(&plan_for(&pki(), secret, &ca, now())),
        "issue: tls.crt was issued by another CA"
    );
}

/// The Pki, whose status tells of this certificate and of a request that was served at this time.
fn scheduled(serial: Option<&str>, renewal: Option<Timestamp>) -> Pki {
    let mut pki = pki();
    pki.status = Some(api::PkiStatus {
        serial_number: serial.map(str::to_owned),
        renewal_time: renewal.map(Time),
        renewal_request: renewal.map(|at| api::RenewalRequest {
            served_time: Some(Time(at)),
            ..api::RenewalRequest::default()
        }),
        ..api::PkiStatus::default()
    });
    pki
}

#[test]
fn a_request_that_comes_too_early_is_when_the_certificate_is_renewed() {
    let ca = ca();
    let secret = sound(&ca);
    let mut pki = pki();
    let usual = current(plan_for(&pki, secret.clone(), &ca, now())).renew_at;
    insert(&mut pki.metadata.annotations, RENEW_NOW, "a");
    pki.status = Some(renewal_request::served(&pki, now()));
    let renew_at = |pki: &Pki, seconds| {
        let at = now() + SignedDuration::from_secs(seconds);
        current(plan_for(pki, secret.clone(), &ca, at)).renew_at
    };
    assert_eq!(
        renew_at(&pki, 60),
        usual,
        "the same value is not served again"
    );
    insert(&mut pki.metadata.annotations, RENEW_NOW, "b");
    assert_eq!(renew_at(&pki, 60), now() + renewal_request::MIN_INTERVAL);
    assert_eq!(
        renew_at(&pki, 300),
        usual,
        "it is noted in the status first"
    );
}

#[test]
fn a_renewal_is_asked_for_by_the_time_in_the_status_of_this_very_certificate() {
    let ca = ca();
    let secret = sound(&ca);
    let known = current(plan_for(&pki(), secret.clone(), &ca, now()));
    let own = known.verified.serial.clone();
    let request = "issue: the Pki was annotated with box.com/renew-now";
    let second = SignedDuration::from_secs(1);
    for (serial, renewal, decision) in [
        (Some(own.as_str()), Some(now()), request),
        (Some(&own), Some(now() - HOUR), request),
        (Some(&own), Some(now() + second), "keep"),
        (Some(&own), None, "keep"),
        (Some("0A"), Some(now() - HOUR), "keep"),
        (None, Some(now() - HOUR), "keep"),
    ] {
        let pki = scheduled(serial, renewal);
        let plan = plan_for(&pki, secret.clone(), &ca, now());
        assert_eq!(said(&plan), decision, "{serial:?} {renewal:?}");
        if decision == "keep" {
            assert_eq!(current(plan), known, "{serial:?} {renewal:?}");
        }
    }
    for request in [
        None,
        Some(api::RenewalRequest {
            served_time: Some(Time(now() - HOUR)),
            ..api::RenewalRequest::default()
        }),
    ] {
        let mut forged = scheduled(Some(&own), Some(now()));
        let status = forged.status.as_mut().expect("it has one");
        status.renewal_request = request;
        let plan = plan_for(&forged, secret.clone(), &ca, now());
        assert_eq!(current(plan), known, "no request was served at that time");
    }
    // It has been served: there is another certificate, and the status still tells of the one
    // before.
    let pki = scheduled(Some(&own), Some(now()));
    let later = now() + HOUR;
    let renewed = secret_for(&pki, &approved(), &ca, later);
    assert_eq!(said(&plan_for(&pki, renewed, &ca, later)), "keep");
}

#[test]
fn a_renewal_time_that_has_not_come_does_not_put_the_renewal_off() {
    let ca = ca();
    let secret = sound(&ca);
    let known = current(plan_for(&pki(), secret.clone(), &ca, now()));
    let pki = scheduled(Some(&known.verified.serial), Some(now() + 80 * HOUR));
    let plan = plan_for(&pki, secret, &ca, known.renew_at);
    assert_eq!(said(&plan), "issue: renewal is due");
}

/// What is stored in the status has whole seconds, as all times in the API.
#[test]
fn an_ordinary_renewal_is_not_taken_for_a_request() {
    let ca = ca();
    for _ in 0..5 {
        let secret = sound(&ca);
        let known = current(plan_for(&pki(), secret.clone(), &ca, now()));
        let stored = serde_json::to_value(Time(known.renew_at)).unwrap();
        let stored: Time = serde_json::from_value(stored).unwrap();
        assert_eq!(stored.0, known.renew_at);
        let pki = scheduled(Some(&known.verified.serial), Some(stored.0));
        for late in [SignedDuration::ZERO, SignedDuration::from_secs(1), HOUR] {
            let plan = plan_for(&pki, secret.clone(), &ca, known.renew_at + late);
            assert_eq!(said(&plan), "issue: renewal is due", "{late}");
        }
    }
}

/// The CA after `new` has begun to sign at `since` in place of `old`.
fn replacing(old: &Ca, new: Authority, since: Timestamp, window: SignedDuration) -> Ca {
    let previous = &old.issuers[0];
    Ca {
        issuers: vec![new.ca().clone(), previous.clone()],
        trust: Trust::of([new.ca(), previous]),
        signer: Ok(new.into()),
        replacing: Some((since, window)),
    }
}

#[test]
fn a_leaf_of_the_previous_ca_is_sound_until_its_turn_comes() {
    let old = ca();
    let ca = replacing(&old, authority(), now(), 24 * HOUR);
    let mut secret = sound(&old);
    assert_eq!(
        said(&plan_for(&pki(), secret.clone(), &ca, now())),
        "repair"
    );
    set(&mut secret, "ca.crt", ca.trust.pem().as_bytes());
    let plan = plan_for(&pki(), secret.clone(), &ca, now());
    assert_eq!(said(&plan), "keep");
    let Current {
        verified, renew_at, ..
    } = current(plan);
    assert_eq!(verified.issuer, old.issuers[0].fingerprint());
    assert!(
        (now()..=now() + 24 * HOUR).contains(&renew_at),
        "{renew_at}"
    );
    let at = |time| said(&plan_for(&pki(), secret.clone(), &ca, time));
    assert_eq!(at(renew_at - SignedDuration::from_nanos(1)), "keep");
    assert_eq!(at(renew_at), "issue: its CA is being replaced");
    assert_eq!(at(now() + 24 * HOUR), "issue: its CA is being replaced");

    // Withdrawn, it is nobody's leaf any more.
    let new = Ca {
        issuers: vec![ca.issuers[0].clone()],
        ..ca.clone()
    };
    assert_eq!(
        said(&plan_for(&pki(), secret.clone(), &new, now())),
        "issue: tls.crt was issued by another CA"
    );
    // What the new one has signed is not replaced.
    let new = secret_for(&pki(), &approved(), &ca, now());
    let kept = current(plan_for(&pki(), new, &ca, now()));
    assert!(kept.renew_at > now() + 50 * HOUR);
}

#[test]
fn the_leaves_of_the_previous_ca_are_replaced_one_after_the_other() {
    let old = ca();
    let ca = replacing(&old, authority(), now(), 24 * HOUR);
    let verified = current(plan_for(&pki(), sound(&old), &ca, now())).verified;
    let mut quarters = [0; 4];
    let mut turns = BTreeSet::new();
    for number in 0..200 {
        let mut pki = pki();
        pki.metadata.uid = Some(format!("uid-{number}"));
        let (turn, need) = due(&pki, &approved(), &verified, &ca, now());
        assert_eq!(need, IssueReason::OtherCa);
        let hours = turn.duration_since(now()).as_hours();
        quarters[usize::try_from(hours / 6).unwrap()] += 1;
        turns.insert(turn);
        let again = due(&pki, &approved(), &verified, &ca, now() + HOUR);
        assert_eq!(
            again,
            (turn, IssueReason::OtherCa),
            "it is the same at every look"
        );
    }
    assert!(turns.len() > 190, "{turns:?}");
    assert!(quarters.iter().all(|count| *count > 25), "{quarters:?}");
}

#[test]
fn a_leaf_of_the_previous_ca_that_is_due_before_its_turn_is_renewed_when_it_is_due() {
    let old = ca();
    let verified = current(plan_for(&pki(), sound(&old), &old, now())).verified;
    let ca = replacing(&old, authority(), now() + 61 * HOUR, 24 * HOUR);
    let (at, need) = due(&pki(), &approved(), &verified, &ca, now());
    assert_eq!(need, IssueReason::Renewal);
    assert!(at <= now() + 60 * HOUR);
}

#[test]
fn a_leaf_that_ends_with_its_ca_is_renewed_only_by_one_that_ends_later() {
    // The CA ends in 100 hours.
    let authority = || Authority::generate("ca", 101 * HOUR, now() - HOUR).unwrap();
    let ca = Ca::of(authority());
    let pki = api::tests::pki(json!({ "duration": "1000h" }));
    let approved = api::tests::approved(&pki);
    let end = now() + 100 * HOUR;
    let mut secret = secret_for(&pki, &approved, &ca, now());
    let known = current(plan_for(&pki, secret.clone(), &ca, now()));
    assert_eq!(
        (known.verified.not_after, known.verified.cut_short),
        (end, true)
    );
    assert_eq!(known.renew_at, end);
    let at = |time| said(&plan_for(&pki, secret.clone(), &ca, time));
    assert_eq!(at(now() + 70 * HOUR), "keep");
    assert_eq!(at(now() + 99 * HOUR), "keep");
    assert_eq!(at(end), "issue: renewal is due");

    let longer = Authority::generate("ca", 5000 * HOUR, now()).unwrap();
    let replaced = replacing(&ca, longer, now() + HOUR, HOUR);
    set(&mut secret, "ca.crt", replaced.trust.pem().as_bytes());
    let kept = current(plan_for(&pki, secret, &replaced, now() + HOUR));
    assert!(kept.renew_at <= now() + 2 * HOUR);
}

#[test]
fn a_ca_that_cannot_sign_leaves_sound_certificates_alone() {
    let mut ca = ca();
    let secret = sound(&ca);
    ca.signer = Err(Alarm::NotBrought {
        secret: "ns/ca".into(),
    });
    let known = current(plan_for(&pki(), secret.clone(), &ca, now()));
    assert!(known.renew_at <= now() + 60 * HOUR);
    let late = plan_for(&pki(), secret, &ca, now() + 60 * HOUR);
    assert_eq!(said(&late), "issue: renewal is due");
}

#[test]
fn the_ca_is_made_known_in_the_secret_of_a_refused_pki_if_that_is_its_own() {
    let (old, new) = (ca(), ca());
    let both = replacing(&old, authority(), now(), HOUR);
    let decide = |ca: &Ca, secret: SecretState| match action(
        pki(),
        Err(vec![violation()]),
        None,
        secret,
        ca,
        now(),
    ) {
        Action::Refuse { is_unpublished, .. } => is_unpublished,
        other => panic!("{}", said(&other)),
    };
    let own = || stored(sound(&old), Owner::Ours);
    assert!(!decide(&old, own()), "it is known already");
    assert!(decide(&both, own()) && decide(&new, own()));
    assert!(!decide(&both, SecretState::Absent));
    for other in [
        Owner::Foreign(Obstacle::Unclaimed),
        Owner::FormerPki,
        Owner::Rival(rival()),
    ] {
        assert!(!decide(&both, stored(sound(&old), other)));
    }
    let mut offered = sound(&old);
    offered.metadata.owner_references = None;
    insert(
        &mut offered.metadata.annotations,
        "box.com/adopt",
        "app1-pki",
    );
    assert!(
        !decide(&both, stored(offered, Owner::Ours)),
        "a refused Pki takes nothing over"
    );
}

#[test]
fn a_journey_in_time_renews_what_is_due_then_and_nothing_else() {
    let day = 24 * HOUR;
    let ca = Ca::of(Authority::generate("ca", 3650 * day, now() - HOUR).unwrap());
    let pki = api::tests::pki(json!({}));
    let secret = secret_for(&pki, &api::tests::approved(&pki), &ca, now());
    let at = |time| said(&plan_for(&pki, secret.clone(), &ca, time));
    let expired = "issue: tls.crt expired at 2030-04-01T00:00:00Z";
    for (moved, decision) in [
        (SignedDuration::ZERO, "keep"),
        // The certificate begins five minutes before its issue, and clocks may be three minutes
        // behind.
        (SignedDuration::from_mins(-5), "keep"),
        (SignedDuration::from_mins(-8), "keep"),
        (
            SignedDuration::from_mins(-9),
            "issue: tls.crt is not valid before 2029-12-31T23:55:00Z",
        ),
        (day - HOUR, "keep"),
        (53 * day, "keep"),
        (60 * day, "issue: renewal is due"),
        (90 * day, "issue: renewal is due"),
        (90 * day + HOUR, expired),
    ] {
        assert_eq!(at(now() + moved), decision, "{moved}");
    }
}

#[test]
fn a_secret_is_read_only_where_it_decides() {
    let ca = ca();
    let verified = current(plan_for(&pki(), sound(&ca), &ca, now())).verified;
    let unchanged = || Some(SecretState::Unchanged(verified.clone()));
    let absent = || Some(SecretState::Absent);
    let decide = |cached: Option<SecretState>, refused: bool, at: Timestamp| {
        let verdict = if refused {
            Err(vec![violation()])
        } else {
            Ok(approved())
        };
        let mut observed = Observed::of(pki(), verdict, &ca);
        if needs_secret(&observed, cached.as_ref(), at) {
            return "read".to_owned();
        }
        observed.secret = cached.unwrap_or(SecretState::Absent);
        said(&plan(&observed, at).action)
    };
    let refused = "refuse: 1, unpublished: false";
    for (secret, is_refused, minutes, decision) in [
        (absent(), false, 0, "issue: there is no Secret"),
        (None, false, 0, "read"),
        (unchanged(), false, 0, "keep"),
        (unchanged(), false, 49 * 60, "keep"),
        (unchanged(), false, 60 * 60, "read"),
        (unchanged(), false, -8, "keep"),
        (unchanged(), false, -9, "read"),
        (absent(), true, 0, refused),
        (None, true, 0, refused),
    ] {
        let case = format!("{secret:?}, {is_refused}, {minutes} minutes");
        let at = now() + SignedDuration::from_mins(minutes);
        assert_eq!(decide(secret, is_refused, at), decision, "{case}");
    }
}

#[test]
fn the_secret_of_a_refused_pki_is_read_where_its_certificate_is_in_use() {
    let (ca, other) = (ca(), ca());
    let decide = |serial: Option<&str>, told: &Ca, is_kept: bool| {
        let mut pki = pki();
        pki.status = Some(PkiStatus {
            serial_number: serial.map(str::to_owned),
            trust_fingerprint: Some(told.trust.fingerprint().to_owned()),
            ..PkiStatus::default()
        });
        if is_kept {
            insert(&mut pki.metadata.annotations, "box.com/keep-secret", "true");
        }
        let observed = Observed::of(pki, Err(vec![violation()]), &ca);
        needs_secret(&observed, None, now())
    };
    assert!(
        decide(Some("0A"), &other, false),
        "the CA is not known there"
    );
    assert!(decide(Some("0A"), &ca, true), "it is to be kept");
    assert!(!decide(Some("0A"), &ca, false) && !decide(None, &other, true));
}

/// Rules with these defaults for what a Pki leaves out.
fn rules_with(defaults: &Value) -> RuleBook {
    let spec = json!({ "serviceNames": ["*"], "defaults": defaults });
    let policy = PkiPolicy::new("policy", serde_json::from_value(spec).expect("a policy"));
    RuleBook::new(Arc::default(), [&policy])
}

#[test]
fn a_changed_default_counts_from_the_next_renewal_and_issues_nothing_before() {
    let ca = ca();
    let before = rules_with(&json!({ "duration": "90h" }));
    let after = rules_with(&json!({
        "duration": "48h", "renewBefore": "43h", "usages": ["client auth"],
        "privateKey": { "algorithm": "Ed25519" }, "outputs": { "derKey": true },
        "secretTemplate": { "labels": { "team": "a" } },
    }));
    let look = |pki: &Pki, rules: &RuleBook, secret: &Secret, now: Timestamp| {
        let secret = stored(secret.clone(), Owner::Ours);
        action(pki.clone(), rules.evaluate(pki), None, secret, &ca, now)
    };
    let mut pki = api::tests::pki(json!({}));
    let first = before.evaluate(&pki).unwrap();
    let secret = secret_for(&pki, &first, &ca, now());
    // The status tells what was left out, and how it was filled in.
    let Action::Keep(current) = look(&pki, &before, &secret, now()) else {
        panic!("it is as it should be")
    };
    let outcome = Outcome::Ready(Current::certificate(&current, &ca));
    pki.status = Some(outcome::after(&pki, &outcome, now()));
    let recorded = pki.status.as_ref().unwrap().defaults.clone().unwrap();
    assert_eq!(recorded.duration.as_deref(), Some("90h"));
    assert_eq!(recorded.renew_before.as_deref(), Some("30h"));

    for hours in [0, 1, 40] {
        let now = now() + hours * HOUR;
        let Action::Keep(kept) = look(&pki, &after, &secret, now) else {
            panic!("nothing is issued or written after {hours} hours")
        };
        assert_eq!(kept.renew_at, current.renew_at);
        let outcome = Outcome::Ready(Current::certificate(&kept, &ca));
        let status = outcome::after(&pki, &outcome, now);
        assert_eq!(
            status.defaults.as_ref(),
            Some(&recorded),
            "it stays in force"
        );
    }
    let Action::Issue(renewed, IssueReason::Renewal) =
        look(&pki, &after, &secret, current.renew_at)
    else {
        panic!("it is due")
    };
    assert_eq!(renewed.certificate.duration, 48 * HOUR);
    assert_eq!(renewed.template.labels["team"], "a");
    assert_eq!(renewed.outputs.der_key, Some(true));

    // Written, but the status could not be: the next look does not issue once more.
    let secret = secret_for(&pki, &renewed, &ca, current.renew_at);
    let planned = look(&pki, &after, &secret, current.renew_at + HOUR);
    let (Action::Keep(kept) | Action::Repair(kept)) = planned else {
        panic!("{planned:?}")
    };
    assert_eq!(kept.approved.certificate.duration, 48 * HOUR);

    // A value that the Pki states counts at once.
    pki.spec.duration = Some("48h".into());
    let planned = look(&pki, &after, &sound(&ca), now());
    assert!(matches!(
        planned,
        Action::Issue(_, IssueReason::Invalid(VerifyError::Duration { .. }))
    ));
}

/// Plans for a labelled Secret that nobody owns.
fn plan_for_orphan(secret: Secret, rival: Option<Key>, ca: &Ca, now: Timestamp) -> String {
    let secret = stored(secret, Owner::Foreign(Obstacle::Unclaimed));
    said(&action(pki(), Ok(approved()), rival, secret, ca, now))
}

#[test]
fn a_secret_without_an_owner_is_taken_up_again_if_it_was_issued_here_for_exactly_this_pki() {
    let ca = ca();
    let requested = |change: fn(&mut LeafRequest)| {
        let mut other = approved().certificate;
        change(&mut other);
        secret_of(&other, &ca, now())
    };
    let both = replacing(&ca, authority(), now(), HOUR);
    let at = |secret: Secret, ca: &Ca, now| plan_for_orphan(secret, None, ca, now);
    assert_eq!(at(sound(&ca), &ca, now()), "adopt");
    assert_eq!(at(sound(&ca), &both, now()), "adopt", "of the CA before");
    let later = now() + 900 * HOUR;
    assert_eq!(at(sound(&ca), &ca, later), "adopt", "a backup may be old");
    let rival = plan_for_orphan(sound(&ca), Some(rival()), &ca, now());
    assert_eq!(rival, "conflict: ns/rival");
    // Time and defaults may have changed since.
    for changed in [
        requested(|r| r.duration = 80 * HOUR),
        requested(|r| r.key = pki_certs::KeyAlgorithm::EcdsaP384),
        requested(|r| r.key_encoding = pki_certs::KeyEncoding::Traditional),
        requested(|r| r.usages = vec![pki_certs::Usage::ServerAuth]),
    ] {
        assert_eq!(at(changed, &ca, now()), "adopt");
    }
}

#[test]
fn labels_and_a_certificate_of_something_else_prove_nothing() {
    let (ca, other_ca) = (ca(), ca());
    let requested = |change: fn(&mut LeafRequest)| {
        let mut other = approved().certificate;
        change(&mut other);
        secret_of(&other, &ca, now())
    };
    let file = |name: &str, content: &[u8]| {
        let mut secret = sound(&ca);
        set(&mut secret, name, content);
        secret
    };
    let mut stranger = sound(&other_ca);
    set(&mut stranger, "ca.crt", ca.trust.pem().as_bytes());
    for (secret, fault) in [
        // Copied from another namespace.
        (
            requested(|r| {
                r.common_name = Some("app1.victim.svc".into());
                r.dns_names = vec!["app1.victim.svc".into()];
            }),
            "CommonName",
        ),
        (
            requested(|r| r.dns_names = vec!["app1.victim.svc".into()]),
            "Names",
        ),
        (
            requested(|r| r.dns_names.push("x.example.com".into())),
            "Names",
        ),
        (requested(|r| r.dns_names.truncate(1)), "Names"),
        (
            requested(|r| r.ip_addresses.push([10, 1, 2, 3].into())),
            "Names",
        ),
        (
            requested(|r| r.common_name = Some("app2".into())),
            "CommonName",
        ),
        (
            file("tls.key", &take(&sound(&ca), "tls.key")),
            "PrivateKeyMismatch",
        ),
        (file("tls.key", b""), "PrivateKeyUnreadable"),
        (file("tls.crt", b"theirs"), "CertificateUnreadable"),
        (stranger, "OtherIssuer"),
    ] {
        let decided = plan_for_orphan(secret, None, &ca, now());
        let begin = format!("foreign: Unproven({fault}");
        assert!(decided.starts_with(&begin), "{decided} instead of {begin}");
    }
    let lost = Alarm::NotBrought {
        secret: "pki/ca".into(),
    };
    let unknown = Ca {
        issuers: Vec::new(),
        signer: Err(lost.clone()),
        ..ca.clone()
    };
    let decided = plan_for_orphan(sound(&ca), None, &unknown, now());
    assert_eq!(decided, format!("unsigned: {lost}"), "it is not refuted");
    let mut unlabelled = sound(&ca);
    unlabelled.metadata.labels = None;
    let decided = plan_for_orphan(unlabelled, None, &ca, now());
    assert_eq!(decided, "foreign: Unclaimed");
}
