//! Private keys and usages: what is offered, what is permitted, and what is asked of the CA.

use super::*;
use pki_certs::{KeyAlgorithm, KeyEncoding, Usage};

const REMEDY: &str = "write what is permitted, or ask the platform team to permit it";

fn with_key(key: &Value) -> Value {
    json!({ "serviceName": "app1", "privateKey": key })
}

fn with_usages(usages: &[&str]) -> Value {
    json!({ "serviceName": "app1", "usages": usages })
}

#[test]
fn the_key_has_the_requested_kind_and_encoding() {
    let book = allowing(&["app1"]);
    for (written, algorithm, encoding) in [
        (json!(null), KeyAlgorithm::EcdsaP256, KeyEncoding::Pkcs8),
        (json!({}), KeyAlgorithm::EcdsaP256, KeyEncoding::Pkcs8),
        (
            json!({ "size": 384 }),
            KeyAlgorithm::EcdsaP384,
            KeyEncoding::Pkcs8,
        ),
        (
            json!({ "algorithm": "ECDSA", "size": 256, "encoding": "SEC1" }),
            KeyAlgorithm::EcdsaP256,
            KeyEncoding::Traditional,
        ),
        (
            json!({ "algorithm": "RSA" }),
            KeyAlgorithm::Rsa2048,
            KeyEncoding::Pkcs8,
        ),
        (
            json!({ "algorithm": "RSA", "size": 2048, "encoding": "PKCS8" }),
            KeyAlgorithm::Rsa2048,
            KeyEncoding::Pkcs8,
        ),
        (
            json!({ "algorithm": "RSA", "size": 3072, "encoding": "PKCS1" }),
            KeyAlgorithm::Rsa3072,
            KeyEncoding::Traditional,
        ),
        (
            json!({ "algorithm": "RSA", "size": 4096 }),
            KeyAlgorithm::Rsa4096,
            KeyEncoding::Pkcs8,
        ),
        (
            json!({ "algorithm": "Ed25519" }),
            KeyAlgorithm::Ed25519,
            KeyEncoding::Pkcs8,
        ),
    ] {
        let certificate = approve(&book, "ns", &with_key(&written)).certificate;
        assert_eq!(
            (certificate.key, certificate.key_encoding),
            (algorithm, encoding),
            "{written}"
        );
    }
}

#[test]
fn a_size_that_is_not_offered_is_refused_with_those_that_are() {
    let book = allowing(&["app1"]);
    let rsa = "ECDSA key: write 256 or 384, or algorithm: RSA, which has this size";
    let ecdsa = "RSA key: write 2048, 3072 or 4096, or algorithm: ECDSA, which has this size";
    for (algorithm, sizes, expected) in [
        (
            json!("ECDSA"),
            &[0, -1, 128, 255, 521, 8192][..],
            "ECDSA key: write 256 or 384",
        ),
        (json!("ECDSA"), &[2048, 3072, 4096], rsa),
        // The algorithm is there by default.
        (Value::Null, &[2048], rsa),
        (
            json!("RSA"),
            &[0, 255, 1024, 2047, 8192],
            "RSA key: write 2048, 3072 or 4096",
        ),
        (json!("RSA"), &[384], ecdsa),
        (
            json!("Ed25519"),
            &[0, 255, 257],
            "Ed25519 key: leave size out, there is only one",
        ),
    ] {
        for size in sizes {
            let mut key = json!({ "size": size });
            if !algorithm.is_null() {
                key["algorithm"] = algorithm.clone();
            }
            assert_eq!(
                refuse(&book, "ns", &with_key(&key)),
                [format!(
                    "spec.privateKey.size: {size} is not a supported size of an {expected}"
                )]
            );
        }
    }
}

#[test]
fn an_encoding_goes_with_its_algorithm() {
    let book = allowing(&["app1"]);
    for (algorithm, encoding) in [
        ("ECDSA", "PKCS1"),
        ("RSA", "SEC1"),
        ("Ed25519", "PKCS1"),
        ("Ed25519", "SEC1"),
    ] {
        let key = json!({ "algorithm": algorithm, "encoding": encoding });
        assert_eq!(
            refuse(&book, "ns", &with_key(&key)),
            [format!(
                "spec.privateKey.encoding: {encoding} is not an encoding of {algorithm} keys: write PKCS8, or leave \
                 encoding out"
            )]
        );
    }
}

#[test]
fn a_renewed_certificate_keeps_its_key_only_on_request() {
    let book = allowing(&["app1"]);
    for (policy, keeps_key) in [
        (json!(null), false),
        (json!("Always"), false),
        (json!("Never"), true),
    ] {
        let spec = with_key(&json!({ "rotationPolicy": policy }));
        assert_eq!(approve(&book, "ns", &spec).keeps_key, keeps_key, "{policy}");
    }
}

