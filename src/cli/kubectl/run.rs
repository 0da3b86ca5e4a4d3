//! Runs a command of `kubectl pki`: what reads, asks and prints around the pure parts.

use super::cli::{Explain, Inspect, ListFormat, PluginCli, PluginCommand, Policy, Renew, Status};
use super::sources::{self, SourceError};
use super::{completion, explain, inspect, renew, status};
use crate::api::Pki;
use crate::k8s::client::{self, Access, Cluster};
use crate::k8s::object_key::Key;
use crate::k8s::tolerant::Lenient;
use crate::model::ca_state::REPORT;
use crate::model::rollout::RolloutReport;
use crate::util::text::printable;
use clap::CommandFactory;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::core::DeserializeGuard;
use std::io::{self, Write};
use std::path::PathBuf;

mod check;

/// The `ConfigMap` that tells of the CA, by its default name.
const LEDGER: &str = "pki-operator-ca";

/// How a command ended, if it could be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be: exit status 0.
    Good,
    /// Something is refused, or did not come about: exit status 1.
    Bad,
}

/// Why a command could not be run: exit status 2.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// A file.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Files in which there is nothing to judge.
    #[error("there is no Pki and no PkiPolicy in {0}: name files that have some with -f")]
    Nothing(String),
    /// A file of cases that cannot be read.
    #[error("{place}: {message}")]
    Table {
        /// File, line and column.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// Cases without policies.
    #[error(
        "{0} names no policies: write a list of files as `policies` in it, or name them with --policy"
    )]
    NoPolicies(String),
    /// No policies.
    #[error(
        "the policies of the cluster cannot be read: {0}; name files with policies by --policy, and no cluster is asked"
    )]
    Policies(#[source] client::ClientError),
    /// Neither policies nor a dry run.
    #[error(
        "nothing can be judged: {policies}; and {dry_run}; ask for the role edit in the namespace, or name files with policies by \
         --policy, and no cluster is asked"
    )]
    Neither {
        /// Why the policies cannot be read.
        policies: client::ClientError,
        /// Why the API server cannot be asked.
        dry_run: client::ClientError,
    },
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] client::ClientError),
    /// Nobody reads what is printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Runs what the command line says.
pub async fn run(cli: PluginCli) -> Result<Verdict, PluginError> {
    let access = &cli.access;
    match &cli.command {
        PluginCommand::Check(arguments) => check::check(access, arguments).await,
        PluginCommand::Policy(Policy::Test(arguments)) => check::test_policies(arguments),
        PluginCommand::Explain(arguments) => explain(&access.connect().await?, arguments).await,
        PluginCommand::Status(arguments) => status(&access.connect().await?, arguments).await,
        PluginCommand::Renew(arguments) => renew(&access.connect().await?, arguments).await,
        PluginCommand::Inspect(arguments) => inspect(access, arguments).await,
        PluginCommand::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(
                *shell,
                &mut PluginCli::command(),
                "kubectl-pki",
                &mut script,
            );
            // clap_complete takes the dash in the name for a subcommand in some places and not in
            // others.
            let script = String::from_utf8_lossy(&script);
            print(&script.replace("kubectl__subcmd__pki__subcmd__", "kubectl__pki__subcmd__"))
        }
        PluginCommand::Complete { words } => {
            print(&completion::answer(&PluginCli::command(), words))
        }
    }
}

async fn explain(cluster: &Cluster, arguments: &Explain) -> Result<Verdict, PluginError> {
    let settings = arguments.installation.settings();
    let facts = explain::ask::facts(cluster, bare(&arguments.name), settings).await?;
    print(&explain::page(&facts, Timestamp::now()))?;
    Ok(match facts.pki {
        Some(_) => Verdict::Good,
        None => Verdict::Bad,
    })
}

/// The name of a Pki, which kubectl also writes as `pki/NAME`.
fn bare(name: &str) -> &str {
    let kinds = ["pki/", "pkis/", "pki.box.com/", "pkis.box.com/"];
    kinds
        .iter()
        .find_map(|kind| name.strip_prefix(kind))
        .unwrap_or(name)
}

