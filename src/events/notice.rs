//! An Event before it is sent.

use crate::util::text;
use crate::util::time::whole_second;
use aws_lc_rs::digest;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSeries, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use serde_json::{Value, json};

/// The reporting component: `From` in `kubectl describe`.
pub(super) const COMPONENT: &str = "pki-operator";
/// Limits of the API for `reason`, `message` and `reportingInstance` of Events with an `eventTime`,
/// in bytes.
const REASON_BYTES: usize = 128;
pub(crate) const NOTE_BYTES: usize = 1024;
const INSTANCE_BYTES: usize = 128;

/// An Event on one object, before it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The object on which it is published.
    pub regarding: ObjectReference,
    /// The Pki that it is about, if that is another object.
    pub related: Option<ObjectReference>,
    /// The subject.
    pub aspect: Aspect,
    /// Whether something has to be done.
    pub kind: EventKind,
    /// The reason, in one CamelCase word.
    pub reason: String,
    /// The message.
    pub note: String,
    /// Identifies the content where the note cannot, because it has a time or a number in it.
    pub topic: Option<String>,
    /// Start of the present occurrence: an Event that was last sent before is about an earlier one.
    pub since: Timestamp,
}

/// The subject of a notice. A later notice replaces an unsent one with the same subject. The names
/// of the variants are hashed into the names of Events, so they stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aspect {
    /// Whether an object is in order.
    State,
    /// A certificate was renewed.
    Renewal,
    /// A renewal on request has to wait, or was served before.
    Request,
    /// A Pki adopts a Secret that had no owner.
    TakeUp,
    /// Admission refused a Pki.
    Refusal,
    /// The name of a Secret looks mistyped.
    Name,
    /// The Pki writes another Secret now.
    Former,
    /// The Secret was removed with its Pki.
    Removal,
    /// A Secret or `ConfigMap` lacks files.
    Files,
    /// The namespace does not ask for the CA bundle.
    Bundle,
    /// Result of a restart after a renewal.
    Restart,
    /// Objects that a rotation of the CA cannot reach.
    Rotation,
    /// Start of a rotation of the CA.
    RotationStart,
    /// State of a request for another CA.
    RotationRequest,
    /// Annotations and labels that have no effect.
    Annotation,
    /// The certificate of one pod.
    PodCertificate,
}

impl Aspect {
    /// The action that was done, or failed, in one word.
    fn action(self) -> &'static str {
        match self {
            Self::Refusal => "Admit",
            Self::Restart => "Restart",
            Self::Rotation | Self::RotationStart | Self::RotationRequest => "Rotate",
            Self::Annotation => "Read",
            _ => "Issue",
        }
    }
}

/// The type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A fault, published again while it lasts.
    Warning,
    /// News or the end of a fault, published once.
    Normal,
}

impl EventKind {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "Warning",
            Self::Normal => "Normal",
        }
    }
}

/// A hash that is the same in every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Hash(u64);

impl Hash {
    /// Hash of these parts; an absent one is empty.
    fn of(parts: &[Option<&str>]) -> Self {
        let parts: Vec<_> = parts.iter().map(|part| part.unwrap_or_default()).collect();
        let hash = digest::digest(&digest::SHA256, parts.join("\0").as_bytes());
        let first = hash.as_ref()[..8].try_into().expect("eight are eight");
        Self(u64::from_be_bytes(first))
    }
}

impl Notice {
    /// Hash of the content. Another content in the same [Event](Self::event_id) is news.
    pub(super) fn content(&self) -> Hash {
        Hash::of(&[
            Some(self.kind.as_str()),
            Some(&self.reason),
            Some(self.topic_or_note()),
        ])
    }

    /// Hash of the subject and the reason, which identifies the Event object. A changed message
    /// replaces the one before, so ten wrong names leave one Event with a count.
    pub(super) fn event_id(&self) -> Hash {
        // Reconciler and refusing replica both report that a Pki is ready.
        let aspect = match (self.aspect, self.kind) {
            (Aspect::Refusal, EventKind::Normal) => Aspect::State,
            (aspect, _) => aspect,
        };
        let related = self.related.as_ref();
        Hash::of(&[
            self.regarding.uid.as_deref(),
            related.and_then(|it| it.name.as_deref()),
            Some(&format!("{aspect:?}")),
            Some(self.hint()),
            Some(self.kind.as_str()),
            Some(&self.reason),
        ])
    }

    /// Several names may be mistyped that are all like that of one Pki.
    fn hint(&self) -> &str {
        match self.aspect {
            Aspect::Name => self.topic_or_note(),
            _ => "",
        }
    }

