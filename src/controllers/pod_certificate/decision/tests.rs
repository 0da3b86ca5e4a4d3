//! Decisions about requests, as tables.

use super::*;
use crate::api::{self, PkiPolicy};
use crate::controllers::pod_certificate::request::tests::request;
use crate::k8s::projection::Projection as _;
use crate::model::ca::Alarm;
use crate::policy::RuleBook;
use crate::store::cached_pki::KnownPki;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Pod;
use pki_certs::{Authority, KeyAlgorithm};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

/// The cluster of a request that is signed.
struct View {
    pod: Option<Value>,
    service_account: Option<&'static str>,
    node: Option<&'static str>,
    pkis: Vec<Pki>,
    rules: RuleBook,
}

impl ClusterView for View {
    fn pod(&self, key: &Key) -> Option<Arc<SecretUser>> {
        let pod: Pod = serde_json::from_value(self.pod.clone()?).unwrap();
        let pod = SecretUser::from(pod);
        (pod.key == *key).then(|| Arc::new(pod))
    }

    fn service_account(&self, _: &Key) -> Option<Arc<str>> {
        self.service_account.map(Arc::from)
    }

    fn node(&self, _: &str) -> Option<Arc<str>> {
        self.node.map(Arc::from)
    }

    fn pki(&self, key: &Key) -> Option<StoredPki> {
        let found = self.pkis.iter().find(|pki| Key::of(*pki) == *key)?;
        Some(KnownPki::from(found.clone()).unpack())
    }

    fn pkis_of(&self, namespace: &str) -> Vec<(Arc<str>, bool)> {
        let known = self.pkis.iter().map(|pki| KnownPki::from(pki.clone()));
        let known = known.map(|pki| (Key::of(&pki.unpack()), pki.is_for_pods()));
        let of_namespace = known.filter(|(key, _)| *key.namespace == *namespace);
        of_namespace.map(|(key, is)| (key.name, is)).collect()
    }

    fn evaluate(&self, pki: &Pki, key: Option<KeyType>) -> Result<Approved, Vec<Violation>> {
        self.rules
            .evaluate_for_pod(pki, key.map(KeyType::private_key))
    }
}

fn view() -> View {
    View {
        pod: Some(json!({
            "metadata": {"namespace": "ns", "name": "app-1", "uid": "p"},
            "spec": {
                "containers": [], "nodeName": "node", "serviceAccountName": "app",
                "volumes": [{"name": "tls", "projected": {"sources": [{"podCertificate": {
                    "signerName": "box.com/pki", "keyType": "ECDSAP256", "maxExpirationSeconds": 3600,
                    "userAnnotations": {"box.com/pki": "app1-pki"}
                }}]}}]
            }
        })),
        service_account: Some("s"),
        node: Some("n"),
        pkis: vec![pki("app1-pki", json!({}))],
        rules: rules(json!({"serviceNames": ["app1"], "privateKeys": [{"algorithm": "ECDSA"}]})),
    }
}

fn rules(policy: Value) -> RuleBook {
    let policy = PkiPolicy::new("policy", serde_json::from_value(policy).unwrap());
    RuleBook::new(Arc::default(), [&policy])
}

fn pki(name: &str, spec: Value) -> Pki {
    let mut pki = api::tests::pki(spec);
    pki.metadata.name = Some(name.into());
    pki
}

fn csr(algorithm: &'static rcgen::SignatureAlgorithm) -> ByteString {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    ByteString(csr.der().to_vec())
}

fn ca() -> Ca {
    let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    let ca = Authority::generate("CA", SignedDuration::from_hours(87_600), now);
    Ca::of(ca.unwrap())
}

/// Decides about the request after `change`, with a key on P-256.
fn decide_on(view: &View, change: impl FnOnce(&mut Value)) -> Decision {
    let mut object = request("");
    object["spec"]["stubPKCS10Request"] = json!(csr(&rcgen::PKCS_ECDSA_P256_SHA256));
    change(&mut object);
    let request = Request::of(serde_json::from_value(object).unwrap());
    decide(&request, view, &ca())
}

fn summary(decision: Decision) -> String {
    match decision {
        Decision::Sign(approval) => format!("sign: {}", approval.request.dns_names.join(" ")),
        Decision::Deny(Denial { reason, message }) => format!("deny: {reason}: {message}"),
        Decision::Wait(fault) => format!("wait: {}: {}", fault.reason, fault.message),
        Decision::Unknown(object) => format!("unknown: {object:?}"),
    }
}

