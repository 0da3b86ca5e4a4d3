//! Processes the keys of Pkis: what is enqueued, in which order, and how often.

use super::priority_queue::{Priority, Queue};
use super::{Context, ReconcileError, reconcile};
use crate::api::StoredPki;
use crate::k8s::object_key::Key;
use crate::k8s::secret;
use crate::model::ca::Ca;
use crate::store::Cache;
use crate::store::secret_index::ReferencesSecrets as _;
use futures::{Stream, StreamExt, future, stream};
use jiff::Timestamp;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Number of Pkis that are reconciled at the same time. The work is waiting for the API server.
const CONCURRENCY: usize = 32;

/// Reconciles until `shutdown`, then finishes what has begun.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let cache = context.cache.clone();
    let triggers = cache.triggers();
    let mut ca = context.ca.clone();
    let is_known = async {
        cache.synced().await;
        ca.wait_for(Option::is_some).await.map(drop)
    };
    if !matches!(shutdown.run_until_cancelled(is_known).await, Some(Ok(()))) {
        return;
    }
    ca.mark_unchanged();
    let known = cache.pkis.read().all().len();
    tracing::info!(pkis = known, "reconciling");
    let queue = Arc::new(Queue::new(CONCURRENCY));
    let keys = queue.clone().keys().take_until(shutdown.cancelled_owned());
    let reconciles = keys.map(|key| {
        let (context, queue) = (context.clone(), queue.clone());
        let process = async move {
            process(&key, &context).await;
            queue.done(&key);
        };
        // A task of its own may use another core. It ends when this replica no longer leads.
        AbortOnDropHandle::new(tokio::spawn(process))
    });
    let reconciles = reconciles.buffer_unordered(CONCURRENCY).for_each(|ended| {
        ended.expect("a reconcile does not panic");
        future::ready(())
    });
    tokio::select! {
        () = reconciles => {}
        () = enqueue(&queue, &context, triggers, ca) => {}
        () = context.keys.run(|pki| cache.trigger([pki])) => {}
    }
}

/// Enqueues the Pkis to reconcile, for as long as it is polled: all of them at first and whenever
/// rules or CA have changed, and each one that is triggered or due.
async fn enqueue(
    queue: &Queue,
    context: &Context,
    triggers: impl Stream<Item = Key>,
    ca: watch::Receiver<Option<Arc<Ca>>>,
) {
    let first = stream::once(future::ready(()));
    let ca_changed = stream::unfold(ca, |mut ca| async move {
        ca.changed().await.ok().map(|()| ((), ca))
    });
    let cache = &context.cache;
    let changes = stream::select(first.chain(cache.rules_changed()), ca_changed);
    let priority = |pki: &StoredPki, now| Priority::of(pki, has_secret(pki, cache), now);
    let all = async {
        let mut changes = pin!(changes);
        while changes.next().await.is_some() {
            let now = Timestamp::now();
            for pki in cache.known_pkis() {
                queue.push(pki.key().clone(), priority(&pki.unpack(), now));
                // The first are processed before the last are enqueued.
                tokio::task::coop::consume_budget().await;
            }
        }
    };
    let single = async {
        let mut keys = pin!(stream::select(triggers, due(context)));
        while let Some(key) = keys.next().await {
            // A Pki that is gone is forgotten at once.
            let stored = cache.pki(&key);
            let priority = stored.map_or(Priority::New, |pki| priority(&pki, Timestamp::now()));
            queue.push(key, priority);
            tokio::task::coop::consume_budget().await;
        }
    };
    future::join(all, single).await;
}

fn has_secret(stored: &StoredPki, cache: &Cache) -> bool {
    let Ok(pki) = &stored.0 else { return false };
    cache.has_secret(&secret::key(pki))
}

/// The Pkis that are due, by the wall clock, which is read at least twice a minute: a timer would
/// stop while the machine sleeps.
fn due(context: &Context) -> impl Stream<Item = Key> {
    const POLL: Duration = Duration::from_secs(30);
    stream::unfold((), |()| async {
        let pause = tokio::time::sleep(context.schedule.pause(Timestamp::now(), POLL));
        future::select(pin!(pause), pin!(context.schedule.hastened())).await;
        let keys = context.schedule.take_due(Timestamp::now());
        Some((stream::iter(keys), ()))
    })
    .flatten()
}

/// Reconciles one Pki. Schedules the next attempt if that failed.
async fn process(key: &Key, context: &Context) {
    let Some(stored) = context.cache.pki(key) else {
        context.forget(key);
        return;
    };
    let Err(error) = reconcile(stored, context).await else {
        context.error_backoff.forget(key);
        return;
    };
    if !matches!(error, ReconcileError::Outdated(_)) {
        context.metrics.reconcile_errors.inc();
    }
    let delay = context.error_backoff.next_delay(key, &error);
    let next = Timestamp::now() + delay;
    context.schedule.hasten(key.clone(), next);
}
