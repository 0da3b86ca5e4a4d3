//! Programs of others that commands and tests call. They are looked for before anything starts, and
//! the error names the command that installs what is missing.

use std::fmt;

use anyhow::bail;

use crate::tools::find_on_path;

/// A program that has to be on `PATH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    program: &'static str,
    purpose: &'static str,
    install: &'static str,
}

/// Without `--locked`, cargo takes its newest dependencies, with which it does not build.
pub const OHA: Needed = Needed::new("oha", "asks the webhook", "cargo install --locked oha");
/// Prints and verifies certificates.
pub const OPENSSL: Needed = Needed::new(
    "openssl",
    "prints and verifies certificates",
    "apt-get install openssl",
);
/// Reads the metrics and the alerts.
pub const PROMETHEUS: Needed = Needed::new(
    "prometheus",
    "reads the metrics and the alerts",
    "apt-get install prometheus",
);
/// Puts load on the webhook.
pub const WRK: Needed = Needed::new("wrk", "puts load on the webhook", "apt-get install wrk");
/// Builds the image.
pub const BUILDAH: Needed = Needed::new("buildah", "builds the image", "apt-get install buildah");

impl Needed {
    const fn new(program: &'static str, purpose: &'static str, install: &'static str) -> Self {
        Self {
            program,
            purpose,
            install,
        }
    }
}

/// Fails with a line for each of these programs that is not on `PATH`.
pub fn check(all: &[Needed]) -> anyhow::Result<()> {
    let missing = all.iter().filter(|one| find_on_path(one.program).is_none());
    let missing: Vec<_> = missing.map(ToString::to_string).collect();
    if !missing.is_empty() {
        bail!(missing.join("\n"));
    }
    Ok(())
}

impl fmt::Display for Needed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            program,
            purpose,
            install,
        } = self;
        write!(f, "{program} is missing, which {purpose}: {install}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_that_is_missing_is_named_with_the_command_that_installs_it() {
        const SHELL: Needed = Needed {
            program: "sh",
            ..OHA
        };
        let missing = |program| Needed { program, ..OHA };
        assert!(check(&[SHELL]).is_ok());
        let [first, second] = ["no-such-program", "nor-this"].map(missing);
        let error = check(&[first, SHELL, second]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no-such-program is missing, which asks the webhook: cargo install --locked oha\n\
             nor-this is missing, which asks the webhook: cargo install --locked oha"
        );
    }
}
