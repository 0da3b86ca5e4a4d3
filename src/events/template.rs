//! The content of an Event before its objects are known, and which users of a Secret get it.

use super::notice::{Aspect, EventKind, NOTE_BYTES, Notice};
use crate::k8s::object_key::Key;
use crate::store::cached_pod::{Controller, SecretUser, Use};
use crate::util::text;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Maximum number of pods that get an Event about one change. The controllers of the others get a
/// summary.
const MAX_PODS: usize = 100;
/// Maximum number of controllers that get a summary.
const MAX_CONTROLLERS: usize = 10;

/// The content of an Event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EventTemplate {
    pub(crate) aspect: Aspect,
    pub(crate) kind: EventKind,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// As in [`Notice::topic`].
    pub(crate) topic: Option<String>,
    /// As in [`Notice::since`].
    pub(crate) since: Timestamp,
}

impl EventTemplate {
    /// An Event that its message identifies, about a state without a known beginning.
    pub(crate) fn new(
        aspect: Aspect,
        kind: EventKind,
        reason: &str,
        message: impl AsRef<str>,
    ) -> Self {
        Self {
            aspect,
            kind,
            reason: reason.to_owned(),
            message: text::cut(message.as_ref(), NOTE_BYTES),
            topic: None,
            since: Timestamp::UNIX_EPOCH,
        }
    }

    pub(crate) fn warning(aspect: Aspect, reason: &str, message: impl AsRef<str>) -> Self {
        Self::new(aspect, EventKind::Warning, reason, message)
    }

    pub(crate) fn on(
        &self,
        regarding: ObjectReference,
        related: Option<&ObjectReference>,
    ) -> Notice {
        Notice {
            regarding,
            related: related.cloned(),
            aspect: self.aspect,
            kind: self.kind,
            reason: self.reason.clone(),
            note: text::cut(&self.message, NOTE_BYTES),
            topic: self.topic.clone(),
            since: self.since,
        }
    }

    /// The Events on the users of a Secret: as [`Self::for_pods`], each with a note about its use.
    pub(crate) fn for_users(
        &self,
        secret: &str,
        users: &[Arc<SecretUser>],
        related: &ObjectReference,
    ) -> Vec<Notice> {
        let object = format!("Secret {}", text::printable(secret));
        let mut notices = self.for_pods(&object, users, related);
        for (notice, pod) in notices.iter_mut().zip(users.iter().take(MAX_PODS)) {
            let usage_note = pod.use_of(secret).map_or("", |its| self.usage_note(its));
            if !usage_note.is_empty() {
                notice.note = text::fit("", &self.message, usage_note, NOTE_BYTES);
            }
        }
        notices
    }

    /// The Events on the first [`MAX_PODS`] users of this object, and on the others' controllers.
    pub(crate) fn for_pods(
        &self,
        object: &str,
        pods: &[Arc<SecretUser>],
        related: &ObjectReference,
    ) -> Vec<Notice> {
        let (first, rest) = pods.split_at(pods.len().min(MAX_PODS));
        let on_pods = first
            .iter()
            .map(|pod| self.on(pod_reference(pod), Some(related)));
        on_pods
            .chain(self.for_controllers(object, rest, related))
            .collect()
    }

    /// The consequence of the way in which a pod uses the Secret.
    fn usage_note(&self, its: Use) -> &'static str {
        match (self.aspect, self.kind) {
            (Aspect::Renewal, _) if its.in_environment => {
                "; a container that has it in its environment keeps the previous one until it is restarted"
            }
            (Aspect::State | Aspect::Refusal, EventKind::Warning) if its.is_optional => {
                "; the pod does not wait for the Secret, because its reference says optional: true"
            }
            _ => "",
        }
    }

    /// The number of pods is no part of the topic, because it changes while pods come and go.
    fn for_controllers(
        &self,
        object: &str,
        pods: &[Arc<SecretUser>],
        related: &ObjectReference,
    ) -> impl Iterator<Item = Notice> {
        let mut counts = BTreeMap::<_, (usize, &SecretUser, &Controller)>::new();
        for pod in pods {
            if let Some(controller) = pod.controller.as_deref() {
                let entry = counts.entry(&controller.uid);
                entry.or_insert((0, pod, controller)).0 += 1;
            }
        }
        let counts = counts.into_values().take(MAX_CONTROLLERS);
        counts.map(move |(count, pod, controller)| {
            let summary = format!(
                "to {count} of its pods that use {object}, which get no Events of their own: "
            );
            Notice {
                note: text::fit(&summary, &self.message, "", NOTE_BYTES),
                topic: Some(self.topic.clone().unwrap_or_else(|| self.message.clone())),
                ..self.on(controller_reference(pod, controller), Some(related))
            }
        })
    }
}

