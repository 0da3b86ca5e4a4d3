//! A rotation step by step, and all that may befall the Secret meanwhile.

mod bounds;
mod clock;
mod story;

use super::*;
use crate::model::ca::Alarm;
use crate::model::ca::Ca;
use crate::model::ca_state::CaState;
use crate::util::time::tests::now;
use pki_certs::{Authority, AuthorityError};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// That of all steps here.
const STEP: SignedDuration = DAY;
/// How long those who cannot be reached are waited for, where that is not the point.
const TIMES: RotationTimes = RotationTimes {
    step: STEP,
    wait: SignedDuration::from_hours(24 * 200),
};
const TEN_YEARS: SignedDuration = SignedDuration::from_hours(87_600);
const SECRET: &str = "pki-operator/ca";

/// A CA that is made now and ends in ten years.
fn authority() -> Authority {
    Authority::generate("ca", TEN_YEARS, now()).unwrap()
}

/// One of two CAs below one root.
fn below_root(name: &str, root: &[u8]) -> Authority {
    let (crt, key) = match name {
        "a" => (
            &include_bytes!("tests/a.crt")[..],
            &include_bytes!("tests/a.key")[..],
        ),
        _ => (
            &include_bytes!("tests/b.crt")[..],
            &include_bytes!("tests/b.key")[..],
        ),
    };
    Authority::from_pem(crt, root, key, now()).unwrap()
}

const ROOT: &[u8] = include_bytes!("tests/root.crt");

type Read = Result<Authority, AuthorityError>;

/// How many there are that keep a rotation waiting.
#[derive(Clone, Copy, Default)]
struct Waiting {
    unpublished: usize,
    of_previous: usize,
}

/// Goes on, where all CAs of before are in use or none is.
fn advance(state: CaState, waiting: Waiting, times: RotationTimes, now: Timestamp) -> CaState {
    let signed = state
        .retired
        .iter()
        .map(|it| it.ca.fingerprint().to_owned());
    let progress = RolloutProgress {
        unpublished: waiting.unpublished,
        of_retired: waiting.of_previous,
        in_use: signed.filter(|_| waiting.of_previous > 0).collect(),
        ..RolloutProgress::default()
    };
    super::advance(state, &progress, &times, now)
}

/// The CA as it is read from its Secret at some time.
fn read_at(authority: &Authority, time: Timestamp) -> Read {
    let ca = authority.ca();
    let chain = format!("{}{}", ca.chain_pem(), ca.root_pem());
    let key = authority.private_key_pem().as_str();
    Authority::from_pem(chain.as_bytes(), b"", key.as_bytes(), time)
}

fn copy(authority: &Authority) -> Read {
    read_at(authority, now())
}

fn stored(current: Read, next: Option<Read>) -> StoredCa {
    StoredCa {
        current,
        next,
        accepted: None,
        retired: Vec::new(),
        forced: None,
    }
}

fn state_of(authority: &Authority) -> CaState {
    CaState::of(authority.ca().clone())
}

fn with_next(state: CaState, next: &Authority, published: Option<Timestamp>) -> CaState {
    let ca = next.ca().clone();
    CaState {
        next: Some(Next {
            ca,
            since: Some(now()),
            published,
            is_forced: false,
        }),
        ..state
    }
}

fn with_previous(mut state: CaState, previous: &Authority, unused: Option<Timestamp>) -> CaState {
    let previous = Retired::since(previous.ca().clone(), now());
    state.retired.insert(0, Retired { unused, ..previous });
    state
}

/// The newest CA that signs no more and is trusted still.
fn previous(state: &CaState) -> Option<&Retired> {
    state.trusted().next()
}

/// Who signs, or the sentence that says why nobody does; and what is wrong besides.
fn assess_now(
    state: CaState,
    stored: Option<StoredCa>,
) -> (CaState, Result<String, String>, Option<String>) {
    let found = evaluate(Some(state), stored, SECRET, now()).unwrap();
    let signer = found.signer.map(|signer| fingerprint(&signer));
    let signer = signer.map_err(|alarm| alarm.to_string());
    let other = found.successor_alarm.map(|alarm| alarm.to_string());
    (found.state, signer, other)
}

