//! The YAML examples of the pages.

use super::PAGES;
use super::walk::Walk;
use pki_cluster::pages::{Block, Page};
use serde_json::Value;

/// Examples that the node does not read: page (or every page), a part of them, and who reads them.
const READ_ELSEWHERE: [(&str, &str, &str); 6] = [
    (
        "",
        "kind: PkiPolicy\n",
        "src/guide/tests.rs judges Pkis by it",
    ),
    (
        "src/guide/common-refusals.md",
        "serviceName: ",
        "src/guide/tests.rs compares the answer",
    ),
    (
        "src/guide/gitops.md",
        "kind: Kustomization\n",
        "Flux; tests/integration/pages evaluates its expression",
    ),
    ("src/guide/install.md", "kind: Application\n", "Argo CD"),
    (
        "src/guide/network.md",
        "kind: AdmissionConfiguration\n",
        "the API server at its start",
    ),
    (
        "src/guide/network.md",
        "kind: Config\n",
        "the API server at its start",
    ),
];

fn is_read_elsewhere(page: &str, block: &Block) -> bool {
    READ_ELSEWHERE
        .iter()
        .any(|entry| is_of_entry(entry, page, block))
}

fn is_of_entry((of, part, _): &(&str, &str, &str), page: &str, block: &Block) -> bool {
    (of.is_empty() || *of == page) && block.content.contains(part)
}

/// Has the API server read the examples of the page that were not saved in a file, in a dry run.
pub(crate) fn read(walk: &mut Walk<'_>) {
    let page = walk.page.name;
    for block in &mut walk.page.blocks {
        if block.is_done || block.language != "yaml" || is_read_elsewhere(page, block) {
            continue;
        }
        let place = format!("{page}:{}", block.line);
        assert!(block.content.contains("kind: "), "{place}: nobody reads it");
        let apply = ["apply", "--dry-run=server", "--filename=-"];
        let applied = walk.world.node.kubectl_with(&block.content, &apply);
        applied.unwrap_or_else(|error| panic!("{place}: {error:#}"));
        block.is_done = true;
    }
}

#[test]
fn each_example_that_the_node_does_not_read_is_yaml() {
    let pages: Vec<_> = PAGES.iter().map(|(name, ..)| Page::read(name)).collect();
    let examples: Vec<_> = pages
        .iter()
        .flat_map(|page| page.blocks.iter().map(|block| (page.name, block)))
        .filter(|(_, block)| block.language == "yaml")
        .collect();
    for (page, block) in &examples {
        if is_read_elsewhere(page, block) {
            let read = serde_saphyr::from_str::<Value>(&block.content);
            assert!(read.is_ok(), "{page}:{}: {read:?}", block.line);
        }
    }
    for entry in &READ_ELSEWHERE {
        let is_used = |(page, block): &(&str, &Block)| is_of_entry(entry, page, block);
        assert!(examples.iter().any(is_used), "{entry:?} matches no example");
    }
}
