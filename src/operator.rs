//! Connects the parts, and stops them at shutdown.

use crate::cli::config::Config;
use crate::controllers;
use crate::controllers::ca::{CaController, CaSettings, summary};
use crate::controllers::pki::{self, Context};
use crate::controllers::pod_certificate::{Identities, PodCertificateController, Signer};
use crate::controllers::pod_hints::{name, waiting};
use crate::controllers::restart::{self, RestartController};
use crate::controllers::trust_bundle::{self, TrustBundleController};
use crate::controllers::{ignored_metadata, policy_status, rejected_pki};
use crate::events::Publisher;
use crate::k8s::clock::{Clock, ClockLayer};
use crate::k8s::lease::Election;
use crate::k8s::object_key::Key;
use crate::model::ca::Ca;
use crate::model::pod_leaves::PodLeaves;
use crate::model::trust_bundle::Published;
use crate::observability::metrics::Metrics;
use crate::observability::traces::otlp;
use crate::store::Cache;
use crate::webhook::server::serving_cert::{ServingCertController, client_ca};
use crate::webhook::server::{self, App, limits};
use axum_server::Handle;
use futures::FutureExt as _;
use futures::future;
use kube::Client;
use kube::client::ClientBuilder;
use rustls::server::danger::ClientCertVerifier;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// How long requests and Events may take to end after the drain.
const GRACE: Duration = Duration::from_secs(10);
/// The chart gives a pod 25 seconds after the drain, also if the API server or collector hangs.
const _: () = assert!(GRACE.as_secs() + otlp::FLUSH.as_secs() <= 20);

