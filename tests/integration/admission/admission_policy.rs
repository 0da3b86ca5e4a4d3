//! What the API server refuses by itself: that of the rule book which no policy can change, in the
//! same words.

use crate::harness::{Installed, Namespace, RESERVED, arena, eventually};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use pki_cluster::install::RELEASE;
use pki_cluster::testing::manifest;
use pki_operator::api::Pki;
use pki_operator::policy::{RuleBook, Settings, Violation, range};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the rule book says of this spec, whatever any policy says.
fn faults(namespace: &str, name: &str, spec: &Value) -> Vec<Violation> {
    let settings = Settings {
        namespace: RELEASE.into(),
        reserved_secrets: vec!["pki-operator-ca".into(), "pki-operator-webhook-ca".into()],
        reserved_addresses: RESERVED.map(|it| range(it).expect("a range")).into(),
        ..Settings::default()
    };
    let spec = serde_json::from_value(spec.clone()).expect("a spec");
    let mut pki = Pki::new(name, spec);
    pki.metadata.namespace = Some(namespace.into());
    let rules = RuleBook::new(Arc::new(settings), []);
    let violations = rules.evaluate(&pki).expect_err("there is no policy");
    let is_of_itself = |it: &Violation| !it.is_service_denial();
    violations.into_iter().filter(is_of_itself).collect()
}

