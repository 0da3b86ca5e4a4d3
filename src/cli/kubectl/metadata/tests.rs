use super::*;
use crate::util::yaml;

fn node(text: &str) -> Node {
    yaml::documents(text).remove(0).unwrap()
}

fn shown(faults: &[Fault]) -> Vec<String> {
    let faults = faults.iter();
    faults
        .map(|fault| format!("{}: {}", fault.field, fault.message))
        .collect()
}

fn judge(kind: ManifestKind, metadata: &str) -> Vec<String> {
    shown(&errors(kind, &node(&format!("metadata: {metadata}"))))
}

#[test]
fn metadata_that_the_api_server_takes_have_no_fault() {
    let long = format!("{{name: {}}}", "a".repeat(253));
    for metadata in [
        "{name: a}",
        "{name: a.b-c.9}",
        "{generateName: a-}",
        "{generateName: a}",
        "{name: a, namespace: team-a, labels: {a: '', b.c/D_e: F.g}, annotations: {X.Y/Z: 'any ü text'}}",
        "{name: a, finalizers: [example.com/hold]}",
        "{name: a, labels: , annotations: ~}",
        &long,
    ] {
        assert_eq!(
            judge(ManifestKind::Pki, metadata),
            Vec::<String>::new(),
            "{metadata}"
        );
    }
    assert_eq!(
        judge(ManifestKind::PkiPolicy, "{name: a, namespace: A_B}"),
        Vec::<String>::new(),
        "the API server drops it"
    );
}

#[test]
fn metadata_that_the_api_server_refuses_are_reported_with_a_remedy() {
    let long = format!("{{name: {}}}", "a".repeat(254));
    let huge = format!("{{name: a, annotations: {{a: {}}}}}", "x".repeat(262_145));
    for (metadata, expected) in [
        (
            "{name: App1}",
            "metadata.name: \"App1\" is not a name: write lower-case letters, digits",
        ),
        ("{name: a_b}", "metadata.name: \"a_b\" is not a name"),
        ("{name: -a}", "metadata.name: \"-a\" is not a name"),
        ("{name: a/b}", "metadata.name: \"a/b\" is not a name"),
        (&long, "metadata.name: \"aaa"),
        (
            "{generateName: A-}",
            "metadata.generateName: \"A-\" is not the beginning of a name",
        ),
        (
            "{generateName: '-'}",
            "metadata.generateName: \"-\" is not the beginning",
        ),
        (
            "{generateName: a.}",
            "metadata.generateName: \"a.\" is not the beginning",
        ),
        (
            "{generateName: a_}",
            "metadata.generateName: \"a_\" is not the beginning",
        ),
        (
            "{name: a, namespace: Team_A}",
            "metadata.namespace: \"Team_A\" is not the name of a namespace",
        ),
        (
            "{name: a, labels: {'a b': c}}",
            "metadata.labels: \"a b\" is not a key",
        ),
        (
            "{name: a, labels: {A.B/c: d}}",
            "metadata.labels: \"A.B/c\" is not a key",
        ),
        (
            "{name: a, labels: {a: 'b c'}}",
            "metadata.labels: \"b c\" cannot be the value of \"a\"",
        ),
        (
            "{name: a, annotations: {a/b/c: d}}",
            "metadata.annotations: \"a/b/c\" is not a key",
        ),
        (&huge, "metadata.annotations: 262146 bytes are too many"),
        (
            "{name: a, finalizers: ['a b']}",
            "metadata.finalizers[0]: \"a b\" is not a key",
        ),
    ] {
        let shown = judge(ManifestKind::Pki, metadata);
        assert!(
            shown.len() == 1 && shown[0].starts_with(expected),
            "{expected}: {shown:?}"
        );
    }
}

#[test]
fn entries_without_effect_are_found_in_objects_and_in_pod_templates() {
    let of = |text: &str| {
        let node = node(text);
        shown(&ignored(carrier(&node), &node))
    };
    let restart = "annotations: {box.com/restart-on-renewal: 'true'}";
    for (api_version, kind, is_fine) in [
        ("apps/v1", "Deployment", true),
        ("apps/v1", "StatefulSet", true),
        ("apps/v1", "DaemonSet", true),
        ("apps/v1", "ReplicaSet", false),
        ("v1", "Pod", false),
        ("argoproj.io/v1alpha1", "Rollout", false),
    ] {
        let head = format!("apiVersion: {api_version}\nkind: {kind}\n");
        let own = of(&format!("{head}metadata: {{name: a, {restart}}}"));
        assert_eq!(own.is_empty(), is_fine, "{kind}: {own:?}");
    }
    let template = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {metadata: {annotations: \
        {box.com/restart-on-renewal: 'true'}}}}";
    assert_eq!(
        of(template),
        [
            "spec.template.metadata.annotations: \"box.com/restart-on-renewal\" has no effect on a pod template: write it as \
             annotation of a Deployment, a StatefulSet or a DaemonSet, not of its pod template"
        ]
    );
    let cron = "apiVersion: batch/v1\nkind: CronJob\nspec: {jobTemplate: {spec: {template: {metadata: {labels: {box.com/x: z}}}}}}";
    assert_eq!(of(cron).len(), 1);
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {box.com/trust-bundle: 'yes'}}";
    assert_eq!(of(namespace).len(), 1);
}
