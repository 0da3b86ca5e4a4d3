//! The listeners: HTTPS for admission, plain HTTP for health and metrics.

use crate::k8s::clock::Clock;
use crate::k8s::lease::Standing;
use crate::observability::metrics::Metrics;
use crate::observability::traces::Work;
use crate::store::{self, Cache};
use crate::util::text::{cut, printable};
use crate::webhook::review::{self, Request, ValidationContext};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use connections::{Bounded, Client, Connections};
use identity::Identity;
use jiff::Timestamp;
use kube::core::admission::{AdmissionResponse, Operation};
use limits::{HEALTH_ALLOWANCE, HEALTH_CONNECTIONS, LARGEST_BODY, Limits, WEBHOOK_ALLOWANCE};
use refusal_log::RefusalLog;
use requests::Requests;
use rustls::server::danger::ClientCertVerifier;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

mod connections;
pub mod identity;
pub mod limits;
mod refusal_log;
mod requests;
mod room;

/// The longest name of an object, and of what is told about a request: whoever reaches the port may
/// have sent anything.
const LONGEST_NAME: usize = 253;
/// The name of the webhook in metrics, logs and traces.
const WEBHOOK: &str = "validate";

/// How long a review of a policy judges Pkis. After five seconds the API server gives up, and
/// stores the policy.
const LONGEST_REVIEW: Duration = Duration::from_secs(2);

/// What the handlers know.
#[derive(Debug)]
pub struct App {
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
    clock: Arc<Clock>,
    identity: std::sync::OnceLock<Arc<Identity>>,
    draining: AtomicBool,
    limits: Limits,
    requests: Requests,
    /// For one review of a policy at a time.
    policy_turn: Semaphore,
    refusal_log: RefusalLog,
}

impl App {
    /// Handlers that judge by what `cache` knows. Not ready before they have an
    /// [identity](Self::serves_as).
    pub fn new(
        cache: Arc<Cache>,
        metrics: Arc<Metrics>,
        clock: Arc<Clock>,
        limits: Limits,
    ) -> Arc<Self> {
        Arc::new(Self {
            cache,
            clock,
            identity: std::sync::OnceLock::new(),
            draining: AtomicBool::new(false),
            limits,
            requests: Requests::new(limits.requests, metrics.clone()),
            policy_turn: Semaphore::new(1),
            metrics,
            refusal_log: RefusalLog::default(),
        })
    }

    /// From now on requests are answered with this identity.
    pub fn serves_as(&self, identity: Arc<Identity>) {
        // Set once, when the HTTPS listener opens.
        let _ = self.identity.set(identity);
    }

    /// Readiness is the first to go at shutdown, so that no new requests are sent here.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether this replica may take the lead. A fault of the webhook alone does not keep
    /// certificates from being issued.
    pub fn standing(&self) -> Standing {
        if !self.faults().is_empty() {
            Standing::Unfit
        } else if !self.webhook_faults().is_empty() {
            Standing::Unready
        } else {
            Standing::Ready
        }
    }

    /// Messages about everything that keeps this replica from being ready.
    fn missing(&self) -> Vec<String> {
        let mut missing = self.faults();
        missing.extend(self.webhook_faults());
        missing
    }

    fn webhook_faults(&self) -> Vec<String> {
        match self.identity.get() {
            Some(identity) => identity.trust_problems(),
            None => vec!["no serving certificate yet".to_owned()],
        }
    }

    /// Messages about what keeps this replica from serving and from leading.
    fn faults(&self) -> Vec<String> {
        let clock = self.clock.fault().map(|fault| fault.to_string());
        [
            (!self.draining.load(Ordering::Relaxed), "shutting down"),
            (
                self.cache.can_judge(),
                "policies and Pkis have not been read yet",
            ),
            (
                self.cache.scope.is_served(),
                "none of the namespaces to serve may be read",
            ),
        ]
        .into_iter()
        .filter(|(holds, _)| !holds)
        .map(|(_, otherwise)| otherwise.to_owned())
        .chain(clock)
        .chain(self.stale())
        .collect()
    }

