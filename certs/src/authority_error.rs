//! Why an authority could not be made or read, in words for the people who run it.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use x509_parser::certificate::X509Certificate;

use crate::names::NameProblem;

/// Why an authority could not be made or read: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A new authority was to have an impossible name.
    #[error("the common name {name:?} of the CA {problem}; choose another")]
    CommonName {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: NameProblem,
    },
    /// A new authority was to have no lifetime, or one that begins before 1970.
    #[error(
        "a CA cannot live for {lifetime:#} from {now}: give a lifetime of at least a second, \
         and check the clock"
    )]
    Lifetime {
        /// The lifetime asked for.
        lifetime: SignedDuration,
        /// Where it was to begin.
        now: Timestamp,
    },
    /// A certificate cannot be parsed.
    #[error(
        "the CA certificate is not readable; give X.509 certificates in PEM, that of the CA first"
    )]
    Unreadable,
    /// The root that was given apart cannot be parsed.
    #[error("the root of the CA is not readable; give one X.509 certificate in PEM")]
    RootUnreadable,
    /// More than one root was given.
    #[error("there are {found} certificates where the root of the CA belongs; give the root alone")]
    TooManyRoots {
        /// How many there are.
        found: usize,
    },
    /// The path is longer than clients follow.
    #[error(
        "there are {found} certificates from the CA to its root, more than clients follow; \
         give a shorter path"
    )]
    TooManyCertificates {
        /// How many there are.
        found: usize,
    },
    /// There is more after a self-signed certificate.
    #[error(
        "certificates follow {root}, which is self-signed; give the CA certificate, those between \
         it and the root in order, and nothing after the root"
    )]
    AfterRoot {
        /// The self-signed one.
        root: PathMember,
    },
    /// The root that was given apart is not the one at which the chain ends.
    #[error(
        "the chain of the CA ends with another root than the one given for it; \
         give the root that signed it"
    )]
    OtherRoot,
    /// The path ends before it comes to a root.
    #[error("{end} is not self-signed, and the root is missing; give the root too")]
    NoRoot {
        /// Where it ends.
        end: PathMember,
    },
    /// Issued by another authority, or not signed with its own key.
    #[error("{root} is not self-signed; give the root itself")]
    NotSelfSigned {
        /// The certificate that was to be the root.
        root: PathMember,
    },
    /// A certificate was not issued by the next one, by name or by signature.
    #[error(
        "{which} is not signed by {next}; give the certificates in order, each followed by the \
         one that signed it"
    )]
    BrokenPath {
        /// The certificate.
        which: PathMember,
        /// The one that was to have signed it.
        next: PathMember,
    },
    /// A signature that clients refuse.
    #[error("{which} is signed with SHA-1, which clients refuse; have it signed with SHA-256")]
    Sha1 {
        /// The certificate.
        which: PathMember,
    },
    /// `pathLenConstraint` forbids the authorities below.
    #[error(
        "{which} allows a path length of {allowed}, but there are {below} CAs between it and the \
         leaves; make one with a greater pathLenConstraint, or sign with a CA nearer to it"
    )]
    PathLength {
        /// The certificate with the constraint.
        which: PathMember,
        /// How many authorities it allows below it.
        allowed: u32,
        /// How many there are.
        below: usize,
    },
    /// The private key cannot be parsed.
    #[error(
        "the private key of the CA is not readable; give it in PEM (PKCS#8, SEC 1 or PKCS#1), \
         not encrypted"
    )]
    PrivateKeyUnreadable,
    /// The private key is of a kind whose signatures too few clients accept.
    #[error(
        "the private key of the CA is of a kind not supported; use ECDSA P-256 or P-384, \
         RSA of 2048 to 8192 bits, or Ed25519"
    )]
    PrivateKeyUnsupported,
    /// The private key is that of another certificate.
    #[error(
        "the private key does not belong to the CA certificate; give the two that were made together"
    )]
    PrivateKeyMismatch,
    /// `basicConstraints` does not say CA.
    #[error("{which} is not that of a CA; make one with basicConstraints CA:TRUE")]
    NotAnAuthority {
        /// The certificate.
        which: PathMember,
    },
    /// `keyUsage` does not allow signing certificates.
    #[error("{which} may not sign certificates; make one with keyUsage keyCertSign")]
    MayNotSign {
        /// The certificate.
        which: PathMember,
    },
    /// There is nothing for leaves to refer to their issuer by.
    #[error(
        "the CA certificate has no subjectKeyIdentifier; make one with it, as RFC 5280 requires"
    )]
    NoSubjectKeyId,
    /// The subject cannot be copied faithfully into the issuer field of leaves.
    #[error(
        "the subject of the CA certificate is empty, has an attribute twice or two together, or \
         characters foreign to their string type; make one that has a common name, each attribute \
         once and alone, all in UTF8String"
    )]
    Subject,
    /// A certificate has ended.
    #[error("{which} expired at {not_after}; replace it")]
    Expired {
        /// The certificate.
        which: PathMember,
        /// When it ended.
        not_after: Timestamp,
    },
    /// A certificate has not begun.
    #[error("{which} is not valid before {not_before}; wait, or check the clock")]
    NotYetValid {
        /// The certificate.
        which: PathMember,
        /// When it begins.
        not_before: Timestamp,
    },
    /// The cryptographic library failed.
    #[error("the CA could not be made: {0}")]
    Generate(#[source] rcgen::Error),
}

/// A certificate on the path from an authority to its root. Reads as a noun.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathMember {
    /// The one that signs leaves, even if it is a root.
    Ca,
    /// One above it.
    Above {
        /// Its place on the path, the CA itself being the first.
        place: usize,
        /// Its subject.
        subject: String,
    },
}

impl PathMember {
    pub(crate) fn of(path: &[X509Certificate<'_>], index: usize) -> Self {
        match index {
            0 => Self::Ca,
            _ => Self::Above {
                place: index + 1,
                subject: path[index].subject().to_string(),
            },
        }
    }
}

impl fmt::Display for PathMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ca => f.write_str("the CA certificate"),
            Self::Above { place, subject } => {
                write!(f, "certificate {place} on the path of the CA ({subject:?})")
            }
        }
    }
}
