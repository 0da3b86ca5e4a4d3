//! Which pods use a Secret, how, and on whose behalf: who must hear what becomes of it.

use crate::index::{Change, Key, NamesSecrets};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStatus, EnvFromSource, EnvVar, Pod, PodSpec, PodStatus, Volume,
};
use kube::ResourceExt;
use std::collections::BTreeMap;

/// The label by which a Deployment tells the pods of its templates apart (kubernetes.io/docs, "Pod-template-hash label").
const TEMPLATE_HASH: &str = "pod-template-hash";

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUser {
    /// Namespace and name of the pod.
    pub key: Key,
    /// Its UID, so that an Event about it is not one about its successor of the same name.
    pub uid: String,
    /// When it was made.
    pub created: Timestamp,
    /// Whether none of its containers has run yet.
    pub is_pending: bool,
    /// When the first of its containers began, as far as the kubelet tells: what it read is as old.
    pub started: Option<Timestamp>,
    /// The object that makes such pods and replaces them.
    pub controller: Option<Box<Controller>>,
    uses: BTreeMap<String, Use>,
}

/// How a pod uses a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Whether the pod starts without the Secret: every reference says `optional: true`.
    pub is_optional: bool,
    /// Whether some container has it in its environment, which does not follow the Secret.
    pub in_environment: bool,
}

/// A controller of pods, such as a `ReplicaSet`, by its owner reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// As in `apps/v1`.
    pub api_version: String,
    /// As in `ReplicaSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The Deployment behind it, which a `ReplicaSet` shows by its name.
    pub deployment: Option<String>,
}

impl From<Pod> for SecretUser {
    /// A pod that is finished or being deleted uses nothing any more.
    fn from(pod: Pod) -> Self {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        let is_over = pod.metadata.deletion_timestamp.is_some()
            || matches!(phase, Some("Succeeded" | "Failed"));
        let uses = match &pod.spec {
            Some(spec) if !is_over => used_secrets(spec),
            _ => BTreeMap::new(),
        };
        Self {
            key: Key::of(&pod),
            is_pending: matches!(phase, None | Some("Pending")),
            started: pod.status.as_ref().and_then(started),
            created: pod
                .creation_timestamp()
                .map_or(Timestamp::MAX, |time| time.0),
            controller: Controller::of(&pod).map(Box::new),
            uid: pod.metadata.uid.unwrap_or_default(),
            uses,
        }
    }
}

impl SecretUser {
    /// How it uses this Secret, if it does.
    pub fn use_of(&self, secret: &str) -> Option<Use> {
        self.uses.get(secret).copied()
    }

    /// Whether it cannot start before this Secret is there.
    pub fn waits_for(&self, secret: &str) -> bool {
        self.is_pending && self.use_of(secret).is_some_and(|its| !its.is_optional)
    }

    /// Whether it may have read its Secrets before this time. One that has waited since then has read nothing, however
    /// old it is. One that was made later has not, whatever the clock of its node says.
    pub fn has_read_before(&self, time: Timestamp) -> bool {
        match self.started {
            Some(started) => started.max(self.created) < time,
            None => !self.is_pending && self.created < time,
        }
    }
}

/// Whether a pod came, or uses other Secrets now. How it fares is no news to whoever looks after Secrets.
pub fn is_news(change: &Change<SecretUser>) -> bool {
    let (before, after) = (change.before.as_deref(), change.after.as_deref());
    let part = |pod: Option<&SecretUser>| pod.map(|pod| (pod.uid.clone(), pod.uses.clone()));
    after.is_some() && part(before) != part(after)
}

impl NamesSecrets for SecretUser {
    fn key(&self) -> Key {
        self.key.clone()
    }

    fn secrets(&self) -> impl Iterator<Item = &str> {
        self.uses.keys().map(String::as_str)
    }
}

