//! The state of the cluster: watches, and the caches that they fill.
//!
//! Every replica has them, answers admission from them, and can take over the lead at once. A
//! change that may matter to a [`Pki`] triggers its reconcile.

use crate::api::annotations::Carrier;
use crate::api::{Pki, StoredPki, StoredPolicy};
use crate::k8s::object_key::Key;
use crate::k8s::scope::Scope;
use crate::k8s::uids::Uids;
use crate::model::ca::CaSummary;
use crate::policy::{RuleBook, Settings};
use crate::store::cached_pki::KnownPki;
use crate::store::cached_pod::SecretUser;
use crate::store::cached_secret::{KnownSecret, Version};
use crate::store::ignored::MisannotatedObject;
use crate::store::rejections::Rejections;
use crate::store::secret_index::{ReferencesSecrets as _, SecretIndex, SharedIndex};
use crate::util::sync::{lock, read};
use ages::Ages;
use futures::Stream;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use jiff::Timestamp;
use kube::Client;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Store};
use removed::Removals;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use touched::Touched;
use watched::Watched;

mod ages;
pub mod cached_pki;
pub mod cached_pod;
pub mod cached_secret;
pub mod claims;
pub mod ignored;
mod misannotated;
mod pod_certificates;
pub mod rejections;
mod removed;
pub mod secret_index;
pub mod touched;
mod watched;
mod watches;

pub use removed::Removal;

/// The caches.
#[derive(Debug)]
pub struct Cache {
    /// The namespaces that it knows.
    pub scope: Scope,
    /// All Pkis by the Secrets they name.
    pub pkis: SharedIndex<KnownPki>,
    /// All policies.
    pub policies: Store<StoredPolicy>,
    /// All pods by the Secrets they use.
    pub pods: SharedIndex<SecretUser>,
    /// The metadata of all Secrets.
    pub secrets: SharedIndex<KnownSecret>,
    /// Other objects with annotations or labels without an effect, by kind.
    misannotated: Mutex<BTreeMap<Carrier, SecretIndex<MisannotatedObject>>>,
    /// Signals that such entries may have come.
    ignored_changed: Notify,
    /// The Pkis that this replica refused lately.
    pub rejections: Rejections,
    /// The Secrets that went with deleted Pkis.
    removals: Mutex<Removals>,
    /// The Secrets of the CAs were touched.
    ca_touched: Notify,
    /// The progress of the CA, if it is known.
    ca_summary: Mutex<Option<CaSummary>>,
    rules: watch::Sender<Arc<RuleBook>>,
    namespace_uids: RwLock<Uids>,
    ages: Ages,
    /// Some verdict may be another one now.
    verdicts_changed: Notify,
    /// The namespaces in which a request for a pod certificate may have another verdict now.
    pub touched: Touched,
    /// Whether the API server has pod certificates, once that is known.
    pod_certificates: Mutex<Option<bool>>,
    triggers: Mutex<Option<UnboundedSender<Key>>>,
    /// The resources of which a whole list has come.
    synced: watch::Sender<BTreeSet<Watched>>,
}

/// A Secret that is not there.
#[derive(Clone, Debug)]
pub struct Awaited {
    /// Whether a Pki claims it.
    pub is_claimed: bool,
    /// The pods that cannot start without it.
    pub pods: Vec<Arc<SecretUser>>,
}

/// Evaluates an object of a namespace. Slow rules in CEL leave the async workers free, and run one
/// at a time, so that they occupy one core at most.
pub fn evaluate_with<T>(rules: &RuleBook, namespace: &str, evaluate: impl FnOnce() -> T) -> T {
    static TURN: Mutex<()> = Mutex::new(());
    if !rules.is_slow(namespace) {
        return evaluate();
    }
    tokio::task::block_in_place(|| {
        let _turn = lock(&TURN);
        evaluate()
    })
}

impl Cache {
    /// Empty caches, and the work that fills them and keeps them current for as long as it is
    /// polled.
    pub fn new(
        client: &Client,
        scope: Scope,
        settings: Settings,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send + 'static) {
        let settings = Arc::new(settings);
        let (cache, policies) = Self::empty(scope, settings.clone());
        let cache = Arc::new(cache);
        let work = {
            let (cache, client) = (cache.clone(), client.clone());
            async move { Box::pin(cache.follow(&client, policies, settings)).await }
        };
        (cache, work)
    }

