//! What was written of Pkis, until the watch brings it back.
//!
//! The Secret that was just written causes another look, often before the cache shows the status that went with it.
//! Judged by the older status, that look would write the same again, and date the change anew; by an annotation that was
//! removed, it would serve the same wish again.

use crate::api::{Pki, PkiStatus};
use crate::index::Key;
use crate::locks::lock;
use kube::ResourceExt;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A cache that is further behind is no longer waited for; the precondition of the write still holds.
const LONGEST_LAG: Duration = Duration::from_secs(30);
/// So many are kept without asking how old they are.
const FEW: usize = 1024;

/// What was written of each Pki last, as far as the cache may not show it yet.
#[derive(Debug, Default)]
pub(super) struct Written(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    by_key: HashMap<Key, Writing>,
    /// How many there may be before the old ones are dropped.
    prune_at: usize,
}

#[derive(Debug)]
struct Writing {
    at: Instant,
    uid: Option<String>,
    version: String,
    annotations: Option<BTreeMap<String, String>>,
    finalizers: Option<Vec<String>>,
    status: Option<PkiStatus>,
}

impl Written {
    /// The Pki with the status, annotations and finalizers that it has by now.
    pub(super) fn overlay<'a>(&self, cached: &'a Pki) -> Cow<'a, Pki> {
        let mut recent = self.recent();
        let key = Key::of(cached);
        match recent.by_key.get(&key) {
            None => Cow::Borrowed(cached),
            Some(writing) if writing.is_ahead_of(cached) => {
                let mut current = cached.clone();
                current.status.clone_from(&writing.status);
                current
                    .metadata
                    .annotations
                    .clone_from(&writing.annotations);
                current.metadata.finalizers.clone_from(&writing.finalizers);
                current.metadata.resource_version = Some(writing.version.clone());
                Cow::Owned(current)
            }
            Some(_) => {
                recent.by_key.remove(&key);
                Cow::Borrowed(cached)
            }
        }
    }

    /// Keeps what came back from a write.
    pub(super) fn remember(&self, written: &Pki, now: Instant) {
        let mut recent = self.recent();
        let writing = Writing {
            at: now,
            uid: written.uid(),
            version: written.resource_version().unwrap_or_default(),
            annotations: written.metadata.annotations.clone(),
            finalizers: written.metadata.finalizers.clone(),
            status: written.status.clone(),
        };
        recent.by_key.insert(Key::of(written), writing);
        if recent.by_key.len() > recent.prune_at.max(FEW) {
            recent
                .by_key
                .retain(|_, writing| now.saturating_duration_since(writing.at) < LONGEST_LAG);
            recent.prune_at = 2 * recent.by_key.len();
        }
    }

    /// Forgets a Pki that is gone.
    pub(super) fn forget(&self, key: &Key) {
        self.recent().by_key.remove(key);
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        lock(&self.0)
    }
}

impl Writing {
    fn is_ahead_of(&self, cached: &Pki) -> bool {
        let cached_version = cached.metadata.resource_version.as_deref();
        self.uid == cached.metadata.uid
            && is_newer(&self.version, cached_version.unwrap_or_default())
    }
}

/// Versions of one resource are ordered as numbers, which Kubernetes promises since 1.35 and did before. One that is
/// no number is not trusted to be newer, which costs a write at most.
fn is_newer(version: &str, than: &str) -> bool {
    match (version.parse::<u128>(), than.parse::<u128>()) {
        (Ok(version), Ok(than)) => version > than,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PkiSpec;

    fn pki(name: &str, uid: &str, version: &str, serial: &str) -> Pki {
        let mut pki = Pki::new(name, PkiSpec::default());
        pki.metadata.uid = Some(uid.into());
        pki.metadata.resource_version = Some(version.into());
        pki.status = Some(PkiStatus {
            serial_number: Some(serial.into()),
            ..PkiStatus::default()
        });
        pki
    }

    #[test]
    fn what_was_written_counts_until_the_cache_shows_it_or_something_newer() {
        let written = Written::default();
        written.remember(&pki("a", "uid", "10", "new"), Instant::now());
        for (cached, version, serial) in [
            (pki("a", "uid", "9", "old"), "10", "new"),
            (pki("a", "another", "9", "old"), "9", "old"),
            (pki("b", "uid", "9", "old"), "9", "old"),
        ] {
            written.remember(&pki("a", "uid", "10", "new"), Instant::now());
            assert_eq!(
                *written.overlay(&cached),
                pki(
                    &cached.name_any(),
                    cached.metadata.uid.as_deref().unwrap(),
                    version,
                    serial
                )
            );
        }
        for shown in ["10", "11", "100"] {
            written.remember(&pki("a", "uid", "10", "new"), Instant::now());
            let cached = pki("a", "uid", shown, "shown");
            assert_eq!(*written.overlay(&cached), cached);
            assert!(written.recent().by_key.is_empty(), "it has served");
        }
    }

    #[test]
    fn what_has_served_is_dropped_in_time() {
        let written = Written::default();
        let begin = Instant::now();
        for number in 0..10 * FEW {
            let now = begin + Duration::from_secs(number as u64);
            written.remember(&pki(&number.to_string(), "uid", "1", ""), now);
            assert!(written.recent().by_key.len() <= FEW + 1);
        }
    }
}
