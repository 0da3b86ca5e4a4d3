//! Events on the Pki, and on the pods that use its Secret, so that `kubectl describe pod` shows the
//! reason to people who have no other access.
//!
//! The functions `about_*` decide, without I/O. The [`Publisher`] sends: a fault that lasts is one
//! Event with a count, also across restarts and replicas. `queue`, `refusal_budget` and `history`
//! limit the number of Events.

use crate::api::annotations::{RENEWAL_EVENTS, flag};
use crate::api::{Delivery, FormerSecret, Pki, PkiStatus, READY, SIGNER};
use crate::k8s::clock::ClockFault;
use crate::k8s::object_key::Key;
use crate::model::ca::Alarm;
use crate::model::outcome::{self, Outcome};
use crate::model::renewal_request;
use crate::model::rollout::{Phase, RolloutReport};
use crate::store::cached_pod::SecretUser;
use crate::util::text;
use expiry::Stage;
use jiff::{SignedDuration, Timestamp};
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

/// Result of the reconcile of a Pki, as far as its Events need it.
#[derive(Clone, Copy, Debug)]
pub struct Reconciled<'a> {
    /// The Pki, with the status that it had.
    pub pki: &'a Pki,
    /// How the reconcile ended.
    pub outcome: &'a Outcome,
    /// The status that goes with it.
    pub status: &'a PkiStatus,
    /// The time of the reconcile.
    pub now: Timestamp,
    /// Whether this installation publishes Events about renewals.
    pub has_renewal_events: bool,
}

/// The Events after a reconcile, on the pods that use the Secret and on the Pki itself. The end of
/// a fault is published where the fault was; success without a fault before only as a renewal.
pub fn about(reconciled: &Reconciled<'_>, users: &[Arc<SecretUser>]) -> Vec<Notice> {
    let Some(template) = reconciled.state().or_else(|| reconciled.renewal()) else {
        return Vec::new();
    };
    let subject = reference(reconciled.pki);
    let mut notices = template.for_users(reconciled.pki.secret_name(), users, &subject);
    notices.push(template.on(subject, None));
    notices
}

impl Reconciled<'_> {
    fn state(&self) -> Option<EventTemplate> {
        let Self { pki, outcome, .. } = self;
        let was_fault = pki
            .condition(READY)
            .is_some_and(outcome::is_published_fault);
        let kind = match outcome {
            fault if fault.is_fault() => EventKind::Warning,
            ready if ready.is_ready() && was_fault => EventKind::Normal,
            _ => return None,
        };
        let mut conditions = self.status.conditions.iter();
        let ready = conditions.find(|known| known.type_ == READY);
        let (mut reason, mut message) = (outcome.reason(), outcome.message(pki, NOTE_BYTES));
        if let Some(stage) = Stage::of(outcome, self.status, self.now) {
            reason = stage.reason();
            let beginning = stage.beginning(pki, self.status);
            message = text::fit(&beginning, &message, "", NOTE_BYTES);
        }
        Some(EventTemplate {
            since: ready.map_or(Timestamp::UNIX_EPOCH, |ready| ready.last_transition_time.0),
            ..EventTemplate::new(Aspect::State, kind, reason, message)
        })
    }

    fn renewal(&self) -> Option<EventTemplate> {
        let (pki, before) = (self.pki, self.pki.status.as_ref()?);
        let is_wanted =
            self.has_renewal_events && flag(pki.annotations(), RENEWAL_EVENTS) != Some(false);
        let is_renewed = before.serial_number.is_some()
            && before.serial_number != self.status.serial_number
            && before.secret_name == self.status.secret_name;
        if !(is_wanted && is_renewed && self.outcome.is_ready()) {
            return None;
        }
        let message = format!(
            "Secret {} of Pki {} holds a renewed certificate, valid until {}",
            text::printable(pki.secret_name()),
            pki.display_name(),
            self.status.not_after.as_ref()?.0
        );
        Some(EventTemplate {
            topic: self.status.serial_number.clone(),
            since: self.now,
            ..EventTemplate::new(Aspect::Renewal, EventKind::Normal, "PkiRenewed", message)
        })
    }
}

/// Event on a Pki about a requested renewal that is not served now: why not, and when.
pub fn about_request(pki: &Pki, now: Timestamp) -> Option<Notice> {
    let message = renewal_request::message(pki, now)?;
    let (aspect, kind) = (Aspect::Request, EventKind::Normal);
    let template = EventTemplate::new(aspect, kind, "PkiRenewalNotDue", message);
    Some(template.on(reference(pki), None))
}

/// The Event on a Pki that has adopted its Secret again.
pub fn about_adoption(pki: &Pki, now: Timestamp) -> Notice {
    let message = format!(
        "Secret {} had no owner, as after a restore, and belongs to Pki {} again: its certificate was issued by this CA for \
         exactly these names",
        text::printable(pki.secret_name()),
        pki.display_name()
    );
    let (aspect, kind) = (Aspect::TakeUp, EventKind::Normal);
    let template = EventTemplate {
        since: now,
        ..EventTemplate::new(aspect, kind, "PkiSecretTakenUp", message)
    };
    template.on(reference(pki), None)
}

