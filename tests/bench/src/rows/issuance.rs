//! From a Pki to its Secret: as many at once as clients can create.

use crate::clients::{CLIENTS, Times};
use crate::report::Row;
use crate::rows::admission::{self, pki};
use crate::rows::share;
use crate::stage::{NAMESPACE, Stage};
use anyhow::bail;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use pki_operator::api::Pki;
use serde_json::json;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(1_200);

/// All of them, and what others notice of it meanwhile: a Pki that is renewed, and who creates one.
pub(crate) async fn rows(stage: &Stage, bare: f64) -> anyhow::Result<[Row; 3]> {
    let early = Early::issued(stage).await?;
    let (before, written) = (stage.usage()?, stage.writes());
    let begin = Instant::now();
    let all = async {
        let (starts, ready) = tokio::try_join!(create(stage), wait_until_all(stage, "True"))?;
        let each = starts
            .iter()
            .map(|(name, begin)| ready[name].duration_since(*begin));
        anyhow::Ok(Times::new(begin.elapsed(), each.collect()))
    };
    let (mut renewals, mut admissions) = (Vec::new(), Vec::new());
    let others = async {
        tokio::try_join!(
            early.renew_again_and_again(&mut renewals),
            admission::ask_again_and_again(stage, &mut admissions),
        )
    };
    let times = tokio::select! {
        times = all => times?,
        failed = others => bail!("what was to go on stopped: {failed:?}"),
    };
    let after = stage.usage()?;
    // A renewal is two writes too, and the removal of the annotation and the note that was taken of
    // it two more.
    let writes = stage.writes() - written - 4 * renewals.len();
    let meanwhile = |name: &str, each: Vec<Duration>| {
        Row::of(name, stage.objects, &Times::new(times.all, each))
    };
    Ok([
        Row {
            ratio: Some(times.rate() / bare),
            writes: Some(share(writes, stage.objects)),
            cpu: Some(after.cpu - before.cpu),
            resident: Some(after.resident),
            ..Row::of("Pki to Secret", stage.objects, &times)
        },
        meanwhile("renewals on demand, meanwhile", renewals),
        meanwhile("creates of Pkis, dry run, meanwhile", admissions),
    ])
}

/// Creates all; when each was begun.
async fn create(stage: &Stage) -> anyhow::Result<HashMap<String, Instant>> {
    let pkis = Api::<Pki>::namespaced(stage.client.clone(), NAMESPACE);
    let creates = (0..stage.objects).map(|number| {
        let pkis = pkis.clone();
        async move {
            let (name, begin) = (name(number), Instant::now());
            let pki = pki(&name, "app1");
            pkis.create(&PostParams::default(), &pki).await?;
            anyhow::Ok((name, begin))
        }
    });
    let creates = futures::stream::iter(creates).buffer_unordered(CLIENTS);
    creates.try_collect().await
}

/// A Pki that has its certificate already.
struct Early(Api<Pki>);

impl Early {
    const NAME: &str = "early";
    /// Between two looks at it, and between a renewal and the next.
    const PAUSE: Duration = Duration::from_millis(50);

    async fn issued(stage: &Stage) -> anyhow::Result<Self> {
        let early = Self(Api::namespaced(stage.client.clone(), NAMESPACE));
        let pki = pki(Self::NAME, "app1");
        early.0.create(&PostParams::default(), &pki).await?;
        early.serial_besides(None).await?;
        Ok(early)
    }

    /// The serial number of its certificate, when it is another one than that.
    async fn serial_besides(&self, former: Option<&str>) -> anyhow::Result<String> {
        loop {
            let status = self.0.get(Self::NAME).await?.status.unwrap_or_default();
            match status.serial_number {
                Some(serial) if former != Some(&*serial) => return Ok(serial),
                _ => tokio::time::sleep(Self::PAUSE).await,
            }
        }
    }

    /// Asks for renewals, one after another; how long each took is added to `times`.
    async fn renew_again_and_again(&self, times: &mut Vec<Duration>) -> anyhow::Result<()> {
        let annotation = json!({ "metadata": { "annotations": { "box.com/renew-now": "" } } });
        // Else the next request would have to wait for five minutes.
        let forgotten = json!({ "status": { "renewalRequest": null } });
        let mut serial = self.serial_besides(None).await?;
        loop {
            tokio::time::sleep(Self::PAUSE).await;
            let patch = Patch::Merge(&forgotten);
            self.0
                .patch_status(Self::NAME, &PatchParams::default(), &patch)
                .await?;
            let begin = Instant::now();
            let patch = Patch::Merge(&annotation);
            self.0
                .patch(Self::NAME, &PatchParams::default(), &patch)
                .await?;
            serial = self.serial_besides(Some(&serial)).await?;
            times.push(begin.elapsed());
        }
    }
}

/// Of a Pki.
pub(crate) fn name(number: usize) -> String {
    format!("pki-{number}")
}

/// When each Pki was first seen with the condition `Ready` of this status; returns as soon as all
/// are.
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
                if name == Early::NAME {
                    continue;
                }
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
