//! Keeps the CA: reads its Secret and its state, makes what is missing, goes on with a rotation,
//! and raises the alarm.
//!
//! It runs on the leader. What it finds goes to the reconciler as a [`Ca`]; what is wrong, to
//! people as an Event on the Secret and to the metrics.

use super::placement;
use super::progress::{self, RolloutCounter};
use super::rotation::{self, RotationTimes};
use crate::events::{self, Publisher};
use crate::k8s::clock::Clock;
use crate::k8s::object_key::Key;

use crate::k8s::{api_error, ca_secret, patch};
use crate::model::ca::{Alarm, Ca};
use crate::model::ca_state::CaState;
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
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

mod secret;

/// How often it looks when nothing tells it to.
const POLL: Duration = Duration::from_secs(10);
/// How often it looks while steps are short.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
/// So many failed looks in a row are said to people.
const PATIENCE: u32 = 3;
/// The common name of a CA that is made here.
const COMMON_NAME: &str = "pki-operator CA";

/// How the CA is kept.
#[derive(Clone, Debug)]
pub struct CaSettings {
    /// The Secret with the keys. The ConfigMap with the state has the same name.
    pub secret: Key,
    /// Whether the platform team brings the CA; else the operator makes it.
    pub is_brought: bool,
    /// How long a CA that is made here is valid.
    pub lifetime: SignedDuration,
    /// How long a rotation takes and waits.
    pub times: RotationTimes,
    /// How long the key of a CA is kept that signs no more.
    pub retention: SignedDuration,
}

/// Keeps the CA for one term as leader.
pub struct CaController {
    client: Client,
    settings: CaSettings,
    cache: Arc<Cache>,
    copies: Arc<Published>,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    clock: Arc<Clock>,
    state: watch::Sender<Option<Arc<Ca>>>,
    /// Since when the age of the retired CAs has not been counted.
    aged: Mutex<Instant>,
}

impl CaController {
    /// A controller, and where it tells of the CA: nothing until it has been read.
    pub fn new(
        client: Client,
        settings: CaSettings,
        cache: Arc<Cache>,
        copies: Arc<Published>,
        publisher: Publisher,
        metrics: Arc<Metrics>,
        clock: Arc<Clock>,
    ) -> (Self, watch::Receiver<Option<Arc<Ca>>>) {
        let (state, receiver) = watch::channel(None);
        let controller = Self {
            client,
            settings,
            cache,
            copies,
            publisher,
            metrics,
            clock,
            state,
            aged: Mutex::new(Instant::now()),
        };
        (controller, receiver)
    }

    /// Looks after the CA for as long as it is polled.
    pub async fn run(self) {
        // Half a list of Pkis would let a rotation go on too early.
        self.cache.synced().await;
        let mut failures = 0;
        loop {
            // Nothing is made, replaced or deleted by a time that may be wrong.
            let now = self.clock.trusted_now().await;
            match self.round(now).await {
                // What was written is the next round's to read.
                Ok(true) => continue,
                Ok(false) => failures = 0,
                Err(error) => {
                    tracing::warn!(%error, "cannot look after the CA; trying again");
                    failures += 1;
                    if failures >= PATIENCE {
                        self.report_api_error(&error);
                    }
                }
            }
            let changed = self.cache.ca_touched();
            let _ = tokio::time::timeout(self.pause(), changed).await;
        }
    }

    /// One look; whether something was written that calls for another.
    async fn round(&self, now: Timestamp) -> Result<bool, kube::Error> {
        let Key { namespace, name } = &self.settings.secret;
        let secrets = Api::<Secret>::namespaced(self.client.clone(), namespace);
        let maps = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let (secret, map) = tokio::try_join!(secrets.get_opt(name), maps.get_opt(name))?;

        let known = match map.as_ref().map(|map| CaState::read(map, now)).transpose() {
            Ok(known) => known,
            Err(problem) => {
                let secret = self.settings.secret.to_string();
                self.raise(&Alarm::State { secret, problem });
                return Ok(false);
            }
        };
        if secret.is_none() && map.is_none() && !self.settings.is_brought {
            self.create(&secrets, now).await?;
            return Ok(true);
        }
        let is_brought = self.settings.is_brought;
        let stored = secret
            .as_ref()
            .map(|secret| placement::read(secret, is_brought, now));
        let display = self.settings.secret.to_string();
        let (state, signer, concern) = rotation::evaluate(known, stored, &display, now);
        let Some(state) = state else {
            if let Some(alarm) = signer.as_ref().err() {
                self.raise(alarm);
            }
            return Ok(false);
        };
        // Nothing goes on while the key is away: it may come back from a backup of this moment.
        let state = match &secret {
            Some(secret) if signer.is_ok() => self.advance(state, secret, now).await,
            _ => state,
        };
        // Once it says that another signs, the key for that has to be read first.
        let is_moved = signer
            .as_ref()
            .is_ok_and(|signer| signer.ca().fingerprint() != state.current.fingerprint());
        let is_recorded = self.record(&maps, map.as_ref(), &state).await?;
        if is_moved {
            return Ok(true);
        }
        let can_sign = signer.is_ok();
        let is_over = state.current.not_after() < now;
        self.tell(&state, signer, concern.as_ref());
        if is_recorded {
            return Ok(true);
        }
        match &secret {
            // What raises the alarm is left as it is, to be looked into; unless all that is wrong
            // is that its time is over.
            Some(secret) if !self.settings.is_brought && (can_sign || is_over) => {
                self.turn(&secrets, secret, &state, now).await
            }
            Some(secret) => {
                self.answer(secret, &state, now);
                Ok(false)
            }
            None => Ok(false),
        }
    }

