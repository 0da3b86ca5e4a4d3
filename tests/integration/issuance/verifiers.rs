//! Every kind of certificate, judged by tools that did not make it: OpenSSL, GnuTLS, Go, webpki,
//! Python's cryptography and pkilint; and every keystore, by keytool and OpenSSL.
//!
//! They are no part of what a machine with Rust and Go has, so this is run by name (see `.ci/run`):
//! `tests/verifiers/install.sh target/verifiers`, then `cargo test --test integration -- --ignored
//! verifiers`.

use crate::harness::{Namespace, SHARED, bytes, file};
use pki_cluster::testing::manifest;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use webpki::{EndEntityCert, KeyUsage};

const PASSWORD: &str = "changeit";
const BOTH: [&str; 2] = ["server auth", "client auth"];

/// Algorithm, size and encoding.
const KEYS: [(&str, Option<u32>, &str); 11] = [
    ("ECDSA", Some(256), "PKCS8"),
    ("ECDSA", Some(256), "SEC1"),
    ("ECDSA", Some(384), "PKCS8"),
    ("ECDSA", Some(384), "SEC1"),
    ("RSA", Some(2048), "PKCS8"),
    ("RSA", Some(2048), "PKCS1"),
    ("RSA", Some(3072), "PKCS8"),
    ("RSA", Some(3072), "PKCS1"),
    ("RSA", Some(4096), "PKCS8"),
    ("RSA", Some(4096), "PKCS1"),
    ("Ed25519", None, "PKCS8"),
];

#[test]
#[ignore = "needs the tools of others: tests/verifiers/install.sh target/verifiers"]
fn every_certificate_and_every_keystore_is_taken_by_tools_that_nobody_here_wrote() {
    let tool = |path: &str| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    let go = tool("target/verifiers/verify-go");
    assert!(
        go.exists(),
        "the tools are missing: tests/verifiers/install.sh target/verifiers"
    );
    let ns = SHARED.namespace("verifiers");
    let names = r#", "dnsNames": ["*.example.com"], "ipAddresses": ["10.0.0.0/8", "2001:db8::/32"],
        "uris": ["https://example.com/{namespace}/*"]"#;
    // With the namespace it is too long for a common name.
    let long = "a".repeat(63);
    ns.permit(&["app1", &long], names);
    let password = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "password"},
        "stringData": {"password": PASSWORD}});
    ns.apply(&password.to_string());
    let cases = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verifiers");
    drop(fs::remove_dir_all(&cases));

    let wanted: Vec<_> = KEYS
        .iter()
        .flat_map(|key| {
            [&BOTH[..1], &BOTH[1..], &BOTH[..]]
                .map(|usages| (case_name(key, usages), "app1", key, usages))
        })
        .chain([("nameless".to_owned(), &*long, &KEYS[0], &BOTH[..])])
        .collect();
    let manifests: Vec<_> = wanted
        .iter()
        .map(|(name, service, key, usages)| manifest(&ns, [name, service], key, usages))
        .collect();
    ns.apply(&manifests.join("\n---\n"));
    for (name, service, key, usages) in &wanted {
        ns.wait_until_ready(name);
        let secret = ns.get("secret", name).unwrap();
        store(&cases.join(name), &ns, service, &secret, usages);
        expect_encoding(&secret, key);
        expect_webpki(&ns, service, &secret, usages);
    }

    let mut outcomes = BTreeSet::new();
    for (program, arguments) in [
        (&go, &["verify"][..]),
        (&go, &["handshake"]),
        (
            &tool("target/verifiers/venv/bin/python"),
            &["tests/verifiers/verify.py"],
        ),
        (&tool("tests/verifiers/verify.sh"), &[]),
    ] {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg(&cases)
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = command.output();
        let output = output.unwrap_or_else(|error| {
            panic!(
                "{} does not start ({error}); run tests/verifiers/install.sh target/verifiers",
                program.display()
            )
        });
        let printed = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{}:\n{printed}{errors}",
            program.display()
        );
        outcomes.extend(printed.lines().map(str::to_owned));
    }
    let expected: BTreeSet<_> = wanted
        .iter()
        .flat_map(|(name, _, _, usages)| expected(name, usages))
        .collect();
    assert_eq!(outcomes, expected);
    println!(
        "{} certificates, {} checks by others",
        wanted.len(),
        outcomes.len()
    );
}

fn case_name((algorithm, size, encoding): &(&str, Option<u32>, &str), usages: &[&str]) -> String {
    let size = size.map(|size| size.to_string()).unwrap_or_default();
    let usages: Vec<_> = usages.iter().map(|usage| &usage[..6]).collect();
    format!("{algorithm}{size}-{encoding}-{}", usages.join("-")).to_lowercase()
}

