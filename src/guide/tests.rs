//! The pages have their form, and their examples are evaluated.

use super::*;
use crate::api::{Pki, PkiPolicy, annotations};
use crate::policy::{Labels, RuleBook, Settings, faults};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Maximum number of lines of a page.
const MAX_PAGE_LINES: usize = 299;
/// Maximum number of lines of the README.
const MAX_README_LINES: usize = 150;

/// The pages of the guide, by the names of their files.
fn pages() -> BTreeMap<String, String> {
    let mut all = Vec::new();
    texts(&root().join("src/guide"), &mut all);
    all.retain(|(path, _)| path.extension() == Some(OsStr::new("md")));
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    all.into_iter()
        .map(|(path, text)| (name(&path), text))
        .collect()
}

fn page(name: &str) -> String {
    pages().remove(name).expect(name)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The headings of this level and above.
fn headings(page: &str, max_level: usize) -> Vec<&str> {
    let of_line = |line: &'_ str| line.find(|c| c != '#').unwrap_or_default();
    let headings = prose(page).filter(|line| (2..=max_level).contains(&of_line(line)));
    headings
        .map(|line| line.trim_start_matches('#').trim())
        .collect()
}

/// The lines outside of fenced blocks.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut is_inside = false;
    page.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_inside ^= is_fence;
        !is_inside && !is_fence
    })
}

/// The anchor that GitHub gives to a heading.
fn anchor(heading: &str) -> String {
    let lower = heading.to_lowercase();
    let kept = lower
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().replace(' ', "-")
}

/// The targets of the links of a page.
fn links(page: &str) -> Vec<&str> {
    let lines = prose(page).flat_map(|line| line.split("](").skip(1));
    lines
        .filter_map(|rest| Some(rest.split_once(')')?.0))
        .collect()
}

#[test]
fn each_page_is_short_and_begins_with_a_command_and_its_contents() {
    let index = page("index.md");
    let modules = include_str!("mod.rs");
    let pages = pages();
    assert!(pages.len() >= 15, "{:?}", pages.keys());
    for (name, page) in &pages {
        let count = page.lines().count();
        assert!(count <= MAX_PAGE_LINES, "{name} has {count} lines");
        let module = name.trim_end_matches(".md").replace('-', "_");
        let expected = format!("#[doc = include_str!(\"{name}\")]\npub mod {module} {{}}\n");
        assert!(modules.contains(&expected), "{name} is no module");
        let is_listed = name == "index.md" || index.contains(&format!("]({name}"));
        assert!(is_listed, "{name} is not in index.md");
        let (before, _) = page.split_once("\n## ").expect(name);
        assert!(before.contains("```"), "{name} begins without a command");
        let contents: Vec<_> = before
            .lines()
            .filter_map(|line| line.strip_prefix("- [")?.split_once("](#"))
            .collect();
        let expected = headings(page, 2);
        let titles: Vec<_> = contents.iter().map(|(title, _)| *title).collect();
        assert_eq!(titles, expected, "{name}: the list of contents");
    }
}

#[test]
fn the_readme_is_short() {
    let readme = include_str!("../../README.md");
    assert!(readme.lines().count() <= MAX_README_LINES);
}

#[test]
fn each_fenced_block_has_a_language_and_no_block_is_indented() {
    let known = ["console", "json", "lua", "mermaid", "text", "yaml"];
    let mut pages = pages();
    pages.insert("README.md".into(), include_str!("../../README.md").into());
    for (name, page) in pages {
        let fences = page
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("```"));
        let fences: Vec<_> = fences.collect();
        for pair in fences.chunks(2) {
            let [language, ""] = pair else {
                panic!("{name}: {pair:?}")
            };
            assert!(known.contains(language), "{name}: {language}");
        }
        let indented = prose(&page).find(|line| line.starts_with("    "));
        assert_eq!(indented, None, "{name}");
        let consoles = blocks(&page).filter(|(language, _)| *language == "console");
        for (_, content) in consoles {
            assert!(
                content.trim_start().starts_with("$ "),
                "{name}: a session begins with a command: {content}"
            );
        }
    }
}

