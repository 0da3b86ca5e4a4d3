//! Reconciles the webhook's CA, the leaf and each `caBundle`. Every replica runs one controller.

use super::accepted_paths::RecentPaths;
use super::configuration::{Bundle, Configuration, DesiredFields, Path};
use super::decision::{self, PROPAGATION_TIME, ServingCas, StoredServingCa};
use super::path_decision::PathDecision;
use super::store::{self, ServingCaError};
use super::watch::changes;
use super::{Leaf, Replicas, ServingCert};
use crate::k8s::api_error::is_conflict;
use crate::k8s::clock::Clock;
use crate::k8s::object_key::Key;
use crate::observability::metrics::Metrics;
use futures::stream::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use pki_certs::Authority;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The interval between two reconciliations when nothing changes.
const POLL: Duration = Duration::from_secs(30);
/// The interval while a leaf waits for its CA to be known, or after a failure.
const FAST_POLL: Duration = Duration::from_secs(1);
/// How long a reconciliation may take. A connection that hangs must not delay the renewal.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(20);
/// The least time between two writes of one object, which another writer may keep changing.
const MIN_WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// The settings of the serving certificate.
#[derive(Clone, Debug)]
pub struct ServingCertSettings {
    /// The Secret with the CA.
    pub secret: Key,
    /// The name of the webhook configuration.
    pub configuration: String,
    /// The hosts of the serving certificate.
    pub hosts: Vec<String>,
    /// How long a CA is trusted after another took its place.
    pub overlap: SignedDuration,
    /// The pods of the operator, if it runs in pods.
    pub replicas: Option<Replicas>,
}

/// Keeps the serving certificate of one replica.
pub struct ServingCertController {
    client: Client,
    settings: ServingCertSettings,
    metrics: Arc<Metrics>,
    clock: Arc<Clock>,
    serving_cert: Arc<ServingCert>,
    /// The content of the Secret when it was last usable.
    known: ServingCas,
    /// The fingerprint of the CA that every webhook carries, and since when.
    carried: Option<(String, Instant)>,
    published: Option<Instant>,
    /// When everything could last be read.
    last_read: Option<Instant>,
    /// The paths that the configuration has, or had a moment ago.
    recent_paths: RecentPaths,
    /// The reason that was last logged for a path without a secret segment.
    logged_path: Option<String>,
}

enum Reconciled {
    /// The Secret was written. The next reconciliation sees the result.
    Written,
    /// Nothing is to be done for this long, unless something changes.
    Pause(Duration),
}

impl ServingCertController {
    /// Waits for a CA: at an installation, the API server or the permission may come later.
    pub async fn start(
        client: Client,
        settings: ServingCertSettings,
        metrics: Arc<Metrics>,
        clock: Arc<Clock>,
    ) -> Self {
        let secrets = Api::namespaced(client.clone(), &settings.secret.namespace);
        let (known, serving_cert) = loop {
            let now = clock.trusted_now().await;
            match first(&secrets, &settings, now).await {
                Ok(Some(first)) => break first,
                // The Secret was written a moment ago, here or by another replica.
                Ok(None) => tokio::time::sleep(MIN_WRITE_INTERVAL / 10).await,
                Err(error) => {
                    tracing::error!(%error, "failed to serve admission; retrying");
                    tokio::time::sleep(2 * FAST_POLL).await;
                }
            }
        };
        serving_cert.paths.begin(&known);
        Self {
            client,
            settings,
            metrics,
            clock,
            serving_cert,
            known,
            carried: None,
            published: None,
            last_read: None,
            recent_paths: RecentPaths::default(),
            logged_path: None,
        }
    }

    /// The certificate that this controller keeps.
    pub fn serving_cert(&self) -> Arc<ServingCert> {
        self.serving_cert.clone()
    }

