//! Admission: what the API server asks before it stores a [`Pki`], and what the author is told.
//!
//! [`validate`] is pure; [`crate::webhook::server`] gives it requests. It takes the object
//! undecoded ([`DynamicObject`]), so that a spec which is no Pki becomes a denial that a person can
//! read and not a failed call of the webhook. On UPDATE the change is judged: an edit of labels, or
//! the removal of a finalizer, passes on an object whose spec has become invalid meanwhile.
//!
//! [`validate_policy`] does the same for a [`PkiPolicy`](crate::api::PkiPolicy): whether it means
//! what it says, and whom it would leave without one.

use crate::api::annotations::{self, Carrier};
use crate::api::conditions::MAX_CONDITION_MESSAGE_BYTES;
use crate::api::{GROUP, Pki, PkiSpec, PkiStatus, VERSION};
use crate::events::NOTE_BYTES;
use crate::k8s::object_key::Key;
use crate::k8s::tolerant;
use crate::model::ca::CaSummary;
use crate::model::outcome::Outcome;
use crate::policy::{Approved, RuleBook, Violation, ignored_size, reason_of};
use crate::store::cached_pki::KnownPki;
use crate::store::cached_pod::SecretUser;
use crate::store::cached_secret::{self, KnownSecret};
use crate::store::claims;
use crate::store::rejections::Refusal;
use crate::store::secret_index::SecretIndex;
use crate::util::sync;
use crate::util::text::{self, printable};
use jiff::Timestamp;
use kube::Resource as _;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use kube::core::response::{Status, StatusCause, StatusDetails};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, RwLock};

mod in_use;
mod policies;

pub use policies::{is_about_policy, validate_policy};

/// A review, read from the body of a request.
pub type Review = AdmissionReview<DynamicObject>;
/// The question in a review.
pub type Request = AdmissionRequest<DynamicObject>;

/// The longest name of an object.
const NAME_BYTES: usize = 253;

/// Why a body holds no question that can be answered; the caller gets `400 Bad Request`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewError {
    /// Not JSON, or JSON of something else.
    #[error("the body is not an AdmissionReview: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Another kind or version of review.
    #[error("the body is a {kind} of {api_version}, not an AdmissionReview of admission.k8s.io/v1")]
    OtherType {
        /// As sent.
        kind: String,
        /// As sent.
        api_version: String,
    },
    /// A review that asks nothing.
    #[error("the AdmissionReview has no request")]
    NoRequest,
}

/// Reads a review and takes the question out of it.
pub fn read(body: &[u8]) -> Result<Request, ReviewError> {
    let review: Review =
        serde_json::from_slice(body).or_else(|error| read_leniently(body).ok_or(error))?;
    if review.types.kind != "AdmissionReview" || review.types.api_version != "admission.k8s.io/v1" {
        return Err(ReviewError::OtherType {
            kind: review.types.kind,
            api_version: review.types.api_version,
        });
    }
    review.try_into().map_err(|_| ReviewError::NoRequest)
}

/// A second try, for a review of which a time is all that cannot be read.
fn read_leniently(body: &[u8]) -> Option<Review> {
    let mut review: Value = serde_json::from_slice(body).ok()?;
    let mut is_changed = false;
    for object in ["/request/object", "/request/oldObject"] {
        if let Some(object) = review.pointer_mut(object) {
            is_changed |= tolerant::drop_unreadable_times(object);
        }
    }
    // Whatever else is wrong with it stays wrong: this way of reading would forgive a field that is
    // there twice.
    is_changed.then(|| serde_json::from_value(review).ok())?
}

/// What a judgement rests on besides the object.
#[derive(Clone, Copy, Debug)]
pub struct ValidationContext<'a> {
    /// What is permitted.
    pub rules: &'a RuleBook,
    /// Which Pkis there are, and which Secrets they claim.
    pub pkis: &'a RwLock<SecretIndex<KnownPki>>,
    /// Which Secrets there are.
    pub secrets: &'a Mutex<SecretIndex<KnownSecret>>,
    /// Which pods there are, and which Secrets they use.
    pub pods: &'a RwLock<SecretIndex<SecretUser>>,
    /// What becomes of the CA, if that is known.
    pub ca: Option<CaSummary>,
    /// The present.
    pub now: Timestamp,
}

