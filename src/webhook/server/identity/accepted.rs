//! The paths that the webhook answers. A request by any other path gets 404, before its body is
//! read.
//!
//! A replica answers at a path for as long as an API server may ask there: at those of the Secret,
//! and at those that any webhook configuration carries or carried a few seconds ago. The plain path
//! is one of them only while a configuration has it: before the operator has put the secret one
//! there, or after somebody has put it back.
//!
//! An API server may learn of a change before this replica does. So a request at a path that could
//! be the webhook's waits until the configurations have been read once more, which happens at most
//! once a second, whoever asks how often.

use super::decision::{Cas, SETTLING};
use super::path::{Carried, LEAF, Segment};
use crate::webhook::server::room::Room;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// How long a request may wait for the configurations to be read. The API server waits for 5 s by
/// default.
const MAX_WAIT: Duration = Duration::from_secs(4);
/// How many requests may wait at once; with more, those of the client that has the most make way.
const MAX_WAITING: usize = 128;
/// The least time between two reads of the configurations that requests ask for.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The paths at which a replica answers.
#[derive(Debug)]
pub struct AcceptedPaths {
    known: watch::Sender<Known>,
    asked: Notify,
    waiting: Arc<Room>,
}

#[derive(Debug, Default)]
struct Known {
    /// When the read of the configurations began from which this follows.
    as_of: Option<Instant>,
    is_plain: bool,
    segments: Vec<Segment>,
}

/// The path of a request.
#[derive(Debug)]
enum Asked {
    Plain,
    Secret(Segment),
}

/// The paths that any webhook configuration carries, or carried less than [`SETTLING`] ago.
#[derive(Debug, Default)]
pub(super) struct Lately(Vec<Seen>);

#[derive(Debug)]
struct Seen {
    path: Carried,
    /// When it was first found missing.
    gone: Option<Instant>,
}

impl Default for AcceptedPaths {
    fn default() -> Self {
        Self {
            known: watch::Sender::default(),
            asked: Notify::new(),
            waiting: Room::new(MAX_WAITING),
        }
    }
}

impl AcceptedPaths {
    /// Whether a request of this client by this path is to be answered.
    pub(in crate::webhook::server) async fn admit(&self, path: &str, client: u64) -> bool {
        let Some(asked) = Asked::read(path) else {
            return false;
        };
        let mut known = self.known.subscribe();
        if known.borrow().has(&asked) {
            return true;
        }
        let now = Instant::now();
        let place = self.waiting.enter(client, 1);
        self.asked.notify_one();
        let is_new = |known: &Known| known.has(&asked) || known.as_of >= Some(now);
        let looked = async {
            let known = known.wait_for(is_new).await;
            known.is_ok_and(|known| known.has(&asked))
        };
        tokio::select! {
            biased;
            () = place.lost() => false,
            found = timeout(MAX_WAIT, looked) => found.unwrap_or(false),
        }
    }

    /// Waits until a request asks for a read of the configurations, and until that may be: the last
    /// one began at `last`.
    pub(super) async fn asked(&self, last: Instant) {
        self.asked.notified().await;
        tokio::time::sleep_until((last + MIN_INTERVAL).into()).await;
    }

    /// Answers at the paths of this Secret, before any configuration has been read.
    pub(super) fn begin(&self, cas: &Cas) {
        self.set(None, cas, &Lately::default());
    }

    /// Answers at the paths of this Secret and of the configurations, as read since `as_of`.
    pub(super) fn set(&self, as_of: Option<Instant>, cas: &Cas, lately: &Lately) {
        let carried = lately.0.iter().filter_map(|seen| match &seen.path {
            Carried::Secret(segment) => Some(segment),
            Carried::Plain | Carried::Other => None,
        });
        self.known.send_replace(Known {
            as_of,
            is_plain: lately.has_plain(),
            segments: cas.segments().chain(carried).cloned().collect(),
        });
    }

    /// Whether the plain path is answered, where everybody may ask.
    pub(super) fn has_plain(&self) -> bool {
        self.known.borrow().is_plain
    }
}

impl Asked {
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

impl Known {
    fn has(&self, asked: &Asked) -> bool {
        match asked {
            Asked::Plain => self.is_plain,
            // All are compared, so that the time tells nothing.
            Asked::Secret(asked) => {
                let matches = self.segments.iter().map(|known| known.is(asked));
                matches.fold(false, |found, is_same| found | is_same)
            }
        }
    }
}

impl Lately {
    /// Takes note of all paths that the configurations carry at this moment.
    pub(super) fn see(&mut self, carried: &[Carried], now: Instant) {
        for path in carried {
            if self.0.iter().all(|seen| seen.path != *path) {
                let path = path.clone();
                self.0.push(Seen { path, gone: None });
            }
        }
        self.0.retain_mut(|seen| {
            if carried.contains(&seen.path) {
                seen.gone = None;
                return true;
            }
            // The path may have been there until just now.
            now.duration_since(*seen.gone.get_or_insert(now)) < SETTLING
        });
    }

    /// Whether a path is on the list that no configuration carries any more.
    pub(super) fn is_settling(&self) -> bool {
        self.0.iter().any(|seen| seen.gone.is_some())
    }

    fn has_plain(&self) -> bool {
        self.0.iter().any(|seen| seen.path == Carried::Plain)
    }
}

#[cfg(test)]
mod tests;
