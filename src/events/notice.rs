//! One thing to say to the readers of one object, and the Event that says it.

use crate::util::text;
use crate::util::time::whole_second;
use aws_lc_rs::digest;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSeries, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use serde_json::{Value, json};

/// Who says it: `From` in `kubectl describe`.
pub(super) const COMPONENT: &str = "pki-operator";
/// Limits of the API for `reason`, `message` and `reportingInstance` of Events with an `eventTime`,
/// in bytes.
const REASON_BYTES: usize = 128;
pub(crate) const NOTE_BYTES: usize = 1024;
const INSTANCE_BYTES: usize = 128;

/// One thing to say to the readers of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The object whose readers are told.
    pub regarding: ObjectReference,
    /// The Pki it is about, when that is another object.
    pub related: Option<ObjectReference>,
    /// What about it.
    pub aspect: Aspect,
    /// Whether something has to be done.
    pub kind: EventKind,
    /// Why, in one CamelCase word.
    pub reason: String,
    /// The sentence.
    pub note: String,
    /// What makes it the same as one that was said before, where that is not the whole content: a
    /// sentence may tell a time or a number, and another one is no news.
    pub topic: Option<String>,
    /// Since when it has been so: an Event that was last sent before is about an earlier
    /// occurrence.
    pub since: Timestamp,
}

/// What a notice tells about its object. Of two that tell the same and have not been sent, the
/// later one is what counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aspect {
    /// Whether all is well.
    State,
    /// That a certificate was renewed.
    Renewal,
    /// A renewal on request has to wait, or was served before.
    Request,
    /// A Pki takes up a Secret that had no owner.
    TakeUp,
    /// That admission refused a Pki.
    Refusal,
    /// That a Secret's name looks mistyped.
    Name,
    /// The Pki writes another Secret now.
    Former,
    /// The Secret was removed with its Pki.
    Removal,
    /// A Secret or `ConfigMap` lacks files.
    Files,
    /// The namespace does not ask for the CA bundle.
    Bundle,
    /// What becomes of a restart after a renewal.
    Restart,
    /// Objects that a rotation of the CA cannot reach.
    Rotation,
    /// State of a request for another CA.
    RotationRequest,
    /// Annotations and labels that have no effect.
    Annotation,
}

impl Aspect {
    /// What was done, or failed, as the API wants it: one word.
    fn action(self) -> &'static str {
        match self {
            Self::Refusal => "Admit",
            Self::Restart => "Restart",
            Self::Rotation | Self::RotationRequest => "Rotate",
            Self::Annotation => "Read",
            _ => "Issue",
        }
    }
}

/// The type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Something is wrong; said again while it lasts.
    Warning,
    /// Something was mended; said once.
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
    fn of(parts: &[&str]) -> Self {
        let hash = digest::digest(&digest::SHA256, parts.join("\0").as_bytes());
        let first = hash.as_ref()[..8].try_into().expect("eight are eight");
        Self(u64::from_be_bytes(first))
    }
}

impl Notice {
    /// Hash of what is said; another one in the same [line](Self::event_id) is news.
    pub(super) fn content(&self) -> Hash {
        Hash::of(&[self.kind.as_str(), &self.reason, self.topic_or_note()])
    }

