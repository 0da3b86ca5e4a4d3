//! Sends [`Notice`]s as Events.
//!
//! The name of an Event is a hash of its object, its subject and its reason. A process that repeats
//! it, after a restart or in another replica, finds the Event and continues its series:
//! `(x3 over 15m)` instead of three lines. A changed message replaces the one before.
//!
//! No caller waits for the [queue](super::queue), so a slow or failing Events API delays neither an
//! issuance nor an answer of the webhook. Events for which the API server is too busy are sent
//! later. Refused ones are counted and dropped; a fault that lasts is offered again anyway.

use super::history::{Due, EventHistory, PublishedEvent};
use super::notice::{Aspect, EventKind, Notice};
use super::queue::{Offered, Queue, QueuedNotice};
use crate::k8s::clock::Clock;
use crate::k8s::{api_error, patch};
use crate::model::event::Ending;
use crate::observability::metrics::Metrics;
use crate::util::rate_limit::{Bucket, Limit};
use crate::util::sync::lock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Patch, PostParams};
use kube::{Api, Client};
use serde_json::json;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Maximum number of requests at a time: enough to be quick, few enough for the API server.
const CONCURRENCY: u16 = 8;
/// Limit of all Events together.
const IN_ALL: Limit = Limit {
    burst: 1000,
    period: Duration::from_millis(5),
};
/// Timeout of one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
/// Age after which a notice that could not be sent is dropped.
const STALE: Duration = Duration::from_secs(3600);

/// Publishes notices as Events. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Publisher {
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
}

impl Publisher {
    /// A publisher, and the work that sends until it is [closed](Self::close). A fault that lasts
    /// is published again after `reminder`, which also keeps its Event from expiring (an hour after
    /// the last write, by default).
    pub fn new(
        client: Client,
        instance: String,
        reminder: Duration,
        metrics: Arc<Metrics>,
        clock: Arc<Clock>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let queue = Arc::<Queue>::default();
        let sender = Sender {
            client,
            instance,
            metrics: metrics.clone(),
            clock,
            history: Mutex::new(EventHistory::new(reminder)),
            in_all: Mutex::default(),
            queue: queue.clone(),
        };
        (Self { queue, metrics }, run(Arc::new(sender)))
    }

    /// Publishes a notice soon, unless it was just published.
    pub fn offer(&self, notice: Notice) {
        match self.queue.offer(notice) {
            Offered::Queued => {}
            Offered::Overtaken(notices) => count_overtaken(&self.metrics, &notices),
            Offered::Full(notice) => self.metrics.event(Ending::Dropped("full"), &notice.reason),
        }
    }

    /// Ends the work when the notices that wait have been tried once more.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Drops the notices that another leader publishes by now.
    pub fn drop_as_former_leader(&self) {
        self.queue.clear(|notice| notice.aspect == Aspect::Refusal);
    }
}

/// Why a notice could not be sent.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the budget of the object is empty")]
    Budget(Instant),
    #[error("another Event with this dedup key was written within this second")]
    SameSecond(Instant),
    #[error("{}", api_error::message(.0))]
    Api(#[from] kube::Error),
    #[error("no answer within {ATTEMPT_TIMEOUT:?}")]
    TimedOut,
}

struct Sender {
    client: Client,
    instance: String,
    metrics: Arc<Metrics>,
    clock: Arc<Clock>,
    history: Mutex<EventHistory>,
    /// The rest of [`IN_ALL`].
    in_all: Mutex<Bucket>,
    queue: Arc<Queue>,
}

async fn run(sender: Arc<Sender>) {
    let slots = Arc::new(Semaphore::new(CONCURRENCY.into()));
    loop {
        let slot = slots.clone().acquire_owned().await;
        let slot = slot.expect("the semaphore is never closed");
        let Some(queued) = sender.queue.next().await else {
            break;
        };
        let sender = sender.clone();
        tokio::spawn(async move {
            sender.send(queued).await;
            drop(slot);
        });
    }
    // The requests under way.
    drop(slots.acquire_many(CONCURRENCY.into()).await);
}

