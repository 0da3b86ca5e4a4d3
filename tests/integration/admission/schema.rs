//! What the API server refuses by the schema alone, and how the kinds present themselves to
//! kubectl.

use crate::harness::SHARED;
use pki_cluster::testing::manifest;
use serde_json::{Value, json};

/// What kubectl prints, in alphabetical order, but for what the API server adds when it has not
/// come to the rules.
fn faults(refusal: anyhow::Result<String>) -> String {
    let refusal = refusal.expect_err("it is refused").to_string();
    let lines = refusal.lines();
    let mut lines: Vec<_> = lines
        .filter(|line| !line.starts_with("* <nil>: Invalid value: null: some validation rules"))
        .collect();
    lines[1..].sort_unstable();
    match lines.as_slice() {
        [begin, only] => [begin, only.trim_start_matches("* ")].concat(),
        _ => lines.join("\n"),
    }
}

#[test]
fn a_malformed_pki_is_refused_in_plain_words() {
    let ns = SHARED.namespace("schema");
    let label = "must be a DNS label: lower-case letters, digits and '-', starting and ending with a letter or digit, for example app1";
    let secret = "must be the name of a Secret: lower-case letters, digits, '-' and '.', for example app1-pki";
    let duration = "must be a duration of at least 1h, in hours, minutes and seconds, for example 2160h or 1h30m";
    let size = "must be 256 or 384 for ECDSA, 2048, 3072 or 4096 for RSA, and left out for Ed25519";
    let renewal = "must be a duration in hours, minutes and seconds, for example 720h";
    for (field, value, said) in [
        ("serviceName", "", label),
        ("serviceName", "App1", label),
        ("serviceName", "app1.victim", label),
        ("serviceName", "-app1", label),
        ("serviceName", "app1-", label),
        ("serviceName", "app1 ", label),
        ("secretName", "A", secret),
        ("secretName", "", secret),
        ("secretName", "../ca", secret),
        ("duration", "90d", duration),
        ("duration", "59m", duration),
        ("duration", "", duration),
        ("renewBefore", "soon", renewal),
        ("renewBefore", "0h", renewal),
    ] {
        let mut spec = json!({ "serviceName": "app1" });
        spec[field] = json!(value);
        assert_eq!(
            faults(ns.kubectl_apply_pki("app1-pki", &spec.to_string())),
            format!(
                "The Pki \"app1-pki\" is invalid: spec.{field}: Invalid value: \"{value}\": {said}"
            )
        );
    }
    for (spec, said) in [
        (json!({}), "spec.serviceName: Required value".to_owned()),
        (
            json!({ "serviceName": "app1", "privateKey": { "size": 2049 } }),
            format!("spec.privateKey.size: Invalid value: {size}"),
        ),
        (
            json!({ "serviceName": "app1", "privateKey": { "algorithm": "RSA", "size": 1024 } }),
            format!("spec.privateKey.size: Invalid value: {size}"),
        ),
        (
            json!({ "serviceName": "app1", "privateKey": { "algorithm": "Ed25519", "size": 384 } }),
            format!("spec.privateKey.size: Invalid value: {size}"),
        ),
        (
            json!({ "serviceName": "app1", "privateKey": { "algorithm": "RSA", "encoding": "SEC1" } }),
            "spec.privateKey.encoding: Invalid value: must be PKCS8, or PKCS1 for RSA, or SEC1 for ECDSA".into(),
        ),
        (
            json!({ "serviceName": "app1", "privateKey": { "algorithm": "DSA" } }),
            "spec.privateKey.algorithm: Unsupported value: \"DSA\": supported values: \"ECDSA\", \"RSA\", \"Ed25519\"".into(),
        ),
        (
            json!({ "serviceName": "app1", "usages": ["code signing"] }),
            "spec.usages[0]: Unsupported value: \"code signing\": supported values: \"server auth\", \"client auth\"".into(),
        ),
        (
            json!({ "serviceName": "app1", "renewBeforePercentage": 95 }),
            "spec.renewBeforePercentage: Invalid value: 95: spec.renewBeforePercentage in body should be less than or equal to 90".into(),
        ),
        (
            json!({ "serviceName": "app1", "renewBefore": "1h", "renewBeforePercentage": 5 }),
            "spec.renewBeforePercentage: Invalid value: write either renewBefore or renewBeforePercentage, not both".into(),
        ),
        (
            json!({ "serviceName": "app1", "outputs": { "jks": {} } }),
            "spec.outputs.jks.passwordSecretRef: Required value".into(),
        ),
        (
            json!({ "serviceName": "App1", "duration": "90d" }),
            format!(
                "\n* spec.duration: Invalid value: \"90d\": {duration}\n* spec.serviceName: Invalid value: \"App1\": {label}"
            ),
        ),
    ] {
        let refusal = faults(ns.kubectl_apply_pki("app1-pki", &spec.to_string()));
        assert_eq!(
            refusal,
            format!("The Pki \"app1-pki\" is invalid: {said}"),
            "{spec}"
        );
    }
}

