//! Admission: the review of a [`Pki`] or a [`PkiPolicy`](crate::api::PkiPolicy).
//!
//! [`validate`] is pure; [`crate::webhook::server`] gives it requests. The object comes undecoded,
//! so that a spec which is no Pki becomes a readable denial and not a failed call of the webhook.
//! On UPDATE the change is judged: an edit of labels, or the removal of a finalizer, passes on an
//! object whose spec has become invalid meanwhile.

use crate::api::annotations::{self, Carrier};
use crate::api::conditions::MAX_CONDITION_MESSAGE_BYTES;
use crate::api::{GROUP, Pki, PkiSpec, PkiStatus, VERSION};
use crate::k8s::object_key::Key;
use crate::model::ca::CaSummary;
use crate::model::outcome::Outcome;
use crate::policy::{Approved, RuleBook, ignored_size, reason_of};
use crate::store::cached_pki::KnownPki;
use crate::store::cached_pod::SecretUser;
use crate::store::cached_secret::{self, KnownSecret};
use crate::store::claims;
use crate::store::rejections::Rejection;
use crate::store::secret_index::SharedIndex;
use crate::util::text::printable;
use answer::{Denial, allow, audit_annotations, deny, deny_causes, line, rules, warn};
use jiff::Timestamp;
use kube::Resource as _;
use kube::core::admission::{AdmissionResponse, Operation};
use kube::core::response::StatusCause;
use serde::Deserialize;
use serde_json::{Value, json};

mod answer;
mod in_use;
mod policies;
mod request;

pub use answer::denial_summary;
pub use policies::{is_about_policy, validate_policy};
pub use request::{Request, RequestOptions, ReviewError, ReviewedObject, UnreadRequest, read};

const MAX_NAME_BYTES: usize = 253;

/// The state that a review depends on besides the object.
#[derive(Clone, Copy, Debug)]
pub struct ValidationContext<'a> {
    /// The rule book.
    pub rules: &'a RuleBook,
    /// The Pkis there are, and the Secrets they claim.
    pub pkis: &'a SharedIndex<KnownPki>,
    /// The Secrets there are.
    pub secrets: &'a SharedIndex<KnownSecret>,
    /// The pods there are, and the Secrets they use.
    pub pods: &'a SharedIndex<SecretUser>,
    /// The end of the CA, if it is known.
    pub ca: Option<CaSummary>,
    /// The present.
    pub now: Timestamp,
}

/// Asks the rule book. A permitted Pki that will not work as its author expects gets a warning.
pub fn validate(request: &Request, context: &ValidationContext<'_>) -> AdmissionResponse {
    let mut response = allow(request);
    if !is_pki(request) {
        let kind = printable(&request.kind.kind);
        let version = printable(&format!("{}/{}", request.kind.group, request.kind.version));
        let message = format!(
            "this webhook judges Pkis and PkiPolicies of {GROUP}/{VERSION}, not {kind} of {version}"
        );
        return deny(response, request, &message, vec![]);
    }
    if request.operation == Operation::Delete {
        return warn(response, in_use::of_deletion(request, context));
    }
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return response;
    }
    let Some(object) = &request.object else {
        return deny(response, request, "the request has no object", vec![]);
    };
    if object.metadata.deletion_timestamp.is_some() {
        return response;
    }
    let judged = judge(object, request, context);
    let keeps_spec = request.keeps_spec();
    response.audit_annotations = audit_annotations(&judged, !keeps_spec);
    let response = match judged {
        Ok((_, warnings)) => warn(response, warnings),
        Err(Denial { causes, .. }) if keeps_spec => warn(response, still_invalid(&causes)),
        Err(Denial { causes, .. }) => deny_causes(response, request, causes),
    };
    warn(
        response,
        annotations::faults(Carrier::Pki, &object.metadata),
    )
}

/// The policy that permits the object, with warnings; or why none does.
fn judge(
    object: &ReviewedObject,
    request: &Request,
    context: &ValidationContext<'_>,
) -> Result<(String, Vec<String>), Denial> {
    let pki = decode(object, request)?;
    let approved = context.rules.evaluate(&pki)?;
    let mut warnings = warnings(&pki, &approved, context);
    warnings.extend(in_use::of_update(request, &pki, &approved, context));
    Ok((approved.policy, warnings))
}

/// Warnings of an object that was invalid before, and may be edited in other respects.
fn still_invalid(causes: &[StatusCause]) -> impl Iterator<Item = String> {
    causes
        .iter()
        .map(|cause| format!("still invalid: {}", line(cause)))
}

