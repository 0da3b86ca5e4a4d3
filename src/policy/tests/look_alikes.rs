//! Values that look like something permitted, and malformed values that look right: the message
//! names the difference.

use super::*;

/// The explanation in the refusal of a value, by a policy with these patterns.
fn why(field: &str, patterns: &[&str], value: &str) -> String {
    let book = rules(&[json!({ "serviceNames": ["db"], field: patterns })]);
    let spec = json!({ "serviceName": "db", field: [value] });
    let refused = refuse(&book, "ns", &spec).remove(0);
    let (_, rest) = refused
        .split_once("PkiPolicy policy-0 permits ")
        .unwrap_or_else(|| panic!("{refused}"));
    let (_, rest) = rest
        .split_once("none")
        .filter(|_| patterns.is_empty())
        .or_else(|| rest.split_once(']'))
        .expect("the end of the list");
    let rest = rest.strip_suffix("; remove it, or ask the platform team to permit it");
    let rest = rest.unwrap_or_else(|| panic!("{refused}"));
    rest.strip_prefix("; ").unwrap_or_default().to_owned()
}

#[test]
fn a_name_that_looks_like_a_permitted_one() {
    let one = |pattern: &str, there: usize, here: usize| {
        format!(
            "'*' matches exactly one label: {pattern} has {there} labels, and this name has {here}"
        )
    };
    let xn = "'*' matches no internationalized label (xn--): the policy must contain xn--bcher-kva";
    for (patterns, name, expected) in [
        (
            &["*.example.com"][..],
            "a.b.example.com",
            one("*.example.com", 3, 4),
        ),
        (
            &["*.example.com"],
            "*.b.example.com",
            one("*.example.com", 3, 4),
        ),
        (
            &["*.example.com"],
            "example.com",
            one("*.example.com", 3, 2),
        ),
        (
            &["a.*.example.com"],
            "a.b.c.example.com",
            one("a.*.example.com", 4, 5),
        ),
        (
            &["*.*.example.com"],
            "a.example.com",
            one("*.*.example.com", 4, 3),
        ),
        (&["*.a.*.com"], "x.a.b.c.com", one("*.a.*.com", 4, 5)),
        (
            &["*.{namespace}.example.com"],
            "a.b.ns.example.com",
            one("*.ns.example.com", 4, 5),
        ),
        (&["*.example.com"], "xexample.com", String::new()),
        (&["*.example.com"], "a.b.example.org", String::new()),
        (&["*.example.com"], "a.b.xexample.com", String::new()),
        // The first pattern that looks alike is explained.
        (
            &["www.example.org", "*.example.com"],
            "a.b.example.com",
            one("*.example.com", 3, 4),
        ),
        (&["*.example.com"], "xn--bcher-kva.example.com", xn.into()),
        (&["*.example.com"], "XN--BCHER-KVA.example.com.", xn.into()),
        (
            &["a.*.example.com"],
            "a.xn--bcher-kva.example.com",
            xn.into(),
        ),
        (
            &["example.*"],
            "example.com",
            "'*' in example.* does not match the last label".into(),
        ),
        (
            &["app*.example.com"],
            "app1.example.com",
            "'*' in app*.example.com does not match a part of a label: use '*' for a whole label in the policy"
                .into(),
        ),
        (
            &["a.example.com"],
            "*.example.com",
            "'*' in a name needs a '*' in the policy, and a.example.com has none".into(),
        ),
        (
            &["*.example.com"],
            "db.ns",
            "inside the cluster the name is db.ns.svc, which the certificate always includes".into(),
        ),
        (
            &[],
            "db-0.db.ns",
            "write db-0.db.ns.svc for a name inside the cluster".into(),
        ),
        (
            &[],
            "*.DB.ns.",
            "write *.db.ns.svc for a name inside the cluster".into(),
        ),
        (&[], "a.b.db.ns", String::new()),
        (&[], "db-0.web.ns", String::new()),
        (&["www.example.com"], "www.example.org", String::new()),
    ] {
        assert_eq!(
            why("dnsNames", patterns, name),
            expected,
            "{patterns:?} {name}"
        );
    }
}