    /// Says so if the caches by which objects are judged may be out of date.
    fn stale(&self) -> Option<String> {
        let limit = self.limits.watch_age;
        let stale = self.cache.stale(limit);
        (!stale.is_empty()).then(|| {
            format!(
                "the API server has not confirmed the watch of {} for more than {}s: the log tells why; a permission that is missing, most likely",
                stale.join(", "),
                limit.as_secs()
            )
        })
    }
}

/// Serves `/validate` over TLS until `handle` says stop: at the paths of `identity`, for `clients`
/// alone if these are known.
pub async fn admission(
    app: Arc<App>,
    identity: &Arc<Identity>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    listener: TcpListener,
    handle: Handle<SocketAddr>,
) -> io::Result<()> {
    let tls = RustlsConfig::from_config(Arc::new(identity.server_config(clients)));
    let most = app.limits.connections;
    let connections = Connections::new("webhook", most, WEBHOOK_ALLOWANCE, app.metrics.clone());
    let server = axum_server::from_tcp_rustls(listener, tls)?;
    let mut server = server.handle(handle).map(|inner| Bounded {
        inner,
        connections: connections.clone(),
    });
    limits::set(server.http_builder());
    tokio::select! {
        result = server.serve(admission_router(app).into_make_service()) => result,
        never = connections.sweep() => never,
    }
}

/// Serves `/livez`, `/readyz` and `/metrics` until `handle` says stop.
pub async fn health(
    app: Arc<App>,
    listener: TcpListener,
    handle: Handle<SocketAddr>,
) -> io::Result<()> {
    let most = HEALTH_CONNECTIONS;
    let connections = Connections::new("health", most, HEALTH_ALLOWANCE, app.metrics.clone());
    // Neither kubelet nor Prometheus speaks HTTP/2 without TLS.
    let server = axum_server::from_tcp(listener)?.http1_only();
    let mut server = server.handle(handle).map(|inner| Bounded {
        inner,
        connections: connections.clone(),
    });
    limits::set(server.http_builder());
    tokio::select! {
        result = server.serve(health_router(app).into_make_service()) => result,
        never = connections.sweep() => never,
    }
}

fn admission_router(app: Arc<App>) -> Router {
    Router::new()
        .route("/validate", post(validate))
        .route("/{segment}/validate", post(validate))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(app.clone(), admit))
        .layer(middleware::from_fn_with_state(app.clone(), at_known_path))
        .layer(middleware::from_fn_with_state(app.clone(), in_parting))
        .with_state(app)
}

fn health_router(app: Arc<App>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(app)
}

