//! A new process, where everything has been issued and every Secret is used by a pod.

use crate::clients::send;
use crate::report::Row;
use crate::rows::issuance::name;
use crate::rows::share;
use crate::stage::{NAMESPACE, Stage};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use std::time::{Duration, Instant};

/// How long it must have been at rest to be steady.
const REST: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two pages of metrics. To make one takes the operator a tenth of a second with 10,000
/// Pkis, which is not what is measured here.
const POLL: Duration = Duration::from_millis(500);

pub(crate) async fn row(stage: &mut Stage) -> anyhow::Result<Row> {
    pods(stage).await?;
    stage.stop_operator()?;
    let written = stage.writes();
    let begin = Instant::now();
    stage.start_operator()?;
    let steady = steady(stage).await?;
    let seconds = steady.duration_since(begin).as_secs_f64();
    let usage = stage.usage()?;
    Ok(Row {
        name: "restart, with as many pods".into(),
        objects: stage.objects,
        rate: share(stage.objects, 1) / seconds,
        p50: Some(seconds * 1000.0),
        writes: Some(share(stage.writes() - written, stage.objects)),
        cpu: Some(usage.cpu),
        resident: Some(usage.resident),
        ..Row::default()
    })
}

/// Since when it leads, has nothing in its queue, and looks at nothing any more.
async fn steady(stage: &Stage) -> anyhow::Result<Instant> {
    let begin = Instant::now();
    let mut looks = (f64::NAN, begin);
    while begin.elapsed() < PATIENCE {
        let page = stage.metrics()?;
        let count = sum(&page, "pki_operator_reconcile_duration_seconds_count");
        let is_done = sum(&page, "pki_operator_leader") > 0.0
            && sum(&page, "pki_operator_queue_depth") == 0.0
            && count >= share(stage.objects, 1);
        if count.to_bits() != looks.0.to_bits() || !is_done {
            looks = (count, Instant::now());
        } else if looks.1.elapsed() > REST {
            return Ok(looks.1);
        }
        tokio::time::sleep(POLL).await;
    }
    anyhow::bail!("the operator is not steady after {PATIENCE:?}")
}

/// The sum of what has this name in a page of metrics.
fn sum(page: &str, name: &str) -> f64 {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let is_it = rest.starts_with([' ', '{']);
        is_it
            .then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())
            .flatten()
    });
    values.sum()
}

/// A pod for each Pki, which mounts its Secret. Without a node they wait for ever.
async fn pods(stage: &Stage) -> anyhow::Result<()> {
    let pods = Api::<Pod>::namespaced(stage.client.clone(), NAMESPACE);
    send(stage.objects, |number| {
        let (pods, pod) = (pods.clone(), pod(&name(number)));
        async move { pods.create(&PostParams::default(), &pod).await }
    })
    .await?;
    Ok(())
}

fn pod(secret: &str) -> Pod {
    let pod = json!({
        "metadata": {"name": secret, "labels": {"app": secret}},
        "spec": {
            // Nobody schedules it, which costs the machine nothing.
            "schedulerName": "nobody",
            "containers": [{
                "name": "app", "image": "registry.k8s.io/pause:3.10",
                "volumeMounts": [{"name": "pki", "mountPath": "/etc/pki", "readOnly": true}]
            }],
            "volumes": [{"name": "pki", "secret": {"secretName": secret}}]
        }
    });
    serde_json::from_value(pod).expect("this is a pod")
}
