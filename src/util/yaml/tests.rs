use super::*;
use serde_json::json;
use std::fmt::Write as _;

fn only(text: &str) -> Node {
    let mut documents = documents(text);
    assert_eq!(documents.len(), 1, "{documents:?}");
    documents.remove(0).unwrap()
}

fn fault(text: &str) -> String {
    let faults = documents(text).into_iter().filter_map(Result::err);
    let faults = faults.map(|error| format!("{}: {error}", error.at));
    faults.collect::<Vec<_>>().join("\n")
}

/// Where these paths lead, as `line:column`.
fn places<const N: usize>(text: &str, paths: [&str; N]) -> [String; N] {
    let node = only(text);
    paths.map(|path| node.locate(path).to_string())
}

const PKI: &str = "\
apiVersion: box.com/v1
kind: Pki
metadata:
  name: app1-pki
spec:
  serviceName: appp1
  dnsNames:
    - a.example.com
    - b.example.com
  uris: [x, y]
  privateKey:
    algorithm: RSA
  usages:
  # nothing

  duration: '1h'
";

#[test]
fn a_path_leads_to_its_value_or_to_the_key_of_a_value_on_another_line() {
    let found = places(
        PKI,
        [
            "spec.serviceName",
            "spec.dnsNames",
            "spec.dnsNames[1]",
            "spec.uris",
            "spec.uris[1]",
            "spec.privateKey",
            "spec.privateKey.algorithm",
            "spec.usages",
            "spec.duration",
            "metadata.name",
        ],
    );
    let expected = [
        "6:16", "7:3", "9:7", "10:9", "10:13", "11:3", "12:16", "13:3", "16:13", "4:9",
    ];
    assert_eq!(found, expected);
}

#[test]
fn an_unknown_path_ends_at_the_key_of_its_last_known_part() {
    let paths = [
        "spec.secretName",
        "spec.privateKey.size",
        "spec.dnsNames[7]",
        "status.a.b",
        "spec.serviceName.x",
        "",
    ];
    let expected = ["5:1", "11:3", "7:3", "1:1", "6:16", "1:1"];
    assert_eq!(places(PKI, paths), expected);
}

#[test]
fn an_alias_has_its_own_place_and_its_entries_have_theirs() {
    let text = "a: &a {name: x}\nb: *a\nc:\n  <<: *a\n  other: 1\n";
    let found = places(text, ["b", "b.name", "c.name", "c.other"]);
    assert_eq!(found, ["2:4", "1:14", "1:14", "5:10"]);
    let value = only(text).to_json();
    assert_eq!(value["c"], json!({"name": "x", "other": 1}));
}

#[test]
fn an_entry_of_a_mapping_overrides_a_merged_one() {
    let text =
        "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz:\n  <<: [*x, *y]\n  a: 0\nq: {\"<<\": 1}\n";
    let value = only(text).to_json();
    assert_eq!(value["z"], json!({"a": 0, "b": 1, "c": 2}));
    assert_eq!(value["q"], json!({"<<": 1}), "in quotes it is a key");
    assert!(fault("a: {<<: 1}").contains("only mappings can be merged"));
}

#[test]
fn json_is_read_with_positions_too() {
    let text = "{\n\t\"kind\": \"Pki\",\n\t\"spec\": {\"serviceName\": \"a\\/\\u0062\", \"dnsNames\": [\"x\",\n\"y\"]}}\n";
    let found = places(text, ["spec", "spec.serviceName", "spec.dnsNames[1]"]);
    assert_eq!(found, ["3:10", "3:26", "4:1"]);
    assert_eq!(only(text).to_json()["spec"]["serviceName"], "a/b");
}

#[test]
fn carriage_returns_and_a_byte_order_mark_change_nothing() {
    let text = format!("\u{feff}{}", PKI.replace('\n', "\r\n"));
    assert_eq!(only(&text).to_json(), only(PKI).to_json());
    let found = places(&text, ["spec.serviceName", "spec.dnsNames[1]"]);
    assert_eq!(found, ["6:16", "9:7"]);
}

#[test]
fn every_document_of_a_stream_is_read_and_those_without_content_are_left_out() {
    let found = documents("---\na: 1\n---\n# nothing\n---\n...\n---\nb: 2\n");
    let found: Vec<_> = found
        .into_iter()
        .map(|node| node.unwrap().to_json())
        .collect();
    assert_eq!(found, [json!({"a": 1}), json!({"b": 2})]);
    assert!(documents("").is_empty() && documents("# nothing\n").is_empty());
}

