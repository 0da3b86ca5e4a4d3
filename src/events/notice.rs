//! One thing to say to the readers of one object, and the Event that says it.

use crate::policy::text;
use aws_lc_rs::digest;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

/// Who says it: `From` in `kubectl describe`.
pub(super) const COMPONENT: &str = "pki-operator";
/// Limits of the API (k8s.io/api/events/v1: `reason`, `note`, `reportingInstance`), in bytes.
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
    pub kind: Kind,
    /// Why, in one CamelCase word.
    pub reason: String,
    /// The sentence.
    pub note: String,
    /// What makes it the same as one that was said before, where that is not the whole sentence: a sentence may tell a
    /// time or a number that the first one of a series tells for all.
    pub topic: Option<String>,
    /// Since when it has been so: an Event that was last sent before is about an earlier occurrence.
    pub since: Timestamp,
}

/// What a notice tells about its object. Of two that tell the same and have not been sent, the later one is what counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aspect {
    /// Whether all is well.
    State,
    /// That a certificate was renewed.
    Renewal,
    /// A renewal on request has to wait, or was served before.
    Request,
    /// That admission refused a Pki.
    Refusal,
    /// That a Secret's name looks mistyped.
    Name,
    /// What becomes of a restart after a renewal.
    Restart,
    /// Objects that a rotation of the CA cannot reach.
    Rotation,
    /// State of a request for another CA.
    RotationRequest,
}

impl Aspect {
    /// What was done, or failed, as the API wants it: one word.
    fn action(self) -> &'static str {
        match self {
            Self::Refusal => "Admit",
            Self::Restart => "Restart",
            Self::Rotation | Self::RotationRequest => "Rotate",
            _ => "Issue",
        }
    }
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
    /// What is the same whenever the same is said to the same object.
    pub(super) fn sentence(&self) -> Hash {
        let topic = self.topic.as_deref().unwrap_or(&self.note);
        Hash::of(&[self.uid(), self.kind.as_str(), &self.reason, topic])
    }

    /// What is the same whenever the same is told of, well or badly.
    pub(super) fn matter(&self) -> Hash {
        let (namespace, name) = (self.namespace(), self.regarding.name.as_deref());
        let related = self.related.as_ref();
        let other_name = related.and_then(|other| other.name.as_deref());
        let other_uid = related.and_then(|other| other.uid.as_deref());
        // Several names may be mistyped that are all like that of one Pki.
        let hint = match self.aspect {
            Aspect::Name => self.note.as_str(),
            _ => "",
        };
        Hash::of(&[
            namespace,
            name.unwrap_or_default(),
            self.uid(),
            other_name.unwrap_or_default(),
            other_uid.unwrap_or_default(),
            &format!("{:?}", self.aspect),
            hint,
        ])
    }

    /// The budget that pays for the notice. An object has one for refusals apart from the one for all else: anybody can have
    /// a Pki refused, any number of times, and that must not silence a fault.
    pub(super) fn budget(&self) -> Hash {
        let (namespace, name) = (self.namespace(), self.regarding.name.as_deref());
        let kind = self.regarding.kind.as_deref().unwrap_or_default();
        let purpose = if self.is_refusal() { "refusals" } else { "" };
        Hash::of(&[
            kind,
            namespace,
            name.unwrap_or_default(),
            self.uid(),
            purpose,
        ])
    }

    /// Whether it is about a Pki that was never stored.
    pub(super) fn is_refusal(&self) -> bool {
        self.aspect == Aspect::Refusal
    }

    pub(super) fn namespace(&self) -> &str {
        self.regarding.namespace.as_deref().unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.regarding.uid.as_deref().unwrap_or_default()
    }

    /// A valid object name that is the same whenever the same is said to the same object.
    pub(crate) fn event_name(&self) -> String {
        // A name has at most 253 characters; that of a pod may be as long by itself.
        let subject = self.regarding.name.as_deref().unwrap_or_default();
        let subject: String = subject.chars().take(200).collect();
        let subject = subject.trim_end_matches(['.', '-']);
        format!("{subject}.{:016x}", self.sentence().0)
    }

    /// The Event that says it for the first time.
    pub(super) fn event(&self, instance: &str, now: Timestamp) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(self.event_name()),
                namespace: self.regarding.namespace.clone(),
                ..ObjectMeta::default()
            },
            action: Some(self.aspect.action().into()),
            event_time: Some(MicroTime(now)),
            note: Some(text::cut(&self.note, NOTE_BYTES)),
            reason: Some(text::cut(&self.reason, REASON_BYTES)),
            regarding: Some(self.regarding.clone()),
            related: self.related.clone(),
            reporting_controller: Some(COMPONENT.into()),
            reporting_instance: Some(text::cut(instance, INSTANCE_BYTES)),
            type_: Some(self.kind.as_str().into()),
            ..Event::default()
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Something about the pod `ns/pod`.
    pub(in crate::events) fn notice(kind: Kind, note: &str) -> Notice {
        notice_to("ns", "pod", kind, note)
    }

    /// Something about a pod whose UID is its name.
    pub(in crate::events) fn notice_to(
        namespace: &str,
        pod: &str,
        kind: Kind,
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
    fn a_name_depends_on_what_is_said_to_whom_and_on_nothing_else() {
        let base = notice(Kind::Warning, "note");
        let mut same = base.clone();
        same.since = Timestamp::MAX;
        same.related = Some(ObjectReference::default());
        assert_eq!(base.event_name(), same.event_name());
        let mut others = vec![notice(Kind::Normal, "note"); 4];
        others[1] = notice(Kind::Warning, "another note");
        others[2].reason = "Another".into();
        others[3].regarding.uid = Some("v".into());
        for other in others {
            assert_ne!(base.event_name(), other.event_name());
        }
    }

    #[test]
    fn a_topic_is_what_makes_two_sentences_one() {
        let mut notices = ["3 pods", "4 pods"].map(|note| notice(Kind::Warning, note));
        assert_ne!(notices[0].event_name(), notices[1].event_name());
        for notice in &mut notices {
            notice.topic = Some("pods".into());
        }
        assert_eq!(notices[0].event_name(), notices[1].event_name());
    }

    #[test]
    fn the_matter_is_the_same_however_it_stands() {
        let bad = notice(Kind::Warning, "bad");
        assert_eq!(bad.matter(), notice(Kind::Normal, "good").matter());
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
            assert_ne!(bad.matter(), other.matter());
        }
        let hints = ["one", "another"].map(|note| Notice {
            aspect: Aspect::Name,
            ..notice(Kind::Warning, note)
        });
        assert_ne!(hints[0].matter(), hints[1].matter());
    }

    #[test]
    fn a_name_is_valid_for_the_longest_pod_name() {
        let mut longest = notice(Kind::Warning, "note");
        longest.regarding.name = Some(format!("{}.{}", "a".repeat(199), "b".repeat(53)));
        let name = longest.event_name();
        assert!(name.len() <= 253 && !name.contains(".."), "{name}");
    }

    #[test]
    fn an_event_is_within_the_limits_of_the_api() {
        let mut long = notice(Kind::Warning, &"ü€".repeat(1000));
        long.reason = "R".repeat(1000);
        let event = long.event(&"i".repeat(1000), Timestamp::UNIX_EPOCH);
        let lengths = [event.note, event.reason, event.reporting_instance];
        let lengths = lengths.map(|field| field.unwrap().len());
        assert!(
            lengths[0] <= 1024 && lengths[1] <= 128 && lengths[2] <= 128,
            "{lengths:?}"
        );
    }
}
