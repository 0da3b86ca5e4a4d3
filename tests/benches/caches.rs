//! What the operator keeps of Pkis and pods, and how fast it finds them: `cargo bench --bench
//! caches`.

use criterion::{Criterion, criterion_group, criterion_main};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use pki_operator::api::Pki;
use pki_operator::k8s::object_key::Key;
use pki_operator::store::cached_pki::KnownPki;
use pki_operator::store::cached_pod::SecretUser;
use pki_operator::store::secret_index::SecretIndex;
use serde_json::json;
use std::collections::HashSet;
use std::hint::black_box;

const PODS: usize = 10_000;
/// As many replicas use the same Secret.
const REPLICAS: usize = 3;

criterion_group!(benches, pods, pkis);
criterion_main!(benches);

fn pods(criterion: &mut Criterion) {
    let all: Vec<_> = (0..PODS).map(pod).collect();
    let mut index = SecretIndex::default();
    for pod in &all {
        index.apply(Event::Apply(SecretUser::from(pod.clone())));
    }
    let secret = Key::new("team-7", "app-2307");
    assert_eq!(index.referencing(&secret).count(), REPLICAS);

    let mut group = criterion.benchmark_group("10,000 pods");
    group.bench_function("those that use a Secret are found", |bench| {
        bench.iter(|| index.referencing(black_box(&secret)).count());
    });
    // The bound: a look at a set, and nothing else.
    let names: HashSet<_> = all.iter().map(Key::of).collect();
    let own = Key::of(&all[5]);
    group.bench_function("one is found by its name", |bench| {
        bench.iter(|| names.contains(black_box(&own)));
    });
    // Most of what a watch tells of pods is none of the operator's business.
    group.bench_function("one is told of again", |bench| {
        bench.iter_batched(
            || SecretUser::from(all[5].clone()),
            |user| index.apply(Event::Apply(user)),
            criterion::BatchSize::SmallInput,
        );
    });
    group.bench_function("one is read", |bench| {
        bench.iter_batched(
            || all[5].clone(),
            SecretUser::from,
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn pkis(criterion: &mut Criterion) {
    let pki = pki();
    let mut group = criterion.benchmark_group("a Pki");
    group.bench_function("is packed", |bench| {
        bench.iter_batched(
            || pki.clone(),
            KnownPki::from,
            criterion::BatchSize::SmallInput,
        );
    });
    let known = KnownPki::from(pki.clone());
    group.bench_function("is unpacked", |bench| {
        bench.iter(|| black_box(&known).unpack());
    });
    // The bound: to write and to read the text.
    group.bench_function("is written as JSON", |bench| {
        bench.iter(|| serde_json::to_vec(black_box(&pki)));
    });
    let json = serde_json::to_vec(&pki).expect("it is JSON");
    group.bench_function("is read as JSON", |bench| {
        bench.iter(|| serde_json::from_slice::<Pki>(black_box(&json)));
    });
    group.finish();
}

/// One as it is when its Secret has been issued.
fn pki() -> Pki {
    let fingerprint = "c2968a754c69065a0287ee575d547c5ce18dd521ed0fa2abd731ae0cd6208240";
    let pki = json!({
        "apiVersion": "box.com/v1", "kind": "Pki",
        "metadata": {
            "namespace": "team-a", "name": "app1-pki", "uid": "0b81a8d7-cd8f-4d3a-a5c2-f68f1818011a", "generation": 1,
            "resourceVersion": "39382", "creationTimestamp": "2030-01-01T00:00:00Z"
        },
        "spec": {"serviceName": "app1"},
        "status": {
            "conditions": [{
                "type": "Ready", "status": "True", "observedGeneration": 1, "reason": "PkiReady",
                "lastTransitionTime": "2030-01-01T00:00:01Z",
                "message": "Secret app1-pki holds a certificate for app1, valid until 2030-04-01T00:00:01Z"
            }],
            "observedGeneration": 1, "secretName": "app1-pki", "serialNumber": "09373D21B7E873FC2B85749264E5C0A6",
            "notBefore": "2029-12-31T23:55:01Z", "notAfter": "2030-04-01T00:00:01Z", "renewalTime": "2030-03-02T10:11:12Z",
            "issuerFingerprint": fingerprint, "trustFingerprint": fingerprint
        }
    });
    serde_json::from_value(pki).expect("a Pki")
}

fn pod(number: usize) -> Pod {
    let app = number / REPLICAS;
    let pod = json!({
        "metadata": {
            "namespace": format!("team-{}", app % 100), "name": format!("app-{app}-{number}"), "uid": format!("uid-{number}"),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("app-{app}-5d4f"),
                "uid": format!("set-{app}"), "controller": true}],
        },
        "spec": {
            "containers": [{"name": "app", "volumeMounts": [{"name": "pki", "mountPath": "/pki"}]}],
            "volumes": [{"name": "pki", "secret": {"secretName": format!("app-{app}")}}],
        },
        "status": {"phase": "Running"},
    });
    serde_json::from_value(pod).expect("a pod")
}
