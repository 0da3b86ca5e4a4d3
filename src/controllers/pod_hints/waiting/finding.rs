//! The reasons why pods cannot start, and the Events with the remedies. Without I/O.

use crate::api::Pki;
use crate::events::{Aspect, EventKind, EventTemplate, reference_to_pki};
use crate::k8s::object_key::Key;
use crate::model::output::Output;
use crate::model::trust_bundle;
use crate::store::Removal;
use crate::store::cached_pod::{Object, PodNeed, SecretUser};
use crate::util::text::printable;
use k8s_openapi::api::core::v1::ObjectReference;
use message::{for_pods, missing_files, names, namesake, not_requested, removed, there_are};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

mod message;

/// A reason why pods cannot start. Pods with the same finding get the same Event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Finding {
    /// The Secret went with its Pki.
    Removed { secret: Key, removal: Removal },
    /// The pod has the name of a Pki where it should have that of its Secret.
    Namesake { pki: Key, writes: Arc<str> },
    /// The Pki of this name is delivered to pods, and writes no Secret.
    ForPods { pki: Key },
    /// The Secret of a Pki has no such files.
    Files {
        secret: Key,
        pki: Key,
        files: Vec<Box<str>>,
    },
    /// The namespace does not ask for the CA bundle: its label is absent, or has this value.
    Bundle {
        config_map: Key,
        label: Option<String>,
    },
    /// The `ConfigMap` with the CA bundle has no such files.
    BundleFiles {
        config_map: Key,
        files: Vec<Box<str>>,
    },
    /// The operator writes no `ClusterTrustBundle`.
    ClusterBundle { namespace: Arc<str>, name: Arc<str> },
}

/// The state of the cluster, as the caches have it.
pub(super) trait ClusterView {
    fn has_secret(&self, secret: &Key) -> bool;
    /// Whether a Pki that claims it, wrote it before or was refused has Events of its own.
    fn is_explained_elsewhere(&self, secret: &Key) -> bool;
    /// The deleted Pki with which it went.
    fn removal(&self, secret: &Key) -> Option<Removal>;
    /// The Secret that the Pki of this name writes, if that is another one.
    fn written_by_namesake(&self, secret: &Key) -> Option<Arc<str>>;
    /// Whether the Pki of this name is delivered to pods.
    fn is_for_pods(&self, pki: &Key) -> bool;
    /// The Pki whose Secret it is.
    fn holder(&self, secret: &Key) -> Option<Pki>;
    /// Whether this namespace, with its labels, is known.
    fn knows(&self, namespace: &str) -> bool;
    /// The label by which a namespace asks for the CA bundle.
    fn label(&self, namespace: &str) -> Option<String>;
    fn serves_cluster(&self) -> bool;
}

/// Finds the reasons why these pods cannot start. `bundle` is the name of the CA bundle.
pub(super) fn find(
    pods: &[Arc<SecretUser>],
    bundle: &str,
    around: &impl ClusterView,
) -> HashMap<Finding, Vec<Arc<SecretUser>>> {
    let mut found = HashMap::<_, Vec<_>>::new();
    for pod in pods {
        let secrets = pod.required_secrets();
        let missing = secrets.filter_map(|secret| missing(&pod.key.beside(secret), around));
        let needs = by_object(pod.needs());
        let lacking = needs.into_iter().filter_map(|((object, name), files)| {
            let key = pod.key.beside(name);
            match object {
                Object::Secret => lacking(key, files, around),
                Object::ConfigMap if **name == *bundle => of_bundle(key, files, around),
                Object::ClusterTrustBundle if **name == *bundle && !around.serves_cluster() => {
                    let Key { namespace, name } = key;
                    Some(Finding::ClusterBundle { namespace, name })
                }
                _ => None,
            }
        });
        for finding in missing.chain(lacking) {
            found.entry(finding).or_default().push(pod.clone());
        }
    }
    found
}

/// The files that a pod needs of each object; none where it takes all there are.
fn by_object(needs: &[PodNeed]) -> BTreeMap<(Object, &Arc<str>), Vec<Box<str>>> {
    let mut by_object = BTreeMap::<_, Vec<_>>::new();
    for PodNeed { object, name, file } in needs {
        let files = by_object.entry((*object, name)).or_default();
        if !file.is_empty() {
            files.push(file.clone());
        }
    }
    by_object
}

fn missing(secret: &Key, around: &impl ClusterView) -> Option<Finding> {
    if around.has_secret(secret) || around.is_explained_elsewhere(secret) {
        return None;
    }
    if around.is_for_pods(secret) {
        let pki = secret.clone();
        return Some(Finding::ForPods { pki });
    }
    if let Some(writes) = around.written_by_namesake(secret) {
        let pki = secret.clone();
        return Some(Finding::Namesake { pki, writes });
    }
    let removal = around.removal(secret)?;
    let secret = secret.clone();
    Some(Finding::Removed { secret, removal })
}

fn lacking(secret: Key, mut files: Vec<Box<str>>, around: &impl ClusterView) -> Option<Finding> {
    let pki = around.holder(&secret)?;
    let outputs = pki.spec.outputs.clone().unwrap_or_default();
    files.retain(|file| Output::of(file).is_none_or(|output| !output.is_in(&outputs)));
    (!files.is_empty()).then(|| Finding::Files {
        secret,
        pki: Key::of(&pki),
        files,
    })
}

fn of_bundle(
    config_map: Key,
    mut files: Vec<Box<str>>,
    around: &impl ClusterView,
) -> Option<Finding> {
    if !around.knows(&config_map.namespace) {
        return None;
    }
    let label = around.label(&config_map.namespace);
    if !trust_bundle::is_wanted(label.as_deref()) {
        return Some(Finding::Bundle { config_map, label });
    }
    files.retain(|file| **file != *trust_bundle::FILE);
    (!files.is_empty()).then_some(Finding::BundleFiles { config_map, files })
}