    /// Hash of the line that readers see: a matter and a reason, which is one Event. A changed
    /// message replaces the one before. So a person who tries ten wrong names reads the last
    /// answer, with a count.
    pub(super) fn event_id(&self) -> Hash {
        let related = self.related.as_ref();
        let related = related.and_then(|related| related.name.as_deref());
        // Reconciler and refusing replica both report that a Pki is ready.
        let aspect = match (self.aspect, self.kind) {
            (Aspect::Refusal, EventKind::Normal) => Aspect::State,
            (aspect, _) => aspect,
        };
        Hash::of(&[
            self.uid(),
            related.unwrap_or_default(),
            &format!("{aspect:?}"),
            self.hint(),
            self.kind.as_str(),
            &self.reason,
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

    /// What is the same whenever the same is told of, well or badly.
    pub(super) fn dedup_key(&self) -> Hash {
        let (namespace, name) = (self.namespace(), self.regarding.name.as_deref());
        let related = self.related.as_ref();
        let other_name = related.and_then(|other| other.name.as_deref());
        let other_uid = related.and_then(|other| other.uid.as_deref());
        Hash::of(&[
            namespace,
            name.unwrap_or_default(),
            self.uid(),
            other_name.unwrap_or_default(),
            other_uid.unwrap_or_default(),
            &format!("{:?}", self.aspect),
            self.hint(),
        ])
    }

    /// The budget that pays for the notice. An object has one for faults, and two more. Refusals
    /// have their own, because anybody can have any number of Pkis refused, which must not silence
    /// a fault. Normal Events have their own, because the end of a fault is reported at once,
    /// however many faults there were before.
    pub(super) fn budget(&self) -> Hash {
        let (namespace, name) = (self.namespace(), self.regarding.name.as_deref());
        let kind = self.regarding.kind.as_deref().unwrap_or_default();
        let purpose = match self.kind {
            EventKind::Normal => "good news",
            EventKind::Warning if self.is_refusal() => "refusals",
            EventKind::Warning => "",
        };
        Hash::of(&[
            kind,
            namespace,
            name.unwrap_or_default(),
            self.uid(),
            purpose,
        ])
    }

    /// Whether it reports a refused Pki. The end of a refusal is no refusal.
    pub(super) fn is_refusal(&self) -> bool {
        self.aspect == Aspect::Refusal && self.kind == EventKind::Warning
    }

    pub(super) fn namespace(&self) -> &str {
        self.regarding.namespace.as_deref().unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.regarding.uid.as_deref().unwrap_or_default()
    }

    /// A valid object name that is the same for the same [line](Self::event_id) in every process.
    ///
    /// kubectl prints Events of the same second in the order of their names, and without
    /// `--sort-by` all of them. The kubelet ends its names with the time in hexadecimal digits,
    /// which begins with 1 until 2043. So its Events come first, then Warnings (`e`), then Normal
    /// Events (`f`).
    pub(crate) fn event_name(&self) -> String {
        // A name has at most 253 characters; that of a pod may be as long by itself.
        let subject = self.regarding.name.as_deref().unwrap_or_default();
        let subject: String = subject.chars().take(200).collect();
        let subject = subject.trim_end_matches(['.', '-']);
        let order = match self.kind {
            EventKind::Warning => 'e',
            EventKind::Normal => 'f',
        };
        let Hash(line) = self.event_id();
        format!("{subject}.{order}{:015x}", line >> 4)
    }

    /// The Event that says it for the first time.
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
    /// `kubectl events` sorts by the time in `series`, and where there is none by `lastTimestamp`.
    /// Both are whole seconds here. A fraction would move the Event behind later ones of the same
    /// second.
    pub(super) fn again(&self, count: i32, version: Option<&str>, now: Timestamp) -> Value {
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
pub(super) mod tests {
    use super::*;

    /// Something about the pod `ns/pod`.
    pub(in crate::events) fn notice(kind: EventKind, note: &str) -> Notice {
        notice_to("ns", "pod", kind, note)
    }

    /// Something about a pod whose UID is its name.
    pub(in crate::events) fn notice_to(
        namespace: &str,
        pod: &str,
        kind: EventKind,
        note: &str,
    ) -> Notice {
        Notice {
            regarding: ObjectReference {
                uid: Some(pod.into()),
                namespace: Some(namespace.into()),
                name: Some(pod.into()),
                ..ObjectReference::default()
            },
            related: None,
            aspect: Aspect::State,
            kind,
            reason: "Reason".into(),
            note: note.into(),
            topic: None,
            since: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_name_depends_on_the_subject_and_the_reason_and_on_nothing_else() {
        let base = notice(EventKind::Warning, "note");
        let mut same = notice(EventKind::Warning, "another note");
        same.since = Timestamp::MAX;
        same.related = Some(ObjectReference {
            uid: Some("of a Pki that was made anew".into()),
            ..ObjectReference::default()
        });
        assert_eq!(base.event_name(), same.event_name());
        let mut others = vec![base.clone(); 5];
        others[0].kind = EventKind::Normal;
        others[1].aspect = Aspect::Refusal;
        others[2].reason = "Another".into();
        others[3].regarding.uid = Some("v".into());
        others[4].related = Some(ObjectReference {
            name: Some("other-pki".into()),
            ..ObjectReference::default()
        });
        for other in others {
            assert_ne!(base.event_name(), other.event_name());
        }
    }

    #[test]
    fn all_replicas_publish_that_a_pki_is_ready_in_one_event() {
        let ready = [Aspect::State, Aspect::Refusal].map(|aspect| Notice {
            aspect,
            ..notice(EventKind::Normal, "ready")
        });
        assert_eq!(ready[0].event_name(), ready[1].event_name());
        assert_ne!(ready[0].dedup_key(), ready[1].dedup_key());
    }

    #[test]
    fn names_stand_in_the_order_of_what_usually_happens() {
        // A name as the kubelet makes it, in the last second in which it begins with 1.
        let kubelet = format!("pod.{:x}", 0x1fff_ffff_ffff_ffff_u64);
        let names =
            [EventKind::Warning, EventKind::Normal].map(|kind| notice(kind, "note").event_name());
        assert!(kubelet < names[0] && names[0] < names[1], "{names:?}");
    }

    #[test]
    fn a_topic_makes_two_messages_one() {
        let mut notices = ["3 pods", "4 pods"].map(|note| notice(EventKind::Warning, note));
        assert_ne!(notices[0].content(), notices[1].content());
        for notice in &mut notices {
            notice.topic = Some("pods".into());
        }
        assert_eq!(notices[0].content(), notices[1].content());
    }

    #[test]
    fn normal_events_refusals_and_faults_have_a_budget_each() {
        let of = |kind, aspect| {
            let notice = Notice {
                aspect,
                ..notice(kind, "note")
            };
            (notice.budget(), notice.is_refusal())
        };
        let fault = of(EventKind::Warning, Aspect::State);
        let refusal = of(EventKind::Warning, Aspect::Refusal);
        let mended = of(EventKind::Normal, Aspect::State);
        assert_eq!(of(EventKind::Normal, Aspect::Refusal), mended);
        assert_eq!(of(EventKind::Warning, Aspect::Restart), fault);
        assert!(refusal.1 && !fault.1 && !mended.1);
        assert!(fault.0 != refusal.0 && refusal.0 != mended.0 && mended.0 != fault.0);
    }

    #[test]
    fn the_dedup_key_is_the_same_for_a_fault_and_its_end() {
        let bad = notice(EventKind::Warning, "bad");
        assert_eq!(
            bad.dedup_key(),
            notice(EventKind::Normal, "good").dedup_key()
        );
        let mut others = vec![bad.clone(); 4];
        others[0].aspect = Aspect::Renewal;
        others[1].regarding.uid = Some("v".into());
        others[2].related = Some(ObjectReference {
            uid: Some("pki".into()),
            ..ObjectReference::default()
        });
        others[3].related = Some(ObjectReference {
            name: Some("pki".into()),
            ..ObjectReference::default()
        });
        for other in others {
            assert_ne!(bad.dedup_key(), other.dedup_key());
        }
        let hints = ["one", "another"].map(|note| Notice {
            aspect: Aspect::Name,
            ..notice(EventKind::Warning, note)
        });
        assert_ne!(hints[0].dedup_key(), hints[1].dedup_key());
    }

    #[test]
    fn a_name_is_valid_for_the_longest_pod_name() {
        let mut longest = notice(EventKind::Warning, "note");
        longest.regarding.name = Some(format!("{}.{}", "a".repeat(199), "b".repeat(53)));
        let name = longest.event_name();
        assert!(name.len() <= 253 && !name.contains(".."), "{name}");
    }

    #[test]
    fn an_event_is_within_the_limits_of_the_api() {
        let mut long = notice(EventKind::Warning, &"ü€".repeat(1000));
        long.reason = "R".repeat(1000);
        let event = long.event(&"i".repeat(1000), Timestamp::UNIX_EPOCH);
        let lengths = [event.message, event.reason, event.reporting_instance];
        let lengths = lengths.map(|field| field.unwrap().len());
        assert!(
            lengths[0] <= 1024 && lengths[1] <= 128 && lengths[2] <= 128,
            "{lengths:?}"
        );
    }
}
