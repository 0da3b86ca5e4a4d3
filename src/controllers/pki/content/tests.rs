//! Whose a Secret is, and what is written into it.

use super::*;
use crate::k8s::secret::{adoption, bundle, is_controlled_by, is_owned_by, other_writer};
use crate::util::time::tests::now;
use jiff::SignedDuration;
use kube::runtime::watcher::Event;
use pki_certs::{Authority, Leaf};

fn pki() -> Pki {
    crate::api::tests::pki(json!({}))
}

/// Pkis that live: app1-pki, its rival, and one with another Secret.
fn pkis() -> SecretIndex<KnownPki> {
    let mut pkis = SecretIndex::default();
    for (name, secret, uid) in [
        ("app1-pki", "app1-pki", "uid-1"),
        ("rival", "app1-pki", "uid-2"),
        ("other", "other", "uid-3"),
    ] {
        let pki = serde_json::from_value::<Pki>(json!({
            "apiVersion": "box.com/v1", "kind": "Pki",
            "metadata": {"namespace": "ns", "name": name, "uid": uid},
            "spec": {"serviceName": "app1", "secretName": secret}
        }));
        pkis.apply(Event::Apply(pki.unwrap().into()));
    }
    pkis
}

fn owned(references: &Value) -> Owner {
    let secret = serde_json::from_value(json!({"type": TLS, "metadata": {"name": "app1-pki",
        "labels": {"app.kubernetes.io/managed-by": "pki-operator"}, "ownerReferences": references}}));
    owner(&secret.unwrap(), &pki(), &pkis())
}

fn reference(kind: &str, api_version: &str, name: &str, uid: &str, controller: bool) -> Value {
    json!([{"kind": kind, "apiVersion": api_version, "name": name, "uid": uid, "controller": controller}])
}

fn pki_reference(name: &str, uid: &str) -> Value {
    reference("Pki", "box.com/v1", name, uid, true)
}

#[test]
fn a_secret_is_ours_by_uid_alone() {
    assert_eq!(owned(&pki_reference("app1-pki", "uid-1")), Owner::Ours);
    let other_controller = |by: &str| Obstacle::Controlled {
        by: Some(by.to_owned()),
    };
    for (foreign, obstacle) in [
        (json!([]), Obstacle::Unclaimed),
        (
            reference("Pki", "box.com/v1", "app1-pki", "uid-1", false),
            Obstacle::Unclaimed,
        ),
        (
            reference("Pki", "example.com/v1", "app1-pki", "uid-1", true),
            other_controller("Pki app1-pki"),
        ),
        (
            reference("Deployment", "apps/v1", "app1-pki", "uid-1", true),
            other_controller("Deployment app1-pki"),
        ),
    ] {
        assert_eq!(owned(&foreign), Owner::Foreign(obstacle), "{foreign}");
    }
}

#[test]
fn a_secret_of_another_pki_is_its_own_while_that_lives() {
    assert_eq!(
        owned(&pki_reference("rival", "uid-2")),
        Owner::Rival(Key::new("ns", "rival"))
    );
    assert_eq!(
        owned(&pki_reference("other", "uid-3")),
        Owner::Foreign(Obstacle::Controlled {
            by: Some("Pki other".into())
        }),
        "left behind by a Pki that names another Secret now"
    );
    let mut pkis = pkis();
    let known = pkis.get(&Key::new("ns", "other")).unwrap();
    let mut other = known.unpack().0.unwrap();
    let formers = json!({"formerSecrets": [{"name": "app1-pki"}]});
    other.status = serde_json::from_value(formers).unwrap();
    pkis.apply(Event::Apply(other.into()));
    let left = json!({"metadata": {"name": "app1-pki", "ownerReferences": pki_reference("other", "uid-3")}});
    let left = serde_json::from_value(left).unwrap();
    assert_eq!(owner(&left, &pki(), &pkis), Owner::FormerPki, "it goes");
    for gone in [("app1-pki", "uid-0"), ("rival", "uid-0"), ("gone", "uid-9")] {
        assert_eq!(
            owned(&pki_reference(gone.0, gone.1)),
            Owner::FormerPki,
            "{gone:?}"
        );
    }
}

