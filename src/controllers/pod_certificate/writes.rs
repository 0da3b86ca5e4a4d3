//! Signs, and writes the status that ends a request.

use super::decision::{self, Approval, Fault};
use super::request::Request;
use super::sign;
use crate::k8s::object_key::Key;
use crate::k8s::{api_error, patch};
use crate::model::ca::Ca;
use crate::model::pod_leaves::PodLeaves;
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::PodCertificateRequest;
use kube::api::Patch;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use serde_json::{Value, json};
use std::time::Duration;

/// The time within which a status is written, or another attempt follows.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// The result of one attempt.
pub(super) enum Ended {
    Signed,
    /// The request is denied, or gone.
    Closed,
    Waits(Fault),
    /// The caches are behind, or the API server took no status. Another attempt may end better.
    Undecided,
}

pub(super) async fn sign_and_write(
    request: &Request,
    approval: &Approval,
    ca: &Ca,
    leaves: &PodLeaves,
    client: &Client,
    now: Timestamp,
) -> Ended {
    let Ok(authority) = &ca.signer else {
        return Ended::Undecided;
    };
    let certified = match sign::sign(approval, authority, now) {
        Ok(certified) => certified,
        Err(error) => return Ended::Waits(decision::unsigned(&approval.pki, &error.to_string())),
    };
    let verified = &certified.verified;
    if !leaves.promised(&verified.issuer, verified.not_after).await {
        return Ended::Undecided;
    }
    let status = sign::issued(request, approval, &certified, now);
    match write(request, status, client).await {
        Written::Yes => {
            record(request, approval, &certified);
            Ended::Signed
        }
        Written::Gone => Ended::Closed,
        Written::No => Ended::Undecided,
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

/// The result of a write.
pub(super) enum Written {
    Yes,
    /// The request does not exist any more.
    Gone,
    /// Another attempt may succeed: on the next version, or later.
    No,
}

/// Ends a request with this status.
pub(super) async fn write(request: &Request, status: Value, client: &Client) -> Written {
    let namespace = &request.key.namespace;
    let api =
        Api::<PartialObjectMeta<PodCertificateRequest>>::namespaced(client.clone(), namespace);
    let change = json!({
        "metadata": {"uid": request.uid, "resourceVersion": request.version},
        "status": status
    });
    let (params, change) = (patch::patch(), Patch::Merge(&change));
    let written = api.patch_status(&request.key.name, &params, &change);
    match tokio::time::timeout(ATTEMPT_TIMEOUT, written).await {
        Ok(Ok(_)) => Written::Yes,
        Ok(Err(error)) if api_error::is_not_found(&error) => Written::Gone,
        Ok(Err(error)) if api_error::is_conflict(&error) => Written::No,
        Ok(Err(error)) => {
            let error = api_error::message(&error);
            tracing::warn!(request = %request.key, error, "failed to write the status of the request; retrying");
            Written::No
        }
        Err(_) => Written::No,
    }
}
