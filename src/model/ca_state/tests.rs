use super::*;
use crate::util::time::tests::now;
use jiff::SignedDuration;
use pki_certs::Authority;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn ca(hours: i32) -> CaCertificate {
    let authority = Authority::generate("ca", hours * HOUR, now()).unwrap();
    authority.ca().clone()
}

/// As the API server stores it.
fn stored(state: &CaState) -> ConfigMap {
    let mut map = json!({});
    json_patch::merge(&mut map, &json!({ "data": state.data() }));
    serde_json::from_value(map).unwrap()
}

fn full() -> CaState {
    let moment = now() + SignedDuration::from_nanos(123_456_789);
    CaState {
        current: ca(1000),
        pod_leaves_until: Some(moment + HOUR),
        next: Some(Next {
            ca: ca(2000),
            since: Some(moment - HOUR),
            published: Some(moment),
            is_forced: true,
        }),
        retired: vec![
            Retired {
                unused: Some(moment + 2 * HOUR),
                pod_leaves_until: Some(moment - HOUR),
                ..Retired::since(ca(500), moment + HOUR)
            },
            Retired {
                forced: Some(moment + HOUR),
                is_withdrawn: true,
                kept: 3 * HOUR,
                ..Retired::since(ca(400), moment)
            },
            Retired::since(ca(300), moment - HOUR),
        ],
        report: None,
    }
}

#[test]
fn what_is_written_is_what_is_read() {
    let full = full();
    let mut ledgers = vec![CaState::of(ca(1000)), full.clone()];
    for (is_published, is_unused) in [(true, false), (false, true), (false, false)] {
        let mut state = full.clone();
        let (next, previous) = (state.next.as_mut().unwrap(), &mut state.retired[0]);
        next.published = next.published.filter(|_| is_published);
        previous.unused = previous.unused.filter(|_| is_unused);
        ledgers.push(state.clone());
        ledgers.push(CaState {
            retired: Vec::new(),
            ..state.clone()
        });
        ledgers.push(CaState {
            next: None,
            ..state
        });
    }
    for state in ledgers {
        let read = CaState::read(&stored(&state), now()).unwrap();
        assert_eq!(read.current, state.current);
        let next = |state: &CaState| {
            let next = state.next.clone();
            next.map(|next| (next.ca, next.since, next.published, next.is_forced))
        };
        assert_eq!(next(&read), next(&state));
        let fields = |it: &Retired| {
            let Retired {
                ca, since, unused, ..
            } = it.clone();
            (ca, since, unused, it.forced, it.is_withdrawn, it.kept)
        };
        let retired = |state: &CaState| state.retired.iter().map(fields).collect::<Vec<_>>();
        assert_eq!(retired(&read), retired(&state));
        assert_eq!(read.data(), state.data());
    }
}

#[test]
fn a_ca_below_a_root_comes_with_the_whole_path() {
    let chain = include_bytes!("../../controllers/ca/rotation/tests/a.crt");
    let root = include_bytes!("../../controllers/ca/rotation/tests/root.crt");
    let ca = CaCertificate::from_pem(chain, root, now()).unwrap();
    let state = CaState::of(ca.clone());
    assert_eq!(CaState::read(&stored(&state), now()).unwrap().current, ca);
    assert!(
        state.trust().is_published_in(root),
        "clients trust the root"
    );
}

#[test]
fn a_merge_takes_away_what_is_over() {
    let before = full();
    let after = CaState::of(before.current.clone());
    let mut map = json!({ "data": before.data() });
    json_patch::merge(&mut map, &json!({ "data": after.data() }));
    let keys: Vec<_> = map["data"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["ca.crt", "current.crt"]);
    assert_eq!(map["data"]["ca.crt"], before.current.root_pem());
}

#[test]
fn what_clients_trust_stays_as_it_is_when_one_takes_the_place_of_another() {
    let (a, b) = (ca(1000), ca(2000));
    let next = Next {
        ca: b.clone(),
        since: None,
        published: None,
        is_forced: false,
    };
    let previous = Retired::since(a.clone(), now());
    let before = CaState {
        next: Some(next),
        ..CaState::of(a.clone())
    };
    let after = CaState {
        retired: vec![previous],
        ..CaState::of(b.clone())
    };
    assert_eq!(before.trust(), after.trust());
    for ca in [&a, &b] {
        assert!(before.trust().pem().contains(ca.root_pem()));
        assert_ne!(before.trust(), Trust::of([ca]));
    }
    let same = Next {
        ca: a.clone(),
        since: None,
        published: None,
        is_forced: false,
    };
    let twice = CaState {
        next: Some(same),
        ..CaState::of(a.clone())
    };
    assert_eq!(twice.trust(), Trust::of([&a]), "each root once");
}

/// The clock may be wrong, and then its certificates are in use.
#[test]
fn a_predecessor_is_known_and_trusted_whatever_the_time() {
    let state = full();
    for hours in [-1, 500, 501, 1_000_000] {
        let read = CaState::read(&stored(&state), now() + hours * HOUR).unwrap();
        assert_eq!(read.retired.len(), 3, "{hours}");
        let root = state.retired[0].ca.root_pem();
        assert!(read.trust().pem().contains(root), "{hours}");
    }
}

