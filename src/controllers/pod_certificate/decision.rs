//! Decides about a request: sign, deny, or wait for what can be cured. Without I/O.
//!
//! The kubelet takes a denial as final for the pod. So only a request that nothing can cure is
//! denied: of another pod than it says, with a key or an annotation that the signer does not know.

use super::request::{Identity, Request};
use crate::api::annotations::POD_PKI;
use crate::api::{Pki, StoredPki};
use crate::k8s::object_key::Key;
use crate::model::ca::Ca;
use crate::model::outcome::Outcome;
use crate::model::pod_certificate::KeyType;
use crate::policy::{Approved, Violation};
use crate::store::cached_pod::SecretUser;
use crate::util::text::{self, printable};
use jiff::{SignedDuration, Timestamp};
use kube::core::DeserializeGuard;
use kube::{Resource as _, ResourceExt as _};
use pki_certs::renewal::RenewBefore;
use pki_certs::{CsrError, LeafRequest, PublicKey};
use std::sync::Arc;

/// The API server refuses certificates that begin more than five minutes before its own time.
const BACKDATING: SignedDuration = SignedDuration::from_mins(2);
/// The shortest lifetime that the API server takes, backdating included.
const MIN_LIFETIME: SignedDuration = SignedDuration::from_hours(1);
/// The number of Pkis that a message names.
const MAX_NAMES: usize = 10;
/// The length of a message of a condition, in bytes. The kubelet repeats it in an Event.
const MESSAGE_BYTES: usize = 900;
/// How long a Pki may be on its way: a manifest may have it after the pod.
const MANIFEST_PATIENCE: SignedDuration = SignedDuration::from_secs(3);

/// The state of the cluster, as the caches have it.
pub(super) trait ClusterView {
    fn pod(&self, key: &Key) -> Option<Arc<SecretUser>>;
    /// The UID of a service account, if it is known.
    fn service_account(&self, key: &Key) -> Option<Arc<str>>;
    /// The UID of a node, if it is known.
    fn node(&self, name: &str) -> Option<Arc<str>>;
    fn pki(&self, key: &Key) -> Option<StoredPki>;
    /// The names of the Pkis of a namespace, and whether each is delivered to pods.
    fn pkis_of(&self, namespace: &str) -> Vec<(Arc<str>, bool)>;
    /// The verdict of the rule book on a certificate with such a key, or with that of the Pki.
    fn evaluate(&self, pki: &Pki, key: Option<KeyType>) -> Result<Approved, Vec<Violation>>;
}

/// A decision about a request.
#[derive(Debug)]
pub(super) enum Decision {
    /// Sign it.
    Sign(Box<Approval>),
    /// End it.
    Deny(Denial),
    /// Leave it open, until something changes.
    Wait(Fault),
    /// Leave it open, and ask again soon: the caches may be behind.
    Unknown(UnknownObject),
}

/// A certificate to sign.
#[derive(Debug)]
pub(super) struct Approval {
    pub(super) pki: Pki,
    pub(super) request: LeafRequest,
    pub(super) key: PublicKey,
    pub(super) renew_before: Option<RenewBefore>,
    pub(super) policy: String,
}

/// The reason of a denial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denial {
    /// The reason in the condition, in CamelCase.
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// A fault that can be cured, for the pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fault {
    /// The reason of the Event, in CamelCase.
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// The Pki that it is about, and its UID.
    pub(super) pki: Option<(Key, Option<String>)>,
    /// The age of the request from which on the pod hears of it.
    pub(super) patience: SignedDuration,
}

/// An object that a request names and that the caches do not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnknownObject {
    Pod,
    ServiceAccount,
    Node,
}

/// Decides. `ca` is known.
pub(super) fn decide(request: &Request, view: &impl ClusterView, ca: &Ca) -> Decision {
    check(request, view, ca).unwrap_or_else(|decision| decision)
}

/// The checks in their order of precedence: what cannot be cured first.
fn check(request: &Request, view: &impl ClusterView, ca: &Ca) -> Result<Decision, Decision> {
    annotations_are_known(request)?;
    let (key, key_type) = key_is_supported(request)?;
    pod_asks_for_it(request, key_type, view)?;
    let pki = pki_is_there(request, view)?;
    let approved = rules_permit(&pki, view)?;
    let approved = key_is_permitted(&pki, &approved, key_type, view)?;
    ca_signs(&pki, ca)?;
    let lifetime = approved.certificate.duration.min(request.max_expiration());
    let certificate = LeafRequest {
        duration: lifetime - BACKDATING,
        backdating: BACKDATING,
        key: key.algorithm(),
        former_common_name: None,
        ..approved.certificate.clone()
    };
    Ok(Decision::Sign(Box::new(Approval {
        request: certificate,
        key,
        renew_before: approved.renew_before,
        policy: approved.policy.clone(),
        pki,
    })))
}