/// Whether the API server says the same as the rule book, without its explanation of a malformed
/// value.
fn is_said_of(faults: &[Violation], words: &str) -> bool {
    let mut rest = words;
    for (index, fault) in faults.iter().enumerate() {
        let field = format!("{}: ", fault.field());
        let begin = if index == 0 { "" } else { "; " };
        let Some(said) = rest
            .strip_prefix(begin)
            .and_then(|rest| rest.strip_prefix(&field))
        else {
            return false;
        };
        let next = faults
            .get(index + 1)
            .and_then(|next| said.find(&format!("; {}: ", next.field())));
        let (said, after) = said.split_at(next.unwrap_or(said.len()));
        let whole = fault.to_string();
        let added = whole.strip_prefix(said);
        let is_whole = added.is_some_and(|added| added.is_empty() || added.starts_with("; "));
        if !is_whole {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

/// A spec for the service app1 with these further fields.
fn spec(more: impl Into<Value>) -> Value {
    let mut spec = json!({ "serviceName": "app1" });
    json_patch::merge(&mut spec, &more.into());
    spec
}

/// What the schema takes, good and bad.
fn specs(namespace: &str) -> Vec<Value> {
    let one = |field: &str, values: &[&str]| -> Vec<Value> {
        values
            .iter()
            .map(|value| spec(json!({ field: [value] })))
            .collect()
    };
    let keystore = |kind: &str, secret: &str| {
        spec(json!({ "outputs": { kind: { "passwordSecretRef": { "name": secret } } } }))
    };
    let label =
        |key: &str, value: &str| spec(json!({ "secretTemplate": { "labels": { key: value } } }));
    let annotation =
        |key: &str| spec(json!({ "secretTemplate": { "annotations": { key: "any\nvalue" } } }));
    let long = "a".repeat(63);
    let own = format!("app1.{namespace}.svc");
    [
        vec![spec(json!({}))],
        one("dnsNames", &[
            "www.example.com", "WWW.Example.com.", "*.example.com", "xn--bcher-kva.example", "svc.example.com", "notsvc.mysvc",
            "a.xcluster.local", "cluster.locale.com", "1.example.com", "0x1.example.com", &format!("{long}.com"),
            &own, &own.to_uppercase(), &format!("{own}."), &format!("{own}.cluster.local."),
            &format!("app2.{namespace}.svc"), &format!("*.{own}"), &format!("{own}.."),
            &format!("app1-0.{own}"), &format!("APP1-0.{own}."), &format!("*.{own}.cluster.local"), &format!("a.b.{own}"),
            &format!("xn--a.{own}"), &format!("*.*.{own}"), &format!("a-.{own}"), &format!("{long}.{own}"), &format!("a{long}.{own}"),
            &format!("app1-0.app2.{namespace}.svc"), &format!("*.{namespace}.svc"), &format!("*.app2.{namespace}.svc.cluster.local"),
            &format!("app1-0.{own}.svc"), &format!("kubernetes.{namespace}.svc"), &format!("a.kubernetes.{namespace}.svc"),
            &format!("{own}.{own}"), "a.app1.victim.svc", "*.victim.svc", "*.db.victim.svc", "a.b.c.victim.svc",
            "db", "DB.", "*", "*.", ".", "..", "*.svc", "svc", "db.victim.svc", "db.victim.SVC.", "db.svc.cluster.local", "cluster.local",
            "localhost", "a.LocalHost", "1-2-3-4.ns.pod", "a..b", ".a.b", "-a.b", "a-.b", "a_b.c", "a b.c", "*.*.a.b", "a.*.b", "*a.b",
            "kubernetes", "Kubernetes.Default.", "kubernetes.default.svc", "kubernetes.default.svc.corp.example", "*.default",
            "*.default.svc", "*.default.svc.a.b", "kubernetes.defaults", "kubernetes.example.com", "a.kubernetes.default",
            "app2.default", "*.kubernetes.default", "10.0.0.1", "*.5", "ex.0x1.1", "10.0.0.0xA", "10.0.0.0x", "ünicode.com", "аpple.example.com", "a\u{212a}.com",
            &format!("a{long}.com"), &"a.".repeat(126), "a\"b'c\\.d", "a,DNS:b.c", "$(id).a", "{namespace}.a.b",
        ]),
        one("ipAddresses", &[
            "10.1.2.3", "2001:db8::1", "2001:DB8::1", "::", "::1.2.3.4", "::ffff:0:1.2.3.4", "64:ff9b::1.2.3.4", "10.246.0.1", "10.246.0.2", "10.96.0.0", "10.111.255.255", "10.112.0.0", "FD00:0::1", "fd00::2", "::10.246.0.1", "::ffff:10.246.0.1",
            "0.0.0.0", "1.0.0.0", "127.0.0.1", "126.255.255.255", "128.0.0.0", "169.254.169.254", "169.253.0.1", "100.100.100.200",
            "100.100.100.201", "168.63.129.16", "192.0.0.192", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.254",
            "255.255.255.255", "::1", "::2", "::1:0:0", "fe80::1", "FEBF::1", "fec0::1", "ff02::1", "fd00:ec2::254", "fd00:ec2::23",
            "fd00:ec2::255", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1",
            "64:ff9b::10.96.0.1", "64:ff9b::10.112.0.1", "64:ff9c::127.0.0.1", "2002:7f00:1::1", "2002:a60:1::1", "2002:a01:203::1",
            "::ffff:10.0.0.1", "::FFFF:10.0.0.1", "0:0:0:0:0:ffff:10.0.0.1",
            "10.0.0", "10.0.0.01", "10.0.0.256", "0x7f.0.0.1", "10.0.0.0/8", "fe80::1%eth0", "[::1]", "1:2", "localhost", " 10.0.0.1",
        ]),
        one("uris", &[
            "spiffe://Example.com/ns/a/app1", "https://example.com", "urn:example:app1", "a+b-c.d:e", "spiffe://a/...", "spiffe://a/.b/c..",
            "https://a:1/b", "https://./b", "spiffe", "spiffe:", "spiffe://", "://a/b", "1a://b", "spiffe:///a", "spiffe://:1", "spiffe://a/",
            "spiffe://a/b/", "spiffe://a//b", "spiffe://a/b://c", "spiffe://a/./b", "spiffe://a/../b", "spiffe://a/b/..", "spiffe://a/b/.",
            "spiffe://a/%2e%2e/b", "spiffe://a/b?c", "spiffe://a/b#c", "spiffe://u@a/b", "spiffe://a/b c", "spiffe://a/ä", "spiffe://a/*",
            "https://127.0.0.1/a", "https://127.0.0.1.:1", "https://10.1.2.3/a", "https://10.96.0.1/a", "https://127.1/a",
            "https://2130706433", "https://0X7f.1/a", "https://0177.0.0.1", "https://0::1/a", "https://a:1:2/b", "https://a.1b/c",
            "https://localhost", "https://a.LocalHost.:443/a", "https://ip6-loopback/a", "https://localhosts/a",
            "https://kubernetes/a", "https://kubernetes.default/a", "https://Kubernetes.default.svc.corp.example/a",
            "https://kubernetes.defaults/a", "spiffe://cluster.local/a", "https://1./a", "https://.1/a", "urn:localhost", "a:127.0.0.1",
            "urn:a/b", "urn:/a", "urn:/", &format!("urn:{}", "a".repeat(2000)), &format!("urn:{}*", "a".repeat(2000)),
        ]),
        ["app1", "APP1", "app1.", "app2", "My App", "www.example.com", &own, &format!("{own}."), "app1.victim.svc", "app1.."]
            .map(|name| spec(json!({ "commonName": name }))).to_vec(),
        vec![
            spec(json!({ "commonName": "www.example.com", "dnsNames": ["WWW.example.com."] })),
            spec(json!({ "commonName": "db", "dnsNames": ["a.example.com"] })),
            json!({ "serviceName": "kubernetes" }), json!({ "serviceName": "kubernetes", "commonName": "Kubernetes." }),
            json!({ "serviceName": "kubernetes", "commonName": format!("kubernetes.{namespace}.svc"), "dnsNames": ["localhost"] }),
        ],
        ["1h", "876000h", "876000h1s", "999999h", "1h30m"].map(|duration| spec(json!({ "duration": duration }))).to_vec(),
        [("2160h", "1944h"), ("2160h", "1944h1s"), ("2160h", "1h0m30s"), ("1h", "54m"), ("1h", "55m"), ("1h1m1s", "1h"), ("999999h", "999999h")]
            .map(|(duration, before)| spec(json!({ "duration": duration, "renewBefore": before }))).to_vec(),
        vec![spec(json!({ "renewBefore": "2000h" }))],
        vec![
            label("team", "a"), label("example.com/Team_1.x", "A.b-c"), label("empty", ""), label("notbox.com/a", "b"),
            label("box.com/a", "b"), label("a.kubernetes.io/b", "c"), label("k8s.io/a", "b"), label("", "a"), label("-a", "b"),
            label("a/b/c", "d"), label("/a", "b"), label("a/", "b"), label("A.com/b", "c"), label(&format!("a{long}"), "b"),
            label("a", "-b"), label("a", "ä"), label("a", &format!("a{long}")), label(&format!("{}a/b", "a.".repeat(127)), "c"),
            annotation("example.com/note"), annotation("box.com/adopt"), annotation("a b"),
            keystore("pkcs12", "password"), keystore("jks", "App1"), keystore("pkcs12", "a..b"), keystore("jks", "app1-tls"),
            keystore("jks", "pki-operator-ca"),
            spec(json!({ "secretName": "pki-operator-ca" })), spec(json!({ "secretName": "pki-operator-webhook-ca" })),
            spec(json!({ "commonName": "x", "dnsNames": ["ok.example.com", "localhost", "a_b", "localhost"], "ipAddresses": ["::ffff:1.2.3.4"],
                "uris": ["a"], "renewBefore": "2159h", "secretTemplate": { "labels": { "box.com/a": "-" } } })),
        ],
    ]
    .concat()
}

/// What the API server says, without what it puts before it, of Pkis `p-0`, `p-1` and so on, of
/// which none is stored.
fn refusals(ns: &Namespace<'_>, specs: &[Value]) -> BTreeMap<usize, String> {
    let denied = |refusal: String| match refusal.split_once(" denied request: ") {
        Some((_, words)) => words.to_owned(),
        None => panic!("refused by something else: {refusal}"),
    };
    let refused = ns.create_all(specs, true);
    refused
        .into_iter()
        .map(|(index, refusal)| (index, denied(refusal)))
        .collect()
}

#[test]
fn the_api_server_alone_refuses_what_no_policy_can_permit_and_says_the_same() {
    let arena = arena();
    arena.without_webhooks();
    arena.with_admission_policy();
    let reserved = Namespace {
        installed: &arena,
        name: RELEASE.into(),
    };
    let default = Namespace {
        installed: &arena,
        name: "default".into(),
    };
    for ns in [&arena.namespace("alone"), &reserved, &default] {
        let mut specs = specs(&ns.name);
        for spec in &mut specs {
            if spec.get("secretName").is_none() {
                spec["secretName"] = json!("app1-tls");
            }
        }
        let refusals = refusals(ns, &specs);
        for (index, spec) in specs.iter().enumerate() {
            let expected = faults(&ns.name, &format!("p-{index}"), spec);
            let said = refusals.get(&index).map_or("", String::as_str);
            assert!(
                is_said_of(&expected, said),
                "{spec}: {said:?}, not {expected:?}"
            );
        }
        assert!(
            refusals.len() > 80 && specs.len() - refusals.len() > 40,
            "{}",
            refusals.len()
        );
    }
}

#[test]
fn a_value_that_cannot_be_shown_on_a_line_is_refused_all_the_same() {
    let arena = arena();
    arena.without_webhooks();
    arena.with_admission_policy();
    let ns = arena.namespace("alone");
    let values = [
        "a\0.b",
        "a\n.b",
        "a.b\n",
        "\u{1b}[31ma.b",
        "\u{202e}b.a",
        "a\u{301}.b",
        "a\tb",
    ];
    let fields = ["dnsNames", "ipAddresses", "uris"];
    let all = fields
        .iter()
        .flat_map(|field| values.map(|value| spec(json!({ *field: [value] }))));
    let all: Vec<_> = all.collect();
    let refusals = refusals(&ns, &all);
    for (index, spec) in all.iter().enumerate() {
        let said = &refusals[&index];
        assert!(said.contains("[0]: this value is not "), "{spec}: {said}");
        assert!(!said.contains(char::is_control), "{said:?}");
    }
    // The hexadecimal form is not worked out.
    let hexadecimal = spec(json!({ "ipAddresses": ["::ffff:a00:1"] }));
    let said = &self::refusals(&ns, &[hexadecimal])[&0];
    assert!(
        said.ends_with(
            "is an IPv4 address written as IPv6: write it with dots, for example 10.1.2.3"
        ),
        "{said}"
    );
}

#[test]
fn the_largest_objects_are_judged_within_the_budget_of_the_api_server() {
    let arena = arena();
    arena.without_webhooks();
    arena.with_admission_policy();
    let ns = arena.namespace("large");
    let host = |index: usize| {
        format!(
            "{index:03}{}.{}com",
            "a".repeat(57),
            format!("{}.", "b".repeat(59)).repeat(3)
        )
    };
    let path = |index: usize| format!("spiffe://a/{index:03}/{}", "b/".repeat(1015) + "c");
    let key = |index: usize| {
        format!(
            "{}com/{index:02}{}",
            format!("{}.", "b".repeat(59)).repeat(4),
            "k".repeat(61)
        )
    };
    let keys: BTreeMap<_, _> = (0..32).map(|index| (key(index), "v".repeat(63))).collect();
    let list = |item: &dyn Fn(usize) -> String| (0..100).map(item).collect::<Vec<_>>();
    let good = spec(json!({
        "dnsNames": list(&host), "uris": list(&path), "ipAddresses": list(&|index| format!("2001:db8:aaaa:bbbb:cccc:dddd:eeee:{index}")),
        "secretTemplate": { "labels": keys, "annotations": keys }, "commonName": "app1", "renewBefore": "1h",
    }));
    assert_eq!(faults("a", "b", &good), []);
    let mut bad = good.clone();
    bad["dnsNames"] = json!(list(&|index| format!(
        "{}svc",
        &host(index)[3..].replace("com", &format!("{index:03}."))
    )));
    bad["uris"] = json!(list(&|index| path(index) + "/"));
    bad["ipAddresses"] = json!(list(&|index| format!(
        "0000:0000:0000:0000:0000:ffff:10.0.0.{index}"
    )));
    assert_eq!(faults("a", "b", &bad).len(), 300);
    let refusals = refusals(&ns, &[good, bad]);
    assert_eq!(refusals.keys().collect::<Vec<_>>(), [&1]);
    assert!(
        refusals[&1].starts_with("spec.dnsNames[0]: ") && refusals[&1].ends_with("; and 297 more"),
        "{refusals:?}"
    );
}

#[test]
fn the_change_is_judged_and_not_what_was_there() {
    let arena = arena();
    arena.without_webhooks();
    let ns = arena.namespace("change");
    let bad = json!({ "serviceName": "app1", "dnsNames": ["db.victim.svc"] });
    let mut old = manifest::pki("old", &bad);
    old["metadata"]["finalizers"] = json!(["example.com/hold"]);
    ns.apply_object(&old);
    arena.with_admission_policy();
    ns.merge("pki", "old", &json!({"metadata": {"labels": {"a": "b"}}}));
    let patch = |patch: &Value| arena.api.merge("pki", &ns.name, "old", patch);
    for change in [
        json!({ "serviceName": "app2" }),
        json!({ "commonName": "app1" }),
        json!({ "dnsNames": ["db.victim.svc", "a.example.com"] }),
        json!({ "ipAddresses": ["10.0.0.1"] }),
        json!({ "uris": ["urn:a:b"] }),
        json!({ "secretName": "other" }),
        json!({ "duration": "24h" }),
        json!({ "usages": ["server auth"] }),
        json!({ "renewBefore": "24h" }),
        json!({ "renewBeforePercentage": 20 }),
        json!({ "privateKey": { "size": 384 } }),
        json!({ "privateKey": { "rotationPolicy": "Never" } }),
        json!({ "secretTemplate": { "labels": { "a": "b" } } }),
        json!({ "outputs": { "derKey": true } }),
    ] {
        let refusal = patch(&json!({ "spec": change })).expect_err(&change.to_string());
        assert!(
            refusal
                .to_string()
                .contains("spec.dnsNames[0]: \"db.victim.svc\" is a name inside"),
            "{refusal}"
        );
    }
    ns.delete_later("pki", "old");
    patch(&json!({ "spec": { "serviceName": "app2" }, "metadata": { "finalizers": null } }))
        .unwrap();
    eventually("it is gone", || {
        ns.get("pki", "old").is_none().then_some(())
    });
}

#[test]
fn a_refusal_of_the_api_server_itself_never_reaches_the_operator() {
    let arena = arena();
    let _operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("before");
    let both = json!({ "serviceName": "appp1", "dnsNames": ["localhost"] }).to_string();
    let refusal = || {
        ns.kubectl_apply_pki("app1-pki", &both)
            .unwrap_err()
            .to_string()
    };
    assert!(
        refusal().contains("* spec.serviceName: ServiceName: appp1 in pki"),
        "{}",
        refusal()
    );
    arena.with_admission_policy();
    let said = refusal();
    assert!(
        said.contains("ValidatingAdmissionPolicy") && !said.contains("appp1 in pki"),
        "{said}"
    );
}

fn policy(arena: &Installed) -> ValidatingAdmissionPolicy {
    let policy = arena.api.get("validatingadmissionpolicy", "", RELEASE);
    serde_json::from_value(policy.unwrap().unwrap()).unwrap()
}

#[test]
fn the_api_server_finds_every_expression_well_typed() {
    let arena = arena();
    arena.with_admission_policy();
    let checked = eventually("its types are checked", || {
        let policy = policy(&arena);
        let status = policy
            .status
            .filter(|status| status.observed_generation == policy.metadata.generation)?;
        status.type_checking
    });
    assert_eq!(checked.expression_warnings, None);
}
