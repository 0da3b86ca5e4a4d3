//! The operator against a real API server: one binary, one cluster and another to disturb, a module
//! for each part of the path.
//!
//! Each test has a namespace of its own, so that they can run side by side.
#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, also in what it shares with others"
)]

mod abuse;
mod admission;
mod admission_policy;
mod agreement;
mod annotations;
mod calls;
mod clock;
mod configuration;
mod costs;
mod crash;
mod crds;
mod events;
mod fairness;
mod fence;
mod guide;
mod harness;
mod hostile;
mod identity;
mod in_use;
mod issuance;
mod lifecycle;
mod lines;
mod load;
mod monitoring;
mod names;
mod namespaces;
mod ownership;
mod path;
mod plugin;
mod policies;
mod publishing;
mod random;
mod rbac;
mod refusals;
mod reload;
mod replicas;
mod restarts;
mod restore;
mod rotation;
mod schema;
mod self_test;
mod shutdown;
mod spoofing;
mod storm;
mod strangers;
mod table;
mod tenants;
mod traces;
mod transitions;
mod trouble;
mod trust;
mod upgrade;
mod verifiers;
mod waiting;
mod watches;
mod ways_in;
mod webhook;
