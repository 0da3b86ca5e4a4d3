//! A process that belongs to a cluster: its output is kept in a file, and it does not outlive the
//! cluster.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::iter;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

use crate::usage::Usage;
use crate::watchdog::Watchdog;

const POLL: Duration = Duration::from_millis(20);

/// Waits for a signal of life on its standard input before it becomes the program itself.
///
/// Between the birth of a process and the line that tells the watchdog of it, we might be killed.
/// Such a process reads the end of the pipe, and ends.
const GATE: &str = r#"read -r _ && exec "$0" "$@" </dev/null"#;

/// A process started by [`Cluster::spawn`](crate::Cluster::spawn). Dropping it kills the process.
pub struct Process {
    name: String,
    log: PathBuf,
    entry: Arc<Entry>,
}

/// What the cluster knows of a process. Whoever looks first collects its exit status.
pub(crate) struct Entry {
    pid: u32,
    state: Mutex<State>,
    watchdog: Arc<Watchdog>,
}

enum State {
    Running(Child),
    Ended(ExitStatus),
}

impl Process {
    /// Starts the program, arguments, environment and directory of `command`, in its own process
    /// group.
    pub(crate) fn start(
        name: &str,
        command: &Command,
        logs: &Path,
        watchdog: &Arc<Watchdog>,
    ) -> anyhow::Result<Self> {
        let program = command.get_program().display();
        let (log, output) = new_log(logs, name)?;
        let mut child = gated(command)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        let gate = child.stdin.take();
        let pid = child.id();
        let state = Mutex::new(State::Running(child));
        let entry = Arc::new(Entry {
            pid,
            state,
            watchdog: Arc::clone(watchdog),
        });
        let process = Self {
            name: name.to_owned(),
            log,
            entry,
        };

        watchdog.started(pid)?;
        gate.expect("standard input is piped")
            .write_all(b"go\n")
            .with_context(|| format!("starting {program}"))?;
        Ok(process)
    }

    /// The name it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.entry.pid
    }

    /// What it has taken up so far. An error if it has ended.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.pid())
    }

    /// The file with its standard output and standard error.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Everything it has written so far.
    pub fn log(&self) -> String {
        match fs::read(&self.log) {
            Ok(log) => String::from_utf8_lossy(&log).into_owned(),
            Err(error) => format!("({}: {error})", self.log.display()),
        }
    }

    /// The last `count` lines it has written, indented by two spaces.
    pub fn last_lines(&self, count: usize) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(count)..];
        format!("  {}", tail.join("\n  "))
    }

    /// Sends a signal; an error when the process has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.entry
            .signal(signal)
            .with_context(|| format!("sending {signal:?} to {}", self.name))
    }

    /// The exit status, when it has ended.
    pub fn try_wait(&self) -> anyhow::Result<Option<ExitStatus>> {
        self.entry
            .try_wait()
            .with_context(|| format!("waiting for {}", self.name))
    }

    /// Waits for its end; an error with the end of its log when that takes longer than `limit`.
    pub fn wait(&self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if begin.elapsed() > limit {
                bail!(
                    "{} still runs after {limit:?}:\n{}",
                    self.name,
                    self.last_lines(20)
                );
            }
            thread::sleep(POLL);
        }
    }

    /// Kills it (SIGKILL) and waits for its end; nothing when it has ended already.
    pub fn kill(&self) -> anyhow::Result<()> {
        if self.try_wait()?.is_none() {
            self.signal(Signal::KILL)?;
            self.wait(Duration::from_secs(10))?;
        }
        Ok(())
    }

    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is lost when this fails: the watchdog ends the process with the cluster.
        let _ = self.kill();
    }
}

impl Entry {
    pub(crate) fn try_wait(&self) -> anyhow::Result<Option<ExitStatus>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let child = match &mut *state {
            State::Running(child) => child,
            State::Ended(status) => return Ok(Some(*status)),
        };
        let Some(status) = child.try_wait()? else {
            return Ok(None);
        };
        *state = State::Ended(status);
        // A watchdog that was released needs no news: its list of processes is closed.
        let _ = self.watchdog.ended(self.pid);
        Ok(Some(status))
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            // The lock keeps others from waiting for the child, so its number is still its own.
            State::Running(child) => Ok(kill_process(Pid::from_child(child), signal)?),
            State::Ended(status) => bail!("it has ended: {status}"),
        }
    }
}

/// A new file for the output of a process: a name may be used again.
fn new_log(logs: &Path, name: &str) -> anyhow::Result<(PathBuf, File)> {
    let numbered = (2..).map(|number| format!("{name}-{number}.log"));
    for file in iter::once(format!("{name}.log")).chain(numbered) {
        let path = logs.join(file);
        match File::create_new(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            created => {
                let file = created.with_context(|| format!("creating {}", path.display()))?;
                return Ok((path, file));
            }
        }
    }
    unreachable!("the numbers do not end")
}

fn gated(command: &Command) -> Command {
    let mut gated = Command::new("/bin/sh");
    gated
        .args(["-c", GATE])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => gated.env(name, value),
            None => gated.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        gated.current_dir(dir);
    }
    gated
}
