//! How a CA is replaced, decided step by step on plain data.

use super::ROTATE_NOW;
use crate::k8s::clock::MAX_FUTURE;
use crate::model::ca::Alarm;
use crate::model::ca_state::{CaState, Next, Retired};
use crate::model::rollout::RolloutProgress;
use jiff::{SignedDuration, Timestamp};
use pki_certs::{Authority, AuthorityError, CaCertificate, renewal};

/// What the Secret of the CA holds.
#[derive(Debug)]
pub struct StoredCa {
    /// `tls.crt` and `tls.key`.
    pub current: Result<Authority, AuthorityError>,
    /// `next.crt` and `next.key`, if they are there.
    pub next: Option<Result<Authority, AuthorityError>>,
    /// The value of the annotation [`ACCEPT`](super::ACCEPT).
    pub accepted: Option<String>,
    /// Those of the CAs that signed before which are there with their keys and in force.
    pub retired: Vec<Authority>,
    /// The fingerprint of the successor that is to take over by force.
    pub forced: Option<String>,
}

/// How long a rotation takes, and how long it waits.
#[derive(Clone, Copy, Debug)]
pub struct RotationTimes {
    /// The time in which everybody reloads what was changed.
    pub step: SignedDuration,
    /// How long each phase waits for those who cannot be reached.
    pub wait: SignedDuration,
}

impl RotationTimes {
    /// How long a phase waits at most. By force it is a quarter of a step: with the two steps in
    /// which everybody reloads, all is over within three.
    pub fn wait_for(&self, is_forced: bool) -> SignedDuration {
        if is_forced { self.step / 4 } else { self.wait }
    }

    /// How long the replacement of the old CA's certificates is spread over.
    pub fn window(&self, is_forced: bool) -> SignedDuration {
        if is_forced { self.step / 8 } else { self.step }
    }
}

/// A request for another CA, by the annotation [`ROTATE_NOW`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationRequest {
    /// Another CA, in the steps of a rotation.
    Rotate,
    /// Another CA, whoever is left behind: a key was stolen.
    Force,
}

/// Reads state and Secret together: what the state is to say now, who signs, and what is wrong
/// with the successor.
pub fn evaluate(
    state: Option<CaState>,
    stored: Option<StoredCa>,
    secret: &str,
    now: Timestamp,
) -> (Option<CaState>, Result<Authority, Alarm>, Option<Alarm>) {
    let secret = secret.to_owned();
    let unusable = |secret, file, source| Alarm::Unusable {
        secret,
        file,
        source,
    };
    let (state, stored) = match (state, stored) {
        (None, None) => return (None, Err(Alarm::NotBrought { secret }), None),
        (Some(state), None) => {
            let fingerprint = state.current.fingerprint().to_owned();
            let lost = Alarm::Lost {
                secret,
                fingerprint,
            };
            return (Some(state), Err(lost), None);
        }
        // The first sight of it.
        (None, Some(stored)) => match &stored.current {
            Ok(authority) => (CaState::of(authority.ca().clone()), stored),
            Err(error) => return (None, Err(unusable(secret, TLS, error.clone())), None),
        },
        (Some(state), Some(stored)) => (state, stored),
    };
    let (mut state, mut stored) = (state, stored);
    if let Some(successor) = replaced_on_purpose(&state, &stored, now) {
        replace(&mut state, successor, now);
    } else if let Some(recalled) = recalled(&state, &stored, now) {
        replace(&mut state, recalled, now);
    }
    let forced = stored.forced.take();
    let (signer, other, concern) = match find_signer(&state.current, stored, &secret) {
        Ok(found) => found,
        Err(alarm) => return (Some(state), Err(alarm), None),
    };
    let concern = concern.map(|error| unusable(secret, NEXT, error));
    // It may have got another root of the same key, which is to be made known.
    state.current = signer.ca().clone();
    let state = ledger_with(state, other, forced.as_deref());
    (Some(state), Ok(signer), concern)
}

/// The authority that signs, the one beside it that may be its successor, and what is wrong with
/// that.
type Found = (Authority, Option<Authority>, Option<AuthorityError>);

