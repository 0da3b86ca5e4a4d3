//! The Secrets that a Pki wrote before `spec.secretName` was changed. `status.formerSecrets` has
//! them, so that a restart of the operator forgets none.
//!
//! A former Secret stays until no pod uses it, or its certificate has ended. The operator does not
//! renew it, but its `ca.crt` follows the CA. Events on the pods name the Secret that takes its
//! place.

use super::plan::facts::lacks_ca;
use super::{Context, ReconcileError, secret_writes};
use crate::api::{FormerSecret, Pki, PkiStatus};
use crate::events;
use crate::k8s::object_key::Key;
use crate::k8s::{api_error, secret};
use crate::model::ca::Ca;
use crate::store::cached_pod::SecretUser;
use crate::store::claims;
use crate::util::sync::lock;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Time for which a Secret stays after the last pod: a controller that replaces its pod needs a
/// moment.
const GRACE: SignedDuration = SignedDuration::from_secs(15);

/// When pods were last seen to use the former Secrets of each Pki.
#[derive(Debug, Default)]
pub(super) struct LastUses(Mutex<HashMap<Key, HashMap<String, Timestamp>>>);

impl LastUses {
    /// The last time at which this Secret was used. One that is not known to have been used is
    /// taken to have been used `at_least` then.
    fn last(&self, pki: &Key, secret: &str, is_used: bool, at_least: Timestamp) -> Timestamp {
        let mut all = lock(&self.0);
        let of_pki = all.entry(pki.clone()).or_default();
        let last = of_pki.entry(secret.to_owned()).or_insert(at_least);
        if is_used {
            *last = at_least;
        }
        *last
    }

    /// Forgets a Pki that is gone.
    pub(super) fn forget(&self, pki: &Key) {
        lock(&self.0).remove(pki);
    }

    fn forget_secret(&self, pki: &Key, secret: &str) {
        let mut all = lock(&self.0);
        if let Some(of_pki) = all.get_mut(pki) {
            of_pki.remove(secret);
            if of_pki.is_empty() {
                all.remove(pki);
            }
        }
    }
}

/// Whether to remove a former Secret now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retention {
    Remove,
    /// Until then, if nothing happens before.
    Keep(Option<Timestamp>),
}

impl Retention {
    /// Removes what another Pki claims.
    fn unless(self, is_claimed: bool) -> Self {
        if is_claimed { Self::Remove } else { self }
    }
}

/// Decides about a former Secret. Its end is that of its certificate.
fn retention(
    end: Option<Timestamp>,
    is_used: bool,
    last_use: Timestamp,
    now: Timestamp,
) -> Retention {
    let unused_at = last_use.saturating_add(GRACE).unwrap_or(Timestamp::MAX);
    let unused_at = (!is_used).then_some(unused_at);
    match unused_at.into_iter().chain(end).min() {
        Some(at) if at <= now => Retention::Remove,
        next => Retention::Keep(next),
    }
}

/// Removes or maintains the former Secrets of a Pki, by its new status. Returns the time of the
/// next check, if there is to be one.
pub(super) async fn maintain(
    pki: &Pki,
    status: &PkiStatus,
    context: &Context,
    now: Timestamp,
) -> Result<Option<Timestamp>, ReconcileError> {
    let mut next = None;
    for former in &status.former_secrets {
        let again = maintain_one(pki, former, context, now).await?;
        next = again.into_iter().chain(next).min();
    }
    Ok(next)
}

async fn maintain_one(
    pki: &Pki,
    former: &FormerSecret,
    context: &Context,
    now: Timestamp,
) -> Result<Option<Timestamp>, ReconcileError> {
    let (cache, own) = (&context.cache, context.key(pki));
    let key = Key::new(own.namespace.clone(), &*former.name);
    let is_claimed = claims::claimants(&cache.pkis.read(), &key).next().is_some();
    let reminder = context.settings.reminder;
    let next_offer = now.saturating_add(reminder).unwrap_or(Timestamp::MAX);
    if !cache.has_secret(&key) {
        context.former_uses.forget_secret(&own, &former.name);
        let mut waiting = cache.users(&key);
        waiting.retain(|pod| !is_claimed && pod.waits_for(&former.name));
        publish_events(pki, former, &waiting, false, context);
        return Ok((!waiting.is_empty()).then_some(next_offer));
    }
    let uid = pki.metadata.uid.as_deref().unwrap_or_default();
    if !cache.has_secret_of(&key, &own, uid) {
        return Ok(None);
    }
    let (is_used, end) = (cache.is_used(&key), former.not_after.as_ref());
    // The Secret was the current one until now. So no pod that uses it is being replaced.
    let status = pki.status.as_ref();
    let was_current = status.and_then(|it| it.secret_name.as_ref()) == Some(&former.name);
    let last_use = if was_current && !is_used {
        Timestamp::MIN
    } else {
        context.former_uses.last(&own, &former.name, is_used, now)
    };
    let retention = retention(end.map(|end| end.0), is_used, last_use, now);
    let Retention::Keep(next) = retention.unless(is_claimed) else {
        let is_gone = remove(pki, &key, context).await?;
        context.former_uses.forget_secret(&own, &former.name);
        return Ok((!is_gone).then_some(next_offer));
    };
    publish(pki, &key, context).await?;
    // A rollout that gives its pods the new name is over by then.
    let since = former.replaced_time.as_ref().map_or(now, |time| time.0);
    let patient_until = since.saturating_add(reminder).unwrap_or(Timestamp::MAX);
    let users = cache.users(&key);
    let report_at = if users.is_empty() {
        None
    } else if now < patient_until {
        Some(patient_until)
    } else {
        publish_events(pki, former, &users, true, context);
        Some(next_offer)
    };
    Ok(next.into_iter().chain(report_at).min())
}

