//! The main path: apply, read the answer, get the Secret.

use crate::harness::{SHARED, eventually, file};
use std::process::Command;

#[test]
fn a_good_pki_becomes_a_secret_that_openssl_verifies() {
    let ns = SHARED.namespace("good");
    ns.apply_pki("app2-pki", r#"{"serviceName": "app2"}"#);
    ns.wait_until_ready("app2-pki");
    let dir = SHARED.cluster.dir().join(&ns.name);
    std::fs::create_dir(&dir).unwrap();
    let secret = ns.get("secret", "app2-pki").unwrap();
    for name in ["tls.crt", "ca.crt"] {
        std::fs::write(dir.join(name), file(&secret, name)).unwrap();
    }
    let openssl = Command::new("openssl")
        .args([
            "verify",
            "-x509_strict",
            "-CAfile",
            "ca.crt",
            "-verify_hostname",
        ])
        .arg(format!("app2.{}.svc", ns.name))
        .arg("tls.crt")
        .current_dir(&dir)
        .output()
        .expect("openssl runs");
    assert!(openssl.status.success(), "{openssl:?}");
}

#[test]
fn a_typo_is_refused_at_apply_with_the_name_that_was_meant() {
    let ns = SHARED.namespace("typo");
    let refusal = ns
        .kubectl_apply_pki("app1-pki", r#"{"serviceName": "appp1"}"#)
        .unwrap_err()
        .to_string();
    assert_eq!(
        refusal,
        "The Pki \"app1-pki\" is invalid: spec.serviceName: ServiceName: appp1 in pki: app1-pki is not found in \
         allowedNames: [app1 app2]; did you mean \"app1\"?"
    );
    assert!(ns.get("pki", "app1-pki").is_none());
}

#[test]
fn who_may_edit_a_namespace_may_write_its_pkis_but_no_policy() {
    let ns = SHARED.namespace("roles");
    for (role, user) in [("edit", "jane"), ("view", "joe")] {
        let arguments = ["--clusterrole", role, "--user", user];
        ns.kubectl(&[&["create", "rolebinding", user], &arguments[..]].concat())
            .unwrap();
    }
    let may = |user, verb, kind: &str| {
        let kind: Vec<_> = kind.split(' ').collect();
        let asked = ns.kubectl(&[&["auth", "can-i", "--as", user, verb], &kind[..]].concat());
        asked.is_ok_and(|answer| answer.trim() == "yes")
    };
    eventually("Kubernetes adds the chart's roles to its own", || {
        (may("jane", "create", "pkis.box.com") && may("joe", "list", "pkis.box.com")).then_some(())
    });
    assert!(!may("joe", "create", "pkis.box.com"));
    assert!(!may("jane", "create", "pkipolicies.box.com"));
    assert!(!may("jane", "patch", "pkis.box.com --subresource=status"));
}
