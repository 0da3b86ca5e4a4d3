//! The copies in the namespaces that ask: what the [`BundleQueue`] wants done is done here.

use super::queue::{BundleQueue, Found, Outcome, Task};
use super::{ATTEMPT_TIMEOUT, TrustBundleSettings, known, labels};
use crate::events::{Aspect, EventKind, NOTE_BYTES, Notice, Publisher};
use crate::k8s::object_key::Key;
use crate::k8s::scope::Scope;
use crate::k8s::{api_error, patch, tolerant};
use crate::model::ca::Ca;
use crate::model::trust_bundle::{FILE, LABEL, Published, is_wanted};
use crate::observability::metrics::Metrics;
use crate::util::text;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, future};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, Patch, Preconditions};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use pki_certs::Trust;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// How many namespaces are written in at the same time.
const CONCURRENCY: usize = 8;

/// Keeps the `ConfigMaps`.
pub(super) struct ConfigMaps {
    pub(super) client: Client,
    pub(super) scope: Scope,
    pub(super) settings: TrustBundleSettings,
    pub(super) ca: watch::Receiver<Option<Arc<Ca>>>,
    pub(super) published: Arc<Published>,
    pub(super) publisher: Publisher,
    pub(super) metrics: Arc<Metrics>,
}

impl ConfigMaps {
    pub(super) async fn run(self) {
        // A selector takes but one spelling of true, so the value is read here.
        let asking = watcher::Config::default().labels(LABEL);
        let namespaces = self.scope.watch_namespaces(&self.client, asking);
        // By name, for which the operator needs no permission to watch the others.
        let named =
            watcher::Config::default().fields(&format!("metadata.name={}", self.settings.name));
        let maps = Api::all(self.client.clone());
        let copies = (self.scope).watch::<PartialObjectMeta<ConfigMap>>("configmaps", maps, named);
        let (mut namespaces, mut copies) = (std::pin::pin!(namespaces), std::pin::pin!(copies));

        let mut ca = self.ca.clone();
        let mut queue = BundleQueue::default();
        let mut running = FuturesUnordered::new();
        let mut reminder = tokio::time::interval(self.settings.reminder);
        loop {
            let known = known(&mut ca);
            if let Some(ca) = &known {
                queue.expect(ca.trust.fingerprint());
                while running.len() < CONCURRENCY
                    && let Some((namespace, task)) = queue.next(Instant::now())
                {
                    match task {
                        Task::ReportForeign(found) => self.complain(&namespace, found),
                        task => running.push(self.act(namespace, task, ca.clone())),
                    }
                }
            }
            self.tell(&queue);
            tokio::select! {
                Some(event) = namespaces.next() => if let Some(event) = asking_now(event) {
                    queue.namespace(event);
                },
                Some(event) = copies.next() => queue.copy(tolerant::map(event, |copy| {
                    (copy.namespace().unwrap_or_default(), Found::from(copy.meta()))
                })),
                Some((namespace, outcome)) = running.next() => {
                    if let Outcome::Held { found, finalizers } = &outcome {
                        self.name_held(&namespace, found, finalizers, queue.is_held(&namespace));
                    }
                    queue.on_result(namespace, outcome, Instant::now());
                }
                changed = ca.changed() => {
                    // Without a keeper the term is over.
                    if changed.is_err() {
                        return;
                    }
                }
                () = until(queue.wake()) => {}
                _ = reminder.tick() => queue.remind(),
            }
        }
    }