#[test]
fn a_policy_permits_kinds_of_keys_from_a_size_on() {
    let book = rules(&[json!({ "serviceNames": ["app1"], "privateKeys": [
        { "algorithm": "RSA", "minSize": 3072 },
        { "algorithm": "ECDSA", "minSize": 384 },
    ]})]);
    for key in [
        json!({ "size": 384 }),
        json!({ "algorithm": "RSA", "size": 3072 }),
        json!({ "algorithm": "RSA", "size": 4096 }),
    ] {
        approve(&book, "ns", &with_key(&key));
    }
    // A part that is left out is never refused.
    for (key, algorithm) in [
        (Value::Null, KeyAlgorithm::EcdsaP384),
        (json!({}), KeyAlgorithm::EcdsaP384),
        (json!({ "algorithm": "RSA" }), KeyAlgorithm::Rsa3072),
    ] {
        let approved = approve(&book, "ns", &with_key(&key));
        assert_eq!(approved.certificate.key, algorithm, "{key}");
    }
    for (key, expected) in [
        (json!({ "size": 256 }), "ECDSA-256"),
        (json!({ "algorithm": "RSA", "size": 2048 }), "RSA-2048"),
        (json!({ "algorithm": "Ed25519" }), "Ed25519"),
    ] {
        assert_eq!(
            refuse(&book, "ns", &with_key(&key)),
            [format!(
                "spec.privateKey: \"{expected}\" is not permitted: PkiPolicy policy-0 permits [ECDSA-384 RSA-3072]; {REMEDY}"
            )]
        );
    }
}

#[test]
fn ed25519_has_one_size_which_is_enough_for_every_minimum() {
    for least in [Value::Null, json!(0), json!(256), json!(16384)] {
        let keys = [json!({ "algorithm": "Ed25519", "minSize": least })];
        let book = rules(&[json!({ "serviceNames": ["app1"], "privateKeys": keys })]);
        approve(&book, "ns", &with_key(&json!({ "algorithm": "Ed25519" })));
    }
}

#[test]
fn a_kind_of_key_without_a_minimum_is_permitted_in_every_size() {
    for least in [Value::Null, json!(0)] {
        let keys = [json!({ "algorithm": "RSA", "minSize": least })];
        let book = rules(&[json!({ "serviceNames": ["app1"], "privateKeys": keys })]);
        approve(&book, "ns", &with_key(&json!({ "algorithm": "RSA" })));
        let approved = approve(&book, "ns", &with_key(&json!({})));
        assert_eq!(approved.certificate.key, KeyAlgorithm::Rsa2048);
        let refusal = refuse(&book, "ns", &with_key(&json!({ "algorithm": "ECDSA" })));
        assert_eq!(
            refusal,
            [format!(
                "spec.privateKey: \"ECDSA-256\" is not permitted: PkiPolicy policy-0 permits [RSA]; {REMEDY}"
            )]
        );
    }
}

#[test]
fn usages_are_those_that_are_written_each_once_and_both_by_default() {
    let both = [Usage::ServerAuth, Usage::ClientAuth];
    for (written, certified) in [
        (&[][..], &both[..]),
        (&["server auth"], &both[..1]),
        (&["client auth"], &both[1..]),
        (&["client auth", "server auth"], &both),
        (&["client auth", "client auth"], &both[1..]),
    ] {
        let approved = approve(&allowing(&["app1"]), "ns", &with_usages(written));
        assert_eq!(approved.certificate.usages, certified, "{written:?}");
    }
}

#[test]
fn a_usage_that_is_not_permitted_is_refused_where_it_is_written() {
    let server = rules(&[json!({ "serviceNames": ["app1"], "usages": ["server auth"] })]);
    let client = rules(&[json!({ "serviceNames": ["app1"], "usages": ["client auth"] })]);
    let both =
        rules(&[json!({ "serviceNames": ["app1"], "usages": ["client auth", "server auth"] })]);
    approve(&server, "ns", &with_usages(&["server auth"]));
    approve(&client, "ns", &with_usages(&["client auth"]));
    approve(&both, "ns", &with_usages(&[]));
    for (book, usage) in [(&server, Usage::ServerAuth), (&client, Usage::ClientAuth)] {
        let approved = approve(book, "ns", &with_usages(&[]));
        assert_eq!(approved.certificate.usages, [usage]);
    }
    for (book, written, refused, permitted) in [
        (&server, &["client auth"][..], "client auth", "server auth"),
        (
            &client,
            &["client auth", "server auth"],
            "server auth",
            "client auth",
        ),
    ] {
        assert_eq!(
            refuse(book, "ns", &with_usages(written)),
            [format!(
                "spec.usages: \"{refused}\" is not permitted: PkiPolicy policy-0 permits [{permitted}]; {REMEDY}"
            )]
        );
    }
}
