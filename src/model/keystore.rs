//! Why a keystore cannot be written.

use crate::k8s::secret::file;
use k8s_openapi::api::core::v1::Secret;
use pki_certs::formats;
use std::fmt;

/// As `keytool` has it.
const SHORTEST_PASSWORD: usize = 6;

/// Plenty; what a password costs grows with its length.
const LONGEST_PASSWORD: usize = 256;

/// Why a file cannot be made: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// There is no such Secret.
    #[error(
        "there is no Secret {secret} with the password of the keystores: create it, with the password as {key}"
    )]
    NoSecret {
        /// The Secret.
        secret: String,
        /// The entry in it.
        key: String,
    },
    /// The Secret has no such entry.
    #[error("Secret {secret} has no entry \"{key}\": put the password of the keystores there")]
    NoKey {
        /// The Secret.
        secret: String,
        /// The entry in it.
        key: String,
    },
    /// The password will not do.
    #[error(
        "{key} in Secret {secret} cannot be the password of a keystore, because it {problem}: write {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} printable ASCII characters{}", .problem.advice()
    )]
    Unsuitable {
        /// The Secret.
        secret: String,
        /// The entry in it.
        key: String,
        /// The first thing that is wrong with it.
        problem: PasswordProblem,
    },
    /// The keystore cannot be written.
    #[error(transparent)]
    Keystore(#[from] formats::FormatError),
}

/// Reason why a text cannot be a password. Messages show neither the text nor its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordProblem {
    /// The text ends in a line break, as after `echo`.
    LineBreak,
    /// Other tools read a character in another encoding.
    Character,
    /// The text is too short.
    Short,
    /// The text is too long.
    Long,
}

impl PasswordProblem {
    /// The first problem of a password.
    pub fn of(password: &[u8]) -> Option<Self> {
        match password {
            [.., b'\n' | b'\r'] => Some(Self::LineBreak),
            text if !text.iter().all(|c| (b' '..=b'~').contains(c)) => Some(Self::Character),
            text if text.len() < SHORTEST_PASSWORD => Some(Self::Short),
            text if text.len() > LONGEST_PASSWORD => Some(Self::Long),
            _ => None,
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::LineBreak => {
                " without it, as `kubectl create secret generic --from-literal` does"
            }
            _ => "",
        }
    }
}

impl fmt::Display for PasswordProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LineBreak => "ends in a line break",
            Self::Character => "has a character that is not printable ASCII",
            Self::Short => "is too short",
            Self::Long => "is too long",
        })
    }
}

/// A keystore that is wanted and cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmade {
    /// The file. Its truststore is not written either.
    pub file: &'static str,
    /// Whether one from before is in the Secret, which stays there.
    pub is_old: bool,
    /// Why it cannot be written.
    pub error: FormatError,
}

impl Unmade {
    /// The keystore of this name, as the Secret has it.
    pub fn of(name: &'static str, error: FormatError, observed: Option<&Secret>) -> Self {
        Self {
            file: name,
            is_old: observed.is_some_and(|secret| !file(secret, name).is_empty()),
            error,
        }
    }
}
