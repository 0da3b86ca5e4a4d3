//! Explains why a value that looks like a permitted one is not permitted, in bounded time.

use crate::policy::identifiers::{host, root};
use crate::policy::names;
use crate::util::text::printable;
use ipnet::IpNet;
use std::net::IpAddr;

/// Maximum length in bytes of an explained URI or pattern. A DNS name has at most 253.
const MAX_URI_BYTES: usize = 512;

/// Explains why no pattern permits a folded DNS name. `own` is the name of the Service.
pub(super) fn dns_name(name: &str, own: &str, patterns: &[String]) -> Option<String> {
    let inside = inside_the_cluster(name, own);
    inside.or_else(|| {
        patterns
            .iter()
            .find_map(|pattern| of_pattern(name, pattern))
    })
}

/// Pods reach a Service by shorter names as well, which may be names on the internet too.
fn inside_the_cluster(name: &str, own: &str) -> Option<String> {
    let short = own.strip_suffix(".svc")?;
    if name == short {
        return Some(format!(
            "inside the cluster the name is {own}, which the certificate always includes"
        ));
    }
    let below = name.strip_suffix(short)?.strip_suffix('.')?;
    names::is_pod(below).then(|| format!("write {below}.{own} for a name inside the cluster"))
}

/// Compares a permitted pattern and a name, label by label.
fn of_pattern(name: &str, pattern: &str) -> Option<String> {
    let tail = pattern.rsplit('*').next().unwrap_or(pattern);
    if pattern.contains('*') && !name.ends_with(tail) && tail.strip_prefix('.') != Some(name) {
        return None;
    }
    let (labels, parts): (Vec<_>, Vec<_>) =
        (name.split('.').collect(), pattern.split('.').collect());
    let shown = printable(pattern);
    if labels.len() != parts.len() {
        return is_stretched(name, pattern).then(|| {
            let (here, there) = (labels.len(), parts.len());
            format!(
                "'*' matches exactly one label: {shown} has {there} labels, and this name has {here}"
            )
        });
    }
    let pairs = || parts.iter().zip(&labels);
    if pairs().all(|(part, label)| *part == "*" || part == label) {
        let mut under_star = pairs().filter(|(part, _)| **part == "*");
        return match under_star.find(|(_, label)| label.starts_with("xn--")) {
            Some((_, label)) => Some(format!(
                "'*' matches no internationalized label (xn--): the policy must contain {label}"
            )),
            None => Some(format!("'*' in {shown} does not match the last label")),
        };
    }
    if pairs().all(|(part, label)| part == label || names::glob_matches(part, label)) {
        return Some(format!(
            "'*' in {shown} does not match a part of a label: use '*' for a whole label in the policy"
        ));
    }
    let is_rest = pairs()
        .skip(1)
        .all(|(part, label)| *part == "*" || part == label);
    let is_wild = labels.len() > 1 && labels[0] == "*" && is_rest;
    is_wild.then(|| format!("'*' in a name needs a '*' in the policy, and {shown} has none"))
}

/// Whether each `*` would have to stand for several labels, or for none.
fn is_stretched(name: &str, pattern: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('*') else {
        return false;
    };
    let after = rest.rsplit_once('*').map_or(rest, |(_, after)| after);
    let is_whole = pattern
        .split('.')
        .all(|part| part == "*" || !part.contains('*'));
    let inner = name
        .strip_prefix(before)
        .and_then(|rest| rest.strip_suffix(after));
    let is_without = before.is_empty() && after.strip_prefix('.') == Some(name);
    is_whole && (is_without || inner.is_some_and(|inner| !inner.is_empty()))
}

/// Explains why none of these ranges has an address.
pub(super) fn ip_address(address: IpAddr, ranges: &[IpNet]) -> Option<String> {
    let is_same = |range: &&IpNet| range.addr().is_ipv4() == address.is_ipv4();
    if !ranges.is_empty() && !ranges.iter().any(|range| is_same(&range)) {
        let (this, those) = if address.is_ipv4() { (4, 6) } else { (6, 4) };
        return Some(format!(
            "it is an IPv{this} address, and the permitted ones are IPv{those}"
        ));
    }
    let near = ranges.iter().filter(is_same);
    let near = near.filter(|range| range.prefix_len() != range.max_prefix_len());
    let nearest = near.max_by_key(|range| common_bits(range.network(), address))?;
    let is_near = common_bits(nearest.network(), address) >= nearest.max_prefix_len() / 4;
    is_near.then(|| {
        format!(
            "{nearest} is {} to {}",
            nearest.network(),
            nearest.broadcast()
        )
    })
}

