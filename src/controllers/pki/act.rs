//! Does what a [`Plan`] says. Each write is bound to the version that it was decided on.

use super::issue::{self, issue};
use super::plan::facts::{is_being_deleted, outdated_former};
use super::plan::{Action, Current, Observed, Plan};
use super::secret_writes::{self, change_secret, publish, store};
use super::{Context, ReconcileError, former, pki_writes};
use crate::events;
use crate::k8s::object_key::Key;
use crate::k8s::secret;
use crate::model::outcome::Outcome;
use crate::model::renewal_request::RenewalRequestState;
use crate::policy::{Approved, Violation};
use crate::store::cached_secret::Version;
use jiff::Timestamp;

/// Does what the plan says, and returns the outcome for the status. There is none where a later
/// reconcile decides: the key is not made yet, or the write of an owner triggers it.
pub(super) async fn act(
    observed: &mut Observed<'_>,
    plan: Plan,
    context: &Context,
    now: Timestamp,
) -> Result<Option<Outcome>, ReconcileError> {
    let has_pki = serve_request(observed, plan.request, context, now).await?;
    if !has_pki {
        return Ok(None);
    }
    if let Some(former) = &plan.outdated_former {
        let (pki, ca) = (&observed.pki, observed.ca);
        if let Some(status) = former::publish_in_use(pki, former, ca, context).await?
            && let Some(written) = pki_writes::write_status(pki, &status, context).await?
        {
            observed.pki = written;
        }
    }
    // An ordered key is kept where the next reconcile may issue.
    if !matches!(
        plan.action,
        Action::Issue(..) | Action::Fail(_) | Action::ReleaseSecret | Action::RemoveFinalizer
    ) {
        context.keys.forget(&Key::of(&observed.pki));
    }
    Ok(Some(match plan.action {
        Action::Issue(approved, reason) => {
            return issue(observed, &approved, &reason, context, now).await;
        }
        Action::Adopt => return adopt(observed, context, now).await,
        Action::ReleaseSecret => {
            release_secret(observed, context).await?;
            return Ok(None);
        }
        Action::RemoveFinalizer => {
            pki_writes::remove_finalizer(&observed.pki, context).await?;
            return Ok(None);
        }
        Action::BeingDeleted => return Ok(None),
        Action::Repair(current) => repair(observed, &current, context, now).await?,
        Action::Keep(current) => keep(observed, &current, context),
        Action::Refuse {
            violations,
            is_unpublished,
        } => refuse(observed, violations, is_unpublished, context).await?,
        Action::ServePods(approved) => serve_pods(observed, &approved, context),
        Action::Conflict { winner } => Outcome::Conflict { winner },
        Action::Foreign(obstacle) => Outcome::Foreign(obstacle),
        Action::CaUnavailable(alarm) => Outcome::Unsigned(alarm),
        Action::WaitForDeletion => Outcome::Await,
        Action::Fail(failure) => match context.issue_backoff.held(&observed.pki, now) {
            Some(held) => held,
            None => issue::failed(&observed.pki, failure, "api", context, now),
        },
    }))
}

/// Serves a new request for a renewal: writes the status that serves it, and removes its
/// annotation. A request that has to wait, or was served before, keeps its annotation, and an Event
/// says what becomes of it. Returns whether the Pki still exists.
async fn serve_request(
    observed: &mut Observed<'_>,
    request: Option<RenewalRequestState>,
    context: &Context,
    now: Timestamp,
) -> Result<bool, ReconcileError> {
    match request {
        None => {}
        Some(RenewalRequestState::New) => {
            let Some(pki) = pki_writes::serve_request(&observed.pki, context).await? else {
                return Ok(false);
            };
            observed.pki = pki;
        }
        Some(RenewalRequestState::Early { .. } | RenewalRequestState::Served { .. }) => {
            if let Some(notice) = events::about_request(&observed.pki, now) {
                context.publisher.offer(notice);
            }
        }
    }
    Ok(true)
}

/// Pods ask the signer by themselves: see [`crate::controllers::pod_certificate`].
fn serve_pods(observed: &Observed<'_>, approved: &Approved, context: &Context) -> Outcome {
    if context.cache.serves_pod_certificates() == Some(false) {
        return Outcome::NoPodCertificates;
    }
    if let Err(alarm) = &observed.ca.signer {
        return Outcome::Unsigned(alarm.to_string());
    }
    let pods = context.cache.pods_certified_by(&Key::of(&observed.pki));
    Outcome::ServesPods {
        policy: approved.policy.clone(),
        pods: i32::try_from(pods).unwrap_or(i32::MAX),
    }
}

