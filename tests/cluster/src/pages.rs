//! The pages of the documentation, for the tests that hold them.

use crate::paths::workspace_dir;
use std::fs;
use std::path::PathBuf;

pub use page::{Block, Page, Step};

mod page;

/// The paths of all pages in the workspace, sorted.
pub fn names() -> Vec<String> {
    let guide = fs::read_dir(workspace_dir().join("src/guide")).expect("there are guides");
    let guide = guide.map(|entry| PathBuf::from(entry.expect("it is a file").file_name()));
    let guide = guide.filter(|name| name.extension().is_some_and(|it| it == "md"));
    let guide = guide.map(|name| format!("src/guide/{}", name.display()));
    let mut names: Vec<_> = guide.collect();
    let others = [
        "README.md",
        "CONTRIBUTING.md",
        "charts/pki-operator/README.md",
    ];
    names.extend(others.map(str::to_owned));
    names.sort();
    names
}

/// The flags of each `cargo ALIAS ...` in the pages.
pub fn flags_of(alias: &str) -> Vec<Vec<String>> {
    let begin = format!("cargo {alias}");
    let mut found = Vec::new();
    for page in names() {
        let text = fs::read_to_string(workspace_dir().join(page)).expect("a page is text");
        for rest in text.split(&begin).skip(1) {
            let flags = rest.split(['`', '\n', '#']).next().unwrap_or_default();
            if flags.is_empty() || flags.starts_with(' ') {
                found.push(flags.split_whitespace().map(str::to_owned).collect());
            }
        }
    }
    found
}
