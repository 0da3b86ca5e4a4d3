//! A cluster starts, works, and leaves nothing behind, however its owner ends.

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use pki_cluster::{Cluster, Options, Signal};

use crate::{processes_of, run, wait_until};

#[test]
fn a_started_cluster_answers_and_a_stopped_one_leaves_no_trace() {
    let cluster = start();
    let dir = cluster.dir().to_owned();
    assert!(!processes_of(&dir).is_empty());

    let namespaces = run(cluster
        .kubectl()
        .args(["get", "namespaces", "--output=name"]));
    assert!(namespaces.contains("namespace/default\n"), "{namespaces}");
    let token = run(cluster.kubectl().args(["create", "token", "default"]));
    assert_eq!(token.split('.').count(), 3, "not a JSON web token: {token}");
    // A process that is stopped does not hear that it shall end.
    let stopped = cluster
        .spawn("stopped", Command::new("sleep").arg("1000"))
        .unwrap();
    stopped.signal(Signal::STOP).unwrap();

    cluster.stop().unwrap();
    assert!(stopped.try_wait().unwrap().is_some());
    assert_leaves_nothing(&dir);
}

#[test]
fn a_panic_leaves_no_trace() {
    let thread = thread::spawn(|| {
        let cluster = start();
        panic::resume_unwind(Box::new(cluster.dir().to_owned()));
    });
    let payload = thread.join().expect_err("the thread panics");
    assert_leaves_nothing(payload.downcast_ref::<PathBuf>().unwrap());
}

#[test]
fn two_clusters_run_side_by_side() {
    let (one, other) = (start(), start());
    run(one.kubectl().args(["create", "namespace", "only-here"]));
    let namespaces = run(other.kubectl().args(["get", "namespaces", "--output=name"]));
    assert!(!namespaces.contains("only-here"), "{namespaces}");

    let dir = one.dir().to_owned();
    one.stop().unwrap();
    assert_leaves_nothing(&dir);
    run(other.kubectl().args(["get", "--raw", "/readyz"]));
}

#[test]
fn the_audit_log_has_a_line_for_a_write_and_none_for_a_read() {
    run(SHARED.kubectl().args(["create", "configmap", "written"]));
    run(SHARED.kubectl().args(["get", "configmap", "written"]));

    let writes = || {
        let log = fs::read_to_string(SHARED.audit_log()).unwrap();
        log.lines()
            .filter(|line| line.contains(r#""name":"written""#))
            .count()
    };
    wait_until("the write is in the log", || writes() > 0);
    run(SHARED.kubectl().args(["delete", "configmap", "written"]));
    // The log is in order, so nothing was between the two.
    wait_until("the second write is in the log", || writes() > 1);
    assert_eq!(writes(), 2);
}

#[test]
fn a_service_that_is_restarted_keeps_its_data_and_its_address() {
    let cluster = start();
    run(cluster.kubectl().args(["create", "configmap", "kept"]));
    for service in ["etcd", "kube-apiserver", "kube-controller-manager"] {
        cluster.restart_service(service).unwrap();
        run(cluster.kubectl().args(["get", "configmap", "kept"]));
    }
    assert!(cluster.compact().unwrap() > 0);
    cluster
        .restart_service("kubelet")
        .expect_err("there is no node");
}

#[test]
fn a_spawned_process_hears_signals_and_its_log_is_kept() {
    let mut script = Command::new("sh");
    let polite = r#"trap 'echo "$FAREWELL"; exit 3' TERM; echo here; while :; do sleep 0.1; done"#;
    script.args(["-c", polite]).env("FAREWELL", "bye");
    let process = SHARED.spawn("polite", &script).unwrap();
    wait_until("it writes", || process.log() == "here\n");
    let still_running = process.wait(Duration::ZERO).unwrap_err();
    assert!(
        still_running.to_string().contains("here"),
        "{still_running}"
    );

    process.signal(Signal::TERM).unwrap();
    assert_eq!(
        process.wait(Duration::from_secs(5)).unwrap().code(),
        Some(3)
    );
    assert_eq!(process.log(), "here\nbye\n");
    process.signal(Signal::TERM).expect_err("it has ended");
}

#[test]
fn a_dropped_process_is_dead() {
    let pid = SHARED
        .spawn("dropped", Command::new("sleep").arg("1000"))
        .unwrap()
        .pid();
    let alive = Command::new("kill")
        .args(["-s", "0", &pid.to_string()])
        .output()
        .unwrap();
    assert!(!alive.status.success());
}

/// For tests that need no cluster of their own. It is never dropped: its watchdog ends it with us.
static SHARED: LazyLock<Cluster> = LazyLock::new(start);

fn start() -> Cluster {
    Cluster::start(Options::default()).unwrap()
}

fn assert_leaves_nothing(dir: &Path) {
    assert!(!dir.exists(), "{} is still there", dir.display());
    assert_eq!(processes_of(dir), Vec::<String>::new());
}
