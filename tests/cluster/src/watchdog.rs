//! The process that cleans up after a cluster, however its owner ends: see `watchdog.sh`.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;

/// A running watchdog. Dropping it closes its pipe, and so has the same effect as our own end.
pub(crate) struct Watchdog {
    process: Mutex<Child>,
    pipe: Mutex<Option<ChildStdin>>,
}

impl Watchdog {
    /// Starts the watchdog of `dir`; it writes what it cannot clean up into `log`.
    pub(crate) fn start(dir: &Path, log: &Path) -> anyhow::Result<Self> {
        let log = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let mut process = Command::new("/bin/sh")
            .args(["-c", include_str!("watchdog.sh"), "cluster-watchdog"])
            .arg(dir)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // In a group of its own, so that the terminal's Ctrl-C ends us but not the watchdog.
            .process_group(0)
            .spawn()
            .context("starting the watchdog (/bin/sh)")?;
        let pipe = process.stdin.take();
        Ok(Self {
            process: Mutex::new(process),
            pipe: Mutex::new(pipe),
        })
    }

    /// From now on `pid`, which leads a process group, is ended with the cluster.
    pub(crate) fn started(&self, pid: u32) -> anyhow::Result<()> {
        self.tell(&format!("started {pid}"))
    }

    /// `pid` has been waited for, so the number must not be signalled any more.
    pub(crate) fn ended(&self, pid: u32) -> anyhow::Result<()> {
        self.tell(&format!("ended {pid}"))
    }

    /// `command` is run after the last process has ended, before those announced earlier.
    pub(crate) fn undo(&self, command: &str) -> anyhow::Result<()> {
        self.tell(&format!("undo {command}"))
    }

    /// Closes the pipe: the watchdog begins to clean up.
    pub(crate) fn release(&self) {
        self.pipe
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// How the watchdog ended, if it did.
    pub(crate) fn try_wait(&self) -> anyhow::Result<Option<ExitStatus>> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.try_wait().context("waiting for the watchdog")
    }

    fn tell(&self, line: &str) -> anyhow::Result<()> {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = pipe.as_mut().context("the cluster has been stopped")?;
        // One write: the watchdog never sees half a line, even if we end right now.
        pipe.write_all(format!("{line}\n").as_bytes())
            .context("telling the watchdog")
    }
}
