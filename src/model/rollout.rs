//! How far a rotation of the CA has come, and who keeps it waiting.

use crate::util::text;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Maximum number of blockers that are named; the others are counted.
const MOST_NAMED: usize = 20;

/// The reasons of blockers, as metrics have them.
pub const REASONS: [&str; 9] = [
    REFUSED, FOREIGN, CONFLICT, CONTESTED, FAILED, UNSIGNED, BEHIND, NAMESPACE, BUNDLE,
];
pub(crate) const REFUSED: &str = "refused";
pub(crate) const FOREIGN: &str = "foreign";
pub(crate) const CONFLICT: &str = "conflict";
pub(crate) const CONTESTED: &str = "contested";
pub(crate) const FAILED: &str = "failed";
pub(crate) const UNSIGNED: &str = "unsigned";
pub(crate) const BEHIND: &str = "behind";
pub(crate) const NAMESPACE: &str = "namespace";
pub(crate) const BUNDLE: &str = "bundle";

/// How far the certificates in use have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolloutProgress {
    /// Those whose Secret does not hold the present `ca.crt` yet.
    pub unpublished: usize,
    /// Those of a CA that is trusted and signs no more.
    pub of_retired: usize,
    /// The CAs that signed a certificate in use, by their fingerprints.
    pub in_use: BTreeSet<String>,
    /// Those that keep a rotation waiting longer than it takes to write a Secret.
    pub blockers: Blockers,
}

/// Objects that keep a rotation waiting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blockers {
    /// How many there are, by reason.
    pub counts: BTreeMap<&'static str, usize>,
    /// Some of them, in the order of their names.
    pub named: Vec<Blocker>,
}

/// An object that keeps a rotation waiting.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Blocker {
    /// The namespace.
    pub namespace: String,
    /// The Pki; or the `ConfigMap` with the CA bundle; empty where it is the whole namespace.
    pub name: String,
    /// The reason of the Pki's condition `Ready`; or a word of the same form.
    pub reason: String,
    /// The problem, and the remedy.
    pub message: String,
}

/// How far a rotation has come, for people.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutReport {
    /// The stage of the rotation.
    pub phase: Phase,
    /// Since when.
    pub since: Timestamp,
    /// When it goes on in spite of the blockers; `None` where nothing waits for them any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Whether the old CAs are withdrawn even if they are in use.
    #[serde(default)]
    pub forced: bool,
    /// How many keep it waiting.
    pub blocked: usize,
    /// The first of them.
    pub blockers: Vec<Blocker>,
}

/// A stage of a rotation.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// The next CA is being made known.
    Publishing,
    /// The certificates of the CA before are being replaced.
    Replacing,
    /// A CA before is trusted only because of certificates that cannot be replaced.
    Retained,
    /// Certificates are left of a CA that is not trusted any more.
    Withdrawn,
}

impl Blocker {
    pub(crate) fn new(
        namespace: String,
        name: String,
        reason: &str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            namespace,
            name,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = (
            text::printable(&self.namespace),
            text::printable(&self.name),
        );
        match name.as_str() {
            "" => write!(f, "namespace {namespace}: {}", self.reason),
            name => write!(f, "{namespace}/{name}: {}", self.reason),
        }
    }
}

impl Blockers {
    /// How many there are.
    pub fn total(&self) -> usize {
        self.counts.values().sum()
    }

    /// Counts one, and keeps it if it is among the first by name.
    pub fn add(&mut self, reason: &'static str, blocker: Blocker) {
        *self.counts.entry(reason).or_default() += 1;
        let place = self.named.partition_point(|known| *known < blocker);
        if place < MOST_NAMED {
            self.named.insert(place, blocker);
            self.named.truncate(MOST_NAMED);
        }
    }
}