impl Controller {
    fn of(pod: &Pod) -> Option<Self> {
        let owners = pod.owner_references().iter();
        let owner = owners
            .clone()
            .find(|owner| owner.controller == Some(true))?;
        let hash = pod.labels().get(TEMPLATE_HASH);
        let deployment = hash
            .filter(|hash| owner.kind == "ReplicaSet" && !hash.is_empty())
            .and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
        Some(Self {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
            deployment: deployment.map(str::to_owned),
        })
    }
}

/// When the first container began. The one before a container that was restarted counts too: what is mounted is renewed
/// only a minute or two after its Secret. Init containers do not: they are over, and may have run without the Secret.
fn started(status: &PodStatus) -> Option<Timestamp> {
    let containers = status.container_statuses.iter().flatten();
    containers.flat_map(starts).min()
}

fn starts(container: &ContainerStatus) -> impl Iterator<Item = Timestamp> {
    let start = |state: &ContainerState| {
        let running = state.running.as_ref().and_then(|it| it.started_at.as_ref());
        let over = state
            .terminated
            .as_ref()
            .and_then(|it| it.started_at.as_ref());
        running.or(over).map(|time| time.0)
    };
    let states = container.state.iter().chain(&container.last_state);
    states.filter_map(start)
}

/// The Secrets whose content reaches a container: by volumes, also projected ones and those of CSI drivers, and by
/// environment variables, of containers, init containers and ephemeral containers. Image pull secrets are not content.
pub fn used_secrets(spec: &PodSpec) -> BTreeMap<String, Use> {
    let mut uses = BTreeMap::new();
    for volume in spec.volumes.iter().flatten() {
        for reference in volume_secrets(volume) {
            reference.note(&mut uses, false);
        }
    }
    let main = spec.containers.iter().map(|c| (&c.env, &c.env_from));
    let init = spec.init_containers.iter().flatten();
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let containers = main
        .chain(init.map(|c| (&c.env, &c.env_from)))
        .chain(ephemeral.map(|c| (&c.env, &c.env_from)));
    for (env, env_from) in containers {
        let each = env.iter().flatten().filter_map(variable_secret);
        let all = env_from.iter().flatten().filter_map(source_secret);
        for reference in each.chain(all) {
            reference.note(&mut uses, true);
        }
    }
    uses
}

/// One place in a pod that names a Secret.
struct Reference<'a> {
    name: &'a str,
    optional: Option<bool>,
}

impl Reference<'_> {
    /// One reference that is not optional makes the Secret needed.
    fn note(&self, uses: &mut BTreeMap<String, Use>, in_environment: bool) {
        if self.name.is_empty() {
            return;
        }
        let its = uses.entry(self.name.to_owned()).or_insert(Use {
            is_optional: true,
            in_environment: false,
        });
        its.is_optional &= self.optional == Some(true);
        its.in_environment |= in_environment;
    }
}

fn volume_secrets(volume: &Volume) -> impl Iterator<Item = Reference<'_>> {
    let direct = volume.secret.iter().filter_map(|source| {
        Some(Reference {
            name: source.secret_name.as_deref()?,
            optional: source.optional,
        })
    });
    let projected = volume
        .projected
        .iter()
        .flat_map(|source| source.sources.iter().flatten())
        .filter_map(|source| source.secret.as_ref());
    let projected = projected.map(|secret| Reference {
        name: &secret.name,
        optional: secret.optional,
    });
    let mounted = volume
        .csi
        .iter()
        .filter_map(|csi| csi.node_publish_secret_ref.as_ref());
    let mounted = mounted.map(|secret| Reference {
        name: &secret.name,
        optional: None,
    });
    direct.chain(projected).chain(mounted)
}

fn variable_secret(variable: &EnvVar) -> Option<Reference<'_>> {
    let secret = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
    Some(Reference {
        name: &secret.name,
        optional: secret.optional,
    })
}

