use super::*;
use serde_json::{Value, json};

fn judge(carrier: Carrier, meta: Value) -> Vec<String> {
    let meta = serde_json::from_value(meta).unwrap();
    faults(carrier, &meta)
}

#[test]
fn booleans_are_read_as_go_reads_them() {
    for (written, read) in [("true", true), ("false", false)] {
        let spellings = match written {
            "true" => ["1", "t", "T", "TRUE", "true", "True"],
            _ => ["0", "f", "F", "FALSE", "false", "False"],
        };
        for spelling in spellings {
            assert_eq!(parse_bool(spelling), Some(read), "{spelling}");
        }
    }
    for other in ["", "yes", "on", "tRUE", "TrUe", " true", "true ", "01", "y"] {
        assert_eq!(parse_bool(other), None, "{other}");
        let entries = BTreeMap::from([(KEEP_SECRET.to_owned(), other.to_owned())]);
        assert_eq!(flag(&entries, KEEP_SECRET), None, "{other}");
    }
    assert_eq!(flag(&BTreeMap::new(), KEEP_SECRET), None);
}

#[test]
fn the_fence_takes_the_spellings_of_true_that_the_operator_takes() {
    let fence = include_str!("../../../charts/pki-operator/templates/fence.yaml");
    let spellings = TRUE.map(|spelling| format!("\"{spelling}\"")).join(", ");
    let expected = format!("[?\"{RESTART}\"].orValue(\"\") in [{spellings}]");
    assert!(fence.contains(&expected), "{expected}");
}

#[test]
fn entries_with_an_effect_are_no_faults() {
    let fingerprint = "0123456789abcdef".repeat(4);
    for (carrier, meta) in [
        (
            Carrier::Pki,
            json!({"annotations": {RENEW_NOW: "", KEEP_SECRET: "True", RENEWAL_EVENTS: "0"}}),
        ),
        (Carrier::Secret, json!({"annotations": {ADOPT: "app1-pki"}})),
        (
            Carrier::Namespace,
            json!({"labels": {TRUST_BUNDLE: "TRUE"}}),
        ),
        (Carrier::Deployment, json!({"annotations": {RESTART: "t"}})),
        (Carrier::StatefulSet, json!({"annotations": {RESTART: "1"}})),
        (
            Carrier::DaemonSet,
            json!({"annotations": {RESTART: "false"}}),
        ),
        (
            Carrier::CaSecret,
            json!({"annotations": {ROTATE_NOW: "force", ACCEPT: fingerprint, FORCED: "x", PREVIOUS_SINCE: "y"}}),
        ),
        (Carrier::CaSecret, json!({"annotations": {ROTATE_NOW: ""}})),
        (
            Carrier::CaSecret,
            json!({"annotations": {ROTATE_NOW: "please"}}),
        ),
        (Carrier::Pod, json!({"annotations": {SECRET_PATH: "true"}})),
        (
            Carrier::ConfigMap,
            json!({"labels": {TRUST_BUNDLE: "true"}}),
        ),
        (
            Carrier::Pki,
            json!({"labels": {"app": "a", "example.com/keep-secret": "x"}}),
        ),
        (
            Carrier::Pki,
            json!({"annotations": {"box.comx/keep-secret": "x", "notbox.com/keep-secret": "x", "box.com": "x"}}),
        ),
        (
            Carrier::Pki,
            json!({"annotations": {"pipelines.box.com/stage": "x", "/": "x", "ö/keep-secret": "x"}}),
        ),
        (Carrier::Pki, json!({})),
    ] {
        assert_eq!(judge(carrier, meta.clone()), Vec::<String>::new(), "{meta}");
    }
}