fn find_signer(current: &CaCertificate, stored: StoredCa, secret: &str) -> Result<Found, Alarm> {
    let mut retired = stored.retired;
    match (stored.current, stored.next) {
        (Ok(tls), next) if is(current, &tls) => {
            let (next, concern) = split(next);
            Ok((tls, next, concern))
        }
        // The CA beside it signed before and may have expired. So it is no successor.
        (_, Some(Ok(next))) if is(current, &next) => Ok((next, None, None)),
        (tls, next) => {
            // A recalled CA stays in this place until it is moved.
            if let Some(signer) = take(&mut retired, current) {
                let (next, concern) = split(next);
                return Ok((signer, next, concern));
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
    }
}

/// The most CAs before the present one that are trusted when another rotation begins.
const MOST_TRUSTED: usize = 8;
/// The most CAs before the present one that are remembered.
const MOST_RETIRED: usize = 32;

/// Whether it is time to make a successor.
pub fn is_due(
    state: &CaState,
    request: Option<RotationRequest>,
    times: &RotationTimes,
    now: Timestamp,
) -> bool {
    let ca = &state.current;
    let renewal = renewal::at(ca.not_before(), ca.not_after(), None);
    let is_wanted = request.is_some() || renewal <= now;
    is_wanted && obstacle(state, request, times, now).is_none()
}

/// Why no successor is made now, and when one will be.
pub fn obstacle(
    state: &CaState,
    request: Option<RotationRequest>,
    times: &RotationTimes,
    now: Timestamp,
) -> Option<String> {
    let end = |since: Timestamp| since.saturating_add(times.wait).unwrap_or(since);
    if request == Some(RotationRequest::Force) {
        let mut forced = state.trusted().filter_map(|retired| retired.forced);
        let since = match &state.next {
            Some(next) if next.is_forced => next.since.unwrap_or(now),
            _ => forced.next()?,
        };
        return Some(format!(
            "a rotation by force is under way since {since}; the next one begins when it is over, at most three steps later"
        ));
    }
    let advice = format!("{ROTATE_NOW}=force begins one at once");
    if let Some(next) = &state.next {
        let since = next.since.unwrap_or(now);
        return Some(format!(
            "a rotation is under way since {since}; the next one begins when the certificates of the present CA are replaced \
             and its root is withdrawn; {advice}"
        ));
    }
    let newest = state.trusted().next()?;
    if is_replacing(state, times, now) {
        return Some(format!(
            "a rotation is under way, and the certificates of the CA before are being replaced since {}; the next one begins \
             when its root is withdrawn, at the latest at {}; {advice}",
            newest.since,
            end(newest.since)
        ));
    }
    (state.trusted().count() >= MOST_TRUSTED).then(|| {
        format!(
            "{MOST_TRUSTED} CAs of before are trusted still, as certificates of them are in use; the next rotation begins \
             when one of them is not used any more; {advice}, and withdraws them all"
        )
    })
}

/// Whether the certificates of the CA before are being replaced, and are still waited for.
fn is_replacing(state: &CaState, times: &RotationTimes, now: Timestamp) -> bool {
    let newest = state.trusted().next();
    newest.is_some_and(|newest| !has_lasted(Some(newest.since), times.wait, now))
}

/// Goes as far as certificates and time permit.
pub fn advance(
    mut state: CaState,
    progress: &RolloutProgress,
    times: &RotationTimes,
    now: Timestamp,
) -> CaState {
    for retired in &mut state.retired {
        if !retired.is_withdrawn {
            withdraw(retired, progress, times, now);
        }
    }
    let has_room = !is_replacing(&state, times, now) && state.trusted().count() < MOST_TRUSTED;
    let Some(next) = &mut state.next else {
        return state;
    };
    let since = past(next.since, now).unwrap_or(now);
    next.since = Some(since);
    let gives_up = has_lasted(Some(since), times.wait_for(next.is_forced), now);
    next.published =
        (progress.unpublished == 0 || gives_up).then(|| past(next.published, now).unwrap_or(now));
    let is_known = has_lasted(next.published, times.step, now);
    // A Secret that cannot be written must not keep the CA until it has expired.
    let is_late = state.current.not_after() <= now.saturating_add(times.step).unwrap_or(now);
    if is_known && (has_room || next.is_forced) || is_late {
        let successor = next.ca.clone();
        replace(&mut state, successor, now);
    }
    state
}

/// Withdraws a root a step after its last certificate was replaced or has ended; by force, a step
/// after the wait for that.
fn withdraw(
    retired: &mut Retired,
    progress: &RolloutProgress,
    times: &RotationTimes,
    now: Timestamp,
) {
    let wait = times.wait_for(true);
    retired.forced = retired.forced.map(|since| since.min(now));
    let gives_up = retired.forced.is_some() && has_lasted(retired.forced, wait, now);
    let is_in_use = progress.in_use.contains(retired.ca.fingerprint());
    let is_unused = !is_in_use || gives_up || retired.ca.not_after() < now;
    retired.unused = is_unused.then(|| past(retired.unused, now).unwrap_or(now));
    retired.is_withdrawn = has_lasted(retired.unused, times.step, now);
}

/// Adds to the time that retired CAs have been seen as such, by a monotonic clock.
pub fn age(state: &mut CaState, seen_for: SignedDuration) {
    for retired in &mut state.retired {
        retired.kept = retired.kept.saturating_add(seen_for);
    }
}

/// The CAs whose keys may go: nobody trusts them, and they have been kept for `retention`, or their
/// keys were stolen. No time of day counts here, so that a wrong one destroys nothing.
pub fn outdated(state: &CaState, retention: SignedDuration) -> impl Iterator<Item = &Retired> {
    let kept = state.retired.iter().enumerate();
    kept.filter(move |(place, retired)| {
        let is_over =
            retired.forced.is_some() || retired.kept >= retention || *place >= MOST_RETIRED;
        retired.is_withdrawn && is_over
    })
    .map(|(_, retired)| retired)
}

/// Whether certificates are to be counted: a rotation is under way, or is over and has left some
/// behind.
pub fn is_counted(state: &CaState) -> bool {
    let is_left = |retired: &Retired| !retired.is_withdrawn || retired.forced.is_some();
    state.next.is_some() || state.retired.iter().any(is_left)
}

const TLS: &str = "tls.crt";
const NEXT: &str = "next.crt";

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

fn take(authorities: &mut Vec<Authority>, wanted: &CaCertificate) -> Option<Authority> {
    let place = authorities.iter().position(|found| is(wanted, found))?;
    Some(authorities.swap_remove(place))
}

fn replace(state: &mut CaState, successor: CaCertificate, now: Timestamp) {
    let is_successor = |next: &Next| next.ca.fingerprint() == successor.fingerprint();
    let is_forced = state
        .next
        .as_ref()
        .is_some_and(|next| next.is_forced && is_successor(next));
    state.next = state.next.take().filter(|next| !is_successor(next));
    let retired = &mut state.retired;
    retired.retain(|retired| retired.ca.fingerprint() != successor.fingerprint());
    let current = std::mem::replace(&mut state.current, successor);
    retired.insert(0, Retired::since(current, now));
    if is_forced {
        // Their keys lay beside the one that was stolen.
        for retired in retired {
            retired.forced = Some(now);
        }
    }
}

/// The state with this authority, which lies in the Secret beside the one that signs, as the
/// successor; unless it signed before.
fn ledger_with(mut state: CaState, other: Option<Authority>, forced: Option<&str>) -> CaState {
    let is_retired = |other: &Authority| state.retired.iter().any(|it| is(&it.ca, other));
    let other = other.filter(|other| !is(&state.current, other) && !is_retired(other));
    let known = state.next.take();
    state.next = other.map(|other| {
        let is_forced = forced == Some(other.ca().fingerprint());
        let known = known.filter(|next| next.ca == *other.ca());
        let next = known.unwrap_or_else(|| Next {
            ca: other.ca().clone(),
            since: None,
            published: None,
            is_forced,
        });
        if next.is_forced == is_forced {
            return next;
        }
        // The shorter wait begins when it is asked for.
        Next {
            since: None,
            is_forced,
            ..next
        }
    });
    state
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

/// A time that a clock which was ahead has put down has not come yet; it is counted anew.
fn past(time: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    time.filter(|time| *time <= now)
}

fn has_lasted(since: Option<Timestamp>, step: SignedDuration, now: Timestamp) -> bool {
    since.is_some_and(|since| now.duration_since(since) >= step)
}

#[cfg(test)]
mod tests;
