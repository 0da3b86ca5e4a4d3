use super::*;
use serde_json::{Value, json};

fn used(spec: &Value) -> Vec<String> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": "pod", "uid": "u"}, "spec": spec
    }))
    .unwrap();
    SecretUser::from(pod)
        .secrets()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn every_way_to_use_a_secret_counts_once() {
    let container = |name: &str| {
        json!({"name": name, "env": [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": format!("{name}-env"), "key": "k"}}},
        {"name": "B", "value": "plain"}
    ], "envFrom": [{"secretRef": {"name": format!("{name}-all"), "optional": true}}, {"configMapRef": {"name": "no"}}]})
    };
    assert_eq!(
        used(&json!({
            "containers": [container("main")], "initContainers": [container("init")],
            "ephemeralContainers": [container("eph")],
            "volumes": [
                {"name": "v1", "secret": {"secretName": "volume"}},
                {"name": "v2", "secret": {"secretName": "volume"}},
                {"name": "v3", "projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "no"}}]}},
                {"name": "v4", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
                {"name": "v5", "emptyDir": {}}
            ],
            "imagePullSecrets": [{"name": "no-pull"}]
        })),
        [
            "csi",
            "eph-all",
            "eph-env",
            "init-all",
            "init-env",
            "main-all",
            "main-env",
            "projected",
            "volume"
        ]
    );
}

#[test]
fn a_pod_that_is_over_uses_nothing() {
    let pod = |status: Value, deleted: Value| {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "pod", "deletionTimestamp": deleted},
            "spec": {"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "s"}}]},
            "status": status
        }))
        .unwrap();
        SecretUser::from(pod).secrets().count()
    };
    assert_eq!(pod(json!({"phase": "Pending"}), Value::Null), 1);
    assert_eq!(pod(json!({"phase": "Running"}), Value::Null), 1);
    assert_eq!(pod(json!({"phase": "Succeeded"}), Value::Null), 0);
    assert_eq!(pod(json!({"phase": "Failed"}), Value::Null), 0);
}

#[test]
fn a_pod_that_is_being_deleted_uses_its_secrets_until_it_is_gone_and_nobody_reads_it() {
    let spec = mounting(&json!({"secretName": "s"}));
    let ending = json!({"metadata": {"deletionTimestamp": "2030-01-01T00:00:00Z"}});
    let pod = user(&spec, &ending);
    assert!(pod.is_ending && !pod.is_pending && !pod.waits_for("s"));
    let mut index = SecretIndex::default();
    index.apply(kube::runtime::watcher::Event::Apply(pod));
    let secret = Key::new("ns", "s");
    assert_eq!(index.referencing(&secret).count(), 1);
    assert_eq!(users(&index, &secret).count(), 0);
    index.apply(kube::runtime::watcher::Event::Apply(user(
        &spec,
        &json!({}),
    )));
    assert_eq!(users(&index, &secret).count(), 1);
}

/// As in `Secret s key.der`.
fn needed(spec: &Value, more: &Value) -> Vec<String> {
    let pod = user(spec, more);
    let needs = pod.needs().iter();
    needs
        .map(|need| format!("{:?} {} {}", need.object, need.name, need.file))
        .collect()
}

