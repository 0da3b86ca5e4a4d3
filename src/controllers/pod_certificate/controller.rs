//! Follows the requests, has them decided, and writes what comes of it.

use super::attempt::{Ended, Signer};
use super::decision::Fault;
use super::event;
use super::pending::Pending;
use super::request::Request;
use crate::api::SIGNER;
use crate::events::Publisher;
use crate::k8s::api_error;
use crate::k8s::object_key::Key;
use crate::k8s::projection::Projected;
use crate::k8s::tolerant::{Lenient, map};
use crate::observability::metrics::Metrics;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, Stream, StreamExt as _, future, stream};
use kube::error::DiscoveryError;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, discovery};
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
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
    pub(crate) signer: Arc<Signer>,
    pub(crate) publisher: Publisher,
    pub(crate) metrics: Arc<Metrics>,
    /// The interval at which an Event about a fault is repeated.
    pub(crate) reminder: Duration,
}

impl PodCertificateController {
    /// Signs for as long as it is polled. An API server without the type is asked again.
    pub async fn run(self) {
        let signer = &*self.signer;
        signer.cache.synced().await;
        let mut ca = signer.ca.clone();
        if ca.wait_for(Option::is_some).await.is_err() {
            // Without the CA controller the term is over.
            return;
        }
        loop {
            let is_served = is_served(&signer.client).await;
            if let Some(is_served) = is_served {
                signer.cache.set_serves_pod_certificates(is_served);
            }
            match is_served {
                Some(true) => break,
                Some(false) => tokio::time::sleep(DISCOVERY).await,
                None => tokio::time::sleep(RETRY).await,
            }
        }
        tracing::info!(signer = SIGNER, "signing pod certificates");
        let identities = &signer.identities;
        let process = async {
            identities.synced().await;
            self.process().await;
        };
        let follow = identities.follow(&signer.client, &signer.cache.scope);
        tokio::join!(follow, process);
    }

    fn requests(&self) -> impl Stream<Item = Event<Request>> + use<> {
        let api = Api::<Lenient<Projected<Request>>>::all(self.signer.client.clone());
        let config = watcher::Config::default().fields(&format!("spec.signerName={SIGNER}"));
        let events = self
            .signer
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
                let attempt = self.signer.clone().attempt(request.clone(), is_patient);
                // In a task of its own, because it evaluates rules of others.
                let attempt = AbortOnDropHandle::new(tokio::spawn(attempt));
                attempts.push(
                    attempt.map(|ended| (request, ended.expect("an attempt does not panic"))),
                );
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
                    self.signer.cache.trigger_pkis_for_pods(is_meant);
                }
                () = sleep_until(due) => pending.enqueue_due(Instant::now()),
                else => return,
            }
            self.metrics.open_pod_requests(pending.len());
        }
    }

    /// The namespaces in which a verdict may be another one now; `None` stands for all.
    fn changes(&self) -> impl Stream<Item = Option<BTreeSet<Arc<str>>>> {
        let cache = self.signer.cache.clone();
        let touched = stream::unfold(cache, |cache| async move {
            let namespaces = cache.touched.next().await;
            Some((Some(namespaces), cache))
        });
        let ca = stream::unfold(self.signer.ca.clone(), |mut ca| async move {
            ca.changed().await.ok().map(|()| (None, ca))
        });
        let rules = self.signer.cache.rules_changed().map(|()| None);
        stream::select(touched, stream::select(ca, rules))
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
                    let time = self.signer.clock.display_time();
                    self.publisher
                        .offer(event::about_end(request, &fault, time));
                }
                pending.remove(&request.key);
            }
            Ended::Denied => {
                self.metrics.pod_request("denied");
                pending.remove(&request.key);
            }
            Ended::Gone => drop(pending.remove(&request.key)),
            Ended::Waits(fault) => {
                open.is_understood();
                self.publish(pending, request, fault, now);
            }
            Ended::Undecided => pending.retry(&request.key, now),
        }
    }

    /// Tells the pod why it waits, once the request is old enough, and again at intervals.
    fn publish(&self, pending: &mut Pending, request: &Request, fault: Fault, now: Instant) {
        let age = self
            .signer
            .clock
            .display_time()
            .duration_since(request.created);
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

/// Whether the API server has the type; `None` if it does not say.
async fn is_served(client: &Client) -> Option<bool> {
    match discovery::group(client, GROUP).await {
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
