//! Conditions of the status, by the conventions of the Kubernetes API.

use crate::util::time::whole_second;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The schema of conditions takes 32768 characters; people take fewer.
pub const MAX_CONDITION_MESSAGE_BYTES: usize = 4096;

/// The number of conditions that a status keeps: `Ready`, and those of others.
pub const MAX_CONDITIONS: usize = 16;
/// The number of former Secrets that a status lists.
pub const MAX_FORMER_SECRETS: usize = 10;

/// The time since which a condition has this status, given the known condition.
pub fn transition_time(known: Option<&Condition>, status: &str, now: Timestamp) -> Time {
    let unchanged = known.filter(|known| known.status == status);
    unchanged.map_or_else(
        || Time(whole_second(now)),
        |known| known.last_transition_time.clone(),
    )
}