#[test]
fn entries_without_effect_are_reported_with_a_remedy() {
    let annotation = |key: &str, value: &str| json!({"annotations": {key: value}});
    let label = |key: &str, value: &str| json!({"labels": {key: value}});
    for (carrier, meta, expected) in [
        (
            Carrier::Pki,
            annotation("box.com/keep-secrets", "true"),
            "metadata.annotations: \"box.com/keep-secrets\" is unknown and has no effect; did you mean \"box.com/keep-secret\"?",
        ),
        (
            Carrier::Pki,
            annotation("Box.com/Keep-Secret", "true"),
            "metadata.annotations: \"Box.com/Keep-Secret\" is unknown and has no effect; did you mean \"box.com/keep-secret\"?",
        ),
        (
            Carrier::Pki,
            annotation("pki.box.com/keep-secret", "true"),
            "metadata.annotations: \"pki.box.com/keep-secret\" is unknown and has no effect; did you mean \"box.com/keep-secret\"?",
        ),
        (
            Carrier::Pki,
            annotation("box.com/team", "a"),
            "metadata.annotations: \"box.com/team\" is unknown and has no effect: the keys for a Pki are [box.com/renew-now, \
             box.com/renewal-events, box.com/keep-secret]",
        ),
        (
            Carrier::Pod,
            label("box.com/team", "a"),
            "metadata.labels: \"box.com/team\" is unknown and has no effect: remove it, or use a key outside of box.com/",
        ),
        (
            Carrier::Pki,
            annotation(KEEP_SECRET, "yes"),
            "metadata.annotations: \"box.com/keep-secret\" has no effect with the value \"yes\": write \"true\" or \"false\"",
        ),
        (
            Carrier::Namespace,
            label(TRUST_BUNDLE, "on"),
            "metadata.labels: \"box.com/trust-bundle\" has no effect with the value \"on\": write \"true\" or \"false\"",
        ),
        (
            Carrier::Namespace,
            annotation(TRUST_BUNDLE, "true"),
            "metadata.annotations: \"box.com/trust-bundle\" has no effect as annotation: write it as label, in metadata.labels",
        ),
        (
            Carrier::Pki,
            label(KEEP_SECRET, "true"),
            "metadata.labels: \"box.com/keep-secret\" has no effect as label: write it as annotation, in metadata.annotations",
        ),
    ] {
        assert_eq!(judge(carrier, meta.clone()), [expected], "{meta}");
    }
}

#[test]
fn misplaced_entries_are_reported_with_the_place() {
    let annotation = |key: &str, value: &str| json!({"annotations": {key: value}});
    for (carrier, meta, expected) in [
        (
            Carrier::Pod,
            annotation(RESTART, "true"),
            "metadata.annotations: \"box.com/restart-on-renewal\" has no effect on a Pod: write it as annotation of a Deployment, \
             a StatefulSet or a DaemonSet, not of its pod template",
        ),
        (
            Carrier::Pki,
            annotation(RESTART, "true"),
            "metadata.annotations: \"box.com/restart-on-renewal\" has no effect on a Pki: write it as annotation of a Deployment, \
             a StatefulSet or a DaemonSet",
        ),
        (
            Carrier::Secret,
            annotation(KEEP_SECRET, "true"),
            "metadata.annotations: \"box.com/keep-secret\" has no effect on a Secret: write it as annotation of a Pki",
        ),
        (
            Carrier::Secret,
            annotation(ROTATE_NOW, "force"),
            "metadata.annotations: \"box.com/rotate-now\" has no effect on a Secret: write it as annotation of the Secret of a CA",
        ),
        (
            Carrier::Secret,
            annotation(ADOPT, "App 1"),
            "metadata.annotations: \"box.com/adopt\" has no effect with the value \"App 1\", which cannot be the name of a Pki: \
             write one, for example app1-pki",
        ),
        (
            Carrier::CaSecret,
            annotation(ACCEPT, "AB:CD"),
            "metadata.annotations: \"box.com/accept-ca\" has no effect with the value \"AB:CD\": write the SHA-256 fingerprint of \
             the CA, 64 lower-case hexadecimal digits without colons",
        ),
        (
            Carrier::CaSecret,
            annotation(ROTATE_NOW, "Forced"),
            "metadata.annotations: \"box.com/rotate-now\" with the value \"Forced\" asks for a rotation without force: write \
             \"force\" if you mean that, or remove the annotation if you mean none",
        ),
        (
            Carrier::CaSecret,
            annotation(ROTATE_NOW, "false"),
            "metadata.annotations: \"box.com/rotate-now\" with the value \"false\" asks for a rotation without force: write \
             \"force\" if you mean that, or remove the annotation if you mean none",
        ),
        (
            Carrier::Pki,
            annotation(PREVIOUS_SINCE, "x"),
            "metadata.annotations: \"box.com/previous-since\" has no effect on a Pki: only the operator sets it; remove it",
        ),
    ] {
        assert_eq!(judge(carrier, meta.clone()), [expected], "{meta}");
    }
}

#[test]
fn hostile_metadata_are_reported_in_few_words() {
    let many: BTreeMap<_, _> = (0..1000)
        .map(|n| (format!("box.com/x{n}\u{1b}"), "y".repeat(10_000)))
        .collect();
    let lines = judge(Carrier::Pki, json!({ "labels": many, "annotations": many }));
    assert_eq!(lines.len(), MAX_FAULTS);
    let long = "z".repeat(100_000);
    let more = judge(
        Carrier::Pki,
        json!({"annotations": {KEEP_SECRET: long, format!("box.com/{long}"): ""}}),
    );
    for line in lines.iter().chain(&more) {
        assert!(line.len() < 400 && !line.contains('\u{1b}'), "{line}");
    }
}
