use super::*;
use crate::policy::Violation;
use crate::reconcile::status::after;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

fn now() -> Timestamp {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

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
    let violations = vec![Violation::ServiceNameShape { name: "App".into() }];
    Outcome::Refused {
        violations,
        trust: String::new(),
    }
}

fn ready() -> Outcome {
    Outcome::Ready(crate::reconcile::status::Certificate {
        serial: "01".into(),
        not_before: now(),
        not_after: now(),
        cut_short: false,
        renew_at: now(),
        issuer: "ff".into(),
        trust: "ee".into(),
    })
}

fn said(pki: &Pki, outcome: &Outcome, pods: usize) -> Vec<Notice> {
    about(pki, outcome, &after(pki, outcome, now()), &users(pods))
}

#[test]
fn a_fault_is_told_on_each_pod_and_on_the_pki() {
    let notices = said(&pki(), &refused(), 2);
    let names: Vec<_> = notices
        .iter()
        .map(|n| n.regarding.name.as_deref().unwrap())
        .collect();
    assert_eq!(names, ["app1-0", "app1-1", "app1-pki"]);
    for notice in &notices {
        assert_eq!(
            (notice.kind, notice.reason.as_str()),
            (Kind::Warning, "PkiServiceNameError")
        );
        assert_eq!(notice.note, refused().message(&pki()));
    }
    assert_eq!(
        notices[0].related.as_ref().unwrap().name.as_deref(),
        Some("app1-pki")
    );
}

#[test]
fn that_all_is_well_is_told_once_and_only_to_those_who_heard_otherwise() {
    let mut pki = pki();
    assert!(
        said(&pki, &ready(), 2).is_empty(),
        "a first certificate goes without saying"
    );
    pki.status = Some(after(&pki, &refused(), now()));
    let notices = said(&pki, &ready(), 2);
    assert!(notices.len() == 3 && notices.iter().all(|notice| notice.kind == Kind::Normal));
    pki.status = Some(after(&pki, &ready(), now()));
    assert!(said(&pki, &ready(), 2).is_empty());
}

#[test]
fn waiting_for_a_collection_is_no_fault() {
    let mut pki = pki();
    assert!(said(&pki, &Outcome::Await, 2).is_empty());
    pki.status = Some(after(&pki, &Outcome::Await, now()));
    assert!(said(&pki, &ready(), 2).is_empty());
}

#[test]
fn a_change_is_told_to_a_hundred_pods_at_most() {
    assert_eq!(said(&pki(), &refused(), 500).len(), 101);
}

#[test]
fn a_note_fits_the_api_whatever_is_in_it() {
    let violations = (0..100).map(|index| Violation::DnsNameShape {
        index,
        name: "ü\u{1b}".repeat(200),
    });
    let refused = Outcome::Refused {
        violations: violations.collect(),
        trust: String::new(),
    };
    let notices = said(&pki(), &refused, 1);
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
        repairs: 4,
        next: now(),
    };
    let unsigned = Outcome::Unsigned("Secret pki/ca is gone".into());
    for (outcome, reason) in [
        (contested, "PkiSecretContested"),
        (unsigned, "PkiCaUnavailable"),
    ] {
        let notices = said(&pki(), &outcome, 2);
        assert_eq!(notices.len(), 3);
        for notice in notices {
            assert_eq!(
                (notice.kind, notice.reason.as_str()),
                (Kind::Warning, reason)
            );
            assert_eq!(notice.note, outcome.message(&pki()));
        }
    }
}

#[test]
fn what_is_wrong_with_the_ca_is_told_on_its_secret() {
    let secret = Key::new("pki-operator", "ca");
    let alarm = Alarm::NotBrought {
        secret: secret.to_string(),
    };
    let notice = about_ca(&secret, &alarm);
    assert_eq!(
        (notice.kind, notice.reason.as_str()),
        (Kind::Warning, "CaUnavailable")
    );
    assert_eq!(
        notice.note,
        "there is no Secret pki-operator/ca: create it with the key and certificate of your CA as tls.key and tls.crt"
    );
    let regarding = &notice.regarding;
    assert_eq!(regarding.kind.as_deref(), Some("Secret"));
    assert_eq!(regarding.namespace.as_deref(), Some("pki-operator"));
    assert_eq!(regarding.name.as_deref(), Some("ca"));
    let hostile = Alarm::Ledger {
        secret: secret.to_string(),
        problem: "\u{1b}[2J\n".repeat(1000),
    };
    let note = about_ca(&secret, &hostile).note;
    assert!(
        note.len() <= 1024 && !note.contains(['\u{1b}', '\n']),
        "{note}"
    );
}
