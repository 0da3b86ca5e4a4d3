//! What is known of the CA besides its keys, as a ConfigMap keeps it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use pki_certs::{AuthorityError, CaCertificate, Trust};
use serde_json::{Map, Value, json};

/// Which CA signs, and which are trusted beside it.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// The one that signs.
    pub current: CaCertificate,
    /// Its successor.
    pub next: Option<Next>,
    /// Its predecessor.
    pub previous: Option<Previous>,
}

/// A CA that is being made known before it signs.
#[derive(Clone, Debug)]
pub struct Next {
    /// Its certificate.
    pub ca: CaCertificate,
    /// Since when every Secret has it in `ca.crt`; `None` while one has not.
    pub published: Option<Timestamp>,
}

/// A CA that signs no more.
#[derive(Clone, Debug)]
pub struct Previous {
    /// Its certificate.
    pub ca: CaCertificate,
    /// Since when another signs.
    pub since: Timestamp,
    /// Since when no Secret has a leaf of it; `None` while one has.
    pub unused: Option<Timestamp>,
}

impl Ledger {
    /// The ledger of a CA that has just begun.
    pub fn of(current: CaCertificate) -> Self {
        Self {
            current,
            next: None,
            previous: None,
        }
    }

    /// Reads the ConfigMap. A predecessor that has expired is forgotten, and so are its leaves, which have expired with it;
    /// a successor that is not in force is made known again when it is.
    pub fn read(stored: &ConfigMap, now: Timestamp) -> Result<Self, String> {
        let text = |key: &str| stored.data.as_ref().and_then(|data| data.get(key));
        let time = |key: &str| text(key).and_then(|time| time.parse().ok());
        let certificate = |key: &str| text(key).map(|pem| certificate(key, pem, now)).transpose();
        let current = certificate(CURRENT)?
            .flatten()
            .ok_or_else(|| format!("{CURRENT} is missing"))?;
        let next = certificate(NEXT)?.flatten().map(|ca| Next {
            ca,
            published: time(PUBLISHED),
        });
        let previous = certificate(PREVIOUS)?.flatten().map(|ca| Previous {
            ca,
            // Without it the leaves of the predecessor would be replaced at once, which is safe.
            since: time(SINCE).unwrap_or(Timestamp::UNIX_EPOCH),
            unused: time(UNUSED),
        });
        Ok(Self {
            current,
            next,
            previous,
        })
    }

    /// What clients trust: in an order that does not change when one takes the other's place, so that `ca.crt` stays as it
    /// is then.
    pub fn trust(&self) -> Trust {
        let next = self.next.as_ref().map(|next| &next.ca);
        let previous = self.previous.as_ref().map(|previous| &previous.ca);
        let mut trusted: Vec<_> = [Some(&self.current), next, previous]
            .into_iter()
            .flatten()
            .collect();
        trusted.sort_by(|a, b| a.root_pem().cmp(b.root_pem()));
        Trust::of(trusted)
    }

    /// The ConfigMap's data: for the operator itself, and for people (`ca.crt` is what clients trust). What is absent is
    /// null, so that a merge patch removes it.
    pub fn data(&self) -> Map<String, Value> {
        let next = self.next.as_ref();
        let previous = self.previous.as_ref();
        let Value::Object(data) = json!({
            "ca.crt": self.trust().pem(),
            CURRENT: path(&self.current),
            NEXT: next.map(|next| path(&next.ca)),
            PUBLISHED: next.and_then(|next| next.published),
            PREVIOUS: previous.map(|previous| path(&previous.ca)),
            SINCE: previous.map(|previous| previous.since),
            UNUSED: previous.and_then(|previous| previous.unused),
        }) else {
            unreachable!("it is written as an object above")
        };
        data
    }
}

const CURRENT: &str = "current.crt";
const NEXT: &str = "next.crt";
const PUBLISHED: &str = "next-published";
const PREVIOUS: &str = "previous.crt";
const SINCE: &str = "previous-since";
const UNUSED: &str = "previous-unused";

/// Reads one certificate with its path; `None` if that is not in force and need not be remembered.
fn certificate(key: &str, pem: &str, now: Timestamp) -> Result<Option<CaCertificate>, String> {
    let read = |now| CaCertificate::from_pem(pem.as_bytes(), &[], now);
    let then = match read(now) {
        Ok(ca) => return Ok(Some(ca)),
        Err(AuthorityError::Expired { .. }) if key != CURRENT => return Ok(None),
        Err(AuthorityError::NotYetValid { .. }) if key == NEXT => return Ok(None),
        // Which one it was matters all the same: whether it may sign is for the Secret to say.
        Err(AuthorityError::Expired { not_after, .. }) => not_after,
        Err(AuthorityError::NotYetValid { not_before, .. }) => not_before,
        Err(error) => return Err(format!("{key}: {error}")),
    };
    read(then)
        .map(Some)
        .map_err(|error| format!("{key}: {error}"))
}

/// The whole path in PEM, from the CA to its root.
fn path(ca: &CaCertificate) -> String {
    format!("{}{}", ca.chain_pem(), ca.root_pem())
}

#[cfg(test)]
mod tests;
