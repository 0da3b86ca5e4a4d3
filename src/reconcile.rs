//! One look at one [`Pki`]: observe, plan, act.
//!
//! 1. **Observe**: the Pki, its rivals and the version of its Secret, from the caches. The Secret itself is read only when
//!    that does not tell enough: a new Pki needs no read, nor does one whose Secret has not changed.
//! 2. [`plan`](plan::plan) decides, on those facts alone.
//! 3. **Act**: write the Secret if the plan says so, the status if it changed, and hand to [`crate::events`] what
//!    people should hear. A Secret and its status are the two writes of an issuance; nothing changed is no write.
//!
//! Only the leader runs this. Every write, of a Secret and of a status, carries the version it was decided on, so that
//! one who has lost the lead without knowing, or whose cache is behind, writes nothing and looks again.

use crate::api::{Pki, StoredPki};
use crate::ca::Ca;
use crate::cache::Cache;
use crate::events::{self, Publisher};
use crate::index::Key;
use crate::lenient::Lenient;
use crate::metrics::Metrics;
use crate::restarts::Renewals;
use crate::schedule::Schedule;
use crate::secrets::Version;
use crate::telemetry::Work;
use contest::Contests;
use findings::Findings;
use futures::{Stream, StreamExt, future, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::Controller;
use kube::runtime::controller::{self, Action, Config};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource as _};
use lanes::{Lane, Queue};
use observe::{observe, read};
use plan::{Plan, plan};
use retry::Retries;
use status::{Certificate, Outcome};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use written::Written;

mod act;
mod conclude;
mod contest;
mod findings;
mod lanes;
mod observe;
pub mod plan;
mod remedy;
mod retry;
pub mod secret;
pub mod status;
mod wishes;
pub mod write;
mod written;

/// How many Pkis are looked at at the same time. The work is waiting for the API server.
const CONCURRENCY: u16 = 32;

/// How people are told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often a fault that lasts is said again.
    pub reminder: Duration,
    /// Whether pods are told that a certificate was renewed.
    pub tells_renewals: bool,
}

/// What the reconciler works with.
pub struct Context {
    /// The API server, as the operator's service account.
    pub client: Client,
    /// What is known of the cluster.
    pub cache: Arc<Cache>,
    /// The CA, as the keeper last told; by the time this runs, it has.
    ca: watch::Receiver<Option<Arc<Ca>>>,
    /// Tells people.
    pub publisher: Publisher,
    /// Counts.
    pub metrics: Arc<Metrics>,
    settings: Settings,
    /// Hears what is in the Secrets, if workloads are to be restarted.
    renewals: Option<Renewals>,
    schedule: Schedule,
    retries: Retries,
    written: Written,
    contests: Contests,
    findings: Findings,
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
    /// A Secret could not be written or deleted, other than to issue.
    #[error("cannot change Secret {secret}: {source}")]
    ChangeSecret {
        /// The Secret.
        secret: Key,
        /// What the API server said.
        source: kube::Error,
    },
    /// The Pki itself could not be written.
    #[error("cannot write Pki {pki}: {source}")]
    WritePki {
        /// The Pki.
        pki: Key,
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

impl Context {
    /// A context for one term as leader.
    pub fn new(
        client: Client,
        cache: Arc<Cache>,
        ca: watch::Receiver<Option<Arc<Ca>>>,
        publisher: Publisher,
        metrics: Arc<Metrics>,
        settings: Settings,
        renewals: Option<Renewals>,
    ) -> Self {
        let (schedule, retries, written, contests, findings) = Default::default();
        Self {
            client,
            cache,
            ca,
            publisher,
            metrics,
            settings,
            renewals,
            schedule,
            retries,
            written,
            contests,
            findings,
        }
    }

    /// The CA as it is now.
    fn ca(&self) -> Arc<Ca> {
        self.ca
            .borrow()
            .clone()
            .expect("reconciling begins when the keeper has told of the CA")
    }

    fn secrets(&self, namespace: &str) -> Api<Lenient<Secret>> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn pkis(&self, namespace: &str) -> Api<Lenient<Pki>> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn read_secret(&self, key: &Key) -> Result<Option<Secret>, Error> {
        let secrets = self.secrets(&key.namespace);
        let read = secrets.get_opt(&key.name).await;
        let read = read.map_err(|source| Error::ReadSecret {
            secret: key.clone(),
            source,
        })?;
        Ok(read.map(|Lenient(secret)| secret))
    }

    /// Drops what is kept of a Pki that is gone.
    fn forget(&self, key: &Key) {
        self.contests.forget(key);
        self.findings.forget(key);
        self.schedule.forget(key);
        self.retries.forget(key);
        self.written.forget(key);
    }
}

/// Reconciles until `shutdown`, then finishes what is under way.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let cache = context.cache.clone();
    let triggers = cache.triggers();
    let mut ca = context.ca.clone();
    let is_known = async {
        cache.synced().await;
        ca.wait_for(Option::is_some).await.map(drop)
    };
    if !matches!(shutdown.run_until_cancelled(is_known).await, Some(Ok(()))) {
        return;
    }
    ca.mark_unchanged();
    tracing::info!(pkis = cache.pkis.len(), "reconciling");
    let queue = Arc::new(Queue::new(CONCURRENCY.into()));
    let turns = queue.clone().turns();
    let turns = turns.map(|key| ObjectRef::new(&key.name).within(&key.namespace));
    let looks = Controller::for_stream(stream::pending(), cache.pkis.clone())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(turns)
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, on_error, context.clone())
        .for_each(|result| {
            if let Some(key) = looked_at(&result) {
                if matches!(result, Err(controller::Error::ObjectNotFound(_))) {
                    context.forget(&key);
                }
                queue.done(&key);
            }
            future::ready(())
        });
    tokio::select! {
        () = looks => {}
        () = fill(&queue, &context, triggers, ca) => {}
    }
}

