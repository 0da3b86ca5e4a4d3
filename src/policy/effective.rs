//! The values that count for a Pki: its own, else those of the policy, else the built-in ones
//! narrowed to what the policy permits.
//!
//! So a Pki is refused for what it says and never for what it leaves out. [`Effective::resolve`] is
//! the only place that decides it; a default that its own policy does not permit is not used.

use super::key::{Key, ignored_size};
use super::names;
use super::violation::{BrokenRule, Field, Violation};
use crate::api::{
    Defaults, KeyAlgorithm, KeyEncoding, PermittedKey, PkiPolicySpec, PkiSpec, PrivateKey,
    RotationPolicy, Usage,
};
use jiff::SignedDuration;
use pki_certs::LeafRequest;
use pki_certs::renewal::RenewBefore;
use std::collections::BTreeSet;

/// The built-in lifetime: 90 days.
pub(super) const BUILT_IN_DURATION: SignedDuration = SignedDuration::from_hours(2160);
/// The shortest lifetime of a certificate.
pub(super) const SHORTEST: SignedDuration = SignedDuration::from_hours(1);
/// A hundred years: beyond any CA's own end, and far from where times overflow.
const LONGEST: SignedDuration = SignedDuration::from_hours(876_000);
/// A renewal so early that hardly any time is left before it would renew for ever.
const MOST_PERCENT: u8 = 90;

/// The source of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The spec of the Pki.
    Spec,
    /// A default of the policy.
    Policy,
    /// Nobody: it is built in, or the nearest to that which the policy permits.
    BuiltIn,
    /// A default when the certificate was issued, which is in force until the next renewal.
    Recorded,
}

/// A value, and who decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Chosen<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

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

/// The bounds that a policy sets to these values.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    /// Empty: all.
    pub(super) private_keys: Vec<PermittedKey>,
    /// Empty: all.
    pub(super) usages: Vec<Usage>,
    pub(super) max_duration: Option<SignedDuration>,
}

/// The values that count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Effective {
    pub(super) duration: Chosen<SignedDuration>,
    /// `None`: a third of the duration.
    pub(super) renew_before: Chosen<Option<RenewBefore>>,
    pub(super) usages: Chosen<BTreeSet<Usage>>,
    pub(super) algorithm: Chosen<KeyAlgorithm>,
    pub(super) size: Chosen<i32>,
    pub(super) encoding: Chosen<KeyEncoding>,
    pub(super) rotation: Chosen<RotationPolicy>,
}

impl Values {
    /// Reads what a spec says, and notes what is wrong with it.
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