    async fn act(&self, namespace: String, task: Task, ca: Arc<Ca>) -> (String, Outcome) {
        let copy = Copy {
            maps: Api::namespaced(self.client.clone(), &namespace),
            name: &self.settings.name,
            namespace: &namespace,
            trust: &ca.trust,
        };
        let outcome = match tokio::time::timeout(ATTEMPT_TIMEOUT, copy.act(task)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                tracing::warn!(namespace, name = copy.name, %error, "cannot write the CA bundle; trying again");
                Outcome::Failed
            }
            Err(_) => {
                tracing::warn!(
                    namespace,
                    name = copy.name,
                    "writing the CA bundle takes too long; trying again"
                );
                Outcome::Failed
            }
        };
        (namespace, outcome)
    }

    fn complain(&self, namespace: &str, found: Found) {
        let notice = about_foreign(namespace, &self.settings.name, found);
        tracing::warn!(namespace, "{}", notice.note);
        self.publisher.offer(notice);
    }

    /// The Event is repeated as a fault that lasts is; the log has it once.
    fn name_held(&self, namespace: &str, found: &Found, finalizers: &[String], is_known: bool) {
        let notice = about_held(namespace, &self.settings.name, found, finalizers);
        if !is_known {
            tracing::warn!(namespace, "{}", notice.note);
        }
        self.publisher.offer(notice);
    }

    fn tell(&self, queue: &BundleQueue) {
        self.metrics.trust_bundles(&queue.counts());
        let unwritten = queue.unwritten().into_iter();
        let unwritten =
            unwritten.map(|namespace| (namespace.to_owned(), self.settings.name.clone()));
        let unwritten: Vec<_> = unwritten.collect();
        self.published.pending.send_if_modified(|known| {
            let is_news = *known != unwritten;
            *known = unwritten;
            is_news
        });
        let Some(fingerprint) = queue.published() else {
            return;
        };
        self.published.config_maps.send_if_modified(|published| {
            let is_news = published.as_deref() != Some(fingerprint);
            if is_news {
                *published = Some(fingerprint.to_owned());
            }
            is_news
        });
    }
}

impl Drop for ConfigMaps {
    /// Who does not lead any more knows nothing of them.
    fn drop(&mut self) {
        self.metrics.trust_bundles(&[]);
    }
}

/// Turns an event about a labelled namespace into one about a namespace that asks for a copy, with
/// whether it is being deleted.
fn asking_now(event: Event<PartialObjectMeta<Namespace>>) -> Option<Event<(String, bool)>> {
    let of = |namespace: PartialObjectMeta<Namespace>| {
        let is_asking = is_wanted(namespace.labels().get(LABEL).map(String::as_str));
        let is_going = namespace.metadata.deletion_timestamp.is_some();
        (is_asking, (namespace.name_any(), is_going))
    };
    match event {
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
        Event::InitApply(namespace) => {
            let (is_asking, namespace) = of(namespace);
            is_asking.then_some(Event::InitApply(namespace))
        }
        Event::Apply(namespace) => Some(match of(namespace) {
            (true, namespace) => Event::Apply(namespace),
            (false, namespace) => Event::Delete(namespace),
        }),
        Event::Delete(namespace) => Some(Event::Delete(of(namespace).1)),
    }
}

/// The copy in one namespace.
struct Copy<'a> {
    maps: Api<ConfigMap>,
    name: &'a str,
    namespace: &'a str,
    trust: &'a Trust,
}

impl Copy<'_> {
    async fn act(&self, task: Task) -> Result<Outcome, kube::Error> {
        match task {
            Task::Create => match self.maps.create(&patch::post(), &self.manifest()).await {
                Ok(created) => {
                    tracing::info!(namespace = self.namespace, "wrote the CA bundle");
                    Ok(self.holds(&created, true))
                }
                // The watch is behind.
                Err(error) if api_error::is_conflict(&error) => self.check().await,
                Err(error) => Err(error),
            },
            Task::Check => self.check().await,
            // Whether finalizers hold it is nothing to anybody who does not ask for it.
            Task::Remove(found) => self.remove(found).await.map(|_| Outcome::Gone),
            // Nothing is written.
            Task::ReportForeign(found) => Ok(Outcome::Foreign(found)),
        }
    }

    async fn check(&self) -> Result<Outcome, kube::Error> {
        let Some(stored) = self.maps.get_opt(self.name).await? else {
            return Ok(Outcome::Gone);
        };
        match judge(&stored, self.trust) {
            Verdict::Current => Ok(self.holds(&stored, false)),
            Verdict::Foreign => Ok(Outcome::Foreign(Found::from(&stored.metadata))),
            // Another deletion would change nothing.
            Verdict::Immutable if stored.metadata.deletion_timestamp.is_some() => Ok(held(&stored)),
            Verdict::Immutable => {
                let left = self.remove(Found::from(&stored.metadata)).await?;
                Ok(left.as_ref().map_or(Outcome::Gone, held))
            }
            Verdict::Outdated(change) => {
                let patch = Patch::Merge(&change);
                let written = self.maps.patch(self.name, &patch::patch(), &patch).await?;
                tracing::info!(namespace = self.namespace, "mended the CA bundle");
                Ok(self.holds(&written, true))
            }
        }
    }

    /// Deletes it; what is left of it where finalizers hold it.
    async fn remove(&self, found: Found) -> Result<Option<ConfigMap>, kube::Error> {
        let only_this = DeleteParams {
            preconditions: Some(Preconditions {
                uid: found.uid,
                resource_version: found.version,
            }),
            ..DeleteParams::default()
        };
        let left = match self.maps.delete(self.name, &only_this).await {
            Ok(deleted) => deleted.left(),
            Err(error) if api_error::is_not_found(&error) => None,
            Err(error) => return Err(error),
        };
        if left.is_none() {
            tracing::info!(namespace = self.namespace, "removed the CA bundle");
        }
        Ok(left)
    }

    fn manifest(&self) -> ConfigMap {
        let manifest = json!({
            "metadata": { "name": self.name, "namespace": self.namespace, "labels": labels() },
            "data": { FILE: self.trust.pem() },
        });
        serde_json::from_value(manifest).expect("a name and texts are a ConfigMap")
    }

    fn holds(&self, stored: &ConfigMap, is_written: bool) -> Outcome {
        Outcome::Holds {
            found: Found::from(&stored.metadata),
            fingerprint: self.trust.fingerprint().to_owned(),
            is_written,
        }
    }
}

