//! The connections of a listener: their number, their idle timeouts, and the eviction of one for
//! another.
//!
//! Eviction is a pure function of each [state](ConnectionState). The evicted [stream](stream)
//! breaks, which ends a handshake, a head or a body alike.

use crate::observability::metrics::Metrics;
use crate::util::sync::lock;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

mod service;
mod stream;

pub(super) use service::{Client, mark_complete};
pub(super) use stream::Bounded;

/// How long a new connection may be silent before it counts as one that sends no request.
const GRACE: Duration = Duration::from_secs(1);
/// How often idle connections are closed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From connecting to the end of the first request's head.
    pub first_request: Duration,
    /// From an answer to the end of the next request's head; meanwhile it may read the answer.
    pub next_request: Duration,
}

/// The open connections of a listener.
#[derive(Debug)]
pub(super) struct Connections {
    listener: &'static str,
    max: usize,
    timeouts: Timeouts,
    metrics: Arc<Metrics>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    by_number: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    state: ConnectionState,
    closed: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
struct ConnectionState {
    peer: IpAddr,
    /// When it was opened, or its last request began or ended.
    since: Instant,
    has_asked: bool,
    /// Whether a request was answered with success.
    was_answered: bool,
    in_flight: u32,
    /// Whether its request has come in full, so that the answer is late by no fault of the client.
    is_complete: bool,
}

impl ConnectionState {
    fn new(peer: IpAddr, now: Instant) -> Self {
        Self {
            peer,
            since: now,
            has_asked: false,
            was_answered: false,
            in_flight: 0,
            is_complete: false,
        }
    }

    /// Whether it was idle for too long. A request under way has a timeout of its own.
    fn is_overdue(&self, timeouts: Timeouts, now: Instant) -> bool {
        let timeout = if self.has_asked {
            timeouts.next_request
        } else {
            timeouts.first_request
        };
        self.in_flight == 0 && now.saturating_duration_since(self.since) > timeout
    }
}

/// The connection to evict when there are as many as there may be. If one address has more than
/// half, only its connections are considered. The order:
///
/// 1. Connections that never sent a request with a successful answer.
/// 2. The larger group: those that were answered before, or those that have just come.
/// 3. The connection that was silent for the longest. One that waits for an answer, to a request
///    that came in full or a moment ago, is the last to go.
///
/// So a client that opens connections in masses loses its own. A newcomer, as the API server is in
/// a flood, gets time to be answered, and an answered client is not evicted for strangers alone.
fn to_evict<K: Copy>(
    connections: impl Iterator<Item = (K, ConnectionState)> + Clone,
    now: Instant,
) -> Option<K> {
    let mut counts = HashMap::<_, usize>::new();
    for (_, state) in connections.clone() {
        *counts.entry(state.peer).or_default() += 1;
    }
    let half = counts.values().sum::<usize>() / 2;
    let majority = counts.iter().find(|(_, count)| **count > half);
    let majority = majority.map(|(peer, _)| *peer);
    let considered =
        connections.filter(|(_, state)| majority.is_none_or(|peer| state.peer == peer));
    let answered = considered.clone().filter(|(_, state)| state.was_answered);
    let are_most_answered = 2 * answered.count() >= considered.clone().count();
    let evicted = considered.min_by_key(|(_, state)| {
        let is_new = now.saturating_duration_since(state.since) < GRACE;
        let is_busy = state.is_complete || is_new && state.in_flight > 0;
        let is_useful = state.was_answered || is_new || is_busy;
        let is_in_smaller_group = state.was_answered != are_most_answered;
        (is_useful, is_in_smaller_group, is_busy, state.since)
    });
    evicted.map(|(key, _)| key)
}

/// The address by which connections are counted: an IPv6 host may use all addresses of its network.
fn origin(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Connections {
    pub(super) fn new(
        listener: &'static str,
        max: usize,
        timeouts: Timeouts,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            listener,
            max,
            timeouts,
            metrics,
            open: Mutex::default(),
        })
    }

    /// Adds a connection, and evicts another for it if need be.
    fn add(self: &Arc<Self>, peer: IpAddr, now: Instant) -> (Entry, CancellationToken) {
        let closed = CancellationToken::new();
        let connection = Connection {
            state: ConnectionState::new(origin(peer), now),
            closed: closed.clone(),
        };
        let mut open = lock(&self.open);
        while open.by_number.len() >= self.max {
            let all = open.by_number.iter();
            let Some(number) = to_evict(all.map(|(number, it)| (*number, it.state)), now) else {
                break;
            };
            self.close(&mut open, number, "displaced");
        }
        let number = open.next;
        open.next += 1;
        open.by_number.insert(number, connection);
        self.count(&open);
        let connections = self.clone();
        let entry = Entry {
            connections,
            number,
        };
        (entry, closed)
    }

    /// Closes idle connections, for as long as it is polled.
    pub(super) async fn sweep<T>(&self) -> T {
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            let now = Instant::now();
            let mut open = lock(&self.open);
            let overdue = open.by_number.iter();
            let overdue = overdue.filter(|(_, it)| it.state.is_overdue(self.timeouts, now));
            let overdue: Vec<_> = overdue.map(|(number, _)| *number).collect();
            for number in overdue {
                self.close(&mut open, number, "idle");
            }
            self.count(&open);
        }
    }

    fn close(&self, open: &mut Open, number: u64, reason: &'static str) {
        if let Some(connection) = open.by_number.remove(&number) {
            connection.closed.cancel();
            self.metrics.listeners.closed(self.listener, reason);
        }
    }

    fn count(&self, open: &Open) {
        let count = open.by_number.len();
        self.metrics.listeners.open(self.listener, count);
    }
}

#[derive(Debug)]
struct Entry {
    connections: Arc<Connections>,
    number: u64,
}

impl Entry {
    fn update(&self, change: impl FnOnce(&mut ConnectionState)) {
        if let Some(it) = lock(&self.connections.open).by_number.get_mut(&self.number) {
            it.state.since = Instant::now();
            change(&mut it.state);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut open = lock(&self.connections.open);
        open.by_number.remove(&self.number);
        self.connections.count(&open);
    }
}

#[cfg(test)]
mod tests;