/// Asks the rule book. What is permitted and will not end as its author expects comes back as a
/// warning.
pub fn validate(request: &Request, world: &ValidationContext<'_>) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(request);
    if !is_pki(request) {
        let kind = printable(&request.kind.kind);
        let version = printable(&format!("{}/{}", request.kind.group, request.kind.version));
        let message = format!(
            "this webhook judges Pkis and PkiPolicies of {GROUP}/{VERSION}, not {kind} of {version}"
        );
        return refuse(response, request, &message, vec![]);
    }
    if request.operation == Operation::Delete {
        return warn(response, in_use::of_deletion(request, world));
    }
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return response;
    }
    let Some(object) = &request.object else {
        return refuse(response, request, "the request has no object", vec![]);
    };
    if object.metadata.deletion_timestamp.is_some() {
        return response;
    }
    let judged = decode(object, request)
        .map_err(Denial::from)
        .and_then(|pki| {
            let approved = world
                .rules
                .evaluate(&pki)
                .map_err(|violations| Denial::of(&violations))?;
            let mut warnings = warnings(&pki, &approved, world);
            warnings.extend(in_use::of_update(request, &pki, &approved, world));
            Ok((approved.policy, warnings))
        });
    let keeps_spec = keeps_spec(request);
    response.audit_annotations = audit_annotations(&judged, !keeps_spec);
    let response = match judged {
        Ok((_, warnings)) => warn(response, warnings),
        Err(Denial { causes, .. }) if keeps_spec => {
            let warning = |line| format!("still invalid: {line}");
            let warnings = causes.iter().map(line).map(warning);
            warn(response, warnings)
        }
        Err(Denial { causes, .. }) => refuse_causes(response, request, causes),
    };
    warn(
        response,
        annotations::faults(Carrier::Pki, &object.metadata),
    )
}

/// Adds warnings to an answer.
fn warn(
    mut response: AdmissionResponse,
    warnings: impl IntoIterator<Item = String>,
) -> AdmissionResponse {
    let mut warnings = warnings.into_iter().peekable();
    if warnings.peek().is_some() {
        response.warnings.get_or_insert_default().extend(warnings);
    }
    response
}

/// The size of all that an answer says of an object. Its author chooses how much is wrong with it.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// As many causes as fit into an answer. The last one says how many more there are.
fn bounded(mut causes: Vec<StatusCause>) -> Vec<StatusCause> {
    let mut bytes = 0;
    let is_too_much = |cause: &StatusCause| {
        bytes += cause.field.len() + cause.message.len();
        bytes > MAX_ANSWER_BYTES
    };
    let Some(first) = causes.iter().position(is_too_much) else {
        return causes;
    };
    let more = causes.len() - first;
    causes.truncate(first + 1);
    causes[first].message =
        format!("{more} faults from here on are not listed: correct those above first");
    causes
}

/// Why a Pki is not permitted.
struct Denial {
    causes: Vec<StatusCause>,
    /// The policy that comes nearest, if there is one.
    policy: Option<String>,
}

impl Denial {
    fn of(violations: &[Violation]) -> Self {
        Self {
            causes: bounded(violations.iter().map(cause).collect()),
            policy: violations
                .iter()
                .find_map(Violation::policy)
                .map(str::to_owned),
        }
    }
}

impl From<Vec<StatusCause>> for Denial {
    fn from(causes: Vec<StatusCause>) -> Self {
        let (causes, policy) = (bounded(causes), None);
        Self { causes, policy }
    }
}

