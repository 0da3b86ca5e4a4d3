//! Leader election by a Lease, as client-go does it: its holder reconciles.
//!
//! A holder is silent when *this* process has seen the Lease unchanged for too long, so clocks need
//! not agree. Every write of the Lease carries the version it was decided on, so one of two that
//! take it fails. A holder that cannot renew stops before others may take over. The preconditions
//! of its late writes make them fail.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Time after which a silent holder loses the lead.
const LEASE: Duration = Duration::from_secs(15);
/// Time for which a holder tries to renew before it stops.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Interval at which the Lease is read.
const RETRY: Duration = Duration::from_secs(2);

/// Time for which a replica whose webhook is not ready leaves the Lease to others.
const STAND_BACK: Duration = Duration::from_secs(6);

/// Whether a replica may take the lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Ready.
    Ready,
    /// The replica could issue, but its webhook is not ready: others come first.
    Unready,
    /// The replica may not: it knows too little, or its clock is not trusted.
    Unfit,
}

/// A candidate.
pub struct Election {
    leases: Api<Lease>,
    name: String,
    identity: String,
}

impl Election {
    /// A candidate called `identity` for the Lease `name`.
    pub fn new(client: Client, namespace: &str, name: String, identity: String) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name,
            identity,
        }
    }

    /// Leads term after term until `shutdown`, whenever its `standing` permits to take the lead. A
    /// term gets a token that is cancelled when it should come to its end; when the lead is lost,
    /// it is dropped where it stands. `ended` is called after either, with whether the lead is
    /// still held.
    pub async fn run<Term: Future<Output = ()>>(
        &self,
        shutdown: CancellationToken,
        standing: impl Fn() -> Standing,
        begin: impl Fn(CancellationToken) -> Term,
        ended: impl Fn(bool),
    ) {
        while let Some(lease) = shutdown.run_until_cancelled(self.acquire(&standing)).await {
            tracing::info!(identity = self.identity, "leading");
            let held = tokio::select! {
                () = begin(shutdown.clone()) => true,
                () = self.renew_until_lost(lease) => false,
            };
            ended(held);
            tracing::info!(identity = self.identity, held, "no longer leading");
            if held {
                self.release().await;
            }
            // A term that ends by itself met an obstacle: give others, or the obstacle, a moment.
            shutdown
                .run_until_cancelled(tokio::time::sleep(2 * RETRY))
                .await;
        }
    }

    async fn acquire(&self, standing: impl Fn() -> Standing) -> Lease {
        let mut seen = Sighting::default();
        loop {
            if standing() == Standing::Unfit {
                // The Lease is free for a fit replica. The silence of its holder is counted anew.
                seen = Sighting::default();
                tokio::time::sleep(RETRY / 4).await;
                continue;
            }
            let attempt = self.try_acquire(&mut seen, standing());
            match tokio::time::timeout(RENEW_DEADLINE, attempt).await {
                Ok(Ok(Some(lease))) => return lease,
                Ok(Ok(None)) => {}
                Ok(Err(kube::Error::Api(status)))
                    if status.is_conflict() || status.is_already_exists() => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, lease = self.name, "failed to take the Lease");
                }
                Err(_) => tracing::warn!(lease = self.name, "failed to read the Lease in time"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn try_acquire(
        &self,
        seen: &mut Sighting,
        standing: Standing,
    ) -> Result<Option<Lease>, kube::Error> {
        let Some(lease) = self.leases.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.taken(&LeaseSpec::default())),
            };
            return self
                .leases
                .create(&PostParams::default(), &lease)
                .await
                .map(Some);
        };
        let unchanged = seen.unchanged_for(&lease, Instant::now());
        let spec = lease.spec.clone().unwrap_or_default();
        if !may_take(&spec, &self.identity, standing, unchanged) {
            return Ok(None);
        }
        self.write(lease, self.taken(&spec)).await.map(Some)
    }

    /// Returns when the lead is lost.
    async fn renew_until_lost(&self, mut lease: Lease) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < RENEW_DEADLINE {
            tokio::time::sleep(RETRY).await;
            let renewal = self.renew(lease.clone());
            match tokio::time::timeout(RENEW_DEADLINE.saturating_sub(renewed.elapsed()), renewal)
                .await
            {
                Ok(Ok(written)) => (lease, renewed) = (written, Instant::now()),
                Ok(Err(kube::Error::Api(status))) if status.is_conflict() => {
                    match self.leases.get(&self.name).await {
                        // Somebody edited the Lease, but it is still ours: renew that version of
                        // it.
                        Ok(current) if holder(&current) == Some(&self.identity) => lease = current,
                        Ok(_) => return,
                        Err(error) => {
                            tracing::warn!(%error, lease = self.name, "failed to read the Lease");
                        }
                    }
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, lease = self.name, "failed to renew the Lease");
                }
                Err(_) => tracing::warn!(lease = self.name, "failed to renew the Lease in time"),
            }
        }
    }

    async fn renew(&self, lease: Lease) -> Result<Lease, kube::Error> {
        let mut spec = lease.spec.clone().unwrap_or_default();
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        self.write(lease, spec).await
    }

    /// Lets another replica take over at once. Failing to is no harm: the Lease runs out.
    async fn release(&self) {
        let released = async {
            let lease = self.leases.get(&self.name).await?;
            if holder(&lease) != Some(&self.identity) {
                return Ok(());
            }
            let mut spec = lease.spec.clone().unwrap_or_default();
            spec.holder_identity = None;
            self.write(lease, spec).await.map(drop)
        };
        if let Err(error) = released.await {
            tracing::warn!(%error, lease = self.name, "failed to release the Lease");
        }
    }

    /// `lease` still carries the version that was read, which makes this fail when somebody was
    /// faster.
    async fn write(&self, mut lease: Lease, spec: LeaseSpec) -> Result<Lease, kube::Error> {
        lease.spec = Some(spec);
        lease.metadata.managed_fields = None;
        self.leases
            .replace(&self.name, &PostParams::default(), &lease)
            .await
    }

    fn taken(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
            acquire_time: now.clone(),
            renew_time: now,
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + 1),
            ..before.clone()
        }
    }
}

