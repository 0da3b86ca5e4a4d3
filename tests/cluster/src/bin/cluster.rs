//! `cargo cluster`: a local Kubernetes that stays up between commands.
//!
//! `up` starts a keeper: this program again, in its own session. The keeper owns the cluster and
//! holds a lock on `target/cluster/up.lock` while it runs. `down` ends the keeper; its watchdog
//! then cleans up, as after a crash.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use pki_cluster::{Cluster, Options, tools};
use rustix::process::{Pid, Signal, kill_process, setsid};
use serde_json::{Value, json};

/// How long the watchdog may take: it gives every process ten seconds at most.
const DOWN_LIMIT: Duration = Duration::from_secs(90);

/// Run a local Kubernetes from source, for tests by hand.
#[derive(Parser)]
#[command(bin_name = "cargo cluster", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

const EXAMPLES: &str = "\
Examples:
  cargo cluster up                  # start a control plane, without nodes
  eval \"$(cargo cluster env)\"       # select it in this shell
  kubectl get namespaces
  cargo cluster down                # stop it and remove its files";

#[derive(Subcommand)]
enum Action {
    /// Start a cluster, and print how to use it. It runs until `cargo cluster down`
    Up {
        /// Add a node that runs pods. Needs root, containerd, runc, CNI plugins and nftables
        #[arg(long)]
        node: bool,
    },
    /// Stop the cluster and remove its files, except the built programs
    Down,
    /// Print whether the cluster is up. Exit status 1 if it is down or does not answer
    Status,
    /// Print shell commands that select the cluster, for eval "$(cargo cluster env)"
    Env,
    /// Keep the cluster running (started by `up`)
    #[command(hide = true)]
    Keep {
        #[arg(long)]
        node: bool,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().action {
        Action::Up { node } => up(Options {
            node,
            ..Options::default()
        }),
        Action::Down => down(),
        Action::Status => status(),
        Action::Env => env(),
        Action::Keep { node } => keep(Options {
            node,
            ..Options::default()
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

const NOT_UP: &str = "no cluster is up: start one with `cargo cluster up`";

fn up(options: Options) -> anyhow::Result<()> {
    if let Some(record) = running()? {
        println!("The cluster is already up.\n{}", record.usage());
        return Ok(());
    }
    if let Some(crashed) = Record::read()? {
        remove_leftovers(&crashed)?;
    }
    // Here, and not in the keeper, because here is a terminal to show the progress on.
    pki_cluster::prepare(options)?;
    tools::find(tools::Program::Helm)?;

    let log = file("keeper.log");
    let mut keeper = Command::new(std::env::current_exe()?)
        .arg("keep")
        .args(options.node.then_some("--node"))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(&log).with_context(|| format!("creating {}", log.display()))?)
        .spawn()
        .context("starting the keeper")?;
    let (to_keeper, from_keeper) = (keeper.stdin.take(), keeper.stdout.take());

    let begin = Instant::now();
    let mut answer = String::new();
    BufReader::new(from_keeper.expect("standard output is piped")).read_line(&mut answer)?;
    if answer != "up\n" {
        keeper.wait()?;
        bail!("{}", fs::read_to_string(&log)?.trim_end());
    }
    to_keeper
        .expect("standard input is piped")
        .write_all(b"stay\n")?;
    let record = running()?.context("the cluster went down again")?;
    println!(
        "The cluster is up after {:.1} s.\n{}",
        begin.elapsed().as_secs_f32(),
        record.usage()
    );
    Ok(())
}

/// The keeper: `up` waits for its first line, and takes the cluster over by answering.
fn keep(options: Options) -> anyhow::Result<()> {
    // Away from the terminal: neither its Ctrl-C nor its end concern the cluster.
    setsid().context("leaving the session")?;
    let lock = lock_file()?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => bail!("another `cargo cluster up` is on its way"),
        locked => locked.context("locking")?,
    }
    let cluster = Cluster::start(options)?;
    Record::of(&cluster)?.write()?;

    if !is_taken_over()? {
        fs::remove_file(file("up.json"))?;
        cluster.stop()?;
        bail!("`cargo cluster up` was interrupted");
    }
    loop {
        thread::park();
    }
}

/// Whether `up` still lives, and leaves the cluster to the keeper.
fn is_taken_over() -> anyhow::Result<bool> {
    let mut answer = String::new();
    match writeln!(io::stdout(), "up") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
        said => said?,
    }
    io::stdin().read_line(&mut answer)?;
    Ok(answer == "stay\n")
}

fn down() -> anyhow::Result<()> {
    let Some(record) = Record::read()? else {
        println!("No cluster is up.");
        return Ok(());
    };
    if running()?.is_some() {
        kill_process(record.keeper, Signal::TERM).context("ending the keeper")?;
        if !is_removed(&record.dir, DOWN_LIMIT) {
            bail!(
                "the cluster does not stop: see {}/logs/watchdog.log",
                record.dir.display()
            );
        }
    }
    remove_leftovers(&record)?;
    println!("The cluster is down.");
    Ok(())
}

/// Removes the files of a cluster whose keeper is gone.
fn remove_leftovers(record: &Record) -> anyhow::Result<()> {
    // After a crash of the keeper its watchdog may be at work; after one of the machine there is
    // none.
    if !is_removed(&record.dir, Duration::from_secs(15)) {
        fs::remove_dir_all(&record.dir)
            .with_context(|| format!("removing {}", record.dir.display()))?;
    }
    for name in ["kubeconfig", "keeper.log", "up.json"] {
        let path = file(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.with_context(|| format!("removing {}", path.display()))?,
        }
    }
    Ok(())
}

/// Whether a watchdog has removed its folder, the last thing it does, within `limit`.
fn is_removed(dir: &Path, limit: Duration) -> bool {
    let begin = Instant::now();
    while dir.exists() {
        if begin.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
    true
}

fn status() -> anyhow::Result<()> {
    let record = running()?.context(NOT_UP)?;
    let mut readyz = Command::new(&record.kubectl);
    readyz.args(["get", "--raw=/readyz", "--request-timeout=5s"]);
    readyz
        .env("KUBECONFIG", file("kubeconfig"))
        .stdout(Stdio::null());
    if !readyz.status()?.success() {
        bail!(
            "the cluster is up, but does not work: see {}/logs",
            record.dir.display()
        );
    }
    println!("The cluster is up.\n{}", record.usage());
    Ok(())
}

fn env() -> anyhow::Result<()> {
    print!("{}", running()?.context(NOT_UP)?.shell_commands());
    Ok(())
}

/// The cluster that is up, if one is.
fn running() -> anyhow::Result<Option<Record>> {
    if !pki_cluster::target_dir().exists() {
        return Ok(None);
    }
    match lock_file()?.try_lock() {
        Err(TryLockError::WouldBlock) => Record::read(),
        locked => locked.context("locking").map(|()| None),
    }
}

/// Record of the cluster that is up: `target/cluster/up.json`.
struct Record {
    keeper: Pid,
    dir: PathBuf,
    kubectl: PathBuf,
    helm: PathBuf,
}

impl Record {
    fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        fs::copy(cluster.kubeconfig(), file("kubeconfig")).context("writing the kubeconfig")?;
        Ok(Self {
            keeper: rustix::process::getpid(),
            dir: cluster.dir().to_owned(),
            kubectl: cluster.kubectl().get_program().into(),
            helm: cluster.helm()?.get_program().into(),
        })
    }

    fn write(&self) -> anyhow::Result<()> {
        let record = json!({
            "keeper": self.keeper.as_raw_nonzero(),
            "dir": self.dir,
            "kubectl": self.kubectl,
            "helm": self.helm,
        });
        fs::write(file("up.json"), record.to_string()).context("writing up.json")
    }

    fn read() -> anyhow::Result<Option<Self>> {
        let text = match fs::read_to_string(file("up.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.context("reading up.json")?,
        };
        let record: Value = serde_json::from_str(&text).context("reading up.json")?;
        let path = |name: &str| record[name].as_str().map(PathBuf::from);
        let keeper = record["keeper"]
            .as_i64()
            .and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        let parts = (keeper, path("dir"), path("kubectl"), path("helm"));
        let (Some(keeper), Some(dir), Some(kubectl), Some(helm)) = parts else {
            bail!("{} is damaged: {text}", file("up.json").display());
        };
        Ok(Some(Self {
            keeper,
            dir,
            kubectl,
            helm,
        }))
    }

    fn usage(&self) -> String {
        format!(
            "\n  export KUBECONFIG={}\n  kubectl  {}\n  helm     {}\n\n\
             Or, for this shell: eval \"$(cargo cluster env)\"\n\
             Stop it with: cargo cluster down",
            quoted(&file("kubeconfig")),
            self.kubectl.display(),
            self.helm.display(),
        )
    }

    fn shell_commands(&self) -> String {
        let programs = [&self.kubectl, &self.helm].map(|program| {
            let folder = program.parent().expect("a program is in a folder");
            quoted(folder)
        });
        format!(
            "export KUBECONFIG={}\nexport KUBECACHEDIR={}\nexport PATH={}:\"$PATH\"\n",
            quoted(&file("kubeconfig")),
            quoted(&self.dir.join("kubectl")),
            programs.join(":"),
        )
    }
}

fn lock_file() -> anyhow::Result<File> {
    let path = file("up.lock");
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    options
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))
}

fn file(name: &str) -> PathBuf {
    pki_cluster::target_dir().join(name)
}

/// The path as one word of a shell command.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
