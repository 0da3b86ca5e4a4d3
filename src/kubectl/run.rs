//! Runs a command of `kubectl pki`: what reads, asks and prints around the pure parts.

use super::check::{self, Report, Settings};
use super::cli::{Check, Cli, Command};
use super::cluster::{self, Access, Cluster};
use super::manifests::{self, Manifests};
use super::policies::{PolicyFiles, rule_book};
use super::sources::{self, Source, SourceError};
use super::{output, schema};
use crate::policy::{Namespaces, RuleBook};
use jiff::Timestamp;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

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
pub enum Error {
    /// A file.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Files in which there is nothing to judge.
    #[error("there is no Pki and no PkiPolicy in {0}: name files that have some with -f")]
    Nothing(String),
    /// No policies.
    #[error(
        "the policies of the cluster cannot be read: {0}; name files with policies by --policy, and no cluster is asked"
    )]
    Policies(#[source] cluster::Error),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// Nobody reads what is printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Runs what the command line says.
pub async fn run(cli: Cli) -> Result<Verdict, Error> {
    match &cli.command {
        Command::Check(arguments) => check(&cli.access, arguments).await,
    }
}

async fn check(access: &Access, arguments: &Check) -> Result<Verdict, Error> {
    let mut files = parse(&sources::read(&arguments.filename, arguments.recursive)?);
    if files
        .iter()
        .all(|file| file.objects.is_empty() && file.faults.is_empty())
    {
        let names: Vec<_> = arguments
            .filename
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        return Err(Error::Nothing(names.join(", ")));
    }
    let policies = PolicyFiles::parse(&sources::read(&arguments.policy, arguments.recursive)?);
    let is_offline = !arguments.policy.is_empty() || has_policies(&files);
    files.extend(policies.manifests);
    let settings = arguments.installation.settings();
    let offline = rule_book(settings, &files, &policies.allowed_names);
    let namespace = access.namespace.clone();
    let (rules, namespace) = if is_offline {
        (offline, namespace.unwrap_or_else(|| "default".to_owned()))
    } else {
        let cluster = access.connect().await.map_err(Error::Policies)?;
        (live(&cluster, &offline, &files).await?, cluster.namespace)
    };
    let settings = Settings {
        rules: &rules,
        namespace: &namespace,
        now: Timestamp::now(),
    };
    let total = files.iter().map(|file| file.objects.len()).sum();
    let mut progress = Progress::new(total);
    let report = check::check(&files, &settings, || progress.step());
    drop(progress);
    print_report(&report, arguments)
}

fn parse(sources: &[Source]) -> Vec<Manifests> {
    let files = sources.iter();
    files
        .map(|source| manifests::parse(&source.name, &source.bytes))
        .collect()
}

fn has_policies(files: &[Manifests]) -> bool {
    let mut objects = files.iter().flat_map(|file| &file.objects);
    objects.any(|manifest| manifest.kind == schema::Kind::PkiPolicy)
}

/// The rule book of the cluster. Labels in the files go before those of the cluster: they may be about to be applied.
async fn live(
    cluster: &Cluster,
    offline: &RuleBook,
    files: &[Manifests],
) -> Result<RuleBook, Error> {
    let policies = cluster.policies().await.map_err(Error::Policies)?;
    let rules = RuleBook::new(offline.settings.clone(), &policies);
    let mut namespaces = Namespaces::clone(&offline.namespaces());
    if rules.reads_labels() {
        let objects = files.iter().flat_map(|file| &file.objects);
        for manifest in objects {
            let namespace = manifest.namespace(&cluster.namespace);
            if !namespaces.contains_key(namespace)
                && let Ok(labels) = cluster.labels(namespace).await
            {
                namespaces.insert(namespace.to_owned(), labels);
            }
        }
    }
    Ok(rules.with_namespaces(Arc::new(namespaces)))
}

fn print_report(report: &Report, arguments: &Check) -> Result<Verdict, Error> {
    print(&output::render(report, arguments.output))?;
    eprintln!("{}", output::summary(report));
    Ok(match report.violations() {
        0 => Verdict::Good,
        _ => Verdict::Bad,
    })
}

/// Prints to standard output: with colours only to a terminal, and only if `NO_COLOR` is not set.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // Whoever read it, `head` say, has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Tells a person who waits how far it is.
struct Progress {
    done: usize,
    total: usize,
    is_shown: bool,
}

impl Progress {
    const LONG: usize = 1000;

    fn new(total: usize) -> Self {
        let is_shown = total > Self::LONG && io::stderr().is_terminal();
        Self {
            done: 0,
            total,
            is_shown,
        }
    }

    fn step(&mut self) {
        self.done += 1;
        if self.is_shown && self.done.is_multiple_of(100) {
            eprint!("\rchecked {} of {}", self.done, self.total);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            eprint!("\r\u{1b}[K");
        }
    }
}
