use super::*;
use crate::k8s::object_key::Key;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

const WINDOW: SignedDuration = SignedDuration::from_secs(600);
const PAUSED_INTERVAL: Duration = Duration::from_secs(300);
/// When the certificates of these tests are issued.
const ISSUED: Timestamp = Timestamp::constant(1_900_000_000, 0);

/// A queue and its clocks.
struct Test {
    queue: RestartQueue,
    begin: Instant,
    seconds: u64,
}

impl Test {
    fn new(window: SignedDuration) -> Self {
        Self {
            queue: RestartQueue::new(window, PAUSED_INTERVAL),
            begin: Instant::now(),
            seconds: 0,
        }
    }

    fn now(&self) -> Timestamp {
        ISSUED + Duration::from_secs(self.seconds)
    }

    fn instant(&self) -> Instant {
        self.begin + Duration::from_secs(self.seconds)
    }

    fn apply(&mut self, event: &Event<Deployment>) -> Vec<String> {
        let begun = self.queue.mark(Kind::Deployment, event);
        begun.into_iter().collect()
    }

    /// Workloads that ask.
    fn mark(&mut self, names: &[&str]) {
        for name in names {
            self.apply(&Event::Apply(deployment(name, 1, "true")));
        }
    }

    /// A Secret was renewed at this second, and pods of these are older.
    fn renew(&mut self, secret: &str, second: i64, behind: &[&str]) {
        let behind = behind.iter().map(|name| workload(name)).collect();
        let cause = cause(secret, second);
        self.queue.add(Renewal { cause, behind });
    }

    fn next(&mut self) -> Option<Task> {
        let (now, instant) = (self.now(), self.instant());
        self.queue.next(now, instant)
    }

    fn on_result(&mut self, task: &Task, outcome: Outcome) {
        let instant = self.instant();
        self.queue.on_result(task, outcome, instant);
    }

    /// The seconds until something is due, as far as the next hour goes.
    fn next_second(&mut self) -> Option<(u64, Task)> {
        let end = self.seconds + 3600;
        while self.seconds < end {
            if let Some(task) = self.next() {
                return Some((self.seconds, task));
            }
            self.seconds += 1;
        }
        None
    }
}

fn workload(name: &str) -> Workload {
    Workload {
        kind: Kind::Deployment,
        key: Key::new("ns", name),
    }
}

fn cause(secret: &str, second: i64) -> Cause {
    Cause {
        secret: Key::new("ns", secret),
        pki: secret.into(),
        pki_uid: None,
        serial: format!("{secret}-{second}"),
        issued: ISSUED + SignedDuration::from_secs(second),
    }
}

fn deployment(name: &str, generation: i64, asks: &str) -> Deployment {
    let object = json!({"metadata": {"namespace": "ns", "name": name, "uid": format!("uid-{name}"),
        "generation": generation, "annotations": {"box.com/restart-on-renewal": asks}}});
    serde_json::from_value(object).unwrap()
}

#[test]
fn only_annotated_workloads_restart_and_a_new_annotation_reconciles_the_pkis_of_its_namespace() {
    let mut test = Test::new(SignedDuration::ZERO);
    let asking = || deployment("web", 1, "true");
    for (event, begun) in vec![
        (Event::Init, false),
        (Event::InitApply(asking()), false),
        (Event::InitApply(deployment("other", 1, "false")), false),
        (Event::InitDone, true),
        (Event::Apply(asking()), false),
        (Event::Apply(deployment("web", 2, "true")), false),
        (Event::Apply(deployment("web", 2, "false")), false),
        (Event::Apply(deployment("web", 2, "true")), true),
        (Event::Init, false),
        (Event::InitApply(deployment("web", 2, "true")), false),
        (Event::InitDone, false),
    ] {
        let expected: &[&str] = if begun { &["ns"] } else { &[] };
        assert_eq!(test.apply(&event), expected, "{event:?}");
    }
    test.renew("s", 0, &["web", "other", "unknown"]);
    let task = test.next().unwrap();
    assert_eq!(
        (task.workload.clone(), &*task.uid, &*task.causes),
        (workload("web"), "uid-web", [cause("s", 0)].as_slice())
    );
    assert_eq!(test.next(), None, "it is under way");
    test.on_result(&task, Outcome::Restarted(ISSUED));
    assert_eq!(test.next_second(), None);

    test.renew("s", 9, &["web"]);
    test.apply(&Event::Delete(deployment("web", 2, "true")));
    assert_eq!(test.next_second(), None, "it is gone");
}

