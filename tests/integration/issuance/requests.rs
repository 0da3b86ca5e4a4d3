//! What people may ask of a certificate and its Secret: renewal now, the same key, labels, a Secret
//! kept or taken over.

use crate::harness::{
    Namespace, SHARED, arena, bytes, eventually, file, notes, openssl, serial_of,
};
use serde_json::{Value, json};

const SPEC: &str = r#"{"serviceName": "app1"}"#;
const KEEP: &str = "box.com/keep-secret";

#[test]
fn a_certificate_is_renewed_on_demand_once() {
    let ns = SHARED.namespace("demand");
    ns.apply_pki("app1-pki", SPEC);
    let first = ns.wait_until_ready("app1-pki");
    ns.annotate("pki", "app1-pki", "box.com/renew-now", "please");
    let second = eventually("it is renewed", || another_serial(&ns, &first));
    ns.barrier();
    let pki = ns.get("pki", "app1-pki").unwrap();
    assert_eq!(pki["status"]["serialNumber"], second);
    assert_eq!(
        pki["metadata"]["annotations"]["box.com/renew-now"],
        Value::Null
    );
    let issued = ns.operator_writes().into_iter();
    let patches: usize = issued
        .filter(|(write, _)| write.what == "patch secrets")
        .map(|(_, count)| count)
        .sum();
    assert_eq!(patches, 1, "renewed once");
    let secret = ns.get("secret", "app1-pki").unwrap();
    assert_eq!(serial_of(&file(&secret, "tls.crt")), second);
}

