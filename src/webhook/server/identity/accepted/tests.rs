use super::*;
use jiff::{SignedDuration, Timestamp};
use pki_certs::Authority;

fn cas(current: Option<&Segment>, previous: &[&Segment]) -> Cas {
    let day = SignedDuration::from_hours(24);
    let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    Cas {
        current: Arc::new(Authority::generate("CA", day, now).unwrap()),
        previous: vec![],
        segment: current.cloned(),
        previous_segments: previous.iter().copied().cloned().collect(),
        since: None,
    }
}

fn lately(carried: &[Carried]) -> Lately {
    let mut lately = Lately::default();
    lately.see(carried, Instant::now());
    lately
}

fn path(segment: &Segment) -> String {
    format!("/{}/validate", segment.as_str())
}

/// Whether each is answered by what is known now.
async fn answers<const N: usize>(accepted: &AcceptedPaths, paths: [&str; N]) -> [bool; N] {
    let mut answers = [false; N];
    for (answer, path) in answers.iter_mut().zip(paths) {
        let asked = Asked::read(path);
        *answer = asked.is_some_and(|asked| accepted.known.borrow().has(&asked));
        if *answer {
            assert!(accepted.admit(path, 1).await, "{path}");
        }
    }
    answers
}

#[tokio::test]
async fn those_of_the_secret_and_of_the_configurations_are_answered() {
    let [now, before, elsewhere, unknown] = [(); 4].map(|()| Segment::generate());
    let paths = [&now, &before, &elsewhere, &unknown].map(path);
    let paths = [&*paths[0], &paths[1], &paths[2], &paths[3], "/validate"];
    let accepted = AcceptedPaths::default();
    assert_eq!(answers(&accepted, paths).await, [false; 5]);
    let secret = cas(Some(&now), &[&before]);
    accepted.begin(&secret);
    let expected = [true, true, false, false, false];
    assert_eq!(answers(&accepted, paths).await, expected);
    let carried = [Carried::Secret(elsewhere.clone()), Carried::Other];
    accepted.set(Some(Instant::now()), &secret, &lately(&carried));
    let expected = [true, true, true, false, false];
    assert_eq!(answers(&accepted, paths).await, expected);
    assert!(!accepted.has_plain());
    let plain = lately(&[Carried::Plain]);
    accepted.set(Some(Instant::now()), &cas(None, &[]), &plain);
    let expected = [false, false, false, false, true];
    assert_eq!(answers(&accepted, paths).await, expected);
    assert!(accepted.has_plain());
}

#[tokio::test]
async fn whatever_else_is_asked_is_refused_at_once() {
    let segment = Segment::generate();
    let accepted = AcceptedPaths::default();
    let all = lately(&[Carried::Plain]);
    accepted.set(Some(Instant::now()), &cas(Some(&segment), &[]), &all);
    let segment = segment.as_str();
    for path in [
        String::new(),
        "/".to_owned(),
        "/validate/".to_owned(),
        "//validate".to_owned(),
        "/x/validate".to_owned(),
        "/VALIDATE".to_owned(),
        "/metrics".to_owned(),
        format!("/{segment}"),
        format!("/{segment}/"),
        format!("/{segment}/livez"),
        format!("/x/{segment}/validate"),
        format!("//{segment}/validate"),
        format!("/{segment}/validate/"),
        format!("/{}/validate", segment.to_uppercase()),
        format!("/{}/validate", &segment[1..]),
    ] {
        let admitted = timeout(Duration::ZERO, accepted.admit(&path, 1)).await;
        assert_eq!(admitted.ok(), Some(false), "{path}");
    }
}

#[tokio::test]
async fn who_may_know_more_than_this_replica_waits_until_it_has_looked() {
    let accepted = AcceptedPaths::default();
    let secret = cas(None, &[]);
    let segment = Segment::generate();
    let long_ago = Instant::now().checked_sub(MIN_INTERVAL).unwrap();
    for (path, carried, expected) in [
        ("/validate".to_owned(), Carried::Plain, true),
        (path(&segment), Carried::Secret(segment.clone()), true),
        ("/validate".to_owned(), Carried::Secret(segment), false),
    ] {
        // A read that began before the request says nothing about it.
        let before = Some(Instant::now());
        accepted.set(before, &secret, &Lately::default());
        let look = async {
            accepted.asked(long_ago).await;
            accepted.set(before, &secret, &Lately::default());
            tokio::task::yield_now().await;
            let now = Some(Instant::now() + Duration::from_millis(1));
            accepted.set(now, &secret, &lately(&[carried]));
        };
        let (admitted, ()) = tokio::join!(accepted.admit(&path, 1), look);
        assert_eq!(admitted, expected, "{path}");
    }
    // Nobody looks.
    assert!(!accepted.admit("/validate", 1).await);
}

#[tokio::test]
async fn of_many_who_wait_those_of_one_client_make_way() {
    let accepted = AcceptedPaths::default();
    accepted.begin(&cas(None, &[]));
    let crowd = (0..2 * MAX_WAITING).map(|_| accepted.admit("/validate", 1));
    let look = async {
        tokio::task::yield_now().await;
        let now = Some(Instant::now() + Duration::from_millis(1));
        accepted.set(now, &cas(None, &[]), &lately(&[Carried::Plain]));
    };
    let honest = accepted.admit("/validate", 2);
    let (honest, crowd, ()) = tokio::join!(honest, futures::future::join_all(crowd), look);
    assert!(honest);
    let admitted = crowd.iter().filter(|admitted| **admitted).count();
    assert!(admitted < MAX_WAITING, "{admitted}");
}

#[test]
fn a_path_is_answered_for_some_seconds_after_it_was_last_carried() {
    let begin = Instant::now();
    let at = |seconds: u64| begin + Duration::from_secs(seconds);
    let secret = Carried::Secret(Segment::generate());
    let mut lately = Lately::default();
    // Nobody can have been asked by the plain path since this replica began.
    lately.see(std::slice::from_ref(&secret), at(0));
    assert!(!lately.has_plain() && !lately.is_settling());
    lately.see(&[Carried::Plain, secret.clone()], at(1));
    assert!(lately.has_plain() && !lately.is_settling());
    // The path may have been there until a moment ago, however old the last read is.
    lately.see(std::slice::from_ref(&secret), at(60));
    assert!(lately.has_plain() && lately.is_settling());
    let settling = SETTLING.as_secs();
    lately.see(std::slice::from_ref(&secret), at(60 + settling - 1));
    assert!(lately.has_plain() && lately.is_settling());
    lately.see(&[Carried::Plain], at(60 + settling));
    assert!(lately.has_plain() && lately.is_settling(), "it is back");
    lately.see(std::slice::from_ref(&secret), at(70 + settling));
    lately.see(std::slice::from_ref(&secret), at(70 + 2 * settling));
    assert!(!lately.has_plain() && !lately.is_settling());
}
