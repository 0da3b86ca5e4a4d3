//! Follows the requests, has them decided, and writes what comes of it.

use super::decision::{self, Decision, Denial, Fault};
use super::identities::Identities;
use super::pending::Pending;
use super::request::Request;
use super::writes::{Ended, Written, sign_and_write, write};
use super::{event, sign};
use crate::api::SIGNER;
use crate::events::Publisher;
use crate::k8s::api_error;
use crate::k8s::clock::Clock;
use crate::k8s::object_key::Key;
use crate::k8s::projection::Projected;
use crate::k8s::tolerant::{Lenient, map};
use crate::model::ca::Ca;
use crate::model::pod_leaves::PodLeaves;
use crate::observability::metrics::Metrics;
use crate::store::Cache;
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _, future, stream};
use jiff::Timestamp;
use kube::error::DiscoveryError;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, discovery};
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

const GROUP: &str = "certificates.k8s.io";
const KIND: &str = "PodCertificateRequest";
/// The interval at which the type is looked for.
const DISCOVERY: Duration = Duration::from_secs(600);
/// The pause before that question is repeated.
const RETRY: Duration = Duration::from_secs(5);
/// The time in which the status of a Pki is written once because of its pods.
const RECOUNT: Duration = Duration::from_secs(10);
/// The number of requests that are processed at the same time.
const CONCURRENCY: usize = 32;

/// Signs pod certificates for one term as leader.
pub struct PodCertificateController {
    pub(super) client: Client,
    pub(super) cache: Arc<Cache>,
    ca: watch::Receiver<Option<Arc<Ca>>>,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    clock: Arc<Clock>,
    reminder: Duration,
    leaves: Arc<PodLeaves>,
    pub(super) identities: Identities,
}

impl PodCertificateController {
    /// A controller that repeats an Event about a fault at intervals of `reminder`.
    pub fn new(
        client: Client,
        cache: Arc<Cache>,
        ca: watch::Receiver<Option<Arc<Ca>>>,
        publisher: Publisher,
        metrics: Arc<Metrics>,
        clock: Arc<Clock>,
        reminder: Duration,
    ) -> Self {
        Self {
            client,
            cache,
            ca,
            publisher,
            metrics,
            clock,
            reminder,
            leaves: Arc::default(),
            identities: Identities::default(),
        }
    }

    /// The same, with the promises of the controller of the CA.
    #[must_use]
    pub fn with_leaves(self, leaves: Arc<PodLeaves>) -> Self {
        Self { leaves, ..self }
    }

    /// Signs for as long as it is polled. An API server without the type is asked again.
    pub async fn run(self) {
        self.cache.synced().await;
        let mut ca = self.ca.clone();
        if ca.wait_for(Option::is_some).await.is_err() {
            // Without the CA controller the term is over.
            return;
        }
        loop {
            let is_served = self.is_served().await;
            if let Some(is_served) = is_served {
                self.cache.set_serves_pod_certificates(is_served);
            }
            match is_served {
                Some(true) => break,
                Some(false) => tokio::time::sleep(DISCOVERY).await,
                None => tokio::time::sleep(RETRY).await,
            }
        }
        tracing::info!(signer = SIGNER, "signing pod certificates");
        let identities = self.identities.follow(&self.client, &self.cache.scope);
        tokio::join!(identities, self.process());
    }

    /// Whether the API server has the type; `None` if it does not say.
    async fn is_served(&self) -> Option<bool> {
        match discovery::group(&self.client, GROUP).await {
            Ok(group) => {
                let kinds = group.versioned_resources("v1");
                Some(kinds.iter().any(|(resource, _)| resource.kind == KIND))
            }
            Err(kube::Error::Discovery(DiscoveryError::MissingApiGroup(_))) => Some(false),
            Err(error) => {
                let error = api_error::message(&error);
                tracing::warn!(
                    error,
                    "failed to ask for the type PodCertificateRequest; retrying"
                );
                None
            }
        }
    }

    fn requests(&self) -> impl Stream<Item = Event<Request>> + use<> {
        let api = Api::<Lenient<Projected<Request>>>::all(self.client.clone());
        let config = watcher::Config::default().fields(&format!("spec.signerName={SIGNER}"));
        let events = self
            .cache
            .scope
            .watch("podcertificaterequests", api, config);
        events.map(|event| map(event, |part: Projected<Request>| part.kept))
    }

    /// Processes the requests, and those that wait again whenever something may have cured them.
    async fn process(&self) {
        let mut requests = pin!(self.requests());
        let mut changes = pin!(self.changes());
        let mut pending = Pending::default();
        let mut attempts = FuturesUnordered::new();
        let mut recount = Recount::default();
        loop {
            while attempts.len() < CONCURRENCY
                && let Some((request, is_patient)) = pending.next()
            {
                attempts.push(self.attempt(request, is_patient));
            }
            let due = pending.next_due();
            tokio::select! {
                Some((request, ended)) = attempts.next(), if !attempts.is_empty() => {
                    self.conclude(&mut pending, &request, ended);
                    pending.done(&request.key);
                }
                Some(event) = requests.next() => pending.follow(event),
                Some(namespaces) = changes.next() => {
                    pending.enqueue_all(namespaces.as_ref());
                    recount.note(namespaces);
                }
                () = sleep_until(recount.at) => {
                    let namespaces = recount.take();
                    let is_meant = |pki: &Key| namespaces.contains(&pki.namespace);
                    self.cache.trigger_pkis_for_pods(is_meant);
                }
                () = sleep_until(due) => pending.enqueue_due(Instant::now()),
                else => return,
            }
            self.metrics.open_pod_requests(pending.len());
        }
    }