    /// Reads defaults. What cannot be read is not there.
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
fn sizes_of(algorithm: Option<KeyAlgorithm>) -> Vec<i32> {
    const ALL: [KeyAlgorithm; 3] = [
        KeyAlgorithm::Ecdsa,
        KeyAlgorithm::Rsa,
        KeyAlgorithm::Ed25519,
    ];
    let algorithms = algorithm.map_or(ALL.to_vec(), |one| vec![one]);
    algorithms
        .into_iter()
        .flat_map(Key::sizes)
        .copied()
        .collect()
}

/// A lifetime that a certificate can have.
pub(super) fn lifetime(text: &str) -> Option<SignedDuration> {
    names::duration(text).filter(|duration| (SHORTEST..=LONGEST).contains(duration))
}

/// A time before the end of a certificate.
pub(super) fn time_before(text: &str) -> Option<SignedDuration> {
    names::duration(text).filter(|before| before.is_positive() && *before <= latest(LONGEST))
}

pub(super) fn percentage(value: i32) -> Option<RenewBefore> {
    let read = u8::try_from(value).ok();
    read.filter(|percent| (1..=MOST_PERCENT).contains(percent))
        .map(RenewBefore::Percentage)
}

/// The longest time before its end at which a certificate of this lifetime is renewed.
pub(super) fn latest(duration: SignedDuration) -> SignedDuration {
    duration * 9 / 10
}

/// When to renew, as a spec says it. The bound of a duration that it leaves out is for the policy
/// to tell.
fn renewal(
    spec: &PkiSpec,
    duration: Option<SignedDuration>,
) -> Result<Option<RenewBefore>, Violation> {
    let before = spec.renew_before.as_deref().map(|text| {
        let most = latest(duration.unwrap_or(LONGEST));
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

fn renew_before(written: &str, duration: SignedDuration) -> Violation {
    let value = written.to_owned();
    let rule = BrokenRule::RenewBefore { value, duration };
    Violation::new(Field::of("spec.renewBefore"), rule)
}

fn key_size(algorithm: KeyAlgorithm, size: i32) -> Violation {
    let rule = BrokenRule::KeySize { algorithm, size };
    Violation::new(Field::of("spec.privateKey.size"), rule)
}

fn key_encoding(algorithm: KeyAlgorithm, encoding: KeyEncoding) -> Violation {
    let rule = BrokenRule::KeyEncoding {
        algorithm,
        encoding,
    };
    Violation::new(Field::of("spec.privateKey.encoding"), rule)
}

impl Limits {
    pub(super) fn of(spec: &PkiPolicySpec) -> Self {
        let max = spec.max_duration.as_deref();
        Self {
            private_keys: spec.private_keys.clone(),
            usages: spec.usages.clone(),
            max_duration: max.map(|text| names::duration(text).unwrap_or(SignedDuration::ZERO)),
        }
    }

    pub(super) fn allows_usage(&self, usage: Usage) -> bool {
        self.usages.is_empty() || self.usages.contains(&usage)
    }

    pub(super) fn allows_duration(&self, duration: SignedDuration) -> bool {
        self.max_duration.is_none_or(|max| duration <= max)
    }

    pub(super) fn allows_key(&self, algorithm: KeyAlgorithm, size: i32) -> bool {
        let has_one_size = Key::sizes(algorithm).is_empty();
        let is_match = |permitted: &PermittedKey| {
            permitted.algorithm == algorithm
                && permitted
                    .min_size
                    .is_none_or(|least| size >= least || has_one_size)
        };
        self.private_keys.is_empty() || self.private_keys.iter().any(is_match)
    }

    /// The least size that is permitted for an algorithm, if any is.
    fn least_size(&self, algorithm: KeyAlgorithm) -> Option<i32> {
        let sizes = Key::sizes(algorithm);
        let mut sizes = sizes.iter().copied().chain(sizes.is_empty().then_some(0));
        sizes.find(|size| self.allows_key(algorithm, *size))
    }

    /// The algorithm that is built in, or the first one that is permitted.
    fn built_in_algorithm(&self) -> KeyAlgorithm {
        let permitted = self
            .private_keys
            .iter()
            .map(|permitted| permitted.algorithm);
        let mut algorithms = [KeyAlgorithm::default()].into_iter().chain(permitted);
        let first = algorithms.find(|algorithm| self.least_size(*algorithm).is_some());
        first.unwrap_or_default()
    }
}

impl<T> Chosen<T> {
    fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }

    /// Takes the value of the spec, else the default of the policy, else the built-in value.
    fn first(said: Option<T>, default: Option<T>, built_in: impl FnOnce() -> T) -> Self {
        match (said, default) {
            (Some(said), _) => Self::new(said, Origin::Spec),
            (None, Some(default)) => Self::new(default, Origin::Policy),
            (None, None) => Self::new(built_in(), Origin::BuiltIn),
        }
    }

    /// Whether the spec leaves it out.
    pub(super) fn is_left_out(&self) -> bool {
        self.origin != Origin::Spec
    }

    /// Takes the recorded value where the spec leaves it out.
    fn kept(self, recorded: Option<T>) -> Self {
        match recorded.filter(|_| self.is_left_out()) {
            Some(recorded) => Self::new(recorded, Origin::Recorded),
            None => self,
        }
    }
}

impl Effective {
    /// The values that count for what a Pki says, under a policy with these defaults and limits.
    pub(super) fn resolve(said: &Values, defaults: &Values, limits: &Limits) -> Self {
        let default = defaults.duration.filter(|it| limits.allows_duration(*it));
        let longest = limits.max_duration.unwrap_or(LONGEST);
        let duration = Chosen::first(said.duration, default, || {
            BUILT_IN_DURATION.min(longest).max(SHORTEST)
        });
        let default = defaults.renew_before;
        let default = default.filter(|before| is_within(*before, duration.value));
        let renew_before = Chosen::first(said.renew_before.map(Some), default.map(Some), || None);
        let some = |usages: &BTreeSet<Usage>| Some(usages.clone()).filter(|it| !it.is_empty());
        let is_permitted =
            |usages: &BTreeSet<Usage>| usages.iter().all(|usage| limits.allows_usage(*usage));
        let usages = Chosen::first(
            some(&said.usages),
            some(&defaults.usages).filter(is_permitted),
            || {
                let both = [Usage::ServerAuth, Usage::ClientAuth].into_iter();
                both.filter(|usage| limits.allows_usage(*usage)).collect()
            },
        );
        let algorithm = algorithm(said, defaults, limits);
        let (size, encoding) = size_and_encoding(algorithm.value, said, defaults, limits);
        let rotation = Chosen::first(said.rotation, defaults.rotation, RotationPolicy::default);
        Self {
            duration,
            renew_before,
            usages,
            algorithm,
            size,
            encoding,
            rotation,
        }
    }

    /// Replaces each value that the spec leaves out by the recorded one.
    pub(super) fn kept(&self, recorded: &Values) -> Self {
        let mut kept = self.clone();
        kept.duration = self.duration.kept(recorded.duration);
        let duration = kept.duration.value;
        let before = recorded.renew_before;
        let before = before.filter(|before| is_within(*before, duration));
        let third = RenewBefore::Duration(third(duration));
        let before = before.map(|before| Some(before).filter(|before| *before != third));
        kept.renew_before = self.renew_before.kept(before);
        let usages = Some(recorded.usages.clone()).filter(|usages| !usages.is_empty());
        kept.usages = self.usages.clone().kept(usages);
        let algorithm = self.algorithm.kept(recorded.algorithm);
        let size = match algorithm.value {
            KeyAlgorithm::Ed25519 => Chosen::new(0, algorithm.origin),
            _ => self.size.kept(recorded.size),
        };
        let encoding = self.encoding.kept(recorded.encoding);
        let has_one_size = Key::sizes(algorithm.value).is_empty();
        let is_key = has_one_size || Key::is_offered(algorithm.value, size.value);
        // A part that was written then may have decided the rest; the record says nothing about
        // this key.
        let is_recorded = (!self.algorithm.is_left_out() || recorded.algorithm.is_some())
            && (!self.size.is_left_out() || has_one_size || recorded.size.is_some())
            && (!self.encoding.is_left_out() || recorded.encoding.is_some());
        if is_key && is_recorded && Key::is_encoded(algorithm.value, encoding.value) {
            (kept.algorithm, kept.size, kept.encoding) = (algorithm, size, encoding);
        }
        kept
    }

    pub(super) fn key(&self) -> Key {
        Key {
            algorithm: self.algorithm.value,
            size: self.size.value,
            encoding: self.encoding.value,
        }
    }

    pub(super) fn certified_usages(&self) -> Vec<pki_certs::Usage> {
        let usages = self.usages.value.iter();
        let usages = usages.map(|usage| match usage {
            Usage::ServerAuth => pki_certs::Usage::ServerAuth,
            Usage::ClientAuth => pki_certs::Usage::ClientAuth,
        });
        usages.collect()
    }

    /// Sets the effective values of a certificate.
    pub(super) fn apply_to(&self, certificate: &mut LeafRequest) {
        certificate.usages = self.certified_usages();
        certificate.duration = self.duration.value;
        certificate.key = self.key().certified();
        certificate.key_encoding = self.key().certified_encoding();
    }

    /// The time before its end at which the certificate is renewed, but for a percentage.
    pub(super) fn time_before_end(&self) -> Result<SignedDuration, u8> {
        match self.renew_before.value {
            Some(RenewBefore::Duration(before)) => Ok(before),
            Some(RenewBefore::Percentage(percentage)) => Err(percentage),
            None => Ok(third(self.duration.value)),
        }
    }

    /// Lists values of the spec that do not go with the values it leaves out.
    pub(super) fn mismatches(&self, spec: &PkiSpec) -> impl Iterator<Item = Violation> {
        let duration = self.duration.value;
        let renewal = spec.renew_before.as_ref().filter(|_| {
            self.duration.is_left_out()
                && self.renew_before.origin == Origin::Spec
                && !self
                    .renew_before
                    .value
                    .is_some_and(|it| is_within(it, duration))
        });
        let renewal = renewal.map(|value| renew_before(value, duration));
        let (algorithm, size, encoding) = (self.algorithm.value, self.size, self.encoding);
        let is_assumed = self.algorithm.is_left_out();
        let is_other_size = is_assumed
            && size.origin == Origin::Spec
            && !Key::is_offered(algorithm, size.value)
            && sizes_of(None).contains(&size.value);
        let is_other_encoding = is_assumed && !Key::is_encoded(algorithm, encoding.value);
        let size = is_other_size.then(|| key_size(algorithm, size.value));
        let encoding = is_other_encoding.then(|| key_encoding(algorithm, encoding.value));
        size.into_iter().chain(encoding).chain(renewal)
    }
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

/// The algorithm that is said; else that of the policy, if what is said goes with it and the policy
/// permits it.
fn algorithm(said: &Values, defaults: &Values, limits: &Limits) -> Chosen<KeyAlgorithm> {
    let is_possible = |algorithm: &KeyAlgorithm| {
        let (size, encoding) = size_and_encoding(*algorithm, said, defaults, limits);
        let is_size = Key::sizes(*algorithm).is_empty() && said.size.is_none()
            || Key::is_offered(*algorithm, size.value);
        is_size
            && Key::is_encoded(*algorithm, encoding.value)
            && limits.allows_key(*algorithm, size.value)
    };
    let default = defaults.algorithm.filter(is_possible);
    Chosen::first(said.algorithm, default, || limits.built_in_algorithm())
}

fn size_and_encoding(
    algorithm: KeyAlgorithm,
    said: &Values,
    defaults: &Values,
    limits: &Limits,
) -> (Chosen<i32>, Chosen<KeyEncoding>) {
    // Size and encoding of the defaults are those of their algorithm.
    let is_default = algorithm == defaults.algorithm.unwrap_or_default();
    let size = defaults.size.filter(|size| {
        is_default && Key::is_offered(algorithm, *size) && limits.allows_key(algorithm, *size)
    });
    let size = Chosen::first(said.size, size, || {
        let first = || Key::sizes(algorithm).first().copied();
        limits
            .least_size(algorithm)
            .or_else(first)
            .unwrap_or_default()
    });
    let encoding = defaults.encoding;
    let encoding = encoding.filter(|it| is_default && Key::is_encoded(algorithm, *it));
    let encoding = Chosen::first(said.encoding, encoding, KeyEncoding::default);
    (size, encoding)
}
