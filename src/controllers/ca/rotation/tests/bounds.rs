//! Nobody keeps a rotation waiting for ever, and by force nobody keeps it waiting at all.

use super::*;
use crate::controllers::ca::progress::{self, RolloutCounter};
use crate::model::rollout::Phase;

const QUICK: RotationTimes = RotationTimes {
    step: DAY,
    wait: SignedDuration::from_hours(72),
};
const SECOND: SignedDuration = SignedDuration::from_secs(1);
const BEHIND: Waiting = Waiting {
    unpublished: 1,
    of_previous: 1,
};

fn forced(state: CaState, next: &Authority) -> CaState {
    let mut state = with_next(state, next, None);
    state.next.as_mut().unwrap().is_forced = true;
    state
}

#[test]
fn a_successor_signs_a_step_after_the_longest_wait_for_blockers() {
    let (old, new) = (authority(), authority());
    let names = [&old, &new].map(fingerprint);
    let state = with_next(state_of(&old), &new, None);
    let wait = now() + QUICK.wait;
    let state = advance(state, BEHIND, QUICK, wait - SECOND);
    assert_eq!(state.next.as_ref().unwrap().published, None);
    let state = advance(state, BEHIND, QUICK, wait);
    assert_eq!(state.next.as_ref().unwrap().published, Some(wait));
    // Nobody else can begin the step anew.
    let state = advance(state, BEHIND, QUICK, wait + DAY - SECOND);
    assert_eq!(state.current.fingerprint(), names[0]);
    let state = advance(state, BEHIND, QUICK, wait + DAY);
    let [old_name, new_name] = names.clone();
    assert_eq!(roles(&state), (new_name, None, Some(old_name)));

    // A root that is in use stays trusted, however long that takes.
    let later = wait + 300 * DAY;
    let state = advance(state, BEHIND, QUICK, later);
    assert_eq!(previous(&state).unwrap().unused, None);
    assert!(state.trust().pem().contains(old.ca().root_pem()));
    // And that keeps no other rotation from being begun.
    for (time, is) in [(wait + 2 * DAY, false), (later, true)] {
        let request = Some(RotationRequest::Rotate);
        assert_eq!(is_due(&state, request, &QUICK, time), is, "{time}");
    }
}

#[test]
fn several_cas_of_before_are_trusted_as_long_as_they_are_in_use() {
    let cas: Vec<_> = (0..3).map(|_| authority()).collect();
    let mut state = state_of(&cas[0]);
    let mut time = now();
    for next in &cas[1..] {
        state = with_next(state, next, None);
        state.next.as_mut().unwrap().since = Some(time);
        time += QUICK.wait;
        state = advance(state, BEHIND, QUICK, time);
        time += DAY;
        state = advance(state, BEHIND, QUICK, time);
        time += QUICK.wait;
    }
    let retired: Vec<_> = state.trusted().map(|it| it.ca.fingerprint()).collect();
    assert_eq!(retired, [&cas[1], &cas[0]].map(fingerprint));
    for ca in &cas {
        assert!(state.trust().pem().contains(ca.ca().root_pem()));
    }
    // The oldest is not used any more; the one after it is.
    let progress = RolloutProgress {
        in_use: [fingerprint(&cas[1])].into(),
        ..RolloutProgress::default()
    };
    state = super::super::advance(state, &progress, &QUICK, time);
    state = super::super::advance(state, &progress, &QUICK, time + DAY);
    let retired: Vec<_> = state.trusted().map(|it| it.ca.fingerprint()).collect();
    assert_eq!(retired, [fingerprint(&cas[1])]);
    assert_eq!(state.retired.len(), 2, "the key of the other is kept");
}

#[test]
fn no_ninth_ca_of_before_is_trusted_unless_by_force() {
    let mut state = state_of(&authority());
    for _ in 0..8 {
        state = with_previous(state, &authority(), None);
    }
    let later = now() + 10 * DAY;
    let rotate = Some(RotationRequest::Rotate);
    assert!(!is_due(&state, rotate, &QUICK, later));
    let said = obstacle(&state, rotate, &QUICK, later).unwrap();
    assert!(
        said.starts_with("8 previous CAs are still trusted"),
        "{said}"
    );
    let brought = with_next(state.clone(), &authority(), Some(now()));
    let brought = advance(brought, BEHIND, QUICK, later);
    assert!(brought.next.is_some());
    assert!(is_due(&state, Some(RotationRequest::Force), &QUICK, later));
    let next = authority();
    let state = advance(forced(state, &next), BEHIND, QUICK, later);
    let state = advance(state, BEHIND, QUICK, later + 3 * DAY);
    assert_eq!(roles(&state).0, fingerprint(&next));
    let state = advance(state, BEHIND, QUICK, later + 4 * DAY);
    let state = advance(state, BEHIND, QUICK, later + 5 * DAY);
    assert_eq!(state.trust().pem(), next.ca().root_pem());
}

