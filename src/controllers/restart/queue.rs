//! The workloads that ask to be restarted, and when each is due. Without I/O.

use super::workload::{Kind, Mark, Workload};
use super::{Cause, Renewal};
use crate::store::secret_index::{Change, ReferencesSecrets, SecretIndex};
use crate::util::backoff::Backoff;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use pki_certs::renewal;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// Minimum interval between two attempts on one workload. An attempt takes two requests.
const MIN_INTERVAL: Duration = Duration::from_secs(2);
/// Pauses after failed attempts.
const BACKOFF: Backoff = Backoff {
    first: MIN_INTERVAL,
    longest: Duration::from_secs(60),
};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Restarted(Timestamp),
    /// Nothing was to be done.
    Left,
    /// Its owner has paused it.
    Paused,
    /// An error or a timeout of the API server, or a conflict.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) workload: Workload,
    /// The UID of the workload that asked.
    pub(super) uid: String,
    /// Why, the earliest due first.
    pub(super) causes: Vec<Cause>,
}

#[derive(Debug, Default)]
pub(super) struct RestartQueue {
    /// The time after a renewal over which restarts are spread.
    window: SignedDuration,
    /// The pause for a paused workload, unless it changes.
    paused_interval: Duration,
    marked: BTreeMap<Kind, SecretIndex<Mark>>,
    /// The namespaces of workloads that have begun to ask, while the watch lists.
    begun: BTreeSet<String>,
    waiting: HashMap<Workload, Waiting>,
}

/// A workload that is to be restarted, or was lately.
#[derive(Debug, Default)]
struct Waiting {
    uid: String,
    /// By the name of the Secret, with the time when each is due.
    causes: BTreeMap<String, (Timestamp, Cause)>,
    is_busy: bool,
    /// How often in a row it went wrong.
    failures: u32,
    /// When it may be tried again, in any case and as things are.
    earliest: Option<Instant>,
    again: Option<Instant>,
}

impl RestartQueue {
    pub(super) fn new(window: SignedDuration, paused_interval: Duration) -> Self {
        Self {
            window,
            paused_interval,
            ..Self::default()
        }
    }

    /// Follows the watch of one kind. Returns the namespaces in which a workload has begun to ask:
    /// their Pkis are to be reconciled, since their certificates were not recorded before.
    pub(super) fn mark<K: ResourceExt>(
        &mut self,
        kind: Kind,
        event: &Event<K>,
    ) -> BTreeSet<String> {
        let is_listing = matches!(event, Event::Init | Event::InitApply(_));
        let marked = self.marked.entry(kind).or_default();
        for change in marked.apply_some(event, Mark::of) {
            self.on_change(kind, &change);
        }
        if is_listing {
            BTreeSet::new()
        } else {
            std::mem::take(&mut self.begun)
        }
    }

    fn on_change(&mut self, kind: Kind, change: &Change<Mark>) {
        let (before, after) = (change.before.as_deref(), change.after.as_deref());
        let Some(key) = after.or(before).map(ReferencesSecrets::key) else {
            return;
        };
        let workload = Workload {
            kind,
            key: key.clone(),
        };
        if before.map(|mark| &mark.uid) == after.map(|mark| &mark.uid) {
            // A fault may be gone: it was resumed, for example.
            if let Some(waiting) = self.waiting.get_mut(&workload) {
                waiting.again = waiting.earliest;
            }
            return;
        }
        self.waiting.remove(&workload);
        if after.is_some() {
            self.begun.insert(workload.key.namespace.to_string());
        }
    }