#[test]
fn a_document_that_cannot_be_read_is_reported_and_those_after_it_are_read() {
    let found = documents("a: [1\n---\nb: 2\n---\n\"c\n---\nd: 3\n");
    let read = found.iter().flatten().map(Node::to_json);
    assert!(read.eq([json!({"b": 2}), json!({"d": 3})]), "{found:?}");
    let error = found[0].as_ref().unwrap_err();
    assert_eq!(error.at, Position { line: 1, column: 4 });
    assert!(error.message.starts_with("this is not YAML: "), "{error}");
}

#[test]
fn columns_count_characters() {
    assert_eq!(places("ä: {ö: \"ü\", b: 1}", ["b", "ä.b"]), ["1:1", "1:16"]);
}

#[test]
fn scalars_in_quotes_and_with_tags_have_the_type_of_these() {
    let text =
        "a: \"on\"\nb: 'no'\nc: !!str 1\nd: !!int \"1\"\ne: !own 2\nf: |\n  true\n1: g\nyes: h\n";
    let expected = json!({"a": "on", "b": "no", "c": "1", "d": 1, "e": "2", "f": "true\n", "1": "g", "true": "h"});
    assert_eq!(only(text).to_json(), expected);
}

#[test]
fn an_anchor_in_the_next_document_is_unknown() {
    assert!(fault("a: &a 1\n---\nb: *a\n").starts_with("3:4: this is not YAML"));
}

#[test]
fn a_text_that_would_fill_the_memory_is_refused() {
    let mut bomb = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..12 {
        let alias = vec![format!("*a{}", level - 1); 9].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{alias}]").unwrap();
    }
    assert!(
        fault(&bomb).contains("expand to too much"),
        "{}",
        fault(&bomb)
    );
    let long = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(100_000),
        "*a,".repeat(100)
    );
    assert!(fault(&long).contains("expand to too much"));
    assert_eq!(fault("a: &a [*a]"), "1:8: this alias contains itself");
}

#[test]
fn a_text_that_would_overflow_the_stack_is_refused() {
    for text in [
        "[".repeat(10_000),
        "a: ".repeat(10_000),
        "- ".repeat(10_000),
        "{a: ".repeat(101),
    ] {
        assert!(!fault(&text).is_empty());
    }
    let mut deep = "a0: &a0 {}\n".to_owned();
    for level in 1..200 {
        writeln!(deep, "a{level}: &a{level} [*a{}]", level - 1).unwrap();
    }
    assert!(
        fault(&deep).contains("nested deeper than 100"),
        "{}",
        fault(&deep)
    );
}

#[test]
fn keys_that_json_does_not_have_and_numbers_likewise_are_faults() {
    for text in ["[a]: 1", "{a: b}: 1", "~: 1", "a: .inf"] {
        assert!(!fault(text).is_empty(), "{text}");
    }
}

#[test]
fn a_text_full_of_faults_ends() {
    let text = "a: [\n---\n".repeat(10_000);
    assert_eq!(documents(&text).len(), MAX_FAULTS);
}

#[test]
fn json_values_may_follow_one_another() {
    let text = "{\"a\": 1} {\"b\":\n2}\n\n{\"c\": ü}";
    let found = documents(&text.replace('ü', "3"));
    let read: Vec<_> = found.iter().flatten().map(Node::to_json).collect();
    assert_eq!(read, [json!({"a": 1}), json!({"b": 2}), json!({"c": 3})]);
    let at = |index: usize, path| found[index].as_ref().unwrap().locate(path).to_string();
    assert_eq!([at(0, "a"), at(1, ""), at(2, "c")], ["1:7", "1:10", "4:7"]);
    assert_eq!(at(1, "b"), "2:1");
    assert!(
        fault("{\"a\": 1}\n{\"b\": ]}").starts_with("2:1: "),
        "{}",
        fault("{\"a\": 1}\n{\"b\": ]}")
    );
}

#[test]
fn merged_entries_count_as_written_ones() {
    for (text, service) in [
        ("spec:\n  serviceName: a\n  <<: {serviceName: b}", "b"),
        ("spec:\n  <<: {serviceName: b}\n  serviceName: a", "a"),
        ("spec:\n  <<: {serviceName: a}\n  <<: {serviceName: b}", "b"),
        ("spec:\n  <<: [{serviceName: a}, {serviceName: b}]", "a"),
    ] {
        let documents = documents(text);
        let json = documents[0].as_ref().unwrap().to_json();
        assert_eq!(
            json,
            serde_json::json!({"spec": {"serviceName": service}}),
            "{text}"
        );
    }
}
