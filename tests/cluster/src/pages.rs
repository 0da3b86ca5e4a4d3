//! The commands of Cargo's aliases that the pages have, for the tests of their flags.

use crate::paths::workspace_dir;
use std::fs;
use std::path::PathBuf;

/// The flags of each `cargo ALIAS ...` in the README, in CONTRIBUTING.md and in the guides.
pub fn flags_of(alias: &str) -> Vec<Vec<String>> {
    let root = workspace_dir();
    let guide = fs::read_dir(root.join("src/guide")).expect("there are guides");
    let guide = guide.map(|entry| entry.expect("it is a file").path());
    let mut pages: Vec<PathBuf> = guide.collect();
    pages.retain(|path| path.extension().is_some_and(|it| it == "md"));
    pages.extend(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    let begin = format!("cargo {alias}");
    let mut found = Vec::new();
    for page in pages {
        let text = fs::read_to_string(page).expect("a page is text");
        for rest in text.split(&begin).skip(1) {
            let flags = rest.split(['`', '\n', '#']).next().unwrap_or_default();
            if flags.is_empty() || flags.starts_with(' ') {
                found.push(flags.split_whitespace().map(str::to_owned).collect());
            }
        }
    }
    found
}
