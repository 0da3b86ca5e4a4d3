//! The plugin `kubectl pki`: parses the command line, runs it, and ends with its exit status.

use clap::Parser;
use pki_operator::cli::kubectl::cli::PluginCli;
use pki_operator::cli::kubectl::run::{Verdict, run};
use std::io::{self, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = PluginCli::parse();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("nothing else installs a provider");
    match tokio_main(cli) {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::from(1),
        Err(error) => {
            // Without a reader, the exit status is enough.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn tokio_main(cli: PluginCli) -> anyhow::Result<Verdict> {
    Ok(run(cli).await?)
}
