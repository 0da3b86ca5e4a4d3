//! A real Kubernetes control plane on this machine, for `cargo cluster`, the demo and the
//! integration tests.
//!
//! 1. [`tools`] finds the programs, or builds them once with Go into `target/cluster/bin`.
//! 2. [`Cluster::start`] makes certificates (`credentials.rs`) and starts etcd, kube-apiserver,
//!    kube-controller-manager and kube-scheduler (`control_plane.rs`) in a fresh directory under
//!    `target/cluster/run`, and waits until they work.
//! 3. With [`Options::node`], containerd, kubelet and kube-proxy make this machine a node
//!    (`node.rs`).
//! 4. A watchdog (`watchdog.sh`) outlives us: it ends every [`Process`] and removes the directory,
//!    also when we panic, are interrupted or killed.
//!
//! ```no_run
//! use pki_cluster::{Cluster, Options};
//!
//! let cluster = Cluster::start(Options::default())?;
//! cluster.kubectl().args(["get", "namespaces"]).status()?;
//! # anyhow::Ok(())
//! ```

mod cluster;
mod control_plane;
mod credentials;
pub mod install;
pub mod needs;
mod node;
pub mod pages;
mod paths;
mod ports;
mod process;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tools;
mod usage;
mod watchdog;

pub use cluster::{Cluster, Options, prepare};
pub use node::{PAUSE_IMAGE, check_node, remove_abandoned_node};
pub use paths::{target_dir, workspace_dir};
pub use process::{Process, Signal};
pub use usage::Usage;
