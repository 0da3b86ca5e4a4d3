//! Attacks of strangers and tenants.

mod abuse;
mod fence;
mod hostile_text;
mod namespaces;
mod rbac;
mod spoofing;
pub(crate) mod strangers;
mod tenants;
