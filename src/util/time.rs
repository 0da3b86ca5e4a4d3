//! Times as the Kubernetes API has them.

use jiff::Timestamp;

/// Times in the API have no fractions.
pub fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).expect("a part of a valid time is one")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::Timestamp;

    /// A time in 2030, `seconds` after an arbitrary one.
    pub(crate) fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_900_000_000 + seconds).unwrap()
    }

    /// The first moment of 2030.
    pub(crate) fn now() -> Timestamp {
        "2030-01-01T00:00:00Z".parse().unwrap()
    }
}
