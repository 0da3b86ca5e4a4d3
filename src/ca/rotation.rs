//! How a CA is replaced, decided step by step on plain data.

use super::Alarm;
use super::ledger::{Ledger, Next, Previous};
use jiff::{SignedDuration, Timestamp};
use pki_certs::{Authority, AuthorityError, CaCertificate, renewal};

/// What the Secret of the CA holds.
#[derive(Debug)]
pub struct Stored {
    /// `tls.crt` and `tls.key`.
    pub current: Result<Authority, AuthorityError>,
    /// `next.crt` and `next.key`, if they are there.
    pub next: Option<Result<Authority, AuthorityError>>,
    /// The value of the annotation [`ACCEPT`](super::ACCEPT).
    pub accepted: Option<String>,
}

/// How far the certificates in use have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Those whose Secret does not hold the present `ca.crt` yet.
    pub unpublished: usize,
    /// Those that the predecessor signed.
    pub of_previous: usize,
}

/// Reads ledger and Secret together: what the ledger is to say now, who signs, and what is wrong with the successor.
pub fn assess(
    ledger: Option<Ledger>,
    stored: Option<Stored>,
    secret: &str,
    now: Timestamp,
) -> (Option<Ledger>, Result<Authority, Alarm>, Option<Alarm>) {
    let secret = secret.to_owned();
    let unusable = |secret, file, source| Alarm::Unusable {
        secret,
        file,
        source,
    };
    let (ledger, stored) = match (ledger, stored) {
        (None, None) => return (None, Err(Alarm::NotBrought { secret }), None),
        (Some(ledger), None) => {
            let fingerprint = ledger.current.fingerprint().to_owned();
            let lost = Alarm::Lost {
                secret,
                fingerprint,
            };
            return (Some(ledger), Err(lost), None);
        }
        // The first sight of it.
        (None, Some(stored)) => match &stored.current {
            Ok(authority) => (Ledger::of(authority.ca().clone()), stored),
            Err(error) => return (None, Err(unusable(secret, TLS, error.clone())), None),
        },
        (Some(ledger), Some(stored)) => (ledger, stored),
    };
    let mut ledger = ledger;
    if let Some(successor) = replaced_on_purpose(&ledger, &stored, now) {
        replace(&mut ledger, successor, now);
    }
    let (signer, other, concern) = match (stored.current, stored.next) {
        (Ok(tls), next) if is(&ledger.current, &tls) => {
            let (next, concern) = split(next);
            (tls, next, concern)
        }
        // What lies beside it signed before, and may have expired: no successor.
        (_, Some(Ok(next))) if is(&ledger.current, &next) => (next, None, None),
        (Ok(tls), _) => {
            let alarm = Alarm::Replaced {
                secret,
                expected: ledger.current.fingerprint().to_owned(),
                found: tls.ca().fingerprint().to_owned(),
            };
            return (Some(ledger), Err(alarm), None);
        }
        (Err(error), _) => return (Some(ledger), Err(unusable(secret, TLS, error)), None),
    };
    let concern = concern.map(|error| unusable(secret, NEXT, error));
    // It may have got another root of the same key, which is to be made known.
    ledger.current = signer.ca().clone();
    (Some(ledger_with(ledger, other)), Ok(signer), concern)
}

/// What a successor is made of, when it is time to make one.
pub fn is_due(ledger: &Ledger, on_demand: bool, now: Timestamp) -> bool {
    let ca = &ledger.current;
    let renewal = renewal::at(ca.not_before(), ca.not_after(), None);
    ledger.next.is_none() && ledger.previous.is_none() && (on_demand || renewal <= now)
}

