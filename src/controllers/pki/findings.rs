//! Which Secrets are known to be as they should be, so that none is read again before something has
//! changed.
//!
//! Of all that such a finding rests on there is kept one digest: the version of the Secret, what it
//! was held against, and what the status tells of its certificate. Another value anywhere makes it
//! another, and the Secret is read.

use super::plan::Observed;
use crate::api::PkiStatus;
use crate::k8s::object_key::Key;
use crate::k8s::secret;
use crate::policy::Approved;
use crate::store::cached_secret::Version;
use crate::util::hash::digest;
use crate::util::sync::lock;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pki_certs::{CaCertificate, Verified};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

/// What was found of the Secret of each Pki.
#[derive(Debug, Default)]
pub(super) struct Findings(Mutex<HashMap<Key, Finding>>);

#[derive(Clone, Copy, Debug)]
enum Finding {
    /// It was as it should be.
    Sound {
        /// Of all that this rests on.
        digest: u64,
        /// The one thing about the certificate that the status does not tell.
        cut_short: bool,
    },
    /// It is there, whatever the cache shows, and has to be read.
    Doubtful,
}

impl Findings {
    /// The certificate in a Secret that has not changed since it was found to be sound.
    pub(super) fn recall(&self, observed: &Observed<'_>, secret: &Version) -> Option<Verified> {
        let finding = *self.findings().get(&Key::of(observed.pki))?;
        let Finding::Sound { digest, cut_short } = finding else {
            return None;
        };
        let verified = told(observed.pki.status.as_ref()?, cut_short)?;
        let approved = observed.verdict.as_ref().ok().map(Approved::in_force);
        (digest == digest_of(observed, approved, secret, &verified)).then_some(verified)
    }

    /// Whether anything was found out about the Secret of this Pki.
    pub(super) fn knows(&self, pki: &Key) -> bool {
        self.findings().contains_key(pki)
    }

    /// The Secret was found, or written, as this has it, with this certificate.
    pub(super) fn sound(
        &self,
        pki: Key,
        observed: &Observed<'_>,
        approved: &Approved,
        secret: &Version,
        verified: &Verified,
    ) {
        let finding = Finding::Sound {
            digest: digest_of(observed, Some(approved), secret, verified),
            cut_short: verified.cut_short,
        };
        self.findings().insert(pki, finding);
    }

    /// The Secret is there, also if the cache does not show it, and is to be read.
    pub(super) fn doubtful(&self, pki: Key) {
        self.findings().insert(pki, Finding::Doubtful);
    }

    /// Forgets a Pki that is gone, or has no Secret.
    pub(super) fn forget(&self, pki: &Key) {
        self.findings().remove(pki);
    }

    fn findings(&self) -> MutexGuard<'_, HashMap<Key, Finding>> {
        lock(&self.0)
    }
}

/// All that a finding rests on.
fn digest_of(
    observed: &Observed<'_>,
    approved: Option<&Approved>,
    secret: &Version,
    verified: &Verified,
) -> u64 {
    let Observed { pki, ca, .. } = observed;
    let passwords = approved.map(|approved| &observed.passwords_for(approved).versions);
    // What a renewal would be like says nothing of the Secret there is, nor does who permits it.
    let approved = approved.map(|approved| {
        let Approved {
            certificate,
            secret_name,
            template,
            outputs,
            ..
        } = approved;
        (certificate, secret_name, template, outputs)
    });
    let issuers = ca.issuers.iter().map(CaCertificate::fingerprint);
    let wanted = (
        &pki.metadata.uid,
        secret::is_kept(pki),
        approved,
        issuers.collect::<Vec<_>>(),
        ca.trust.fingerprint(),
        passwords,
    );
    digest((wanted, secret, verified))
}

/// The certificate that the status tells of.
fn told(status: &PkiStatus, cut_short: bool) -> Option<Verified> {
    let time = |time: &Option<Time>| Some(time.as_ref()?.0);
    Some(Verified {
        serial: status.serial_number.clone()?,
        not_before: time(&status.not_before)?,
        not_after: time(&status.not_after)?,
        issuer: status.issuer_fingerprint.clone()?,
        cut_short,
    })
}

#[cfg(test)]
mod tests {
    use super::super::plan::SecretState;
    use super::*;
    use crate::api::{self, Pki};
    use crate::controllers::pki::content::formats::Passwords;
    use crate::model::ca::Ca;
    use jiff::{SignedDuration, Timestamp};
    use k8s_openapi::api::core::v1::Secret;
    use kube::core::PartialObjectMeta;
    use pki_certs::Authority;
    use serde_json::json;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn ca() -> Ca {
        let now = "2030-01-01T00:00:00Z".parse::<Timestamp>().unwrap();
        Ca::of(Authority::generate("ca", 1000 * HOUR, now).unwrap())
    }