    fn empty(scope: Scope, settings: Arc<Settings>) -> (Self, Writer<StoredPolicy>) {
        let (policies, writer) = reflector::store();
        let cache = Self {
            scope,
            pkis: SharedIndex::default(),
            policies,
            pods: SharedIndex::default(),
            secrets: SharedIndex::default(),
            misannotated: Mutex::default(),
            ignored_changed: Notify::new(),
            rejections: Rejections::default(),
            removals: Mutex::default(),
            ca_touched: Notify::new(),
            ca_summary: Mutex::default(),
            rules: watch::Sender::new(Arc::new(RuleBook::new(settings, []))),
            namespace_uids: RwLock::default(),
            ages: Ages::default(),
            verdicts_changed: Notify::new(),
            touched: Touched::default(),
            pod_certificates: Mutex::default(),
            triggers: Mutex::default(),
            synced: watch::Sender::default(),
        };
        (cache, writer)
    }

    /// The Pki of this key.
    pub fn pki(&self, key: &Key) -> Option<StoredPki> {
        let known = self.pkis.read().get(key).cloned();
        known.map(|known| known.unpack())
    }

    /// The Pkis that can be read. Each is unpacked when the iterator comes to it.
    pub fn readable_pkis(&self) -> impl Iterator<Item = Pki> + use<> {
        let known = self.known_pkis().into_iter();
        known.filter_map(|known| known.unpack().0.ok())
    }

    /// The Pkis that there are now.
    pub fn known_pkis(&self) -> Vec<Arc<KnownPki>> {
        self.pkis.read().all().cloned().collect()
    }

    /// The rule book of the policies that are in force.
    pub fn rules(&self) -> Arc<RuleBook> {
        self.rules.borrow().clone()
    }

    /// The rule book, once it knows this namespace. A manifest may create a namespace and a Pki,
    /// and be faster than the watch. After a second, the rule book is returned without the
    /// namespace.
    pub async fn rules_for(&self, namespace: &str) -> Arc<RuleBook> {
        const ATTEMPTS: u32 = 50;
        for _ in 0..ATTEMPTS {
            let rules = self.rules();
            if rules.knows(namespace) {
                return rules;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.rules()
    }

    /// The UID of the namespace that has this name now.
    pub fn namespace_uid(&self, name: &str) -> Option<Arc<str>> {
        read(&self.namespace_uids).of_name(name)
    }

    /// How long ago the API server last confirmed the watch of each resource.
    pub fn watch_ages(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let now = Instant::now();
        let ages = Watched::ALL.into_iter();
        ages.map(move |watched| (watched.resource(), self.ages.of(watched, now)))
    }

    /// The resources by which objects are judged, and whose watch is older than this.
    pub fn stale(&self, max_age: Duration) -> Vec<&'static str> {
        let now = Instant::now();
        let needed = Watched::NEEDED.into_iter();
        let stale = needed.filter(|watched| self.ages.of(*watched, now) > max_age);
        stale.map(Watched::resource).collect()
    }

    /// Yields whenever the rule book changes, but for a namespace.
    pub fn rules_changed(&self) -> impl Stream<Item = ()> + Send + 'static {
        futures::stream::unfold(self.rules.subscribe(), |mut rules| async move {
            rules.changed().await.ok().map(|()| ((), rules))
        })
    }

    /// The state of a Secret that was seen last, if there is such a Secret.
    pub fn secret_version(&self, key: &Key) -> Option<Version> {
        self.secrets
            .read()
            .get(key)
            .map(|secret| secret.version.clone())
    }

    /// Whether the Secrets of this namespace are watched, so that there are no others than those
    /// that are known.
    pub fn knows_secrets_of(&self, namespace: &str) -> bool {
        self.scope.contains(namespace) && !self.scope.is_refused(namespace, "secrets")
    }

    /// Whether there is such a Secret.
    pub fn has_secret(&self, key: &Key) -> bool {
        self.secrets.read().get(key).is_some()
    }

    /// Whether there is such a Secret, and it is this Pki's by all that is known.
    pub fn has_secret_of(&self, secret: &Key, pki: &Key, pki_uid: &str) -> bool {
        let secrets = self.secrets.read();
        secrets
            .get(secret)
            .is_some_and(|secret| secret.is_of(pki, pki_uid))
    }

