//! The commands of the pages that do not run on the node, and what holds of them all the same.

use super::PAGES;
use pki_cluster::pages::{Block, Page};
use pki_cluster::workspace_dir;
use std::fs;
use std::path::Path;

/// Commands that do not run on the node.
pub(crate) struct Entry {
    /// How they begin.
    begin: &'static str,
    /// Why they do not run, and who runs them.
    pub(crate) reason: &'static str,
    check: fn(&str),
}

/// Commands that stand in sentences are checked as well if they begin so.
const INLINE: [&str; 3] = ["cargo ", ".ci/", "tests/verifiers/"];

const ENTRIES: &[Entry] = &[
    Entry {
        begin: "docker build ",
        reason: "the node has the image from Buildah, by the same Dockerfile",
        check: |_| assert!(exists("Dockerfile")),
    },
    Entry {
        begin: "docker push ",
        reason: "there is no registry",
        check: |_| (),
    },
    Entry {
        begin: "gcloud ",
        reason: "it changes a cloud; src/guide/tests.rs compares the port",
        check: |_| (),
    },
    Entry {
        begin: "cargo install --path . --bin kubectl-pki",
        reason: "Cargo has built the plugin already",
        check: |_| assert!(exists("src/bin/kubectl-pki.rs")),
    },
    Entry {
        begin: "cargo install --locked oha",
        reason: "it builds a program of others; tests/bench/tests/programs.rs names it",
        check: |_| (),
    },
    Entry {
        begin: "cargo cluster-bench",
        reason: "it measures for minutes, optimized",
        check: has_alias,
    },
    Entry {
        begin: "cargo cluster ",
        reason: "there is one node on a machine; .ci/chart runs it",
        check: has_alias,
    },
    Entry {
        begin: "cargo demo",
        reason: "there is one node on a machine; .ci/run runs it",
        check: has_alias,
    },
    Entry {
        begin: "cargo build",
        reason: "a test that runs is built",
        check: |_| (),
    },
    Entry {
        begin: "cargo run --bin pki-operator -- crd",
        reason: "it writes into the workspace; .ci/run compares the result",
        check: |_| assert!(exists("charts/pki-operator/crds/pkis.yaml")),
    },
    Entry {
        begin: "cargo test",
        reason: ".ci/run runs all tests",
        check: names_tests,
    },
    Entry {
        begin: "cargo bench --bench ",
        reason: "it measures for minutes",
        check: |command| {
            let name = command.rsplit(' ').next().unwrap();
            assert!(exists(&format!("tests/benches/{name}.rs")), "{command}");
        },
    },
    Entry {
        begin: "cargo +nightly fuzz run ",
        reason: "it needs another compiler, and has no end",
        check: |command| {
            let name = command.rsplit(' ').next().unwrap();
            let targets = fs::read_to_string(workspace_dir().join("tests/fuzz/Cargo.toml"));
            let target = format!("name = \"{name}\"");
            assert!(targets.unwrap().contains(&target), "{command}");
        },
    },
    Entry {
        begin: ".ci/",
        reason: "it runs this test",
        check: is_file,
    },
    Entry {
        begin: "tests/verifiers/",
        reason: ".ci/run runs it",
        check: is_file,
    },
];

/// The entry for a command that does not run on the node.
pub(crate) fn entry(command: &str) -> Option<&'static Entry> {
    ENTRIES
        .iter()
        .find(|entry| command.starts_with(entry.begin))
}

fn exists(path: &str) -> bool {
    workspace_dir().join(path).exists()
}

fn is_file(command: &str) {
    let program = command.split(' ').next().unwrap();
    assert!(exists(program), "{command}");
}

/// Its flags are read by a test of the package that the alias runs.
fn has_alias(command: &str) {
    let name = command.split(' ').nth(1).unwrap();
    let config = fs::read_to_string(workspace_dir().join(".cargo/config.toml")).unwrap();
    let begin = format!("{name} = \"");
    let mut lines = config.lines();
    assert!(lines.any(|line| line.starts_with(&begin)), "{command}");
}

/// Checks `--test NAME`, `--lib`, `-p NAME` and the filter.
fn names_tests(command: &str) {
    let words: Vec<_> = command.split(' ').collect();
    let after = |flag: &str| {
        let index = words.iter().position(|word| *word == flag)?;
        words.get(index + 1).copied()
    };
    let folder = match (after("--test"), after("-p"), words.contains(&"--lib")) {
        (Some(test), ..) => format!("tests/{test}"),
        (_, Some("pki-cluster"), _) => "tests/cluster".to_owned(),
        (.., true) => "src".to_owned(),
        _ => "tests".to_owned(),
    };
    let mut names = Vec::new();
    tests_below(&workspace_dir().join(&folder), &folder, &mut names);
    if let Ok(text) = fs::read_to_string(workspace_dir().join(format!("{folder}.rs"))) {
        tests_in(&text, "", &mut names);
    }
    let filter = words.iter().skip_while(|word| **word != "--").skip(1);
    let filter = filter.copied().find(|word| !word.starts_with('-'));
    let is_ignored = words.contains(&"--ignored");
    let is_run = |(name, ignored): &(String, bool)| {
        name.contains(filter.unwrap_or_default()) && (!is_ignored || *ignored)
    };
    assert!(names.iter().any(is_run), "{command} runs no test");
}

/// Path and `#[ignore]` of each test below a folder.
fn tests_below(folder: &Path, module: &str, found: &mut Vec<(String, bool)>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let stem = path.file_stem().unwrap().to_string_lossy();
        let module = format!("{module}::{stem}");
        if path.is_dir() {
            tests_below(&path, &module, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            tests_in(&fs::read_to_string(&path).unwrap(), &module, found);
        }
    }
}

fn tests_in(text: &str, module: &str, found: &mut Vec<(String, bool)>) {
    let (mut is_test, mut is_ignored) = (false, false);
    for line in text.lines().map(str::trim) {
        is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
        is_ignored |= line.starts_with("#[ignore");
        let Some((_, rest)) = line.split_once("fn ") else {
            continue;
        };
        if is_test {
            let name = rest.split('(').next().unwrap();
            found.push((format!("{module}::{name}"), is_ignored));
        }
        (is_test, is_ignored) = (false, false);
    }
}

/// All commands of the pages that have an entry, or need one.
fn commands() -> Vec<String> {
    let mut all = Vec::new();
    for (name, ..) in PAGES {
        let page = Page::read(name);
        let blocks = page.blocks.iter().filter(|block| block.has_commands());
        let steps = blocks.flat_map(Block::steps);
        all.extend(steps.map(|step| step.command));
        for command in page.inline(&INLINE) {
            assert!(entry(&command).is_some(), "{name}: {command} has no entry");
            all.push(command);
        }
    }
    all.retain(|command| entry(command).is_some());
    all
}

#[test]
fn commands_that_do_not_run_on_the_node_name_what_there_is() {
    let commands = commands();
    for command in &commands {
        (entry(command).unwrap().check)(command);
    }
    for entry in ENTRIES {
        let is_used = commands.iter().any(|it| it.starts_with(entry.begin));
        assert!(is_used, "{}: no page has such a command", entry.begin);
        assert!(!entry.reason.is_empty(), "{}", entry.begin);
    }
}

#[test]
#[should_panic(expected = "runs no test")]
fn a_filter_that_names_no_test_is_noticed() {
    names_tests("cargo test --test integration -- no_test_has_this_name");
}
