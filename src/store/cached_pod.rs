//! The pods that use a Secret, how they use it, and their controllers.

use crate::api::annotations::Carrier;
use crate::k8s::object_key::Key;
use crate::k8s::projection::Projection;
use crate::store::ignored::Ignored;
use crate::store::secret_index::{Change, ReferencesSecrets, SecretIndex};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};
use kube::ResourceExt;
use references::{Reference, references};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod certificates;
mod references;

pub(crate) use certificates::entry;
pub use certificates::{CertificateMount, CertifiedPod};
pub use references::Object;

/// The label by which a Deployment tells the pods of its templates apart (kubernetes.io/docs,
/// "Pod-template-hash label").
const TEMPLATE_HASH: &str = "pod-template-hash";
/// The files that every Secret of a Pki has. A pod never waits for them alone.
const USUAL_FILES: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];
/// The `ConfigMap` that Kubernetes puts into every namespace, and mounts into most pods.
const ROOT_CA: &str = "kube-root-ca.crt";
/// The number of [needs](PodNeed) that are kept of a pod.
const MAX_NEEDS: usize = 32;

/// A pod, reduced to the Secrets that it uses.
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
    /// When the first of its containers began, by the kubelet. It has read the Secrets of that
    /// time.
    pub started: Option<Timestamp>,
    /// The object that makes such pods and replaces them.
    pub controller: Option<Box<Controller>>,
    /// Annotations and labels without an effect; none of a pod that is finished.
    pub ignored: Ignored,
    /// Whether it is being deleted. It uses its Secrets until it is gone, but gets no more Events.
    pub is_ending: bool,
    /// Its pod certificates, if it mounts any.
    pub certified: Option<Box<CertifiedPod>>,
    /// In the order of their names.
    uses: Box<[(Arc<str>, Use)]>,
    needs: Box<[PodNeed]>,
}

/// Something that a pod cannot start without, besides Secrets as a whole. Of a pod that has
/// started, files of Secrets alone are kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodNeed {
    /// The kind of object.
    pub object: Object,
    /// Its name, in the namespace of the pod.
    pub name: Arc<str>,
    /// The file in it; empty for all there are.
    pub file: Box<str>,
}

/// The use of a Secret by a pod.
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
    /// A pod that is finished uses nothing any more.
    fn from(pod: Pod) -> Self {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        let is_deleted = pod.metadata.deletion_timestamp.is_some();
        let is_pending = matches!(phase, None | Some("Pending")) && !is_deleted;
        let is_finished = matches!(phase, Some("Succeeded" | "Failed"));
        let (uses, needs) = match &pod.spec {
            Some(spec) if !is_finished => {
                let references: Vec<_> = references(spec).collect();
                let uses = used_secrets(&references);
                let needs = needs(&references, &uses, is_pending);
                (uses.into_iter().collect(), needs)
            }
            _ => Default::default(),
        };
        let certified = pod.spec.as_ref().filter(|_| !is_finished);
        let certified = certified.and_then(CertifiedPod::of);
        let ignored = if is_finished {
            Ignored::default()
        } else {
            Ignored::of(Carrier::Pod, &pod.metadata)
        };
        Self {
            key: Key::of(&pod),
            is_pending,
            is_ending: is_deleted,
            started: pod.status.as_ref().and_then(started),
            created: pod
                .creation_timestamp()
                .map_or(Timestamp::MAX, |time| time.0),
            controller: Controller::of(&pod).map(Box::new),
            ignored,
            certified: certified.map(Box::new),
            uid: pod.metadata.uid.unwrap_or_default(),
            uses,
            needs,
        }
    }
}

impl Projection for SecretUser {
    type Whole = Pod;

    fn of(pod: Pod) -> Self {
        pod.into()
    }
}

impl SecretUser {
    /// Its use of this Secret, if it uses it.
    pub fn use_of(&self, secret: &str) -> Option<Use> {
        let place = self.uses.binary_search_by(|(name, _)| (**name).cmp(secret));
        place.ok().map(|place| self.uses[place].1)
    }

    /// The Secrets that it cannot start without.
    pub fn required_secrets(&self) -> impl Iterator<Item = &Arc<str>> {
        let required = self.uses.iter().filter(|(_, its)| !its.is_optional);
        required.map(|(secret, _)| secret)
    }

