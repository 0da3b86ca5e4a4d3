//! Layer 5: plain data that several layers share.

pub mod ca;
pub mod ca_state;
pub mod event;
pub mod fair;
pub mod keystore;
pub mod outcome;
pub mod output;
pub mod pod_certificate;
pub mod pod_leaves;
pub mod renewal_request;
pub mod rollout;
pub mod trust_bundle;