/// The copy cannot be made again before it is gone.
fn held(stored: &ConfigMap) -> Outcome {
    Outcome::Held {
        found: Found::from(&stored.metadata),
        finalizers: stored.finalizers().to_vec(),
    }
}

/// What a `ConfigMap` is that has the name of a copy.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// A copy that holds the roots.
    Current,
    /// A copy that holds something else, and the merge patch that mends it. What others added
    /// beside it stays.
    Outdated(Value),
    /// A copy that holds something else and may not be changed: it has to be made again.
    Immutable,
    /// Somebody else's.
    Foreign,
}

fn judge(stored: &ConfigMap, trust: &Trust) -> Verdict {
    if !super::is_ours(&stored.metadata) {
        return Verdict::Foreign;
    }
    let found = stored.data.as_ref().and_then(|data| data.get(FILE));
    if found.map(String::as_str) == Some(trust.pem()) {
        return Verdict::Current;
    }
    if stored.immutable == Some(true) {
        return Verdict::Immutable;
    }
    // One key cannot be in both.
    let mut change = json!({ "data": { FILE: trust.pem() }, "binaryData": { FILE: null } });
    patch::bind(&mut change, stored);
    Verdict::Outdated(change)
}

/// What to say of a `ConfigMap` that is in the way of a copy.
fn about_foreign(namespace: &str, name: &str, found: Found) -> Notice {
    let note = format!(
        "ConfigMap {namespace}/{name} exists and is not the operator's, so it is left as it is and does not follow the CA: \
         delete it to get the CA bundle there, or take the label {LABEL} from the namespace"
    );
    about(namespace, name, found.uid, "TrustBundleForeign", &note)
}

/// Event about a copy that can be neither repaired nor made again.
fn about_held(namespace: &str, name: &str, found: &Found, finalizers: &[String]) -> Notice {
    let note = format!(
        "ConfigMap {namespace}/{name} does not hold the CA bundle, is immutable, and its deletion waits for its finalizers [{}]: \
         remove those, and the operator makes it again",
        finalizers.join(", ")
    );
    let uid = found.uid.clone();
    about(namespace, name, uid, "TrustBundleHeld", &note)
}

fn about(namespace: &str, name: &str, uid: Option<String>, reason: &str, note: &str) -> Notice {
    Notice {
        regarding: Key::new(namespace, name).reference("v1", "ConfigMap", uid),
        related: None,
        aspect: Aspect::State,
        kind: EventKind::Warning,
        reason: reason.into(),
        note: text::cut(note, NOTE_BYTES),
        topic: None,
        since: Timestamp::UNIX_EPOCH,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => future::pending().await,
    }
}

#[cfg(test)]
mod tests;
