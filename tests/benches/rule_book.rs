//! How long one decision takes, and what the rule book weighs: `cargo bench --bench rule_book`.

use criterion::{Criterion, criterion_group, criterion_main};
use pki_operator::api::{Pki, PkiPolicy};
use pki_operator::policy::RuleBook;
use serde_json::{Value, json};
use std::fs;
use std::hint::black_box;
use std::sync::Arc;

const NAMES: usize = 100_000;
const POLICIES: usize = 1_000;

criterion_group!(benches, decisions, changes);
criterion_main!(benches);

/// An admitted Pki and two refused ones, by rule books of different sizes.
fn decisions(criterion: &mut Criterion) {
    let two = book(&[json!({ "serviceNames": ["app1", "app2"] })]);
    let mut group = criterion.benchmark_group("2 names");
    group.bench_function("admitted", |bench| judge(bench, &two, "app1"));
    group.bench_function("refused", |bench| judge(bench, &two, "appp1"));
    group.finish();

    let before = resident_bytes();
    let many = book(&[json!({ "serviceNames": names(NAMES) })]);
    let bytes = resident_bytes().saturating_sub(before) / NAMES as u64;
    println!("{NAMES} names: {bytes} bytes resident a name");
    let mut group = criterion.benchmark_group("100,000 names");
    group.bench_function("admitted", |bench| judge(bench, &many, "service-054321"));
    group.bench_function("refused, near", |bench| {
        judge(bench, &many, "servicee-054321");
    });
    group.bench_function("refused, far", |bench| judge(bench, &many, "payments"));
    group.finish();

    let own = book(&of_teams(|team| json!([team])));
    let mut group = criterion.benchmark_group("1,000 policies of 100 names, each for a namespace");
    group.bench_function("admitted", |bench| judge(bench, &own, "service-000050"));
    group.bench_function("refused", |bench| judge(bench, &own, "servicee-000050"));
    group.finish();

    let globs = book(&of_teams(|team| json!([format!("{team}*")])));
    let mut group = criterion.benchmark_group("1,000 policies of 100 names, each for a glob");
    group.bench_function("admitted", |bench| judge(bench, &globs, "service-000050"));
    group.bench_function("refused", |bench| judge(bench, &globs, "servicee-000050"));
    group.finish();

    let rule = json!({ "expression": "pki.spec.dnsNames.all(name, !name.startsWith('admin.'))", "message": "no" });
    let cel = book(&[json!({ "serviceNames": ["app1"], "validations": [rule] })]);
    criterion.bench_function("a rule in CEL", |bench| judge(bench, &cel, "app1"));
    further_names(criterion);
    worst(criterion);
}

/// As many further names as there may be: names of pods, and names that look like a permitted one.
fn further_names(criterion: &mut Criterion) {
    let rules = book(&[json!({ "serviceNames": ["app1"], "dnsNames": ["*.example.com"] })]);
    let mut group = criterion.benchmark_group("100 further names");
    for (what, tail, is_permitted) in [
        ("of pods, admitted", "app1.team-500.svc", true),
        ("of a label too many, refused", "a.example.com", false),
    ] {
        let names: Vec<_> = (0..100).map(|number| format!("{number}.{tail}")).collect();
        let spec = json!({ "serviceName": "app1", "dnsNames": names });
        let mut pki = Pki::new("app1-pki", serde_json::from_value(spec).expect("a spec"));
        pki.metadata.namespace = Some("team-500".into());
        assert_eq!(rules.evaluate(&pki).is_ok(), is_permitted);
        group.bench_function(what, |bench| {
            bench.iter(|| rules.evaluate(black_box(&pki)).is_ok());
        });
    }
    group.finish();
}

/// The most expensive rule that is admitted, alone and in ten policies. The verdict takes less than
/// 10 ms.
fn worst(criterion: &mut Criterion) {
    let pki = largest();
    let rule = |number: usize| {
        let expression = format!(
            "pki.spec.uris.all(a, pki.spec.dnsNames.all(b, !b.startsWith(a))) && {number} > 0"
        );
        json!({ "serviceNames": ["app1"], "dnsNames": ["*.example.com"], "uris": ["spiffe://example.com/*"],
            "validations": [{ "expression": expression, "message": "no" }] })
    };
    let mut group = criterion.benchmark_group("the worst rule in CEL, and the largest Pki");
    for policies in [1, 10] {
        let rules = book(&(1..=policies).map(rule).collect::<Vec<_>>());
        assert!(rules.evaluate(&pki).is_ok());
        group.bench_function(format!("{policies} policies"), |bench| {
            bench.iter(|| rules.evaluate(black_box(&pki)).is_ok());
        });
    }
    group.finish();
}

/// A Pki with as many names as there may be, and as long ones.
fn largest() -> Pki {
    let label = "a".repeat(60);
    let name = |number| format!("{number:03}{}.example.com", &label[3..]);
    let uri = |number| format!("spiffe://example.com/{number:03}{}", "a".repeat(2000));
    let spec = json!({
        "serviceName": "app1", "dnsNames": (0..100).map(name).collect::<Vec<_>>(),
        "uris": (0..100).map(uri).collect::<Vec<_>>()
    });
    let mut pki = Pki::new("app1-pki", serde_json::from_value(spec).expect("a spec"));
    pki.metadata.namespace = Some("team-500".into());
    pki
}

/// What an edit of one policy costs.
fn changes(criterion: &mut Criterion) {
    let all = of_teams(|team| json!([team]));
    let rules = book(&all);
    let edited = policy(500, &all[500]);
    criterion.bench_function("1 of 1,000 policies is changed", |bench| {
        bench.iter(|| rules.with_policy(black_box(&edited)));
    });
    let many = policy(0, &json!({ "serviceNames": names(NAMES) }));
    criterion.bench_function("a policy of 100,000 names is read", |bench| {
        bench.iter(|| RuleBook::default().with_policy(black_box(&many)));
    });
}

fn judge(bench: &mut criterion::Bencher<'_>, rules: &RuleBook, service: &str) {
    let mut pki = Pki::new(
        "app1-pki",
        serde_json::from_value(json!({ "serviceName": service })).expect("a spec"),
    );
    pki.metadata.namespace = Some("team-500".into());
    bench.iter(|| {
        rules
            .evaluate(black_box(&pki))
            .map_err(|violations| violations[0].to_string())
    });
}

fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("service-{number:06}"))
        .collect()
}

fn of_teams(namespaces: impl Fn(&str) -> Value) -> Vec<Value> {
    let teams = (0..POLICIES).map(|number| format!("team-{number}"));
    let spec = |team: String| json!({ "serviceNames": names(100), "namespaces": { "names": namespaces(&team) } });
    teams.map(spec).collect()
}

fn book(specs: &[Value]) -> RuleBook {
    let policies: Vec<_> = specs
        .iter()
        .enumerate()
        .map(|(number, spec)| policy(number, spec))
        .collect();
    RuleBook::new(Arc::default(), &policies)
}

fn policy(number: usize, spec: &Value) -> PkiPolicy {
    PkiPolicy::new(
        &format!("policy-{number}"),
        serde_json::from_value(spec.clone()).expect("a policy"),
    )
}

/// By `/proc/self/statm`, whose second number counts pages of 4 KiB.
fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}
