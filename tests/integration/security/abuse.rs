//! Clients that mean harm, all at once, while an honest one is answered as if they were not there.
//!
//! What is asserted holds on any machine; the figures are printed. The small abuse is part of every
//! run, the large one is run by name (see `.ci/run`): `cargo test --test integration -- --ignored
//! abuse --nocapture`.

mod attacks;

use crate::admission::webhook::client::{Dialer, Webhook};
use crate::admission::webhook::{ask, review};
use crate::harness::{Installed, PATIENCE, arena, eventually, operator_binary};
use attacks::{ATTACKS, Attack, Crowd};
use pki_cluster::install::{Operator, Replica};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The limit that the chart sets, in MiB.
const MEMORY: f64 = 256.0;

/// How many do harm, and for how long.
struct Abuse {
    time: Duration,
    /// Connections that are open at a time and say nothing, or half of something.
    crowd: usize,
    /// Of each kind of attack.
    attackers: usize,
}

#[test]
fn honest_requests_are_answered_under_abuse() {
    let abuse = Abuse {
        time: Duration::from_secs(5),
        crowd: 100,
        attackers: 1,
    };
    abuse.inflict(&["--max-connections", "64", "--max-requests", "64"]);
}

#[test]
#[ignore = "takes most of a minute: cargo test --test integration -- --ignored abuse --nocapture"]
fn honest_requests_are_answered_under_much_abuse() {
    let abuse = Abuse {
        time: Duration::from_secs(20),
        crowd: 1_000,
        attackers: 2,
    };
    abuse.inflict(&["--max-requests", "200"]);
}

impl Abuse {
    fn inflict(&self, flags: &[&str]) {
        let arena = arena();
        let operator = arena.first_replica("operator-abuse", flags).unwrap();
        let dialer = Dialer::of(&arena);
        let stop = AtomicBool::new(false);
        let calm = Honest::work(&dialer, &operator, Duration::from_secs(3));
        let usage = || operator.process.usage().unwrap();
        let before = usage();

        let (crowd, harassed) = thread::scope(|scope| {
            let crowd = scope.spawn(|| Crowd::gather(self.crowd, &dialer, operator.metrics, &stop));
            for (_, attack) in ATTACKS {
                for _ in 0..self.attackers {
                    let (dialer, stop) = (&dialer, &stop);
                    scope.spawn(move || {
                        while !stop.load(Ordering::Relaxed) {
                            // It fails when the webhook has had enough, as it should.
                            let _ = attack(dialer, stop);
                            thread::sleep(Duration::from_millis(20));
                        }
                    });
                }
            }
            let harassed = {
                // Also if an honest request fails.
                let _stop = at_last(|| stop.store(true, Ordering::Relaxed));
                eventually(
                    "the crowd fills the webhook and attacks come through",
                    || {
                        let displaced = counted(&operator, "connections_closed_total", "displaced");
                        let refused = counted(&operator, "requests_refused_total", "");
                        (displaced > 0 && refused > 0).then_some(())
                    },
                );
                Honest::work(&dialer, &operator, self.time)
            };
            (crowd.join().unwrap(), harassed)
        });
        let during = usage();

        println!("calm:    {calm}");
        println!(
            "harassed: {harassed}, {:.1} times the median",
            harassed.median() / calm.median()
        );
        let displaced = counted(&operator, "connections_closed_total", "displaced");
        let refused = counted(&operator, "requests_refused_total", "");
        println!("{displaced} connections made way, {refused} requests were refused");
        println!("{:.1} s of processor", during.cpu - before.cpu);

        // The crowd still holds its ends.
        eventually("the connections are closed", || {
            (counted(&operator, "connections", "") <= 1).then_some(())
        });
        drop(crowd);
        let (after, most) = (usage().resident, during.most_resident);
        println!(
            "resident: {:.0} MiB before, {:.0} during, {after:.0} after, {most:.0} at most",
            before.resident, during.resident
        );
        assert!(most < MEMORY, "{most} MiB");
        // The allocator keeps some of it.
        assert!(after < MEMORY / 2.0, "{after} MiB are left");
        assert!(operator.process.try_wait().unwrap().is_none());
    }
}

