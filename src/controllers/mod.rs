//! Layer 9: what the leader does, one folder for each controller. No controller imports another.

pub mod ca;
pub mod clock;
pub mod ignored_metadata;
pub mod pki;
pub mod pod_certificate;
pub mod pod_hints;
pub mod policy_status;
pub mod rejected_pki;
pub mod restart;
pub mod trust_bundle;