fn annotations_are_known(request: &Request) -> Result<(), Decision> {
    let mut keys = request.annotations.keys();
    let Some(unknown) = keys.find(|key| *key != POD_PKI) else {
        return Ok(());
    };
    let message = format!(
        "{} is no key that the signer knows: write userAnnotations: {{{POD_PKI}: NAME}} with the name of a Pki, and create the pod again",
        printable(unknown)
    );
    Err(deny("InvalidUnverifiedUserAnnotations", message))
}

fn key_is_supported(request: &Request) -> Result<(PublicKey, KeyType), Decision> {
    let unsupported = || {
        let message = format!(
            "the signer does not take such a key: write one of these as keyType, and create the pod again: {}",
            KeyType::names()
        );
        deny("UnsupportedKeyType", message)
    };
    match PublicKey::from_csr(&request.csr) {
        Ok(key) => match KeyType::of(key.algorithm()) {
            Some(key_type) => Ok((key, key_type)),
            None => Err(unsupported()),
        },
        Err(CsrError::KeyAlgorithm) => Err(unsupported()),
        Err(error) => Err(deny("InvalidStubPKCS10Request", error.to_string())),
    }
}

/// A request must be that of a pod which runs on this node as this account, and mounts the signer
/// with these annotations, this kind of key and this lifetime. `NodeRestriction` checks some of
/// this, and only for nodes.
fn pod_asks_for_it(
    request: &Request,
    key_type: KeyType,
    view: &impl ClusterView,
) -> Result<(), Decision> {
    let (pod_key, account) = (request.pod_key(), &request.service_account);
    let pod = view.pod(&pod_key).filter(|pod| pod.uid == request.pod.uid);
    let pod = pod.ok_or(Decision::Unknown(UnknownObject::Pod))?;
    let certified = pod.certified.as_deref();
    let certified = certified.ok_or_else(|| mismatch(&pod_key, "mounts no certificate of it"))?;
    if *certified.service_account != *account.name {
        return Err(mismatch(&pod_key, "runs as another service account"));
    }
    if certified.node.is_empty() {
        // The caches have the pod as it was before it got a node. All else is immutable.
        return Err(Decision::Unknown(UnknownObject::Pod));
    }
    if *certified.node != *request.node.name {
        return Err(mismatch(&pod_key, "runs on another node"));
    }
    let account_key = request.key.beside(&account.name.as_str().into());
    is_this(view.service_account(&account_key), account)
        .ok_or(Decision::Unknown(UnknownObject::ServiceAccount))?;
    let node = &request.node;
    is_this(view.node(&node.name), node).ok_or(Decision::Unknown(UnknownObject::Node))?;
    let mut mounts = certified.mounts.iter();
    let is_mounted = mounts.any(|mount| {
        let longest = mount.max_expiration_seconds;
        mount.annotations == request.annotations
            && *mount.key_type == *key_type.name
            && longest.is_none_or(|longest| longest == request.max_expiration_seconds)
    });
    if is_mounted {
        return Ok(());
    }
    let how = "mounts no certificate of it with this key type, lifetime and these annotations";
    Err(mismatch(&pod_key, how))
}

fn is_this(uid: Option<Arc<str>>, identity: &Identity) -> Option<()> {
    uid.filter(|uid| **uid == *identity.uid).map(drop)
}

/// The denial of a request for an object that is not there, which the API server has confirmed.
pub(super) fn absent(request: &Request, object: UnknownObject) -> Denial {
    let (kind, Identity { name, uid }) = match object {
        UnknownObject::Pod => ("pod", &request.pod),
        UnknownObject::ServiceAccount => ("service account", &request.service_account),
        UnknownObject::Node => ("node", &request.node),
    };
    let [name, uid] = [name, uid].map(|text| printable(text));
    Denial {
        reason: MISMATCH,
        message: text::cut(
            &format!("there is no {kind} {name} with the UID {uid}"),
            MESSAGE_BYTES,
        ),
    }
}

const MISMATCH: &str = "PodMismatch";

fn mismatch(pod: &Key, how: &str) -> Decision {
    deny(MISMATCH, format!("pod {} {how}", printable(&pod.name)))
}

fn deny(reason: &'static str, message: impl AsRef<str>) -> Decision {
    let message = text::cut(message.as_ref(), MESSAGE_BYTES);
    Decision::Deny(Denial { reason, message })
}

/// The Pki that the pod names, or the only one of the namespace that is delivered to pods.
fn pki_is_there(request: &Request, view: &impl ClusterView) -> Result<Pki, Decision> {
    let namespace = &request.key.namespace;
    let name: Arc<str> = match request.annotations.get(POD_PKI) {
        Some(name) => name.as_str().into(),
        None => only_one(namespace, view)?,
    };
    let key = request.key.beside(&name);
    let stored = view
        .pki(&key)
        .filter(|stored| stored.meta().deletion_timestamp.is_none());
    match stored {
        Some(DeserializeGuard(Ok(pki))) => Ok(pki),
        Some(DeserializeGuard(Err(invalid))) => {
            let message = format!(
                "Pki {key} cannot be read: compare its spec with what `kubectl explain pki.spec` prints, and apply it again"
            );
            let uid = invalid.metadata.uid;
            Err(wait("PkiUnreadable", message, Some((key, uid))))
        }
        None => Err(not_found(&key, view)),
    }
}

