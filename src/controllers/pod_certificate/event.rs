//! Events on pods that wait for their certificate.

use super::decision::Fault;
use super::request::Request;
use crate::events::{Aspect, EventKind, EventTemplate, Notice, reference_to_pki};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

/// The consequence for a pod whose certificate comes late.
const GOES_ON: &str =
    "the kubelet mounts it at its next attempt, within two minutes, and the pod goes on by itself";

/// The pod waits, and why.
pub(super) fn about_fault(request: &Request, fault: &Fault) -> Notice {
    let template = EventTemplate::warning(Aspect::PodCertificate, fault.reason, &fault.message);
    template.on(pod(request), related(fault).as_ref())
}

/// The pod waited because of this fault, and waits no more.
pub(super) fn about_end(request: &Request, fault: &Fault, now: Timestamp) -> Notice {
    let message = format!("the certificate of the pod is signed: {GOES_ON}");
    let (aspect, kind) = (Aspect::PodCertificate, EventKind::Normal);
    let template = EventTemplate {
        since: now,
        ..EventTemplate::new(aspect, kind, "PkiReady", message)
    };
    template.on(pod(request), related(fault).as_ref())
}

fn pod(request: &Request) -> ObjectReference {
    let uid = Some(request.pod.uid.clone());
    request.pod_key().reference("v1", "Pod", uid)
}

fn related(fault: &Fault) -> Option<ObjectReference> {
    let (pki, uid) = fault.pki.as_ref()?;
    Some(reference_to_pki(pki, uid.clone()))
}