#[test]
fn a_value_that_is_too_long_or_of_a_wrong_type_is_named_by_its_field() {
    let ns = SHARED.namespace("schema");
    for (spec, said) in [
        (
            json!({ "serviceName": "a".repeat(64) }),
            "spec.serviceName: Too long: may not be more than 63 bytes",
        ),
        (
            json!({ "serviceName": "app1", "commonName": "a".repeat(65) }),
            "spec.commonName: Too long: may not be more than 64 bytes",
        ),
        (
            json!({ "serviceName": "app1", "dnsNames": vec!["a.example.com"; 101] }),
            "spec.dnsNames: Too many: 101: must have at most 100 items",
        ),
        (
            json!({ "serviceName": 5 }),
            "spec.serviceName: Invalid value: \"integer\"",
        ),
        (
            json!({ "serviceName": "app1", "dnsNames": "a" }),
            "spec.dnsNames: Invalid value: \"string\"",
        ),
        (
            json!({ "serviceName": "app1", "servicename": "app1" }),
            "unknown field \"spec.servicename\"",
        ),
    ] {
        let refusal = ns
            .kubectl_apply_pki("app1-pki", &spec.to_string())
            .unwrap_err()
            .to_string();
        assert!(refusal.contains(said), "{spec}: {refusal}");
    }
}

