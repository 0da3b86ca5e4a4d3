use super::*;
use crate::model::outcome::after;
use crate::policy::Violation;
use crate::util::time::tests::now;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

fn pki() -> Pki {
    let mut pki = Pki::new(
        "app1-pki",
        crate::api::PkiSpec {
            service_name: "appp1".into(),
            ..Default::default()
        },
    );
    (pki.metadata.namespace, pki.metadata.uid) = (Some("app1".into()), Some("pki-uid".into()));
    pki
}

fn users(count: usize) -> Vec<Arc<SecretUser>> {
    (0..count)
        .map(|n| {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"namespace": "app1", "name": format!("app1-{n}"), "uid": format!("pod-{n}")}
            }))
            .unwrap();
            Arc::new(SecretUser::from(pod))
        })
        .collect()
}

fn refused() -> Outcome {
    let violations = vec![Violation::service_name("App")];
    Outcome::Refused {
        violations,
        trust: String::new(),
    }
}

fn ready() -> Outcome {
    ready_with("01")
}

fn ready_with(serial: &str) -> Outcome {
    Outcome::Ready(crate::model::outcome::Certificate {
        serial: serial.into(),
        not_before: now(),
        not_after: now() + jiff::SignedDuration::from_hours(10),
        cut_short: false,
        renew_at: now(),
        issuer: "ff".into(),
        trust: "ee".into(),
        terms: Box::default(),
    })
}

fn published(pki: &Pki, outcome: &Outcome, pods: usize) -> Vec<Notice> {
    published_at(now(), pki, outcome, pods)
}

fn published_at(now: Timestamp, pki: &Pki, outcome: &Outcome, pods: usize) -> Vec<Notice> {
    let reconciled = Reconciled {
        pki,
        outcome,
        status: &after(pki, outcome, now),
        now,
        has_renewal_events: true,
    };
    about(&reconciled, &users(pods))
}

#[test]
fn a_fault_is_published_on_each_pod_and_on_the_pki() {
    let notices = published(&pki(), &refused(), 2);
    let names: Vec<_> = notices
        .iter()
        .map(|n| n.regarding.name.as_deref().unwrap())
        .collect();
    assert_eq!(names, ["app1-0", "app1-1", "app1-pki"]);
    for notice in &notices {
        assert_eq!(
            (notice.kind, notice.reason.as_str()),
            (EventKind::Warning, "PkiServiceNameError")
        );
        assert_eq!(notice.note, refused().message(&pki(), NOTE_BYTES));
    }
    assert_eq!(
        notices[0].related.as_ref().unwrap().name.as_deref(),
        Some("app1-pki")
    );
}

#[test]
fn the_end_of_a_fault_is_published_once_and_only_after_a_fault() {
    let mut pki = pki();
    assert!(
        published(&pki, &ready(), 2).is_empty(),
        "a first certificate goes without saying"
    );
    pki.status = Some(after(&pki, &refused(), now()));
    let notices = published(&pki, &ready(), 2);
    assert!(
        notices.len() == 3
            && notices
                .iter()
                .all(|notice| notice.kind == EventKind::Normal)
    );
    pki.status = Some(after(&pki, &ready(), now()));
    assert!(published(&pki, &ready(), 2).is_empty());
}

#[test]
fn waiting_for_a_collection_is_no_fault() {
    let mut pki = pki();
    assert!(published(&pki, &Outcome::Await, 2).is_empty());
    pki.status = Some(after(&pki, &Outcome::Await, now()));
    assert!(published(&pki, &ready(), 2).is_empty());
}

#[test]
fn a_change_is_published_on_a_hundred_pods_at_most() {
    assert_eq!(published(&pki(), &refused(), 500).len(), 101);
}

#[test]
fn a_note_fits_the_api_whatever_is_in_it() {
    let refused = Outcome::Refused {
        violations: vec![Violation::service_name(&"ü\u{1b}".repeat(200)); 100],
        trust: String::new(),
    };
    let notices = published(&pki(), &refused, 1);
    assert!(
        notices
            .iter()
            .all(|n| n.note.len() <= 1024 && !n.note.contains('\u{1b}'))
    );
}

#[test]
fn a_certificate_that_is_not_renewed_and_a_secret_that_is_contested_are_faults() {
    let contested = Outcome::Contested {
        by: Some("helm".into()),
        next: now(),
    };
    let unsigned = Outcome::Unsigned("Secret pki/ca is gone".into());
    for (outcome, reason) in [
        (contested, "PkiSecretContested"),
        (unsigned, "PkiCaUnavailable"),
    ] {
        let notices = published(&pki(), &outcome, 2);
        assert_eq!(notices.len(), 3);
        for notice in notices {
            assert_eq!(
                (notice.kind, notice.reason.as_str()),
                (EventKind::Warning, reason)
            );
            assert_eq!(notice.note, outcome.message(&pki(), NOTE_BYTES));
        }
    }
}

