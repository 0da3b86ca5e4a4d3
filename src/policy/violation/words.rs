//! What violations have in common when they are told.

use super::{Field, Violation};
use crate::api::KeyAlgorithm;
use crate::policy::text::{self, printable};
use crate::policy::wanted::Key;
use std::fmt;

/// What conditions and Events say of what is wrong with this Pki: each violation with its field, but Box's sentence,
/// which names both, as it is where it is all there is to say. What does not fit into so many bytes is counted.
pub fn summary(pki: &str, violations: &[Violation], bytes: usize) -> String {
    if let [only @ (Violation::ServiceName { .. } | Violation::NoPolicy { .. })] = violations {
        return text::cut(&only.to_string(), bytes);
    }
    let lines: Vec<_> = violations
        .iter()
        .map(|violation| format!("{}: {violation}", violation.field()))
        .collect();
    text::list(&format!("Pki {}: ", printable(pki)), &lines, bytes)
}

/// What to do about something that no policy permits: what is there by default cannot be removed.
pub(super) fn unpermitted_remedy(field: Field) -> &'static str {
    match field.path() {
        "spec.usages" | "spec.privateKey" => {
            "write what is permitted, or ask the platform team to permit it"
        }
        _ => "remove it, or ask the platform team to permit it",
    }
}

pub(super) fn size_remedy(algorithm: KeyAlgorithm) -> String {
    let sizes: Vec<_> = Key::sizes(algorithm)
        .iter()
        .map(ToString::to_string)
        .collect();
    match sizes.as_slice() {
        [] => "leave size out, there is but one".into(),
        [others @ .., last] => format!("write {} or {last}", others.join(", ")),
    }
}

/// A value in quotation marks, printable.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", printable(self.0))
    }
}
