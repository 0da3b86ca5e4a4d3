//! One look at one [`Pki`]: observe, plan, act.
//!
//! 1. **Observe**: the Pki and its rivals from the caches, its Secret from the API server.
//! 2. [`plan`](plan::plan) decides, on those facts alone.
//! 3. **Act**: write the Secret if the plan says so, the status if it changed, and hand to [`crate::events`] what
//!    people should hear. A Secret and its status are the two writes of an issuance; nothing changed is no write.
//!
//! Only the leader runs this. Every write, of a Secret and of a status, carries the version it was decided on, so that
//! one who has lost the lead without knowing, or whose cache is behind, writes nothing and looks again.

use crate::api::{Pki, PkiStatus, StoredPki};
use crate::cache::{self, Cache};
use crate::claims;
use crate::events::{self, Publisher};
use crate::index::Key;
use crate::metrics::Metrics;
use crate::policy::Approved;
use crate::schedule::Schedule;
use futures::{Stream, StreamExt, future, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::error_boundary::InvalidObject;
use kube::runtime::Controller;
use kube::runtime::controller::{self, Action, Config};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt};
use pki_certs::Authority;
use plan::{Need, Observed, Plan, plan};
use retry::Retries;
use serde_json::json;
use status::{Certificate, Outcome};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use written::Written;

pub mod plan;
mod retry;
pub mod secret;
pub mod status;
mod written;

/// The name under which the operator writes, as `managedFields` show it.
pub const FIELD_MANAGER: &str = "pki-operator";

/// How many Pkis are looked at at the same time. The work is waiting for the API server.
const CONCURRENCY: u16 = 32;

/// What the reconciler works with.
pub struct Context {
    /// The API server, as the operator's service account.
    pub client: Client,
    /// What is known of the cluster.
    pub cache: Arc<Cache>,
    /// The authority that signs.
    pub authority: Authority,
    /// Tells people.
    pub publisher: Publisher,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// How often a fault that lasts is said again.
    pub reminder: Duration,
    schedule: Schedule,
    retries: Retries,
    written: Written,
}

/// Why a look at a Pki ended early. It is taken again soon.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The Secret could not be read.
    #[error("cannot read Secret {secret}: {source}")]
    ReadSecret {
        /// The Secret.
        secret: Key,
        /// What the API server said.
        source: kube::Error,
    },
    /// The status could not be written.
    #[error("cannot write the status of Pki {pki}: {source}")]
    WriteStatus {
        /// The Pki.
        pki: Key,
        /// What the API server said.
        source: kube::Error,
    },
    /// Somebody else wrote in between.
    #[error("Pki {pki} or its Secret has changed meanwhile")]
    Outdated {
        /// The Pki.
        pki: Key,
    },
}

/// Why no certificate was written, which the Pki's author hears.
#[derive(Debug, thiserror::Error)]
enum IssueError {
    #[error(transparent)]
    Certificate(#[from] pki_certs::IssueError),
    #[error("{}", api_message(.0))]
    Write(#[from] kube::Error),
}

/// The API server's own sentence (a quota, a missing permission), without this client's wrapping.
fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

impl Context {
    /// A context for one term as leader.
    pub fn new(
        client: Client,
        cache: Arc<Cache>,
        authority: Authority,
        publisher: Publisher,
        metrics: Arc<Metrics>,
        reminder: Duration,
    ) -> Self {
        let (schedule, retries, written) = Default::default();
        Self {
            client,
            cache,
            authority,
            publisher,
            metrics,
            reminder,
            schedule,
            retries,
            written,
        }
    }

    /// Drops what is kept of a Pki that is gone.
    fn forget(&self, key: &Key) {
        self.schedule.forget(key);
        self.retries.forget(key);
        self.written.forget(key);
    }
}

/// Reconciles until `shutdown`, then finishes what is under way.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let cache = context.cache.clone();
    let triggers = cache.triggers();
    if shutdown.run_until_cancelled(cache.synced()).await.is_none() {
        return;
    }
    tracing::info!(pkis = cache.pkis.len(), "reconciling");
    let due = due(context.clone());
    Controller::for_stream(stream::pending(), cache.pkis.clone())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_all_on(stream::once(future::ready(())).chain(cache.rules_changed()))
        .reconcile_on(triggers)
        .reconcile_on(due)
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, on_error, context.clone())
        .for_each(|result| {
            if let Err(controller::Error::ObjectNotFound(gone)) = result {
                context.forget(&Key::new(gone.namespace.unwrap_or_default(), gone.name));
            }
            future::ready(())
        })
        .await;
}