fn fingerprint(authority: &Authority) -> String {
    authority.ca().fingerprint().to_owned()
}

/// The CAs by their fingerprints: the one that signs, its successor and its predecessor.
fn roles(state: &CaState) -> (String, Option<String>, Option<String>) {
    let name = |ca: &CaCertificate| ca.fingerprint().to_owned();
    (
        name(&state.current),
        state.next.as_ref().map(|next| name(&next.ca)),
        previous(state).map(|previous| name(&previous.ca)),
    )
}

fn garbage() -> Read {
    Authority::from_pem(b"garbage", b"", b"garbage", now())
}

fn with_other_key(authority: &Authority) -> Read {
    let key = self::authority();
    let key = key.private_key_pem().as_str();
    Authority::from_pem(
        authority.ca().certificate_pem().as_bytes(),
        b"",
        key.as_bytes(),
        now(),
    )
}

const KEY_MISMATCH: &str =
    "the private key does not belong to the CA certificate; give the two that were made together";

#[test]
fn a_successor_is_made_when_the_last_third_begins_or_on_demand() {
    let state = state_of(&authority());
    let due = now() + TEN_YEARS * 2 / 3;
    let second = SignedDuration::from_secs(1);
    for (time, is) in [
        (now(), false),
        (now() + DAY, false),
        (due - second, false),
        (due, true),
        (now() + TEN_YEARS, true),
    ] {
        assert_eq!(is_due(&state, None, &TIMES, time), is, "{time}");
        for request in [RotationRequest::Rotate, RotationRequest::Force] {
            assert!(is_due(&state, Some(request), &TIMES, time), "{time}");
        }
    }
    // One at a time, while certificates of the one before may be replaced.
    let other = authority();
    for busy in [
        with_next(state.clone(), &other, None),
        with_previous(state.clone(), &other, None),
    ] {
        for request in [None, Some(RotationRequest::Rotate)] {
            assert!(!is_due(&busy, request, &TIMES, now() + DAY));
        }
        assert!(is_due(
            &busy,
            Some(RotationRequest::Force),
            &TIMES,
            now() + DAY
        ));
    }
}

#[test]
fn a_successor_signs_when_a_step_has_passed_since_everybody_knows_it() {
    let (old, new) = (authority(), authority());
    let names = [&old, &new].map(fingerprint);
    let behind = Waiting {
        unpublished: 1,
        of_previous: 0,
    };
    let nobody_behind = Waiting::default();
    let found = stored(copy(&old), Some(copy(&new)));
    let (state, signer, concern) = assess_now(state_of(&old), Some(found));
    assert_eq!((&signer, &concern), (&Ok(names[0].clone()), &None));
    assert_eq!(
        roles(&state),
        (names[0].clone(), Some(names[1].clone()), None)
    );
    assert_eq!(state.next.as_ref().unwrap().published, None);
    // However long it takes.
    let state = advance(state, behind, TIMES, now());
    let state = advance(state, behind, TIMES, now() + 100 * DAY);
    assert_eq!(state.next.as_ref().unwrap().published, None);

    let begin = now() + 101 * DAY;
    let state = advance(state, nobody_behind, TIMES, begin);
    assert_eq!(state.next.as_ref().unwrap().published, Some(begin));
    let state = advance(state, nobody_behind, TIMES, begin + HOUR);
    assert_eq!(
        state.next.as_ref().unwrap().published,
        Some(begin),
        "it counts from the first"
    );
    // One that comes later, or was not seen, is waited for, and then the step begins anew.
    let state = advance(state, behind, TIMES, begin + 25 * HOUR);
    assert_eq!(state.next.as_ref().unwrap().published, None);
    let begin = begin + 26 * HOUR;
    let state = advance(state, nobody_behind, TIMES, begin);
    let a_moment = SignedDuration::from_nanos(1);
    let state = advance(state, nobody_behind, TIMES, begin + STEP - a_moment);
    assert_eq!(
        roles(&state),
        (names[0].clone(), Some(names[1].clone()), None)
    );
    let state = advance(state, nobody_behind, TIMES, begin + STEP);
    assert_eq!(
        roles(&state),
        (names[1].clone(), None, Some(names[0].clone()))
    );
    let previous = previous(&state).unwrap();
    assert_eq!((previous.since, previous.unused), (begin + STEP, None));

    // Its key lies where it was put.
    let found = stored(copy(&old), Some(copy(&new)));
    let (state, signer, concern) = assess_now(state, Some(found));
    assert_eq!((&signer, &concern), (&Ok(names[1].clone()), &None));
    assert_eq!(
        roles(&state),
        (names[1].clone(), None, Some(names[0].clone()))
    );
}

