use super::*;
use crate::cli::kubectl::manifests;
use crate::policy::{Labels, Namespaces};
use kube::ResourceExt;
use std::sync::Arc;

/// Checks a text against the policies in it, and shows each finding in a line.
fn check_text(text: &str) -> Vec<String> {
    let report = report_of(text);
    report
        .findings
        .iter()
        .map(|finding| {
            format!(
                "{}: {}: {}",
                finding.place(),
                finding.severity.name(),
                finding.text()
            )
        })
        .collect()
}

fn report_of(text: &str) -> CheckReport {
    let files = [manifests::parse("f", text.as_bytes())];
    let namespaces = files[0].namespaces.iter();
    let namespaces: Namespaces = namespaces
        .map(|it| (it.name_any(), Labels::from_iter(it.labels().clone())))
        .collect();
    let rules =
        RuleBook::new(Arc::default(), &policies(&files)).with_namespaces(Arc::new(namespaces));
    let settings = CheckSettings {
        rules: &rules,
        answers: None,
        namespace: "app1",
        now: Timestamp::UNIX_EPOCH,
    };
    check(&files, &settings, || {})
}

const POLICY: &str = "apiVersion: box.com/v1\nkind: PkiPolicy\nmetadata: {name: p}\nspec: {serviceNames: [app1, app2], maxDuration: 100h}\n";

fn pki(name: &str, spec: &str) -> String {
    format!("---\napiVersion: box.com/v1\nkind: Pki\nmetadata:\n  name: {name}\nspec: {spec}\n")
}

#[test]
fn a_pki_that_is_permitted_has_no_finding() {
    let report = report_of(&format!(
        "{POLICY}{}",
        pki("a", "{serviceName: app1, duration: 2h}")
    ));
    assert_eq!(
        report,
        CheckReport {
            pkis: 1,
            policies: 1,
            ..CheckReport::default()
        }
    );
}

#[test]
fn faults_that_the_webhook_finds_have_its_words_and_a_place() {
    for (spec, expected) in [
        (
            "{serviceName: appp1, duration: 2h}",
            &[
                "f:10:21: error: Pki app1/a: spec.serviceName: ServiceName: appp1 in pki: a is not found in allowedNames: [app1 app2]; did you mean \"app1\"?",
            ][..],
        ),
        (
            "{serviceName: app1, duration: 2160h}",
            &[
                "f:10:37: error: Pki app1/a: spec.duration: 2160h is too long: PkiPolicy p permits at most 100h; write duration: 100h",
            ],
        ),
        (
            "{serviceName: app1, duration: 2h, dnsNames: [a.example.com, x.y.svc]}",
            &[
                "f:10:52: error: Pki app1/a: spec.dnsNames[0]: \"a.example.com\" is not permitted: PkiPolicy p permits none; remove it, or ask the platform team to permit it",
                "f:10:67: error: Pki app1/a: spec.dnsNames[1]: \"x.y.svc\" is a name inside the cluster, which belongs to Service x of namespace y: remove it; the certificate always includes app1.app1.svc",
            ],
        ),
        (
            "{}",
            &[
                "f:10:7: error: Pki app1/a: spec.serviceName: write the name of the service that the certificate is for, for example app1",
            ],
        ),
        (
            "",
            &[
                "f:10:1: error: Pki app1/a: spec.serviceName: write the name of the service that the certificate is for, for example app1",
            ],
        ),
        (
            "{serviceName: App1, duration: 2h}",
            &[
                "f:10:21: error: Pki app1/a: spec.serviceName: \"App1\" is not a service name: write at most 63 lower-case letters, digits and '-', for example app1",
            ],
        ),
    ] {
        let text = format!("{POLICY}{}", pki("a", spec));
        assert_eq!(check_text(&text), expected, "{spec}");
    }
}

#[test]
fn a_wrong_type_is_reported_for_the_value_and_not_for_its_parent() {
    let text = format!(
        "{POLICY}{}",
        pki(
            "a",
            "{serviceName: app1, duration: 2h, privateKey: {algorithm: rsa}}"
        )
    );
    let expected = "f:10:65: error: Pki app1/a: spec.privateKey.algorithm: \"rsa\" is not supported: write one of [ECDSA, RSA, Ed25519]; did you mean \"RSA\"?";
    assert_eq!(check_text(&text), [expected]);
    let text = format!("{POLICY}{}", pki("a", "{serviceName: on, duration: 2h}"));
    assert_eq!(
        check_text(&text),
        [
            "f:10:21: error: Pki app1/a: spec.serviceName: wrong type: write a text; in quotes it is one: \"on\""
        ]
    );
}

