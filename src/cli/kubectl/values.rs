//! The values that count for a Pki, and where each comes from, in lines for people.

use crate::api::Defaults;
use crate::policy::{Approved, EffectiveValue, Origin};
use crate::util::text::line;
use serde_json::Value;

/// One line for each value. Where the certificate that is in use has another one, both.
pub(super) fn lines(approved: &Approved) -> Vec<String> {
    let next = approved.effective_values();
    let in_use = approved.in_force().effective_values();
    let policy = line(&approved.policy);
    let mut lines: Vec<_> = next
        .iter()
        .map(|value| {
            let now = in_use.iter().find(|other| other.field == value.field);
            let is_text = value.field.starts_with("secretTemplate");
            let now = now.filter(|now| now.value != value.value && !is_text);
            let EffectiveValue { field, .. } = value;
            match now {
                Some(now) => format!(
                    "{field}: {} until the next renewal, then {}",
                    line(&now.value),
                    with_origin(value, &policy)
                ),
                None => format!("{field}: {}", with_origin(value, &policy)),
            }
        })
        .collect();
    let is_template = |value: &&EffectiveValue| value.field.starts_with("secretTemplate");
    let ending = in_use
        .iter()
        .filter(|value| !next.iter().any(|other| is_same(other, value)))
        .filter(|value| is_template(value) || value.field.starts_with("outputs"))
        .filter(|value| is_template(value) || !next.iter().any(|it| it.field == value.field));
    lines.extend(ending.map(|value| {
        let EffectiveValue { field, .. } = value;
        format!("{field}: {} until the next renewal", line(&value.value))
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
