//! Runs a command of `kubectl pki`: the I/O around the pure parts.

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
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::io::{self, Write};
use std::path::PathBuf;

mod check;

/// The default name of the `ConfigMap` with the state of the CA.
const CA_CONFIG_MAP: &str = "pki-operator-ca";

/// How a command ended, if it could be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is in order: exit status 0.
    Good,
    /// Something is refused or not done: exit status 1.
    Bad,
}

/// Why a command could not be run: exit status 2.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// A file cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Files without anything to judge.
    #[error("there is no Pki and no PkiPolicy in {0}: name files that have some with -f")]
    Nothing(String),
    /// A file of cases that cannot be read.
    #[error("{0}")]
    Table(String),
    /// Cases without policies.
    #[error(
        "{0} names no policies: write a list of files as `policies` in it, or name them with --policy"
    )]
    NoPolicies(String),
    /// Policies that cannot be read.
    #[error(
        "the policies of the cluster cannot be read: {0}; name files with policies by --policy, which needs no cluster"
    )]
    Policies(#[source] client::ClientError),
    /// Neither the policies nor a dry run.
    #[error(
        "nothing can be judged: {0}; and {1}; ask for the role edit in the namespace, or name files with policies by \
         --policy, which needs no cluster"
    )]
    Neither(client::ClientError, client::ClientError),
    /// The cluster cannot be asked.
    #[error(transparent)]
    Cluster(#[from] client::ClientError),
    /// Standard output cannot be written.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Runs a command line.
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
            let (mut command, mut script) = (PluginCli::command(), Vec::new());
            clap_complete::generate(*shell, &mut command, "kubectl-pki", &mut script);
            // clap_complete takes the dash in the name for a subcommand in some places only.
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
    let mut kinds = ["pki/", "pkis/", "pki.box.com/", "pkis.box.com/"].into_iter();
    let bare = kinds.find_map(|kind| name.strip_prefix(kind));
    bare.unwrap_or(name)
}

async fn status(cluster: &Cluster, arguments: &Status) -> Result<Verdict, PluginError> {
    let namespace = Some(cluster.namespace.as_str()).filter(|_| !arguments.all_namespaces);
    let pkis = pkis(cluster, namespace).await?;
    let rows = status::rows(&pkis);
    if arguments.output == ListFormat::Json {
        return print(&status::json(&rows));
    }
    let now = Timestamp::now();
    if rows.is_empty() {
        let place = namespace.map_or_else(String::new, |it| format!(" in namespace {it}"));
        note(&format!("There are no Pkis{place}."));
    } else {
        print(&status::table(&rows, now))?;
    }
    if let Some(report) = rotation(cluster, &arguments.operator_namespace).await {
        print(&status::rotation(&report, now))?;
    }
    Ok(Verdict::Good)
}

/// Reads the summary of a rotation of the CA, if one is under way and the caller may read it.
async fn rotation(cluster: &Cluster, namespace: &str) -> Option<RolloutReport> {
    let maps = Api::<ConfigMap>::namespaced(cluster.client.clone(), namespace);
    let map = maps.get_opt(CA_CONFIG_MAP).await.ok()??;
    let report = map.data?.remove(REPORT)?;
    serde_json::from_str(&report).ok()
}

/// The Pkis of a namespace, or of all, with a note about those that cannot be read.
async fn pkis(cluster: &Cluster, namespace: Option<&str>) -> Result<Vec<Pki>, PluginError> {
    let stored: Vec<DeserializeGuard<Lenient<Pki>>> = cluster.list("pkis", namespace, "").await?;
    let mut pkis = Vec::new();
    for stored in stored {
        let key = Key::of(&stored);
        if let Ok(Lenient(pki)) = stored.0 {
            pkis.push(pki);
        } else {
            let key = printable(&key.to_string());
            note(&format!("Pki {key} cannot be read: apply it again"));
        }
    }
    Ok(pkis)
}

async fn renew(cluster: &Cluster, arguments: &Renew) -> Result<Verdict, PluginError> {
    let mut pkis = if arguments.all {
        pkis(cluster, Some(&cluster.namespace)).await?
    } else {
        Vec::new()
    };
    for name in &arguments.names {
        pkis.push(get(cluster, "get pkis", bare(name)).await?);
    }
    let timeout = arguments.wait.then_some(arguments.timeout);
    let mut printed = Ok(Verdict::Good);
    let on_line = |line: &str| {
        let now = print(&format!("{line}\n"));
        if printed.is_ok() {
            printed = now;
        }
    };
    let are_all = renew::renew(cluster, pkis, timeout, on_line).await?;
    printed?;
    Ok(if are_all { Verdict::Good } else { Verdict::Bad })
}

/// Gets an object in the namespace of the caller. `what` is the request, for an error.
async fn get<K>(cluster: &Cluster, what: &str, name: &str) -> Result<K, PluginError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + Debug + DeserializeOwned,
{
    let found = cluster.namespaced::<Lenient<K>>().get(name).await;
    let Lenient(object) = found.map_err(|error| client::ClientError::of(what, error))?;
    Ok(object)
}

async fn inspect(access: &Access, arguments: &Inspect) -> Result<Verdict, PluginError> {
    let now = Timestamp::now();
    let object = arguments.what.split_once('/');
    let object = object.filter(|(kind, _)| ["secret", "secrets", "pki", "pkis"].contains(kind));
    let inspection = if let Some((kind, name)) = object {
        let cluster = access.connect().await?;
        let mut name = name.to_owned();
        if kind.starts_with("pki") {
            let pki: Pki = get(&cluster, "get pkis", &name).await?;
            pki.secret_name().clone_into(&mut name);
        }
        let secret: Secret = get(&cluster, "get secrets", &name).await?;
        inspect::secret(&secret, now)
    } else {
        let sources = sources::read(&[PathBuf::from(&arguments.what)], false)?;
        let nothing = || PluginError::Nothing(arguments.what.clone());
        let source = sources.first().ok_or_else(nothing)?;
        inspect::pem(&source.name, &source.bytes, now)
    };
    print(&inspect::render(&inspection, now))
}

/// Prints to standard output: with colours only to a terminal, and only if `NO_COLOR` is not set.
fn print(text: &str) -> Result<Verdict, PluginError> {
    let mut stdout = anstream::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    match written.and_then(|()| stdout.flush()) {
        // The reader, such as `head`, has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Verdict::Good),
    }
}

/// Prints a note to standard error, if possible.
fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
