//! Nobody keeps a rotation waiting for ever, and by force nobody keeps it waiting at all.

use super::*;
use crate::controllers::ca::fleet::{self, Census};
use crate::model::rollout::Phase;

const QUICK: Pace = Pace {
    step: DAY,
    wait: SignedDuration::from_hours(72),
};
const SECOND: SignedDuration = SignedDuration::from_secs(1);
const BEHIND: Waiting = Waiting {
    unpublished: 1,
    of_previous: 1,
};

fn forced(ledger: CaState, next: &Authority) -> CaState {
    let mut ledger = with_next(ledger, next, None);
    ledger.next.as_mut().unwrap().is_forced = true;
    ledger
}

#[test]
fn a_successor_signs_a_step_after_the_longest_wait_for_those_who_cannot_be_reached() {
    let (old, new) = (authority(), authority());
    let names = [&old, &new].map(fingerprint);
    let ledger = with_next(ledger_of(&old), &new, None);
    let wait = now() + QUICK.wait;
    let ledger = advance(ledger, BEHIND, QUICK, wait - SECOND);
    assert_eq!(ledger.next.as_ref().unwrap().published, None);
    let ledger = advance(ledger, BEHIND, QUICK, wait);
    assert_eq!(ledger.next.as_ref().unwrap().published, Some(wait));
    // Nobody else can begin the step anew.
    let ledger = advance(ledger, BEHIND, QUICK, wait + DAY - SECOND);
    assert_eq!(ledger.current.fingerprint(), names[0]);
    let ledger = advance(ledger, BEHIND, QUICK, wait + DAY);
    let [old_name, new_name] = names.clone();
    assert_eq!(roles(&ledger), (new_name, None, Some(old_name)));

    // A root that is in use stays trusted, however long that takes.
    let later = wait + 300 * DAY;
    let ledger = advance(ledger, BEHIND, QUICK, later);
    assert_eq!(previous(&ledger).unwrap().unused, None);
    assert!(ledger.trust().pem().contains(old.ca().root_pem()));
    // And that keeps no other rotation from being begun.
    for (time, is) in [(wait + 2 * DAY, false), (later, true)] {
        let request = Some(RotationRequest::Rotate);
        assert_eq!(is_due(&ledger, request, &QUICK, time), is, "{time}");
    }
}

#[test]
fn several_cas_of_before_are_trusted_as_long_as_they_are_in_use() {
    let cas: Vec<_> = (0..3).map(|_| authority()).collect();
    let mut ledger = ledger_of(&cas[0]);
    let mut time = now();
    for next in &cas[1..] {
        ledger = with_next(ledger, next, None);
        ledger.next.as_mut().unwrap().since = Some(time);
        time += QUICK.wait;
        ledger = advance(ledger, BEHIND, QUICK, time);
        time += DAY;
        ledger = advance(ledger, BEHIND, QUICK, time);
        time += QUICK.wait;
    }
    let retired: Vec<_> = ledger.trusted().map(|it| it.ca.fingerprint()).collect();
    assert_eq!(retired, [&cas[1], &cas[0]].map(fingerprint));
    for ca in &cas {
        assert!(ledger.trust().pem().contains(ca.ca().root_pem()));
    }
    // The oldest is not used any more; the one after it is.
    let fleet = RolloutProgress {
        in_use: [fingerprint(&cas[1])].into(),
        ..RolloutProgress::default()
    };
    ledger = super::super::advance(ledger, &fleet, &QUICK, time);
    ledger = super::super::advance(ledger, &fleet, &QUICK, time + DAY);
    let retired: Vec<_> = ledger.trusted().map(|it| it.ca.fingerprint()).collect();
    assert_eq!(retired, [fingerprint(&cas[1])]);
    assert_eq!(ledger.retired.len(), 2, "the key of the other is kept");
}

