//! Labels and annotations as Kubernetes takes them, but for those that are not an application's to
//! set.

use super::violation::{Field, Violation};
use crate::api::SecretTemplate;
use crate::util::text::is_subdomain;

/// As in the schema.
const MOST: usize = 32;

/// Notes every key and value that cannot be used.
pub(super) fn check(template: &SecretTemplate, violations: &mut Vec<Violation>) {
    let labels = Field::of("spec.secretTemplate.labels");
    let annotations = Field::of("spec.secretTemplate.annotations");
    for (field, count) in [
        (labels, template.labels.len()),
        (annotations, template.annotations.len()),
    ] {
        if count > MOST {
            let most = MOST;
            violations.push(Violation::Count { field, count, most });
            return;
        }
    }
    for (key, value) in &template.labels {
        check_key(labels, key, violations);
        if !is_label_value(value) {
            violations.push(Violation::LabelValue {
                key: key.clone(),
                value: value.clone(),
            });
        }
    }
    for key in template.annotations.keys() {
        check_key(annotations, key, violations);
    }
}

fn check_key(field: Field, key: &str, violations: &mut Vec<Violation>) {
    let key = key.to_owned();
    if !is_key(&key) {
        violations.push(Violation::TemplateKeyShape { field, key });
    } else if is_reserved(&key) {
        violations.push(Violation::TemplateKeyReserved { field, key });
    }
}

/// The key of a label or annotation: a name, with a domain and a slash before it or without.
pub(crate) fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_qualified(name),
        None => is_qualified(key),
    }
}

pub(crate) fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_qualified(value)
}

/// Of the domains whose keys steer Kubernetes and this operator.
fn is_reserved(key: &str) -> bool {
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    ["kubernetes.io", "k8s.io", "box.com"].iter().any(|domain| {
        prefix
            .strip_suffix(domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// At most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends.
fn is_qualified(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let outer = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let bytes = name.as_bytes();
    name.len() <= 63
        && name.bytes().all(inner)
        && outer(bytes.first().copied())
        && outer(bytes.last().copied())
}
