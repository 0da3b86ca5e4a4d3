//! Asks the API server about a Pki in a dry run, for callers who may write Pkis and may not read
//! the policies. The answer is that of `kubectl apply`; nothing is stored or published.

use super::check::{is_well_formed, warning};
use super::finding::{Answer, Fault};
use super::manifests::{Manifest, Manifests, as_new, in_namespace};
use super::schema::ManifestKind;
use crate::api::Pki;
use crate::k8s::client::{ClientError, Cluster};
use crate::util::text;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http_body_util::{BodyExt as _, Limited};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview};
use kube::api::PostParams;
use kube::client::Body;
use kube::core::Status;
use kube::{Api, Resource as _};
use serde_json::Value;
use std::fmt::Display;

/// The most requests at once.
const CONCURRENCY: usize = 8;
/// The largest answer. The object in it has at most 3 MiB.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// The answers to all well-formed objects, in the order of the files.
///
/// Errors: `Forbidden` if the caller may not create, or update, Pkis in a namespace; any other
/// error that keeps the API server from judging.
pub(super) async fn ask(
    cluster: &Cluster,
    files: &[Manifests],
) -> Result<Vec<Answer>, ClientError> {
    let objects = files.iter().flat_map(|file| &file.objects);
    let answers = objects.map(|manifest| async move {
        if manifest.kind == ManifestKind::Pki && is_well_formed(manifest) {
            answer(cluster, manifest).await
        } else {
            Ok(Answer::default())
        }
    });
    // Boxed: the compiler does not see that futures which borrow may be sent.
    let answers: Vec<_> = answers.map(futures::FutureExt::boxed_local).collect();
    stream::iter(answers)
        .buffered(CONCURRENCY)
        .try_collect()
        .await
}

async fn answer(cluster: &Cluster, manifest: &Manifest) -> Result<Answer, ClientError> {
    let namespace = manifest.namespace(&cluster.namespace);
    let object = as_new(in_namespace(&manifest.node, namespace));
    let path = Pki::url_path(&(), Some(namespace));
    let created = send(cluster, "POST", &path, &object).await?;
    let name = manifest.metadata("name");
    let (verb, reply) = match created.status {
        StatusCode::CONFLICT if !name.is_empty() => {
            let path = format!("{path}/{name}");
            ("update", replace(cluster, &path, object).await?)
        }
        _ => ("create", created),
    };
    if reply.status == StatusCode::FORBIDDEN && !may(cluster, verb, namespace).await? {
        let namespace = text::printable(namespace);
        let action = format!("{verb} pkis in namespace {namespace}, not even in a dry run");
        return Err(ClientError::forbidden(action, &reply.message()));
    }
    reply.answer()
}

/// Asks about the object in the place of the stored one.
async fn replace(cluster: &Cluster, path: &str, mut object: Value) -> Result<Reply, ClientError> {
    let stored = send(cluster, "GET", path, &Value::Null).await?;
    if stored.status != StatusCode::OK {
        return Ok(stored);
    }
    let metadata = &stored.body["metadata"];
    for field in ["resourceVersion", "uid"] {
        object["metadata"][field] = metadata[field].clone();
    }
    send(cluster, "PUT", path, &object).await
}

/// Whether the caller has this permission.
async fn may(cluster: &Cluster, verb: &str, namespace: &str) -> Result<bool, ClientError> {
    let mut review = SelfSubjectAccessReview::default();
    review.spec.resource_attributes = Some(ResourceAttributes {
        group: Some(Pki::group(&()).into_owned()),
        resource: Some(Pki::plural(&()).into_owned()),
        namespace: Some(namespace.to_owned()),
        verb: Some(verb.to_owned()),
        ..ResourceAttributes::default()
    });
    let reviews = Api::<SelfSubjectAccessReview>::all(cluster.client.clone());
    let review = reviews.create(&PostParams::default(), &review).await;
    let review = review.map_err(|error| ClientError::of("review your own access", error))?;
    Ok(review.status.is_some_and(|status| status.allowed))
}

struct Reply {
    status: StatusCode,
    warnings: Vec<String>,
    body: Value,
}

const WHAT: &str = "ask the API server in a dry run";

fn failed(cause: &dyn Display) -> ClientError {
    ClientError::failed(WHAT.to_owned(), &cause.to_string())
}

