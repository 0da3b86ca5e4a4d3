use super::*;
use crate::model::keystore::FormatError;
use crate::util::time::tests::at;
use jiff::SignedDuration;
use serde_json::json;

fn pki() -> Pki {
    crate::api::tests::pki(json!({}))
}

fn certificate() -> Certificate {
    Certificate {
        serial: "0A".into(),
        not_before: at(-300),
        not_after: at(3600),
        cut_short: false,
        renew_at: at(2400),
        issuer: "ff".into(),
        trust: "ee".into(),
        terms: Box::default(),
    }
}

fn ready() -> Outcome {
    Outcome::Ready(certificate())
}

fn refused() -> Outcome {
    refused_with("ee")
}

/// Refused, with these CA certificates in its Secret.
fn refused_with(trust: &str) -> Outcome {
    Outcome::Refused {
        violations: vec![Violation::service_name("App1")],
        trust: trust.to_owned(),
    }
}

fn failed(attempts: i32) -> Outcome {
    Outcome::Failed {
        error: "quota exceeded".into(),
        remedy: None,
        attempts,
        next: at(10) + SignedDuration::from_millis(5),
    }
}

fn conflict() -> Outcome {
    Outcome::Conflict {
        winner: Key::new("ns", "other"),
    }
}

fn foreign() -> Outcome {
    Outcome::Foreign(Obstacle::Unclaimed)
}

fn incomplete() -> Outcome {
    without_keystores(true)
}

fn without_keystores(is_old: bool) -> Outcome {
    let error = FormatError::NoSecret {
        secret: "password".into(),
        key: "k".into(),
    };
    let unmade = |file, is_old| Unmade {
        file,
        is_old,
        error: error.clone(),
    };
    let unmade = vec![
        unmade("keystore.p12", is_old),
        unmade("keystore.jks", false),
    ];
    Outcome::of(certificate(), unmade)
}

#[test]
fn the_secrets_of_before_are_kept_in_order_with_the_end_of_their_certificates() {
    let mut pki = pki();
    let mut rename = |name: &str, outcome: &Outcome, seconds: i64| {
        pki.spec.secret_name = Some(name.into());
        let status = after(&pki, outcome, at(seconds));
        let formers = status.former_secrets.iter().map(|former| {
            let end = former.not_after.as_ref().map(|end| end.0.as_second());
            let since = former.replaced_time.as_ref().unwrap().0;
            let since = since.duration_since(at(0)).as_secs();
            format!("{} {since} {}", former.name, end.is_some())
        });
        let formers: Vec<_> = formers.collect();
        pki.status = Some(status);
        formers.join(", ")
    };
    assert_eq!(rename("a", &refused(), 1), "");
    assert_eq!(rename("b", &refused(), 2), "a 2 false", "never written");
    assert_eq!(rename("b", &ready(), 3), "a 2 false");
    assert_eq!(rename("c", &refused(), 4), "a 2 false", "b is in use still");
    assert_eq!(rename("d", &ready(), 5), "a 2 false, b 5 true");
    assert_eq!(rename("d", &ready(), 6), "a 2 false, b 5 true");
    assert_eq!(
        rename("b", &ready(), 7),
        "a 2 false, d 7 true",
        "back again"
    );
    for number in 0..20 {
        rename(&format!("x{number}"), &ready(), 10);
    }
    let last = rename("x20", &ready(), 11);
    assert!(
        last.starts_with("x10 ") && last.ends_with("x19 11 true"),
        "{last}"
    );
    assert_eq!(last.split(", ").count(), 10);
}

fn unsigned() -> Outcome {
    Outcome::Unsigned("Secret pki/ca is gone".into())
}

fn contested(by: Option<&str>) -> Outcome {
    Outcome::Contested {
        by: by.map(str::to_owned),
        next: at(20) + SignedDuration::from_millis(5),
    }
}

/// The Pki after each of these outcomes, ten seconds apart.
fn after_all(outcomes: &[Outcome]) -> Pki {
    let mut pki = pki();
    for (time, outcome) in (0..).step_by(10).zip(outcomes) {
        pki.status = Some(after(&pki, outcome, at(time)));
    }
    pki
}

