//! What the operator knows of the cluster without asking: watches, and the caches they feed.
//!
//! Every replica keeps them, so that each can answer admission and any can take over the lead at once. A change that
//! may matter to a [`Pki`](crate::api::Pki) becomes a trigger, which the leader's reconciler follows.

use crate::api::{PkiPolicy, StoredPki, StoredPolicy};
use crate::claims::{self, Claim, Reader};
use crate::index::{BySecret, Change, Key, NamesSecrets, SecretVersion};
use crate::lenient::{self, Lenient, map};
use crate::pods::{self, SecretUser};
use crate::policy::{Namespaces, RuleBook, Settings};
use crate::refusals::Refusals;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// The caches.
#[derive(Debug)]
pub struct Cache {
    /// All Pkis.
    pub pkis: Store<StoredPki>,
    /// All Pkis by the Secret they claim.
    pub claims: RwLock<BySecret<Claim>>,
    /// The Pkis that take passwords from other Secrets, by those.
    readers: Mutex<BySecret<Reader>>,
    /// All pods by the Secrets they use.
    pub pods: RwLock<BySecret<SecretUser>>,
    secrets: Mutex<BySecret<SecretVersion>>,
    /// The Pkis that this replica refused lately.
    pub refusals: Refusals,
    /// The Secrets of the CAs were touched.
    ca_touched: Notify,
    /// When the CA ends, as far as is known.
    ca_end: Mutex<Option<Timestamp>>,
    rules: watch::Sender<Arc<RuleBook>>,
    triggers: Mutex<Option<UnboundedSender<ObjectRef<StoredPki>>>>,
    /// What has been seen as a whole list.
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

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Watched {
    Namespaces,
    Pkis,
    Policies,
    Pods,
    Secrets,
}

impl Cache {
    /// Empty caches, and the work that fills them and keeps them current for as long as it is polled.
    pub fn new(
        client: &Client,
        settings: Settings,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send + 'static) {
        let settings = Arc::new(settings);
        let (cache, pki_writer) = Self::empty(settings.clone());
        let cache = Arc::new(cache);
        let work = {
            let (cache, client) = (cache.clone(), client.clone());
            async move {
                tokio::join!(
                    cache.follow_pkis(&client, pki_writer),
                    cache.follow_policies(&client, settings),
                    cache.follow_namespaces(&client),
                    cache.follow_pods(&client),
                    cache.follow_secrets(&client),
                );
            }
        };
        (cache, work)
    }

    fn empty(settings: Arc<Settings>) -> (Self, Writer<StoredPki>) {
        let (pkis, pki_writer) = reflector::store();
        let cache = Self {
            pkis,
            claims: RwLock::default(),
            readers: Mutex::default(),
            pods: RwLock::default(),
            secrets: Mutex::default(),
            refusals: Refusals::default(),
            ca_touched: Notify::new(),
            ca_end: Mutex::default(),
            rules: watch::Sender::new(Arc::new(RuleBook::new(settings, []))),
            triggers: Mutex::default(),
            synced: watch::Sender::default(),
        };
        (cache, pki_writer)
    }

    /// The rule book of the policies that are in force.
    pub fn rules(&self) -> Arc<RuleBook> {
        self.rules.borrow().clone()
    }

    /// The rule book, once it knows this namespace: who makes both by one manifest is faster than a watch. A namespace that
    /// does not come within a second is judged as it is.
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

    /// Yields whenever the rule book changes, but for a namespace.
    pub fn rules_changed(&self) -> impl Stream<Item = ()> + Send + 'static {
        futures::stream::unfold(self.rules.subscribe(), |mut rules| async move {
            rules.changed().await.ok().map(|()| ((), rules))
        })
    }

    /// Whether there is such a Secret.
    pub fn has_secret(&self, key: &Key) -> bool {
        lock(&self.secrets).get(key).is_some()
    }

    /// The Secrets that are not there and that pods cannot start without.
    pub fn awaited(&self) -> BTreeMap<Key, Awaited> {
        let (pods, claims) = (read(&self.pods), read(&self.claims));
        let mut awaited = BTreeMap::new();
        for secret in pods.named().filter(|secret| !self.has_secret(secret)) {
            let waiting = pods
                .naming(secret)
                .filter(|pod| pod.waits_for(&secret.name));
            let waiting: Vec<_> = waiting.cloned().collect();
            if !waiting.is_empty() {
                let is_claimed = claims.naming(secret).next().is_some();
                let of_secret = Awaited {
                    is_claimed,
                    pods: waiting,
                };
                awaited.insert(secret.clone(), of_secret);
            }
        }
        awaited
    }

    /// When the CA ends, once that is known.
    pub fn ca_end(&self) -> Option<Timestamp> {
        *lock(&self.ca_end)
    }

    pub(crate) fn set_ca_end(&self, end: Timestamp) {
        *lock(&self.ca_end) = Some(end);
    }

