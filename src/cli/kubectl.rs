//! `kubectl pki`, the plugin: the rule book at the command line, and why a certificate is as it is.
//!
//! Checks and their output are pure functions: [`manifests::parse`] reads a file,
//! [`check::check`] judges what it has, [`output::render`] shows the findings. [`run`] does the I/O
//! around them; `src/bin/kubectl-pki.rs` is thin.

pub mod allowed_names;
pub mod check;
pub mod cli;
pub mod completion;
pub mod dry_run;
pub mod explain;
pub mod finding;
pub mod inspect;
pub mod manifests;
mod metadata;
pub mod output;
pub mod policies;
pub mod policy_test;
pub mod renew;
pub mod run;
pub mod schema;
pub mod sources;
pub mod status;
mod template;
mod values;
pub mod words;
