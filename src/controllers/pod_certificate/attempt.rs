//! One attempt at a request: decide, sign, and write the status that ends it.

use super::decision::{self, Approval, Decision, Denial, Fault};
use super::identities::Identities;
use super::request::Request;
use super::sign;
use crate::k8s::clock::Clock;
use crate::k8s::object_key::Key;
use crate::k8s::{api_error, patch};
use crate::model::ca::Ca;
use crate::model::pod_leaves::PodLeaves;
use crate::store::Cache;
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::PodCertificateRequest;
use kube::api::Patch;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The time within which a status is written, or another attempt follows.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// The state of the cluster and the CA, for attempts in tasks of their own.
pub struct Signer {
    pub(crate) client: Client,
    pub(crate) cache: Arc<Cache>,
    pub(crate) ca: watch::Receiver<Option<Arc<Ca>>>,
    pub(crate) clock: Arc<Clock>,
    /// The promises of the controller of the CA.
    pub(crate) leaves: Arc<PodLeaves>,
    pub(crate) identities: Identities,
}

/// The result of one attempt.
pub(super) enum Ended {
    Signed,
    Denied,
    /// The request does not exist any more.
    Gone,
    Waits(Fault),
    /// The caches are behind, or the API server took no status. Another attempt may end better.
    Undecided,
}

impl Signer {
    /// Makes one attempt. If `is_patient`, the API server is asked for what the caches do not have.
    pub(super) async fn attempt(self: Arc<Self>, request: Arc<Request>, is_patient: bool) -> Ended {
        // Without a clock to trust the term is about to end.
        let Ok(now) = self.clock.now() else {
            return Ended::Undecided;
        };
        let ca = self.ca.borrow().clone();
        let ca = ca.expect("signing begins when the CA is known");
        match decision::decide(&request, &*self, &ca) {
            Decision::Wait(fault) => Ended::Waits(fault),
            Decision::Unknown(object) if is_patient => {
                if self.is_absent(&request, object).await != Some(true) {
                    return Ended::Undecided;
                }
                self.deny(&request, &decision::absent(&request, object), now)
                    .await
            }
            Decision::Unknown(_) => Ended::Undecided,
            Decision::Deny(denial) => self.deny(&request, &denial, now).await,
            Decision::Sign(approval) => self.sign(&request, &approval, &ca, now).await,
        }
    }

    async fn deny(&self, request: &Request, denial: &Denial, now: Timestamp) -> Ended {
        let ended = self
            .write(request, sign::denied(denial, now), Ended::Denied)
            .await;
        if matches!(ended, Ended::Denied) {
            let (reason, message) = (denial.reason, &denial.message);
            tracing::info!(request = %request.key, pod = request.pod.name, reason, message, "denied the pod certificate");
        }
        ended
    }

    async fn sign(&self, request: &Request, approval: &Approval, ca: &Ca, now: Timestamp) -> Ended {
        let Ok(authority) = &ca.signer else {
            return Ended::Undecided;
        };
        let certified = match sign::sign(approval, authority, now) {
            Ok(certified) => certified,
            Err(error) => {
                return Ended::Waits(decision::unsigned(&approval.pki, &error.to_string()));
            }
        };
        let verified = &certified.verified;
        if !self
            .leaves
            .promised(&verified.issuer, verified.not_after)
            .await
        {
            return Ended::Undecided;
        }
        let status = sign::issued(request, approval, &certified, now);
        let ended = self.write(request, status, Ended::Signed).await;
        if matches!(ended, Ended::Signed) {
            record(request, approval, &certified);
        }
        ended
    }

    /// Ends a request with this status. Returns `written` if the API server took it.
    async fn write(&self, request: &Request, status: Value, written: Ended) -> Ended {
        let namespace = &request.key.namespace;
        let client = self.client.clone();
        let api = Api::<PartialObjectMeta<PodCertificateRequest>>::namespaced(client, namespace);
        let change = json!({
            "metadata": {"uid": request.uid, "resourceVersion": request.version},
            "status": status
        });
        let (params, change) = (patch::patch(), Patch::Merge(&change));
        let answer = api.patch_status(&request.key.name, &params, &change);
        match tokio::time::timeout(ATTEMPT_TIMEOUT, answer).await {
            Ok(Ok(_)) => written,
            Ok(Err(error)) if api_error::is_not_found(&error) => Ended::Gone,
            Ok(Err(error)) if api_error::is_conflict(&error) => Ended::Undecided,
            Ok(Err(error)) => {
                let error = api_error::message(&error);
                tracing::warn!(request = %request.key, error, "failed to write the status of the request; retrying");
                Ended::Undecided
            }
            Err(_) => Ended::Undecided,
        }
    }
}

/// The record of who got what.
fn record(request: &Request, approval: &Approval, certified: &pki_certs::Certified) {
    let (verified, asked) = (&certified.verified, &approval.request);
    tracing::info!(
        pki = %Key::of(&approval.pki), request = %request.key, pod = request.pod.name, pod_uid = request.pod.uid,
        service_account = request.service_account.name, node = request.node.name, policy = approval.policy,
        serial = verified.serial, dns_names = ?asked.dns_names, ip_addresses = ?asked.ip_addresses, uris = ?asked.uris,
        key = %asked.key, not_after = %verified.not_after, "signed a pod certificate"
    );
}