#[test]
fn a_hundred_workloads_are_spread_over_the_window_and_each_keeps_its_time() {
    let names: Vec<_> = (0..100).map(|number| format!("web-{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let turns = || {
        let mut test = Test::new(WINDOW);
        test.mark(&names);
        test.renew("s", 0, &names);
        let mut turns = BTreeMap::new();
        while let Some((second, task)) = test.next_second() {
            test.on_result(&task, Outcome::Restarted(test.now()));
            turns.insert(task.workload.key.name, second);
        }
        turns
    };
    let first = turns();
    assert_eq!(first.len(), 100);
    for minute in 0..10_u64 {
        let minute = minute * 60..(minute + 1) * 60;
        let count = first.values().filter(|second| minute.contains(*second));
        assert!(count.count() >= 2, "{minute:?}: {first:?}");
    }
    assert_eq!(first, turns(), "another leader comes to the same turns");
}

#[test]
fn what_came_due_while_nobody_led_is_due_at_once() {
    let mut test = Test::new(WINDOW);
    test.mark(&["web"]);
    test.renew("s", -3600, &["web"]);
    assert_eq!(test.next_second().map(|(second, _)| second), Some(0));
}

#[test]
fn one_restart_serves_all_secrets_that_were_renewed_before_it() {
    let mut test = Test::new(SignedDuration::ZERO);
    test.mark(&["web"]);
    test.seconds = 10;
    for (secret, second) in [("a", 2), ("b", 1), ("later", 100)] {
        test.renew(secret, second, &["web"]);
    }
    let task = test.next().unwrap();
    assert_eq!(
        task.causes,
        [cause("b", 1), cause("a", 2)],
        "the earliest first"
    );
    test.on_result(&task, Outcome::Restarted(test.now()));
    let (second, task) = test.next_second().unwrap();
    assert_eq!((second, task.causes), (100, vec![cause("later", 100)]));
}

#[test]
fn a_second_renewal_keeps_the_earlier_due_time() {
    let mut test = Test::new(WINDOW);
    test.mark(&["web"]);
    let turn = |test: &mut Test| {
        test.renew("s", 0, &["web"]);
        for second in 1..1000 {
            test.renew("s", second, &["web"]);
        }
        test.next_second().unwrap()
    };
    let (second, task) = turn(&mut test);
    assert!(second < 600 && task.causes == [cause("s", 999)], "{task:?}");
}

#[test]
fn what_fails_is_tried_again_ever_more_slowly_and_in_step_with_its_workload() {
    let mut test = Test::new(SignedDuration::ZERO);
    test.mark(&["web"]);
    test.renew("a", 0, &["web"]);
    let mut pauses = Vec::new();
    for number in 0..8 {
        let before = test.seconds;
        let (second, task) = test.next_second().unwrap();
        pauses.push(second - before);
        // That there are several Secrets makes it no faster.
        test.renew(&format!("b-{number}"), 0, &["web"]);
        test.on_result(&task, Outcome::Failed);
    }
    assert_eq!(pauses, [0, 2, 4, 8, 16, 32, 60, 60]);

    // Somebody edits the workload.
    test.seconds += 5;
    let edited = Event::Apply(deployment("web", 2, "true"));
    test.apply(&edited);
    let task = test.next().unwrap();
    test.on_result(&task, Outcome::Failed);
    test.apply(&Event::Apply(deployment("web", 3, "true")));
    assert_eq!(test.next(), None, "an edit is no way to make it faster");
    test.seconds += 2;
    let task = test.next().unwrap();
    test.on_result(&task, Outcome::Left);
    assert_eq!(test.next_second(), None);
}

#[test]
fn a_workload_that_is_paused_is_tried_when_it_changes_or_after_a_while() {
    let mut test = Test::new(SignedDuration::ZERO);
    test.mark(&["web"]);
    test.renew("s", 0, &["web"]);
    let (_, task) = test.next_second().unwrap();
    test.on_result(&task, Outcome::Paused);
    let (second, task) = test.next_second().unwrap();
    assert_eq!(second, PAUSED_INTERVAL.as_secs());
    test.on_result(&task, Outcome::Paused);
    test.seconds += 10;
    assert_eq!(test.next(), None);
    test.apply(&Event::Apply(deployment("web", 2, "true")));
    assert!(test.next().is_some());
}

#[test]
fn the_clock_is_read_in_time() {
    let longest = Duration::from_secs(30);
    let mut test = Test::new(SignedDuration::ZERO);
    let pause = |test: &Test| test.queue.pause(test.now(), test.instant(), longest);
    assert_eq!(pause(&test), longest);
    test.mark(&["web"]);
    test.renew("s", 20, &["web"]);
    assert_eq!(pause(&test), Duration::from_secs(20));
    test.seconds = 60;
    assert_eq!(pause(&test), Duration::from_millis(100));
    let task = test.next().unwrap();
    assert_eq!(pause(&test), longest, "it is under way");
    test.on_result(&task, Outcome::Failed);
    assert_eq!(pause(&test), MIN_INTERVAL);
    test.renew("s", 3600, &["web"]);
    assert_eq!(pause(&test), MIN_INTERVAL, "what was due stays so");
}
