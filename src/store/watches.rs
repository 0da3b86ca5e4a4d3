//! The watches that fill the [`Cache`] and keep it current.

use super::{Cache, Removal, Watched};
use crate::api::annotations::Carrier;
use crate::api::{Pki, PkiPolicy, StoredPolicy};
use crate::k8s::object_key::Key;
use crate::k8s::projection::{Projected, Projection};
use crate::k8s::secret;
use crate::k8s::tolerant::{self, Lenient, map};
use crate::policy::{Namespaces, RuleBook, Settings};
use crate::store::cached_pki::KnownPki;
use crate::store::cached_pod::{self, SecretUser};
use crate::store::cached_secret::KnownSecret;
use crate::store::claims;
use crate::store::secret_index::{Change, ReferencesSecrets, SecretIndex};
use crate::util::sync::{lock, write};
use crate::util::time::whole_second;
use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::core::{NamespaceScope, PartialObjectMeta};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use std::sync::Arc;
use std::time::Instant;

impl Cache {
    /// Follows all of them for as long as it is polled.
    pub(super) async fn follow(
        &self,
        client: &Client,
        policies: Writer<StoredPolicy>,
        settings: Arc<Settings>,
    ) {
        tokio::join!(
            self.follow_pkis(client),
            self.follow_policies(client, policies, settings.clone()),
            self.follow_namespaces(client),
            self.follow_pods(client),
            self.follow_secrets(client),
            self.follow_reserved(client, &settings),
        );
    }

    async fn follow_pkis(&self, client: &Client) {
        let mut affected = Vec::new();
        follow(self.watch(Watched::Pkis, client), |event| {
            self.take_pki(event, &mut affected);
        })
        .await;
    }

    /// While a list comes in, half of those that claim a Secret may seem to be all. So `affected`
    /// collects which Pkis to look at when it is whole.
    fn take_pki(&self, event: Event<KnownPki>, affected: &mut Vec<Key>) {
        let is_listing = matches!(event, Event::Init | Event::InitApply(_));
        let is_done = matches!(event, Event::InitDone);
        let mut pkis = self.pkis.write();
        let event = map(event, |told| unless_behind(told, &pkis));
        let changes = pkis.apply(event);
        affected.extend(affected_by(&pkis, &changes));
        drop(pkis);
        self.note_ignored(after(&changes).map(|pki| &pki.ignored));
        for change in &changes {
            self.note_removal(change);
        }
        if !is_listing {
            self.look_at(std::mem::take(affected));
        }
        if is_done {
            self.mark(Watched::Pkis);
        }
    }

    /// Keeps in mind which Secret goes with a Pki that is deleted.
    fn note_removal(&self, change: &Change<KnownPki>) {
        let is_gone = change.after.as_ref().is_none_or(|pki| pki.is_going());
        let before = change.before.as_ref().filter(|_| is_gone);
        let claimed = before.and_then(|pki| Some((pki, pki.claimed()?)));
        let Some((known, secret)) = claimed else {
            return;
        };
        let secret = known.key().beside(secret);
        let Ok(pki) = known.unpack().0 else { return };
        if secret::is_kept(&pki) {
            return;
        }
        let status = pki.status.as_ref();
        let removal = Removal {
            pki: known.key().name.clone(),
            at: whole_second(Timestamp::now()),
            was_written: status.is_some_and(|status| status.serial_number.is_some()),
        };
        let uid = self.namespace_uid(&secret.namespace);
        lock(&self.removals).note(&secret, removal, uid);
    }

    /// What came back from a write, which the watch will tell in a moment. Until then a look would
    /// judge by what was before: it would write the same again and date it anew, or serve a wish a
    /// second time.
    pub fn learn(&self, written: Pki) {
        let written = KnownPki::from(written);
        let mut pkis = self.pkis.write();
        // One that is gone does not come back by that, nor one that was made anew meanwhile.
        let Some(known) = pkis.get(written.key()).filter(|it| it.precedes(&written)) else {
            return;
        };
        let told = known.told().unwrap_or(known).clone();
        let changes = pkis.apply(Event::Apply(written.ahead_of(told)));
        let affected = affected_by(&pkis, &changes);
        drop(pkis);
        self.look_at(affected);
    }

