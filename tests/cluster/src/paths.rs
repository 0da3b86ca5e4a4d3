//! Where things are kept: everything this crate writes is below `target/cluster`.

use std::path::{Path, PathBuf};

/// The folder `target/cluster` of this workspace (`$CARGO_TARGET_DIR/cluster` where that is set).
pub fn target_dir() -> PathBuf {
    cargo_target_dir().join("cluster")
}

/// Where Cargo builds.
pub(crate) fn cargo_target_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace_dir().join(target)
}

/// The root of this workspace.
pub fn workspace_dir() -> &'static Path {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = crate_dir.ancestors().nth(2);
    root.expect("this crate is two folders below the workspace root")
}
