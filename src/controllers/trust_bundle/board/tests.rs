use super::*;

/// A board with a clock, and one list of each watch behind it.
struct Play {
    board: BundleQueue,
    now: Instant,
}

fn found(version: &str, is_ours: bool) -> Found {
    Found {
        uid: Some("u".into()),
        version: Some(version.into()),
        is_ours,
        is_going: false,
    }
}

/// A copy of the operator's that is being deleted.
fn going(version: &str) -> Found {
    Found {
        is_going: true,
        ..found(version, true)
    }
}

fn held(version: &str) -> Outcome {
    Outcome::Held {
        found: going(version),
        finalizers: vec!["example.com/hold".into()],
    }
}

impl Play {
    fn new(namespaces: &[&str], copies: &[(&str, Found)]) -> Self {
        let mut play = Self {
            board: BundleQueue::default(),
            now: Instant::now(),
        };
        play.board.expect("one");
        play.list(namespaces, copies);
        play
    }

    fn list(&mut self, namespaces: &[&str], copies: &[(&str, Found)]) {
        self.board.namespace(Event::Init);
        for name in namespaces {
            self.board
                .namespace(Event::InitApply(((*name).into(), false)));
        }
        self.board.namespace(Event::InitDone);
        self.board.copy(Event::Init);
        for (name, found) in copies {
            self.board
                .copy(Event::InitApply(((*name).into(), found.clone())));
        }
        self.board.copy(Event::InitDone);
    }

    fn tasks(&mut self) -> Vec<(String, Task)> {
        std::iter::from_fn(|| self.board.next(self.now)).collect()
    }

    fn task(&mut self) -> Option<Task> {
        let tasks = self.tasks();
        assert!(tasks.len() < 2, "{tasks:?}");
        tasks.into_iter().next().map(|(_, task)| task)
    }

    fn wrote(&mut self, name: &str, version: &str) {
        self.holds(name, version, "one", true);
    }

    fn holds(&mut self, name: &str, version: &str, fingerprint: &str, is_written: bool) {
        let outcome = Outcome::Holds {
            found: found(version, true),
            fingerprint: fingerprint.into(),
            is_written,
        };
        self.board.settle(name.into(), outcome, self.now);
    }

    fn settle(&mut self, name: &str, outcome: Outcome) {
        self.board.settle(name.into(), outcome, self.now);
    }

