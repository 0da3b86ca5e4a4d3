use super::*;
use crate::cli::kubectl::policies;
use crate::policy::Settings;

const POLICY: &str = "apiVersion: box.com/v1\nkind: PkiPolicy\nmetadata: {name: teams}\n\
    spec: {serviceNames: ['{namespace}-*'], namespaces: {selector: {matchLabels: {stage: live}}}}\n";

fn run_text(cases: &str) -> TestOutcome {
    let files = [manifests::parse("p", POLICY.as_bytes())];
    let rules = policies::rule_book(Settings::default(), &files, &[]);
    let table = parse(cases).unwrap();
    run("t.yaml", &table, &rules, Timestamp::UNIX_EPOCH)
}

fn case(more: &str) -> String {
    format!("- {{name: c, namespace: team-a, labels: {{stage: live}}, {more}}}\n")
}

#[test]
fn cases_that_come_out_as_expected_pass() {
    let cases = [
        case("spec: {serviceName: team-a-web}, expect: admitted"),
        case("spec: {serviceName: team-a-web}, expect: admitted, policy: teams"),
        case("spec: {serviceName: team-b-web}, expect: refused"),
        case("spec: {serviceName: team-b-web}, expect: refused, reason: PkiServiceNameError, message: 'team-a-*'"),
        case("spec: {serviceName: team-a-web, foo: 1}, expect: refused, reason: UnknownField"),
        "- {name: other, namespace: team-a, spec: {serviceName: team-a-web}, expect: refused, message: no PkiPolicy}\n".into(),
    ];
    let outcome = run_text(&format!("cases:\n{}", cases.concat()));
    assert_eq!((outcome.failures.as_str(), outcome.passed), ("", 6));
    assert_eq!(outcome.summary(), "6 cases: 6 passed, 0 failed");
}

#[test]
fn a_case_that_fails_shows_the_actual_verdict() {
    for (more, expected) in [
        (
            "spec: {serviceName: team-a-web}, expect: refused, reason: PkiUriError",
            "t.yaml:2:3: FAILED c\n  expected: refused for the reason PkiUriError\n  got: admitted by PkiPolicy teams\n",
        ),
        (
            "spec: {serviceName: team-a-web}, expect: admitted, policy: other",
            "t.yaml:2:3: FAILED c\n  expected: admitted by PkiPolicy other\n  got: admitted by PkiPolicy teams\n",
        ),
        (
            "spec: {serviceName: Web}, expect: refused, message: allowedNames",
            "t.yaml:2:3: FAILED c\n  expected: refused, saying allowedNames\n  got: refused\n    PkiServiceNameError: spec.serviceName: \"Web\" is not a service name: write at most 63 lower-case letters, digits and '-', for example app1\n",
        ),
    ] {
        let outcome = run_text(&format!("cases:\n{}", case(more)));
        assert_eq!((outcome.failures.as_str(), outcome.failed), (expected, 1));
    }
}

#[test]
fn the_effective_values_are_shown_and_compared() {
    let spec = "spec: {serviceName: team-a-web, usages: null, duration: 720h}";
    let stated =
        "effective: {duration: 720h, usages: [server auth, client auth], privateKey.size: 256}";
    let outcome = run_text(&format!(
        "cases:\n{}",
        case(&format!("{spec}, expect: admitted, {stated}"))
    ));
    assert_eq!((outcome.failures.as_str(), outcome.passed), ("", 1));
    let values = "t.yaml:2:3: c\n  admitted by PkiPolicy teams\n    duration: 720h (from the Pki)\n    \
        renewBefore: 240h, a third of the duration (built in)\n    \
        usages: server auth, client auth (built in)\n    privateKey.algorithm: ECDSA (built in)\n    \
        privateKey.size: 256 (built in)\n    privateKey.encoding: PKCS8 (built in)\n    \
        privateKey.rotationPolicy: Always (built in)\n";
    assert_eq!(outcome.values, values);

    let outcome = run_text(&format!(
        "cases:\n{}",
        case(&format!(
            "{spec}, expect: admitted, effective: {{duration: 24h}}"
        ))
    ));
    assert_eq!(outcome.failed, 1);
    let beginning = "t.yaml:2:3: FAILED c\n  expected: admitted, with duration: 24h\n  \
        got: admitted by PkiPolicy teams\n    duration: 720h (from the Pki)\n";
    assert!(
        outcome.failures.starts_with(beginning),
        "{}",
        outcome.failures
    );
}

#[test]
fn a_file_that_is_no_table_is_reported_with_the_place() {
    for (text, expected) in [
        ("", "1:1: there are no cases"),
        ("cases: []", "1:1: there are no cases"),
        (
            "policy: []\ncases: []",
            "1:1: unknown field \"policy\": write policies or cases",
        ),
        (
            "cases:\n- {name: a}\n",
            "2:3: cannot be read: missing field `namespace`",
        ),
        (
            "cases:\n- {name: a, namespace: b, spec: {}, expect: maybe}\n",
            "2:3: cannot be read: unknown variant `maybe`",
        ),
        (
            "cases:\n- {name: a, namespace: b, spec: {}, expect: admitted, extra: 1}\n",
            "2:3: cannot be read: unknown field `extra`",
        ),
        (
            "policies: x\ncases: []",
            "1:11: cannot be read: invalid type",
        ),
        ("cases: [\n", "1:8: this is not YAML"),
        ("a: b\n---\nc: d\n", "3:1: write all cases in one document"),
    ] {
        let error = parse(text).unwrap_err();
        let shown = format!("{}: {error}", error.at);
        assert!(shown.starts_with(expected), "{text:?}: {shown}");
    }
}
