//! Outcome of the reconcile of a Pki, and the status after it.

use crate::api::conditions::{MAX_CONDITION_MESSAGE_BYTES, MAX_FORMER_SECRETS, transition_time};
use crate::api::{Defaults, Delivery, FormerSecret, Pki, PkiStatus, READY, SIGNER};
use crate::k8s::object_key::Key;
use crate::k8s::secret::Obstacle;
use crate::model::keystore::Unmade;
use crate::model::renewal_request;
use crate::policy::{Violation, violation_summary};
use crate::util::text;
use crate::util::time::whole_second;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use pki_certs::KeyAlgorithm;

/// Outcome of the reconcile of a Pki.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The Secret is as it should be.
    Ready(Certificate),
    /// The certificate is as it should be, and a keystore cannot be written.
    Incomplete {
        /// The certificate.
        certificate: Certificate,
        /// The keystores that are missing, or stay as they were.
        unmade: Vec<Unmade>,
    },
    /// Pods get their certificates by themselves.
    ServesPods {
        /// The policy that permits it.
        policy: String,
        /// The number of pods that use such a certificate.
        pods: i32,
    },
    /// The API server has no pod certificates.
    NoPodCertificates,
    /// The Pki breaks the rule book.
    Refused {
        /// The broken rules.
        violations: Vec<Violation>,
        /// SHA-256 of the CA certificates, which its Secret holds if it has one.
        trust: String,
    },
    /// Another Pki comes first.
    Conflict {
        /// The Pki that comes first.
        winner: Key,
    },
    /// The Secret exists and is not this Pki's.
    Foreign(Obstacle),
    /// The Secret is about to be removed: its Pki is deleted, or writes another one by now.
    Await,
    /// Its private key is yet to be made, and others are made before.
    AwaitKey(KeyAlgorithm),
    /// The CA cannot sign.
    Unsigned(String),
    /// Somebody else keeps changing the Secret, so that it is repaired more slowly.
    Contested {
        /// The manager of the last change, from `managedFields`; `None` if the Secret was deleted.
        by: Option<String>,
        /// When it is repaired next.
        next: Timestamp,
    },
    /// Issuing failed, and is tried again.
    Failed {
        /// The error, as it was returned.
        error: String,
        /// The remedy, if it is known.
        remedy: Option<&'static str>,
        /// How many attempts have failed in a row.
        attempts: i32,
        /// When the next one is made.
        next: Timestamp,
    },
}

/// The certificate in the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Serial number, in hexadecimal.
    pub serial: String,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// Whether it ends with its CA, before the duration that was asked for.
    pub cut_short: bool,
    /// When it is renewed.
    pub renew_at: Timestamp,
    /// SHA-256 of the CA certificate that signed it, in hexadecimal.
    pub issuer: String,
    /// SHA-256 of the CA certificates in `ca.crt`, in hexadecimal.
    pub trust: String,
    /// The source of the values that the spec leaves out.
    pub terms: Box<Terms>,
}

/// Policy and defaults in force for a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The policy that permits it.
    pub policy: String,
    /// The values that the spec leaves out.
    pub defaults: Defaults,
}

impl Outcome {
    /// Certificate in the Secret, if it is as it should be.
    pub fn certificate(&self) -> Option<&Certificate> {
        match self {
            Self::Ready(certificate) | Self::Incomplete { certificate, .. } => Some(certificate),
            _ => None,
        }
    }

    /// Outcome for a Secret with this certificate and without these keystores.
    pub fn of(certificate: Certificate, unmade: Vec<Unmade>) -> Self {
        if unmade.is_empty() {
            Self::Ready(certificate)
        } else {
            Self::Incomplete {
                certificate,
                unmade,
            }
        }
    }