#[test]
fn a_predecessor_is_withdrawn_when_a_step_has_passed_since_nobody_uses_it() {
    let (old, new) = (authority(), authority());
    let in_use = Waiting {
        unpublished: 0,
        of_previous: 1,
    };
    let state = with_previous(state_of(&new), &old, None);
    let state = advance(state, in_use, TIMES, now() + 100 * DAY);
    assert_eq!(previous(&state).unwrap().unused, None);
    let begin = now() + 101 * DAY;
    let state = advance(state, Waiting::default(), TIMES, begin);
    let state = advance(state, Waiting::default(), TIMES, begin + HOUR);
    assert_eq!(previous(&state).unwrap().unused, Some(begin));
    let state = advance(state, in_use, TIMES, begin + 2 * HOUR);
    assert_eq!(
        previous(&state).unwrap().unused,
        None,
        "one was issued late"
    );
    let begin = begin + 3 * HOUR;
    let state = advance(state, Waiting::default(), TIMES, begin);
    let a_moment = SignedDuration::from_nanos(1);
    let state = advance(state, Waiting::default(), TIMES, begin + STEP - a_moment);
    assert!(previous(&state).is_some());
    let state = advance(state, Waiting::default(), TIMES, begin + STEP);
    assert_eq!(roles(&state), (fingerprint(&new), None, None));
    assert_eq!(state.trust().pem(), new.ca().root_pem());
}

#[test]
fn a_predecessor_that_has_expired_is_withdrawn_even_with_leaves_in_use() {
    let short = Authority::generate("ca", 10 * DAY, now()).unwrap();
    let state = with_previous(state_of(&authority()), &short, None);
    let in_use = Waiting {
        unpublished: 1,
        of_previous: 1,
    };
    let end = now() + 10 * DAY;
    assert!(previous(&advance(state.clone(), in_use, TIMES, end)).is_some());
    let over = end + SignedDuration::from_secs(1);
    let state = advance(state, in_use, TIMES, over);
    assert_eq!(previous(&state).unwrap().unused, Some(over));
    let state = advance(state, in_use, TIMES, over + STEP);
    assert!(previous(&state).is_none());
}

#[test]
fn a_successor_waits_until_the_predecessor_is_withdrawn() {
    let [oldest, old, new] = [(); 3].map(|()| authority());
    let state = with_next(
        with_previous(state_of(&old), &oldest, None),
        &new,
        Some(now()),
    );
    let in_use = Waiting {
        unpublished: 0,
        of_previous: 1,
    };
    let state = advance(state, in_use, TIMES, now() + 10 * DAY);
    assert_eq!(
        roles(&state),
        (
            fingerprint(&old),
            Some(fingerprint(&new)),
            Some(fingerprint(&oldest))
        )
    );
    let state = advance(state, Waiting::default(), TIMES, now() + 11 * DAY);
    let state = advance(state, Waiting::default(), TIMES, now() + 12 * DAY);
    assert_eq!(
        roles(&state),
        (fingerprint(&new), None, Some(fingerprint(&old)))
    );
}