/// What the audit log of the API server keeps of the judgement, each under the name of the webhook:
/// the verdict, the policy that permits it or comes nearest, and the rules that it breaks.
fn audit_annotations(
    judged: &Result<(String, Vec<String>), Denial>,
    is_binding: bool,
) -> HashMap<String, String> {
    let (verdict, policy) = match judged {
        Ok((policy, _)) => ("allowed", Some(policy)),
        Err(denial) => {
            let verdict = if is_binding { "denied" } else { "allowed" };
            (verdict, denial.policy.as_ref())
        }
    };
    let mut annotations = HashMap::from([("verdict".to_owned(), verdict.to_owned())]);
    annotations.extend(policy.map(|policy| ("policy".to_owned(), policy.clone())));
    if let Err(Denial { causes, .. }) = judged {
        annotations.insert("rules".to_owned(), reasons(causes));
    }
    annotations
}

/// What pods that wait for the Secret should hear of this answer: that a Pki was refused which
/// would have written it.
pub fn refusal(request: &Request, response: &AdmissionResponse) -> Option<Refusal> {
    let object = request.object.as_ref()?;
    let details = response.result.details.as_ref()?;
    // With `generateName` it has no name yet, and its Secret has one only if it says so.
    let own = [Some(&request.name), object.metadata.name.as_ref()];
    let own = own.into_iter().flatten().find(|name| !name.is_empty());
    let secret = object.data.pointer("/spec/secretName");
    let secret = secret.and_then(Value::as_str).or(own.map(String::as_str))?;
    let is_refused = !response.allowed && !request.dry_run && is_pki(request);
    (is_refused && secret.len() <= NAME_BYTES && !details.causes.is_empty()).then(|| Refusal {
        pki: Key::new(request.namespace.clone().unwrap_or_default(), name(request)),
        secret: secret.to_owned(),
        is_edit: request.operation == Operation::Update,
        reason: reason_of(&details.causes[0].field).to_owned(),
        rules: rules(&details.causes),
    })
}

/// Why an answer refuses, for the log: the reasons, as Events have them, and the rules in words.
pub fn objections(response: &AdmissionResponse) -> Option<(String, String)> {
    if response.allowed {
        return None;
    }
    let details = response.result.details.as_ref();
    let causes = details.map_or(&[][..], |details| &details.causes);
    if causes.is_empty() {
        return Some((
            String::new(),
            text::cut(&response.result.message, NOTE_BYTES),
        ));
    }
    Some((reasons(causes), rules(causes)))
}

fn reasons(causes: &[StatusCause]) -> String {
    let reasons: BTreeSet<_> = causes.iter().map(|cause| reason_of(&cause.field)).collect();
    Vec::from_iter(reasons).join(",")
}

/// In no more bytes than an Event has room for.
fn rules(causes: &[StatusCause]) -> String {
    text::list("", &causes.iter().map(line).collect::<Vec<_>>(), NOTE_BYTES)
}

fn warnings(pki: &Pki, approved: &Approved, world: &ValidationContext<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some((size, algorithm)) = pki.spec.private_key.as_ref().and_then(ignored_size) {
        warnings.push(format!(
            "spec.privateKey.size: {size} is not a size of an {algorithm} key, and is ignored as a default that version 0.2 stored: leave it out, or write a size of {algorithm} keys"
        ));
    }
    let own = Key::of(pki);
    let secret = Key::new(own.namespace.clone(), &*approved.secret_name);
    warnings.extend(secret_warning(pki, &own, &secret, world));
    let end = world.now.saturating_add(approved.certificate.duration);
    let Some(ca) = world.ca else {
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
            "the CA is being replaced: the certificate is renewed when the next one signs; have clients read ca.crt anew"
                .to_owned(),
        );
    }
    warnings
}

/// Warns that the Secret is another's. Only here others are waited for: the rule book is asked
/// before.
pub(crate) fn secret_warning(
    pki: &Pki,
    own: &Key,
    secret: &Key,
    world: &ValidationContext<'_>,
) -> Option<String> {
    let outcome = foreseen_obstacle(own, secret, world)?;
    let message = outcome.message(pki, MAX_CONDITION_MESSAGE_BYTES);
    Some(format!("{}: {message}", pki.secret_name_field()))
}