/// Each peer that is reached gets a whole step to reload, twice; the others get a quarter of one.
#[test]
fn a_forced_rotation_ends_within_three_steps_despite_blockers() {
    let [oldest, old, new] = [(); 3].map(|()| authority());
    let mut state = forced(with_previous(state_of(&old), &oldest, None), &new);
    let (mut signs, mut over) = (None, None);
    for quarter in 0..20 {
        let time = now() + quarter * DAY / 4;
        state = advance(state, BEHIND, QUICK, time);
        if state.next.is_none() {
            signs.get_or_insert(quarter);
        }
        if state.trusted().next().is_none() {
            over.get_or_insert(quarter);
        }
    }
    assert_eq!((signs, over), (Some(5), Some(10)), "in quarters of a step");
    assert_eq!(state.trust().pem(), new.ca().root_pem());
    assert_eq!(state.retired.len(), 2);
    assert_eq!(outdated(&state, 1000 * DAY).count(), 2, "they were stolen");
}

#[test]
fn force_makes_another_successor_even_of_a_rotation_that_is_under_way() {
    let [old, new, newer] = [(); 3].map(|()| authority());
    let published = Some(now());
    let under_way = with_next(state_of(&old), &new, published);
    assert!(is_due(
        &under_way,
        Some(RotationRequest::Force),
        &TIMES,
        now()
    ));
    let found = StoredCa {
        forced: Some(fingerprint(&newer)),
        ..stored(copy(&old), Some(copy(&newer)))
    };
    let (state, _, _) = assess_now(under_way, Some(found));
    let next = state.next.as_ref().unwrap();
    assert!(next.is_forced && next.published.is_none());
    assert_eq!(next.ca.fingerprint(), fingerprint(&newer));
    assert!(!state.trust().pem().contains(new.ca().root_pem()));
    // One that a manifest asks for again and again comes to an end before the next one begins.
    let request = Some(RotationRequest::Force);
    assert!(!is_due(&state, request, &TIMES, now() + HOUR));
    let state = advance(state, BEHIND, TIMES, now());
    let state = advance(state, BEHIND, TIMES, now() + DAY / 4);
    let state = advance(state, BEHIND, TIMES, now() + DAY * 5 / 4);
    assert_eq!(roles(&state).0, fingerprint(&newer));
    assert!(!is_due(&state, request, &TIMES, now() + DAY * 3 / 2));
    let said = obstacle(&state, request, &TIMES, now() + DAY * 3 / 2).unwrap();
    assert!(
        said.starts_with("a forced rotation has been under way since"),
        "{said}"
    );
    let state = advance(state, BEHIND, TIMES, now() + DAY * 3 / 2);
    let state = advance(state, BEHIND, TIMES, now() + DAY * 5 / 2);
    assert!(is_due(&state, request, &TIMES, now() + DAY * 5 / 2));
}

#[test]
fn a_request_that_has_to_wait_is_answered() {
    let [old, new] = [(); 2].map(|()| authority());
    let rotate =
        |state: &CaState, time| obstacle(state, Some(RotationRequest::Rotate), &QUICK, time);
    let settled = state_of(&old);
    assert_eq!(rotate(&settled, now()), None);
    let publishing = with_next(settled.clone(), &new, None);
    assert_eq!(
        rotate(&publishing, now() + HOUR).unwrap(),
        "a rotation has been under way since 2030-01-01T00:00:00Z; the next one begins when the certificates of the present CA are \
         replaced and its root is withdrawn; box.com/rotate-now=force starts one at once"
    );
    let replacing = with_previous(settled, &new, None);
    assert_eq!(
        rotate(&replacing, now() + HOUR).unwrap(),
        "a rotation began to replace the certificates of the previous CA at 2030-01-01T00:00:00Z; the next one begins when the \
         root of that CA is withdrawn, at the latest at 2030-01-04T00:00:00Z; box.com/rotate-now=force starts one at \
         once"
    );
    assert_eq!(rotate(&replacing, now() + QUICK.wait), None);
}

