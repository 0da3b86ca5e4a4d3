//! The end of a reconcile: writes the status, hands over Events, schedules the next reconcile.

use super::pki_writes::write_status;
use super::{Context, ReconcileError};
use crate::api::{Delivery, Pki, PkiStatus, READY};
use crate::events::{self, EventKind, Notice, Reconciled, expiry};
use crate::k8s::object_key::Key;
use crate::k8s::secret;
use crate::model::outcome::Outcome;
use jiff::Timestamp;

/// Writes the status if it changed, hands over Events, and schedules the next reconcile. Former
/// Secrets are checked at `next_check`.
pub(super) async fn conclude(
    pki: &Pki,
    outcome: &Outcome,
    status: &PkiStatus,
    next_check: Option<Timestamp>,
    context: &Context,
    now: Timestamp,
) -> Result<(), ReconcileError> {
    let key = context.key(pki);
    let users = match pki.delivery() {
        Delivery::Secret => context.cache.users(&secret::key(pki)),
        // The signer publishes Events on the pods that ask it.
        Delivery::Pod => Vec::new(),
    };
    let reconciled = Reconciled {
        pki,
        outcome,
        status,
        now,
        has_renewal_events: context.settings.has_renewal_events,
    };
    let written = if pki.status.as_ref() == Some(status) {
        Ok(())
    } else {
        write_status(pki, status, context).await.map(drop)
    };
    if !matches!(written, Err(ReconcileError::Outdated(_))) {
        let pods = match outcome {
            Outcome::Conflict { winner } if !is_at_fault(winner, context) => &[],
            _ => &users[..],
        };
        publish_events(events::about(&reconciled, pods), written.is_ok(), context);
    }
    written?;
    // Workloads are restarted when all files are of the new certificate: a keystore may be what
    // they read.
    if let (Outcome::Ready(certificate), Some(on_ready)) = (outcome, &context.on_ready) {
        on_ready(pki, certificate, &users);
    }
    let again = match outcome {
        Outcome::Failed { next, .. } | Outcome::Contested { next, .. } => Some(*next),
        fault if fault.is_fault() && !users.is_empty() => Some(now + context.settings.reminder),
        _ => None,
    };
    let renewal = outcome
        .certificate()
        .map(|certificate| certificate.renew_at);
    let ending = expiry::next(outcome, status, now).filter(|_| !outcome.is_ready());
    let next = again.into_iter().chain(renewal).chain(ending);
    match next.chain(next_check).min() {
        Some(at) => context.schedule.set(key, at),
        None => context.schedule.forget(&key),
    }
    Ok(())
}

/// Hands over Events. If the status write failed, Normal Events are dropped and Warnings are
/// published as repeats: every reconcile would take them for new.
fn publish_events(notices: Vec<Notice>, is_stored: bool, context: &Context) {
    for mut notice in notices {
        if !is_stored {
            if notice.kind == EventKind::Normal {
                continue;
            }
            notice.since = Timestamp::UNIX_EPOCH;
        }
        context.publisher.offer(notice);
    }
}

/// Whether a Pki lacks its certificate. If it does not, the pods of its Secret lack nothing, and
/// another Pki that claims the Secret does not concern them.
fn is_at_fault(pki: &Key, context: &Context) -> bool {
    let pki = context.cache.pki(pki).and_then(|stored| stored.0.ok());
    let ready = pki.as_ref().and_then(|pki| pki.condition(READY));
    ready.is_some_and(|ready| ready.status == "False")
}
