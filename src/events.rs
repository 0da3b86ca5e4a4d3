//! What is said, to whom: Events on the Pki, and on the pods that use its Secret, so that `kubectl describe pod` tells
//! the reason to people who have no other access.
//!
//! [`about`] decides, without I/O; the [`Publisher`] sends, and sees to it that a fault which lasts is one Event with a
//! count, also across restarts and replicas.

use crate::api::{Pki, PkiStatus, READY};
use crate::ca::Alarm;
use crate::index::Key;
use crate::pods::SecretUser;
use crate::policy::text;
use crate::reconcile::status::{self, Outcome};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::error_boundary::InvalidObject;
use kube::{Resource, ResourceExt};
use std::sync::Arc;

pub use publisher::Publisher;

mod publisher;

/// How many pods hear of one change; the others read it on the Pki.
const MOST_PODS: usize = 100;
/// Limits of the API (k8s.io/api/events/v1: `reason`, `note`), in bytes.
const REASON_BYTES: usize = 128;
const NOTE_BYTES: usize = 1024;

/// One thing to say to the readers of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The object whose readers are told.
    pub regarding: ObjectReference,
    /// The Pki it is about, when that is another object.
    pub related: Option<ObjectReference>,
    /// Whether something has to be done.
    pub kind: Kind,
    /// Why, in one CamelCase word.
    pub reason: String,
    /// The sentence.
    pub note: String,
    /// Since when it has been so: an Event that was last sent before is about an earlier occurrence.
    pub since: Timestamp,
}

/// The type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something is wrong; said again while it lasts.
    Warning,
    /// Something was mended; said once.
    Normal,
}

impl Kind {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "Warning",
            Self::Normal => "Normal",
        }
    }
}

/// What to say after a look at a Pki, given the status that goes with it and the pods that use its Secret. A fault is
/// told to all of them; that it is mended is told to those who were told of the fault; all else goes without saying.
pub fn about(
    pki: &Pki,
    outcome: &Outcome,
    status: &PkiStatus,
    users: &[Arc<SecretUser>],
) -> Vec<Notice> {
    let is_mended =
        matches!(outcome, Outcome::Ready(_)) && pki.condition(READY).is_some_and(status::was_told);
    let kind = match outcome {
        fault if fault.is_fault() => Kind::Warning,
        _ if is_mended => Kind::Normal,
        _ => return Vec::new(),
    };
    let since = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == READY);
    let since = since.map_or(Timestamp::UNIX_EPOCH, |ready| ready.last_transition_time.0);
    let subject = reference(pki);
    let notice = |regarding: ObjectReference, related| Notice {
        regarding,
        related,
        kind,
        reason: text::cut(outcome.reason(), REASON_BYTES),
        note: text::cut(&outcome.message(pki), NOTE_BYTES),
        since,
    };
    let to_pods = users
        .iter()
        .take(MOST_PODS)
        .map(|pod| notice(pod_reference(pod), Some(subject.clone())));
    let mut notices: Vec<_> = to_pods.collect();
    notices.push(notice(subject.clone(), None));
    notices
}

/// What to say of a stored object that is no Pki any more.
pub fn about_unreadable(key: &Key, invalid: &InvalidObject) -> Notice {
    let regarding = ObjectReference {
        api_version: Some(Pki::api_version(&()).into_owned()),
        kind: Some(Pki::kind(&()).into_owned()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid: invalid.metadata.uid.clone(),
        ..ObjectReference::default()
    };
    let advice = "The Pki cannot be read: compare its spec with what `kubectl explain pki.spec` prints, and apply it again";
    Notice {
        regarding,
        related: None,
        kind: Kind::Warning,
        reason: "PkiUnreadable".into(),
        note: text::cut(
            &format!("{advice} ({})", text::printable(&invalid.error)),
            NOTE_BYTES,
        ),
        since: Timestamp::UNIX_EPOCH,
    }
}

/// What to say of a CA that cannot sign, or whose successor cannot be used.
pub fn about_ca(secret: &Key, alarm: &Alarm) -> Notice {
    let regarding = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Secret".into()),
        namespace: Some(secret.namespace.clone()),
        name: Some(secret.name.clone()),
        ..ObjectReference::default()
    };
    Notice {
        regarding,
        related: None,
        kind: Kind::Warning,
        reason: "CaUnavailable".into(),
        note: text::cut(&text::line(&alarm.to_string()), NOTE_BYTES),
        since: Timestamp::UNIX_EPOCH,
    }
}

fn reference(pki: &Pki) -> ObjectReference {
    ObjectReference {
        api_version: Some(Pki::api_version(&()).into_owned()),
        kind: Some(Pki::kind(&()).into_owned()),
        namespace: pki.namespace(),
        name: pki.metadata.name.clone(),
        uid: pki.uid(),
        ..ObjectReference::default()
    }
}

fn pod_reference(pod: &SecretUser) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.key.namespace.clone()),
        name: Some(pod.key.name.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests;