/// The Pkis whose renewal has come due, by the wall clock, which is read at least twice a minute: a timer would stop
/// while the machine sleeps.
fn due(context: Arc<Context>) -> impl Stream<Item = ObjectRef<StoredPki>> + Send + 'static {
    const POLL: Duration = Duration::from_secs(30);
    stream::unfold(context, |context| async move {
        tokio::time::sleep(context.schedule.pause(Timestamp::now(), POLL)).await;
        let keys = context.schedule.take_due(Timestamp::now());
        let references = keys
            .into_iter()
            .map(|key| ObjectRef::new(&key.name).within(&key.namespace));
        Some((stream::iter(references.collect::<Vec<_>>()), context))
    })
    .flatten()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature is the controller's"
)]
fn on_error(stored: Arc<StoredPki>, error: &Error, context: Arc<Context>) -> Action {
    if let Error::Outdated { pki } = error {
        tracing::debug!(%pki, "changed meanwhile; will look again");
        return Action::requeue(Duration::from_millis(200));
    }
    tracing::warn!(pki = %Key::of(&*stored), %error, "will look again");
    context.metrics.reconcile_errors.inc();
    Action::requeue(Duration::from_secs(5))
}

async fn reconcile(stored: Arc<StoredPki>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let result = match &stored.0 {
        Ok(pki) => look(&context.written.overlay(pki), &context).await,
        Err(invalid) => {
            report_unreadable(invalid, &context);
            Ok(Action::await_change())
        }
    };
    context
        .metrics
        .reconcile_seconds
        .observe(started.elapsed().as_secs_f64());
    result
}

async fn look(pki: &Pki, context: &Context) -> Result<Action, Error> {
    let now = Timestamp::now();
    let observed = observe(pki, context).await?;
    let secret = observed.secret.as_ref().map(|(secret, _)| secret.clone());
    let outcome = match plan(observed, now) {
        Plan::Gone => return Ok(Action::await_change()),
        Plan::Issue(approved, need) => {
            issue(pki, &approved, &need, secret.as_ref(), context, now).await?
        }
        Plan::Keep { verified, renew_at } => Outcome::Ready(Certificate {
            serial: verified.serial,
            not_before: verified.not_before,
            not_after: verified.not_after,
            renew_at,
            issuer: context.authority.fingerprint().to_owned(),
        }),
        Plan::Refuse(violations) => Outcome::Refused(violations),
        Plan::Conflict { winner } => Outcome::Conflict { winner },
        Plan::Foreign => Outcome::Foreign,
        Plan::Await => Outcome::Await,
    };
    conclude(pki, &outcome, context, now).await
}

/// Gathers the facts. The Secret is read only where the plan can come to need it.
async fn observe<'a>(pki: &'a Pki, context: &'a Context) -> Result<Observed<'a>, Error> {
    let own = Key::of(pki);
    let key = Key::new(own.namespace.clone(), pki.secret_name());
    let verdict = context.cache.rules().evaluate(pki);
    let secret = if verdict.is_ok() && pki.metadata.deletion_timestamp.is_none() {
        let secrets = Api::<Secret>::namespaced(context.client.clone(), &key.namespace);
        let read = secrets.get_opt(&key.name).await;
        read.map_err(|source| Error::ReadSecret {
            secret: key.clone(),
            source,
        })?
    } else {
        None
    };
    let claims = cache::read(&context.cache.claims);
    Ok(Observed {
        pki,
        verdict,
        rival: claims::winner(&claims, &key)
            .filter(|winner| **winner != own)
            .cloned(),
        secret: secret.map(|secret| {
            let owner = secret::owner(&secret, pki, &claims);
            (secret, owner)
        }),
        authority: &context.authority,
    })
}

/// Makes a certificate and writes the Secret. Failure is an outcome, told to the author and tried again; that somebody
/// was faster is none.
async fn issue(
    pki: &Pki,
    approved: &Approved,
    need: &Need,
    observed: Option<&Secret>,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, Error> {
    match write_certificate(pki, approved, observed, context, now).await {
        Ok(certificate) => {
            context.metrics.issued(need.label());
            tracing::info!(pki = %Key::of(pki), secret = approved.secret_name, serial = certificate.serial,
                not_after = %certificate.not_after, why = %need, "issued");
            context.retries.forget(&Key::of(pki));
            Ok(Outcome::Ready(certificate))
        }
        Err(IssueError::Write(error)) if is_conflict(&error) => {
            Err(Error::Outdated { pki: Key::of(pki) })
        }
        Err(error) => {
            context.metrics.issuance_failures.inc();
            let (attempts, pause) = context.retries.failed(pki);
            tracing::warn!(pki = %Key::of(pki), secret = approved.secret_name, attempts, %error, "cannot issue");
            Ok(Outcome::Failed {
                error: error.to_string(),
                attempts,
                next: now + pause,
            })
        }
    }
}

/// Whether the object has another version by now, or exists already.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists())
}