    /// `True` or `False`, as the condition `Ready` has it.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready(_) | Self::ServesPods { .. })
    }

    /// Whether somebody has to act, so that the pods that wait get an Event.
    pub fn is_fault(&self) -> bool {
        let is_waiting = matches!(self, Self::Await | Self::AwaitKey(_));
        !self.is_ready() && !is_waiting
    }

    /// The reason of condition and Event.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Ready(_) | Self::ServesPods { .. } => "PkiReady",
            Self::NoPodCertificates => "PkiPodCertificatesNotServed",
            Self::Refused { violations, .. } => {
                violations.first().map_or("PkiRefused", Violation::reason)
            }
            Self::Conflict { .. } => "PkiSecretConflict",
            Self::Foreign(_) => "PkiSecretForeign",
            Self::Incomplete { .. } => "PkiKeystoreNotWritten",
            Self::Await => AWAITING,
            Self::AwaitKey(_) => AWAITING_KEY,
            Self::Unsigned(_) => "PkiCaUnavailable",
            Self::Contested { .. } => "PkiSecretContested",
            Self::Failed { .. } => "PkiIssuanceFailed",
        }
    }

    /// Message of condition and Event, at most `bytes` long: the problem and its remedy.
    pub fn message(&self, pki: &Pki, bytes: usize) -> String {
        let secret = text::printable(pki.secret_name());
        let subject = format!("Secret {secret} of Pki {}", pki.display_name());
        let message = match self {
            Self::Ready(certificate) if certificate.cut_short => format!(
                "{}, when the CA ends, which is earlier than spec.duration asks for",
                validity(pki, certificate)
            ),
            Self::Ready(certificate) => validity(pki, certificate),
            Self::ServesPods { .. } => format!(
                "pods of Pki {} get certificates for {} from the kubelet: mount a podCertificate of the signer {SIGNER}",
                pki.display_name(),
                text::printable(&pki.spec.service_name)
            ),
            Self::NoPodCertificates => {
                "the API server has no PodCertificateRequest of certificates.k8s.io/v1: write delivery: Secret, or upgrade to Kubernetes 1.37"
                    .to_owned()
            }
            Self::Refused { violations, .. } => {
                let name = pki.metadata.name.as_deref().unwrap_or_default();
                return violation_summary(name, violations, bytes);
            }
            Self::Conflict { winner } => format!(
                "Secret {secret} belongs to Pki {winner}, which claimed it first: choose another spec.secretName for Pki {}",
                pki.display_name()
            ),
            Self::Foreign(obstacle) => return obstacle.message(pki, bytes),
            Self::Incomplete {
                certificate,
                unmade,
            } => {
                let before = validity(pki, certificate) + "; ";
                return text::fit(&before, &keystores(unmade), "", bytes);
            }
            Self::Unsigned(alarm) => {
                let before = subject
                    + " gets no new certificate until the platform team has repaired the CA: ";
                return text::fit(&before, &text::line(alarm), "", bytes);
            }
            Self::Contested { by, .. } => contested(&subject, by.as_deref()),
            Self::Await => format!(
                "Secret {secret} belongs to a Pki that was deleted or now writes another Secret, and will be removed soon"
            ),
            Self::AwaitKey(algorithm) => format!(
                "Secret {secret} is written as soon as there is a new {algorithm} key: such keys take long to make, and namespaces take turns"
            ),
            Self::Failed { error, remedy, .. } => {
                let before = format!("{subject} cannot be written: ");
                let remedy = remedy.map_or_else(String::new, |remedy| format!("; {remedy}"));
                let after = format!("{remedy}; the operator tries again");
                return text::fit(&before, &text::line(error), &after, bytes);
            }
        };
        text::cut(&message, bytes)
    }
}

fn validity(pki: &Pki, certificate: &Certificate) -> String {
    let secret = text::printable(pki.secret_name());
    let name = text::printable(&pki.spec.service_name);
    let end = certificate.not_after;
    format!("Secret {secret} holds a certificate for {name}, valid until {end}")
}

fn contested(subject: &str, by: Option<&str>) -> String {
    let event = by.map_or_else(
        || "is deleted".to_owned(),
        |by| format!("is changed by \"{}\"", text::printable(by)),
    );
    format!(
        "{subject} {event} again and again: stop that, or choose another spec.secretName; the operator repairs it less and less often, next at status.nextAttemptTime"
    )
}

/// The keystores that are not written. Those with the same reason share a clause.
fn keystores(unmade: &[Unmade]) -> String {
    let mut clauses = Vec::new();
    let is_same =
        |one: &Unmade, other: &Unmade| one.is_old == other.is_old && one.error == other.error;
    for some in unmade.chunk_by(is_same) {
        let files: Vec<_> = some.iter().map(|it| it.file).collect();
        let (one, be) = (&some[0], if some.len() > 1 { "are" } else { "is" });
        let state = if one.is_old {
            "not renewed"
        } else {
            "not written"
        };
        clauses.push(format!(
            "{} {be} {state}: {}",
            files.join(" and "),
            one.error
        ));
    }
    text::line(&clauses.join("; "))
}

const AWAITING: &str = "PkiSecretOfFormerPki";
const AWAITING_KEY: &str = "PkiKeyPending";

/// Whether pods got an Event about this condition, and so get another one when it is resolved.
pub fn is_published_fault(ready: &Condition) -> bool {
    ready.status == "False" && ready.reason != AWAITING && ready.reason != AWAITING_KEY
}

