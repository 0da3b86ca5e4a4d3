//! A replica whose clock is wrong: real processes with shifted clocks, and the API server's to
//! compare with.

use crate::harness::{Installed, Namespace, arena, eventually, file, openssl, operator_binary};
use jiff::{SignedDuration, Timestamp};
use pki_cluster::install::{Operator, RELEASE, Replica, free_address};
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const SPEC: &str = r#"{"serviceName": "app1"}"#;
/// Shifts that no replica may act on, as libfaketime has them.
const WRONG: [&str; 6] = ["+4015d", "-4015d", "+100d", "-100d", "+200d", "-200d"];
/// Shifts that are tolerated.
const TOLERATED: [&str; 2] = ["+2m", "-2m"];
const RIGHT: &str = "+0";

/// A clock of one process, which a file sets.
struct ShiftedClock {
    file: PathBuf,
    script: PathBuf,
}

impl ShiftedClock {
    fn new(arena: &Installed, name: &str, shift: &str) -> Self {
        let library = library();
        let [file, script] =
            ["shift", "sh"].map(|end| arena.cluster.dir().join(format!("{name}.{end}")));
        let start = format!(
            "#!/bin/sh\nexport LD_PRELOAD='{}' FAKETIME_TIMESTAMP_FILE='{}' FAKETIME_NO_CACHE=1\n\
             export FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1\n\
             exec '{}' \"$@\"\n",
            library.display(),
            file.display(),
            operator_binary().display()
        );
        fs::write(&script, start).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let clock = Self { file, script };
        clock.shift(shift);
        clock
    }

    /// Moves the clock of the process away from that of the machine.
    fn shift(&self, by: &str) {
        // Replaced at once: the process reads it whenever it asks for the time.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{by}\n")).unwrap();
        fs::rename(new, &self.file).unwrap();
    }

    fn replica<'a>(
        &'a self,
        arena: &'a Installed,
        name: &'a str,
        webhook: SocketAddr,
    ) -> Replica<'a> {
        Replica {
            binary: &self.script,
            ..arena.described(name, webhook, &[])
        }
    }

    /// Starts a replica with this clock, and does not wait until it is ready.
    fn launch(&self, arena: &Installed, name: &str, webhook: SocketAddr) -> Operator {
        let replica = self.replica(arena, name, webhook);
        let started = replica.launch(|name, command| arena.cluster.spawn(name, command));
        started.expect("the operator starts")
    }

    fn start(&self, arena: &Installed, name: &str, webhook: SocketAddr) -> Operator {
        let replica = self.replica(arena, name, webhook);
        let started = replica.start(|name, command| arena.cluster.spawn(name, command));
        started.expect("the operator starts")
    }
}

fn library() -> &'static Path {
    const PLACES: [&str; 4] = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib64/faketime/libfaketime.so.1",
        "/usr/lib/faketime/libfaketime.so.1",
    ];
    let found = PLACES.iter().map(Path::new).find(|place| place.exists());
    found.expect("there is libfaketime; if it is missing: apt-get install libfaketime")
}

