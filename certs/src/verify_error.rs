//! Faults of a stored certificate, described for its owner.

use jiff::Timestamp;

use crate::key::{KeyAlgorithm, KeyEncoding};
use crate::usage::Usage;

/// The reason why the content of a Secret must be issued anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// `tls.crt` cannot be parsed, is empty, or holds anything else.
    #[error("tls.crt is not a readable certificate")]
    CertificateUnreadable,
    /// `tls.crt` holds more certificates or fewer than the path to the root has.
    #[error("tls.crt holds {found} certificates instead of {expected}")]
    ChainLength {
        /// How many there are.
        found: usize,
        /// How many there should be: the certificate itself, and those between it and the root.
        expected: usize,
    },
    /// `tls.crt` holds other certificates than those between the leaf and the root.
    #[error("tls.crt holds other certificates than those between it and the root of its CA")]
    Chain,
    /// `tls.key` cannot be parsed, is empty, or holds anything else.
    #[error("tls.key is not a readable private key")]
    PrivateKeyUnreadable,
    /// The certificate names another issuer, by its name or by its key identifier.
    #[error("tls.crt was issued by another CA")]
    OtherIssuer,
    /// The certificate names this issuer, but its key did not sign it.
    #[error("tls.crt is not signed by the present CA")]
    Signature,
    /// The certificate expired at this time.
    #[error("tls.crt expired at {0}")]
    Expired(Timestamp),
    /// The certificate is valid from this time on.
    #[error("tls.crt is not valid before {0}")]
    NotYetValid(Timestamp),
    /// A requested usage is absent.
    #[error("tls.crt is not for {0}")]
    Usage(Usage),
    /// A usage was not requested: its name or object identifier.
    #[error("tls.crt is also for {0}, which is not requested")]
    ExtraUsage(String),
    /// Path validation fails for another reason, such as a name constraint: its name in webpki.
    #[error("tls.crt would be rejected by its peers: {0}")]
    Rejected(String),
    /// The key is that of another certificate.
    #[error("tls.key does not belong to tls.crt")]
    PrivateKeyMismatch,
    /// The key is of another kind than this one, which is requested.
    #[error("tls.key is not an {0} key")]
    KeyAlgorithm(KeyAlgorithm),
    /// The key is encoded in another way than this one, which is requested.
    #[error("tls.key is not encoded in {0}")]
    KeyEncoding(KeyEncoding),
    /// The subject is not just the requested common name.
    #[error("the subject of tls.crt is {} instead of {}", quoted(.found), subject(.requested.as_deref()))]
    CommonName {
        /// The subject found.
        found: String,
        /// The common name requested, if one was.
        requested: Option<String>,
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

/// Maximum number of listed names: anyone who may write the Secret chooses those in `tls.crt`.
const MAX_NAMES: usize = 5;
/// The number of characters that are shown of a name or a subject: that of the longest DNS name.
const MAX_CHARACTERS: usize = 253;

fn difference(missing: &[String], extra: &[String]) -> String {
    list("missing", missing) + &list("not requested", extra)
}

fn list(what: &str, names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let shown: Vec<_> = names.iter().take(MAX_NAMES).map(|name| cut(name)).collect();
    let more = match names.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("; {what}: {}{more}", shown.join(", "))
}

fn quoted(subject: &str) -> String {
    match subject {
        "" => "empty".to_owned(),
        subject => format!("{:?}", cut(subject)),
    }
}

fn subject(common_name: Option<&str>) -> String {
    common_name.map_or_else(|| quoted(""), |name| quoted(&format!("CN={name}")))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_short_for_any_certificate() {
        let names: Vec<_> = (0..2500)
            .map(|n| format!("n{n}.{}", "a".repeat(300)))
            .collect();
        let fault = VerifyError::Names {
            missing: vec!["app1.ns.svc".to_owned()],
            extra: names.clone(),
        };
        let message = fault.to_string();
        assert!(message.len() < 1500, "{}", message.len());
        assert!(
            message.contains("; missing: app1.ns.svc; not requested: n0.aaa"),
            "{message}"
        );
        assert!(message.ends_with("… and 2495 more"), "{message}");
        let fault = VerifyError::CommonName {
            found: names.concat(),
            requested: None,
        };
        let message = fault.to_string();
        assert!(
            message.len() < 400 && message.ends_with("…\" instead of empty"),
            "{message}"
        );
        let fault = VerifyError::CommonName {
            found: String::new(),
            requested: Some("app1".to_owned()),
        };
        let expected = "the subject of tls.crt is empty instead of \"CN=app1\"";
        assert_eq!(fault.to_string(), expected);
    }
}