/// The annotation is served before rules are asked: a rule about it refuses nothing.
#[test]
fn a_rule_about_annotations_does_not_refuse_the_pki_that_is_renewed_on_demand() {
    let ns = SHARED.namespace("demand-rule");
    let rule = "!('box.com/renew-now' in pki.metadata.annotations)";
    let rule = json!([{"expression": rule, "message": "no renewals here"}]);
    ns.permit(&["app7"], &format!(r#", "validations": {rule}"#));
    ns.apply_pki("app7-pki", r#"{"serviceName": "app7"}"#);
    let first = ns.wait_until_ready("app7-pki");
    let since = ready_since(&ns, "app7-pki");
    ns.annotate("pki", "app7-pki", "box.com/renew-now", "please");
    eventually("it is renewed", || another_serial(&ns, &first));
    assert_eq!(
        ready_since(&ns, "app7-pki"),
        since,
        "it was ready throughout"
    );
}

fn ready_since(ns: &Namespace<'_>, pki: &str) -> Value {
    let pki = ns.get("pki", pki).unwrap();
    assert_eq!(pki["status"]["conditions"][0]["status"], "True");
    pki["status"]["conditions"][0]["lastTransitionTime"].clone()
}

#[test]
fn the_key_is_new_for_each_certificate_unless_the_policy_of_rotation_is_never() {
    let ns = SHARED.namespace("keys");
    for (policy, is_kept) in [("Always", false), ("Never", true)] {
        let name = policy.to_lowercase();
        let key = json!({"algorithm": "ECDSA", "size": 384, "rotationPolicy": policy});
        ns.apply_pki(
            &name,
            &json!({"serviceName": "app1", "privateKey": key}).to_string(),
        );
        let first = ns.wait_until_ready(&name);
        let key = |ns: &Namespace<'_>| file(&ns.get("secret", &name).unwrap(), "tls.key");
        let before = key(&ns);
        ns.annotate("pki", &name, "box.com/renew-now", "now");
        eventually("it is renewed", || another_serial(&ns, &first));
        assert_eq!(key(&ns) == before, is_kept, "{policy}");
        // Another kind of key cannot be the same.
        let edit = json!({"spec": {"privateKey": {"size": 256}}});
        ns.merge("pki", &name, &edit);
        eventually("the key is of the other kind", || {
            let printed = openssl(&["pkey", "-noout", "-text"], &key(&ns));
            printed.contains("prime256v1").then_some(())
        });
    }
}

#[test]
fn labels_and_annotations_of_the_secret_follow_the_template_and_leave_those_of_others() {
    let ns = SHARED.namespace("template");
    let apply = |template: Value| {
        let spec = json!({"serviceName": "app1", "secretTemplate": template});
        ns.apply_pki("app1-pki", &spec.to_string());
    };
    apply(
        json!({"labels": {"team": "a", "tier": "web"}, "annotations": {"example.com/note": "1"}}),
    );
    let first = ns.wait_until_ready("app1-pki");
    ns.merge(
        "secret",
        "app1-pki",
        &json!({"metadata": {"labels": {"theirs": "yes"}}}),
    );
    let metadata = || ns.get("secret", "app1-pki").unwrap()["metadata"].clone();
    assert_eq!(metadata()["annotations"], json!({"example.com/note": "1"}));

    apply(json!({"labels": {"team": "b"}}));
    let managed_by = "pki-operator";
    eventually("the Secret follows", || {
        let labels =
            json!({"app.kubernetes.io/managed-by": managed_by, "team": "b", "theirs": "yes"});
        let now = metadata();
        (now["labels"] == labels
            && now["annotations"]
                .as_object()
                .is_none_or(serde_json::Map::is_empty))
        .then_some(())
    });
    let without = json!({"metadata": {"labels": {"team": null}}});
    ns.merge("secret", "app1-pki", &without);
    eventually("what was taken away comes back", || {
        (metadata()["labels"]["team"] == "b").then_some(())
    });
    let pki = ns.wait_until_ready("app1-pki");
    assert_eq!(
        pki["status"]["serialNumber"],
        first["status"]["serialNumber"]
    );
}

#[test]
fn a_secret_that_is_to_be_kept_stays_however_its_pki_is_deleted_and_is_taken_up_by_the_next() {
    let ns = SHARED.namespace("kept");
    ns.apply_pki("app1-pki", SPEC);
    let first = ns.wait_until_ready("app1-pki");
    let secret = || ns.get("secret", "app1-pki");
    let before = secret().unwrap()["data"].clone();
    // In the foreground, as Argo CD does it, Kubernetes collects first whatever the Pki owns.
    for cascade in ["--cascade=background", "--cascade=foreground"] {
        ns.annotate("pki", "app1-pki", KEEP, "true");
        wait_until_kept(&ns, "app1-pki");
        ns.kubectl(&["delete", "pki", "app1-pki", cascade]).unwrap();
        ns.barrier();
        assert_eq!(secret().unwrap()["data"], before, "{cascade}");

        ns.apply_pki("app1-pki", SPEC);
        let next = ns.wait_until_ready("app1-pki");
        assert_eq!(
            next["status"]["serialNumber"], first["status"]["serialNumber"],
            "it was sound"
        );
        let meta = secret().unwrap()["metadata"].clone();
        let owner = &meta["ownerReferences"][0]["uid"];
        assert_eq!(owner, &next["metadata"]["uid"]);
        assert_eq!(meta["annotations"]["box.com/adopt"], Value::Null);
    }
}

/// Kubernetes deletes the Secret first then, and the operator may see that before it sees the Pki
/// go.
#[test]
fn pkis_that_are_deleted_in_the_foreground_get_no_other_secret() {
    const COUNT: usize = 20;
    let ns = SHARED.namespace("foreground");
    let names: Vec<_> = (0..COUNT).map(|n| format!("web-{n}")).collect();
    for name in &names {
        ns.apply_pki(name, SPEC);
    }
    for name in &names {
        ns.wait_until_ready(name);
    }
    ns.kubectl(&["delete", "pkis", "--all", "--cascade=foreground"])
        .unwrap();
    let writes = ns.operator_writes();
    let creates = writes
        .iter()
        .filter(|(write, _)| write.what == "create secrets");
    let count: usize = creates.map(|(_, count)| count).sum();
    assert_eq!(count, COUNT, "{writes:?}");
}

#[test]
fn a_secret_that_is_to_be_kept_belongs_to_another_pki_for_any_other_that_names_it() {
    let ns = SHARED.namespace("kept-by-one");
    ns.apply_pki("app1-pki", SPEC);
    ns.annotate("pki", "app1-pki", KEEP, "true");
    wait_until_kept(&ns, "app1-pki");
    let spec = r#"{"serviceName": "app2", "secretName": "app1-pki"}"#;
    ns.apply_pki("app2-pki", spec);
    let said = ns.wait_until_refused("app2-pki", "PkiSecretConflict");
    let conflict = format!("Secret app1-pki belongs to Pki {}/app1-pki, which", ns.name);
    assert!(said.starts_with(&conflict), "{said}");
}

#[test]
fn a_secret_can_be_kept_when_its_pki_breaks_the_rules_by_now() {
    let ns = SHARED.namespace("kept-refused");
    ns.permit(&["app3"], "");
    ns.apply_pki("app3-pki", r#"{"serviceName": "app3"}"#);
    ns.wait_until_ready("app3-pki");
    ns.withdraw();
    ns.wait_until_refused("app3-pki", "PkiServiceNameError");
    ns.annotate("pki", "app3-pki", KEEP, "true");
    wait_until_kept(&ns, "app3-pki");
    ns.delete("pki", "app3-pki");
    ns.barrier();
    wait_until_kept(&ns, "app3-pki");
}

#[test]
fn the_annotation_that_keeps_a_secret_can_be_taken_back() {
    let ns = SHARED.namespace("released");
    ns.apply_pki("app1-pki", SPEC);
    ns.wait_until_ready("app1-pki");
    ns.annotate("pki", "app1-pki", KEEP, "true");
    wait_until_kept(&ns, "app1-pki");
    let without = json!({"metadata": {"annotations": {KEEP: null}}});
    ns.merge("pki", "app1-pki", &without);
    eventually("the Secret is the Pki's again", || {
        let secret = ns.get("secret", "app1-pki")?;
        secret["metadata"]["ownerReferences"]
            .is_array()
            .then_some(())
    });
    ns.delete("pki", "app1-pki");
    eventually("the Secret goes with its Pki", || {
        ns.get("secret", "app1-pki").is_none().then_some(())
    });
}

#[test]
fn pkis_with_a_finalizer_of_an_earlier_version_are_released_and_their_secrets_kept() {
    let arena = arena();
    // Nobody answers in between.
    let ignore = [
        "webhook.failurePolicy=Ignore",
        "admissionPolicy.enabled=false",
    ];
    arena.install_with(&ignore).unwrap();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("held");
    for name in ["living", "going"] {
        ns.apply_pki(name, SPEC);
        ns.wait_until_ready(name);
    }
    operator.process.kill().unwrap();
    let held = json!({"metadata": {
        "finalizers": ["box.com/keep-secret"],
        "annotations": {"box.com/keep-secret": "true"},
    }});
    for name in ["living", "going"] {
        ns.merge("pki", name, &held);
    }
    let before = ns.get("secret", "going").unwrap()["data"].clone();
    ns.delete_later("pki", "going");
    let _operator = arena.first_replica("operator-1", &[]).unwrap();
    wait_until_kept(&ns, "living");
    eventually("neither is held", || {
        let living = ns.get("pki", "living")?;
        let is_gone = ns.get("pki", "going").is_none();
        (is_gone && living["metadata"]["finalizers"].is_null()).then_some(())
    });
    ns.barrier();
    wait_until_kept(&ns, "going");
    assert_eq!(ns.get("secret", "going").unwrap()["data"], before);
}

/// Waits until the Secret has no owner, and is offered to the Pki of its name.
fn wait_until_kept(ns: &Namespace<'_>, name: &str) {
    eventually("the Secret is let go", || {
        let meta = &ns.get("secret", name)?["metadata"];
        let is_free = meta["ownerReferences"].is_null();
        (is_free && meta["annotations"]["box.com/adopt"] == name).then_some(())
    });
}

#[test]
fn a_secret_is_taken_over_when_its_owner_offers_it() {
    let ns = SHARED.namespace("adopted");
    let secret = r#"{"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "app1-pki"},
        "stringData": {"tls.crt": "theirs", "tls.key": "theirs", "other": "stays"}}"#;
    ns.apply(secret);
    ns.apply_pki("app1-pki", SPEC);
    let said = ns.wait_until_refused("app1-pki", "PkiSecretForeign");
    assert!(
        said.contains("annotate the Secret with box.com/adopt=app1-pki"),
        "{said}"
    );
    ns.annotate("secret", "app1-pki", "box.com/adopt", "app1-pki");
    let pki = ns.wait_until_ready("app1-pki");
    let secret = ns.get("secret", "app1-pki").unwrap();
    assert_eq!(
        secret["metadata"]["ownerReferences"][0]["uid"],
        pki["metadata"]["uid"]
    );
    assert_eq!(file(&secret, "other").trim(), "stays");
    assert_eq!(
        serial_of(&file(&secret, "tls.crt")),
        pki["status"]["serialNumber"]
    );
}

#[test]
fn a_writer_that_keeps_changing_the_secret_is_named_and_the_repairs_slow_down() {
    let ns = SHARED.namespace("contest");
    ns.apply_pki("app1-pki", SPEC);
    let mut known = ns.wait_until_ready("app1-pki");
    ns.pod_with("app1", "app1-pki");
    let damage = json!({"data": {"tls.crt": ""}});
    let damage = || {
        let api = &ns.installed.api;
        api.merge_as("meddler", "secret", &ns.name, "app1-pki", &damage)
            .unwrap();
    };
    for _ in 0..3 {
        damage();
        let serial = eventually("it is repaired at once", || another_serial(&ns, &known));
        known["status"]["serialNumber"] = serial.into();
    }
    damage();
    let said = ns.wait_until_refused("app1-pki", "PkiSecretContested");
    assert_eq!(
        said,
        format!(
            "Secret app1-pki of Pki {}/app1-pki is changed by \"meddler\" again and again: stop that, or choose another \
             spec.secretName; the operator repairs it less and less often, next at status.nextAttemptTime",
            ns.name
        )
    );
    assert!(ns.get("pki", "app1-pki").unwrap()["status"]["nextAttemptTime"].is_string());
    eventually("the pod hears it", || {
        let published = notes(&ns.events("Pod", "app1"));
        published
            .iter()
            .any(|note| note.contains("\"meddler\""))
            .then_some(())
    });
    let pki = ns.wait_until_ready("app1-pki");
    assert_ne!(
        pki["status"]["serialNumber"],
        known["status"]["serialNumber"]
    );
}

#[test]
fn further_files_come_and_go_with_the_spec_and_follow_the_password() {
    let ns = SHARED.namespace("outputs");
    let keystore = json!({"passwordSecretRef": {"name": "password"}});
    let outputs = json!({"combinedPem": true, "derKey": true, "pkcs12": keystore, "jks": keystore});
    let apply = |outputs: &Value| {
        ns.apply_pki(
            "app1-pki",
            &json!({"serviceName": "app1", "outputs": outputs}).to_string(),
        );
    };
    apply(&outputs);
    let said = ns.wait_until_refused("app1-pki", "PkiKeystoreNotWritten");
    let advice = "; keystore.p12 and keystore.jks are not written: there is no Secret password with the password of the keystores: \
                  create it, with the password as password";
    assert!(said.contains(advice), "{said}");
    let data = ns.get("secret", "app1-pki").unwrap()["data"].take();
    let files: Vec<_> = data.as_object().unwrap().keys().collect();
    let all_but = [
        "ca.crt",
        "key.der",
        "tls-combined.pem",
        "tls.crt",
        "tls.key",
    ];
    assert_eq!(files, all_but);

    let password = |password: &str| {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "password"},
            "stringData": {"password": password}});
        ns.apply_object(&secret);
    };
    password("short");
    eventually("the password is judged", || {
        let ready = ns.ready("app1-pki")?;
        ready["message"]
            .as_str()?
            .contains("because it is too short: write 6 to 256 printable ASCII characters")
            .then_some(())
    });
    password("first password");
    let serial = ns.wait_until_ready("app1-pki")["status"]["serialNumber"].clone();
    let secret = || ns.get("secret", "app1-pki").unwrap();
    let opens = |password: &str| {
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(&ns.name);
        std::fs::write(&path, bytes(&secret(), "keystore.p12")).unwrap();
        let pass = format!("pass:{password}");
        openssl(
            &[
                "pkcs12",
                "-info",
                "-nokeys",
                "-passin",
                &pass,
                "-in",
                path.to_str().unwrap(),
            ],
            "",
        )
        .contains("BEGIN CERTIFICATE")
    };
    assert!(opens("first password") && !opens("second password"));
    password("second password");
    eventually("the keystore has the other password", || {
        opens("second password").then_some(())
    });
    let combined = file(&secret(), "tls.key") + &file(&secret(), "tls.crt");
    assert_eq!(file(&secret(), "tls-combined.pem"), combined);

    let damage = json!({"data": {"keystore.jks": "AAAA", "key.der": null}});
    let before = secret()["data"].clone();
    ns.merge("secret", "app1-pki", &damage);
    eventually("what was damaged is repaired", || {
        let now = secret()["data"].clone();
        (now["key.der"] == before["key.der"] && now["keystore.jks"] != "AAAA").then_some(())
    });

    apply(&json!({"combinedPem": true}));
    eventually("what is no longer wanted goes", || {
        let data = secret()["data"].clone();
        let files: Vec<_> = data.as_object()?.keys().map(String::as_str).collect();
        (files == ["ca.crt", "tls-combined.pem", "tls.crt", "tls.key"]).then_some(())
    });
    let pki = ns.wait_until_ready("app1-pki");
    assert_eq!(
        pki["status"]["serialNumber"], serial,
        "none of this needs another certificate"
    );
}

