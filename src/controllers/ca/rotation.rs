//! The steps of a rotation, decided on plain data.
//!
//! The serving CA of the webhook has another engine, `webhook::server::serving_cert::decision`,
//! because the problem is another one. This CA has a successor that clients must know *before* it
//! signs, one writer (the leader), blockers to wait for and a key that must never be made anew
//! after a loss. The serving CA signs at once and keeps the CAs before it trusted for a fixed
//! overlap; each replica may write it and restores it after a loss, and secret path segments change
//! with it. Both share no step, only the time at which a CA is due ([`renewal::at`]).

use super::ROTATE_NOW;
use crate::model::ca_state::{CaState, Next, Retired};
use crate::model::rollout::RolloutProgress;
use jiff::{SignedDuration, Timestamp};
use pki_certs::{CaCertificate, renewal};

pub use evaluate::{Evaluation, StoredCa, evaluate};

mod evaluate;

/// Durations of a rotation.
#[derive(Clone, Copy, Debug)]
pub struct RotationTimes {
    /// The time in which every client and server reloads changed files.
    pub step: SignedDuration,
    /// Maximum wait of each phase for blockers.
    pub wait: SignedDuration,
}

impl RotationTimes {
    /// Maximum wait of a phase. By force it is a quarter of a step: with the two steps in which
    /// files are reloaded, the rotation ends within three.
    pub fn wait_for(&self, is_forced: bool) -> SignedDuration {
        if is_forced { self.step / 4 } else { self.wait }
    }

    /// The time over which the certificates of the old CA are replaced.
    pub fn window(&self, is_forced: bool) -> SignedDuration {
        if is_forced { self.step / 8 } else { self.step }
    }
}

/// A request for another CA, by the annotation [`ROTATE_NOW`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationRequest {
    /// Another CA, in the steps of a rotation.
    Rotate,
    /// Another CA, even if some users are left behind: a key was stolen.
    Force,
}

/// Maximum number of CAs before the present one that are trusted when another rotation begins.
const MAX_TRUSTED: usize = 8;
/// Maximum number of CAs before the present one that are remembered.
const MAX_RETIRED: usize = 32;

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
            "a forced rotation has been under way since {since}; the next one begins when it has ended, at most three steps later"
        ));
    }
    let advice = format!("{ROTATE_NOW}=force starts one at once");
    if let Some(next) = &state.next {
        let since = next.since.unwrap_or(now);
        return Some(format!(
            "a rotation has been under way since {since}; the next one begins when the certificates of the present CA are \
             replaced and its root is withdrawn; {advice}"
        ));
    }
    let newest = state.trusted().next()?;
    if is_replacing(state, times, now) {
        return Some(format!(
            "a rotation began to replace the certificates of the previous CA at {}; the next one begins when the root of \
             that CA is withdrawn, at the latest at {}; {advice}",
            newest.since,
            end(newest.since)
        ));
    }
    (state.trusted().count() >= MAX_TRUSTED).then(|| {
        format!(
            "{MAX_TRUSTED} previous CAs are still trusted, because their certificates are in use; the next rotation begins when one \
             of them is no longer used; {advice}, and withdraws them all"
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
    let has_room = !is_replacing(&state, times, now) && state.trusted().count() < MAX_TRUSTED;
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

/// Withdraws a root a step after its last certificate has gone; by force, a step after the wait.
fn withdraw(
    retired: &mut Retired,
    progress: &RolloutProgress,
    times: &RotationTimes,
    now: Timestamp,
) {
    retired.forced = retired.forced.map(|since| since.min(now));
    let gives_up = has_lasted(retired.forced, times.wait_for(true), now);
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
    kept.filter(move |(place, it)| {
        let is_over = it.forced.is_some() || it.kept >= retention || *place >= MAX_RETIRED;
        it.is_withdrawn && is_over
    })
    .map(|(_, retired)| retired)
}

/// Whether certificates are to be counted: a rotation is under way, or has left some behind.
pub fn is_counted(state: &CaState) -> bool {
    let is_left = |retired: &Retired| !retired.is_withdrawn || retired.forced.is_some();
    state.next.is_some() || state.retired.iter().any(is_left)
}

/// A time, unless it lies in the future because a clock was ahead.
fn past(time: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    time.filter(|time| *time <= now)
}

fn has_lasted(since: Option<Timestamp>, step: SignedDuration, now: Timestamp) -> bool {
    since.is_some_and(|since| now.duration_since(since) >= step)
}

/// Makes this CA the one that signs.
fn replace(state: &mut CaState, successor: CaCertificate, now: Timestamp) {
    let is_successor = |next: &Next| next.ca.fingerprint() == successor.fingerprint();
    let mut next = state.next.iter();
    let is_forced = next.any(|next| next.is_forced && is_successor(next));
    state.next = state.next.take().filter(|next| !is_successor(next));
    let retired = &mut state.retired;
    // One that signed before signs again.
    let mut known = retired.iter();
    let known = known.find(|retired| retired.ca.fingerprint() == successor.fingerprint());
    let until = known.and_then(|known| known.pod_leaves_until);
    retired.retain(|retired| retired.ca.fingerprint() != successor.fingerprint());
    let current = std::mem::replace(&mut state.current, successor);
    let pod_leaves_until = std::mem::replace(&mut state.pod_leaves_until, until);
    let newest = Retired::since(current, now);
    retired.insert(
        0,
        Retired {
            pod_leaves_until,
            ..newest
        },
    );
    if is_forced {
        // Their keys lay beside the one that was stolen.
        for retired in retired {
            retired.forced = Some(now);
        }
    }
}

#[cfg(test)]
mod tests;