/// Goes as far as certificates and time permit; `step` is how long everybody has to reload what was changed.
pub fn advance(mut ledger: Ledger, fleet: Fleet, step: SignedDuration, now: Timestamp) -> Ledger {
    if let Some(previous) = &mut ledger.previous {
        previous.unused = (fleet.of_previous == 0).then(|| previous.unused.unwrap_or(now));
        if previous.ca.not_after() < now || has_lasted(previous.unused, step, now) {
            ledger.previous = None;
        }
    }
    if let Some(next) = &mut ledger.next {
        next.published = (fleet.unpublished == 0).then(|| next.published.unwrap_or(now));
        // A Secret that cannot be written must not keep the CA until it has expired.
        let is_late = ledger.current.not_after() <= now.saturating_add(step).unwrap_or(now);
        if has_lasted(next.published, step, now) && ledger.previous.is_none() || is_late {
            let successor = next.ca.clone();
            ledger.next = None;
            replace(&mut ledger, successor, now);
        }
    }
    ledger
}

const TLS: &str = "tls.crt";
const NEXT: &str = "next.crt";

/// The CA that is to sign from now on, when the Secret holds it instead of the one that did: the successor, where the
/// platform team moved it or where the one before has expired; one below a root that is trusted already; or one that the
/// platform team vouches for.
fn replaced_on_purpose(ledger: &Ledger, stored: &Stored, now: Timestamp) -> Option<CaCertificate> {
    let next = stored.next.as_ref().and_then(|next| next.as_ref().ok());
    let holds = |ca: &CaCertificate| {
        [stored.current.as_ref().ok(), next]
            .into_iter()
            .flatten()
            .any(|authority| is(ca, authority))
    };
    if holds(&ledger.current) {
        return None;
    }
    let is_meant = |found: &CaCertificate| {
        let successor = ledger.next.as_ref().map(|next| next.ca.fingerprint());
        successor == Some(found.fingerprint())
            || found.root_pem() == ledger.current.root_pem()
            || stored.accepted.as_deref() == Some(found.fingerprint())
    };
    let found = stored.current.as_ref().ok().map(Authority::ca);
    let found = found.filter(|found| is_meant(found));
    // Nothing that the old one signed is valid any more, so there is nobody to wait for.
    let is_over = ledger.current.not_after() < now;
    let next = next.filter(|_| is_over).map(Authority::ca);
    found.or(next).cloned()
}

fn replace(ledger: &mut Ledger, successor: CaCertificate, now: Timestamp) {
    let current = std::mem::replace(&mut ledger.current, successor);
    ledger.next = ledger
        .next
        .take()
        .filter(|next| next.ca.fingerprint() != ledger.current.fingerprint());
    ledger.previous = Some(Previous {
        ca: current,
        since: now,
        unused: None,
    });
}

/// The ledger with this authority, which lies in the Secret beside the one that signs, as the successor; unless it is the
/// predecessor.
fn ledger_with(mut ledger: Ledger, other: Option<Authority>) -> Ledger {
    let is_previous = |other: &Authority| {
        let previous = ledger.previous.as_ref();
        previous.is_some_and(|previous| is(&previous.ca, other))
    };
    let other = other.filter(|other| !is(&ledger.current, other) && !is_previous(other));
    let known = ledger.next.take();
    ledger.next = other.map(|other| {
        let known = known.filter(|next| next.ca == *other.ca());
        known.unwrap_or_else(|| Next {
            ca: other.ca().clone(),
            published: None,
        })
    });
    ledger
}

fn is(ca: &CaCertificate, authority: &Authority) -> bool {
    ca.fingerprint() == authority.ca().fingerprint()
}

fn split<T, E>(result: Option<Result<T, E>>) -> (Option<T>, Option<E>) {
    match result {
        None => (None, None),
        Some(Ok(value)) => (Some(value), None),
        Some(Err(error)) => (None, Some(error)),
    }
}

fn has_lasted(since: Option<Timestamp>, step: SignedDuration, now: Timestamp) -> bool {
    since.is_some_and(|since| now.duration_since(since) >= step)
}

#[cfg(test)]
mod tests;