fn source_secret(source: &EnvFromSource) -> Option<Reference<'_>> {
    let secret = source.secret_ref.as_ref()?;
    Some(Reference {
        name: &secret.name,
        optional: secret.optional,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn used(spec: &Value) -> Vec<String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "pod", "uid": "u"}, "spec": spec
        }))
        .unwrap();
        SecretUser::from(pod).secrets().map(str::to_owned).collect()
    }

    #[test]
    fn every_way_to_use_a_secret_counts_once() {
        let container = |name: &str| {
            json!({"name": name, "env": [
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": format!("{name}-env"), "key": "k"}}},
            {"name": "B", "value": "plain"}
        ], "envFrom": [{"secretRef": {"name": format!("{name}-all"), "optional": true}}, {"configMapRef": {"name": "no"}}]})
        };
        assert_eq!(
            used(&json!({
                "containers": [container("main")], "initContainers": [container("init")],
                "ephemeralContainers": [container("eph")],
                "volumes": [
                    {"name": "v1", "secret": {"secretName": "volume"}},
                    {"name": "v2", "secret": {"secretName": "volume"}},
                    {"name": "v3", "projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "no"}}]}},
                    {"name": "v4", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
                    {"name": "v5", "emptyDir": {}}
                ],
                "imagePullSecrets": [{"name": "no-pull"}]
            })),
            [
                "csi",
                "eph-all",
                "eph-env",
                "init-all",
                "init-env",
                "main-all",
                "main-env",
                "projected",
                "volume"
            ]
        );
    }

    #[test]
    fn a_pod_that_is_over_uses_nothing() {
        let pod = |status: Value, deleted: Value| {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"namespace": "ns", "name": "pod", "deletionTimestamp": deleted},
                "spec": {"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "s"}}]},
                "status": status
            }))
            .unwrap();
            SecretUser::from(pod).secrets().count()
        };
        assert_eq!(pod(json!({"phase": "Pending"}), Value::Null), 1);
        assert_eq!(pod(json!({"phase": "Running"}), Value::Null), 1);
        assert_eq!(pod(json!({"phase": "Succeeded"}), Value::Null), 0);
        assert_eq!(pod(json!({"phase": "Failed"}), Value::Null), 0);
        assert_eq!(pod(json!({}), json!("2030-01-01T00:00:00Z")), 0);
    }

    /// A pod `ns/pod` with this spec, and what else is said of it.
    fn user(spec: &Value, more: &Value) -> SecretUser {
        let mut pod = json!({
            "metadata": {"namespace": "ns", "name": "pod", "uid": "u", "creationTimestamp": "2030-01-01T00:00:00Z"},
            "spec": spec
        });
        json_patch::merge(&mut pod, more);
        serde_json::from_value::<Pod>(pod).unwrap().into()
    }

    fn mounting(secret: &Value) -> Value {
        json!({"containers": [], "volumes": [{"name": "v", "secret": secret}]})
    }

    #[test]
    fn a_reference_that_is_not_optional_makes_the_secret_needed() {
        let volume = |optional: bool| json!({"secretName": "s", "optional": optional});
        let both = json!({
            "containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}],
            "volumes": [{"name": "v", "secret": volume(true)}]
        });
        for (spec, is_optional, in_environment) in [
            (mounting(&volume(true)), true, false),
            (mounting(&volume(false)), false, false),
            (mounting(&json!({"secretName": "s"})), false, false),
            (both, false, true),
        ] {
            let pod = user(&spec, &json!({}));
            let expected = Use {
                is_optional,
                in_environment,
            };
            assert_eq!(pod.use_of("s"), Some(expected), "{spec}");
            assert_eq!(pod.waits_for("s"), !is_optional);
        }
        let runs = user(
            &mounting(&json!({"secretName": "s"})),
            &json!({"status": {"phase": "Running"}}),
        );
        assert!(!runs.waits_for("s") && !runs.waits_for("other"));
    }

    #[test]
    fn a_deployment_is_known_by_the_name_of_its_replica_set() {
        let owned = |kind: &str, name: &str, labels: Value| {
            let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "o", "controller": true});
            let other =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "p"});
            let meta = json!({"metadata": {"ownerReferences": [other, owner], "labels": labels}});
            let controller = user(&json!({"containers": []}), &meta).controller.unwrap();
            (controller.kind, controller.name, controller.deployment)
        };
        let hash = json!({"pod-template-hash": "5d"});
        let of = |kind: &str, name: &str, deployment: Option<&str>| {
            (
                kind.to_owned(),
                name.to_owned(),
                deployment.map(str::to_owned),
            )
        };
        assert_eq!(
            owned("ReplicaSet", "web-5d", hash.clone()),
            of("ReplicaSet", "web-5d", Some("web"))
        );
        assert_eq!(
            owned("ReplicaSet", "web5d", hash.clone()),
            of("ReplicaSet", "web5d", None)
        );
        assert_eq!(
            owned("ReplicaSet", "web-5d", json!({})),
            of("ReplicaSet", "web-5d", None)
        );
        assert_eq!(
            owned("StatefulSet", "web-5d", hash),
            of("StatefulSet", "web-5d", None)
        );
        assert_eq!(
            user(&json!({"containers": []}), &json!({})).controller,
            None
        );
    }

    #[test]
    fn a_pod_has_read_what_was_there_when_its_first_container_began() {
        let at = |minute: u8| format!("2030-01-01T00:{minute:02}:00Z");
        let running = |minute| json!({"state": {"running": {"startedAt": at(minute)}}});
        let restarted = |before, minute| {
            let last =
                json!({"terminated": {"exitCode": 1, "startedAt": at(before), "finishedAt": null}});
            json!({"state": {"running": {"startedAt": at(minute)}}, "lastState": last})
        };
        let waiting = || json!({"state": {"waiting": {"reason": "CreateContainerConfigError"}}});
        // Made at 0; renewed at 10.
        for (phase, containers, has_read) in [
            ("Pending", json!([]), false),
            ("Pending", json!([waiting()]), false),
            ("Pending", json!([waiting(), running(5)]), true),
            ("Running", json!([]), true),
            ("Running", json!([running(5)]), true),
            ("Running", json!([running(10)]), false),
            ("Running", json!([running(11), running(9)]), true),
            ("Running", json!([running(11), running(12)]), false),
            ("Running", json!([restarted(9, 11)]), true),
            ("Running", json!([restarted(11, 12)]), false),
        ] {
            let status = json!({"phase": phase, "containerStatuses": statuses(&containers)});
            let pod = user(
                &mounting(&json!({"secretName": "s"})),
                &json!({"status": status}),
            );
            let renewed = at(10).parse().unwrap();
            assert_eq!(pod.has_read_before(renewed), has_read, "{status}");
            assert!(!pod.has_read_before(pod.created), "it was made later");
        }
    }

    /// With what the API requires beside the states.
    fn statuses(containers: &Value) -> Value {
        let mut containers = containers.clone();
        for container in containers.as_array_mut().unwrap() {
            let rest = json!({"name": "c", "image": "c", "imageID": "", "ready": false, "restartCount": 0});
            json_patch::merge(container, &rest);
        }
        containers
    }

    #[test]
    fn how_a_pod_fares_is_no_news() {
        let spec = mounting(&json!({"secretName": "s"}));
        let change = |before: Option<Value>, after: Option<Value>| {
            let side =
                |more: Option<Value>| more.map(|more| std::sync::Arc::new(user(&spec, &more)));
            is_news(&Change {
                before: side(before),
                after: side(after),
            })
        };
        let running = json!({"status": {"phase": "Running"}});
        assert!(change(None, Some(json!({}))));
        assert!(!change(Some(json!({})), Some(running)));
        assert!(change(
            Some(json!({})),
            Some(json!({"metadata": {"uid": "another"}}))
        ));
        assert!(change(
            Some(json!({})),
            Some(json!({"status": {"phase": "Failed"}}))
        ));
        assert!(!change(Some(json!({})), None));
    }
}
