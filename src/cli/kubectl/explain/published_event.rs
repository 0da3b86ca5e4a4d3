//! The Events that the operator published about a Pki.

use crate::cli::kubectl::words;
use crate::util::text::{printable, sentence};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, ObjectReference};

/// An Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedEvent {
    /// The object that has it, as in `Pod app1-x`.
    to: String,
    /// `Warning` or `Normal`.
    kind: String,
    /// Its reason.
    pub(super) reason: String,
    note: String,
    /// How often it was published.
    count: i32,
    /// When it was published last.
    last: Option<Timestamp>,
}

impl PublishedEvent {
    /// The Events about this Pki, the latest first: to itself, or to others on its behalf.
    pub fn about(pki: &str, events: impl IntoIterator<Item = Event>) -> Vec<Self> {
        let is_it = |object: &ObjectReference| {
            object.kind.as_deref() == Some("Pki") && object.name.as_deref() == Some(pki)
        };
        let about = events.into_iter().filter(|event| {
            is_it(&event.involved_object) || event.related.as_ref().is_some_and(is_it)
        });
        let mut published: Vec<_> = about.map(Self::from).collect();
        published.sort_by(|a, b| b.last.cmp(&a.last).then_with(|| a.to.cmp(&b.to)));
        published
    }

    /// The Event in one line.
    pub(super) fn line(&self, now: Timestamp) -> String {
        let last = self.last;
        let ago = last.map(|last| format!(", {} ago", words::age(last, now)));
        let count = (self.count > 1).then(|| format!(", {} times", self.count));
        format!(
            "{} to {}{}{}: {}: {}",
            printable(&self.kind),
            printable(&self.to),
            ago.unwrap_or_default(),
            count.unwrap_or_default(),
            printable(&self.reason),
            sentence(&self.note)
        )
    }
}

impl From<Event> for PublishedEvent {
    fn from(event: Event) -> Self {
        let subject = &event.involved_object;
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        let series = event.series.as_ref();
        let observed = series.and_then(|series| series.last_observed_time.as_ref());
        let times = [
            observed.map(|time| time.0),
            event.last_timestamp.as_ref().map(|time| time.0),
            event.event_time.as_ref().map(|time| time.0),
        ];
        let count = series.and_then(|series| series.count);
        Self {
            to: format!("{} {}", part(&subject.kind), part(&subject.name)),
            kind: part(&event.type_),
            reason: part(&event.reason),
            note: part(&event.message),
            count: count.or(event.count).unwrap_or(1),
            last: times.into_iter().flatten().max(),
        }
    }
}
