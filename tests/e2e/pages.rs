//! Every command and every example of the pages holds on the node: what people copy is what runs.

mod elsewhere;
mod examples;
mod output;
mod platform;
mod teams;
mod walk;

use crate::node::node;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use walk::{Walk, World};

/// Runs the commands of a page, each after what it presumes was brought about.
type Script = fn(&mut Walk<'_>);

/// The state in which a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Nothing is installed.
    Empty,
    /// Two replicas are ready, and the policy permits app1 and app2 to all namespaces.
    Installed,
    /// The operator is installed, with all that the pages before have changed and made.
    Used,
    /// The page has no commands for the node.
    Any,
}

/// All pages, in the order in which they run.
const PAGES: &[(&str, Start, Script)] = &[
    ("README.md", Start::Empty, teams::readme),
    ("CONTRIBUTING.md", Start::Any, |_| ()),
    (
        "src/guide/application-teams.md",
        Start::Installed,
        teams::application_teams,
    ),
    (
        "src/guide/pod-certificates.md",
        Start::Installed,
        teams::pod_certificates,
    ),
    ("src/guide/errors.md", Start::Installed, teams::errors),
    (
        "src/guide/common-refusals.md",
        Start::Used,
        teams::common_refusals,
    ),
    ("src/guide/index.md", Start::Used, teams::index),
    ("src/guide/gitops.md", Start::Installed, teams::gitops),
    (
        "src/guide/kubectl-pki.md",
        Start::Installed,
        teams::kubectl_pki,
    ),
    ("src/guide/trust.md", Start::Used, teams::trust),
    (
        "src/guide/policies.md",
        Start::Installed,
        platform::policies,
    ),
    (
        "src/guide/policies-by-example.md",
        Start::Used,
        platform::by_example,
    ),
    (
        "src/guide/policy-rules.md",
        Start::Used,
        platform::policy_rules,
    ),
    ("src/guide/security-teams.md", Start::Used, |_| ()),
    ("src/guide/performance.md", Start::Any, |_| ()),
    ("src/guide/operations.md", Start::Used, platform::operations),
    ("src/guide/monitoring.md", Start::Used, platform::monitoring),
    ("src/guide/network.md", Start::Used, platform::network),
    (
        "src/guide/backup-and-restore.md",
        Start::Installed,
        platform::backup,
    ),
    ("src/guide/ca.md", Start::Used, platform::ca),
    (
        "charts/pki-operator/README.md",
        Start::Empty,
        platform::chart,
    ),
    (
        "src/guide/a-key-was-stolen.md",
        Start::Installed,
        platform::stolen,
    ),
    ("src/guide/install.md", Start::Empty, platform::install),
];

/// Some pages alone: those whose name contains a word of this variable, between commas.
const FILTER: &str = "PKI_PAGES";

#[test]
#[ignore = "needs root and packages: cargo test --test e2e -- --ignored"]
fn every_command_of_the_pages_does_what_the_page_shows() {
    let node = node();
    let world = World::new(&node);
    let filter = std::env::var(FILTER).unwrap_or_default();
    let is_wanted = |name: &str| filter.split(',').any(|part| name.contains(part));
    let mut failed = Vec::new();
    for (name, start, script) in PAGES.iter().filter(|(name, ..)| is_wanted(name)) {
        let begin = Instant::now();
        // The pages after one that fails are run as well.
        let walked = catch_unwind(AssertUnwindSafe(|| {
            match start {
                Start::Empty => world.empty(),
                Start::Installed => world.cleaned(),
                Start::Used => world.used(),
                Start::Any => (),
            }
            let mut walk = Walk::new(&world, name);
            script(&mut walk);
            walk.rest();
            examples::read(&mut walk);
            walk.finish();
        }));
        println!("{name}: {:.1} s", begin.elapsed().as_secs_f32());
        if walked.is_err() {
            failed.push(name);
        }
    }
    world.empty();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn each_page_is_run() {
    let mut run: Vec<_> = PAGES.iter().map(|(name, ..)| (*name).to_owned()).collect();
    run.sort();
    assert_eq!(run, pki_cluster::pages::names());
}
