//! The namespaces and their copies, and what to do next. Without I/O.

use crate::k8s::relist::Relist;
use crate::util::backoff::Backoff;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::Event;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

/// Number of failures after which a rotation does not wait for a namespace. Its attempts go on.
const MAX_FAILURES: u32 = 5;
/// Minimum interval between two writes in one namespace, where somebody may undo each.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Pauses after failed attempts.
const BACKOFF: Backoff = Backoff {
    first: MIN_INTERVAL,
    longest: Duration::from_secs(60),
};

/// A `ConfigMap` that has the name of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) uid: Option<String>,
    pub(super) version: Option<String>,
    pub(super) is_ours: bool,
    /// Whether it is being deleted, and finalizers hold it.
    pub(super) is_going: bool,
}

impl From<&ObjectMeta> for Found {
    fn from(object: &ObjectMeta) -> Self {
        Self {
            uid: object.uid.clone(),
            version: object.resource_version.clone(),
            is_ours: super::is_ours(object),
            is_going: object.deletion_timestamp.is_some(),
        }
    }
}

/// A task in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// There is no copy.
    Create,
    /// The content of the copy is unknown.
    Check,
    /// The namespace does not ask for it any more.
    Remove(Found),
    /// Something else has the name.
    ReportForeign(Found),
}

/// Result of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The copy holds the roots of this fingerprint.
    Holds {
        found: Found,
        fingerprint: String,
        is_written: bool,
    },
    Foreign(Found),
    Gone,
    /// The copy holds other roots and is immutable, and finalizers keep it from being made again.
    Held {
        found: Found,
        finalizers: Vec<String>,
    },
    /// An error or a timeout of the API server.
    Failed,
}

/// The queue. A namespace in which something changed is due for a check.
#[derive(Debug, Default)]
pub(super) struct BundleQueue {
    /// Those that ask, and whether they are being deleted.
    namespaces: Listing<bool>,
    copies: Listing<Found>,
    /// The roots to write.
    fingerprint: Option<String>,
    /// The copies that hold them.
    current: HashMap<String, Found>,
    /// Where something else has the name.
    foreign: BTreeSet<String>,
    /// Consecutive failures.
    failures: HashMap<String, u32>,
    /// Where finalizers hold a copy that has to be made again.
    held: BTreeSet<String>,
    /// Where a copy has yet to be written before the roots are published.
    pending: HashSet<String>,
    due: BTreeSet<String>,
    /// Where a task runs, and whether the watch has seen a change since it began.
    busy: HashMap<String, bool>,
    /// The end of the pause of a namespace, which is due then.
    pauses: HashMap<String, Instant>,
    ends: BTreeSet<(Instant, String)>,
}

impl BundleQueue {
    pub(super) fn expect(&mut self, fingerprint: &str) {
        if self.fingerprint.as_deref() == Some(fingerprint) {
            return;
        }
        self.fingerprint = Some(fingerprint.to_owned());
        self.current.clear();
        self.pending = self.namespaces.items.keys().cloned().collect();
        self.due.extend(self.namespaces.items.keys().cloned());
    }

    /// Follows the watch of the namespaces that ask.
    pub(super) fn namespace(&mut self, event: Event<(String, bool)>) {
        for name in self.namespaces.apply(event) {
            if self.namespaces.items.contains_key(&name) {
                self.pending.insert(name.clone());
            }
            self.due.insert(name);
        }
    }

    /// Follows the watch of the `ConfigMaps` that have the name, by their namespaces.
    pub(super) fn copy(&mut self, event: Event<(String, Found)>) {
        for name in self.copies.apply(event) {
            if let Some(is_changed) = self.busy.get_mut(&name) {
                *is_changed = true;
            }
            // Nothing but its end makes another attempt go better.
            if !self.copies.items.contains_key(&name) && self.held.remove(&name) {
                self.pauses.remove(&name);
            }
            self.due.insert(name);
        }
    }

    /// The next task. Its result goes to [`on_result`](Self::on_result), except for
    /// [`Task::ReportForeign`].
    pub(super) fn next(&mut self, now: Instant) -> Option<(String, Task)> {
        // On half a list too much would be removed.
        if self.fingerprint.is_none() || !self.is_complete() {
            return None;
        }
        while self.ends.first().is_some_and(|(end, _)| *end <= now) {
            let (_, name) = self.ends.pop_first()?;
            self.pauses.remove(&name);
            self.due.insert(name);
        }
        while let Some(name) = self.due.pop_first() {
            // A busy namespace is due again when its task ends, a pausing one after the pause.
            if self.busy.contains_key(&name) {
                continue;
            }
            let task = self.task(&name);
            let is_foreign = matches!(task, Some(Task::ReportForeign(_)));
            if is_foreign {
                self.foreign.insert(name.clone());
            } else {
                self.foreign.remove(&name);
            }
            if task.is_none() || is_foreign {
                self.pending.remove(&name);
                self.failures.remove(&name);
                self.held.remove(&name);
            } else if self.pauses.contains_key(&name) {
                continue;
            } else {
                self.busy.insert(name.clone(), false);
            }
            if let Some(task) = task {
                return Some((name, task));
            }
        }
        None
    }

