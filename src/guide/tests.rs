//! The examples of the guide are evaluated.

use super::*;
use crate::api::{Pki, PkiPolicy, annotations};
use crate::policy::{Labels, RuleBook, Settings, faults};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PLATFORM_TEAMS: &str = include_str!("platform-teams.md");

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
    let pages = [APPLICATION_TEAMS, PLATFORM_TEAMS];
    let rows = pages.iter().flat_map(|page| {
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
    let (_, section) = APPLICATION_TEAMS
        .split_once("## Common refusals")
        .expect("a section");
    let policies = policies(section);
    let examples: Vec<_> = blocks(section).skip(1).collect();
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
    let (_, page) = PLATFORM_TEAMS
        .split_once("\n## Policies by example\n")
        .expect("a section");
    let page = page.split("\n## ").next().expect("a page has a part");
    let sections: Vec<_> = page.split("\n### ").skip(1).collect();
    assert_eq!(sections.len(), 11);
    for section in sections {
        let policies = policies(section);
        let rows: Vec<_> = section
            .lines()
            .filter(|line| line.starts_with("| `"))
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

/// Since 1.36, kubectl shows the Events of several objects only with `--show-events`.
#[test]
fn every_command_that_describes_pods_by_a_label_asks_for_their_events() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
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
    let (_, section) = PLATFORM_TEAMS
        .split_once("\n## The port that the API server must reach\n")
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
    let pages = [
        PLATFORM_TEAMS,
        APPLICATION_TEAMS,
        include_str!("security-teams.md"),
    ];
    let policies: Vec<_> = pages.into_iter().flat_map(policies).collect();
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