#[test]
fn no_ninth_ca_of_before_is_trusted_unless_by_force() {
    let mut ledger = ledger_of(&authority());
    for _ in 0..8 {
        ledger = with_previous(ledger, &authority(), None);
    }
    let later = now() + 10 * DAY;
    let rotate = Some(RotationRequest::Rotate);
    assert!(!is_due(&ledger, rotate, &QUICK, later));
    let said = obstacle(&ledger, rotate, &QUICK, later).unwrap();
    assert!(
        said.starts_with("8 CAs of before are trusted still"),
        "{said}"
    );
    let brought = with_next(ledger.clone(), &authority(), Some(now()));
    let brought = advance(brought, BEHIND, QUICK, later);
    assert!(brought.next.is_some());
    assert!(is_due(&ledger, Some(RotationRequest::Force), &QUICK, later));
    let next = authority();
    let ledger = advance(forced(ledger, &next), BEHIND, QUICK, later);
    let ledger = advance(ledger, BEHIND, QUICK, later + 3 * DAY);
    assert_eq!(roles(&ledger).0, fingerprint(&next));
    let ledger = advance(ledger, BEHIND, QUICK, later + 4 * DAY);
    let ledger = advance(ledger, BEHIND, QUICK, later + 5 * DAY);
    assert_eq!(ledger.trust().pem(), next.ca().root_pem());
}

/// Each peer that is reached gets a whole step to reload, twice; the others get a quarter of one.
#[test]
fn by_force_it_is_over_within_three_steps_whoever_is_in_the_way() {
    let [oldest, old, new] = [(); 3].map(|()| authority());
    let mut ledger = forced(with_previous(ledger_of(&old), &oldest, None), &new);
    let (mut signs, mut over) = (None, None);
    for quarter in 0..20 {
        let time = now() + quarter * DAY / 4;
        ledger = advance(ledger, BEHIND, QUICK, time);
        if ledger.next.is_none() {
            signs.get_or_insert(quarter);
        }
        if ledger.trusted().next().is_none() {
            over.get_or_insert(quarter);
        }
    }
    assert_eq!((signs, over), (Some(5), Some(10)), "in quarters of a step");
    assert_eq!(ledger.trust().pem(), new.ca().root_pem());
    assert_eq!(ledger.retired.len(), 2);
    assert_eq!(outdated(&ledger, 1000 * DAY).count(), 2, "they were stolen");
}

#[test]
fn force_makes_another_successor_even_of_a_rotation_that_is_under_way() {
    let [old, new, newer] = [(); 3].map(|()| authority());
    let published = Some(now());
    let under_way = with_next(ledger_of(&old), &new, published);
    assert!(is_due(
        &under_way,
        Some(RotationRequest::Force),
        &PACE,
        now()
    ));
    let found = StoredCa {
        forced: Some(fingerprint(&newer)),
        ..stored(copy(&old), Some(copy(&newer)))
    };
    let (ledger, _, _) = assess_now(under_way, Some(found));
    let next = ledger.next.as_ref().unwrap();
    assert!(next.is_forced && next.published.is_none());
    assert_eq!(next.ca.fingerprint(), fingerprint(&newer));
    assert!(!ledger.trust().pem().contains(new.ca().root_pem()));
    // One that a manifest asks for again and again comes to an end before the next one begins.
    let request = Some(RotationRequest::Force);
    assert!(!is_due(&ledger, request, &PACE, now() + HOUR));
    let ledger = advance(ledger, BEHIND, PACE, now());
    let ledger = advance(ledger, BEHIND, PACE, now() + DAY / 4);
    let ledger = advance(ledger, BEHIND, PACE, now() + DAY * 5 / 4);
    assert_eq!(roles(&ledger).0, fingerprint(&newer));
    assert!(!is_due(&ledger, request, &PACE, now() + DAY * 3 / 2));
    let said = obstacle(&ledger, request, &PACE, now() + DAY * 3 / 2).unwrap();
    assert!(
        said.starts_with("a rotation by force is under way since"),
        "{said}"
    );
    let ledger = advance(ledger, BEHIND, PACE, now() + DAY * 3 / 2);
    let ledger = advance(ledger, BEHIND, PACE, now() + DAY * 5 / 2);
    assert!(is_due(&ledger, request, &PACE, now() + DAY * 5 / 2));
}

