//! The operator's binary: parses the command line, installs the cryptography, and runs.

use anyhow::Context;
use clap::Parser;
use pki_operator::config::{Cli, Command, Config, LogFormat};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Crd => print!("{}", pki_operator::api::crds_yaml()),
        Command::Run(config) => run(*config)?,
    }
    Ok(())
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<()> {
    // The runtime's own span says on every record what ours say in better words. And the client would write the whole body
    // of a response that it cannot read, with the keys in it: that no filter of the user's switches on again.
    let filter = format!(
        "kube_runtime=warn,{},kube_client::client=error",
        config.log_level
    );
    let filter = EnvFilter::try_new(filter).context("--log-level")?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
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
