//! Meaning of an error of the API server: the only place that reads its codes.

use kube::core::Status;

/// The meaning of an error for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiErrorKind {
    /// The object, or its namespace, does not exist.
    NotFound,
    /// The object has another version by now, or exists already: observe it again.
    Conflict,
    /// A repeated request fails until somebody changes a permission, a rule or the object.
    Refused,
    /// There is no answer, or one that a later attempt may change.
    Unavailable,
}

/// The kind of an error.
pub fn kind(error: &kube::Error) -> ApiErrorKind {
    let kube::Error::Api(status) = error else {
        return ApiErrorKind::Unavailable;
    };
    if status.is_not_found() {
        return ApiErrorKind::NotFound;
    }
    if status.is_conflict() || status.is_already_exists() || is_failed_test(status) {
        return ApiErrorKind::Conflict;
    }
    match status.code {
        // A proxy, or an admission webhook, may answer 404 and 409 for reasons of its own.
        401 | 408 | 409 | 429 => ApiErrorKind::Unavailable,
        400..500 => ApiErrorKind::Refused,
        _ => ApiErrorKind::Unavailable,
    }
}

/// Whether a `test` of a JSON patch failed. The API server does not say which operation it could
/// not apply, or why.
fn is_failed_test(status: &Status) -> bool {
    const MESSAGE: &str = "the server rejected our request due to an error in our request";
    status.code == 422 && status.message == MESSAGE
}

/// Whether the object does not exist.
pub fn is_not_found(error: &kube::Error) -> bool {
    kind(error) == ApiErrorKind::NotFound
}

/// Whether the object has changed, or exists already.
pub fn is_conflict(error: &kube::Error) -> bool {
    kind(error) == ApiErrorKind::Conflict
}

/// Whether another attempt with the same request is of no use.
pub fn is_refusal(error: &kube::Error) -> bool {
    matches!(kind(error), ApiErrorKind::Refused | ApiErrorKind::NotFound)
}

/// Whether nothing can be created there, because the namespace is being deleted.
pub fn is_namespace_ending(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    causes.any(|cause| cause.reason == "NamespaceTerminating")
}

/// The API server's own sentence (a quota, a missing permission), without this client's wrapping.
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_one_meaning() {
        let failed_test = "the server rejected our request due to an error in our request";
        for (code, reason, message, expected) in [
            (400, "BadRequest", "no", ApiErrorKind::Refused),
            (401, "Unauthorized", "no", ApiErrorKind::Unavailable),
            (403, "Forbidden", "no", ApiErrorKind::Refused),
            (404, "NotFound", "no", ApiErrorKind::NotFound),
            (404, "", "404 page not found", ApiErrorKind::Refused),
            (408, "Timeout", "no", ApiErrorKind::Unavailable),
            (409, "Conflict", "no", ApiErrorKind::Conflict),
            (409, "AlreadyExists", "no", ApiErrorKind::Conflict),
            (409, "Mine", "a webhook says no", ApiErrorKind::Unavailable),
            (413, "RequestEntityTooLarge", "no", ApiErrorKind::Refused),
            (422, "Invalid", "no", ApiErrorKind::Refused),
            (422, "Invalid", failed_test, ApiErrorKind::Conflict),
            (429, "TooManyRequests", "no", ApiErrorKind::Unavailable),
            (500, "InternalError", "no", ApiErrorKind::Unavailable),
            (503, "ServiceUnavailable", "no", ApiErrorKind::Unavailable),
        ] {
            let status = Status::failure(message, reason).with_code(code);
            let error = kube::Error::Api(Box::new(status));
            assert_eq!(kind(&error), expected, "{code} {reason} {message}");
        }
        assert_eq!(
            kind(&kube::Error::LinesCodecMaxLineLengthExceeded),
            ApiErrorKind::Unavailable
        );
    }
}
