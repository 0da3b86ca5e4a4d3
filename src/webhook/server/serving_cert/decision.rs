//! Decides on plain data about the webhook's CA and the serving certificate.

use super::path::Segment;
use jiff::{SignedDuration, Timestamp};
use pki_certs::{Authority, AuthorityError, renewal};
use std::sync::Arc;
use std::time::Duration;

/// How long every `caBundle` must have held a CA before it is used. Each API server watches the
/// configuration itself, and sees a change usually within a second.
pub const PROPAGATION_TIME: Duration = Duration::from_secs(5);

/// The most previous CAs that are kept. A repeated
/// [`ROTATE_NOW`](crate::api::annotations::ROTATE_NOW) waits until they are withdrawn.
const MAX_PREVIOUS_CAS: usize = 3;

/// The CAs of the webhook, and the secret segments of its path.
#[derive(Clone, Debug)]
pub struct ServingCas {
    /// The CA that signs new leaves.
    pub current: Arc<Authority>,
    /// The certificates of earlier CAs that are still trusted, in PEM.
    pub previous: Vec<String>,
    /// The segment of the path, once there is one.
    pub segment: Option<Segment>,
    /// Earlier segments, by which the API server may still ask.
    pub previous_segments: Vec<Segment>,
    /// When CAs and segments became the previous ones.
    pub since: Option<Timestamp>,
}

/// The content of the Secret.
#[derive(Debug)]
pub enum StoredServingCa {
    /// There is no Secret.
    Absent,
    /// A CA that signs.
    Usable {
        /// The CA, and those before.
        cas: ServingCas,
        /// Whether another CA is requested.
        rotate_now: bool,
    },
    /// No CA that signs.
    Unusable {
        /// The fault.
        error: AuthorityError,
        /// Whether the operator made the Secret.
        is_ours: bool,
    },
}

/// A change of the Secret.
#[derive(Debug)]
pub struct ServingCaChange {
    /// The reason, for the log.
    pub reason: Reason,
    /// The CA in it.
    pub current: CurrentServingCa<Arc<Authority>>,
    /// The CAs to be trusted beside it.
    pub previous: Vec<String>,
    /// The segment in it.
    pub segment: CurrentServingCa<Segment>,
    /// The segments to be answered beside it.
    pub previous_segments: Vec<Segment>,
    /// When they became the previous ones.
    pub since: Option<Timestamp>,
}

/// The CA, or the segment, that a Secret is to hold.
#[derive(Debug)]
pub enum CurrentServingCa<T> {
    /// The present one.
    Same,
    /// This one.
    Known(T),
    /// A new one.
    New,
}

/// Why the Secret is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no CA, and none is known.
    Begin,
    /// The CA was deleted or damaged.
    Restore,
    /// Another CA is due, or was requested.
    Rotate,
    /// The CA that is served from is missing, most likely as somebody put another one there.
    Overlap,
    /// The Secret has no segment for the path.
    Path,
    /// The time since when the previous ones are that is missing.
    Date,
    /// No leaf of the previous ones is valid any more.
    Withdraw,
}

impl Reason {
    /// The log message.
    pub fn message(self) -> &'static str {
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

/// The leaf that is served.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// The CA of the leaf.
    pub issuer: &'a Arc<Authority>,
    /// When it is renewed.
    pub renew_at: Timestamp,
    /// Whether any webhook configuration trusts it.
    pub is_trusted: bool,
}

impl ServingCas {
    /// The `caBundle`.
    pub fn bundle(&self) -> String {
        self.certificates().collect()
    }

    /// Whether this CA is one of them.
    pub fn hold(&self, authority: &Authority) -> bool {
        let desired = authority.ca().certificate_pem();
        self.certificates().any(|known| known == desired)
    }

    /// The certificates, the present one first.
    pub fn certificates(&self) -> impl Iterator<Item = &str> {
        let previous = self.previous.iter().map(String::as_str);
        std::iter::once(self.current.ca().certificate_pem()).chain(previous)
    }

    /// The segments by which the API server may ask.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segment.iter().chain(&self.previous_segments)
    }

    /// Whether another CA has to wait until the previous ones are withdrawn.
    pub fn is_full(&self) -> bool {
        self.previous.len() >= MAX_PREVIOUS_CAS
    }

    /// How long the previous ones stay trusted, if there are any and their time is not over.
    pub fn until_withdrawal(&self, overlap: SignedDuration, now: Timestamp) -> Option<Duration> {
        let elapsed = now.duration_since(self.since?);
        Duration::try_from(overlap - elapsed).ok()
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let ca = self.current.ca();
        renewal::at(ca.not_before(), ca.not_after(), None) <= now
    }

    fn has_previous(&self) -> bool {
        !self.previous.is_empty() || !self.previous_segments.is_empty()
    }

    /// A change for this reason that leaves the CAs as they are.
    fn unchanged(&self, reason: Reason, known: Option<&Self>, now: Timestamp) -> ServingCaChange {
        ServingCaChange {
            reason,
            current: CurrentServingCa::Same,
            previous: self.previous.clone(),
            segment: self.missing_segment(known),
            previous_segments: self.previous_segments.clone(),
            since: Some(now),
        }
    }

    /// The segment that the Secret should hold, if it holds another or none.
    fn missing_segment(&self, known: Option<&Self>) -> CurrentServingCa<Segment> {
        if self.segment.is_some() {
            return CurrentServingCa::Same;
        }
        let known = known.and_then(|known| known.segment.clone());
        known.map_or(CurrentServingCa::New, CurrentServingCa::Known)
    }

    /// The present segment, and the newest of those before.
    fn previous_segments_with(&self, present: Option<&Segment>) -> Vec<Segment> {
        let older = self.previous_segments.iter();
        let older = older.filter(|older| Some(*older) != present);
        let all = present.into_iter().chain(older);
        all.take(MAX_PREVIOUS_CAS).cloned().collect()
    }

    /// One more CA, and the newest of those before. A replica that serves from another restores it.
    fn previous_with(&self, authority: &Authority) -> Vec<String> {
        let newest = authority.ca().certificate_pem();
        let older = self.previous.iter().filter(|older| *older != newest);
        std::iter::once(newest.to_owned())
            .chain(older.cloned())
            .take(MAX_PREVIOUS_CAS)
            .collect()
    }
}

