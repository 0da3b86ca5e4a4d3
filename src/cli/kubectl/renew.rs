//! `kubectl pki renew`: asks for new certificates now, and waits until they are there.

use crate::api::{Pki, READY};
use crate::k8s::client::{ClientError, Cluster};
use crate::k8s::tolerant::Lenient;
use crate::model::renewal_request::{self, RENEW_NOW};
use crate::util::text::{printable, sentence};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(250);
/// Who waits longer waits for ever.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// How one renewal stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The certificate is a new one.
    Renewed(String),
    /// It is still the one before, or none.
    Waiting,
    /// The Pki is not ready, so that nothing is issued: why.
    Refused(String),
}

/// How it stands with a Pki that had the certificate with this serial number before.
pub fn state(before: Option<&str>, now: &Pki) -> State {
    let serial = now
        .status
        .as_ref()
        .and_then(|status| status.serial_number.as_deref());
    match serial {
        Some(serial) if before != Some(serial) => State::Renewed(serial.to_owned()),
        _ => refusal(now).map_or(State::Waiting, State::Refused),
    }
}

/// Why a Pki would not be renewed if that were asked for.
fn refusal(pki: &Pki) -> Option<String> {
    let ready = pki.condition(READY)?;
    let is_current = ready.observed_generation == pki.metadata.generation;
    (ready.status == "False" && is_current)
        .then(|| format!("{}: {}", printable(&ready.reason), sentence(&ready.message)))
}

/// Renews these Pkis, one after the other. `say` hears how each ended, `wait` which one is waited
/// for. Whether all were renewed, or asked for if nothing is waited for.
pub async fn renew(
    cluster: &Cluster,
    pkis: Vec<Pki>,
    patience: Option<Duration>,
    mut say: impl FnMut(&str),
) -> Result<bool, ClientError> {
    let mut asked = Vec::new();
    let mut are_all = true;
    for pki in pkis {
        let name = printable(&pki.name_any());
        if let Some(why) = refusal(&pki) {
            say(&format!(
                "pki {name} is not renewed, because it is not ready: {why}"
            ));
            are_all = false;
            continue;
        }
        if let Some(wait) = renewal_request::wait(&pki, Timestamp::now()) {
            say(&format!("pki {name} was {wait}"));
        }
        ask(cluster, &pki.name_any()).await?;
        asked.push(pki);
    }
    let Some(patience) = patience else {
        for pki in &asked {
            say(&format!(
                "pki {} is to be renewed",
                printable(&pki.name_any())
            ));
        }
        return Ok(are_all);
    };
    let end = Instant::now()
        .checked_add(patience)
        .unwrap_or_else(|| Instant::now() + LONGEST);
    for pki in asked {
        are_all &= wait(cluster, &pki, end, &mut say).await?;
    }
    Ok(are_all)
}

/// The operator takes the annotation away when it has seen to it. It serves each value once, so
/// this one is new each time.
async fn ask(cluster: &Cluster, name: &str) -> Result<(), ClientError> {
    let change = json!({"metadata": {"annotations": {RENEW_NOW: Timestamp::now().to_string()}}});
    let pkis = cluster.namespaced::<Lenient<Pki>>();
    let patched = pkis
        .patch(name, &PatchParams::default(), &Patch::Merge(&change))
        .await;
    patched
        .map(drop)
        .map_err(|error| ClientError::of("patch pkis", error))
}

async fn wait(
    cluster: &Cluster,
    pki: &Pki,
    end: Instant,
    say: &mut impl FnMut(&str),
) -> Result<bool, ClientError> {
    let name = pki.name_any();
    let shown = printable(&name);
    let before = pki
        .status
        .as_ref()
        .and_then(|status| status.serial_number.as_deref());
    let pkis = cluster.namespaced::<Lenient<Pki>>();
    loop {
        let Lenient(now) = pkis
            .get(&name)
            .await
            .map_err(|error| ClientError::of("get pkis", error))?;
        match state(before, &now) {
            State::Renewed(serial) => {
                let end = now.status.and_then(|status| status.not_after);
                let end = end.map(|end| format!(", valid until {}", end.0));
                say(&format!(
                    "pki {shown} renewed: certificate {}{}",
                    printable(&serial),
                    end.unwrap_or_default()
                ));
                return Ok(true);
            }
            State::Refused(why) => {
                say(&format!("pki {shown} is not renewed: {why}"));
                return Ok(false);
            }
            State::Waiting if Instant::now() >= end => {
                say(&format!(
                    "pki {shown} is not renewed yet: look again with `kubectl pki status`, or wait longer with --timeout"
                ));
                return Ok(false);
            }
            State::Waiting => tokio::time::sleep(LOOK).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pki(serial: Option<&str>, ready: &str) -> Pki {
        serde_json::from_value(json!({
            "apiVersion": "box.com/v1", "kind": "Pki", "metadata": {"name": "a", "generation": 1}, "spec": {"serviceName": "a"},
            "status": {"serialNumber": serial, "conditions": [{"type": "Ready", "status": ready, "reason": "R", "message": "m",
                "observedGeneration": 1, "lastTransitionTime": "2030-01-01T00:00:00Z"}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_pki_is_renewed_when_its_certificate_is_another_one() {
        let refused = State::Refused("R: m".into());
        for (before, now, ready, expected) in [
            (Some("1"), Some("2"), "True", State::Renewed("2".into())),
            (None, Some("2"), "True", State::Renewed("2".into())),
            (Some("1"), Some("1"), "True", State::Waiting),
            (None, None, "Unknown", State::Waiting),
            (Some("1"), Some("1"), "False", refused.clone()),
            (None, None, "False", refused),
        ] {
            assert_eq!(
                state(before, &pki(now, ready)),
                expected,
                "{before:?} {now:?} {ready}"
            );
        }
    }
}
