use super::*;

/// A connection from `10.0.0.<host>` that was silent for this many seconds.
fn state(host: u8, now: Instant, seconds: u64) -> ConnectionState {
    ConnectionState {
        since: now.checked_sub(Duration::from_secs(seconds)).unwrap(),
        ..ConnectionState::new([10, 0, 0, host].into(), now)
    }
}

fn answered(state: ConnectionState) -> ConnectionState {
    ConnectionState {
        has_asked: true,
        was_answered: true,
        ..state
    }
}

/// The index of the one that is evicted.
fn index(connections: &[ConnectionState], now: Instant) -> Option<usize> {
    to_evict(connections.iter().copied().enumerate(), now)
}

/// A moment from which one can count back: the clock may have been started just now.
fn now() -> Instant {
    Instant::now() + Duration::from_secs(1000)
}

#[test]
fn a_connection_without_an_answered_request_is_evicted_first_and_then_the_one_that_was_silent_for_the_longest()
 {
    let now = now();
    let (api, other) = (
        |seconds| answered(state(1, now, seconds)),
        |seconds| state(2, now, seconds),
    );
    let busy = |seconds| ConnectionState {
        in_flight: 1,
        ..api(seconds)
    };
    // Its first request has come in full, and waits.
    let complete = |seconds| ConnectionState {
        in_flight: 1,
        is_complete: true,
        ..other(seconds)
    };
    for (connections, expected) in [
        (vec![], None),
        (vec![api(60), other(2), other(3), api(70)], Some(2)),
        (vec![api(60), api(90), api(1)], Some(1)),
        // A newcomer cannot be distinguished from a client that sends nothing.
        (vec![api(60), other(0)], Some(0)),
        (vec![other(0), api(0), other(5)], Some(2)),
        (vec![busy(0), api(0)], Some(1)),
        (vec![busy(9), api(5)], Some(0)),
        (vec![complete(9), api(5)], Some(1)),
        (vec![complete(9), complete(5)], Some(0)),
    ] {
        assert_eq!(index(&connections, now), expected, "{connections:?}");
    }
}

#[test]
fn an_answered_client_is_not_evicted_for_strangers_alone_nor_strangers_for_it() {
    let now = now();
    let stranger = |seconds| state(1, now, seconds);
    let answered = |seconds| answered(stranger(seconds));
    let many = |one: ConnectionState| [one; 5].into_iter();
    let flood: Vec<_> = [answered(60)]
        .into_iter()
        .chain(many(stranger(0)))
        .collect();
    assert_eq!(index(&flood, now), Some(1));
    let newcomer: Vec<_> = [stranger(0)]
        .into_iter()
        .chain(many(answered(60)))
        .collect();
    assert_eq!(index(&newcomer, now), Some(1));
}

#[test]
fn a_client_that_opens_connections_in_masses_loses_its_own() {
    let now = now();
    // The API server has come a moment ago, or has not been heard of for a minute; the others
    // behave well and are many.
    for api in [state(1, now, 5), answered(state(1, now, 60))] {
        let mut connections = vec![api; 2];
        connections.extend((0..10).map(|seconds| answered(state(2, now, seconds))));
        assert_eq!(index(&connections, now), Some(11));
    }
    // Nobody has more than half.
    let connections = [answered(state(1, now, 60)), answered(state(2, now, 5))];
    assert_eq!(index(&connections, now), Some(0));
}

#[test]
fn a_connection_is_overdue_after_its_timeout() {
    let now = now();
    let timeouts = Timeouts {
        first_request: Duration::from_secs(10),
        next_request: Duration::from_secs(120),
    };
    let flying = |seconds| ConnectionState {
        in_flight: 1,
        ..answered(state(1, now, seconds))
    };
    for (state, is_overdue) in [
        (state(1, now, 10), false),
        (state(1, now, 11), true),
        (answered(state(1, now, 120)), false),
        (answered(state(1, now, 121)), true),
        (flying(500), false),
    ] {
        assert_eq!(state.is_overdue(timeouts, now), is_overdue, "{state:?}");
    }
}

#[test]
fn a_host_is_known_by_its_network_where_it_has_many_addresses() {
    for (address, expected) in [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("fd00:1:2:3:4:5:6:7", "fd00:1:2:3::"),
    ] {
        assert_eq!(origin(address.parse().unwrap()).to_string(), expected);
    }
}

#[tokio::test]
async fn an_evicted_connection_is_closed_and_the_count_stays_below_the_limit() {
    let metrics = Arc::<Metrics>::default();
    let timeouts = Timeouts {
        first_request: Duration::from_secs(10),
        next_request: Duration::from_secs(10),
    };
    let connections = Connections::new("webhook", 2, timeouts, metrics.clone());
    let begin = Instant::now();
    let mut entries: Vec<_> = (0..4)
        .map(|second| connections.add([10, 0, 0, 1].into(), begin + Duration::from_secs(second)))
        .collect();
    let closed: Vec<_> = entries
        .iter()
        .map(|(_, closed)| closed.is_cancelled())
        .collect();
    assert_eq!(closed, [true, true, false, false]);
    let shown = |line: &str| assert!(metrics.page().lines().any(|it| it == line), "{line}");
    shown(r#"pki_operator_connections{listener="webhook"} 2"#);
    shown(r#"pki_operator_connections_closed_total{listener="webhook",reason="displaced"} 2"#);
    entries.clear();
    shown(r#"pki_operator_connections{listener="webhook"} 0"#);
}
