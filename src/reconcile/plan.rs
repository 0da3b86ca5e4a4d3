//! The decision: from what was observed to what is to be done. Pure, and the only place that decides it.

use super::secret::{self, Owner};
use crate::api::Pki;
use crate::index::Key;
use crate::policy::{Approved, Violation};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use pki_certs::{Authority, Fault, Verified};
use std::fmt;

/// The facts about one Pki, gathered before anything is decided.
#[derive(Debug)]
pub struct Observed<'a> {
    /// The Pki.
    pub pki: &'a Pki,
    /// What the rule book says.
    pub verdict: Result<Approved, Vec<Violation>>,
    /// The Pki whose turn it is to create the Secret, when it is another one.
    pub rival: Option<Key>,
    /// The Secret as it is stored, and whose it is.
    pub secret: Option<(Secret, Owner)>,
    /// The authority that signs.
    pub authority: &'a Authority,
}

/// What is to be done.
#[derive(Debug)]
pub enum Plan {
    /// Make a certificate and write the Secret.
    Issue(Box<Approved>, Need),
    /// The Secret is as it should be.
    Keep {
        /// The certificate in it.
        verified: Verified,
        /// When to renew.
        renew_at: Timestamp,
    },
    /// The Pki breaks the rule book.
    Refuse(Vec<Violation>),
    /// Another Pki comes first.
    Conflict {
        /// That Pki.
        winner: Key,
    },
    /// The Secret is not this Pki's: it stays as it is.
    Foreign,
    /// The Secret is that of a deleted Pki, and about to be collected.
    Await,
    /// The Pki is being deleted: its Secret goes with it.
    Gone,
}

/// Why a certificate is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// There is no Secret.
    NoSecret,
    /// The Secret does not hold what it should.
    Unsound(Fault),
    /// It is time.
    Renewal,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSecret => f.write_str("there is no Secret"),
            Self::Unsound(fault) => fault.fmt(f),
            Self::Renewal => f.write_str("renewal is due"),
        }
    }
}

impl Need {
    /// One word for the metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoSecret => "missing",
            Self::Unsound(_) => "unsound",
            Self::Renewal => "renewal",
        }
    }
}

/// Decides. The order of the checks is the order of precedence: rules before ownership before arbitration before
/// content.
pub fn plan(observed: Observed<'_>, now: Timestamp) -> Plan {
    let Observed {
        pki,
        verdict,
        rival,
        secret,
        authority,
    } = observed;
    if pki.metadata.deletion_timestamp.is_some() {
        return Plan::Gone;
    }
    let approved = match verdict {
        Ok(approved) => Box::new(approved),
        Err(violations) => return Plan::Refuse(violations),
    };
    let secret = match (secret, rival) {
        (Some((secret, Owner::Ours)), _) => secret,
        (Some((_, Owner::Foreign)), _) => return Plan::Foreign,
        (Some((_, Owner::Rival(winner))), _)
        | (Some((_, Owner::FormerPki)) | None, Some(winner)) => return Plan::Conflict { winner },
        (Some((_, Owner::FormerPki)), None) => return Plan::Await,
        (None, None) => return Plan::Issue(approved, Need::NoSecret),
    };
    // Verified before written: whoever restarts, relists or takes over the lead finds nothing to do here.
    match pki_certs::verify(
        &secret::bundle(&secret),
        &approved.certificate,
        authority,
        now,
    ) {
        Err(fault) => Plan::Issue(approved, Need::Unsound(fault)),
        Ok(verified) => {
            let renew_at = pki_certs::renewal::at(
                verified.not_before,
                verified.not_after,
                approved.renew_before,
            );
            if renew_at <= now {
                Plan::Issue(approved, Need::Renewal)
            } else {
                Plan::Keep { verified, renew_at }
            }
        }
    }
}

#[cfg(test)]
mod tests;