/// Why this Pki could not write the Secret, by all that is known.
fn foreseen_obstacle(own: &Key, secret: &Key, world: &ValidationContext<'_>) -> Option<Outcome> {
    let pkis = sync::read(world.pkis);
    if let Some(winner) = claims::foreseen_winner(&pkis, own, secret) {
        let winner = winner.clone();
        return Some(Outcome::Conflict { winner });
    }
    let secrets = sync::lock(world.secrets);
    cached_secret::foreseen_foreign(&secrets, &pkis, own, secret).map(Outcome::Foreign)
}

fn is_pki(request: &Request) -> bool {
    is_of_kind(request, &Pki::kind(&()))
}

fn is_of_kind(request: &Request, kind: &str) -> bool {
    let asked = &request.kind;
    (
        asked.group.as_str(),
        asked.version.as_str(),
        asked.kind.as_str(),
    ) == (GROUP, VERSION, kind)
}

/// Whether an UPDATE leaves the spec as it was.
fn keeps_spec(request: &Request) -> bool {
    match (&request.operation, &request.object, &request.old_object) {
        (Operation::Update, Some(new), Some(old)) => new.data.get("spec") == old.data.get("spec"),
        _ => false,
    }
}

/// The object as a Pki, or what keeps it from being one, in terms of the fields to mend.
fn decode(object: &DynamicObject, request: &Request) -> Result<Pki, Vec<StatusCause>> {
    let mut metadata = object.metadata.clone();
    // The request's namespace is the one that its author was authorized for.
    metadata.namespace = request.namespace.clone().or(metadata.namespace);
    metadata.name = Some(name(request).to_owned());
    let spec = object.data.get("spec").unwrap_or(&Value::Null);
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
    let policy = old.data.pointer("/status/policy")?.as_str()?;
    Some(PkiStatus {
        policy: Some(policy.to_owned()),
        ..PkiStatus::default()
    })
}

/// The fields of a spec that have a wrong type: those with which not even a spec without other
/// faults can be read.
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

/// The object's name; of an object that is being created with `generateName`, the beginning of it.
fn name(request: &Request) -> &str {
    let metadata = request.object.as_ref().map(|object| &object.metadata);
    [
        Some(request.name.as_str()),
        metadata.and_then(|m| m.name.as_deref()),
        metadata.and_then(|m| m.generate_name.as_deref()),
    ]
    .into_iter()
    .flatten()
    .find(|name| !name.is_empty())
    .unwrap_or_default()
}

fn cause(violation: &Violation) -> StatusCause {
    let reason = if violation.is_unsupported() {
        "FieldValueNotSupported"
    } else {
        "FieldValueInvalid"
    };
    StatusCause {
        reason: reason.into(),
        message: violation.to_string(),
        field: violation.field().to_string(),
    }
}

fn refuse_causes(
    response: AdmissionResponse,
    request: &Request,
    causes: Vec<StatusCause>,
) -> AdmissionResponse {
    let kind = printable(&request.kind.kind);
    let place = match &request.namespace {
        Some(namespace) => printable(&format!("{namespace}/{}", name(request))),
        None => printable(name(request)),
    };
    let lines: Vec<_> = causes.iter().map(line).collect();
    let message = match lines.as_slice() {
        [only] => format!("{kind} {place}: {only}"),
        several => format!("{kind} {place}:\n  {}", several.join("\n  ")),
    };
    refuse(response, request, &message, causes)
}

fn line(cause: &StatusCause) -> String {
    format!("{}: {}", cause.field, cause.message)
}

/// A refusal with the code and reason that the API server itself gives an invalid object, which is
/// what makes kubectl list the causes.
fn refuse(
    mut response: AdmissionResponse,
    request: &Request,
    message: &str,
    causes: Vec<StatusCause>,
) -> AdmissionResponse {
    response.allowed = false;
    response.result = Status::failure(message, "Invalid")
        .with_code(422)
        .with_details(StatusDetails {
            name: printable(name(request)),
            group: printable(&request.kind.group),
            kind: printable(&request.kind.kind),
            causes,
            uid: String::new(),
            retry_after_seconds: 0,
        });
    response
}

#[cfg(test)]
mod tests;
