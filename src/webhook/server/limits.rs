//! The limits of a client: anyone who reaches a port can neither use up the memory nor shut out the
//! API server. Where something is full, the slowest is evicted.

use crate::webhook::server::connections::Timeouts;
use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto::Builder;
use std::fs;
use std::time::Duration;

/// The limits that the platform team may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections to the webhook at a time.
    pub connections: usize,
    /// Requests to the webhook at a time.
    pub requests: usize,
    /// How long ago the API server may have confirmed the watches.
    pub watch_age: Duration,
}

/// Connections for health and metrics: kubelet and a few scrapers.
pub const HEALTH_CONNECTIONS: usize = 64;
/// Files, connections to the API server, and connections that were accepted a moment ago.
const OTHER_DESCRIPTORS: usize = 256;

/// The API server closes idle connections after 90 seconds, and must do so first: a request that
/// meets the end of its connection fails.
pub const WEBHOOK_TIMEOUTS: Timeouts = Timeouts {
    first_request: Duration::from_secs(10),
    next_request: Duration::from_secs(120),
};
/// Scrapes are a minute apart, and tried again.
pub const HEALTH_TIMEOUTS: Timeouts = Timeouts {
    first_request: Duration::from_secs(10),
    next_request: Duration::from_secs(75),
};

/// The API server takes objects of 3 MiB, and an UPDATE carries two of them.
pub const MAX_BODY_BYTES: usize = 7 * 1024 * 1024;
/// A larger body counts among the large ones. Reviews of what people write have a few KiB.
pub const LARGE_BODY_BYTES: usize = 32 * 1024;
/// The bytes of large bodies that are held at once.
pub const MAX_LARGE_BODY_BYTES: usize = 6 * MAX_BODY_BYTES;
/// The number of large bodies that are read at once: as objects they are many times as large.
pub const MAX_LARGE_READS: usize = 2;
/// How long a client may take to send a body: the API server sends it in one piece.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// From the head of a request to the answer. The API server waits 30 seconds at the most.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The number of pages of metrics that are sent at once: that of a large cluster has megabytes.
pub const MAX_PAGES: usize = 4;

/// The most lists and objects in a body. JSON in memory depends on the number of values, not on
/// their length: an object of one field takes up a thousand bytes, and a review of 7 MiB 800 MiB. A
/// policy with 100,000 names is well below, in its old and its new form together.
pub const MAX_CONTAINERS: usize = 25_000;
/// The most values in the lists and objects of a body.
pub const MAX_VALUES: usize = 400_000;

/// The head of a request, and what is read or written at once; a TLS record has as much.
const BUFFER_BYTES: u32 = 16 * 1024;
/// Bytes that a client may send before they are read, per request and per connection. A connection
/// has more, so that one unread request does not hold up the others.
const REQUEST_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// API servers use HTTP/1.1, a request at a time. A client of HTTP/2 opens another connection.
const MAX_STREAMS: u32 = 128;
/// A connection whose other end is gone is noticed after this time and as long again.
const PING_INTERVAL: Duration = Duration::from_secs(15);

impl Limits {
    /// Lowers the connections to the open files of this process: beyond, nobody gets a new one.
    #[must_use]
    pub fn within(self, descriptors: Option<usize>) -> Self {
        let others = HEALTH_CONNECTIONS + OTHER_DESCRIPTORS;
        let needed = self.connections + others;
        let Some(files) = descriptors.filter(|files| *files < needed) else {
            return self;
        };
        let connections = files.saturating_sub(others).max(1);
        tracing::warn!(
            "--max-connections is {}, but this process may open {files} files, so it serves at most {connections} \
             connections; raise that limit (ulimit -n, LimitNOFILE) to {needed}",
            self.connections
        );
        Self {
            connections,
            ..self
        }
    }
}

/// The number of files, and so connections, that this process may open.
pub fn descriptors() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    // `unlimited` is no number, and no limit.
    line.split_whitespace().next()?.parse().ok()
}

/// Sets the limits of HTTP. h2 itself bounds abuses of HTTP/2 (resets, CONTINUATION, tiny frames).
pub fn set<E>(builder: &mut Builder<E>) {
    builder
        .http1()
        .timer(TokioTimer::new())
        // The connection has its own timeouts; hyper's would close idle connections too.
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(PING_INTERVAL))
        .keep_alive_timeout(PING_INTERVAL)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(BUFFER_BYTES)
        .initial_stream_window_size(REQUEST_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(BUFFER_BYTES as usize);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_connections_than_the_system_allows() {
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
    fn the_number_of_files_that_may_be_open_is_read() {
        assert!(descriptors().is_some_and(|most| most > 3));
    }
}
