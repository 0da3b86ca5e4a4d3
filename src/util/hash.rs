//! Hashes of values that are only compared.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::LazyLock;

/// The hash of a value, with keys of this process: nobody can choose two values with the same hash.
pub(crate) fn digest(value: impl Hash) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one(value)
}
