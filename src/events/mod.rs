//! What is said, to whom: Events on the Pki, and on the pods that use its Secret, so that `kubectl
//! describe pod` tells the reason to people who have no other access.
//!
//! [`about`] decides, without I/O; the [`Publisher`] sends, and sees to it that a fault which lasts
//! is one Event with a count, also across restarts and replicas. `queue`, `budget` and `history`
//! keep it from saying too much.

use crate::api::annotations::{RENEWAL_EVENTS, flag};
use crate::api::{FormerSecret, Pki, PkiStatus, READY};
use crate::k8s::clock::ClockFault;
use crate::k8s::object_key::Key;
use crate::model::ca::Alarm;
use crate::model::outcome::{self, Outcome};
use crate::model::renewal_request;
use crate::model::rollout::{Phase, RolloutReport};
use crate::store::cached_pod::SecretUser;
use crate::util::text;
use expiry::Stage;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::error_boundary::InvalidObject;
use kube::{Resource, ResourceExt};
use std::sync::Arc;

pub(crate) use notice::NOTE_BYTES;
pub use notice::{Aspect, EventKind, Notice};
pub use publisher::Publisher;
pub(crate) use template::EventTemplate;

pub(crate) mod expiry;
mod history;
mod notice;
mod publisher;
mod queue;
mod refusal_budget;
mod template;

/// A reconcile of a Pki, as far as it matters to what is said.
#[derive(Clone, Copy, Debug)]
pub struct Reconciled<'a> {
    /// The Pki, with the status that it had.
    pub pki: &'a Pki,
    /// How the reconcile ended.
    pub outcome: &'a Outcome,
    /// The status that goes with it.
    pub status: &'a PkiStatus,
    /// When it was.
    pub now: Timestamp,
    /// Whether this installation tells of renewals.
    pub has_renewal_events: bool,
}

/// What to say after a reconcile of a Pki, to the pods that use its Secret and to the readers of
/// the Pki itself. A fault is told to all of them; that it is mended is told to those who were told
/// of the fault; else it goes without saying, but for a renewal.
pub fn about(reconciled: &Reconciled<'_>, users: &[Arc<SecretUser>]) -> Vec<Notice> {
    let Some(template) = reconciled.state().or_else(|| reconciled.renewal()) else {
        return Vec::new();
    };
    let subject = reference(reconciled.pki);
    let mut notices = template.for_users(reconciled.pki.secret_name(), users, &subject);
    notices.push(template.to(subject, None));
    notices
}

impl Reconciled<'_> {
    fn state(&self) -> Option<EventTemplate> {
        let Self { pki, outcome, .. } = self;
        let is_mended = is_ready(outcome)
            && pki
                .condition(READY)
                .is_some_and(outcome::is_published_fault);
        let kind = match outcome {
            fault if fault.is_fault() => EventKind::Warning,
            _ if is_mended => EventKind::Normal,
            _ => return None,
        };
        let conditions = &self.status.conditions;
        let ready = conditions.iter().find(|known| known.type_ == READY);
        let since = ready.map_or(Timestamp::UNIX_EPOCH, |ready| ready.last_transition_time.0);
        let (mut reason, mut message) = (outcome.reason(), outcome.message(pki, NOTE_BYTES));
        // The same fault, and what comes of it.
        if let Some(stage) = Stage::of(outcome, self.status, self.now) {
            reason = stage.reason();
            let beginning = stage.beginning(pki, self.status);
            message = text::fit(&beginning, &message, "", NOTE_BYTES);
        }
        Some(EventTemplate {
            aspect: Aspect::State,
            kind,
            reason: reason.to_owned(),
            message,
            topic: None,
            since,
        })
    }

    fn renewal(&self) -> Option<EventTemplate> {
        let (pki, before) = (self.pki, self.pki.status.as_ref()?);
        let is_told = flag(pki.annotations(), RENEWAL_EVENTS);
        let is_wanted = self.has_renewal_events && is_told != Some(false);
        let is_renewed = before.serial_number.is_some()
            && before.serial_number != self.status.serial_number
            && before.secret_name == self.status.secret_name;
        if !(is_wanted && is_renewed && is_ready(self.outcome)) {
            return None;
        }
        let end = self.status.not_after.as_ref()?.0;
        Some(EventTemplate {
            aspect: Aspect::Renewal,
            kind: EventKind::Normal,
            reason: "PkiRenewed".to_owned(),
            message: format!(
                "Secret {} of Pki {} holds a renewed certificate, valid until {end}",
                text::printable(pki.secret_name()),
                pki.display_name()
            ),
            topic: self.status.serial_number.clone(),
            since: self.now,
        })
    }
}