fn only_one(namespace: &str, view: &impl ClusterView) -> Result<Arc<str>, Decision> {
    let pkis = view.pkis_of(namespace);
    let for_pods = pkis.iter().filter(|(_, is_for_pods)| *is_for_pods);
    let for_pods: Vec<_> = for_pods.map(|(name, _)| name).collect();
    let namespace = printable(namespace);
    let (beginning, names) = match for_pods[..] {
        [only] => return Ok(only.clone()),
        [] => (
            format!("no Pki of namespace {namespace} has delivery: Pod"),
            pkis.iter().map(|(name, _)| name).collect(),
        ),
        _ => (
            format!("several Pkis of namespace {namespace} have delivery: Pod"),
            for_pods,
        ),
    };
    let names = listed(&names);
    let message = format!(
        "the volume names no Pki, and {beginning}{names}; write userAnnotations: {{{POD_PKI}: NAME}} in the volume, or delivery: Pod in the spec of one Pki"
    );
    Err(wait(NOT_FOUND, message, None))
}

const NOT_FOUND: &str = "PkiNotFound";

fn not_found(key: &Key, view: &impl ClusterView) -> Decision {
    let pkis = view.pkis_of(&key.namespace);
    let nearest = text::nearest(&key.name, pkis.iter().map(|(name, _)| &**name));
    let hint = nearest.map_or_else(String::new, |name| {
        format!("; did you mean {:?}?", printable(name))
    });
    let names: Vec<_> = pkis.iter().map(|(name, _)| name).collect();
    let message = format!(
        "the volume names Pki {}, which is not found in namespace {}{}{hint}; apply that Pki, or create the pod with another {POD_PKI} in userAnnotations",
        printable(&key.name),
        printable(&key.namespace),
        listed(&names)
    );
    wait(NOT_FOUND, message, None)
}

/// A list of Pkis after a statement that none of them fits.
fn listed(names: &[&Arc<str>]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let mut names: Vec<_> = names.iter().map(|name| printable(name)).collect();
    names.sort();
    format!(": [{}]", text::first_of(&names, MAX_NAMES))
}

fn rules_permit(pki: &Pki, view: &impl ClusterView) -> Result<Approved, Decision> {
    view.evaluate(pki, None)
        .map_err(|violations| Decision::Wait(refused(pki, violations)))
}

/// A Pki whose key is that of the pod must be permitted as well.
fn key_is_permitted(
    pki: &Pki,
    approved: &Approved,
    key_type: KeyType,
    view: &impl ClusterView,
) -> Result<Approved, Decision> {
    if approved.certificate.key == key_type.algorithm {
        return Ok(approved.clone());
    }
    view.evaluate(pki, Some(key_type)).map_err(|violations| {
        let fault = refused(pki, violations);
        let message = format!("keyType {} of the volume: {}", key_type.name, fault.message);
        Decision::Wait(Fault { message, ..fault })
    })
}

fn refused(pki: &Pki, violations: Vec<Violation>) -> Fault {
    let trust = String::new();
    fault(pki, &Outcome::Refused { violations, trust })
}

fn ca_signs(pki: &Pki, ca: &Ca) -> Result<(), Decision> {
    match &ca.signer {
        Ok(_) => Ok(()),
        Err(alarm) => Err(Decision::Wait(unsigned(pki, &alarm.to_string()))),
    }
}

/// The fault of a CA that cannot sign.
pub(super) fn unsigned(pki: &Pki, message: &str) -> Fault {
    fault(pki, &Outcome::Unsigned(message.to_owned()))
}

/// The fault behind an outcome, as the author of the Pki reads it.
fn fault(pki: &Pki, outcome: &Outcome) -> Fault {
    let message = outcome.message(pki, MESSAGE_BYTES);
    let (key, uid) = (Key::of(pki), pki.uid());
    Fault {
        reason: outcome.reason(),
        message,
        pki: Some((key, uid)),
        patience: SignedDuration::ZERO,
    }
}

fn wait(reason: &'static str, message: String, pki: Option<(Key, Option<String>)>) -> Decision {
    Decision::Wait(Fault {
        reason,
        message,
        pki,
        patience: MANIFEST_PATIENCE,
    })
}

/// The validity of a signed certificate is too short for the API server: the CA ends.
pub(super) fn is_too_short(not_before: Timestamp, not_after: Timestamp) -> bool {
    not_after.duration_since(not_before) < MIN_LIFETIME
}

#[cfg(test)]
mod tests;