/// Does this when it is dropped, also in a panic.
fn at_last(last: impl FnMut()) -> impl Drop {
    struct AtLast<F: FnMut()>(F);
    impl<F: FnMut()> Drop for AtLast<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    AtLast(last)
}

/// Somebody who asks over one connection, over new ones, and whether the replica lives; each is
/// answered.
struct Honest {
    /// How long answers took, in milliseconds, in order.
    kept: Vec<f64>,
    fresh: Vec<f64>,
    large: Vec<f64>,
    probes: Vec<f64>,
}

impl Honest {
    fn work(dialer: &Dialer, operator: &Operator, time: Duration) -> Self {
        let work = |pause, ask: &mut dyn FnMut()| {
            let (begin, mut times) = (Instant::now(), Vec::new());
            while begin.elapsed() < time {
                let asked = Instant::now();
                ask();
                times.push(asked.elapsed().as_secs_f64() * 1000.0);
                thread::sleep(Duration::from_millis(pause));
            }
            times.sort_by(f64::total_cmp);
            times
        };
        let small = review("honest", "app1");
        let mut large = small.clone();
        large["request"]["object"]["metadata"]["annotations"]["large"] = json!("x".repeat(100_000));
        let ask = |webhook: &mut Webhook, review: &Value| {
            let response = ask(webhook, "/validate", review);
            assert_eq!(response["allowed"], true, "{response}");
        };
        thread::scope(|scope| {
            let fresh = scope.spawn(|| work(100, &mut || ask(&mut Webhook::new(dialer), &small)));
            let large = scope.spawn(|| {
                let mut webhook = Webhook::new(dialer);
                work(200, &mut || ask(&mut webhook, &large))
            });
            let probes = scope.spawn(|| {
                work(100, &mut || {
                    assert_eq!(operator.get("/livez").expect("it lives").0, 200);
                })
            });
            let mut webhook = Webhook::new(dialer);
            Self {
                kept: work(5, &mut || ask(&mut webhook, &small)),
                fresh: fresh.join().expect("new connections are answered"),
                large: large.join().expect("large reviews are answered"),
                probes: probes.join().expect("probes are answered"),
            }
        })
    }

    fn median(&self) -> f64 {
        self.kept[self.kept.len() / 2]
    }
}

impl std::fmt::Display for Honest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for (what, times) in [
            ("reviews", &self.kept),
            ("reviews on new connections", &self.fresh),
            ("large reviews", &self.large),
            ("probes", &self.probes),
        ] {
            let late = times[times.len() * 99 / 100];
            let half = times[times.len() / 2];
            write!(
                f,
                "{separator}{} {what}: 50% within {half:.1} ms, 99% within {late:.1} ms",
                times.len()
            )?;
            separator = "; ";
        }
        Ok(())
    }
}

/// The sum of a metric over its labels, of those lines that also hold this word and are not about
/// the port of health.
fn counted(operator: &Operator, metric: &str, word: &str) -> u64 {
    let (_, page) = operator.get("/metrics").expect("a page");
    let prefix = format!("pki_operator_{metric}{{");
    let lines = page.lines().filter(|line| line.starts_with(&prefix));
    let lines = lines.filter(|line| line.contains(word) && !line.contains("\"health\""));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}

#[test]
fn what_is_short_on_the_wire_is_not_large_in_memory() {
    let arena = arena();
    let operator = arena.first_replica("operator-abuse", &[]).unwrap();
    let dialer = Dialer::of(&arena);
    for (what, attack, most) in [
        (
            "500,000 chunks of a byte",
            attacks::single_bytes as Attack,
            10.0,
        ),
        ("a review with 800,000 objects", attacks::many_objects, 32.0),
        // The most that is judged, of which there are two at a time.
        ("a review with 24,900 objects", attacks::most_objects, 64.0),
        ("a review with 399,000 names", attacks::most_names, 100.0),
    ] {
        let most_so_far = || operator.process.usage().unwrap().most_resident;
        let before = most_so_far();
        attack(&dialer, &AtomicBool::new(false)).unwrap();
        let grown = most_so_far() - before;
        println!("{what}: {grown:.0} MiB");
        assert!(grown < most, "{what}: {grown} MiB");
    }
}

