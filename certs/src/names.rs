//! Checks names of a certificate. rcgen only checks that they are ASCII.

use std::net::Ipv4Addr;

/// The longest common name, in characters: `ub-common-name` of [RFC 5280, appendix A.1].
///
/// [RFC 5280, appendix A.1]: https://www.rfc-editor.org/rfc/rfc5280#appendix-A.1
const MAX_COMMON_NAME: usize = 64;
const MAX_DNS_NAME: usize = 253;
const MAX_LABEL: usize = 63;
/// Maximum length of a URI in bytes, which [SPIFFE ID, 2.3] asks readers to support.
///
/// [SPIFFE ID, 2.3]: https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md#23-maximum-spiffe-id-length
const MAX_URI: usize = 2048;

/// The reason why a certificate cannot have a name. Reads on after the name itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameProblem {
    /// The name is empty.
    #[error("is empty")]
    Empty,
    /// A common name beyond 64 characters.
    #[error("is longer than {MAX_COMMON_NAME} characters")]
    CommonNameTooLong,
    /// A common name that would not print.
    #[error("contains a control character")]
    ControlCharacter,
    /// A DNS name beyond 253 characters.
    #[error("is longer than {MAX_DNS_NAME} characters")]
    DnsNameTooLong,
    /// Two dots in a row, or one at either end.
    #[error("has an empty label: no dot may come first, last or twice in a row")]
    EmptyLabel,
    /// A label beyond 63 characters.
    #[error("has a label longer than {MAX_LABEL} characters")]
    LabelTooLong,
    /// A letter case or a character that DNS names are not written in.
    #[error("may hold only lower-case letters, digits, hyphens and dots")]
    Character,
    /// A label that begins or ends with a hyphen.
    #[error("has a label that begins or ends with a hyphen")]
    Hyphen,
    /// An asterisk that is not the whole left-most label, or has no domain after it.
    #[error("may hold an asterisk only as the whole first label, before a domain")]
    Wildcard,
    /// An address where a DNS name belongs.
    #[error("is an IP address: it belongs to the IP addresses")]
    IpAddress,
    /// A URI beyond 2048 bytes.
    #[error("is longer than {MAX_URI} characters")]
    UriTooLong,
    /// A URI with a character that must be percent-encoded.
    #[error(
        "may hold only the characters of a URI: percent-encode others, and spaces; \
         a percent sign needs two hexadecimal digits after it"
    )]
    UriCharacter,
    /// A URI that is relative.
    #[error("is not absolute: it must begin with a scheme and a colon, such as spiffe:")]
    UriScheme,
    /// A URI with nothing after its scheme.
    #[error("has nothing after its scheme")]
    UriRest,
    /// A URI with an authority that names no host.
    #[error("has no host after its two slashes")]
    UriHost,
}

pub(crate) fn check_common_name(name: &str) -> Result<(), NameProblem> {
    if name.is_empty() {
        Err(NameProblem::Empty)
    } else if name.chars().count() > MAX_COMMON_NAME {
        Err(NameProblem::CommonNameTooLong)
    } else if name.contains(char::is_control) {
        Err(NameProblem::ControlCharacter)
    } else {
        Ok(())
    }
}

pub(crate) fn check_dns_name(name: &str) -> Result<(), NameProblem> {
    if name.is_empty() {
        return Err(NameProblem::Empty);
    }
    if name.len() > MAX_DNS_NAME {
        return Err(NameProblem::DnsNameTooLong);
    }
    if name.parse::<Ipv4Addr>().is_ok() {
        return Err(NameProblem::IpAddress);
    }
    let host = name.strip_prefix("*.").unwrap_or(name);
    host.split('.').try_for_each(check_label)
}

/// Absolute, with something after the scheme, and with a host if it has an authority
/// ([RFC 5280, 4.2.1.6], [RFC 3986, 3]).
///
/// [RFC 5280, 4.2.1.6]: https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.6
/// [RFC 3986, 3]: https://www.rfc-editor.org/rfc/rfc3986#section-3
pub(crate) fn check_uri(uri: &str) -> Result<(), NameProblem> {
    if uri.is_empty() {
        return Err(NameProblem::Empty);
    }
    if uri.len() > MAX_URI {
        return Err(NameProblem::UriTooLong);
    }
    check_uri_characters(uri)?;
    let (scheme, rest) = uri.split_once(':').ok_or(NameProblem::UriScheme)?;
    let of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        || !scheme.bytes().all(of_scheme)
    {
        return Err(NameProblem::UriScheme);
    }
    if rest.is_empty() {
        return Err(NameProblem::UriRest);
    }
    match rest.strip_prefix("//") {
        Some(hierarchy) if host(hierarchy).is_empty() => Err(NameProblem::UriHost),
        _ => Ok(()),
    }
}

fn check_uri_characters(uri: &str) -> Result<(), NameProblem> {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
    let encoded = |after: &str| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let is_plain = uri.bytes().all(allowed) && uri.split('%').skip(1).all(encoded);
    is_plain.then_some(()).ok_or(NameProblem::UriCharacter)
}