/// Leaves the Secret as it is. One without a keystore that is wanted is read again each time: only
/// there the passwords are known.
fn keep(observed: &Observed<'_>, current: &Current, context: &Context) -> Outcome {
    let certificate = current.certificate(observed.ca);
    let Some(secret) = observed.stored() else {
        return Outcome::Ready(certificate);
    };
    let in_force = &current.approved;
    let unmade = observed.passwords_for(in_force).unmade(secret);
    let (key, verified) = (context.key(&observed.pki), &context.verified_secrets);
    if unmade.is_empty() {
        let version = Version::of(secret);
        verified.note_valid(key, observed, in_force, &version, &current.verified);
    } else {
        verified.note_unknown(key);
    }
    Outcome::of(certificate, unmade)
}

/// Writes what is missing or outdated around a valid certificate.
async fn repair(
    observed: &Observed<'_>,
    current: &Current,
    context: &Context,
    now: Timestamp,
) -> Result<Outcome, ReconcileError> {
    let pki = &observed.pki;
    let is_damage = secret_writes::was_settled(observed);
    if let Some(held) = secret_writes::held(observed, is_damage, context, now) {
        return Ok(held);
    }
    let Some(secret) = observed.stored() else {
        return Ok(keep(observed, current, context));
    };
    let (approved, bundle) = (&current.approved, secret::bundle(secret));
    match store(observed, approved, bundle, &current.verified, context).await {
        Ok(unmade) => {
            tracing::info!(pki = %Key::of(pki), secret = approved.secret_name, "repaired the Secret");
            secret_writes::note_write(observed, is_damage, context, now);
            context.issue_backoff.forget(&Key::of(pki));
            Ok(Outcome::of(current.certificate(observed.ca), unmade))
        }
        Err(error) => issue::write_failed(pki, &error, context, now),
    }
}

/// Owns a Secret again that has lost its owner. Nothing but the owner is written: that write
/// triggers the next reconcile, which verifies the Secret like any other.
async fn adopt(
    observed: &Observed<'_>,
    context: &Context,
    now: Timestamp,
) -> Result<Option<Outcome>, ReconcileError> {
    let pki = &observed.pki;
    let is_damage = secret_writes::was_settled(observed);
    if let Some(held) = secret_writes::held(observed, is_damage, context, now) {
        return Ok(Some(held));
    }
    let Some(secret) = observed.stored() else {
        return Ok(None);
    };
    match change_secret(pki, secret, &secret::adoption(secret, pki), context).await {
        Ok(_) => {
            tracing::info!(pki = %Key::of(pki), secret = %Key::of(secret), "adopted the Secret");
            secret_writes::note_write(observed, is_damage, context, now);
            context.publisher.offer(events::about_adoption(pki, now));
            Ok(None)
        }
        Err(error) => issue::write_failed(pki, &error, context, now).map(Some),
    }
}

/// Gives up the owner reference of a Secret that is to outlive its Pki. A Pki that is being deleted
/// loses its finalizer after that.
async fn release_secret(observed: &Observed<'_>, context: &Context) -> Result<(), ReconcileError> {
    let pki = &observed.pki;
    let Some(secret) = observed.stored() else {
        return Ok(());
    };
    let change = secret::release(secret, pki);
    let released = change_secret(pki, secret, &change, context).await;
    released.map_err(|source| ReconcileError::changing(Key::of(secret), pki, source))?;
    tracing::info!(pki = %Key::of(pki), secret = %Key::of(secret), "released the Secret, which is to be kept");
    if is_being_deleted(pki) {
        pki_writes::remove_finalizer(pki, context).await?;
    }
    Ok(())
}

/// Reports what the Pki breaks. Its certificate stays in use, so its Secret gets the CA all the
/// same.
async fn refuse(
    observed: &Observed<'_>,
    violations: Vec<Violation>,
    is_unpublished: bool,
    context: &Context,
) -> Result<Outcome, ReconcileError> {
    let (pki, ca) = (&observed.pki, observed.ca);
    let is_published = match observed.stored().filter(|_| is_unpublished) {
        Some(secret) => publish(pki, secret, ca, context).await?,
        None => outdated_former(pki, ca).is_none(),
    };
    let trust = if is_published {
        ca.trust.fingerprint().to_owned()
    } else {
        let known = pki.status.as_ref();
        let known = known.and_then(|status| status.trust_fingerprint.clone());
        known.unwrap_or_default()
    };
    Ok(Outcome::Refused { violations, trust })
}