#[test]
fn a_secret_that_cannot_be_written_does_not_keep_a_ca_until_its_end() {
    let (old, new) = (authority(), authority());
    let behind = Waiting {
        unpublished: 1,
        of_previous: 0,
    };
    let state = with_next(state_of(&old), &new, None);
    let end = now() + TEN_YEARS;
    let state = advance(
        state,
        behind,
        TIMES,
        end - STEP - SignedDuration::from_secs(1),
    );
    assert_eq!(state.current.fingerprint(), fingerprint(&old));
    let state = advance(state, behind, TIMES, end - STEP);
    assert_eq!(
        roles(&state),
        (fingerprint(&new), None, Some(fingerprint(&old)))
    );
}

#[test]
fn the_first_ca_that_is_seen_is_the_one_that_signs() {
    let (old, new) = (authority(), authority());
    let first = |stored| evaluate(None, stored, SECRET, now());
    let found = first(Some(stored(copy(&old), None))).unwrap();
    assert_eq!(roles(&found.state), (fingerprint(&old), None, None));
    assert_eq!(fingerprint(&found.signer.unwrap()), fingerprint(&old));
    assert_eq!(found.successor_alarm, None);
    let found = first(Some(stored(copy(&old), Some(copy(&new))))).unwrap();
    assert_eq!(
        roles(&found.state),
        (fingerprint(&old), Some(fingerprint(&new)), None)
    );

    let alarm = first(Some(stored(with_other_key(&old), None))).unwrap_err();
    assert_eq!(alarm.label(), "unusable");
    assert_eq!(
        alarm.to_string(),
        format!("Secret {SECRET} holds no usable CA in tls.crt: {KEY_MISMATCH}")
    );
    let alarm = first(None).unwrap_err();
    assert_eq!(alarm.label(), "missing");
    assert_eq!(
        alarm.to_string(),
        format!(
            "there is no Secret {SECRET}: create it with the key and certificate of your CA as tls.key and tls.crt"
        )
    );
}

#[test]
fn a_secret_that_is_gone_is_an_alarm_and_never_a_new_ca() {
    let (old, new) = (authority(), authority());
    let state = with_next(with_previous(state_of(&old), &new, None), &new, None);
    let before = roles(&state);
    let (state, signer, concern) = assess_now(state, None);
    let lost = format!(
        "Secret {SECRET} with the CA {} is gone: restore it from a backup; or, to begin with a new CA that no client \
         trusts yet, delete ConfigMap {SECRET} too",
        fingerprint(&old)
    );
    assert_eq!((signer, concern), (Err(lost), None));
    assert_eq!(roles(&state), before);
    let (state, signer, _) = assess_now(state, Some(stored(copy(&old), None)));
    assert_eq!(signer, Ok(fingerprint(&old)), "restored, it signs again");
    assert_eq!(state.current.fingerprint(), fingerprint(&old));
}

fn replaced(expected: &Authority, found: &Authority) -> String {
    let [expected, found] = [expected, found].map(fingerprint);
    format!(
        "Secret {SECRET} holds the CA {found} instead of {expected}: restore it from a backup; or, if it was replaced on \
         purpose, annotate it with box.com/accept-ca={found}"
    )
}

#[test]
fn the_ca_of_a_stranger_is_an_alarm_until_the_platform_team_vouches_for_it() {
    let [old, stranger, other] = [(); 3].map(|()| authority());
    for accepted in [
        None,
        Some("true".to_owned()),
        Some(fingerprint(&other)),
        Some(fingerprint(&old)),
    ] {
        let found = StoredCa {
            accepted,
            ..stored(copy(&stranger), None)
        };
        let (state, signer, concern) = assess_now(state_of(&old), Some(found));
        assert_eq!((signer, concern), (Err(replaced(&old, &stranger)), None));
        assert_eq!(roles(&state), (fingerprint(&old), None, None));
        assert!(!state.trust().pem().contains(stranger.ca().root_pem()));
    }
    let found = StoredCa {
        accepted: Some(fingerprint(&stranger)),
        ..stored(copy(&stranger), None)
    };
    let (state, signer, concern) = assess_now(state_of(&old), Some(found));
    assert_eq!((signer, concern), (Ok(fingerprint(&stranger)), None));
    assert_eq!(
        roles(&state),
        (fingerprint(&stranger), None, Some(fingerprint(&old)))
    );
    // What the one before has signed is trusted as long as it is in use.
    for ca in [&old, &stranger] {
        assert!(state.trust().pem().contains(ca.ca().root_pem()));
    }
    // The annotation may stay.
    let found = StoredCa {
        accepted: Some(fingerprint(&stranger)),
        ..stored(copy(&stranger), None)
    };
    let (again, signer, _) = assess_now(state.clone(), Some(found));
    assert_eq!(signer, Ok(fingerprint(&stranger)));
    assert_eq!(again.data(), state.data());
}

