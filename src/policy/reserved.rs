//! Names and addresses that no policy can permit.
//!
//! The chart's admission policy (`templates/admission-policy.yaml`) has the same lists.

use super::Settings;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

/// The reason why no certificate has a value. Reads on after the value itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reserved {
    /// An address that the platform team reserves, or that of the API server.
    ClusterAddress,
    /// An address that leads each client to another host.
    SpecialAddress,
    /// A name of the API server, or a wildcard that covers one.
    ApiServer,
    /// A URI whose host is one of these.
    Host,
}

impl fmt::Display for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClusterAddress => "is an address of the cluster itself",
            Self::SpecialAddress => {
                "is a loopback, unspecified, link-local, multicast, broadcast or cloud metadata address"
            }
            Self::ApiServer => "is a name of the API server",
            Self::Host => "points to localhost, a reserved address or the API server",
        })
    }
}

/// The ranges of [`Reserved::SpecialAddress`].
const SPECIAL: [&str; 16] = [
    // Unspecified (0.0.0.0/8 means this host to Linux) and loopback.
    "0.0.0.0/8",
    "127.0.0.0/8",
    "::/128",
    "::1/128",
    // Link-local. Most clouds have their metadata service at 169.254.169.254.
    "169.254.0.0/16",
    "fe80::/10",
    // Metadata services elsewhere: Alibaba Cloud, Azure, Oracle Cloud, AWS (two), Google Cloud,
    // Oracle Cloud.
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "fd00:ec2::254/128",
    "fd00:ec2::23/128",
    "fd20:ce::254/128",
    "fd00:c1::a9fe:a9fe/128",
    // Multicast and broadcast.
    "224.0.0.0/4",
    "255.255.255.255/32",
    "ff00::/8",
];

static SPECIAL_RANGES: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    with_forms(
        SPECIAL
            .map(|range| range.parse().expect("a range"))
            .to_vec(),
    )
});

/// Ranges, and after them those of the IPv6 addresses by which the same IPv4 hosts are reached.
fn with_forms(mut ranges: Vec<IpNet>) -> Vec<IpNet> {
    let v4 = ranges.iter().filter_map(|range| match range {
        IpNet::V4(range) => Some(*range),
        IpNet::V6(_) => None,
    });
    let forms: Vec<_> = v4.flat_map(translated).map(IpNet::V6).collect();
    ranges.extend(forms);
    ranges
}

/// Translates a range to IPv6: IPv4-compatible (RFC 4291, 2.5.5.1), IPv4-translated (RFC 2765),
/// NAT64 (RFC 6052) and 6to4 (RFC 3056). IPv4-mapped addresses are refused in any case.
fn translated(range: Ipv4Net) -> [Ipv6Net; 4] {
    let bits = u128::from(u32::from(range.network()));
    let at_end = |prefix: Ipv6Addr| (u128::from(prefix) | bits, 96);
    let forms = [
        at_end(Ipv6Addr::UNSPECIFIED),
        at_end(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0)),
        at_end(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0)),
        (0x2002 << 112 | bits << 80, 16),
    ];
    forms.map(|(address, before)| Ipv6Net::new_assert(address.into(), before + range.prefix_len()))
}

impl Settings {
    /// The reserved range that contains all of this one.
    pub(super) fn reserved_range(&self, range: &IpNet) -> Option<(IpNet, Reserved)> {
        let special = SPECIAL_RANGES.iter().copied();
        let special = special.map(|range| (range, Reserved::SpecialAddress));
        let own = with_forms(self.reserved_addresses.clone()).into_iter();
        let own = own.map(|range| (range, Reserved::ClusterAddress));
        special
            .chain(own)
            .find(|(reserved, _)| reserved.contains(range))
    }

    /// The reason why no certificate is for this address.
    pub(super) fn reserved_address(&self, address: IpAddr) -> Option<Reserved> {
        let reserved = self.reserved_range(&address.into());
        reserved.map(|(_, why)| why)
    }

