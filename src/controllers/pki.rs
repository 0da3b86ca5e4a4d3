//! Reconciles each [`Pki`] in one pass: observe, plan, act, conclude.
//!
//! 1. **Observe**: the Pki, its rivals and the version of its Secret, from the
//!    caches. The Secret itself is read only when that is not enough: a new Pki needs no read (but
//!    for passwords), nor does one whose Secret has not changed.
//! 2. [`plan`](plan::plan) decides, on those facts alone, what is to be done and why.
//! 3. **Act**: write the Secret, or nothing. Remove former Secrets that are no longer used.
//! 4. **Conclude**: write the status if it changed, hand over the Events, and
//!    schedule the next reconcile. A Secret and its status are the two writes of an issuance.
//!
//! Only the leader reconciles. Every write, of a Secret and of a status, carries the version it was
//! decided on. A replica that has lost the lead without knowing, or whose cache is behind, writes
//! nothing and reconciles again.

use crate::api::{Pki, StoredPki};
use crate::events;
use crate::k8s::object_key::Key;
use crate::model::outcome;
use crate::observability::traces::Work;
use kube::Resource as _;
use kube::core::error_boundary::InvalidObject;
use plan::Action;
use std::time::{Duration, Instant};
use tracing::Instrument as _;

pub use context::{Context, OnReady};
pub use error::ReconcileError;
pub use worker::run;

mod act;
mod conclude;
pub mod content;
mod context;
mod error;
mod error_backoff;
mod former;
mod issue;
mod issue_backoff;
mod keys;
mod observe;
mod pki_writes;
pub mod plan;
mod priority_queue;
mod remedy;
mod repair_backoff;
pub mod schedule;
mod secret_writes;
mod verified_secrets;
mod worker;

/// Longest duration of a reconcile. A request that hangs must not hold a slot for ever.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(60);

/// Settings of Events about Pkis.
#[derive(Clone, Debug)]
pub struct PkiSettings {
    /// Interval at which an Event about a lasting fault is repeated.
    pub reminder: Duration,
    /// Whether pods get an Event about a renewal.
    pub has_renewal_events: bool,
}

async fn reconcile(stored: StoredPki, context: &Context) -> Result<(), ReconcileError> {
    let (started, mut work, key) = (Instant::now(), Work::reconcile(), Key::of(&stored));
    let (namespace, object) = (&*key.namespace, &*key.name);
    let span = tracing::error_span!("reconcile", trace_id = %work.trace_id(), namespace, object);
    work.note("object.kind", || Pki::kind(&()).into_owned());
    work.note("object.namespace", || namespace.to_owned());
    work.note("object.name", || object.to_owned());
    let logged = async {
        let pass = Box::pin(reconcile_stored(stored, context, &mut work));
        let pass = tokio::time::timeout(RECONCILE_TIMEOUT, pass).await;
        let result = pass.unwrap_or(Err(ReconcileError::TimedOut));
        match &result {
            Err(ReconcileError::Outdated(pki)) => {
                tracing::debug!(%pki, "the Pki or its Secret has changed; reconciling again");
            }
            Err(error) => {
                tracing::warn!(pki = %key, %error, "failed to reconcile the Pki; retrying");
                work.fail(error);
            }
            Ok(()) => tracing::debug!(pki = %key, "reconciled"),
        }
        result
    };
    let result = logged.instrument(span).await;
    let seconds = started.elapsed().as_secs_f64();
    context.metrics.reconcile_seconds.observe(seconds);
    result
}

async fn reconcile_stored(
    stored: StoredPki,
    context: &Context,
    work: &mut Work,
) -> Result<(), ReconcileError> {
    match stored.0 {
        Ok(pki) => reconcile_pki(pki, context, work).await,
        Err(invalid) if invalid.metadata.deletion_timestamp.is_some() => {
            pki_writes::release_unreadable(&invalid.metadata, context).await
        }
        Err(invalid) => {
            report_unreadable(&invalid, context);
            Ok(())
        }
    }
}

/// The one pass.
async fn reconcile_pki(pki: Pki, context: &Context, work: &mut Work) -> Result<(), ReconcileError> {
    let now = context.clock.now();
    let now = now.map_err(|fault| ReconcileError::Clock(Key::of(&pki), fault))?;
    let ca = context.ca();
    let mut observed = observe::observe(pki, &ca, context, now).await?;
    let plan = plan::plan(&observed, now);
    if let Action::Issue(_, reason) = &plan.action {
        work.note("pki.issuance", || reason.label());
    }
    let Some(outcome) = act::act(&mut observed, plan, context, now).await? else {
        return Ok(());
    };
    work.note("pki.reason", || outcome.reason());
    let pki = &observed.pki;
    let status = outcome::after(pki, &outcome, now);
    let next_check = former::maintain(pki, &status, context, now).await?;
    conclude::conclude(pki, &outcome, &status, next_check, context, now).await
}

/// Reports an object that was stored under another schema on the object itself, for its author.
fn report_unreadable(invalid: &InvalidObject, context: &Context) {
    let key = Key::new(
        invalid.metadata.namespace.clone().unwrap_or_default(),
        invalid.metadata.name.clone().unwrap_or_default(),
    );
    tracing::warn!(pki = %key, error = %invalid.error, "failed to read the Pki");
    let notice = events::about_unreadable(&key, invalid);
    context.publisher.offer(notice);
}