#[test]
fn a_ca_alarm_is_published_on_its_secret() {
    let secret = Key::new("pki-operator", "ca");
    let alarm = Alarm::NotBrought {
        secret: secret.to_string(),
    };
    let notice = about_ca(&secret, &alarm);
    assert_eq!(
        (notice.kind, notice.reason.as_str()),
        (EventKind::Warning, "CaUnavailable")
    );
    assert_eq!(
        notice.note,
        "there is no Secret pki-operator/ca: create it with the key and certificate of your CA as tls.key and tls.crt"
    );
    let regarding = &notice.regarding;
    assert_eq!(regarding.kind.as_deref(), Some("Secret"));
    assert_eq!(regarding.namespace.as_deref(), Some("pki-operator"));
    assert_eq!(regarding.name.as_deref(), Some("ca"));
    let hostile = Alarm::State {
        secret: secret.to_string(),
        problem: "\u{1b}[2J\n".repeat(1000),
    };
    let note = about_ca(&secret, &hostile).note;
    assert!(
        note.len() <= 1024 && !note.contains(['\u{1b}', '\n']),
        "{note}"
    );
}

#[test]
fn the_start_of_a_rotation_is_published_on_the_secret_of_the_ca() {
    let secret = Key::new("pki-operator", "ca");
    let ordinary = about_rotation_start(&secret, "ab12", None, now());
    let bound = Some(jiff::SignedDuration::from_hours(72));
    let forced = about_rotation_start(&secret, "cd34", bound, now());
    for (notice, expected) in [
        (
            &ordinary,
            "a rotation of the CA has started: CA ab12 signs next, and the present CA stays trusted while its certificates are in use",
        ),
        (
            &forced,
            "a forced rotation of the CA has started: CA cd34 signs next, and within 72h all CAs before it are withdrawn",
        ),
    ] {
        assert_eq!(
            (notice.kind, notice.reason.as_str()),
            (EventKind::Normal, "CaRotationStarted")
        );
        assert_eq!(notice.regarding.name.as_deref(), Some("ca"));
        assert_eq!(notice.note, expected);
    }
    assert_ne!(ordinary.content(), forced.content(), "the next one is news");
}

#[test]
fn a_blocked_rotation_is_published_with_its_phase_whether_it_is_forced_or_not() {
    let report = |phase, forced, blocked| RolloutReport {
        phase,
        since: now(),
        until: Some(now()),
        forced,
        blocked,
        blockers: vec![],
    };
    let note = |report: &RolloutReport| {
        let notice = about_rotation(&Key::new("pki-operator", "ca"), report);
        assert_eq!(notice.reason, "CaRotationBlocked");
        notice.note
    };
    for forced in [false, true] {
        for (phase, blocked, expected) in [
            (
                Phase::Publishing,
                1,
                "publishing the next CA began at {t} and waits for 1 object, until {t} at the latest: ",
            ),
            (
                Phase::Replacing,
                2,
                "replacing the certificates of the previous CA began at {t} and waits for 2 objects, until {t} at the latest: ",
            ),
            (
                Phase::Retained,
                2,
                "the CA that was replaced at {t} stays trusted, because 2 of its certificates cannot be replaced: ",
            ),
            (
                Phase::Withdrawn,
                2,
                "certificates of a CA that was withdrawn by force are still in use, and no client trusts them (2): ",
            ),
        ] {
            let expected = expected.replace("{t}", &now().to_string());
            let note = note(&report(phase, forced, blocked));
            assert!(note.starts_with(&expected), "{note}");
            assert!(note.ends_with("; `kubectl pki status` says what to do for each"));
        }
    }
}

/// With a certificate of this serial number, which is renewed at once and ends in ten hours.
fn served(serial: &str) -> Pki {
    let mut pki = pki();
    pki.status = Some(after(&pki, &ready_with(serial), now()));
    pki
}

#[test]
fn a_renewal_is_published_unless_renewal_events_are_off() {
    let notices = published(&served("01"), &ready_with("02"), 2);
    assert_eq!(notices.len(), 3);
    for notice in &notices {
        let (kind, reason) = (notice.kind, notice.reason.as_str());
        assert_eq!((kind, reason), (EventKind::Normal, "PkiRenewed"));
        assert_eq!(
            notice.note,
            "Secret app1-pki of Pki app1/app1-pki holds a renewed certificate, valid until 2030-01-01T10:00:00Z"
        );
    }
    assert!(published(&served("01"), &ready_with("01"), 2).is_empty());
    assert!(
        published(&pki(), &ready_with("01"), 2).is_empty(),
        "it is the first"
    );

    let mut moved = served("01");
    moved.spec.secret_name = Some("another".into());
    assert!(
        published(&moved, &ready_with("02"), 2).is_empty(),
        "it is the first there"
    );

    let mut resolved = served("01");
    resolved.status = Some(after(&resolved, &refused(), now()));
    let reasons = published(&resolved, &ready_with("02"), 0);
    assert_eq!((reasons.len(), reasons[0].reason.as_str()), (1, "PkiReady"));

    let mut quiet = served("01");
    for (value, count) in [("false", 0), ("true", 3), ("", 3)] {
        let annotation = (RENEWAL_EVENTS.to_owned(), value.to_owned());
        quiet.metadata.annotations = Some([annotation].into());
        assert_eq!(
            published(&quiet, &ready_with("02"), 2).len(),
            count,
            "{value}"
        );
    }
    let (pki, outcome) = (served("01"), ready_with("02"));
    let reconciled = Reconciled {
        pki: &pki,
        outcome: &outcome,
        status: &after(&pki, &outcome, now()),
        now: now(),
        has_renewal_events: false,
    };
    assert!(about(&reconciled, &users(2)).is_empty());
}

