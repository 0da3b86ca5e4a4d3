//! Reads a stored status with bounds, and without unreadable values.
//!
//! Anybody who may write a status chooses its values, and the API server accepts some that cannot
//! be read here, such as times that no calendar has. Each counts as none: an unreadable object
//! would be neither issued nor renewed.

use super::conditions::{MAX_CONDITIONS, MAX_FORMER_SECRETS};
use super::{FormerSecret, READY};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Reads a time. One that cannot be read counts as none.
pub(super) fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Time>, D::Error> {
    let value = Value::deserialize(from)?;
    Ok(serde_json::from_value(value).ok())
}

/// Reads conditions: `Ready` and the first others, [`MAX_CONDITIONS`] together.
pub(super) fn conditions<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Condition>, D::Error> {
    let mut conditions = list::<_, Condition>(from)?;
    // A stable sort: the order of the others stays.
    if conditions.len() > MAX_CONDITIONS {
        conditions.sort_by_key(|condition| condition.type_ != READY);
        conditions.truncate(MAX_CONDITIONS);
    }
    Ok(conditions)
}

/// Reads the last [`MAX_FORMER_SECRETS`].
pub(super) fn former_secrets<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<FormerSecret>, D::Error> {
    let mut formers = list::<_, FormerSecret>(from)?;
    formers.drain(..formers.len().saturating_sub(MAX_FORMER_SECRETS));
    Ok(formers)
}

/// Reads a list without the elements that cannot be read.
fn list<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Vec<T>, D::Error> {
    let values = Vec::<Value>::deserialize(from)?;
    let read = values.into_iter().map(serde_json::from_value);
    Ok(read.filter_map(Result::ok).collect())
}

#[cfg(test)]
mod tests {
    use crate::api::conditions::{MAX_CONDITIONS, MAX_FORMER_SECRETS};
    use crate::api::{PkiStatus, READY};
    use serde_json::{Value, json};

    /// A time that the API server takes, and that is after the end of the calendar.
    const BEYOND: &str = "9999-12-31T23:59:59-01:00";

    fn read(status: Value) -> PkiStatus {
        serde_json::from_value(status).expect("what the API server takes can be read")
    }

    fn condition(type_: &str, time: &str) -> Value {
        json!({"type": type_, "status": "True", "reason": "R", "message": "", "lastTransitionTime": time})
    }

    #[test]
    fn a_time_that_cannot_be_read_counts_as_none() {
        let status = read(json!({
            "notBefore": BEYOND, "notAfter": BEYOND, "renewalTime": BEYOND, "nextAttemptTime": BEYOND,
            "renewalRequest": {"value": "a", "servedTime": BEYOND},
            "formerSecrets": [{"name": "a", "replacedTime": BEYOND, "notAfter": BEYOND}],
            "conditions": [condition("Ready", BEYOND), condition("Other", "2030-01-01T00:00:00Z")],
            "serialNumber": "0A"
        }));
        let times = [
            status.not_before,
            status.not_after,
            status.renewal_time,
            status.next_attempt_time,
            status.renewal_request.and_then(|it| it.served_time),
            status.former_secrets[0].replaced_time.clone(),
            status.former_secrets[0].not_after.clone(),
        ];
        assert_eq!(times, [const { None }; 7]);
        assert_eq!(status.conditions.len(), 1);
        assert_eq!(status.serial_number.as_deref(), Some("0A"));
        let usual = read(json!({"notAfter": "2030-01-01T00:00:00Z", "notBefore": null}));
        assert!(usual.not_after.is_some() && usual.not_before.is_none());
    }

    #[test]
    fn lists_have_bounds() {
        let conditions: Vec<_> = (0..1000)
            .map(|number| condition(&format!("c{number}"), "2030-01-01T00:00:00Z"))
            .chain([condition(READY, "2030-01-01T00:00:00Z")])
            .collect();
        let formers: Vec<_> = (0..1000)
            .map(|number| json!({"name": format!("s{number}")}))
            .collect();
        let status = read(json!({"conditions": conditions, "formerSecrets": formers}));
        assert_eq!(status.conditions.len(), MAX_CONDITIONS);
        assert!(status.conditions.iter().any(|it| it.type_ == READY));
        assert_eq!(status.former_secrets.len(), MAX_FORMER_SECRETS);
        assert_eq!(status.former_secrets[9].name, "s999");
    }
}
