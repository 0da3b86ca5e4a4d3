use super::*;

/// A queue with a clock, and one list of each watch behind it.
struct Play {
    queue: BundleQueue,
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
            queue: BundleQueue::default(),
            now: Instant::now(),
        };
        play.queue.expect("one");
        play.list(namespaces, copies);
        play
    }

    fn list(&mut self, namespaces: &[&str], copies: &[(&str, Found)]) {
        self.queue.namespace(Event::Init);
        for name in namespaces {
            self.queue
                .namespace(Event::InitApply(((*name).into(), false)));
        }
        self.queue.namespace(Event::InitDone);
        self.queue.copy(Event::Init);
        for (name, found) in copies {
            self.queue
                .copy(Event::InitApply(((*name).into(), found.clone())));
        }
        self.queue.copy(Event::InitDone);
    }

    fn tasks(&mut self) -> Vec<(String, Task)> {
        std::iter::from_fn(|| self.queue.next(self.now)).collect()
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
        self.queue.on_result(name.into(), outcome, self.now);
    }

    fn on_result(&mut self, name: &str, outcome: Outcome) {
        self.queue.on_result(name.into(), outcome, self.now);
    }

    fn copy(&mut self, name: &str, found: Found) {
        self.queue.copy(Event::Apply((name.into(), found)));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn what_is_there_and_whether_it_is_asked_for_decide_the_task() {
    let (ours, theirs) = (found("1", true), found("1", false));
    let present = |found: &Found| vec![("a", found.clone())];
    for (namespaces, copies, expected) in [
        (["a"].as_slice(), vec![], Some(Task::Create)),
        (&["a"], present(&ours), Some(Task::Check)),
        (
            &["a"],
            present(&theirs),
            Some(Task::ReportForeign(theirs.clone())),
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
    let mut queue = BundleQueue::default();
    let now = Instant::now();
    queue.copy(Event::Init);
    queue.copy(Event::InitApply(("a".into(), found("1", true))));
    queue.copy(Event::InitDone);
    queue.expect("one");
    queue.namespace(Event::Init);
    queue.namespace(Event::InitApply(("b".into(), false)));
    assert_eq!((queue.next(now), queue.published()), (None, None));
    queue.namespace(Event::InitDone);
    assert_eq!(
        queue.next(now),
        Some(("a".into(), Task::Remove(found("1", true))))
    );
    assert_eq!(queue.next(now), Some(("b".into(), Task::Create)));

    let mut queue = BundleQueue::default();
    for event in [Event::Init, Event::InitDone] {
        queue.namespace(event);
    }
    for event in [Event::Init, Event::InitDone] {
        queue.copy(event);
    }
    queue.namespace(Event::Apply(("b".into(), false)));
    assert_eq!((queue.next(now), queue.published()), (None, None));
    queue.expect("one");
    assert_eq!(queue.next(now), Some(("b".into(), Task::Create)));
}

#[test]
fn what_was_written_is_checked_again_only_when_it_changes() {
    let mut play = Play::new(&["a"], &[]);
    assert_eq!(play.task(), Some(Task::Create));
    play.wrote("a", "5");
    play.pass(MIN_INTERVAL);
    assert_eq!(play.task(), None);
    play.copy("a", found("5", true));
    assert_eq!(play.task(), None, "its own write comes back");
    play.list(&["a"], &[("a", found("5", true))]);
    assert_eq!(play.task(), None, "and again in a new list");
    play.copy("a", found("6", true));
    assert_eq!(play.task(), Some(Task::Check), "somebody edits it");
    play.wrote("a", "7");
    play.pass(MIN_INTERVAL);
    assert_eq!(play.task(), None);
    play.queue
        .copy(Event::Delete(("a".into(), found("7", true))));
    assert_eq!(play.task(), Some(Task::Create), "somebody deletes it");
}

#[test]
fn a_change_during_a_task_is_checked_afterwards() {
    let mut play = Play::new(&["a"], &[("a", found("1", true))]);
    assert_eq!(play.task(), Some(Task::Check));
    play.copy("a", found("2", true));
    assert_eq!(play.task(), None);
    play.holds("a", "1", "one", false);
    assert_eq!(play.task(), Some(Task::Check), "what it held is another");
    play.queue.expect("two");
    play.holds("a", "2", "one", false);
    assert_eq!(play.task(), Some(Task::Check), "the roots are others now");
}

#[test]
fn a_watch_that_is_behind_costs_one_check_at_most() {
    let mut play = Play::new(&["a"], &[("a", found("1", true))]);
    assert_eq!(play.task(), Some(Task::Check));
    play.copy("a", found("2", true));
    play.wrote("a", "3");
    assert_eq!(play.task(), None);
    play.copy("a", found("3", true));
    play.pass(MIN_INTERVAL);
    assert_eq!(play.task(), None);
}

#[test]
fn who_undoes_each_write_does_not_keep_it_busy() {
    let mut play = Play::new(&["a"], &[]);
    assert_eq!(play.task(), Some(Task::Create));
    play.wrote("a", "1");
    play.copy("a", found("2", true));
    assert_eq!(play.task(), None);
    assert_eq!(play.queue.wake(), Some(play.now + MIN_INTERVAL));
    play.pass(MIN_INTERVAL);
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
        play.queue.namespace(event);
        assert_eq!(play.task(), expected);
        if expected.is_some() {
            play.on_result("a", Outcome::Gone);
        }
        play.pass(MIN_INTERVAL);
        assert_eq!(play.task(), None);
        assert_eq!(play.queue.published(), Some("one"));
    }
}

#[test]
fn a_foreign_one_is_reported_again_and_replaced_when_it_is_gone() {
    let theirs = found("1", false);
    let mut play = Play::new(&["a"], &[]);
    assert_eq!(play.task(), Some(Task::Create));
    play.on_result("a", Outcome::Foreign(theirs.clone()));
    let complaint = Some(Task::ReportForeign(theirs.clone()));
    assert_eq!(play.task(), complaint);
    assert_eq!(play.task(), None);
    play.queue.remind();
    assert_eq!(play.task(), complaint);
    assert_eq!(play.queue.counts()[1], ("foreign", 1));
    assert_eq!(play.queue.published(), Some("one"), "it is not waited for");
    play.queue.copy(Event::Delete(("a".into(), theirs)));
    assert_eq!(play.task(), Some(Task::Create));
    play.queue.remind();
    assert_eq!((play.task(), play.queue.counts()[1].1), (None, 0));
}

#[test]
fn roots_are_published_when_every_copy_holds_them() {
    let mut play = Play::new(&["a", "b"], &[]);
    assert_eq!(play.tasks().len(), 2);
    play.wrote("a", "1");
    assert_eq!((play.tasks(), play.queue.published()), (vec![], None));
    play.wrote("b", "2");
    assert_eq!(
        (play.tasks(), play.queue.published()),
        (vec![], Some("one"))
    );

    play.queue.expect("two");
    assert_eq!(play.queue.published(), None);
    play.pass(MIN_INTERVAL);
    assert_eq!(play.tasks().len(), 2);
    play.holds("a", "3", "two", true);
    play.holds("b", "4", "one", true);
    assert_eq!(play.tasks().len(), 0);
    assert_eq!(play.queue.published(), None, "b got the old ones");
    play.pass(MIN_INTERVAL);
    assert_eq!(play.task(), Some(Task::Check));
    play.holds("b", "5", "two", true);
    assert_eq!((play.task(), play.queue.published()), (None, Some("two")));
    assert_eq!(play.queue.counts()[0], ("current", 2));
}

#[test]
fn nobody_who_asks_is_nobody_to_wait_for() {
    let mut play = Play::new(&[], &[]);
    assert_eq!((play.task(), play.queue.published()), (None, Some("one")));
    play.queue.expect("two");
    assert_eq!((play.task(), play.queue.published()), (None, Some("two")));
}

#[test]
fn what_keeps_failing_is_tried_ever_more_rarely_and_in_the_end_not_waited_for() {
    let mut play = Play::new(&["a"], &[]);
    let mut pauses = Vec::new();
    for failures in 1..=8 {
        assert_eq!(play.task(), Some(Task::Create));
        play.on_result("a", Outcome::Failed);
        assert_eq!(play.task(), None);
        assert_eq!(
            play.queue.published().is_some(),
            failures >= MAX_FAILURES,
            "{failures}"
        );
        let pause = play.queue.wake().unwrap() - play.now;
        play.pass(pause);
        pauses.push(pause.as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(play.queue.counts()[2], ("failing", 1));

    // The next roots wait for one attempt.
    play.queue.expect("two");
    assert_eq!(play.queue.published(), None);
    assert_eq!(play.task(), Some(Task::Create));
    play.on_result("a", Outcome::Failed);
    assert_eq!(play.queue.published(), Some("two"));
    play.pass(BACKOFF.longest);
    assert_eq!(play.task(), Some(Task::Create));
    play.holds("a", "1", "two", true);
    assert_eq!((play.task(), play.queue.counts()[2].1), (None, 0));
}

#[test]
fn a_copy_that_finalizers_hold_is_tried_ever_more_rarely_and_made_again_at_once_when_it_is_gone() {
    let mut play = Play::new(&["a"], &[("a", found("1", true))]);
    let mut pauses = Vec::new();
    for failures in 1..=8 {
        assert_eq!(play.task(), Some(Task::Check));
        assert_eq!(play.queue.is_held("a"), failures > 1);
        play.on_result("a", held("2"));
        // The watch tells of the deletion, and of whatever else is done to it.
        play.copy("a", going("2"));
        play.copy("a", going("3"));
        assert_eq!(play.task(), None, "{failures}");
        let is_published = play.queue.published().is_some();
        assert_eq!(is_published, failures >= MAX_FAILURES, "{failures}");
        assert_eq!(play.queue.counts()[2], ("failing", 1));
        let pause = play.queue.wake().unwrap() - play.now;
        play.pass(pause);
        pauses.push(pause.as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(play.task(), Some(Task::Check));
    play.on_result("a", held("3"));
    play.queue.copy(Event::Delete(("a".into(), going("3"))));
    assert_eq!(play.task(), Some(Task::Create), "without any pause");
    play.wrote("a", "4");
    assert_eq!((play.task(), play.queue.counts()[2].1), (None, 0));
    assert!(!play.queue.is_held("a"));
}

#[test]
fn a_copy_deleted_while_it_is_found_held_is_made_again_at_once() {
    let mut play = Play::new(&["a"], &[("a", found("1", true))]);
    assert_eq!(play.task(), Some(Task::Check));
    play.queue.copy(Event::Delete(("a".into(), going("2"))));
    play.on_result("a", held("2"));
    assert_eq!(play.task(), Some(Task::Create));
}

#[test]
fn a_failure_of_another_kind_waits_its_time_whatever_the_watch_reports() {
    let mut play = Play::new(&["a"], &[("a", found("1", true))]);
    assert_eq!(play.task(), Some(Task::Check));
    play.on_result("a", Outcome::Failed);
    play.queue
        .copy(Event::Delete(("a".into(), found("1", true))));
    assert_eq!(play.task(), None);
    play.pass(MIN_INTERVAL);
    assert_eq!(play.task(), Some(Task::Create));
}

#[test]
fn a_copy_that_nobody_asks_for_is_deleted_once_however_long_it_stays() {
    let mut play = Play::new(&[], &[("a", found("1", true))]);
    assert_eq!(play.task(), Some(Task::Remove(found("1", true))));
    play.on_result("a", Outcome::Gone);
    // Finalizers hold it.
    play.copy("a", going("2"));
    play.pass(BACKOFF.longest);
    assert_eq!((play.task(), play.queue.counts()[2].1), (None, 0));
    // Asked for again, it serves as long as it holds the roots.
    play.queue.namespace(Event::Apply(("a".into(), false)));
    assert_eq!(play.task(), Some(Task::Check));
}

#[test]
fn a_namespace_that_is_deleted_is_not_waited_for() {
    let mut play = Play::new(&["a"], &[]);
    assert_eq!(play.task(), Some(Task::Create));
    play.on_result("a", Outcome::Failed);
    play.queue.namespace(Event::Apply(("a".into(), true)));
    assert_eq!((play.task(), play.queue.published()), (None, Some("one")));
    assert_eq!(
        play.queue.counts(),
        [("current", 0), ("foreign", 0), ("failing", 0)]
    );
}

#[test]
fn a_new_list_removes_what_is_gone() {
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
