//! Metrics of connections, and of requests that were not judged.

use super::{Counters, Gauges, add, gauge_value};
use prometheus_client::registry::Registry;

/// The metrics of the listeners.
#[derive(Debug)]
pub struct Listeners {
    connections: Gauges,
    closed: Counters<2>,
    refused: Counters<1>,
}

impl Listeners {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let listeners = Self {
            connections: add(
                registry,
                "connections",
                "Open connections, by listener: webhook, health",
            ),
            closed: add(
                registry,
                "connections_closed",
                "Connections that the operator closed, by listener and reason: idle, displaced",
            ),
            refused: add(
                registry,
                "requests_refused",
                "Requests to the webhook that it did not evaluate, by reason: path, large, intricate, slow, broken, displaced",
            ),
        };
        for listener in ["webhook", "health"] {
            listeners.open(listener, 0);
            for reason in ["idle", "displaced"] {
                let labels = [("listener", listener), ("reason", reason)];
                drop(listeners.closed.get_or_create(&labels));
            }
        }
        for reason in ["path", "large", "intricate", "slow", "broken", "displaced"] {
            drop(listeners.refused.get_or_create(&[("reason", reason)]));
        }
        listeners
    }

    /// Shows how many connections are open.
    pub fn open(&self, listener: &'static str, count: usize) {
        let gauge = self.connections.get_or_create(&[("listener", listener)]);
        gauge.set(gauge_value(count));
    }

    /// Counts a connection that was closed on the client.
    pub fn closed(&self, listener: &'static str, reason: &'static str) {
        let labels = [("listener", listener), ("reason", reason)];
        self.closed.get_or_create(&labels).inc();
    }

    /// Counts a request that was not judged.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }
}
