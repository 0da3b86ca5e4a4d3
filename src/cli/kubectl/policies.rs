//! Policies from files.

use super::finding::reason;
use super::manifests::{self, Manifests};
use super::sources::{self, Source};
use super::{allowed_names, check};
use crate::api::PkiPolicy;
use crate::policy::{Namespaces, RuleBook, Settings};
use kube::ResourceExt;
use std::path::Path;
use std::sync::Arc;

/// The content of the files given with `--policy`.
#[derive(Debug, Default)]
pub struct PolicyFiles {
    /// Manifests.
    pub manifests: Vec<Manifests>,
    /// Policies made of lists of allowed names.
    pub allowed_names: Vec<PkiPolicy>,
}

impl PolicyFiles {
    /// Parses files. One with neither the name nor the content of a manifest lists allowed names.
    pub fn parse(sources: &[Source]) -> Self {
        let mut files = Self::default();
        for source in sources {
            if is_manifest(source) {
                let parsed = manifests::parse(&source.name, &source.bytes);
                files.manifests.push(parsed);
            } else {
                files.take_names(source);
            }
        }
        files
    }

    fn take_names(&mut self, source: &Source) {
        let text = String::from_utf8_lossy(&source.bytes);
        match allowed_names::parse(&text) {
            Ok(names) => {
                let policy = allowed_names::policy(&source.name, names);
                self.allowed_names.push(policy);
            }
            Err(errors) => {
                let mut file = Manifests::named(&source.name);
                for error in errors {
                    file.fault(error.at, reason::ALLOWED_NAMES, error.message);
                }
                self.manifests.push(file);
            }
        }
    }
}

fn is_manifest(source: &Source) -> bool {
    let text = String::from_utf8_lossy(&source.bytes);
    let beginnings = ["apiVersion:", "kind:", "{", "\"apiVersion\"", "---"];
    let begins = |line: &str| {
        let line = line.trim_start();
        beginnings.iter().any(|it| line.starts_with(it))
    };
    sources::is_manifest(Path::new(&source.name)) || text.lines().any(begins)
}

/// The rule book of all policies, and of the labels of all namespaces, in these files.
pub fn rule_book(settings: Settings, files: &[Manifests], more: &[PkiPolicy]) -> RuleBook {
    let policies = check::policies(files);
    RuleBook::new(Arc::new(settings), policies.iter().chain(more))
        .with_namespaces(Arc::new(namespaces(files)))
}

fn namespaces(files: &[Manifests]) -> Namespaces {
    let namespaces = files.iter().flat_map(|file| &file.namespaces);
    let labelled = namespaces.map(|it| (it.name_any(), it.labels().clone()));
    labelled.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, text: &str) -> Source {
        Source {
            name: name.into(),
            bytes: text.into(),
        }
    }

    #[test]
    fn a_file_is_taken_for_what_it_is() {
        let policy = "apiVersion: box.com/v1\nkind: PkiPolicy\nmetadata: {name: p}\nspec: {serviceNames: [a]}\n";
        for (name, text, manifests, lists) in [
            ("p.yaml", policy, 1, 0),
            ("-", policy, 1, 0),
            ("AllowedNames", "app1\napp2\n", 0, 1),
            ("-", "app1\n", 0, 1),
            ("names.yaml", "app1\n", 1, 0),
        ] {
            let files = PolicyFiles::parse(&[source(name, text)]);
            let found = (files.manifests.len(), files.allowed_names.len());
            assert_eq!(found, (manifests, lists), "{name} {text}");
        }
    }

    #[test]
    fn a_wrong_line_is_a_finding_in_its_file() {
        let files = PolicyFiles::parse(&[source("AllowedNames", "app1\n\nApp2\n")]);
        let finding = &files.manifests[0].faults[0];
        assert_eq!(finding.place(), "AllowedNames:3:1");
        assert!(
            finding
                .text()
                .starts_with("\"App2\" is not a service name: write")
        );
    }
}