#[test]
fn each_link_between_pages_leads_to_a_file_and_a_heading() {
    let mut files = Vec::new();
    texts(&root().join("src/guide"), &mut files);
    for path in [
        "README.md",
        "CONTRIBUTING.md",
        "charts/pki-operator/README.md",
    ] {
        let path = root().join(path);
        let text = std::fs::read_to_string(&path).unwrap();
        files.push((path, text));
    }
    files.retain(|(path, _)| path.extension() == Some(OsStr::new("md")));
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (path, text) in &files {
        for link in links(text) {
            if link.contains("://") {
                continue;
            }
            count += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            let is_there = if heading.is_empty() {
                target.exists()
            } else {
                let page = std::fs::read_to_string(&target).unwrap_or_default();
                let mut headings = headings(&page, 6).into_iter();
                headings.any(|it| anchor(it) == heading)
            };
            if !is_there {
                wrong.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(count > 150, "the links are found: {count}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Language and content of the fenced blocks of a page.
fn blocks(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.split("```")
        .skip(1)
        .step_by(2)
        .map(|block| block.split_once('\n').unwrap())
}

fn policies(page: &str) -> Vec<PkiPolicy> {
    blocks(page)
        .filter(|(_, content)| content.contains("kind: PkiPolicy\n"))
        .map(|(_, content)| serde_saphyr::from_str(content).expect(content))
        .collect()
}

/// Judges `app1-pki` of this spec; the lines of a refusal.
fn judge(policies: &[PkiPolicy], namespace: &str, spec: &str) -> Result<(), Vec<String>> {
    let mut pki = Pki::new("app1-pki", serde_saphyr::from_str(spec).expect(spec));
    pki.metadata.namespace = Some(namespace.into());
    let live = Labels::from([("stage".into(), "live".into())]);
    let others = ["team-b", "edge", "other"].map(|name| (name.into(), Labels::new()));
    let all = others.into_iter().chain([("team-a".into(), live)]);
    let namespaces: HashMap<_, _> = all.collect();
    let rules = RuleBook::new(Arc::default(), policies).with_namespaces(Arc::new(namespaces));
    let judged = rules.evaluate(&pki).map(drop);
    judged.map_err(|all| {
        all.iter()
            .map(|one| format!("{}: {one}", one.field()))
            .collect()
    })
}

#[test]
fn advice_is_plain_text() {
    let advised = advice("PkiServiceNameError").expect("there is a row");
    assert_eq!(
        advised.cause,
        "no policy for your namespace allows the service name"
    );
    assert_eq!(
        advised.remedy,
        "correct it (the answer names the likely one), or ask the platform team to allow it"
    );
    assert_eq!(
        advice("PkiCertificateExpired"),
        advice("PkiCertificateExpiring")
    );
    assert_eq!(advice("Unheard"), None);
    assert_eq!(plain("a [b `c`](d) e [f"), "a b c e [f");
    for reason in reasons() {
        let Advice { cause, remedy } = advice(reason).expect(reason);
        for text in [cause, remedy] {
            assert!(
                !text.is_empty() && !text.contains(['`', '|', '[']),
                "{reason}: {text}"
            );
        }
    }
}

#[test]
fn the_tables_of_annotations_have_each_key_that_people_may_write() {
    let pages = pages();
    let rows = pages.values().flat_map(|page| {
        let tables = page.split("\n| on | annotation | effect |\n").skip(1);
        tables.flat_map(|table| table.lines().skip(1).take_while(|it| it.starts_with('|')))
    });
    let by_key = rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let key = cells[1].trim_start_matches('`').split(':').next().unwrap();
        let is_label = cells[1].ends_with("(a label)");
        let values = cells[1].split('`').nth(1).unwrap();
        (key, (cells[0], is_label, values))
    });
    let mut by_key: HashMap<_, _> = by_key.collect();
    for control in annotations::TABLE {
        let row = by_key.remove(control.key);
        if !control.is_for_people() {
            assert_eq!(row, None, "{control:?}");
            continue;
        }
        let (on, is_label, written) = row.expect(control.key);
        assert!(on.starts_with(&control.carriers()), "{on} {control:?}");
        assert_eq!(
            is_label,
            control.place == annotations::Place::Labels,
            "{control:?}"
        );
        let (_, value) = written.split_once(": ").expect(written);
        let is_bool = annotations::parse_bool(value.trim_matches('"')).is_some();
        assert_eq!(
            is_bool,
            control.values == annotations::Values::Bool,
            "{written}"
        );
    }
    assert!(by_key.is_empty(), "in the guide alone: {by_key:?}");
}

#[test]
fn each_common_refusal_has_the_message_of_the_guide_and_its_remedy_is_permitted() {
    let page = page("common-refusals.md");
    let (before, sections) = page.split_once("\n## ").expect("a section");
    let policies = policies(before);
    assert_eq!(policies.len(), 1);
    let examples: Vec<_> = blocks(sections).collect();
    assert!(examples.len() > 20, "{examples:?}");
    for example in examples.chunks(3) {
        let [("yaml", wrong), ("text", expected), ("yaml", right)] = example else {
            panic!("{example:?} is no spec with its answer and its remedy")
        };
        let refused = judge(&policies, "team-a", wrong).expect_err(wrong);
        assert_eq!(refused, expected.lines().collect::<Vec<_>>(), "{wrong}");
        assert_eq!(judge(&policies, "team-a", right), Ok(()), "{right}");
    }
}

#[test]
fn each_example_of_a_policy_permits_the_rows_of_its_table() {
    let (by_example, rules) = (page("policies-by-example.md"), page("policy-rules.md"));
    let mut sections: Vec<_> = by_example.split("\n## ").skip(1).collect();
    sections.push(&rules);
    assert_eq!(sections.len(), 11);
    for section in sections {
        let policies = policies(section);
        let (_, table) = section
            .split_once("\n| in | spec | permitted |\n|---|---|---|\n")
            .expect(section);
        let rows: Vec<_> = table
            .lines()
            .take_while(|line| line.starts_with("| `"))
            .collect();
        assert!(!policies.is_empty() && rows.len() > 1, "{section}");
        for policy in &policies {
            assert_eq!(faults(&policy.spec, &Settings::default()), []);
        }
        for row in rows {
            let mut cells = row.split('`').skip(1).step_by(2);
            let (namespace, spec) = (cells.next().unwrap(), cells.next().unwrap());
            let judged = judge(&policies, namespace, spec);
            assert_eq!(judged.is_ok(), row.ends_with("| yes |"), "{row} {judged:?}");
        }
    }
}

/// All texts below a folder that people may read, with their paths.
fn texts(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    let entries = std::fs::read_dir(folder).unwrap();
    for path in entries.map(|entry| entry.unwrap().path()) {
        let extension = path.extension().and_then(OsStr::to_str);
        if path.is_dir() {
            texts(&path, found);
        } else if ["md", "rs", "sh", "tpl", "txt", "yaml"]
            .map(Some)
            .contains(&extension)
        {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

#[test]
fn every_alert_has_a_row() {
    let page = page("monitoring.md");
    let alerts = include_str!("../../charts/pki-operator/monitoring/alerts.yaml");
    let names = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let names: Vec<_> = names.collect();
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        let name = format!("`{name}`");
        let mut rows = page.lines().filter(|line| line.starts_with("| `Pki"));
        assert!(rows.any(|row| row.contains(&name)), "{name}");
    }
}

/// The paths of all functions of a folder: `webhook::review::tests::name`.
fn functions(folder: &str) -> Vec<String> {
    let folder = root().join(folder);
    let mut sources = Vec::new();
    texts(&folder, &mut sources);
    let paths = sources.iter().flat_map(|(path, text)| {
        let path = path.strip_prefix(&folder).unwrap().with_extension("");
        let module = path.to_str().unwrap().replace('/', "::");
        let is_nested = text.contains("\nmod tests {");
        let names = text.split("fn ").skip(1).filter_map(|rest| {
            let (name, _) = rest.split_once('(')?;
            Some(name.to_owned())
        });
        names.map(move |name| {
            let tests = if is_nested { "::tests" } else { "" };
            format!("{module}{tests}::{name}")
        })
    });
    paths.collect()
}

#[test]
fn the_page_for_security_teams_names_tests_that_exist() {
    let page = page("security-teams.md");
    let functions = [functions("src"), functions("tests/integration")].concat();
    let cells = page
        .lines()
        .filter_map(|line| line.strip_suffix(" |")?.rsplit_once("| "));
    let names = cells.flat_map(|(_, cell)| cell.split('`').skip(1).step_by(2));
    let is_of_name = |c: char| c.is_ascii_lowercase() || "_:".contains(c);
    let names = names.map(|name| name.trim_end_matches('…'));
    let names: Vec<_> = names
        .filter(|name| name.contains('_') && name.chars().all(is_of_name))
        .collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        let is_there = functions.iter().any(|path| path.contains(name));
        assert!(is_there, "{name}");
    }
}

/// Since 1.36, kubectl shows the Events of several objects only with `--show-events`.
#[test]
fn every_command_that_describes_pods_by_a_label_asks_for_their_events() {
    let root = root();
    let mut all = Vec::new();
    for folder in ["src", "charts", "tests"] {
        texts(&root.join(folder), &mut all);
    }
    let readme = root.join("README.md");
    let text = std::fs::read_to_string(&readme).unwrap();
    all.push((readme, text));
    let verb = ["describe", "pod"].join(" ");
    let commands = all.iter().flat_map(|(path, text)| {
        let lines = text.lines().filter(|line| line.contains(&verb));
        lines.map(move |line| (path, line))
    });
    let by_label =
        commands.filter(|(_, line)| line.contains(" -l ") || line.contains("--selector"));
    let by_label: Vec<_> = by_label.collect();
    assert!(by_label.len() >= 3, "{by_label:?}");
    for (path, line) in by_label {
        let is_complete = line.contains("--show-events");
        assert!(is_complete, "{}: {line}", path.display());
    }
}

#[test]
fn the_port_of_the_guide_is_that_of_the_chart() {
    let deployment = include_str!("../../charts/pki-operator/templates/deployment.yaml");
    let (_, rest) = deployment.split_once("- name: webhook\n").unwrap();
    let line = rest.lines().next().unwrap();
    let port = line.trim().strip_prefix("containerPort: ").unwrap();
    let page = page("network.md");
    let (_, section) = page
        .split_once("\n## Open the port for the API server\n")
        .unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    for expected in [
        format!("on TCP port {port} of the operator's pods"),
        format!("Permit TCP {port} from"),
        format!("--allow=tcp:{port} "),
        format!("takes {port} from"),
    ] {
        assert!(section.contains(&expected), "{expected}: {section}");
    }
}

#[test]
fn a_pki_with_a_service_name_alone_is_admitted_under_each_policy_that_permits_the_name() {
    let pages = pages();
    let policies: Vec<_> = pages.values().flat_map(|page| policies(page)).collect();
    assert!(policies.len() >= 12, "{}", policies.len());
    for policy in policies {
        let spec = &policy.spec;
        let (mut namespace, name) = (
            "team-a",
            spec.service_names[0].replace("{namespace}", "team-a"),
        );
        if spec
            .namespaces
            .as_ref()
            .is_some_and(|it| it.names == ["edge"])
        {
            namespace = "edge";
        }
        let mut pki = Pki::new(
            "app1-pki",
            crate::api::PkiSpec {
                service_name: name.replace('*', "web"),
                ..crate::api::PkiSpec::default()
            },
        );
        pki.metadata.namespace = Some(namespace.into());
        let live = Labels::from([("stage".into(), "live".into())]);
        let namespaces = HashMap::from([(namespace.to_owned(), live)]);
        let rules = RuleBook::new(Arc::default(), [&policy]).with_namespaces(Arc::new(namespaces));
        let approved = rules
            .evaluate(&pki)
            .unwrap_or_else(|refused| panic!("{spec:?}: {refused:?}"));
        // Its certificate obeys the policy: what it gets, written out, is permitted as well.
        let recorded = approved.recorded();
        pki.spec.duration = recorded.duration;
        pki.spec.usages = recorded.usages;
        pki.spec.private_key = recorded.private_key;
        let stated = rules.evaluate(&pki).expect("what it gets is permitted");
        assert_eq!(stated.certificate, approved.certificate, "{spec:?}");
    }
}
