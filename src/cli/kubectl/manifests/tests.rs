use super::*;

fn shown(found: &Manifests) -> Vec<String> {
    let objects = found
        .objects
        .iter()
        .map(|manifest| manifest.object("d").to_string());
    let faults = found
        .faults
        .iter()
        .map(|fault| format!("{}: {}", fault.place(), fault.message));
    objects.chain(faults).collect()
}

#[test]
fn pkis_policies_and_namespaces_are_found_wherever_they_are() {
    let text = "kind: ConfigMap\napiVersion: v1\n---\napiVersion: box.com/v1\nkind: Pki\nmetadata: {name: a, namespace: team}\n---\n\
        apiVersion: v1\nkind: List\nitems:\n- {apiVersion: box.com/v1, kind: Pki, metadata: {name: b}}\n\
        - {apiVersion: v1, kind: Namespace, metadata: {name: team, labels: {a: b}}}\n- {apiVersion: box.com/v1, kind: PkiPolicy, metadata: {name: p}}\n\
        ---\napiVersion: box.com/v1\nkind: PkiList\nitems: [{apiVersion: box.com/v1, kind: Pki, metadata: {generateName: c-}}]\n";
    let found = parse("f", text.as_bytes());
    assert_eq!(
        shown(&found),
        ["Pki team/a", "Pki d/b", "PkiPolicy p", "Pki d/c-"]
    );
    let labels = found.namespaces[0].labels();
    assert_eq!(labels.len(), 2, "{labels:?}");
}

#[test]
fn a_kind_or_version_that_there_is_none_of_is_a_fault() {
    for (api_version, kind, expected) in [
        (
            "box.com/v1",
            "PKI",
            "f:2:7: box.com has no kind \"PKI\"; did you mean \"Pki\"?",
        ),
        (
            "box.com/v1",
            "Certificate",
            "f:2:7: box.com has no kind \"Certificate\"; write Pki or PkiPolicy",
        ),
        (
            "box.com/v2",
            "Pki",
            "f:1:13: there is no version \"v2\" of Pki: write box.com/v1",
        ),
    ] {
        let text = format!("apiVersion: {api_version}\nkind: {kind}\n");
        assert_eq!(shown(&parse("f", text.as_bytes())), [expected]);
    }
    for other in [
        "apiVersion: example.com/v1\nkind: Pki\n",
        "a: b",
        "- 1",
        "7",
        "kind: Pki",
    ] {
        assert_eq!(
            shown(&parse("f", other.as_bytes())),
            Vec::<String>::new(),
            "{other}"
        );
    }
}

#[test]
fn text_that_is_no_yaml_is_a_fault_with_its_place() {
    for (bytes, expected) in [
        (&b"a: [1\n"[..], "f:1:4: this is not YAML"),
        (b"a: b\nc: \xff\n", "f:2:4: this is not text in UTF-8"),
        (
            b"\xef\xbb\xbfa: b\rc: \xff",
            "f:2:4: this is not text in UTF-8",
        ),
        (b"\xef\xbb\xbfa: \xff", "f:1:4: this is not text in UTF-8"),
    ] {
        let found = shown(&parse("f", bytes));
        assert!(
            found.len() == 1 && found[0].starts_with(expected),
            "{found:?}"
        );
    }
    let found = shown(&parse("f", &vec![b' '; yaml::MAX_FILE_BYTES + 1]));
    assert_eq!(found, ["f:1:1: this file is larger than 64 MiB: split it"]);
}
