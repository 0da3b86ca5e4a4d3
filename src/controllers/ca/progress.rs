//! How far the certificates in use have come in a rotation of the CA, and who keeps it waiting: on
//! plain data.

use super::rotation::RotationTimes;
use crate::api::{Pki, PkiStatus, READY};
use crate::model::ca_state::{CaState, Retired};
use crate::model::rollout::{
    BEHIND, BUNDLE, Blocker, CONFLICT, CONTESTED, FAILED, FOREIGN, NAMESPACE, Phase, REFUSED,
    RolloutProgress, RolloutReport, UNSIGNED,
};
use crate::util::text;
use crate::util::time::whole_second;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

/// The length of the message of one blocker, in bytes.
const MESSAGE_BYTES: usize = 400;

/// Counts the certificates in use, one by one.
#[derive(Debug)]
pub struct RolloutCounter<'a> {
    progress: RolloutProgress,
    state: &'a CaState,
    trust: String,
    /// Whether a phase is overdue: even a ready Pki that it waits for counts as a blocker then.
    is_publishing_overdue: bool,
    is_replacing_overdue: bool,
    now: Timestamp,
}

impl<'a> RolloutCounter<'a> {
    /// A counter that has counted nobody.
    pub fn new(state: &'a CaState, times: &RotationTimes, now: Timestamp) -> Self {
        let grace = |is_forced| times.wait_for(is_forced).min(times.step);
        let next = state.next.as_ref();
        let publishing = next.and_then(|next| Some((next.since?, grace(next.is_forced))));
        let replacing = state.trusted().next().map(|retired| {
            let is_forced = retired.forced.is_some();
            let window = times.window(is_forced);
            (retired.forced.unwrap_or(retired.since), window + window / 4)
        });
        let is_over = |phase: Option<(Timestamp, SignedDuration)>| {
            phase.is_some_and(|(since, longest)| now.duration_since(since) >= longest)
        };
        let mut progress = RolloutProgress::default();
        // No object shows them one by one.
        let has_pods = |retired: &&Retired| retired.pod_leaves_until.is_some_and(|end| now <= end);
        for retired in state.trusted().filter(has_pods) {
            progress.in_use.insert(retired.ca.fingerprint().to_owned());
            progress.of_retired += 1;
        }
        Self {
            progress,
            state,
            trust: state.trust().fingerprint().to_owned(),
            is_publishing_overdue: is_over(publishing),
            is_replacing_overdue: is_over(replacing),
            now,
        }
    }

    /// Counts the certificate of this Pki, if one is in use. A Pki that is being deleted keeps
    /// nothing waiting.
    pub fn count(&mut self, pki: &Pki) {
        let Some(status) = pki.status.as_ref() else {
            return;
        };
        let has_ended = status.not_after.as_ref().is_none_or(|end| end.0 < self.now);
        if has_ended || pki.metadata.deletion_timestamp.is_some() {
            return;
        }
        let is_unpublished = status.trust_fingerprint.as_deref() != Some(self.trust.as_str());
        self.progress.unpublished += usize::from(is_unpublished);
        let is_of_other = self.count_issuer(status);
        let is_waited_for = is_unpublished && self.state.next.is_some();
        if !is_waited_for && !is_of_other {
            return;
        }
        let is_overdue =
            is_waited_for && self.is_publishing_overdue || is_of_other && self.is_replacing_overdue;
        if let Some((reason, blocker)) = blocker(pki, is_overdue) {
            self.progress.blockers.add(reason, blocker);
        }
    }

    /// Whether another CA signed it than the one that does now and the next one.
    fn count_issuer(&mut self, status: &PkiStatus) -> bool {
        let Some(issuer) = status.issuer_fingerprint.as_deref() else {
            return false;
        };
        let of = |retired: &Retired| retired.ca.fingerprint() == issuer;
        if !self.progress.in_use.contains(issuer) {
            self.progress.in_use.insert(issuer.to_owned());
        }
        self.progress.of_retired += usize::from(self.state.trusted().any(of));
        self.state.retired.iter().any(of)
    }

    /// Counts namespaces that cannot be read.
    pub fn count_unread(&mut self, namespaces: impl IntoIterator<Item = String>) {
        for namespace in namespaces {
            self.progress.unpublished += 1;
            let message = "its Pkis cannot be read: give the operator its RoleBinding there again, or remove the namespace from \
                           the chart's value namespaces";
            let blocker = Blocker::new(namespace, String::new(), "NamespaceUnread", message);
            self.progress.blockers.add(NAMESPACE, blocker);
        }
    }

