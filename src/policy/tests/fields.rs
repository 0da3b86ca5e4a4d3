//! The other fields, all of them at once, and their messages.

use super::*;

#[test]
fn the_certificate_follows_from_service_and_namespace() {
    let approved = approve(
        &allowing(&["app1"]),
        "ns",
        &json!({ "serviceName": "app1" }),
    );
    let certificate = &approved.certificate;
    assert_eq!(
        certificate.dns_names,
        ["app1.ns.svc", "app1.ns.svc.cluster.local"]
    );
    assert_eq!(certificate.common_name.as_deref(), Some("app1.ns.svc"));
    assert_eq!(certificate.former_common_name.as_deref(), Some("app1"));
    assert_eq!(certificate.duration, SignedDuration::from_hours(2160));
    assert!(certificate.ip_addresses.is_empty() && certificate.uris.is_empty());
    assert_eq!(approved.secret_name, "app1-pki");
    assert_eq!(approved.renew_before, None);
    assert_eq!(approved.policy, "policy-0");
}

#[test]
fn a_duration_has_bounds_and_units() {
    let book = allowing(&["app1"]);
    for (text, seconds) in [
        ("1h", 3600),
        ("60m", 3600),
        ("1h30m", 5400),
        ("3600s", 3600),
        ("876000h", 3_153_600_000),
    ] {
        let spec = json!({ "serviceName": "app1", "duration": text });
        assert_eq!(
            approve(&book, "ns", &spec).certificate.duration,
            SignedDuration::from_secs(seconds)
        );
    }
    for text in [
        "",
        "59m",
        "0s",
        "-1h",
        "876001h",
        "90",
        "90d",
        "1y",
        "1h ",
        "forever",
        "99999999999999999999h",
    ] {
        assert_eq!(
            refuse(
                &book,
                "ns",
                &json!({ "serviceName": "app1", "duration": text })
            ),
            [format!(
                "spec.duration: \"{text}\" is not a lifetime: write at least 1h and at most 876000h in hours, \
                      minutes and seconds, for example 2160h"
            )]
        );
    }
}

#[test]
fn a_policy_limits_the_duration_that_a_pki_states() {
    let book = rules(&[json!({ "serviceNames": ["app1"], "maxDuration": "720h" })]);
    approve(
        &book,
        "ns",
        &json!({ "serviceName": "app1", "duration": "720h" }),
    );
    let narrowed = approve(&book, "ns", &json!({ "serviceName": "app1" }));
    assert_eq!(
        narrowed.certificate.duration,
        SignedDuration::from_hours(720)
    );
    for (duration, expected) in [(json!("721h30m"), "721h30m"), (json!("2160h"), "2160h")] {
        assert_eq!(
            refuse(
                &book,
                "ns",
                &json!({ "serviceName": "app1", "duration": duration })
            ),
            [format!(
                "spec.duration: {expected} is too long: PkiPolicy policy-0 permits at most 720h; write duration: 720h"
            )]
        );
    }
    let unreadable = rules(&[json!({ "serviceNames": ["app1"], "maxDuration": "a while" })]);
    refuse(&unreadable, "ns", &json!({ "serviceName": "app1" }));
}

#[test]
fn renewal_lies_within_the_lifetime() {
    let book = allowing(&["app1"]);
    for (duration, renew_before) in [("1000h", "900h"), ("1000h", "1s"), ("1h", "54m")] {
        let spec =
            json!({ "serviceName": "app1", "duration": duration, "renewBefore": renew_before });
        let written = renew_before.parse().unwrap();
        assert_eq!(
            approve(&book, "ns", &spec).renew_before,
            Some(RenewBefore::Duration(written))
        );
    }
    for renew_before in ["900h1s", "1000h", "2000h", "0s", "", "soon", "-1h"] {
        let spec =
            json!({ "serviceName": "app1", "duration": "1000h", "renewBefore": renew_before });
        assert_eq!(
            refuse(&book, "ns", &spec),
            [format!(
                "spec.renewBefore: \"{renew_before}\" is not a time before expiry: write more than 0s and at most \
                      900h, nine tenths of the duration, for example 333h20m, or leave renewBefore out"
            )]
        );
    }
}

#[test]
fn renewal_may_be_a_percentage_of_the_lifetime() {
    let book = allowing(&["app1"]);
    let spec =
        |percentage: i32| json!({ "serviceName": "app1", "renewBeforePercentage": percentage });
    for (written, percentage) in [(1, 1), (33, 33), (90, 90)] {
        assert_eq!(
            approve(&book, "ns", &spec(written)).renew_before,
            Some(RenewBefore::Percentage(percentage))
        );
    }
    for written in [0, -1, 91, 100, 257, i32::MAX, i32::MIN] {
        assert_eq!(
            refuse(&book, "ns", &spec(written)),
            [format!(
                "spec.renewBeforePercentage: {written} is not a percentage of the duration: write 1 to 90, for \
                 example 33, or leave renewBeforePercentage out"
            )]
        );
    }
}

