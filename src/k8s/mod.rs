//! Layer 3: the conventions of the Kubernetes API, as every controller needs them.

pub mod api_error;
pub mod ca_secret;
pub mod client;
pub mod clock;
pub mod lease;
pub mod object_key;
pub mod patch;
pub(crate) mod projection;
pub mod relist;
pub mod scope;
pub mod secret;
pub mod tolerant;
pub(crate) mod uids;