fn since(pki: &Pki) -> Timestamp {
    pki.condition(READY).unwrap().last_transition_time.0
}

#[test]
fn the_time_of_the_transition_stays_while_the_status_does() {
    assert_eq!(since(&after_all(&[refused()])), at(0));
    assert_eq!(
        since(&after_all(&[refused(), conflict(), failed(1)])),
        at(0)
    );
    assert_eq!(since(&after_all(&[refused(), ready()])), at(10));
    assert_eq!(since(&after_all(&[ready(), ready(), refused()])), at(20));
}

#[test]
fn a_reconcile_that_finds_the_same_changes_nothing() {
    for outcome in [
        ready(),
        incomplete(),
        refused(),
        refused_with("dd"),
        conflict(),
        foreign(),
        Outcome::Await,
        unsigned(),
        contested(Some("helm")),
    ] {
        let once = after_all(std::slice::from_ref(&outcome));
        let again = after(&once, &outcome, at(1000));
        assert_eq!(once.status, Some(again), "{outcome:?}");
    }
}

#[test]
fn the_generation_is_the_one_that_was_reconciled() {
    let mut pki = after_all(&[refused()]);
    pki.metadata.generation = Some(2);
    let status = after(&pki, &refused(), at(10));
    assert_eq!(status.observed_generation, Some(2));
    assert_eq!(status.conditions[0].observed_generation, Some(2));
}

#[test]
fn the_certificate_in_use_stays_known_when_an_edit_is_refused() {
    let status = after_all(&[ready(), refused()]).status.unwrap();
    assert_eq!(status.conditions[0].status, "False");
    assert_eq!(status.serial_number.as_deref(), Some("0A"));
    assert_eq!(status.issuer_fingerprint.as_deref(), Some("ff"));
    let times = [status.not_before, status.not_after, status.renewal_time];
    assert_eq!(
        times.map(|time| time.unwrap().0),
        [at(-300), at(3600), at(2400)]
    );
}

#[test]
fn failed_attempts_are_counted_until_the_next_outcome() {
    let status = after_all(&[failed(1), failed(2)]).status.unwrap();
    assert_eq!(status.failed_attempts, Some(2));
    assert_eq!(
        status.next_attempt_time.unwrap().0,
        at(10),
        "in whole seconds"
    );
    for outcome in [ready(), refused(), conflict(), foreign(), unsigned()] {
        let status = after_all(&[failed(2), outcome]).status.unwrap();
        assert_eq!(
            (status.failed_attempts, status.next_attempt_time),
            (None, None)
        );
    }
    let status = after_all(&[failed(2), contested(None)]).status.unwrap();
    assert_eq!(
        (status.failed_attempts, status.next_attempt_time.unwrap().0),
        (None, at(20)),
        "a repair that waits is no failed attempt"
    );
}

/// What the status says of a certificate.
fn known(status: &PkiStatus) -> [bool; 6] {
    [
        status.serial_number.is_some(),
        status.not_before.is_some(),
        status.not_after.is_some(),
        status.renewal_time.is_some(),
        status.issuer_fingerprint.is_some(),
        status.trust_fingerprint.is_some(),
    ]
}

#[test]
fn a_pki_that_has_no_secret_has_no_certificate() {
    for outcome in [conflict(), foreign()] {
        let status = after_all(&[ready(), outcome]).status.unwrap();
        assert_eq!(known(&status), [false; 6]);
    }
    for outcome in [
        ready(),
        incomplete(),
        refused(),
        refused_with("dd"),
        Outcome::Await,
        unsigned(),
        contested(None),
        failed(1),
    ] {
        let status = after_all(&[ready(), outcome.clone()]).status.unwrap();
        assert_eq!(known(&status), [true; 6], "{outcome:?}");
        assert_eq!(status.serial_number.as_deref(), Some("0A"));
    }
}