#[test]
fn only_tls_1_2_and_above_are_spoken() {
    let arena = arena();
    let _operator = arena.first_replica("operator-1", &[]).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut webhook = Webhook::new(&Dialer::speaking(&arena, &[version]));
        assert_eq!(
            ask(&mut webhook, "/validate", &review("1", "app1"))["allowed"],
            true
        );
    }
    for (version, minor) in [("1.0", 1), ("1.1", 2), ("1.2", 3)] {
        let mut stream = TcpStream::connect(arena.webhook).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&attacks::client_hello(minor)).unwrap();
        let mut record = [0; 7];
        stream.read_exact(&mut record).unwrap();
        if minor == 3 {
            // A ServerHello: nothing else was wrong with the others.
            assert_eq!((record[0], record[5]), (22, 2), "TLS {version}: {record:?}");
        } else {
            // An alert: fatal, protocol_version.
            assert_eq!(
                (record[0], &record[5..]),
                (21, &[2, 70][..]),
                "TLS {version}: {record:?}"
            );
        }
    }
}

#[test]
fn a_process_that_may_open_few_files_takes_fewer_connections_and_is_open_to_new_ones() {
    let arena = arena();
    let operator = with_few_files(&arena, 400);
    let warned =
        "this process may open 400 files, so it serves at most 80 connections; raise that limit";
    let log = operator.process.log();
    assert!(log.contains(warned), "{log}");
    let silent: Vec<_> = (0..300)
        .map(|_| TcpStream::connect(operator.webhook).unwrap())
        .collect();
    // Until then a newcomer of the same address may be closed with them.
    eventually("those beyond the limit are closed", || {
        (counted(&operator, "connections_closed_total", "displaced") >= 220).then_some(())
    });
    let mut webhook = Webhook::of(&arena);
    assert_eq!(
        ask(&mut webhook, "/validate", &review("1", "app1"))["allowed"],
        true
    );
    assert!(counted(&operator, "connections", "") <= 80);
    drop(silent);
}

#[test]
fn a_process_that_can_open_no_more_files_waits_until_it_can() {
    let arena = arena();
    // Too few even for the port of health.
    let operator = with_few_files(&arena, 48);
    let connect = || TcpStream::connect(operator.metrics).unwrap();
    let silent: Vec<_> = (0..60).map(|_| connect()).collect();
    let (begin, used) = (Instant::now(), operator.process.usage().unwrap().cpu);
    thread::sleep(Duration::from_secs(3));
    let share = (operator.process.usage().unwrap().cpu - used) / begin.elapsed().as_secs_f64();
    assert!(share < 0.5, "it spins: {share:.2} of a processor");
    drop(silent);
    eventually("it answers again", || {
        operator
            .get("/livez")
            .ok()
            .filter(|(status, _)| *status == 200)
    });
    let mut webhook = Webhook::of(&arena);
    assert_eq!(
        ask(&mut webhook, "/validate", &review("1", "app1"))["allowed"],
        true
    );
}

/// A replica that may have so many files open.
fn with_few_files(arena: &Installed, files: usize) -> Operator {
    let script = arena.cluster.dir().join(format!("few-files-{files}.sh"));
    let binary = operator_binary().display();
    fs::write(
        &script,
        format!("#!/bin/sh\nulimit -n {files}\nexec '{binary}' \"$@\"\n"),
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let replica = Replica {
        binary: &script,
        kubeconfig: &arena.kubeconfig,
        identity: "operator-few-files",
        webhook: arena.webhook,
        host: "127.0.0.1",
        flags: &[],
    };
    let started = replica.start(|name, command| arena.cluster.spawn(name, command));
    started.expect("the operator starts")
}
