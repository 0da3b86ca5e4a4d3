//! Errors of the configuration. Each names the flag, the variable, or the file and its key.

use super::Cli;
use crate::util::text::printable;
use crate::util::yaml::Position;
use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use jiff::SignedDuration;
use std::error::Error as _;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The command line is wrong, or asks for help.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// A variable has a value that its flag refuses.
    #[error("environment variable {0}: {1}")]
    Environment(String, FlagRefusal),
    /// The file cannot be read.
    #[error(
        "cannot read {0}: {1}; name a file with --config or PKI_OPERATOR_CONFIG, or leave both out"
    )]
    Unreadable(String, #[source] io::Error),
    /// The file has faults.
    #[error("{}", lines(.0))]
    File(Vec<FileFault>),
    /// Values that are valid by themselves conflict.
    #[error("{}", lines(.0))]
    Conflicts(Vec<Conflict>),
}

impl ConfigError {
    /// The error of clap about these arguments and the environment.
    pub(super) fn of(error: clap::Error, arguments: &[OsString]) -> Self {
        let Some(refusal) = FlagRefusal::of(&error) else {
            return error.into();
        };
        match variable(&error, arguments) {
            Some(name) => Self::Environment(name, refusal),
            None => error.into(),
        }
    }

    /// Prints the error and ends the process as clap does: with status 2, or with 0 after `--help`.
    pub fn exit(&self) -> ! {
        if let Self::CommandLine(error) = self {
            error.exit();
        }
        for line in self.to_string().lines() {
            anstream::eprintln!("error: {line}");
        }
        std::process::exit(2)
    }
}

/// The flag of an error of clap.
pub(super) fn flag(error: &clap::Error) -> Option<&str> {
    match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(flag) => flag.split(' ').next(),
        _ => None,
    }
}

/// The variable with the value of an error of clap, if no argument has its flag.
fn variable(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let flag = flag(error)?;
    let has_flag = |argument: &OsString| {
        let argument = argument.to_string_lossy();
        let rest = argument.strip_prefix(flag);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    if arguments.iter().any(has_flag) {
        return None;
    }
    let command = Cli::command();
    let mut flags = command.find_subcommand("run")?.get_arguments();
    let flag = flags.find(|known| known.get_long() == flag.strip_prefix("--"))?;
    Some(flag.get_env()?.to_string_lossy().into_owned())
}

/// A value that a flag refuses, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagRefusal {
    value: String,
    expected: String,
}

impl FlagRefusal {
    pub(super) fn of(error: &clap::Error) -> Option<Self> {
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.clone()),
            _ => None,
        };
        let expected = match error.kind() {
            ErrorKind::ValueValidation => error.source()?.to_string(),
            ErrorKind::InvalidValue => match error.get(ContextKind::ValidValue)? {
                ContextValue::Strings(values) => format!("write one of: {}", values.join(", ")),
                _ => return None,
            },
            _ => return None,
        };
        Some(Self {
            value: text(ContextKind::InvalidValue)?,
            expected,
        })
    }
}

impl fmt::Display for FlagRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, expected } = self;
        write!(f, "\"{}\" cannot be used: {expected}", printable(value))
    }
}

/// A fault in a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{at}: {message}", printable(file))]
pub struct FileFault {
    pub(super) file: String,
    pub(super) at: Position,
    pub(super) message: String,
}

/// Values that conflict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// Two objects of one kind would have one name.
    #[error(
        "--ca-secret and --{flag} both name the {kind} \"{name}\": give each a name of its own"
    )]
    OneName {
        /// The other flag, without dashes.
        flag: &'static str,
        /// The kind of object.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// Both listeners would have one port.
    #[error(
        "--listen ({listen}) and --metrics-listen ({metrics}) have one port: give each a port of its own"
    )]
    OnePort {
        /// Where to answer admission.
        listen: SocketAddr,
        /// Where to serve health and metrics.
        metrics: SocketAddr,
    },
    /// A rotation of the CA would not end in time.
    #[error(
        "--ca-lifetime-hours and --ca-step-seconds: a CA of {lifetime:#} cannot be replaced in steps of {step:#}, because the next CA \
         would sign before it is published: make the lifetime at least nine steps long"
    )]
    CaSteps {
        /// How long it is to live.
        lifetime: SignedDuration,
        /// How long a step takes.
        step: SignedDuration,
    },
}

fn lines<T: fmt::Display>(faults: &[T]) -> String {
    let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