impl Sender {
    async fn send(&self, queued: QueuedNotice) {
        let notice = &queued.notice;
        let result = tokio::time::timeout(ATTEMPT_TIMEOUT, self.publish(notice)).await;
        match result.unwrap_or(Err(Failure::TimedOut)) {
            Ok(ending) => {
                self.queue.finish(notice, true);
                self.count(ending, notice);
            }
            Err(Failure::SameSecond(at)) => {
                count_overtaken(&self.metrics, &self.queue.defer(queued, at));
            }
            Err(Failure::Budget(_)) if self.queue.is_closed() => {
                self.count(Ending::Dropped("closed"), notice);
                self.queue.finish(notice, false);
            }
            Err(Failure::Budget(at)) => {
                self.count(Ending::Suppressed("budget"), notice);
                count_overtaken(&self.metrics, &self.queue.defer(queued, at));
            }
            Err(failure) => {
                self.history().give_back(notice);
                self.fail(queued, &failure);
            }
        }
        self.history()
            .prune(self.clock.display_time(), Instant::now());
    }

    fn fail(&self, queued: QueuedNotice, failure: &Failure) {
        let notice = &queued.notice;
        let (regarding, reason) = (&notice.regarding.name, &notice.reason);
        let namespace = notice.namespace();
        let ending = match pause_after(failure) {
            Some(_) if self.queue.is_closed() => Ending::Dropped("closed"),
            Some(pause) if queued.since.elapsed() < STALE => {
                tracing::debug!(namespace, regarding, reason, %failure, "failed to write the Event; retrying");
                count_overtaken(&self.metrics, &self.queue.retry(queued, pause));
                return;
            }
            Some(_) => Ending::Dropped("stale"),
            None => Ending::Dropped(refusal(failure)),
        };
        tracing::warn!(namespace, regarding, reason, %failure, "failed to write the Event");
        self.queue.finish(notice, false);
        self.count(ending, notice);
    }