#[test]
fn what_a_pod_cannot_start_without_is_kept_and_nothing_that_every_secret_has() {
    let items = |keys: &[&str]| {
        let items = keys.iter().map(|key| json!({"key": key, "path": "p"}));
        items.collect::<Vec<_>>()
    };
    let container = |suffix: &str, optional: bool| {
        json!({"name": suffix, "env": [
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": format!("{suffix}.der"), "optional": optional}}},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c", "key": suffix, "optional": optional}}}],
            "envFrom": [{"configMapRef": {"name": format!("all-{suffix}"), "optional": optional}}]})
    };
    let spec = json!({
        "containers": [container("main", false), container("optional", true)],
        "initContainers": [container("init", false)], "ephemeralContainers": [container("eph", false)],
        "volumes": [
            {"name": "v1", "secret": {"secretName": "s", "items": items(&["tls.crt", "keystore.p12", "ca.crt"])}},
            {"name": "v2", "secret": {"secretName": "o", "optional": true, "items": items(&["x"])}},
            {"name": "v3", "secret": {"secretName": "whole"}},
            {"name": "v4", "configMap": {"name": "c", "items": items(&["f"])}},
            {"name": "v5", "configMap": {"name": "kube-root-ca.crt"}},
            {"name": "v6", "projected": {"sources": [
                {"secret": {"name": "s", "items": items(&["key.der", "tls.key"])}},
                {"configMap": {"name": "p"}}, {"configMap": {"name": "q", "optional": true}},
                {"clusterTrustBundle": {"name": "b", "path": "p"}},
                {"clusterTrustBundle": {"signerName": "example.com/s", "path": "p"}}]}}
        ]
    });
    let files = [
        "Secret s eph.der",
        "Secret s init.der",
        "Secret s key.der",
        "Secret s keystore.p12",
        "Secret s main.der",
    ];
    let others = [
        "ConfigMap all-eph ",
        "ConfigMap all-init ",
        "ConfigMap all-main ",
        "ConfigMap c eph",
        "ConfigMap c f",
        "ConfigMap c init",
        "ConfigMap c main",
        "ConfigMap p ",
        "ClusterTrustBundle b ",
    ];
    let all = [&files[..], &others].concat();
    assert_eq!(needed(&spec, &json!({})), all);
    let running = json!({"status": {"phase": "Running"}});
    assert_eq!(needed(&spec, &running), files, "of those that have started");
    let over = json!({"status": {"phase": "Succeeded"}});
    assert_eq!(needed(&spec, &over), Vec::<String>::new());
    let pod = user(&spec, &running);
    assert!(pod.needs_file("s", "key.der") && !pod.needs_file("s", "x"));
    assert!(!pod.needs_file("whole", "key.der"));
}

/// A pod `ns/pod` with this spec, and what else is said of it.
fn user(spec: &Value, more: &Value) -> SecretUser {
    let mut pod = json!({
        "metadata": {"namespace": "ns", "name": "pod", "uid": "u", "creationTimestamp": "2030-01-01T00:00:00Z"},
        "spec": spec
    });
    json_patch::merge(&mut pod, more);
    serde_json::from_value::<Pod>(pod).unwrap().into()
}

fn mounting(secret: &Value) -> Value {
    json!({"containers": [], "volumes": [{"name": "v", "secret": secret}]})
}

#[test]
fn a_reference_that_is_not_optional_makes_the_secret_needed() {
    let volume = |optional: bool| json!({"secretName": "s", "optional": optional});
    let both = json!({
        "containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}],
        "volumes": [{"name": "v", "secret": volume(true)}]
    });
    for (spec, is_optional, in_environment) in [
        (mounting(&volume(true)), true, false),
        (mounting(&volume(false)), false, false),
        (mounting(&json!({"secretName": "s"})), false, false),
        (both, false, true),
    ] {
        let pod = user(&spec, &json!({}));
        let expected = Use {
            is_optional,
            in_environment,
        };
        assert_eq!(pod.use_of("s"), Some(expected), "{spec}");
        assert_eq!(pod.waits_for("s"), !is_optional);
    }
    let runs = user(
        &mounting(&json!({"secretName": "s"})),
        &json!({"status": {"phase": "Running"}}),
    );
    assert!(!runs.waits_for("s") && !runs.waits_for("other"));
}

