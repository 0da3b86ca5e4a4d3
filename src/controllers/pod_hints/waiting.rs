//! Publishes Events on pods that cannot start because something of the operator's is not there: a
//! Secret that was removed with its Pki, a file that the Secret does not have, the CA bundle in a
//! namespace that does not ask for it.
//!
//! The module `finding` decides by the caches. The caches hold no content: where that matters, the
//! object is read, and the names of its files are kept. A finding is published when two sweeps in a
//! row see it, because a manifest may still be on its way. Its end is published on the same pods.

use crate::api::Pki;
use crate::events::Publisher;
use crate::k8s::object_key::Key;
use crate::k8s::scope::Scope;
use crate::k8s::tolerant::Lenient;
use crate::model::trust_bundle;
use crate::store::cached_pod::{Object, SecretUser};
use crate::store::secret_index::ReferencesSecrets as _;
use crate::store::{Cache, Removal, claims};
use finding::{ClusterView, Finding};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

mod finding;

/// The pause between two sweeps.
const SWEEP: Duration = Duration::from_secs(3);
/// The pause before a finding that lasts is offered to the publisher again.
const REPEAT: Duration = Duration::from_secs(60);
/// How long the files of an object are kept.
const CONTENT_LIFETIME: Duration = Duration::from_secs(15);
/// Maximum number of reads in one sweep.
const MAX_READS: usize = 20;
/// Timeout of one read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of files that are kept of an object.
const MAX_FILES: usize = 100;

/// Publishes for as long as it is polled. For the leader. `bundle` is the name of the CA bundle.
pub async fn follow(client: Client, cache: Arc<Cache>, publisher: Publisher, bundle: String) {
    cache.synced().await;
    let mut watcher = Watcher {
        client,
        cache,
        publisher,
        bundle: bundle.into(),
        seen: HashSet::new(),
        contents: HashMap::new(),
        published: HashMap::new(),
    };
    loop {
        tokio::time::sleep(SWEEP).await;
        watcher.sweep().await;
    }
}

/// Pods by what they wait for.
type Found = HashMap<Finding, Vec<Arc<SecretUser>>>;
/// The files of an object, if there is one, and when they were read.
type Content = (Instant, Option<Vec<String>>);

struct Watcher {
    client: Client,
    cache: Arc<Cache>,
    publisher: Publisher,
    bundle: Arc<str>,
    /// The findings of the sweep before.
    seen: HashSet<Finding>,
    contents: HashMap<(Object, Key), Content>,
    published: HashMap<Finding, PublishedFinding>,
}

/// The pods with an Event about a finding.
struct PublishedFinding {
    /// By UID.
    pods: HashMap<String, Key>,
    /// When the Events were offered last.
    last: Instant,
}

impl Watcher {
    async fn sweep(&mut self) {
        let (cache, bundle) = (self.cache.clone(), self.bundle.clone());
        // The sweep computes, and must not hold up the renewal of the Lease.
        let found = tokio::task::spawn_blocking(move || {
            let pods = waiting(&cache);
            finding::find(&pods, &bundle, &*cache)
        });
        let Ok(found) = found.await else { return };
        self.contents
            .retain(|_, (at, _)| at.elapsed() < CONTENT_LIFETIME);
        let mut reads = 0;
        for (finding, pods) in &found {
            if self.seen.contains(finding)
                && self.is_due(finding, pods)
                && let Some(present) = self.confirm(finding, &mut reads).await
            {
                self.publish(finding, pods, &present);
            }
        }
        self.resolve(&found);
        self.seen = found.into_keys().collect();
    }

    /// Whether some of these pods have no Event about it, or the last offer was long ago.
    fn is_due(&self, finding: &Finding, pods: &[Arc<SecretUser>]) -> bool {
        self.published.get(finding).is_none_or(|published| {
            let has_event = |pod: &Arc<SecretUser>| published.pods.contains_key(&pod.uid);
            published.last.elapsed() >= REPEAT || !pods.iter().all(has_event)
        })
    }

    /// The files of the object that a finding is about, if the finding holds.
    async fn confirm(&mut self, finding: &Finding, reads: &mut usize) -> Option<Vec<String>> {
        let Some((object, key)) = finding.unknown_object() else {
            return Some(Vec::new());
        };
        let place = (object, key.clone());
        if !self.contents.contains_key(&place) {
            // The other objects are read in the next sweep.
            if *reads >= MAX_READS {
                return None;
            }
            *reads += 1;
            let read = self.read(object, key);
            match tokio::time::timeout(READ_TIMEOUT, read).await {
                Ok(Ok(files)) => drop(self.contents.insert(place.clone(), (Instant::now(), files))),
                Ok(Err(error)) => {
                    tracing::debug!(object = %key, %error, "failed to read an object that a pod waits for");
                    return None;
                }
                Err(_) => {
                    *reads = MAX_READS;
                    return None;
                }
            }
        }
        let (_, files) = self.contents.get(&place)?;
        let holds = finding.holds(files.as_deref());
        holds.then(|| files.clone().unwrap_or_default())
    }

