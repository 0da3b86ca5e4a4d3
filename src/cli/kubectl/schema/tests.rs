use super::*;
use crate::util::yaml;

fn faults(kind: ManifestKind, text: &str) -> Vec<String> {
    let node = yaml::documents(text).remove(0).unwrap();
    let faults = super::faults(kind, &node);
    let shown = faults.iter().map(|fault| {
        let at = fault.at.unwrap_or_else(|| node.locate(&fault.field));
        format!("{at} {}: {}: {}", fault.reason, fault.field, fault.message)
    });
    shown.collect()
}

fn pki(spec: &str) -> Vec<String> {
    faults(
        ManifestKind::Pki,
        &format!("apiVersion: box.com/v1\nkind: Pki\nmetadata: {{name: a}}\nspec:\n  {spec}\n"),
    )
}

#[test]
fn a_spec_with_all_fields_has_no_fault() {
    let spec = "{serviceName: a, dnsNames: [b.example.com], usages: [server auth], duration: null,\n\
        secretTemplate: {labels: {x.y/z: \"1\"}}, privateKey: {size: 384}, renewBeforePercentage: 33,\n\
        outputs: {combinedPem: true, jks: {passwordSecretRef: {name: p}}}}";
    assert_eq!(pki(spec), Vec::<String>::new());
}

#[test]
fn values_that_the_schema_refuses_are_reported_with_their_place() {
    for (spec, expected) in [
        (
            "{serviceName: a, servicename: b}",
            "5:20 UnknownField: spec.servicename: unknown field \"spec.servicename\"; did you mean \"serviceName\"?",
        ),
        (
            "{serviceName: a, foo: b}",
            "5:20 UnknownField: spec.foo: unknown field \"spec.foo\"; `kubectl explain pki.spec` lists the fields",
        ),
        (
            "{serviceName: a, privateKey: {sise: 3}}",
            "5:33 UnknownField: spec.privateKey.sise: unknown field \"spec.privateKey.sise\"; did you mean \"size\"?",
        ),
        (
            "{serviceName: a, serviceName: b}",
            "5:4 DuplicateField: spec.serviceName: this key is written twice, and the last one counts: remove this one",
        ),
        (
            "{serviceName: on}",
            "5:17 InvalidField: spec.serviceName: wrong type: write a text; in quotes it is one: \"on\"",
        ),
        (
            "{serviceName: a, dnsNames: b}",
            "5:30 InvalidField: spec.dnsNames: wrong type: write a list",
        ),
        (
            "{serviceName: a, dnsNames: [b, [c]]}",
            "5:34 InvalidField: spec.dnsNames[1]: wrong type: write a text",
        ),
        (
            "{serviceName: a, privateKey: {size: big}}",
            "5:39 InvalidField: spec.privateKey.size: wrong type: write a whole number",
        ),
        (
            "{serviceName: a, privateKey: {algorithm: rsa}}",
            "5:44 InvalidField: spec.privateKey.algorithm: \"rsa\" is not supported: write one of [ECDSA, RSA, Ed25519]; did you mean \"RSA\"?",
        ),
        (
            "{serviceName: a, usages: [server auth, client auth, server auth]}",
            "5:28 InvalidField: spec.usages: write at most 2 of them, not 3",
        ),
        (
            "{serviceName: a, renewBeforePercentage: 91}",
            "5:43 InvalidField: spec.renewBeforePercentage: write at most 90, not 91",
        ),
        (
            "{serviceName: a, commonName: ''}",
            "5:32 InvalidField: spec.commonName: write at least 1 characters, not 0",
        ),
        (
            "{secretName: a}",
            "5:3 InvalidField: spec.serviceName: write it: `kubectl explain pki.spec.serviceName` says what",
        ),
        (
            "{serviceName: a, outputs: {jks: {}}}",
            "5:35 InvalidField: spec.outputs.jks.passwordSecretRef: write it: `kubectl explain pki.spec.outputs.jks.passwordSecretRef` says what",
        ),
        (
            "{serviceName: null, dnsNames: null}",
            "5:17 InvalidField: spec.serviceName: write it: `kubectl explain pki.spec.serviceName` says what",
        ),
    ] {
        assert_eq!(pki(spec), [expected], "{spec}");
    }
}

#[test]
fn what_kubectl_prints_of_a_stored_object_has_no_fault() {
    let text = "apiVersion: box.com/v1\nkind: Pki\nmetadata:\n  name: a\n  creationTimestamp: null\n  generation: 1\n\
        \x20 annotations: {a.b/c: d}\n  labels: null\n  finalizers: [a]\n  managedFields: [{manager: m, time: x, fieldsV1: {\"f:x\": {}}}]\n\
        \x20 ownerReferences: [{apiVersion: v1, kind: K, name: n, uid: u, controller: true}]\n\
        spec: {serviceName: a}\nstatus: {conditions: [], notAfter: x}\n";
    assert_eq!(faults(ManifestKind::Pki, text), Vec::<String>::new());
}

#[test]
fn metadata_and_the_object_itself_are_validated_too() {
    let text = "apiVersion: box.com/v1\nkind: PkiPolicy\nmetadata:\n  name: a\n  lables: {}\nspecs: {}\nspec: {serviceNames: []}\n";
    let expected = [
        "5:3 UnknownField: metadata.lables: unknown field \"metadata.lables\"; did you mean \"labels\"?",
        "6:1 UnknownField: specs: unknown field \"specs\"; did you mean \"spec\"?",
        "7:22 InvalidField: spec.serviceNames: write at least 1 of them, not 0",
    ];
    assert_eq!(faults(ManifestKind::PkiPolicy, text), expected);
    let text = "apiVersion: box.com/v1\nkind: Pki\nmetadata: {name: a, labels: {a: 1}, ownerReferences: [{kind: x, kind: y}]}\nspec: {serviceName: a}\n";
    let found = faults(ManifestKind::Pki, text);
    assert!(
        found
            .iter()
            .any(|fault| fault
                .starts_with("3:56 DuplicateField: metadata.ownerReferences[0].kind")),
        "{found:?}"
    );
    assert!(
        found.iter().any(|fault| fault
            .starts_with("3:33 InvalidField: metadata.labels.a: wrong type: write a text")),
        "{found:?}"
    );
}