#[test]
fn a_backup_from_before_a_rotation_is_not_taken_for_the_present_ca() {
    let (old, new) = (authority(), authority());
    let state = with_previous(state_of(&new), &old, None);
    let (state, signer, _) = assess_now(state, Some(stored(copy(&old), None)));
    assert_eq!(signer, Err(replaced(&new, &old)));
    assert_eq!(
        roles(&state),
        (fingerprint(&new), None, Some(fingerprint(&old)))
    );
}

#[test]
fn another_ca_below_the_same_root_is_accepted_without_an_alarm() {
    let (a, b) = (below_root("a", ROOT), below_root("b", ROOT));
    let (state, signer, concern) = assess_now(state_of(&a), Some(stored(copy(&b), None)));
    assert_eq!((signer, concern), (Ok(fingerprint(&b)), None));
    assert_eq!(
        roles(&state),
        (fingerprint(&b), None, Some(fingerprint(&a)))
    );
    assert!(
        state.trust().is_published_in(ROOT),
        "clients need not learn anything"
    );

    let elsewhere = authority();
    let (_, signer, _) = assess_now(state_of(&a), Some(stored(copy(&elsewhere), None)));
    assert_eq!(signer, Err(replaced(&a, &elsewhere)));
}

#[test]
fn a_root_that_was_certified_anew_is_published() {
    let renewed = include_bytes!("tests/root-renewed.crt");
    let (before, after) = (below_root("a", ROOT), below_root("a", renewed));
    let (state, signer, concern) = assess_now(state_of(&before), Some(stored(copy(&after), None)));
    assert_eq!((signer, concern), (Ok(fingerprint(&after)), None));
    assert!(state.trust().pem().contains(after.ca().root_pem()));
}

#[test]
fn a_key_that_is_damaged_is_an_alarm() {
    let old = authority();
    for (damaged, problem) in [
        (
            garbage(),
            "the CA certificate is not readable; give X.509 certificates in PEM, that of the CA first",
        ),
        (with_other_key(&old), KEY_MISMATCH),
        (
            Authority::from_pem(old.ca().certificate_pem().as_bytes(), b"", b"", now()),
            "the private key of the CA is not readable; give it in PEM (PKCS#8, SEC 1 or PKCS#1), not encrypted",
        ),
        (
            read_at(&old, now() + TEN_YEARS + HOUR),
            "the CA certificate expired at 2039-12-30T00:00:00Z; replace it",
        ),
    ] {
        let (state, signer, concern) = assess_now(state_of(&old), Some(stored(damaged, None)));
        let said = format!("Secret {SECRET} holds no usable CA in tls.crt: {problem}");
        assert_eq!((signer, concern), (Err(said), None));
        assert_eq!(roles(&state), (fingerprint(&old), None, None));
    }
}