#[test]
fn renewal_is_given_once() {
    for (renew_before, percentage) in [("720h", 33), ("soon", 33), ("720h", 0), ("soon", 0)] {
        let spec = json!({ "serviceName": "app1",
            "renewBefore": renew_before, "renewBeforePercentage": percentage });
        assert_eq!(
            refuse(&allowing(&["app1"]), "ns", &spec),
            [
                "spec.renewBeforePercentage: renewBefore and renewBeforePercentage both set the renewal time: remove one of them"
            ]
        );
    }
}

#[test]
fn an_unreadable_duration_is_no_violation_of_the_renewal() {
    let spec = json!({ "serviceName": "app1", "duration": "soon", "renewBefore": "720h" });
    let refusal = refuse(&allowing(&["app1"]), "ns", &spec);
    assert_eq!(refusal.len(), 1, "{refusal:?}");
    assert!(refusal[0].starts_with("spec.duration: "), "{refusal:?}");
}

#[test]
fn the_operators_own_secrets_are_out_of_reach() {
    let book = allowing(&["app1"]);
    for secret in ["ca", "webhook-ca"] {
        let spec = json!({ "serviceName": "app1", "secretName": secret });
        assert_eq!(
            refuse(&book, "pki-operator", &spec),
            [format!(
                "spec.secretName: Secret {secret} belongs to the operator: choose another name"
            )]
        );
        approve(&book, "ns", &spec);
    }
    approve(&book, "pki-operator", &json!({ "serviceName": "app1" }));
    let mut pki = Pki::new(
        "ca",
        serde_json::from_value(json!({ "serviceName": "app1" })).unwrap(),
    );
    pki.metadata.namespace = Some("pki-operator".into());
    let violations = book.evaluate(&pki).expect_err("the default is a name too");
    assert_eq!(
        violation_summary("ca", &violations, 1024),
        "Pki ca: metadata.name: Secret ca belongs to the operator: choose another name"
    );
    assert_eq!(violations[0].field().to_string(), "metadata.name");
    assert_eq!(violations[0].reason(), "PkiSecretNameError");
}

#[test]
fn a_secret_has_the_name_of_a_secret() {
    let book = allowing(&["app1"]);
    for secret in ["a", "a.b", "0", &"a".repeat(253)] {
        let spec = json!({ "serviceName": "app1", "secretName": secret });
        assert_eq!(approve(&book, "ns", &spec).secret_name, secret);
    }
    for secret in [
        "",
        "A",
        "a_b",
        "../ca",
        "a/b",
        ".a",
        "a.",
        "-a",
        "a b",
        &"a".repeat(254),
    ] {
        let refusal = refuse(
            &book,
            "ns",
            &json!({ "serviceName": "app1", "secretName": secret }),
        );
        assert_eq!(refusal.len(), 1);
        assert!(refusal[0].starts_with("spec.secretName: "), "{refusal:?}");
        assert!(
            refusal[0].contains("is not the name of a Secret: write lower-case letters"),
            "{refusal:?}"
        );
    }
}

#[test]
fn every_violation_is_listed_at_once() {
    let book = rules(&[json!({ "serviceNames": ["app1"], "maxDuration": "24h",
        "usages": ["server auth"], "privateKeys": [{ "algorithm": "RSA" }] })]);
    let spec = json!({
        "serviceName": "appp1", "commonName": "other", "dnsNames": ["a_b", "db.victim.svc", "www.example.com"],
        "secretName": "A", "renewBefore": "9999h", "duration": "48h", "usages": ["client auth"],
        "privateKey": { "algorithm": "ECDSA", "size": 1, "encoding": "PKCS1" },
        "ipAddresses": ["::ffff:10.0.0.1", "10.0.0.1"], "uris": ["app1", "spiffe://example.com/app1"],
        "secretTemplate": { "labels": { "a b": "c", "c": "d e" }, "annotations": { "box.com/x": "" } },
        "outputs": { "jks": { "passwordSecretRef": { "name": "A" } } }
    });
    let fields: Vec<_> = judge(&book, "ns", &spec)
        .unwrap_err()
        .iter()
        .map(|v| (v.field().to_string(), v.reason()))
        .collect();
    let expected = [
        ("spec.dnsNames[0]", "PkiDnsNameError"),
        ("spec.dnsNames[1]", "PkiDnsNameError"),
        ("spec.commonName", "PkiCommonNameError"),
        ("spec.ipAddresses[0]", "PkiIpAddressError"),
        ("spec.uris[0]", "PkiUriError"),
        ("spec.secretName", "PkiSecretNameError"),
        ("spec.renewBefore", "PkiRenewBeforeError"),
        ("spec.privateKey.size", "PkiPrivateKeyError"),
        ("spec.privateKey.encoding", "PkiPrivateKeyError"),
        ("spec.secretTemplate.labels", "PkiSecretTemplateError"),
        ("spec.secretTemplate.labels", "PkiSecretTemplateError"),
        ("spec.secretTemplate.annotations", "PkiSecretTemplateError"),
        ("spec.outputs.jks.passwordSecretRef.name", "PkiOutputsError"),
        ("spec.outputs.jks.passwordSecretRef.name", "PkiOutputsError"),
        ("spec.serviceName", "PkiServiceNameError"),
        ("spec.dnsNames[2]", "PkiDnsNameError"),
        ("spec.ipAddresses[1]", "PkiIpAddressError"),
        ("spec.uris[1]", "PkiUriError"),
        ("spec.usages", "PkiUsageError"),
        ("spec.privateKey", "PkiPrivateKeyError"),
        ("spec.duration", "PkiDurationError"),
    ];
    assert_eq!(
        fields,
        expected.map(|(field, reason)| (field.to_owned(), reason))
    );
}

