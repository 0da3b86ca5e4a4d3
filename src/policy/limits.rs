//! The limits of a policy.

use super::key::Key;
use super::names;
use crate::api::{KeyAlgorithm, PermittedKey, PkiPolicySpec, Usage};
use jiff::SignedDuration;

#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    /// Empty: all.
    pub(super) private_keys: Vec<PermittedKey>,
    /// Empty: all.
    pub(super) usages: Vec<Usage>,
    pub(super) max_duration: Option<SignedDuration>,
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
            let is_size = |least| size >= least || has_one_size;
            permitted.algorithm == algorithm && permitted.min_size.is_none_or(is_size)
        };
        self.private_keys.is_empty() || self.private_keys.iter().any(is_match)
    }

    /// The least size that is permitted for an algorithm, if any is.
    pub(super) fn least_size(&self, algorithm: KeyAlgorithm) -> Option<i32> {
        let sizes = Key::sizes(algorithm);
        let mut sizes = sizes.iter().copied().chain(sizes.is_empty().then_some(0));
        sizes.find(|size| self.allows_key(algorithm, *size))
    }

    /// The algorithm that is built in, or the first one that is permitted.
    pub(super) fn built_in_algorithm(&self) -> KeyAlgorithm {
        let permitted = self.private_keys.iter().map(|key| key.algorithm);
        let mut algorithms = [KeyAlgorithm::default()].into_iter().chain(permitted);
        let first = algorithms.find(|algorithm| self.least_size(*algorithm).is_some());
        first.unwrap_or_default()
    }
}