    /// Adds a certificate that pods of these workloads are older than.
    pub(super) fn add(&mut self, renewal: Renewal) {
        let Renewal { cause, behind } = renewal;
        for workload in behind {
            let marked = self.marked.get(&workload.kind);
            let Some(mark) = marked.and_then(|marked| marked.get(&workload.key)) else {
                continue;
            };
            let seed = format!("{}/{}", mark.uid, cause.serial);
            let delay = renewal::spread(self.window, seed.as_bytes());
            let due = cause.issued.saturating_add(delay);
            let mut due = due.unwrap_or(cause.issued);
            let waiting = self.waiting.entry(workload).or_default();
            waiting.uid.clone_from(&mark.uid);
            if let Some((earlier, _)) = waiting.causes.get(&*cause.secret.name) {
                // One that is renewed again and again must not be put off for ever.
                due = due.min(*earlier);
            }
            let secret = cause.secret.name.to_string();
            waiting.causes.insert(secret, (due, cause.clone()));
        }
    }

    /// The next workload that is due. Its result goes to [`on_result`](Self::on_result).
    pub(super) fn next(&mut self, now: Timestamp, instant: Instant) -> Option<Task> {
        self.waiting.retain(|_, waiting| !waiting.is_over(instant));
        let ready = self.waiting.iter_mut().filter(|(_, waiting)| {
            !waiting.is_busy && waiting.again.is_none_or(|again| again <= instant)
        });
        let due = ready.filter_map(|(workload, waiting)| {
            let due = waiting.due().filter(|due| *due <= now)?;
            Some((due, workload, waiting))
        });
        let (_, workload, waiting) = due.min_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)))?;
        waiting.is_busy = true;
        let mut causes: Vec<_> = waiting.causes.values().cloned().collect();
        causes.retain(|(due, _)| *due <= now);
        causes.sort_by_key(|(due, _)| *due);
        Some(Task {
            workload: workload.clone(),
            uid: waiting.uid.clone(),
            causes: causes.into_iter().map(|(_, cause)| cause).collect(),
        })
    }

    /// Records the result of a task.
    pub(super) fn on_result(&mut self, task: &Task, outcome: Outcome, instant: Instant) {
        // The workload may have been deleted meanwhile.
        let Some(waiting) = self.waiting.get_mut(&task.workload) else {
            return;
        };
        waiting.is_busy = false;
        waiting.earliest = Some(instant + MIN_INTERVAL);
        waiting.failures = match outcome {
            Outcome::Failed => waiting.failures.saturating_add(1),
            _ => 0,
        };
        let pause = match outcome {
            Outcome::Failed => BACKOFF.pause(waiting.failures),
            Outcome::Paused => self.paused_interval.max(MIN_INTERVAL),
            Outcome::Restarted(_) | Outcome::Left => MIN_INTERVAL,
        };
        waiting.again = Some(instant + pause);
        waiting.causes.retain(|_, (_, cause)| match outcome {
            // The new pods read all that is there.
            Outcome::Restarted(at) => cause.issued > at,
            // Later causes stay.
            Outcome::Left => !task.causes.contains(cause),
            Outcome::Paused | Outcome::Failed => true,
        });
    }

    /// The time until something may be due if nothing happens: at most `longest`, and long enough
    /// not to spin.
    pub(super) fn pause(&self, now: Timestamp, instant: Instant, longest: Duration) -> Duration {
        let idle = self.waiting.values().filter(|waiting| !waiting.is_busy);
        let waits = idle.filter_map(|waiting| {
            let due = waiting.due()?.duration_since(now);
            let due = due.try_into().unwrap_or(Duration::ZERO);
            let again = waiting.again.map_or(Duration::ZERO, |again| {
                again.saturating_duration_since(instant)
            });
            Some(due.max(again))
        });
        waits
            .min()
            .unwrap_or(longest)
            .clamp(Duration::from_millis(100), longest)
    }
}

impl Waiting {
    fn due(&self) -> Option<Timestamp> {
        self.causes.values().map(|(due, _)| *due).min()
    }

    /// Whether nothing is to be done, and no interval is to be kept.
    fn is_over(&self, instant: Instant) -> bool {
        let may_go = self.earliest.is_none_or(|earliest| earliest <= instant);
        self.causes.is_empty() && !self.is_busy && may_go
    }
}

#[cfg(test)]
mod tests;