    /// Records the result of a task.
    pub(super) fn on_result(&mut self, name: String, outcome: Outcome, now: Instant) {
        // The watch may have seen a newer or an older object meanwhile. Another check finds out.
        let is_changed = self.busy.remove(&name) == Some(true);
        let copies = &mut self.copies.items;
        let mut note = |found: Option<Found>| match found {
            _ if is_changed => {}
            Some(found) => drop(copies.insert(name.clone(), found)),
            None => drop(copies.remove(&name)),
        };
        let mut pause = None;
        self.held.remove(&name);
        match outcome {
            Outcome::Holds {
                found,
                fingerprint,
                is_written,
            } => {
                note(Some(found.clone()));
                self.failures.remove(&name);
                if self.fingerprint.as_ref() == Some(&fingerprint) {
                    self.current.insert(name.clone(), found);
                }
                pause = is_written.then_some(MIN_INTERVAL);
            }
            Outcome::Foreign(found) => note(Some(found)),
            Outcome::Gone => {
                note(None);
                pause = Some(MIN_INTERVAL);
            }
            Outcome::Held { found, .. } => {
                note(Some(found));
                let longer = self.fail(&name);
                // The watch may have removed it meanwhile.
                if self.copies.items.contains_key(&name) {
                    self.held.insert(name.clone());
                    pause = Some(longer);
                }
            }
            Outcome::Failed => pause = Some(self.fail(&name)),
        }
        if let Some(pause) = pause {
            self.pauses.insert(name.clone(), now + pause);
            self.ends.insert((now + pause, name.clone()));
        }
        self.due.insert(name);
    }

    /// Counts a failure; how long to wait before another attempt.
    fn fail(&mut self, name: &str) -> Duration {
        let failures = self.failures.entry(name.to_owned()).or_default();
        *failures = failures.saturating_add(1);
        if *failures >= MAX_FAILURES {
            self.pending.remove(name);
        }
        BACKOFF.pause(*failures)
    }

    /// Whether finalizers were known to hold the copy there.
    pub(super) fn is_held(&self, name: &str) -> bool {
        self.held.contains(name)
    }

    /// Makes the namespaces due in which a foreign `ConfigMap` is in the way.
    pub(super) fn remind(&mut self) {
        self.due.extend(self.foreign.iter().cloned());
    }

    /// The time at which a namespace is due if nothing happens.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// The roots that every copy holds, if all hold the same.
    pub(super) fn published(&self) -> Option<&str> {
        let is_published = self.is_complete() && self.pending.is_empty();
        self.fingerprint.as_deref().filter(|_| is_published)
    }

    /// The namespaces whose copies have yet to be written, or cannot be.
    pub(super) fn unwritten(&self) -> BTreeSet<&str> {
        let names = self.pending.iter().chain(self.failures.keys());
        names.map(String::as_str).collect()
    }

    /// How many copies there are, by state.
    pub(super) fn counts(&self) -> [(&'static str, usize); 3] {
        [
            ("current", self.current.len()),
            ("foreign", self.foreign.len()),
            ("failing", self.failures.len()),
        ]
    }

    fn is_complete(&self) -> bool {
        self.namespaces.is_complete && self.copies.is_complete
    }

    fn task(&mut self, name: &str) -> Option<Task> {
        let found = self.copies.items.get(name);
        let is_asked_for = self.namespaces.items.get(name) == Some(&false);
        if !is_asked_for || found.is_none_or(|found| !found.is_ours) {
            self.current.remove(name);
        }
        match (self.namespaces.items.get(name), found) {
            (Some(false), None) => Some(Task::Create),
            (Some(false), Some(found)) if !found.is_ours => {
                Some(Task::ReportForeign(found.clone()))
            }
            (Some(false), found) => (self.current.get(name) != found).then_some(Task::Check),
            (None, Some(found)) if found.is_ours && !found.is_going => {
                Some(Task::Remove(found.clone()))
            }
            // Nothing can be created in a namespace that is being deleted.
            (Some(true) | None, _) => None,
        }
    }
}

/// The objects of a watch, by name.
#[derive(Debug, Default)]
struct Listing<T> {
    items: HashMap<String, T>,
    relist: Relist<String>,
    /// During a list: the names of what it has changed so far.
    changed: Vec<String>,
    is_complete: bool,
}

impl<T: PartialEq> Listing<T> {
    /// Follows the watch. Returns the names of what changed, those of a list at its end.
    fn apply(&mut self, event: Event<(String, T)>) -> Vec<String> {
        match event {
            Event::Apply((name, item)) => {
                self.items.insert(name.clone(), item);
                vec![name]
            }
            Event::Delete((name, _)) => {
                self.items.remove(&name);
                vec![name]
            }
            Event::Init => {
                self.relist.begin(self.items.keys());
                Vec::new()
            }
            Event::InitApply((name, item)) => {
                self.relist.name(&name);
                if self.items.get(&name) != Some(&item) {
                    self.changed.push(name.clone());
                    self.items.insert(name, item);
                }
                Vec::new()
            }
            Event::InitDone => {
                self.is_complete = true;
                let gone = self.relist.end();
                self.items.retain(|name, _| !gone.contains(name));
                let changed = std::mem::take(&mut self.changed);
                gone.into_iter().chain(changed).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests;