#[test]
fn a_missing_password_holds_up_the_keystore_and_nothing_else() {
    let ns = SHARED.namespace("password");
    ns.pod_with("app1", "app1-pki");
    ns.password();
    let outputs = json!({"pkcs12": {"passwordSecretRef": {"name": "password"}}});
    let spec = json!({"serviceName": "app1", "outputs": outputs}).to_string();
    ns.apply_pki("app1-pki", &spec);
    let first = ns.wait_until_ready("app1-pki");
    let before = ns.get("secret", "app1-pki").unwrap();

    ns.delete("secret", "password");
    let said = ns.wait_until_refused("app1-pki", "PkiKeystoreNotWritten");
    let why = "; keystore.p12 is not renewed: there is no Secret password with the password of the keystores: create it, with the \
               password as password";
    assert!(said.ends_with(why), "{said}");
    let published = notes(&ns.wait_for_events("Pod", "app1", 1));
    assert_eq!(published, [format!("Warning: {said}")]);
    ns.annotate("pki", "app1-pki", "box.com/renew-now", "");
    let serial = eventually("it is renewed", || another_serial(&ns, &first));
    let after = ns.get("secret", "app1-pki").unwrap();
    for name in ["keystore.p12", "truststore.p12"] {
        let is_same = bytes(&after, name) == bytes(&before, name);
        assert!(is_same, "programs that read {name} go on with it");
    }
    let said = ns.wait_until_refused("app1-pki", "PkiKeystoreNotWritten");
    assert!(said.ends_with(why), "{said}");
    ns.barrier();
    let version = |secret: &Value| secret["metadata"]["resourceVersion"].clone();
    let left_alone = ns.get("secret", "app1-pki").unwrap();
    assert_eq!(
        version(&left_alone),
        version(&after),
        "no write is repeated"
    );

    ns.password();
    let pki = ns.wait_until_ready("app1-pki");
    assert_eq!(pki["status"]["serialNumber"], serial);
    let resolved = ns.get("secret", "app1-pki").unwrap();
    assert_ne!(
        bytes(&resolved, "keystore.p12"),
        bytes(&before, "keystore.p12")
    );
}

/// The serial number that the status tells and the Secret has, once it is another than in `before`.
fn another_serial(ns: &Namespace<'_>, before: &Value) -> Option<String> {
    let name = before["metadata"]["name"].as_str()?;
    let serial = ns.get("pki", name)?["status"]["serialNumber"]
        .as_str()?
        .to_owned();
    let secret = ns.get("secret", before["status"]["secretName"].as_str()?)?;
    (before["status"]["serialNumber"] != serial && serial_of(&file(&secret, "tls.crt")) == serial)
        .then_some(serial)
}
