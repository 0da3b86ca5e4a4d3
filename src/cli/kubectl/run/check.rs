//! Reads the files and the policies of a check, and prints what is found.

use super::{PluginError, Verdict, note, print};
use crate::cli::kubectl::check::{self, CheckReport, CheckSettings};
use crate::cli::kubectl::cli::{Check, PolicyTest};
use crate::cli::kubectl::finding::Answer;
use crate::cli::kubectl::manifests::{self, Manifest, Manifests};
use crate::cli::kubectl::policies::{PolicyFiles, rule_book};
use crate::cli::kubectl::policy_test::{self, Table};
use crate::cli::kubectl::schema::ManifestKind;
use crate::cli::kubectl::sources::{self, Source};
use crate::cli::kubectl::{dry_run, output};
use crate::k8s::client::{self, Access, Cluster};
use crate::policy::{Namespaces, RuleBook};
use crate::util::text;
use jiff::Timestamp;
use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) async fn check(access: &Access, arguments: &Check) -> Result<Verdict, PluginError> {
    let mut files = parse(&sources::read(&arguments.filename, arguments.recursive)?);
    let is_empty = |file: &Manifests| {
        file.objects.is_empty() && file.faults.is_empty() && file.others.is_empty()
    };
    if files.iter().all(is_empty) {
        let names = arguments.filename.iter();
        let names: Vec<_> = names.map(|path| path.display().to_string()).collect();
        return Err(PluginError::Nothing(names.join(", ")));
    }
    let policies = PolicyFiles::parse(&sources::read(&arguments.policy, arguments.recursive)?);
    let has = |kind| objects(&files).any(|manifest| manifest.kind == kind);
    let is_offline =
        !arguments.policy.is_empty() || has(ManifestKind::PkiPolicy) || !has(ManifestKind::Pki);
    files.extend(policies.manifests);
    let settings = arguments.installation.settings();
    let offline = rule_book(settings, &files, &policies.allowed_names);
    let (rules, answers, namespace) = if is_offline {
        let namespace = access.namespace.clone();
        (offline, None, namespace.unwrap_or("default".to_owned()))
    } else {
        let cluster = access.connect().await.map_err(PluginError::Policies)?;
        match live(&cluster, &offline, &files).await {
            Ok(rules) => (rules, None, cluster.namespace),
            Err(error) if error.is_forbidden() => {
                let answers = ask(&cluster, &files, error).await?;
                (offline, Some(answers), cluster.namespace)
            }
            Err(error) => return Err(PluginError::Policies(error)),
        }
    };
    let settings = CheckSettings {
        rules: &rules,
        answers: answers.as_deref(),
        namespace: &namespace,
        now: Timestamp::now(),
    };
    let mut progress = Progress::new(objects(&files).count());
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

fn objects(files: &[Manifests]) -> impl Iterator<Item = &Manifest> {
    files.iter().flat_map(|file| &file.objects)
}

/// Asks the API server about each Pki, because the policies cannot be read.
async fn ask(
    cluster: &Cluster,
    files: &[Manifests],
    policies: client::ClientError,
) -> Result<Vec<Answer>, PluginError> {
    match dry_run::ask(cluster, files).await {
        Ok(answers) => {
            note("You may not read the policies: the API server judged each Pki in a dry run.");
            Ok(answers)
        }
        Err(dry_run) if dry_run.is_forbidden() => Err(PluginError::Neither(policies, dry_run)),
        Err(error) => Err(PluginError::Cluster(error)),
    }
}

/// The rule book of the cluster. Labels in the files, which may be about to be applied, go first.
async fn live(
    cluster: &Cluster,
    offline: &RuleBook,
    files: &[Manifests],
) -> Result<RuleBook, client::ClientError> {
    let policies = cluster.policies().await?;
    let rules = RuleBook::new(offline.settings.clone(), &policies);
    let mut namespaces = Namespaces::clone(&offline.namespaces());
    if rules.reads_labels() {
        for manifest in objects(files) {
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

fn print_report(report: &CheckReport, arguments: &Check) -> Result<Verdict, PluginError> {
    print(&output::render(report, arguments.output))?;
    note(&output::summary(report));
    let is_good = report.violations() == 0;
    Ok(if is_good { Verdict::Good } else { Verdict::Bad })
}

/// Runs the tables of cases.
pub(super) fn test_policies(arguments: &PolicyTest) -> Result<Verdict, PluginError> {
    let mut verdict = Verdict::Good;
    for source in sources::read(&arguments.files, false)? {
        let table = read_table(&source)?;
        let paths = policy_paths(&source.name, &table, &arguments.policy);
        if paths.is_empty() {
            return Err(PluginError::NoPolicies(text::line(&source.name)));
        }
        let files = PolicyFiles::parse(&sources::read(&paths, false)?);
        let settings = arguments.installation.settings();
        let rules = rule_book(settings, &files.manifests, &files.allowed_names);
        let report = check_policies(&files.manifests);
        print(&output::render(&report, output::Format::Text))?;
        let outcome = policy_test::run(&source.name, &table, &rules, Timestamp::now());
        if arguments.show_values {
            print(&outcome.values)?;
        }
        print(&outcome.failures)?;
        let name = text::line(&source.name);
        note(&format!("{name}: {}", outcome.summary()));
        if outcome.failed + report.violations() > 0 {
            verdict = Verdict::Bad;
        }
    }
    Ok(verdict)
}

fn read_table(source: &Source) -> Result<Table, PluginError> {
    let text = crate::util::yaml::text(&source.bytes);
    let table = text.and_then(policy_test::parse);
    table.map_err(|error| {
        let (name, at) = (text::line(&source.name), error.at);
        PluginError::Table(format!("{name}:{at}: {}", error.message))
    })
}

/// The policies that the file of cases names, relative to it, and those of the command line.
fn policy_paths(file: &str, table: &Table, more: &[PathBuf]) -> Vec<PathBuf> {
    let directory = Path::new(file).parent().unwrap_or(Path::new(""));
    let named = table.policies.iter().map(|path| directory.join(path));
    named.chain(more.iter().cloned()).collect()
}

/// The faults of the policies themselves. Pkis beside them are not judged.
fn check_policies(files: &[Manifests]) -> CheckReport {
    let policies = files.iter().map(|file| {
        let objects = file.objects.iter();
        let policies = objects.filter(|manifest| manifest.kind == ManifestKind::PkiPolicy);
        Manifests {
            file: file.file.clone(),
            objects: policies.cloned().collect(),
            faults: file.faults.clone(),
            ..Manifests::default()
        }
    });
    let settings = CheckSettings {
        rules: &RuleBook::default(),
        answers: None,
        namespace: "",
        now: Timestamp::UNIX_EPOCH,
    };
    check::check(&policies.collect::<Vec<_>>(), &settings, || {})
}

struct Progress {
    done: usize,
    total: usize,
    is_shown: bool,
}

impl Progress {
    const MIN_OBJECTS: usize = 1000;

    fn new(total: usize) -> Self {
        let is_shown = total > Self::MIN_OBJECTS && io::stderr().is_terminal();
        Self {
            done: 0,
            total,
            is_shown,
        }
    }

    fn step(&mut self) {
        self.done += 1;
        if self.is_shown && self.done.is_multiple_of(100) {
            let _ = write!(io::stderr(), "\rchecked {} of {}", self.done, self.total);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}
