//! Keeps the CA on the leader: observes its Secret and its ConfigMap, decides by [`rotation`],
//! writes, and reports: a [`Ca`] to the reconciler of Pkis, an Event on the Secret to people.

use super::placement;
use super::progress::{self, RolloutCounter};
use super::rotation::{self, Evaluation, RotationTimes};
use crate::events::{self, Publisher};
use crate::k8s::clock::Clock;
use crate::k8s::object_key::Key;
use crate::k8s::{api_error, ca_secret, patch};
use crate::model::ca::{Alarm, Ca};
use crate::model::ca_state::CaState;
use crate::model::pod_leaves::{PodLeaves, Promise};
use crate::model::rollout::RolloutProgress;
use crate::model::trust_bundle::Published;
use crate::observability::metrics::Metrics;
use crate::store::Cache;
use crate::util::sync::lock;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Patch;
use kube::{Api, Client, ResourceExt};
use pki_certs::Authority;
use serde_json::{Map, Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

mod secret;

/// Maximum pause between two reconciles.
const POLL: Duration = Duration::from_secs(10);
/// Minimum pause, for a rotation with short steps.
const MIN_PAUSE: Duration = Duration::from_millis(500);
/// Number of consecutive failures that are published as a Warning Event.
const FAILURES_BEFORE_EVENT: u32 = 3;
/// The common name of a CA that is made here.
const COMMON_NAME: &str = "pki-operator CA";

/// Settings of the CA.
#[derive(Clone, Debug)]
pub struct CaSettings {
    /// The Secret with the keys. The ConfigMap with the state has the same name.
    pub secret: Key,
    /// Whether the platform team brings the CA; else the operator makes it.
    pub is_brought: bool,
    /// Validity of a CA that is made here.
    pub lifetime: SignedDuration,
    /// Durations of a rotation.
    pub times: RotationTimes,
    /// How long the key of a CA is kept that signs no more.
    pub retention: SignedDuration,
}

/// Keeps the CA for one term as leader.
pub struct CaController {
    settings: CaSettings,
    secrets: Api<Secret>,
    maps: Api<ConfigMap>,
    cache: Arc<Cache>,
    copies: Arc<Published>,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    clock: Arc<Clock>,
    pod_leaves: Arc<PodLeaves>,
    ca: watch::Sender<Option<Arc<Ca>>>,
    /// Since when the age of the retired CAs has not been counted.
    aged: Mutex<Instant>,
}

impl CaController {
    /// A controller, and the CA that it keeps: `None` until it has been read.
    pub fn new(
        client: Client,
        settings: CaSettings,
        cache: Arc<Cache>,
        copies: Arc<Published>,
        publisher: Publisher,
        metrics: Arc<Metrics>,
        clock: Arc<Clock>,
    ) -> (Self, watch::Receiver<Option<Arc<Ca>>>) {
        let (ca, receiver) = watch::channel(None);
        let namespace = &settings.secret.namespace;
        let controller = Self {
            secrets: Api::namespaced(client.clone(), namespace),
            maps: Api::namespaced(client, namespace),
            settings,
            cache,
            copies,
            publisher,
            metrics,
            clock,
            pod_leaves: Arc::default(),
            ca,
            aged: Mutex::new(Instant::now()),
        };
        (controller, receiver)
    }

    /// The same, with promises to the signer of pod certificates.
    #[must_use]
    pub fn with_pod_leaves(mut self, pod_leaves: Arc<PodLeaves>) -> Self {
        self.pod_leaves = pod_leaves;
        self
    }

    /// Keeps the CA for as long as it is polled.
    pub async fn run(self) {
        // Half a list of Pkis would let a rotation go on too early.
        self.cache.synced().await;
        let part = Duration::try_from(self.settings.times.step / 16).unwrap_or(POLL);
        let pause = part.clamp(MIN_PAUSE, POLL);
        let mut failures = 0;
        let mut leaves = self.pod_leaves.requests();
        loop {
            // Nothing is made, replaced or deleted by a time that may be wrong.
            let now = self.clock.trusted_now().await;
            match self.reconcile(now).await {
                // The next reconcile reads what was written.
                Ok(true) => continue,
                Ok(false) => failures = 0,
                Err(error) => {
                    tracing::warn!(%error, "failed to reconcile the CA; retrying");
                    failures += 1;
                    if failures >= FAILURES_BEFORE_EVENT {
                        self.report_api_error(&error);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.cache.ca_touched() => {}
                () = self.pod_leaves.wanted(&mut leaves) => {}
            }
        }
    }

    /// Observes, decides, writes and reports. Returns whether something was written that calls for
    /// another reconcile.
    async fn reconcile(&self, now: Timestamp) -> Result<bool, kube::Error> {
        let name = &self.settings.secret.name;
        let observed = tokio::try_join!(self.secrets.get_opt(name), self.maps.get_opt(name));
        let (secret, map) = observed?;
        if secret.is_none() && map.is_none() && !self.settings.is_brought {
            self.create(now).await?;
            return Ok(true);
        }
        let evaluation = match self.evaluate(secret.as_ref(), map.as_ref(), now) {
            Ok(evaluation) => evaluation,
            Err(alarm) => {
                self.report_unavailable(&alarm);
                return Ok(false);
            }
        };
        let (mut state, signer) = (evaluation.state, evaluation.signer);
        // Nothing goes on while the key is away: it may come back from a backup of this moment.
        if let Some(secret) = secret.as_ref().filter(|_| signer.is_ok()) {
            self.report_start(&state, now);
            state = self.advance(state, secret, now).await;
            if let Some(until) = self.pod_leaves.raised(state.pod_leaves_until, now) {
                state.pod_leaves_until = Some(until);
            }
        }
        let is_recorded = self.record(map.as_ref(), &state).await?;
        let current = state.current.fingerprint();
        if matches!(&signer, Ok(signer) if signer.ca().fingerprint() != current) {
            // Another CA signs from now on, and its key has to be read first.
            return Ok(true);
        }
        let can_sign = signer.is_ok();
        self.report(&state, signer, evaluation.successor_alarm.as_ref());
        match secret {
            Some(secret) if !is_recorded => self.update(&secret, &state, can_sign, now).await,
            _ => Ok(is_recorded),
        }
    }

    fn evaluate(
        &self,
        secret: Option<&Secret>,
        map: Option<&ConfigMap>,
        now: Timestamp,
    ) -> Result<Evaluation, Alarm> {
        let name = self.settings.secret.to_string();
        let state = map.map(|map| CaState::read(map, now)).transpose();
        let state = state.map_err(|problem| {
            let secret = name.clone();
            Alarm::State { secret, problem }
        })?;
        let stored = secret.map(|secret| placement::read(secret, self.settings.is_brought, now));
        rotation::evaluate(state, stored, &name, now)
    }

    /// Makes the first CA. One of two replicas that start at once creates it.
    async fn create(&self, now: Timestamp) -> Result<(), kube::Error> {
        let authority = self.generate(now);
        let manifest = ca_secret::manifest(&self.settings.secret, &authority);
        match self.secrets.create(&patch::post(), &manifest).await {
            Ok(_) => {
                tracing::info!(secret = %self.settings.secret, fingerprint = authority.ca().fingerprint(),
                    not_after = %authority.ca().not_after(), "created a CA");
                Ok(())
            }
            Err(error) if api_error::is_conflict(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Goes on with a rotation, and forgets the CAs that are outdated and whose keys have gone.
    async fn advance(&self, mut state: CaState, secret: &Secret, now: Timestamp) -> CaState {
        rotation::age(&mut state, self.take_age());
        let progress = self.progress(&state, now).await;
        self.metrics.ca_waits(&progress);
        let (times, retention) = (&self.settings.times, self.settings.retention);
        let mut state = rotation::advance(state, &progress, times, now);
        let gone = rotation::outdated(&state, retention).filter(|known| {
            // The users of a CA that was withdrawn by force are named, so it is remembered.
            let is_named = progress.in_use.contains(known.ca.fingerprint());
            !placement::has_key(secret, known) && (known.kept >= retention || !is_named)
        });
        let gone: Vec<_> = gone.map(|known| known.ca.clone()).collect();
        state.retired.retain(|known| !gone.contains(&known.ca));
        state.report = progress::report(&state, &progress, times, now);
        if let Some(report) = state.report.as_ref().filter(|report| report.blocked > 0) {
            let notice = events::about_rotation(&self.settings.secret, report);
            self.publisher.offer(notice);
        }
        state
    }

    /// Time since the age of the retired CAs was last counted; zero until an hour has passed, so
    /// that the state is not written more often.
    fn take_age(&self) -> SignedDuration {
        let hour = SignedDuration::from_hours(1);
        let unit = (self.settings.retention / 24).clamp(SignedDuration::from_secs(1), hour);
        let mut aged = lock(&self.aged);
        let elapsed = SignedDuration::try_from(aged.elapsed()).unwrap_or_default();
        if elapsed < unit {
            return SignedDuration::ZERO;
        }
        *aged = Instant::now();
        SignedDuration::from_secs(elapsed.as_secs())
    }

    /// Writes the state if it has changed; returns whether it did.
    async fn record(
        &self,
        stored: Option<&ConfigMap>,
        state: &CaState,
    ) -> Result<bool, kube::Error> {
        let data = state.data();
        if let Some(map) = stored {
            if holds(map, &data) {
                return Ok(false);
            }
            let mut change = json!({ "data": data });
            patch::bind(&mut change, map);
            let change = Patch::Merge(&change);
            self.maps
                .patch(&map.name_any(), &patch::patch(), &change)
                .await?;
        } else {
            let Key { namespace, name } = &self.settings.secret;
            let data = data.into_iter().filter(|(_, value)| !value.is_null());
            let map = serde_json::from_value(json!({
                "metadata": { "name": **name, "namespace": **namespace, "labels": patch::labels() },
                "data": data.collect::<Map<_, _>>(),
            }));
            let map = map.expect("a name and texts are a ConfigMap");
            self.maps.create(&patch::post(), &map).await?;
        }
        tracing::info!(
            current = state.current.fingerprint(),
            next = state.next.as_ref().map(|next| next.ca.fingerprint()),
            previous = state.trusted().next().map(|it| it.ca.fingerprint()),
            "recorded the CAs"
        );
        Ok(true)
    }

    /// How far the certificates in use have come, by the statuses of their Pkis.
    async fn progress(&self, state: &CaState, now: Timestamp) -> RolloutProgress {
        if !rotation::is_counted(state) {
            return RolloutProgress::default();
        }
        let mut counter = RolloutCounter::new(state, &self.settings.times, now);
        // Recorded as published means that every copy had it, also before this term has read them.
        let next = state.next.as_ref();
        let is_published = next.is_some_and(|next| next.published.is_some())
            || self.copies.holds(state.trust().fingerprint());
        counter.count_copies(self.copies.pending(), !is_published);
        counter.count_unread(self.cache.unreadable_namespaces());
        for pki in self.cache.readable_pkis() {
            // The Lease is renewed by the same task.
            tokio::task::coop::consume_budget().await;
            counter.count(&pki);
        }
        counter.end()
    }

    /// Publishes that a rotation starts: its next CA has been seen for the first time, or is forced
    /// from now on.
    fn report_start(&self, state: &CaState, now: Timestamp) {
        let Some(next) = state.next.as_ref().filter(|next| next.since.is_none()) else {
            return;
        };
        // Publishing and replacing take at most a step and a quarter each.
        let ends_within = next.is_forced.then(|| self.settings.times.step * 3);
        let (secret, next) = (&self.settings.secret, next.ca.fingerprint());
        let notice = events::about_rotation_start(secret, next, ends_within, now);
        self.publisher.offer(notice);
    }

    /// Hands the CA to the reconciler of Pkis, and what is wrong with it to people.
    fn report(&self, state: &CaState, signer: Result<Authority, Alarm>, other: Option<&Alarm>) {
        match signer.as_ref().err().or(other) {
            Some(alarm) => self.warn(alarm),
            None => self.metrics.ca_alarm(None),
        }
        self.metrics.ca(state);
        let issuer = state.current.fingerprint().to_owned();
        let promise = state
            .pod_leaves_until
            .map(|until| Promise { issuer, until });
        self.pod_leaves.promise(promise);
        let ca = Ca::from_state(state, signer, |forced| self.settings.times.window(forced));
        self.ca.send_if_modified(|known| {
            let is_news = known.as_ref().is_none_or(|known| ca.differs_from(known));
            if is_news {
                *known = Some(Arc::new(ca));
            }
            is_news
        });
    }

    /// Reports that nothing can be signed any more. The trust stays as it was known before.
    fn report_unavailable(&self, alarm: &Alarm) {
        self.warn(alarm);
        self.ca.send_if_modified(|known| {
            let is_news = known
                .as_ref()
                .is_none_or(|ca| ca.signer.as_ref().err() != Some(alarm));
            if is_news {
                let ca = known.get_or_insert_with(|| Arc::new(Ca::unknown(alarm.clone())));
                Arc::make_mut(ca).signer = Err(alarm.clone());
            }
            is_news
        });
    }

    /// Reports an error of the API server. A CA that is known stays in use.
    fn report_api_error(&self, error: &kube::Error) {
        let alarm = Alarm::NotKept {
            secret: self.settings.secret.to_string(),
            problem: api_error::message(error),
        };
        if self.ca.borrow().is_none() {
            self.report_unavailable(&alarm);
        } else {
            self.warn(&alarm);
        }
    }

    fn warn(&self, alarm: &Alarm) {
        tracing::error!(%alarm, "the CA needs attention");
        self.metrics.ca_alarm(Some(alarm.label()));
        let notice = events::about_ca(&self.settings.secret, alarm);
        self.publisher.offer(notice);
    }

    fn generate(&self, now: Timestamp) -> Authority {
        Authority::generate(COMMON_NAME, self.settings.lifetime, now)
            .expect("a CA with a name and a lifetime that the command line has checked is made")
    }
}

impl Drop for CaController {
    /// Another replica keeps the CA now.
    fn drop(&mut self) {
        self.metrics.forget_ca();
    }
}

/// Whether a ConfigMap holds this data; null stands for no entry.
fn holds(map: &ConfigMap, data: &Map<String, Value>) -> bool {
    let stored = |key| map.data.as_ref().and_then(|data| data.get(key));
    let mut entries = data.iter();
    entries.all(|(key, value)| stored(key).map(String::as_str) == value.as_str())
}