    /// The other objects and files that it cannot start without.
    pub fn needs(&self) -> &[PodNeed] {
        &self.needs
    }

    /// Whether it cannot start, or not again, without this file of a Secret. The files that every
    /// Secret of a Pki has are not kept.
    pub fn needs_file(&self, secret: &str, file: &str) -> bool {
        let is_it = |need: &PodNeed| {
            need.object == Object::Secret && *need.name == *secret && *need.file == *file
        };
        self.needs.iter().any(is_it)
    }

    /// Whether it cannot start before this Secret is there.
    pub fn waits_for(&self, secret: &str) -> bool {
        self.is_pending && self.use_of(secret).is_some_and(|its| !its.is_optional)
    }

    /// Whether it may have read its Secrets before this time. A pod that is still waiting has read
    /// nothing. A pod that was created later has not either, whatever the clock of its node says.
    pub fn has_read_before(&self, time: Timestamp) -> bool {
        match self.started {
            Some(started) => started.max(self.created) < time,
            None => !self.is_pending && self.created < time,
        }
    }
}

/// The pods that use a Secret and that people read.
pub fn users<'a>(
    pods: &'a SecretIndex<SecretUser>,
    secret: &'a Key,
) -> impl Iterator<Item = &'a Arc<SecretUser>> {
    pods.referencing(secret).filter(|pod| !pod.is_ending)
}

/// Whether a pod came, or uses other Secrets now. Its state does not matter here.
pub fn is_news(change: &Change<SecretUser>) -> bool {
    let (before, after) = (change.before.as_deref(), change.after.as_deref());
    let part = |pod: Option<&SecretUser>| pod.map(|pod| (pod.uid.clone(), pod.uses.clone()));
    after.is_some() && part(before) != part(after)
}

impl ReferencesSecrets for SecretUser {
    fn key(&self) -> &Key {
        &self.key
    }

    /// The Secrets, and entries that stand for pod certificates.
    fn secrets(&self) -> impl Iterator<Item = &Arc<str>> {
        let certified = self.certified.iter();
        let entries = certified.flat_map(|certified| certified.entries.iter());
        self.uses.iter().map(|(secret, _)| secret).chain(entries)
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

/// When the first container began. The one before a container that was restarted counts too: what
/// is mounted is renewed only a minute or two after its Secret. Init containers do not: they are
/// over, and may have run without the Secret.
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

/// The Secrets that a pod uses, and how.
fn used_secrets(references: &[Reference<'_>]) -> BTreeMap<Arc<str>, Use> {
    let mut uses = BTreeMap::<Arc<str>, Use>::new();
    let secrets = references.iter().filter(|it| it.object == Object::Secret);
    for reference in secrets {
        let its = match uses.get_mut(reference.name) {
            Some(known) => known,
            None => uses.entry(reference.name.into()).or_insert(Use {
                is_optional: true,
                in_environment: false,
            }),
        };
        // One reference that is not optional makes the Secret needed.
        its.is_optional &= reference.is_optional;
        its.in_environment |= reference.in_environment;
    }
    uses
}

/// Collects the objects and files that a pod cannot start without, besides Secrets as a whole.
fn needs(
    references: &[Reference<'_>],
    uses: &BTreeMap<Arc<str>, Use>,
    is_pending: bool,
) -> Box<[PodNeed]> {
    let is_kept = |it: &Reference<'_>| match it.object {
        Object::Secret => true,
        Object::ConfigMap | Object::ClusterTrustBundle => is_pending && it.name != ROOT_CA,
    };
    let needed = references
        .iter()
        .filter(|it| !it.is_optional && is_kept(it));
    let needs = needed.flat_map(|it| {
        let is_whole = it.files.is_empty() && it.object != Object::Secret;
        let whole = is_whole.then_some("");
        let files = it.files.iter().copied().chain(whole);
        let files =
            files.filter(move |file| it.object != Object::Secret || !USUAL_FILES.contains(file));
        let known = uses.get_key_value(it.name).map(|(name, _)| name);
        let name = known.map_or_else(|| Arc::from(it.name), Arc::clone);
        files.map(move |file| PodNeed {
            object: it.object,
            name: name.clone(),
            file: file.into(),
        })
    });
    let needs = needs.collect::<BTreeSet<_>>();
    needs.into_iter().take(MAX_NEEDS).collect()
}

#[cfg(test)]
mod tests;