    /// Reconciles for as long as it is polled.
    pub async fn run(mut self) {
        // Simultaneous changes cause one reconciliation.
        let mut changes = changes(&self.client, &self.settings).ready_chunks(16);
        loop {
            let start = Instant::now();
            // The renewal needs no API server, so it does not wait for one.
            let now = self.clock.trusted_now().await;
            self.renew(None, None, true, now);
            let result = tokio::time::timeout(RECONCILE_TIMEOUT, self.reconcile(now)).await;
            self.update_metrics();
            let pause = match result {
                Ok(Ok(Reconciled::Written)) => {
                    tokio::time::sleep(MIN_WRITE_INTERVAL).await;
                    continue;
                }
                Ok(Ok(Reconciled::Pause(pause))) => pause,
                // Another writer was faster. The next reconciliation sees its change.
                Ok(Err(error)) if is_conflict(&error) => FAST_POLL,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "failed to reconcile the webhook's CA; retrying");
                    self.report_unreadable(&error);
                    2 * FAST_POLL
                }
                Err(_) => {
                    tracing::warn!("failed to reconcile the webhook's CA in time; retrying");
                    self.report_unreadable(&"the API server does not answer");
                    FAST_POLL
                }
            };
            tokio::select! {
                _ = changes.next() => {}
                () = self.serving_cert.paths.read_requested(start) => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn reconcile(&mut self, now: Timestamp) -> Result<Reconciled, kube::Error> {
        let start = Instant::now();
        let name = &self.settings.configuration;
        let mut configuration = Configuration::read(&self.client, name).await?;
        // The Secret is read last, so that a bundle never replaces one made of a later Secret.
        let key = &self.settings.secret;
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &key.namespace);
        let secret = secrets.get_opt(&key.name).await?;
        self.last_read = Some(Instant::now());
        let stored = store::read(secret.as_ref(), Some(&self.known), now);
        let is_known = self.apply_stored(&stored, now);
        // This replica has to answer at a path before that is published.
        let paths = configuration.paths();
        self.recent_paths.record(&paths, Instant::now());
        let accepted = &self.serving_cert.paths;
        accepted.set(Some(start), &self.known, &self.recent_paths);
        let carried_for = self.carried_for(&configuration);
        let is_trusted = configuration.trust(&self.serving_cert.leaf().key.cert, now);
        self.renew(Some(&self.known.current), carried_for, is_trusted, now);

        let changed = self.change(&secrets, secret.as_ref(), &stored, now).await;
        if let Ok(true) = changed {
            return Ok(Reconciled::Written);
        }
        // A Secret that cannot be written must not keep the bundle from being repaired.
        let leaf = self.serving_cert.leaf();
        let published = self.publish(&mut configuration, &leaf, is_known).await;
        let mut trust_problems = Vec::from_iter(configuration.trust_problems(&leaf.key.cert, now));
        if trust_problems.is_empty() && decision::is_early(&leaf.issuer, &self.known, carried_for) {
            let problem = "the API servers have not all got the webhook's CA yet";
            trust_problems.push(problem.to_owned());
        }
        self.serving_cert.set_trust_problems(trust_problems);
        changed?;
        let is_postponed = !published?;
        let is_propagating = carried_for.is_some_and(|carried_for| carried_for < PROPAGATION_TIME)
            || self.recent_paths.is_propagating();
        if is_postponed || is_propagating {
            return Ok(Reconciled::Pause(FAST_POLL));
        }
        let withdrawal = self.known.until_withdrawal(self.settings.overlap, now);
        Ok(Reconciled::Pause(withdrawal.unwrap_or(POLL).min(POLL)))
    }

    /// Takes over the CA of the Secret, if it is usable. Returns whether it is.
    fn apply_stored(&mut self, stored: &StoredServingCa, now: Timestamp) -> bool {
        let StoredServingCa::Usable { cas, .. } = stored else {
            return false;
        };
        if cas.current.ca().fingerprint() != self.known.current.ca().fingerprint()
            && let Err(source) = self.serving_cert.check_issuer(&cas.current, now)
        {
            let error = ServingCaError::Unsuitable(self.settings.secret.clone(), source);
            tracing::error!(%error, "failed to use the webhook's CA; keeping the previous one");
            return false;
        }
        // A segment that was taken out of the Secret is put back.
        let segment = cas.segment.clone().or(self.known.segment.take());
        self.known = ServingCas {
            segment,
            ..cas.clone()
        };
        true
    }

    /// Reports that nothing could be read. The last result holds for half of the time in which
    /// others can withdraw the CA; the other half is left to send requests elsewhere.
    fn report_unreadable(&self, why: &dyn fmt::Display) {
        let overlap = self.settings.overlap.unsigned_abs();
        if self.last_read.is_none_or(|at| at.elapsed() >= overlap / 2) {
            let unknown = "whether the API server trusts the serving certificate is not known";
            self.serving_cert
                .set_trust_problems(vec![format!("{unknown}: {why}")]);
        }
    }

    /// Writes the Secret if need be, and logs why one is unusable. Returns whether it was written.
    async fn change(
        &self,
        secrets: &Api<Secret>,
        seen: Option<&Secret>,
        stored: &StoredServingCa,
        now: Timestamp,
    ) -> Result<bool, kube::Error> {
        let leaf = self.serving_cert.leaf();
        let (known, served) = (Some(&self.known), Some(&*leaf.issuer));
        let change = decision::change(stored, known, served, self.settings.overlap, now);
        let key = &self.settings.secret;
        if let Some(change) = change {
            store::write(secrets, key, seen, &change, now).await?;
            return Ok(true);
        }
        match stored {
            StoredServingCa::Unusable { error, .. } => {
                let error = ServingCaError::Unusable(key.clone(), error.clone());
                tracing::error!(%error, "failed to use the webhook's CA; keeping the previous one");
            }
            StoredServingCa::Usable { cas, rotate_now } if *rotate_now && cas.is_full() => {
                tracing::warn!(secret = %key, "the webhook's CA is not rotated until previous CAs are withdrawn");
            }
            _ => {}
        }
        Ok(false)
    }

