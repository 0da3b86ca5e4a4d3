//! X.509 for the operator: makes a certificate authority, signs leaves with it, and tells whether
//! what is stored still is what was asked for.
//!
//! # The model
//!
//! 1. An [`Authority`] is a self-signed root and its key: [generated](Authority::generate), or
//!    [read and checked](Authority::from_pem). One that exists can sign.
//! 2. A [`LeafRequest`] says what is wanted: names, duration, kind of key.
//! 3. [`Authority::issue`] answers with a [`Leaf`]: a fresh key and the certificate for it.
//! 4. A [`Bundle`] is what was stored of it: `tls.crt`, `tls.key`, `ca.crt`. [`verify`] compares it
//!    with the request, the authority and the time; the [`Fault`] it finds is the reason to issue
//!    anew. No fault, no issuance: whoever asks first never issues twice.
//! 5. [`renewal::at`] tells when a sound leaf is due.
//!
//! `issue` passes its own result through `verify` before it hands it out, so the two cannot
//! disagree about what a good leaf is, and a controller built on both cannot issue in circles.
//!
//! ```
//! use jiff::{SignedDuration, Timestamp};
//! use pki_certs::{Authority, Bundle, KeyAlgorithm, LeafRequest, renewal, verify};
//!
//! let now = Timestamp::now();
//! let authority = Authority::generate("Example CA", SignedDuration::from_hours(87_600), now)?;
//! let request = LeafRequest {
//!     common_name: "app1".to_owned(),
//!     dns_names: vec!["app1.team-a.svc".to_owned()],
//!     ip_addresses: vec![],
//!     duration: SignedDuration::from_hours(2160),
//!     key: KeyAlgorithm::EcdsaP256,
//! };
//! let leaf = authority.issue(&request, now)?;
//!
//! let bundle = Bundle {
//!     certificate: leaf.chain_pem.as_bytes(),
//!     private_key: leaf.private_key_pem.as_bytes(),
//!     authority: authority.certificate_pem().as_bytes(),
//! };
//! let verified = verify(&bundle, &request, &authority, now)?;
//! let due = renewal::at(verified.not_before, verified.not_after, None);
//! assert!(now < due && due < verified.not_after);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Purity
//!
//! The present is a parameter (`now`), and nothing here reads a file, a socket or a clock: the same
//! arguments give the same answer. The one exception is randomness, for keys and serial numbers.
//!
//! # Private keys
//!
//! A [`PrivateKeyPem`] is wiped from memory when dropped, and no `Debug` and no error prints a key.
//! The copies that PEM readers and writers make while they work are beyond reach.

mod authority;
mod bundle;
mod encoding;
mod fault;
mod key;
mod leaf;
mod names;
pub mod renewal;
mod validity;

pub use authority::{Authority, AuthorityError};
pub use bundle::{Bundle, Verified, verify};
pub use fault::Fault;
pub use key::{KeyAlgorithm, PrivateKeyPem};
pub use leaf::{IssueError, Leaf, LeafRequest};
pub use names::NameProblem;
