//! What a client may take up. Everything is bounded, so that whoever reaches a port can neither use
//! up the memory nor shut out the API server: where something is full, who has taken the longest
//! makes way for who comes.

use crate::webhook::server::connections::Allowance;
use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto::Builder;
use std::fs;
use std::time::Duration;

/// What the platform team may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections to the webhook at a time.
    pub connections: usize,
    /// Requests to the webhook at a time.
    pub requests: usize,
    /// How long ago the API server may have confirmed what is judged by.
    pub watch_age: Duration,
}

/// Connections for health and metrics: kubelet and a few scrapers.
pub const HEALTH_CONNECTIONS: usize = 64;
/// Files, connections to the API server, and those which have been accepted and not been looked at
/// yet.
const OTHER_DESCRIPTORS: usize = 256;

/// The API server closes its idle connections after 90 seconds. It must be the first to do so: a
/// request that meets the end of its connection fails.
pub const WEBHOOK_ALLOWANCE: Allowance = Allowance {
    first_request: Duration::from_secs(10),
    next_request: Duration::from_secs(120),
};
/// Scrapes are a minute apart, and tried again.
pub const HEALTH_ALLOWANCE: Allowance = Allowance {
    first_request: Duration::from_secs(10),
    next_request: Duration::from_secs(75),
};

/// The API server takes objects of 3 MiB, and an UPDATE carries two of them.
pub const LARGEST_BODY: usize = 7 * 1024 * 1024;
/// What people write has a few KiB. What comes of a body beyond this size takes up room among the
/// large ones.
pub const LARGE_BODY: usize = 32 * 1024;
/// How many bytes of large bodies are held at once.
pub const LARGE_BODIES: usize = 6 * LARGEST_BODY;
/// How many large bodies are judged at once: read as JSON they become many times as large.
pub const LARGE_AT_ONCE: usize = 2;
/// How long a client may take to send a body: the API server sends it in one piece.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take from the head of a request to the answer; the API server waits 30
/// seconds at the most.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Pages of metrics that are sent at once: that of a large cluster has megabytes.
pub const PAGES_AT_ONCE: usize = 4;

/// What JSON becomes in memory depends on how many values there are, not on their length: an object
/// of one field takes up a thousand bytes, so that a review of 7 MiB could have 800 MiB. A policy
/// with 100,000 names is well below both, in its old and its new form together.
pub const MOST_LISTS_AND_OBJECTS: usize = 25_000;
/// As above, of values in lists and objects.
pub const MOST_VALUES: usize = 400_000;

/// The head of a request, and what is read or written at once; a TLS record has as much.
const BUFFER: u32 = 16 * 1024;
/// What a client may send before somebody reads it, for a request and for a connection. The latter
/// is larger, so that one request that nobody reads does not hold up the others.
const REQUEST_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// API servers speak HTTP/1.1 to webhooks, a request at a time on each connection; whoever speaks
/// HTTP/2 opens another one.
const STREAMS: u32 = 128;
/// A connection whose other end is gone is noticed after this time and as long again.
const PING: Duration = Duration::from_secs(15);

impl Limits {
    /// As many connections as this process may have open: with more the system would shut out
    /// newcomers, whoever they are.
    #[must_use]
    pub fn within(self, descriptors: Option<usize>) -> Self {
        let others = HEALTH_CONNECTIONS + OTHER_DESCRIPTORS;
        let Some(files) = descriptors.filter(|files| *files < self.connections + others) else {
            return self;
        };
        let connections = files.saturating_sub(others).max(1);
        tracing::warn!(
            "--max-connections is {}, but this process may open {files} files: {connections} connections it is; raise that \
             limit (ulimit -n, LimitNOFILE) to {}",
            self.connections,
            self.connections + others
        );
        Self {
            connections,
            ..self
        }
    }
}

/// How many files, and so connections, this process may open.
pub fn descriptors() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    // The soft limit; `unlimited` is no number, and no limit.
    line.split_whitespace().next()?.parse().ok()
}

/// HTTP/2's own abuses (resets, CONTINUATION, empty and tiny frames) h2 bounds by itself.
pub fn set<E>(builder: &mut Builder<E>) {
    builder
        .http1()
        .timer(TokioTimer::new())
        // Slow heads are for the allowance of the connection: hyper's timeout would close idle
        // connections, too.
        .header_read_timeout(None)
        .max_buf_size(BUFFER as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(PING))
        .keep_alive_timeout(PING)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(BUFFER)
        .initial_stream_window_size(REQUEST_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(BUFFER as usize);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_connections_than_the_system_gives() {
        let wanted = Limits {
            connections: 512,
            requests: 1000,
            watch_age: Duration::from_secs(600),
        };
        for (descriptors, connections) in [
            (None, 512),
            (Some(1_048_576), 512),
            (Some(832), 512),
            (Some(831), 511),
            (Some(400), 80),
            (Some(20), 1),
        ] {
            let limits = wanted.within(descriptors);
            assert_eq!(limits.connections, connections, "{descriptors:?}");
            assert_eq!(limits.requests, 1000);
        }
    }

    #[test]
    fn the_system_tells_how_many_files_may_be_open() {
        assert!(descriptors().is_some_and(|most| most > 3));
    }
}
