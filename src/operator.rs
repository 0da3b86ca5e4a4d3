//! Puts the parts together and takes them apart again at shutdown.

use crate::cli::config::Config;
use crate::controllers;
use crate::controllers::ca::{CaController, CaSettings, summary};
use crate::controllers::pki::{self, Context};
use crate::controllers::pod_hints::{name, waiting};
use crate::controllers::restart::{self, RestartController};
use crate::controllers::trust_bundle::{self, TrustBundleController};
use crate::controllers::{ignored_metadata, policy_status, rejected_pki};
use crate::events::Publisher;
use crate::k8s::clock::{Clock, ClockLayer};
use crate::k8s::lease::Election;
use crate::k8s::object_key::Key;
use crate::model::trust_bundle::Published;
use crate::observability::metrics::Metrics;
use crate::observability::traces::otlp;
use crate::store::Cache;
use crate::webhook::server::{self, App, limits, serving_cert};
use axum_server::Handle;
use futures::future;
use kube::Client;
use kube::client::ClientBuilder;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long what is under way may take to end after the drain.
const GRACE: Duration = Duration::from_secs(10);
/// The chart gives a pod the drain and 25 seconds more, then it is killed. Nothing else waits for
/// others, so this holds also when neither the API server nor the collector answers.
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
    #[error("cannot listen on {address}: {source}; choose another with --{flag}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Which flag says so.
        flag: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The webhook's clients cannot be told apart.
    #[error(transparent)]
    ClientCa(#[from] serving_cert::client_ca::ClientCaError),
    /// A part that runs for ever ended.
    #[error("{0} stopped unexpectedly")]
    Stopped(&'static str),
}

/// Runs until `shutdown` is cancelled.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), OperatorError> {
    let clients = config.webhook_client_ca.as_deref();
    let clients = clients.map(serving_cert::client_ca::verifier).transpose()?;
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
    let app = App::new(cache.clone(), metrics.clone(), clock.clone(), limits);
    let (publisher, publish) = Publisher::new(
        client.clone(),
        config.identity.clone(),
        config.reminder_seconds,
        metrics.clone(),
        clock.clone(),
    );

    let mut parts = JoinSet::new();
    let health_handle = Handle::new();
    let health = server::health(app.clone(), health_listener, health_handle.clone());
    spawn(&mut parts, "the health listener", async {
        drop(health.await);
    });
    spawn(&mut parts, "the cache", follow);
    let summary = summary::follow(client.clone(), config.ca().secret, cache.clone());
    spawn(&mut parts, "the summary of the CA", summary);
    let clock_report = controllers::clock::follow(
        clock.clone(),
        Key::new(config.namespace.clone(), config.lease.clone()),
        config.identity.clone(),
        publisher.clone(),
        metrics.clone(),
    );
    spawn(&mut parts, "the comparison of clocks", clock_report);
    let mut publishing = tokio::spawn(publish);
    let refusals = rejected_pki::follow(cache.clone(), publisher.clone());
    spawn(&mut parts, "the memory of refusals", refusals);

    let admission_handle = Handle::new();
    let admission = {
        let (app, handle) = (app.clone(), admission_handle.clone());
        let start = serving_cert::ServingCertController::start(
            client.clone(),
            config.webhook(),
            metrics.clone(),
            clock.clone(),
        );
        async move {
            // What is wrong with the webhook's CA keeps no certificate from being issued.
            let controller = start.await;
            let serving_cert = controller.serving_cert();
            app.set_serving_cert(serving_cert.clone());
            tokio::select! {
                _ = server::admission(app, &serving_cert, clients, admission_listener, handle) => {}
                () = controller.run() => {}
            }
        }
    };
    spawn(&mut parts, "the webhook", admission);

    let shared = Shared {
        client,
        cache,
        publisher: publisher.clone(),
        metrics,
        clock,
    };
    let lead = lead(shared, &config, app.clone(), shutdown.clone());
    let mut leading = tokio::spawn(lead);
    tokio::select! {
        // First, because it is what ends the others.
        biased;
        () = shutdown.cancelled() => {}
        _ = &mut leading => return Err(OperatorError::Stopped("the reconciler")),
        _ = &mut publishing => return Err(OperatorError::Stopped("the publisher of Events")),
        Some(ended) = parts.join_next() => return Err(OperatorError::Stopped(ended.unwrap_or("a part that panicked"))),
    }

    tracing::info!("shutting down");
    app.drain();
    tokio::time::sleep(config.drain_seconds).await;
    admission_handle.graceful_shutdown(Some(GRACE));
    let all_is_said = async {
        let _ = leading.await;
        publisher.close();
        let _ = publishing.await;
    };
    let all_is_answered = async {
        while admission_handle.connection_count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let all = future::join(all_is_said, all_is_answered);
    if tokio::time::timeout(GRACE, all).await.is_err() {
        tracing::warn!("what was under way did not end in time");
    }
    health_handle.shutdown();
    tracing::info!("stopped");
    Ok(())
}

/// A client whose responses are compared with the clock.
fn connect(cluster: kube::Config, clock: &Arc<Clock>) -> Result<Client, kube::Error> {
    let builder = ClientBuilder::try_from(cluster)?;
    Ok(builder.with_layer(&ClockLayer(clock.clone())).build())
}

/// Handles that all parts share.
#[derive(Clone)]
struct Shared {
    client: Client,
    cache: Arc<Cache>,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    clock: Arc<Clock>,
}

/// The settings of the controllers.
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

/// Runs all controllers for one term as leader, until one of them ends or the clock cannot be
/// trusted any more.
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
    } = shared;
    let copies = Arc::new(Published::default());
    let (keeper, ca) = CaController::new(
        client.clone(),
        settings.ca.clone(),
        cache.clone(),
        copies.clone(),
        publisher.clone(),
        metrics.clone(),
        clock.clone(),
    );
    let distributor = TrustBundleController::new(
        &client,
        &cache.scope,
        &settings.trust_bundle,
        &ca,
        &copies,
        publisher.clone(),
        metrics.clone(),
    );
    let restarter = settings.restart.clone().map(|settings| {
        let (client, publisher) = (client.clone(), publisher.clone());
        RestartController::new(client, settings, cache.clone(), publisher, metrics.clone())
    });
    let (restarter, renewals) = restarter.unzip();
    let hints = name::follow(cache.clone(), publisher.clone());
    let ignored = ignored_metadata::follow(cache.clone(), publisher.clone());
    let bundle = settings.trust_bundle.name.clone();
    let waiting = waiting::follow(client.clone(), cache.clone(), publisher.clone(), bundle);
    let policies = policy_status::run(client.clone(), cache.clone());
    let leader = metrics.leader.clone();
    let context = Context::new(
        client,
        cache,
        ca,
        publisher,
        metrics,
        clock.clone(),
        settings.pki.clone(),
    );
    let on_ready = renewals.map(|renewals| -> pki::OnReady {
        Box::new(move |pki, certificate, users| renewals.found(pki, certificate, users))
    });
    let context = Arc::new(context.with_on_ready(on_ready));
    let restarting = async {
        match restarter {
            Some(restarter) => restarter.run().await,
            None => future::pending().await,
        }
    };
    async move {
        leader.set(1);
        tokio::select! {
            // First, so that nothing more is begun by a wrong time.
            biased;
            () = clock.distrusted() => {}
            () = hints => {}
            () = ignored => {}
            () = Box::pin(waiting) => {}
            () = Box::pin(policies) => {}
            () = Box::pin(pki::run(context, end)) => {}
            () = keeper.run() => {}
            () = Box::pin(distributor.run()) => {}
            () = Box::pin(restarting) => {}
        }
    }
}

fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, OperatorError> {
    let listener = TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    listener.map_err(|source| OperatorError::Listen {
        address,
        flag,
        source,
    })
}

/// Runs a part in the background; should it ever end, its name is what ends the operator.
fn spawn(
    parts: &mut JoinSet<&'static str>,
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) {
    parts.spawn(async move {
        work.await;
        name
    });
}
