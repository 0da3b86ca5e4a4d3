//! One look at one [`Pki`]: observe, plan, act.
//!
//! 1. **Observe**: the Pki, its rivals and the version of its Secret, from the caches. The Secret
//!    itself is read only when that does not tell enough: a new Pki needs no read (but for
//!    passwords), nor does one whose Secret has not changed.
//! 2. [`plan`](plan::plan) decides, on those facts alone.
//! 3. **Act**: write the Secret if the plan says so, the status if it changed, and hand to
//!    [`crate::events`] what people should hear. A Secret and its status are the two writes of an
//!    issuance; nothing changed is no write.
//!
//! Only the leader runs this. Every write, of a Secret and of a status, carries the version it was
//! decided on, so that one who has lost the lead without knowing, or whose cache is behind, writes
//! nothing and looks again.

use crate::api::{Pki, StoredPki};
use crate::controllers::pki::schedule::Schedule;
use crate::events::{self, Publisher};
use crate::k8s::clock::{Clock, ClockFault};
use crate::k8s::object_key::Key;
use crate::k8s::tolerant::Lenient;
use crate::k8s::{api_error, secret};
use crate::model::ca::Ca;
use crate::model::outcome::{Certificate, Outcome};
use crate::observability::metrics::Metrics;
use crate::observability::traces::Work;
use crate::store::Cache;
use crate::store::cached_pod::SecretUser;
use crate::store::cached_secret::Version;
use crate::store::secret_index::ReferencesSecrets as _;
use crate::util::sync;
use contest::Contests;
use findings::Findings;
use former::LastUses;
use futures::{Stream, StreamExt, future, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use keys::Keys;
use kube::api::ListParams;
use kube::core::error_boundary::InvalidObject;
use kube::{Api, Client, Resource as _};
use observe::{observe, read};
use pauses::Pauses;
use plan::{Current, IssueReason, Observed, Plan, plan};
use priority_queue::{Priority, Queue};
use retry::Retries;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

mod act;
mod conclude;
pub mod content;
mod contest;
mod fair;
mod findings;
mod former;
mod keys;
mod observe;
mod pauses;
pub mod plan;
mod priority_queue;
mod remedy;
mod requests;
mod retry;
pub mod schedule;

/// How many Pkis are looked at at the same time. The work is waiting for the API server.
const CONCURRENCY: usize = 32;
/// How long a look may take. A request that hangs must not hold a slot for ever.
const LONGEST_LOOK: Duration = Duration::from_secs(60);

/// How people are told.
#[derive(Clone, Debug)]
pub struct PkiSettings {
    /// How often a fault that lasts is said again.
    pub reminder: Duration,
    /// Whether pods are told that a certificate was renewed.
    pub has_renewal_events: bool,
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
    /// Tells the time, while it is known.
    pub clock: Arc<Clock>,
    settings: PkiSettings,
    /// Learns which certificate is in a Secret, if workloads are to be restarted.
    on_ready: Option<OnReady>,
    schedule: Schedule,
    retries: Retries,
    contests: Contests,
    findings: Findings,
    pauses: Pauses,
    keys: Keys,
    former_uses: LastUses,
}

/// Called with each Pki that is ready, its certificate, and the pods that use its Secret.
pub type OnReady = Box<dyn Fn(&Pki, &Certificate, &[Arc<SecretUser>]) + Send + Sync>;

/// Why a look at a Pki ended early. It is taken again soon.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
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
    /// The time is not known.
    #[error("nothing is decided about Pki {pki}: {source}")]
    Clock {
        /// The Pki.
        pki: Key,
        /// Fault of the clock.
        source: ClockFault,
    },
    /// The API server did not answer in time.
    #[error("the API server took longer than {}s", LONGEST_LOOK.as_secs())]
    TimedOut,
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
        clock: Arc<Clock>,
        settings: PkiSettings,
    ) -> Self {
        let (schedule, retries, contests, findings, pauses, keys) = Default::default();
        Self {
            client,
            cache,
            ca,
            publisher,
            metrics,
            clock,
            settings,
            on_ready: None,
            schedule,
            retries,
            contests,
            findings,
            pauses,
            keys,
            former_uses: LastUses::default(),
        }
    }

    /// The same, with workloads that are restarted after a renewal.
    #[must_use]
    pub fn with_on_ready(self, on_ready: Option<OnReady>) -> Self {
        Self { on_ready, ..self }
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

    /// The key of a Pki, as the cache has it: whoever keeps it, shares it.
    fn key(&self, pki: &Pki) -> Key {
        let key = Key::of(pki);
        let known = sync::read(&self.cache.pkis);
        known.get(&key).map_or(key, |known| known.key().clone())
    }

    async fn read_secret(&self, key: &Key) -> Result<Option<Secret>, ReconcileError> {
        let secrets = self.secrets(&key.namespace);
        let read = secrets.get_opt(&key.name).await;
        let read = read.map_err(|source| ReconcileError::ReadSecret {
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
        self.pauses.forget(key);
        self.keys.forget(key);
        self.former_uses.forget(key);
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
    let known = sync::read(&cache.pkis).all().len();
    tracing::info!(pkis = known, "reconciling");
    let queue = Arc::new(Queue::new(CONCURRENCY));
    let turns = queue.clone().turns().take_until(shutdown.cancelled_owned());
    let looks = turns.map(|key| {
        let (context, queue) = (context.clone(), queue.clone());
        let look = async move {
            take_turn(&key, &context).await;
            queue.done(&key);
        };
        // A task of its own, which may use another core, and ends when this replica leads no more.
        AbortOnDropHandle::new(tokio::spawn(look))
    });
    let looks = looks.buffer_unordered(CONCURRENCY).for_each(|ended| {
        ended.expect("a look does not panic");
        future::ready(())
    });
    tokio::select! {
        () = looks => {}
        () = fill(&queue, &context, triggers, ca) => {}
        () = context.keys.run(|pki| cache.trigger([pki])) => {}
    }
}

/// Lines up whoever is to be looked at, for as long as it is polled: all there are at first, and
/// whenever rules or CA have changed.
async fn fill(
    queue: &Queue,
    context: &Context,
    triggers: impl Stream<Item = Key>,
    ca: watch::Receiver<Option<Arc<Ca>>>,
) {
    let first = stream::once(future::ready(()));
    let ca_changed = stream::unfold(ca, |mut ca| async move {
        ca.changed().await.ok().map(|()| ((), ca))
    });
    let cache = &context.cache;
    let changes = stream::select(first.chain(cache.rules_changed()), ca_changed);
    let priority = |pki: &StoredPki, now| Priority::of(pki, has_secret(pki, cache), now);
    let everything = async {
        let mut changes = pin!(changes);
        while changes.next().await.is_some() {
            let now = Timestamp::now();
            for pki in cache.known_pkis() {
                queue.push(pki.key().clone(), priority(&pki.unpack(), now));
                // Of many, the first are looked at before the last are lined up.
                tokio::task::coop::consume_budget().await;
            }
        }
    };
    let some = async {
        let mut keys = pin!(stream::select(triggers, due(context)));
        while let Some(key) = keys.next().await {
            // One that is gone is forgotten at once.
            let stored = cache.pki(&key);
            let priority = stored.map_or(Priority::New, |pki| priority(&pki, Timestamp::now()));
            queue.push(key, priority);
            tokio::task::coop::consume_budget().await;
        }
    };
    future::join(everything, some).await;
}

fn has_secret(stored: &StoredPki, cache: &Cache) -> bool {
    let Ok(pki) = &stored.0 else { return false };
    cache.has_secret(&secret::key(pki))
}

/// The Pkis whose time has come, by the wall clock, which is read at least twice a minute: a timer
/// would stop while the machine sleeps.
fn due(context: &Context) -> impl Stream<Item = Key> {
    const POLL: Duration = Duration::from_secs(30);
    stream::unfold((), |()| async {
        let pause = tokio::time::sleep(context.schedule.pause(Timestamp::now(), POLL));
        future::select(pin!(pause), pin!(context.schedule.hastened())).await;
        let keys = context.schedule.take_due(Timestamp::now());
        Some((stream::iter(keys), ()))
    })
    .flatten()
}

/// Looks at one Pki, and notes when to do so again if that failed.
async fn take_turn(key: &Key, context: &Context) {
    let Some(stored) = context.cache.pki(key) else {
        context.forget(key);
        return;
    };
    let Err(error) = reconcile(&stored, context).await else {
        context.pauses.forget(key);
        return;
    };
    if !matches!(error, ReconcileError::Outdated { .. }) {
        context.metrics.reconcile_errors.inc();
    }
    let pause = context.pauses.after(key, &error);
    context
        .schedule
        .hasten(key.clone(), Timestamp::now() + pause);
}

async fn reconcile(stored: &StoredPki, context: &Context) -> Result<(), ReconcileError> {
    let (started, mut work, key) = (Instant::now(), Work::look(), Key::of(stored));
    let (namespace, object) = (&*key.namespace, &*key.name);
    let span = tracing::error_span!("reconcile", trace_id = %work.trace_id(), namespace, object);
    work.note("object.kind", || Pki::kind(&()).into_owned());
    work.note("object.namespace", || namespace.to_owned());
    work.note("object.name", || object.to_owned());
    let looked = async {
        let look = look_at(stored, context, &mut work);
        let look = tokio::time::timeout(LONGEST_LOOK, look).await;
        let result = look.unwrap_or(Err(ReconcileError::TimedOut));
        match &result {
            Err(ReconcileError::Outdated { pki }) => {
                tracing::debug!(%pki, "changed meanwhile; will look again");
            }
            Err(error) => {
                tracing::warn!(pki = %key, %error, "will look again");
                work.fail(error);
            }
            Ok(()) => tracing::debug!(pki = %key, "looked"),
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

async fn look_at(
    stored: &StoredPki,
    context: &Context,
    work: &mut Work,
) -> Result<(), ReconcileError> {
    match &stored.0 {
        Ok(pki) => look(pki, context, work).await,
        Err(invalid) if invalid.metadata.deletion_timestamp.is_some() => {
            requests::release_unreadable(&invalid.metadata, context).await?;
            Ok(())
        }
        Err(invalid) => {
            report_unreadable(invalid, context);
            Ok(())
        }
    }
}

async fn look(pki: &Pki, context: &Context, work: &mut Work) -> Result<(), ReconcileError> {
    let now = context
        .clock
        .now()
        .map_err(|source| ReconcileError::Clock {
            pki: Key::of(pki),
            source,
        })?;
    if pki.metadata.deletion_timestamp.is_some() {
        context.keys.forget(&Key::of(pki));
        requests::part(pki, context).await?;
        return Ok(());
    }
    let requested = requests::note(pki, context, now).await?;
    let pki = requested.as_ref().unwrap_or(pki);
    let ca = context.ca();
    let mut observed = observe(pki, &ca, context);
    let mut planned = plan(&observed, now);
    if matches!(planned, Plan::Read) {
        match read(&mut observed, context).await {
            // Not for this look to mend: people are told, as when the Secret cannot be written.
            Err(ReconcileError::ReadSecret { source, .. }) if api_error::is_refusal(&source) => {
                let outcome = act::refused(pki, source, context, now)?;
                return conclude::conclude(pki, &outcome, context, now).await;
            }
            read => read?,
        }
        // Whatever is wrong with the Pki: it may be about to be deleted for that.
        if let Some(secret) = observed.stored()
            && requests::let_go(pki, secret, context).await?
        {
            return Ok(());
        }
        planned = plan(&observed, now);
    }
    if requests::release(pki, context).await? {
        return Ok(());
    }
    let republished = match planned {
        Plan::Refuse { .. } | Plan::Conflict { .. } | Plan::Foreign(_) => {
            match former::publish_in_use(pki, &ca, context).await? {
                Some(status) => conclude::write_status(pki, &status, context).await?,
                None => None,
            }
        }
        _ => None,
    };
    let pki = republished.as_ref().unwrap_or(pki);
    if matches!(planned, Plan::Issue(_, IssueReason::NoSecret)) && is_leaving(pki, context).await {
        return Ok(());
    }
    if !matches!(planned, Plan::Issue(..)) {
        context.keys.forget(&Key::of(pki));
    }
    let outcome = match planned {
        Plan::Read => unreachable!("what was read is not read again"),
        Plan::Gone => return Ok(()),
        Plan::Issue(approved, need) => {
            work.note("pki.issuance", || need.label());
            match act::issue(&observed, &approved, &need, context, now).await? {
                Some(outcome) => outcome,
                // The next look is when there is a key.
                None => return Ok(()),
            }
        }
        Plan::Mend(current) => act::mend(&observed, current, context, now).await?,
        Plan::Keep(current) => keep(&observed, &current, context),
        Plan::Refuse {
            violations,
            is_unpublished,
        } => {
            let secret = observed.stored().filter(|_| is_unpublished);
            let is_published = match secret {
                Some(secret) => act::publish(pki, secret, &ca, context).await?,
                None => plan::unpublished_former(pki, &ca).is_none(),
            };
            let known = pki.status.as_ref();
            let known = known.and_then(|status| status.trust_fingerprint.clone());
            let trust = if is_published {
                ca.trust.fingerprint().to_owned()
            } else {
                known.unwrap_or_default()
            };
            Outcome::Refused { violations, trust }
        }
        Plan::Conflict { winner } => Outcome::Conflict { winner },
        Plan::Foreign(obstacle) => Outcome::Foreign(obstacle),
        Plan::TakeUp => match act::take_up(&observed, context, now).await? {
            Some(outcome) => outcome,
            // The next look is when the Secret is seen with its owner.
            None => return Ok(()),
        },
        Plan::Unsigned(alarm) => Outcome::Unsigned(alarm),
        Plan::Await => Outcome::Await,
    };
    work.note("pki.reason", || outcome.reason());
    conclude::conclude(pki, &outcome, context, now).await
}

/// Whether a Pki whose Secret is gone is being deleted. With `--cascade=foreground` the Secret goes
/// first, and its watch may be ahead of that of the Pkis. The next look is when the deletion is
/// seen.
async fn is_leaving(pki: &Pki, context: &Context) -> bool {
    let status = pki.status.as_ref();
    if status.is_none_or(|status| status.serial_number.is_none()) {
        return false;
    }
    let key = Key::of(pki);
    let this = ListParams::default().fields(&format!("metadata.name={}", key.name));
    let found = context.pkis(&key.namespace).list_metadata(&this).await;
    // What cannot be asked is for the write to tell.
    found.is_ok_and(|list| {
        let this = list
            .items
            .iter()
            .find(|it| it.metadata.uid == pki.metadata.uid);
        this.is_none_or(|it| it.metadata.deletion_timestamp.is_some())
    })
}

/// Leaves the Secret as it is. One without a keystore that is wanted is read again each time: only
/// there the passwords are known.
fn keep(observed: &Observed<'_>, current: &Current, context: &Context) -> Outcome {
    let certificate = Current::certificate(current, observed.ca);
    let Some(secret) = observed.stored() else {
        return Outcome::Ready(certificate);
    };
    let in_force = &current.approved;
    let unmade = observed.passwords_for(in_force).unmade(secret);
    let key = context.key(observed.pki);
    if unmade.is_empty() {
        let (version, verified) = (Version::of(secret), &current.verified);
        let findings = &context.findings;
        findings.sound(key, observed, in_force, &version, verified);
    } else {
        context.findings.doubtful(key);
    }
    Outcome::of(certificate, unmade)
}

/// An object that cannot even be read was stored under another schema. Its author can be told on
/// the object.
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