#[test]
fn trust_is_in_the_status_when_it_is_in_the_secret_and_not_before() {
    for (outcomes, trust) in [
        (vec![ready()], Some("ee")),
        (vec![incomplete()], Some("ee")),
        (vec![ready(), refused()], Some("ee")),
        (vec![ready(), refused_with("dd")], Some("dd")),
        (vec![ready(), refused_with("dd"), refused()], Some("ee")),
        (vec![ready(), unsigned()], Some("ee")),
        (vec![ready(), failed(1)], Some("ee")),
        (vec![ready(), contested(None)], Some("ee")),
        // One that never had a certificate has no ca.crt either.
        (vec![refused_with("dd")], None),
        (vec![unsigned(), refused_with("dd")], None),
        (vec![ready(), foreign(), refused_with("dd")], None),
    ] {
        let status = after_all(&outcomes).status.unwrap();
        assert_eq!(status.trust_fingerprint.as_deref(), trust, "{outcomes:?}");
    }
}

#[test]
fn a_condition_of_somebody_else_is_left_alone() {
    let mut pki = after_all(&[refused()]);
    let mut other = pki.condition(READY).unwrap().clone();
    other.type_ = "Audited".into();
    pki.status
        .as_mut()
        .unwrap()
        .conditions
        .insert(0, other.clone());
    let status = after(&pki, &ready(), at(10));
    assert_eq!(status.conditions.len(), 2);
    assert_eq!(status.conditions[0], other);
}

#[test]
fn every_outcome_has_a_reason_and_a_message_with_the_remedy() {
    let mut pki = pki();
    pki.spec.secret_name = Some("tls".into());
    for (outcome, reason, message) in [
        (
            ready(),
            "PkiReady",
            "Secret tls holds a certificate for app1, valid until 2030-03-17T18:46:40Z",
        ),
        (
            refused(),
            "PkiServiceNameError",
            "Pki app1-pki: spec.serviceName: \"App1\" is not a service name: write at most 63 lower-case letters, digits and '-', for example app1",
        ),
        (
            conflict(),
            "PkiSecretConflict",
            "Secret tls belongs to Pki ns/other, which claimed it first: choose another spec.secretName for Pki ns/app1-pki",
        ),
        (
            incomplete(),
            "PkiKeystoreNotWritten",
            "Secret tls holds a certificate for app1, valid until 2030-03-17T18:46:40Z; keystore.p12 is not renewed: there is no Secret password with the password of the keystores: create it, with the password as k; keystore.jks is not written: there is no Secret password with the password of the keystores: create it, with the password as k",
        ),
        (
            without_keystores(false),
            "PkiKeystoreNotWritten",
            "Secret tls holds a certificate for app1, valid until 2030-03-17T18:46:40Z; keystore.p12 and keystore.jks are not written: there is no Secret password with the password of the keystores: create it, with the password as k",
        ),
        (
            foreign(),
            "PkiSecretForeign",
            "Secret tls exists and does not belong to Pki ns/app1-pki, so it is left as it is: delete the Secret, choose another spec.secretName, or annotate the Secret with box.com/adopt=app1-pki if its content may be replaced",
        ),
        (
            Outcome::Await,
            "PkiSecretOfFormerPki",
            "Secret tls belongs to a Pki that was deleted or now writes another Secret, and will be removed soon",
        ),
        (
            Outcome::AwaitKey(KeyAlgorithm::Rsa4096),
            "PkiKeyPending",
            "Secret tls is written as soon as there is a new RSA 4096 key: such keys take long to make, and namespaces take turns",
        ),
        (
            failed(1),
            "PkiIssuanceFailed",
            "Secret tls of Pki ns/app1-pki cannot be written: quota exceeded; the operator tries again",
        ),
        (
            Outcome::Ready(Certificate {
                cut_short: true,
                ..certificate()
            }),
            "PkiReady",
            "Secret tls holds a certificate for app1, valid until 2030-03-17T18:46:40Z, when the CA ends, which is earlier than spec.duration asks for",
        ),
        (
            unsigned(),
            "PkiCaUnavailable",
            "Secret tls of Pki ns/app1-pki gets no new certificate until the platform team has repaired the CA: Secret pki/ca is gone",
        ),
        (
            contested(Some("helm")),
            "PkiSecretContested",
            "Secret tls of Pki ns/app1-pki is changed by \"helm\" again and again: stop that, or choose another spec.secretName; the operator repairs it less and less often, next at status.nextAttemptTime",
        ),
        (
            contested(None),
            "PkiSecretContested",
            "Secret tls of Pki ns/app1-pki is deleted again and again: stop that, or choose another spec.secretName; the operator repairs it less and less often, next at status.nextAttemptTime",
        ),
    ] {
        let status = after(&pki, &outcome, at(0));
        let ready = &status.conditions[0];
        assert_eq!(
            (ready.reason.as_str(), ready.message.as_str()),
            (reason, message)
        );
        assert_eq!(status.secret_name.as_deref(), Some("tls"));
    }
}

