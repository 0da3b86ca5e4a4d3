//! What tests try at random, each time something else.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where to begin: at the time, or at `PKI_FUZZ_SEED`, which repeats a run. It is printed.
pub(crate) fn seed() -> u64 {
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs()
    };
    let given = env::var("PKI_FUZZ_SEED").ok();
    let seed = given.map_or_else(now, |seed| seed.parse().expect("PKI_FUZZ_SEED is a number"));
    println!("PKI_FUZZ_SEED={seed}");
    seed
}

/// `SplitMix64`: small, and the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("a limit is a small number");
        usize::try_from(self.next() % limit).expect("what is below a limit is as small")
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    pub(crate) fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}