    /// A write met a conflict. If it rested on what was learned, that may never be told, as the
    /// cluster was restored from a backup; so what the watch told counts again.
    pub fn doubt(&self, pki: &Key) {
        let mut pkis = self.pkis.write();
        let told = pkis.get(pki).and_then(|known| known.told().cloned());
        let event = told.map(|told| Event::Apply(Arc::unwrap_or_clone(told)));
        let changes = event.map_or_else(Vec::new, |event| pkis.apply(event));
        let affected = affected_by(&pkis, &changes);
        drop(pkis);
        self.look_at(affected);
    }

    fn look_at(&self, affected: Vec<Key>) {
        if !affected.is_empty() {
            self.verdicts_changed.notify_one();
        }
        self.trigger(affected);
    }

    async fn follow_policies(
        &self,
        client: &Client,
        mut writer: Writer<StoredPolicy>,
        settings: Arc<Settings>,
    ) {
        let what = Watched::Policies;
        let api = Api::all(self.ages.client(what, client));
        let policies = tolerant::watch(what.resource(), api, watcher::Config::default());
        follow(policies, |event| {
            self.take_policy(&event, &mut writer, &settings);
        })
        .await;
    }

    fn take_policy(
        &self,
        event: &Event<StoredPolicy>,
        writer: &mut Writer<StoredPolicy>,
        settings: &Arc<Settings>,
    ) {
        let is_done = matches!(event, Event::InitDone);
        // During a list the old rules hold: half a list would refuse what the other half permits.
        let is_change = match event {
            Event::Apply(policy) => !self.has_spec_of(policy),
            Event::Delete(_) | Event::InitDone => true,
            Event::Init | Event::InitApply(_) => false,
        };
        writer.apply_watcher_event(event);
        if is_change {
            let stored = self.policies.state();
            let readable = stored.iter().filter_map(|policy| readable_policy(policy));
            // Compiling new rules in CEL may take a good part of a second.
            let compile = || RuleBook::new(settings.clone(), readable).with_clock(Instant::now);
            let rules = tokio::task::block_in_place(compile);
            self.rules.send_modify(|current| {
                *current = Arc::new(rules.with_namespaces(current.namespaces()));
            });
            self.verdicts_changed.notify_one();
        }
        if is_done {
            self.mark(Watched::Policies);
        }
    }

    /// Whether the policy is known with this very spec: a status is written to it, too, and no
    /// news.
    fn has_spec_of(&self, policy: &StoredPolicy) -> bool {
        let version = |policy: &StoredPolicy| {
            let meta = policy.meta();
            (meta.uid.clone(), meta.generation)
        };
        let known = self.policies.get(&ObjectRef::from_obj(policy));
        known.is_some_and(|known| version(&known) == version(policy))
    }

    async fn follow_namespaces(&self, client: &Client) {
        let mut listed = Namespaces::new();
        let (client, config) = (
            self.ages.client(Watched::Namespaces, client),
            watcher::Config::default(),
        );
        follow(self.scope.watch_namespaces(&client, config), |event| {
            self.take_namespace(event, &mut listed);
        })
        .await;
    }

    /// Of a namespace its labels matter, to policies that select by them. `listed` collects a list
    /// until it is whole.
    fn take_namespace(&self, event: Event<PartialObjectMeta<Namespace>>, listed: &mut Namespaces) {
        write(&self.namespace_uids).apply(&event);
        self.watch_misled(Carrier::Namespace, &event);
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
        let now = Arc::new(now);
        // Those that are affected are looked at, and not all there are.
        self.rules.send_if_modified(|rules| {
            *rules = Arc::new(rules.with_namespaces(now.clone()));
            false
        });
        if self.rules().reads_labels() {
            self.verdicts_changed.notify_one();
            let has_changed = |pki: &Key| known.get(&*pki.namespace) != now.get(&*pki.namespace);
            self.trigger_where(has_changed);
        }
        if is_done {
            self.mark(Watched::Namespaces);
        }
    }