fn gauge(replica: &Operator, name: &str) -> Option<i64> {
    let (_, page) = replica.get("/metrics").ok()?;
    let line = page.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

fn leads(replica: &Operator) -> bool {
    gauge(replica, "pki_operator_leader ") == Some(1)
}

/// Waits until the replica says why it neither leads nor is ready.
fn wait_until_distrusted(replica: &Operator, shift: &str) {
    let what = format!("a replica that is off by {shift} says so");
    eventually(&what, || {
        let (code, body) = replica.get("/readyz").ok()?;
        let says = body.contains("the clock of this machine is") && body.contains("set it");
        let is_counted = gauge(replica, "pki_operator_clock_trusted ") == Some(0);
        (code == 503 && says && is_counted && !leads(replica)).then_some(())
    });
}

fn wait_until_leading(replica: &Operator) {
    eventually("the replica is ready and leads", || {
        let (code, _) = replica.get("/readyz").ok()?;
        (code == 200 && leads(replica)).then_some(())
    });
}

/// Everything that a wrong clock may not change: the CAs with their keys, and the Secrets of a
/// namespace.
fn kept(arena: &Installed, ns: &Namespace<'_>) -> Vec<Value> {
    let data = |namespace: &str, name: &str| {
        let secret = arena.api.get("secret", namespace, name).unwrap();
        secret.unwrap()["data"].take()
    };
    let operator = ["pki-operator-ca", "pki-operator-webhook-ca"];
    let cas = operator.map(|name| data("pki-operator", name));
    let issued = ["old", "other"].map(|name| data(&ns.name, name));
    cas.into_iter().chain(issued).collect()
}

/// Something to issue and something to renew, for a leader that would.
fn tempt(ns: &Namespace<'_>, name: &str) {
    ns.apply_pki(name, SPEC);
    ns.annotate("pki", "other", "example.com/note", name);
}

/// The beginning of the certificate lies at most the tolerated difference after this moment, and
/// not long before.
fn expect_right_time(ns: &Namespace<'_>, name: &str) {
    let secret = ns.get("secret", name).unwrap();
    let dates = openssl(
        &["x509", "-noout", "-startdate", "-dateopt", "iso_8601"],
        &file(&secret, "tls.crt"),
    );
    let date = dates
        .strip_prefix("notBefore=")
        .expect("a date")
        .replace(' ', "T");
    let not_before: Timestamp = date.parse().expect("a time");
    let age = Timestamp::now().duration_since(not_before);
    let bounds = SignedDuration::ZERO..SignedDuration::from_mins(10);
    assert!(bounds.contains(&age), "{name} began {age} ago");
}

#[test]
fn a_leader_whose_clock_steps_loses_no_key_writes_no_wrong_time_and_heals_without_a_restart() {
    let arena = arena();
    arena.forget_cas();
    let clock = ShiftedClock::new(&arena, "operator-1", RIGHT);
    let operator = clock.start(&arena, "operator-1", arena.webhook);
    wait_until_leading(&operator);
    let ns = arena.namespace("clock-leader");
    for name in ["old", "other"] {
        ns.apply_pki(name, SPEC);
        ns.wait_until_ready(name);
    }
    let before = kept(&arena, &ns);
    for (number, shift) in WRONG.iter().enumerate() {
        let name = format!("new-{number}");
        clock.shift(shift);
        // Before it can know: the API server has not answered since.
        tempt(&ns, &name);
        wait_until_distrusted(&operator, shift);
        assert_eq!(arena.leader(), None, "the Lease is free for others");
        assert!(kept(&arena, &ns) == before, "{shift} changed a Secret");
        clock.shift(RIGHT);
        wait_until_leading(&operator);
        ns.wait_until_ready(&name);
        expect_right_time(&ns, &name);
        assert!(
            kept(&arena, &ns) == before,
            "{shift} changed a Secret later"
        );
    }
    let events = arena.api.list("events", RELEASE, "", "").unwrap();
    let is_skewed = |event: &Value| {
        let regarding = &event["regarding"];
        event["reason"] == "ClockSkewed"
            && regarding["kind"] == "Lease"
            && regarding["name"] == "pki-operator"
    };
    assert!(events.iter().any(is_skewed), "{events:?}");
    for (number, shift) in TOLERATED.iter().enumerate() {
        let name = format!("tolerated-{number}");
        clock.shift(shift);
        ns.apply_pki(&name, SPEC);
        ns.wait_until_ready(&name);
        expect_right_time(&ns, &name);
        wait_until_leading(&operator);
        assert!(kept(&arena, &ns) == before, "{shift} changed a Secret");
    }
}

#[test]
fn a_new_leader_with_a_wrong_clock_takes_no_lead_until_it_is_set() {
    let arena = arena();
    let right = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("clock-new");
    for name in ["old", "other"] {
        ns.apply_pki(name, SPEC);
        ns.wait_until_ready(name);
    }
    let before = kept(&arena, &ns);
    drop(right);
    let names = [1, 2, 3, 4, 5, 6].map(|number| format!("operator-new-{number}"));
    let clocks: Vec<_> = names
        .iter()
        .zip(WRONG)
        .map(|(name, shift)| ShiftedClock::new(&arena, name, shift))
        .collect();
    let replicas: Vec<_> = names
        .iter()
        .zip(&clocks)
        .map(|(name, clock)| clock.launch(&arena, name, free_address().unwrap()))
        .collect();
    for (replica, shift) in replicas.iter().zip(WRONG) {
        wait_until_distrusted(replica, shift);
    }
    // The one before was killed, and holds the Lease until somebody takes it.
    let leader = arena.leader().unwrap_or_default();
    assert!(!names.contains(&leader), "{leader} takes the lead");
    assert!(kept(&arena, &ns) == before, "a Secret has changed");
    for (index, clock) in clocks.iter().enumerate() {
        clock.shift(RIGHT);
        if index == 0 {
            wait_until_leading(&replicas[0]);
        }
    }
    for replica in &replicas {
        eventually("the clock is trusted", || {
            (gauge(replica, "pki_operator_clock_trusted ") == Some(1)).then_some(())
        });
    }
    assert!(kept(&arena, &ns) == before, "a Secret has changed later");
    ns.wait_until_ready("old");
}

#[test]
fn of_two_replicas_the_one_whose_clock_is_right_leads_and_with_none_nothing_happens() {
    let arena = arena();
    let clocks = ["operator-1", "operator-2"].map(|name| ShiftedClock::new(&arena, name, RIGHT));
    let first = clocks[0].start(&arena, "operator-1", arena.webhook);
    wait_until_leading(&first);
    let second = clocks[1].start(&arena, "operator-2", free_address().unwrap());
    let ns = arena.namespace("clock-both");
    for name in ["old", "other"] {
        ns.apply_pki(name, SPEC);
        ns.wait_until_ready(name);
    }
    let before = kept(&arena, &ns);

    clocks[0].shift("+100d");
    wait_until_distrusted(&first, "+100d");
    wait_until_leading(&second);
    // As a Service does, which sends nothing to a replica that is not ready.
    arena.without_webhooks();
    ns.apply_pki("by-second", SPEC);
    ns.wait_until_ready("by-second");
    expect_right_time(&ns, "by-second");

    clocks[1].shift("-200d");
    wait_until_distrusted(&second, "-200d");
    ns.apply_pki("by-none", SPEC);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(5) {
        assert!(
            ns.get("secret", "by-none").is_none(),
            "a wrong clock issued"
        );
        thread::sleep(Duration::from_millis(200));
    }
    assert!(kept(&arena, &ns) == before, "a Secret has changed");

    clocks[0].shift(RIGHT);
    ns.wait_until_ready("by-none");
    expect_right_time(&ns, "by-none");
    assert!(kept(&arena, &ns) == before, "a Secret has changed");
    assert!(leads(&first));
}

#[test]
fn a_clock_that_drifts_ends_the_lead_when_it_has_drifted_too_far() {
    let arena = arena();
    let clock = ShiftedClock::new(&arena, "operator-1", RIGHT);
    let operator = clock.start(&arena, "operator-1", arena.webhook);
    wait_until_leading(&operator);
    let ns = arena.namespace("clock-drift");
    for seconds in (0..180).step_by(12) {
        clock.shift(&format!("+{seconds}s"));
        if seconds % 60 == 0 {
            let name = format!("drift-{seconds}");
            ns.apply_pki(&name, SPEC);
            ns.wait_until_ready(&name);
            expect_right_time(&ns, &name);
        }
        assert!(leads(&operator), "{seconds} s are tolerated");
    }
    clock.shift("+195s");
    wait_until_distrusted(&operator, "+195s");
    clock.shift("+150s");
    wait_until_leading(&operator);
}
