//! Layer 1: helpers that know nothing of Kubernetes and of certificates.

pub mod backoff;
pub mod hash;
pub mod rate_limit;
pub mod sync;
pub mod text;
pub mod time;
pub mod yaml;
