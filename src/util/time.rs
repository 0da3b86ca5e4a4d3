//! Times as the Kubernetes API has them.

use jiff::Timestamp;

/// Times in the API have no fractions.
pub fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).expect("a part of a valid time is one")
}