#[test]
fn a_malformed_policy_is_refused_in_plain_words() {
    let service = "each must be a service name such as app1, or a pattern of lower-case letters, digits, '-', '*' and {namespace}";
    let dns = "each must be a DNS name, whose labels but the last may be *, for example *.{namespace}.example.com";
    let range = "each must be an IP address or a range in CIDR notation, for example 10.0.0.0/8";
    let uri = "each must be a URI whose scheme and host are spelled out, for example spiffe://example.com/ns/{namespace}/*";
    let namespace = "each must be the name of a namespace, or a glob such as team-*";
    let duration = "must be a duration of at least 1h, in hours, minutes and seconds, for example 2160h or 1h30m";
    let apply = |spec: &Value| {
        let policy = manifest::policy("schema", spec);
        SHARED.kubectl_with(
            &policy.to_string(),
            &["apply", "--dry-run=server", "--filename", "-"],
        )
    };
    let required_path = "spec.namespaces.selector.matchExpressions[0]";
    let requirement = "write values with In and NotIn, and none with Exists and DoesNotExist";
    let required = |operator: &str, values: &Value| {
        let expression = json!({ "key": "env", "operator": operator, "values": values });
        json!({ "serviceNames": ["app1"], "namespaces": { "selector": { "matchExpressions": [expression] } } })
    };
    for (spec, said) in [
        (json!({}), "spec.serviceNames: Required value".to_owned()),
        (json!({ "serviceNames": [] }), "spec.serviceNames: Invalid value: 0: spec.serviceNames in body should have at least 1 items".into()),
        (json!({ "serviceNames": ["App1"] }), format!("spec.serviceNames: Invalid value: {service}")),
        (json!({ "serviceNames": ["app1", ""] }), format!("spec.serviceNames: Invalid value: {service}")),
        (json!({ "serviceNames": ["app1", "a b"] }), format!("spec.serviceNames: Invalid value: {service}")),
        (json!({ "serviceNames": ["app1"], "dnsNames": ["*.*"] }), format!("spec.dnsNames: Invalid value: {dns}")),
        (json!({ "serviceNames": ["app1"], "dnsNames": ["a*.example.com"] }), format!("spec.dnsNames: Invalid value: {dns}")),
        (json!({ "serviceNames": ["app1"], "dnsNames": [".example.com"] }), format!("spec.dnsNames: Invalid value: {dns}")),
        (json!({ "serviceNames": ["app1"], "dnsNames": ["{service}.example.com"] }), format!("spec.dnsNames: Invalid value: {dns}")),
        (json!({ "serviceNames": ["app1"], "namespaces": { "names": ["Team"] } }), format!("spec.namespaces.names: Invalid value: {namespace}")),
        (required("In", &json!([])), format!("{required_path}.values: Invalid value: {requirement}")),
        (required("Exists", &json!(["a"])), format!("{required_path}.values: Invalid value: {requirement}")),
        (
            required("Equals", &json!(["a"])),
            format!("{required_path}.operator: Unsupported value: \"Equals\": supported values: \"In\", \"NotIn\", \"Exists\", \"DoesNotExist\""),
        ),
        (json!({ "serviceNames": ["app1"], "ipAddresses": ["10.0.0.0/33"] }), format!("spec.ipAddresses: Invalid value: {range}")),
        (json!({ "serviceNames": ["app1"], "uris": ["*"] }), format!("spec.uris: Invalid value: {uri}")),
        (json!({ "serviceNames": ["app1"], "uris": ["spiffe://*/app1"] }), format!("spec.uris: Invalid value: {uri}")),
        (json!({ "serviceNames": ["app1"], "maxDuration": "30m" }), format!("spec.maxDuration: Invalid value: \"30m\": {duration}")),
    ] {
        let refusal = faults(apply(&spec));
        assert_eq!(refusal, format!("The PkiPolicy \"schema\" is invalid: {said}"), "{spec}");
    }
    let dns = [
        "*.example.com",
        "{namespace}.example.com",
        "*.a-{namespace}.Example.com.",
        "a.*.example.com",
        "example.com",
    ];
    apply(&json!({
        "serviceNames": ["app1", "*", "{namespace}", "{namespace}-*"], "dnsNames": dns,
        "namespaces": { "names": ["team-*", "x"] }, "maxDuration": "1h"
    }))
    .unwrap();
}

#[test]
fn a_policy_may_list_ten_thousand_names() {
    let names: Vec<_> = (0..10_000)
        .map(|n| format!("a-service-of-the-platform-{n}"))
        .collect();
    let policy = manifest::policy("many", &json!({ "serviceNames": names }));
    SHARED
        .kubectl_with(
            &policy.to_string(),
            &["create", "--dry-run=server", "--filename", "-"],
        )
        .unwrap();
}

/// Paths of the properties below that have no sentence of their own.
fn silent(schema: &Value, path: &str) -> Vec<String> {
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .flat_map(|(name, property)| {
            let path = format!("{path}.{name}");
            let description = property["description"].as_str().unwrap_or_default();
            let mut silent = [silent(property, &path), silent(&property["items"], &path)].concat();
            if !description.trim_end().ends_with('.') {
                silent.push(path);
            }
            silent
        })
        .collect()
}

#[test]
fn every_field_is_explained_in_a_sentence() {
    for crd in ["pkis.box.com", "pkipolicies.box.com"] {
        let printed = SHARED
            .kubectl(&["get", "crd", crd, "--output", "json"])
            .unwrap();
        let crd: Value = serde_json::from_str(&printed).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        for part in ["spec", "status"] {
            assert_eq!(silent(&schema[part], part), [] as [&str; 0]);
        }
        let spec = schema["spec"]["properties"].as_object().unwrap();
        assert!(spec.len() > 3, "{spec:?}");
    }
}