#[test]
fn a_key_is_kept_for_a_time_that_no_clock_can_shorten() {
    let (old, new) = (authority(), authority());
    let state = with_previous(state_of(&new), &old, Some(now()));
    let mut state = advance(state, Waiting::default(), TIMES, now() + DAY);
    assert!(state.trusted().next().is_none());
    let count = |state: &CaState| outdated(state, 30 * DAY).count();
    for hour in 0..30 * 24 {
        assert_eq!(count(&state), 0, "{hour}");
        // The time of day goes to and fro by years.
        let years = i32::from(hour % 2 == 0) * 11;
        let time = now() + TEN_YEARS * years / 10;
        state = advance(state, Waiting::default(), TIMES, time);
        age(&mut state, HOUR);
    }
    assert_eq!(count(&state), 1);
    // As long as it is trusted its key stays.
    let mut used = with_previous(state_of(&new), &old, None);
    age(&mut used, 60 * DAY);
    let used = advance(used, BEHIND, TIMES, now() + 60 * DAY);
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
    let state = with_next(state_of(&old), &new, None);
    let trust = state.trust().fingerprint().to_owned();
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
        let mut counter = RolloutCounter::new(&state, &QUICK, time);
        counter.count_copies([("ns".into(), "copy".into())], true);
        for pki in &pkis {
            counter.count(pki);
        }
        counter.count_unread(["gone".to_owned()]);
        counter.end()
    };
    let early = count(now() + HOUR);
    assert_eq!(early.unpublished, 6);
    let names = |progress: &RolloutProgress| -> Vec<String> {
        progress
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
    let state = with_next(state_of(&old), &new, None);
    let failed = |number: usize| {
        let name = format!("pki-{number:03}");
        pki(&name, &old, "before", ("False", "PkiIssuanceFailed"))
    };
    let mut counter = RolloutCounter::new(&state, &QUICK, now());
    for number in (0..100).rev() {
        counter.count(&failed(number));
    }
    let blockers = counter.end().blockers;
    assert_eq!((blockers.total(), blockers.named.len()), (100, 20));
    assert_eq!(blockers.named[0].name, "pki-000");
    assert_eq!(blockers.named[19].name, "pki-019");
}

#[test]
fn a_report_names_the_blockers_and_the_deadline() {
    let [old, new] = [(); 2].map(|()| authority());
    let progress = |state: &CaState, time| {
        let mut counter = RolloutCounter::new(state, &QUICK, time);
        counter.count(&pki("p", &old, "before", ("False", "PkiIssuanceFailed")));
        counter.end()
    };
    let report = |state: &CaState, time| {
        let report = progress::report(state, &progress(state, time), &QUICK, time);
        report.map(|it| (it.phase, it.until, it.forced, it.blocked))
    };
    let settled = state_of(&new);
    assert_eq!(report(&settled, now()), None);
    let publishing = with_next(state_of(&old), &new, None);
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

#[test]
fn a_root_is_trusted_until_the_last_pod_certificate_has_ended() {
    let (old, new) = (authority(), authority());
    let mut state = CaState::of(old.ca().clone());
    let end = now() + 3 * DAY;
    state.pod_leaves_until = Some(end);
    replace(&mut state, new.ca().clone(), now());
    assert_eq!(state.pod_leaves_until, None);
    assert_eq!(state.retired[0].pod_leaves_until, Some(end));
    let go_on = |state: CaState, time: Timestamp| {
        let progress = RolloutCounter::new(&state, &TIMES, time).end();
        super::super::advance(state, &progress, &TIMES, time)
    };
    // No Pki has a certificate of the old CA any more.
    for (time, is_withdrawn) in [
        (now() + 2 * DAY, false),
        (end, false),
        (end + HOUR, false),
        (end + HOUR + STEP, true),
    ] {
        state = go_on(state, time);
        assert_eq!(state.retired[0].is_withdrawn, is_withdrawn, "{time}");
    }
}

#[test]
fn a_ca_that_signs_again_keeps_the_end_of_its_pod_certificates() {
    let (old, new) = (authority(), authority());
    let mut state = CaState::of(old.ca().clone());
    state.pod_leaves_until = Some(now() + DAY);
    replace(&mut state, new.ca().clone(), now());
    state.pod_leaves_until = Some(now() + 2 * DAY);
    replace(&mut state, old.ca().clone(), now() + HOUR);
    assert_eq!(state.pod_leaves_until, Some(now() + DAY));
    assert_eq!(state.retired[0].pod_leaves_until, Some(now() + 2 * DAY));
}
