//! The Pkis that admission refused a short time ago, for the controller that publishes Events on
//! their pods.

use crate::k8s::object_key::Key;
use crate::util::sync::lock;
use jiff::Timestamp;
use std::collections::HashSet;
use std::sync::Mutex;
use tokio::sync::Notify;

/// The most rejections that are kept.
pub const MAX_REJECTIONS: usize = 1000;

/// A Pki that was not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The Pki that would have been stored.
    pub pki: Key,
    /// The Secret that it would have written, in the same namespace.
    pub secret: String,
    /// Whether one is stored, and this would have changed it.
    pub is_edit: bool,
    /// The reason, as an Event has it.
    pub reason: String,
    /// The rules it breaks, each with its field, in no more bytes than an Event has room for.
    pub rules: String,
}

/// The rejections of a short time. Each lock is held for a moment, and never beside another one.
#[derive(Debug, Default)]
pub struct Rejections {
    /// The rejections that the controller has not taken yet.
    new: Mutex<Vec<(Rejection, Timestamp)>>,
    /// The Secrets that are not written because of rejections.
    missed: Mutex<HashSet<Key>>,
    changed: Notify,
}

impl Rejections {
    /// Notes a rejection.
    pub fn note(&self, refusal: Rejection, now: Timestamp) {
        let mut new = lock(&self.new);
        // A Pki that is refused so often within a second is refused again later.
        if new.len() < MAX_REJECTIONS {
            new.push((refusal, now));
            self.changed.notify_one();
        }
    }

    /// Waits until another one is noted.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes those that were noted since the last call, each with its time.
    pub fn take_new(&self) -> Vec<(Rejection, Timestamp)> {
        std::mem::take(&mut *lock(&self.new))
    }

    /// Keeps the Secrets that are not written because of refusals.
    pub fn set_missed(&self, secrets: HashSet<Key>) {
        *lock(&self.missed) = secrets;
    }

    /// Whether a Pki that would have written this Secret was refused.
    pub fn concern(&self, secret: &Key) -> bool {
        lock(&self.missed).contains(secret)
    }
}