#[test]
fn a_ca_that_has_run_out_is_replaced_as_any_other() {
    let old = authority();
    let later = now() + TEN_YEARS + DAY;
    let make = || Authority::generate("ca", TEN_YEARS, later).unwrap();
    let (new, stranger) = (make(), make());
    let read = |authority| read_at(authority, later);
    let accepted = StoredCa {
        accepted: Some(fingerprint(&new)),
        ..stored(read(&new), None)
    };
    let ledgers = [state_of(&old), with_next(state_of(&old), &new, None)];
    for (state, found) in ledgers
        .into_iter()
        .zip([accepted, stored(read(&new), None)])
    {
        let found = evaluate(Some(state), Some(found), SECRET, later).unwrap();
        assert_eq!(fingerprint(&found.signer.unwrap()), fingerprint(&new));
        assert_eq!(found.successor_alarm, None);
        // Its leaves have run out with it, if the clock is right.
        let state = advance(found.state, Waiting::default(), TIMES, later);
        let old = Some(fingerprint(&old));
        assert_eq!(roles(&state), (fingerprint(&new), None, old));
        let state = advance(state, Waiting::default(), TIMES, later + STEP);
        assert_eq!(roles(&state), (fingerprint(&new), None, None));
    }
    let found = stored(read(&stranger), None);
    let found = evaluate(Some(state_of(&old)), Some(found), SECRET, later).unwrap();
    assert_eq!(
        found.signer.unwrap_err().to_string(),
        replaced(&old, &stranger)
    );

    let found = stored(read(&old), Some(read(&new)));
    let found = evaluate(Some(state_of(&old)), Some(found), SECRET, later).unwrap();
    assert_eq!(
        fingerprint(&found.signer.unwrap()),
        fingerprint(&new),
        "made while it was over"
    );
    assert_eq!(roles(&found.state).0, fingerprint(&new));
}

#[test]
fn a_successor_that_cannot_be_used_is_an_alarm_and_the_signer_signs_on() {
    let (old, new) = (authority(), authority());
    for state in [state_of(&old), with_next(state_of(&old), &new, Some(now()))] {
        let found = stored(copy(&old), Some(with_other_key(&new)));
        let (state, signer, concern) = assess_now(state, Some(found));
        assert_eq!(signer, Ok(fingerprint(&old)));
        let said = format!("Secret {SECRET} holds no usable CA in next.crt: {KEY_MISMATCH}");
        assert_eq!(concern, Some(said));
        assert_eq!(roles(&state), (fingerprint(&old), None, None));
    }
}

#[test]
fn a_successor_may_be_withdrawn_or_replaced_before_it_signs() {
    let [old, new, newer] = [(); 3].map(|()| authority());
    let state = with_next(state_of(&old), &new, Some(now()));
    let (withdrawn, signer, concern) = assess_now(state.clone(), Some(stored(copy(&old), None)));
    assert_eq!((signer, concern), (Ok(fingerprint(&old)), None));
    assert_eq!(roles(&withdrawn), (fingerprint(&old), None, None));
    assert_eq!(withdrawn.trust().pem(), old.ca().root_pem());

    let found = stored(copy(&old), Some(copy(&newer)));
    let (replaced, _, _) = assess_now(state.clone(), Some(found));
    assert_eq!(roles(&replaced).1, Some(fingerprint(&newer)));
    assert_eq!(
        replaced.next.unwrap().published,
        None,
        "it has to be made known first"
    );

    let found = stored(copy(&old), Some(copy(&new)));
    let (same, _, _) = assess_now(state, Some(found));
    assert_eq!(same.next.unwrap().published, Some(now()));
    // The signer is not its own successor.
    let found = stored(copy(&old), Some(copy(&old)));
    let (alone, _, _) = assess_now(state_of(&old), Some(found));
    assert_eq!(roles(&alone), (fingerprint(&old), None, None));
}

#[test]
fn a_successor_that_the_platform_team_moves_to_tls_signs() {
    let (old, new) = (authority(), authority());
    for published in [None, Some(now())] {
        let state = with_next(state_of(&old), &new, published);
        let (state, signer, concern) = assess_now(state, Some(stored(copy(&new), None)));
        assert_eq!((signer, concern), (Ok(fingerprint(&new)), None));
        assert_eq!(
            roles(&state),
            (fingerprint(&new), None, Some(fingerprint(&old)))
        );
        assert_eq!(previous(&state).unwrap().since, now());
    }
    // With the next one beside it already.
    let newest = authority();
    let state = with_next(state_of(&old), &new, Some(now()));
    let found = stored(copy(&new), Some(copy(&newest)));
    let (state, signer, _) = assess_now(state, Some(found));
    assert_eq!(signer, Ok(fingerprint(&new)));
    assert_eq!(
        roles(&state),
        (
            fingerprint(&new),
            Some(fingerprint(&newest)),
            Some(fingerprint(&old))
        )
    );
    assert_eq!(state.next.unwrap().published, None);
}

