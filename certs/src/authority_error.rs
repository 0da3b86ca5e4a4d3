//! Errors of making or reading an authority, for the people who run it.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use x509_parser::certificate::X509Certificate;

use crate::names::NameProblem;

/// Why an authority could not be made or read: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The common name of a new authority, and the rule that it breaks.
    #[error("the common name {0:?} of the CA {1}; choose another")]
    CommonName(String, NameProblem),
    /// A new authority would have no lifetime, or one that begins before 1970.
    #[error(
        "a CA cannot live for {lifetime:#} from {now}: give a lifetime of at least a second, \
         and check the clock"
    )]
    Lifetime {
        /// The requested lifetime.
        lifetime: SignedDuration,
        /// Its begin.
        now: Timestamp,
    },
    /// A certificate cannot be parsed.
    #[error(
        "the CA certificate is not readable; give X.509 certificates in PEM, that of the CA first"
    )]
    Unreadable,
    /// A separate root cannot be parsed.
    #[error("the root of the CA is not readable; give one X.509 certificate in PEM")]
    RootUnreadable,
    /// More than one root was given; their number.
    #[error("there are {0} certificates where the root of the CA belongs; give the root alone")]
    TooManyRoots(usize),
    /// The path has more certificates than clients follow; their number.
    #[error(
        "there are {0} certificates from the CA to its root, more than clients follow; \
         give a shorter path"
    )]
    TooManyCertificates(usize),
    /// More certificates follow this self-signed one.
    #[error(
        "certificates follow {0}, which is self-signed; give the CA certificate, those between \
         it and the root in order, and nothing after the root"
    )]
    AfterRoot(PathMember),
    /// The separate root is not the one at which the chain ends.
    #[error(
        "the chain of the CA ends with another root than the one given for it; \
         give the root that signed it"
    )]
    OtherRoot,
    /// The path ends here, before a root.
    #[error("{0} is not self-signed, and the root is missing; give the root too")]
    NoRoot(PathMember),
    /// The root is issued by another authority, or not signed with its own key.
    #[error("{0} is not self-signed; give the root itself")]
    NotSelfSigned(PathMember),
    /// A certificate was not issued by the next one, by name or by signature.
    #[error(
        "{which} is not signed by {next}; give the certificates in order, each followed by the \
         one that signed it"
    )]
    BrokenPath {
        /// The certificate.
        which: PathMember,
        /// The one that should have signed it.
        next: PathMember,
    },
    /// Clients refuse the signature of this certificate.
    #[error("{0} is signed with SHA-1, which clients refuse; have it signed with SHA-256")]
    Sha1(PathMember),
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
    /// `basicConstraints` of this certificate lacks CA.
    #[error("{0} is not that of a CA; make one with basicConstraints CA:TRUE")]
    NotAnAuthority(PathMember),
    /// `keyUsage` of this certificate does not allow signing certificates.
    #[error("{0} may not sign certificates; make one with keyUsage keyCertSign")]
    MayNotSign(PathMember),
    /// Leaves refer to their issuer by an identifier that is missing.
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
    /// A certificate has expired, at this time.
    #[error("{0} expired at {1}; replace it")]
    Expired(PathMember, Timestamp),
    /// A certificate is not valid yet, but from this time on.
    #[error("{0} is not valid before {1}; wait, or check the clock")]
    NotYetValid(PathMember, Timestamp),
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
