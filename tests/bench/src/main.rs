//! `cargo cluster-bench`: what the operator takes, on a real Kubernetes, beside what its API server
//! takes at all.
//!
//! Each row is measured in the same run, on the same cluster, by the same clients, so that ratios
//! mean something on any machine. Everything is repeated in rounds, and the spread is printed with
//! it.

use crate::report::Report;
use crate::stage::Stage;
use clap::Parser;
use pki_cluster::{Options, needs};

mod clients;
mod plot;
mod report;
mod rows;
mod stage;

/// Measures the operator on a Kubernetes that it starts, and stops again.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo cluster-bench")]
struct Arguments {
    /// How many Pkis, Secrets and pods; several are measured one after another
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    objects: Vec<usize>,

    /// How often everything is repeated, on a fresh cluster each time
    #[arg(long, default_value = "1")]
    rounds: usize,

    /// Only rows whose names contain this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    needs::check(&[needs::OHA])?;
    pki_cluster::prepare(Options::default())?;
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("nothing else installs a provider");
    eprintln!("Building the operator, optimized; the first time takes some minutes.");
    let binary = pki_cluster::install::build_operator(pki_cluster::install::Profile::Release)?;
    let mut report = Report::default();
    for round in 1..=arguments.rounds {
        for &objects in &arguments.objects {
            eprintln!("Round {round} of {}, {objects} objects.", arguments.rounds);
            let mut stage = Stage::start(&binary, objects).await?;
            rows::measure(&mut stage, &arguments.only, |row| {
                eprintln!("  {}", row.line());
                report.add(row);
            })
            .await?;
        }
    }
    println!("{}\n{}", report.table(), report.growth());
    let written = report.write()?;
    println!("written: {}", written.display());
    Ok(())
}
