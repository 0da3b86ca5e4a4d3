//! What the operator keeps of pods, and how fast it finds those that use a Secret: `cargo bench --bench pods`.

use criterion::{Criterion, criterion_group, criterion_main};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use pki_operator::index::{BySecret, Key};
use pki_operator::pods::SecretUser;
use serde_json::json;
use std::collections::HashSet;
use std::hint::black_box;

const PODS: usize = 10_000;
/// As many replicas use the same Secret.
const REPLICAS: usize = 3;

criterion_group!(benches, pods);
criterion_main!(benches);

fn pods(criterion: &mut Criterion) {
    let all: Vec<_> = (0..PODS).map(pod).collect();
    let mut index = BySecret::default();
    for pod in &all {
        index.apply(Event::Apply(SecretUser::from(pod.clone())));
    }
    let secret = Key::new("team-7", "app-2307");
    assert_eq!(index.naming(&secret).count(), REPLICAS);

    let mut group = criterion.benchmark_group("10,000 pods");
    group.bench_function("those that use a Secret are found", |bench| {
        bench.iter(|| index.naming(black_box(&secret)).count());
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
