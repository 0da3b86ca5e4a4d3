//! Keeps the webhook's CA, the leaf and each `caBundle`: looks, asks what to do, and does it. Every
//! replica runs one.

use super::accepted::Lately;
use super::configuration::{Bundle, Configuration, Path, Wanted};
use super::decision::{self, Cas, SETTLING, StoredServingCa};
use super::store::{self, Trouble};
use super::watch::touched;
use super::withheld::Withheld;
use super::{Identity, Leaf, Replicas};
use crate::k8s::api_error;
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

/// How often it looks when nothing tells it to.
const POLL: Duration = Duration::from_secs(30);
/// How often while a leaf waits for its CA to be known, or something failed.
const HASTE: Duration = Duration::from_secs(1);
/// How long a look may take: a connection that hangs must not keep the leaf from being renewed.
const LIMIT: Duration = Duration::from_secs(20);
/// The least time between two writes of the same: with somebody else who keeps changing it, it must
/// not become a race.
const PACE: Duration = Duration::from_secs(1);

/// How the webhook's identity is kept.
#[derive(Clone, Debug)]
pub struct ServingCertSettings {
    /// The Secret with the CA.
    pub secret: Key,
    /// The name of the webhook configuration.
    pub configuration: String,
    /// What the serving certificate is for.
    pub hosts: Vec<String>,
    /// How long a CA is trusted after another took its place.
    pub overlap: SignedDuration,
    /// The pods of the operator, if it runs in some.
    pub replicas: Option<Replicas>,
}

/// Keeps the identity of one replica.
pub struct ServingCertKeeper {
    client: Client,
    settings: ServingCertSettings,
    metrics: Arc<Metrics>,
    clock: Arc<Clock>,
    identity: Arc<Identity>,
    /// What the Secret held when it was last usable.
    known: Cas,
    /// The fingerprint of the CA that every webhook carries, and since when.
    carried: Option<(String, Instant)>,
    published: Option<Instant>,
    /// When everything could last be read.
    looked: Option<Instant>,
    /// The paths that the configuration carries, or did a moment ago.
    lately: Lately,
    /// Why the path has no secret segment, as it was last logged.
    withheld: Option<String>,
}

/// What a look came to.
enum Look {
    /// The Secret was written; what follows from that is the next look's to see.
    Written,
    /// Nothing is to be done for so long, unless something changes.
    Pause(Duration),
}

impl ServingCertKeeper {
    /// Waits until there is a CA: at an installation the API server, or the permission, may come
    /// later than this process.
    pub async fn begin(
        client: Client,
        settings: ServingCertSettings,
        metrics: Arc<Metrics>,
        clock: Arc<Clock>,
    ) -> Self {
        let secrets = Api::namespaced(client.clone(), &settings.secret.namespace);
        let (known, identity) = loop {
            let now = clock.trusted_now().await;
            match first(&secrets, &settings, now).await {
                Ok(Some(begun)) => break begun,
                // It was written a moment ago, here or by another replica.
                Ok(None) => tokio::time::sleep(PACE / 10).await,
                Err(error) => {
                    tracing::error!(%error, "cannot serve admission; trying again");
                    tokio::time::sleep(2 * HASTE).await;
                }
            }
        };
        identity.paths.begin(&known);
        Self {
            client,
            settings,
            metrics,
            clock,
            identity,
            known,
            carried: None,
            published: None,
            looked: None,
            lately: Lately::default(),
            withheld: None,
        }
    }

    /// What it keeps.
    pub fn identity(&self) -> Arc<Identity> {
        self.identity.clone()
    }

