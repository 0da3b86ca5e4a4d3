//! What is counted of connections and of requests that were not even judged.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Listener {
    listener: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Closed {
    listener: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    reason: &'static str,
}

/// Those of the listeners.
#[derive(Debug, Default)]
pub struct Listeners {
    connections: Family<Listener, Gauge>,
    closed: Family<Closed, Counter>,
    refused: Family<Refused, Counter>,
}

impl Listeners {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "connections",
            "Open connections, by listener: webhook, health",
            self.connections.clone(),
        );
        registry.register(
            "connections_closed",
            "Connections that were closed on the client, by listener and reason: idle, displaced",
            self.closed.clone(),
        );
        registry.register(
            "requests_refused",
            "Requests to the webhook that were not judged, by reason: path, large, intricate, slow, broken, displaced",
            self.refused.clone(),
        );
        for listener in ["webhook", "health"] {
            self.open(listener, 0);
            for reason in ["idle", "displaced"] {
                drop(self.closed.get_or_create(&Closed { listener, reason }));
            }
        }
        for reason in ["path", "large", "intricate", "slow", "broken", "displaced"] {
            drop(self.refused.get_or_create(&Refused { reason }));
        }
    }

    /// Tells how many connections are open.
    pub fn open(&self, listener: &'static str, count: usize) {
        let gauge = self.connections.get_or_create(&Listener { listener });
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a connection that was closed on the client.
    pub fn closed(&self, listener: &'static str, reason: &'static str) {
        self.closed
            .get_or_create(&Closed { listener, reason })
            .inc();
    }

    /// Counts a request that was not judged.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Refused { reason }).inc();
    }
}