/// The change of the Secret, if one is needed. `known` is its last usable content, `served` the
/// present leaf; `overlap` is how long previous CAs are trusted.
pub fn change(
    stored: &StoredServingCa,
    known: Option<&ServingCas>,
    served: Option<&Authority>,
    overlap: SignedDuration,
    now: Timestamp,
) -> Option<ServingCaChange> {
    let (cas, rotate_now) = match stored {
        StoredServingCa::Usable { cas, rotate_now } => (cas, *rotate_now),
        // The Secret may belong to another program that uses this name by mistake.
        StoredServingCa::Unusable { is_ours: false, .. } => return None,
        // `now` is trusted. So a CA that is not valid yet was made by a wrong clock.
        StoredServingCa::Absent | StoredServingCa::Unusable { .. } => {
            return Some(remake(known, now));
        }
    };
    let change = |reason| cas.unchanged(reason, known, now);
    let is_over = |since| now.duration_since(since) >= overlap;
    let is_served = served.is_some_and(|served| is(served, &cas.current));
    if let Some(served) = served.filter(|served| !cas.hold(served)) {
        let previous = cas.previous_with(served);
        Some(ServingCaChange {
            previous,
            ..change(Reason::Overlap)
        })
    } else if !cas.is_full() && (rotate_now || cas.is_due(now)) {
        let known = known.and_then(|known| known.segment.as_ref());
        let segment = cas.segment.as_ref().or(known);
        Some(ServingCaChange {
            current: CurrentServingCa::New,
            previous: cas.previous_with(&cas.current),
            segment: CurrentServingCa::New,
            previous_segments: cas.previous_segments_with(segment),
            ..change(Reason::Rotate)
        })
    } else if cas.segment.is_none() {
        let since = cas.since;
        Some(ServingCaChange {
            since,
            ..change(Reason::Path)
        })
    } else if !cas.has_previous() {
        None
    } else if cas.since.is_none() {
        Some(change(Reason::Date))
    } else if is_served && cas.since.is_some_and(is_over) {
        Some(ServingCaChange {
            previous: vec![],
            previous_segments: vec![],
            since: None,
            ..change(Reason::Withdraw)
        })
    } else {
        None
    }
}

/// The CA that was in the Secret, as long as it is valid; else a new one.
fn remake(known: Option<&ServingCas>, now: Timestamp) -> ServingCaChange {
    let is_valid = |known: &&ServingCas| {
        let ca = known.current.ca();
        ca.not_before() <= now && now < ca.not_after()
    };
    let Some(known) = known.filter(is_valid) else {
        return ServingCaChange {
            reason: Reason::Begin,
            current: CurrentServingCa::New,
            previous: vec![],
            segment: CurrentServingCa::New,
            previous_segments: vec![],
            since: None,
        };
    };
    let segment = known.segment.clone();
    ServingCaChange {
        reason: Reason::Restore,
        current: CurrentServingCa::Known(known.current.clone()),
        previous: known.previous.clone(),
        segment: segment.map_or(CurrentServingCa::New, CurrentServingCa::Known),
        previous_segments: known.previous_segments.clone(),
        since: known.since,
    }
}

/// The CA that is to issue a leaf now, if one is. `current` is the CA of the Secret, if known;
/// `carried_for` is how long every webhook configuration has carried it.
pub fn issuer(
    served: Served<'_>,
    current: Option<&Arc<Authority>>,
    carried_for: Option<Duration>,
    now: Timestamp,
) -> Option<Arc<Authority>> {
    // An untrusted leaf is nothing to lose.
    let may_change = carried_for >= Some(PROPAGATION_TIME) || !served.is_trusted;
    let successor = current.filter(|current| may_change && !is(current, served.issuer));
    let is_due = served.renew_at <= now;
    successor.or(is_due.then_some(served.issuer)).cloned()
}

/// Whether API servers may lack the served CA but know one before it: other replicas serve better.
pub fn is_early(served: &Authority, cas: &ServingCas, carried_for: Option<Duration>) -> bool {
    let is_propagated = carried_for >= Some(PROPAGATION_TIME);
    is(served, &cas.current) && !cas.previous.is_empty() && !is_propagated
}

fn is(one: &Authority, other: &Authority) -> bool {
    one.ca().fingerprint() == other.ca().fingerprint()
}

#[cfg(test)]
mod tests;