/// Events on pods that use, or wait for, a Secret which the Pki wrote before.
pub fn about_former(
    pki: &Pki,
    former: &FormerSecret,
    pods: &[Arc<SecretUser>],
    is_there: bool,
) -> Vec<Notice> {
    let [name, current] = [former.name.as_str(), pki.secret_name()].map(text::printable);
    let since = former.replaced_time.as_ref();
    let since = since.map_or_else(String::new, |time| format!(", since {}", time.0));
    let (change, remedy, way_back) = match pki.delivery() {
        Delivery::Secret => (
            format!("now writes Secret {current} instead of {name}"),
            format!("write {current} in the pod"),
            format!("secretName: {name}"),
        ),
        Delivery::Pod => (
            format!("now has delivery: Pod and writes Secret {name} no more"),
            format!("mount a podCertificate of the signer {SIGNER} in the pod"),
            "delivery: Secret".to_owned(),
        ),
    };
    let beginning = format!("Pki {} {change}{since}", pki.display_name());
    let message = if is_there {
        let end = former.not_after.as_ref();
        let end = end.map_or_else(String::new, |end| format!(" at {}", end.0));
        format!(
            "{beginning}: {remedy}; Secret {name} is not renewed, and is removed when its certificate ends{end}"
        )
    } else {
        format!(
            "{beginning}; there is no Secret {name}: {remedy}, or {way_back} in the spec of the Pki"
        )
    };
    EventTemplate::warning(Aspect::Former, "PkiSecretRenamed", message).for_users(
        &former.name,
        pods,
        &reference(pki),
    )
}

/// The Event on a stored object that cannot be read as a Pki any more.
pub fn about_unreadable(key: &Key, invalid: &InvalidObject) -> Notice {
    let message = format!(
        "The Pki cannot be read: compare its spec with what `kubectl explain pki.spec` prints, and apply it again ({})",
        text::printable(&invalid.error)
    );
    let regarding = reference_to_pki(key, invalid.metadata.uid.clone());
    EventTemplate::warning(Aspect::State, "PkiUnreadable", message).on(regarding, None)
}

/// The Event on a CA that cannot sign, or whose successor cannot be used.
pub fn about_ca(secret: &Key, alarm: &Alarm) -> Notice {
    let message = text::line(&alarm.to_string());
    on_ca(secret, Aspect::State, "CaUnavailable", message)
}

/// Event on the CA about a rotation that starts. `ends_within` is the bound of a forced one.
pub fn about_rotation_start(
    secret: &Key,
    next: &str,
    ends_within: Option<SignedDuration>,
    now: Timestamp,
) -> Notice {
    let message = match ends_within {
        None => format!(
            "a rotation of the CA has started: CA {next} signs next, and the present CA stays trusted while its certificates are in use"
        ),
        Some(bound) => format!(
            "a forced rotation of the CA has started: CA {next} signs next, and within {bound:#} all CAs before it are withdrawn"
        ),
    };
    let (aspect, kind) = (Aspect::RotationStart, EventKind::Normal);
    let template = EventTemplate {
        since: now,
        ..EventTemplate::new(aspect, kind, "CaRotationStarted", message)
    };
    template.on(secret.reference("v1", "Secret", None), None)
}

/// Event on the CA about the objects that a rotation cannot reach.
pub fn about_rotation(secret: &Key, report: &RolloutReport) -> Notice {
    let (since, count) = (report.since, report.blocked);
    let objects = match count {
        1 => "1 object".to_owned(),
        _ => format!("{count} objects"),
    };
    let in_spite = report.until.map_or_else(String::new, |until| {
        format!(", until {until} at the latest")
    });
    let beginning = match report.phase {
        Phase::Publishing => {
            format!("publishing the next CA began at {since} and waits for {objects}{in_spite}: ")
        }
        Phase::Replacing => format!(
            "replacing the certificates of the previous CA began at {since} and waits for {objects}{in_spite}: "
        ),
        Phase::Retained => format!(
            "the CA that was replaced at {since} stays trusted, because {count} of its certificates cannot be replaced: "
        ),
        Phase::Withdrawn => format!(
            "certificates of a CA that was withdrawn by force are still in use, and no client trusts them ({count}): "
        ),
    };
    let names: Vec<_> = report.blockers.iter().map(ToString::to_string).collect();
    let unnamed = match count.saturating_sub(names.len()) {
        0 => String::new(),
        more => format!("; {more} are not named"),
    };
    let advice = unnamed + "; `kubectl pki status` says what to do for each";
    let message = text::list(&beginning, &names, NOTE_BYTES - advice.len()) + &advice;
    on_ca(secret, Aspect::Rotation, "CaRotationBlocked", message)
}

/// Event on the CA about a request for another one that has to wait.
pub fn about_rotation_request(secret: &Key, obstacle: &str) -> Notice {
    let message = format!("the requested rotation of the CA has to wait: {obstacle}");
    on_ca(secret, Aspect::RotationRequest, "CaRotationWaits", message)
}

fn on_ca(secret: &Key, aspect: Aspect, reason: &str, message: String) -> Notice {
    let regarding = secret.reference("v1", "Secret", None);
    EventTemplate::warning(aspect, reason, message).on(regarding, None)
}

/// The Event on the Lease of the leader election about a replica whose clock is not trusted.
pub fn about_clock(lease: &Key, replica: &str, fault: &ClockFault) -> Notice {
    let replica = text::printable(replica);
    let related = ObjectReference {
        name: Some(replica.clone()),
        ..ObjectReference::default()
    };
    let message = format!("Replica {replica} neither leads nor issues certificates: {fault}");
    let message = text::line(&message);
    let template = EventTemplate {
        // A clock that drifts is one fault, however large the difference is by now.
        topic: Some(replica),
        ..EventTemplate::warning(Aspect::State, "ClockSkewed", message)
    };
    // Each replica has a clock of its own, and an Event.
    let regarding = lease.reference("coordination.k8s.io/v1", "Lease", None);
    template.on(regarding, Some(&related))
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