#[test]
fn an_expiring_certificate_is_published_with_the_reason() {
    let pki = served("01");
    let at = |hours| now() + jiff::SignedDuration::from_hours(hours);
    let reasons = |hours| {
        let notices = published_at(at(hours), &pki, &refused(), 1);
        notices.iter().map(|n| n.reason.clone()).collect::<Vec<_>>()
    };
    assert_eq!(reasons(4), ["PkiServiceNameError"; 2]);
    assert_eq!(reasons(5), ["PkiCertificateExpiring"; 2]);
    assert_eq!(reasons(10), ["PkiCertificateExpired"; 2]);
    assert_eq!(
        published_at(at(5), &pki, &refused(), 0)[0].note,
        "the certificate of Pki app1-pki in Secret app1-pki expires at 2030-01-01T10:00:00Z and is not renewed: \
         Pki app1-pki: spec.serviceName: \"App\" is not a service name: write at most 63 lower-case letters, digits \
         and '-', for example app1"
    );
    let mut ended = pki.clone();
    ended.status = Some(after(&ended, &refused(), at(10)));
    let resolved = published_at(at(11), &ended, &ready_with("02"), 1);
    assert_eq!((resolved.len(), resolved[0].kind), (2, EventKind::Normal));
    assert_eq!(
        resolved[0].dedup_key(),
        published_at(at(10), &pki, &refused(), 1)[0].dedup_key()
    );
}

#[test]
fn pods_of_a_former_secret_get_the_name_of_the_new_one() {
    let mut pki = pki();
    pki.spec.secret_name = Some("moved".into());
    let former = FormerSecret {
        name: "tls".into(),
        replaced_time: serde_json::from_value(json!("2030-01-01T00:00:00Z")).unwrap(),
        not_after: serde_json::from_value(json!("2030-03-01T00:00:00Z")).unwrap(),
    };
    let begin =
        "Pki app1/app1-pki now writes Secret moved instead of tls, since 2030-01-01T00:00:00Z";
    for (is_there, end) in [
        (
            true,
            ": write moved in the pod; Secret tls is not renewed, and is removed when its certificate ends at \
             2030-03-01T00:00:00Z",
        ),
        (
            false,
            "; there is no Secret tls: write moved in the pod, or secretName: tls in the spec of the Pki",
        ),
    ] {
        let notices = about_former(&pki, &former, &users(2), is_there);
        assert_eq!(notices.len(), 2, "and none on the Pki");
        for notice in notices {
            assert_eq!(notice.note, format!("{begin}{end}"));
            let related = notice.related.as_ref().and_then(|it| it.name.as_deref());
            assert_eq!(related, Some("app1-pki"));
        }
    }
    assert!(about_former(&pki, &former, &[], true).is_empty());
}

/// Words that begin like reasons.
const KINDS: [&str; 2] = ["PkiPolicy", "PkiPolicies"];

/// The texts in quotation marks in the sources that are reasons, as in `PkiSecretForeign`; those
/// in `api` are types.
fn reasons_in(folder: &std::path::Path, reasons: &mut std::collections::BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if ["tests", "api"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            reasons_in(&path, reasons);
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        let source = source.split("#[cfg(test)]").next().unwrap();
        let is_reason = |word: &&str| {
            let rest = word
                .strip_prefix("Pki")
                .or(word.strip_prefix("TrustBundle"));
            rest.is_some_and(|rest| {
                rest.starts_with(|c: char| c.is_ascii_uppercase())
                    && rest.chars().all(char::is_alphanumeric)
            })
        };
        let template = source.split('"').filter(is_reason);
        reasons.extend(
            template
                .filter(|word| !KINDS.contains(word))
                .map(str::to_owned),
        );
    }
}

#[test]
fn every_reason_that_people_may_read_is_explained_to_them() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut reasons = std::collections::BTreeSet::new();
    reasons_in(&root.join("src"), &mut reasons);
    assert!(reasons.len() > 25, "{reasons:?}");
    let explained = crate::guide::reasons().map(str::to_owned).collect();
    let differing: Vec<_> = reasons.symmetric_difference(&explained).collect();
    assert!(
        differing.is_empty(),
        "in the code or in the guide alone: {differing:?}"
    );
}