    /// Returns when a Secret of a CA has been touched since the last call. For one listener.
    pub async fn ca_touched(&self) {
        self.ca_touched.notified().await;
    }

    /// The Pkis that may need work from now on. One listener at a time: a new one ends the one before.
    pub fn triggers(&self) -> UnboundedReceiver<ObjectRef<StoredPki>> {
        let (sender, receiver) = unbounded();
        *lock(&self.triggers) = Some(sender);
        receiver
    }

    /// Asks for a look at these Pkis.
    pub fn trigger(&self, keys: impl IntoIterator<Item = Key>) {
        let mut listener = lock(&self.triggers);
        let Some(sender) = listener.as_ref() else {
            return;
        };
        for key in keys {
            let reference = ObjectRef::new(&key.name).within(&key.namespace);
            if sender.unbounded_send(reference).is_err() {
                *listener = None;
                return;
            }
        }
    }

    /// Whether admission can be answered: the policies, the namespaces and the Pkis are known.
    pub fn can_judge(&self) -> bool {
        let needed = [Watched::Policies, Watched::Namespaces, Watched::Pkis];
        let synced = self.synced.borrow();
        needed.iter().all(|watched| synced.contains(watched))
    }

    /// Waits until every cache has seen a whole list, so that nothing is decided on half of the facts.
    pub async fn synced(&self) {
        let all = BTreeSet::from([
            Watched::Namespaces,
            Watched::Pkis,
            Watched::Policies,
            Watched::Pods,
            Watched::Secrets,
        ]);
        let mut synced = self.synced.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = synced.wait_for(|synced| *synced == all).await;
    }

    async fn follow_pkis(&self, client: &Client, mut writer: Writer<StoredPki>) {
        let mut affected = Vec::new();
        follow("pkis", client, |event| {
            let event = map(event, |mut pki: StoredPki| {
                pki.managed_fields_mut().clear();
                pki
            });
            self.take_pki(event, &mut writer, &mut affected);
        })
        .await;
    }

    /// The store shows a list when it is whole; whoever looked at a Pki of it earlier would miss it. So `affected`
    /// collects, while the list comes in, which ones to look at when it is.
    fn take_pki(
        &self,
        event: Event<StoredPki>,
        writer: &mut Writer<StoredPki>,
        affected: &mut Vec<Key>,
    ) {
        writer.apply_watcher_event(&event);
        let is_listing = matches!(event, Event::Init | Event::InitApply(_));
        let is_done = matches!(event, Event::InitDone);
        lock(&self.readers).apply_some(&event, Reader::of);
        let mut claims = write(&self.claims);
        for change in claims.apply(map(event, Claim::from)) {
            affected.extend(claims::affected(&claims, &change));
        }
        drop(claims);
        if !is_listing {
            self.trigger(affected.drain(..));
        }
        if is_done {
            self.mark(Watched::Pkis);
        }
    }

    async fn follow_policies(&self, client: &Client, settings: Arc<Settings>) {
        let (policies, mut writer) = reflector::store::<StoredPolicy>();
        follow("pkipolicies", client, |event| {
            writer.apply_watcher_event(&event);
            let done = matches!(event, Event::InitDone);
            // During a list the old rules hold: half a list would refuse what the other half permits.
            if done || matches!(event, Event::Apply(_) | Event::Delete(_)) {
                let stored = policies.state();
                let readable = stored.iter().filter_map(|policy| readable_policy(policy));
                let rules = RuleBook::new(settings.clone(), readable);
                self.rules.send_modify(|current| {
                    *current = Arc::new(rules.with_namespaces(current.namespaces()));
                });
            }
            if done {
                self.mark(Watched::Policies);
            }
        })
        .await;
    }

    async fn follow_namespaces(&self, client: &Client) {
        let mut listed = Namespaces::new();
        follow("namespaces", client, |event| {
            self.take_namespace(event, &mut listed);
        })
        .await;
    }

    /// Of a namespace its labels matter, to policies that select by them. `listed` collects a list until it is whole.
    fn take_namespace(&self, event: Event<PartialObjectMeta<Namespace>>, listed: &mut Namespaces) {
        let of = |namespace: &PartialObjectMeta<Namespace>| {
            (namespace.name_any(), namespace.labels().clone())
        };
        let (known, is_done) = (self.rules().namespaces(), matches!(event, Event::InitDone));
        let now = match event {
            Event::Init => return listed.clear(),
            Event::InitApply(namespace) => return listed.extend([of(&namespace)]),
            Event::InitDone => std::mem::take(listed),
            Event::Apply(namespace) => {
                let (name, labels) = of(&namespace);
                if known.get(&name) == Some(&labels) {
                    return;
                }
                let mut now = Namespaces::clone(&known);
                now.insert(name, labels);
                now
            }
            Event::Delete(namespace) => {
                let mut now = Namespaces::clone(&known);
                now.remove(&namespace.name_any());
                now
            }
        };
        let changed = |name: &str| known.get(name) != now.get(name);
        let affected = self.pkis.state();
        let affected = affected.iter().map(|pki| Key::of(&**pki));
        let affected: Vec<_> = affected.filter(|pki| changed(&pki.namespace)).collect();
        let now = Arc::new(now);
        // Those that are affected are looked at, and not all there are.
        self.rules.send_if_modified(|rules| {
            *rules = Arc::new(rules.with_namespaces(now));
            false
        });
        if self.rules().selects_by_labels() {
            self.trigger(affected);
        }
        if is_done {
            self.mark(Watched::Namespaces);
        }
    }

