//! The watches that fill the [`Cache`] and keep it current.

use super::{Cache, Watched, Writers};
use crate::api::{PkiPolicy, StoredPki, StoredPolicy};
use crate::claims::{self, Claim, Reader};
use crate::index::{Change, Key, NamesSecrets};
use crate::lenient::{self, Lenient, map};
use crate::locks::{lock, read, write};
use crate::part::{Kept, Part};
use crate::pods::{self, SecretUser};
use crate::policy::{Namespaces, RuleBook, Settings};
use crate::secrets::KnownSecret;
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::core::{NamespaceScope, PartialObjectMeta};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use std::sync::Arc;

impl Cache {
    /// Follows all of them for as long as it is polled.
    pub(super) async fn follow(&self, client: &Client, writers: Writers, settings: Arc<Settings>) {
        tokio::join!(
            self.follow_pkis(client, writers.pkis),
            self.follow_policies(client, writers.policies, settings.clone()),
            self.follow_namespaces(client),
            self.follow_pods(client),
            self.follow_secrets(client),
            self.follow_reserved(client, &settings),
        );
    }

    async fn follow_pkis(&self, client: &Client, mut writer: Writer<StoredPki>) {
        let mut affected = Vec::new();
        follow(self.watch("pkis", client), |event| {
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
            if !affected.is_empty() {
                self.verdicts_changed.notify_one();
            }
            self.trigger(std::mem::take(affected));
        }
        if is_done {
            self.mark(Watched::Pkis);
        }
    }

    async fn follow_policies(
        &self,
        client: &Client,
        mut writer: Writer<StoredPolicy>,
        settings: Arc<Settings>,
    ) {
        let api = Api::all(client.clone());
        let policies = lenient::watch("pkipolicies", api, watcher::Config::default());
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
            let rules = RuleBook::new(settings.clone(), readable);
            self.rules.send_modify(|current| {
                *current = Arc::new(rules.with_namespaces(current.namespaces()));
            });
            self.verdicts_changed.notify_one();
        }
        if is_done {
            self.mark(Watched::Policies);
        }
    }

    /// Whether the policy is known with this very spec: a status is written to it, too, and no news.
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
        let config = watcher::Config::default();
        follow(self.scope.watch_namespaces(client, config), |event| {
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
        let now = Arc::new(now);
        // Those that are affected are looked at, and not all there are.
        self.rules.send_if_modified(|rules| {
            *rules = Arc::new(rules.with_namespaces(now.clone()));
            false
        });
        if self.rules().reads_labels() {
            self.verdicts_changed.notify_one();
            let pkis = self.pkis.state();
            let keys = pkis.iter().map(|pki| Key::of(&**pki));
            let has_changed = |pki: &Key| known.get(&*pki.namespace) != now.get(&*pki.namespace);
            self.trigger(keys.filter(has_changed));
        }
        if is_done {
            self.mark(Watched::Namespaces);
        }
    }

    async fn follow_pods(&self, client: &Client) {
        follow(self.watch::<SecretUser>("pods", client), |event| {
            let done = matches!(event, Event::InitDone);
            let changes = write(&self.pods).apply(event);
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
        follow(self.watch::<KnownSecret>("secrets", client), |event| {
            let done = matches!(event, Event::InitDone);
            let changes = lock(&self.secrets).apply(event);
            for change in changes {
                self.take_secret(&change);
            }
            if done {
                self.mark(Watched::Secrets);
            }
        })
        .await;
    }

    /// The Secrets of the CAs, where they are not among those that are watched anyway: by their names, because the operator
    /// may read no others in its namespace then.
    async fn follow_reserved(&self, client: &Client, settings: &Settings) {
        if self.scope.contains(&settings.namespace) {
            return;
        }
        let api = Api::namespaced(client.clone(), &settings.namespace);
        let secrets = settings.reserved_secrets.iter().map(|name| {
            let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
            lenient::watch::<PartialObjectMeta<Secret>>("secrets", api.clone(), only).boxed()
        });
        follow(stream::select_all(secrets), |event| {
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
        self.trigger(claims::naming(&read(&self.claims), key));
        self.trigger(claims::naming(&lock(&self.readers), key));
    }

    fn mark(&self, watched: Watched) {
        self.synced
            .send_if_modified(|synced| synced.insert(watched));
    }

    /// A watch of the namespaces that are served.
    fn watch<T>(
        &self,
        what: &'static str,
        client: &Client,
    ) -> impl Stream<Item = Event<T>> + Send + use<T>
    where
        T: Kept<Whole: Resource<Scope: NamespaceScope>>,
    {
        let api = Api::<Lenient<Part<T>>>::all(client.clone());
        let events = self.scope.watch(what, api, watcher::Config::default());
        events.map(|event| map(event, |part: Part<T>| part.kept))
    }
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

/// A policy that cannot be read permits nothing. Its author is told in the log; the schema keeps it from happening.
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
    use crate::scope::Scope;
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
        let (cache, mut writers) = Cache::empty(Scope::default(), Arc::default());
        let mut triggers = cache.triggers();
        let mut affected = Vec::new();
        let mut take = |event| {
            cache.take_pki(event, &mut writers.pkis, &mut affected);
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
    #[test]
    fn a_policy_makes_new_rules_when_its_spec_changes_and_not_when_its_status_does() {
        let (cache, mut writers) = Cache::empty(Scope::default(), Arc::default());
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
            cache.take_policy(&event, &mut writers.policies, &Arc::default());
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
