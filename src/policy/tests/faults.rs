//! Policies that do not do what their authors think.

use super::*;

/// The faults of a policy with these fields.
fn found(fields: &Value) -> Vec<String> {
    let mut spec = json!({ "serviceNames": ["app1"] });
    let fields = fields.as_object().expect("fields").clone();
    spec.as_object_mut().expect("a map").extend(fields);
    let spec = serde_json::from_value(spec).expect("a spec");
    faults(&spec, &Settings::default())
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_policy_that_means_something_has_no_fault() {
    let none: [String; 0] = [];
    for fields in [
        json!({}),
        json!({ "serviceNames": ["app1", "*", "{namespace}-*", "*-web", "{namespace}", "a-{namespace}-b", "x".repeat(63)] }),
        json!({ "namespaces": { "names": ["team-*", "*", "a"], "selector": { "matchLabels": { "a": "", "example.com/b": "c" },
            "matchExpressions": [{ "key": "a", "operator": "Exists" }, { "key": "c", "operator": "NotIn", "values": ["d"] },
                { "key": "e", "operator": "DoesNotExist" }, { "key": "f", "operator": "In", "values": ["g", "h"] },
                { "key": "f", "operator": "NotIn", "values": ["g"] }] } } }),
        json!({ "dnsNames": ["*.{namespace}.Example.com.", "a.b", "*.*.com", "xn--pple-43d.com", "{namespace}.example.com"] }),
        json!({ "ipAddresses": ["10.0.0.0/8", "10.1.2.3", "2001:db8::/32", "::/0", "0.0.0.0/0", "fd00::1"] }),
        json!({ "uris": ["spiffe://example.com/ns/{namespace}/*", "https://a", "urn:example:*", "spiffe://e.com/*/a", "spiffe://e.com/a-{namespace}/b"] }),
        json!({ "privateKeys": [{ "algorithm": "ECDSA", "minSize": 384 }, { "algorithm": "RSA", "minSize": 4096 }, { "algorithm": "Ed25519" }] }),
        json!({ "maxDuration": "1h", "validations": [{ "expression": "pki.spec.uris.size() < 3", "message": "at most 2" }] }),
    ] {
        assert_eq!(found(&fields), none, "{fields}");
    }
}

/// One fault at a time, by a part of its message.
fn each_is_a_fault(cases: &[(Value, &str)]) {
    for (fields, fault) in cases {
        let reported = found(fields);
        assert!(
            reported.len() == 1 && reported[0].contains(fault),
            "{fields}: {reported:?}"
        );
    }
}

#[test]
fn a_name_that_can_never_match_is_a_fault_at_its_place() {
    each_is_a_fault(&[
        (
            json!({ "serviceNames": [] }),
            "spec.serviceNames: it is empty",
        ),
        (
            json!({ "serviceNames": ["a", "{ns}-*"] }),
            r#"spec.serviceNames[1]: "{ns}-*" has an unknown placeholder: write {namespace}"#,
        ),
        (
            json!({ "serviceNames": ["App1"] }),
            r#"spec.serviceNames[0]: "App1" can never match a service name"#,
        ),
        (
            json!({ "serviceNames": ["db.victim"] }),
            r#"spec.serviceNames[0]: "db.victim" can never match"#,
        ),
        (
            json!({ "serviceNames": ["-*"] }),
            r#"spec.serviceNames[0]: "-*" can never match"#,
        ),
        (
            json!({ "serviceNames": ["x".repeat(64)] }),
            "at most 63 characters",
        ),
        (
            json!({ "dnsNames": ["*.svc"] }),
            r#"spec.dnsNames[0]: "*.svc" is a name inside the cluster"#,
        ),
        (
            json!({ "dnsNames": ["*.example.com", "a.svc.cluster.local."] }),
            r#"spec.dnsNames[1]: "a.svc.cluster.local." is a name inside"#,
        ),
        (
            json!({ "dnsNames": ["localhost"] }),
            "a name inside the cluster",
        ),
        (
            json!({ "dnsNames": ["example.*"] }),
            "'*' does not match the last label",
        ),
        (
            json!({ "dnsNames": ["a*.example.com"] }),
            "is not a DNS name pattern",
        ),
        (
            json!({ "dnsNames": ["{team}.example.com"] }),
            "an unknown placeholder",
        ),
        (
            json!({ "dnsNames": ["10.0.0.1"] }),
            "ends like an IP address",
        ),
    ]);
}

#[test]
fn a_namespace_that_there_can_never_be_is_a_fault() {
    each_is_a_fault(&[
        (
            json!({ "namespaces": { "names": ["{namespace}"] } }),
            r#"spec.namespaces.names[0]: "{namespace}" has a placeholder"#,
        ),
        (
            json!({ "namespaces": { "names": ["Team"] } }),
            r#"spec.namespaces.names[0]: "Team" can never match the name of a namespace"#,
        ),
        (
            json!({ "namespaces": { "selector": { "matchLabels": { "a b": "c" } } } }),
            r#"spec.namespaces.selector.matchLabels: "a b" is not a label key"#,
        ),
        (
            json!({ "namespaces": { "selector": { "matchLabels": { "a": "b c" } } } }),
            r#"spec.namespaces.selector.matchLabels: "b c" cannot be the value of a label"#,
        ),
        (
            json!({ "namespaces": { "selector": { "matchLabels": { "a": "b" }, "matchExpressions": [
            { "key": "a", "operator": "NotIn", "values": ["b", "c"] }] } } }),
            r#"spec.namespaces.selector: no namespace can meet the requirements on label "a""#,
        ),
        (
            json!({ "namespaces": { "selector": { "matchExpressions": [
            { "key": "a", "operator": "Exists" }, { "key": "a", "operator": "DoesNotExist" }] } } }),
            "contradict each other",
        ),
        (
            json!({ "namespaces": { "selector": { "matchExpressions": [{ "key": "a", "operator": "In" }] } } }),
            "contradict each other",
        ),
    ]);
}

#[test]
fn a_permission_that_no_certificate_can_use_is_a_fault() {
    each_is_a_fault(&[
        (
            json!({ "ipAddresses": ["10.0.0.0/33"] }),
            r#"spec.ipAddresses[0]: "10.0.0.0/33" is neither an IP address nor a range"#,
        ),
        (
            json!({ "ipAddresses": ["10.1.2.3/8"] }),
            r#"spec.ipAddresses[0]: "10.1.2.3/8" is not the beginning of a range: write 10.0.0.0/8"#,
        ),
        (
            json!({ "ipAddresses": ["::ffff:10.0.0.0/104"] }),
            "write 10.0.0.0/8",
        ),
        (
            json!({ "uris": ["spiffe://example.com/a*"] }),
            r#"spec.uris[0]: "spiffe://example.com/a*" can never match: '*' matches one whole segment"#,
        ),
        (json!({ "uris": ["spiffe://*/a"] }), "can never match"),
        (
            json!({ "uris": ["spiffe://example.com/a?b"] }),
            "can never match a URI of a certificate",
        ),
        (
            json!({ "uris": ["spiffe://example.com/../a"] }),
            "can never match a URI of a certificate",
        ),
        (json!({ "uris": ["*"] }), "can never match"),
        (
            json!({ "uris": ["spiffe://example.com/{ns}"] }),
            "an unknown placeholder",
        ),
        (
            json!({ "privateKeys": [{ "algorithm": "ECDSA", "minSize": 521 }] }),
            "spec.privateKeys[0].minSize: 521 is too large: ECDSA keys have at most 384 bits",
        ),
        (
            json!({ "privateKeys": [{ "algorithm": "Ed25519", "minSize": 256 }] }),
            "Ed25519 keys have only one size",
        ),
        (
            json!({ "maxDuration": "59m" }),
            r#"spec.maxDuration: "59m" is not a lifetime"#,
        ),
        (
            json!({ "validations": [{ "expression": "pki.", "message": "m" }] }),
            "spec.validations[0].expression: line 1, column 5",
        ),
        (
            json!({ "validations": [{ "expression": "true", "message": " " }] }),
            "spec.validations[0].message: it is empty",
        ),
    ]);
}

#[test]
fn a_hundred_of_a_million_faults_are_reported() {
    let many = json!({ "serviceNames": vec![""; 1_000_000], "dnsNames": vec!["*.svc"; 1_000_000] });
    assert_eq!(found(&many).len(), 100);
}

#[test]
fn addresses_of_the_cluster_are_no_policys_to_give_away() {
    let spec = json!({ "serviceNames": ["a"], "ipAddresses": ["10.96.0.1", "10.97.0.0/16", "10.0.0.0/8"] });
    let settings = Settings {
        reserved_addresses: vec!["10.96.0.0/12".parse().unwrap()],
        ..Settings::default()
    };
    let found = faults(&serde_json::from_value(spec).unwrap(), &settings);
    let fields: Vec<_> = found.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, ["spec.ipAddresses[0]", "spec.ipAddresses[1]"]);
    assert!(
        found[0].message.contains("is within 10.96.0.0/12"),
        "{found:?}"
    );
}

