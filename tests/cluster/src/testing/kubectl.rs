//! `kubectl`, for what people read of it.

use std::io::Write as _;
use std::process::{Output, Stdio};

use anyhow::Context as _;

use crate::Cluster;

/// Runs `kubectl`: its standard output, or its standard error as the error.
pub fn kubectl(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<String> {
    let output = cluster.kubectl().args(arguments).output();
    result(&output.context("starting kubectl")?)
}

/// Runs `kubectl` with `input` as its standard input.
pub fn kubectl_with(cluster: &Cluster, input: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut kubectl = cluster.kubectl();
    let pipes = kubectl.args(arguments).stdin(Stdio::piped());
    let spawned = pipes.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.context("starting kubectl")?;
    let mut stdin = child.stdin.take().context("standard input is piped")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    result(&child.wait_with_output()?)
}

/// The standard output of a program that has ended well, or its standard error as the error.
pub fn result(output: &Output) -> anyhow::Result<String> {
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        anyhow::bail!("{}", String::from_utf8_lossy(&output.stderr).trim())
    }
}
