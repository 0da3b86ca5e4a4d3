//! Which pods use a Secret, how, and on whose behalf: who must hear what becomes of it.

use crate::api::annotations::Carrier;
use crate::ignored::Ignored;
use crate::index::{Change, Key, NamesSecrets};
use crate::part::Kept;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStatus, EnvFromSource, EnvVar, Pod, PodSpec, PodStatus, Volume,
};
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// Annotations and labels without an effect; none of a pod that is finished.
    pub ignored: Ignored,
    /// By name.
    uses: Box<[(Arc<str>, Use)]>,
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
        let uses = uses.into_iter().map(|(secret, its)| (secret.into(), its));
        let ignored = if is_over {
            Ignored::default()
        } else {
            Ignored::of(Carrier::Pod, &pod.metadata)
        };
        Self {
            key: Key::of(&pod),
            is_pending: matches!(phase, None | Some("Pending")),
            started: pod.status.as_ref().and_then(started),
            created: pod
                .creation_timestamp()
                .map_or(Timestamp::MAX, |time| time.0),
            controller: Controller::of(&pod).map(Box::new),
            ignored,
            uid: pod.metadata.uid.unwrap_or_default(),
            uses: uses.collect(),
        }
    }
}

impl Kept for SecretUser {
    type Whole = Pod;

    fn of(pod: Pod) -> Self {
        pod.into()
    }
}

impl SecretUser {
    /// How it uses this Secret, if it does.
    pub fn use_of(&self, secret: &str) -> Option<Use> {
        let place = self.uses.binary_search_by(|(name, _)| (**name).cmp(secret));
        place.ok().map(|place| self.uses[place].1)
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
    fn key(&self) -> &Key {
        &self.key
    }

    fn secrets(&self) -> impl Iterator<Item = &Arc<str>> {
        self.uses.iter().map(|(secret, _)| secret)
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
mod tests;
