//! The values that count for a Pki: its own, else those of the policy, else the built-in ones
//! narrowed to what the policy permits.
//!
//! [`Effective::resolve`] alone decides it. A Pki is refused for values of its spec, never for
//! values that it leaves out; a default that its own policy does not permit is not used.

use super::key::Key;
use super::limits::Limits;
use super::values::{
    BUILT_IN_DURATION, MAX_DURATION, MIN_DURATION, Values, is_within, key_encoding, key_size,
    renew_before, sizes_of, third,
};
use super::violation::Violation;
use crate::api::{KeyAlgorithm, KeyEncoding, PkiSpec, RotationPolicy, Usage};
use jiff::SignedDuration;
use pki_certs::LeafRequest;
use pki_certs::renewal::RenewBefore;
use std::collections::BTreeSet;

/// The source of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The spec of the Pki.
    Spec,
    /// A default of the policy.
    Policy,
    /// The built-in value, or the nearest one that the policy permits.
    BuiltIn,
    /// A default when the certificate was issued, which is in force until the next renewal.
    Recorded,
}

/// A value with its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Chosen<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
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

impl<T> Chosen<T> {
    fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }

    /// Takes the value of the spec, else the default of the policy, else the built-in value.
    fn first(specified: Option<T>, default: Option<T>, built_in: impl FnOnce() -> T) -> Self {
        match (specified, default) {
            (Some(specified), _) => Self::new(specified, Origin::Spec),
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
    /// The values that count for a Pki, under a policy with these defaults and limits.
    pub(super) fn resolve(specified: &Values, defaults: &Values, limits: &Limits) -> Self {
        let default = defaults.duration.filter(|it| limits.allows_duration(*it));
        let longest = limits.max_duration.unwrap_or(MAX_DURATION);
        let duration = Chosen::first(specified.duration, default, || {
            BUILT_IN_DURATION.min(longest).max(MIN_DURATION)
        });
        let default = defaults.renew_before;
        let default = default.filter(|before| is_within(*before, duration.value));
        let renew_before =
            Chosen::first(specified.renew_before.map(Some), default.map(Some), || None);
        let some = |usages: &BTreeSet<Usage>| Some(usages.clone()).filter(|it| !it.is_empty());
        let is_permitted =
            |usages: &BTreeSet<Usage>| usages.iter().all(|usage| limits.allows_usage(*usage));
        let usages = Chosen::first(
            some(&specified.usages),
            some(&defaults.usages).filter(is_permitted),
            || {
                let both = [Usage::ServerAuth, Usage::ClientAuth].into_iter();
                both.filter(|usage| limits.allows_usage(*usage)).collect()
            },
        );
        let algorithm = algorithm(specified, defaults, limits);
        let (size, encoding) = size_and_encoding(algorithm.value, specified, defaults, limits);
        let rotation = Chosen::first(
            specified.rotation,
            defaults.rotation,
            RotationPolicy::default,
        );
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
        // A part that the spec had then may have decided the rest: no record describes this key.
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

/// The algorithm of the spec; else that of the policy, if it suits the spec and is permitted.
fn algorithm(specified: &Values, defaults: &Values, limits: &Limits) -> Chosen<KeyAlgorithm> {
    let is_possible = |algorithm: &KeyAlgorithm| {
        let (size, encoding) = size_and_encoding(*algorithm, specified, defaults, limits);
        let is_size = Key::sizes(*algorithm).is_empty() && specified.size.is_none()
            || Key::is_offered(*algorithm, size.value);
        is_size
            && Key::is_encoded(*algorithm, encoding.value)
            && limits.allows_key(*algorithm, size.value)
    };
    let default = defaults.algorithm.filter(is_possible);
    Chosen::first(specified.algorithm, default, || limits.built_in_algorithm())
}

fn size_and_encoding(
    algorithm: KeyAlgorithm,
    specified: &Values,
    defaults: &Values,
    limits: &Limits,
) -> (Chosen<i32>, Chosen<KeyEncoding>) {
    // Size and encoding of the defaults are those of their algorithm.
    let is_default = algorithm == defaults.algorithm.unwrap_or_default();
    let size = defaults.size.filter(|size| {
        is_default && Key::is_offered(algorithm, *size) && limits.allows_key(algorithm, *size)
    });
    let size = Chosen::first(specified.size, size, || {
        let first = || Key::sizes(algorithm).first().copied();
        limits
            .least_size(algorithm)
            .or_else(first)
            .unwrap_or_default()
    });
    let encoding = defaults.encoding;
    let encoding = encoding.filter(|it| is_default && Key::is_encoded(algorithm, *it));
    let encoding = Chosen::first(specified.encoding, encoding, KeyEncoding::default);
    (size, encoding)
}
