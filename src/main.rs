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

/// The error and its causes, without those that its message contains.
fn format_error_chain(error: &anyhow::Error) -> String {
    let mut message = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
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
    // Threads that make a key, say, are not awaited.
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
    Ok(crd::apply(&cluster.client, |line| println!("{line}")).await?)
}

#[tokio::main(flavor = "current_thread")]
async fn test(namespace: &str, service: Option<&str>) -> anyhow::Result<()> {
    let cluster = Access::default().connect().await?;
    let on_line = |line: &str| println!("{line}");
    Ok(self_test::run(&cluster.client, namespace, service, on_line).await?)
}

/// Cancels `shutdown` on SIGTERM or Ctrl-C.
fn on_signal(shutdown: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
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
    fn a_cause_that_an_error_contains_is_not_repeated() {
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
