//! Parts of the messages of violations.

use super::Violation;
use crate::api::KeyAlgorithm;
use crate::policy::key::Key;
use crate::util::text::{self, printable};
use std::fmt;

/// The message of conditions and Events about this Pki: each violation with its field, or one
/// sentence for a denied service name. Violations beyond this number of bytes are counted.
pub fn summary(pki: &str, violations: &[Violation], bytes: usize) -> String {
    if let [only] = violations
        && only.is_service_denial()
    {
        return text::cut(&only.to_string(), bytes);
    }
    let lines: Vec<_> = violations
        .iter()
        .map(|violation| format!("{}: {violation}", violation.field()))
        .collect();
    text::list(&format!("Pki {}: ", printable(pki)), &lines, bytes)
}

/// A further sentence, if there is one.
pub(super) fn after(sentence: Option<impl fmt::Display>) -> String {
    sentence.map_or_else(String::new, |sentence| format!("; {sentence}"))
}

/// The remedy for a key size. The fault may be the algorithm, which is often a default.
pub(super) fn size_remedy(algorithm: KeyAlgorithm, size: i32) -> String {
    let sizes = Key::sizes(algorithm).iter().map(ToString::to_string);
    let sizes: Vec<_> = sizes.collect();
    let [others @ .., last] = sizes.as_slice() else {
        return "leave size out, there is only one".into();
    };
    let mut algorithms = [KeyAlgorithm::Ecdsa, KeyAlgorithm::Rsa].into_iter();
    let other = algorithms.find(|other| Key::sizes(*other).contains(&size));
    let or = other.map(|other| format!(", or algorithm: {other}, which has this size"));
    let others = others.join(", ");
    format!("write {others} or {last}{}", or.unwrap_or_default())
}

/// A value in quotation marks, printable.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", printable(self.0))
    }
}