    /// Sends one notice, unless it is not due.
    async fn publish(&self, notice: &Notice) -> Result<Ending, Failure> {
        let now = self.clock.display_time();
        let known = self.history().published(notice);
        let due = known
            .as_ref()
            .map_or(Due::News, |event| self.history().due(notice, event, now));
        self.keep_order(notice, due, now)?;
        if let Some(ending) = self.afford(notice, due).await? {
            return Ok(ending);
        }
        if let Some(event) = known {
            match self.count_up(notice, &event, now).await {
                // Deleted or expired meanwhile: begun anew below.
                Err(error) if api_error::is_not_found(&error) => {}
                // Another replica has published it meanwhile.
                Err(error) if api_error::is_conflict(&error) => {
                    return self.resume(notice, now).await;
                }
                result => return Ok(result?),
            }
        }
        let event = notice.event(&self.instance, now);
        let (events, as_is) = (self.events(notice), PostParams::default());
        match events.create(&as_is, &event).await {
            Ok(created) => {
                self.history().record(notice, &created);
                Ok(Ending::Sent)
            }
            // A quota answers 409 too, as a conflict.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                self.resume(notice, now).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Defers a second Event with one dedup key until the next second, because kubectl sorts by
    /// whole seconds. A closed queue defers nothing: no process would write it later.
    fn keep_order(&self, notice: &Notice, due: Due, now: Timestamp) -> Result<(), Failure> {
        if due == Due::Not || self.queue.is_closed() {
            return Ok(());
        }
        let wait = self.history().until_next_second(notice, now);
        wait.map_or(Ok(()), |wait| {
            Err(Failure::SameSecond(Instant::now() + wait))
        })
    }

    /// Takes an Event from the budgets, or returns why it is not sent.
    async fn afford(&self, notice: &Notice, due: Due) -> Result<Option<Ending>, Failure> {
        let instant = Instant::now();
        // No process publishes it later.
        let is_last_chance = notice.kind == EventKind::Normal && self.queue.is_closed();
        let taken = match due {
            Due::Not => return Ok(Some(Ending::Suppressed("told"))),
            Due::Reminder if !self.history().take_for_reminder(notice, instant) => {
                return Ok(Some(Ending::Suppressed("budget")));
            }
            Due::Reminder => Ok(()),
            Due::News => self.history().take(notice, instant),
        };
        if !is_last_chance {
            taken.map_err(Failure::Budget)?;
        }
        loop {
            let taken = lock(&self.in_all).take(IN_ALL, Instant::now());
            match taken {
                Ok(()) => return Ok(None),
                Err(at) => tokio::time::sleep_until(at.into()).await,
            }
        }
    }

    /// Continues the series of an Event that a former process, or another replica, began.
    async fn resume(&self, notice: &Notice, now: Timestamp) -> Result<Ending, Failure> {
        // An empty patch reads the Event with no more permission than writing takes.
        let nothing = Patch::Merge(json!({}));
        let events = self.events(notice);
        let known = events
            .patch(&notice.event_name(), &patch::patch(), &nothing)
            .await?;
        let event = PublishedEvent::of(&known, notice);
        let due = self.history().due(notice, &event, now);
        if due != Due::Not {
            return Ok(self.count_up(notice, &event, now).await?);
        }
        self.history().record(notice, &known);
        self.history().give_back(notice);
        Ok(Ending::Suppressed("told"))
    }

    async fn count_up(
        &self,
        notice: &Notice,
        before: &PublishedEvent,
        now: Timestamp,
    ) -> Result<Ending, kube::Error> {
        let count = before.count.saturating_add(1);
        let patch = notice.repeat(count, before.version.as_deref(), now);
        let (name, patch) = (notice.event_name(), Patch::Merge(patch));
        let events = self.events(notice);
        let written = events.patch(&name, &patch::patch(), &patch).await?;
        self.history().record(notice, &written);
        Ok(Ending::Merged)
    }

    fn events(&self, notice: &Notice) -> Api<Event> {
        Api::namespaced(self.client.clone(), notice.namespace())
    }

    fn history(&self) -> MutexGuard<'_, EventHistory> {
        lock(&self.history)
    }

    fn count(&self, ending: Ending, notice: &Notice) {
        self.metrics.event(ending, &notice.reason);
    }
}

fn count_overtaken(metrics: &Metrics, notices: &[Notice]) {
    for notice in notices {
        metrics.event(Ending::Suppressed("overtaken"), &notice.reason);
    }
}

/// Minimum pause before another attempt, if another one may succeed.
fn pause_after(failure: &Failure) -> Option<Duration> {
    match failure {
        Failure::Api(error) if api_error::is_refusal(error) => None,
        Failure::Api(kube::Error::Api(status)) => {
            let asked = status.details.as_ref();
            let asked = asked.map_or(0, |details| details.retry_after_seconds);
            Some(Duration::from_secs(asked.into()))
        }
        _ => Some(Duration::ZERO),
    }
}

/// Why the API server refuses the Event, in one word. While a namespace is being deleted, every
/// create is forbidden; that is nothing to alert on.
fn refusal(failure: &Failure) -> &'static str {
    match failure {
        Failure::Api(error) if api_error::is_namespace_ending(error) => "ending",
        Failure::Api(kube::Error::Api(status)) => match status.code {
            403 => "forbidden",
            422 => "invalid",
            _ => "refused",
        },
        _ => "refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::response::Status;

    fn answered(code: u16, retry_after_seconds: u32) -> Failure {
        let details = json!({ "retryAfterSeconds": retry_after_seconds });
        let details = serde_json::from_value(details).unwrap();
        let status = Status::failure("no", "No").with_code(code);
        kube::Error::Api(Box::new(status.with_details(details))).into()
    }

    #[test]
    fn what_the_api_server_is_too_busy_for_is_tried_again_and_what_it_refuses_is_not() {
        for (code, asked, pause) in [
            (429, 7, Some(7)),
            (500, 0, Some(0)),
            (503, 1, Some(1)),
            (409, 0, Some(0)),
            (401, 0, Some(0)),
            (403, 0, None),
            (404, 0, None),
            (422, 0, None),
        ] {
            let pause = pause.map(Duration::from_secs);
            assert_eq!(pause_after(&answered(code, asked)), pause, "{code}");
        }
        assert_eq!(pause_after(&Failure::TimedOut), Some(Duration::ZERO));
        let template = [403, 404, 422].map(|code| refusal(&answered(code, 0)));
        assert_eq!(template, ["forbidden", "refused", "invalid"]);
    }
}
