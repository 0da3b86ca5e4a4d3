//! The listeners: HTTPS for admission, plain HTTP for health and metrics.

use crate::k8s::clock::Clock;
use crate::k8s::lease::Standing;
use crate::observability::metrics::Metrics;
use crate::store::Cache;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use connections::{Bounded, Connections};
use limits::{HEALTH_CONNECTIONS, HEALTH_TIMEOUTS, Limits, WEBHOOK_TIMEOUTS};
use refusal_log::RefusalLog;
use requests::Requests;
use rustls::server::danger::ClientCertVerifier;
use serving_cert::ServingCert;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::Semaphore;

mod connections;
mod handlers;
pub mod limits;
mod pool;
mod refusal_log;
mod requests;
pub mod serving_cert;

/// The state that the handlers share.
#[derive(Debug)]
pub struct App {
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
    clock: Arc<Clock>,
    serving_cert: OnceLock<Arc<ServingCert>>,
    draining: AtomicBool,
    limits: Limits,
    requests: Requests,
    /// One review of a policy at a time.
    policy_reviews: Semaphore,
    refusal_log: RefusalLog,
}

impl App {
    /// Handlers that judge by `cache`. Not ready before they have a
    /// [serving certificate](Self::set_serving_cert).
    pub fn new(
        cache: Arc<Cache>,
        metrics: Arc<Metrics>,
        clock: Arc<Clock>,
        limits: Limits,
    ) -> Arc<Self> {
        Arc::new(Self {
            cache,
            clock,
            serving_cert: OnceLock::new(),
            draining: AtomicBool::new(false),
            limits,
            requests: Requests::new(limits.requests, metrics.clone()),
            policy_reviews: Semaphore::new(1),
            metrics,
            refusal_log: RefusalLog::default(),
        })
    }

    /// Answers requests with this certificate from now on.
    pub fn set_serving_cert(&self, serving_cert: Arc<ServingCert>) {
        let _ = self.serving_cert.set(serving_cert);
    }

    /// Readiness is the first to go at shutdown, so that no new requests are sent here.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether this replica may lead. A fault of the webhook alone does not stop issuance.
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
        [self.faults(), self.webhook_faults()].concat()
    }

    fn webhook_faults(&self) -> Vec<String> {
        let unknown = || vec!["no serving certificate yet".to_owned()];
        let serving_cert = self.serving_cert.get();
        serving_cert.map_or_else(unknown, |it| it.trust_problems())
    }

    /// Messages about what keeps this replica from serving and from leading.
    fn faults(&self) -> Vec<String> {
        let is_draining = self.draining.load(Ordering::Relaxed);
        let is_unread = !self.cache.can_judge();
        let is_refused = !self.cache.scope.is_served();
        [
            is_draining.then(|| "shutting down".to_owned()),
            is_unread.then(|| "policies and Pkis have not been read yet".to_owned()),
            is_refused.then(|| "none of the namespaces to serve may be read".to_owned()),
            self.clock.fault().map(|fault| fault.to_string()),
            self.stale(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// A message if the caches by which objects are judged may be out of date.
    fn stale(&self) -> Option<String> {
        let limit = self.limits.watch_age;
        let stale = self.cache.stale(limit);
        (!stale.is_empty()).then(|| {
            format!(
                "the API server has not confirmed the watch of {} for more than {}s: see the log of the operator; probably a permission is missing",
                stale.join(", "),
                limit.as_secs()
            )
        })
    }
}

/// Serves `/validate` over TLS until `handle` stops it: at the paths of `serving_cert`, and for
/// `clients` alone if these are known.
pub async fn admission(
    app: Arc<App>,
    serving_cert: &Arc<ServingCert>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    listener: TcpListener,
    handle: Handle<SocketAddr>,
) -> io::Result<()> {
    let tls = RustlsConfig::from_config(Arc::new(serving_cert.server_config(clients)));
    let max = app.limits.connections;
    let connections = Connections::new("webhook", max, WEBHOOK_TIMEOUTS, app.metrics.clone());
    let server = axum_server::from_tcp_rustls(listener, tls)?;
    let mut server = server.handle(handle).map(|inner| Bounded {
        inner,
        connections: connections.clone(),
    });
    limits::set(server.http_builder());
    tokio::select! {
        result = server.serve(handlers::admission_router(app).into_make_service()) => result,
        never = connections.sweep() => never,
    }
}

/// Serves `/livez`, `/readyz` and `/metrics` until `handle` stops it.
pub async fn health(
    app: Arc<App>,
    listener: TcpListener,
    handle: Handle<SocketAddr>,
) -> io::Result<()> {
    let metrics = app.metrics.clone();
    let connections = Connections::new("health", HEALTH_CONNECTIONS, HEALTH_TIMEOUTS, metrics);
    // Neither kubelet nor Prometheus speaks HTTP/2 without TLS.
    let server = axum_server::from_tcp(listener)?.http1_only();
    let mut server = server.handle(handle).map(|inner| Bounded {
        inner,
        connections: connections.clone(),
    });
    limits::set(server.http_builder());
    tokio::select! {
        result = server.serve(handlers::health_router(app).into_make_service()) => result,
        never = connections.sweep() => never,
    }
}