fn pod_reference(pod: &SecretUser) -> ObjectReference {
    pod.key.reference("v1", "Pod", Some(pod.uid.clone()))
}

fn controller_reference(pod: &SecretUser, controller: &Controller) -> ObjectReference {
    let uid = Some(controller.uid.clone());
    let key = Key::new(pod.key.namespace.clone(), controller.name.as_str());
    key.reference(&controller.api_version, &controller.kind, uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    fn template(kind: EventKind, aspect: Aspect) -> EventTemplate {
        EventTemplate::new(aspect, kind, "Reason", "It is so")
    }

    /// A pod of the `ReplicaSet` called `set`, with an environment variable from the Secret.
    fn pod(name: &str, set: &str, optional: bool) -> Arc<SecretUser> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": name, "uid": name, "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": set, "controller": true}]},
            "spec": {"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "tls", "optional": optional}}]}]}
        }))
        .unwrap();
        Arc::new(pod.into())
    }

    fn notes(template: &EventTemplate, users: &[Arc<SecretUser>]) -> Vec<(String, String)> {
        let notices = template.for_users("tls", users, &ObjectReference::default());
        let name = |notice: &Notice| notice.regarding.name.clone().unwrap();
        notices
            .into_iter()
            .map(|notice| (name(&notice), notice.note))
            .collect()
    }

    #[test]
    fn a_pod_gets_the_note_about_its_use_of_the_secret() {
        let users = [pod("a", "s", false), pod("b", "s", true)];
        let optional = "It is so; the pod does not wait for the Secret, because its reference says optional: true";
        let environment = "It is so; a container that has it in its environment keeps the previous one until it is restarted";
        for (kind, aspect, first, second) in [
            (EventKind::Warning, Aspect::State, "It is so", optional),
            (EventKind::Warning, Aspect::Refusal, "It is so", optional),
            (EventKind::Normal, Aspect::State, "It is so", "It is so"),
            (EventKind::Normal, Aspect::Renewal, environment, environment),
        ] {
            let expected = [("a", first), ("b", second)];
            let expected = expected.map(|(name, note)| (name.to_owned(), note.to_owned()));
            assert_eq!(
                notes(&template(kind, aspect), &users),
                expected,
                "{aspect:?}"
            );
        }
    }

    #[test]
    fn beyond_a_hundred_pods_the_controllers_get_a_summary() {
        let sets = |number: usize| if number < 150 { "big" } else { "small" };
        let users = (0..153).map(|number| pod(&format!("pod-{number:03}"), sets(number), false));
        let mut users: Vec<_> = users.collect();
        let template = template(EventKind::Warning, Aspect::State);
        let notices = template.for_users("tls", &users, &ObjectReference::default());
        assert_eq!(notices.len(), 102);
        let summary = |count| {
            format!(
                "to {count} of its pods that use Secret tls, which get no Events of their own: It is so"
            )
        };
        assert_eq!(
            notes(&template, &users)[100..],
            [
                ("big".to_owned(), summary(50)),
                ("small".to_owned(), summary(3))
            ]
        );
        let regarding = &notices[100].regarding;
        assert_eq!(regarding.kind.as_deref(), Some("ReplicaSet"));
        assert_eq!(regarding.api_version.as_deref(), Some("apps/v1"));
        users.pop();
        let fewer = template.for_users("tls", &users, &ObjectReference::default());
        assert_eq!(fewer[101].event_name(), notices[101].event_name());
    }

    #[test]
    fn events_on_controllers_are_limited() {
        let users =
            (0..200).map(|number| pod(&format!("{number}"), &format!("set-{number}"), false));
        let users: Vec<_> = users.collect();
        let template = template(EventKind::Warning, Aspect::State);
        assert_eq!(notes(&template, &users).len(), MAX_PODS + MAX_CONTROLLERS);
    }

    #[test]
    fn a_usage_note_is_not_cut_off_by_a_long_message() {
        let mut template = template(EventKind::Warning, Aspect::State);
        template.message = "ü".repeat(2000);
        let note = &notes(&template, &[pod("a", "s", true)])[0].1;
        assert!(
            note.len() <= NOTE_BYTES && note.ends_with("optional: true"),
            "{note}"
        );
    }
}
