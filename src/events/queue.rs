//! Queue of the notices that wait to be sent, in a bounded amount of memory.
//!
//! The latest notice of each dedup key waits; one that is overtaken is never sent. Namespaces are
//! served round robin, so that a noisy one does not delay the others. Within a namespace the
//! subject without an Event for the longest time comes first.

use super::notice::Notice;
use crate::util::sync::lock;
use state::{Next, QueueState};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

mod namespaces;
mod state;

/// The queue, with many producers and one consumer. No producer waits.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    changed: Notify,
}

/// A notice that waits or is being sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct QueuedNotice {
    pub(super) notice: Notice,
    /// Time of the offer.
    pub(super) since: Instant,
    place: Place,
}

/// A place in the order of a namespace: whether it is a refusal, since anybody can cause any number
/// of these; the last publication under the same dedup key; the number of the offer.
type Place = (bool, Option<Instant>, u64);

/// Result of an offer, with the notices that are not sent because of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Offered {
    Queued,
    Overtaken(Vec<Notice>),
    Full(Box<Notice>),
}

impl Queue {
    pub(super) fn offer(&self, notice: Notice) -> Offered {
        self.change(|state| state.offer(notice, Instant::now()))
    }

    /// The next notice to send; `None` when the queue is closed and nothing is ready.
    pub(super) async fn next(&self) -> Option<QueuedNotice> {
        loop {
            let next = self.state().next(Instant::now());
            match next {
                Next::Notice(queued) => return Some(*queued),
                Next::End => return None,
                Next::Nothing { until: None } => self.changed.notified().await,
                Next::Nothing { until: Some(until) } => {
                    let changed = self.changed.notified();
                    let _ = tokio::time::timeout_at(until.into(), changed).await;
                }
            }
        }
    }

    /// Ends the sending of a notice. `is_published` unless it was dropped.
    pub(super) fn finish(&self, notice: &Notice, is_published: bool) {
        self.change(|state| state.finish(notice, is_published, Instant::now()));
    }

    /// Puts a notice back that may not be sent before `at`. Returns what is overtaken.
    pub(super) fn defer(&self, queued: QueuedNotice, at: Instant) -> Vec<Notice> {
        self.change(|state| state.put_back(queued, Some(at)))
    }

    /// Puts a notice back that could not be sent, and pauses its namespace for at least `pause`.
    /// Returns what is overtaken.
    pub(super) fn retry(&self, queued: QueuedNotice, pause: Duration) -> Vec<Notice> {
        self.change(|state| state.retry(queued, pause, Instant::now()))
    }

    /// Ends the offers. The notices that wait are tried once more, now.
    pub(super) fn close(&self) {
        self.change(QueueState::close);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().is_closed()
    }

    /// Drops the notices that are not to be kept, and all knowledge of published Events.
    pub(super) fn clear(&self, is_kept: impl Fn(&Notice) -> bool) {
        self.state().clear(is_kept);
    }

    /// Changes the state, and wakes the consumer.
    fn change<T>(&self, change: impl FnOnce(&mut QueueState) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_one();
        result
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests;
