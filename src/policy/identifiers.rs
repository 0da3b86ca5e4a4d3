//! IP addresses and URIs as certificates carry them, and the patterns that permit them.

use super::names;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};

/// A range of addresses: CIDR notation, or one address by itself.
pub fn range(text: &str) -> Option<IpNet> {
    let single = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(single)
}

/// The IPv4 address in an IPv4-mapped IPv6 one (RFC 4291, 2.5.5.2): both are judged alike.
pub(super) fn mapped(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map(IpAddr::V4),
        IpAddr::V4(_) => None,
    }
}

/// A URI with scheme and host in lower case (RFC 3986, 6.2.2.1). `None` for one with two readings:
/// dot segments, percent-encoding, a query, a fragment, user information or empty segments.
pub(super) fn uri(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once(':')?;
    let in_scheme = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.');
    let in_rest = |c: u8| c.is_ascii_alphanumeric() || b"-._~:/!$&'()+,;=".contains(&c);
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        || !scheme.bytes().all(in_scheme)
        || rest.is_empty()
        || !rest.bytes().all(in_rest)
        || text.len() > MAX_URI_BYTES
    {
        return None;
    }
    let scheme = scheme.to_ascii_lowercase();
    let Some(hierarchical) = rest.strip_prefix("//") else {
        // As in `urn:example:app1`: without a host and a relative path.
        return (!rest.contains('/')).then(|| format!("{scheme}:{rest}"));
    };
    let (host, path) = hierarchical.split_once('/').unwrap_or((hierarchical, ""));
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..");
    if host.is_empty()
        || host.starts_with(':')
        || !(path.is_empty() || path.split('/').all(is_segment))
        || !is_plain_host(host)
    {
        return None;
    }
    let host = host.to_ascii_lowercase();
    Some(match hierarchical.contains('/') {
        true if path.is_empty() => return None,
        true => format!("{scheme}://{host}/{path}"),
        false => format!("{scheme}://{host}"),
    })
}

/// Whether a host, with or without a port, is a name or a dotted IPv4 address. Readers disagree on
/// other numbers: 127.1, 2130706433 and 0x7f.1 are addresses to browsers (WHATWG URL, "ends in a
/// number").
fn is_plain_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_address = || name.parse::<Ipv4Addr>().is_ok();
    !port.contains(':') && (!names::looks_like_ip(&name.to_ascii_lowercase()) || is_address())
}

/// The host of a URI as [`uri`] gives it, without the port.
pub(super) fn host(uri: &str) -> Option<&str> {
    let (_, hierarchical) = uri.split_once("://")?;
    hierarchical.split(['/', ':']).next()
}

/// Whether a pattern permits a URI as [`uri`] gives it. `*` stands for one whole segment of the
/// path, and as the last one for one or more; never for a part of a segment, of the scheme or of
/// the host.
pub(super) fn uri_matches(pattern: &str, uri: &str) -> bool {
    let (pattern_root, pattern) = root(pattern);
    let (uri_root, path) = root(uri);
    // Without a host, only the scheme ignores case. (RFC 8141, 3.1, has more, to be spelled out.)
    let is_same = match pattern_root.split_once("://") {
        Some(_) => pattern_root.eq_ignore_ascii_case(uri_root),
        None => match (pattern_root.split_once(':'), uri_root.split_once(':')) {
            (Some((scheme, rest)), Some((uri_scheme, uri_rest))) => {
                scheme.eq_ignore_ascii_case(uri_scheme) && rest == uri_rest
            }
            _ => false,
        },
    };
    if !is_same || pattern_root.contains('*') {
        return false;
    }
    let mut segments = path.split('/').peekable();
    let mut pattern = pattern.split('/').peekable();
    while let Some(part) = pattern.next() {
        let Some(segment) = segments.next() else {
            return false;
        };
        if part == "*" && pattern.peek().is_none() {
            return !segment.is_empty();
        }
        if part != "*" && part != segment || segment.is_empty() && part == "*" {
            return false;
        }
    }
    segments.next().is_none()
}