async fn send(
    cluster: &Cluster,
    method: &str,
    path: &str,
    object: &Value,
) -> Result<Reply, ClientError> {
    let (query, body) = if method == "GET" {
        ("", Vec::new())
    } else {
        let body = serde_json::to_vec(object).map_err(|error| failed(&error))?;
        // The schema finds unknown fields, with their places.
        ("?dryRun=All&fieldValidation=Ignore", body)
    };
    let request = Request::builder()
        .method(method)
        .uri(format!("{path}{query}"))
        .header("Content-Type", "application/json")
        .body(Body::from(body))
        .map_err(|error| failed(&error))?;
    let response = cluster.client.send(request).await;
    let response = response.map_err(|error| ClientError::of(WHAT, error))?;
    let (head, body) = Response::into_parts(response);
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
    let body = body.map_err(|error| failed(&error))?;
    Ok(Reply {
        status: head.status,
        warnings: warnings(&head.headers),
        body: serde_json::from_slice(&body.to_bytes()).unwrap_or_default(),
    })
}

impl Reply {
    fn message(&self) -> String {
        self.body["message"].as_str().unwrap_or_default().to_owned()
    }

    fn answer(self) -> Result<Answer, ClientError> {
        let warnings = self.warnings.iter().filter_map(|line| warning(line));
        let warnings: Vec<_> = warnings.collect();
        let errors = match self.status {
            status if status.is_success() => Vec::new(),
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                refused(self.body)
            }
            status => return Err(failed(&format!("{status}: {}", self.message()))),
        };
        Ok(Answer { errors, warnings })
    }
}

/// The causes of a refusal, as kubectl lists them; without causes, its message.
fn refused(body: Value) -> Vec<Fault> {
    let status: Status = serde_json::from_value(body).unwrap_or_default();
    let causes = status.details.map(|details| details.causes);
    let causes = causes.unwrap_or_default().into_iter();
    let faults: Vec<_> = causes
        .filter(|cause| !cause.message.is_empty())
        .map(Fault::from)
        .collect();
    if faults.is_empty() {
        let message = text::sentence(&status.message);
        return vec![Fault::new("", "PkiRefused", message)];
    }
    faults
}

/// The texts in the headers `Warning`, as the API server writes them: `299 - "text"`.
fn warnings(headers: &HeaderMap) -> Vec<String> {
    let headers = headers.get_all("warning").iter();
    headers
        .filter_map(|header| warning_text(header.as_bytes()))
        .collect()
}

fn warning_text(header: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(header);
    let (_, quoted) = text.split_once('"')?;
    let mut unquoted = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => return Some(unquoted),
            '\\' => unquoted.push(characters.next()?),
            other => unquoted.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::kubectl::finding::reason;
    use serde_json::json;

    #[test]
    fn the_text_of_a_warning_is_in_quotes() {
        for (header, text) in [
            (
                r#"299 - "spec.secretName: it is taken""#,
                Some("spec.secretName: it is taken"),
            ),
            (
                r#"299 - "write \"true\" or \\""#,
                Some(r#"write "true" or \"#),
            ),
            (r#"299 - "one", 299 - "two""#, Some("one")),
            (r#"299 - "open"#, None),
            ("299 - none", None),
            ("", None),
        ] {
            assert_eq!(warning_text(header.as_bytes()).as_deref(), text, "{header}");
        }
    }

    fn answer(status: StatusCode, body: Value) -> Result<Answer, ClientError> {
        let warnings = vec!["spec.secretName: taken".to_owned()];
        let reply = Reply {
            status,
            warnings,
            body,
        };
        reply.answer()
    }

    #[test]
    fn a_refusal_has_its_causes_or_one_sentence() {
        let cause =
            json!({"reason": "FieldValueInvalid", "field": "spec.serviceName", "message": "no"});
        let body = json!({"kind": "Status", "status": "Failure", "message": "denied", "reason": "Invalid", "code": 422,
            "details": {"causes": [cause]}});
        let answered = answer(StatusCode::UNPROCESSABLE_ENTITY, body).unwrap();
        assert_eq!(
            answered.errors,
            [Fault::new("spec.serviceName", "PkiServiceNameError", "no")]
        );
        assert_eq!(
            answered.warnings,
            [Fault::new("spec.secretName", reason::CONFLICT, "taken")]
        );
        let body = json!({"kind": "Status", "status": "Failure", "message": "namespaces \"x\" not found", "code": 404});
        let answered = answer(StatusCode::NOT_FOUND, body).unwrap();
        assert_eq!(
            answered.errors,
            [Fault::new("", "PkiRefused", "namespaces \"x\" not found")]
        );
        let answered = answer(StatusCode::CREATED, json!({})).unwrap();
        assert_eq!(answered.errors, []);
    }

    #[test]
    fn an_answer_of_a_failing_api_server_is_no_verdict() {
        for status in [
            StatusCode::INTERNAL_SERVER_ERROR,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::TOO_MANY_REQUESTS,
        ] {
            let body = json!({"message": "failed calling webhook"});
            let error = answer(status, body).unwrap_err().to_string();
            assert!(error.ends_with(": failed calling webhook"), "{error}");
        }
    }
}
