//! What the rules of a policy mean, a second time and as simply as can be: slow, and without a line
//! of what it judges.

use pki_operator::api::PkiPolicySpec;
use std::net::IpAddr;

/// The cluster's domain in every target: not the usual one, which must be kept from certificates
/// all the same.
pub(super) const CLUSTER_DOMAIN: &str = "corp.example";

/// A DNS label as Kubernetes takes it.
pub(super) fn is_label(text: &str) -> bool {
    let is_inner = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-');
    let is_bounded = !text.starts_with('-') && !text.ends_with('-');
    !text.is_empty() && text.len() <= 63 && text.chars().all(is_inner) && is_bounded
}

/// Whether a glob matches the whole of a text: row by row through the table of all beginnings of
/// both.
pub(super) fn glob_matches(glob: &str, text: &str) -> bool {
    let mut row = vec![false; text.len() + 1];
    row[0] = true;
    for c in glob.bytes() {
        let mut next = vec![false; text.len() + 1];
        next[0] = c == b'*' && row[0];
        for (index, byte) in text.bytes().enumerate() {
            next[index + 1] = if c == b'*' {
                next[index] || row[index + 1]
            } else {
                c == byte && row[index]
            };
        }
        row = next;
    }
    row[text.len()]
}

/// A pattern in the eyes of one namespace.
pub(super) fn expand(pattern: &str, namespace: &str) -> String {
    pattern
        .split("{namespace}")
        .collect::<Vec<_>>()
        .join(namespace)
}

/// Lower case, without the dot at the end.
pub(super) fn fold(name: &str) -> String {
    let mut folded = name.to_ascii_lowercase();
    if folded.ends_with('.') {
        folded.pop();
    }
    folded
}

/// Whether pods reach something of the cluster, or themselves, by this folded name.
pub(super) fn is_internal(name: &str) -> bool {
    let labels: Vec<_> = name.split('.').collect();
    let domain: Vec<_> = CLUSTER_DOMAIN.split('.').collect();
    let ends: [&[&str]; 5] = [
        &["svc"],
        &["pod"],
        &["localhost"],
        &["cluster", "local"],
        &domain,
    ];
    labels.len() == 1 || ends.iter().any(|end| labels.ends_with(end))
}

/// Whether a folded name is that of a pod of this Service, or of all its pods.
pub(super) fn is_pod_of(service: &str, namespace: &str, name: &str) -> bool {
    let labels: Vec<_> = name.split('.').collect();
    let Some((first, rest)) = labels.split_first() else {
        return false;
    };
    let own = format!("{service}.{namespace}.svc");
    let is_own = [own.clone(), format!("{own}.{CLUSTER_DOMAIN}")].contains(&rest.join("."));
    is_own && (*first == "*" || is_label(first) && !first.starts_with("xn--"))
}

/// Whether a folded name may stand in a certificate at all.
pub(super) fn is_host_name(name: &str) -> bool {
    let mut labels: Vec<_> = name.split('.').collect();
    if labels.len() > 1 && labels[0] == "*" {
        labels.remove(0);
    }
    let last = labels[labels.len() - 1];
    let is_decimal = last.chars().all(|c| c.is_ascii_digit());
    let is_hexadecimal =
        last.starts_with("0x") && last.chars().skip(2).all(|c| c.is_ascii_hexdigit());
    let is_number = is_decimal || is_hexadecimal;
    name.len() <= 253 && labels.iter().all(|label| is_label(label)) && !is_number
}

/// Whether a pattern of DNS names permits a folded name to a namespace.
pub(super) fn dns_pattern_permits(pattern: &str, namespace: &str, name: &str) -> bool {
    let pattern = fold(&expand(pattern, namespace));
    let patterns: Vec<_> = pattern.split('.').collect();
    let labels: Vec<_> = name.split('.').collect();
    let is_match = |(pattern, label): (&&str, &&str)| {
        pattern == label || *pattern == "*" && !label.starts_with("xn--")
    };
    patterns.len() == labels.len()
        && patterns.last() != Some(&"*")
        && patterns.iter().zip(&labels).all(is_match)
}

/// A URI in the one spelling that certificates have, if it has one.
pub(super) fn uri(text: &str) -> Option<String> {
    let colon = text.find(':')?;
    let (scheme, rest) = (&text[..colon], &text[colon + 1..]);
    let mut letters = scheme.chars();
    let is_scheme = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/!$&'()+,;=".contains(c);
    if !is_scheme || rest.is_empty() || !rest.chars().all(is_plain) || text.len() > 2048 {
        return None;
    }
    let scheme = scheme.to_ascii_lowercase();
    if !rest.starts_with("//") {
        return (!rest.contains('/')).then(|| format!("{scheme}:{rest}"));
    }
    let parts: Vec<_> = rest[2..].split('/').collect();
    let (host, segments) = (parts[0].to_ascii_lowercase(), &parts[1..]);
    let is_ambiguous = segments
        .iter()
        .any(|segment| ["", ".", ".."].contains(segment));
    if host.is_empty() || host.starts_with(':') || is_ambiguous || !is_host_of_uri(&host) {
        return None;
    }
    let host = [host.as_str()];
    let parts: Vec<_> = host.iter().chain(segments).copied().collect();
    Some(format!("{scheme}://{}", parts.join("/")))
}

