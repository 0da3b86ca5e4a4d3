use super::*;
use futures::FutureExt as _;

const SECOND: Duration = Duration::from_secs(1);

/// Both clocks of a machine whose wall clock is `skew` seconds ahead, `after` seconds from the
/// first response.
struct Machine {
    start: Reading,
}

impl Machine {
    fn new() -> Self {
        Self {
            start: Reading {
                wall: "2030-01-01T00:00:00.5Z".parse().unwrap(),
                monotonic: Instant::now(),
            },
        }
    }

    fn at(&self, after: u64, skew: i64) -> Reading {
        Reading {
            wall: self.start.wall + Duration::from_secs(after) + SignedDuration::from_secs(skew),
            monotonic: self.start.monotonic + Duration::from_secs(after),
        }
    }

    fn compare(&self, state: &mut State, after: u64, skew: i64) {
        let now = self.at(after, skew);
        let server = self.at(after, 0).wall.to_zoned(jiff::tz::TimeZone::UTC);
        let date = server.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        state.compare(Some(&date), now.monotonic, now);
    }
}

#[test]
fn a_clock_is_trusted_while_it_differs_by_at_most_three_minutes() {
    let machine = Machine::new();
    for (skew, is_trusted) in [
        (0, true),
        (120, true),
        (-120, true),
        (180, true),
        (-180, true),
        (182, false),
        (-182, false),
        (100 * 86_400, false),
        (-200 * 86_400, false),
        (11 * 365 * 86_400, false),
        (-11 * 365 * 86_400, false),
    ] {
        let mut state = State::default();
        machine.compare(&mut state, 0, skew);
        let verdict = state.check(machine.at(0, skew));
        assert_eq!(verdict.is_ok(), is_trusted, "{skew}: {verdict:?}");
    }
}

#[test]
fn a_step_is_noticed_without_a_response() {
    let machine = Machine::new();
    let mut state = State::default();
    machine.compare(&mut state, 0, 0);
    assert_eq!(state.check(machine.at(3600, 0)), Ok(()));
    let stepped = state.check(machine.at(3601, 8_640_000));
    let skew = SignedDuration::from_hours(2400);
    assert_eq!(stepped, Err(ClockFault::Skewed(skew)));
}

#[test]
fn a_clock_that_was_set_right_is_trusted_after_ten_seconds() {
    let machine = Machine::new();
    let mut state = State::default();
    machine.compare(&mut state, 0, 400);
    assert!(state.check(machine.at(1, 400)).is_err());
    assert_eq!(state.check(machine.at(2, 0)), Err(ClockFault::OnProbation));
    assert_eq!(state.check(machine.at(10, 0)), Err(ClockFault::OnProbation));
    assert_eq!(state.check(machine.at(11, 0)), Ok(()));
}

#[test]
fn a_clock_that_drifts_is_trusted_until_it_has_drifted_too_far() {
    let machine = Machine::new();
    let mut state = State::default();
    for after in (0..=180_u64).step_by(2) {
        let skew = i64::try_from(after).unwrap();
        machine.compare(&mut state, after, skew);
        assert_eq!(state.check(machine.at(after, skew)), Ok(()), "{after}");
    }
    assert!(state.check(machine.at(182, 182)).is_err());
}

#[test]
fn without_a_response_or_without_its_date_nothing_is_trusted() {
    let machine = Machine::new();
    let mut state = State::default();
    let now = machine.at(0, 0);
    assert_eq!(state.check(now), Err(ClockFault::NotCompared));
    for date in [
        None,
        Some(""),
        Some("yesterday"),
        Some("Tue, 32 Jan 2030 00:00:00 GMT"),
    ] {
        state.compare(date, now.monotonic, now);
        assert_eq!(state.check(now), Err(ClockFault::NoDate), "{date:?}");
    }
    machine.compare(&mut state, 1, 0);
    assert_eq!(state.check(machine.at(1, 0)), Ok(()));
    // One response without a date, of a proxy that has no API server to ask, changes nothing.
    let later = machine.at(2, 0);
    state.compare(None, later.monotonic, later);
    assert_eq!(state.check(later), Ok(()));
}

#[test]
fn a_response_that_was_long_on_its_way_tells_nothing() {
    let machine = Machine::new();
    let mut state = State::default();
    let date = Some("Tue, 01 Jan 2030 00:00:00 GMT");
    let (sent, received) = (machine.at(0, 0), machine.at(600, 0));
    state.compare(date, sent.monotonic, received);
    assert_eq!(state.check(received), Err(ClockFault::NotCompared));
}

#[test]
fn those_that_wait_hear_when_the_clock_is_trusted_and_when_not() {
    let clock = Clock::new();
    assert!(clock.trusted().now_or_never().is_none());
    assert!(clock.untrusted().now_or_never().is_some());
    let now = Reading::take();
    let date = |wall: Timestamp| {
        let wall = wall.to_zoned(jiff::tz::TimeZone::UTC);
        wall.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    };
    clock.compare(Some(&date(now.wall)), now.monotonic, now);
    assert!(clock.trusted().now_or_never().is_some());
    assert!(clock.now().is_ok());
    let wrong = now.wall - SignedDuration::from_hours(1);
    clock.compare(Some(&date(wrong)), now.monotonic, now);
    assert!(clock.untrusted().now_or_never().is_some());
    assert!(matches!(clock.now(), Err(ClockFault::Skewed(_))));
    // The API server's.
    assert!(clock.display_time() < now.wall - SignedDuration::from_mins(59));
    assert!(clock.display_time() < wrong + 60 * SECOND);
}

#[test]
fn a_fault_tells_how_far_the_clocks_are_apart_in_one_unit() {
    let hours = SignedDuration::from_hours;
    for (skew, text) in [
        (SignedDuration::from_mins(4), "4 minutes ahead of"),
        (-SignedDuration::from_secs(299), "4 minutes behind"),
        (hours(5), "5 hours ahead of"),
        (-hours(200 * 24 + 3), "200 days behind"),
        (hours(11 * 365 * 24), "4015 days ahead of"),
    ] {
        let fault = ClockFault::Skewed(skew).to_string();
        assert!(fault.contains(text), "{fault}");
    }
}
