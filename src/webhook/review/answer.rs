//! The answer to a review: warnings, denials, and what the audit log keeps.

use super::Request;
use crate::events::NOTE_BYTES;
use crate::policy::{Violation, reason_of};
use crate::util::text::{self, printable};
use kube::core::admission::AdmissionResponse;
use kube::core::response::{Status, StatusCause, StatusDetails};
use std::collections::{BTreeSet, HashMap};

/// Maximum size of the causes in an answer: the author of the object chooses how many there are.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

pub(super) fn allow(request: &Request) -> AdmissionResponse {
    let mut response = AdmissionResponse::invalid("");
    response.uid.clone_from(&request.uid);
    response.allowed = true;
    response.result = Status::default();
    response
}

pub(super) fn warn(
    mut response: AdmissionResponse,
    warnings: impl IntoIterator<Item = String>,
) -> AdmissionResponse {
    let mut warnings = warnings.into_iter().peekable();
    if warnings.peek().is_some() {
        response.warnings.get_or_insert_default().extend(warnings);
    }
    response
}

pub(super) fn deny_causes(
    response: AdmissionResponse,
    request: &Request,
    causes: Vec<StatusCause>,
) -> AdmissionResponse {
    let kind = printable(&request.kind.kind);
    let name = request.object_name();
    let object = match &request.namespace {
        Some(namespace) => printable(&format!("{namespace}/{name}")),
        None => printable(name),
    };
    let lines: Vec<_> = causes.iter().map(line).collect();
    let message = match lines.as_slice() {
        [only] => format!("{kind} {object}: {only}"),
        several => format!("{kind} {object}:\n  {}", several.join("\n  ")),
    };
    deny(response, request, &message, causes)
}

/// A denial with the code and reason of the API server itself, which make kubectl list the causes.
pub(super) fn deny(
    mut response: AdmissionResponse,
    request: &Request,
    message: &str,
    causes: Vec<StatusCause>,
) -> AdmissionResponse {
    response.allowed = false;
    response.result = Status::failure(message, "Invalid")
        .with_code(422)
        .with_details(StatusDetails {
            name: printable(request.object_name()),
            group: printable(&request.kind.group),
            kind: printable(&request.kind.kind),
            causes,
            uid: String::new(),
            retry_after_seconds: 0,
        });
    response
}

/// The first causes, as many as fit into an answer. The last one counts the others.
pub(super) fn bounded(mut causes: Vec<StatusCause>) -> Vec<StatusCause> {
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
    causes[first].message = format!("{more} more faults are not listed: correct those above first");
    causes
}

pub(super) struct Denial {
    pub(super) causes: Vec<StatusCause>,
    policy: Option<String>,
}

impl From<Vec<Violation>> for Denial {
    fn from(violations: Vec<Violation>) -> Self {
        let policy = violations.iter().find_map(Violation::policy);
        Self {
            policy: policy.map(str::to_owned),
            causes: bounded(violations.iter().map(cause).collect()),
        }
    }
}

impl From<Vec<StatusCause>> for Denial {
    fn from(causes: Vec<StatusCause>) -> Self {
        let (causes, policy) = (bounded(causes), None);
        Self { causes, policy }
    }
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

/// The audit annotations, which the API server keeps under the name of the webhook: the verdict,
/// the policy that permits the Pki or comes nearest, and the rules that it breaks.
pub(super) fn audit_annotations(
    judged: &Result<(String, Vec<String>), Denial>,
    is_binding: bool,
) -> HashMap<String, String> {
    let (verdict, policy) = match judged {
        Ok((policy, _)) => ("allowed", Some(policy)),
        Err(denial) if is_binding => ("denied", denial.policy.as_ref()),
        Err(denial) => ("allowed", denial.policy.as_ref()),
    };
    let mut annotations = HashMap::from([("verdict".to_owned(), verdict.to_owned())]);
    annotations.extend(policy.map(|policy| ("policy".to_owned(), policy.clone())));
    if let Err(Denial { causes, .. }) = judged {
        annotations.insert("rules".to_owned(), reasons(causes));
    }
    annotations
}

/// Why an answer denies, for the log: the reasons, as Events have them, and the rules in words.
pub fn denial_summary(response: &AdmissionResponse) -> Option<(String, String)> {
    if response.allowed {
        return None;
    }
    let details = response.result.details.as_ref();
    let causes = details.map_or(&[][..], |details| &details.causes);
    if causes.is_empty() {
        let message = text::cut(&response.result.message, NOTE_BYTES);
        return Some((String::new(), message));
    }
    Some((reasons(causes), rules(causes)))
}

fn reasons(causes: &[StatusCause]) -> String {
    let reasons: BTreeSet<_> = causes.iter().map(|cause| reason_of(&cause.field)).collect();
    Vec::from_iter(reasons).join(",")
}

pub(super) fn rules(causes: &[StatusCause]) -> String {
    text::list("", &causes.iter().map(line).collect::<Vec<_>>(), NOTE_BYTES)
}

pub(super) fn line(cause: &StatusCause) -> String {
    format!("{}: {}", cause.field, cause.message)
}