    fn copy(&mut self, name: &str, found: Found) {
        self.board.copy(Event::Apply((name.into(), found)));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn what_is_there_and_whether_it_is_asked_for_tell_what_to_do() {
    let (ours, theirs) = (found("1", true), found("1", false));
    let present = |found: &Found| vec![("a", found.clone())];
    for (namespaces, copies, expected) in [
        (["a"].as_slice(), vec![], Some(Task::Create)),
        (&["a"], present(&ours), Some(Task::Check)),
        (
            &["a"],
            present(&theirs),
            Some(Task::Complain(theirs.clone())),
        ),
        (&[], present(&ours), Some(Task::Remove(ours.clone()))),
        (&[], present(&theirs), None),
        (&[], vec![], None),
    ] {
        let mut play = Play::new(namespaces, &copies);
        assert_eq!(play.task(), expected, "{namespaces:?} {copies:?}");
        assert_eq!(play.task(), None, "it is under way, or said");
    }
}

#[test]
fn nothing_is_done_before_both_lists_are_whole_and_the_roots_are_known() {
    let mut board = BundleQueue::default();
    let now = Instant::now();
    board.copy(Event::Init);
    board.copy(Event::InitApply(("a".into(), found("1", true))));
    board.copy(Event::InitDone);
    board.expect("one");
    board.namespace(Event::Init);
    board.namespace(Event::InitApply(("b".into(), false)));
    assert_eq!((board.next(now), board.published()), (None, None));
    board.namespace(Event::InitDone);
    assert_eq!(
        board.next(now),
        Some(("a".into(), Task::Remove(found("1", true))))
    );
    assert_eq!(board.next(now), Some(("b".into(), Task::Create)));

    let mut board = BundleQueue::default();
    for event in [Event::Init, Event::InitDone] {
        board.namespace(event);
    }
    for event in [Event::Init, Event::InitDone] {
        board.copy(event);
    }
    board.namespace(Event::Apply(("b".into(), false)));
    assert_eq!((board.next(now), board.published()), (None, None));
    board.expect("one");
    assert_eq!(board.next(now), Some(("b".into(), Task::Create)));
}

#[test]
fn what_was_written_is_looked_at_again_only_when_it_changes() {
    let mut play = Play::new(&["a"], &[]);
    assert_eq!(play.task(), Some(Task::Create));
    play.wrote("a", "5");
    play.pass(PACE);
    assert_eq!(play.task(), None);
    play.copy("a", found("5", true));
    assert_eq!(play.task(), None, "its own write comes back");
    play.list(&["a"], &[("a", found("5", true))]);
    assert_eq!(play.task(), None, "and again in a new list");
    play.copy("a", found("6", true));
    assert_eq!(play.task(), Some(Task::Check), "somebody edits it");
    play.wrote("a", "7");
    play.pass(PACE);
    assert_eq!(play.task(), None);
    play.board
        .copy(Event::Delete(("a".into(), found("7", true))));
    assert_eq!(play.task(), Some(Task::Create), "somebody deletes it");
}

#[test]
fn a_change_while_it_is_under_way_is_looked_at_afterwards() {
    let mut play = Play::new(&["a"], &[("a", found("1", true))]);
    assert_eq!(play.task(), Some(Task::Check));
    play.copy("a", found("2", true));
    assert_eq!(play.task(), None);
    play.holds("a", "1", "one", false);
    assert_eq!(play.task(), Some(Task::Check), "what it held is another");
    play.board.expect("two");
    play.holds("a", "2", "one", false);
    assert_eq!(play.task(), Some(Task::Check), "the roots are others now");
}

#[test]
fn a_watch_that_is_behind_costs_a_look_at_most() {
    let mut play = Play::new(&["a"], &[("a", found("1", true))]);
    assert_eq!(play.task(), Some(Task::Check));
    play.copy("a", found("2", true));
    play.wrote("a", "3");
    assert_eq!(play.task(), None);
    play.copy("a", found("3", true));
    play.pass(PACE);
    assert_eq!(play.task(), None);
}

#[test]
fn who_undoes_each_write_does_not_keep_it_busy() {
    let mut play = Play::new(&["a"], &[]);
    assert_eq!(play.task(), Some(Task::Create));
    play.wrote("a", "1");
    play.copy("a", found("2", true));
    assert_eq!(play.task(), None);
    assert_eq!(play.board.wake(), Some(play.now + PACE));
    play.pass(PACE);
    assert_eq!(play.task(), Some(Task::Check));
}

#[test]
fn a_namespace_that_asks_no_more_loses_its_copy_and_one_that_goes_is_left_alone() {
    let ours = found("1", true);
    for (event, expected) in [
        (
            Event::Delete(("a".into(), false)),
            Some(Task::Remove(ours.clone())),
        ),
        (Event::Apply(("a".into(), true)), None),
    ] {
        let mut play = Play::new(&["a"], &[("a", ours.clone())]);
        assert_eq!(play.task(), Some(Task::Check));
        play.holds("a", "1", "one", false);
        play.board.namespace(event);
        assert_eq!(play.task(), expected);
        if expected.is_some() {
            play.settle("a", Outcome::Gone);
        }
        play.pass(PACE);
        assert_eq!(play.task(), None);
        assert_eq!(play.board.published(), Some("one"));
    }
}

#[test]
fn a_foreign_one_is_complained_of_again_and_its_place_taken_when_it_is_gone() {
    let theirs = found("1", false);
    let mut play = Play::new(&["a"], &[]);
    assert_eq!(play.task(), Some(Task::Create));
    play.settle("a", Outcome::Foreign(theirs.clone()));
    let complaint = Some(Task::Complain(theirs.clone()));
    assert_eq!(play.task(), complaint);
    assert_eq!(play.task(), None);
    play.board.remind();
    assert_eq!(play.task(), complaint);
    assert_eq!(play.board.counts()[1], ("foreign", 1));
    assert_eq!(play.board.published(), Some("one"), "it is not waited for");
    play.board.copy(Event::Delete(("a".into(), theirs)));
    assert_eq!(play.task(), Some(Task::Create));
    play.board.remind();
    assert_eq!((play.task(), play.board.counts()[1].1), (None, 0));
}

#[test]
fn roots_are_published_when_every_copy_holds_them() {
    let mut play = Play::new(&["a", "b"], &[]);
    assert_eq!(play.tasks().len(), 2);
    play.wrote("a", "1");
    assert_eq!((play.tasks(), play.board.published()), (vec![], None));
    play.wrote("b", "2");
    assert_eq!(
        (play.tasks(), play.board.published()),
        (vec![], Some("one"))
    );

    play.board.expect("two");
    assert_eq!(play.board.published(), None);
    play.pass(PACE);
    assert_eq!(play.tasks().len(), 2);
    play.holds("a", "3", "two", true);
    play.holds("b", "4", "one", true);
    assert_eq!(play.tasks().len(), 0);
    assert_eq!(play.board.published(), None, "b got the old ones");
    play.pass(PACE);
    assert_eq!(play.task(), Some(Task::Check));
    play.holds("b", "5", "two", true);
    assert_eq!((play.task(), play.board.published()), (None, Some("two")));
    assert_eq!(play.board.counts()[0], ("current", 2));
}

#[test]
fn nobody_who_asks_is_nobody_to_wait_for() {
    let mut play = Play::new(&[], &[]);
    assert_eq!((play.task(), play.board.published()), (None, Some("one")));
    play.board.expect("two");
    assert_eq!((play.task(), play.board.published()), (None, Some("two")));
}

#[test]
fn what_keeps_failing_is_tried_ever_more_rarely_and_in_the_end_not_waited_for() {
    let mut play = Play::new(&["a"], &[]);
    let mut pauses = Vec::new();
    for failures in 1..=8 {
        assert_eq!(play.task(), Some(Task::Create));
        play.settle("a", Outcome::Failed);
        assert_eq!(play.task(), None);
        assert_eq!(
            play.board.published().is_some(),
            failures >= MOST_FAILURES,
            "{failures}"
        );
        let pause = play.board.wake().unwrap() - play.now;
        play.pass(pause);
        pauses.push(pause.as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(play.board.counts()[2], ("failing", 1));

    // The next roots wait for one attempt.
    play.board.expect("two");
    assert_eq!(play.board.published(), None);
    assert_eq!(play.task(), Some(Task::Create));
    play.settle("a", Outcome::Failed);
    assert_eq!(play.board.published(), Some("two"));
    play.pass(BACKOFF.longest);
    assert_eq!(play.task(), Some(Task::Create));
    play.holds("a", "1", "two", true);
    assert_eq!((play.task(), play.board.counts()[2].1), (None, 0));
}

#[test]
fn a_copy_that_finalizers_hold_is_tried_ever_more_rarely_and_made_again_at_once_when_it_is_gone() {
    let mut play = Play::new(&["a"], &[("a", found("1", true))]);
    let mut pauses = Vec::new();
    for failures in 1..=8 {
        assert_eq!(play.task(), Some(Task::Check));
        assert_eq!(play.board.is_held("a"), failures > 1);
        play.settle("a", held("2"));
        // The watch tells of the deletion, and of whatever else is done to it.
        play.copy("a", going("2"));
        play.copy("a", going("3"));
        assert_eq!(play.task(), None, "{failures}");
        let is_published = play.board.published().is_some();
        assert_eq!(is_published, failures >= MOST_FAILURES, "{failures}");
        assert_eq!(play.board.counts()[2], ("failing", 1));
        let pause = play.board.wake().unwrap() - play.now;
        play.pass(pause);
        pauses.push(pause.as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(play.task(), Some(Task::Check));
    play.settle("a", held("3"));
    play.board.copy(Event::Delete(("a".into(), going("3"))));
    assert_eq!(play.task(), Some(Task::Create), "without any pause");
    play.wrote("a", "4");
    assert_eq!((play.task(), play.board.counts()[2].1), (None, 0));
    assert!(!play.board.is_held("a"));
}

#[test]
fn a_copy_whose_end_is_told_while_it_is_found_held_is_made_again_at_once() {
    let mut play = Play::new(&["a"], &[("a", found("1", true))]);
    assert_eq!(play.task(), Some(Task::Check));
    play.board.copy(Event::Delete(("a".into(), going("2"))));
    play.settle("a", held("2"));
    assert_eq!(play.task(), Some(Task::Create));
}

#[test]
fn a_failure_of_another_kind_waits_its_time_whatever_the_watch_tells() {
    let mut play = Play::new(&["a"], &[("a", found("1", true))]);
    assert_eq!(play.task(), Some(Task::Check));
    play.settle("a", Outcome::Failed);
    play.board
        .copy(Event::Delete(("a".into(), found("1", true))));
    assert_eq!(play.task(), None);
    play.pass(PACE);
    assert_eq!(play.task(), Some(Task::Create));
}

#[test]
fn a_copy_that_nobody_asks_for_is_deleted_once_however_long_it_stays() {
    let mut play = Play::new(&[], &[("a", found("1", true))]);
    assert_eq!(play.task(), Some(Task::Remove(found("1", true))));
    play.settle("a", Outcome::Gone);
    // Finalizers hold it.
    play.copy("a", going("2"));
    play.pass(BACKOFF.longest);
    assert_eq!((play.task(), play.board.counts()[2].1), (None, 0));
    // Asked for again, it serves as long as it holds the roots.
    play.board.namespace(Event::Apply(("a".into(), false)));
    assert_eq!(play.task(), Some(Task::Check));
}

#[test]
fn a_namespace_that_is_deleted_is_not_waited_for() {
    let mut play = Play::new(&["a"], &[]);
    assert_eq!(play.task(), Some(Task::Create));
    play.settle("a", Outcome::Failed);
    play.board.namespace(Event::Apply(("a".into(), true)));
    assert_eq!((play.task(), play.board.published()), (None, Some("one")));
    assert_eq!(
        play.board.counts(),
        [("current", 0), ("foreign", 0), ("failing", 0)]
    );
}

#[test]
fn a_new_list_tells_of_what_is_gone() {
    let ours = found("1", true);
    let mut play = Play::new(&["a", "b"], &[("a", ours.clone()), ("b", ours.clone())]);
    assert_eq!(play.tasks().len(), 2);
    play.holds("a", "1", "one", false);
    play.holds("b", "1", "one", false);
    assert_eq!(play.tasks(), []);
    play.list(&["a"], &[("b", ours.clone())]);
    assert_eq!(
        play.tasks(),
        [("a".into(), Task::Create), ("b".into(), Task::Remove(ours))]
    );
}
