//! What can be wrong with a stored certificate, in words for the people who own it.

use jiff::Timestamp;

use crate::key::KeyAlgorithm;

/// Why what lies in a Secret cannot stay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// `tls.crt` cannot be parsed, is empty, or holds anything else.
    #[error("tls.crt is not a readable certificate")]
    CertificateUnreadable,
    /// `tls.crt` holds certificates that were not issued for it.
    #[error("tls.crt holds {found} certificates instead of one")]
    NotOneCertificate {
        /// How many there are.
        found: usize,
    },
    /// `tls.key` cannot be parsed, is empty, or holds anything else.
    #[error("tls.key is not a readable private key")]
    PrivateKeyUnreadable,
    /// `ca.crt` cannot be parsed, or holds anything but certificates.
    #[error("ca.crt is not readable")]
    AuthorityUnreadable,
    /// `ca.crt` lacks the authority, so clients would not trust it.
    #[error("ca.crt does not contain the certificate of the present CA")]
    AuthorityMissing,
    /// The certificate names another issuer, by its name or by its key identifier.
    #[error("tls.crt was issued by another CA")]
    OtherIssuer,
    /// The certificate names this issuer, but its key did not sign it.
    #[error("tls.crt is not signed by the present CA")]
    Signature,
    /// The certificate has ended.
    #[error("tls.crt expired at {not_after}")]
    Expired {
        /// When it ended.
        not_after: Timestamp,
    },
    /// The certificate has not begun.
    #[error("tls.crt is not valid before {not_before}")]
    NotYetValid {
        /// When it begins.
        not_before: Timestamp,
    },
    /// One of the extended key usages is absent.
    #[error("tls.crt is not for {usage}")]
    Usage {
        /// The usage: `server authentication` or `client authentication`.
        usage: &'static str,
    },
    /// Path validation fails for another reason, such as a name constraint of the authority.
    #[error("tls.crt would be rejected by its peers: {reason}")]
    Rejected {
        /// The name the validator gives the reason.
        reason: String,
    },
    /// The key is that of another certificate.
    #[error("tls.key does not belong to tls.crt")]
    PrivateKeyMismatch,
    /// The key is of another kind than requested.
    #[error("tls.key is not an {requested} key")]
    KeyAlgorithm {
        /// The kind requested.
        requested: KeyAlgorithm,
    },
    /// The subject is not just the requested common name.
    #[error("the subject of tls.crt is {found:?} instead of \"CN={requested}\"")]
    CommonName {
        /// The subject found.
        found: String,
        /// The common name requested.
        requested: String,
    },
    /// The names and addresses are not exactly the requested ones.
    #[error("the names in tls.crt are not the requested ones{}", difference(.missing, .extra))]
    Names {
        /// Requested, but not there.
        missing: Vec<String>,
        /// There, but not requested.
        extra: Vec<String>,
    },
    /// The certificate was issued for another duration.
    #[error(
        "tls.crt ends at {not_after} instead of {requested}, where the requested duration ends"
    )]
    Duration {
        /// When it ends.
        not_after: Timestamp,
        /// When it should.
        requested: Timestamp,
    },
}

fn difference(missing: &[String], extra: &[String]) -> String {
    let list = |what, names: &[String]| match names {
        [] => String::new(),
        names => format!("; {what}: {}", names.join(", ")),
    };
    list("missing", missing) + &list("not requested", extra)
}