#[test]
fn the_predecessor_beside_the_signer_is_no_successor() {
    let (old, new) = (authority(), authority());
    let rotated = with_previous(state_of(&new), &old, None);
    // It lies there until the rotation is over, or for ever if the platform team brought it.
    for state in [rotated, state_of(&new)] {
        for tls in [
            copy(&old),
            read_at(&old, now() + TEN_YEARS + HOUR),
            garbage(),
        ] {
            let found = stored(tls, Some(copy(&new)));
            let (state, signer, concern) = assess_now(state.clone(), Some(found));
            assert_eq!((signer, concern), (Ok(fingerprint(&new)), None));
            assert_eq!(roles(&state).1, None);
        }
    }
    let swapped = with_previous(state_of(&new), &old, None);
    let (state, signer, _) = assess_now(swapped, Some(stored(copy(&new), Some(copy(&old)))));
    assert_eq!(signer, Ok(fingerprint(&new)));
    assert_eq!(
        roles(&state),
        (fingerprint(&new), None, Some(fingerprint(&old)))
    );
}

#[test]
fn damage_beside_a_successor_is_damage_all_the_same() {
    let [old, new, stranger] = [(); 3].map(|()| authority());
    for published in [None, Some(now())] {
        let state = with_next(state_of(&old), &new, published);
        let found = stored(with_other_key(&old), Some(copy(&new)));
        let (after, signer, _) = assess_now(state.clone(), Some(found));
        let said = format!("Secret {SECRET} holds no usable CA in tls.crt: {KEY_MISMATCH}");
        assert_eq!(signer, Err(said));
        assert_eq!(roles(&after), roles(&state));

        let found = stored(copy(&stranger), Some(copy(&new)));
        let (after, signer, _) = assess_now(state.clone(), Some(found));
        assert_eq!(signer, Err(replaced(&old, &stranger)));
        assert_eq!(roles(&after), roles(&state));
    }
}

fn observed_ca(state: &CaState, signer: &Authority) -> Ca {
    Ca::from_state(state, Ok(copy(signer).unwrap()), |forced| {
        TIMES.window(forced)
    })
}

#[test]
fn what_the_reconciler_gets_follows_from_the_state() {
    let (old, new) = (authority(), authority());
    let settled = observed_ca(&state_of(&old), &old);
    assert_eq!(settled.issuers, [old.ca().clone()]);
    assert_eq!(settled.replacing, None);
    let next = with_next(state_of(&old), &new, None);
    let known = observed_ca(&next, &old);
    assert_eq!(
        known.issuers,
        [old.ca().clone()],
        "the successor has signed nothing"
    );
    assert_eq!(known.trust, CaState::trust(&next));
    let rotated = with_previous(state_of(&new), &old, None);
    let rotated = observed_ca(&rotated, &new);
    assert_eq!(rotated.issuers, [new.ca().clone(), old.ca().clone()]);
    assert_eq!(rotated.replacing, Some((now(), STEP)));
    assert_eq!(known.trust, rotated.trust);

    let lost = Alarm::NotBrought {
        secret: SECRET.into(),
    };
    let mut unsigned = settled.clone();
    unsigned.signer = Err(lost);
    for (a, b, differs) in [
        (&settled, &settled.clone(), false),
        (&settled, &known, true),
        (&known, &rotated, true),
        (&settled, &unsigned, true),
    ] {
        assert_eq!((a.differs_from(b), b.differs_from(a)), (differs, differs));
    }
}
