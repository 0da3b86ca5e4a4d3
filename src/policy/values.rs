//! Values of a spec, of defaults or of a status, each of which may be left out.

use super::key::{Key, ignored_size};
use super::names;
use super::violation::{BrokenRule, Field, Violation};
use crate::api::{Defaults, KeyAlgorithm, KeyEncoding, PkiSpec, PrivateKey, RotationPolicy, Usage};
use jiff::SignedDuration;
use pki_certs::renewal::RenewBefore;
use std::collections::BTreeSet;

/// The built-in lifetime: 90 days.
pub(super) const BUILT_IN_DURATION: SignedDuration = SignedDuration::from_hours(2160);
/// The shortest lifetime of a certificate.
pub(super) const MIN_DURATION: SignedDuration = SignedDuration::from_hours(1);
/// A hundred years: beyond any CA's own end, and far from where times overflow.
pub(super) const MAX_DURATION: SignedDuration = SignedDuration::from_hours(876_000);
/// Maximum of `renewBeforePercentage`: an earlier renewal would follow at once on each issue.
const MAX_PERCENT: u8 = 90;

/// Values that may be left out: those of a spec, of a policy's defaults, or of a status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Values {
    pub(super) duration: Option<SignedDuration>,
    pub(super) renew_before: Option<RenewBefore>,
    pub(super) usages: BTreeSet<Usage>,
    pub(super) algorithm: Option<KeyAlgorithm>,
    pub(super) size: Option<i32>,
    pub(super) encoding: Option<KeyEncoding>,
    pub(super) rotation: Option<RotationPolicy>,
}

impl Values {
    /// Reads the values of a spec, and adds their violations.
    pub(super) fn read(spec: &PkiSpec, violations: &mut Vec<Violation>) -> Self {
        let mut values = Self {
            usages: spec.usages.iter().copied().collect(),
            ..Self::default()
        };
        values.read_lifetime(spec, violations);
        values.read_key(spec.private_key.as_ref(), violations);
        values
    }

    fn read_lifetime(&mut self, spec: &PkiSpec, violations: &mut Vec<Violation>) {
        if let Some(text) = &spec.duration {
            self.duration = lifetime(text);
            if self.duration.is_none() {
                let rule = BrokenRule::Duration(text.clone());
                violations.push(Violation::new(Field::of("spec.duration"), rule));
                return;
            }
        }
        match renewal(spec, self.duration) {
            Ok(renew_before) => self.renew_before = renew_before,
            Err(violation) => violations.push(violation),
        }
    }

    fn read_key(&mut self, written: Option<&PrivateKey>, violations: &mut Vec<Violation>) {
        let Some(written) = written else { return };
        self.set_key(written);
        let algorithm = self.algorithm.unwrap_or_default();
        if let Some(size) = self.size
            && !sizes_of(self.algorithm).contains(&size)
        {
            violations.push(key_size(algorithm, size));
        }
        if let (Some(algorithm), Some(encoding)) = (self.algorithm, self.encoding)
            && !Key::is_encoded(algorithm, encoding)
        {
            violations.push(key_encoding(algorithm, encoding));
        }
    }

    fn set_key(&mut self, written: &PrivateKey) {
        let is_ignored = ignored_size(written).is_some();
        self.algorithm = written.algorithm;
        self.size = written.size.filter(|_| !is_ignored);
        self.encoding = written.encoding;
        self.rotation = written.rotation_policy;
    }

    /// Reads defaults, without those that cannot be read.
    pub(super) fn of(defaults: &Defaults) -> Self {
        let mut values = Self {
            duration: defaults.duration.as_deref().and_then(lifetime),
            usages: defaults.usages.iter().copied().collect(),
            ..Self::default()
        };
        let before = defaults.renew_before.as_deref();
        let before = before.and_then(time_before).map(RenewBefore::Duration);
        let percentage = defaults.renew_before_percentage.and_then(percentage);
        values.renew_before = before.or(percentage);
        if let Some(key) = &defaults.private_key {
            values.set_key(key);
        }
        values
    }
}

/// The sizes of this algorithm, or if there is none, of all.
pub(super) fn sizes_of(algorithm: Option<KeyAlgorithm>) -> Vec<i32> {
    let all = vec![
        KeyAlgorithm::Ecdsa,
        KeyAlgorithm::Rsa,
        KeyAlgorithm::Ed25519,
    ];
    let algorithms = algorithm.map_or(all, |one| vec![one]);
    algorithms
        .into_iter()
        .flat_map(Key::sizes)
        .copied()
        .collect()
}

/// A lifetime that a certificate can have.
pub(super) fn lifetime(text: &str) -> Option<SignedDuration> {
    names::duration(text).filter(|duration| (MIN_DURATION..=MAX_DURATION).contains(duration))
}

/// A time before the end of a certificate.
pub(super) fn time_before(text: &str) -> Option<SignedDuration> {
    names::duration(text).filter(|before| before.is_positive() && *before <= latest(MAX_DURATION))
}

pub(super) fn percentage(value: i32) -> Option<RenewBefore> {
    let read = u8::try_from(value).ok();
    read.filter(|percent| (1..=MAX_PERCENT).contains(percent))
        .map(RenewBefore::Percentage)
}

/// The longest time before its end at which a certificate of this lifetime is renewed.
pub(super) fn latest(duration: SignedDuration) -> SignedDuration {
    duration * 9 / 10
}

/// The renewal time of a spec. Without a duration, the policy has the bound.
fn renewal(
    spec: &PkiSpec,
    duration: Option<SignedDuration>,
) -> Result<Option<RenewBefore>, Violation> {
    let before = spec.renew_before.as_deref().map(|text| {
        let most = latest(duration.unwrap_or(MAX_DURATION));
        let read = time_before(text).filter(|before| *before <= most);
        let violation = || renew_before(text, duration.unwrap_or(BUILT_IN_DURATION));
        read.map(RenewBefore::Duration).ok_or_else(violation)
    });
    let of_percentage = |rule| Violation::new(Field::of("spec.renewBeforePercentage"), rule);
    let percentage = spec.renew_before_percentage.map(|value| {
        percentage(value).ok_or_else(|| of_percentage(BrokenRule::RenewBeforePercentage(value)))
    });
    match (before, percentage) {
        (Some(_), Some(_)) => Err(of_percentage(BrokenRule::RenewBeforeTwice)),
        (Some(read), None) | (None, Some(read)) => read.map(Some),
        (None, None) => Ok(None),
    }
}

pub(super) fn renew_before(written: &str, duration: SignedDuration) -> Violation {
    let value = written.to_owned();
    let rule = BrokenRule::RenewBefore { value, duration };
    Violation::new(Field::of("spec.renewBefore"), rule)
}

pub(super) fn key_size(algorithm: KeyAlgorithm, size: i32) -> Violation {
    let rule = BrokenRule::KeySize { algorithm, size };
    Violation::new(Field::of("spec.privateKey.size"), rule)
}

pub(super) fn key_encoding(algorithm: KeyAlgorithm, encoding: KeyEncoding) -> Violation {
    let rule = BrokenRule::KeyEncoding {
        algorithm,
        encoding,
    };
    Violation::new(Field::of("spec.privateKey.encoding"), rule)
}

/// Whether a certificate of this lifetime can be renewed so early.
pub(super) fn is_within(before: RenewBefore, duration: SignedDuration) -> bool {
    match before {
        RenewBefore::Duration(before) => before <= latest(duration),
        RenewBefore::Percentage(_) => true,
    }
}

pub(super) fn third(duration: SignedDuration) -> SignedDuration {
    SignedDuration::from_secs(duration.as_secs() / 3)
}