#[test]
fn an_address_that_looks_like_a_permitted_one() {
    let family = |this: u8, those: u8| {
        format!("it is an IPv{this} address, and the permitted ones are IPv{those}")
    };
    for (ranges, address, expected) in [
        (
            &["10.0.0.0/24"][..],
            "10.0.1.5",
            "10.0.0.0/24 is 10.0.0.0 to 10.0.0.255".to_owned(),
        ),
        (
            &["192.0.2.0/23", "10.0.0.0/23"],
            "10.0.2.5",
            "10.0.0.0/23 is 10.0.0.0 to 10.0.1.255".into(),
        ),
        (&["2001:db8::/48"], "2001:db8:0:0:1::", String::new()),
        (
            &["2001:db8::/48"],
            "2001:db8:1::1",
            "2001:db8::/48 is 2001:db8:: to 2001:db8:0:ffff:ffff:ffff:ffff:ffff".into(),
        ),
        (&["10.0.0.0/24"], "11.0.0.1", String::new()),
        (&["10.0.0.1"], "10.0.0.2", String::new()),
        (&[], "10.0.0.2", String::new()),
        (&["0.0.0.0/0"], "2001:db8::1", family(6, 4)),
        (&["::/0"], "10.1.2.3", family(4, 6)),
        (&["::/0", "192.0.2.0/24"], "10.1.2.3", String::new()),
        (&["10.0.0.0/8"], "64:ff9b::10.1.2.3", family(6, 4)),
    ] {
        if address == "2001:db8:0:0:1::" {
            let book = rules(&[json!({ "serviceNames": ["db"], "ipAddresses": ranges })]);
            approve(
                &book,
                "ns",
                &json!({ "serviceName": "db", "ipAddresses": [address] }),
            );
            continue;
        }
        assert_eq!(
            why("ipAddresses", ranges, address),
            expected,
            "{ranges:?} {address}"
        );
    }
}

#[test]
fn a_uri_that_looks_like_a_permitted_one() {
    let case = "the path is case-sensitive";
    let port = "the ports differ";
    let whole = "'*' matches a whole segment, not a part of one";
    let end = "'*' at the end matches at least one segment";
    let middle = "'*' matches one segment, and several only at the end";
    let host = "'*' matches segments of the path, not the host";
    let none = "one of them has no path";
    for (pattern, uri, expected) in [
        ("https://e.com/a/*", "https://e.com:8443/a/b", port),
        ("https://e.com:8443/a/*", "https://e.com/a/b", port),
        ("https://e.com:8443/*", "https://e.com:443/b", port),
        (
            "https://e.com/*",
            "https://e.com./b",
            "only one of the hosts ends with a dot",
        ),
        ("https://*.e.com/a", "https://x.e.com/a", host),
        ("spiffe://e.com/ns/a/*", "spiffe://e.com/NS/a/b", case),
        ("spiffe://e.com/ns/a/*", "spiffe://e.com/ns/a", end),
        ("spiffe://e.com/*/a", "spiffe://e.com/b/c/a", middle),
        ("spiffe://e.com/ap*", "spiffe://e.com/app1", whole),
        ("https://e.com", "https://e.com/a", none),
        ("https://e.com/*", "https://e.com", none),
        ("urn:Example:*", "urn:example:a", "it is case-sensitive"),
        ("spiffe://e.com/ns/a/*", "spiffe://e.com/ns/b/c", ""),
        ("spiffe://e.com/ns/a/*", "spiffe://e.org/ns/a/c", ""),
        ("spiffe://e.com/a", "https://e.com/a", ""),
    ] {
        let expected = match expected {
            "" => String::new(),
            expected => format!("{pattern} does not match, because {expected}"),
        };
        assert_eq!(why("uris", &[pattern], uri), expected, "{pattern} {uri}");
    }
}

