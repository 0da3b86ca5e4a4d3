//! The image: the last stage of the Dockerfile around a static binary.

use anyhow::Context as _;
use pki_cluster::install::run;
use pki_cluster::{needs, workspace_dir};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository part of its name. No registry has it, so a node that lacks it says so.
pub(crate) const REPOSITORY: &str = "localhost/pki-operator";
/// The tag.
pub(crate) const TAG: &str = "e2e";

/// Builds the image in the new folder `dir`; the archive, as `docker save` writes it.
pub(crate) fn build(dir: &Path) -> anyhow::Result<PathBuf> {
    let stage = dir.join("build");
    fs::create_dir_all(&stage).with_context(|| format!("creating {}", stage.display()))?;
    fs::copy(build_binary()?, stage.join("pki-operator")).context("copying the binary")?;

    let name = format!("{REPOSITORY}:{TAG}");
    let archive = dir.join("image.tar");
    // The folder takes the place of the stage `build`, which compiles the same in a container.
    let context = format!("build={}", stage.display());
    let to = format!("docker-archive:{}:{name}", archive.display());
    let build = [
        "build",
        "--isolation=chroot",
        "--build-context",
        &context,
        "--tag",
        &name,
        ".",
    ];
    for arguments in [&build[..], &["push", &name, &to]] {
        run(buildah(dir).args(arguments))?;
    }
    Ok(archive)
}

/// The same binary as that of the other tests, linked again so that it needs no library:
/// dependencies are not compiled for it once more.
fn build_binary() -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace_dir()).args([
        "rustc",
        "--quiet",
        "--locked",
        "--package=pki-operator",
        "--bin=pki-operator",
        "--",
        "-Ctarget-feature=+crt-static",
        "-Cstrip=symbols",
    ]);
    run(&mut cargo)?;
    Ok(PathBuf::from(env!("CARGO_BIN_EXE_pki-operator")))
}

fn buildah(dir: &Path) -> Command {
    let mut buildah = Command::new("buildah");
    buildah.current_dir(workspace_dir());
    buildah
        .args(["--storage-driver=vfs", "--root"])
        .arg(dir.join("storage"));
    buildah.arg("--runroot").arg(dir.join("run"));
    buildah
}

/// Fails, with what to install, where an image cannot be built.
pub(crate) fn check() -> anyhow::Result<()> {
    needs::check(&[needs::BUILDAH])
}
