//! The effective values of a Pki, and the origin of each, in lines for people.

use crate::api::Defaults;
use crate::policy::{Approved, EffectiveValue, Origin};
use crate::util::text::line;
use serde_json::Value;

/// One line for each value, with both where the certificate in use has another one.
pub(super) fn lines(approved: &Approved) -> Vec<String> {
    let next = approved.effective_values();
    let in_use = approved.in_force().effective_values();
    let policy = line(&approved.policy);
    let show = |value: &EffectiveValue| {
        let (field, next) = (value.field, with_origin(value, &policy));
        match in_use.iter().find(|other| other.field == field) {
            _ if field.starts_with("secretTemplate") => format!("{field}: {next}"),
            None => format!("{field}: {next} from the next renewal"),
            Some(now) if now.value != value.value => {
                let now = line(&now.value);
                format!("{field}: {now} until the next renewal, then {next}")
            }
            Some(_) => format!("{field}: {next}"),
        }
    };
    let mut lines: Vec<_> = next.iter().map(show).collect();
    let is_template = |value: &&EffectiveValue| value.field.starts_with("secretTemplate");
    let ending = in_use
        .iter()
        .filter(|value| !next.iter().any(|other| is_same(other, value)))
        .filter(|value| is_template(value) || value.field.starts_with("outputs"))
        .filter(|value| is_template(value) || !next.iter().any(|it| it.field == value.field));
    lines.extend(ending.map(|EffectiveValue { field, value, .. }| {
        format!("{field}: {} until the next renewal", line(value))
    }));
    lines
}

/// One line for each value that the status recorded.
pub(super) fn recorded(defaults: &Defaults) -> Vec<String> {
    let fields = serde_json::to_value(defaults).unwrap_or_default();
    let fields = fields.as_object().into_iter().flatten();
    fields
        .map(|(field, value)| match value {
            Value::String(text) => format!("{field}: {}", line(text)),
            value => format!("{field}: {}", line(&value.to_string())),
        })
        .collect()
}

fn is_same(one: &EffectiveValue, other: &EffectiveValue) -> bool {
    (one.field, &one.value) == (other.field, &other.value)
}

fn with_origin(value: &EffectiveValue, policy: &str) -> String {
    let origin = match value.origin {
        Origin::Spec => "from the Pki".to_owned(),
        Origin::Policy => format!("default of PkiPolicy {policy}"),
        Origin::BuiltIn => "built in".to_owned(),
        Origin::Recorded => "as the certificate was issued".to_owned(),
    };
    format!("{} ({origin})", line(&value.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Pki, PkiPolicy};
    use crate::policy::RuleBook;
    use serde_json::json;
    use std::sync::Arc;

    fn approved(spec: &Value, status: &Value) -> Approved {
        let policy: PkiPolicy = serde_json::from_value(json!({
            "apiVersion": "box.com/v1", "kind": "PkiPolicy", "metadata": {"name": "teams"},
            "spec": {
                "serviceNames": ["web"], "maxDuration": "720h",
                "defaults": {"usages": ["server auth"], "outputs": {"combinedPem": true}}
            }
        }))
        .unwrap();
        let pki: Pki = serde_json::from_value(json!({
            "apiVersion": "box.com/v1", "kind": "Pki",
            "metadata": {"namespace": "ns", "name": "web"}, "spec": spec, "status": status
        }))
        .unwrap();
        let rules = RuleBook::new(Arc::default(), [&policy]);
        rules.evaluate(&pki).expect("it is permitted")
    }

    #[test]
    fn each_value_is_listed_with_who_decides_it() {
        let spec = json!({"serviceName": "web", "privateKey": {"algorithm": "RSA"}});
        assert_eq!(
            lines(&approved(&spec, &json!(null))),
            [
                "duration: 720h (built in)",
                "renewBefore: 240h, a third of the duration (built in)",
                "usages: server auth (default of PkiPolicy teams)",
                "privateKey.algorithm: RSA (from the Pki)",
                "privateKey.size: 2048 (built in)",
                "privateKey.encoding: PKCS8 (built in)",
                "privateKey.rotationPolicy: Always (built in)",
                "outputs.combinedPem: true (default of PkiPolicy teams)",
            ]
        );
    }

    #[test]
    fn a_value_that_changes_at_the_next_renewal_is_listed_with_both() {
        let recorded = json!({
            "serialNumber": "0A", "policy": "teams",
            "defaults": {"duration": "240h", "usages": ["server auth", "client auth"], "outputs": {"derKey": true}}
        });
        let lines = lines(&approved(&json!({"serviceName": "web"}), &recorded));
        assert_eq!(
            lines,
            [
                "duration: 240h until the next renewal, then 720h (built in)",
                "renewBefore: 80h, a third of the duration until the next renewal, then 240h, a third of the duration (built in)",
                "usages: server auth, client auth until the next renewal, then server auth (default of PkiPolicy teams)",
                "privateKey.algorithm: ECDSA (built in)",
                "privateKey.size: 256 (built in)",
                "privateKey.encoding: PKCS8 (built in)",
                "privateKey.rotationPolicy: Always (built in)",
                "outputs.combinedPem: true (default of PkiPolicy teams) from the next renewal",
                "outputs.derKey: true until the next renewal",
            ]
        );
    }
}