    /// How long every webhook has carried the CA of the Secret, as far as this replica has seen.
    fn carried_for(&mut self, configuration: &Configuration) -> Option<Duration> {
        let current = &self.known.current;
        if !configuration.carry(current) {
            self.carried = None;
            return None;
        }
        let fingerprint = current.ca().fingerprint();
        let carried = self.carried.take().filter(|(ca, _)| ca == fingerprint);
        let carried = carried.unwrap_or_else(|| (fingerprint.to_owned(), Instant::now()));
        Some(self.carried.insert(carried).1.elapsed())
    }

    fn renew(
        &self,
        current: Option<&Arc<Authority>>,
        carried_for: Option<Duration>,
        is_trusted: bool,
        now: Timestamp,
    ) {
        let leaf = self.serving_cert.leaf();
        let issuer = decision::issuer(leaf.served(is_trusted), current, carried_for, now);
        let Some(issuer) = issuer else { return };
        if let Err(error) = self.serving_cert.renew(issuer, now) {
            tracing::error!(%error, "failed to renew the serving certificate");
        }
    }

    /// Sets bundles and paths. Returns whether they are right. With an unusable Secret nothing is
    /// removed: another replica may be able to read it.
    async fn publish(
        &mut self,
        configuration: &mut Configuration,
        leaf: &Leaf,
        is_known: bool,
    ) -> Result<bool, kube::Error> {
        let has_segment = is_known && self.known.segment.is_some();
        let replicas = self.settings.replicas.as_ref();
        let decision = PathDecision::make(&self.client, configuration, has_segment, replicas).await;
        decision.log_change(&mut self.logged_path);
        let bundle = if is_known {
            Bundle::Exactly(&self.known)
        } else {
            Bundle::AtLeast(&self.known)
        };
        let path = match (decision, &self.known.segment) {
            (PathDecision::Secret, Some(segment)) => Path::Secret(segment),
            (PathDecision::Plain(_), _) => Path::Plain,
            _ => Path::Same,
        };
        let desired = DesiredFields { bundle, path };
        if configuration.hold(desired) {
            return Ok(true);
        }
        let is_too_soon = self
            .published
            .is_some_and(|at| at.elapsed() < MIN_WRITE_INTERVAL);
        // A bundle without the CA that is served from would do harm.
        if is_too_soon || !self.known.hold(&leaf.issuer) {
            return Ok(false);
        }
        self.published = Some(Instant::now());
        configuration.publish(&self.client, desired).await?;
        Ok(true)
    }

    fn update_metrics(&self) {
        let leaf = self.serving_cert.leaf();
        let ca = leaf.issuer.ca().not_after();
        self.metrics.webhook(ca, leaf.not_after);
        let is_plain = self.serving_cert.paths.has_plain();
        self.metrics.webhook_plain_path(is_plain);
    }
}

/// The CA at the start with a leaf of it, or nothing if one was just written, here or elsewhere.
async fn first(
    secrets: &Api<Secret>,
    settings: &ServingCertSettings,
    now: Timestamp,
) -> Result<Option<(ServingCas, Arc<ServingCert>)>, ServingCaError> {
    let key = &settings.secret;
    let api_error = |error| ServingCaError::Api(key.clone(), error);
    let seen = secrets.get_opt(&key.name).await.map_err(api_error)?;
    let stored = store::read(seen.as_ref(), None, now);
    let change = decision::change(&stored, None, None, settings.overlap, now);
    let fault = match stored {
        StoredServingCa::Usable { cas, .. } => {
            match ServingCert::new(cas.current.clone(), &settings.hosts, now) {
                Ok(serving_cert) => return Ok(Some((cas, serving_cert))),
                Err(error) => Err(ServingCaError::Unsuitable(key.clone(), error)),
            }
        }
        StoredServingCa::Unusable { error, .. } => {
            Err(ServingCaError::Unusable(key.clone(), error))
        }
        StoredServingCa::Absent => Ok(None),
    };
    let Some(change) = change else { return fault };
    match store::write(secrets, key, seen.as_ref(), &change, now).await {
        Err(error) if !is_conflict(&error) => Err(api_error(error)),
        _ => Ok(None),
    }
}
