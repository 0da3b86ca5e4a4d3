//! Signs the pod certificates of the signer `box.com/pki` (KEP-4317, Kubernetes 1.37).
//!
//! A kubelet makes a key on its node and asks for a certificate with a `PodCertificateRequest`. The
//! pod names a Pki of its namespace, which decides about names, usages and lifetime, as it does for
//! a Secret. Nothing of the request but its key is used. No key is in any object of the API.
//!
//! 1. A watch brings the requests, and `pending` keeps those that are open.
//! 2. `decision` decides on the caches: sign, deny, or wait for what can be cured.
//! 3. `attempt` signs and writes the status, which is the one write of an issuance. `controller`
//!    publishes an Event on a pod that waits.
//!
//! Only the leader signs. A status can be set once: the API server refuses a second one.

mod attempt;
mod controller;
mod decision;
mod event;
mod identities;
mod pending;
mod request;
mod sign;
mod view;

pub use attempt::Signer;
pub use controller::PodCertificateController;
pub(crate) use identities::Identities;
