//! What is said, before it is known to whom; and who hears it of those who use a Secret.

use super::notice::{Aspect, EventKind, NOTE_BYTES, Notice};
use crate::k8s::object_key::Key;
use crate::store::cached_pod::{Controller, SecretUser, Use};
use crate::util::text;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use std::collections::BTreeMap;
use std::sync::Arc;

/// So many pods hear of one change; of the others their controller is told.
const MOST_PODS: usize = 100;
/// So many controllers are told.
const MOST_CONTROLLERS: usize = 10;

/// What is said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EventTemplate {
    pub(crate) aspect: Aspect,
    pub(crate) kind: EventKind,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// As in [`Notice::topic`].
    pub(crate) topic: Option<String>,
    pub(crate) since: Timestamp,
}

impl EventTemplate {
    /// To the readers of this object.
    pub(crate) fn to(
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

    /// To those who use this Secret: the first hundred pods, and of the others whoever made them.
    pub(crate) fn for_users(
        &self,
        secret: &str,
        users: &[Arc<SecretUser>],
        related: &ObjectReference,
    ) -> Vec<Notice> {
        let object = format!("Secret {}", text::printable(secret));
        let mut notices = self.for_pods(&object, users, related);
        for (notice, pod) in notices.iter_mut().zip(users.iter().take(MOST_PODS)) {
            let usage_note = pod.use_of(secret).map_or("", |its| self.usage_note(its));
            if !usage_note.is_empty() {
                notice.note = text::fit("", &self.message, usage_note, NOTE_BYTES);
            }
        }
        notices
    }

    /// To these pods, which use this object: the first hundred, and the controllers of the others.
    pub(crate) fn for_pods(
        &self,
        object: &str,
        pods: &[Arc<SecretUser>],
        related: &ObjectReference,
    ) -> Vec<Notice> {
        let (told, rest) = pods.split_at(pods.len().min(MOST_PODS));
        let told = told
            .iter()
            .map(|pod| self.to(pod_reference(pod), Some(related)));
        told.chain(self.to_controllers(object, rest, related))
            .collect()
    }

    /// What follows from the way in which the pod uses the Secret.
    fn usage_note(&self, its: Use) -> &'static str {
        match (self.aspect, self.kind) {
            (Aspect::Renewal, _) if its.in_environment => {
                "; a container that has it in its environment goes on with the one before until it is restarted"
            }
            (Aspect::State | Aspect::Refusal, EventKind::Warning) if its.is_optional => {
                "; the pod does not wait for the Secret, since its reference says optional: true"
            }
            _ => "",
        }
    }

    /// The number is no part of the topic: it changes while pods come and go.
    fn to_controllers(
        &self,
        object: &str,
        pods: &[Arc<SecretUser>],
        related: &ObjectReference,
    ) -> Vec<Notice> {
        let mut counts = BTreeMap::<_, (usize, &SecretUser, &Controller)>::new();
        for pod in pods {
            if let Some(controller) = pod.controller.as_deref() {
                let count = counts
                    .entry(&controller.uid)
                    .or_insert((0, pod, controller));
                count.0 += 1;
            }
        }
        let summaries = counts.into_values().take(MOST_CONTROLLERS);
        summaries
            .map(|(count, pod, controller)| {
                let summary = format!(
                    "to {count} of its pods that use {object}, which are not told one by one: "
                );
                let mut notice = self.to(controller_reference(pod, controller), Some(related));
                notice.note = text::fit(&summary, &self.message, "", NOTE_BYTES);
                notice.topic = Some(self.topic.clone().unwrap_or_else(|| self.message.clone()));
                notice
            })
            .collect()
    }
}

fn pod_reference(pod: &SecretUser) -> ObjectReference {
    pod.key.reference("v1", "Pod", Some(pod.uid.clone()))
}

fn controller_reference(pod: &SecretUser, controller: &Controller) -> ObjectReference {
    let Controller {
        api_version,
        kind,
        name,
        uid,
        ..
    } = controller;
    let key = Key::new(pod.key.namespace.clone(), name.as_str());
    key.reference(api_version, kind, Some(uid.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    fn template(kind: EventKind, aspect: Aspect) -> EventTemplate {
        EventTemplate {
            aspect,
            kind,
            reason: "Reason".into(),
            message: "It is so".into(),
            topic: None,
            since: Timestamp::UNIX_EPOCH,
        }
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
        let optional = "It is so; the pod does not wait for the Secret, since its reference says optional: true";
        let environment = "It is so; a container that has it in its environment goes on with the one before until it is restarted";
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
        let told = template.for_users("tls", &users, &ObjectReference::default());
        assert_eq!(told.len(), 102);
        let summary = |count| {
            format!(
                "to {count} of its pods that use Secret tls, which are not told one by one: It is so"
            )
        };
        assert_eq!(
            notes(&template, &users)[100..],
            [
                ("big".to_owned(), summary(50)),
                ("small".to_owned(), summary(3))
            ]
        );
        let regarding = &told[100].regarding;
        assert_eq!(regarding.kind.as_deref(), Some("ReplicaSet"));
        assert_eq!(regarding.api_version.as_deref(), Some("apps/v1"));
        users.pop();
        let fewer = template.for_users("tls", &users, &ObjectReference::default());
        assert_eq!(fewer[101].event_name(), told[101].event_name());
    }

    #[test]
    fn events_on_controllers_are_limited() {
        let users =
            (0..200).map(|number| pod(&format!("{number}"), &format!("set-{number}"), false));
        let users: Vec<_> = users.collect();
        let template = template(EventKind::Warning, Aspect::State);
        assert_eq!(notes(&template, &users).len(), MOST_PODS + MOST_CONTROLLERS);
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
