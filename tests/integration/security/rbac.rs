//! What the operator may do: the whole of it, as golden files, so that no change of the chart gives
//! it more unseen.

use crate::harness::{Installed, arena, eventually, quiet};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// Set this to have the golden files written again.
const WRITE: &str = "WRITE_GOLDEN_FILES";

#[test]
fn it_may_do_what_the_golden_files_say_and_nothing_else() {
    let arena = arena();
    for namespace in ["served", "elsewhere"] {
        // They stay for the next run.
        let _ = arena.kubectl(&["create", "namespace", namespace]);
    }
    for (name, values, namespace) in [
        ("cluster-own", &[][..], "pki-operator"),
        ("cluster-other", &[], "served"),
        ("list-own", &["namespaces={served}"], "pki-operator"),
        ("list-served", &["namespaces={served}"], "served"),
        ("list-elsewhere", &["namespaces={served}"], "elsewhere"),
        (
            "no-restarts",
            &["namespaces={served}", "restartOnRenewal.enabled=false"],
            "served",
        ),
    ] {
        arena.install_with(values).unwrap();
        compare(&arena, name, namespace);
    }
}

fn compare(arena: &Installed, name: &str, namespace: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let file = file.join(format!("tests/integration/security/rbac/{name}.txt"));
    if std::env::var_os(WRITE).is_some() {
        // The API server may still go by what was installed before.
        quiet();
        fs::write(&file, permissions(arena, namespace)).unwrap();
        return;
    }
    let expected = fs::read_to_string(&file).unwrap();
    let what = format!(
        "{} says what the operator may do in namespace {namespace}. If it is meant to be another now, set {WRITE}=1, run this \
         test again, and look at what git says has changed. This is what it may do:\n{}\n",
        file.display(),
        permissions(arena, namespace)
    );
    eventually(&what, || {
        (permissions(arena, namespace) == expected).then_some(())
    });
}

/// The table of `kubectl auth can-i --list` for the chart's service account, in an order of its
/// own: that of kubectl varies.
fn permissions(arena: &Installed, namespace: &str) -> String {
    let list = [
        "auth",
        "can-i",
        "--list",
        "--as=system:serviceaccount:pki-operator:pki-operator",
        "--namespace",
        namespace,
    ];
    let table = arena.kubectl(&list).unwrap();
    let rows = table.lines().skip(1).map(row);
    rows.collect::<BTreeSet<_>>().into_iter().collect()
}

/// As in `pods [list watch]`; with the names that it is for, if it is not for all: `secrets [own]
/// [get]`.
fn row(line: &str) -> String {
    // Resource, URLs, names, verbs; the last three are lists, and one of the first two is empty.
    let (what, lists) = line.split_once('[').expect(line);
    let lists = lists.split('[').map(|list| {
        let mut words: Vec<_> = list.trim_end().trim_end_matches(']').split(' ').collect();
        words.sort_unstable();
        words.join(" ")
    });
    let lists = lists.filter(|list| !list.is_empty());
    let lists = lists.map(|list| format!(" [{list}]"));
    let row = what.trim_end().to_owned() + &lists.collect::<String>();
    row.trim_start().to_owned() + "\n"
}
