//! Hashes that stand for what is only compared, and need not be kept.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::LazyLock;

/// The hash of a value, with keys of this process, so that nobody can choose two values that have
/// the same.
pub(crate) fn digest(value: impl Hash) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one(value)
}
