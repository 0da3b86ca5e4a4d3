//! X.509 for the operator: makes a certificate authority, signs leaves with it, and tells whether
//! what is stored still is what was asked for.
//!
//! # The model
//!
//! 1. An [`Authority`] is a certificate that may sign leaves, and its key:
//!    [generated](Authority::generate), or [read and checked](Authority::from_pem). One that exists
//!    can sign. Its public half, the [`CaCertificate`], knows the path to the root.
//! 2. A [`LeafRequest`] says what is wanted: names, usages, duration, kind of key.
//! 3. [`Authority::issue`] answers with a [`Leaf`]: a fresh key and the certificate for it.
//!    [`Authority::issue_for`] certifies a key there is.
//! 4. A [`Bundle`] is what was stored of it: `tls.crt` and `tls.key`. [`verify`] compares it with
//!    the request, the CAs and the time; the [`Fault`] it finds is the reason to issue anew. No
//!    fault, no issuance: whoever asks first never issues twice.
//! 5. [`Trust`] is what clients are to trust, `ca.crt`: the root of the CA, and while it is being
//!    replaced, those of both.
//! 6. [`renewal::at`] tells when a sound leaf is due, and [`renewal::with_jitter`] spreads the
//!    work.
//! 7. [`formats`] writes it all once more for programs that do not read PEM, and checks what lies
//!    there.
//!
//! `issue` passes its own result through `verify` before it hands it out, so the two cannot
//! disagree about what a good leaf is, and a controller built on both cannot issue in circles.
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
//! The copies that readers and writers of PEM and PKCS#12 make while they work are beyond reach.

mod alternative;
mod authority;
mod authority_error;
mod bundle;
mod ca;
pub mod describe;
mod encoding;
mod fault;
pub mod formats;
mod key;
mod leaf;
mod names;
mod path;
pub mod renewal;
mod request;
mod trust;
mod usage;
mod validity;

pub use authority::Authority;
pub use authority_error::{AuthorityError, PathMember};
pub use bundle::{Bundle, Verified, recognize, verify};
pub use ca::CaCertificate;
pub use fault::Fault;
pub use key::{KeyAlgorithm, KeyEncoding, PrivateKeyPem};
pub use leaf::{IssueError, Leaf};
pub use names::NameProblem;
pub use renewal::RenewBefore;
pub use request::LeafRequest;
pub use trust::{Trust, anchors};
pub use usage::Usage;