/// Lines up whoever is to be looked at, for as long as it is polled: all there are at first, and whenever rules or CA have
/// changed.
async fn fill(
    queue: &Queue,
    context: &Context,
    triggers: impl Stream<Item = ObjectRef<StoredPki>>,
    ca: watch::Receiver<Option<Arc<Ca>>>,
) {
    let pkis = &context.cache.pkis;
    let first = stream::once(future::ready(()));
    let ca_changed = stream::unfold(ca, |mut ca| async move {
        ca.changed().await.ok().map(|()| ((), ca))
    });
    let everything = stream::select(first.chain(context.cache.rules_changed()), ca_changed);
    let everything = everything.for_each(|()| {
        let now = Timestamp::now();
        for pki in pkis.state() {
            queue.push(Key::of(&*pki), Lane::of(&pki, now));
        }
        future::ready(())
    });
    let one = stream::select(triggers, due(context)).for_each(|reference| {
        let stored = pkis.get(&reference);
        // One that is gone is forgotten at once.
        let lane = stored.map_or(Lane::New, |pki| Lane::of(&pki, Timestamp::now()));
        let namespace = reference.namespace.unwrap_or_default();
        queue.push(Key::new(namespace, reference.name), lane);
        future::ready(())
    });
    future::join(everything, one).await;
}

/// The Pkis whose renewal has come due, by the wall clock, which is read at least twice a minute: a timer would stop
/// while the machine sleeps.
fn due(context: &Context) -> impl Stream<Item = ObjectRef<StoredPki>> {
    const POLL: Duration = Duration::from_secs(30);
    stream::unfold((), |()| async {
        tokio::time::sleep(context.schedule.pause(Timestamp::now(), POLL)).await;
        let keys = context.schedule.take_due(Timestamp::now());
        let references = keys
            .into_iter()
            .map(|key| ObjectRef::new(&key.name).within(&key.namespace));
        Some((stream::iter(references.collect::<Vec<_>>()), ()))
    })
    .flatten()
}

/// The Pki of this result.
fn looked_at<E: std::error::Error, Q: std::error::Error>(
    result: &Result<(ObjectRef<StoredPki>, Action), controller::Error<E, Q>>,
) -> Option<Key> {
    let (namespace, name) = match result {
        Ok((pki, _)) => (&pki.namespace, &pki.name),
        Err(
            controller::Error::ObjectNotFound(pki) | controller::Error::ReconcilerFailed(_, pki),
        ) => (&pki.namespace, &pki.name),
        Err(_) => return None,
    };
    Some(Key::new(
        namespace.clone().unwrap_or_default(),
        name.as_str(),
    ))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature is the controller's"
)]
fn on_error(_: Arc<StoredPki>, error: &Error, context: Arc<Context>) -> Action {
    if let Error::Outdated { .. } = error {
        return Action::requeue(Duration::from_millis(200));
    }
    context.metrics.reconcile_errors.inc();
    Action::requeue(Duration::from_secs(5))
}