#[test]
fn what_people_wrote_cannot_steer_the_terminal_of_those_who_read_it() {
    let mut pki = pki();
    pki.spec.service_name = "app1\u{1b}[31m\n".into();
    pki.spec.secret_name = Some("a\u{202e}b\r".into());
    let failed = Outcome::Failed {
        error: "line\nline\u{7}".into(),
        remedy: None,
        attempts: 1,
        next: at(0),
    };
    for outcome in [
        ready(),
        conflict(),
        foreign(),
        Outcome::Await,
        failed,
        Outcome::Unsigned("line\nline\u{7}".into()),
        contested(Some("\u{202e}helm\n")),
    ] {
        let message = outcome.message(&pki, MAX_CONDITION_MESSAGE_BYTES);
        let is_plain = |c: char| !c.is_control() && c != '\u{202e}';
        assert!(message.chars().all(is_plain), "{message:?}");
    }
}

#[test]
fn a_message_fits_the_schema_however_much_is_wrong() {
    let refused = Outcome::Refused {
        violations: vec![Violation::service_name(&"ü".repeat(300)); 100],
        trust: String::new(),
    };
    let message = after(&pki(), &refused, at(0)).conditions[0].message.clone();
    assert!(message.len() <= 4096 && message.ends_with(" more"));
}

#[test]
fn a_published_fault_is_published_as_resolved_too() {
    let is_published =
        |outcome| is_published_fault(after_all(&[outcome]).condition(READY).unwrap());
    assert!(
        is_published(refused())
            && is_published(conflict())
            && is_published(foreign())
            && is_published(failed(1))
    );
    assert!(
        is_published(unsigned()) && is_published(contested(None)) && is_published(incomplete())
    );
    assert!(!is_published(ready()) && !is_published(Outcome::Await));
    let waiting = after_all(&[conflict(), Outcome::Await]);
    assert_eq!(
        waiting.status,
        after_all(&[conflict()]).status,
        "it stands until it is resolved"
    );
}

#[test]
fn a_pending_key_is_no_fault_and_a_published_fault_stays() {
    let waits = Outcome::AwaitKey(KeyAlgorithm::Rsa4096);
    assert!(!waits.is_fault() && !waits.is_ready());
    let mut pki = pki();
    let status = after(&pki, &waits, at(0));
    assert!(!is_published_fault(&status.conditions[0]), "{status:?}");
    pki.status = Some(after(&pki, &refused(), at(0)));
    let told = pki.condition(READY).cloned().unwrap();
    assert_eq!(after(&pki, &waits, at(5)).conditions, [told]);
}

#[test]
fn what_becomes_of_a_request_is_in_the_status_as_long_as_it_waits() {
    let mut pki = pki();
    let request = |value: &str| [(renewal_request::RENEW_NOW.to_owned(), value.to_owned())];
    pki.metadata.annotations = Some(request("a").into());
    pki.status = Some(renewal_request::served(&pki, at(0)));
    let message = |pki: &Pki, second| {
        let status = after(pki, &ready(), at(second));
        status.renewal_request.unwrap().message
    };
    let said = message(&pki, 1).unwrap();
    assert!(
        said.ends_with("or write another value, such as the time"),
        "{said}"
    );
    pki.metadata.annotations = Some(request("b").into());
    let said = message(&pki, 1).unwrap();
    assert!(said.starts_with("renewed on request at "), "{said}");
    assert_eq!(message(&pki, 300), None, "it is served");
    pki.metadata.annotations = None;
    assert_eq!(message(&pki, 1), None);
}
