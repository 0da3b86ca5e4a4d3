//! The status of a request that ends, as the API server takes it (`certificates/v1`).

use super::decision::{Approval, Denial, is_too_short};
use super::request::Request;
use crate::util::time::whole_second;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pki_certs::{Authority, Certified, IssueError, renewal};
use serde_json::{Value, json};

/// The margin between the time of a refresh and either end of the validity.
const REFRESH_MARGIN: SignedDuration = SignedDuration::from_mins(10);

/// Why a request could not be signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignError {
    #[error(transparent)]
    Certificate(#[from] IssueError),
    #[error("the CA ends at {0}, and a pod certificate must be valid for an hour")]
    TooShort(Timestamp),
}

/// Signs the certificate.
pub(super) fn sign(
    approval: &Approval,
    authority: &Authority,
    now: Timestamp,
) -> Result<Certified, SignError> {
    let certified = authority.certify(&approval.request, &approval.key, now)?;
    let verified = &certified.verified;
    if is_too_short(verified.not_before, verified.not_after) {
        return Err(SignError::TooShort(verified.not_after));
    }
    Ok(certified)
}

/// The status of an issued request.
pub(super) fn issued(
    request: &Request,
    approval: &Approval,
    certified: &Certified,
    now: Timestamp,
) -> Value {
    let verified = &certified.verified;
    let message = format!("signed for Pki {}", approval.pki.display_name());
    json!({
        "conditions": [condition("Issued", "Signed", &message, now)],
        "certificateChain": certified.chain_pem,
        "notBefore": Time(verified.not_before),
        "notAfter": Time(verified.not_after),
        "beginRefreshAt": Time(refresh_at(request, approval, certified)),
    })
}

/// The status of a denied request.
pub(super) fn denied(denial: &Denial, now: Timestamp) -> Value {
    json!({"conditions": [condition("Denied", denial.reason, &denial.message, now)]})
}

fn condition(type_: &str, reason: &str, message: &str, now: Timestamp) -> Value {
    json!({
        "type": type_, "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": Time(whole_second(now))
    })
}

/// When the kubelet begins to refresh: as the Pki says, spread over the pods.
fn refresh_at(request: &Request, approval: &Approval, certified: &Certified) -> Timestamp {
    let verified = &certified.verified;
    let (begin, end) = (verified.not_before, verified.not_after);
    let due = renewal::at(begin, end, approval.renew_before);
    let due = renewal::with_jitter(due, begin, end, request.uid.as_bytes());
    let (first, last) = (begin + REFRESH_MARGIN, end - REFRESH_MARGIN);
    whole_second(due.min(last)).max(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api;
    use crate::controllers::pod_certificate::request::tests::request;
    use crate::k8s::projection::Projection as _;
    use pki_certs::renewal::RenewBefore;
    use pki_certs::{LeafRequest, PublicKey};
    use rcgen::{CertificateParams, KeyPair};

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    /// An approval for `duration` after two minutes of backdating.
    fn approval(duration: SignedDuration, renew_before: Option<RenewBefore>) -> Approval {
        let pki = api::tests::pki(json!({}));
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        Approval {
            request: LeafRequest {
                duration,
                backdating: SignedDuration::from_mins(2),
                ..api::tests::approved(&pki).certificate
            },
            key: PublicKey::from_csr(csr.der()).unwrap(),
            renew_before,
            policy: "policy".into(),
            pki,
        }
    }

    #[test]
    fn a_status_is_within_the_bounds_of_the_api_server() {
        let authority = Authority::generate("CA", SignedDuration::from_hours(87_600), now());
        let authority = authority.unwrap();
        let request = Request::of(serde_json::from_value(request("")).unwrap());
        let mins = SignedDuration::from_mins;
        for (duration, renew_before) in [
            (mins(58), None),
            (mins(58), Some(RenewBefore::Percentage(90))),
            (mins(58), Some(RenewBefore::Percentage(1))),
            (mins(58), Some(RenewBefore::Duration(mins(57)))),
            (SignedDuration::from_hours(24), None),
        ] {
            let approval = approval(duration, renew_before);
            let certified = sign(&approval, &authority, now()).unwrap();
            let status = issued(&request, &approval, &certified, now());
            let time =
                |field: &str| -> Timestamp { status[field].as_str().unwrap().parse().unwrap() };
            let [begin, refresh, end] = ["notBefore", "beginRefreshAt", "notAfter"].map(time);
            assert_eq!(begin, now() - mins(2));
            assert_eq!(end, now() + duration);
            assert!(
                begin + mins(10) <= refresh && refresh <= end - mins(10),
                "{refresh}"
            );
        }
    }

    #[test]
    fn nothing_is_signed_that_ends_with_the_ca_within_the_hour() {
        let authority = Authority::generate("CA", SignedDuration::from_mins(57), now()).unwrap();
        let approval = approval(SignedDuration::from_hours(24), None);
        let refused = sign(&approval, &authority, now()).unwrap_err().to_string();
        assert!(
            refused.starts_with("the CA ends at 2026-03-01T12:57:00Z"),
            "{refused}"
        );
    }
}
