//! Whatever people write, what others read of it is one printable line within the limits of the
//! API.

use crate::admission::webhook::client::Webhook;
use crate::admission::webhook::review;
use crate::harness::{Namespace, arena, eventually, file};
use pki_cluster::install::Operator;
use pki_operator::observability::log::MAX_RECORD_BYTES;
use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair};
use serde_json::{Value, json};

/// Control characters, a terminal's escape sequence, marks that reorder or hide text, and letters
/// of several bytes.
const HOSTILE: &str = "ä€\u{1b}[31m\u{202e}lla\u{2066}\u{200b}\u{ad}\n\r\t\u{7}\u{85}\u{2028}😀";

fn is_printable(text: &str) -> bool {
    let hidden = ['\u{202e}', '\u{2066}', '\u{200b}', '\u{ad}', '\u{2028}'];
    text.chars()
        .all(|c| !c.is_control() && !hidden.contains(&c))
}

/// Specs with something hostile in every field that takes text, as long as the schema lets it be.
fn specs() -> Vec<(&'static str, Value)> {
    let short: String = HOSTILE.chars().take(20).collect();
    let long = HOSTILE.repeat(5);
    let mut specs = vec![
        ("common-name", json!({"commonName": HOSTILE})),
        ("dns-names", json!({"dnsNames": vec![long.clone(); 100]})),
        ("ip-addresses", json!({"ipAddresses": [HOSTILE]})),
        ("uris", json!({"uris": vec![HOSTILE.repeat(50); 20]})),
        (
            "labels",
            json!({"secretTemplate": {"labels": {HOSTILE: HOSTILE, "a": long}}}),
        ),
        (
            "annotations",
            json!({"secretTemplate": {"annotations": {HOSTILE: HOSTILE}}}),
        ),
        (
            "outputs",
            json!({"outputs": {"jks": {"passwordSecretRef": {"name": HOSTILE, "key": short}}}}),
        ),
    ];
    for (_, spec) in &mut specs {
        spec["serviceName"] = json!("app1");
    }
    specs
}

/// Waits for an Event of the operator about an object, and checks each of them.
fn expect_printable(ns: &Namespace<'_>, kind: &str, name: &str) {
    let events = eventually(&format!("{kind} {name} gets an Event"), || {
        Some(ns.events(kind, name)).filter(|events| !events.is_empty())
    });
    for event in events {
        let note = event["note"].as_str().unwrap();
        assert!(is_printable(note), "{note:?}");
        assert!((50..=1024).contains(&note.len()), "{}: {note}", note.len());
    }
}

#[test]
fn events_and_conditions_are_printable_for_any_value_of_a_field() {
    let arena = arena();
    let operator = arena
        .first_replica("operator-1", &["--log-level", "debug"])
        .unwrap();
    let ns = arena.namespace("hostile");
    for (name, spec) in specs() {
        ns.pod_with(name, name);
        let refusal = ns.kubectl_apply_pki(name, &spec.to_string()).unwrap_err();
        let refusal = refusal.to_string().replace('\n', "");
        assert!(is_printable(&refusal), "{refusal:?}");
    }
    arena.without_webhooks();
    for (name, spec) in specs() {
        eventually(&format!("{name} is stored"), || {
            // By kubectl: the parser of server-side apply refuses some of these characters itself.
            ns.kubectl_apply_pki(name, &spec.to_string()).ok()
        });
        expect_printable(&ns, "Pki", name);
        expect_printable(&ns, "Pod", name);
        let message = ns.ready_field(name, "message");
        assert!(is_printable(&message), "{message:?}");
        let printed = ns.kubectl(&["describe", "pod", name]).unwrap();
        assert!(is_printable(&printed.replace('\n', "")), "{printed:?}");
    }
    expect_bounded_log(&operator);
}

/// No record is longer than the bound, and each is printable.
fn expect_bounded_log(operator: &Operator) {
    let log = operator.process.log();
    for line in log.lines() {
        assert!(is_printable(line), "{line:?}");
        assert!(line.len() <= MAX_RECORD_BYTES, "{}: {line}", line.len());
    }
}

/// A certificate that claims to be of this CA, for the names of the service and 2,500 others, and
/// its key.
fn forged(ca: &str, own: &str) -> [String; 2] {
    let others = (0..2500).map(|n| format!("n{n}.{}.example.com", "a".repeat(60)));
    let names = [own.to_owned(), format!("{own}.cluster.local")];
    let names: Vec<_> = names.into_iter().chain(others).collect();
    let mut leaf = CertificateParams::new(names).unwrap();
    leaf.distinguished_name = DistinguishedName::new();
    leaf.distinguished_name.push(DnType::CommonName, own);
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    // The identifier of the CA's key, and another key.
    let issuer = Issuer::from_ca_cert_pem(ca, KeyPair::generate().unwrap()).unwrap();
    let certificate = leaf.signed_by(&key, &issuer).unwrap();
    [certificate.pem(), key.serialize_pem()]
}

