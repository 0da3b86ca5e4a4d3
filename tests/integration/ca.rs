//! The CAs, their rotation, and what clients trust.

pub(crate) mod rotation;
mod trust_bundles;
pub(crate) mod webhook_ca;
