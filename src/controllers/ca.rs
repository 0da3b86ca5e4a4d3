//! The CA that signs: which one, which others are trusted beside it, and what to do when it is lost.
//!
//! Its keys lie in a Secret: `tls.crt` and `tls.key`, and while it is being replaced its successor as `next.crt` and
//! `next.key`; those that signed before, for a while, as `retired-<id>.crt` and `retired-<id>.key`. What is known of it
//! otherwise lies in a ConfigMap of the same name, the [`Ledger`]: which certificate signs, which
//! ones have been published, and since when. The two are kept apart so that the loss of one is
//! noticed by the other: a Secret that is deleted, damaged or replaced by a stranger's is an
//! [`Alarm`], never a new CA.
//!
//! # A rotation
//!
//! 1. A successor is put into the Secret: by the [`keeper`] when the CA's last third begins or when the Secret is
//!    annotated with [`ROTATE_NOW`], by the platform team when it has brought the CA.
//! 2. It is **published**: every `ca.crt` gets both roots. Nothing is signed with it.
//! 3. When every Secret has both, and one step of time has passed for everybody to reload them, it **signs**. The leaves of
//!    the old one are replaced, spread over another step. The old key is kept, so that nothing is lost if a wrong clock was
//!    the reason for all this.
//! 4. When the old one's last leaf is replaced or has expired, and one step has passed for servers to reload theirs, its
//!    root is **withdrawn**.
//!
//! Nobody can stop that: a Secret that cannot be written is waited for, but [not for
//! ever](rotation::Pace), and is [named](fleet::Blocker). Its old root stays trusted as long as it
//! is used; unless the rotation is [forced](rotation::Request::Force), because a key was stolen.
//!
//! So a peer that reloads what it mounts within a step verifies every other at any moment.
//! [`rotation`] decides all that, without I/O.

use jiff::{SignedDuration, Timestamp};
use ledger::Retired;
use pki_certs::{Authority, AuthorityError, CaCertificate, Trust};
use rotation::Pace;
use std::sync::Arc;

pub use keeper::Keeper;
pub use ledger::Ledger;
pub(crate) use ledger::REPORT;

pub mod fleet;
pub mod keeper;
mod ledger;
pub mod outlook;
mod placement;
pub mod rotation;

pub use crate::api::annotations::{ACCEPT, ROTATE_NOW};

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
    /// Since when the present CA signs, while there are leaves of the one before it, and how long to take to replace those.
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
    Ledger {
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
            Self::Ledger { .. } => "ledger",
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

    /// The CA that a ledger tells of, with its key if it is there.
    fn told_by(ledger: &Ledger, signer: Result<Authority, Alarm>, pace: &Pace) -> Self {
        let window = |retired: &Retired| pace.window(retired.forced.is_some());
        Self {
            trust: ledger.trust(),
            issuers: std::iter::once(&ledger.current)
                .chain(ledger.trusted().map(|retired| &retired.ca))
                .cloned()
                .collect(),
            signer: signer.map(Arc::new),
            replacing: ledger
                .trusted()
                .next()
                .map(|retired| (retired.since, window(retired))),
        }
    }

    /// Nothing is known of it.
    fn unknown(alarm: Alarm) -> Self {
        Self {
            issuers: Vec::new(),
            trust: Trust::of([]),
            signer: Err(alarm),
            replacing: None,
        }
    }

    /// Whether a leaf or `ca.crt` has to be looked at again now that it has become `other`.
    fn differs_from(&self, other: &Self) -> bool {
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
