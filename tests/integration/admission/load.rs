//! What admission costs: the webhook by itself over HTTPS, and a create through the API server with
//! it and without.
//!
//! Run optimized: `cargo test --release --test integration -- --ignored load --nocapture`. No time
//! is asserted.

use crate::admission::webhook::client::Dialer;
use crate::admission::webhook::review;
use crate::harness::{Installed, arena};
use futures::StreamExt as _;
use kube::Api;
use kube::api::PostParams;
use pki_cluster::install::{Operator, RELEASE};
use pki_cluster::needs;
use pki_cluster::testing::client;
use pki_operator::api::{Pki, PkiSpec};
use serde_json::json;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

const CLIENTS: usize = 16;
const CREATES: usize = 2_000;

#[test]
#[ignore = "prints figures, and needs wrk"]
fn load_on_the_webhook_and_through_the_api_server() {
    needs::check(&[needs::WRK]).unwrap();
    let arena = arena();
    arena.lead_by_nobody();
    let operator = arena.first_replica("operator-load", &[]).unwrap();
    let usage = || operator.process.usage().unwrap();
    let idle = usage().resident;
    for (what, service) in [("admitted", "app1"), ("refused", "appp1")] {
        let before = usage().cpu;
        let (rate, latencies) = by_itself(&arena, &operator, service);
        let used = usage().cpu - before;
        println!("webhook alone, {what}: {rate} requests/s, {latencies}, {used:.1} s of processor");
    }
    let after = usage();
    println!(
        "resident: {:.0} MiB, {idle:.0} before, {:.0} at most",
        after.resident, after.most_resident
    );
    through_the_api_server(&arena);
}

/// Requests a second, and the distribution of their times, as wrk tells them.
fn by_itself(arena: &Installed, operator: &Operator, service: &str) -> (String, String) {
    let dir = arena.cluster.dir();
    let script = dir.join("load.lua");
    let body = review("0c9a8d74", service).to_string();
    let lua = format!(
        "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = [==[{body}]==]\n"
    );
    fs::write(&script, lua).expect("a script is written");
    let mut wrk = Command::new("wrk");
    wrk.args(["--threads=2", "--duration=10s", "--latency"]);
    wrk.arg(format!("--connections={CLIENTS}"))
        .arg("--script")
        .arg(script);
    let path = Dialer::of(arena).at("/validate");
    wrk.arg(format!("https://{}{path}", operator.webhook));
    let output = wrk.output().expect("wrk runs");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success()
            && !printed.contains("Non-2xx")
            && !printed.contains("Socket errors"),
        "{printed}"
    );
    let of = |name: &str| {
        let line = printed
            .lines()
            .find_map(|line| line.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {printed}"))
            .trim()
            .to_owned()
    };
    let latencies = ["50%", "99%"].map(|name| format!("{name} within {}", of(name)));
    (of("Requests/sec:"), latencies.join(", "))
}

/// Each way twice, so that the spread can be seen.
fn through_the_api_server(arena: &Installed) {
    let ratios = ["first", "second"].map(|round| {
        arena.install().expect("the chart is installed");
        arena.wait_until_judged();
        let judged = creates(arena, &format!("judged-{round}"), "with the webhooks");
        arena.without_webhooks();
        let bare = creates(arena, &format!("bare-{round}"), "without");
        judged.as_secs_f64() / bare.as_secs_f64()
    });
    println!("a create with admission takes {ratios:.2?} times as long as one without");
}

/// The mean of the times that creates take.
fn creates(arena: &Installed, prefix: &str, what: &str) -> Duration {
    let mut times = create(arena, prefix);
    times.sort_unstable();
    let mean = times.iter().sum::<Duration>() / u32::try_from(times.len()).expect("a few");
    let (median, late) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!(
        "{CREATES} creates {what}: {mean:.1?} in the mean, 50% within {median:.1?}, 99% within {late:.1?}"
    );
    mean
}

/// How long each create of a Pki takes, of as many at a time as there are clients.
fn create(arena: &Installed, prefix: &str) -> Vec<Duration> {
    let namespace = arena.namespace(prefix).name;
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = client(arena.cluster.kubeconfig()).await;
        let client = client.expect("a kubeconfig");
        let pkis = Api::<Pki>::namespaced(client, &namespace);
        let creates = (0..CREATES).map(|number| {
            let spec: PkiSpec =
                serde_json::from_value(json!({ "serviceName": "app1" })).expect("a spec");
            let (pkis, pki) = (pkis.clone(), Pki::new(&format!("pki-{number}"), spec));
            async move {
                let begin = Instant::now();
                pkis.create(&PostParams::default(), &pki)
                    .await
                    .expect("it is admitted");
                begin.elapsed()
            }
        });
        futures::stream::iter(creates)
            .buffer_unordered(CLIENTS)
            .collect()
            .await
    })
}

impl Installed {
    /// Gives the lead to nobody for an hour, so that replicas answer admission and issue nothing.
    fn lead_by_nobody(&self) {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": "pki-operator", "namespace": RELEASE },
            "spec": { "holderIdentity": "nobody", "leaseDurationSeconds": 3600 }
        });
        let apply = ["apply", "--filename", "-"];
        self.kubectl_with(&lease.to_string(), &apply)
            .expect("the Lease is made");
    }

    /// Waits until the API server asks the webhook again.
    fn wait_until_judged(&self) {
        let ns = self.namespace("judged");
        crate::harness::eventually("Pkis are judged", || {
            ns.kubectl_apply_pki("probe", r#"{"serviceName": "appp1"}"#)
                .err()
                .filter(|error| error.to_string().contains("is not found in allowedNames"))
        });
    }
}