#[test]
fn of_two_pkis_that_claim_one_secret_the_later_one_is_warned() {
    let spec = "{serviceName: app1, duration: 2h, secretName: s}";
    let text = format!(
        "{POLICY}{}{}{}",
        pki("b", spec),
        pki("a", spec),
        pki("s", "{serviceName: app2, duration: 2h}")
    );
    let conflict = |place: &str, name: &str, field: &str| {
        format!(
            "f:{place}: warning: Pki app1/{name}: {field}: Secret s belongs to Pki app1/b, which claimed it first: choose another spec.secretName for Pki app1/{name}"
        )
    };
    assert_eq!(
        check_text(&text),
        [
            conflict("16:53", "a", "spec.secretName"),
            conflict("21:9", "s", "metadata.name")
        ]
    );
    let refused = format!(
        "{POLICY}{}{}",
        pki("b", "{serviceName: app9, duration: 2h, secretName: s}"),
        pki("a", spec)
    );
    assert_eq!(
        check_text(&refused).len(),
        1,
        "what is refused claims nothing"
    );
}

#[test]
fn an_object_that_is_there_twice_is_a_warning() {
    let one = pki("a", "{serviceName: app1, duration: 2h}");
    let found = check_text(&format!("{POLICY}{one}{one}"));
    let expected = "f:15:9: warning: Pki app1/a: metadata.name: this object is also at f:9:9: the one that is applied last counts";
    assert_eq!(found, [expected]);
}

#[test]
fn unknown_labels_that_decide_are_reported_once() {
    let policy = "apiVersion: box.com/v1\nkind: PkiPolicy\nmetadata: {name: p}\nspec: {serviceNames: [app1], namespaces: {selector: {matchLabels: {a: b}}}}\n";
    let pkis = pki("a", "{serviceName: app1}") + &pki("b", "{serviceName: app1}");
    let found = check_text(&format!("{policy}{pkis}"));
    let warned = found.iter().filter(|line| {
        line.contains("the labels of namespace app1 are not known: add its manifest with --policy")
    });
    assert_eq!(warned.count(), 1, "{found:#?}");
    let namespace =
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: app1, labels: {a: b}}\n";
    assert_eq!(
        check_text(&format!("{policy}{namespace}{pkis}")),
        Vec::<String>::new()
    );
}

#[test]
fn unreadable_metadata_and_missing_names_are_reported() {
    let pki = |metadata: &str| {
        format!(
            "{POLICY}---\napiVersion: box.com/v1\nkind: Pki\nmetadata: {metadata}\nspec: {{serviceName: app1, duration: 2h}}\n"
        )
    };
    for (metadata, expected) in [
        (
            "{}",
            "f:8:11: error: Pki app1/: metadata.name: write a name, for example app1-pki",
        ),
        (
            "{name: 1}",
            "f:8:18: error: Pki app1/: metadata.name: wrong type: write a text; in quotes it is one: \"1\"",
        ),
        (
            "[]",
            "f:8:11: error: Pki app1/: metadata: wrong type: write a mapping",
        ),
        (
            "{name: a, labels: {a: 1}}",
            "f:8:33: error: Pki app1/a: metadata.labels.a: wrong type: write a text; in quotes it is one: \"1\"",
        ),
    ] {
        let found = check_text(&pki(metadata));
        assert_eq!(found[0], expected, "{metadata}: {found:#?}");
    }
    assert_eq!(check_text(&pki("{generateName: a-}")), Vec::<String>::new());
}

#[test]
fn a_policy_that_the_schema_refuses_is_reported() {
    let text = "apiVersion: box.com/v1\nkind: PkiPolicy\nmetadata: {name: p}\nspec: {serviceNames: app1, maxduration: 1h}\n";
    let expected = [
        "f:4:22: error: PkiPolicy p: spec.serviceNames: wrong type: write a list",
        "f:4:28: error: PkiPolicy p: spec.maxduration: unknown field \"spec.maxduration\"; did you mean \"maxDuration\"?",
    ];
    assert_eq!(check_text(text), expected);
}

#[test]
fn fields_that_the_api_server_sets_change_no_verdict() {
    for field in [
        "deletionTimestamp: 2020-01-01T00:00:00Z",
        "managedFields: []",
        "uid: u",
    ] {
        let text = format!(
            "apiVersion: box.com/v1\nkind: Pki\nmetadata:\n  name: a\n  {field}\nspec: {{serviceName: evil}}\n"
        );
        let files = [manifests::parse("a.yaml", text.as_bytes())];
        let rules = RuleBook::default();
        let settings = CheckSettings {
            rules: &rules,
            answers: None,
            namespace: "ns",
            now: Timestamp::UNIX_EPOCH,
        };
        assert_eq!(check(&files, &settings, || {}).violations(), 1, "{field}");
    }
}

