//! The pause image, made of one static program: nothing is pulled from a registry.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use aws_lc_rs::digest;
use serde_json::json;

use super::PAUSE_IMAGE;

/// Writes the image as an archive, as `docker save` would, into the new folder `dir`.
pub(super) fn write(program: &Path, dir: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir(dir).with_context(|| format!("creating {}", dir.display()))?;
    fs::copy(program, dir.join("pause")).context("copying the program")?;
    tar(dir, "layer.tar", &["pause"])?;

    let layer = fs::read(dir.join("layer.tar")).context("reading the layer")?;
    let digest = digest::digest(&digest::SHA256, &layer);
    let digest: Vec<_> = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest.concat())]},
    });
    let manifest = json!([{
        "Config": "config.json",
        "RepoTags": [PAUSE_IMAGE],
        "Layers": ["layer.tar"],
    }]);
    fs::write(dir.join("config.json"), config.to_string()).context("writing the image")?;
    fs::write(dir.join("manifest.json"), manifest.to_string()).context("writing the image")?;
    tar(
        dir,
        "image.tar",
        &["manifest.json", "config.json", "layer.tar"],
    )?;
    Ok(dir.join("image.tar"))
}

/// The name that images have for the architecture of this machine.
fn architecture() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn tar(dir: &Path, archive: &str, files: &[&str]) -> anyhow::Result<()> {
    let mut tar = Command::new("tar");
    tar.current_dir(dir).args(["-cf", archive]).args(files);
    if !tar.status().context("starting tar")?.success() {
        bail!("tar did not write {}", dir.join(archive).display());
    }
    Ok(())
}
