//! The Pkis that admission refused lately, on their way to the controller that tells the pods.

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
pub struct Refusal {
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

/// What was refused lately. Its locks are held for moments only and never while another one is
/// taken, so that it can be asked from anywhere.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Those that the memory has not been told of.
    new: Mutex<Vec<(Refusal, Timestamp)>>,
    /// The Secrets that are not written because of what the memory knows.
    missed: Mutex<HashSet<Key>>,
    changed: Notify,
}

impl Refusals {
    /// Keeps a refusal in mind.
    pub fn note(&self, refusal: Refusal, now: Timestamp) {
        let mut new = lock(&self.new);
        // Whoever is refused that often within a second will be refused again.
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
    pub fn take_new(&self) -> Vec<(Refusal, Timestamp)> {
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
