//! Explains, after the remedy of its field, why a value is malformed where that is easy to miss.

use crate::policy::punycode::ascii_name;
use crate::policy::{identifiers, names};
use crate::util::text::printable;
use std::net::IpAddr;

/// Maximum length of a name. Longer addresses are not explained.
const MAX_NAME: usize = 253;

/// Explains why this is no DNS name.
pub(super) fn dns_name(name: &str) -> Option<String> {
    let characters = name.chars().count();
    if characters > MAX_NAME {
        return Some(format!(
            "it has {characters} characters, and a name has at most {MAX_NAME}"
        ));
    }
    if let Some((_, rest)) = name.split_once("://") {
        return Some(match host_of(rest) {
            Some(host) => format!("it is a URI: write its host, {host}"),
            None => "it is a URI: write its host alone".into(),
        });
    }
    if address(name).is_some() {
        return Some("it is an IP address: write it into ipAddresses".into());
    }
    if let Some(letter) = name.chars().find(|c| !c.is_ascii()) {
        return Some(not_ascii(name, letter));
    }
    if let Some(host) = without_port(name) {
        return Some(format!("a name has no port: write {host}"));
    }
    labels(name)
}

/// The letters that are not ASCII may look like those that are.
fn not_ascii(name: &str, letter: char) -> String {
    let shown = printable(&letter.to_string());
    let code = u32::from(letter);
    let why = format!("'{shown}' is U+{code:04X}, which is not ASCII");
    match ascii_name(name) {
        Some(ascii) => format!("{why}: write {ascii}, which the policy must contain"),
        None => why,
    }
}

/// Explains the fault of a name in ASCII that has one in its labels.
fn labels(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let host = name.strip_prefix("*.").unwrap_or(name);
    let labels = || host.split('.');
    if host.contains('*') {
        return Some("'*' can only be the whole first label, as in *.example.com".into());
    }
    if name.contains(char::is_whitespace) {
        return Some("there is white space in it".into());
    }
    if labels().any(str::is_empty) {
        return Some("it has an empty label, before or between its dots".into());
    }
    if let Some(long) = labels().find(|label| label.len() > 63) {
        let length = long.len();
        return Some(format!(
            "a label has at most 63 characters, and one here has {length}"
        ));
    }
    if labels().any(|label| label.starts_with('-') || label.ends_with('-')) {
        return Some("a label must not begin or end with '-'".into());
    }
    let is_number = names::looks_like_ip(&host.to_ascii_lowercase());
    is_number
        .then(|| "its last label is a number, so clients read the name as an IP address".into())
}

/// Explains why this is no IP address.
pub(super) fn ip_address(text: &str) -> Option<String> {
    if text.len() > MAX_NAME {
        return None;
    }
    let range = text.split_once('/');
    if range.is_some_and(|(address, _)| is_address(address)) {
        return Some("it is a range: write single addresses".into());
    }
    if text.contains('%') {
        return Some("remove the zone after '%'".into());
    }
    if let Some(address) = address(text) {
        return Some(format!("write it without brackets and port: {address}"));
    }
    if let Some(decimal) = without_zeros(text) {
        return Some(format!(
            "some programs read numbers with a leading zero as octal: write {decimal}"
        ));
    }
    let folded = names::fold(text);
    let is_name = folded.contains('.') && names::is_certifiable(&folded);
    is_name.then(|| "it is a name: write it into dnsNames".into())
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// The address in a text that may have brackets and a port.
fn address(text: &str) -> Option<IpAddr> {
    let plain = text.parse().ok();
    let bracketed = || {
        let (inner, port) = text.strip_prefix('[')?.split_once(']')?;
        let is_port = port.strip_prefix(':').is_some_and(is_number);
        let inner = inner.parse().ok()?;
        (port.is_empty() || is_port).then_some(inner)
    };
    let with_port = || {
        let (address, port) = text.split_once(':')?;
        let address = address.parse().ok()?;
        is_number(port).then_some(address)
    };
    plain.or_else(bracketed).or_else(with_port)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit())
}

/// The IPv4 address whose numbers, read as decimal, are these.
fn without_zeros(text: &str) -> Option<IpAddr> {
    let parse = |number: &str| is_number(number).then(|| number.parse().ok()).flatten();
    let numbers: Option<Vec<u8>> = text.split('.').map(parse).collect();
    let numbers: [u8; 4] = numbers?.try_into().ok()?;
    Some(numbers.into())
}

/// The name before a port.
fn without_port(text: &str) -> Option<String> {
    let (host, port) = text.split_once(':')?;
    let host = names::fold(host);
    (is_number(port) && names::is_certifiable(&host)).then_some(host)
}

/// The host name at the beginning of what follows the scheme of a URI.
fn host_of(rest: &str) -> Option<String> {
    let host = rest.split(['/', '?', '#', ':']).next()?;
    let host = names::fold(host);
    names::is_certifiable(&host).then_some(host)
}

/// Explains why this is no URI for a certificate.
pub(super) fn uri(text: &str) -> Option<String> {
    let characters = text.chars().count();
    if characters > identifiers::MAX_URI_BYTES {
        let most = identifiers::MAX_URI_BYTES;
        return Some(format!(
            "it has {characters} characters, and a URI has at most {most}"
        ));
    }
    if let Some(letter) = text.chars().find(|c| !c.is_ascii()) {
        return Some(not_ascii("", letter));
    }
    let Some((_, rest)) = text.split_once(':') else {
        return Some("there is no scheme, as in https://example.com".into());
    };
    let why = match rest
        .chars()
        .find(|c| matches!(c, '?' | '#' | '%' | '@' | '*' | '['))
    {
        Some('?') => "there is a query after '?'",
        Some('#') => "there is a fragment after '#'",
        Some('%') => "there is an escape after '%'",
        Some('@') => "there is a user before '@'",
        Some('*') => "'*' is a wildcard only in policies",
        Some(_) => "its host is an IPv6 address: write a name",
        None => return of_hierarchy(rest).map(Into::into),
    };
    Some(why.into())
}

fn of_hierarchy(rest: &str) -> Option<&'static str> {
    let Some(rest) = rest.strip_prefix("//") else {
        let has_slash = rest.contains('/');
        return has_slash.then_some("there is a '/' in it, and no host after '//'");
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, "-"));
    let name = host.split(':').next().unwrap_or_default();
    let name = names::fold(name);
    if name.is_empty() {
        return Some("there is no host after '//'");
    }
    if path.is_empty() || path.ends_with('/') {
        return Some("there is a '/' at its end");
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Some("there is a segment '.' or '..' in its path");
    }
    (names::looks_like_ip(&name) && !is_address(&name))
        .then_some("programs disagree on what address its host is: write four decimal numbers")
}

/// Explains why a name of the certificate cannot be the common name.
pub(super) fn common_name(name: &str) -> Option<String> {
    let characters = name.chars().count();
    (characters > 64).then(|| format!("it has {characters} characters"))
}
