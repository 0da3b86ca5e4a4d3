//! Errors that end a reconcile early.

use super::RECONCILE_TIMEOUT;
use crate::api::Pki;
use crate::k8s::api_error;
use crate::k8s::clock::ClockFault;
use crate::k8s::object_key::Key;

/// A reconcile of a Pki ended early. It is repeated after a backoff.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
    /// The Secret could not be read.
    #[error("cannot read Secret {0}: {1}")]
    ReadSecret(Key, #[source] kube::Error),
    /// A Secret could not be written or deleted, other than to issue.
    #[error("cannot change Secret {0}: {1}")]
    ChangeSecret(Key, #[source] kube::Error),
    /// The Pki itself could not be written.
    #[error("cannot write Pki {0}: {1}")]
    WritePki(Key, #[source] kube::Error),
    /// The status of the Pki could not be written.
    #[error("cannot write the status of Pki {0}: {1}")]
    WriteStatus(Key, #[source] kube::Error),
    /// The time is not known, so nothing is decided about the Pki.
    #[error("nothing is decided about Pki {0}: {1}")]
    Clock(Key, #[source] ClockFault),
    /// The API server did not answer in time.
    #[error("the API server took longer than {}s", RECONCILE_TIMEOUT.as_secs())]
    TimedOut,
    /// Another writer has changed the Pki, or its Secret.
    #[error("Pki {0} or its Secret has changed meanwhile")]
    Outdated(Key),
}

impl ReconcileError {
    /// Another writer has changed the Pki, or its Secret.
    pub(super) fn outdated(pki: &Pki) -> Self {
        Self::Outdated(Key::of(pki))
    }

    /// The error of a write to a Secret of a Pki.
    pub(super) fn changing(secret: Key, pki: &Pki, source: kube::Error) -> Self {
        if api_error::is_conflict(&source) {
            Self::outdated(pki)
        } else {
            Self::ChangeSecret(secret, source)
        }
    }

    /// Whether another attempt is of no use until somebody changes a permission or a rule.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::ReadSecret(_, source)
            | Self::ChangeSecret(_, source)
            | Self::WritePki(_, source)
            | Self::WriteStatus(_, source) => api_error::is_refusal(source),
            Self::Clock(..) | Self::TimedOut | Self::Outdated(_) => false,
        }
    }
}
