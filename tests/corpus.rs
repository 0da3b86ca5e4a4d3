//! What fuzzing has found, again: every file of `fuzz/corpus` through its target.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "fuzz/targets.rs"]
pub mod targets;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut entries: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    entries
}

/// The names of what is in a directory, without their endings.
fn names(directory: &str) -> BTreeSet<String> {
    let name = |path: &PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    entries(&fuzz().join(directory))
        .iter()
        .filter_map(name)
        .collect()
}

fn replay(target: &str) {
    let known = targets::ALL.iter().find(|(name, _)| *name == target);
    let (_, run) = known.expect("a target");
    let corpus = entries(&fuzz().join("corpus").join(target));
    assert!(!corpus.is_empty(), "the corpus of {target} is empty");
    for path in corpus {
        // What panics is captured, and shown with the file that did it.
        println!("{}", path.display());
        run(&fs::read(path).expect("a file"));
    }
}

#[test]
fn every_target_has_a_corpus_and_a_program_and_nothing_else_has() {
    let targets: BTreeSet<_> = targets::ALL
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(names("corpus"), targets);
    assert_eq!(names("fuzz_targets"), targets);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("a manifest");
    for target in targets {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")),
            "{target}"
        );
    }
}

#[test]
fn bodies_of_reviews_are_judged_as_the_policies_say() {
    replay("admission_body");
}

#[test]
fn files_of_allowed_names_are_read_line_by_line() {
    replay("allowed_names");
}

#[test]
fn rules_in_cel_take_no_more_steps_than_estimated() {
    replay("cost");
}

#[test]
fn rules_in_cel_end_and_are_not_true_with_their_opposites() {
    replay("expression");
}

#[test]
fn globs_match_as_they_say() {
    replay("glob");
}

#[test]
fn findings_in_manifests_are_in_the_file_and_shown_in_every_form() {
    replay("manifests");
}

#[test]
fn patterns_of_names_and_uris_match_as_they_say() {
    replay("uri_and_dns_patterns");
}
