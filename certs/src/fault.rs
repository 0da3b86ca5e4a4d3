//! What can be wrong with a stored certificate, in words for the people who own it.

use jiff::Timestamp;

use crate::key::{KeyAlgorithm, KeyEncoding};
use crate::usage::Usage;

/// Why what lies in a Secret cannot stay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// `tls.crt` cannot be parsed, is empty, or holds anything else.
    #[error("tls.crt is not a readable certificate")]
    CertificateUnreadable,
    /// `tls.crt` holds more certificates or fewer than lie on the path to the root.
    #[error("tls.crt holds {found} certificates instead of {expected}")]
    ChainLength {
        /// How many there are.
        found: usize,
        /// How many there should be: the certificate itself, and those between it and the root.
        expected: usize,
    },
    /// What follows the certificate in `tls.crt` is not what lies between it and the root.
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
    /// A requested usage is absent.
    #[error("tls.crt is not for {usage}")]
    Usage {
        /// The usage.
        usage: Usage,
    },
    /// There is a usage that was not requested.
    #[error("tls.crt is also for {usage}, which is not requested")]
    ExtraUsage {
        /// The usage, in words or as an object identifier.
        usage: String,
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
    /// The key is encoded in another way than requested.
    #[error("tls.key is not encoded in {requested}")]
    KeyEncoding {
        /// The encoding requested.
        requested: KeyEncoding,
    },
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

/// The number of names that are listed of each kind. Anyone who may write the Secret chooses what
/// is in `tls.crt`.
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
    fn a_fault_stays_short_whatever_is_in_the_certificate() {
        let names: Vec<_> = (0..2500)
            .map(|n| format!("n{n}.{}", "a".repeat(300)))
            .collect();
        let fault = Fault::Names {
            missing: vec!["app1.ns.svc".to_owned()],
            extra: names.clone(),
        };
        let told = fault.to_string();
        assert!(told.len() < 1500, "{}", told.len());
        assert!(
            told.contains("; missing: app1.ns.svc; not requested: n0.aaa"),
            "{told}"
        );
        assert!(told.ends_with("… and 2495 more"), "{told}");
        let fault = Fault::CommonName {
            found: names.concat(),
            requested: None,
        };
        let told = fault.to_string();
        assert!(
            told.len() < 400 && told.ends_with("…\" instead of empty"),
            "{told}"
        );
        let fault = Fault::CommonName {
            found: String::new(),
            requested: Some("app1".to_owned()),
        };
        let told = "the subject of tls.crt is empty instead of \"CN=app1\"";
        assert_eq!(fault.to_string(), told);
    }
}
