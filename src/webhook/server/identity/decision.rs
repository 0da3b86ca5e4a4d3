//! What becomes of the webhook's CA and of the serving certificate, decided on plain data.

use super::path::Segment;
use jiff::{SignedDuration, Timestamp};
use pki_certs::{Authority, AuthorityError, renewal};
use std::sync::Arc;
use std::time::Duration;

/// How long both `caBundle`s must have held a CA before anything is served from it. Each API server
/// learns of a change by a watch of its own, which takes well under a second where nothing is
/// wrong.
pub const SETTLING: Duration = Duration::from_secs(5);

/// The most CAs before the present one that are kept. Somebody who asks for another CA time and
/// again, by a manifest that holds [`ROTATE_NOW`](crate::controllers::ca::ROTATE_NOW), gets the
/// next one when those before are withdrawn.
const MOST_PREVIOUS: usize = 3;

/// The CAs of the webhook, and the secret segments of its path.
#[derive(Clone, Debug)]
pub struct Cas {
    /// The one that new leaves come from.
    pub current: Arc<Authority>,
    /// The certificates of those that were, and are to be trusted still, in PEM.
    pub previous: Vec<String>,
    /// The segment that belongs into the path, once there is one.
    pub segment: Option<Segment>,
    /// Those before it, by which the API server may ask still.
    pub previous_segments: Vec<Segment>,
    /// Since when CAs and segments have been the previous ones.
    pub since: Option<Timestamp>,
}

/// What the Secret holds.
#[derive(Debug)]
pub enum StoredServingCa {
    /// It is not there.
    Absent,
    /// A CA that signs.
    Usable {
        /// It, and those before.
        cas: Cas,
        /// Whether somebody asks for another.
        rotate_now: bool,
    },
    /// No CA that signs.
    Unusable {
        /// What is wrong with it.
        error: AuthorityError,
        /// Whether the operator made the Secret.
        is_ours: bool,
    },
}

/// What the Secret is to become.
#[derive(Debug)]
pub struct ServingCaChange {
    /// Why, to be logged.
    pub reason: Reason,
    /// The CA in it.
    pub current: CurrentServingCa<Arc<Authority>>,
    /// Those to be trusted beside it.
    pub previous: Vec<String>,
    /// The segment in it.
    pub segment: CurrentServingCa<Segment>,
    /// Those to be answered beside it.
    pub previous_segments: Vec<Segment>,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// The CA, or the segment, that a Secret is to hold.
#[derive(Debug)]
pub enum CurrentServingCa<T> {
    /// The one that it holds.
    Same,
    /// This one.
    Known(T),
    /// One that is to be made.
    New,
}

/// Why the Secret is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no CA, and nobody knows one.
    Begin,
    /// It was deleted or damaged.
    Restore,
    /// It is time for another CA, or somebody asked for one.
    Rotate,
    /// It does not hold the CA that is served from, most likely as somebody put another one there.
    Overlap,
    /// The Secret has no segment for the path.
    Path,
    /// It does not say since when those before have been that.
    Date,
    /// No leaf of those before is valid any more.
    Withdraw,
}

impl Reason {
    /// For the log.
    pub fn what(self) -> &'static str {
        match self {
            Self::Begin => "made the webhook's CA",
            Self::Restore => "restored the webhook's CA, which was deleted or damaged",
            Self::Rotate => {
                "made another CA for the webhook; the one before stays trusted for a while"
            }
            Self::Overlap => {
                "added the CA that is served from to those of the webhook; it stays trusted for a while"
            }
            Self::Path => "added the secret path of the webhook to its CA",
            Self::Date => "noted since when the webhook has another CA",
            Self::Withdraw => "withdrew the webhook's CA before this one",
        }
    }
}

/// What is served at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// The CA of the leaf.
    pub issuer: &'a Arc<Authority>,
    /// When the leaf is due.
    pub renew_at: Timestamp,
    /// Whether any webhook configuration trusts it.
    pub is_trusted: bool,
}

impl Cas {
    /// What the API server is to trust.
    pub fn bundle(&self) -> String {
        self.certificates().collect()
    }

    /// Whether this CA is among them.
    pub fn hold(&self, authority: &Authority) -> bool {
        let wanted = authority.ca().certificate_pem();
        self.certificates().any(|known| known == wanted)
    }

    /// Their certificates, that of the present one first.
    pub fn certificates(&self) -> impl Iterator<Item = &str> {
        let previous = self.previous.iter().map(String::as_str);
        std::iter::once(self.current.ca().certificate_pem()).chain(previous)
    }

    /// The segments by which the API server may ask.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segment.iter().chain(&self.previous_segments)
    }

    /// Whether there is no room for another CA until those before are withdrawn.
    pub fn is_full(&self) -> bool {
        self.previous.len() >= MOST_PREVIOUS
    }

    /// How long those before stay trusted yet, if there are any and their time is not over.
    pub fn until_withdrawal(&self, overlap: SignedDuration, now: Timestamp) -> Option<Duration> {
        let lasted = now.duration_since(self.since?);
        Duration::try_from(overlap - lasted).ok()
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let ca = self.current.ca();
        renewal::at(ca.not_before(), ca.not_after(), None) <= now
    }

    fn has_previous(&self) -> bool {
        !self.previous.is_empty() || !self.previous_segments.is_empty()
    }

    /// The segment that the Secret should hold, if it holds another or none.
    fn missing_segment(&self, known: Option<&Self>) -> CurrentServingCa<Segment> {
        if self.segment.is_some() {
            return CurrentServingCa::Same;
        }
        let known = known.and_then(|known| known.segment.clone());
        known.map_or(CurrentServingCa::New, CurrentServingCa::Known)
    }

    /// Those before, and the present one.
    fn previous_segments_with(&self, present: Option<&Segment>) -> Vec<Segment> {
        let older = self.previous_segments.iter();
        let older = older.filter(|older| Some(*older) != present);
        let all = present.into_iter().chain(older);
        all.take(MOST_PREVIOUS).cloned().collect()
    }

    /// Those before, and one more; the oldest makes way. Should any replica serve from that still,
    /// it puts it back.
    fn previous_with(&self, authority: &Authority) -> Vec<String> {
        let newest = authority.ca().certificate_pem();
        let older = self.previous.iter().filter(|older| *older != newest);
        std::iter::once(newest.to_owned())
            .chain(older.cloned())
            .take(MOST_PREVIOUS)
            .collect()
    }
}