/// The status after this outcome. A field that it does not concern keeps its value: a refused edit
/// does not make the certificate that is in use unknown.
pub fn after(pki: &Pki, outcome: &Outcome, now: Timestamp) -> PkiStatus {
    let mut status = pki.status.clone().unwrap_or_default();
    status.observed_generation = pki.metadata.generation;
    (status.failed_attempts, status.next_attempt_time) = (None, None);
    match pki.delivery() {
        Delivery::Secret => {
            status.pod_certificates = None;
            note_secret(&mut status, pki, outcome, now);
        }
        Delivery::Pod => {
            leave_secret(&mut status, now);
            if let Outcome::ServesPods { policy, pods } = outcome {
                status.policy = Some(policy.clone());
                status.pod_certificates = Some(*pods);
            }
        }
    }
    if let Some(request) = &mut status.renewal_request {
        request.message = renewal_request::message(pki, now);
    }
    let ready = condition(pki, outcome, now);
    status.conditions.retain(|known| known.type_ != READY);
    status.conditions.push(ready);
    status
}

/// Writes what is known of the Secret.
fn note_secret(status: &mut PkiStatus, pki: &Pki, outcome: &Outcome, now: Timestamp) {
    // Until the Secret that is named now is there, the one before is the one in use, and to be
    // removed then.
    let is_moving =
        status.serial_number.is_some() && status.secret_name.as_deref() != Some(pki.secret_name());
    if outcome.certificate().is_some() || !is_moving {
        note_former(status, pki.secret_name(), now);
        status.secret_name = Some(pki.secret_name().to_owned());
    }
    match outcome {
        Outcome::Ready(certificate) | Outcome::Incomplete { certificate, .. } => {
            status.serial_number = Some(certificate.serial.clone());
            status.not_before = Some(Time(certificate.not_before));
            status.not_after = Some(Time(certificate.not_after));
            status.renewal_time = Some(Time(certificate.renew_at));
            status.issuer_fingerprint = Some(certificate.issuer.clone());
            status.trust_fingerprint = Some(certificate.trust.clone());
            status.policy = Some(certificate.terms.policy.clone());
            status.defaults = Some(certificate.terms.defaults.clone());
        }
        // Its certificate may still be in use.
        Outcome::Refused { trust, .. } if status.serial_number.is_some() => {
            status.trust_fingerprint = Some(trust.clone());
        }
        Outcome::Conflict { .. } | Outcome::Foreign(_) if !is_moving => forget_certificate(status),
        Outcome::Failed { attempts, next, .. } => {
            status.failed_attempts = Some(*attempts);
            status.next_attempt_time = Some(Time(whole_second(*next)));
        }
        Outcome::Contested { next, .. } => {
            status.next_attempt_time = Some(Time(whole_second(*next)));
        }
        _ => {}
    }
}

/// The Secret that was written before becomes a former one: pods may use it still.
fn leave_secret(status: &mut PkiStatus, now: Timestamp) {
    if status.has_certificate() {
        note_former(status, "", now);
    }
    status.secret_name = None;
    status.defaults = None;
    forget_certificate(status);
}

fn forget_certificate(status: &mut PkiStatus) {
    status.serial_number = None;
    (status.not_before, status.not_after, status.renewal_time) = (None, None, None);
    (status.issuer_fingerprint, status.trust_fingerprint) = (None, None);
}

/// Keeps the name of the Secret that was written before, if this is another one.
fn note_former(status: &mut PkiStatus, current: &str, now: Timestamp) {
    let former = status.secret_name.take();
    let formers = &mut status.former_secrets;
    formers.retain(|known| known.name != current && Some(&known.name) != former.as_ref());
    if let Some(name) = former.filter(|former| former != current) {
        let end = status.not_after.clone();
        formers.push(FormerSecret {
            name,
            replaced_time: Some(Time(whole_second(now))),
            not_after: end.filter(|_| status.serial_number.is_some()),
        });
    }
    let surplus = formers.len().saturating_sub(MAX_FORMER_SECRETS);
    formers.drain(..surplus);
}

fn condition(pki: &Pki, outcome: &Outcome, now: Timestamp) -> Condition {
    let status = if outcome.is_ready() { "True" } else { "False" };
    let known = pki.condition(READY);
    let is_waiting = matches!(outcome, Outcome::Await | Outcome::AwaitKey(_));
    if let (true, Some(fault)) = (is_waiting, known.filter(|known| is_published_fault(known))) {
        // A published fault stays until it is resolved, which is then published too.
        return Condition {
            observed_generation: pki.metadata.generation,
            ..fault.clone()
        };
    }
    Condition {
        type_: READY.into(),
        status: status.into(),
        reason: outcome.reason().into(),
        message: outcome.message(pki, MAX_CONDITION_MESSAGE_BYTES),
        observed_generation: pki.metadata.generation,
        last_transition_time: transition_time(known, status, now),
    }
}

#[cfg(test)]
mod tests;
