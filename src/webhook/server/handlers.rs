//! The handlers of the listeners.

use super::App;
use super::connections::Client;
use super::limits::MAX_BODY_BYTES;
use crate::observability::traces::Work;
use crate::store;
use crate::util::text::{cut, printable};
use crate::webhook::review::{self, Request, ReviewError, UnreadRequest, ValidationContext};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use kube::core::admission::{AdmissionResponse, Operation};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::SemaphorePermit;

/// Maximum length of a text about a request in logs and traces: anyone may send anything.
const MAX_LOGGED_BYTES: usize = 253;
/// The name of the webhook in metrics, logs and traces.
const WEBHOOK: &str = "validate";
/// How long a policy review judges Pkis: after 5 s the API server gives up and stores the policy.
const POLICY_REVIEW_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) fn admission_router(app: Arc<App>) -> Router {
    Router::new()
        .route("/validate", post(validate))
        .route("/{segment}/validate", post(validate))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(app.clone(), admit))
        .layer(middleware::from_fn_with_state(
            app.clone(),
            reject_unknown_path,
        ))
        .layer(middleware::from_fn_with_state(
            app.clone(),
            close_while_draining,
        ))
        .with_state(app)
}

pub(super) fn health_router(app: Arc<App>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(app)
}

/// Answers 404 at any other path, before anything else of the request is read.
async fn reject_unknown_path(
    State(app): State<Arc<App>>,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    let client = Client::of(&request);
    let is_known = match app.serving_cert.get() {
        Some(it) => it.paths().admit(request.uri().path(), client).await,
        None => false,
    };
    if is_known {
        next.run(request).await
    } else {
        app.metrics.listeners.refused("path");
        StatusCode::NOT_FOUND.into_response()
    }
}

async fn admit(
    State(app): State<Arc<App>>,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    app.requests.admit(request, next).await
}

/// While this replica drains, has each client connect to another. A connection that closes at the
/// end of the drain would lose a request on its way, which API servers do not repeat.
async fn close_while_draining(
    State(app): State<Arc<App>>,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    let is_http1 = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    if is_http1 && app.draining.load(Ordering::Relaxed) {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// Parses a review and answers it, or returns the reason why it cannot.
async fn validate(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Response> {
    let mut work = Work::request(WEBHOOK, &headers);
    let app = app.as_ref();
    let unread = parse(app, &headers, &body)?;
    // Objects in memory hold up other reviews, so they are read after every wait.
    let _policy_review = prepare(app, &unread).await;
    let _permit = app.requests.permit_to_read(body.len()).await;
    let request = unread.read().map_err(|error| malformed(app, &error))?;
    Ok(begin(&mut work, &request).in_scope(|| {
        let response = if review::is_about_policy(&request) {
            validate_policy(app, &request)
        } else {
            validate_pki(app, &request)
        };
        answer(app, &request, response, &mut work)
    }))
}

/// Waits for the labels of the namespace, or for the end of another review of a policy. A policy
/// may have every Pki judged twice, which must not occupy all threads.
async fn prepare<'a>(app: &'a App, request: &UnreadRequest<'_>) -> Option<SemaphorePermit<'a>> {
    if review::is_about_policy(request) {
        return app.policy_reviews.acquire().await.ok();
    }
    // A deletion is not judged by the labels of its namespace.
    if request.operation != Operation::Delete {
        let namespace = request.namespace.as_deref().unwrap_or_default();
        drop(app.cache.rules_for(namespace).await);
    }
    None
}

fn validate_pki(app: &App, request: &Request) -> AdmissionResponse {
    let (rules, now) = (app.cache.rules(), Timestamp::now());
    let context = ValidationContext {
        rules: &rules,
        pkis: &app.cache.pkis,
        secrets: &app.cache.secrets,
        pods: &app.cache.pods,
        ca: app.cache.ca_summary(),
        now,
    };
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let judge = || review::validate(request, &context);
    let response = match request.operation {
        Operation::Delete => judge(),
        _ => store::evaluate_with(&rules, namespace, judge),
    };
    if let Some(refusal) = review::refusal(request, &response) {
        app.cache.rejections.note(refusal, now);
    }
    response
}

fn validate_policy(app: &App, request: &Request) -> AdmissionResponse {
    let start = Instant::now();
    let has_time = || start.elapsed() < POLICY_REVIEW_TIMEOUT;
    let (rules, pkis) = (app.cache.rules(), app.cache.readable_pkis());
    let judge = || review::validate_policy(request, &rules, pkis, has_time);
    tokio::task::block_in_place(judge)
}

/// The span of all log records about a request, and the attributes of its trace. (In JSON, `name`
/// is the span's own.)
fn begin(work: &mut Work, request: &Request) -> tracing::Span {
    let logged = |text: &str| cut(text, MAX_LOGGED_BYTES);
    let uid = logged(&request.uid);
    let namespace = logged(request.namespace.as_deref().unwrap_or_default());
    let object = logged(&request.name);
    let span = tracing::error_span!("admission", trace_id = %work.trace_id(), uid, webhook = WEBHOOK, namespace, object);
    work.note("admission.operation", || format!("{:?}", request.operation));
    work.note("admission.dry_run", || request.dry_run);
    work.note("object.kind", || logged(&request.kind.kind));
    work.note("admission.uid", || uid);
    work.note("object.namespace", || namespace);
    work.note("object.name", || object);
    span
}

/// Takes the question out of a body, or returns the reason why it cannot.
#[expect(clippy::result_large_err, reason = "a response is answered at once")]
fn parse<'a>(
    app: &App,
    headers: &HeaderMap,
    body: &'a [u8],
) -> Result<UnreadRequest<'a>, Response> {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let media = content_type.and_then(|value| value.split(';').next());
    if media.is_none_or(|media| !media.trim().eq_ignore_ascii_case("application/json")) {
        app.metrics.admission(WEBHOOK, "malformed");
        let message = "send an AdmissionReview as application/json\n";
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response());
    }
    if !app.cache.can_judge() {
        let message = "policies have not been read yet; try again\n";
        return Err((StatusCode::SERVICE_UNAVAILABLE, message).into_response());
    }
    UnreadRequest::parse(body).map_err(|error| malformed(app, &error))
}