async fn write_certificate(
    pki: &Pki,
    approved: &Approved,
    observed: Option<&Secret>,
    context: &Context,
    now: Timestamp,
) -> Result<Certificate, IssueError> {
    let leaf = context.authority.issue(&approved.certificate, now)?;
    let name = &approved.secret_name;
    let secret = secret::manifest(pki, name, &leaf, &context.authority, observed);
    let secrets =
        Api::<Secret>::namespaced(context.client.clone(), &pki.namespace().unwrap_or_default());
    if observed.is_none() {
        // A create and no apply: of two writers, one is told that the Secret exists.
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        secrets.create(&params, &secret).await?;
    } else {
        secrets
            .patch(
                name,
                &PatchParams::apply(FIELD_MANAGER).force(),
                &Patch::Apply(&secret),
            )
            .await?;
    }
    Ok(Certificate {
        renew_at: pki_certs::renewal::at(leaf.not_before, leaf.not_after, approved.renew_before),
        serial: leaf.serial,
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        issuer: context.authority.fingerprint().to_owned(),
    })
}

/// Writes the status if it changed, tells those who should hear, and says when to look again.
async fn conclude(
    pki: &Pki,
    outcome: &Outcome,
    context: &Context,
    now: Timestamp,
) -> Result<Action, Error> {
    let key = Key::of(pki);
    let status = status::after(pki, outcome, now);
    let users: Vec<_> = {
        let secret = Key::new(key.namespace.clone(), pki.secret_name());
        cache::read(&context.cache.pods)
            .naming(&secret)
            .cloned()
            .collect()
    };
    for notice in events::about(pki, outcome, &status, &users) {
        context.publisher.offer(notice);
    }
    if pki.status.as_ref() != Some(&status) {
        write_status(pki, &status, context).await?;
    }
    match outcome {
        Outcome::Ready(certificate) => context.schedule.set(key, certificate.renew_at),
        _ => context.schedule.forget(&key),
    }
    Ok(match outcome {
        Outcome::Failed { next, .. } => Action::requeue(next.duration_since(now).unsigned_abs()),
        fault if fault.is_fault() && !users.is_empty() => Action::requeue(context.reminder),
        _ => Action::await_change(),
    })
}

async fn write_status(pki: &Pki, status: &PkiStatus, context: &Context) -> Result<(), Error> {
    let key = Key::of(pki);
    let pkis = Api::<Pki>::namespaced(context.client.clone(), &key.namespace);
    // All of it at once: a merge would keep the fields that are no longer set. Naming the version makes this a
    // conflict when the Pki has changed, or has been deleted and made again.
    let patch = serde_json::from_value(json!([
        { "op": "replace", "path": "/metadata/resourceVersion", "value": pki.resource_version() },
        { "op": "add", "path": "/status", "value": status },
    ]));
    let patch = Patch::<()>::Json(patch.expect("a replacement and an addition are a JSON patch"));
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    match pkis.patch_status(&key.name, &params, &patch).await {
        Ok(written) => {
            context.written.remember(&written, Instant::now());
            Ok(())
        }
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(()),
        Err(error) if is_conflict(&error) => {
            // It may be the memory that is wrong, of a cluster that was restored from a backup.
            context.written.forget(&key);
            Err(Error::Outdated { pki: key })
        }
        Err(source) => Err(Error::WriteStatus { pki: key, source }),
    }
}

/// An object that cannot even be read was stored under another schema. Its author can be told on the object.
fn report_unreadable(invalid: &InvalidObject, context: &Context) {
    let key = Key::new(
        invalid.metadata.namespace.clone().unwrap_or_default(),
        invalid.metadata.name.clone().unwrap_or_default(),
    );
    tracing::warn!(pki = %key, error = %invalid.error, "the Pki cannot be read");
    context
        .publisher
        .offer(events::about_unreadable(&key, invalid));
}