/// What is to be written into the Secret, if anything. `known` is what it held when it was last
/// usable, `served` the CA of the present leaf; `overlap` is how long those before are trusted.
pub fn change(
    stored: &StoredServingCa,
    known: Option<&Cas>,
    served: Option<&Authority>,
    overlap: SignedDuration,
    now: Timestamp,
) -> Option<ServingCaChange> {
    let (cas, rotate_now) = match stored {
        StoredServingCa::Usable { cas, rotate_now } => (cas, *rotate_now),
        // The Secret may belong to somebody else, who chose this name by mistake.
        StoredServingCa::Unusable { is_ours: false, .. } => return None,
        // `now` is a time that is trusted. So a CA that is not valid yet was made by a wrong clock.
        StoredServingCa::Absent | StoredServingCa::Unusable { .. } => {
            return Some(remake(known, now));
        }
    };
    let change = |reason, current, previous, since| ServingCaChange {
        reason,
        current,
        previous,
        segment: cas.missing_segment(known),
        previous_segments: cas.previous_segments.clone(),
        since,
    };
    let lasted = cas.since.map(|since| now.duration_since(since));
    let others = served.filter(|served| !cas.hold(served));
    let is_served = served.is_some_and(|served| is(served, &cas.current));
    if let Some(served) = others {
        let previous = cas.previous_with(served);
        Some(change(
            Reason::Overlap,
            CurrentServingCa::Same,
            previous,
            Some(now),
        ))
    } else if !cas.is_full() && (rotate_now || cas.is_due(now)) {
        let previous = cas.previous_with(&cas.current);
        let known = known.and_then(|known| known.segment.as_ref());
        let segment = cas.segment.as_ref().or(known);
        Some(ServingCaChange {
            segment: CurrentServingCa::New,
            previous_segments: cas.previous_segments_with(segment),
            ..change(Reason::Rotate, CurrentServingCa::New, previous, Some(now))
        })
    } else if cas.segment.is_none() {
        let previous = cas.previous.clone();
        Some(change(
            Reason::Path,
            CurrentServingCa::Same,
            previous,
            cas.since,
        ))
    } else if !cas.has_previous() {
        None
    } else if lasted.is_none() {
        let previous = cas.previous.clone();
        Some(change(
            Reason::Date,
            CurrentServingCa::Same,
            previous,
            Some(now),
        ))
    } else if is_served && lasted >= Some(overlap) {
        Some(ServingCaChange {
            previous_segments: vec![],
            ..change(Reason::Withdraw, CurrentServingCa::Same, vec![], None)
        })
    } else {
        None
    }
}

/// The CA that was in the Secret, as long as it is worth something; else a new one.
fn remake(known: Option<&Cas>, now: Timestamp) -> ServingCaChange {
    match known.filter(|known| {
        let ca = known.current.ca();
        ca.not_before() <= now && now < ca.not_after()
    }) {
        Some(known) => ServingCaChange {
            reason: Reason::Restore,
            current: CurrentServingCa::Known(known.current.clone()),
            previous: known.previous.clone(),
            segment: known
                .segment
                .clone()
                .map_or(CurrentServingCa::New, CurrentServingCa::Known),
            previous_segments: known.previous_segments.clone(),
            since: known.since,
        },
        None => ServingCaChange {
            reason: Reason::Begin,
            current: CurrentServingCa::New,
            previous: vec![],
            segment: CurrentServingCa::New,
            previous_segments: vec![],
            since: None,
        },
    }
}

/// The CA of which a leaf is to be made now, if one is. `current` is that of the Secret, as far as
/// it is known, and `carried_for` how long every webhook configuration has carried it.
pub fn issuer(
    served: Served<'_>,
    current: Option<&Arc<Authority>>,
    carried_for: Option<Duration>,
    now: Timestamp,
) -> Option<Arc<Authority>> {
    let is_settled = carried_for.is_some_and(|carried_for| carried_for >= SETTLING);
    let successor = current.filter(|current| !is(current, served.issuer));
    // A leaf that nobody trusts is nothing to lose.
    let successor = successor.filter(|_| is_settled || !served.is_trusted);
    let is_due = served.renew_at <= now;
    successor.or(is_due.then_some(served.issuer)).cloned()
}

/// Whether API servers may still be learning of the CA that is served from, while they know one
/// before it: who asks another replica is better off.
pub fn is_early(served: &Authority, cas: &Cas, carried_for: Option<Duration>) -> bool {
    let is_settled = carried_for.is_some_and(|carried_for| carried_for >= SETTLING);
    is(served, &cas.current) && !cas.previous.is_empty() && !is_settled
}

fn is(one: &Authority, other: &Authority) -> bool {
    one.ca().fingerprint() == other.ca().fingerprint()
}

#[cfg(test)]
mod tests;