#[test]
fn a_malformed_name_that_looks_well() {
    let book = rules(&[json!({ "serviceNames": ["db"], "dnsNames": ["*.example.com"] })]);
    let letter = |letter: &str, code: &str| format!("'{letter}' is U+{code}, which is not ASCII");
    let encoded = |shown: &str, code: &str, name: &str| {
        format!(
            "{}: write {name}, which the policy must contain",
            letter(shown, code)
        )
    };
    let star = "'*' can only be the whole first label, as in *.example.com";
    let number = "its last label is a number, so clients read the name as an IP address";
    for (name, expected) in [
        (
            "bücher.example.com",
            encoded("ü", "00FC", "xn--bcher-kva.example.com"),
        ),
        (
            "Bücher.Example.com.",
            encoded("ü", "00FC", "xn--bcher-kva.example.com"),
        ),
        (
            "аpple.example.com",
            encoded("а", "0430", "xn--pple-43d.example.com"),
        ),
        ("bu\u{308}cher.example.com", letter("\\u{308}", "0308")),
        ("db。victim。svc", letter("。", "3002")),
        ("\u{202e}a.example.com", letter("\\u{202e}", "202E")),
        (
            "www.example.com:443",
            "a name has no port: write www.example.com".into(),
        ),
        (
            "https://WWW.example.com/a",
            "it is a URI: write its host, www.example.com".into(),
        ),
        (
            "https://u@example.com",
            "it is a URI: write its host alone".into(),
        ),
        (
            "10.1.2.3",
            "it is an IP address: write it into ipAddresses".into(),
        ),
        (
            "[2001:db8::1]:443",
            "it is an IP address: write it into ipAddresses".into(),
        ),
        (
            "10.1.2.3:443",
            "it is an IP address: write it into ipAddresses".into(),
        ),
        ("*", star.into()),
        ("*.*.example.com", star.into()),
        ("a.*.example.com", star.into()),
        ("a*.example.com", star.into()),
        (" a.example.com", "there is white space in it".into()),
        (
            "a..example.com",
            "it has an empty label, before or between its dots".into(),
        ),
        (
            ".example.com",
            "it has an empty label, before or between its dots".into(),
        ),
        (
            "-a.example.com",
            "a label must not begin or end with '-'".into(),
        ),
        ("a.0x1f", number.into()),
        ("127.1", number.into()),
        (
            &format!("{}.com", "a".repeat(64)),
            "a label has at most 63 characters, and one here has 64".into(),
        ),
        (
            &"a.".repeat(150),
            "it has 300 characters, and a name has at most 253".into(),
        ),
        ("a_b.example.com", String::new()),
    ] {
        let refused = refuse(
            &book,
            "ns",
            &json!({ "serviceName": "db", "dnsNames": [name] }),
        );
        let (_, rest) = refused[0]
            .split_once("for example api.example.com")
            .expect(name);
        let expected = if expected.is_empty() {
            expected
        } else {
            format!("; {expected}")
        };
        assert_eq!(rest, expected, "{name}");
    }
}

/// The suggested name is permitted by a policy that spells it out.
#[test]
fn the_suggested_form_of_an_internationalized_name_is_permitted() {
    let names = ["xn--bcher-kva.example.com", "xn--pple-43d.example.com"];
    let book = rules(&[json!({ "serviceNames": ["db"], "dnsNames": names })]);
    for name in ["bücher.example.com", "аpple.example.com"] {
        let spec = |name: &str| json!({ "serviceName": "db", "dnsNames": [name] });
        let refused = refuse(&book, "ns", &spec(name)).remove(0);
        let (_, rest) = refused.split_once(": write xn--").expect("a suggestion");
        let (rest, _) = rest.split_once(',').expect("an end");
        approve(&book, "ns", &spec(&format!("xn--{rest}")));
    }
}

#[test]
fn a_long_common_name_is_counted() {
    let book = rules(&[json!({ "serviceNames": ["db"], "dnsNames": ["*.example.com"] })]);
    let long = format!("{}.example.com", "a".repeat(60));
    let spec = json!({ "serviceName": "db", "commonName": long, "dnsNames": [long] });
    let refused = refuse(&book, "ns", &spec);
    assert!(
        refused[0].ends_with("or leave commonName out; it has 72 characters"),
        "{refused:?}"
    );
}

/// A policy as large as there may be, and a Pki that looks like all of it.
#[test]
fn explanations_have_an_end_and_none_is_for_a_long_uri() {
    // Each name has the tail of all patterns, and is like none of them.
    let patterns: Vec<_> = (0..100)
        .map(|n| format!("{n:03}.{}a.com", "*.".repeat(110)))
        .collect();
    let names: Vec<_> = (0..100)
        .map(|n| format!("x{n:03}.{}a.com", "a.".repeat(110)))
        .collect();
    let parts = "*/".repeat(1000);
    let uri_patterns: Vec<_> = (0..100)
        .map(|n| format!("https://e.com/{parts}{n:03}"))
        .collect();
    let uris: Vec<_> = (0..100)
        .map(|n| format!("https://e.com/{}x{n:03}", "A/".repeat(1000)))
        .collect();
    let policy = json!({ "serviceNames": ["db"], "dnsNames": patterns, "uris": uri_patterns });
    let book = rules(&[policy]);
    let refused = refuse(
        &book,
        "ns",
        &json!({ "serviceName": "db", "dnsNames": names, "uris": uris }),
    );
    assert_eq!(refused.len(), 200);
    let is_explained = |line: &&String| line.contains("spec.uris") && line.contains("since '*'");
    assert_eq!(refused.iter().find(is_explained), None);
    assert!(
        refused.iter().all(|line| line.len() < 30_000),
        "a bound for each line"
    );
}
