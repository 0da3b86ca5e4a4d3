//! The commands of `pki-operator` and `kubectl pki`.

mod configuration;
mod plugin;
mod self_test;
