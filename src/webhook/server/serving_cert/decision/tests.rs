use super::*;
use std::sync::LazyLock;

const DAY: SignedDuration = SignedDuration::from_hours(24);
const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);
const OVERLAP: SignedDuration = DAY;

static BEGIN: LazyLock<Timestamp> = LazyLock::new(|| "2030-01-01T00:00:00Z".parse().unwrap());

/// One segment for all tests.
static SEGMENT: LazyLock<Segment> = LazyLock::new(Segment::generate);

fn ca() -> Arc<Authority> {
    Arc::new(Authority::generate("CA", YEAR, *BEGIN).unwrap())
}

fn pem(authority: &Authority) -> String {
    authority.ca().certificate_pem().to_owned()
}

fn cas(
    current: &Arc<Authority>,
    previous: &[&Arc<Authority>],
    since: Option<Timestamp>,
) -> ServingCas {
    ServingCas {
        current: current.clone(),
        previous: previous.iter().map(|authority| pem(authority)).collect(),
        segment: Some(SEGMENT.clone()),
        previous_segments: vec![],
        since,
    }
}

fn usable(cas: ServingCas) -> StoredServingCa {
    let rotate_now = false;
    StoredServingCa::Usable { cas, rotate_now }
}

fn damaged(is_ours: bool) -> StoredServingCa {
    let error = AuthorityError::Unreadable;
    StoredServingCa::Unusable { error, is_ours }
}

/// Reason, CA that is written, certificates of those before, and their time.
type Written = (Reason, String, Vec<String>, Option<Timestamp>);

fn written(change: Option<ServingCaChange>) -> Option<Written> {
    let change = change?;
    let current = match change.current {
        CurrentServingCa::Same => "same".to_owned(),
        CurrentServingCa::New => "new".to_owned(),
        CurrentServingCa::Known(authority) => pem(&authority),
    };
    Some((change.reason, current, change.previous, change.since))
}

#[test]
fn nothing_is_written_while_nothing_is_due() {
    let (one, other) = (ca(), ca());
    let now = *BEGIN + DAY;
    for (cas, served) in [
        (cas(&one, &[], None), Some(&one)),
        (cas(&one, &[], None), None),
        // The one before is trusted for as long as its leaves may live.
        (cas(&one, &[&other], Some(now)), Some(&one)),
        (cas(&one, &[&other], Some(now)), Some(&other)),
        (
            cas(&one, &[&other], Some(now - OVERLAP + DAY / 24)),
            Some(&one),
        ),
        // A replica that serves from the previous one does not withdraw it.
        (cas(&one, &[&other], Some(now - OVERLAP * 2)), Some(&other)),
        (cas(&one, &[&other], Some(now - OVERLAP * 2)), None),
    ] {
        let known = cas.clone();
        let served = served.map(AsRef::as_ref);
        let change = change(&usable(cas), Some(&known), served, OVERLAP, now);
        assert_eq!(written(change), None);
    }
}

