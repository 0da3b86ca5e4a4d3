//! Evaluation of state and Secret: which CA signs, which one comes next, and what is wrong.

use super::replace;
use crate::k8s::clock::MAX_FUTURE;
use crate::model::ca::Alarm;
use crate::model::ca_state::{CaState, Next, Retired};
use jiff::Timestamp;
use pki_certs::{Authority, AuthorityError, CaCertificate};

const TLS: &str = "tls.crt";
const NEXT: &str = "next.crt";

/// Content of the Secret of the CA.
#[derive(Debug)]
pub struct StoredCa {
    /// `tls.crt` and `tls.key`.
    pub current: Result<Authority, AuthorityError>,
    /// `next.crt` and `next.key`, if they are there.
    pub next: Option<Result<Authority, AuthorityError>>,
    /// The value of the annotation [`ACCEPT`](crate::api::annotations::ACCEPT).
    pub accepted: Option<String>,
    /// Those of the CAs that signed before which are there with their keys and in force.
    pub retired: Vec<Authority>,
    /// The fingerprint of the successor that is to take over by force.
    pub forced: Option<String>,
}

/// Result of an [evaluation](evaluate).
#[derive(Debug)]
pub struct Evaluation {
    /// The state from now on.
    pub state: CaState,
    /// The key of the CA that signs, or why there is none.
    pub signer: Result<Authority, Alarm>,
    /// The problem of a successor that cannot be used.
    pub successor_alarm: Option<Alarm>,
}

/// Evaluates state and Secret together. `secret` is the name of the Secret.
///
/// # Errors
///
/// An alarm if nothing is known of the CA.
pub fn evaluate(
    state: Option<CaState>,
    stored: Option<StoredCa>,
    secret: &str,
    now: Timestamp,
) -> Result<Evaluation, Alarm> {
    let name = || secret.to_owned();
    let unusable = |file, source| Alarm::Unusable {
        secret: name(),
        file,
        source,
    };
    let failed = |state, alarm| Evaluation {
        state,
        signer: Err(alarm),
        successor_alarm: None,
    };
    let (mut state, mut stored) = match (state, stored) {
        (None, None) => return Err(Alarm::NotBrought { secret: name() }),
        (Some(state), None) => {
            let lost = Alarm::Lost {
                secret: name(),
                fingerprint: state.current.fingerprint().to_owned(),
            };
            return Ok(failed(state, lost));
        }
        // Seen for the first time.
        (None, Some(stored)) => match &stored.current {
            Ok(authority) => (CaState::of(authority.ca().clone()), stored),
            Err(error) => return Err(unusable(TLS, error.clone())),
        },
        (Some(state), Some(stored)) => (state, stored),
    };
    let replacement = replaced_on_purpose(&state, &stored, now);
    if let Some(ca) = replacement.or_else(|| recalled(&state, &stored, now)) {
        replace(&mut state, ca, now);
    }
    let forced = stored.forced.take();
    let (signer, next) = match find_signer(&state.current, stored, secret) {
        Ok(found) => found,
        Err(alarm) => return Ok(failed(state, alarm)),
    };
    let (next, problem) = match next.transpose() {
        Ok(next) => (next, None),
        Err(problem) => (None, Some(problem)),
    };
    // The signer may have got another root of the same key, which is to be published.
    state.current = signer.ca().clone();
    set_successor(&mut state, next, forced.as_deref());
    Ok(Evaluation {
        state,
        signer: Ok(signer),
        successor_alarm: problem.map(|error| unusable(NEXT, error)),
    })
}