#[test]
fn a_request_gets_names_and_usages_of_the_pki_and_the_key_of_the_pod() {
    let mut view = view();
    view.pkis = vec![pki(
        "app1-pki",
        json!({"duration": "2h", "usages": ["client auth"]}),
    )];
    let Decision::Sign(approval) = decide_on(&view, |_| {}) else {
        panic!("it is signed")
    };
    let request = &approval.request;
    let names = ["app1.ns.svc", "app1.ns.svc.cluster.local"];
    assert_eq!(request.dns_names, names);
    assert_eq!(request.usages, [pki_certs::Usage::ClientAuth]);
    assert_eq!(request.key, KeyAlgorithm::EcdsaP256);
    assert_eq!(approval.policy, "policy");
    // The pod asks for at most an hour, backdating included.
    assert_eq!(
        request.duration + request.backdating,
        SignedDuration::from_hours(1)
    );
    let longer = decide_on(&view_with(3 * 3600, view), |it| {
        it["spec"]["maxExpirationSeconds"] = json!(3 * 3600);
    });
    let Decision::Sign(approval) = longer else {
        panic!("it is signed")
    };
    let request = &approval.request;
    assert_eq!(
        request.duration + request.backdating,
        SignedDuration::from_hours(2)
    );
}

fn view_with(seconds: i32, mut view: View) -> View {
    let pod = view.pod.as_mut().unwrap();
    let source = &mut pod["spec"]["volumes"][0]["projected"]["sources"][0]["podCertificate"];
    source["maxExpirationSeconds"] = json!(seconds);
    view
}

#[test]
fn a_pod_that_names_no_pki_gets_the_only_one_for_pods() {
    let mut view = view();
    let pod = view.pod.as_mut().unwrap();
    let source = &mut pod["spec"]["volumes"][0]["projected"]["sources"][0]["podCertificate"];
    source["userAnnotations"] = Value::Null;
    let none = |it: &mut Value| it["spec"]["unverifiedUserAnnotations"] = Value::Null;
    for (pkis, expected) in [
        (
            vec![],
            "wait: PkiNotFound: the volume names no Pki, and no Pki of namespace ns has delivery: Pod; write \
             userAnnotations: {box.com/pki: NAME} in the volume, or delivery: Pod in the spec of one Pki",
        ),
        (
            vec![("a", "Secret"), ("b", "Secret")],
            "wait: PkiNotFound: the volume names no Pki, and no Pki of namespace ns has delivery: Pod: [a, b]; write \
             userAnnotations: {box.com/pki: NAME} in the volume, or delivery: Pod in the spec of one Pki",
        ),
        (
            vec![("a", "Secret"), ("b", "Pod")],
            "sign: app1.ns.svc app1.ns.svc.cluster.local",
        ),
        (
            vec![("a", "Secret"), ("c", "Pod"), ("b", "Pod")],
            "wait: PkiNotFound: the volume names no Pki, and several Pkis of namespace ns have delivery: Pod: [b, c]; write \
             userAnnotations: {box.com/pki: NAME} in the volume, or delivery: Pod in the spec of one Pki",
        ),
    ] {
        let pkis = pkis.into_iter();
        view.pkis = pkis
            .map(|(name, delivery)| pki(name, json!({"delivery": delivery})))
            .collect();
        assert_eq!(summary(decide_on(&view, none)), expected);
    }
}