#[test]
fn kubectl_explain_shows_unit_and_default() {
    for (field, said) in [
        (
            "pki",
            "Request for a certificate for one Service of this namespace.",
        ),
        ("pki.spec", "Request of an application team"),
        ("pki.spec.serviceName", "DNS label of at most 63"),
        (
            "pki.spec.duration",
            "Default: that of the PkiPolicy, else 2160h (90 days), or the maximum",
        ),
        ("pki.spec.secretName", "Default: the name of the Pki."),
        (
            "pki.spec.privateKey.size",
            "Ed25519 has one size. Default: that of the PkiPolicy, else 256 for ECDSA and 2048 for RSA,",
        ),
        (
            "pki.spec.privateKey.algorithm",
            "Default: that of the PkiPolicy, else ECDSA, or the first key that",
        ),
        (
            "pki.spec.privateKey.encoding",
            "PKCS8, or for older servers PKCS1 (RSA) or SEC1 (ECDSA). Default: that of the PkiPolicy, else PKCS8.",
        ),
        (
            "pki.spec.privateKey.rotationPolicy",
            "a new key (`Always`) or keeps its key (`Never`).",
        ),
        (
            "pkipolicy.spec.defaults",
            "A changed default applies from the next renewal of a certificate.",
        ),
        (
            "pki.status.policy",
            "supplies the fields which its spec omits",
        ),
        ("pki.status.renewalTime", "Time of the next renewal."),
        ("pkipolicy", "A Pki is admitted when one policy"),
        ("pkipolicy.spec", "Policy of a platform team."),
        (
            "pkipolicy.spec.serviceNames",
            "`{namespace}` stands for the namespace of the Pki",
        ),
        ("pkipolicy.spec.namespaces.names", "Empty: all namespaces."),
        (
            "pkipolicy.spec.namespaces.selector",
            "Selector for the labels of the namespaces",
        ),
    ] {
        let printed = SHARED.kubectl(&["explain", field]).unwrap();
        let words: Vec<_> = printed.split_whitespace().collect();
        assert!(words.join(" ").contains(said), "{field}: {printed}");
    }
}

#[test]
fn kubectl_get_shows_what_people_look_for() {
    let ns = SHARED.namespace("columns");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    let ready = ns.wait_until_ready("app1-pki");
    let expires = ready["status"]["notAfter"].as_str().expect("a time");
    let rows = |arguments: &[&str]| -> Vec<Vec<String>> {
        let printed = ns.kubectl(&[&["get"], arguments].concat()).unwrap();
        printed
            .lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect()
    };
    for kind in ["pki", "pkis", "pkis.box.com"] {
        let rows = rows(&[kind]);
        assert_eq!(
            rows[0],
            ["NAME", "SERVICE", "READY", "SECRET", "EXPIRES", "AGE"]
        );
        assert_eq!(
            rows[1][..5],
            ["app1-pki", "app1", "True", "app1-pki", expires]
        );
    }
    let wide = rows(&["pki", "--output", "wide"]);
    assert_eq!(
        wide[0],
        [
            "NAME", "SERVICE", "READY", "SECRET", "EXPIRES", "REASON", "RENEWAL", "AGE"
        ]
    );
    let policies = rows(&["pkipolicies"]);
    assert_eq!(
        policies[0],
        [
            "NAME",
            "SERVICES",
            "NAMESPACES",
            "MAXDURATION",
            "ADMITTED",
            "REFUSED",
            "AGE"
        ]
    );
    let category = ns
        .kubectl(&["get", "pki-operator", "--output", "name"])
        .unwrap();
    let names: Vec<_> = category.lines().collect();
    assert!(names.contains(&"pki.box.com/app1-pki"), "{category}");
    assert!(
        names.contains(&"pkipolicy.box.com/pki-operator-allowed-names"),
        "{category}"
    );
}