    /// Keeps it for as long as it is polled.
    pub async fn run(mut self) {
        // What changes at once is looked at once.
        let mut touched = touched(&self.client, &self.settings).ready_chunks(16);
        loop {
            let begun = Instant::now();
            // Needs no API server, so it does not wait for one.
            let now = self.clock.trusted_now().await;
            self.renew(None, None, true, now);
            let look = tokio::time::timeout(LIMIT, self.look(now)).await;
            self.show();
            let pause = match look {
                Ok(Ok(Look::Written)) => {
                    tokio::time::sleep(PACE).await;
                    continue;
                }
                Ok(Ok(Look::Pause(pause))) => pause,
                // Somebody else was faster. What is there now is seen next.
                Ok(Err(error)) if api_error::is_conflict(&error) => HASTE,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot look after the webhook's CA; trying again");
                    self.doubt(&error);
                    2 * HASTE
                }
                Err(_) => {
                    tracing::warn!("no answer about the webhook's CA; trying again");
                    self.doubt(&"the API server does not answer");
                    HASTE
                }
            };
            let called = async {
                tokio::select! {
                    _ = touched.next() => {}
                    () = self.identity.paths.asked(begun) => {}
                }
            };
            let _ = tokio::time::timeout(pause, called).await;
        }
    }

    async fn look(&mut self, now: Timestamp) -> Result<Look, kube::Error> {
        let begun = Instant::now();
        let name = &self.settings.configuration;
        let mut configuration = Configuration::read(&self.client, name).await?;
        // The Secret last: a bundle is only written over one that was there before this Secret was
        // read, so that it never takes the place of one made of a later Secret.
        let key = &self.settings.secret;
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &key.namespace);
        let secret = secrets.get_opt(&key.name).await?;
        self.looked = Some(Instant::now());
        let stored = store::read(secret.as_ref(), Some(&self.known), now);
        let is_known = self.learn(&stored, now);
        // Before anything is published, so that nobody is asked by a path that it does not know.
        self.lately.see(&configuration.paths(), Instant::now());
        self.identity
            .paths
            .set(Some(begun), &self.known, &self.lately);
        let carried_for = self.carried_for(&configuration);
        let is_trusted = configuration.trust(&self.identity.leaf().key.cert, now);
        self.renew(Some(&self.known.current), carried_for, is_trusted, now);

        let changed = self.change(&secrets, secret.as_ref(), &stored, now).await;
        if let Ok(true) = changed {
            return Ok(Look::Written);
        }
        // What cannot be written must not keep the bundle from being mended.
        let leaf = self.identity.leaf();
        let withheld = self.withheld(&configuration, is_known).await;
        let published = self
            .publish(&mut configuration, &leaf, is_known, &withheld)
            .await;
        let mut trust_problems = Vec::from_iter(configuration.trust_problems(&leaf.key.cert, now));
        if trust_problems.is_empty() && decision::is_early(&leaf.issuer, &self.known, carried_for) {
            trust_problems
                .push("the API servers are still learning of the webhook's CA".to_owned());
        }
        self.identity.judged(trust_problems);
        changed?;
        let is_put_off = !published?;
        let is_settling = carried_for.is_some_and(|carried_for| carried_for < SETTLING)
            || self.lately.is_settling();
        Ok(Look::Pause(if is_put_off || is_settling {
            HASTE
        } else {
            let withdrawal = self.known.until_withdrawal(self.settings.overlap, now);
            withdrawal.unwrap_or(POLL).min(POLL)
        }))
    }

    /// Takes over what the Secret holds, if it is of use; whether it was.
    fn learn(&mut self, stored: &StoredServingCa, now: Timestamp) -> bool {
        let StoredServingCa::Usable { cas, .. } = stored else {
            return false;
        };
        if cas.current.ca().fingerprint() != self.known.current.ca().fingerprint()
            && let Err(source) = self.identity.can_be_of(&cas.current, now)
        {
            let secret = self.settings.secret.clone();
            let error = Trouble::Useless { secret, source };
            tracing::error!(%error, "the webhook goes on with the CA that was there before");
            return false;
        }
        // A segment that was taken out of the Secret is put back.
        let segment = cas.segment.clone().or(self.known.segment.take());
        self.known = Cas {
            segment,
            ..cas.clone()
        };
        true
    }

    /// Why the path is to have no secret segment, if so.
    async fn withheld(&mut self, configuration: &Configuration, is_known: bool) -> Withheld {
        let has_segment = is_known && self.known.segment.is_some();
        let replicas = self.settings.replicas.as_ref();
        let withheld = Withheld::find(&self.client, configuration, has_segment, replicas).await;
        withheld.log_news(&mut self.withheld);
        withheld
    }

    /// Nothing could be read. What was seen last holds for as long as no CA that was current then
    /// can have been withdrawn by others, with half of that time left to send requests elsewhere.
    fn doubt(&self, why: &dyn fmt::Display) {
        let overlap = self.settings.overlap.unsigned_abs();
        if self.looked.is_none_or(|at| at.elapsed() >= overlap / 2) {
            let unknown = "whether the API server trusts the serving certificate is not known";
            self.identity.judged(vec![format!("{unknown}: {why}")]);
        }
    }

    /// Writes the Secret, or says what is wrong with one that is not the operator's to mend;
    /// whether it was written.
    async fn change(
        &self,
        secrets: &Api<Secret>,
        seen: Option<&Secret>,
        stored: &StoredServingCa,
        now: Timestamp,
    ) -> Result<bool, kube::Error> {
        let leaf = self.identity.leaf();
        let (known, served) = (Some(&self.known), Some(&*leaf.issuer));
        let change = decision::change(stored, known, served, self.settings.overlap, now);
        let key = &self.settings.secret;
        if let Some(change) = change {
            store::write(secrets, key, seen, &change, now).await?;
            return Ok(true);
        }
        match stored {
            StoredServingCa::Unusable { error, .. } => {
                let error = Trouble::Unusable {
                    secret: key.clone(),
                    source: error.clone(),
                };
                tracing::error!(%error, "the webhook goes on with the CA that was there before");
            }
            StoredServingCa::Usable { cas, rotate_now } if *rotate_now && cas.is_full() => {
                tracing::warn!(secret = %key, "the webhook gets no other CA until those before are withdrawn");
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
        let leaf = self.identity.leaf();
        let issuer = decision::issuer(leaf.served(is_trusted), current, carried_for, now);
        let Some(issuer) = issuer else { return };
        if let Err(error) = self.identity.serve_from(issuer, now) {
            tracing::error!(%error, "cannot renew the serving certificate");
        }
    }

    /// Sets bundles and paths; whether they are as they should be. Where the Secret does not hold
    /// what is known, nothing is taken out of them: another replica may be able to read it.
    async fn publish(
        &mut self,
        configuration: &mut Configuration,
        leaf: &Leaf,
        is_known: bool,
        withheld: &Withheld,
    ) -> Result<bool, kube::Error> {
        let bundle = if is_known {
            Bundle::Exactly(&self.known)
        } else {
            Bundle::AtLeast(&self.known)
        };
        let path = match (withheld, &self.known.segment) {
            (Withheld::Not, Some(segment)) => Path::Secret(segment),
            (Withheld::Unwanted(_), _) => Path::Plain,
            _ => Path::Same,
        };
        let wanted = Wanted { bundle, path };
        if configuration.hold(wanted) {
            return Ok(true);
        }
        let is_too_soon = self.published.is_some_and(|at| at.elapsed() < PACE);
        // Without the CA that is served from it would do harm.
        if is_too_soon || !self.known.hold(&leaf.issuer) {
            return Ok(false);
        }
        self.published = Some(Instant::now());
        configuration.publish(&self.client, wanted).await?;
        Ok(true)
    }

    fn show(&self) {
        let leaf = self.identity.leaf();
        let ca = leaf.issuer.ca().not_after();
        self.metrics.webhook(ca, leaf.not_after);
        let is_plain = self.identity.paths.has_plain();
        self.metrics.webhook_plain_path(is_plain);
    }
}

/// The CA that is there at the start with a leaf of it, or nothing if one was just made. Of two
/// replicas that start at once one makes it.
async fn first(
    secrets: &Api<Secret>,
    settings: &ServingCertSettings,
    now: Timestamp,
) -> Result<Option<(Cas, Arc<Identity>)>, Trouble> {
    let secret = || settings.secret.clone();
    let api_error = |source| Trouble::Api {
        secret: secret(),
        source,
    };
    let seen = secrets.get_opt(&settings.secret.name).await;
    let seen = seen.map_err(api_error)?;
    let stored = store::read(seen.as_ref(), None, now);
    let change = decision::change(&stored, None, None, settings.overlap, now);
    let trouble = match stored {
        StoredServingCa::Usable { cas, .. } => {
            match Identity::new(cas.current.clone(), &settings.hosts, now) {
                Ok(identity) => return Ok(Some((cas, identity))),
                Err(source) => Some(Trouble::Useless {
                    secret: secret(),
                    source,
                }),
            }
        }
        StoredServingCa::Unusable { error, .. } => Some(Trouble::Unusable {
            secret: secret(),
            source: error,
        }),
        StoredServingCa::Absent => None,
    };
    if let Some(change) = change {
        let written = store::write(secrets, &settings.secret, seen.as_ref(), &change, now).await;
        return match written {
            Err(error) if !api_error::is_conflict(&error) => Err(api_error(error)),
            _ => Ok(None),
        };
    }
    trouble.map_or(Ok(None), Err)
}