    /// Whether no certificate is for a URI with this host, which is in lower case.
    pub(super) fn is_reserved_host(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        if let Ok(address) = host.parse::<Ipv4Addr>() {
            return self.reserved_address(address.into()).is_some();
        }
        let labels: Vec<_> = host.split('.').collect();
        match labels[..] {
            // A trust domain may have this name.
            ["kubernetes"] => false,
            [.., "localhost"] | ["ip6-localhost" | "ip6-loopback"] => true,
            _ => is_name_of_api_server(host),
        }
    }
}

/// Whether this is the Service of the API server itself.
pub(super) fn is_api_server(service: &str, namespace: &str) -> bool {
    (service, namespace) == ("kubernetes", "default")
}

/// Whether a folded name, or wildcard, is or covers one of the API server in any cluster domain.
pub(super) fn is_name_of_api_server(name: &str) -> bool {
    let labels: Vec<_> = name.split('.').collect();
    matches!(
        labels[..],
        ["kubernetes"]
            | ["kubernetes" | "*", "default"]
            | ["kubernetes" | "*", "default", "svc", ..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_reserved_in_each_of_their_forms() {
        let settings = Settings {
            reserved_addresses: vec!["10.96.0.0/12".parse().unwrap()],
            ..Settings::default()
        };
        let reserved = |address: &str| settings.reserved_address(address.parse().unwrap());
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.0.9",
            "169.254.0.1",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::127.0.0.1",
            "::169.254.169.254",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::",
            "2002:6464:64c8:1::5",
        ] {
            assert_eq!(
                reserved(address),
                Some(Reserved::SpecialAddress),
                "{address}"
            );
        }
        for address in [
            "10.96.0.1",
            "::10.111.0.1",
            "64:ff9b::10.96.0.1",
            "2002:a60:1::7",
        ] {
            assert_eq!(
                reserved(address),
                Some(Reserved::ClusterAddress),
                "{address}"
            );
        }
        for address in [
            "1.0.0.0",
            "10.1.2.3",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.0.1",
            "169.255.0.1",
            "100.100.100.201",
            "168.63.129.17",
            "223.255.255.255",
            "240.0.0.1",
            "::10.1.2.3",
            "64:ff9b::10.1.2.3",
            "64:ff9c::127.0.0.1",
            "2002:a01:203::1",
            "2001:db8::1",
            "fec0::1",
            "fd00:ec2::255",
            "2001:db8::7f00:1",
        ] {
            assert_eq!(reserved(address), None, "{address}");
        }
    }

    #[test]
    fn the_api_server_is_known_by_each_of_its_names() {
        for name in [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "kubernetes.default.svc.corp.example",
            "*.default",
            "*.default.svc",
            "*.default.svc.corp.example",
        ] {
            assert!(is_name_of_api_server(name), "{name}");
        }
        for name in [
            "kubernetes.example.com",
            "kubernetes.defaults",
            "kubernetes.team-a",
            "app1.default.svc",
            "a.kubernetes.default",
            "kubernetes.default.example.com",
            "*.kubernetes",
            "default.svc",
        ] {
            assert!(!is_name_of_api_server(name), "{name}");
        }
    }

    #[test]
    fn a_host_of_a_uri_is_reserved_by_name_and_by_address() {
        let settings = Settings::default();
        for host in [
            "localhost",
            "localhost.",
            "a.localhost",
            "ip6-loopback",
            "127.0.0.1",
            "127.0.0.1.",
            "169.254.169.254",
            "0.0.0.0",
            "kubernetes.default",
            "kubernetes.default.svc.corp.example",
        ] {
            assert!(settings.is_reserved_host(host), "{host}");
        }
        for host in [
            "",
            "kubernetes",
            "cluster.local",
            "db.victim.svc",
            "10.1.2.3",
            "localhost.example.com",
        ] {
            assert!(!settings.is_reserved_host(host), "{host}");
        }
    }
}
