//! From a Pki to its Secret: as many at once as clients can create.

use crate::clients::{CLIENTS, Times};
use crate::report::Row;
use crate::rows::admission::pki;
use crate::stage::{NAMESPACE, Stage};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::Api;
use kube::api::PostParams;
use kube::runtime::watcher::{self, Event, watcher};
use pki_operator::api::Pki;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(1_200);

pub(crate) async fn row(stage: &Stage, bare: f64) -> anyhow::Result<Row> {
    let (before, written) = (stage.usage()?, stage.writes()?);
    let begin = Instant::now();
    let pkis = Api::<Pki>::namespaced(stage.client.clone(), NAMESPACE);
    let creates = (0..stage.objects).map(|number| {
        let pkis = pkis.clone();
        async move {
            let (name, begin) = (name(number), Instant::now());
            pkis.create(&PostParams::default(), &pki(&name, "app1"))
                .await?;
            anyhow::Ok((name, begin))
        }
    });
    let creates = futures::stream::iter(creates).buffer_unordered(CLIENTS);
    let (starts, ready) = tokio::try_join!(
        creates.try_collect::<HashMap<_, _>>(),
        wait_until_all(stage, "True"),
    )?;
    let all = begin.elapsed();
    let each = starts
        .iter()
        .map(|(name, begin)| ready[name].duration_since(*begin));
    let times = Times::new(all, each.collect());
    let after = stage.usage()?;
    let writes = stage.writes()? - written;
    Ok(Row {
        name: "Pki to Secret".into(),
        objects: stage.objects,
        rate: times.rate(),
        p50: Some(times.within(50)),
        p99: Some(times.within(99)),
        ratio: Some(times.rate() / bare),
        writes: Some(share(writes, stage.objects)),
        cpu: Some(after.cpu - before.cpu),
        resident: Some(after.resident),
    })
}

/// Of a Pki.
pub(crate) fn name(number: usize) -> String {
    format!("pki-{number}")
}

#[expect(clippy::cast_precision_loss, reason = "neither has as many digits")]
pub(crate) fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

/// When each Pki was first seen with the condition `Ready` of this status; returns as soon as all are.
pub(crate) async fn wait_until_all(
    stage: &Stage,
    status: &str,
) -> anyhow::Result<HashMap<String, Instant>> {
    let pkis = Api::<Pki>::namespaced(stage.client.clone(), NAMESPACE);
    let mut events = std::pin::pin!(watcher(pkis, watcher::Config::default()));
    let mut seen = HashMap::with_capacity(stage.objects);
    let all_seen = async {
        while seen.len() < stage.objects {
            let event = events.try_next().await?;
            let Some(Event::Apply(pki) | Event::InitApply(pki)) = event else {
                continue;
            };
            let conditions = pki.status.iter().flat_map(|status| &status.conditions);
            let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
            if ready.any(|condition| condition.status == status) {
                let name = pki.metadata.name.unwrap_or_default();
                seen.entry(name).or_insert_with(Instant::now);
            }
        }
        anyhow::Ok(())
    };
    let in_time = tokio::time::timeout(PATIENCE, all_seen).await;
    anyhow::ensure!(in_time.is_ok(), "not all Pkis are {status} in {PATIENCE:?}");
    in_time??;
    Ok(seen)
}
