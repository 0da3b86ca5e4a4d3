//! Keeps the CA: reads its Secret and its ledger, makes what is missing, goes on with a rotation, and raises the alarm.
//!
//! It runs on the leader. What it finds goes to the reconciler as a [`Ca`]; what is wrong, to people as an Event on the
//! Secret and to the metrics.

use super::ledger::Ledger;
use super::rotation::{self, Fleet, Stored};
use super::{ACCEPT, Alarm, Ca, ROTATE_NOW};
use crate::authority;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::events::{self, Publisher};
use crate::index::Key;
use crate::metrics::Metrics;
use crate::reconcile::write::api_message;
use crate::reconcile::{secret, write};
use crate::trust::Published;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Patch;
use kube::{Api, Client, ResourceExt};
use pki_certs::Authority;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often it looks when nothing tells it to.
const POLL: Duration = Duration::from_secs(10);
/// So many failed looks in a row are said to people.
const PATIENCE: u32 = 3;
/// The common name of a CA that is made here.
const COMMON_NAME: &str = "pki-operator CA";

/// How the CA is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Secret with the keys. The ConfigMap with the ledger has the same name.
    pub secret: Key,
    /// Whether the platform team brings the CA; else the operator makes it.
    pub is_brought: bool,
    /// How long a CA that is made here is valid.
    pub lifetime: SignedDuration,
    /// How long each step of a rotation takes at least: the time in which everybody reloads what is mounted.
    pub step: SignedDuration,
}

/// Keeps the CA for one term as leader.
pub struct Keeper {
    client: Client,
    settings: Settings,
    cache: Arc<Cache>,
    copies: Arc<Published>,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    clock: Arc<Clock>,
    state: watch::Sender<Option<Arc<Ca>>>,
}

impl Keeper {
    /// A keeper, and where it tells of the CA: nothing until it has been read.
    pub fn new(
        client: Client,
        settings: Settings,
        cache: Arc<Cache>,
        copies: Arc<Published>,
        publisher: Publisher,
        metrics: Arc<Metrics>,
        clock: Arc<Clock>,
    ) -> (Self, watch::Receiver<Option<Arc<Ca>>>) {
        let (state, receiver) = watch::channel(None);
        let keeper = Self {
            client,
            settings,
            cache,
            copies,
            publisher,
            metrics,
            clock,
            state,
        };
        (keeper, receiver)
    }

    /// Looks after the CA for as long as it is polled.
    pub async fn run(self) {
        // Half a list of Pkis would let a rotation go on too early.
        self.cache.synced().await;
        let mut failures = 0;
        loop {
            // Nothing is made, replaced or deleted by a time that may be wrong.
            let Ok(now) = self.clock.now() else {
                self.clock.trusted().await;
                continue;
            };
            match self.round(now).await {
                // What was written is the next round's to read.
                Ok(true) => continue,
                Ok(false) => failures = 0,
                Err(error) => {
                    tracing::warn!(%error, "cannot look after the CA; trying again");
                    failures += 1;
                    if failures >= PATIENCE {
                        self.lament(&error);
                    }
                }
            }
            let changed = self.cache.ca_touched();
            let _ = tokio::time::timeout(POLL, changed).await;
        }
    }

