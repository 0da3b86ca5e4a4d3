//! How long to wait after a failure: from one second, doubled each time, to five minutes, for each object by itself.

use crate::api::Pki;
use crate::index::Key;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Failures in a row. An edit of the spec is a new beginning, and so is a new object of the same name.
#[derive(Debug, Default)]
pub(super) struct Retries(Mutex<HashMap<Key, Attempts>>);

#[derive(Debug, Default)]
struct Attempts {
    of: (Option<String>, Option<i64>),
    failed: i32,
}

impl Retries {
    /// Counts a failure: how many there were in a row, and how long to wait.
    pub(super) fn failed(&self, pki: &Pki) -> (i32, Duration) {
        let of = (pki.metadata.uid.clone(), pki.metadata.generation);
        let mut all = self.all();
        let attempts = all.entry(Key::of(pki)).or_default();
        if attempts.of != of {
            *attempts = Attempts { of, failed: 0 };
        }
        attempts.failed += 1;
        (attempts.failed, pause(attempts.failed))
    }

    /// Forgets what failed before, after a success or with the object.
    pub(super) fn forget(&self, key: &Key) {
        self.all().remove(key);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Key, Attempts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pause(failed: i32) -> Duration {
    const LONGEST: Duration = Duration::from_secs(300);
    Duration::from_secs(1 << failed.saturating_sub(1).min(9)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PkiSpec;

    #[test]
    fn pauses_double_up_to_five_minutes_and_an_edit_begins_anew() {
        let retries = Retries::default();
        let mut pki = Pki::new("a", PkiSpec::default());
        pki.metadata.generation = Some(1);
        let pauses: Vec<_> = (0..12).map(|_| retries.failed(&pki).1.as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(retries.failed(&pki).0, 13);
        pki.metadata.generation = Some(2);
        assert_eq!(retries.failed(&pki), (1, Duration::from_secs(1)));
        retries.forget(&Key::of(&pki));
        assert_eq!(retries.failed(&pki).0, 1);
    }
}
