//! Reports a clock that is not trusted: log, metrics, and an Event on the Lease of the leader.

use crate::events::{self, Publisher};
use crate::k8s::clock::{Clock, ClockFault};
use crate::k8s::object_key::Key;
use crate::observability::metrics::Metrics;
use std::sync::Arc;
use std::time::Duration;

/// How often both clocks are read.
const POLL: Duration = Duration::from_secs(1);

/// Reads the clocks for as long as it is polled, so a step is noticed while nothing else happens.
pub async fn follow(
    clock: Arc<Clock>,
    lease: Key,
    replica: String,
    publisher: Publisher,
    metrics: Arc<Metrics>,
) {
    let mut known = None;
    loop {
        let fault = clock.fault();
        metrics.clock(clock.skew(), fault.is_none());
        if let Some(fault @ (ClockFault::Skewed(_) | ClockFault::NoDate)) = &fault {
            publisher.offer(events::about_clock(&lease, &replica, fault));
        }
        let text = fault.as_ref().map(ToString::to_string);
        if known.as_ref() != Some(&text) {
            log(fault.as_ref());
            known = Some(text);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn log(fault: Option<&ClockFault>) {
    match fault {
        None => tracing::info!("the clock agrees with the API server's"),
        Some(fault @ (ClockFault::NotCompared | ClockFault::OnProbation)) => {
            tracing::info!(%fault, "the clock is not trusted yet");
        }
        Some(fault) => {
            tracing::error!(%fault, "the clock is not trusted; this replica neither leads nor issues");
        }
    }
}