    /// The pods that use a Secret and that people read.
    pub fn users(&self, secret: &Key) -> Vec<Arc<SecretUser>> {
        cached_pod::users(&self.pods.read(), secret)
            .cloned()
            .collect()
    }

    /// Whether any pod uses a Secret, also one that is being deleted.
    pub fn is_used(&self, secret: &Key) -> bool {
        self.pods.read().referencing(secret).next().is_some()
    }

    /// The deleted Pki with which a Secret went that pods wait for, if that is known.
    pub fn removal(&self, secret: &Key, now: Timestamp) -> Option<Removal> {
        let uid = self.namespace_uid(&secret.namespace);
        lock(&self.removals).awaited(secret, uid.as_ref(), now)
    }

    /// The Secrets that are not there and that pods cannot start without.
    pub fn awaited(&self) -> BTreeMap<Key, Awaited> {
        let (pods, pkis) = (self.pods.read(), self.pkis.read());
        let mut awaited = BTreeMap::new();
        for secret in pods.referenced().filter(|secret| !self.has_secret(secret)) {
            let waiting = pods
                .referencing(secret)
                .filter(|pod| pod.waits_for(&secret.name));
            let waiting: Vec<_> = waiting.cloned().collect();
            if !waiting.is_empty() {
                let is_claimed = claims::claimants(&pkis, secret).next().is_some();
                let of_secret = Awaited {
                    is_claimed,
                    pods: waiting,
                };
                awaited.insert(secret.clone(), of_secret);
            }
        }
        awaited
    }

    /// The served namespaces whose Pkis may not be read, so that their certificates are not known.
    pub fn unreadable_namespaces(&self) -> Vec<String> {
        let known = self.rules().namespaces();
        let refused = self.scope.refused().into_iter();
        let unread = refused.filter(|(namespace, resources)| {
            resources.contains(&"pkis") && known.contains_key(namespace)
        });
        unread.map(|(namespace, _)| namespace).collect()
    }

    /// The progress of the CA, once it is known.
    pub fn ca_summary(&self) -> Option<CaSummary> {
        *lock(&self.ca_summary)
    }

    pub(crate) fn set_ca_summary(&self, summary: CaSummary) {
        *lock(&self.ca_summary) = Some(summary);
    }

    /// Returns when a Secret of a CA has been touched since the last call. For one listener.
    pub async fn ca_touched(&self) {
        self.ca_touched.notified().await;
    }

    /// Returns when a verdict may have changed since the last call: of a Pki, or of policies or
    /// namespaces. For one listener.
    pub async fn verdicts_changed(&self) {
        self.verdicts_changed.notified().await;
    }

    /// The Pkis that may need work from now on. One listener at a time: a new one ends the one
    /// before.
    pub fn triggers(&self) -> UnboundedReceiver<Key> {
        let (sender, receiver) = unbounded();
        *lock(&self.triggers) = Some(sender);
        receiver
    }

    /// Triggers a reconcile of these Pkis.
    pub fn trigger(&self, keys: impl IntoIterator<Item = Key>) {
        let mut listener = lock(&self.triggers);
        let Some(sender) = listener.as_ref() else {
            return;
        };
        for key in keys {
            if sender.unbounded_send(key).is_err() {
                *listener = None;
                return;
            }
        }
    }

    /// Triggers a reconcile of all known Pkis with such keys.
    pub fn trigger_where(&self, is_meant: impl Fn(&Key) -> bool) {
        let keys = self.known_pkis().into_iter().map(|pki| pki.key().clone());
        self.trigger(keys.filter(is_meant));
    }

    /// Whether admission can be answered: the policies, the namespaces and the Pkis are known.
    pub fn can_judge(&self) -> bool {
        let synced = self.synced.borrow();
        let mut needed = Watched::NEEDED.iter();
        needed.all(|watched| synced.contains(watched))
    }

    /// Waits until every cache has seen a whole list, so that nothing is decided on half of the
    /// facts.
    pub async fn synced(&self) {
        let all = BTreeSet::from(Watched::ALL);
        let mut synced = self.synced.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = synced.wait_for(|synced| *synced == all).await;
    }
}
