//! Issuance, its repetition, and reconciles without a write.

use crate::harness::{Namespace, SHARED, arena, eventually, file, notes, openssl, serial_of};
use jiff::{SignedDuration, Timestamp};
use pki_certs::{Authority, KeyAlgorithm, KeyEncoding, LeafRequest, Usage};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

#[test]
fn a_secret_has_the_type_the_files_the_owner_and_the_label_that_others_rely_on() {
    let ns = SHARED.namespace("shape");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    let pki = ns.wait_until_ready("app1-pki");
    let secret = ns.get("secret", "app1-pki").unwrap();
    assert_eq!(secret["type"], "kubernetes.io/tls");
    let files: Vec<_> = secret["data"].as_object().unwrap().keys().collect();
    assert_eq!(files, ["ca.crt", "tls.crt", "tls.key"]);
    let owner = json!([{"apiVersion": "box.com/v1", "kind": "Pki", "name": "app1-pki",
        "uid": pki["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true}]);
    assert_eq!(secret["metadata"]["ownerReferences"], owner);
    let label = &secret["metadata"]["labels"]["app.kubernetes.io/managed-by"];
    assert_eq!(label, "pki-operator");
    assert!(file(&secret, "tls.key").starts_with("-----BEGIN PRIVATE KEY-----\n"));
}

#[test]
fn the_status_describes_the_certificate() {
    let ns = SHARED.namespace("status");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1", "duration": "24h"}"#);
    let pki = ns.wait_until_ready("app1-pki");
    let pki = &pki;
    let (status, secret) = (&pki["status"], ns.get("secret", "app1-pki").unwrap());
    let certificate = file(&secret, "tls.crt");
    assert_eq!(serial_of(&certificate), serial(pki));
    let ca = openssl(
        &["x509", "-noout", "-fingerprint", "-sha256"],
        &file(&secret, "ca.crt"),
    );
    let fingerprint = ca
        .split('=')
        .next_back()
        .unwrap()
        .replace(':', "")
        .to_lowercase();
    assert_eq!(status["issuerFingerprint"], fingerprint);

    let time = |field: &str| text(&status[field]).parse::<Timestamp>().unwrap();
    let ahead = time("notAfter").duration_since(time("renewalTime"));
    assert!(
        (8 * HOUR..=8 * HOUR + 16 * HOUR / 10).contains(&ahead),
        "a third of the duration, and up to a tenth of the other two earlier: {ahead:#}"
    );
    let validity = time("notAfter").duration_since(time("notBefore"));
    assert_eq!(
        validity,
        24 * HOUR + SignedDuration::from_mins(5),
        "five minutes for slow clocks"
    );
    assert_eq!(status["secretName"], "app1-pki");
    assert_eq!(status["observedGeneration"], pki["metadata"]["generation"]);
    let ready = ns.ready("app1-pki").unwrap();
    assert_eq!(ready["reason"], "PkiReady");
    let message = format!(
        "Secret app1-pki holds a certificate for app1, valid until {}",
        text(&status["notAfter"])
    );
    assert_eq!(ready["message"], message);
    for absent in ["failedAttempts", "nextAttemptTime"] {
        assert_eq!(status[absent], Value::Null);
    }
}

#[test]
fn an_issuance_is_one_create_of_a_secret_and_one_update_of_a_status_and_no_read() {
    let ns = SHARED.namespace("writes");
    ns.permit(&["counted"], "");
    let pkis = 10;
    for number in 0..pkis {
        ns.apply_pki(&format!("pki-{number}"), r#"{"serviceName": "counted"}"#);
    }
    for number in 0..pkis {
        ns.wait_until_ready(&format!("pki-{number}"));
    }
    ns.barrier();
    let issued = [
        ("create secrets 201".into(), pkis),
        ("update pkis/status 200".into(), pkis),
    ];
    assert_eq!(requests(&ns), issued);

    // Neither does a policy that changes: nothing of the Secrets has.
    ns.withdraw();
    for number in 0..pkis {
        ns.wait_until_refused(&format!("pki-{number}"), "PkiServiceNameError");
    }
    ns.permit(&["counted"], "");
    for number in 0..pkis {
        ns.wait_until_ready(&format!("pki-{number}"));
    }
    ns.barrier();
    let flipped = [
        ("create secrets 201".into(), pkis),
        ("update pkis/status 200".into(), 3 * pkis),
    ];
    assert_eq!(requests(&ns), flipped);
}

#[test]
fn nothing_is_written_when_a_reconcile_finds_nothing_to_do() {
    let ns = SHARED.namespace("still");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("app1-pki");
    ns.barrier();
    let before = (
        ns.operator_writes(),
        ns.get("pki", "app1-pki").unwrap()["status"].clone(),
    );
    ns.annotate("pki", "app1-pki", "reconcile", "1");
    ns.merge(
        "secret",
        "app1-pki",
        &json!({"metadata": {"labels": {"reconcile": "1"}}}),
    );
    ns.pod_with("app1", "app1-pki");
    ns.barrier();
    let after = (
        ns.operator_writes(),
        ns.get("pki", "app1-pki").unwrap()["status"].clone(),
    );
    assert_eq!(before, after);
}

#[test]
fn a_deleted_secret_is_issued_again() {
    let ns = SHARED.namespace("deleted");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    let first = serial(&ns.wait_until_ready("app1-pki"));
    ns.delete("secret", "app1-pki");
    wait_for_another(&ns, "app1-pki", &first);
}

#[test]
fn a_damaged_secret_is_issued_again_whatever_the_damage() {
    let ns = SHARED.namespace("damage");
    ns.apply_pki("other", r#"{"serviceName": "app2"}"#);
    ns.wait_until_ready("other");
    let other = ns.get("secret", "other").unwrap()["data"].clone();
    let garbage = "Z2FyYmFnZQ==";
    let damages = [
        ("certificate-garbage", json!({"tls.crt": garbage})),
        ("certificate-emptied", json!({"tls.crt": ""})),
        ("key-garbage", json!({"tls.key": garbage})),
        ("key-of-another", json!({"tls.key": other["tls.key"]})),
        (
            "names-of-another",
            json!({"tls.crt": other["tls.crt"], "tls.key": other["tls.key"]}),
        ),
    ];
    for (name, _) in &damages {
        ns.apply_pki(name, r#"{"serviceName": "app1"}"#);
    }
    for (name, damage) in &damages {
        let before = serial(&ns.wait_until_ready(name));
        ns.merge("secret", name, &json!({"data": damage}));
        wait_for_another(&ns, name, &before);
    }
}

#[test]
fn a_damaged_ca_file_is_repaired_and_the_certificate_kept() {
    let ns = SHARED.namespace("resolved");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    let before = serial(&ns.wait_until_ready("app1-pki"));
    let sound = ns.get("secret", "app1-pki").unwrap()["data"].clone();
    for damage in [json!(""), json!(null), sound["tls.crt"].clone()] {
        ns.merge("secret", "app1-pki", &json!({"data": {"ca.crt": damage}}));
        eventually("ca.crt is back", || {
            (ns.get("secret", "app1-pki")?["data"] == sound).then_some(())
        });
    }
    assert_eq!(serial(&ns.wait_until_ready("app1-pki")), before);
}

#[test]
fn what_others_add_to_a_secret_stays_also_when_it_is_issued_again() {
    let ns = SHARED.namespace("additions");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    let first = serial(&ns.wait_until_ready("app1-pki"));
    ns.barrier();
    let before = ns.operator_writes();
    let additions = json!({
        "metadata": {"labels": {"team": "a"}, "annotations": {"example.com/copied": "yes"}},
        "data": {"keystore.p12": "AAEC"}
    });
    ns.merge("secret", "app1-pki", &additions);
    ns.barrier();
    assert_eq!(ns.operator_writes(), before, "an addition is no damage");

    ns.merge("secret", "app1-pki", &json!({"data": {"tls.crt": ""}}));
    wait_for_another(&ns, "app1-pki", &first);
    let secret = ns.get("secret", "app1-pki").unwrap();
    assert_eq!(secret["data"]["keystore.p12"], "AAEC");
    assert_eq!(secret["metadata"]["labels"]["team"], "a");
    assert_eq!(
        secret["metadata"]["annotations"]["example.com/copied"],
        "yes"
    );
}

#[test]
fn an_edit_that_changes_the_certificate_issues_it_anew() {
    let ns = SHARED.namespace("edits");
    ns.permit(&["app1", "app2"], r#", "dnsNames": ["*.example.com"]"#);
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    let mut before = serial(&ns.wait_until_ready("app1-pki"));
    for (edit, shown) in [
        (
            json!({"serviceName": "app2"}),
            format!("DNS:app2.{}.svc", ns.name),
        ),
        (
            json!({"dnsNames": ["a.example.com"]}),
            "DNS:a.example.com".into(),
        ),
        (
            json!({"commonName": "a.example.com"}),
            "CN=a.example.com".into(),
        ),
        (json!({"duration": "48h"}), "CN=a.example.com".into()),
    ] {
        ns.merge("pki", "app1-pki", &json!({"spec": edit}));
        before = wait_for_another(&ns, "app1-pki", &before);
        let certificate = file(&ns.get("secret", "app1-pki").unwrap(), "tls.crt");
        let printed = openssl(
            &["x509", "-noout", "-text", "-nameopt", "RFC2253"],
            &certificate,
        );
        assert!(printed.contains(&shown), "{edit}: {printed}");
    }
    ns.merge("pki", "app1-pki", &json!({"spec": {"renewBefore": "1h"}}));
    let pki = ns.wait_until_ready("app1-pki");
    assert_eq!(
        serial(&pki),
        before,
        "another time of renewal needs no other certificate"
    );
    let time = |field: &str| text(&pki["status"][field]).parse::<Timestamp>().unwrap();
    let ahead = time("notAfter").duration_since(time("renewalTime"));
    assert!((HOUR..6 * HOUR).contains(&ahead), "{ahead:#}");
}

#[test]
fn another_secret_name_has_its_secret_issued_and_the_one_before_removed() {
    let ns = SHARED.namespace("moved");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    let first = serial(&ns.wait_until_ready("app1-pki"));
    ns.merge("pki", "app1-pki", &json!({"spec": {"secretName": "moved"}}));
    wait_for_another(&ns, "app1-pki", &first);
    let pki = ns.wait_until_ready("app1-pki");
    assert_eq!(pki["status"]["secretName"], "moved");
    let secret = ns.get("secret", "moved").unwrap();
    assert_eq!(serial_of(&file(&secret, "tls.crt")), serial(&pki));
    assert!(ns.get("secret", "app1-pki").is_none(), "it was its own");
}

#[test]
fn a_secret_that_the_pki_no_longer_names_stays_if_it_is_not_its_own_any_more() {
    let ns = SHARED.namespace("left");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("app1-pki");
    // With its label alone it would be taken up again.
    let disown = json!({"metadata": {"ownerReferences": null, "labels": null}});
    ns.merge("secret", "app1-pki", &disown);
    ns.wait_until_refused("app1-pki", "PkiSecretForeign");
    ns.merge("pki", "app1-pki", &json!({"spec": {"secretName": "moved"}}));
    ns.wait_until_ready("app1-pki");
    assert!(ns.get("secret", "app1-pki").is_some());
}

/// The Secret is replaced by one that would have been issued forty minutes ago, so that the renewal
/// of the hour it is valid for is due in seconds. The CA must be older than that, so it is one that
/// was there before the operator.
#[test]
fn a_certificate_is_renewed_when_its_time_has_come_by_the_ca_that_was_given() {
    let now = Timestamp::now();
    let authority = Authority::generate("Given CA", 1000 * HOUR, now - 24 * HOUR).unwrap();
    let arena = arena();
    arena.bring_ca(&authority);
    let _operator = arena.first_replica("operator-1", &[]).unwrap();

    let ns = arena.namespace("renewal");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1", "duration": "1h"}"#);
    ns.wait_until_ready("app1-pki");
    let request = LeafRequest {
        // By default, before version 0.3.
        common_name: Some("app1".into()),
        former_common_name: None,
        dns_names: vec![
            format!("app1.{}.svc", ns.name),
            format!("app1.{}.svc.cluster.local", ns.name),
        ],
        ip_addresses: vec![],
        uris: vec![],
        usages: vec![Usage::ServerAuth, Usage::ClientAuth],
        duration: HOUR,
        backdating: LeafRequest::BACKDATING,
        key: KeyAlgorithm::EcdsaP256,
        key_encoding: KeyEncoding::Pkcs8,
    };
    let issued = Timestamp::now() - SignedDuration::from_mins(40) + SignedDuration::from_secs(10);
    let leaf = authority.issue(&request, issued).unwrap();
    let issued_before = serial_of(&leaf.chain_pem);
    let files = json!({"stringData": {"tls.crt": leaf.chain_pem, "tls.key": leaf.private_key_pem.as_str()}});
    ns.merge("secret", "app1-pki", &files);
    wait_for_another(&ns, "app1-pki", &issued_before);
    let secret = ns.get("secret", "app1-pki").unwrap();
    assert_eq!(file(&secret, "ca.crt"), authority.ca().root_pem());
}

/// The Secret is replaced by one that version 0.2 would have issued.
#[test]
fn a_common_name_of_before_stays_until_the_renewal_which_gives_it_the_namespace() {
    let now = Timestamp::now();
    let authority = Authority::generate("Given CA", 100_000 * HOUR, now - 24 * HOUR).unwrap();
    let arena = arena();
    arena.bring_ca(&authority);
    let _operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("renamed");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("app1-pki");
    let own = format!("app1.{}.svc", ns.name);
    let subject = || {
        let certificate = file(&ns.get("secret", "app1-pki").unwrap(), "tls.crt");
        let print = ["x509", "-noout", "-subject", "-nameopt", "RFC2253"];
        openssl(&print, &certificate).trim().to_owned()
    };
    assert_eq!(subject(), format!("subject=CN={own}"));

    let request = LeafRequest {
        common_name: Some("app1".into()),
        former_common_name: None,
        dns_names: vec![own.clone(), format!("{own}.cluster.local")],
        ip_addresses: vec![],
        uris: vec![],
        usages: vec![Usage::ServerAuth, Usage::ClientAuth],
        duration: 2160 * HOUR,
        backdating: LeafRequest::BACKDATING,
        key: KeyAlgorithm::EcdsaP256,
        key_encoding: KeyEncoding::Pkcs8,
    };
    let leaf = authority.issue(&request, Timestamp::now()).unwrap();
    let files = json!({"stringData": {"tls.crt": leaf.chain_pem, "tls.key": leaf.private_key_pem.as_str()}});
    ns.merge("secret", "app1-pki", &files);
    eventually("the certificate of before is found valid", || {
        let pki = ns.get("pki", "app1-pki")?;
        (pki["status"]["serialNumber"] == leaf.serial.as_str()).then_some(())
    });
    ns.barrier();
    let pki = ns.wait_until_ready("app1-pki");
    assert_eq!(serial(&pki), leaf.serial, "an upgrade issues nothing");
    assert_eq!(subject(), "subject=CN=app1");

    let renew = json!({"metadata": {"annotations": {"box.com/renew-now": "true"}}});
    ns.merge("pki", "app1-pki", &renew);
    wait_for_another(&ns, "app1-pki", &leaf.serial);
    assert_eq!(subject(), format!("subject=CN={own}"));
    let keep = json!({"spec": {"commonName": "app1"}});
    ns.merge("pki", "app1-pki", &keep);
    eventually("the old name is back", || {
        (subject() == "subject=CN=app1").then_some(())
    });
}

#[test]
fn a_name_that_is_too_long_for_a_common_name_is_left_to_the_other_names() {
    let ns = SHARED.namespace("long");
    let service = "a".repeat(63);
    ns.permit(&[&service], "");
    let spec = json!({ "serviceName": service });
    ns.apply_pki("app1-pki", &spec.to_string());
    ns.wait_until_ready("app1-pki");
    let certificate = file(&ns.get("secret", "app1-pki").unwrap(), "tls.crt");
    let print = ["x509", "-noout", "-subject", "-ext", "subjectAltName"];
    let printed = openssl(&print, &certificate);
    let lines: Vec<_> = printed.lines().map(str::trim).collect();
    let names = format!(
        "DNS:{service}.{0}.svc, DNS:{service}.{0}.svc.cluster.local",
        ns.name
    );
    assert_eq!(lines[0].trim_end(), "subject=");
    assert!(
        lines[1].ends_with("Subject Alternative Name: critical"),
        "{printed}"
    );
    assert_eq!(lines[2], names);
}

#[test]
fn a_refusal_of_the_api_server_is_published_and_retried_until_it_is_over() {
    let ns = SHARED.namespace("quota");
    ns.forbid_secrets();
    ns.pod_with("app1", "app1-pki");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    let message = ns.wait_until_refused("app1-pki", "PkiIssuanceFailed");
    assert!(message.contains("exceeded quota: none"), "{message}");
    eventually("several attempts have failed", || {
        let status = ns.get("pki", "app1-pki")?["status"].clone();
        (status["failedAttempts"].as_i64()? >= 2 && status["nextAttemptTime"].is_string())
            .then_some(())
    });
    let published = notes(&ns.events("Pod", "app1"));
    assert!(
        published
            .iter()
            .all(|note| note.contains("exceeded quota: none"))
            && !published.is_empty(),
        "{published:?}"
    );

    ns.delete("resourcequota", "none");
    let status = ns.wait_until_ready("app1-pki")["status"].clone();
    assert_eq!(
        (&status["failedAttempts"], &status["nextAttemptTime"]),
        (&Value::Null, &Value::Null)
    );
    ns.barrier();
    let before = ns.operator_writes();
    ns.annotate("pki", "app1-pki", "reconcile", "1");
    ns.barrier();
    assert_eq!(ns.operator_writes(), before, "what failed before is over");
}

/// Waits for a certificate that is not this one, and sound: the Pki is ready, and says what is in
/// the Secret.
fn wait_for_another(ns: &Namespace<'_>, pki: &str, serial_before: &str) -> String {
    eventually(&format!("{pki} has another certificate"), || {
        let current = ns.get("pki", pki)?;
        let secret = ns.get("secret", text(&current["status"]["secretName"]))?;
        let serial = serial(&current);
        let is_ready = ns.ready(pki)?["status"] == "True";
        let is_told = serial_of(&file(&secret, "tls.crt")) == serial;
        (is_ready && is_told && serial != serial_before).then_some(serial)
    })
}

/// Each request of the operator, also those that read, with its status code, and how often.
fn requests(ns: &Namespace<'_>) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::new();
    for request in SHARED.operator_requests(|namespace| namespace == ns.name) {
        if !request.what.ends_with(" events") {
            let request = format!("{} {}", request.what, request.code);
            *counts.entry(request).or_default() += 1;
        }
    }
    counts.into_iter().collect()
}

/// The fields of the status that describe the certificate.
fn serial(pki: &Value) -> String {
    text(&pki["status"]["serialNumber"]).to_owned()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
