//! What admission adds to a create of a Pki, as its author sees it.

use crate::clients::{Times, send};
use crate::report::Row;
use crate::stage::Stage;
use kube::Api;
use kube::api::PostParams;
use pki_operator::api::{Pki, PkiSpec};
use serde_json::json;
use std::time::{Duration, Instant};

const REQUESTS: usize = 2_000;

/// Nothing is stored, so nothing else has work.
pub(crate) async fn rows(stage: &Stage) -> anyhow::Result<[Row; 2]> {
    let judged = creates(stage).await?;
    stage.remove_webhooks().await?;
    let bare = creates(stage).await?;
    stage.allow(&["app1", "app2"])?;
    stage.wait_until_judged().await?;
    let row = |name: &str, times: &Times| Row {
        ratio: Some(times.rate() / bare.rate()),
        ..Row::of(name, REQUESTS, times)
    };
    Ok([
        row("creates of Pkis without webhooks, dry run", &bare),
        row("creates of Pkis with admission, dry run", &judged),
    ])
}

/// Asks whether a Pki would be admitted, once and again; how long each answer took is added to
/// `times`.
pub(crate) async fn ask_again_and_again(
    stage: &Stage,
    times: &mut Vec<Duration>,
) -> anyhow::Result<()> {
    let pkis = Api::<Pki>::namespaced(stage.client.clone(), crate::stage::NAMESPACE);
    let dry_run = dry_run();
    loop {
        let begin = Instant::now();
        pkis.create(&dry_run, &pki("meanwhile", "app1")).await?;
        times.push(begin.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn creates(stage: &Stage) -> anyhow::Result<Times> {
    let pkis = Api::<Pki>::namespaced(stage.client.clone(), crate::stage::NAMESPACE);
    let dry_run = dry_run();
    let times = send(REQUESTS, |number| {
        let (pkis, dry_run) = (pkis.clone(), dry_run.clone());
        async move {
            pkis.create(&dry_run, &pki(&format!("dry-{number}"), "app1"))
                .await
        }
    });
    Ok(times.await?)
}

pub(crate) fn pki(name: &str, service: &str) -> Pki {
    let spec: PkiSpec = serde_json::from_value(json!({ "serviceName": service }))
        .expect("a service name is a spec");
    Pki::new(name, spec)
}

fn dry_run() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

impl Stage {
    /// Waits until the API server asks the webhook, and is refused.
    async fn wait_until_judged(&self) -> anyhow::Result<()> {
        let pkis = Api::<Pki>::namespaced(self.client.clone(), crate::stage::NAMESPACE);
        let dry_run = dry_run();
        for _ in 0..600 {
            let refused = pkis.create(&dry_run, &pki("probe", "appp1")).await;
            if refused
                .is_err_and(|error| error.to_string().contains("is not found in allowedNames"))
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("the webhook is not asked again")
    }
}