#[test]
fn a_fault_that_can_be_cured_waits_and_reads_as_elsewhere() {
    let mut refused = view();
    refused.rules = rules(json!({"serviceNames": ["app2", "app3"]}));
    let mut typo = view();
    typo.pkis = vec![pki("app1-pkis", json!({}))];
    let mut deleted = view();
    deleted.pkis[0].metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-03-01T12:00:00Z")).unwrap();
    for (view, expected) in [
        (
            refused,
            "wait: PkiServiceNameError: ServiceName: app1 in pki: app1-pki is not found in allowedNames: [app2 app3]",
        ),
        (
            typo,
            "wait: PkiNotFound: the volume names Pki app1-pki, which is not found in namespace ns: [app1-pkis]; did you mean \"app1-pkis\"?",
        ),
        (
            deleted,
            "wait: PkiNotFound: the volume names Pki app1-pki, which is not found in namespace ns",
        ),
    ] {
        let found = summary(decide_on(&view, |_| {}));
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn a_key_that_the_policy_does_not_permit_waits_for_the_policy() {
    let mut view = view();
    let pod = view.pod.as_mut().unwrap();
    let source = &mut pod["spec"]["volumes"][0]["projected"]["sources"][0]["podCertificate"];
    source["keyType"] = json!("ED25519");
    let ed25519 =
        |it: &mut Value| it["spec"]["stubPKCS10Request"] = json!(csr(&rcgen::PKCS_ED25519));
    let found = summary(decide_on(&view, ed25519));
    assert!(
        found.starts_with("wait: PkiPrivateKeyError: keyType ED25519 of the volume: ")
            && found.contains("ECDSA"),
        "{found}"
    );
    view.rules =
        rules(json!({"serviceNames": ["app1"], "privateKeys": [{"algorithm": "Ed25519"}]}));
    let found = summary(decide_on(&view, ed25519));
    assert!(found.starts_with("sign: "), "{found}");
    // A Pki for pods names no key.
    view.pkis = vec![pki("app1-pki", json!({"delivery": "Pod"}))];
    let found = summary(decide_on(&view, ed25519));
    assert!(found.starts_with("sign: "), "{found}");
}

#[test]
fn a_ca_that_cannot_sign_is_waited_for() {
    let mut object = request("");
    object["spec"]["stubPKCS10Request"] = json!(csr(&rcgen::PKCS_ECDSA_P256_SHA256));
    let request = Request::of(serde_json::from_value(object).unwrap());
    let secret = "ca".to_owned();
    let ca = Ca {
        signer: Err(Alarm::NotBrought { secret }),
        ..ca()
    };
    let found = summary(decide(&request, &view(), &ca));
    assert!(found.starts_with("wait: PkiCaUnavailable: "), "{found}");
}

#[test]
fn a_request_that_nothing_cures_is_denied() {
    type Change = fn(&mut Value);
    let changes: [(Change, &str); 6] = [
        (
            |it| it["spec"]["unverifiedUserAnnotations"]["example.com/x"] = json!("y"),
            "deny: InvalidUnverifiedUserAnnotations: example.com/x is no key that the signer knows",
        ),
        (
            |it| it["spec"]["stubPKCS10Request"] = json!(csr(&rcgen::PKCS_ECDSA_P521_SHA512)),
            "deny: UnsupportedKeyType: the signer does not take such a key: write one of these as keyType, and create the \
             pod again: ECDSAP256, ECDSAP384, ED25519, RSA3072, RSA4096",
        ),
        (
            |it| it["spec"]["stubPKCS10Request"] = json!(ByteString(b"text".to_vec())),
            "deny: InvalidStubPKCS10Request: ",
        ),
        (
            |it| it["spec"]["serviceAccountName"] = json!("other"),
            "deny: PodMismatch: pod app-1 runs as another service account",
        ),
        (
            |it| it["spec"]["nodeName"] = json!("other"),
            "deny: PodMismatch: pod app-1 runs on another node",
        ),
        (
            |it| it["spec"]["unverifiedUserAnnotations"]["box.com/pki"] = json!("other-pki"),
            "deny: PodMismatch: pod app-1 mounts no certificate of it with this key type, lifetime and these annotations",
        ),
    ];
    for (change, expected) in changes {
        let found = summary(decide_on(&view(), change));
        assert!(found.starts_with(expected), "{found}");
    }
    let mut other = view();
    other.pod.as_mut().unwrap()["spec"]["volumes"] = json!([]);
    let found = summary(decide_on(&other, |_| {}));
    assert_eq!(
        found,
        "deny: PodMismatch: pod app-1 mounts no certificate of it"
    );
}

#[test]
fn an_object_that_the_caches_do_not_have_is_asked_for() {
    let mut without_pod = view();
    without_pod.pod = None;
    let mut successor = view();
    successor.pod.as_mut().unwrap()["metadata"]["uid"] = json!("other");
    let mut unassigned = view();
    unassigned.pod.as_mut().unwrap()["spec"]["nodeName"] = Value::Null;
    let mut without_account = view();
    without_account.service_account = None;
    let mut other_node = view();
    other_node.node = Some("other");
    for (view, expected) in [
        (without_pod, "unknown: Pod"),
        (successor, "unknown: Pod"),
        (unassigned, "unknown: Pod"),
        (without_account, "unknown: ServiceAccount"),
        (other_node, "unknown: Node"),
    ] {
        assert_eq!(summary(decide_on(&view, |_| {})), expected);
    }
    let request = Request::of(serde_json::from_value(request("")).unwrap());
    let denial = absent(&request, UnknownObject::Pod);
    assert_eq!(denial.message, "there is no pod app-1 with the UID p");
}

#[test]
fn hostile_text_stays_on_one_line_and_within_bounds() {
    let long = "a\nb\u{202e}".repeat(5000);
    let mut view = view();
    let pod = view.pod.as_mut().unwrap();
    let source = &mut pod["spec"]["volumes"][0]["projected"]["sources"][0]["podCertificate"];
    source["userAnnotations"]["box.com/pki"] = json!(long);
    let found = decide_on(&view, |it| {
        it["spec"]["unverifiedUserAnnotations"]["box.com/pki"] = json!(long);
    });
    let Decision::Wait(fault) = found else {
        panic!("it waits")
    };
    let is_plain = |text: &str| !text.contains(['\n', '\u{202e}']);
    assert!(is_plain(&fault.message), "{}", fault.message);
    let found = decide_on(&view, |it| {
        it["spec"]["unverifiedUserAnnotations"] = json!({ long: "" });
    });
    let Decision::Deny(denial) = found else {
        panic!("it is denied")
    };
    assert!(is_plain(&denial.message) && denial.message.len() <= MESSAGE_BYTES);
}