/// How many bits at the beginning two addresses of one family have in common.
fn common_bits(one: IpAddr, other: IpAddr) -> u8 {
    let bits = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => 0,
    };
    u8::try_from(bits).unwrap_or_default()
}

/// Explains why no pattern permits a URI that [`uri`](crate::policy::identifiers::uri) returned.
pub(super) fn uri(uri: &str, patterns: &[String]) -> Option<String> {
    if uri.len() > MAX_URI_BYTES {
        return None;
    }
    let mut short = patterns
        .iter()
        .filter(|pattern| pattern.len() <= MAX_URI_BYTES);
    short.find_map(|pattern| of_uri_pattern(uri, pattern))
}

fn of_uri_pattern(uri: &str, pattern: &str) -> Option<String> {
    let ((here, path), (there, parts)) = (root(uri), root(pattern));
    let shown = printable(pattern);
    let (here, there) = (here.trim_end_matches('/'), there.trim_end_matches('/'));
    let why = if !here.eq_ignore_ascii_case(there) {
        of_hosts(here, there)?
    } else if host(uri).is_none() && after_scheme(here) != after_scheme(there) {
        "it is case-sensitive"
    } else {
        of_paths(path, parts)?
    };
    Some(format!("{shown} does not match, because {why}"))
}

fn after_scheme(root: &str) -> Option<&str> {
    root.split_once(':').map(|(_, rest)| rest)
}

/// The difference between two roots of URIs that have one scheme and look alike.
fn of_hosts(here: &str, there: &str) -> Option<&'static str> {
    let (scheme, here) = here.split_once("://")?;
    let (other, there) = there.split_once("://")?;
    if !scheme.eq_ignore_ascii_case(other) {
        return None;
    }
    let there = there.to_ascii_lowercase();
    let without_port = |authority: &str| authority.split(':').next().unwrap_or_default().to_owned();
    let (name, permitted) = (without_port(here), without_port(&there));
    let without_dot = |name: &str| name.trim_end_matches('.').to_owned();
    if there.contains('*') {
        let is_match = there.len() <= 253 && here.len() <= 253 && names::glob_matches(&there, here);
        is_match.then_some("'*' matches segments of the path, not the host")
    } else if name == permitted {
        Some("the ports differ")
    } else if without_dot(&name) == without_dot(&permitted) {
        Some("only one of the hosts ends with a dot")
    } else {
        None
    }
}

/// The difference between two paths that look alike.
fn of_paths(path: &str, pattern: &str) -> Option<&'static str> {
    let (segments, parts): (Vec<_>, Vec<_>) =
        (path.split('/').collect(), pattern.split('/').collect());
    let has = |is_same: fn(&str, &str) -> bool| {
        let mut pairs = parts.iter().zip(&segments);
        parts.len() == segments.len() && pairs.all(|(part, segment)| is_same(part, segment))
    };
    let is_same = |part: &str, segment: &str| part == "*" || part == segment;
    if path.is_empty() || pattern.is_empty() {
        return Some("one of them has no path");
    }
    if has(|part, segment| part == "*" || part.eq_ignore_ascii_case(segment)) {
        return Some("the path is case-sensitive");
    }
    if has(|part, segment| {
        part == segment
            || part.len() <= 253 && segment.len() <= 253 && names::glob_matches(part, segment)
    }) {
        return Some("'*' matches a whole segment, not a part of one");
    }
    let mut pairs = parts.iter().zip(&segments);
    if parts.len() == segments.len() + 1 && parts.last() == Some(&"*") {
        return pairs
            .all(|(part, segment)| is_same(part, segment))
            .then_some("'*' at the end matches at least one segment");
    }
    let (before, rest) = pattern.split_once('*')?;
    let after = rest.rsplit_once('*').map_or(rest, |(_, after)| after);
    let inner = path.strip_prefix(before)?.strip_suffix(after)?;
    let is_longer = inner.contains('/');
    is_longer.then_some("'*' matches one segment, and several only at the end")
}