impl Finding {
    /// The object whose content decides whether it holds, if the caches cannot.
    pub(super) fn unknown_object(&self) -> Option<(Object, &Key)> {
        match self {
            Self::Files { secret, .. } => Some((Object::Secret, secret)),
            Self::Bundle { config_map, .. } | Self::BundleFiles { config_map, .. } => {
                Some((Object::ConfigMap, config_map))
            }
            _ => None,
        }
    }

    /// Whether it is so, given the files of that object, if there is one.
    pub(super) fn holds(&self, files: Option<&[String]>) -> bool {
        let has = |file: &str| files.is_some_and(|all| all.iter().any(|it| it == file));
        let lacks = |wanted: &[Box<str>]| files.is_some() && !wanted.iter().all(|file| has(file));
        match self {
            Self::Files { files, .. } | Self::BundleFiles { files, .. } => lacks(files),
            // Somebody else may have made one.
            Self::Bundle { .. } => files.is_none(),
            _ => true,
        }
    }

    /// Whether the object or file that the pods wait for is there by now.
    pub(super) fn is_resolved(&self, around: &impl ClusterView) -> bool {
        match self {
            Self::Removed { secret, .. }
            | Self::Namesake { pki: secret, .. }
            | Self::ForPods { pki: secret } => around.has_secret(secret),
            Self::Files { secret, files, .. } => around.holder(secret).is_some_and(|pki| {
                pki.ready().is_some() && lacking(secret.clone(), files.clone(), around).is_none()
            }),
            Self::Bundle { config_map, .. } => {
                let label = around.label(&config_map.namespace);
                around.knows(&config_map.namespace) && trust_bundle::is_wanted(label.as_deref())
            }
            Self::BundleFiles { .. } | Self::ClusterBundle { .. } => false,
        }
    }

    /// The object, as people write it.
    pub(super) fn object(&self) -> String {
        match self {
            Self::Removed { secret, .. }
            | Self::Namesake { pki: secret, .. }
            | Self::ForPods { pki: secret }
            | Self::Files { secret, .. } => format!("Secret {}", printable(&secret.name)),
            Self::Bundle { config_map, .. } | Self::BundleFiles { config_map, .. } => {
                format!("ConfigMap {}", printable(&config_map.name))
            }
            Self::ClusterBundle { name, .. } => format!("ClusterTrustBundle {}", printable(name)),
        }
    }

    /// The object that an Event about it is related to.
    pub(super) fn related(&self) -> ObjectReference {
        match self {
            Self::Removed { secret, removal } => {
                let pki = Key::new(secret.namespace.clone(), removal.pki.clone());
                reference_to_pki(&pki, None)
            }
            Self::Namesake { pki, .. } | Self::ForPods { pki } | Self::Files { pki, .. } => {
                reference_to_pki(pki, None)
            }
            Self::Bundle { config_map, .. } | Self::BundleFiles { config_map, .. } => {
                config_map.reference("v1", "ConfigMap", None)
            }
            Self::ClusterBundle { name, .. } => ObjectReference {
                kind: Some("ClusterTrustBundle".into()),
                name: Some(name.to_string()),
                ..ObjectReference::default()
            },
        }
    }

    /// The Event about it. `present` are the files that there are.
    pub(super) fn event(&self, present: &[String]) -> EventTemplate {
        let (aspect, reason, message) = match self {
            Self::Removed { secret, removal } => return removed(secret, removal),
            Self::Namesake { pki, writes } => {
                (Aspect::Name, "PkiSecretNotProvided", namesake(pki, writes))
            }
            Self::ForPods { pki } => (Aspect::Name, "PkiSecretNotProvided", for_pods(pki)),
            Self::Files { secret, pki, files } => (
                Aspect::Files,
                "PkiFileMissing",
                missing_files(secret, pki, files, present),
            ),
            Self::Bundle { config_map, label } => (
                Aspect::Bundle,
                "TrustBundleNotRequested",
                not_requested(config_map, label.as_deref()),
            ),
            Self::BundleFiles { files, .. } => (
                Aspect::Files,
                "TrustBundleFileMissing",
                format!(
                    "{} has no {}: {}",
                    self.object(),
                    names(files),
                    there_are(present)
                ),
            ),
            Self::ClusterBundle { name, .. } => (
                Aspect::Bundle,
                "TrustBundleNotServed",
                format!(
                    "the operator serves only some namespaces, so it writes no ClusterTrustBundle {0}: mount ConfigMap {0} \
                     instead, in a namespace with the label {1}=true",
                    printable(name),
                    trust_bundle::LABEL
                ),
            ),
        };
        EventTemplate::warning(aspect, reason, message)
    }

    /// The Event that it is resolved.
    pub(super) fn resolved_event(&self) -> EventTemplate {
        let again = "the pod continues when its kubelet tries again, within two minutes";
        let (reason, fact) = match self {
            Self::Files { files, .. } => (
                "PkiReady",
                format!("{} has {} now", self.object(), names(files)),
            ),
            Self::Bundle { config_map, .. } => (
                "TrustBundleReady",
                format!(
                    "namespace {} asks for {} now",
                    config_map.namespace,
                    self.object()
                ),
            ),
            _ => ("PkiReady", format!("{} is there now", self.object())),
        };
        EventTemplate {
            kind: EventKind::Normal,
            reason: reason.to_owned(),
            message: format!("{fact}: {again}"),
            topic: None,
            ..self.event(&[])
        }
    }
}

#[cfg(test)]
mod tests;
