//! The operator against a real API server: one binary, one cluster and another to disturb, a module
//! for each part of the path.
//!
//! Each test has a namespace of its own, so that they can run side by side.
#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, also in what it shares with others"
)]

mod admission;
mod ca;
mod chart;
mod cli;
mod events;
mod ha;
mod harness;
mod issuance;
mod pages;
mod security;