#[test]
fn a_deployment_is_known_by_the_name_of_its_replica_set() {
    let owned = |kind: &str, name: &str, labels: Value| {
        let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "o", "controller": true});
        let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "p"});
        let meta = json!({"metadata": {"ownerReferences": [other, owner], "labels": labels}});
        let controller = user(&json!({"containers": []}), &meta).controller.unwrap();
        (controller.kind, controller.name, controller.deployment)
    };
    let hash = json!({"pod-template-hash": "5d"});
    let of = |kind: &str, name: &str, deployment: Option<&str>| {
        (
            kind.to_owned(),
            name.to_owned(),
            deployment.map(str::to_owned),
        )
    };
    assert_eq!(
        owned("ReplicaSet", "web-5d", hash.clone()),
        of("ReplicaSet", "web-5d", Some("web"))
    );
    assert_eq!(
        owned("ReplicaSet", "web5d", hash.clone()),
        of("ReplicaSet", "web5d", None)
    );
    assert_eq!(
        owned("ReplicaSet", "web-5d", json!({})),
        of("ReplicaSet", "web-5d", None)
    );
    assert_eq!(
        owned("StatefulSet", "web-5d", hash),
        of("StatefulSet", "web-5d", None)
    );
    assert_eq!(
        user(&json!({"containers": []}), &json!({})).controller,
        None
    );
}

#[test]
fn a_pod_has_read_what_was_there_when_its_first_container_began() {
    let at = |minute: u8| format!("2030-01-01T00:{minute:02}:00Z");
    let running = |minute| json!({"state": {"running": {"startedAt": at(minute)}}});
    let restarted = |before, minute| {
        let last =
            json!({"terminated": {"exitCode": 1, "startedAt": at(before), "finishedAt": null}});
        json!({"state": {"running": {"startedAt": at(minute)}}, "lastState": last})
    };
    let waiting = || json!({"state": {"waiting": {"reason": "CreateContainerConfigError"}}});
    // Made at 0; renewed at 10.
    for (phase, containers, has_read) in [
        ("Pending", json!([]), false),
        ("Pending", json!([waiting()]), false),
        ("Pending", json!([waiting(), running(5)]), true),
        ("Running", json!([]), true),
        ("Running", json!([running(5)]), true),
        ("Running", json!([running(10)]), false),
        ("Running", json!([running(11), running(9)]), true),
        ("Running", json!([running(11), running(12)]), false),
        ("Running", json!([restarted(9, 11)]), true),
        ("Running", json!([restarted(11, 12)]), false),
    ] {
        let status = json!({"phase": phase, "containerStatuses": statuses(&containers)});
        let pod = user(
            &mounting(&json!({"secretName": "s"})),
            &json!({"status": status}),
        );
        let renewed = at(10).parse().unwrap();
        assert_eq!(pod.has_read_before(renewed), has_read, "{status}");
        assert!(!pod.has_read_before(pod.created), "it was made later");
    }
}

/// With what the API requires beside the states.
fn statuses(containers: &Value) -> Value {
    let mut containers = containers.clone();
    for container in containers.as_array_mut().unwrap() {
        let rest =
            json!({"name": "c", "image": "c", "imageID": "", "ready": false, "restartCount": 0});
        json_patch::merge(container, &rest);
    }
    containers
}

#[test]
fn how_a_pod_fares_is_no_news() {
    let spec = mounting(&json!({"secretName": "s"}));
    let change = |before: Option<Value>, after: Option<Value>| {
        let side = |more: Option<Value>| more.map(|more| std::sync::Arc::new(user(&spec, &more)));
        is_news(&Change {
            before: side(before),
            after: side(after),
        })
    };
    let running = json!({"status": {"phase": "Running"}});
    assert!(change(None, Some(json!({}))));
    assert!(!change(Some(json!({})), Some(running)));
    assert!(change(
        Some(json!({})),
        Some(json!({"metadata": {"uid": "another"}}))
    ));
    assert!(change(
        Some(json!({})),
        Some(json!({"status": {"phase": "Failed"}}))
    ));
    assert!(!change(Some(json!({})), None));
}