/// Why the operator stopped, or could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// No way to the API server.
    #[error("cannot reach the API server: {0}; run inside a cluster, or set KUBECONFIG")]
    Client(#[from] kube::Error),
    /// No kubeconfig and not in a pod.
    #[error("cannot find a cluster: {0}; run inside one, or set KUBECONFIG")]
    Config(#[from] kube::config::InferConfigError),
    /// A port is taken, most likely.
    #[error("cannot listen on {0}: {1}; choose another with --{2}")]
    Listen(SocketAddr, #[source] io::Error, &'static str),
    /// The webhook's clients cannot be verified.
    #[error(transparent)]
    ClientCa(#[from] client_ca::ClientCaError),
    /// A part that runs for ever ended.
    #[error("{0} stopped unexpectedly")]
    Stopped(&'static str),
}

struct Operator {
    shared: Shared,
    app: Arc<App>,
    parts: JoinSet<&'static str>,
    publishing: JoinHandle<()>,
    admission: Handle<SocketAddr>,
    health: Handle<SocketAddr>,
}

#[derive(Clone)]
struct Shared {
    client: Client,
    cache: Arc<Cache>,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    clock: Arc<Clock>,
}

/// Runs until `shutdown` is cancelled.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), OperatorError> {
    let mut operator = Operator::start(&config).await?;
    let (shared, app) = (operator.shared.clone(), operator.app.clone());
    let mut leading = tokio::spawn(lead(shared, &config, app, shutdown.clone()));
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        _ = &mut leading => return Err(OperatorError::Stopped("the reconciler")),
        _ = &mut operator.publishing => return Err(OperatorError::Stopped("the publisher of Events")),
        Some(ended) = operator.parts.join_next() => return Err(OperatorError::Stopped(ended.unwrap_or("a part that panicked"))),
    }
    tracing::info!("shutting down");
    operator.app.drain();
    tokio::time::sleep(config.drain_seconds).await;
    operator.stop(leading).await;
    tracing::info!("stopped");
    Ok(())
}

impl Operator {
    async fn start(config: &Config) -> Result<Self, OperatorError> {
        let clients = config.webhook_client_ca.as_deref();
        let clients = clients.map(client_ca::verifier).transpose()?;
        let cluster = kube::Config::infer().await?;
        let mut rules = config.rules();
        rules.reserve_api_server(cluster.cluster_url.host().unwrap_or_default());
        let clock = Clock::new();
        let client = connect(cluster, &clock)?;
        let metrics = Arc::new(Metrics::default());
        let health_listener = listen(config.metrics_listen, "metrics-listen")?;
        let admission_listener = listen(config.listen, "listen")?;
        let (cache, follow) = Cache::new(&client, config.scope(), rules);
        metrics.show(cache.clone());
        let limits = config.limits().within(limits::descriptors());
        let (publisher, publish) = Publisher::new(
            client.clone(),
            config.identity.clone(),
            config.reminder_seconds,
            metrics.clone(),
            clock.clone(),
        );
        let mut operator = Self {
            app: App::new(cache.clone(), metrics.clone(), clock.clone(), limits),
            parts: JoinSet::new(),
            publishing: tokio::spawn(publish),
            admission: Handle::new(),
            health: Handle::new(),
            shared: Shared {
                client,
                cache,
                publisher,
                metrics,
                clock,
            },
        };
        let health = operator.health.clone();
        let health = server::health(operator.app.clone(), health_listener, health);
        operator.spawn("the health listener", health.map(drop));
        operator.spawn("the cache", follow);
        operator.spawn_reports(config);
        let webhook = operator.webhook(config, clients, admission_listener);
        operator.spawn("the webhook", webhook);
        Ok(operator)
    }

    /// Starts the parts that report what the caches show.
    fn spawn_reports(&mut self, config: &Config) {
        let Shared {
            client,
            cache,
            publisher,
            metrics,
            clock,
        } = self.shared.clone();
        let summary = summary::follow(client, config.ca().secret, cache.clone());
        self.spawn("the summary of the CA", summary);
        let lease = Key::new(config.namespace.clone(), config.lease.clone());
        let replica = config.identity.clone();
        let clocks = controllers::clock::follow(clock, lease, replica, publisher.clone(), metrics);
        self.spawn("the comparison of clocks", clocks);
        let rejections = rejected_pki::follow(cache, publisher);
        self.spawn("the memory of refusals", rejections);
    }

    /// The webhook, which waits for its certificate. A fault of its CA does not stop issuance.
    fn webhook(
        &self,
        config: &Config,
        clients: Option<Arc<dyn ClientCertVerifier>>,
        listener: TcpListener,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (app, handle) = (self.app.clone(), self.admission.clone());
        let Shared {
            client,
            metrics,
            clock,
            ..
        } = self.shared.clone();
        let start = ServingCertController::start(client, config.webhook(), metrics, clock);
        async move {
            let controller = start.await;
            let serving_cert = controller.serving_cert();
            app.set_serving_cert(serving_cert.clone());
            tokio::select! {
                _ = server::admission(app, &serving_cert, clients, listener, handle) => {}
                () = controller.run() => {}
            }
        }
    }

    /// Runs a part in the background. If it ends, the operator ends with its name.
    fn spawn(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.parts.spawn(part.map(move |()| name));
    }

    /// Waits until requests are answered and Events are published, for [`GRACE`] at most.
    async fn stop(self, leading: JoinHandle<()>) {
        self.admission.graceful_shutdown(Some(GRACE));
        let are_published = async {
            let _ = leading.await;
            self.shared.publisher.close();
            let _ = self.publishing.await;
        };
        let are_answered = async {
            while self.admission.connection_count() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let all = future::join(are_published, are_answered);
        if tokio::time::timeout(GRACE, all).await.is_err() {
            tracing::warn!("graceful shutdown timed out");
        }
        self.health.shutdown();
    }
}

/// A client whose responses are compared with the clock.
fn connect(cluster: kube::Config, clock: &Arc<Clock>) -> Result<Client, kube::Error> {
    let builder = ClientBuilder::try_from(cluster)?;
    Ok(builder.with_layer(&ClockLayer(clock.clone())).build())
}

struct Controllers {
    ca: CaSettings,
    trust_bundle: trust_bundle::TrustBundleSettings,
    pki: pki::PkiSettings,
    restart: Option<restart::RestartSettings>,
}

/// Runs the controllers while this replica leads.
fn lead(
    shared: Shared,
    config: &Config,
    app: Arc<App>,
    shutdown: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let election = Election::new(
        shared.client.clone(),
        &config.namespace,
        config.lease.clone(),
        config.identity.clone(),
    );
    let controllers = Controllers {
        ca: config.ca(),
        trust_bundle: config.trust(),
        pki: config.reconcile(),
        restart: config.restarts(),
    };
    async move {
        let begin = |end| Box::pin(control(shared.clone(), &controllers, end));
        let after = |is_held: bool| {
            shared.metrics.leader.set(0);
            if !is_held {
                shared.publisher.drop_as_former_leader();
            }
        };
        election
            .run(shutdown, || app.standing(), begin, after)
            .await;
    }
}

/// Runs all controllers for one term as leader: until one ends, or the clock cannot be trusted.
fn control(
    shared: Shared,
    settings: &Controllers,
    end: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let Shared {
        client,
        cache,
        publisher,
        metrics,
        clock,
    } = shared.clone();
    let (copies, leaves) = (Arc::new(Published::default()), Arc::default());
    let (cas, ca) = certificate_authority(&shared, settings, &copies, &leaves);
    let trust_bundles = TrustBundleController {
        client: client.clone(),
        scope: cache.scope.clone(),
        settings: settings.trust_bundle.clone(),
        ca: ca.clone(),
        published: copies,
        publisher: publisher.clone(),
        metrics: metrics.clone(),
    };
    let pods = pod_certificates(&shared, settings, &ca, leaves);
    let hints = name::follow(cache.clone(), publisher.clone());
    let ignored = ignored_metadata::follow(cache.clone(), publisher.clone());
    let bundle = settings.trust_bundle.name.clone();
    let waiting = waiting::follow(client.clone(), cache.clone(), publisher, bundle);
    let policies = policy_status::run(client, cache);
    let (context, restarts) = issuance(shared, settings, ca);
    let restarts = async {
        match restarts {
            Some(controller) => controller.run().await,
            None => future::pending().await,
        }
    };
    async move {
        metrics.leader.set(1);
        tokio::select! {
            // First: a wrong time must not begin anything more.
            biased;
            () = clock.untrusted() => {}
            () = hints => {}
            () = ignored => {}
            () = Box::pin(waiting) => {}
            () = Box::pin(policies) => {}
            () = Box::pin(pki::run(context, end)) => {}
            () = cas.run() => {}
            () = Box::pin(pods.run()) => {}
            () = Box::pin(trust_bundles.run()) => {}
            () = Box::pin(restarts) => {}
        }
    }
}

/// The controller of the CA, and the CA.
fn certificate_authority(
    shared: &Shared,
    settings: &Controllers,
    copies: &Arc<Published>,
    leaves: &Arc<PodLeaves>,
) -> (CaController, watch::Receiver<Option<Arc<Ca>>>) {
    let (controller, ca) = CaController::new(
        shared.client.clone(),
        settings.ca.clone(),
        shared.cache.clone(),
        copies.clone(),
        shared.publisher.clone(),
        shared.metrics.clone(),
        shared.clock.clone(),
    );
    (controller.with_pod_leaves(leaves.clone()), ca)
}

/// The signer of pod certificates.
fn pod_certificates(
    shared: &Shared,
    settings: &Controllers,
    ca: &watch::Receiver<Option<Arc<Ca>>>,
    leaves: Arc<PodLeaves>,
) -> PodCertificateController {
    let signer = Signer {
        client: shared.client.clone(),
        cache: shared.cache.clone(),
        ca: ca.clone(),
        clock: shared.clock.clone(),
        leaves,
        identities: Identities::default(),
    };
    PodCertificateController {
        signer: Arc::new(signer),
        publisher: shared.publisher.clone(),
        metrics: shared.metrics.clone(),
        reminder: settings.pki.reminder,
    }
}

/// The context of the reconciler, and the controller that restarts workloads after a renewal.
fn issuance(
    shared: Shared,
    settings: &Controllers,
    ca: watch::Receiver<Option<Arc<Ca>>>,
) -> (Arc<Context>, Option<RestartController>) {
    let Shared {
        client,
        cache,
        publisher,
        metrics,
        clock,
    } = shared;
    let restarts = settings.restart.clone().map(|settings| {
        let (client, publisher) = (client.clone(), publisher.clone());
        RestartController::new(client, settings, cache.clone(), publisher, metrics.clone())
    });
    let (restarts, renewals) = restarts.unzip();
    let on_ready = renewals.map(|renewals| -> pki::OnReady {
        Box::new(move |pki, certificate, users| renewals.found(pki, certificate, users))
    });
    let settings = settings.pki.clone();
    let context = Context::new(client, cache, ca, publisher, metrics, clock, settings);
    (Arc::new(context.with_on_ready(on_ready)), restarts)
}

fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, OperatorError> {
    let listener = TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    listener.map_err(|error| OperatorError::Listen(address, error, flag))
}
