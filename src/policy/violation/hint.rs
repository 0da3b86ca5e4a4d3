//! A remedy for a refused service name.

use super::AllowedNames;
use crate::util::text::printable;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Hint {
    suggestion: Option<String>,
    /// The reason why a pattern that looks alike is not for the name.
    look_alike: Option<String>,
    is_elsewhere: bool,
    policy: String,
}

impl Hint {
    /// A hint about `name`, and the policy that comes nearest to allowing it. Those that
    /// allow it in other namespaces are not named: this namespace must not learn of them.
    pub(in crate::policy) fn new(
        name: &str,
        allowed: &AllowedNames,
        is_elsewhere: bool,
        policy: &str,
    ) -> Self {
        let suggestion = allowed.suggestion(name).map(str::to_owned);
        let look_alike = || allowed.look_alike(name);
        Self {
            look_alike: suggestion.is_none().then(look_alike).flatten(),
            suggestion,
            is_elsewhere,
            policy: policy.into(),
        }
    }

    /// The policy that comes nearest.
    pub(super) fn policy(&self) -> &str {
        &self.policy
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(look_alike) = &self.look_alike {
            write!(f, "; {look_alike}")?;
        }
        let elsewhere = "a PkiPolicy allows that name in another namespace";
        match (&self.suggestion, self.is_elsewhere) {
            (Some(name), false) => write!(f, "; did you mean \"{}\"?", printable(name)),
            (Some(name), true) => {
                let name = printable(name);
                write!(
                    f,
                    "; did you mean \"{name}\", or another namespace? {elsewhere}"
                )
            }
            (None, true) => write!(f, "; {elsewhere}: check the namespace"),
            (None, false) => write!(
                f,
                "; use one of these names, or ask the platform team to allow yours in PkiPolicy {}",
                printable(&self.policy)
            ),
        }
    }
}