async fn reconcile(stored: Arc<StoredPki>, context: Arc<Context>) -> Result<Action, Error> {
    let (started, mut work, key) = (Instant::now(), Work::look(), Key::of(&*stored));
    let (namespace, object) = (&*key.namespace, &*key.name);
    let span = tracing::error_span!("reconcile", trace_id = %work.trace_id(), namespace, object);
    work.note("object.kind", || Pki::kind(&()).into_owned());
    work.note("object.namespace", || namespace.to_owned());
    work.note("object.name", || object.to_owned());
    let looked = async {
        let result = look_at(&stored, &context, &mut work).await;
        match &result {
            Err(Error::Outdated { pki }) => {
                tracing::debug!(%pki, "changed meanwhile; will look again");
            }
            Err(error) => {
                tracing::warn!(pki = %key, %error, "will look again");
                work.fail(error);
            }
            Ok(_) => tracing::debug!(pki = %key, "looked"),
        }
        result
    };
    let result = looked.instrument(span).await;
    context
        .metrics
        .reconcile_seconds
        .observe(started.elapsed().as_secs_f64());
    result
}

async fn look_at(stored: &StoredPki, context: &Context, work: &mut Work) -> Result<Action, Error> {
    match &stored.0 {
        Ok(pki) => look(&context.written.overlay(pki), context, work).await,
        Err(invalid) if invalid.metadata.deletion_timestamp.is_some() => {
            wishes::release_unreadable(&invalid.metadata, context).await?;
            Ok(Action::await_change())
        }
        Err(invalid) => {
            report_unreadable(invalid, context);
            Ok(Action::await_change())
        }
    }
}

async fn look(pki: &Pki, context: &Context, work: &mut Work) -> Result<Action, Error> {
    let now = Timestamp::now();
    if pki.metadata.deletion_timestamp.is_some() {
        wishes::part(pki, context).await?;
        return Ok(Action::await_change());
    }
    let requested = wishes::note(pki, context, now).await?;
    let pki = requested.as_ref().unwrap_or(pki);
    let ca = context.ca();
    let mut observed = observe(pki, &ca, context);
    let mut planned = plan(&observed, now);
    if matches!(planned, Plan::Read) {
        match read(&mut observed, context).await {
            // Not for this look to mend: people are told, as when the Secret cannot be written.
            Err(Error::ReadSecret { source, .. }) if write::is_refusal(&source) => {
                let outcome = act::refused(pki, source, context, now)?;
                return conclude::conclude(pki, &outcome, context, now).await;
            }
            read => read?,
        }
        // Whatever is wrong with the Pki: it may be about to be deleted for that.
        if let Some(secret) = observed.stored()
            && wishes::let_go(pki, secret, context).await?
        {
            return Ok(Action::await_change());
        }
        planned = plan(&observed, now);
    }
    if wishes::release(pki, context).await? {
        return Ok(Action::await_change());
    }
    let outcome = match planned {
        Plan::Read => unreachable!("what was read is not read again"),
        Plan::Gone => return Ok(Action::await_change()),
        Plan::Issue(approved, need) => {
            work.note("pki.issuance", || need.label());
            act::issue(&observed, &approved, &need, context, now).await?
        }
        Plan::Mend(approved, current) => {
            act::mend(&observed, &approved, current, context, now).await?
        }
        Plan::Keep(current) => {
            if let Some(secret) = observed.stored() {
                let version = Version::of(secret);
                let verified = &current.verified;
                context.findings.sound(&observed, &version, verified);
            }
            Outcome::Ready(Certificate::of(&current, &ca))
        }
        Plan::Refuse {
            violations,
            is_unpublished,
        } => {
            if is_unpublished {
                act::publish(&observed, context).await?;
            }
            Outcome::Refused {
                violations,
                trust: ca.trust.fingerprint().to_owned(),
            }
        }
        Plan::Conflict { winner } => Outcome::Conflict { winner },
        Plan::Foreign => Outcome::Foreign,
        Plan::Await => Outcome::Await,
    };
    work.note("pki.reason", || outcome.reason());
    conclude::conclude(pki, &outcome, context, now).await
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
