//! IP addresses and URIs: well formed, permitted, and in the certificate as they are meant.

use super::*;
use std::net::IpAddr;

const REMEDY: &str = "remove it, or ask the platform team to permit it";

fn spec(field: &str, values: &[&str]) -> Value {
    json!({ "serviceName": "app1", field: values })
}

#[test]
fn addresses_within_a_permitted_range_are_certified_each_once() {
    let ranges = ["10.0.0.0/8", "192.168.7.9", "2001:db8::/32", "fd00::1"];
    let book = rules(&[json!({ "serviceNames": ["app1"], "ipAddresses": ranges })]);
    for (written, certified) in [
        ("10.0.0.0", "10.0.0.0"),
        ("10.255.255.255", "10.255.255.255"),
        ("192.168.7.9", "192.168.7.9"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:0DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("fd00::1", "fd00::1"),
    ] {
        let approved = approve(&book, "ns", &spec("ipAddresses", &[written]));
        let address: IpAddr = certified.parse().unwrap();
        assert_eq!(approved.certificate.ip_addresses, [address], "{written}");
    }
    let several = ["2001:db8::1", "10.1.2.3", "2001:DB8::0:1", "10.1.2.3"];
    let approved = approve(&book, "ns", &spec("ipAddresses", &several));
    let addresses: [IpAddr; 2] = ["2001:db8::1", "10.1.2.3"].map(|ip| ip.parse().unwrap());
    assert_eq!(approved.certificate.ip_addresses, addresses);
}

#[test]
fn an_address_of_the_clusters_own_is_refused_under_any_policy() {
    let ranges = ["0.0.0.0/0", "::/0", "10.96.0.1"];
    let book = rules(&[json!({ "serviceNames": ["app1"], "ipAddresses": ranges })]);
    for (written, is_reserved) in [
        ("10.96.0.1", true),
        ("fd00:96::", true),
        ("FD00:96:0:0:0:0:0:ffff", true),
        ("10.96.0.2", false),
        ("fd00:96::1:0", false),
        // IPv6 addresses that lead to the same host.
        ("::10.96.0.1", true),
        ("64:ff9b::10.96.0.1", true),
        ("64:ff9b::10.96.0.2", false),
    ] {
        let judged = judge(&book, "ns", &spec("ipAddresses", &["10.1.2.3", written]));
        let expected = is_reserved.then(|| {
            vec![format!(
                "\"{written}\" is an address of the cluster itself, which no policy can permit: remove it; the \
                 certificate always includes app1.ns.svc"
            )]
        });
        let refused = judged
            .err()
            .map(|all| all.iter().map(ToString::to_string).collect());
        assert_eq!(refused, expected, "{written}");
    }
    assert_eq!(
        refuse(&book, "ns", &spec("ipAddresses", &["::ffff:10.96.0.1"])),
        [
            "spec.ipAddresses[0]: \"::ffff:10.96.0.1\" is an IPv4 address written as IPv6: write 10.96.0.1"
        ]
    );
}

#[test]
fn an_address_that_leads_each_client_to_another_host_is_refused_under_any_policy() {
    let ranges = ["0.0.0.0/0", "::/0", "127.0.0.1", "::1", "169.254.169.254"];
    let book = rules(&[json!({ "serviceNames": ["app1"], "ipAddresses": ranges })]);
    for written in [
        "127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "100.100.100.200",
        "255.255.255.255",
        "::1",
        "0:0:0:0:0:0:0:0",
        "FE80::1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ] {
        assert_eq!(
            refuse(&book, "ns", &spec("ipAddresses", &["10.1.2.3", written])),
            [format!(
                "spec.ipAddresses[1]: \"{written}\" is a loopback, unspecified, link-local, multicast, broadcast or cloud \
                 metadata address, which no policy can permit: remove it; the certificate always includes app1.ns.svc"
            )]
        );
    }
}

#[test]
fn a_uri_with_a_reserved_host_is_refused_under_any_policy() {
    let hosts = [
        "127.0.0.1",
        "169.254.169.254:80",
        "10.96.0.1",
        "localhost",
        "a.localhost.",
        "ip6-localhost",
        "kubernetes.default",
        "kubernetes.default.svc.corp.example:6443",
    ];
    for host in hosts {
        let uri = format!("https://{}/a", host.to_uppercase());
        let book =
            rules(&[json!({ "serviceNames": ["app1"], "uris": [format!("https://{host}/*")] })]);
        assert_eq!(
            refuse(&book, "ns", &spec("uris", &[&uri])),
            [format!(
                "spec.uris[0]: \"{uri}\" points to localhost, a reserved address or the API server, which no policy can \
                 permit: remove it; the certificate always includes app1.ns.svc"
            )]
        );
    }
    for uri in [
        "spiffe://cluster.local/a",
        "spiffe://kubernetes/a",
        "https://10.1.2.3/a",
        "urn:localhost",
    ] {
        let book = rules(&[json!({ "serviceNames": ["app1"], "uris": [uri] })]);
        approve(&book, "ns", &spec("uris", &[uri]));
    }
}

#[test]
fn the_address_in_the_url_of_the_api_server_is_reserved() {
    let reserved = |host: &str| {
        let mut settings = Settings::default();
        settings.reserve_api_server(host);
        settings.reserved_addresses
    };
    assert_eq!(reserved("192.0.2.7"), [range("192.0.2.7").unwrap()]);
    assert_eq!(reserved("[2001:db8::7]"), [range("2001:db8::7").unwrap()]);
    assert_eq!(reserved("api.example.com"), []);
}

#[test]
fn an_address_outside_every_range_is_refused_with_the_ranges() {
    let ranges = ["192.168.7.9", "10.0.0.0/8", "not a range"];
    let book = rules(&[json!({ "serviceNames": ["app1"], "ipAddresses": ranges })]);
    let other_family = "; it is an IPv6 address, and the permitted ones are IPv4";
    for (written, folded, why) in [
        ("192.168.7.8", "192.168.7.8", ""),
        ("11.0.0.0", "11.0.0.0", ""),
        ("2001:0db8::1", "2001:db8::1", other_family),
        // No IPv4 address to those who read it, whatever its last 32 bits are.
        ("::10.1.2.3", "::a01:203", other_family),
        ("64:ff9b::10.1.2.3", "64:ff9b::a01:203", other_family),
    ] {
        assert_eq!(
            refuse(&book, "ns", &spec("ipAddresses", &["10.1.2.3", written])),
            [format!(
                "spec.ipAddresses[1]: \"{folded}\" is not permitted: PkiPolicy policy-0 permits \
                 [10.0.0.0/8 192.168.7.9/32]{why}; {REMEDY}"
            )]
        );
    }
    assert_eq!(
        refuse(
            &allowing(&["app1"]),
            "ns",
            &spec("ipAddresses", &["10.1.2.3"])
        ),
        [format!(
            "spec.ipAddresses[0]: \"10.1.2.3\" is not permitted: PkiPolicy policy-0 permits none; {REMEDY}"
        )]
    );
}

#[test]
fn all_of_one_family_is_nothing_of_the_other() {
    for (range, inside, outside) in [
        ("0.0.0.0/0", Some("203.0.113.9"), "2001:db8::1"),
        ("::/0", Some("2001:db8::1"), "203.0.113.9"),
        // A policy in IPv4-mapped notation permits no IPv4 address.
        ("::ffff:0:0/96", None, "203.0.113.9"),
    ] {
        let book = rules(&[json!({ "serviceNames": ["app1"], "ipAddresses": [range] })]);
        if let Some(inside) = inside {
            approve(&book, "ns", &spec("ipAddresses", &[inside]));
        }
        let refusal = refuse(&book, "ns", &spec("ipAddresses", &[outside]));
        assert!(refusal[0].contains("is not permitted"), "{refusal:?}");
    }
}

#[test]
fn an_ipv4_address_in_ipv6_notation_is_refused_with_a_remedy() {
    let book = rules(&[json!({ "serviceNames": ["app1"], "ipAddresses": ["0.0.0.0/0", "::/0"] })]);
    for written in [
        "::ffff:10.1.2.3",
        "::FFFF:0a01:203",
        "0:0:0:0:0:ffff:10.1.2.3",
    ] {
        assert_eq!(
            refuse(&book, "ns", &spec("ipAddresses", &[written])),
            [format!(
                "spec.ipAddresses[0]: \"{written}\" is an IPv4 address written as IPv6: write 10.1.2.3"
            )]
        );
    }
}

#[test]
fn a_malformed_address_is_refused_with_two_examples() {
    let book = rules(&[json!({ "serviceNames": ["app1"], "ipAddresses": ["0.0.0.0/0", "::/0"] })]);
    let range = "; it is a range: write single addresses";
    let octal = "; some programs read numbers with a leading zero as octal: write 10.1.2.3";
    for (written, why) in [
        ("", ""),
        ("10.0.0.0/8", range),
        ("2001:db8::/32", range),
        ("10.1", ""),
        ("010.1.2.3", octal),
        ("10.01.2.003", octal),
        ("0x0a.1.2.3", ""),
        ("167838211", ""),
        ("10.1.2.256", ""),
        (" 10.1.2.3", ""),
        (
            "10.1.2.3:443",
            "; write it without brackets and port: 10.1.2.3",
        ),
        ("[::1]", "; write it without brackets and port: ::1"),
        (
            "[2001:db8::1]:443",
            "; write it without brackets and port: 2001:db8::1",
        ),
        ("fe80::1%eth0", "; remove the zone after '%'"),
        ("::1::", ""),
        ("app1", ""),
        ("db.example.com", "; it is a name: write it into dnsNames"),
    ] {
        assert_eq!(
            refuse(&book, "ns", &spec("ipAddresses", &[written])),
            [format!(
                "spec.ipAddresses[0]: \"{written}\" is not an IP address: write one such as 10.1.2.3 or 2001:db8::1{why}"
            )]
        );
    }
}

#[test]
fn uris_are_permitted_segment_by_segment_and_taken_once() {
    let patterns = [
        "spiffe://Example.com/ns/{namespace}/*",
        "https://*.example.com/x",
        "https://example.com/*/health",
        "urn:example:{namespace}:app1",
    ];
    let book = rules(&[json!({ "serviceNames": ["app1"], "uris": patterns })]);
    for (written, certified) in [
        (
            "spiffe://example.com/ns/ns/app1",
            "spiffe://example.com/ns/ns/app1",
        ),
        (
            "SPIFFE://EXAMPLE.com/ns/ns/sa/App1",
            "spiffe://example.com/ns/ns/sa/App1",
        ),
        (
            "https://example.com/app1/health",
            "https://example.com/app1/health",
        ),
        ("urn:example:ns:app1", "urn:example:ns:app1"),
    ] {
        let approved = approve(&book, "ns", &spec("uris", &[written]));
        assert_eq!(approved.certificate.uris, [certified], "{written}");
    }
    let twice = [
        "spiffe://example.com/ns/ns/a",
        "spiffe://EXAMPLE.com/ns/ns/a",
    ];
    let approved = approve(&book, "ns", &spec("uris", &twice));
    assert_eq!(approved.certificate.uris.len(), 1);
    let spiffe = "; spiffe://Example.com/ns/ns/* does not match, because ";
    let host = "; https://*.example.com/x does not match, because '*' matches segments of the path, not the host";
    let one = "; https://example.com/*/health does not match, because '*' matches one segment, and several only at the end";
    for (refused, why) in [
        ("spiffe://example.com/ns/other/app1", String::new()),
        (
            "spiffe://example.com/ns/ns",
            format!("{spiffe}'*' at the end matches at least one segment"),
        ),
        (
            "spiffe://example.com/NS/ns/app1",
            format!("{spiffe}the path is case-sensitive"),
        ),
        ("spiffe://example.com.evil.org/ns/ns/app1", String::new()),
        ("spiffe://evil.org/ns/ns/app1", String::new()),
        (
            "spiffe://example.com:443/ns/ns/app1",
            format!("{spiffe}the ports differ"),
        ),
        (
            "spiffe://example.com./ns/ns/app1",
            format!("{spiffe}only one of the hosts ends with a dot"),
        ),
        ("https://example.com/ns/ns/app1", String::new()),
        ("https://a.example.com/x", host.into()),
        ("https://example.com/a/b/health", one.into()),
        ("https://example.com/app1/health/x", String::new()),
        ("urn:example:other:app1", String::new()),
        (
            "urn:EXAMPLE:ns:app1",
            "; urn:example:ns:app1 does not match, because it is case-sensitive".into(),
        ),
    ] {
        assert_eq!(
            refuse(&book, "ns", &spec("uris", &[twice[0], refused])),
            [format!(
                "spec.uris[1]: \"{refused}\" is not permitted: PkiPolicy policy-0 permits \
                 [https://*.example.com/x https://example.com/*/health spiffe://Example.com/ns/ns/* \
                 urn:example:ns:app1]{why}; {REMEDY}"
            )]
        );
    }
}

#[test]
fn an_ambiguous_uri_is_refused_under_any_policy() {
    let patterns = ["spiffe://example.com/*", "https://example.com/*"];
    let book = rules(&[json!({ "serviceNames": ["app1"], "uris": patterns })]);
    let long = format!("spiffe://example.com/{}", "a".repeat(2028));
    let scheme = "; there is no scheme, as in https://example.com";
    let (slash, dots) = (
        "; there is a '/' at its end",
        "; there is a segment '.' or '..' in its path",
    );
    let (escape, user) = (
        "; there is an escape after '%'",
        "; there is a user before '@'",
    );
    let host = "; there is no host after '//'";
    for (written, why) in [
        ("", scheme),
        ("app1", scheme),
        ("//example.com/a", scheme),
        ("spiffe:///ns/victim", host),
        ("spiffe://:80/ns/victim", host),
        (
            "spiffe:/ns",
            "; there is a '/' in it, and no host after '//'",
        ),
        ("spiffe://example.com/", slash),
        ("spiffe://example.com/ns/evil/../victim/app1", dots),
        ("spiffe://example.com/ns/./victim", dots),
        ("spiffe://example.com/ns/evil/..", dots),
        ("spiffe://example.com/ns//victim", ""),
        ("spiffe://example.com/ns/evil/", slash),
        ("spiffe://example.com/ns/%2e%2e/victim", escape),
        ("spiffe://example.com/ns%2Fvictim", escape),
        (
            "spiffe://example.com/ns/evil?ns=victim",
            "; there is a query after '?'",
        ),
        (
            "spiffe://example.com/ns/evil#victim",
            "; there is a fragment after '#'",
        ),
        ("spiffe://example.com@evil.org/ns", user),
        ("https://example.com\\@evil.org/ns", user),
        (
            "spiffe://example.com/ns/*",
            "; '*' is a wildcard only in policies",
        ),
        ("spiffe://example.com/ns/evil app1", ""),
        (
            "spiffe://example.com/ns/аpp1",
            "; 'а' is U+0430, which is not ASCII",
        ),
        (
            "https://[::1]/a",
            "; its host is an IPv6 address: write a name",
        ),
        (
            "https://127.1/a",
            "; programs disagree on what address its host is: write four decimal numbers",
        ),
    ] {
        assert_eq!(
            refuse(&book, "evil", &spec("uris", &[written])),
            [format!(
                "spec.uris[0]: \"{written}\" is not a URI for a certificate: write scheme, host and path without \
                 query, escapes or empty segments, for example spiffe://example.com/ns/team-a/app1{why}"
            )]
        );
    }
    let refusal = refuse(&book, "ns", &spec("uris", &[&long]));
    assert!(refusal[0].contains("…\" is not a URI"));
    let why = "; it has 2049 characters, and a URI has at most 2048";
    assert!(refusal[0].ends_with(why), "{refusal:?}");
    approve(&book, "ns", &spec("uris", &[&long[..2048]]));
}

#[test]
fn a_list_has_a_hundred_entries_at_most() {
    let policy = json!({ "serviceNames": ["app1"], "dnsNames": ["*.example.com"],
        "ipAddresses": ["10.0.0.0/8"], "uris": ["spiffe://example.com/*"] });
    let book = rules(&[policy]);
    let dns = |n: usize| format!("n{n}.example.com");
    let ip = |n: usize| format!("10.0.0.{n}");
    let uri = |n: usize| format!("spiffe://example.com/{n}");
    for (field, entry) in [
        ("dnsNames", &dns as &dyn Fn(usize) -> String),
        ("ipAddresses", &ip),
        ("uris", &uri),
    ] {
        let entries = |count| (0..count).map(entry).collect::<Vec<_>>();
        approve(
            &book,
            "ns",
            &json!({ "serviceName": "app1", field: entries(100) }),
        );
        let spec = json!({ "serviceName": "app1", field: entries(101) });
        let expected = format!("spec.{field}: 101 are too many: write at most 100");
        assert_eq!(refuse(&book, "ns", &spec), [expected]);
    }
}

/// The CA signs every certificate that the rule book approves.
#[test]
fn an_approved_certificate_can_be_issued() {
    let now = "2030-01-01T00:00:00Z".parse().unwrap();
    let lifetime = SignedDuration::from_hours(10_000);
    let authority = pki_certs::Authority::generate("ca", lifetime, now).unwrap();
    let book = rules(&[json!({
        "serviceNames": ["*"], "dnsNames": ["*.example.com", "*.xn--bcher-kva.example"],
        "ipAddresses": ["0.0.0.0/0", "::/0"],
        "uris": ["spiffe://example.com/*", "https://example.com:8443/*", "https://a_b.example", "urn:example:*", "a:*"]
    })]);
    for (field, value) in [
        ("serviceName", json!("a".repeat(63))),
        ("serviceName", json!("0")),
        ("commonName", json!("APP1.ns.svc.")),
        (
            "dnsNames",
            json!(["*.EXAMPLE.com.", "a.xn--bcher-kva.example"]),
        ),
        (
            "ipAddresses",
            json!(["1.0.0.0", "255.255.255.254", "2::", "fd00::1", "feff::1"]),
        ),
        ("uris", json!(["spiffe://example.com/a/-._~!$&'()+,;=:/z"])),
        (
            "uris",
            json!([
                "https://EXAMPLE.com:8443/a",
                "https://a_b.example",
                "urn:example:a",
                "A:b"
            ]),
        ),
        (
            "uris",
            json!([format!("spiffe://example.com/{}", "a".repeat(2027))]),
        ),
        ("usages", json!(["client auth"])),
        ("duration", json!("1h")),
        ("duration", json!("876000h")),
        ("privateKey", json!({ "algorithm": "Ed25519" })),
        (
            "privateKey",
            json!({ "algorithm": "ECDSA", "size": 384, "encoding": "SEC1" }),
        ),
        (
            "privateKey",
            json!({ "algorithm": "RSA", "encoding": "PKCS1" }),
        ),
    ] {
        let mut spec = json!({ "serviceName": "app1" });
        spec[field] = value;
        let approved = approve(&book, "ns", &spec);
        if let Err(error) = authority.issue(&approved.certificate, now) {
            panic!("{spec}: {error}");
        }
    }
}