fn malformed(app: &App, error: &ReviewError) -> Response {
    app.metrics.admission(WEBHOOK, "malformed");
    let message = printable(&error.to_string());
    (StatusCode::BAD_REQUEST, format!("{message}\n")).into_response()
}

/// Writes the answer. Judging is pure and takes microseconds, so it runs here.
fn answer(app: &App, request: &Request, response: AdmissionResponse, work: &mut Work) -> Response {
    let verdict = if response.allowed {
        "allowed"
    } else {
        "denied"
    };
    app.metrics.admission(WEBHOOK, verdict);
    let (operation, dry_run) = (&request.operation, request.dry_run);
    tracing::debug!(?operation, dry_run, allowed = response.allowed, "answered");
    work.note("admission.allowed", || response.allowed);
    if let Some((reasons, rules)) = review::denial_summary(&response) {
        if let Some(unlogged) = app.refusal_log.admits(Instant::now()) {
            tracing::info!(?operation, dry_run, reasons, rules, unlogged, "refused");
        }
        work.note("admission.reasons", || reasons);
    }
    axum::Json(response.into_review()).into_response()
}

async fn readyz(State(app): State<Arc<App>>) -> Response {
    let missing = app.missing();
    let (status, answer) = if missing.is_empty() {
        (StatusCode::OK, "ok".to_owned())
    } else {
        let answer = format!("not ready: {}", missing.join("; "));
        (StatusCode::SERVICE_UNAVAILABLE, answer)
    };
    let mut lines = vec![answer];
    // One namespace that may not be read is no reason to turn the others away.
    let refused = app.cache.scope.refused().into_iter();
    lines.extend(refused.map(|(namespace, resources)| {
        let resources = resources.join(", ");
        format!("not served: namespace {namespace}, whose {resources} may not be read")
    }));
    (status, lines.join("\n") + "\n").into_response()
}

async fn metrics(State(app): State<Arc<App>>, request: axum::extract::Request) -> Response {
    let client = Client::of(&request);
    // Admission must not wait for it.
    let page = tokio::task::spawn_blocking(move || app.requests.page(client)).await;
    page.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}
