use super::*;
use jiff::{SignedDuration, Timestamp};
use pki_certs::Authority;

fn cas(current: Option<&Segment>, previous: &[&Segment]) -> ServingCas {
    let day = SignedDuration::from_hours(24);
    let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    ServingCas {
        current: Arc::new(Authority::generate("CA", day, now).unwrap()),
        previous: vec![],
        segment: current.cloned(),
        previous_segments: previous.iter().copied().cloned().collect(),
        since: None,
    }
}

fn recent_paths(published: &[PublishedPath]) -> RecentPaths {
    let mut recent_paths = RecentPaths::default();
    recent_paths.record(published, Instant::now());
    recent_paths
}

fn path(segment: &Segment) -> String {
    format!("/{}/validate", segment.as_str())
}

/// Whether each is answered by what is known now.
async fn answers<const N: usize>(accepted: &AcceptedPaths, paths: [&str; N]) -> [bool; N] {
    let mut answers = [false; N];
    for (answer, path) in answers.iter_mut().zip(paths) {
        let asked = RequestPath::read(path);
        *answer = asked.is_some_and(|asked| accepted.known.borrow().has(&asked));
        if *answer {
            assert!(accepted.admit(path, 1).await, "{path}");
        }
    }
    answers
}

#[tokio::test]
async fn the_paths_of_the_secret_and_of_the_configuration_are_answered() {
    let [now, before, elsewhere, unknown] = [(); 4].map(|()| Segment::generate());
    let paths = [&now, &before, &elsewhere, &unknown].map(path);
    let paths = [&*paths[0], &paths[1], &paths[2], &paths[3], "/validate"];
    let accepted = AcceptedPaths::default();
    assert_eq!(answers(&accepted, paths).await, [false; 5]);
    let secret = cas(Some(&now), &[&before]);
    accepted.begin(&secret);
    let expected = [true, true, false, false, false];
    assert_eq!(answers(&accepted, paths).await, expected);
    let published = [
        PublishedPath::Secret(elsewhere.clone()),
        PublishedPath::Other,
    ];
    accepted.set(Some(Instant::now()), &secret, &recent_paths(&published));
    let expected = [true, true, true, false, false];
    assert_eq!(answers(&accepted, paths).await, expected);
    assert!(!accepted.has_plain());
    let plain = recent_paths(&[PublishedPath::Plain]);
    accepted.set(Some(Instant::now()), &cas(None, &[]), &plain);
    let expected = [false, false, false, false, true];
    assert_eq!(answers(&accepted, paths).await, expected);
    assert!(accepted.has_plain());
}

#[tokio::test]
async fn any_other_path_is_refused_at_once() {
    let segment = Segment::generate();
    let accepted = AcceptedPaths::default();
    let all = recent_paths(&[PublishedPath::Plain]);
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
async fn a_request_by_an_unknown_secret_path_waits_until_the_configuration_was_read() {
    let accepted = AcceptedPaths::default();
    let secret = cas(None, &[]);
    let segment = Segment::generate();
    let long_ago = Instant::now().checked_sub(MIN_INTERVAL).unwrap();
    for (path, published, expected) in [
        ("/validate".to_owned(), PublishedPath::Plain, true),
        (path(&segment), PublishedPath::Secret(segment.clone()), true),
        (
            "/validate".to_owned(),
            PublishedPath::Secret(segment),
            false,
        ),
    ] {
        // A read that began before the request says nothing about it.
        let before = Some(Instant::now());
        accepted.set(before, &secret, &RecentPaths::default());
        let read = async {
            accepted.read_requested(long_ago).await;
            accepted.set(before, &secret, &RecentPaths::default());
            tokio::task::yield_now().await;
            let now = Some(Instant::now() + Duration::from_millis(1));
            accepted.set(now, &secret, &recent_paths(&[published]));
        };
        let (admitted, ()) = tokio::join!(accepted.admit(&path, 1), read);
        assert_eq!(admitted, expected, "{path}");
    }
    // Nobody looks.
    assert!(!accepted.admit("/validate", 1).await);
}

#[tokio::test]
async fn among_many_that_wait_the_client_with_the_most_is_evicted() {
    let accepted = AcceptedPaths::default();
    accepted.begin(&cas(None, &[]));
    let crowd = (0..2 * MAX_WAITING).map(|_| accepted.admit("/validate", 1));
    let read = async {
        tokio::task::yield_now().await;
        let now = Some(Instant::now() + Duration::from_millis(1));
        accepted.set(now, &cas(None, &[]), &recent_paths(&[PublishedPath::Plain]));
    };
    let honest = accepted.admit("/validate", 2);
    let (honest, crowd, ()) = tokio::join!(honest, futures::future::join_all(crowd), read);
    assert!(honest);
    let admitted = crowd.iter().filter(|admitted| **admitted).count();
    assert!(admitted < MAX_WAITING, "{admitted}");
}

#[test]
fn a_path_is_answered_for_some_seconds_after_it_was_last_published() {
    let begin = Instant::now();
    let at = |seconds: u64| begin + Duration::from_secs(seconds);
    let secret = PublishedPath::Secret(Segment::generate());
    let mut recent_paths = RecentPaths::default();
    // Nobody can have been asked by the plain path since this replica began.
    recent_paths.record(std::slice::from_ref(&secret), at(0));
    assert!(!recent_paths.has_plain() && !recent_paths.is_propagating());
    recent_paths.record(&[PublishedPath::Plain, secret.clone()], at(1));
    assert!(recent_paths.has_plain() && !recent_paths.is_propagating());
    // The path may have been there until a moment ago, however old the last read is.
    recent_paths.record(std::slice::from_ref(&secret), at(60));
    assert!(recent_paths.has_plain() && recent_paths.is_propagating());
    let settling = PROPAGATION_TIME.as_secs();
    recent_paths.record(std::slice::from_ref(&secret), at(60 + settling - 1));
    assert!(recent_paths.has_plain() && recent_paths.is_propagating());
    recent_paths.record(&[PublishedPath::Plain], at(60 + settling));
    assert!(
        recent_paths.has_plain() && recent_paths.is_propagating(),
        "it is back"
    );
    recent_paths.record(std::slice::from_ref(&secret), at(70 + settling));
    recent_paths.record(std::slice::from_ref(&secret), at(70 + 2 * settling));
    assert!(!recent_paths.has_plain() && !recent_paths.is_propagating());
}