#[test]
fn the_content_of_the_secret_decides_its_change() {
    let (one, other, third) = (ca(), ca(), ca());
    let now = *BEGIN + DAY;
    let known = cas(&one, &[&other], Some(*BEGIN));
    let alone = cas(&one, &[], None);
    let asked = |cas: &ServingCas| StoredServingCa::Usable {
        cas: cas.clone(),
        rotate_now: true,
    };
    let new = || "new".to_owned();
    let same = || "same".to_owned();
    for (name, stored, known, served, expected) in [
        (
            "there is none, and nobody knows one",
            StoredServingCa::Absent,
            None,
            None,
            (Reason::Begin, new(), vec![], None),
        ),
        (
            "deleted",
            StoredServingCa::Absent,
            Some(&known),
            Some(&one),
            (Reason::Restore, pem(&one), vec![pem(&other)], Some(*BEGIN)),
        ),
        (
            "damaged",
            damaged(true),
            Some(&known),
            Some(&other),
            (Reason::Restore, pem(&one), vec![pem(&other)], Some(*BEGIN)),
        ),
        (
            "damaged while no replica ran",
            damaged(true),
            None,
            None,
            (Reason::Begin, new(), vec![], None),
        ),
        (
            "on demand",
            asked(&alone),
            Some(&alone),
            Some(&one),
            (Reason::Rotate, new(), vec![pem(&one)], Some(now)),
        ),
        (
            "on demand, again",
            asked(&known),
            Some(&known),
            Some(&other),
            (
                Reason::Rotate,
                new(),
                vec![pem(&one), pem(&other)],
                Some(now),
            ),
        ),
        (
            "replaced by somebody",
            usable(cas(&third, &[], None)),
            Some(&alone),
            Some(&one),
            (Reason::Overlap, same(), vec![pem(&one)], Some(now)),
        ),
        (
            "replaced by somebody who asks for yet another",
            asked(&cas(&third, &[&other], Some(*BEGIN))),
            Some(&known),
            Some(&one),
            (
                Reason::Overlap,
                same(),
                vec![pem(&one), pem(&other)],
                Some(now),
            ),
        ),
        (
            "those before without a date",
            usable(cas(&one, &[&other], None)),
            Some(&known),
            Some(&one),
            (Reason::Date, same(), vec![pem(&other)], Some(now)),
        ),
        (
            "none of its leaves is left",
            usable(cas(&one, &[&other], Some(now - OVERLAP))),
            Some(&known),
            Some(&one),
            (Reason::Withdraw, same(), vec![], None),
        ),
    ] {
        let served = served.map(AsRef::as_ref);
        let change = change(&stored, known, served, OVERLAP, now);
        assert_eq!(written(change), Some(expected), "{name}");
    }
}

#[test]
fn the_time_until_the_withdrawal_is_known() {
    let (one, two) = (ca(), ca());
    let now = *BEGIN + DAY;
    let second = SignedDuration::from_secs(1);
    let overlapping = cas(&one, &[&two], Some(now));
    for (cas, at, expected) in [
        (&overlapping, now, Some(OVERLAP.unsigned_abs())),
        (
            &overlapping,
            now + OVERLAP - second,
            Some(second.unsigned_abs()),
        ),
        (&overlapping, now + OVERLAP + second, None),
        (&cas(&one, &[], None), now, None),
    ] {
        assert_eq!(cas.until_withdrawal(OVERLAP, at), expected, "{at}");
    }
}

#[test]
fn a_request_for_another_ca_waits_for_the_previous_ones_to_be_withdrawn() {
    let others = [ca(), ca(), ca(), ca()];
    let [one, two, three, four] = others.each_ref();
    let now = *BEGIN + DAY;
    let full = cas(one, &[two, three, four], Some(now));
    let asked = |cas: &ServingCas| StoredServingCa::Usable {
        cas: cas.clone(),
        rotate_now: true,
    };
    let room = cas(one, &[two, three], Some(now));
    for (cas, at, expected) in [
        (&room, now, Some(Reason::Rotate)),
        (&full, now, None),
        (&full, one.ca().not_after(), Some(Reason::Withdraw)),
        (&full, now + OVERLAP, Some(Reason::Withdraw)),
    ] {
        let change = change(&asked(cas), Some(cas), Some(one), OVERLAP, at);
        assert_eq!(change.map(|change| change.reason), expected, "{at}");
    }
    // Another one that somebody puts there in spite of that pushes the oldest out.
    let replaced = ServingCas {
        current: ca(),
        ..full.clone()
    };
    let change = change(&usable(replaced), Some(&full), Some(one), OVERLAP, now);
    let expected = vec![pem(one), pem(two), pem(three)];
    assert_eq!(change.unwrap().previous, expected);
}

