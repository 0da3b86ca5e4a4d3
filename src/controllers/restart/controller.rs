//! Restarts the workloads that are due by the [`RestartQueue`].

use super::decision::{Decision, decide};
use super::notice::{Ending, about_restart};
use super::queue::{Outcome, RestartQueue, Task};
use super::workload::Kind;
use super::{Cause, Renewal, Renewals, RestartSettings};
use crate::events::Publisher;
use crate::k8s::object_key::Key;
use crate::k8s::scope::Scope;
use crate::k8s::tolerant::Lenient;
use crate::k8s::{api_error, patch};
use crate::observability::metrics::Metrics;
use crate::store::{Cache, cached_pod};
use futures::channel::mpsc::UnboundedReceiver;
use futures::stream::{self, FuturesUnordered};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use kube::api::Patch;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Maximum number of workloads that are restarted at a time.
const CONCURRENCY: usize = 4;
/// Timeout of one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum interval at which the clock is read: a timer would stop while the machine sleeps.
const POLL: Duration = Duration::from_secs(30);

/// Restarts workloads for one term as leader.
pub struct RestartController {
    handles: Handles,
    settings: RestartSettings,
    renewals: UnboundedReceiver<Renewal>,
}

/// Handles that the controller and its attempts share.
#[derive(Clone)]
struct Handles {
    client: Client,
    cache: Arc<Cache>,
    publisher: Publisher,
    metrics: Arc<Metrics>,
}

impl RestartController {
    /// A controller, and the sender of certificates to it.
    pub fn new(
        client: Client,
        settings: RestartSettings,
        cache: Arc<Cache>,
        publisher: Publisher,
        metrics: Arc<Metrics>,
    ) -> (Self, Renewals) {
        let (sender, renewals) = Renewals::new();
        let controller = Self {
            handles: Handles {
                client,
                cache,
                publisher,
                metrics,
            },
            settings,
            renewals,
        };
        (controller, sender)
    }

    /// Restarts what is due, for as long as it is polled.
    pub async fn run(mut self) {
        let cache = self.handles.cache.clone();
        let mut queue = RestartQueue::new(self.settings.window, self.settings.reminder);
        let mut watches = std::pin::pin!(watches(&self.handles.client, &cache.scope));
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < CONCURRENCY
                && let Some(task) = queue.next(Timestamp::now(), Instant::now())
            {
                let handles = self.handles.clone();
                running.push(Attempt { handles, task }.run());
            }
            let pause = queue.pause(Timestamp::now(), Instant::now(), POLL);
            tokio::select! {
                Some((kind, event)) = watches.next() => {
                    cache.watch_misannotated(kind.carrier(), &event);
                    let namespaces = queue.mark(kind, &event);
                    if !namespaces.is_empty() {
                        cache.trigger_where(|key| namespaces.contains(&*key.namespace));
                    }
                }
                Some(renewal) = self.renewals.next() => queue.add(renewal),
                Some((task, outcome)) = running.next() => {
                    queue.on_result(&task, outcome, Instant::now());
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

impl Drop for RestartController {
    /// A replica that does not lead any more does not watch workloads, so it forgets their
    /// annotations.
    fn drop(&mut self) {
        let is_kept = |carrier| Kind::ALL.iter().all(|kind| kind.carrier() != carrier);
        self.handles.cache.forget_misannotated(is_kept);
    }
}

/// The watches of all kinds, of metadata alone. Annotations are not what a watch can select by.
fn watches(
    client: &Client,
    scope: &Scope,
) -> impl Stream<Item = (Kind, Event<PartialObjectMeta<DynamicObject>>)> + use<> {
    let watches = Kind::ALL.map(|kind| {
        let api = Api::all_with(client.clone(), &kind.resource());
        let events = scope.watch(kind.plural(), api, watcher::Config::default());
        events.map(move |event| (kind, event)).boxed()
    });
    stream::select_all(watches)
}

/// One attempt to restart one workload.
struct Attempt {
    handles: Handles,
    task: Task,
}

impl Attempt {
    async fn run(self) -> (Task, Outcome) {
        let Some(cause) = self.cause().cloned() else {
            return (self.task, Outcome::Left);
        };
        let attempt = tokio::time::timeout(ATTEMPT_TIMEOUT, self.restart(&cause));
        let outcome = match attempt.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => self.failed(&cause, &error),
            Err(_) => {
                tracing::warn!(workload = %self.task.workload, "failed to restart in time; retrying");
                self.handles.metrics.restart("failed");
                Outcome::Failed
            }
        };
        (self.task, outcome)
    }

    /// The first cause that still holds: some pods of the workload are older than the certificate.
    fn cause(&self) -> Option<&Cause> {
        let known = self.handles.cache.pods.read();
        self.task.causes.iter().find(|cause| {
            let mut users = cached_pod::users(&known, &cause.secret);
            let workload = &self.task.workload;
            users.any(|pod| workload.is_behind(pod, &self.task.uid, cause.issued))
        })
    }

    async fn restart(&self, cause: &Cause) -> Result<Outcome, kube::Error> {
        let Task { workload, uid, .. } = &self.task;
        let Key { namespace, name } = &workload.key;
        let (client, resource) = (self.handles.client.clone(), workload.kind.resource());
        let api = Api::<Lenient<DynamicObject>>::namespaced_with(client, namespace, &resource);
        let Some(Lenient(stored)) = api.get_opt(name).await? else {
            return Ok(Outcome::Left);
        };
        let now = Timestamp::now();
        match decide(&stored, uid, cause.issued, now) {
            Decision::Leave(why) => {
                tracing::debug!(%workload, secret = %cause.secret, why, "not restarted");
                Ok(Outcome::Left)
            }
            Decision::Paused => {
                tracing::info!(%workload, secret = %cause.secret, "not restarted, because it is paused");
                self.publish(cause, &Ending::Paused);
                Ok(Outcome::Paused)
            }
            Decision::Restart(change) => {
                let patch = Patch::Merge(&change);
                api.patch(name, &patch::patch(), &patch).await?;
                tracing::info!(%workload, secret = %cause.secret, serial = cause.serial, "restarted");
                self.handles.metrics.restart("restarted");
                self.publish(cause, &Ending::Restarted);
                Ok(Outcome::Restarted(now))
            }
        }
    }

    /// A conflict is no failure. Only a refusal is published, for the owners to act.
    fn failed(&self, cause: &Cause, error: &kube::Error) -> Outcome {
        let workload = &self.task.workload;
        if api_error::is_conflict(error) {
            tracing::debug!(%workload, "the workload has changed; retrying");
            return Outcome::Failed;
        }
        tracing::warn!(%workload, %error, "failed to restart; retrying");
        self.handles.metrics.restart("failed");
        if api_error::is_refusal(error) {
            self.publish(cause, &Ending::Refused(api_error::message(error)));
        }
        Outcome::Failed
    }

    fn publish(&self, cause: &Cause, ending: &Ending) {
        let Task { workload, uid, .. } = &self.task;
        let notice = about_restart(workload, uid, cause, ending, Timestamp::now());
        self.handles.publisher.offer(notice);
    }
}