fn is_ready(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Ready(_))
}

/// The Event on a Pki that asks for a renewal which is not served now: why not, and when.
pub fn about_request(pki: &Pki, now: Timestamp) -> Option<Notice> {
    let template = EventTemplate {
        aspect: Aspect::Request,
        kind: EventKind::Normal,
        reason: "PkiRenewalNotDue".to_owned(),
        message: renewal_request::message(pki, now)?,
        topic: None,
        since: Timestamp::UNIX_EPOCH,
    };
    Some(template.to(reference(pki), None))
}

/// The Event on a Pki that has taken its Secret up again.
pub fn about_adoption(pki: &Pki, now: Timestamp) -> Notice {
    let template = EventTemplate {
        aspect: Aspect::TakeUp,
        kind: EventKind::Normal,
        reason: "PkiSecretTakenUp".to_owned(),
        message: format!(
            "Secret {} had no owner, as after a restore, and belongs to Pki {} again: its certificate was issued by this CA for \
             exactly these names",
            text::printable(pki.secret_name()),
            pki.display_name()
        ),
        topic: None,
        since: now,
    };
    template.to(reference(pki), None)
}

/// The Events on pods that use a Secret which the Pki wrote before, or that wait for it where it is
/// not there.
pub fn about_former(
    pki: &Pki,
    former: &FormerSecret,
    pods: &[Arc<SecretUser>],
    is_there: bool,
) -> Vec<Notice> {
    let [name, current] = [former.name.as_str(), pki.secret_name()].map(text::printable);
    let since = former.replaced_time.as_ref();
    let since = since.map_or_else(String::new, |time| format!(", since {}", time.0));
    let beginning = format!(
        "Pki {} now writes Secret {current} instead of {name}{since}",
        pki.display_name()
    );
    let message = if is_there {
        let end = former.not_after.as_ref();
        let end = end.map_or_else(String::new, |end| format!(" at {}", end.0));
        format!(
            "{beginning}: write {current} in the pod; Secret {name} is not renewed, and is removed when its certificate ends{end}"
        )
    } else {
        format!(
            "{beginning}; there is no Secret {name}: write {current} in the pod, or secretName: {name} in the spec of the Pki"
        )
    };
    let template = EventTemplate {
        aspect: Aspect::Former,
        kind: EventKind::Warning,
        reason: "PkiSecretRenamed".to_owned(),
        message,
        topic: None,
        since: Timestamp::UNIX_EPOCH,
    };
    template.for_users(&former.name, pods, &reference(pki))
}

/// What to say of a stored object that is no Pki any more.
pub fn about_unreadable(key: &Key, invalid: &InvalidObject) -> Notice {
    let regarding = reference_to_pki(key, invalid.metadata.uid.clone());
    let advice = "The Pki cannot be read: compare its spec with what `kubectl explain pki.spec` prints, and apply it again";
    Notice {
        regarding,
        related: None,
        aspect: Aspect::State,
        kind: EventKind::Warning,
        reason: "PkiUnreadable".into(),
        note: text::cut(
            &format!("{advice} ({})", text::printable(&invalid.error)),
            NOTE_BYTES,
        ),
        topic: None,
        since: Timestamp::UNIX_EPOCH,
    }
}

