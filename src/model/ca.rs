//! The CA, as other modules than its controller see it.

use crate::api::annotations::ACCEPT;
use crate::model::ca_state::CaState;
use jiff::{SignedDuration, Timestamp};
use pki_certs::{Authority, AuthorityError, CaCertificate, Trust};
use std::sync::Arc;

/// The CA for the reconciler of Pkis.
#[derive(Clone, Debug)]
pub struct Ca {
    /// The CAs whose leaves are valid: the one that signs, then those before it that are trusted.
    pub issuers: Vec<CaCertificate>,
    /// The content of `ca.crt`.
    pub trust: Trust,
    /// The key to sign with, or why there is none.
    pub signer: Result<Arc<Authority>, Alarm>,
    /// While leaves of the CA before are replaced: start and length of that.
    pub replacing: Option<(Timestamp, SignedDuration)>,
}

/// Why nothing can be signed: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Alarm {
    /// The platform team is to bring the CA, and has not.
    #[error(
        "there is no Secret {secret}: create it with the key and certificate of your CA as tls.key and tls.crt"
    )]
    NotBrought {
        /// Where it should be.
        secret: String,
    },
    /// The Secret is gone.
    #[error(
        "Secret {secret} with the CA {fingerprint} is gone: restore it from a backup; or, to begin with a new CA that no client trusts yet, delete ConfigMap {secret} too"
    )]
    Lost {
        /// Where it was.
        secret: String,
        /// SHA-256 of its certificate.
        fingerprint: String,
    },
    /// The Secret holds another CA.
    #[error(
        "Secret {secret} holds the CA {found} instead of {expected}: restore it from a backup; or, if it was replaced on purpose, annotate it with {ACCEPT}={found}"
    )]
    Replaced {
        /// Where it is.
        secret: String,
        /// SHA-256 of the certificate that should be there.
        expected: String,
        /// SHA-256 of the certificate that is there.
        found: String,
    },
    /// The Secret holds no usable CA.
    #[error("Secret {secret} holds no usable CA in {file}: {source}")]
    Unusable {
        /// Where it is.
        secret: String,
        /// `tls.crt` or `next.crt`, with the key beside it.
        file: &'static str,
        /// The cause.
        source: AuthorityError,
    },
    /// The API server does not let the CA be read or written.
    #[error("Secret or ConfigMap {secret} cannot be read or written: {problem}")]
    NotKept {
        /// Where it is.
        secret: String,
        /// The error of the API server.
        problem: String,
    },
    /// The ConfigMap cannot be read.
    #[error(
        "ConfigMap {secret} does not say which CA signs: {problem}; restore it, or delete it if Secret {secret} holds the right CA"
    )]
    State {
        /// Where it is: the name is that of the Secret.
        secret: String,
        /// The cause.
        problem: String,
    },
}

impl Alarm {
    /// The label in metrics and conditions.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotBrought { .. } => "missing",
            Self::Lost { .. } => "lost",
            Self::Replaced { .. } => "replaced",
            Self::Unusable { .. } => "unusable",
            Self::NotKept { .. } => "api",
            Self::State { .. } => "ledger",
        }
    }
}

impl Ca {
    /// A CA that signs, alone and trusted.
    pub fn of(authority: Authority) -> Self {
        let issuer = authority.ca().clone();
        Self {
            trust: Trust::of([&issuer]),
            issuers: vec![issuer],
            signer: Ok(Arc::new(authority)),
            replacing: None,
        }
    }

    /// The CA of a state. `window` is the time over which the leaves of the CA before are replaced,
    /// by force or not.
    pub fn from_state(
        state: &CaState,
        signer: Result<Authority, Alarm>,
        window: impl Fn(bool) -> SignedDuration,
    ) -> Self {
        let current = std::iter::once(&state.current);
        let issuers = current.chain(state.trusted().map(|retired| &retired.ca));
        let newest = state.trusted().next();
        Self {
            trust: state.trust(),
            issuers: issuers.cloned().collect(),
            signer: signer.map(Arc::new),
            replacing: newest.map(|newest| (newest.since, window(newest.forced.is_some()))),
        }
    }

    /// A CA of which nothing is known.
    pub fn unknown(alarm: Alarm) -> Self {
        Self {
            issuers: Vec::new(),
            trust: Trust::of([]),
            signer: Err(alarm),
            replacing: None,
        }
    }

    /// Whether the change to `other` calls for a reconcile of all Pkis.
    pub fn differs_from(&self, other: &Self) -> bool {
        let of_issuer = CaCertificate::fingerprint;
        let (own, others) = (self.issuers.iter(), other.issuers.iter());
        self.trust != other.trust
            || own.map(of_issuer).ne(others.map(of_issuer))
            || self.signer.as_ref().err() != other.signer.as_ref().err()
            || self.replacing != other.replacing
    }
}

/// Summary of the CA for warnings at admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaSummary {
    /// When it ends.
    pub end: Timestamp,
    /// Whether a successor is being published, and will sign soon.
    pub is_being_replaced: bool,
}