#[test]
fn a_replica_that_serves_from_a_ca_before_all_have_it_is_early() {
    let (one, other) = (ca(), ca());
    let long = Some(PROPAGATION_TIME);
    let short = PROPAGATION_TIME.checked_sub(Duration::from_millis(1));
    let rotated = cas(&one, &[&other], Some(*BEGIN));
    for (served, cas, carried_for, expected) in [
        (&one, &rotated, None, true),
        (&one, &rotated, short, true),
        (&one, &rotated, long, false),
        (&other, &rotated, short, false),
        // At an installation nobody else is there to be asked.
        (&one, &cas(&one, &[], None), short, false),
    ] {
        assert_eq!(
            is_early(served, cas, carried_for),
            expected,
            "{carried_for:?}"
        );
    }
}

#[test]
fn a_ca_in_its_last_third_is_replaced() {
    let one = ca();
    let alone = cas(&one, &[], None);
    let end = one.ca().not_after();
    for (now, expected) in [
        (end - YEAR / 3 - DAY, None),
        (end - YEAR / 3 + DAY, Some(Reason::Rotate)),
        (end, Some(Reason::Rotate)),
    ] {
        let stored = usable(alone.clone());
        let change = change(&stored, Some(&alone), Some(&one), OVERLAP, now);
        assert_eq!(change.map(|change| change.reason), expected, "{now}");
    }
}

#[test]
fn a_secret_that_the_operator_did_not_make_is_not_overwritten() {
    let one = ca();
    let known = cas(&one, &[], None);
    for (known, served) in [(Some(&known), Some(&*one)), (None, None)] {
        let change = change(&damaged(false), known, served, OVERLAP, *BEGIN);
        assert_eq!(written(change), None);
    }
}

#[test]
fn a_ca_that_a_wrong_clock_made_is_replaced_if_it_is_the_operators() {
    let one = ca();
    let early = *BEGIN - DAY;
    let key = one.private_key_pem().as_bytes();
    let error = Authority::from_pem(pem(&one).as_bytes(), b"", key, early).unwrap_err();
    assert!(
        matches!(error, AuthorityError::NotYetValid { .. }),
        "{error}"
    );
    let known = cas(&one, &[], None);
    for (is_ours, known, expected) in [
        (true, None, Some(Reason::Begin)),
        (true, Some(&known), Some(Reason::Begin)),
        (false, None, None),
        (false, Some(&known), None),
    ] {
        let error = error.clone();
        let stored = StoredServingCa::Unusable { error, is_ours };
        let change = change(&stored, known, Some(&one), OVERLAP, early);
        assert_eq!(change.map(|change| change.reason), expected, "{is_ours}");
    }
}

#[test]
fn a_ca_that_has_expired_is_not_restored() {
    let one = ca();
    let known = cas(&one, &[], None);
    let end = one.ca().not_after();
    for stored in [StoredServingCa::Absent, damaged(true)] {
        let change = change(&stored, Some(&known), Some(&one), OVERLAP, end);
        assert_eq!(change.map(|change| change.reason), Some(Reason::Begin));
    }
}

#[test]
fn a_leaf_is_of_another_ca_when_all_have_it_and_at_once_when_the_present_one_is_not_trusted() {
    let (one, other) = (ca(), ca());
    let now = *BEGIN;
    let (due, fresh) = (now, now + DAY);
    let long = Some(PROPAGATION_TIME);
    let short = PROPAGATION_TIME.checked_sub(Duration::from_millis(1));
    for (current, carried_for, is_trusted, renew_at, expected) in [
        // With one CA, only the time counts.
        (Some(&one), long, true, fresh, None),
        (Some(&one), None, false, fresh, None),
        (Some(&one), None, true, due, Some(&one)),
        (None, None, true, fresh, None),
        (None, None, true, due, Some(&one)),
        // Another CA.
        (Some(&other), None, true, fresh, None),
        (Some(&other), short, true, fresh, None),
        (Some(&other), long, true, fresh, Some(&other)),
        (Some(&other), None, false, fresh, Some(&other)),
        // The one before is renewed for as long as its successor is not known.
        (Some(&other), None, true, due, Some(&one)),
        (Some(&other), short, true, due, Some(&one)),
        (Some(&other), long, true, due, Some(&other)),
    ] {
        let served = Served {
            issuer: &one,
            renew_at,
            is_trusted,
        };
        let issuer = issuer(served, current, carried_for, now);
        let case = (carried_for, is_trusted, renew_at);
        assert_eq!(
            issuer.as_deref().map(pem),
            expected.map(|ca| pem(ca)),
            "{case:?}"
        );
    }
}