fn holder(lease: &Lease) -> Option<&String> {
    lease
        .spec
        .as_ref()?
        .holder_identity
        .as_ref()
        .filter(|holder| !holder.is_empty())
}

/// Whether the Lease is free for `identity`, having been seen unchanged for so long. A replica that
/// is not ready leaves it to others for a while.
fn may_take(spec: &LeaseSpec, identity: &str, standing: Standing, unchanged: Duration) -> bool {
    let patience = match standing {
        Standing::Ready => Duration::ZERO,
        Standing::Unready => STAND_BACK,
        Standing::Unfit => return false,
    };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let granted = spec
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok());
    let silence = match holder {
        _ if holder == identity => return true,
        "" => Duration::ZERO,
        _ => granted.map_or(LEASE, Duration::from_secs),
    };
    unchanged >= silence + patience
}

/// Since when this process has seen the Lease as it is.
#[derive(Default)]
struct Sighting(Option<(Option<String>, Instant)>);

impl Sighting {
    fn unchanged_for(&mut self, lease: &Lease, now: Instant) -> Duration {
        let version = &lease.metadata.resource_version;
        match &self.0 {
            Some((seen, since)) if seen == version => now.saturating_duration_since(*since),
            _ => {
                self.0 = Some((version.clone(), now));
                Duration::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Standing::{Ready, Unfit, Unready};
    use super::*;

    fn held(holder: &str, seconds: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(seconds),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free_or_ours_or_its_holder_is_silent() {
        for (spec, unchanged, standing, expected) in [
            (LeaseSpec::default(), 0, Ready, true),
            (held("", 15), 0, Ready, true),
            (held("a", 15), 0, Ready, true),
            (held("b", 15), 14, Ready, false),
            (held("b", 15), 15, Ready, true),
            (held("b", 60), 15, Ready, false),
            (held("b", -1), 14, Ready, false),
            // Those that are ready come first.
            (held("", 15), 5, Unready, false),
            (held("", 15), 6, Unready, true),
            (held("a", 15), 0, Unready, true),
            (held("b", 15), 20, Unready, false),
            (held("b", 15), 21, Unready, true),
            (held("", 15), 3600, Unfit, false),
            (held("a", 15), 3600, Unfit, false),
        ] {
            let unchanged = Duration::from_secs(unchanged);
            let taken = may_take(&spec, "a", standing, unchanged);
            assert_eq!(taken, expected, "{spec:?} {unchanged:?} {standing:?}");
        }
    }

    #[test]
    fn silence_is_measured_from_when_this_process_first_saw_the_version() {
        let mut lease = Lease::default();
        lease.metadata.resource_version = Some("1".into());
        let (mut seen, start) = (Sighting::default(), Instant::now());
        assert_eq!(seen.unchanged_for(&lease, start), Duration::ZERO);
        assert_eq!(seen.unchanged_for(&lease, start + LEASE), LEASE);
        lease.metadata.resource_version = Some("2".into());
        assert_eq!(seen.unchanged_for(&lease, start + LEASE), Duration::ZERO);
    }
}