/// Scheme and host, and the path. A URI without a host is all root up to its last colon.
pub(super) fn root(uri: &str) -> (&str, &str) {
    let after_scheme = uri.find("://").map(|at| at + 3);
    let split = match after_scheme {
        Some(host) => uri[host..].find('/').map(|at| host + at + 1),
        None => uri.rfind(':').map(|at| at + 1),
    };
    split.map_or((uri, ""), |at| uri.split_at(at))
}

/// Maximum length of a URI in bytes, that of SPIFFE (SPIFFE-ID, 2.3).
pub(super) const MAX_URI_BYTES: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_that_two_readers_could_take_for_two_is_none() {
        for (text, read) in [
            (
                "spiffe://Example.com/ns/a/app1",
                "spiffe://example.com/ns/a/app1",
            ),
            ("SPIFFE://example.com/ns", "spiffe://example.com/ns"),
            ("https://example.com", "https://example.com"),
            ("urn:example:app1", "urn:example:app1"),
            ("https://10.1.2.3:443/a", "https://10.1.2.3:443/a"),
            ("https://a.1b.:1/a", "https://a.1b.:1/a"),
        ] {
            assert_eq!(uri(text).as_deref(), Some(read));
        }
        for text in [
            "",
            "spiffe",
            "spiffe:",
            "spiffe://",
            "://a/b",
            "1a://b",
            "spiffe:///a",
            "spiffe://a/",
            "spiffe://a/b/",
            "spiffe://a//b",
            "spiffe://a/./b",
            "spiffe://a/../b",
            "spiffe://a/b/..",
            "spiffe://a/%2e%2e/b",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
            "spiffe://u@a/b",
            "spiffe://a/b c",
            "spiffe://a/ä",
            "spiffe://a/b\n",
            "spiffe://a/*",
            "urn:a/b",
            "https://127.1/a",
            "https://2130706433",
            "https://0x7f.0.0.1:443/a",
            "https://0177.0.0.1",
            "https://127.0.0.0X1.",
            "https://0::1/a",
            "https://0:0:0:0:0:0:0:1",
        ] {
            assert_eq!(uri(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_star_stands_for_whole_segments_of_the_path() {
        for (pattern, text) in [
            ("spiffe://e.com/ns/a/*", "spiffe://e.com/ns/a/app1"),
            ("spiffe://e.com/ns/a/*", "spiffe://e.com/ns/a/sa/app1"),
            ("spiffe://e.com/*/app1", "spiffe://e.com/a/app1"),
            ("spiffe://E.com/ns", "spiffe://e.com/ns"),
            ("https://e.com", "https://e.com"),
            ("urn:example:*", "urn:example:app1"),
        ] {
            assert!(uri_matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("spiffe://e.com/ns/a/*", "spiffe://e.com/ns/a"),
            ("spiffe://e.com/ns/a/*", "spiffe://e.com/ns/ab/app1"),
            ("spiffe://e.com/ns/a/*", "spiffe://e.com.evil/ns/a/app1"),
            ("spiffe://e.com/*/app1", "spiffe://e.com/a/b/app1"),
            ("spiffe://e.com/ap*", "spiffe://e.com/app1"),
            ("spiffe://*/app1", "spiffe://e.com/app1"),
            ("*", "spiffe://e.com/app1"),
            ("spiffe://e.com", "spiffe://e.com/app1"),
            ("https://e.com/a", "spiffe://e.com/a"),
            ("urn:example:Team:*", "urn:example:team:x"),
        ] {
            assert!(!uri_matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_range_is_cidr_or_one_address() {
        let contains = |r: &str, a: &str| range(r).unwrap().contains(&a.parse::<IpAddr>().unwrap());
        assert!(contains("10.0.0.0/8", "10.1.2.3"));
        assert!(contains("10.1.2.3", "10.1.2.3"));
        assert!(!contains("10.1.2.3", "10.1.2.4"));
        assert!(contains("2001:db8::/32", "2001:db8::1"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(range("10.0.0.0/33").is_none() && range("all").is_none());
    }
}
