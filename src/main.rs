//! The operator's binary: parses the command line, sets up log and cryptography, and runs.

use anyhow::Context;
use pki_operator::api;
use pki_operator::cli::config::{Cli, Command, Config};
use pki_operator::cli::crd;
use pki_operator::cli::self_test;
use pki_operator::k8s::client::Access;
use pki_operator::observability::log;
use pki_operator::observability::traces;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    match run_cli() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", format_error_chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, but those of which it has told itself.
fn format_error_chain(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

fn run_cli() -> anyhow::Result<()> {
    let cli = Cli::read(std::env::args_os().collect()).unwrap_or_else(|error| error.exit());
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("nothing else installs a provider");
    match cli.command {
        Command::Run(config) => run(*config),
        Command::Crd { apply: true } => apply_crds(),
        Command::Crd { apply: false } => {
            print!("{}", api::crds_yaml());
            Ok(())
        }
        Command::SelfTest { namespace, admits } => test(&namespace, admits.as_deref()),
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(run_in_runtime(config));
    // A key that is being made, say, is not waited for.
    runtime.shutdown_background();
    ended
}

async fn run_in_runtime(config: Config) -> anyhow::Result<()> {
    log::init(config.log_format, &config.log_level).context("--log-level")?;
    let export = traces::init(config.otlp().as_ref())?;
    let shutdown = CancellationToken::new();
    tokio::spawn(on_signal(shutdown.clone())?);
    let ended = pki_operator::operator::run(config, shutdown).await;
    export.end().await;
    Ok(ended?)
}

#[tokio::main(flavor = "current_thread")]
async fn apply_crds() -> anyhow::Result<()> {
    let cluster = Access::default().connect().await?;
    crd::apply(&cluster.client, |what| println!("{what}")).await?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn test(namespace: &str, service: Option<&str>) -> anyhow::Result<()> {
    let cluster = Access::default().connect().await?;
    self_test::run(&cluster.client, namespace, service, |what| {
        println!("{what}");
    })
    .await?;
    Ok(())
}

/// Cancels `shutdown` on SIGTERM or Ctrl-C.
fn on_signal(shutdown: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_has_told_of_its_causes_is_not_told_again() {
        let file = std::io::Error::other("no such file");
        let read = anyhow::Error::new(file).context("cannot read ca.crt: no such file");
        assert_eq!(
            format_error_chain(&read),
            "cannot read ca.crt: no such file"
        );
        let flag = read.context("--otlp-ca");
        assert_eq!(
            format_error_chain(&flag),
            "--otlp-ca: cannot read ca.crt: no such file"
        );
    }
}
