//! The work: what the [`RestartQueue`] says is due is tried here.

use super::decision::{Decision, decide};
use super::notice::{Ending, about_restart};
use super::queue::{Outcome, RestartQueue, Task};
use super::workload::{Kind, Workload};
use super::{Cause, Renewal, Renewals, RestartSettings};
use crate::events::Publisher;
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
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many workloads are tried at the same time.
const CONCURRENCY: usize = 4;
/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the clock is read at least: a timer would stop while the machine sleeps.
const POLL: Duration = Duration::from_secs(30);

/// Restarts workloads for one term as leader.
pub struct RestartController {
    client: Client,
    cache: Arc<Cache>,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    settings: RestartSettings,
    renewals: UnboundedReceiver<Renewal>,
}

impl RestartController {
    /// A restarter, and the way to tell it of certificates.
    pub fn new(
        client: Client,
        settings: RestartSettings,
        cache: Arc<Cache>,
        publisher: Publisher,
        metrics: Arc<Metrics>,
    ) -> (Self, Renewals) {
        let (sender, renewals) = Renewals::new();
        let restarter = Self {
            client,
            cache,
            publisher,
            metrics,
            settings,
            renewals,
        };
        (restarter, sender)
    }

    /// Restarts what is due, for as long as it is polled.
    pub async fn run(mut self) {
        let mut queue = RestartQueue::new(self.settings.window, self.settings.reminder);
        let mut watches = std::pin::pin!(watches(&self.client, &self.cache.scope));
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < CONCURRENCY
                && let Some(task) = queue.next(Timestamp::now(), Instant::now())
            {
                running.push(Attempt::of(&self, task).run());
            }
            let pause = queue.pause(Timestamp::now(), Instant::now(), POLL);
            tokio::select! {
                Some((kind, event)) = watches.next() => {
                    self.cache.watch_misannotated(kind.carrier(), &event);
                    let namespaces = queue.mark(kind, &event);
                    look_at(&self.cache, &namespaces);
                }
                Some(renewal) = self.renewals.next() => queue.want(renewal),
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
        let is_workload = |carrier| Kind::ALL.iter().any(|kind| kind.carrier() == carrier);
        self.cache
            .forget_misannotated(|carrier| !is_workload(carrier));
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

/// Asks for a look at the Pkis of these namespaces.
fn look_at(cache: &Cache, namespaces: &BTreeSet<String>) {
    if namespaces.is_empty() {
        return;
    }
    cache.trigger_where(|key| namespaces.contains(&*key.namespace));
}

/// One attempt to restart one workload.
struct Attempt {
    task: Task,
    api: Api<Lenient<DynamicObject>>,
    cache: Arc<Cache>,
    publisher: Publisher,
    metrics: Arc<Metrics>,
}

impl Attempt {
    fn of(restarter: &RestartController, task: Task) -> Self {
        let Workload { kind, key } = &task.workload;
        let client = restarter.client.clone();
        Self {
            api: Api::namespaced_with(client, &key.namespace, &kind.resource()),
            cache: restarter.cache.clone(),
            publisher: restarter.publisher.clone(),
            metrics: restarter.metrics.clone(),
            task,
        }
    }

    async fn run(self) -> (Task, Outcome) {
        let Some(cause) = self.cause().cloned() else {
            return (self.task, Outcome::Left);
        };
        let outcome = match tokio::time::timeout(ATTEMPT_TIMEOUT, self.restart(&cause)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => self.failed(&cause, &error),
            Err(_) => {
                tracing::warn!(workload = %self.task.workload, "restarting takes too long; trying again");
                self.metrics.restart("failed");
                Outcome::Failed
            }
        };
        (self.task, outcome)
    }

    /// Why the workload is still to be restarted: of its pods, some are older than what is in the
    /// Secret.
    fn cause(&self) -> Option<&Cause> {
        let known = self.cache.pods.read();
        self.task.causes.iter().find(|cause| {
            let mut users = cached_pod::users(&known, &cause.secret);
            users.any(|pod| {
                self.task
                    .workload
                    .is_behind(pod, &self.task.uid, cause.issued)
            })
        })
    }

    async fn restart(&self, cause: &Cause) -> Result<Outcome, kube::Error> {
        let Task { workload, uid, .. } = &self.task;
        let name = &workload.key.name;
        let Some(Lenient(stored)) = self.api.get_opt(name).await? else {
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
                self.say(cause, &Ending::Paused);
                Ok(Outcome::Paused)
            }
            Decision::Restart(change) => {
                let patch = Patch::Merge(&change);
                self.api.patch(name, &patch::patch(), &patch).await?;
                tracing::info!(%workload, secret = %cause.secret, serial = cause.serial, "restarted");
                self.metrics.restart("restarted");
                self.say(cause, &Ending::Restarted);
                Ok(Outcome::Restarted(now))
            }
        }
    }

    /// Somebody who wrote in between is no failure, nor is an API server that is away worth a word
    /// to the owners.
    fn failed(&self, cause: &Cause, error: &kube::Error) -> Outcome {
        let workload = &self.task.workload;
        if api_error::is_conflict(error) {
            tracing::debug!(%workload, "changed meanwhile; trying again");
            return Outcome::Failed;
        }
        tracing::warn!(%workload, %error, "cannot restart; trying again");
        self.metrics.restart("failed");
        if api_error::is_refusal(error) {
            self.say(cause, &Ending::Refused(api_error::message(error)));
        }
        Outcome::Failed
    }

    fn say(&self, cause: &Cause, ending: &Ending) {
        let Task { workload, uid, .. } = &self.task;
        let notice = about_restart(workload, uid, cause, ending, Timestamp::now());
        self.publisher.offer(notice);
    }
}