#[test]
fn a_secret_whose_deletion_is_held_names_its_finalizers() {
    let found = |references: &Value, finalizers: &[&str]| {
        let secret = json!({"type": TLS, "metadata": {"name": "app1-pki", "ownerReferences": references,
            "deletionTimestamp": "2030-01-01T00:00:00Z", "finalizers": finalizers}});
        owner(&serde_json::from_value(secret).unwrap(), &pki(), &pkis())
    };
    let held = ["foregroundDeletion", "example.com/hold"];
    let deleting = Owner::Foreign(Obstacle::Deleting(vec!["example.com/hold".into()]));
    for references in [json!([]), pki_reference("gone", "uid-9")] {
        assert_eq!(found(&references, &held), deleting, "{references}");
    }
    assert_eq!(
        found(&pki_reference("gone", "uid-9"), &held[..1]),
        Owner::FormerPki
    );
    assert_eq!(found(&json!([]), &[]), Owner::Foreign(Obstacle::Unclaimed));
    assert_eq!(
        found(&pki_reference("app1-pki", "uid-1"), &held),
        Owner::Ours
    );
}

/// A Pki, what it may have, and what a CA has signed for it.
struct Case {
    pki: Pki,
    approved: Approved,
    leaf: Leaf,
    ca: pki_certs::CaCertificate,
    trust: Trust,
    passwords: Passwords,
}

impl Case {
    fn of(spec: Value) -> Self {
        let pki = crate::api::tests::pki(spec);
        let approved = crate::api::tests::approved(&pki);
        let authority = Authority::generate("ca", SignedDuration::from_hours(3000), now()).unwrap();
        Self {
            leaf: authority.issue(&approved.certificate, now()).unwrap(),
            trust: Trust::of([authority.ca()]),
            ca: authority.ca().clone(),
            passwords: Passwords::default(),
            approved,
            pki,
        }
    }

    fn content(&self) -> SecretContent<'_> {
        SecretContent {
            pki: &self.pki,
            approved: &self.approved,
            bundle: Bundle {
                certificate: self.leaf.chain_pem.as_bytes(),
                private_key: self.leaf.private_key_pem.as_bytes(),
            },
            trust: &self.trust,
            passwords: &self.passwords,
        }
    }
}

/// As the API server stores it, with what it adds and with what others have.
fn stored(manifest: &Secret) -> Secret {
    let mut stored = serde_json::to_value(manifest).unwrap();
    json_patch::merge(
        &mut stored,
        &json!({ "metadata": { "uid": "u", "resourceVersion": "7" } }),
    );
    serde_json::from_value(stored).unwrap()
}

/// What becomes of `observed` by this patch.
fn patched(observed: &Secret, change: &Value) -> Secret {
    let mut object = serde_json::to_value(observed).unwrap();
    json_patch::merge(&mut object, change);
    serde_json::from_value(object).unwrap()
}

fn managed(manager: &str, time: Option<&str>, fields: &Value) -> Value {
    json!({ "manager": manager, "operation": "Update", "time": time, "fieldsV1": fields })
}

