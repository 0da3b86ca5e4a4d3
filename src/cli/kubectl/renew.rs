//! `kubectl pki renew`: asks for new certificates now, and waits until they are there.

use crate::api::{Delivery, Pki, READY};
use crate::k8s::client::{ClientError, Cluster};
use crate::k8s::tolerant::Lenient;
use crate::model::renewal_request::{self, RENEW_NOW};
use crate::util::text::{printable, sentence};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// A longer timeout means no end.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 86_400);

/// How one renewal stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The certificate is a new one, with this serial number.
    Renewed(String),
    /// The certificate is still the one before, or none.
    Waiting,
    /// The Pki is not ready, so that nothing is issued: why.
    Refused(String),
}

fn serial(pki: &Pki) -> Option<&str> {
    pki.status.as_ref()?.serial_number.as_deref()
}

/// The state of a Pki that had the certificate with this serial number before.
pub fn state(before: Option<&str>, now: &Pki) -> State {
    match serial(now) {
        Some(serial) if before != Some(serial) => State::Renewed(serial.to_owned()),
        _ => refusal(now).map_or(State::Waiting, State::Refused),
    }
}

/// Why a Pki would not be renewed on request.
fn refusal(pki: &Pki) -> Option<String> {
    let ready = pki.condition(READY)?;
    let is_current = ready.observed_generation == pki.metadata.generation;
    (ready.status == "False" && is_current)
        .then(|| format!("{}: {}", printable(&ready.reason), sentence(&ready.message)))
}

/// Renews these Pkis, and waits for each in turn if there is a timeout. Calls `on_line` with each
/// result. Returns whether all were renewed, or requested without a timeout.
pub async fn renew(
    cluster: &Cluster,
    pkis: Vec<Pki>,
    timeout: Option<Duration>,
    mut on_line: impl FnMut(&str),
) -> Result<bool, ClientError> {
    let mut requested = Vec::new();
    let mut are_all = true;
    for pki in pkis {
        let name = printable(&pki.name_any());
        if pki.delivery() == Delivery::Pod {
            on_line(&format!(
                "pki {name} has delivery: Pod, so its pods renew by themselves: delete a pod to have a new certificate at once"
            ));
            are_all = false;
            continue;
        }
        if let Some(why) = refusal(&pki) {
            on_line(&format!(
                "pki {name} is not renewed, because it is not ready: {why}"
            ));
            are_all = false;
            continue;
        }
        let now = Timestamp::now();
        if let Some(wait) = renewal_request::wait(&pki, now) {
            on_line(&format!("pki {name} was {wait}"));
        }
        request(cluster, &pki.name_any()).await?;
        if let Some(at) = served_after(&pki, timeout, now) {
            on_line(&format!(
                "pki {name} is not renewed yet: the operator renews it at {at}, which is after the end of --timeout"
            ));
            are_all = false;
            continue;
        }
        requested.push(pki);
    }
    let Some(timeout) = timeout else {
        for pki in &requested {
            let name = printable(&pki.name_any());
            on_line(&format!("pki {name} is to be renewed"));
        }
        return Ok(are_all);
    };
    let end = Instant::now() + timeout.min(MAX_TIMEOUT);
    for pki in requested {
        are_all &= wait(cluster, &pki, end, &mut on_line).await?;
    }
    Ok(are_all)
}

/// Returns when a request that is made now is served, if that is after the timeout. Waiting until
/// the timeout would not help then.
fn served_after(pki: &Pki, timeout: Option<Duration>, now: Timestamp) -> Option<Timestamp> {
    let timeout = timeout?.min(MAX_TIMEOUT);
    let end = now.saturating_add(timeout).ok()?;
    renewal_request::end_of_wait(pki, now).filter(|at| *at > end)
}

/// Annotates the Pki with a new value: the operator serves each once, and then removes it.
async fn request(cluster: &Cluster, name: &str) -> Result<(), ClientError> {
    let change = json!({"metadata": {"annotations": {RENEW_NOW: Timestamp::now().to_string()}}});
    let (params, patch) = (PatchParams::default(), Patch::Merge(&change));
    let pkis = cluster.namespaced::<Lenient<Pki>>();
    let patched = pkis.patch(name, &params, &patch).await.map(drop);
    patched.map_err(|error| ClientError::of("patch pkis", error))
}

async fn wait(
    cluster: &Cluster,
    pki: &Pki,
    end: Instant,
    on_line: &mut impl FnMut(&str),
) -> Result<bool, ClientError> {
    let name = pki.name_any();
    let shown = printable(&name);
    let pkis = cluster.namespaced::<Lenient<Pki>>();
    loop {
        let now = pkis.get(&name).await;
        let Lenient(now) = now.map_err(|error| ClientError::of("get pkis", error))?;
        match state(serial(pki), &now) {
            State::Renewed(serial) => {
                let end = now.status.and_then(|status| status.not_after);
                let end = end.map_or_else(String::new, |end| format!(", valid until {}", end.0));
                let serial = printable(&serial);
                on_line(&format!("pki {shown} renewed: certificate {serial}{end}"));
                return Ok(true);
            }
            State::Refused(why) => {
                on_line(&format!("pki {shown} is not renewed: {why}"));
                return Ok(false);
            }
            State::Waiting if Instant::now() >= end => {
                on_line(&format!(
                    "pki {shown} is not renewed yet: check it with `kubectl pki status`, or wait longer with --timeout"
                ));
                return Ok(false);
            }
            State::Waiting => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

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

    #[test]
    fn a_request_that_is_served_after_the_timeout_is_not_waited_for() {
        let served: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let next = served + SignedDuration::from_mins(5);
        let mut pki = pki(Some("1"), "True");
        let minute = served + SignedDuration::from_mins(1);
        let after = |pki: &Pki, minutes: u64, now| {
            served_after(pki, Some(Duration::from_secs(60 * minutes)), now)
        };
        assert_eq!(after(&pki, 1, minute), None, "the first request");
        let request = json!({"value": "a", "servedTime": served.to_string()});
        pki.status.as_mut().unwrap().renewal_request = serde_json::from_value(request).unwrap();
        assert_eq!(after(&pki, 1, minute), Some(next));
        assert_eq!(after(&pki, 4, minute), None, "it ends in time");
        assert_eq!(after(&pki, 1, next), None, "the wait is over");
        assert_eq!(served_after(&pki, None, minute), None, "nobody waits");
    }
}
