//! The CA, as far as others than its controller need to know it.

use crate::api::annotations::ACCEPT;
use crate::model::ca_state::{CaState, Retired};
use jiff::{SignedDuration, Timestamp};
use pki_certs::{Authority, AuthorityError, CaCertificate, Trust};
use std::sync::Arc;

/// What the reconciler needs to know of the CA.
#[derive(Clone, Debug)]
pub struct Ca {
    /// Those whose leaves are sound: the one that signs, first, and those that did and are trusted
    /// still.
    pub issuers: Vec<CaCertificate>,
    /// What clients trust: `ca.crt`.
    pub trust: Trust,
    /// The key to sign with, or why there is none.
    pub signer: Result<Arc<Authority>, Alarm>,
    /// Since when the present CA signs, while there are leaves of the one before it, and how long
    /// to take to replace those.
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
        /// What is wrong with it.
        source: AuthorityError,
    },
    /// The API server does not let the CA be read or written.
    #[error("Secret or ConfigMap {secret} cannot be read or written: {problem}")]
    NotKept {
        /// Where it is.
        secret: String,
        /// What the API server said.
        problem: String,
    },
    /// The ConfigMap cannot be read.
    #[error(
        "ConfigMap {secret} does not tell which CA signs: {problem}; restore it, or delete it if Secret {secret} holds the right CA"
    )]
    State {
        /// Where it is: the name is that of the Secret.
        secret: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Alarm {
    /// One word for metrics and conditions.
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

    /// The CA that a state tells of, with its key if it is there.
    /// `window` is how long the leaves of the CA before are replaced over, by force or not.
    pub fn from_state(
        state: &CaState,
        signer: Result<Authority, Alarm>,
        window: impl Fn(bool) -> SignedDuration,
    ) -> Self {
        let window = |retired: &Retired| window(retired.forced.is_some());
        Self {
            trust: state.trust(),
            issuers: std::iter::once(&state.current)
                .chain(state.trusted().map(|retired| &retired.ca))
                .cloned()
                .collect(),
            signer: signer.map(Arc::new),
            replacing: state
                .trusted()
                .next()
                .map(|retired| (retired.since, window(retired))),
        }
    }

    /// Nothing is known of it.
    pub fn unknown(alarm: Alarm) -> Self {
        Self {
            issuers: Vec::new(),
            trust: Trust::of([]),
            signer: Err(alarm),
            replacing: None,
        }
    }

    /// Whether a leaf or `ca.crt` has to be looked at again now that it has become `other`.
    pub fn differs_from(&self, other: &Self) -> bool {
        let issuers = |ca: &Self| -> Vec<String> {
            ca.issuers
                .iter()
                .map(|ca| ca.fingerprint().to_owned())
                .collect()
        };
        self.trust != other.trust
            || issuers(self) != issuers(other)
            || self.signer.as_ref().err() != other.signer.as_ref().err()
            || self.replacing != other.replacing
    }
}

/// What becomes of the CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaSummary {
    /// When it ends.
    pub end: Timestamp,
    /// Whether its successor is being made known, and will sign soon.
    pub is_being_replaced: bool,
}