fn publish_events(
    pki: &Pki,
    former: &FormerSecret,
    pods: &[Arc<SecretUser>],
    is_there: bool,
    context: &Context,
) {
    for notice in events::about_former(pki, former, pods, is_there) {
        context.publisher.offer(notice);
    }
}

/// Makes the CA known in a former Secret, whose pods must trust the certificates of others.
async fn publish(pki: &Pki, key: &Key, context: &Context) -> Result<(), ReconcileError> {
    let ca = context.ca();
    if lacks_ca(pki.status.as_ref(), &ca) {
        publish_in(pki, key, &ca, context).await?;
    }
    Ok(())
}

/// Makes the CA known in the Secret that a Pki used before it named another, which is in use as
/// long as that one is not written. Returns the status that reports it, if the write succeeded.
pub(super) async fn publish_in_use(
    pki: &Pki,
    former: &Key,
    ca: &Ca,
    context: &Context,
) -> Result<Option<PkiStatus>, ReconcileError> {
    if !publish_in(pki, former, ca, context).await? {
        return Ok(None);
    }
    // The status speaks for all Secrets of the Pki. One that cannot be written is left behind.
    for before in pki.status.iter().flat_map(|it| &it.former_secrets) {
        let before = former.beside(&before.name.as_str().into());
        publish_in(pki, &before, ca, context).await?;
    }
    Ok(Some(PkiStatus {
        trust_fingerprint: Some(ca.trust.fingerprint().to_owned()),
        ..pki.status.clone().unwrap_or_default()
    }))
}

/// Makes the CA known in a Secret, if it is the Pki's own. Whether it is known there now.
async fn publish_in(
    pki: &Pki,
    key: &Key,
    ca: &Ca,
    context: &Context,
) -> Result<bool, ReconcileError> {
    if !context.cache.has_secret(key) {
        return Ok(false);
    }
    let secret = read(pki, key, context).await?;
    let Some(secret) = secret.filter(|secret| secret::is_owned_by(secret, pki)) else {
        return Ok(false);
    };
    let is_known = ca.trust.is_published_in(secret::file(&secret, "ca.crt"));
    Ok(is_known || secret_writes::publish(pki, &secret, ca, context).await?)
}

/// Reads a former Secret. One that the operator may not read is left behind: the status and the
/// Events of the Pki, which report a missing permission, come after it.
async fn read(pki: &Pki, key: &Key, context: &Context) -> Result<Option<Secret>, ReconcileError> {
    match context.read_secret(key).await {
        Err(ReconcileError::ReadSecret(secret, source)) if api_error::is_refusal(&source) => {
            tracing::warn!(pki = %Key::of(pki), %secret, error = %source, "failed to read the former Secret");
            Ok(None)
        }
        read => read,
    }
}

/// Deletes a former Secret, if it still is the Pki's own. Whether it is gone, or is none of the
/// Pki's business.
async fn remove(pki: &Pki, key: &Key, context: &Context) -> Result<bool, ReconcileError> {
    let Some(secret) = read(pki, key, context).await? else {
        return Ok(true);
    };
    if !secret::is_owned_by(&secret, pki) {
        return Ok(true);
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: secret.uid(),
            resource_version: secret.resource_version(),
        }),
        ..DeleteParams::default()
    };
    let secrets = context.secrets(&key.namespace);
    match secrets.delete(&key.name, &params).await {
        Ok(_) => {
            tracing::info!(pki = %Key::of(pki), secret = %key, "removed the former Secret");
            Ok(true)
        }
        Err(error) if api_error::is_not_found(&error) => Ok(true),
        // The certificate that the Pki has now is none the worse for that.
        Err(error) if api_error::is_refusal(&error) => {
            tracing::warn!(pki = %Key::of(pki), secret = %key, %error, "failed to remove the former Secret");
            Ok(false)
        }
        Err(source) => Err(ReconcileError::changing(key.clone(), pki, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::time::tests::at;

    #[test]
    fn a_former_secret_stays_while_it_is_used_until_its_certificate_ends() {
        let end = Some(at(1000));
        for (end, is_used, last_use, now, expected) in [
            (end, true, at(10), 10, Retention::Keep(end)),
            (None, true, at(10), 10, Retention::Keep(None)),
            (end, true, at(1000), 1000, Retention::Remove),
            (end, false, at(10), 10, Retention::Keep(Some(at(25)))),
            (end, false, at(10), 24, Retention::Keep(Some(at(25)))),
            (end, false, at(10), 25, Retention::Remove),
            (None, false, at(10), 25, Retention::Remove),
            (end, false, at(990), 995, Retention::Keep(end)),
            (end, false, Timestamp::MIN, 0, Retention::Remove),
        ] {
            let found = retention(end, is_used, last_use, at(now));
            assert_eq!(found, expected, "{end:?} {is_used} {last_use} {now}");
        }
    }

    #[test]
    fn the_last_use_is_the_last_at_which_pods_were_seen_or_could_have_been() {
        let (uses, pki) = (LastUses::default(), Key::new("ns", "a"));
        let last = |is_used, now| uses.last(&pki, "s", is_used, at(now));
        assert_eq!(last(false, 5), at(5), "after a restart nothing is known");
        assert_eq!(last(false, 6), at(5));
        assert_eq!(last(true, 7), at(7));
        assert_eq!(last(false, 9), at(7));
        uses.forget_secret(&pki, "s");
        assert!(lock(&uses.0).is_empty());
        assert_eq!(last(false, 10), at(10));
        uses.forget(&pki);
        assert!(lock(&uses.0).is_empty());
    }
}