    /// One look; whether something was written that calls for another.
    async fn round(&self, now: Timestamp) -> Result<bool, kube::Error> {
        let Key { namespace, name } = &self.settings.secret;
        let secrets = Api::<Secret>::namespaced(self.client.clone(), namespace);
        let maps = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let (secret, map) = tokio::try_join!(secrets.get_opt(name), maps.get_opt(name))?;

        let known = match map.as_ref().map(|map| Ledger::read(map, now)).transpose() {
            Ok(known) => known,
            Err(problem) => {
                let secret = self.settings.secret.to_string();
                self.raise(&Alarm::Ledger { secret, problem });
                return Ok(false);
            }
        };
        if secret.is_none() && map.is_none() && !self.settings.is_brought {
            self.create(&secrets, now).await?;
            return Ok(true);
        }
        let stored = secret.as_ref().map(|secret| read(secret, now));
        let display = self.settings.secret.to_string();
        let (ledger, signer, concern) = rotation::assess(known, stored, &display, now);
        let Some(ledger) = ledger else {
            if let Some(alarm) = signer.as_ref().err() {
                self.raise(alarm);
            }
            return Ok(false);
        };
        // Nothing goes on while the key is away: it may come back from a backup of this moment.
        let ledger = if signer.is_ok() {
            let fleet = self.fleet(&ledger, now).await;
            self.metrics.ca_waits(fleet);
            rotation::advance(ledger, fleet, self.settings.step, now)
        } else {
            ledger
        };
        // Once it says that another signs, the key for that has to be read first.
        let is_moved = signer
            .as_ref()
            .is_ok_and(|signer| signer.ca().fingerprint() != ledger.current.fingerprint());
        let is_recorded = self.record(&maps, map.as_ref(), &ledger).await?;
        if is_moved {
            return Ok(true);
        }
        let can_sign = signer.is_ok();
        let is_over = ledger.current.not_after() < now;
        self.tell(&ledger, signer, concern.as_ref());
        if is_recorded {
            return Ok(true);
        }
        match &secret {
            // What raises the alarm is left as it is, to be looked into; unless all that is wrong is that its time is over.
            Some(secret) if !self.settings.is_brought && (can_sign || is_over) => {
                self.turn(&secrets, secret, &ledger, now).await
            }
            _ => Ok(false),
        }
    }