    async fn follow_pods(&self, client: &Client) {
        follow("pods", client, |event| {
            let done = matches!(event, Event::InitDone);
            let changes = write(&self.pods).apply(map(event, |pod: Pod| SecretUser::from(pod)));
            for change in changes.iter().filter(|change| pods::is_news(change)) {
                for secret in change.secrets() {
                    self.trigger(claims::unready_claimants(&read(&self.claims), &secret));
                }
            }
            if done {
                self.mark(Watched::Pods);
            }
        })
        .await;
    }

    /// Secrets are watched by their metadata alone; their content is read one by one when it matters.
    async fn follow_secrets(&self, client: &Client) {
        follow(
            "secrets",
            client,
            |event: Event<PartialObjectMeta<Secret>>| {
                let done = matches!(event, Event::InitDone);
                let changes = lock(&self.secrets).apply(map(event, SecretVersion::from));
                for change in changes {
                    self.take_secret(&change);
                }
                if done {
                    self.mark(Watched::Secrets);
                }
            },
        )
        .await;
    }

    fn take_secret(&self, change: &Change<SecretVersion>) {
        let Some(secret) = change.after.as_ref().or(change.before.as_ref()) else {
            return;
        };
        let key = secret.key();
        let settings = &self.rules().settings;
        if settings.is_reserved(&key.namespace, &key.name) {
            self.ca_touched.notify_one();
        }
        self.trigger(claims::naming(&read(&self.claims), &key));
        self.trigger(claims::naming(&lock(&self.readers), &key));
    }

    fn mark(&self, watched: Watched) {
        self.synced
            .send_if_modified(|synced| synced.insert(watched));
    }
}

/// Hands each event of a watch to `handle`.
async fn follow<K>(what: &'static str, client: &Client, mut handle: impl FnMut(Event<K>) + Send)
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug + Send + 'static,
{
    let api = Api::<Lenient<K>>::all(client.clone());
    let mut events = std::pin::pin!(lenient::watch(what, api, watcher::Config::default()));
    while let Some(event) = events.next().await {
        handle(event);
    }
}

/// A policy that cannot be read permits nothing. Its author is told in the log; the schema keeps it from happening.
fn readable_policy(stored: &StoredPolicy) -> Option<&PkiPolicy> {
    let result = stored.0.as_ref();
    if let Err(error) = result {
        let policy = stored.name_any();
        tracing::error!(policy, %error, "the PkiPolicy cannot be read and permits nothing");
    }
    result.ok()
}

/// A lock whose holder panicked is taken all the same: every change under these locks leaves them consistent.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::DeserializeGuard;
    use serde_json::json;

    fn stored(name: &str) -> StoredPki {
        let pki = serde_json::from_value(json!({
            "apiVersion": "box.com/v1", "kind": "Pki",
            "metadata": {"namespace": "ns", "name": name, "uid": name, "generation": 1},
            "spec": {"serviceName": "app1"}
        }));
        DeserializeGuard(Ok(pki.unwrap()))
    }

    #[test]
    fn a_pki_that_a_new_list_brings_is_looked_at_when_the_store_shows_it() {
        let (cache, mut writer) = Cache::empty(Arc::default());
        let mut triggers = cache.triggers();
        let mut affected = Vec::new();
        let mut take = |event| {
            cache.take_pki(event, &mut writer, &mut affected);
            let mut looks = Vec::new();
            while let Ok(reference) = triggers.try_recv() {
                looks.push((reference.name.clone(), cache.pkis.get(&reference).is_some()));
            }
            looks
        };
        for event in [Event::Init, Event::InitDone] {
            assert_eq!(take(event), []);
        }
        assert_eq!(take(Event::Apply(stored("a"))), [("a".into(), true)]);
        for event in [
            Event::Init,
            Event::InitApply(stored("a")),
            Event::InitApply(stored("b")),
        ] {
            assert_eq!(take(event), []);
        }
        assert_eq!(take(Event::InitDone), [("b".into(), true)]);
        assert_eq!(take(Event::Delete(stored("a"))), [("a".into(), false)]);
    }
}
