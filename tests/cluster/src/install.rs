//! The operator, installed from its chart and run as a process on this machine.
//!
//! What Helm installs is what a cluster gets, but for the Deployment: the API server reaches the
//! webhook by URL. The process has the chart's service account and nothing else, so a permission
//! that the chart forgets is missed here.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::paths::{cargo_target_dir, workspace_dir};
use crate::process::{Process, Signal};

/// The namespace and the release: what `helm install pki-operator ... --namespace pki-operator`
/// uses.
pub const RELEASE: &str = "pki-operator";

const READY_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How the chart is installed.
#[derive(Clone, Debug)]
pub struct Install<'a> {
    /// The value `allowedNames`.
    pub allowed_names: &'a [&'a str],
    /// Where the API server reaches this machine: host or address, and port.
    pub webhook: &'a str,
    /// Further values, as in `namespaces={a,b}`.
    pub values: &'a [&'a str],
}

impl Install<'_> {
    /// Installs the chart, or brings an installation to these values.
    pub fn run(&self, mut helm: Command) -> anyhow::Result<String> {
        let helm = helm.args(self.arguments()).current_dir(workspace_dir());
        match run(helm) {
            // Helm 4 takes an old report on a CRD for the last one if they come in the wrong order.
            Err(error) if error.to_string().contains("message: Install in progress") => run(helm),
            done => done,
        }
    }

    /// The same as people type it, at the root of the workspace.
    pub fn command(&self) -> String {
        let quoted = self.arguments().into_iter().map(|argument| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,".contains(c);
            if argument.chars().all(is_plain) {
                argument
            } else {
                format!("'{argument}'")
            }
        });
        let words: Vec<_> = std::iter::once("helm".to_owned()).chain(quoted).collect();
        words.join(" ")
    }

    fn arguments(&self) -> Vec<String> {
        let Self {
            allowed_names,
            webhook,
            values,
        } = self;
        let mut arguments = vec![
            "upgrade".into(),
            "--install".into(),
            RELEASE.into(),
            "charts/pki-operator".into(),
            format!("--namespace={RELEASE}"),
            "--create-namespace".into(),
            "--set=deployment.enabled=false".into(),
            format!("--set=webhook.url=https://{webhook}"),
            format!("--set=allowedNames={{{}}}", allowed_names.join(",")),
        ];
        arguments.extend(values.iter().map(|value| format!("--set={value}")));
        arguments
    }
}

/// Writes a kubeconfig with the identity of the operator's service account.
pub fn service_account_kubeconfig(kubectl: impl Fn() -> Command, to: &Path) -> anyhow::Result<()> {
    account_kubeconfig(kubectl, RELEASE, RELEASE, to)
}

/// Writes a kubeconfig with the identity of a service account of a namespace.
pub fn account_kubeconfig(
    kubectl: impl Fn() -> Command,
    namespace: &str,
    account: &str,
    to: &Path,
) -> anyhow::Result<()> {
    let token = run(kubectl().args([
        "create",
        "token",
        account,
        "--namespace",
        namespace,
        "--duration=24h",
    ]))?;
    let view = run(kubectl().args([
        "config",
        "view",
        "--minify",
        "--raw",
        "--flatten",
        "--output=json",
    ]))?;
    let mut config: Value = serde_json::from_str(&view).context("reading the kubeconfig")?;
    let context = &mut config["contexts"][0]["context"];
    context["user"] = json!(account);
    context["namespace"] = json!(namespace);
    config["users"] = json!([{ "name": account, "user": { "token": token.trim() } }]);
    fs::write(to, config.to_string()).with_context(|| format!("writing {}", to.display()))
}

/// A replica of the operator.
pub struct Operator {
    /// Its process.
    pub process: Process,
    /// Where it answers admission.
    pub webhook: SocketAddr,
    /// Where it serves health and metrics.
    pub metrics: SocketAddr,
}

/// How a replica is started.
#[derive(Clone, Debug)]
pub struct Replica<'a> {
    /// The binary `pki-operator`.
    pub binary: &'a Path,
    /// The kubeconfig of the service account.
    pub kubeconfig: &'a Path,
    /// A name unlike that of any other replica.
    pub identity: &'a str,
    /// Where it answers admission.
    pub webhook: SocketAddr,
    /// The host by which the API server reaches it.
    pub host: &'a str,
    /// Further flags.
    pub flags: &'a [&'a str],
}

impl Replica<'_> {
    /// Starts it with `spawn` and waits until it is ready.
    pub fn start(
        &self,
        spawn: impl FnOnce(&str, &Command) -> anyhow::Result<Process>,
    ) -> anyhow::Result<Operator> {
        let operator = self.launch(spawn)?;
        operator.wait_until_ready()?;
        Ok(operator)
    }

    /// Starts it with `spawn`.
    pub fn launch(
        &self,
        spawn: impl FnOnce(&str, &Command) -> anyhow::Result<Process>,
    ) -> anyhow::Result<Operator> {
        let mut metrics = free_address()?;
        // The webhook's port is free as well until this process listens there.
        while metrics == self.webhook {
            metrics = free_address()?;
        }
        let mut command = Command::new(self.binary);
        command
            .arg("run")
            .env("KUBECONFIG", self.kubeconfig)
            // As the image has it.
            .env("MALLOC_MMAP_THRESHOLD_", "131072")
            .args(["--namespace", RELEASE, "--identity", self.identity])
            .args(["--listen", &self.webhook.to_string()])
            .args(["--metrics-listen", &metrics.to_string()])
            .args(["--webhook-host", self.host, "--drain-seconds", "0"])
            .args(self.flags);
        let process = spawn(self.identity, &command)?;
        Ok(Operator {
            process,
            webhook: self.webhook,
            metrics,
        })
    }
}

impl Operator {
    fn wait_until_ready(&self) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                bail!(
                    "the operator ended ({status}):\n{}",
                    self.process.last_lines(20)
                );
            }
            let answer = self
                .get("/readyz")
                .unwrap_or_else(|error| (0, error.to_string()));
            match answer {
                (200, _) => return Ok(()),
                (_, body) if begin.elapsed() > READY_LIMIT => {
                    bail!(
                        "the operator is not ready: {body}\n{}",
                        self.process.last_lines(20)
                    )
                }
                _ => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Stops it by SIGTERM, so that the next one leads at once.
    pub fn stop(self) -> anyhow::Result<()> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(STOP_LIMIT).map(drop)
    }

    /// Status and body of a GET of `/livez`, `/readyz` or `/metrics`.
    pub fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        get(self.metrics, path)
    }
}

/// Status and body of a GET by plain HTTP.
pub fn get(server: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.context("no HTTP status")?, body.to_owned()))
}

/// How the operator is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quickly.
    Dev,
    /// To be quick.
    Release,
}

/// The operator's binary as Cargo builds it, built if need be.
pub fn build_operator(profile: Profile) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(workspace_dir());
    build.args([
        "build",
        "--quiet",
        "--locked",
        "--package",
        "pki-operator",
        "--bin",
        "pki-operator",
    ]);
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => {
            build.arg("--release");
            "release"
        }
    };
    let status = build.status().context("starting cargo")?;
    if !status.success() {
        bail!("cargo could not build the operator");
    }
    Ok(cargo_target_dir().join(folder).join("pki-operator"))
}

/// A loopback address with a port that is free at this moment.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// Runs it to its end: its standard output, or an error that quotes its standard error.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("starting {name}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed ({}):\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