#[test]
fn metadata_are_judged_as_the_api_server_does_and_the_name_is_to_blame_for_the_secret() {
    let pki = |metadata: &str, spec: &str| {
        format!(
            "{POLICY}---\napiVersion: box.com/v1\nkind: Pki\nmetadata: {metadata}\nspec: {spec}\n"
        )
    };
    let spec = "{serviceName: app1, duration: 2h}";
    for (metadata, expected) in [
        (
            "{name: App1}",
            "f:8:18: error: Pki app1/App1: metadata.name: \"App1\" is not a name: write",
        ),
        (
            "{name: a, labels: {'a b': c}}",
            "f:8:30: error: Pki app1/a: metadata.labels: \"a b\" is not a key: write",
        ),
        (
            "{name: a, annotations: {box.com/keep-secrets: 'true'}}",
            "f:8:35: warning: Pki app1/a: metadata.annotations: \"box.com/keep-secrets\" is unknown and has no effect; did you \
             mean \"box.com/keep-secret\"?",
        ),
        (
            "{name: a, annotations: {box.com/keep-secret: 'yes'}}",
            "f:8:35: warning: Pki app1/a: metadata.annotations: \"box.com/keep-secret\" has no effect with the value \"yes\"",
        ),
    ] {
        let found = check_text(&pki(metadata, spec));
        assert!(
            found.len() == 1 && found[0].starts_with(expected),
            "{expected}: {found:#?}"
        );
    }
    let named = "{serviceName: app1, duration: 2h, secretName: App1}";
    let found = check_text(&pki("{name: App1}", named));
    assert_eq!(found.len(), 2, "both are written: {found:#?}");
    for spec in [spec, "{serviceName: app1, duration: 2h, secretName: }"] {
        let text = pki("{name: pki-operator-ca, namespace: pki-operator}", spec);
        let settings = crate::policy::Settings {
            namespace: "pki-operator".into(),
            reserved_secrets: vec!["pki-operator-ca".into()],
            ..crate::policy::Settings::default()
        };
        let files = [manifests::parse("f", text.as_bytes())];
        let rules = RuleBook::new(Arc::new(settings), &policies(&files));
        let settings = CheckSettings {
            rules: &rules,
            answers: None,
            namespace: "app1",
            now: Timestamp::UNIX_EPOCH,
        };
        let report = check(&files, &settings, || {});
        let findings: Vec<_> = report.findings.iter().map(Finding::text).collect();
        assert_eq!(
            findings,
            [
                "Pki pki-operator/pki-operator-ca: metadata.name: Secret pki-operator-ca belongs to the operator: choose another name"
            ]
        );
    }
}

#[test]
fn a_template_has_no_other_finding() {
    for (text, place) in [
        (
            pki("a", "{serviceName: '{{ .Values.x }}', foo: 1}"),
            "10:21",
        ),
        (pki("\"{{ .Release.Name }}\"", "{}"), "9:9"),
        (pki("a", "{serviceName: {{ .Values.x }}}"), "10:21"),
        (pki("{{ .Release.Name }}-pki", "{serviceName: app1}"), "9:9"),
        (
            "---\n{{- if .Values.tls }}\nkind: Pki\n{{- end }}\n".to_owned(),
            "6:1",
        ),
    ] {
        let found = check_text(&format!("{POLICY}{text}"));
        let begin = format!("f:{place}: error: ");
        assert!(
            found.len() == 1
                && found[0].starts_with(&begin)
                && found[0].contains("this is an unrendered template ({{"),
            "{text}: {found:#?}"
        );
    }
}

#[test]
fn annotations_without_effect_are_found_on_objects_of_other_kinds() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    metadata:\n      annotations:\n        \
        box.com/restart-on-renewal: 'true'\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: team, labels: {box.com/trust-bundle: 'yes'}}\n\
        ---\napiVersion: v1\nkind: Secret\nmetadata: {name: s, annotations: {box.com/adopt: app1-pki}}\n";
    let found = check_text(text);
    let expected = [
        "f:8:9: warning: Deployment app1/web: spec.template.metadata.annotations: \"box.com/restart-on-renewal\" has no effect on",
        "f:12:33: warning: Namespace team: metadata.labels: \"box.com/trust-bundle\" has no effect with the value \"yes\"",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{expected}: {found}");
    }
}

#[test]
fn the_answer_of_the_api_server_counts_in_the_place_of_policies() {
    let text = pki("a", "{serviceName: app1}")
        + &pki("b", "{serviceName: app2, foo: 1}")
        + &pki("c", "{serviceName: app1}")
        + &pki("d", "{serviceName: app1, secretName: c}");
    let files = [manifests::parse("f", text.as_bytes())];
    let refused = Answer {
        errors: vec![Fault::new("spec.serviceName", "PkiServiceNameError", "no")],
        warnings: vec![Fault::new("spec.secretName", reason::CONFLICT, "taken")],
    };
    let settings = CheckSettings {
        rules: &RuleBook::default(),
        answers: Some(&[
            refused,
            Answer::default(),
            Answer::default(),
            Answer::default(),
        ]),
        namespace: "ns",
        now: Timestamp::UNIX_EPOCH,
    };
    let report = check(&files, &settings, || {});
    let found = report.findings.iter();
    let found: Vec<_> = found
        .map(|it| format!("{}: {}: {}", it.place(), it.reason, it.text()))
        .collect();
    assert_eq!(
        found,
        [
            "f:5:9: PkiSecretConflict: Pki ns/a: metadata.name: taken",
            "f:6:21: PkiServiceNameError: Pki ns/a: spec.serviceName: no",
            "f:12:27: UnknownField: Pki ns/b: spec.foo: unknown field \"spec.foo\"; `kubectl explain pki.spec` lists the fields",
            "f:24:39: PkiSecretConflict: Pki ns/d: spec.secretName: Secret c belongs to Pki ns/c, which claimed it first: choose \
             another spec.secretName for Pki ns/d",
        ]
    );
}