/// The rejected Pki that this answer stands for; the pods that wait for its Secret get an Event.
pub fn refusal(request: &Request, response: &AdmissionResponse) -> Option<Rejection> {
    let object = request.object.as_ref()?;
    let details = response.result.details.as_ref()?;
    // With `generateName` it has no name yet.
    let own = [Some(&request.name), object.metadata.name.as_ref()];
    let own = own.into_iter().flatten().find(|name| !name.is_empty());
    let secret = object.spec.get("secretName");
    let secret = secret.and_then(Value::as_str).or(own.map(String::as_str))?;
    let is_refused = !response.allowed && !request.dry_run && is_pki(request);
    (is_refused && secret.len() <= MAX_NAME_BYTES && !details.causes.is_empty()).then(|| {
        Rejection {
            pki: Key::new(
                request.namespace.clone().unwrap_or_default(),
                request.object_name(),
            ),
            secret: secret.to_owned(),
            is_edit: request.operation == Operation::Update,
            reason: reason_of(&details.causes[0].field).to_owned(),
            rules: rules(&details.causes),
        }
    })
}

fn warnings(pki: &Pki, approved: &Approved, context: &ValidationContext<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some((size, algorithm)) = pki.spec.private_key.as_ref().and_then(ignored_size) {
        warnings.push(format!(
            "spec.privateKey.size: {size} is not a size of an {algorithm} key, and is ignored because version 0.2 stored it as a default: leave it out, or write a size of {algorithm} keys"
        ));
    }
    let own = Key::of(pki);
    let secret = Key::new(own.namespace.clone(), &*approved.secret_name);
    warnings.extend(secret_warning(pki, &own, &secret, context));
    let end = context.now.saturating_add(approved.certificate.duration);
    let Some(ca) = context.ca else {
        return warnings;
    };
    if end.is_ok_and(|end| end > ca.end) {
        warnings.push(format!(
            "spec.duration: the certificate will end with the CA at {}, earlier than asked for; it is renewed when the CA is",
            ca.end
        ));
    }
    if ca.is_being_replaced {
        warnings.push(
            "the CA is being replaced: the certificate is renewed when the next one signs; let clients read ca.crt again"
                .to_owned(),
        );
    }
    warnings
}

/// Warns that the Secret belongs to another. Takes locks, which the rule book does not.
pub(crate) fn secret_warning(
    pki: &Pki,
    own: &Key,
    secret: &Key,
    context: &ValidationContext<'_>,
) -> Option<String> {
    let outcome = predicted_obstacle(own, secret, context)?;
    let message = outcome.message(pki, MAX_CONDITION_MESSAGE_BYTES);
    Some(format!("{}: {message}", pki.secret_name_field()))
}

fn predicted_obstacle(own: &Key, secret: &Key, context: &ValidationContext<'_>) -> Option<Outcome> {
    let pkis = context.pkis.read();
    if let Some(winner) = claims::predicted_owner(&pkis, own, secret) {
        let winner = winner.clone();
        return Some(Outcome::Conflict { winner });
    }
    let secrets = context.secrets.read();
    cached_secret::predicted_obstacle(&secrets, &pkis, own, secret).map(Outcome::Foreign)
}

fn is_pki<T>(request: &Request<T>) -> bool {
    request.is_of_kind(GROUP, VERSION, &Pki::kind(&()))
}

fn decode(object: &ReviewedObject, request: &Request) -> Result<Pki, Vec<StatusCause>> {
    let mut metadata = object.metadata.clone();
    // The request's namespace is the one that its author was authorized for.
    metadata.namespace = request.namespace.clone().or(metadata.namespace);
    metadata.name = Some(request.object_name().to_owned());
    let spec = &object.spec;
    if spec.get("serviceName").is_none_or(Value::is_null) {
        return Err(vec![StatusCause {
            reason: "FieldValueRequired".into(),
            message: "write the name of the service that the certificate is for, for example app1"
                .into(),
            field: "spec.serviceName".into(),
        }]);
    }
    let spec = PkiSpec::deserialize(spec).map_err(|_| wrong_types(spec))?;
    Ok(Pki {
        metadata,
        spec,
        status: recorded_policy(request),
    })
}

/// A status with the policy that is recorded for the Pki. Nothing else of it counts here.
fn recorded_policy(request: &Request) -> Option<PkiStatus> {
    let old = request.old_object.as_ref()?;
    let policy = old.status.get("policy")?.as_str()?;
    Some(PkiStatus {
        policy: Some(policy.to_owned()),
        ..PkiStatus::default()
    })
}

/// The fields of a spec whose wrong types make it unreadable by themselves.
fn wrong_types(spec: &Value) -> Vec<StatusCause> {
    let fields = spec.as_object().into_iter().flatten();
    fields
        .filter(|(field, value)| {
            let mut alone = json!({ "serviceName": "app1" });
            alone[field.as_str()] = (*value).clone();
            PkiSpec::deserialize(alone).is_err()
        })
        .map(|(field, _)| StatusCause {
            reason: "FieldValueTypeInvalid".into(),
            message: format!("wrong type; `kubectl explain pki.spec.{field}` says what to write"),
            field: format!("spec.{field}"),
        })
        .collect()
}

#[cfg(test)]
mod tests;