#[test]
fn the_bundle_holds_the_present_ca_and_the_previous_ones() {
    let (one, other, third) = (ca(), ca(), ca());
    let cas = cas(&one, &[&other], None);
    assert_eq!(cas.bundle(), pem(&one) + &pem(&other));
    assert_eq!(
        [&one, &other, &third].map(|ca| cas.hold(ca)),
        [true, true, false]
    );
}

#[test]
fn the_segment_is_made_restored_replaced_and_withdrawn_with_the_ca() {
    let (one, two) = (ca(), ca());
    let now = *BEGIN + DAY;
    let segments = [(); 2].map(|()| Segment::generate());
    let [own, older] = segments.each_ref();
    let with = |cas: ServingCas, segment: Option<&Segment>, previous: &[&Segment]| ServingCas {
        segment: segment.cloned(),
        previous_segments: previous.iter().copied().cloned().collect(),
        ..cas
    };
    let alone = || cas(&one, &[], None);
    let overlapping = |since| cas(&one, &[&two], Some(since));
    let asked = |cas: ServingCas| StoredServingCa::Usable {
        cas,
        rotate_now: true,
    };
    let known = with(alone(), Some(own), &[older]);
    for (name, stored, known, expected) in [
        (
            "there is nothing",
            StoredServingCa::Absent,
            None,
            Some((Reason::Begin, "new", vec![])),
        ),
        (
            "deleted",
            StoredServingCa::Absent,
            Some(&known),
            Some((Reason::Restore, "known", vec![older])),
        ),
        (
            "of a version before",
            usable(with(alone(), None, &[])),
            None,
            Some((Reason::Path, "new", vec![])),
        ),
        (
            "taken out",
            usable(with(alone(), None, &[older])),
            Some(&known),
            Some((Reason::Path, "known", vec![older])),
        ),
        (
            "of a version before, with a CA before",
            usable(with(overlapping(*BEGIN), None, &[])),
            None,
            Some((Reason::Path, "new", vec![])),
        ),
        (
            "on demand",
            asked(with(alone(), Some(own), &[older, own])),
            Some(&known),
            Some((Reason::Rotate, "new", vec![own, older])),
        ),
        (
            "on demand, without one",
            asked(with(alone(), None, &[])),
            Some(&known),
            Some((Reason::Rotate, "new", vec![own])),
        ),
        (
            "within the overlap",
            usable(with(overlapping(now), Some(own), &[older])),
            Some(&known),
            None,
        ),
        (
            "after the overlap",
            usable(with(overlapping(now - OVERLAP), Some(own), &[older])),
            Some(&known),
            Some((Reason::Withdraw, "same", vec![])),
        ),
        // A replica of a version before has withdrawn the CA alone.
        (
            "without a date",
            usable(with(alone(), Some(own), &[older])),
            Some(&known),
            Some((Reason::Date, "same", vec![older])),
        ),
    ] {
        let change = change(&stored, known, Some(&one), OVERLAP, now);
        let written = change.map(|change| {
            let segment = match change.segment {
                CurrentServingCa::Same => "same",
                CurrentServingCa::New => "new",
                CurrentServingCa::Known(segment) if segment == *own => "known",
                CurrentServingCa::Known(_) => "another",
            };
            (change.reason, segment, change.previous_segments)
        });
        let expected = expected.map(|(reason, segment, previous)| {
            let previous: Vec<_> = previous.into_iter().cloned().collect();
            (reason, segment, previous)
        });
        assert_eq!(written, expected, "{name}");
    }
}
