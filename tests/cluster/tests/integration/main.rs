//! Tests against real clusters, which they start.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod flags;
mod lifecycle;
mod node;
mod programs;

use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

/// Runs a command that must succeed, and returns what it printed.
fn run(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    stdout.into_owned()
}

/// The processes that have the folder of a cluster in their arguments, all but spawned ones: each
/// with its number first.
fn processes_of(dir: &Path) -> Vec<String> {
    let all = run(Command::new("ps").args(["-A", "-ww", "-o", "pid=,args="]));
    all.lines()
        .filter(|line| line.contains(dir.to_str().unwrap()))
        .map(str::to_owned)
        .collect()
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
