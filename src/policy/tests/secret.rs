//! What the Secret looks like besides the certificate: its labels and annotations, its further
//! files.

use super::*;

const KEY_SHAPE: &str = "is not a key: write at most 63 letters, digits, '-', '_' and '.', with a domain and '/' before it \
     if you like, for example example.com/team";
const RESERVED: &str =
    "is reserved, like all keys of kubernetes.io, k8s.io and box.com: choose another key";

fn with(map: &str, key: &str, value: &str) -> Value {
    json!({ "serviceName": "app1", "secretTemplate": { map: { key: value } } })
}

#[test]
fn labels_and_annotations_come_through_as_they_are_written() {
    let book = allowing(&["app1"]);
    let most = "a".repeat(63);
    for key in [
        "team",
        "Team_1.x-y",
        "0",
        "example.com/team",
        "a.b.example.com/team",
        "notbox.com/x",
        "mykubernetes.io/x",
        "kubernetes.io.example.com/x",
        "box.com",
        &most,
        &format!("{}/x", ["a"; 127].join(".")),
    ] {
        let approved = approve(&book, "ns", &with("labels", key, "A-b_c.9"));
        assert_eq!(approved.template.labels[key], "A-b_c.9");
        let text = "any text, {\"of\": 'any'}\nkind ü";
        let approved = approve(&book, "ns", &with("annotations", key, text));
        assert_eq!(approved.template.annotations[key], text);
    }
    approve(&book, "ns", &with("labels", "team", ""));
    approve(&book, "ns", &with("labels", "team", &most));
    let none = approve(&book, "ns", &json!({ "serviceName": "app1" }));
    assert_eq!(none.template, SecretTemplate::default());
}

#[test]
fn keys_that_steer_kubernetes_or_the_operator_are_not_for_applications() {
    let book = allowing(&["app1"]);
    for map in ["labels", "annotations"] {
        for key in [
            "kubernetes.io/service-account.name",
            "app.kubernetes.io/managed-by",
            "kubectl.kubernetes.io/last-applied-configuration",
            "k8s.io/x",
            "x.k8s.io/y",
            "box.com/adopt",
            "x.box.com/y",
        ] {
            assert_eq!(
                refuse(&book, "ns", &with(map, key, "a")),
                [format!("spec.secretTemplate.{map}: \"{key}\" {RESERVED}")]
            );
        }
    }
}

#[test]
fn a_malformed_key_is_refused_with_one_that_is_not() {
    let book = allowing(&["app1"]);
    let (long, long_prefix) = ("a".repeat(64), format!("{}/x", "a".repeat(254)));
    for map in ["labels", "annotations"] {
        for key in [
            "",
            "/",
            "/a",
            "a/",
            "a/b/c",
            "-a",
            "a-",
            ".a",
            "a b",
            "ä",
            "Example.com/a",
            "example..com/a",
            "BOX.com/adopt",
            &long,
        ] {
            assert_eq!(
                refuse(&book, "ns", &with(map, key, "a")),
                [format!("spec.secretTemplate.{map}: \"{key}\" {KEY_SHAPE}")]
            );
        }
        let refusal = refuse(&book, "ns", &with(map, &long_prefix, "a"));
        assert!(refusal[0].ends_with(KEY_SHAPE), "{refusal:?}");
    }
}

#[test]
fn a_label_has_the_value_of_a_label() {
    let book = allowing(&["app1"]);
    for value in ["a b", "-a", "a-", "a/b", "ä", "a\n", &"a".repeat(64)] {
        let shown = value.replace('\n', "\\n");
        assert_eq!(
            refuse(&book, "ns", &with("labels", "team", value)),
            [format!(
                "spec.secretTemplate.labels: \"{shown}\" cannot be the value of \"team\": write at most 63 letters, \
                 digits, '-', '_' and '.', beginning and ending with a letter or digit"
            )]
        );
    }
}

fn keystore(kind: &str, secret: &str) -> Value {
    json!({ kind: { "passwordSecretRef": { "name": secret } } })
}

fn with_outputs(outputs: &Value) -> Value {
    json!({ "serviceName": "app1", "outputs": outputs })
}

#[test]
fn further_files_are_the_requested_ones() {
    let book = allowing(&["app1"]);
    let none = approve(&book, "ns", &json!({ "serviceName": "app1" }));
    assert_eq!(none.outputs, Outputs::default());
    let plain = approve(
        &book,
        "ns",
        &with_outputs(&json!({ "combinedPem": true, "derKey": true })),
    );
    assert_eq!(
        (plain.outputs.combined_pem, plain.outputs.der_key),
        (Some(true), Some(true))
    );
    for kind in ["pkcs12", "jks"] {
        let outputs = approve(&book, "ns", &with_outputs(&keystore(kind, "passwords"))).outputs;
        let (asked, other) = match kind {
            "jks" => (outputs.jks, outputs.pkcs12),
            _ => (outputs.pkcs12, outputs.jks),
        };
        let reference = asked.unwrap().password_secret_ref;
        assert_eq!(
            (&*reference.name, reference.key()),
            ("passwords", "password")
        );
        assert_eq!(other, None);
    }
}

#[test]
fn a_password_lies_neither_in_the_secret_it_protects_nor_in_one_of_the_operators() {
    let book = allowing(&["app1"]);
    for kind in ["pkcs12", "jks"] {
        let field = format!("spec.outputs.{kind}.passwordSecretRef.name");
        let own = |name: &str| {
            format!(
                "{field}: Secret {name} holds the certificate: keep the password in another Secret"
            )
        };
        let spec = with_outputs(&keystore(kind, "app1-pki"));
        assert_eq!(refuse(&book, "ns", &spec), [own("app1-pki")]);
        let mut renamed = with_outputs(&keystore(kind, "tls"));
        renamed["secretName"] = json!("tls");
        assert_eq!(refuse(&book, "ns", &renamed), [own("tls")]);
        renamed["outputs"] = keystore(kind, "app1-pki");
        approve(&book, "ns", &renamed);

        for reserved in ["ca", "webhook-ca"] {
            let spec = with_outputs(&keystore(kind, reserved));
            assert_eq!(
                refuse(&book, "pki-operator", &spec),
                [format!(
                    "{field}: Secret {reserved} belongs to the operator: choose another name"
                )]
            );
            approve(&book, "ns", &spec);
        }
        for malformed in ["", "A", "../ca", "a/b", "a b"] {
            let spec = with_outputs(&keystore(kind, malformed));
            assert_eq!(
                refuse(&book, "ns", &spec),
                [format!(
                    "{field}: \"{malformed}\" is not the name of a Secret: write lower-case letters, digits, '-' and \
                     '.', for example app1-pki"
                )]
            );
        }
    }
}
