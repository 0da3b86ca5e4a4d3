//! X.509 for the operator: makes a certificate authority, signs leaves with it, and verifies that a
//! stored leaf still matches its request.
//!
//! # The model
//!
//! 1. An [`Authority`] is a certificate that may sign leaves, and its key:
//!    [generated](Authority::generate), or [read and checked](Authority::from_pem). One that exists
//!    can sign. Its public half, the [`CaCertificate`], knows the path to the root.
//! 2. A [`LeafRequest`] has names, usages, duration and kind of key.
//! 3. [`Authority::issue`] returns a [`Leaf`]: a new key and the certificate for it.
//!    [`Authority::issue_for`] certifies an existing key, and [`Authority::certify`] the
//!    [`PublicKey`] of somebody else.
//! 4. A [`Bundle`] is the stored leaf: `tls.crt` and `tls.key`. [`verify`] compares it with the
//!    request, the CAs and the time; a [`VerifyError`] is the reason to issue anew.
//! 5. [`Trust`] is `ca.crt`: the root of the CA, and while it is being replaced, those of both.
//! 6. [`renewal::at`] returns when a valid leaf is due, and [`renewal::with_jitter`] spreads the
//!    work.
//! 7. [`formats`] writes keys and certificates for programs without PEM, and verifies them.
//!
//! `issue` verifies its own result: `verify` accepts each new leaf, so that a controller built on
//! both does not issue again and again.
//!
//! ```
//! use jiff::{SignedDuration, Timestamp};
//! use pki_certs::{
//!     Authority, Bundle, KeyAlgorithm, KeyEncoding, LeafRequest, Trust, Usage, renewal, verify,
//! };
//!
//! let now = Timestamp::now();
//! let authority = Authority::generate("Example CA", SignedDuration::from_hours(87_600), now)?;
//! let request = LeafRequest {
//!     common_name: Some("app1.team-a.svc".to_owned()),
//!     former_common_name: None,
//!     dns_names: vec!["app1.team-a.svc".to_owned()],
//!     ip_addresses: vec![],
//!     uris: vec![],
//!     usages: vec![Usage::ServerAuth, Usage::ClientAuth],
//!     duration: SignedDuration::from_hours(2160),
//!     backdating: LeafRequest::BACKDATING,
//!     key: KeyAlgorithm::EcdsaP256,
//!     key_encoding: KeyEncoding::Pkcs8,
//! };
//! let leaf = authority.issue(&request, now)?;
//!
//! let bundle = Bundle {
//!     certificate: leaf.chain_pem.as_bytes(),
//!     private_key: leaf.private_key_pem.as_bytes(),
//! };
//! let verified = verify(&bundle, &request, &[authority.ca()], now)?;
//! let trust = Trust::of([authority.ca()]);
//! assert_eq!(trust.pem(), authority.ca().root_pem());
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
//! Readers and writers of PEM and PKCS#12 make copies that are not wiped.

mod authority;
mod authority_error;
mod bundle;
mod ca;
pub mod describe;
mod encoding;
pub mod formats;
mod key;
mod leaf;
mod names;
mod path;
mod public_key;
pub mod renewal;
mod request;
mod san;
mod trust;
mod usage;
mod validity;
mod verify_error;

pub use authority::Authority;
pub use authority_error::{AuthorityError, PathMember};
pub use bundle::{Bundle, Verified, recognize, verify};
pub use ca::CaCertificate;
pub use key::{KeyAlgorithm, KeyEncoding, PrivateKeyPem};
pub use leaf::{Certified, IssueError, Leaf};
pub use names::NameProblem;
pub use public_key::{CsrError, PublicKey};
pub use renewal::RenewBefore;
pub use request::LeafRequest;
pub use trust::{Trust, anchors};
pub use usage::Usage;
pub use verify_error::VerifyError;