#[test]
fn a_wish_that_has_to_wait_is_answered() {
    let [old, new] = [(); 2].map(|()| authority());
    let rotate =
        |ledger: &CaState, time| obstacle(ledger, Some(RotationRequest::Rotate), &QUICK, time);
    let settled = ledger_of(&old);
    assert_eq!(rotate(&settled, now()), None);
    let publishing = with_next(settled.clone(), &new, None);
    assert_eq!(
        rotate(&publishing, now() + HOUR).unwrap(),
        "a rotation is under way since 2030-01-01T00:00:00Z; the next one begins when the certificates of the present CA are \
         replaced and its root is withdrawn; box.com/rotate-now=force begins one at once"
    );
    let replacing = with_previous(settled, &new, None);
    assert_eq!(
        rotate(&replacing, now() + HOUR).unwrap(),
        "a rotation is under way, and the certificates of the CA before are being replaced since 2030-01-01T00:00:00Z; the next \
         one begins when its root is withdrawn, at the latest at 2030-01-04T00:00:00Z; box.com/rotate-now=force begins one at \
         once"
    );
    assert_eq!(rotate(&replacing, now() + QUICK.wait), None);
}

#[test]
fn a_key_is_kept_for_a_time_that_no_clock_can_shorten() {
    let (old, new) = (authority(), authority());
    let ledger = with_previous(ledger_of(&new), &old, Some(now()));
    let mut ledger = advance(ledger, Waiting::default(), PACE, now() + DAY);
    assert!(ledger.trusted().next().is_none());
    let count = |ledger: &CaState| outdated(ledger, 30 * DAY).count();
    for hour in 0..30 * 24 {
        assert_eq!(count(&ledger), 0, "{hour}");
        // The time of day goes to and fro by years.
        let years = i32::from(hour % 2 == 0) * 11;
        let time = now() + TEN_YEARS * years / 10;
        ledger = advance(ledger, Waiting::default(), PACE, time);
        age(&mut ledger, HOUR);
    }
    assert_eq!(count(&ledger), 1);
    // As long as it is trusted its key stays.
    let mut used = with_previous(ledger_of(&new), &old, None);
    age(&mut used, 60 * DAY);
    let used = advance(used, BEHIND, PACE, now() + 60 * DAY);
    assert_eq!(count(&used), 0);
}

fn pki(name: &str, ca: &Authority, trust: &str, ready: (&str, &str)) -> crate::api::Pki {
    let mut pki = crate::api::tests::pki(serde_json::json!({}));
    pki.metadata.name = Some(name.into());
    let status = serde_json::json!({
        "conditions": [{"type": "Ready", "status": ready.0, "reason": ready.1, "message": "m\u{202e}",
            "lastTransitionTime": "2030-01-01T00:00:00Z"}],
        "secretName": name, "serialNumber": "01", "notAfter": "2031-01-01T00:00:00Z",
        "issuerFingerprint": fingerprint(ca), "trustFingerprint": trust,
    });
    pki.status = Some(serde_json::from_value(status).unwrap());
    pki
}