/// Answers 404 to whoever does not know the path, before anything else of the request is looked at.
async fn at_known_path(
    State(app): State<Arc<App>>,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    let client = Client::of(&request);
    let is_known = match app.identity.get() {
        Some(identity) => identity.paths().admit(request.uri().path(), client).await,
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

/// While this replica leaves, has each client close its connection and come back elsewhere. Were
/// the connection closed at the end of the drain instead, a request that is on its way at that
/// moment would be lost, and API servers send it but once.
async fn in_parting(
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

async fn validate(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut work = Work::request(WEBHOOK, &headers);
    let mut turn = app.requests.turn(body.len()).await;
    let mut read = question(&app, &headers, &body);
    let awaited = read.as_ref().ok().and_then(|it| Awaited::of(&app, it));
    let mut policy_turn = None;
    if let Some(awaited) = awaited {
        // What was read takes up many times as much as the body, and holds up others: it is read
        // again after the wait.
        drop((turn.take(), read));
        match awaited {
            Awaited::Namespace(namespace) => drop(app.cache.rules_for(&namespace).await),
            Awaited::PolicyTurn => policy_turn = app.policy_turn.acquire().await.ok(),
        }
        turn = app.requests.turn(body.len()).await;
        read = question(&app, &headers, &body);
    }
    let response = match read {
        Ok(request) => begin(&mut work, &request).in_scope(|| {
            let response = if review::is_about_policy(&request) {
                validate_policy(&app, &request)
            } else {
                validate_pki(&app, &request)
            };
            answer(&app, &request, response, &mut work)
        }),
        Err(response) => response,
    };
    drop((turn, policy_turn));
    response
}

/// What has to come before a request can be judged.
enum Awaited {
    /// The labels of this namespace.
    Namespace(String),
    /// Every Pki may have to be judged twice, which takes longer than others that are served by
    /// this thread should wait. One at a time: who reaches this port must not be able to keep every
    /// thread busy.
    PolicyTurn,
}

impl Awaited {
    fn of(app: &App, request: &Request) -> Option<Self> {
        if review::is_about_policy(request) {
            return Some(Self::PolicyTurn);
        }
        let namespace = request.namespace.as_deref().unwrap_or_default();
        // A deletion is not judged by the labels of its namespace.
        let is_known = request.operation == Operation::Delete || app.cache.rules().knows(namespace);
        (!is_known).then(|| Self::Namespace(namespace.to_owned()))
    }
}

fn validate_pki(app: &App, request: &Request) -> AdmissionResponse {
    let (rules, now) = (app.cache.rules(), Timestamp::now());
    let world = ValidationContext {
        rules: &rules,
        pkis: &app.cache.pkis,
        secrets: &app.cache.secrets,
        pods: &app.cache.pods,
        ca: app.cache.ca_summary(),
        now,
    };
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let judge = || review::validate(request, &world);
    let response = match request.operation {
        // No rule is asked.
        Operation::Delete => judge(),
        _ => store::judging(&rules, namespace, judge),
    };
    if let Some(refusal) = review::refusal(request, &response) {
        app.cache.refusals.note(refusal, now);
    }
    response
}

fn validate_policy(app: &App, request: &Request) -> AdmissionResponse {
    let begin = Instant::now();
    let has_time = || begin.elapsed() < LONGEST_REVIEW;
    let (rules, pkis) = (app.cache.rules(), app.cache.readable_pkis());
    let judge = || review::validate_policy(request, &rules, pkis, has_time);
    tokio::task::block_in_place(judge)
}

/// What is on every log record about a request, at whatever level, and in its trace. (In JSON,
/// `name` is the span's own.)
fn begin(work: &mut Work, request: &Request) -> tracing::Span {
    let uid = cut(&request.uid, LONGEST_NAME);
    let namespace = cut(
        request.namespace.as_deref().unwrap_or_default(),
        LONGEST_NAME,
    );
    let object = cut(&request.name, LONGEST_NAME);
    let span = tracing::error_span!("admission", trace_id = %work.trace_id(), uid, webhook = WEBHOOK, namespace, object);
    work.note("admission.operation", || format!("{:?}", request.operation));
    work.note("admission.dry_run", || request.dry_run);
    work.note("object.kind", || cut(&request.kind.kind, LONGEST_NAME));
    work.note("admission.uid", || uid);
    work.note("object.namespace", || namespace);
    work.note("object.name", || object);
    span
}

/// Reads the question, or says why it cannot be answered.
#[expect(clippy::result_large_err, reason = "a response is answered at once")]
fn question(app: &App, headers: &HeaderMap, body: &[u8]) -> Result<Request, Response> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if content_type
        .split(';')
        .next()
        .is_none_or(|media| !media.trim().eq_ignore_ascii_case("application/json"))
    {
        app.metrics.admission(WEBHOOK, "malformed");
        let message = "send an AdmissionReview as application/json\n";
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response());
    }
    if !app.cache.can_judge() {
        let message = "policies have not been read yet; try again\n";
        return Err((StatusCode::SERVICE_UNAVAILABLE, message).into_response());
    }
    review::read(body).map_err(|error| {
        app.metrics.admission(WEBHOOK, "malformed");
        let message = printable(&error.to_string());
        (StatusCode::BAD_REQUEST, format!("{message}\n")).into_response()
    })
}

/// Writes the answer. Everything between it and the question is pure and takes microseconds, so it
/// runs where it is.
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
    if let Some((reasons, rules)) = review::objections(&response) {
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
    for (namespace, resources) in app.cache.scope.refused() {
        let resources = resources.join(", ");
        lines.push(format!(
            "not served: namespace {namespace}, whose {resources} may not be read"
        ));
    }
    (status, lines.join("\n") + "\n").into_response()
}

async fn metrics(State(app): State<Arc<App>>, request: axum::extract::Request) -> Response {
    let client = Client::of(&request);
    // Admission must not wait for it.
    let made = tokio::task::spawn_blocking(move || app.requests.page(client)).await;
    made.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}
