//! Backoff of failed issuances, for each Pki: one second, doubled with each failure, up to five
//! minutes.

use super::remedy::remedy;
use crate::api::Pki;
use crate::k8s::api_error;
use crate::k8s::object_key::Key;
use crate::model::outcome::Outcome;
use crate::util::backoff::Backoff;
use crate::util::sync::lock;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Consecutive failures. An edit of the spec begins anew, and so does a new object of the same
/// name.
#[derive(Debug, Default)]
pub(super) struct IssueBackoff(Mutex<HashMap<Key, Attempts>>);

#[derive(Debug)]
struct Attempts {
    of: Edition,
    failed: i32,
    failure: Failure,
    next: Timestamp,
}

/// The failure of a write or a read of a Secret.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The error, in the words of the component that returned it.
    pub error: String,
    /// Advice for people, if there is any.
    pub remedy: Option<&'static str>,
    /// Whether another attempt is not likely to succeed, so that the longest delay applies.
    pub is_final: bool,
}

impl From<&kube::Error> for Failure {
    fn from(error: &kube::Error) -> Self {
        Self {
            error: api_error::message(error),
            remedy: remedy(error),
            is_final: api_error::is_namespace_ending(error),
        }
    }
}

impl From<&pki_certs::IssueError> for Failure {
    fn from(error: &pki_certs::IssueError) -> Self {
        Self {
            error: error.to_string(),
            remedy: None,
            is_final: false,
        }
    }
}

/// UID and generation.
type Edition = (Option<String>, Option<i64>);

impl IssueBackoff {
    /// Counts a failure. The outcome has the time of the next attempt.
    pub(super) fn failed(&self, pki: &Pki, failure: Failure, now: Timestamp) -> Outcome {
        let of = edition(pki);
        let mut all = self.all();
        let before = all.get(&Key::of(pki)).filter(|attempts| attempts.of == of);
        let failed = before.map_or(1, |attempts| attempts.failed.saturating_add(1));
        let pause = if failure.is_final {
            BACKOFF.longest
        } else {
            BACKOFF.pause(failed.unsigned_abs())
        };
        let attempts = Attempts {
            of,
            failed,
            failure,
            next: now.saturating_add(pause).unwrap_or(Timestamp::MAX),
        };
        let outcome = attempts.outcome();
        all.insert(Key::of(pki), attempts);
        outcome
    }

    /// The last failure, while it is too early for the next attempt: another reason to reconcile
    /// does not bring that forward.
    pub(super) fn held(&self, pki: &Pki, now: Timestamp) -> Option<Outcome> {
        let all = self.all();
        let attempts = all.get(&Key::of(pki))?;
        let is_early = attempts.of == edition(pki) && now < attempts.next;
        is_early.then(|| attempts.outcome())
    }

    /// Forgets the failures of a Pki, after a success or with the Pki.
    pub(super) fn forget(&self, key: &Key) {
        self.all().remove(key);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Key, Attempts>> {
        lock(&self.0)
    }
}

impl Attempts {
    fn outcome(&self) -> Outcome {
        Outcome::Failed {
            error: self.failure.error.clone(),
            remedy: self.failure.remedy,
            attempts: self.failed,
            next: self.next,
        }
    }
}

fn edition(pki: &Pki) -> Edition {
    (pki.metadata.uid.clone(), pki.metadata.generation)
}

const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(300),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PkiSpec;
    use crate::util::time::tests::at;

    fn failure(error: &str) -> Failure {
        Failure {
            error: error.into(),
            remedy: None,
            is_final: false,
        }
    }

    #[test]
    fn there_is_no_haste_where_nothing_gets_better() {
        let failure = Failure {
            is_final: true,
            ..failure("the namespace is being deleted")
        };
        let outcome = IssueBackoff::default().failed(&pki(), failure, at(0));
        let Outcome::Failed { attempts, next, .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!((attempts, next), (1, at(300)));
    }

    fn pki() -> Pki {
        let mut pki = Pki::new("a", PkiSpec::default());
        pki.metadata.generation = Some(1);
        pki
    }

    /// How often it has failed, and the pause before the next attempt.
    fn fail(backoff: &IssueBackoff, pki: &Pki) -> (i32, i64) {
        match backoff.failed(pki, failure("quota"), at(0)) {
            Outcome::Failed { attempts, next, .. } => {
                (attempts, next.duration_since(at(0)).as_secs())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pauses_double_up_to_five_minutes_and_an_edit_begins_anew() {
        let (backoff, mut pki) = (IssueBackoff::default(), pki());
        let pauses: Vec<_> = (0..12).map(|_| fail(&backoff, &pki).1).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(fail(&backoff, &pki).0, 13);
        pki.metadata.generation = Some(2);
        assert_eq!(fail(&backoff, &pki), (1, 1));
        backoff.forget(&Key::of(&pki));
        assert_eq!(fail(&backoff, &pki).0, 1);
    }

    #[test]
    fn nothing_but_time_or_an_edit_brings_the_next_attempt_forward() {
        let (backoff, mut pki) = (IssueBackoff::default(), pki());
        assert_eq!(backoff.held(&pki, at(0)), None);
        let failed = backoff.failed(&pki, failure("quota"), at(0));
        assert_eq!(backoff.held(&pki, at(0)), Some(failed));
        assert_eq!(backoff.held(&pki, at(1)), None, "it is time");
        pki.metadata.generation = Some(2);
        assert_eq!(backoff.held(&pki, at(0)), None, "an edit");
    }
}
