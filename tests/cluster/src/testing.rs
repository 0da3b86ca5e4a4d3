//! Tools of the tests: an API client, the audit log, manifests, and OpenSSL.
//!
//! Tests, benchmarks and the end-to-end tests use them; the demo does not, so they are behind the
//! feature `testing`.

pub use api::{Api, client};
pub use audit::{AuditLog, Request};
pub use kubectl::{kubectl, kubectl_with, result};
pub use openssl::{openssl, serial_of};
pub use wait::{PATIENCE, eventually, eventually_within};

pub mod manifest;

mod api;
mod audit;
mod kubectl;
mod openssl;
mod wait;
