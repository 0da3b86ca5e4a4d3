//! `cargo demo`: the operator's main job on a real Kubernetes, as a story of commands.
//!
//! Each command is printed as one could type it, and run as it is printed. The demo ends with an
//! error as soon as one does not show what it should.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;
use pki_cluster::install::{self, Install, Operator, Profile, Replica};
use pki_cluster::{Cluster, Options, needs};
use shell::Shell;

mod existing;
mod shell;
mod story;

/// Show the operator's main job on a real Kubernetes: start a cluster, run the story, stop the
/// cluster.
#[derive(Parser)]
#[command(bin_name = "cargo demo", after_help = EXAMPLES)]
struct Arguments {
    /// Keep cluster and operator running at the end, until Ctrl-C. Default: stop both
    #[arg(long)]
    keep: bool,

    /// Start no node, so pods stay Pending. Default: a node, if root and its packages are there
    #[arg(long)]
    no_node: bool,

    /// Use the cluster of this kubeconfig context. Default: start a cluster
    #[arg(long, value_name = "NAME", conflicts_with = "no_node")]
    context: Option<String>,

    /// IP address by which the API server of --context reaches this machine. Default: the address
    /// of the route to the API server
    #[arg(long, value_name = "ADDRESS", requires = "context")]
    host: Option<IpAddr>,
}

const EXAMPLES: &str = "\
Examples:
  cargo demo                                          # a cluster of its own
  cargo demo --keep                                   # leave it running, for your own commands
  cargo demo --context kind-dev --host 172.18.0.1     # an existing cluster";

fn main() -> ExitCode {
    match demo(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(arguments: &Arguments) -> anyhow::Result<()> {
    let begin = Instant::now();
    needs::check(&[needs::OPENSSL])?;
    if arguments.context.is_none() {
        pki_cluster::prepare(Options::default())?;
    }
    eprintln!("Building the operator (cargo build); the first time takes some minutes.");
    let binary = install::build_operator(Profile::Dev)?;

    let (stage, has_node) = match &arguments.context {
        Some(context) => Stage::existing(context, arguments.host)?,
        None => Stage::local(arguments.no_node)?,
    };
    let shell = Shell::of(&stage.cluster)?;
    let shown = stage.show(&shell, &binary, has_node, arguments.keep);
    let took = begin.elapsed().as_secs_f32();
    let left = stage.leave(&shell);
    shown.and(left)?;
    println!("\nThe demo succeeded in {took:.0} s.");
    Ok(())
}

/// Cluster and addresses of the story.
struct Stage {
    cluster: Cluster,
    /// The demo's guests leave an existing cluster as they found it.
    is_guest: bool,
    /// Address on which the operator listens, and by which the API server reaches it.
    listen: SocketAddr,
    host: IpAddr,
}

impl Stage {
    /// A cluster of our own, with a node where that can be.
    fn local(no_node: bool) -> anyhow::Result<(Self, bool)> {
        let why_not = if no_node {
            Err(anyhow::anyhow!("--no-node"))
        } else {
            pki_cluster::check_node()
        };
        let node = why_not.is_ok();
        if let Err(why_not) = why_not {
            eprintln!("Pods stay Pending, because this cluster has no node ({why_not:#}).");
        }
        pki_cluster::prepare(Options {
            node,
            ..Options::default()
        })?;
        let begin = Instant::now();
        let cluster = Cluster::start(Options {
            node,
            ..Options::default()
        })?;
        let what = if node {
            "a control plane and a node"
        } else {
            "a control plane"
        };
        eprintln!(
            "Started a real Kubernetes, {what}, in {:.1} s.",
            begin.elapsed().as_secs_f32()
        );
        let listen = install::free_address()?;
        Ok((
            Self {
                cluster,
                is_guest: false,
                host: listen.ip(),
                listen,
            },
            node,
        ))
    }

    /// The user's cluster; it must not hold what the demo is going to make.
    fn existing(context: &str, host: Option<IpAddr>) -> anyhow::Result<(Self, bool)> {
        let cluster = Cluster::existing(context)?;
        existing::check_is_free(&cluster)?;
        let host = host.map_or_else(|| existing::own_address(&cluster), Ok)?;
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let listen = listener.local_addr()?;
        existing::leave_on_interrupt(&cluster)?;
        let has_node = existing::has_node(&cluster)?;
        let stage = Self {
            cluster,
            is_guest: true,
            listen,
            host,
        };
        Ok((stage, has_node))
    }

    /// Host and port by which the API server reaches the operator.
    fn webhook(&self) -> String {
        SocketAddr::new(self.host, self.listen.port()).to_string()
    }

    /// Installs the operator, runs it and tells the story.
    fn show(&self, shell: &Shell, binary: &Path, has_node: bool, keep: bool) -> anyhow::Result<()> {
        let install = Install {
            allowed_names: &["app1", "app2"],
            webhook: &self.webhook(),
            values: &[],
        };
        story::install(shell, &install)?;
        let operator = self.start_operator(binary)?;
        println!(
            "(pid {}; ready: the API server trusts and calls it)",
            operator.process.pid()
        );
        story::tell(shell, &install, has_node).with_context(|| {
            format!(
                "the operator's log ends with\n{}\n",
                operator.process.last_lines(20)
            )
        })?;
        if keep {
            stay(shell);
        }
        Ok(())
    }

    fn start_operator(&self, binary: &Path) -> anyhow::Result<Operator> {
        let kubeconfig = self.cluster.dir().join("operator.kubeconfig");
        install::service_account_kubeconfig(|| self.cluster.kubectl(), &kubeconfig)?;
        let replica = Replica {
            binary,
            kubeconfig: &kubeconfig,
            identity: "pki-operator",
            webhook: self.listen,
            host: &self.host.to_string(),
            flags: &[],
        };
        println!(
            "\n$ pki-operator run --listen={} --webhook-host={}  # as the chart's service account",
            self.listen, self.host
        );
        replica.start(|name, command| self.cluster.spawn(name, command))
    }

    fn leave(self, shell: &Shell) -> anyhow::Result<()> {
        if self.is_guest {
            existing::clean_up(shell);
        }
        self.cluster.stop()
    }
}

/// Waits for Ctrl-C, which ends the cluster and all that runs in it.
fn stay(shell: &Shell) -> ! {
    println!(
        "\nCluster and operator run until you press Ctrl-C. In another terminal:\n\n{}",
        shell.exports()
    );
    loop {
        thread::park();
    }
}