fn keys(map: &Value) -> Vec<&str> {
    map.as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn labelled() -> Case {
    let template = json!({ "labels": { "team": "a" }, "annotations": { "example.com/note": "b" } });
    Case::of(json!({ "secretTemplate": template }))
}

#[test]
fn a_new_secret_is_a_tls_secret_that_goes_with_its_pki() {
    let case = Case::of(json!({ "secretName": "tls" }));
    let made = serde_json::to_value(case.content().manifest().0).unwrap();
    assert_eq!(made["type"], "kubernetes.io/tls");
    let metadata = json!({
        "name": "tls", "namespace": "ns",
        "labels": { "app.kubernetes.io/managed-by": "pki-operator" },
        "ownerReferences": [{ "apiVersion": "box.com/v1", "kind": "Pki", "name": "app1-pki", "uid": "uid-1",
            "controller": true, "blockOwnerDeletion": true }]
    });
    assert_eq!(made["metadata"], metadata);
    assert_eq!(keys(&made["data"]), ["ca.crt", "tls.crt", "tls.key"]);

    let made = labelled().content().manifest().0;
    assert_eq!(made.labels()["team"], "a");
    assert_eq!(
        made.labels()["app.kubernetes.io/managed-by"],
        "pki-operator"
    );
    assert_eq!(made.annotations()["example.com/note"], "b");
}

#[test]
fn what_is_written_is_ours_and_sound() {
    let case = labelled();
    let made = case.content().manifest().0;
    assert_eq!(owner(&made, &pki(), &pkis()), Owner::Ours);
    assert!(is_owned_by(&made, &pki()) && case.content().is_in(&made));
    let request = &case.approved.certificate;
    let verified = pki_certs::verify(&bundle(&made), request, &[&case.ca], now()).unwrap();
    assert_eq!(verified.serial, case.leaf.serial);
    assert_eq!(file(&made, "ca.crt"), case.trust.pem().as_bytes());
    assert_eq!(file(&made, "no such file"), b"");
    let empty = bundle(&Secret::default()).certificate.len();
    assert_eq!(empty, 0);
}

#[test]
fn a_change_is_bound_to_what_was_seen_and_says_nothing_about_anything_else() {
    let case = labelled();
    let seen = stored(&case.content().manifest().0);
    let change = case.content().change(&seen).0;
    assert_eq!(keys(&change), ["data", "metadata"]);
    assert_eq!(
        keys(&change["metadata"]),
        ["annotations", "labels", "resourceVersion", "uid"]
    );
    let metadata = &change["metadata"];
    assert_eq!(
        (&metadata["uid"], &metadata["resourceVersion"]),
        (&json!("u"), &json!("7"))
    );
    assert_eq!(metadata["annotations"], json!({ "example.com/note": "b" }));
    let labels = json!({ "team": "a", "app.kubernetes.io/managed-by": "pki-operator" });
    assert_eq!(metadata["labels"], labels);
    assert_eq!(keys(&change["data"]), ["ca.crt", "tls.crt", "tls.key"]);
    assert_eq!(patched(&seen, &change), seen, "it was as it should be");
}

#[test]
fn what_the_operator_has_left_goes_and_what_others_have_added_stays() {
    let case = labelled();
    let made = stored(&case.content().manifest().0);
    let others = json!({
        "metadata": {
            "labels": { "old": "1", "theirs": "1", "nobodys": "1" },
            "annotations": { "example.com/old": "1", "example.com/theirs": "1" },
            "finalizers": ["example.com/hold"],
            "managedFields": [
                managed("pki-operator", None, &json!({
                    "f:metadata": {
                        "f:labels": { ".": {}, "f:old": {}, "f:gone": {}, "f:team": {}, "f:app.kubernetes.io/managed-by": {} },
                        "f:annotations": { ".": {}, "f:example.com/old": {}, "f:example.com/note": {} },
                    },
                    "f:data": { ".": {}, "f:key.der": {}, "f:truststore.jks": {}, "f:tls.crt": {}, "f:odd": {} },
                })),
                managed("kubectl", None, &json!({
                    "f:metadata": { "f:labels": { "f:theirs": {} }, "f:annotations": { "f:example.com/theirs": {} } },
                    "f:data": { "f:keystore.p12": {}, "f:notes.txt": {} },
                })),
            ]
        },
        "data": { "key.der": "AAAA", "keystore.p12": "AAAA", "notes.txt": "AAAA", "odd": "AAAA", "ca.crt": "AAAA" }
    });
    let seen = patched(&made, &others);
    assert!(!case.content().is_in(&seen));
    let change = case.content().change(&seen).0;
    let metadata = &change["metadata"];
    assert_eq!(
        metadata["labels"],
        json!({ "old": null, "team": "a", "app.kubernetes.io/managed-by": "pki-operator" })
    );
    assert_eq!(
        metadata["annotations"],
        json!({ "example.com/old": null, "example.com/note": "b" })
    );
    assert_eq!(
        keys(&change["data"]),
        ["ca.crt", "key.der", "tls.crt", "tls.key"]
    );
    assert_eq!(change["data"]["key.der"], Value::Null);

    let repaired = patched(&seen, &change);
    assert!(case.content().is_in(&repaired));
    for label in ["theirs", "nobodys"] {
        assert_eq!(repaired.labels()[label], "1");
    }
    assert_eq!(repaired.annotations()["example.com/theirs"], "1");
    assert_eq!(repaired.finalizers(), ["example.com/hold"]);
    for name in ["keystore.p12", "notes.txt", "odd"] {
        assert_eq!(file(&repaired, name), [0; 3], "{name}");
    }
    assert_eq!(
        repaired.metadata.owner_references,
        made.metadata.owner_references
    );
}

fn offered(change: &Value) -> Secret {
    let secret = json!({
        "metadata": { "name": "app1-pki", "namespace": "ns", "uid": "u", "resourceVersion": "7",
            "annotations": { "box.com/adopt": "app1-pki" } },
        "type": "kubernetes.io/tls",
        "data": { "tls.crt": "AAAA", "tls.key": "AAAA" }
    });
    patched(&serde_json::from_value(secret).unwrap(), change)
}

#[test]
fn a_secret_of_nobody_is_ours_if_it_is_offered_and_can_become_one_of_ours() {
    let owner_of_offered = |change: Value| owner(&offered(&change), &pki(), &pkis());
    let some_owner = |controller: bool| {
        let owners = reference("Deployment", "apps/v1", "app1", "uid-7", controller);
        json!({ "metadata": { "ownerReferences": owners } })
    };
    let of_pki = |name: &str, uid: &str| json!({ "metadata": { "ownerReferences": pki_reference(name, uid) } });
    let offer = |value: Value| json!({ "metadata": { "annotations": { "box.com/adopt": value } } });
    let to = |name: &str| Owner::Foreign(Obstacle::OfferedTo(name.to_owned()));
    let of_type = |type_: &str| Owner::Foreign(Obstacle::OfType(type_.to_owned()));
    for (change, found) in [
        (json!({}), Owner::Ours),
        (json!({ "immutable": false }), Owner::Ours),
        (some_owner(false), Owner::Ours),
        (
            json!({ "immutable": true }),
            Owner::Foreign(Obstacle::Immutable),
        ),
        (json!({ "type": "Opaque" }), of_type("Opaque")),
        (json!({ "type": null }), of_type("Opaque")),
        (offer(json!("rival")), Owner::Rival(Key::new("ns", "rival"))),
        // It names another one.
        (offer(json!("other")), to("other")),
        (offer(json!("")), to("")),
        (offer(json!("true")), to("true")),
        (offer(json!("ns/app1-pki")), to("ns/app1-pki")),
        (offer(Value::Null), Owner::Foreign(Obstacle::Unclaimed)),
        // Whoever has it has to let it go first.
        (
            some_owner(true),
            Owner::Foreign(Obstacle::Controlled {
                by: Some("Deployment app1".into()),
            }),
        ),
        (
            of_pki("rival", "uid-2"),
            Owner::Rival(Key::new("ns", "rival")),
        ),
        (of_pki("gone", "uid-9"), Owner::FormerPki),
    ] {
        assert_eq!(owner_of_offered(change.clone()), found, "{change}");
        assert!(
            !is_owned_by(&offered(&change), &pki()),
            "an offer is not ownership"
        );
    }
}

#[test]
fn an_offered_secret_becomes_ours_once_and_keeps_its_other_owners() {
    let case = Case::of(json!({}));
    let others = reference("Deployment", "apps/v1", "app1", "uid-7", false);
    let seen = offered(&json!({ "metadata": { "ownerReferences": others } }));
    let change = case.content().change(&seen).0;
    assert_eq!(
        keys(&change["metadata"]),
        [
            "annotations",
            "labels",
            "ownerReferences",
            "resourceVersion",
            "uid"
        ]
    );
    assert_eq!(
        change["metadata"]["annotations"],
        json!({ "box.com/adopt": null })
    );
    let adopted = patched(&seen, &change);
    assert!(case.content().is_in(&adopted));
    assert_eq!(adopted.annotations().get("box.com/adopt"), None);
    let owners = adopted.metadata.owner_references.unwrap();
    let owners: Vec<_> = owners
        .iter()
        .map(|owner| (&*owner.uid, owner.controller))
        .collect();
    assert_eq!(owners, [("uid-7", Some(false)), ("uid-1", Some(true))]);
}

fn kept(spec: Value) -> Case {
    let mut case = Case::of(spec);
    let wish = ("box.com/keep-secret".to_owned(), "true".to_owned());
    case.pki.annotations_mut().extend([wish]);
    case
}

#[test]
fn a_secret_that_is_to_be_kept_has_no_owner_from_the_beginning() {
    let case = kept(json!({}));
    let made = case.content().manifest().0;
    assert_eq!(made.metadata.owner_references, None);
    assert_eq!(made.annotations()["box.com/adopt"], "app1-pki");
    assert_eq!(owner(&made, &case.pki, &pkis()), Owner::Ours);
    assert!(is_owned_by(&made, &case.pki) && case.content().is_in(&made));
    assert!(!is_owned_by(&made, &pki()), "of one that keeps none");
    let seen = stored(&made);
    let change = case.content().change(&seen).0;
    assert_eq!(patched(&seen, &change), seen);
}

#[test]
fn a_secret_changes_hands_when_it_is_to_be_kept_and_when_it_is_not() {
    let (kept, owned) = (kept(json!({})), Case::of(json!({})));
    let before = stored(&owned.content().manifest().0);
    let others = reference("Deployment", "apps/v1", "app1", "uid-7", false);
    let seen = patched(
        &before,
        &json!({ "metadata": { "ownerReferences":
            [others[0], pki_reference("app1-pki", "uid-1")[0]] } }),
    );
    assert!(!kept.content().is_in(&seen));
    let mut free = patched(&seen, &kept.content().change(&seen).0);
    let owners = |secret: &Secret| json!(secret.metadata.owner_references);
    assert_eq!(owners(&free), others);
    assert!(kept.content().is_in(&free) && is_owned_by(&free, &kept.pki));
    // The note is the operator's own, and it stays.
    let ours = json!({ "f:metadata": { "f:annotations": { "f:box.com/adopt": {} } } });
    let managed = managed("pki-operator", None, &ours);
    free = patched(
        &free,
        &json!({ "metadata": { "managedFields": [managed] } }),
    );
    assert!(kept.content().is_in(&free));

    let wrong = patched(
        &free,
        &json!({ "metadata": { "annotations": { "box.com/adopt": null } } }),
    );
    assert!(!is_owned_by(&wrong, &kept.pki), "nobody says whose it is");
    assert!(!owned.content().is_in(&free));
    let back = patched(&free, &owned.content().change(&free).0);
    assert_eq!(back.annotations().get("box.com/adopt"), None);
    assert!(owned.content().is_in(&back) && is_owned_by(&back, &owned.pki));
}

#[test]
fn the_other_writer_is_the_one_that_wrote_last() {
    let writer = |entries: Value| {
        let secret = json!({ "metadata": { "managedFields": entries } });
        let secret: Secret = serde_json::from_value(secret).unwrap();
        other_writer(&secret).map(str::to_owned)
    };
    let entry = |manager, second: u8| {
        let time = format!("2030-01-01T00:00:{second:02}Z");
        managed(manager, Some(&time), &json!({}))
    };
    let timeless = managed("helm", None, &json!({}));
    for (entries, found) in [
        (Value::Null, None),
        (json!([]), None),
        (json!([entry("pki-operator", 9)]), None),
        (
            json!([entry("kubectl", 1), entry("pki-operator", 9)]),
            Some("kubectl"),
        ),
        (json!([entry("b", 2), entry("a", 1)]), Some("b")),
        (json!([entry("a", 1), entry("b", 2)]), Some("b")),
        (json!([entry("a", 1), timeless.clone()]), Some("a")),
        (json!([timeless]), Some("helm")),
        (json!([{ "operation": "Update" }]), None),
    ] {
        assert_eq!(writer(entries.clone()).as_deref(), found, "{entries}");
    }
}

/// One Pki with all further files, whose passwords are these.
fn with_keystores(pkcs12: Option<&str>, jks: Option<&str>) -> Case {
    let store = |name: &str| json!({ "passwordSecretRef": { "name": name } });
    let outputs =
        json!({ "combinedPem": true, "derKey": true, "pkcs12": store("p"), "jks": store("j") });
    let mut case = Case::of(json!({ "outputs": outputs }));
    let read = |name: &str, password: Option<&str>| {
        let keystore = serde_json::from_value(store(name)).unwrap();
        let secret = password.map(|password| password_secret("password", password.as_bytes()));
        Some(Passwords::read(&keystore, secret.as_ref()))
    };
    case.passwords = Passwords {
        pkcs12: read("p", pkcs12),
        jks: read("j", jks),
        ..Passwords::default()
    };
    case
}

fn password_secret(key: &str, password: &[u8]) -> Secret {
    Secret {
        data: Some(BTreeMap::from([(
            key.into(),
            ByteString(password.to_vec()),
        )])),
        ..Secret::default()
    }
}

#[test]
fn further_files_are_written_once_and_found_again() {
    let case = with_keystores(Some("changeit"), Some("change me too"));
    let made = case.content().manifest().0;
    let names: Vec<_> = made
        .data
        .as_ref()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected = [
        "ca.crt",
        "key.der",
        "keystore.jks",
        "keystore.p12",
        "tls-combined.pem",
        "tls.crt",
        "tls.key",
        "truststore.jks",
        "truststore.p12",
    ];
    assert_eq!(names, expected);
    assert!(
        case.content().is_in(&made),
        "keystores are salted, and opened to compare them"
    );
    let combined = [file(&made, "tls.key"), file(&made, "tls.crt")].concat();
    assert_eq!(file(&made, "tls-combined.pem"), combined);
    for name in OPTIONAL {
        for content in [&b""[..], b"garbage"] {
            let mut damaged = made.clone();
            let data = damaged.data.as_mut().unwrap();
            data.insert(name.into(), ByteString(content.to_vec()));
            assert!(!case.content().is_in(&damaged), "{name}");
        }
        let mut without = made.clone();
        without.data.as_mut().unwrap().remove(name);
        assert!(!case.content().is_in(&without), "{name}");
    }
}

#[test]
fn keystores_follow_their_passwords_their_certificate_and_the_ca() {
    let case = with_keystores(Some("changeit"), Some("changeit"));
    let made = case.content().manifest().0;
    let mut other = with_keystores(Some("changeit"), Some("changeit"));
    std::mem::swap(
        &mut other.passwords,
        &mut with_keystores(Some("changed"), Some("changeit")).passwords,
    );
    let with_other_password = SecretContent {
        passwords: &other.passwords,
        ..case.content()
    };
    assert!(!with_other_password.is_in(&made));
    let with_other_trust = SecretContent {
        trust: &other.trust,
        ..case.content()
    };
    let mut published = made.clone();
    let ca_crt = ByteString(other.trust.pem().into());
    published
        .data
        .as_mut()
        .unwrap()
        .insert("ca.crt".into(), ca_crt);
    assert!(!with_other_trust.is_in(&published));
    let with_other_leaf = SecretContent {
        bundle: other.content().bundle,
        ..case.content()
    };
    assert!(!with_other_leaf.is_in(&made));
}

#[test]
fn files_that_are_not_wanted_any_more_are_taken_away() {
    let case = with_keystores(Some("changeit"), Some("changeit"));
    let mut seen = stored(&case.content().manifest().0);
    let fields: serde_json::Map<_, _> = OPTIONAL
        .iter()
        .map(|name| (format!("f:{name}"), json!({})))
        .collect();
    let entry = managed("pki-operator", None, &json!({ "f:data": fields }));
    seen.metadata.managed_fields = serde_json::from_value(json!([entry])).unwrap();
    let mut plain = Case::of(json!({}));
    (plain.leaf, plain.trust) = (case.leaf.clone(), case.trust.clone());
    assert!(case.content().is_in(&seen) && !plain.content().is_in(&seen));
    let change = plain.content().change(&seen).0;
    for name in OPTIONAL {
        assert_eq!(change["data"].get(name), Some(&Value::Null), "{name}");
    }
    let repaired = patched(&seen, &change);
    assert_eq!(repaired.data.as_ref().unwrap().len(), 3);
    assert!(plain.content().is_in(&repaired));
}

#[test]
fn without_a_password_all_but_its_keystore_is_written_and_it_is_said_which_is_missing() {
    let case = with_keystores(Some("changeit"), None);
    let (made, unmade) = case.content().manifest();
    let missing = "there is no Secret j with the password of the keystores: create it, with the password as password";
    assert_eq!(unmade.len(), 1);
    assert_eq!(unmade[0].error.to_string(), missing);
    assert_eq!((unmade[0].file, unmade[0].is_old), ("keystore.jks", false));
    let has = |secret: &Secret, name: &str| !file(secret, name).is_empty();
    for name in ["tls.crt", "keystore.p12", "truststore.p12", "key.der"] {
        assert!(has(&made, name), "{name}");
    }
    assert!(!has(&made, "keystore.jks") && !has(&made, "truststore.jks"));
    assert!(case.content().is_in(&made), "nothing can be done about it");
    assert_eq!(case.passwords.unmade(&made), unmade);

    // A keystore from before stays: it holds a key with its own certificate.
    let complete = with_keystores(Some("changeit"), Some("changeit"));
    let seen = stored(&complete.content().manifest().0);
    let (change, unmade) = case.content().change(&seen);
    assert_eq!((unmade[0].file, unmade[0].is_old), ("keystore.jks", true));
    let renewed = patched(&seen, &change);
    for name in ["keystore.jks", "truststore.jks"] {
        assert_eq!(file(&renewed, name), file(&seen, name));
    }
    assert_ne!(file(&renewed, "tls.crt"), file(&seen, "tls.crt"));
    assert!(case.content().is_in(&renewed));
    assert_eq!(case.passwords.unmade(&renewed), unmade);
    // With its password it is seen to be an old one.
    let with_password = SecretContent {
        passwords: &complete.passwords,
        ..case.content()
    };
    assert!(!with_password.is_in(&renewed) && complete.passwords.unmade(&renewed).is_empty());
}

#[test]
fn a_secret_that_is_taken_up_again_changes_owner_and_nothing_else() {
    let owned = Case::of(json!({}));
    let others = reference("Deployment", "apps/v1", "app1", "uid-7", false);
    let made = stored(&owned.content().manifest().0);
    let seen = patched(&made, &json!({"metadata": {"ownerReferences": others}}));
    assert!(is_labelled(&seen));
    let change = adoption(&seen, &owned.pki);
    assert_eq!(keys(&change), ["metadata"]);
    assert_eq!(
        keys(&change["metadata"]),
        ["ownerReferences", "resourceVersion", "uid"]
    );
    let again = patched(&seen, &change);
    assert!(is_owned_by(&again, &owned.pki) && owned.content().is_in(&again));
    assert_eq!(again.metadata.owner_references.unwrap().len(), 2);
    let kept = kept(json!({}));
    let again = patched(&seen, &adoption(&seen, &kept.pki));
    assert!(is_owned_by(&again, &kept.pki) && !is_controlled_by(&again, &kept.pki));
}

#[test]
fn a_password_is_read_where_the_reference_leads_and_refused_with_what_to_write() {
    let keystore: crate::api::Keystore =
        serde_json::from_value(json!({ "passwordSecretRef": { "name": "s", "key": "k" } }))
            .unwrap();
    let read = |secret: Option<Secret>| Passwords::read(&keystore, secret.as_ref());
    for password in ["changeit", "123456", "with a space", "~!@#$%^&*()\"'\\"] {
        let read = read(Some(password_secret("k", password.as_bytes()))).unwrap();
        assert_eq!(read.as_str(), password);
    }
    let no_key = "Secret s has no entry \"k\": put the password of the keystores there";
    let unsuitable = |problem: &str, advice: &str| {
        format!(
            "k in Secret s cannot be the password of a keystore, because it {problem}: write 6 to 256 printable ASCII \
             characters{advice}"
        )
    };
    let short = unsuitable("is too short", "");
    let long = unsuitable("is too long", "");
    let character = unsuitable("has a character that is not printable ASCII", "");
    let line_break = unsuitable(
        "ends in a line break",
        " without it, as `kubectl create secret generic --from-literal` does",
    );
    for (secret, said) in [
        (
            None,
            "there is no Secret s with the password of the keystores: create it, with the password as k",
        ),
        (Some(Secret::default()), no_key),
        (Some(password_secret("password", b"changeit")), no_key),
        (Some(password_secret("k", b"")), &short),
        (Some(password_secret("k", b"12345")), &short),
        (Some(password_secret("k", &[b'x'; 257])), &long),
        (Some(password_secret("k", b"changeit\n")), &line_break),
        (Some(password_secret("k", b"changeit\r\n")), &line_break),
        (
            Some(password_secret("k", "pässword".as_bytes())),
            &character,
        ),
        (Some(password_secret("k", b"change\0it")), &character),
        (
            Some(password_secret("k", b"\xff\xfe\xfd\xfc\xfb\xfa")),
            &character,
        ),
    ] {
        let error = read(secret).unwrap_err().to_string();
        assert_eq!(error, said);
        assert!(!error.contains("changeit"));
    }
    let passwords = Passwords {
        jks: Some(read(Some(password_secret("k", b"changeit")))),
        ..Passwords::default()
    };
    assert_eq!(format!("{passwords:?}"), "Passwords(..)");
}