#[test]
fn a_policy_with_reserved_values_has_faults() {
    let api_server =
        "can never match: it is a name of the API server, which no policy can permit; remove it";
    let hosts = "points to localhost, a reserved address or the API server, which no policy can permit: remove it";
    for (mut spec, field, message) in [
        (
            json!({ "ipAddresses": ["127.0.0.0/8"] }),
            "spec.ipAddresses[0]",
            "\"127.0.0.0/8\" is within 127.0.0.0/8, loopback, unspecified, link-local, multicast, broadcast or cloud \
             metadata addresses, which no policy can permit: remove it",
        ),
        (
            json!({ "ipAddresses": ["fe80::/64"] }),
            "spec.ipAddresses[0]",
            "is within fe80::/10, ",
        ),
        (
            json!({ "ipAddresses": ["64:ff9b::a9fe:0/112"] }),
            "spec.ipAddresses[0]",
            "is within 64:ff9b::a9fe:0/112, ",
        ),
        (
            json!({ "dnsNames": ["kubernetes.default.svc.corp.example"] }),
            "spec.dnsNames[0]",
            api_server,
        ),
        (
            json!({ "dnsNames": ["kubernetes.default"] }),
            "spec.dnsNames[0]",
            api_server,
        ),
        (
            json!({ "uris": ["https://localhost:8443/*"] }),
            "spec.uris[0]",
            hosts,
        ),
        (
            json!({ "uris": ["https://127.0.0.1/{namespace}/*"] }),
            "spec.uris[0]",
            hosts,
        ),
        (
            json!({ "uris": ["https://0x7f.1/*"] }),
            "spec.uris[0]",
            "can never match",
        ),
        (
            json!({ "serviceNames": ["kubernetes"], "namespaces": { "names": ["default"] } }),
            "spec.serviceNames[0]",
            api_server,
        ),
    ] {
        if spec.get("serviceNames").is_none() {
            spec["serviceNames"] = json!(["a"]);
        }
        let found = found(&spec);
        assert_eq!(found.len(), 1, "{spec}: {found:?}");
        assert!(
            found[0].starts_with(field) && found[0].contains(message),
            "{spec}: {found:?}"
        );
    }
    for spec in [
        json!({ "serviceNames": ["kubernetes"] }),
        json!({ "serviceNames": ["kubernetes"], "namespaces": { "names": ["default", "a"] } }),
        json!({ "serviceNames": ["*"], "namespaces": { "names": ["default"] } }),
        json!({ "serviceNames": ["a"], "dnsNames": ["*.default"], "ipAddresses": ["0.0.0.0/0", "::/0"],
            "uris": ["spiffe://kubernetes/*"] }),
    ] {
        assert_eq!(found(&spec), [""; 0], "{spec}");
    }
}