    /// The namespaces in which a verdict may be another one now; `None` stands for all.
    fn changes(&self) -> impl Stream<Item = Option<BTreeSet<Arc<str>>>> {
        let cache = self.cache.clone();
        let touched = stream::unfold(cache, |cache| async move {
            let namespaces = cache.touched.next().await;
            Some((Some(namespaces), cache))
        });
        let ca = stream::unfold(self.ca.clone(), |mut ca| async move {
            ca.changed().await.ok().map(|()| (None, ca))
        });
        let rules = self.cache.rules_changed().map(|()| None);
        stream::select(touched, stream::select(ca, rules))
    }

    /// One attempt. If `is_patient`, the API server is asked for what the caches do not have.
    async fn attempt(&self, request: Arc<Request>, is_patient: bool) -> (Arc<Request>, Ended) {
        // Without a clock to trust the term is about to end.
        let Ok(now) = self.clock.now() else {
            return (request, Ended::Undecided);
        };
        let ca = self.known_ca();
        let ended = match decision::decide(&request, self, &ca) {
            Decision::Wait(fault) => Ended::Waits(fault),
            Decision::Unknown(object) if is_patient => {
                match self.is_absent(&request, object).await {
                    Some(true) => {
                        let denial = decision::absent(&request, object);
                        self.deny(&request, &denial, now).await
                    }
                    _ => Ended::Undecided,
                }
            }
            Decision::Unknown(_) => Ended::Undecided,
            Decision::Deny(denial) => self.deny(&request, &denial, now).await,
            Decision::Sign(approval) => {
                let (client, leaves) = (self.client.clone(), self.leaves.clone());
                let request = request.clone();
                let task = async move {
                    sign_and_write(&request, &approval, &ca, &leaves, &client, now).await
                };
                // In a task of its own, which may use another core. It ends with the term.
                let task = AbortOnDropHandle::new(tokio::spawn(task));
                task.await.expect("signing does not panic")
            }
        };
        (request, ended)
    }

    fn known_ca(&self) -> Arc<Ca> {
        let ca = self.ca.borrow().clone();
        ca.expect("signing begins when the CA is known")
    }

    async fn deny(&self, request: &Request, denial: &Denial, now: Timestamp) -> Ended {
        let status = sign::denied(denial, now);
        match write(request, status, &self.client).await {
            Written::Yes => {
                let (reason, message) = (denial.reason, &denial.message);
                tracing::info!(request = %request.key, pod = request.pod.name, reason, message, "denied the pod certificate");
                self.metrics.pod_request("denied");
                Ended::Closed
            }
            Written::Gone => Ended::Closed,
            Written::No => Ended::Undecided,
        }
    }

    /// Notes the result, and tells the pod.
    fn conclude(&self, pending: &mut Pending, request: &Request, ended: Ended) {
        let now = Instant::now();
        let Some(open) = pending.get_mut(&request.key) else {
            return;
        };
        if open.request.uid != request.uid {
            return;
        }
        match ended {
            Ended::Signed => {
                self.metrics.pod_request("signed");
                self.metrics
                    .pod_request_seconds
                    .observe(open.age().as_secs_f64());
                if let Some((fault, _)) = open.published.take() {
                    let time = self.clock.display_time();
                    self.publisher
                        .offer(event::about_end(request, &fault, time));
                }
                pending.remove(&request.key);
            }
            Ended::Closed => drop(pending.remove(&request.key)),
            Ended::Waits(fault) => {
                open.is_understood();
                self.publish(pending, request, fault, now);
            }
            Ended::Undecided => pending.retry(&request.key, now),
        }
    }

    /// Tells the pod why it waits, once the request is old enough, and again at intervals.
    fn publish(&self, pending: &mut Pending, request: &Request, fault: Fault, now: Instant) {
        let age = self.clock.display_time().duration_since(request.created);
        let patience = fault.patience - age;
        if let Ok(patience) = Duration::try_from(patience)
            && !patience.is_zero()
        {
            pending.schedule(&request.key, now + patience);
            return;
        }
        let Some(open) = pending.get_mut(&request.key) else {
            return;
        };
        let is_known = open
            .published
            .as_ref()
            .is_some_and(|(known, last)| *known == fault && now < *last + self.reminder);
        if !is_known {
            let (reason, message) = (fault.reason, &fault.message);
            tracing::info!(request = %request.key, pod = request.pod.name, reason, message, "the pod certificate waits");
            self.publisher.offer(event::about_fault(request, &fault));
            open.published = Some((fault, now));
            pending.schedule(&request.key, now + self.reminder);
        }
    }
}

/// The namespaces in which the pods with certificates are to be counted anew.
#[derive(Default)]
struct Recount {
    namespaces: BTreeSet<Arc<str>>,
    at: Option<Instant>,
}

impl Recount {
    fn note(&mut self, namespaces: Option<BTreeSet<Arc<str>>>) {
        self.namespaces.extend(namespaces.into_iter().flatten());
        if !self.namespaces.is_empty() {
            self.at.get_or_insert_with(|| Instant::now() + RECOUNT);
        }
    }

    fn take(&mut self) -> BTreeSet<Arc<str>> {
        self.at = None;
        std::mem::take(&mut self.namespaces)
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => future::pending().await,
    }
}