/// The host of what follows the two slashes: without user, port and path.
fn host(hierarchy: &str) -> &str {
    let authority = hierarchy.split(['/', '?', '#']).next().unwrap_or_default();
    let address = authority.rsplit('@').next().unwrap_or_default();
    if address.starts_with('[') {
        return address;
    }
    address.split(':').next().unwrap_or_default()
}

fn check_label(label: &str) -> Result<(), NameProblem> {
    let ldh = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if label.is_empty() {
        Err(NameProblem::EmptyLabel)
    } else if label.contains('*') {
        Err(NameProblem::Wildcard)
    } else if !label.bytes().all(ldh) {
        Err(NameProblem::Character)
    } else if label.len() > MAX_LABEL {
        Err(NameProblem::LabelTooLong)
    } else if label.starts_with('-') || label.ends_with('-') {
        Err(NameProblem::Hyphen)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_names_of_lower_case_labels_are_accepted() {
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(61));
        assert_eq!(longest.len(), MAX_DNS_NAME);
        for name in [
            "app1",
            "app1.team-a.svc",
            "0.a",
            "a--b.c",
            "*.svc",
            "*.a.b.c",
            &longest,
        ] {
            assert_eq!(check_dns_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn other_dns_names_are_refused_with_their_problem() {
        let too_long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(62));
        let long_label = "a".repeat(64);
        for (name, problem) in [
            ("", NameProblem::Empty),
            (&too_long, NameProblem::DnsNameTooLong),
            (&long_label, NameProblem::LabelTooLong),
            (".", NameProblem::EmptyLabel),
            (".a", NameProblem::EmptyLabel),
            ("a.", NameProblem::EmptyLabel),
            ("a..b", NameProblem::EmptyLabel),
            ("*.", NameProblem::EmptyLabel),
            ("App1", NameProblem::Character),
            ("app_1", NameProblem::Character),
            ("app 1", NameProblem::Character),
            ("app\0.svc", NameProblem::Character),
            ("äpp", NameProblem::Character),
            ("[::1]", NameProblem::Character),
            ("-a.b", NameProblem::Hyphen),
            ("a-.b", NameProblem::Hyphen),
            ("*", NameProblem::Wildcard),
            ("*a.b", NameProblem::Wildcard),
            ("a.*.b", NameProblem::Wildcard),
            ("*.*.b", NameProblem::Wildcard),
            ("10.0.0.1", NameProblem::IpAddress),
        ] {
            assert_eq!(check_dns_name(name), Err(problem), "{name:?}");
        }
    }

    #[test]
    fn a_common_name_is_counted_in_characters_and_not_in_bytes() {
        assert_eq!(check_common_name(&"ä".repeat(64)), Ok(()));
        assert_eq!(
            check_common_name(&"ä".repeat(65)),
            Err(NameProblem::CommonNameTooLong)
        );
    }

    #[test]
    fn a_common_name_is_neither_empty_nor_unprintable() {
        assert_eq!(check_common_name(""), Err(NameProblem::Empty));
        assert_eq!(
            check_common_name("app\n1"),
            Err(NameProblem::ControlCharacter)
        );
    }

    #[test]
    fn absolute_uris_are_accepted() {
        let longest = format!("spiffe://example.com/{}", "a".repeat(2027));
        assert_eq!(longest.len(), MAX_URI);
        for uri in [
            "spiffe://example.com/ns/team-a/sa/app1",
            "https://user@example.com:8443/a%20b?c=d#e",
            "https://[2001:db8::1]/",
            "urn:example:app1",
            "mailto:app1@example.com",
            &longest,
        ] {
            assert_eq!(check_uri(uri), Ok(()), "{uri}");
        }
    }

    #[test]
    fn other_uris_are_refused_with_their_problem() {
        let too_long = format!("spiffe://example.com/{}", "a".repeat(2028));
        for (uri, problem) in [
            ("", NameProblem::Empty),
            (&*too_long, NameProblem::UriTooLong),
            ("spiffe://example.com/ä", NameProblem::UriCharacter),
            ("spiffe://example.com/a b", NameProblem::UriCharacter),
            ("spiffe://example.com/\0", NameProblem::UriCharacter),
            ("spiffe://example.com/%", NameProblem::UriCharacter),
            ("spiffe://example.com/%2", NameProblem::UriCharacter),
            ("spiffe://example.com/%2g", NameProblem::UriCharacter),
            ("app1", NameProblem::UriScheme),
            ("//example.com/app1", NameProblem::UriScheme),
            ("/a:b", NameProblem::UriScheme),
            ("1a:b", NameProblem::UriScheme),
            (":b", NameProblem::UriScheme),
            ("spiffe:", NameProblem::UriRest),
            ("spiffe://", NameProblem::UriHost),
            ("spiffe:///app1", NameProblem::UriHost),
            ("https://user@:443/", NameProblem::UriHost),
        ] {
            assert_eq!(check_uri(uri), Err(problem), "{uri:?}");
        }
    }
}
