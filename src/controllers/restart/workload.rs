//! The workloads behind pods that can be restarted, and the data about those that ask for it.

use crate::api::annotations::{Carrier, RESTART, flag};
use crate::k8s::object_key::Key;
use crate::store::cached_pod::SecretUser;
use crate::store::secret_index::ReferencesSecrets;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::core::{ApiResource, GroupVersionKind};
use std::fmt;
use std::sync::Arc;

/// The group of all kinds.
const GROUP: &str = "apps";

/// A kind that can be restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Deployment,
    StatefulSet,
    DaemonSet,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Deployment, Self::StatefulSet, Self::DaemonSet];

    /// The name of the kind, its name in paths of the API, and its row in the table of annotations.
    fn names(self) -> (&'static str, &'static str, Carrier) {
        match self {
            Self::Deployment => ("Deployment", "deployments", Carrier::Deployment),
            Self::StatefulSet => ("StatefulSet", "statefulsets", Carrier::StatefulSet),
            Self::DaemonSet => ("DaemonSet", "daemonsets", Carrier::DaemonSet),
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        self.names().0
    }

    pub(super) fn plural(self) -> &'static str {
        self.names().1
    }

    pub(super) fn carrier(self) -> Carrier {
        self.names().2
    }

    pub(super) fn resource(self) -> ApiResource {
        let kind = GroupVersionKind::gvk(GROUP, "v1", self.as_str());
        ApiResource::from_gvk_with_plural(&kind, self.plural())
    }
}

/// One workload, by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Workload {
    pub(super) kind: Kind,
    pub(super) key: Key,
}

impl Workload {
    /// The workload that makes such pods and replaces them, if it is one that can be restarted.
    pub(super) fn of(pod: &SecretUser) -> Option<Self> {
        let controller = pod.controller.as_deref()?;
        if controller.api_version.split('/').next() != Some(GROUP) {
            return None;
        }
        let (kind, name) = match controller.kind.as_str() {
            "ReplicaSet" => (Kind::Deployment, controller.deployment.as_ref()?),
            "StatefulSet" => (Kind::StatefulSet, &controller.name),
            "DaemonSet" => (Kind::DaemonSet, &controller.name),
            _ => return None,
        };
        Some(Self {
            kind,
            key: Key::new(pod.key.namespace.clone(), &**name),
        })
    }

    /// Whether this pod is one of the workload's and may have read what was there before this time.
    /// `uid` is the workload's; a Deployment is known by its name alone, because another object
    /// owns its pods.
    pub(super) fn is_behind(&self, pod: &SecretUser, uid: &str, issued: Timestamp) -> bool {
        let owner = pod.controller.as_deref().map(|owner| &*owner.uid);
        pod.has_read_before(issued)
            && Self::of(pod).as_ref() == Some(self)
            && (self.kind == Kind::Deployment || owner == Some(uid))
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.key)
    }
}

/// The data about a workload that asks to be restarted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mark {
    key: Key,
    pub(super) uid: String,
    /// Changes with its spec: a fault in that may be gone.
    pub(super) generation: Option<i64>,
}

impl Mark {
    /// `None` if it does not ask, or not any more.
    pub(super) fn of(object: &impl ResourceExt) -> Option<Self> {
        let meta = object.meta();
        let is_wanted = is_marked(object) && meta.deletion_timestamp.is_none();
        is_wanted.then(|| Self {
            key: Key::of(object),
            uid: meta.uid.clone().unwrap_or_default(),
            generation: meta.generation,
        })
    }
}

/// A mark is found by its key alone: the pods name the Secrets.
impl ReferencesSecrets for Mark {
    fn key(&self) -> &Key {
        &self.key
    }

    fn secrets(&self) -> impl Iterator<Item = &Arc<str>> {
        std::iter::empty()
    }
}

/// Whether a workload asks to be restarted.
pub(super) fn is_marked(object: &impl ResourceExt) -> bool {
    flag(object.annotations(), RESTART) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    /// A pod that ran before 12:00, with this owner.
    fn pod(api_version: &str, kind: &str, name: &str) -> SecretUser {
        let owner = json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": "o", "controller": true});
        let pod = json!({
            "metadata": {"namespace": "ns", "name": "pod", "uid": "p", "ownerReferences": [owner],
                "labels": {"pod-template-hash": "5d"}, "creationTimestamp": "2030-01-01T11:00:00Z"},
            "spec": {"containers": []}, "status": {"phase": "Running"},
        });
        serde_json::from_value::<Pod>(pod).unwrap().into()
    }

    #[test]
    fn a_workload_is_known_by_its_pods() {
        for (api_version, kind, name, expected) in [
            ("apps/v1", "ReplicaSet", "web-5d", Some("Deployment ns/web")),
            ("apps/v1", "ReplicaSet", "web", None),
            ("apps/v1", "StatefulSet", "db", Some("StatefulSet ns/db")),
            ("apps/v1", "DaemonSet", "log", Some("DaemonSet ns/log")),
            ("example.com/v1", "StatefulSet", "db", None),
            ("batch/v1", "Job", "job", None),
        ] {
            let found = Workload::of(&pod(api_version, kind, name));
            let found = found.map(|workload| workload.to_string());
            assert_eq!(found.as_deref(), expected, "{api_version} {kind} {name}");
        }
    }

    #[test]
    fn a_pod_of_a_namesake_is_no_reason_to_restart() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (before, after) = (at("2030-01-01T10:00:00Z"), at("2030-01-01T12:00:00Z"));
        let of = |kind, name: &str| Workload {
            kind,
            key: Key::new("ns", name),
        };
        let (web, db) = (of(Kind::Deployment, "web"), of(Kind::StatefulSet, "db"));
        let (web_pod, db_pod) = (
            pod("apps/v1", "ReplicaSet", "web-5d"),
            pod("apps/v1", "StatefulSet", "db"),
        );
        for (workload, pod, uid, issued, expected) in [
            (&web, &web_pod, "w", after, true),
            (&web, &web_pod, "w", before, false),
            (&web, &db_pod, "w", after, false),
            (&db, &db_pod, "o", after, true),
            (&db, &db_pod, "another", after, false),
            (&of(Kind::StatefulSet, "web"), &web_pod, "o", after, false),
        ] {
            let found = workload.is_behind(pod, uid, issued);
            assert_eq!(found, expected, "{workload} {} {issued}", pod.key);
        }
    }

    #[test]
    fn a_workload_asks_with_each_spelling_of_true_while_it_is_there() {
        let mark = |meta: Value| {
            let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"namespace": "ns", "name": "web", "uid": "u", "generation": 3}});
            json_patch::merge(&mut object["metadata"], &meta);
            let object: kube::core::DynamicObject = serde_json::from_value(object).unwrap();
            Mark::of(&object)
        };
        let asking = |value: &str| json!({"annotations": {"box.com/restart-on-renewal": value}});
        let expected = Mark {
            key: Key::new("ns", "web"),
            uid: "u".into(),
            generation: Some(3),
        };
        for asks in ["true", "True", "1", "T"] {
            assert_eq!(mark(asking(asks)).as_ref(), Some(&expected), "{asks}");
        }
        for other in ["false", "", "yes", "tRUE"] {
            assert_eq!(mark(asking(other)), None, "{other}");
        }
        assert_eq!(mark(json!({})), None);
        let mut going = asking("true");
        going["deletionTimestamp"] = json!("2030-01-01T12:00:00Z");
        assert_eq!(mark(going), None);
    }
}