#[test]
fn any_message_is_one_line_without_terminal_control() {
    let book = rules(&[
        json!({ "serviceNames": ["\u{1b}[2Jx", "app1\n"], "dnsNames": ["\u{202e}x.example.com"], "uris": ["\u{202e}a:b\u{1b}"], "maxDuration": "1h" }),
    ]);
    let hostile = [
        "\u{1b}[2J\u{1b}]0;owned\u{7}",
        "a\r\nWarning: all is well",
        "\u{202e}1ppa",
        "a\0b",
        "\u{200b}",
        "\u{85}\u{2028}",
        "a\u{7f}",
    ];
    let hidden = ['\u{200b}', '\u{2028}', '\u{202e}'];
    for text in hostile {
        let long = text.repeat(1000);
        for spec in [
            json!({ "serviceName": text }),
            json!({ "serviceName": long, "commonName": long, "secretName": long, "duration": long, "renewBefore": long, "dnsNames": [long] }),
            json!({ "serviceName": "app2", "commonName": text, "secretName": text, "duration": text, "renewBefore": text, "dnsNames": [text, "www.example.com"] }),
            json!({ "serviceName": "app2", "ipAddresses": [text, long, "10.0.0.1"], "uris": [text, long, "a:b"] }),
            json!({ "serviceName": "app2", "secretTemplate": { "labels": { text: long, "a": text }, "annotations": { text: text, (long.as_str()): long } } }),
            json!({ "serviceName": "app2", "outputs": { "jks": { "passwordSecretRef": { "name": text } }, "pkcs12": { "passwordSecretRef": { "name": long } } } }),
        ] {
            for message in refuse(&book, "ns", &spec) {
                let is_plain = |c: char| !c.is_control() && !hidden.contains(&c);
                assert!(message.chars().all(is_plain), "{message:?}");
                assert!(message.len() < 6000, "{}", message.len());
            }
        }
    }
    let mut pki = Pki::new(
        "x\u{1b}[2J",
        serde_json::from_value(json!({ "serviceName": "app2" })).unwrap(),
    );
    pki.metadata.namespace = Some("\u{202e}ns".into());
    for book in [book, rules(&[])] {
        let summary_text = violation_summary("x\u{1b}[2J", &book.evaluate(&pki).unwrap_err(), 1024);
        assert!(
            summary_text.contains(r"\u{1b}[2J") && !summary_text.contains('\u{1b}'),
            "{summary_text}"
        );
    }
}

/// The message about a Pki with this spec, where only app1 is allowed.
fn summary(spec: &Value, bytes: usize) -> String {
    let violations = judge(&allowing(&["app1"]), "ns", spec).unwrap_err();
    violation_summary("app1-pki", &violations, bytes)
}

#[test]
fn a_summary_names_the_pki_and_the_fields_and_leaves_the_sentence_that_does_as_it_is() {
    let one = summary(&json!({ "serviceName": "app2" }), 1024);
    assert!(one.starts_with("ServiceName: app2 in pki: app1-pki is not found"));
    let other = summary(&json!({ "serviceName": "app1", "duration": "1d" }), 1024);
    assert!(
        other.starts_with("Pki app1-pki: spec.duration: \"1d\" is not"),
        "{other}"
    );
    let two = summary(&json!({ "serviceName": "app2", "duration": "1d" }), 1024);
    assert!(two.starts_with("Pki app1-pki: spec.duration: "), "{two}");
    assert!(
        two.contains("; spec.serviceName: ServiceName: app2"),
        "{two}"
    );
}

#[test]
fn a_long_summary_counts_the_violations_that_it_leaves_out() {
    let names: Vec<_> = (0..9).map(|_| "ü".repeat(50)).collect();
    let spec = json!({ "serviceName": "app1", "dnsNames": names });
    let whole = summary(&spec, 10_000);
    assert_eq!(whole.matches("is not a DNS name").count(), 9);
    for bytes in 300..1024 {
        let summary_text = summary(&spec, bytes);
        let shown = summary_text.matches("is not a DNS name").count();
        assert!(summary_text.len() <= bytes, "{bytes}: {summary_text}");
        assert!(
            summary_text.ends_with(&format!("; and {} more", 9 - shown)),
            "{bytes}: {summary_text}"
        );
    }
    let least = summary(&spec, 100);
    assert!(
        least.len() <= 100 && least.ends_with("…; and 8 more"),
        "{least}"
    );
}
