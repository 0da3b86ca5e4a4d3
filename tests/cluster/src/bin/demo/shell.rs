//! Commands as people type them: printed, run by `sh`, and their output printed as it is.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use pki_cluster::{Cluster, workspace_dir};

/// How long something may take that takes a second or two.
const PATIENCE: Duration = Duration::from_secs(90);

/// A shell in which `kubectl` and `helm` are those of the cluster, and talk to it.
#[derive(Clone)]
pub(crate) struct Shell {
    environment: BTreeMap<OsString, OsString>,
}

/// What a command printed, and whether it succeeded.
pub(crate) struct Shown {
    pub(crate) text: String,
    pub(crate) success: bool,
}

impl Shell {
    pub(crate) fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let programs = [cluster.kubectl(), cluster.helm()?];
        let mut environment = BTreeMap::new();
        let mut path = Vec::new();
        for program in &programs {
            path.extend(
                std::path::Path::new(program.get_program())
                    .parent()
                    .map(ToOwned::to_owned),
            );
            let set = program
                .get_envs()
                .filter_map(|(name, value)| Some((name.into(), value?.into())));
            environment.extend(set);
        }
        path.extend(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ));
        environment.insert("PATH".into(), std::env::join_paths(path).context("PATH")?);
        Ok(Self { environment })
    }

    /// Prints a command, runs it and prints what it says.
    pub(crate) fn run(&self, command: &str) -> anyhow::Result<Shown> {
        print_command(command);
        let shown = self.capture(command)?;
        print!("{}", shown.text);
        io::stdout().flush()?;
        Ok(shown)
    }

    /// [`run`](Self::run), for a command that must succeed.
    pub(crate) fn must(&self, command: &str) -> anyhow::Result<String> {
        let shown = self.run(command)?;
        if !shown.success {
            bail!("`{command}` should have succeeded");
        }
        Ok(shown.text)
    }

    /// Waits until a command prints something that `holds`, then shows that run of it.
    pub(crate) fn until(
        &self,
        command: &str,
        what: &str,
        holds: impl Fn(&str) -> bool,
    ) -> anyhow::Result<String> {
        let shown = self.wait_for(command, what, |shown| holds(&shown.text))?;
        print_command(command);
        print!("{}", shown.text);
        io::stdout().flush()?;
        Ok(shown.text)
    }

    /// Waits for a result that `holds`, without a word unless it never comes.
    pub(crate) fn wait_for(
        &self,
        command: &str,
        what: &str,
        holds: impl Fn(&Shown) -> bool,
    ) -> anyhow::Result<Shown> {
        let begin = Instant::now();
        loop {
            let shown = self.capture(command)?;
            if holds(&shown) {
                return Ok(shown);
            }
            if begin.elapsed() > PATIENCE {
                bail!(
                    "`{command}` should have shown {what} within {PATIENCE:?}, but shows\n{}",
                    shown.text
                );
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Runs a command without a word.
    fn capture(&self, command: &str) -> anyhow::Result<Shown> {
        let output = Command::new("/bin/sh")
            .args(["-c", &format!("exec 2>&1\n{command}")])
            .current_dir(workspace_dir())
            .envs(&self.environment)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting `{command}`"))?;
        Ok(Shown {
            text: String::from_utf8_lossy(&output.stdout).into_owned(),
            success: output.status.success(),
        })
    }

    /// What to type to get such a shell.
    pub(crate) fn exports(&self) -> String {
        let export = |(name, value): (&OsString, &OsString)| {
            format!("  export {}='{}'\n", name.display(), value.display())
        };
        self.environment
            .iter()
            .filter(|(name, _)| *name != "HELM_DATA_HOME")
            .map(export)
            .collect()
    }
}

fn print_command(command: &str) {
    println!("\n$ {command}");
}
