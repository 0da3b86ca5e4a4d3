//! The Event on a workload about its restart.

use super::Cause;
use super::workload::Workload;
use crate::events::{Aspect, EventKind, EventTemplate, Notice, reference_to_pki};
use crate::k8s::object_key::Key;
use crate::util::text;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

/// How a restart ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Restarted,
    /// Its owner has paused it.
    Paused,
    /// The API server refused, with this message.
    Refused(String),
}

pub(super) fn about_restart(
    workload: &Workload,
    uid: &str,
    cause: &Cause,
    ending: &Ending,
    now: Timestamp,
) -> Notice {
    let [secret, pki] = [&*cause.secret.name, &*cause.pki].map(text::printable);
    let renewed = format!("Secret {secret} was renewed (Pki {pki})");
    // A restart is published each time, a fault anew with each certificate.
    let (kind, since, reason, message) = match ending {
        Ending::Restarted => (
            EventKind::Normal,
            now,
            "PkiRestarted",
            format!("Restarted, because {renewed} and its pods used the previous certificate"),
        ),
        Ending::Paused => (
            EventKind::Warning,
            cause.issued,
            "PkiRestartPaused",
            format!(
                "Not restarted after {renewed}, because it is paused: its pods keep the previous certificate until \
                 `kubectl rollout resume {}/{}`",
                workload.kind.as_str().to_lowercase(),
                text::printable(&workload.key.name)
            ),
        ),
        Ending::Refused(message) => (
            EventKind::Warning,
            cause.issued,
            "PkiRestartFailed",
            format!(
                "Cannot be restarted after {renewed}; the operator tries again: {}",
                text::line(message)
            ),
        ),
    };
    let template = EventTemplate {
        since,
        ..EventTemplate::new(Aspect::Restart, kind, reason, message)
    };
    template.on(reference(workload, uid), Some(&pki_reference(cause)))
}

fn reference(workload: &Workload, uid: &str) -> ObjectReference {
    let resource = workload.kind.resource();
    let uid = Some(uid.to_owned());
    workload
        .key
        .reference(resource.api_version, resource.kind, uid)
}

fn pki_reference(cause: &Cause) -> ObjectReference {
    let pki = Key::new(cause.secret.namespace.clone(), &*cause.pki);
    reference_to_pki(&pki, cause.pki_uid.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::restart::workload::Kind as WorkloadKind;

    #[test]
    fn the_owners_of_a_workload_read_what_happened_and_why() {
        let (issued, now) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(9).unwrap());
        let workload = Workload {
            kind: WorkloadKind::Deployment,
            key: Key::new("ns", "web"),
        };
        let cause = Cause {
            secret: Key::new("ns", "web-tls"),
            pki: "web-pki".into(),
            pki_uid: Some("p".into()),
            serial: "AB".into(),
            issued,
        };
        for (ending, kind, reason, note, since) in [
            (
                Ending::Restarted,
                EventKind::Normal,
                "PkiRestarted",
                "Restarted, because Secret web-tls was renewed (Pki web-pki) and its pods used the previous certificate",
                now,
            ),
            (
                Ending::Paused,
                EventKind::Warning,
                "PkiRestartPaused",
                "Not restarted after Secret web-tls was renewed (Pki web-pki), because it is paused: its pods keep the previous certificate \
                 until `kubectl rollout resume deployment/web`",
                issued,
            ),
            (
                Ending::Refused("no\nway\u{202e}".into()),
                EventKind::Warning,
                "PkiRestartFailed",
                "Cannot be restarted after Secret web-tls was renewed (Pki web-pki); the operator tries again: no\\nway\\u{202e}",
                issued,
            ),
        ] {
            let notice = about_restart(&workload, "w", &cause, &ending, now);
            assert_eq!(
                (notice.kind, &*notice.reason, &*notice.note, notice.since),
                (kind, reason, note, since)
            );
            let related = notice.related.unwrap();
            for (reference, version, kind, name, uid) in [
                (notice.regarding, "apps/v1", "Deployment", "web", "w"),
                (related, "box.com/v1", "Pki", "web-pki", "p"),
            ] {
                assert_eq!(reference.api_version.as_deref(), Some(version));
                assert_eq!(reference.kind.as_deref(), Some(kind));
                assert_eq!(reference.namespace.as_deref(), Some("ns"));
                assert_eq!(reference.name.as_deref(), Some(name));
                assert_eq!(reference.uid.as_deref(), Some(uid));
            }
        }
    }
}