#[test]
fn blockers_are_named_with_a_reason_and_what_is_being_deleted_is_none() {
    let [old, new] = [(); 2].map(|()| authority());
    let ledger = with_next(ledger_of(&old), &new, None);
    let trust = ledger.trust().fingerprint().to_owned();
    let mut deleted = pki("deleted", &old, "before", ("False", "PkiIssuanceFailed"));
    deleted.metadata.deletion_timestamp =
        Some(serde_json::from_value(serde_json::json!("2030-01-01T00:00:00Z")).unwrap());
    let mut ended = pki("ended", &old, "before", ("True", "PkiReady"));
    ended.status.as_mut().unwrap().not_after = None;
    let mut moved = pki("moved", &old, "before", ("False", "PkiSecretForeign"));
    moved.spec.secret_name = Some("foreign".into());
    let pkis = [
        deleted,
        ended,
        moved,
        pki("slow", &old, "before", ("True", "PkiReady")),
        pki("frozen", &old, "before", ("False", "PkiIssuanceFailed")),
        pki("refused", &old, "before", ("False", "PkiServiceNameError")),
        pki("well", &old, &trust, ("True", "PkiReady")),
    ];
    let count = |time| {
        let mut census = Census::new(&ledger, &QUICK, time);
        census.count_copies([("ns".into(), "copy".into())], true);
        for pki in &pkis {
            census.count(pki);
        }
        census.count_unread(["gone".to_owned()]);
        census.end()
    };
    let early = count(now() + HOUR);
    assert_eq!(early.unpublished, 6);
    let names = |fleet: &RolloutProgress| -> Vec<String> {
        fleet
            .blockers
            .named
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    let lasting = [
        "namespace gone: NamespaceUnread",
        "ns/frozen: PkiIssuanceFailed",
        "ns/moved: PkiSecretForeign",
        "ns/refused: PkiServiceNameError",
    ];
    assert_eq!(names(&early), lasting);
    assert_eq!(
        early.blockers.named[2].message,
        "m\\u{202e} (Secret moved is in use)"
    );
    // Those that seem to be well have had the time that a Secret takes.
    let late = count(now() + DAY);
    assert_eq!(late.blockers.total(), 6);
    assert!(names(&late).contains(&"ns/slow: Behind".to_owned()));
    assert!(names(&late).contains(&"ns/copy: BundleNotWritten".to_owned()));
    let counts: Vec<_> = late.blockers.counts.into_iter().collect();
    let expected = [
        "behind",
        "bundle",
        "failed",
        "foreign",
        "namespace",
        "refused",
    ];
    assert_eq!(counts, expected.map(|reason| (reason, 1)));
    assert!(
        expected
            .iter()
            .all(|reason| crate::model::rollout::REASONS.contains(reason))
    );
}

#[test]
fn few_of_many_blockers_are_named_and_the_same_ones_always() {
    let [old, new] = [(); 2].map(|()| authority());
    let ledger = with_next(ledger_of(&old), &new, None);
    let failed = |number: usize| {
        let name = format!("pki-{number:03}");
        pki(&name, &old, "before", ("False", "PkiIssuanceFailed"))
    };
    let mut census = Census::new(&ledger, &QUICK, now());
    for number in (0..100).rev() {
        census.count(&failed(number));
    }
    let blockers = census.end().blockers;
    assert_eq!((blockers.total(), blockers.named.len()), (100, 20));
    assert_eq!(blockers.named[0].name, "pki-000");
    assert_eq!(blockers.named[19].name, "pki-019");
}

#[test]
fn a_report_says_what_is_waited_for_and_until_when() {
    let [old, new] = [(); 2].map(|()| authority());
    let fleet = |ledger: &CaState, time| {
        let mut census = Census::new(ledger, &QUICK, time);
        census.count(&pki("p", &old, "before", ("False", "PkiIssuanceFailed")));
        census.end()
    };
    let report = |ledger: &CaState, time| {
        let report = fleet::report(ledger, &fleet(ledger, time), &QUICK, time);
        report.map(|it| (it.phase, it.until, it.forced, it.blocked))
    };
    let settled = ledger_of(&new);
    assert_eq!(report(&settled, now()), None);
    let publishing = with_next(ledger_of(&old), &new, None);
    let until = Some(now() + QUICK.wait);
    let expected = Some((Phase::Publishing, until, false, 1));
    assert_eq!(report(&publishing, now() + HOUR), expected);
    let replacing = with_previous(settled.clone(), &old, None);
    let expected = Some((Phase::Replacing, until, false, 1));
    assert_eq!(report(&replacing, now() + HOUR), expected);
    let later = now() + QUICK.wait;
    assert_eq!(
        report(&replacing, later),
        Some((Phase::Retained, None, false, 1))
    );
    let mut stolen = replacing;
    stolen.retired[0].forced = Some(now());
    let until = Some(now() + DAY / 4);
    assert_eq!(
        report(&stolen, now()),
        Some((Phase::Replacing, until, true, 1))
    );
    stolen.retired[0].is_withdrawn = true;
    assert!(is_counted(&stolen));
    assert_eq!(
        report(&stolen, later),
        Some((Phase::Withdrawn, None, true, 1))
    );
}