    async fn follow_pods(&self, client: &Client) {
        follow(self.watch::<SecretUser>(Watched::Pods, client), |event| {
            let done = matches!(event, Event::InitDone);
            let changes = self.pods.write().apply(event);
            self.note_ignored(after(&changes).map(|pod| &pod.ignored));
            for change in &changes {
                self.take_pod(change);
            }
            if done {
                self.mark(Watched::Pods);
            }
        })
        .await;
    }

    /// Triggers the Pkis that have an Event for a pod that comes, and those that remove a former
    /// Secret once the last pod is gone.
    fn take_pod(&self, change: &Change<SecretUser>) {
        let is_news = cached_pod::is_news(change);
        if !is_news && change.after.is_some() {
            return;
        }
        let pkis = self.pkis.read();
        for secret in change.secrets() {
            if is_news {
                self.trigger(claims::unready_claimants(&pkis, &secret));
            }
            let holders = claims::former_holders(&pkis, &secret);
            self.trigger(holders.map(|pki| pki.key().clone()));
        }
    }

    /// Secrets are watched by their metadata alone; their content is read one by one when it
    /// matters.
    async fn follow_secrets(&self, client: &Client) {
        follow(
            self.watch::<KnownSecret>(Watched::Secrets, client),
            |event| {
                let done = matches!(event, Event::InitDone);
                let changes = self.secrets.write().apply(event);
                self.note_ignored(after(&changes).map(|secret| &secret.ignored));
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

    /// The Secrets of the CAs, where they are not among those that are watched anyway: by their
    /// names, because the operator may read no others in its namespace then.
    async fn follow_reserved(&self, client: &Client, settings: &Settings) {
        if self.scope.contains(&settings.namespace) {
            return;
        }
        let api = Api::namespaced(client.clone(), &settings.namespace);
        let secrets = settings.reserved_secrets.iter().map(|name| {
            let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
            tolerant::watch::<PartialObjectMeta<Secret>>("secrets", api.clone(), only).boxed()
        });
        follow(stream::select_all(secrets), |event| {
            // Each watch lists one Secret, so that none of them tells what is gone of the others.
            match &event {
                Event::InitApply(secret) => {
                    self.watch_misled(Carrier::CaSecret, &Event::Apply(secret.clone()));
                }
                Event::Apply(_) | Event::Delete(_) => self.watch_misled(Carrier::CaSecret, &event),
                Event::Init | Event::InitDone => {}
            }
            if !matches!(event, Event::Init) {
                self.ca_touched.notify_one();
            }
        })
        .await;
    }

    fn take_secret(&self, change: &Change<KnownSecret>) {
        let Some(secret) = change.after.as_ref().or(change.before.as_ref()) else {
            return;
        };
        let key = secret.key();
        let settings = &self.rules().settings;
        if settings.is_reserved(&key.namespace, &key.name) {
            self.ca_touched.notify_one();
        }
        let pkis = self.pkis.read();
        self.trigger(pkis.naming(key).map(|pki| pki.key().clone()));
    }

    fn mark(&self, watched: Watched) {
        self.synced
            .send_if_modified(|synced| synced.insert(watched));
    }

    /// A watch of the namespaces that are served.
    fn watch<T>(
        &self,
        watched: Watched,
        client: &Client,
    ) -> impl Stream<Item = Event<T>> + Send + use<T>
    where
        T: Projection<Whole: Resource<Scope: NamespaceScope>>,
    {
        let api = Api::<Lenient<Projected<T>>>::all(self.ages.client(watched, client));
        let events = self
            .scope
            .watch(watched.resource(), api, watcher::Config::default());
        events.map(|event| map(event, |part: Projected<T>| part.kept))
    }
}

/// What the watch tells, or what was learned of the same Pki, if the watch is still behind that.
fn unless_behind(told: KnownPki, pkis: &SecretIndex<KnownPki>) -> KnownPki {
    match pkis.get(told.key()) {
        Some(known) if known.told().is_some() && told.precedes(known) => {
            KnownPki::clone(known).ahead_of(Arc::new(told))
        }
        _ => told,
    }
}

/// Which Pkis to look at after these changes.
fn affected_by(pkis: &SecretIndex<KnownPki>, changes: &[Change<KnownPki>]) -> Vec<Key> {
    let affected = changes
        .iter()
        .flat_map(|change| claims::affected(pkis, change));
    affected.collect()
}

/// The objects that came, or are others now.
fn after<T>(changes: &[Change<T>]) -> impl Iterator<Item = &T> {
    changes.iter().filter_map(|change| change.after.as_deref())
}

/// Hands each event of a watch to `handle`.
async fn follow<K>(
    events: impl Stream<Item = Event<K>> + Send,
    mut handle: impl FnMut(Event<K>) + Send,
) {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        handle(event);
    }
}

/// A policy that cannot be read permits nothing. Its author is told in the log; the schema keeps it
/// from happening.
fn readable_policy(stored: &StoredPolicy) -> Option<&PkiPolicy> {
    let result = stored.0.as_ref();
    if let Err(error) = result {
        let policy = stored.name_any();
        tracing::error!(policy, %error, "the PkiPolicy cannot be read and permits nothing");
    }
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::scope::Scope;
    use futures::channel::mpsc::UnboundedReceiver;
    use kube::core::DeserializeGuard;
    use serde_json::json;

    fn pki(name: &str, uid: &str, version: u32, generation: i64) -> Pki {
        let pki = json!({
            "apiVersion": "box.com/v1", "kind": "Pki",
            "metadata": {
                "namespace": "ns", "name": name, "uid": uid, "resourceVersion": version.to_string(),
                "generation": generation
            },
            "spec": {"serviceName": "app1"}
        });
        serde_json::from_value(pki).unwrap()
    }

    /// The Pkis that were asked to be looked at, and the generation that the cache shows of each,
    /// if it is there.
    fn looks(cache: &Cache, triggers: &mut UnboundedReceiver<Key>) -> Vec<(String, Option<i64>)> {
        let keys = std::iter::from_fn(|| triggers.try_recv().ok());
        let look = |key: Key| {
            let shown = cache.pki(&key).map(|pki| pki.meta().generation.unwrap());
            (key.name.to_string(), shown)
        };
        keys.map(look).collect()
    }

    #[test]
    fn a_pki_that_a_list_brings_or_has_no_more_is_looked_at() {
        let (cache, _) = Cache::empty(Scope::default(), Arc::default());
        let (mut triggers, mut affected) = (cache.triggers(), Vec::new());
        let (a, b) = (|| pki("a", "a", 1, 1).into(), || pki("b", "b", 1, 1).into());
        for (event, looked_at) in [
            (Event::Init, None),
            (Event::InitDone, None),
            (Event::Apply(a()), Some(("a", Some(1)))),
            (Event::Init, None),
            (Event::InitApply(a()), None),
            (Event::InitApply(b()), None),
            (Event::InitDone, Some(("b", Some(1)))),
            (Event::Init, None),
            (Event::InitApply(b()), None),
            (Event::InitDone, Some(("a", None))),
            (Event::Delete(b()), Some(("b", None))),
        ] {
            let what = format!("{event:?}");
            cache.take_pki(event, &mut affected);
            let looked_at = looked_at.map(|(name, shown)| (name.to_owned(), shown));
            let looks = looks(&cache, &mut triggers);
            assert_eq!(looks, Vec::from_iter(looked_at), "{what}");
        }
    }

    #[test]
    fn what_was_written_is_known_at_once_and_until_something_newer_comes() {
        let (cache, _) = Cache::empty(Scope::default(), Arc::default());
        let version = || {
            let known = cache.pki(&Key::new("ns", "a"));
            known.map(|known| known.resource_version().unwrap())
        };
        let told = |event| cache.take_pki(event, &mut Vec::new());
        let applied = |version| told(Event::Apply(pki("a", "u", version, 1).into()));
        let listed = |version| {
            told(Event::Init);
            told(Event::InitApply(pki("a", "u", version, 1).into()));
            told(Event::InitDone);
        };
        cache.learn(pki("a", "u", 10, 1));
        assert_eq!(version(), None, "it is not there, or no more");
        applied(9);
        cache.learn(pki("a", "u", 10, 1));
        assert_eq!(version().as_deref(), Some("10"));
        applied(9);
        assert_eq!(version().as_deref(), Some("10"), "the watch is behind");
        listed(9);
        assert_eq!(version().as_deref(), Some("10"), "the list is, too");
        cache.learn(pki("a", "u", 8, 1));
        assert_eq!(version().as_deref(), Some("10"), "the write was before");
        applied(10);
        assert_eq!(version().as_deref(), Some("10"));
        cache.doubt(&Key::new("ns", "a"));
        assert_eq!(version().as_deref(), Some("10"), "the watch has told it");
        cache.learn(pki("a", "before", 101, 1));
        assert_eq!(version().as_deref(), Some("10"), "it was made anew");
        told(Event::Delete(pki("a", "u", 11, 1).into()));
        cache.learn(pki("a", "u", 12, 1));
        assert_eq!(version(), None, "it is gone");
    }

    #[test]
    fn what_the_watch_tells_counts_also_after_the_cluster_was_restored_from_a_backup() {
        let (cache, _) = Cache::empty(Scope::default(), Arc::default());
        let version = || cache.pki(&Key::new("ns", "a"))?.resource_version();
        let told = |event| cache.take_pki(event, &mut Vec::new());
        for (event, shown) in [
            (Event::Apply(pki("a", "u", 100, 1)), "100"),
            (Event::Apply(pki("a", "u", 7, 1)), "7"),
            (Event::Apply(pki("a", "u", 100, 1)), "100"),
            (Event::InitApply(pki("a", "u", 7, 1)), "7"),
        ] {
            told(map(event, KnownPki::from));
            assert_eq!(version().as_deref(), Some(shown));
        }
        let doubted = || {
            cache.doubt(&Key::new("ns", "a"));
            version()
        };
        cache.learn(pki("a", "u", 99, 1));
        cache.learn(pki("a", "u", 100, 1));
        assert_eq!(version().as_deref(), Some("100"));
        assert_eq!(doubted().as_deref(), Some("7"), "it was told nothing since");
        cache.learn(pki("a", "u", 100, 1));
        told(Event::Apply(pki("a", "u", 8, 1).into()));
        assert_eq!(version().as_deref(), Some("100"), "it seems to be behind");
        assert_eq!(doubted().as_deref(), Some("8"), "a conflict told better");
        told(Event::Apply(pki("a", "u", 9, 1).into()));
        assert_eq!(version().as_deref(), Some("9"));
    }

    #[test]
    fn a_policy_makes_new_rules_when_its_spec_changes_and_not_when_its_status_does() {
        let (cache, mut writer) = Cache::empty(Scope::default(), Arc::default());
        let policy = |names: &[&str], generation: i64, admitted: i64| {
            let policy = json!({
                "apiVersion": "box.com/v1", "kind": "PkiPolicy",
                "metadata": {"name": "p", "uid": "u", "generation": generation},
                "spec": {"serviceNames": names}, "status": {"admitted": admitted}
            });
            Event::Apply(DeserializeGuard(
                Ok(serde_json::from_value(policy).unwrap()),
            ))
        };
        for (event, is_change) in [
            (policy(&["a"], 1, 0), true),
            (policy(&["a"], 1, 1), false),
            (policy(&["b"], 2, 1), true),
        ] {
            let before = cache.rules();
            cache.take_policy(&event, &mut writer, &Arc::default());
            assert_ne!(Arc::ptr_eq(&before, &cache.rules()), is_change, "{event:?}");
            let known = cache.policies.state();
            assert!(
                known[0]
                    .0
                    .as_ref()
                    .is_ok_and(|policy| policy.status.is_some())
            );
        }
    }
}
