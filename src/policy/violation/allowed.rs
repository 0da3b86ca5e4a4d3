//! A list of what would be permitted, short enough to be read.

use crate::policy::text::printable;
use std::fmt;

/// Allowed names, the nearest first where they are too many to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedNames {
    names: Vec<String>,
    more: usize,
}

impl AllowedNames {
    const LISTED: usize = 10;

    pub(super) fn nearest(mut names: Vec<String>, to: &str) -> Self {
        names.sort_unstable();
        names.dedup();
        let more = names.len().saturating_sub(Self::LISTED);
        if more > 0 {
            names.sort_by_cached_key(|name| strsim::osa_distance(name, to));
            names.truncate(Self::LISTED);
        }
        Self { names, more }
    }

    /// The name that was probably meant: one to three edits away, by length, so that short names are not guessed.
    pub(super) fn suggestion(&self, name: &str) -> Option<String> {
        let near = (name.len() / 3).clamp(1, 3);
        self.names
            .iter()
            .filter(|known| !known.contains('*'))
            .map(|known| (strsim::osa_distance(known, name), known))
            .filter(|(distance, _)| *distance <= near)
            .min()
            .map(|(_, known)| known.clone())
    }
}

impl fmt::Display for AllowedNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<_> = self.names.iter().map(|name| printable(name)).collect();
        write!(f, "[{}]", shown.join(" "))?;
        match self.more {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
