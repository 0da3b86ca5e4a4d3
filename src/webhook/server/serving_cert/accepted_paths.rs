//! The paths that the webhook answers. Any other gets 404, before the body is read.
//!
//! A replica answers wherever an API server may ask: at the paths of the Secret, and at those that
//! the webhook configuration has or had a few seconds ago. The plain path is among them only while
//! the configuration has it.
//!
//! An API server may see a change before this replica does. So a request at a possible path waits
//! until the configuration has been read once more, at most once a second.

use super::decision::{PROPAGATION_TIME, ServingCas};
use super::path::{LEAF, PublishedPath, Segment};
use crate::webhook::server::pool::Pool;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// How long a request may wait for a read: the API server waits for 5 s by default.
const MAX_WAIT: Duration = Duration::from_secs(4);
/// The number of requests that may wait at once. Beyond that, the client with the most is evicted.
const MAX_WAITING: usize = 128;
/// The least time between two reads of the configuration on request.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct AcceptedPaths {
    known: watch::Sender<KnownPaths>,
    read_requested: Notify,
    waiting: Arc<Pool>,
}

#[derive(Debug, Default)]
struct KnownPaths {
    /// When the read of the configuration began that this follows from.
    as_of: Option<Instant>,
    is_plain: bool,
    segments: Vec<Segment>,
}

#[derive(Debug)]
enum RequestPath {
    Plain,
    Secret(Segment),
}

/// The paths that the webhook configuration has, or had less than [`PROPAGATION_TIME`] ago.
#[derive(Debug, Default)]
pub(super) struct RecentPaths(Vec<RecentPath>);

#[derive(Debug)]
struct RecentPath {
    path: PublishedPath,
    /// When it was first found missing.
    missing_since: Option<Instant>,
}

impl Default for AcceptedPaths {
    fn default() -> Self {
        Self {
            known: watch::Sender::default(),
            read_requested: Notify::new(),
            waiting: Pool::new(MAX_WAITING),
        }
    }
}

impl AcceptedPaths {
    /// Whether a request of this client by this path is answered.
    pub(in crate::webhook::server) async fn admit(&self, path: &str, client: u64) -> bool {
        let Some(path) = RequestPath::read(path) else {
            return false;
        };
        let mut known = self.known.subscribe();
        if known.borrow().has(&path) {
            return true;
        }
        let now = Instant::now();
        let guard = self.waiting.enter(client, 1);
        self.read_requested.notify_one();
        let is_new = |known: &KnownPaths| known.has(&path) || known.as_of >= Some(now);
        let is_known = async {
            let known = known.wait_for(is_new).await;
            known.is_ok_and(|known| known.has(&path))
        };
        tokio::select! {
            biased;
            () = guard.evicted() => false,
            found = timeout(MAX_WAIT, is_known) => found.unwrap_or(false),
        }
    }

    /// Waits for a request that needs a read, and until [`MIN_INTERVAL`] after the read at `last`.
    pub(super) async fn read_requested(&self, last: Instant) {
        self.read_requested.notified().await;
        tokio::time::sleep_until((last + MIN_INTERVAL).into()).await;
    }

    /// Answers at the paths of this Secret, before the configuration has been read.
    pub(super) fn begin(&self, cas: &ServingCas) {
        self.set(None, cas, &RecentPaths::default());
    }

    /// Answers at the paths of this Secret and of the configuration, as read since `as_of`.
    pub(super) fn set(&self, as_of: Option<Instant>, cas: &ServingCas, recent_paths: &RecentPaths) {
        let published = recent_paths
            .0
            .iter()
            .filter_map(|recent| match &recent.path {
                PublishedPath::Secret(segment) => Some(segment),
                PublishedPath::Plain | PublishedPath::Other => None,
            });
        self.known.send_replace(KnownPaths {
            as_of,
            is_plain: recent_paths.has_plain(),
            segments: cas.segments().chain(published).cloned().collect(),
        });
    }

    /// Whether the plain path is answered, which everybody knows.
    pub(super) fn has_plain(&self) -> bool {
        self.known.borrow().is_plain
    }
}

impl RequestPath {
    fn read(path: &str) -> Option<Self> {
        let base = path.strip_suffix(LEAF)?;
        if base.is_empty() {
            return Some(Self::Plain);
        }
        base.strip_prefix('/')
            .and_then(Segment::read)
            .map(Self::Secret)
    }
}

impl KnownPaths {
    fn has(&self, path: &RequestPath) -> bool {
        match path {
            RequestPath::Plain => self.is_plain,
            // All are compared, so that the time reveals nothing.
            RequestPath::Secret(segment) => {
                let matches = self.segments.iter().map(|known| known.is(segment));
                matches.fold(false, |found, is_same| found | is_same)
            }
        }
    }
}

impl RecentPaths {
    pub(super) fn record(&mut self, published: &[PublishedPath], now: Instant) {
        for path in published {
            if self.0.iter().all(|recent| recent.path != *path) {
                self.0.push(RecentPath {
                    path: path.clone(),
                    missing_since: None,
                });
            }
        }
        self.0.retain_mut(|recent| {
            if published.contains(&recent.path) {
                recent.missing_since = None;
                return true;
            }
            // The path may have been there until just now.
            let since = *recent.missing_since.get_or_insert(now);
            now.duration_since(since) < PROPAGATION_TIME
        });
    }

    /// Whether the configuration has lost a path lately.
    pub(super) fn is_propagating(&self) -> bool {
        self.0.iter().any(|recent| recent.missing_since.is_some())
    }

    fn has_plain(&self) -> bool {
        let mut paths = self.0.iter();
        paths.any(|recent| recent.path == PublishedPath::Plain)
    }
}

#[cfg(test)]
mod tests;
