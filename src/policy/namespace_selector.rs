//! The selector of namespaces in a policy.

use super::template;
use crate::api::{LabelOperator, NamespaceSelector};
use crate::util::text::printable;
use kube::core::{Expression, Selector};
use std::collections::BTreeSet;

/// The labels that a namespace must have. A selector that cannot be read selects none.
pub(super) fn selector(written: &NamespaceSelector) -> Selector {
    if !has_readable_labels(written) {
        return Selector::from_iter([Expression::In(String::new(), BTreeSet::new())]);
    }
    let labels = written.match_labels.clone().into_iter();
    let equal = labels.map(|(key, value)| Expression::Equal(key, value));
    let required = written.match_expressions.iter().map(|required| {
        let (key, values) = (required.key.clone(), required.values.clone());
        match required.operator {
            LabelOperator::In => Expression::In(key, values),
            LabelOperator::NotIn => Expression::NotIn(key, values),
            LabelOperator::Exists => Expression::Exists(key),
            LabelOperator::DoesNotExist => Expression::DoesNotExist(key),
        }
    });
    equal.chain(required).collect()
}

/// Whether each label that is written could be one.
pub(super) fn has_readable_labels(written: &NamespaceSelector) -> bool {
    let mut equal = written.match_labels.iter();
    let mut required = written.match_expressions.iter();
    equal.all(|(key, value)| label(key, [value]).is_none())
        && required.all(|each| label(&each.key, &each.values).is_none())
}

/// The reason why this cannot be a label with these values.
pub(super) fn label<'a>(key: &str, values: impl IntoIterator<Item = &'a String>) -> Option<String> {
    if !template::is_key(key) {
        return Some(format!(
            "\"{}\" is not a label key: write one such as team or example.com/team",
            printable(key)
        ));
    }
    let value = values
        .into_iter()
        .find(|value| !template::is_label_value(value))?;
    Some(format!(
        "\"{}\" cannot be the value of a label: write at most 63 letters, digits, '-', '_' and '.'",
        printable(value)
    ))
}