/// Whether a URI in a certificate may have this host.
fn is_host_of_uri(host: &str) -> bool {
    let parts: Vec<_> = host.split(':').collect();
    let name = parts[0].strip_suffix('.').unwrap_or(parts[0]);
    if let Ok(address) = name.parse::<std::net::Ipv4Addr>() {
        return parts.len() < 3 && !is_reserved(address.into());
    }
    let labels: Vec<_> = name.split('.').collect();
    let last = labels[labels.len() - 1];
    let hexadecimal = last.strip_prefix("0x").unwrap_or("x");
    let is_number = !last.is_empty() && last.chars().all(|c| c.is_ascii_digit())
        || hexadecimal.chars().all(|c| c.is_ascii_hexdigit());
    let is_local = last == "localhost" || name == "ip6-localhost" || name == "ip6-loopback";
    let is_api_server = labels.len() > 1 && is_api_server(name);
    parts.len() < 3 && !is_number && !is_local && !is_api_server
}

/// Whether a folded name is one of the API server, or a wildcard for one, in a cluster of any
/// domain.
pub(super) fn is_api_server(name: &str) -> bool {
    let any = name.replacen('*', "kubernetes", usize::from(name.starts_with("*.")));
    let whole = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    whole.contains(&any.as_str()) || any.starts_with("kubernetes.default.svc.")
}

/// The addresses that belong to nobody, besides those of the cluster.
const NOBODYS: [&str; 15] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "::/127",
    "fe80::/10",
    "ff00::/8",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fd00:c1::a9fe:a9fe",
];

/// Whether an address belongs to nobody, also one by which IPv6 reaches such an IPv4 host.
pub(super) fn is_reserved(address: IpAddr) -> bool {
    let all = || NOBODYS.into_iter().chain(super::RESERVED_RANGES);
    let is_listed = |address: IpAddr| all().any(|range| range_contains(range, address));
    let IpAddr::V6(v6) = address else {
        return is_listed(address);
    };
    let bits = v6.to_bits();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lowest 32 bits are meant"
    )]
    let inner = match (bits >> 32, bits >> 112) {
        (0 | 0xffff_0000 | 0x0064_ff9b_0000_0000_0000_0000, _) => Some(bits as u32),
        (_, 0x2002) => Some((bits >> 80) as u32),
        _ => None,
    };
    let inner = inner.map(|bits| IpAddr::from(std::net::Ipv4Addr::from_bits(bits)));
    is_listed(address) || inner.is_some_and(is_listed)
}

/// Whether a pattern of URIs permits a URI, in the spelling that certificates have, to a namespace.
pub(super) fn uri_pattern_permits(pattern: &str, namespace: &str, uri: &str) -> bool {
    let pattern = expand(pattern, namespace);
    let (Some((pattern_scheme, pattern)), Some((scheme, rest))) =
        (pattern.split_once(':'), uri.split_once(':'))
    else {
        return false;
    };
    if !pattern_scheme.eq_ignore_ascii_case(scheme) {
        return false;
    }
    match (pattern.strip_prefix("//"), rest.strip_prefix("//")) {
        (Some(pattern), Some(rest)) => {
            let pattern: Vec<_> = pattern.split('/').collect();
            let parts: Vec<_> = rest.split('/').collect();
            let is_host = pattern[0].eq_ignore_ascii_case(parts[0]);
            is_host && segments_match(&pattern[1..], &parts[1..])
        }
        (None, None) => opaque_matches(pattern, rest),
        _ => false,
    }
}

fn segments_match(pattern: &[&str], segments: &[&str]) -> bool {
    match (pattern, segments) {
        ([], []) | (["*"], [_, ..]) => true,
        ([part, pattern @ ..], [segment, segments @ ..]) => {
            (*part == "*" || part == segment) && segments_match(pattern, segments)
        }
        _ => false,
    }
}

/// Of a URI without a host, what follows the last colon may be anything.
fn opaque_matches(pattern: &str, rest: &str) -> bool {
    let last = |text: &str| text.rfind(':').map_or(0, |at| at + 1);
    let (root, tail) = pattern.split_at(last(pattern));
    let (uri_root, uri_tail) = rest.split_at(last(rest));
    root == uri_root && (tail == uri_tail || tail == "*" && !uri_tail.is_empty())
}

/// Whether a range, in CIDR notation or a single address, contains an address.
pub(super) fn range_contains(range: &str, address: IpAddr) -> bool {
    let (network, length) = match range.split_once('/') {
        Some((network, length)) => (network, length.parse().expect("a length")),
        None => (range, 128),
    };
    let network: IpAddr = network.parse().expect("an address");
    let (network, address, width) = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let (network, address) = (network.to_bits(), address.to_bits());
            (u128::from(network), u128::from(address), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    let ignored = width - u32::min(length, width);
    (network ^ address).checked_shr(ignored).unwrap_or(0) == 0
}

/// Whether a policy is for a namespace, as far as its name tells.
pub(super) fn is_for(spec: &PkiPolicySpec, namespace: &str) -> bool {
    let globs = spec.namespaces.as_ref().map(|scope| scope.names.as_slice());
    let globs = globs.unwrap_or_default();
    globs.is_empty() || globs.iter().any(|glob| glob_matches(glob, namespace))
}

/// Whether a policy allows a service name in a namespace.
pub(super) fn allows_service(spec: &PkiPolicySpec, namespace: &str, name: &str) -> bool {
    let is_match = |pattern: &String| glob_matches(&expand(pattern, namespace), name);
    is_label(name) && spec.service_names.iter().any(is_match)
}

/// Whether people can read a text as it is: nothing in it steers a terminal or reorders what is
/// read.
pub(super) fn is_readable(text: &str) -> bool {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    !text.chars().any(is_hidden)
}
