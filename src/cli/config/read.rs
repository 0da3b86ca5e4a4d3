//! Reads a [`Cli`] from arguments, environment and file.

use super::{Cli, Command, ConfigError, error::flag, file};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};
use std::ffi::OsString;
use std::path::PathBuf;

impl Cli {
    /// Reads the command of this process from its arguments, its environment and their file.
    pub fn read(arguments: Vec<OsString>) -> Result<Self, ConfigError> {
        let given = matches(&arguments).map_err(|error| ConfigError::of(error, &arguments))?;
        let arguments = match given.subcommand_matches("run") {
            Some(given) => with_file(arguments, given)?,
            None => arguments,
        };
        let cli = Self::from_arg_matches(&matches(&arguments)?)?;
        if let Command::Run(config) = &cli.command {
            config.check()?;
        }
        Ok(cli)
    }
}

fn matches(arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
    Cli::command().try_get_matches_from(arguments)
}

/// The arguments, and the entries of the file that neither they nor the environment override.
fn with_file(
    mut arguments: Vec<OsString>,
    given: &ArgMatches,
) -> Result<Vec<OsString>, ConfigError> {
    let Some(path) = given.get_one::<PathBuf>("config") else {
        return Ok(arguments);
    };
    let file = path.display().to_string();
    let bytes = std::fs::read(path);
    let bytes = bytes.map_err(|error| ConfigError::Unreadable(file.clone(), error))?;
    let command = Cli::command();
    let command = command.find_subcommand("run").expect("it was given");
    let by_itself = |argument: &str| {
        let alone = ["pki-operator", "run", argument].map(OsString::from);
        // The environment may have a wrong value of another flag.
        let is_of_another = |error: &clap::Error| {
            flag(error).is_some_and(|flag| Some(flag) != argument.split('=').next())
        };
        match matches(&alone) {
            Err(error) if !is_of_another(&error) => Err(error),
            _ => Ok(()),
        }
    };
    let settings = file::settings(&file, &bytes, command, by_itself).map_err(ConfigError::File)?;
    let run = arguments.iter().skip(1).position(|it| it == "run");
    let after_run = run.map_or(arguments.len(), |index| index + 2);
    let is_open = |id: &str| {
        let source = given.value_source(id);
        source.is_none_or(|source| source == ValueSource::DefaultValue)
    };
    let open = settings.into_iter().filter(|it| is_open(it.id.as_str()));
    let open = open.map(|setting| setting.argument.into());
    arguments.splice(after_run..after_run, open);
    Ok(arguments)
}