async fn status(cluster: &Cluster, arguments: &Status) -> Result<Verdict, PluginError> {
    let namespace = Some(cluster.namespace.as_str()).filter(|_| !arguments.all_namespaces);
    let pkis = pkis(cluster, namespace).await?;
    let rows = status::rows(&pkis);
    match arguments.output {
        ListFormat::Json => print(&status::json(&rows)),
        ListFormat::Text => {
            let now = Timestamp::now();
            if rows.is_empty() {
                let place = namespace.map_or_else(String::new, |it| format!(" in namespace {it}"));
                tell(&format!("There are no Pkis{place}."));
            } else {
                print(&status::table(&rows, now))?;
            }
            let report = rotation(cluster, &arguments.operator_namespace).await;
            report.map_or(Ok(Verdict::Good), |report| {
                print(&status::rotation(&report, now))
            })
        }
    }
}

/// Reads the summary of a rotation of the CA, if one is under way and the caller may read it.
async fn rotation(cluster: &Cluster, namespace: &str) -> Option<RolloutReport> {
    let maps = Api::<ConfigMap>::namespaced(cluster.client.clone(), namespace);
    let map = maps.get_opt(LEDGER).await.ok()??;
    let report = map.data?.remove(REPORT)?;
    serde_json::from_str(&report).ok()
}

/// The Pkis of a namespace, or of all. Those that cannot be read are told of.
async fn pkis(cluster: &Cluster, namespace: Option<&str>) -> Result<Vec<Pki>, PluginError> {
    let stored: Vec<DeserializeGuard<Lenient<Pki>>> = cluster.list("pkis", namespace, "").await?;
    let mut pkis = Vec::new();
    for stored in stored {
        let key = Key::of(&stored);
        match stored.0 {
            Ok(Lenient(pki)) => pkis.push(pki),
            Err(_) => tell(&format!(
                "Pki {} cannot be read: apply it again",
                printable(&key.to_string())
            )),
        }
    }
    Ok(pkis)
}

async fn renew(cluster: &Cluster, arguments: &Renew) -> Result<Verdict, PluginError> {
    let pkis = if arguments.all {
        pkis(cluster, Some(&cluster.namespace)).await?
    } else {
        let mut named = Vec::new();
        for name in arguments.names.iter().map(|name| bare(name)) {
            named.push(pki(cluster, name).await?);
        }
        named
    };
    let patience = arguments.wait.then_some(arguments.timeout);
    let mut printed = Ok(Verdict::Good);
    let say = |line: &str| {
        let now = print(&format!("{line}\n"));
        if printed.is_ok() {
            printed = now;
        }
    };
    let are_all = renew::renew(cluster, pkis, patience, say).await?;
    printed?;
    Ok(if are_all { Verdict::Good } else { Verdict::Bad })
}

async fn pki(cluster: &Cluster, name: &str) -> Result<Pki, PluginError> {
    let found = cluster.namespaced::<Lenient<Pki>>().get(name).await;
    let Lenient(pki) = found.map_err(|error| client::ClientError::of("get pkis", error))?;
    Ok(pki)
}

async fn inspect(access: &Access, arguments: &Inspect) -> Result<Verdict, PluginError> {
    let now = Timestamp::now();
    let inspection = match arguments.what.split_once('/') {
        Some(("secret" | "secrets", name)) => {
            let cluster = access.connect().await?;
            inspect::secret(&secret(&cluster, name).await?, now)
        }
        Some(("pki" | "pkis", name)) => {
            let cluster = access.connect().await?;
            let pki = pki(&cluster, name).await?;
            inspect::secret(&secret(&cluster, pki.secret_name()).await?, now)
        }
        _ => {
            let path = PathBuf::from(&arguments.what);
            let sources = sources::read(&[path], false)?;
            let source = sources
                .first()
                .ok_or_else(|| PluginError::Nothing(arguments.what.clone()))?;
            inspect::pem(&source.name, &source.bytes, now)
        }
    };
    print(&inspect::render(&inspection, now))
}

async fn secret(cluster: &Cluster, name: &str) -> Result<Secret, PluginError> {
    let found = cluster.namespaced::<Lenient<Secret>>().get(name).await;
    let Lenient(secret) = found.map_err(|error| client::ClientError::of("get secrets", error))?;
    Ok(secret)
}

/// Prints to standard output: with colours only to a terminal, and only if `NO_COLOR` is not set.
fn print(text: &str) -> Result<Verdict, PluginError> {
    let mut stdout = anstream::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // Whoever read it, `head` say, has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Verdict::Good),
    }
}

/// Says something beside what is printed. It is no harm if nobody reads it.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