fn manifest(
    ns: &Namespace<'_>,
    [name, service]: [&str; 2],
    (algorithm, size, encoding): &(&str, Option<u32>, &str),
    usages: &[&str],
) -> String {
    let mut key = json!({"algorithm": algorithm, "encoding": encoding});
    if let Some(size) = size {
        key["size"] = (*size).into();
    }
    let keystore = json!({"passwordSecretRef": {"name": "password", "key": "password"}});
    let spec = json!({
        "serviceName": service, "usages": usages, "privateKey": key,
        "dnsNames": ["www.example.com"], "ipAddresses": ["10.1.2.3", "2001:db8::1"],
        "uris": [format!("https://example.com/{}/app1", ns.name)],
        "outputs": {"combinedPem": true, "derKey": true, "pkcs12": keystore, "jks": keystore},
    });
    manifest::pki(name, &spec).to_string()
}

/// Writes the Secret as a case for the tools.
fn store(case: &Path, ns: &Namespace<'_>, service: &str, secret: &Value, usages: &[&str]) {
    fs::create_dir_all(case).unwrap();
    for name in secret["data"].as_object().unwrap().keys() {
        fs::write(case.join(name), bytes(secret, name)).unwrap();
    }
    fs::write(case.join("password"), PASSWORD).unwrap();
    let host = |service: &str| format!("{service}.{}.svc", ns.name);
    let case_json = json!({"host": host(service), "wrongHost": host("app2"), "usages": usages, "intermediates": false});
    fs::write(case.join("case.json"), case_json.to_string()).unwrap();
}

fn expect_encoding(secret: &Value, (_, _, encoding): &(&str, Option<u32>, &str)) {
    let begin = match *encoding {
        "SEC1" => "-----BEGIN EC PRIVATE KEY-----\n",
        "PKCS1" => "-----BEGIN RSA PRIVATE KEY-----\n",
        _ => "-----BEGIN PRIVATE KEY-----\n",
    };
    let (key, chain) = (file(secret, "tls.key"), file(secret, "tls.crt"));
    assert!(
        key.starts_with(begin),
        "{}",
        key.lines().next().unwrap_or_default()
    );
    assert_eq!(file(secret, "tls-combined.pem"), format!("{key}{chain}"));
}

/// As rustls judges, which many servers and clients in the cluster are built on.
fn expect_webpki(ns: &Namespace<'_>, service: &str, secret: &Value, usages: &[&str]) {
    let leaf = CertificateDer::from_pem_slice(file(secret, "tls.crt").as_bytes()).unwrap();
    let root = CertificateDer::from_pem_slice(file(secret, "ca.crt").as_bytes()).unwrap();
    let leaf = EndEntityCert::try_from(&leaf).unwrap();
    let anchors = [webpki::anchor_from_trusted_cert(&root).unwrap()];
    for (usage, required) in BOTH
        .iter()
        .zip([KeyUsage::server_auth(), KeyUsage::client_auth()])
    {
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        let now = UnixTime::now();
        let verdict = leaf.verify_for_usage(algorithms, &anchors, &[], now, required, None, None);
        assert_eq!(verdict.is_ok(), usages.contains(usage), "{usage}");
    }
    for (name, is_right) in [
        (format!("{service}.{}.svc", ns.name), true),
        ("www.example.com".into(), true),
        ("10.1.2.3".into(), true),
        ("2001:db8::1".into(), true),
        (format!("app2.{}.svc", ns.name), false),
        ("10.1.2.4".into(), false),
    ] {
        let name = ServerName::try_from(name).unwrap();
        let verdict = leaf.verify_is_valid_for_subject_name(&name);
        assert_eq!(verdict.is_ok(), is_right, "{name:?}");
    }
}

/// Every line that the tools are to print about a case.
fn expected(case: &str, usages: &[&str]) -> Vec<String> {
    let both = ["go", "cryptography", "openssl", "certtool"];
    let passed = [
        "go-tls1.2",
        "go-tls1.3",
        "pkilint",
        "openssl-p12",
        "keytool-p12",
        "keytool-jks",
        "openssl-truststore-p12",
        "keytool-truststore-p12",
        "keytool-truststore-jks",
    ];
    let handshakes = ["go-tls1.2", "go-tls1.3"]
        .iter()
        .filter(|_| usages.contains(&BOTH[0]));
    let ok = both
        .iter()
        .chain(&passed)
        .map(|tool| format!("{case}\t{tool}\tok"));
    let refused = both.iter().chain(handshakes);
    ok.chain(refused.map(|tool| format!("{case}\t{tool}\twrong-host-refused")))
        .collect()
}
