//! Admission of a [`PkiPolicy`]: whether each of its rules can match, and which Pkis a change would leave without one.

use super::{Request, is_of_kind, keeps, line, name, refuse_causes};
use crate::api::{Pki, PkiPolicy, PkiPolicySpec};
use crate::policy::text::printable;
use crate::policy::{PolicyFault, RuleBook, faults};
use kube::Resource as _;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionResponse, Operation};
use kube::core::response::StatusCause;
use serde::Deserialize;
use serde_json::Value;

/// So many Pkis are named in a warning.
const NAMED: usize = 5;

/// Whether a request is about a [`PkiPolicy`].
pub fn is_about_policy(request: &Request) -> bool {
    is_of_kind(request, &PkiPolicy::kind(&()))
}

/// Judges a policy that is written, by itself; and warns of a change, or a deletion, that would break some of these
/// stored Pkis, which are judged by `rules` now.
pub fn validate_policy(
    request: &Request,
    rules: &RuleBook,
    stored: impl Iterator<Item = Pki>,
) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(request);
    let warn = |warnings: Vec<_>| Some(warnings).filter(|warnings| !warnings.is_empty());
    if request.operation == Operation::Delete {
        // Of a deletion of many at once the request has no name.
        let deleted = request
            .old_object
            .as_ref()
            .and_then(|old| old.metadata.name.as_deref());
        let deleted = deleted.unwrap_or(&request.name);
        let broken = broken(rules, &rules.without_policy(deleted), deleted, stored);
        response.warnings = warn(broken.into_iter().collect());
        return response;
    }
    let Some(object) = &request.object else {
        return response;
    };
    if object.metadata.deletion_timestamp.is_some() {
        return response;
    }
    let judged = decode(object, request).map(|policy| {
        let faults = faults(&policy.spec, &rules.settings);
        (policy, faults.into_iter().map(cause).collect::<Vec<_>>())
    });
    let (policy, causes) = match judged {
        Ok((policy, causes)) => (Some(policy), causes),
        Err(cause) => (None, vec![cause]),
    };
    // Labels can be edited, and a finalizer removed, of a policy that was stored when nobody checked it.
    let keeps_spec = keeps(request, |object| object.data.get("spec").cloned());
    if !causes.is_empty() && !keeps_spec {
        return refuse_causes(response, request, causes);
    }
    let invalid = causes
        .iter()
        .map(|cause| format!("still invalid: {}", line(cause)));
    let broken =
        policy.and_then(|policy| broken(rules, &rules.with_policy(&policy), name(request), stored));
    response.warnings = warn(invalid.chain(broken).collect());
    response
}

/// A warning of the Pkis that the policy of this name admits now, and that nothing would admit any more.
fn broken(
    rules: &RuleBook,
    changed: &RuleBook,
    policy: &str,
    stored: impl Iterator<Item = Pki>,
) -> Option<String> {
    let is_broken = |pki: &Pki| {
        pki.metadata.deletion_timestamp.is_none()
            && rules.admits(pki) == Some(policy)
            && changed.admits(pki).is_none()
    };
    let broken = stored.filter(is_broken);
    let mut broken: Vec<_> = broken.map(|pki| pki.display_name()).collect();
    broken.sort_unstable();
    let all = broken.len();
    broken.truncate(NAMED);
    let named = printable(&broken.join(", "));
    let (subject, verb) = match all {
        0 => return None,
        1 => (
            "1 Pki in use is".to_owned(),
            "it keeps its Secret, but is not renewed",
        ),
        _ => (
            format!("{all} Pkis in use are"),
            "they keep their Secrets, but are not renewed",
        ),
    };
    let more = match all - broken.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "{subject} not permitted any more: {named}{more}; {verb}"
    ))
}

fn cause(fault: PolicyFault) -> StatusCause {
    StatusCause {
        reason: "FieldValueInvalid".into(),
        message: fault.message,
        field: fault.field,
    }
}

fn decode(object: &DynamicObject, request: &Request) -> Result<PkiPolicy, StatusCause> {
    let spec = object.data.get("spec").unwrap_or(&Value::Null);
    let spec = PkiPolicySpec::deserialize(spec).map_err(|error| StatusCause {
        reason: "FieldValueTypeInvalid".into(),
        message: format!(
            "{}; `kubectl explain pkipolicy.spec` says what to write",
            printable(&error.to_string())
        ),
        field: "spec".into(),
    })?;
    Ok(PkiPolicy::new(name(request), spec))
}

#[cfg(test)]
mod tests;
