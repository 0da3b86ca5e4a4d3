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
    #[error("cannot read Secret {secret}: {source}")]
    ReadSecret {
        /// The Secret.
        secret: Key,
        /// Answer of the API server.
        source: kube::Error,
    },
    /// A Secret could not be written or deleted, other than to issue.
    #[error("cannot change Secret {secret}: {source}")]
    ChangeSecret {
        /// The Secret.
        secret: Key,
        /// Answer of the API server.
        source: kube::Error,
    },
    /// The Pki itself could not be written.
    #[error("cannot write Pki {pki}: {source}")]
    WritePki {
        /// The Pki.
        pki: Key,
        /// Answer of the API server.
        source: kube::Error,
    },
    /// The status could not be written.
    #[error("cannot write the status of Pki {pki}: {source}")]
    WriteStatus {
        /// The Pki.
        pki: Key,
        /// Answer of the API server.
        source: kube::Error,
    },
    /// The time is not known.
    #[error("nothing is decided about Pki {pki}: {source}")]
    Clock {
        /// The Pki.
        pki: Key,
        /// Fault of the clock.
        source: ClockFault,
    },
    /// The API server did not answer in time.
    #[error("the API server took longer than {}s", RECONCILE_TIMEOUT.as_secs())]
    TimedOut,
    /// Another writer came first.
    #[error("Pki {pki} or its Secret has changed meanwhile")]
    Outdated {
        /// The Pki.
        pki: Key,
    },
}

impl ReconcileError {
    /// Another writer has changed the Pki, or its Secret.
    pub(super) fn outdated(pki: &Pki) -> Self {
        Self::Outdated { pki: Key::of(pki) }
    }

    /// The error of a write to a Secret of a Pki.
    pub(super) fn changing(secret: Key, pki: &Pki, source: kube::Error) -> Self {
        if api_error::is_conflict(&source) {
            Self::outdated(pki)
        } else {
            Self::ChangeSecret { secret, source }
        }
    }

    /// Whether another attempt is of no use until somebody changes a permission or a rule.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::ReadSecret { source, .. }
            | Self::ChangeSecret { source, .. }
            | Self::WritePki { source, .. }
            | Self::WriteStatus { source, .. } => api_error::is_refusal(source),
            Self::Clock { .. } | Self::TimedOut | Self::Outdated { .. } => false,
        }
    }
}
