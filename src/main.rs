//! The operator's binary: parses the command line, sets up log and cryptography, and runs.

use anyhow::Context;
use clap::Parser;
use pki_operator::config::{Cli, Command, Config};
use pki_operator::log;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Crd => print!("{}", pki_operator::api::crds_yaml()),
        Command::Run(config) => run(*config)?,
    }
    Ok(())
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<()> {
    log::init(config.log_format, &config.log_level).context("--log-level")?;
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("nothing else installs a provider");
    let shutdown = CancellationToken::new();
    tokio::spawn(on_signal(shutdown.clone())?);
    pki_operator::run::run(config, shutdown).await?;
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
