//! The operator as a platform team runs it: its image on a real node, two replicas, installed from
//! the chart.
//!
//! These tests need root and packages, so they are run by name: `cargo test --test e2e -- --ignored
//! --nocapture`. There is one node on a machine, so they share it and take turns; what they measure
//! is printed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disruption;
mod image;
mod load;
mod node;
mod pages;
mod removal;
mod story;
