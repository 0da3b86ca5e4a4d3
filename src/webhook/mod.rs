//! Layer 9: the admission webhook: the review of an object, and the server that answers with it.

pub mod review;
pub mod server;