#[test]
fn no_value_from_outside_makes_a_record_long() {
    for format in ["text", "json"] {
        let arena = arena();
        // The forged certificate names the one CA that there is.
        arena.forget_cas();
        let flags = ["--log-level", "debug", "--log-format", format];
        let operator = arena.first_replica("operator-1", &flags).unwrap();
        let ns = arena.namespace("bounded");
        ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
        ns.wait_until_ready("app1-pki");
        let secret = ns.get("secret", "app1-pki").unwrap();
        let [certificate, key] = forged(&file(&secret, "ca.crt"), &format!("app1.{}.svc", ns.name));
        let files = json!({"stringData": {"tls.crt": certificate, "tls.key": key}});
        ns.merge("secret", "app1-pki", &files);
        eventually("the forged certificate is replaced", || {
            let now = ns.get("secret", "app1-pki")?;
            (file(&now, "tls.crt") != certificate).then_some(())
        });
        // The record comes after the write.
        let reason = "the names in tls.crt are not the requested ones";
        eventually(&format!("the log in {format} has the reason, cut"), || {
            let log = operator.process.log();
            (log.contains(reason) && log.contains(" and 2495 more")).then_some(())
        });

        let long = HOSTILE.repeat(64 * 1024 / HOSTILE.len());
        let annotations = json!({"example.com/note": long, "box.com/keep-secret": long, "box.com/renew-now": long});
        let annotated = json!({"metadata": {"annotations": annotations}});
        ns.merge("pki", "app1-pki", &annotated);
        let mut webhook = Webhook::of(&arena);
        for field in [
            "name",
            "namespace",
            "uid",
            "operation",
            "/object/spec/serviceName",
            "/object/spec/secretName",
        ] {
            let mut review = review("0c9a8d74", "appp1");
            match field.strip_prefix('/') {
                None => review["request"][field] = json!(long),
                Some(_) => *review["request"].pointer_mut(field).unwrap() = json!(long),
            }
            let body = review.to_string();
            let (status, answer) = webhook.post("/validate", "application/json", body.as_bytes());
            assert!([200, 400].contains(&status), "{field}: {answer}");
            let said = answer
                .replace(&long, "")
                .replace(&json!(long).to_string(), "");
            assert!(
                said.len() < 16 * 1024,
                "{field} in {format}: {}",
                said.len()
            );
        }
        ns.wait_until_ready("app1-pki");
        expect_bounded_log(&operator);
    }
}

#[test]
fn a_pod_with_the_longest_name_gets_an_event() {
    let arena = arena();
    let _operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("long");
    let name = format!("{0}.{0}.{0}.{1}", "p".repeat(63), "q".repeat(61));
    assert_eq!(name.len(), 253);
    ns.pod_with(&name, "app1-pki");
    ns.try_apply_pki("app1-pki", r#"{"serviceName": "appp1"}"#)
        .unwrap_err();
    expect_printable(&ns, "Pod", &name);
}

#[test]
fn the_pki_the_pod_and_the_list_of_events_say_the_same_words() {
    let arena = arena();
    let _operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("words");
    ns.pod_with("app1", "app1-pki");
    ns.permit(&["db"], "");
    ns.apply_pki("app1-pki", r#"{"serviceName": "db"}"#);
    ns.wait_until_ready("app1-pki");
    ns.permit(&["dc"], "");
    let message = ns.wait_until_refused("app1-pki", "PkiServiceNameError");
    for arguments in [
        &["describe", "pod", "app1"][..],
        &["describe", "pki", "app1-pki"],
        &["get", "events", "--field-selector=involvedObject.kind=Pod"],
        &[
            "get",
            "events.events.k8s.io",
            "--output=wide",
            "--field-selector=regarding.kind=Pod",
        ],
    ] {
        eventually(&format!("{arguments:?} has the sentence"), || {
            let events = [ns.events("Pod", "app1"), ns.events("Pki", "app1-pki")];
            events
                .iter()
                .all(|events| !events.is_empty())
                .then_some(())?;
            let printed = ns.kubectl(arguments).ok()?;
            printed.contains(&message).then_some(())
        });
    }
    ns.withdraw();
}

/// Teams may not write a status. Whoever may is bounded all the same.
#[test]
fn a_forged_status_freezes_no_pki_and_renews_none() {
    let arena = arena();
    let _operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("forged-status");
    ns.apply_pki("web", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("web");
    let status = || ns.get("pki", "web").unwrap()["status"].take();
    let serial = status()["serialNumber"].take();
    let forge = |forged: Value| {
        let status = json!({ "status": forged });
        arena.api.merge_status("pki", &ns.name, "web", &status)
    };

    let many: Vec<_> = (0..11).map(|n| json!({"name": format!("n{n}")})).collect();
    let refusal = forge(json!({ "formerSecrets": many })).unwrap_err();
    let refusal = refusal.to_string();
    assert!(refusal.contains("status.formerSecrets"), "{refusal}");

    let past = "2020-01-01T00:00:00Z";
    let not_ready = json!({"type": "Ready", "status": "False", "reason": "X", "message": "", "lastTransitionTime": past});
    forge(json!({"renewalTime": past, "conditions": [not_ready]})).unwrap();
    eventually("the renewal time is replaced", || {
        (status()["renewalTime"] != past).then_some(())
    });
    assert_eq!(status()["serialNumber"], serial, "nothing is renewed");

    // The API server takes it, and no calendar has it.
    let beyond = "9999-12-31T23:59:59-01:00";
    forge(json!({ "notAfter": beyond })).unwrap();
    assert_eq!(status()["notAfter"], beyond);
    ns.delete("secret", "web");
    eventually("the Secret is issued again", || {
        let end = status()["notAfter"].take();
        (end != beyond && ns.get("secret", "web").is_some()).then_some(())
    });
}
