//! Secrets that were verified, so that none is read again before something has changed.
//!
//! One digest covers all that a verification depends on: the version of the Secret, the content
//! that it should have, and the certificate in the status. Another value anywhere changes the
//! digest, and the Secret is read.

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

/// The last verification of the Secret of each Pki.
#[derive(Debug, Default)]
pub(super) struct VerifiedSecrets(Mutex<HashMap<Key, Verification>>);

#[derive(Clone, Copy, Debug)]
enum Verification {
    /// The Secret was as it should be.
    Valid {
        /// Digest of all that this depends on.
        digest: u64,
        /// The one property of the certificate that the status does not have.
        cut_short: bool,
    },
    /// The Secret exists, also if the cache does not have it, and has to be read.
    Unknown,
}

impl VerifiedSecrets {
    /// The certificate in a Secret that has not changed since it was verified.
    pub(super) fn recall(&self, observed: &Observed<'_>, secret: &Version) -> Option<Verified> {
        let verification = *self.all().get(&Key::of(&observed.pki))?;
        let Verification::Valid { digest, cut_short } = verification else {
            return None;
        };
        let verified = certificate_in(observed.pki.status.as_ref()?, cut_short)?;
        let approved = observed.verdict.as_ref().ok().map(Approved::in_force);
        (digest == digest_of(observed, approved, secret, &verified)).then_some(verified)
    }

    /// Whether the Secret of this Pki was read or written before.
    pub(super) fn knows(&self, pki: &Key) -> bool {
        self.all().contains_key(pki)
    }

    /// Notes that the Secret is as it should be, with this certificate.
    pub(super) fn note_valid(
        &self,
        pki: Key,
        observed: &Observed<'_>,
        approved: &Approved,
        secret: &Version,
        verified: &Verified,
    ) {
        let verification = Verification::Valid {
            digest: digest_of(observed, Some(approved), secret, verified),
            cut_short: verified.cut_short,
        };
        self.all().insert(pki, verification);
    }

    /// Notes that the Secret exists, also if the cache does not have it, and has to be read.
    pub(super) fn note_unknown(&self, pki: Key) {
        self.all().insert(pki, Verification::Unknown);
    }

    /// Forgets a Pki that is gone, or has no Secret.
    pub(super) fn forget(&self, pki: &Key) {
        self.all().remove(pki);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Key, Verification>> {
        lock(&self.0)
    }
}

/// Digest of all that a verification depends on.
fn digest_of(
    observed: &Observed<'_>,
    approved: Option<&Approved>,
    secret: &Version,
    verified: &Verified,
) -> u64 {
    let Observed { pki, ca, .. } = observed;
    let passwords = approved.map(|approved| &observed.passwords_for(approved).versions);
    // The terms of a renewal do not matter to the Secret that exists, nor does the policy's name.
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

/// The certificate that the status describes.
fn certificate_in(status: &PkiStatus, cut_short: bool) -> Option<Verified> {
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

    fn observed<'a>(pki: &Pki, approved: &Approved, ca: &'a Ca, password: &str) -> Observed<'a> {
        Observed {
            passwords: Passwords {
                versions: vec![password.to_owned()],
                ..Passwords::default()
            },
            ..Observed::of(pki.clone(), Ok(approved.clone()), ca)
        }
    }

    #[test]
    fn a_finding_holds_until_anything_that_it_rests_on_is_another() {
        let (ca, other_ca, pki, secrets) = (ca(), ca(), pki(), VerifiedSecrets::default());
        let approved = api::tests::approved(&pki);
        let here = version("u", "7");
        let recall = |pki: &Pki, approved: &Approved, ca: &Ca, password: &str, secret: &Version| {
            secrets.recall(&observed(pki, approved, ca, password), secret)
        };
        let all = || recall(&pki, &approved, &ca, "1", &here);
        assert_eq!(all(), None, "nothing has been found yet");
        assert!(!secrets.knows(&Key::of(&pki)));
        secrets.note_valid(
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
        secrets.forget(&Key::of(&pki));
        assert_eq!(all(), None);
    }

    #[test]
    fn what_is_in_doubt_is_known_and_not_sound() {
        let (ca, pki, secrets) = (ca(), pki(), VerifiedSecrets::default());
        let approved = api::tests::approved(&pki);
        let observed = observed(&pki, &approved, &ca, "");
        secrets.note_valid(
            Key::of(&pki),
            &observed,
            &approved,
            &version("u", "7"),
            &verified(),
        );
        secrets.note_unknown(Key::of(&pki));
        assert!(secrets.knows(&Key::of(&pki)));
        assert_eq!(secrets.recall(&observed, &version("u", "7")), None);
    }
}