/// What to say of a CA that cannot sign, or whose successor cannot be used.
pub fn about_ca(secret: &Key, alarm: &Alarm) -> Notice {
    let note = text::cut(&text::line(&alarm.to_string()), NOTE_BYTES);
    on_ca(secret, Aspect::State, "CaUnavailable", note)
}

/// Event on the CA about the objects that a rotation cannot reach.
pub fn about_rotation(secret: &Key, report: &RolloutReport) -> Notice {
    let count = report.blocked;
    let RolloutReport { since, .. } = report;
    let in_spite = report.until.map_or_else(String::new, |until| {
        format!(", and goes on in spite of them at {until}")
    });
    let beginning = match report.phase {
        Phase::Publishing => format!(
            "the next CA is being made known since {since}, which {count} keep waiting{in_spite}: "
        ),
        Phase::Replacing => format!(
            "the certificates of the CA before are being replaced since {since}, which {count} keep waiting{in_spite}: "
        ),
        Phase::Retained => format!(
            "the CA that was replaced at {since} stays trusted, as {count} certificates of it cannot be replaced: "
        ),
        Phase::Withdrawn => format!(
            "{count} certificates are left of a CA that was withdrawn by force, and nobody trusts them: "
        ),
    };
    let names: Vec<_> = report.blockers.iter().map(ToString::to_string).collect();
    let more = count - names.len().min(count);
    let advice = match more {
        0 => "; `kubectl pki status` says what to do for each".to_owned(),
        more => {
            format!("; {more} are not named; `kubectl pki status` says what to do for each")
        }
    };
    let note = text::list(&beginning, &names, NOTE_BYTES - advice.len()) + &advice;
    on_ca(secret, Aspect::Rotation, "CaRotationBlocked", note)
}

/// Event on the CA about a request for another one that has to wait.
pub fn about_rotation_request(secret: &Key, obstacle: &str) -> Notice {
    let note = text::cut(&format!("another CA was asked for: {obstacle}"), NOTE_BYTES);
    on_ca(secret, Aspect::RotationRequest, "CaRotationWaits", note)
}

fn on_ca(secret: &Key, aspect: Aspect, reason: &str, note: String) -> Notice {
    Notice {
        regarding: secret.reference("v1", "Secret", None),
        related: None,
        aspect,
        kind: EventKind::Warning,
        reason: reason.into(),
        note,
        topic: None,
        since: Timestamp::UNIX_EPOCH,
    }
}

/// The Event on the Lease of the leader election about a replica whose clock is not trusted.
pub fn about_clock(lease: &Key, replica: &str, fault: &ClockFault) -> Notice {
    let replica = text::printable(replica);
    let related = ObjectReference {
        name: Some(replica.clone()),
        ..ObjectReference::default()
    };
    let note = format!("Replica {replica} neither leads nor issues certificates: {fault}");
    Notice {
        regarding: lease.reference("coordination.k8s.io/v1", "Lease", None),
        // Each replica has a clock of its own, and a line.
        related: Some(related),
        aspect: Aspect::State,
        kind: EventKind::Warning,
        reason: "ClockSkewed".into(),
        note: text::cut(&text::line(&note), NOTE_BYTES),
        // A clock that drifts is one fault, whatever it has come to.
        topic: Some(replica),
        since: Timestamp::UNIX_EPOCH,
    }
}

fn reference(pki: &Pki) -> ObjectReference {
    reference_to_pki(&Key::of(pki), pki.uid())
}

/// A reference to a Pki, without the UID where that is not known or the Pki is not stored.
pub(crate) fn reference_to_pki(pki: &Key, uid: Option<String>) -> ObjectReference {
    pki.reference(Pki::api_version(&()), Pki::kind(&()), uid)
}

#[cfg(test)]
mod tests;
