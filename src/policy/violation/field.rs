//! The path of a field.

use std::fmt;

/// A field of a Pki, as its path is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    path: &'static str,
    index: Option<usize>,
}

impl Field {
    /// Without the index.
    pub(super) const fn path(self) -> &'static str {
        self.path
    }

    pub(in crate::policy) const fn of(path: &'static str) -> Self {
        Self { path, index: None }
    }

    pub(in crate::policy) const fn at(path: &'static str, index: usize) -> Self {
        Self {
            path,
            index: Some(index),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path)?;
        self.index.map_or(Ok(()), |index| write!(f, "[{index}]"))
    }
}
