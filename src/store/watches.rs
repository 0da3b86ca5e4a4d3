//! The watches that fill the [`Cache`] and keep it current.

use super::{Cache, Watched};
use crate::api::annotations::Carrier;
use crate::api::{PkiPolicy, StoredPolicy};
use crate::k8s::object_key::Key;
use crate::k8s::projection::{Projected, Projection};
use crate::k8s::tolerant::{self, Lenient, map};
use crate::policy::{Namespaces, RuleBook, Settings};
use crate::store::cached_pod::{self, SecretUser};
use crate::store::cached_secret::KnownSecret;
use crate::store::claims;
use crate::store::secret_index::{Change, ReferencesSecrets};
use crate::util::sync::write;
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::core::{NamespaceScope, PartialObjectMeta};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use std::sync::Arc;
use std::time::Instant;

mod pkis;

impl Cache {
    /// Follows all watches for as long as it is polled.
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
            self.follow_secrets(client, &settings),
            self.follow_reserved(client, &settings),
        );
    }

    async fn follow_pkis(&self, client: &Client) {
        let mut affected = Vec::new();
        follow(self.watch(Watched::Pkis, client), |event| {
            self.apply_pki(event, &mut affected);
        })
        .await;
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
            self.apply_policy(&event, &mut writer, &settings);
        })
        .await;
    }

    fn apply_policy(
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
            self.apply_namespace(event, &mut listed);
        })
        .await;
    }

    /// Applies an event of the watch of namespaces, whose labels policies select by. `listed`
    /// collects a list until it is complete.
    fn apply_namespace(&self, event: Event<PartialObjectMeta<Namespace>>, listed: &mut Namespaces) {
        write(&self.namespace_uids).apply(&event);
        self.watch_misannotated(Carrier::Namespace, &event);
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
        // Only the Pkis of changed namespaces are reconciled.
        self.rules.send_if_modified(|rules| {
            *rules = Arc::new(rules.with_namespaces(now.clone()));
            false
        });
        if self.rules().reads_labels() {
            self.verdicts_changed.notify_one();
            let has_changed = |pki: &Key| known.get(&*pki.namespace) != now.get(&*pki.namespace);
            self.trigger_where(has_changed);
            self.touch_where(has_changed);
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
                self.apply_pod(change);
            }
            if done {
                self.mark(Watched::Pods);
            }
        })
        .await;
    }

    /// Triggers the Pkis that have an Event for a pod that comes, and those that remove a former
    /// Secret once the last pod is gone.
    fn apply_pod(&self, change: &Change<SecretUser>) {
        let mut states = change.after.iter().chain(&change.before);
        if let Some(pod) = states.find(|pod| pod.certified.is_some()) {
            self.touched.note(&pod.key.namespace);
        }
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
    async fn follow_secrets(&self, client: &Client, settings: &Settings) {
        if !settings.has_secrets {
            // There are none that matter, and no permission to read others.
            return self.mark(Watched::Secrets);
        }
        follow(
            self.watch::<KnownSecret>(Watched::Secrets, client),
            |event| {
                let done = matches!(event, Event::InitDone);
                let changes = self.secrets.write().apply(event);
                self.note_ignored(after(&changes).map(|secret| &secret.ignored));
                for change in changes {
                    self.apply_secret(&change);
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
        if settings.has_secrets && self.scope.contains(&settings.namespace) {
            return;
        }
        let api = Api::namespaced(client.clone(), &settings.namespace);
        let secrets = settings.reserved_secrets.iter().map(|name| {
            let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
            tolerant::watch::<PartialObjectMeta<Secret>>("secrets", api.clone(), only).boxed()
        });
        follow(stream::select_all(secrets), |event| {
            // Each watch lists one Secret, and knows nothing of the deletion of the others.
            match &event {
                Event::InitApply(secret) => {
                    self.watch_misannotated(Carrier::CaSecret, &Event::Apply(secret.clone()));
                }
                Event::Apply(_) | Event::Delete(_) => {
                    self.watch_misannotated(Carrier::CaSecret, &event);
                }
                Event::Init | Event::InitDone => {}
            }
            if !matches!(event, Event::Init) {
                self.ca_touched.notify_one();
            }
        })
        .await;
    }

    fn apply_secret(&self, change: &Change<KnownSecret>) {
        let Some(secret) = change.after.as_ref().or(change.before.as_ref()) else {
            return;
        };
        let key = secret.key();
        let settings = &self.rules().settings;
        if settings.is_reserved(&key.namespace, &key.name) {
            self.ca_touched.notify_one();
        }
        let pkis = self.pkis.read();
        self.trigger(pkis.referencing(key).map(|pki| pki.key().clone()));
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

/// The objects that are new or have changed.
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

/// A policy, if it can be read. One that cannot permits nothing. The schema prevents that, and the
/// log reports it.
fn readable_policy(stored: &StoredPolicy) -> Option<&PkiPolicy> {
    let result = stored.0.as_ref();
    if let Err(error) = result {
        let policy = stored.name_any();
        tracing::error!(policy, %error, "the PkiPolicy cannot be read and permits nothing");
    }
    result.ok()
}

#[cfg(test)]
mod tests;