    /// Counts the copies of the CA bundle that have not been written, each by its namespace and
    /// name; `is_waited_for` if a rotation waits for them.
    pub fn count_copies(
        &mut self,
        copies: impl IntoIterator<Item = (String, String)>,
        is_waited_for: bool,
    ) {
        self.progress.unpublished += usize::from(is_waited_for);
        if self.state.next.is_none() || !self.is_publishing_overdue {
            return;
        }
        for (namespace, name) in copies {
            let message = "the CA bundle there cannot be written: delete this ConfigMap, remove what blocks it (immutable, a finalizer, \
                           a quota), or remove the label box.com/trust-bundle from the namespace";
            let blocker = Blocker::new(namespace, name, "BundleNotWritten", message);
            self.progress.blockers.add(BUNDLE, blocker);
        }
    }

    /// Returns the counts.
    pub fn end(self) -> RolloutProgress {
        self.progress
    }
}

/// Why this Pki keeps a rotation waiting; `None` if it is only not its turn yet.
fn blocker(pki: &Pki, is_overdue: bool) -> Option<(&'static str, Blocker)> {
    let ready = pki.condition(READY)?;
    let (label, reason, message) = match (ready.status.as_str(), ready.reason.as_str()) {
        // A keystore without its password keeps nothing waiting: certificate and `ca.crt` are
        // written.
        ("True", _) | (_, "PkiKeystoreNotWritten") if !is_overdue => return None,
        ("True", _) | (_, "PkiKeystoreNotWritten") => (
            BEHIND,
            "Behind",
            "its Secret has not been written yet: see the log of the operator",
        ),
        (_, reason) => (label(reason), reason, ready.message.as_str()),
    };
    let former = pki.status.as_ref()?.secret_name.as_deref();
    let former = former.filter(|former| *former != pki.secret_name());
    let former = former.map(|former| format!(" (Secret {} is in use)", text::printable(former)));
    let (line, former) = (text::line(message), former.unwrap_or_default());
    let message = text::fit("", &line, &former, MESSAGE_BYTES);
    let namespace = pki.namespace().unwrap_or_default();
    Some((
        label,
        Blocker::new(namespace, pki.name_any(), reason, message),
    ))
}

/// The label in metrics of a reason of the condition `Ready`.
fn label(reason: &str) -> &'static str {
    match reason {
        "PkiSecretForeign" => FOREIGN,
        "PkiSecretConflict" => CONFLICT,
        "PkiSecretContested" => CONTESTED,
        "PkiIssuanceFailed" => FAILED,
        "PkiCaUnavailable" => UNSIGNED,
        _ => REFUSED,
    }
}

/// Summarizes a rotation for people. `None` while none is under way and every certificate is of the
/// CA that signs.
pub fn report(
    state: &CaState,
    progress: &RolloutProgress,
    times: &RotationTimes,
    now: Timestamp,
) -> Option<RolloutReport> {
    let report = |phase, since, until: Option<Timestamp>, forced| {
        Some(RolloutReport {
            phase,
            since: whole_second(since),
            until: until.map(whole_second),
            forced,
            blocked: progress.blockers.total(),
            blockers: progress.blockers.named.clone(),
        })
    };
    let later = |since: Timestamp, wait| since.saturating_add(wait).unwrap_or(since);
    if let Some(next) = &state.next {
        let since = next.since.unwrap_or(now);
        let until = later(since, times.wait_for(next.is_forced));
        return report(Phase::Publishing, since, Some(until), next.is_forced);
    }
    let Some(newest) = state.trusted().next() else {
        let withdrawn = state.retired.iter().find(|it| it.forced.is_some())?;
        let since = withdrawn.unused.unwrap_or(withdrawn.since);
        let report = report(Phase::Withdrawn, since, None, true);
        return report.filter(|report| report.blocked > 0);
    };
    let (since, is_forced) = (
        newest.forced.unwrap_or(newest.since),
        newest.forced.is_some(),
    );
    let until = later(since, times.wait_for(is_forced));
    if until <= now && !is_forced {
        return report(Phase::Retained, since, None, false);
    }
    report(Phase::Replacing, since, Some(until), is_forced)
}