/// Finds the authority that signs, and the content of the place of its successor.
fn find_signer(
    current: &CaCertificate,
    stored: StoredCa,
    secret: &str,
) -> Result<(Authority, Option<Result<Authority, AuthorityError>>), Alarm> {
    let mut retired = stored.retired;
    let (tls, next) = match (stored.current, stored.next) {
        (Ok(tls), next) if is(current, &tls) => return Ok((tls, next)),
        // The CA beside it signed before and may have expired. So it is no successor.
        (_, Some(Ok(next))) if is(current, &next) => return Ok((next, None)),
        other => other,
    };
    // A recalled CA stays in its place until it is moved.
    if let Some(place) = retired.iter().position(|found| is(current, found)) {
        return Ok((retired.swap_remove(place), next));
    }
    let secret = secret.to_owned();
    Err(match tls {
        Ok(tls) => Alarm::Replaced {
            secret,
            expected: current.fingerprint().to_owned(),
            found: tls.ca().fingerprint().to_owned(),
        },
        Err(source) => Alarm::Unusable {
            secret,
            file: TLS,
            source,
        },
    })
}

/// The CA that is to sign from now on, when the Secret holds it instead of the one that did: the
/// successor, where the platform team moved it or where the one before has expired; one below a
/// root that is trusted already; or one that the platform team vouches for.
fn replaced_on_purpose(
    state: &CaState,
    stored: &StoredCa,
    now: Timestamp,
) -> Option<CaCertificate> {
    let next = stored.next.as_ref().and_then(|next| next.as_ref().ok());
    let holds = |ca: &CaCertificate| {
        [stored.current.as_ref().ok(), next]
            .into_iter()
            .flatten()
            .any(|authority| is(ca, authority))
    };
    if holds(&state.current) {
        return None;
    }
    let is_meant = |found: &CaCertificate| {
        let successor = state.next.as_ref().map(|next| next.ca.fingerprint());
        successor == Some(found.fingerprint())
            || found.root_pem() == state.current.root_pem()
            || stored.accepted.as_deref() == Some(found.fingerprint())
    };
    let found = stored.current.as_ref().ok().map(Authority::ca);
    let found = found.filter(|found| is_meant(found));
    // Nothing that the old one signed is valid any more, so there is nobody to wait for.
    let is_over = state.current.not_after() < now;
    let next = next.filter(|_| is_over).map(Authority::ca);
    found.or(next).cloned()
}

/// The CA that signed before and is to sign again, as the one that took its place is not in force:
/// a wrong clock made that. One that was replaced by force never comes back.
fn recalled(state: &CaState, stored: &StoredCa, now: Timestamp) -> Option<CaCertificate> {
    let ca = &state.current;
    let has_begun = ca.not_before().duration_since(now) <= MAX_FUTURE;
    let is_in_force = has_begun && now <= ca.not_after();
    let has_successor = stored.next.as_ref().is_some_and(Result::is_ok);
    if is_in_force || has_successor {
        return None;
    }
    // The former CA is still in its old place if its successor was not moved there.
    let unmoved = stored.current.as_ref().ok();
    let kept = stored.retired.iter().chain(unmoved);
    let is_there = |known: &&Retired| kept.clone().any(|found| is(&known.ca, found));
    let mut known = state.retired.iter().filter(|it| it.forced.is_none());
    known.find(is_there).map(|known| known.ca.clone())
}

/// Makes the authority beside the signer the successor, unless it signed before.
fn set_successor(state: &mut CaState, other: Option<Authority>, forced: Option<&str>) {
    let has_signed = |other: &Authority| {
        is(&state.current, other) || state.retired.iter().any(|it| is(&it.ca, other))
    };
    let other = other.filter(|other| !has_signed(other));
    let known = state.next.take();
    state.next = other.map(|other| {
        let ca = other.ca();
        let is_forced = forced == Some(ca.fingerprint());
        match known.filter(|next| next.ca == *ca) {
            Some(next) if next.is_forced == is_forced => next,
            // The shorter wait begins when it is asked for.
            Some(next) => Next {
                since: None,
                is_forced,
                ..next
            },
            None => Next {
                ca: ca.clone(),
                since: None,
                published: None,
                is_forced,
            },
        }
    });
}

fn is(ca: &CaCertificate, authority: &Authority) -> bool {
    ca.fingerprint() == authority.ca().fingerprint()
}