    async fn read(&self, object: Object, key: &Key) -> Result<Option<Vec<String>>, kube::Error> {
        let (client, namespace) = (self.client.clone(), &*key.namespace);
        if object == Object::Secret {
            let secret = Api::<Lenient<Secret>>::namespaced(client, namespace);
            let secret = secret.get_opt(&key.name).await?;
            return Ok(
                secret.map(|Lenient(it)| files(it.data.iter().flatten().map(|(name, _)| name)))
            );
        }
        let map = Api::<Lenient<ConfigMap>>::namespaced(client, namespace);
        let map = map.get_opt(&key.name).await?;
        Ok(map.map(|Lenient(it)| {
            let data = it.data.iter().flatten().map(|(name, _)| name);
            let binary = it.binary_data.iter().flatten().map(|(name, _)| name);
            files(data.chain(binary))
        }))
    }

    fn publish(&mut self, finding: &Finding, pods: &[Arc<SecretUser>], present: &[String]) {
        let known = pods.iter().map(|pod| (pod.uid.clone(), pod.key.clone()));
        let published = PublishedFinding {
            pods: known.collect(),
            last: Instant::now(),
        };
        self.published.insert(finding.clone(), published);
        let template = finding.event(present);
        for notice in template.for_pods(&finding.object(), pods, &finding.related()) {
            self.publisher.offer(notice);
        }
    }

    /// Publishes what is resolved, on the pods that have not started yet.
    fn resolve(&mut self, found: &Found) {
        let (cache, publisher) = (&self.cache, &self.publisher);
        self.published.retain(|finding, published| {
            if found.contains_key(finding) {
                return true;
            }
            let known = cache.pods.read();
            let pods = published.pods.iter().filter_map(|(uid, key)| {
                let pod = known.get(key)?;
                (pod.uid == *uid && pod.is_pending).then(|| pod.clone())
            });
            let mut pods: Vec<_> = pods.collect();
            drop(known);
            if pods.is_empty() || !finding.is_resolved(&**cache) {
                return !pods.is_empty();
            }
            pods.sort_by(|one, other| one.key.cmp(&other.key));
            let template = finding.resolved_event();
            for notice in template.for_pods(&finding.object(), &pods, &finding.related()) {
                publisher.offer(notice);
            }
            false
        });
    }
}

/// The pods that have not started, in the order of their names.
fn waiting(cache: &Cache) -> Vec<Arc<SecretUser>> {
    let pods = cache.pods.read();
    let waiting = pods.all().filter(|pod| pod.is_pending);
    let mut waiting: Vec<_> = waiting.cloned().collect();
    drop(pods);
    waiting.sort_by(|one, other| one.key().cmp(other.key()));
    waiting
}

fn files<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<_> = names.take(MAX_FILES).cloned().collect();
    names.sort_unstable();
    names
}

impl ClusterView for Cache {
    fn has_secret(&self, secret: &Key) -> bool {
        Cache::has_secret(self, secret)
    }

    fn is_explained_elsewhere(&self, secret: &Key) -> bool {
        let pkis = self.pkis.read();
        claims::claimants(&pkis, secret).next().is_some()
            || claims::former_holders(&pkis, secret).next().is_some()
            || self.rejections.concern(secret)
    }

    fn removal(&self, secret: &Key) -> Option<Removal> {
        Cache::removal(self, secret, Timestamp::now())
    }

    fn written_by_namesake(&self, secret: &Key) -> Option<Arc<str>> {
        let pkis = self.pkis.read();
        claims::namesake(&pkis, secret)?.claimed().cloned()
    }

    fn is_for_pods(&self, pki: &Key) -> bool {
        let pkis = self.pkis.read();
        let known = pkis.get(pki);
        known.is_some_and(|pki| pki.is_for_pods() && !pki.is_being_deleted())
    }

    fn holder(&self, secret: &Key) -> Option<Pki> {
        let winner = claims::winner(&self.pkis.read(), secret).cloned()?;
        let pki = self.pki(&winner)?.0.ok()?;
        let uid = pki.metadata.uid.as_deref().unwrap_or_default();
        self.has_secret_of(secret, &winner, uid).then_some(pki)
    }

    fn knows(&self, namespace: &str) -> bool {
        self.rules().namespaces().contains_key(namespace)
    }

    fn label(&self, namespace: &str) -> Option<String> {
        let namespaces = self.rules().namespaces();
        let labels = namespaces.get(namespace)?;
        labels.get(trust_bundle::LABEL).cloned()
    }

    fn serves_cluster(&self) -> bool {
        matches!(self.scope, Scope::Cluster)
    }
}

/// Whether a pod that waits for this Secret gets an Event about the reason other than by
/// [`crate::controllers::pod_hints::name`].
pub(crate) fn is_explained(cache: &Cache, secret: &Key) -> bool {
    let pkis = cache.pkis.read();
    let is_for_pods = pkis.get(secret).is_some_and(|pki| pki.is_for_pods());
    let is_known = claims::former_holders(&pkis, secret).next().is_some()
        || claims::namesake(&pkis, secret).is_some()
        || is_for_pods;
    drop(pkis);
    is_known || cache.removal(secret, Timestamp::now()).is_some()
}