#[test]
fn all_faults_are_reported_at_once() {
    let many =
        json!({ "serviceNames": ["A", "b", "C"], "dnsNames": ["*.svc"], "maxDuration": "x" });
    assert_eq!(found(&many).len(), 4);
}

#[test]
fn a_default_that_the_policy_does_not_permit_is_a_fault() {
    let limits = json!({ "serviceNames": ["app1"], "maxDuration": "24h", "usages": ["server auth"],
        "privateKeys": [{ "algorithm": "ECDSA" }, { "algorithm": "RSA", "minSize": 3072 }] });
    let key = |key: Value| json!({ "privateKey": key });
    for (defaults, reported) in [
        (json!({}), ""),
        (
            json!({ "duration": "24h", "renewBefore": "8h", "usages": ["server auth"],
                "privateKey": { "algorithm": "RSA", "size": 3072, "encoding": "PKCS1", "rotationPolicy": "Never" },
                "outputs": { "combinedPem": true }, "secretTemplate": { "labels": { "team": "a" } } }),
            "",
        ),
        (json!({ "renewBeforePercentage": 50 }), ""),
        (
            json!({ "duration": "48h" }),
            "spec.defaults.duration: 48h is longer than spec.maxDuration permits: write at most 24h, or raise spec.maxDuration",
        ),
        (
            json!({ "duration": "1d" }),
            "spec.defaults.duration: \"1d\" is not a lifetime: write at least 1h and at most 876000h in hours, minutes and seconds, for example 2160h",
        ),
        (
            json!({ "renewBefore": "23h" }),
            "spec.defaults.renewBefore: it is longer than nine tenths of the duration, which is 24h by default: write at most 21h36m",
        ),
        (
            json!({ "renewBefore": "8h", "renewBeforePercentage": 50 }),
            "spec.defaults.renewBeforePercentage: renewBefore and renewBeforePercentage both set the renewal time: remove one of them",
        ),
        (
            json!({ "usages": ["server auth", "client auth"] }),
            "spec.defaults.usages: \"client auth\" is not among spec.usages: remove it here, or permit it there",
        ),
        (
            key(json!({ "algorithm": "Ed25519" })),
            "spec.defaults.privateKey: Ed25519 is not among spec.privateKeys: write a kind of key that is permitted, or permit it there",
        ),
        (
            key(json!({ "algorithm": "RSA", "size": 2048 })),
            "spec.defaults.privateKey: RSA-2048 is not among spec.privateKeys: write a kind of key that is permitted, or permit it there",
        ),
        (
            key(json!({ "algorithm": "RSA", "size": 256 })),
            "spec.defaults.privateKey.size: 256 is not a size of an RSA key: write one of 2048, 3072, 4096",
        ),
        (
            key(json!({ "size": 3072 })),
            "spec.defaults.privateKey: its size or encoding does not fit an ECDSA key, which is the default: write its algorithm as well",
        ),
        (
            json!({ "secretTemplate": { "labels": { "kubernetes.io/a": "b" } } }),
            "spec.defaults.secretTemplate.labels: \"kubernetes.io/a\" is reserved, like all keys of kubernetes.io, k8s.io and box.com: choose another key",
        ),
        (
            json!({ "secretTemplate": { "annotations": { "a": "x".repeat(4096) } } }),
            "spec.defaults.secretTemplate: labels and annotations have 4097 bytes together: write at most 4096",
        ),
        (
            json!({ "outputs": { "jks": { "passwordSecretRef": { "name": "A" } } } }),
            "spec.defaults.outputs.jks.passwordSecretRef.name: \"A\" is not the name of a Secret: write lower-case letters, digits, '-' and '.', for example keystore-password",
        ),
    ] {
        let mut policy = limits.clone();
        policy["defaults"] = defaults.clone();
        let spec = serde_json::from_value(policy).expect("a policy");
        let found: Vec<_> = faults(&spec, &Settings::default())
            .iter()
            .map(ToString::to_string)
            .collect();
        let expected: Vec<_> = Some(reported)
            .filter(|reported| !reported.is_empty())
            .into_iter()
            .collect();
        assert_eq!(found, expected, "{defaults}");
    }
}