    fn topic_or_note(&self) -> &str {
        self.topic.as_deref().unwrap_or(&self.note)
    }

    /// Hash of the subject alone: the same for a fault and its end.
    pub(super) fn dedup_key(&self) -> Hash {
        let related = self.related.as_ref();
        Hash::of(&[
            Some(self.namespace()),
            self.regarding.name.as_deref(),
            self.regarding.uid.as_deref(),
            related.and_then(|it| it.name.as_deref()),
            related.and_then(|it| it.uid.as_deref()),
            Some(&format!("{:?}", self.aspect)),
            Some(self.hint()),
        ])
    }

    /// The budget that pays for the notice. An object has three. Refusals have their own, because
    /// anybody can cause any number of them, which must not silence a fault. Normal Events have
    /// their own, so that the end of a fault is reported at once.
    pub(super) fn budget(&self) -> Hash {
        let purpose = match self.kind {
            EventKind::Normal => "normal",
            EventKind::Warning if self.is_refusal() => "refusals",
            EventKind::Warning => "",
        };
        Hash::of(&[
            self.regarding.kind.as_deref(),
            Some(self.namespace()),
            self.regarding.name.as_deref(),
            self.regarding.uid.as_deref(),
            Some(purpose),
        ])
    }

    /// Whether it reports a refused Pki. The end of a refusal is no refusal.
    pub(super) fn is_refusal(&self) -> bool {
        self.aspect == Aspect::Refusal && self.kind == EventKind::Warning
    }

    pub(super) fn namespace(&self) -> &str {
        self.regarding.namespace.as_deref().unwrap_or_default()
    }

    /// A valid object name that is the same for the same [id](Self::event_id) in every process.
    ///
    /// kubectl prints Events of the same second in the order of their names, and without
    /// `--sort-by` all of them. The kubelet ends its names with the time in hexadecimal digits,
    /// which begins with 1 until 2043. So its Events come first, then Warnings (`e`), then Normal
    /// Events (`f`).
    pub(crate) fn event_name(&self) -> String {
        // A name has at most 253 characters; that of a pod may be as long by itself.
        let name = self.regarding.name.as_deref().unwrap_or_default();
        let subject: String = name.chars().take(200).collect();
        let subject = subject.trim_end_matches(['.', '-']);
        let order = match self.kind {
            EventKind::Warning => 'e',
            EventKind::Normal => 'f',
        };
        let Hash(id) = self.event_id();
        format!("{subject}.{order}{:015x}", id >> 4)
    }

    /// The Event when it is published for the first time.
    ///
    /// A `v1` Event can have the times of both generations of the API; `events.k8s.io/v1` refuses
    /// `lastTimestamp`. `kubectl describe` sorts by `lastTimestamp` alone, and prints an Event
    /// without it before all others.
    pub(super) fn event(&self, instance: &str, now: Timestamp) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(self.event_name()),
                namespace: self.regarding.namespace.clone(),
                ..ObjectMeta::default()
            },
            action: Some(self.aspect.action().into()),
            count: Some(1),
            event_time: Some(MicroTime(now)),
            first_timestamp: Some(Time(now)),
            involved_object: self.regarding.clone(),
            last_timestamp: Some(Time(now)),
            message: Some(self.message()),
            reason: Some(text::cut(&self.reason, REASON_BYTES)),
            related: self.related.clone(),
            reporting_component: Some(COMPONENT.into()),
            reporting_instance: Some(text::cut(instance, INSTANCE_BYTES)),
            series: None,
            source: Some(EventSource {
                component: Some(COMPONENT.into()),
                host: None,
            }),
            type_: Some(self.kind.as_str().into()),
        }
    }

    /// The patch that repeats its Event with a new count.
    ///
    /// `kubectl events` sorts by the time in `series`, else by `lastTimestamp`. Both are whole
    /// seconds: a fraction would move the Event behind later ones of the same second.
    pub(super) fn repeat(&self, count: i32, version: Option<&str>, now: Timestamp) -> Value {
        let last = whole_second(now);
        let series = EventSeries {
            count: Some(count),
            last_observed_time: Some(MicroTime(last)),
        };
        json!({
            "metadata": { "resourceVersion": version },
            "message": self.message(),
            "count": count,
            "lastTimestamp": Time(last),
            "series": series,
        })
    }

    /// The note within the limit of the API.
    pub(super) fn message(&self) -> String {
        text::cut(&self.note, NOTE_BYTES)
    }
}

#[cfg(test)]
pub(super) mod tests;