    /// The first CA. Of two replicas that start at once one creates it.
    async fn create(&self, secrets: &Api<Secret>, now: Timestamp) -> Result<(), kube::Error> {
        let authority = self.generate(now);
        let manifest = ca_secret::manifest(&self.settings.secret, &authority);
        match secrets.create(&patch::post(), &manifest).await {
            Ok(_) => {
                tracing::info!(secret = %self.settings.secret, fingerprint = authority.ca().fingerprint(),
                    not_after = %authority.ca().not_after(), "made a CA");
                Ok(())
            }
            Err(error) if api_error::is_conflict(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Goes on with a rotation, and forgets the CAs whose time to be kept is over and whose keys
    /// have gone.
    async fn advance(&self, mut state: CaState, secret: &Secret, now: Timestamp) -> CaState {
        rotation::age(&mut state, self.seen_for());
        let progress = self.progress(&state, now).await;
        self.metrics.ca_waits(&progress);
        let CaSettings {
            times, retention, ..
        } = &self.settings;
        let mut state = rotation::advance(state, &progress, times, now);
        let is_gone = |known: &&_| !placement::has_key(secret, known);
        let gone = rotation::outdated(&state, *retention).filter(is_gone);
        // A CA that was withdrawn by force is remembered while it is in use, so that its users are
        // named.
        let gone = gone.filter(|known| {
            known.kept >= *retention || !progress.in_use.contains(known.ca.fingerprint())
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

    /// For how long this leader has seen the retired CAs since it last counted that. An hour is
    /// counted at a time, so that the state is not written more often.
    fn seen_for(&self) -> SignedDuration {
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

    /// How long to wait for something to happen: a part of the steps that are counted.
    fn pause(&self) -> Duration {
        let part = Duration::try_from(self.settings.times.step / 16).unwrap_or(POLL);
        part.clamp(SHORTEST_PAUSE, POLL)
    }

    /// Writes the state if it changed; whether it did.
    async fn record(
        &self,
        maps: &Api<ConfigMap>,
        stored: Option<&ConfigMap>,
        state: &CaState,
    ) -> Result<bool, kube::Error> {
        let data = state.data();
        let is_same = |map: &ConfigMap| {
            let stored = |key: &String| map.data.as_ref().and_then(|data| data.get(key));
            data.iter()
                .all(|(key, value)| stored(key).map(String::as_str) == value.as_str())
        };
        match stored {
            Some(map) if is_same(map) => return Ok(false),
            Some(map) => {
                let mut change = json!({ "data": data });
                patch::bind(&mut change, map);
                let patch = Patch::Merge(&change);
                maps.patch(&map.name_any(), &patch::patch(), &patch).await?;
            }
            None => {
                let Key { namespace, name } = &self.settings.secret;
                let data: serde_json::Map<_, _> = data
                    .into_iter()
                    .filter(|(_, value)| !value.is_null())
                    .collect();
                let map = serde_json::from_value(json!({
                    "metadata": { "name": **name, "namespace": **namespace, "labels": patch::labels() },
                    "data": data,
                }));
                let map = map.expect("a name and texts are a ConfigMap");
                maps.create(&patch::post(), &map).await?;
            }
        }
        tracing::info!(
            current = state.current.fingerprint(),
            next = state.next.as_ref().map(|next| next.ca.fingerprint()),
            previous = state
                .trusted()
                .next()
                .map(|previous| previous.ca.fingerprint()),
            "recorded the CAs"
        );
        Ok(true)
    }

    /// How far the certificates in use have come, by what their Pkis say.
    async fn progress(&self, state: &CaState, now: Timestamp) -> RolloutProgress {
        if !rotation::is_counted(state) {
            return RolloutProgress::default();
        }
        let mut counter = RolloutCounter::new(state, &self.settings.times, now);
        // What is recorded as published was in every copy, also if this term has not looked at them
        // yet.
        let is_recorded = state
            .next
            .as_ref()
            .is_some_and(|next| next.published.is_some());
        let is_held = self.copies.holds(state.trust().fingerprint());
        counter.count_copies(self.copies.pending(), !is_recorded && !is_held);
        counter.count_unread(self.cache.unread());
        for pki in self.cache.readable_pkis() {
            // The lead is renewed by the same task.
            tokio::task::coop::consume_budget().await;
            counter.count(&pki);
        }
        counter.end()
    }

    /// Tells the reconciler what there is, and people what is wrong.
    fn tell(&self, state: &CaState, signer: Result<Authority, Alarm>, concern: Option<&Alarm>) {
        match signer.as_ref().err().or(concern) {
            Some(alarm) => self.warn(alarm),
            None => self.metrics.ca_alarm(None),
        }
        self.metrics.ca(state);
        let ca = Ca::from_state(state, signer, |forced| self.settings.times.window(forced));
        self.state.send_if_modified(|known| {
            let is_news = known.as_ref().is_none_or(|known| ca.differs_from(known));
            if is_news {
                *known = Some(Arc::new(ca));
            }
            is_news
        });
    }

    /// Nothing can be signed any more, and nothing is known but what was known before.
    fn raise(&self, alarm: &Alarm) {
        self.warn(alarm);
        self.state.send_if_modified(|known| {
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

    /// The API server does not let it be kept. What was known of the CA is still so.
    fn report_api_error(&self, error: &kube::Error) {
        let alarm = Alarm::NotKept {
            secret: self.settings.secret.to_string(),
            problem: api_error::message(error),
        };
        if self.state.borrow().is_none() {
            self.raise(&alarm);
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
        let authority = Authority::generate(COMMON_NAME, self.settings.lifetime, now);
        authority
            .expect("a CA with a name and a lifetime that the command line has checked is made")
    }
}

impl Drop for CaController {
    /// Another replica looks after it now.
    fn drop(&mut self) {
        self.metrics.forget_ca();
    }
}