/// Version 0.2 knows one predecessor, and neither what it was found in nor how many there are.
#[test]
fn the_version_before_and_this_one_read_what_the_other_writes() {
    let state = full();
    let mut map = stored(&state);
    let data = map.data.as_mut().unwrap();
    assert_eq!(data["previous.crt"], *state.retired[0].ca.root_pem());
    let time = |time: Option<Timestamp>| time.unwrap().to_string();
    assert_eq!(data["previous-since"], time(Some(state.retired[0].since)));
    assert_eq!(data["previous-unused"], time(state.retired[0].unused));
    let is_trusted = |at: usize| {
        state
            .trust()
            .pem()
            .contains(state.retired[at].ca.root_pem())
    };
    assert_eq!([0, 1, 2].map(is_trusted), [true, false, true]);

    data.remove("retired.json");
    data.remove("next-since");
    let read = CaState::read(&map, now()).unwrap();
    assert_eq!(read.retired.len(), 1);
    assert_eq!(read.retired[0].unused, state.retired[0].unused);
    assert_eq!(read.next.unwrap().since, None);
    // Another replica has begun another rotation meanwhile.
    let other = ca(700);
    let mut map = stored(&state);
    let data = map.data.as_mut().unwrap();
    data.insert("previous.crt".into(), other.root_pem().to_owned());
    let read = CaState::read(&map, now()).unwrap();
    let known: Vec<_> = read.retired.iter().map(|it| it.ca.clone()).collect();
    let before = state.retired.iter().map(|it| it.ca.clone());
    assert_eq!(known, [other].into_iter().chain(before).collect::<Vec<_>>());
}

/// Whether it may sign then is for the Secret to say, which may hold another by now.
#[test]
fn the_one_that_signs_is_known_whatever_the_time_and_a_successor_only_when_it_is_in_force() {
    let state = CaState {
        retired: Vec::new(),
        ..full()
    };
    for (hours, has_next) in [(-1, false), (0, true), (1001, true), (2001, false)] {
        let read = CaState::read(&stored(&state), now() + hours * HOUR).unwrap();
        assert_eq!(read.current, state.current, "{hours}");
        assert_eq!(read.next.is_some(), has_next, "{hours}");
    }
    let chain = include_bytes!("../../controllers/ca/rotation/tests/a.crt");
    let root = include_bytes!("../../controllers/ca/rotation/tests/root.crt");
    let ca = CaCertificate::from_pem(chain, root, now()).unwrap();
    for time in [
        "2028-01-01T00:00:00Z",
        "2051-01-01T00:00:00Z",
        "2061-01-01T00:00:00Z",
    ] {
        let map = stored(&CaState::of(ca.clone()));
        let read = CaState::read(&map, time.parse().unwrap()).unwrap();
        assert_eq!(read.current, ca, "{time}");
    }
}

#[test]
fn a_state_that_cannot_be_read_names_the_key() {
    let unreadable =
        "the CA certificate is not readable; give X.509 certificates in PEM, that of the CA first";
    let read = |change: Value| {
        let mut map = json!(stored(&full()));
        json_patch::merge(&mut map, &change);
        let map = serde_json::from_value(map).unwrap();
        CaState::read(&map, now()).map(|state| state.data())
    };
    for (change, problem) in [
        (json!({ "data": null }), "current.crt is missing".to_owned()),
        (
            json!({ "data": { "current.crt": null } }),
            "current.crt is missing".to_owned(),
        ),
        (
            json!({ "data": { "current.crt": "" } }),
            format!("current.crt: {unreadable}"),
        ),
        (
            json!({ "data": { "current.crt": "garbage" } }),
            format!("current.crt: {unreadable}"),
        ),
        (
            json!({ "data": { "next.crt": "garbage" } }),
            format!("next.crt: {unreadable}"),
        ),
        (
            json!({ "data": { "previous.crt": "garbage" } }),
            format!("previous.crt: {unreadable}"),
        ),
        (
            json!({ "data": { "retired.json": r#"[{"certificate": "", "since": "2030-01-01T00:00:00Z"}]"# } }),
            format!("retired.json: {unreadable}"),
        ),
        (
            json!({ "data": { "retired.json": "[{}]" } }),
            "retired.json: missing field `certificate` at line 1 column 3".to_owned(),
        ),
    ] {
        assert_eq!(read(change.clone()), Err(problem), "{change}");
    }
    assert_eq!(
        CaState::read(&ConfigMap::default(), now()).unwrap_err(),
        "current.crt is missing"
    );
}

#[test]
fn a_ca_that_is_not_in_force_is_known_all_the_same_and_a_successor_is_not() {
    let state = full();
    for then in [now() + 1001 * HOUR, now() - HOUR] {
        let read = CaState::read(&stored(&state), then).unwrap();
        assert_eq!(read.current, state.current);
    }
    assert!(
        CaState::read(&stored(&state), now() - HOUR)
            .unwrap()
            .next
            .is_none()
    );
}

/// A step begins anew, and the leaves of the predecessor are replaced at once.
#[test]
fn a_time_that_cannot_be_read_is_none() {
    let state = full();
    let mut map = stored(&state);
    let data = map.data.as_mut().unwrap();
    data.remove(RETIRED);
    for key in [NEXT_SINCE, PUBLISHED, SINCE, UNUSED] {
        assert!(
            data.insert(key.into(), "yesterday".into()).is_some(),
            "{key}"
        );
    }
    let read = CaState::read(&map, now()).unwrap();
    let next = read.next.as_ref().unwrap();
    assert_eq!((next.since, next.published), (None, None));
    let previous = &read.retired[0];
    assert_eq!(
        (previous.since, previous.unused),
        (Timestamp::UNIX_EPOCH, None)
    );
}