    /// The first CA. Of two replicas that start at once one creates it.
    async fn create(&self, secrets: &Api<Secret>, now: Timestamp) -> Result<(), kube::Error> {
        let authority = self.generate(now);
        let manifest = authority::manifest(&self.settings.secret, &authority);
        match secrets.create(&write::post(), &manifest).await {
            Ok(_) => {
                tracing::info!(secret = %self.settings.secret, fingerprint = authority.ca().fingerprint(),
                    not_after = %authority.ca().not_after(), "made a CA");
                Ok(())
            }
            Err(error) if write::is_conflict(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a successor when it is time, and tidies up after a rotation.
    async fn turn(
        &self,
        secrets: &Api<Secret>,
        secret: &Secret,
        ledger: &Ledger,
        now: Timestamp,
    ) -> Result<bool, kube::Error> {
        let is_on_demand = secret.annotations().contains_key(ROTATE_NOW);
        let file = |name: &str| {
            let file = secret.data.as_ref().and_then(|data| data.get(name));
            file.filter(|content| !content.0.is_empty())
        };
        let change = if rotation::is_due(ledger, is_on_demand, now) && file("next.crt").is_none() {
            let successor = self.generate(now);
            tracing::info!(
                fingerprint = successor.ca().fingerprint(),
                "made the next CA"
            );
            json!({
                "metadata": { "annotations": { ROTATE_NOW: null } },
                "stringData": {
                    "next.crt": successor.ca().certificate_pem(),
                    "next.key": successor.private_key_pem().as_str(),
                },
            })
        } else if ledger.previous.is_none()
            && is_signed_by_next(secret, ledger, now)
            && let (Some(crt), Some(key)) = (file("next.crt"), file("next.key"))
        {
            // The one that did is no longer trusted: its key goes.
            json!({ "data": {
                "tls.crt": crt, "tls.key": key, "ca.crt": file("next-ca.crt"),
                "next.crt": null, "next.key": null, "next-ca.crt": null,
            } })
        } else {
            return Ok(false);
        };
        self.patch(secrets, secret, change).await.map(|()| true)
    }

    async fn patch(
        &self,
        secrets: &Api<Secret>,
        secret: &Secret,
        mut change: Value,
    ) -> Result<(), kube::Error> {
        write::bind(&mut change, secret);
        let patch = Patch::Merge(&change);
        secrets
            .patch(&secret.name_any(), &write::patch(), &patch)
            .await
            .map(drop)
    }

    /// Writes the ledger if it changed; whether it did.
    async fn record(
        &self,
        maps: &Api<ConfigMap>,
        stored: Option<&ConfigMap>,
        ledger: &Ledger,
    ) -> Result<bool, kube::Error> {
        let data = ledger.data();
        let is_same = |map: &ConfigMap| {
            let stored = |key: &String| map.data.as_ref().and_then(|data| data.get(key));
            data.iter()
                .all(|(key, value)| stored(key).map(String::as_str) == value.as_str())
        };
        match stored {
            Some(map) if is_same(map) => return Ok(false),
            Some(map) => {
                let mut change = json!({ "data": data });
                write::bind(&mut change, map);
                let patch = Patch::Merge(&change);
                maps.patch(&map.name_any(), &write::patch(), &patch).await?;
            }
            None => {
                let Key { namespace, name } = &self.settings.secret;
                let data: serde_json::Map<_, _> = data
                    .into_iter()
                    .filter(|(_, value)| !value.is_null())
                    .collect();
                let map = serde_json::from_value(json!({
                    "metadata": { "name": **name, "namespace": **namespace, "labels": write::labels() },
                    "data": data,
                }));
                let map = map.expect("a name and texts are a ConfigMap");
                maps.create(&write::post(), &map).await?;
            }
        }
        tracing::info!(
            current = ledger.current.fingerprint(),
            next = ledger.next.as_ref().map(|next| next.ca.fingerprint()),
            previous = ledger
                .previous
                .as_ref()
                .map(|previous| previous.ca.fingerprint()),
            "recorded the CAs"
        );
        Ok(true)
    }

    /// How far the certificates in use have come, by what their Pkis say.
    async fn fleet(&self, ledger: &Ledger, now: Timestamp) -> Fleet {
        let previous = ledger.previous.as_ref().map(|p| p.ca.fingerprint());
        let mut fleet = Fleet::default();
        if ledger.next.is_none() && previous.is_none() {
            return fleet;
        }
        let trust = ledger.trust();
        // What is recorded as published was in every copy, also if this term has not looked at them yet.
        let is_recorded = ledger
            .next
            .as_ref()
            .is_some_and(|next| next.published.is_some());
        fleet.unpublished += usize::from(!is_recorded && !self.copies.holds(trust.fingerprint()));
        fleet.unpublished += self.cache.unread();
        for status in self.cache.readable_pkis().filter_map(|pki| pki.status) {
            // The lead is renewed by the same task.
            tokio::task::coop::consume_budget().await;
            if status.not_after.as_ref().is_none_or(|end| end.0 < now) {
                continue;
            }
            fleet.unpublished +=
                usize::from(status.trust_fingerprint.as_deref() != Some(trust.fingerprint()));
            fleet.of_previous +=
                usize::from(previous.is_some() && status.issuer_fingerprint.as_deref() == previous);
        }
        fleet
    }

    /// Tells the reconciler what there is, and people what is wrong.
    fn tell(&self, ledger: &Ledger, signer: Result<Authority, Alarm>, concern: Option<&Alarm>) {
        match signer.as_ref().err().or(concern) {
            Some(alarm) => self.warn(alarm),
            None => self.metrics.ca_alarm(None),
        }
        self.metrics.ca(ledger);
        let ca = Ca::told_by(ledger, signer, self.settings.step);
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
    fn lament(&self, error: &kube::Error) {
        let alarm = Alarm::NotKept {
            secret: self.settings.secret.to_string(),
            problem: api_message(error),
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

impl Drop for Keeper {
    /// Another replica looks after it now.
    fn drop(&mut self) {
        self.metrics.forget_ca();
    }
}

/// Whether the CA that signs lies where its successor should: only then may it take the other's place.
fn is_signed_by_next(secret: &Secret, ledger: &Ledger, now: Timestamp) -> bool {
    let next = read(secret, now).next.and_then(Result::ok);
    next.is_some_and(|next| next.ca().fingerprint() == ledger.current.fingerprint())
}

fn read(stored: &Secret, now: Timestamp) -> Stored {
    let file = |name: &str| secret::file(stored, name);
    let authority = |crt, root, key| authority::from_files(file(crt), file(root), file(key), now);
    let is_there = |name: &str| !file(name).is_empty();
    Stored {
        current: authority("tls.crt", "ca.crt", "tls.key"),
        next: (is_there("next.crt") || is_there("next.key"))
            .then(|| authority("next.crt", "next-ca.crt", "next.key")),
        accepted: stored.annotations().get(ACCEPT).cloned(),
    }
}