    fn version(uid: &str, resource: &str) -> Version {
        let secret = json!({"metadata": {"uid": uid, "resourceVersion": resource}});
        Version::of(&serde_json::from_value::<PartialObjectMeta<Secret>>(secret).unwrap())
    }

    fn verified() -> Verified {
        Verified {
            serial: "0A".into(),
            not_before: "2030-01-01T00:00:00Z".parse().unwrap(),
            not_after: "2030-03-01T00:00:00Z".parse().unwrap(),
            issuer: "ff".into(),
            cut_short: true,
        }
    }

    /// Whose status tells of [`verified`].
    fn pki() -> Pki {
        let mut pki = api::tests::pki(json!({}));
        pki.status = serde_json::from_value(json!({
            "serialNumber": "0A", "issuerFingerprint": "ff",
            "notBefore": "2030-01-01T00:00:00Z", "notAfter": "2030-03-01T00:00:00Z"
        }))
        .unwrap();
        pki
    }

    fn observed<'a>(pki: &'a Pki, approved: &Approved, ca: &'a Ca, password: &str) -> Observed<'a> {
        Observed {
            pki,
            verdict: Ok(approved.clone()),
            rival: None,
            secret: SecretState::Unread,
            passwords: Passwords {
                versions: vec![password.to_owned()],
                ..Passwords::default()
            },
            ca,
        }
    }

    #[test]
    fn a_finding_holds_until_anything_that_it_rests_on_is_another() {
        let (ca, other_ca, pki, findings) = (ca(), ca(), pki(), Findings::default());
        let approved = api::tests::approved(&pki);
        let here = version("u", "7");
        let recall = |pki: &Pki, approved: &Approved, ca: &Ca, password: &str, secret: &Version| {
            findings.recall(&observed(pki, approved, ca, password), secret)
        };
        let all = || recall(&pki, &approved, &ca, "1", &here);
        assert_eq!(all(), None, "nothing has been found yet");
        assert!(!findings.knows(&Key::of(&pki)));
        findings.sound(
            Key::of(&pki),
            &observed(&pki, &approved, &ca, "1"),
            &approved,
            &here,
            &verified(),
        );
        assert_eq!(all(), Some(verified()));

        let changed = |change: fn(&mut Pki)| {
            let mut changed = pki.clone();
            change(&mut changed);
            recall(&changed, &approved, &ca, "1", &here)
        };
        let mut other = approved.clone();
        other.certificate.common_name = Some("another".into());
        for (what, recalled) in [
            (
                "version",
                recall(&pki, &approved, &ca, "1", &version("u", "8")),
            ),
            (
                "Secret",
                recall(&pki, &approved, &ca, "1", &version("v", "7")),
            ),
            ("password", recall(&pki, &approved, &ca, "2", &here)),
            ("CA", recall(&pki, &approved, &other_ca, "1", &here)),
            ("request", recall(&pki, &other, &ca, "1", &here)),
            (
                "Pki",
                changed(|pki| pki.metadata.uid = Some("another".into())),
            ),
            (
                "wish to keep it",
                changed(|pki| {
                    let keep = ("box.com/keep-secret".into(), "true".into());
                    pki.metadata.annotations = Some([keep].into());
                }),
            ),
            ("no status", changed(|pki| pki.status = None)),
            (
                "serial",
                changed(|pki| {
                    pki.status.as_mut().unwrap().serial_number = Some("0B".into());
                }),
            ),
            (
                "end",
                changed(|pki| pki.status.as_mut().unwrap().not_after = None),
            ),
        ] {
            assert_eq!(recalled, None, "another {what}");
        }
        let mut next = approved.clone();
        (next.keeps_key, next.policy) = (!next.keeps_key, "another".into());
        let recalled = recall(&pki, &next, &ca, "1", &here);
        assert_eq!(recalled, all(), "the Secret is no other for that");
        assert_eq!(all(), Some(verified()));
        findings.forget(&Key::of(&pki));
        assert_eq!(all(), None);
    }

    #[test]
    fn what_is_in_doubt_is_known_and_not_sound() {
        let (ca, pki, findings) = (ca(), pki(), Findings::default());
        let approved = api::tests::approved(&pki);
        let observed = observed(&pki, &approved, &ca, "");
        findings.sound(
            Key::of(&pki),
            &observed,
            &approved,
            &version("u", "7"),
            &verified(),
        );
        findings.doubtful(Key::of(&pki));
        assert!(findings.knows(&Key::of(&pki)));
        assert_eq!(findings.recall(&observed, &version("u", "7")), None);
    }
}
