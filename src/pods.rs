//! Which pods use a Secret, and so must hear what becomes of it.

use crate::index::{Key, NamesSecrets};
use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Pod, PodSpec, Volume};
use std::collections::BTreeSet;

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUser {
    /// Namespace and name of the pod.
    pub key: Key,
    /// Its UID, so that an Event about it is not one about its successor of the same name.
    pub uid: String,
    secrets: BTreeSet<String>,
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
        let secrets = match &pod.spec {
            Some(spec) if !is_over => used_secrets(spec),
            _ => BTreeSet::new(),
        };
        Self {
            key: Key::of(&pod),
            uid: pod.metadata.uid.unwrap_or_default(),
            secrets,
        }
    }
}

impl NamesSecrets for SecretUser {
    fn key(&self) -> Key {
        self.key.clone()
    }

    fn secrets(&self) -> impl Iterator<Item = &str> {
        self.secrets.iter().map(String::as_str)
    }
}

/// The Secrets whose content reaches a container: by volumes, also projected ones, and by environment variables, of
/// containers, init containers and ephemeral containers. Image pull secrets are not content.
pub fn used_secrets(spec: &PodSpec) -> BTreeSet<String> {
    let volumes = spec.volumes.iter().flatten().flat_map(volume_secrets);
    let containers = spec.containers.iter().map(|c| (&c.env, &c.env_from));
    let init = spec
        .init_containers
        .iter()
        .flatten()
        .map(|c| (&c.env, &c.env_from));
    let ephemeral = spec
        .ephemeral_containers
        .iter()
        .flatten()
        .map(|c| (&c.env, &c.env_from));
    let environment = containers
        .chain(init)
        .chain(ephemeral)
        .flat_map(|(env, env_from)| {
            let each = env.iter().flatten().filter_map(variable_secret);
            each.chain(env_from.iter().flatten().filter_map(source_secret))
        });
    volumes
        .chain(environment)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn volume_secrets(volume: &Volume) -> impl Iterator<Item = &str> {
    let direct = volume
        .secret
        .iter()
        .filter_map(|source| source.secret_name.as_deref());
    let projected = volume
        .projected
        .iter()
        .flat_map(|source| source.sources.iter().flatten());
    let mounted = volume
        .csi
        .iter()
        .filter_map(|csi| csi.node_publish_secret_ref.as_ref());
    direct
        .chain(
            projected
                .filter_map(|source| source.secret.as_ref())
                .map(|secret| secret.name.as_str()),
        )
        .chain(mounted.map(|secret| secret.name.as_str()))
}

fn variable_secret(variable: &EnvVar) -> Option<&str> {
    Some(
        variable
            .value_from
            .as_ref()?
            .secret_key_ref
            .as_ref()?
            .name
            .as_str(),
    )
}

fn source_secret(source: &EnvFromSource) -> Option<&str> {
    Some(source.secret_ref.as_ref()?.name.as_str())
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
}
