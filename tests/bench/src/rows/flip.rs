//! A policy that stops to permit what has been issued, and permits it again.

use crate::report::Row;
use crate::rows::issuance::wait_until_all;
use crate::rows::share;
use crate::stage::Stage;
use std::time::Instant;

pub(crate) async fn rows(stage: &Stage, bare: f64) -> anyhow::Result<[Row; 2]> {
    let refused = flip(
        stage,
        bare,
        "policy refuses what is issued",
        &["app2"],
        "False",
    )
    .await?;
    let again = flip(
        stage,
        bare,
        "policy permits it again",
        &["app1", "app2"],
        "True",
    )
    .await?;
    Ok([refused, again])
}

async fn flip(
    stage: &Stage,
    bare: f64,
    what: &str,
    names: &[&str],
    status: &str,
) -> anyhow::Result<Row> {
    let (before, written) = (stage.usage()?, stage.writes());
    let begin = Instant::now();
    let policy = serde_json::json!({ "spec": { "serviceNames": names } }).to_string();
    stage.kubectl(&[
        "patch",
        "pkipolicy",
        "pki-operator-allowed-names",
        "--type=merge",
        "--patch",
        &policy,
    ])?;
    wait_until_all(stage, status).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let after = stage.usage()?;
    let rate = share(stage.objects, 1) / seconds;
    Ok(Row {
        name: what.into(),
        objects: stage.objects,
        rate,
        ratio: Some(rate / bare),
        writes: Some(share(stage.writes() - written, stage.objects)),
        cpu: Some(after.cpu - before.cpu),
        resident: Some(after.resident),
        ..Row::default()
    })
}
