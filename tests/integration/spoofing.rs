//! Whatever a team writes, and however generous a policy is, no certificate is for the service of another namespace.

use crate::harness::SHARED;
use serde_json::json;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Patterns that a platform team might write without thinking of names inside the cluster.
const GENEROUS: &str = r#", "dnsNames": ["*.svc", "*.*.svc", "*.*.svc.cluster.local", "*.cluster.local", "*.default",
    "*.local", "localhost", "*.*.pod.cluster.local", "*.example.com", "*.*.com"]"#;

#[test]
fn names_that_lead_to_another_service_are_each_refused() {
    let ns = SHARED.namespace("evil");
    ns.permit(&["*", "app1"], GENEROUS);
    let names = [
        "db.victim.svc",
        "DB.Victim.SVC",
        "db.victim.svc.",
        "db.victim.svc.cluster.local",
        "db.victim",
        "db",
        "*",
        "*.svc",
        "*.victim.svc",
        "*.victim.svc.cluster.local",
        "*.cluster.local",
        "kubernetes.default.svc",
        "kubernetes",
        "kubernetes.default.svc.cluster.local.",
        "localhost",
        "a.localhost",
        "10-0-0-1.victim.pod.cluster.local",
        "10.0.0.1",
        "::ffff:10.0.0.1",
        "0x7f.1",
        "xn--pple-43d.example.com",
        "аpple.example.com",
        "db.victim.svc\u{0}.example.com",
        "db.victim.svc\n",
        "a,DNS:db.victim.svc",
        "a.*.com",
        "app1.victim.svc",
    ];
    let spec = json!({ "serviceName": "app1", "dnsNames": names });
    let refusal = ns
        .apply_pki("spoof", &spec.to_string())
        .unwrap_err()
        .to_string();
    for (index, name) in names.iter().enumerate() {
        assert!(
            refusal.contains(&format!("* spec.dnsNames[{index}]: ")),
            "{name:?} is not in {refusal}"
        );
    }
    assert_eq!(refusal.lines().count(), names.len() + 1, "{refusal}");
}

#[test]
fn neither_common_name_nor_service_name_smuggles_one_in() {
    let ns = SHARED.namespace("evil");
    ns.permit(&["*", "app1"], GENEROUS);
    for spec in [
        json!({ "serviceName": "app1", "commonName": "db.victim.svc" }),
        json!({ "serviceName": "app1", "commonName": "db" }),
        json!({ "serviceName": "app1", "commonName": "app1\u{0}" }),
        json!({ "serviceName": "db.victim" }),
        json!({ "serviceName": "db.victim.svc.cluster.local" }),
        json!({ "serviceName": "*" }),
        json!({ "serviceName": "DB" }),
    ] {
        let refusal = ns
            .apply_pki("spoof", &spec.to_string())
            .unwrap_err()
            .to_string();
        assert!(
            refusal.starts_with("The Pki \"spoof\" is invalid: spec."),
            "{refusal}"
        );
    }
}

#[test]
fn a_certificate_is_for_the_names_of_its_own_service_and_nothing_else() {
    let ns = SHARED.namespace("own");
    ns.permit(&["*", "app1"], GENEROUS);
    let spec = json!({ "serviceName": "db", "dnsNames": ["WWW.Example.com.", "www.example.com", format!("db.{}.svc", ns.name)] });
    ns.apply_pki("db", &spec.to_string()).unwrap();
    ns.wait_until_ready("db");
    let template = "--output=go-template={{index .data \"tls.crt\" | base64decode}}";
    let certificate = ns.kubectl(&["get", "secret", "db", template]).unwrap();
    let mut openssl = Command::new("openssl")
        .args(["x509", "-noout", "-subject", "-ext", "subjectAltName"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl runs; if it is missing: apt-get install openssl");
    openssl
        .stdin
        .take()
        .unwrap()
        .write_all(certificate.as_bytes())
        .unwrap();
    let printed = String::from_utf8(openssl.wait_with_output().unwrap().stdout).unwrap();
    let lines: Vec<_> = printed.lines().map(str::trim).collect();
    assert_eq!(lines.len(), 3, "{printed}");
    assert_eq!(lines[0].replace(' ', ""), "subject=CN=db");
    let name = &ns.name;
    assert_eq!(
        lines[2],
        format!("DNS:db.{name}.svc, DNS:db.{name}.svc.cluster.local, DNS:www.example.com")
    );
}
