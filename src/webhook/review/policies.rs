//! Admission of a [`PkiPolicy`]: whether its rules can match, and which Pkis a change would break.

use super::answer::{allow, bounded, deny_causes, warn};
use super::{Request, ReviewedObject, still_invalid};
use crate::api::annotations::{self, Carrier};
use crate::api::{GROUP, Pki, PkiPolicy, PkiPolicySpec, PkiStatus, VERSION};
use crate::policy::{PolicyFault, RuleBook, faults};
use crate::util::text::printable;
use kube::Resource as _;
use kube::core::admission::{AdmissionResponse, Operation};
use kube::core::response::StatusCause;
use serde::Deserialize;

const MAX_NAMED_PKIS: usize = 5;

/// Whether a request is about a [`PkiPolicy`].
pub fn is_about_policy<T>(request: &Request<T>) -> bool {
    request.is_of_kind(GROUP, VERSION, &PkiPolicy::kind(&()))
}

/// Judges a policy that is written by itself, and warns of a change or deletion that would break
/// stored Pkis, which `rules` judge now. No Pki is judged once `has_time` is false.
pub fn validate_policy(
    request: &Request,
    rules: &RuleBook,
    stored: impl Iterator<Item = Pki>,
    has_time: impl Fn() -> bool,
) -> AdmissionResponse {
    let response = allow(request);
    if request.operation == Operation::Delete {
        // A deletion of many at once has no name in the request.
        let old = request.old_object.as_ref();
        let deleted = old.and_then(|old| old.metadata.name.as_deref());
        let deleted = deleted.unwrap_or(&request.name);
        let changed = rules.without_policy(deleted);
        return warn(response, broken(rules, &changed, deleted, stored, has_time));
    }
    let Some(object) = &request.object else {
        return response;
    };
    if object.metadata.deletion_timestamp.is_some() {
        return response;
    }
    let judged = decode(object, request).map(|policy| {
        // The faults below are found on the expressions that are compiled here.
        let changed = rules.with_policy(&policy);
        let faults = faults(&policy.spec, &rules.settings);
        (changed, faults.into_iter().map(cause).collect::<Vec<_>>())
    });
    let (changed, causes) = match judged {
        Ok((changed, causes)) => (Some(changed), bounded(causes)),
        Err(cause) => (None, vec![cause]),
    };
    // A policy that was stored unchecked can still get labels, or lose a finalizer.
    let is_kept = request.keeps_spec();
    let response = warn(
        response,
        annotations::faults(Carrier::PkiPolicy, &object.metadata),
    );
    if !causes.is_empty() && !is_kept {
        return deny_causes(response, request, causes);
    }
    let name = request.object_name();
    let broken = changed.map(|changed| broken(rules, &changed, name, stored, has_time));
    let broken = broken.into_iter().flatten();
    warn(response, still_invalid(&causes).chain(broken))
}

/// Warns of Pkis that only the policy of this name admits now, and notes when time ran out.
fn broken(
    rules: &RuleBook,
    changed: &RuleBook,
    policy: &str,
    stored: impl Iterator<Item = Pki>,
    has_time: impl Fn() -> bool,
) -> Vec<String> {
    let is_broken = |pki: &Pki| {
        pki.metadata.deletion_timestamp.is_none()
            && rules.admits(pki) == Some(policy)
            && changed.admits(pki).is_none()
    };
    let mut stored = stored.peekable();
    let (mut judged, mut broken, mut with_secret) = (0, Vec::new(), 0);
    while stored.peek().is_some() && has_time() {
        judged += 1;
        if let Some(pki) = stored.next().filter(is_broken) {
            let status = pki.status.as_ref();
            with_secret += usize::from(status.is_some_and(PkiStatus::has_certificate));
            broken.push(pki.display_name());
        }
    }
    broken.sort_unstable();
    let unjudged = stored.peek().is_some().then(|| {
        format!(
            "only the first {judged} Pkis were checked in time: more of them may no longer be permitted"
        )
    });
    let broken = not_permitted(broken, with_secret);
    broken.into_iter().chain(unjudged).collect()
}

/// The warning about these Pkis, of which `with_secret` have a Secret.
fn not_permitted(mut broken: Vec<String>, with_secret: usize) -> Option<String> {
    let all = broken.len();
    broken.truncate(MAX_NAMED_PKIS);
    let named = printable(&broken.join(", "));
    let subject = match all {
        0 => return None,
        1 => "1 Pki is".to_owned(),
        _ => format!("{all} Pkis are"),
    };
    let more = match all - broken.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let effect = effect(all, with_secret);
    Some(format!(
        "{subject} no longer permitted: {named}{more}; {effect}"
    ))
}

/// The effect on the Secrets of Pkis that are no longer permitted.
fn effect(all: usize, with_secret: usize) -> String {
    let without = match all - with_secret {
        1 => "the other one gets no Secret",
        _ => "the others get no Secrets",
    };
    match with_secret {
        0 if all == 1 => "it has no Secret, and gets none".into(),
        0 => "they have no Secrets, and get none".into(),
        1 if all == 1 => "it keeps its Secret, but is not renewed".into(),
        _ if with_secret == all => "they keep their Secrets, but are not renewed".into(),
        1 => format!("1 of them keeps its Secret, but is not renewed; {without}"),
        _ => format!("{with_secret} of them keep their Secrets, but are not renewed; {without}"),
    }
}

fn cause(fault: PolicyFault) -> StatusCause {
    StatusCause {
        reason: "FieldValueInvalid".into(),
        message: fault.message,
        field: fault.field,
    }
}

fn decode(object: &ReviewedObject, request: &Request) -> Result<PkiPolicy, StatusCause> {
    let spec = PkiPolicySpec::deserialize(&object.spec).map_err(|error| StatusCause {
        reason: "FieldValueTypeInvalid".into(),
        message: format!(
            "{}; `kubectl explain pkipolicy.spec` says what to write",
            printable(&error.to_string())
        ),
        field: "spec".into(),
    })?;
    Ok(PkiPolicy::new(request.object_name(), spec))
}

#[cfg(test)]
mod tests;
