//! The copies in the namespaces that ask: does what the [`BundleQueue`] decides.

use super::copy::Copy;
use super::queue::{BundleQueue, Found, Outcome, Task};
use super::{ATTEMPT_TIMEOUT, TrustBundleController, known};
use crate::events::{Aspect, EventTemplate, Notice};
use crate::k8s::object_key::Key;
use crate::k8s::tolerant;
use crate::model::ca::Ca;
use crate::model::trust_bundle::{LABEL, is_wanted};
use crate::util::sync::set_if_changed;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, future};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource, ResourceExt};
use std::sync::Arc;
use std::time::Instant;

/// Maximum number of namespaces that are written in at a time.
const CONCURRENCY: usize = 8;

impl TrustBundleController {
    pub(super) async fn keep_config_maps(&self) {
        // A selector takes but one spelling of true, so the value is read here.
        let asking = watcher::Config::default().labels(LABEL);
        let namespaces = self.scope.watch_namespaces(&self.client, asking);
        // By name, for which the operator needs no permission to watch the others.
        let named = format!("metadata.name={}", self.settings.name);
        let named = watcher::Config::default().fields(&named);
        let maps = Api::all(self.client.clone());
        let copies = (self.scope).watch::<PartialObjectMeta<ConfigMap>>("configmaps", maps, named);
        let (mut namespaces, mut copies) = (std::pin::pin!(namespaces), std::pin::pin!(copies));

        let mut ca = self.ca.clone();
        let mut queue = BundleQueue::default();
        let mut running = FuturesUnordered::new();
        let mut reminder = tokio::time::interval(self.settings.reminder);
        loop {
            if let Some(ca) = known(&mut ca) {
                queue.expect(ca.trust.fingerprint());
                while running.len() < CONCURRENCY
                    && let Some((namespace, task)) = queue.next(Instant::now())
                {
                    match task {
                        Task::ReportForeign(found) => self.report_foreign(&namespace, found),
                        task => running.push(self.act(namespace, task, ca.clone())),
                    }
                }
            }
            self.report_progress(&queue);
            tokio::select! {
                Some(event) = namespaces.next() => if let Some(event) = asking_now(event) {
                    queue.namespace(event);
                },
                Some(event) = copies.next() => queue.copy(tolerant::map(event, |copy| {
                    (copy.namespace().unwrap_or_default(), Found::from(copy.meta()))
                })),
                Some((namespace, outcome)) = running.next() => {
                    if let Outcome::Held { found, finalizers } = &outcome {
                        self.report_held(&namespace, found, finalizers, queue.is_held(&namespace));
                    }
                    queue.on_result(namespace, outcome, Instant::now());
                }
                // Without the CA controller the term is over.
                changed = ca.changed() => if changed.is_err() { return },
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
        let error = match tokio::time::timeout(ATTEMPT_TIMEOUT, copy.act(task)).await {
            Ok(Ok(outcome)) => return (namespace, outcome),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it takes too long".to_owned(),
        };
        let name = copy.name;
        tracing::warn!(
            namespace,
            name,
            error,
            "failed to write the CA bundle; retrying"
        );
        (namespace, Outcome::Failed)
    }

    fn report_foreign(&self, namespace: &str, found: Found) {
        let notice = about_foreign(namespace, &self.settings.name, found);
        tracing::warn!(namespace, "{}", notice.note);
        self.publisher.offer(notice);
    }

    /// Publishes the fault each time, and logs it once.
    fn report_held(&self, namespace: &str, found: &Found, finalizers: &[String], is_known: bool) {
        let notice = about_held(namespace, &self.settings.name, found, finalizers);
        if !is_known {
            tracing::warn!(namespace, "{}", notice.note);
        }
        self.publisher.offer(notice);
    }

    fn report_progress(&self, queue: &BundleQueue) {
        self.metrics.trust_bundles(&queue.counts());
        let name = &self.settings.name;
        let pending = queue.unwritten().into_iter();
        let pending = pending.map(|namespace| (namespace.to_owned(), name.clone()));
        set_if_changed(&self.published.pending, pending.collect());
        if let Some(fingerprint) = queue.published() {
            set_if_changed(&self.published.config_maps, Some(fingerprint.to_owned()));
        }
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

/// The Event on a `ConfigMap` that is in the way of a copy.
fn about_foreign(namespace: &str, name: &str, found: Found) -> Notice {
    let message = format!(
        "ConfigMap {namespace}/{name} exists and is not the operator's, so the operator does not change it and it does not follow the CA: \
         delete it to get the CA bundle there, or remove the label {LABEL} from the namespace"
    );
    about(namespace, name, found.uid, "TrustBundleForeign", message)
}

/// The Event on a copy that can be neither repaired nor made again.
fn about_held(namespace: &str, name: &str, found: &Found, finalizers: &[String]) -> Notice {
    let message = format!(
        "ConfigMap {namespace}/{name} does not hold the CA bundle, is immutable, and its deletion waits for its finalizers [{}]: \
         remove those, and the operator makes it again",
        finalizers.join(", ")
    );
    let uid = found.uid.clone();
    about(namespace, name, uid, "TrustBundleHeld", message)
}

fn about(
    namespace: &str,
    name: &str,
    uid: Option<String>,
    reason: &str,
    message: String,
) -> Notice {
    let regarding = Key::new(namespace, name).reference("v1", "ConfigMap", uid);
    EventTemplate::warning(Aspect::State, reason, message).on(regarding, None)
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => future::pending().await,
    }
}

#[cfg(test)]
mod tests;
