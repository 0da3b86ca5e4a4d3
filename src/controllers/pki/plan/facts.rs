//! The facts on which a plan depends, and predicates on them.

use super::due::due;
use crate::api::annotations::KEEP_SECRET;
use crate::api::{Delivery, Pki, PkiStatus};
use crate::controllers::pki::content::Owner;
use crate::controllers::pki::content::formats::Passwords;
use crate::controllers::pki::issue_backoff::Failure;
use crate::k8s::clock::MAX_FUTURE;
use crate::k8s::object_key::Key;
use crate::k8s::secret;
use crate::model::ca::Ca;
use crate::model::renewal_request::RenewalRequestState;
use crate::policy::{Approved, Violation};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use pki_certs::Verified;

/// Version 0.1 held the deletion of a Pki by it until a Secret that is to be kept had been
/// released.
pub const FINALIZER: &str = KEEP_SECRET;

/// The facts about one Pki, gathered before anything is decided.
pub struct Observed<'a> {
    /// The Pki. A new request for a renewal is in its status already.
    pub pki: Pki,
    /// The state of the request for a renewal that the Pki carries.
    pub request: Option<RenewalRequestState>,
    /// The verdict of the rule book.
    pub verdict: Result<Approved, Vec<Violation>>,
    /// Another Pki, which comes first if the Secret has to be created.
    pub rival: Option<Key>,
    /// The Secret.
    pub secret: SecretState,
    /// Whether the Pki is being deleted, although the cache does not show it yet.
    pub is_leaving: bool,
    /// The passwords of its keystores.
    pub passwords: Passwords,
    /// The CA.
    pub ca: &'a Ca,
}

impl<'a> Observed<'a> {
    /// A Pki with this verdict, and neither a Secret nor a rival.
    pub fn of(pki: Pki, verdict: Result<Approved, Vec<Violation>>, ca: &'a Ca) -> Self {
        Self {
            pki,
            request: None,
            verdict,
            rival: None,
            secret: SecretState::Absent,
            is_leaving: false,
            passwords: Passwords::default(),
            ca,
        }
    }

    /// The passwords of the keystores that are in force, or of those of the next certificate.
    pub fn passwords_for(&self, approved: &Approved) -> &Passwords {
        let next = self.verdict.as_ref().unwrap_or(approved);
        self.passwords.of(approved, next)
    }

    /// The Secret as it is stored, if it was read.
    pub fn stored(&self) -> Option<&Secret> {
        match &self.secret {
            SecretState::Stored(secret, _) => Some(secret),
            _ => None,
        }
    }
}

/// The state of a Secret.
#[derive(Debug)]
pub enum SecretState {
    /// There is none, or nothing depends on it.
    Absent,
    /// The Secret has not changed since it was verified, with this certificate.
    Unchanged(Verified),
    /// As it is stored, and whose it is.
    Stored(Box<Secret>, Owner),
    /// The API server refuses to show it.
    Unreadable(Failure),
}

/// Whether the decision depends on a Secret that has to be read. `cached` is its state, if the
/// caches have enough to know it.
pub fn needs_secret(observed: &Observed<'_>, cached: Option<&SecretState>, now: Timestamp) -> bool {
    let pki = &observed.pki;
    if is_being_deleted(pki) {
        return has_finalizer(pki);
    }
    if pki.delivery() == Delivery::Pod {
        return false;
    }
    let Ok(approved) = &observed.verdict else {
        return is_in_use_or_kept(pki, observed.ca);
    };
    match cached {
        None => true,
        Some(SecretState::Unchanged(verified)) => {
            let has_begun = verified.not_before.duration_since(now) <= MAX_FUTURE;
            let (renew_at, _) = due(pki, approved.in_force(), verified, observed.ca, now);
            !has_begun || renew_at <= now
        }
        Some(_) => false,
    }
}

/// Whether a Secret is about to be created that existed before: its Pki may be being deleted.
pub fn needs_deletion_check(observed: &Observed<'_>) -> bool {
    let status = observed.pki.status.as_ref();
    matches!(observed.secret, SecretState::Absent)
        && !is_being_deleted(&observed.pki)
        && observed.verdict.is_ok()
        && observed.rival.is_none()
        && status.is_some_and(PkiStatus::has_certificate)
}

/// Whether Kubernetes is deleting the Pki.
pub fn is_being_deleted(pki: &Pki) -> bool {
    pki.metadata.deletion_timestamp.is_some()
}

/// Whether the Pki has the finalizer by which version 0.1 held its deletion.
pub fn has_finalizer(pki: &Pki) -> bool {
    pki.finalizers().iter().any(|known| known == FINALIZER)
}

/// Whether the Secret of a refused Pki is to be read: its certificate is in use while the CA is
/// being replaced, or it is to be kept.
fn is_in_use_or_kept(pki: &Pki, ca: &Ca) -> bool {
    pki.status.as_ref().is_some_and(|status| {
        status.has_certificate() && (lacks_ca(Some(status), ca) || secret::is_kept(pki))
    })
}

/// Whether a CA certificate is missing in the Secrets that this status describes.
pub fn lacks_ca(status: Option<&PkiStatus>, ca: &Ca) -> bool {
    let known = status.and_then(|status| status.trust_fingerprint.as_deref());
    !ca.trust.pem().is_empty() && known != Some(ca.trust.fingerprint())
}

/// The Secret that is in use although the Pki names another by now, if its `ca.crt` is outdated.
pub fn outdated_former(pki: &Pki, ca: &Ca) -> Option<Key> {
    let status = pki.status.as_ref()?;
    let former = status.secret_name.as_deref()?;
    let is_outdated =
        status.has_certificate() && former != pki.secret_name() && lacks_ca(Some(status), ca);
    is_outdated.then(|| Key::new(pki.namespace().unwrap_or_default(), former))
}

/// Whether clients of the certificate in use would not trust the CA of others: its own Pki may be
/// refused by now.
pub(super) fn is_unpublished(observed: &Observed<'_>) -> bool {
    let SecretState::Stored(secret, Owner::Ours) = &observed.secret else {
        return false;
    };
    let trust = &observed.ca.trust;
    secret::is_owned_by(secret, &observed.pki)
        // An unknown CA has nothing to publish.
        && !trust.pem().is_empty()
        && !trust.is_published_in(secret::file(secret, "ca.crt"))
}
