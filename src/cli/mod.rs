//! Layer 10: the command lines: settings, the CRDs, the self-test and the kubectl plugin.

pub mod config;
pub mod crd;
pub mod kubectl;
pub mod self_test;
