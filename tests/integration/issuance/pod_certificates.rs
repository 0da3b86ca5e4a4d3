//! Pod certificates: what kubelets ask for, made by hand as a kubelet makes it.

use crate::harness::{Installed, Namespace, SHARED, arena, eventually, notes, openssl};
use k8s_openapi::ByteString;
use pki_cluster::install::RELEASE;
use pki_cluster::testing::{Api, manifest};
use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
use serde_json::{Value, json};

const NODE: &str = "node-1";

/// A node that asks for the certificates of its pods.
struct Node<'a> {
    ns: &'a Namespace<'a>,
    api: Api,
    uid: Value,
}

impl<'a> Node<'a> {
    fn of(ns: &'a Namespace<'a>) -> Self {
        let kubeconfig = ns.installed.cluster.kubeconfig();
        let user = format!("system:node:{NODE}");
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
        let node = ns.installed.api.apply("", &node).unwrap();
        Self {
            api: Api::acting_as(kubeconfig, &user, &["system:nodes", "system:authenticated"])
                .unwrap(),
            uid: node["metadata"]["uid"].clone(),
            ns,
        }
    }

    /// A pod on the node, with a certificate for this Pki.
    fn pod(&self, name: &str, pki: Option<&str>) -> Value {
        let annotations = pki.map(|pki| json!({"box.com/pki": pki}));
        let spec = json!({"nodeName": NODE, "volumes": [{"name": "tls", "projected": {"sources": [{"podCertificate": {
            "signerName": "box.com/pki", "keyType": "ECDSAP256", "maxExpirationSeconds": 86400,
            "credentialBundlePath": "tls.pem", "userAnnotations": annotations}}]}}]});
        self.ns.apply_pod(&manifest::pod(name, &spec));
        self.ns.get("pod", name).unwrap()
    }

    /// The request of the kubelet for a pod, with this key.
    fn request(&self, pod: &Value, key: &KeyPair) -> Value {
        let account = eventually("there is a service account", || {
            self.ns.get("serviceaccount", "default")
        });
        let csr = CertificateParams::default().serialize_request(key).unwrap();
        let source = &pod["spec"]["volumes"][0]["projected"]["sources"][0]["podCertificate"];
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest",
        "metadata": {"name": format!("req-{}", pod["metadata"]["name"].as_str().unwrap())},
        "spec": {
            "signerName": "box.com/pki", "podName": pod["metadata"]["name"], "podUID": pod["metadata"]["uid"],
            "serviceAccountName": "default", "serviceAccountUID": account["metadata"]["uid"],
            "nodeName": NODE, "nodeUID": self.uid, "maxExpirationSeconds": 86400,
            "stubPKCS10Request": ByteString(csr.der().to_vec()),
            "unverifiedUserAnnotations": source["userAnnotations"]
        }})
    }

    /// Asks for the certificate of a pod. The API server learns of a pod a moment later.
    fn ask(&self, request: &Value) -> String {
        eventually("the request is made", || {
            self.api.create(&self.ns.name, request).ok()
        });
        request["metadata"]["name"].as_str().unwrap().to_owned()
    }

    fn ask_for(&self, pod: &Value) -> String {
        self.ask(&self.request(pod, &key(&rcgen::PKCS_ECDSA_P256_SHA256)))
    }

    /// The condition that ends a request, and its status.
    fn end(&self, request: &str) -> (Value, Value) {
        eventually(&format!("{request} ends"), || {
            let status = self.ns.get("podcertificaterequest", request)?["status"].clone();
            let condition = status["conditions"].get(0)?.clone();
            Some((condition, status))
        })
    }

    fn is_issued(&self, request: &str) -> Value {
        let (condition, status) = self.end(request);
        assert_eq!(condition["type"], "Issued", "{condition}");
        status
    }

    /// The notes of the Events on a pod, once there are so many.
    fn notes(&self, pod: &str, count: usize) -> Vec<String> {
        self.ns.wait_for_events("Pod", pod, count);
        notes(&self.ns.events("Pod", pod))
    }
}

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn for_pods(ns: &Namespace<'_>, name: &str) {
    ns.apply_pki(name, r#"{"serviceName": "app1", "delivery": "Pod"}"#);
}

#[test]
fn a_pod_gets_a_certificate_by_one_write_and_its_key_is_nowhere() {
    let ns = SHARED.namespace("pods");
    let node = Node::of(&ns);
    for_pods(&ns, "app1-pki");
    let ready = ns.wait_until_ready("app1-pki");
    let pod = node.pod("app1", Some("app1-pki"));
    let status = node.is_issued(&node.ask_for(&pod));

    let chain = status["certificateChain"].as_str().unwrap();
    let text = openssl(&["x509", "-noout", "-text"], chain);
    assert!(
        text.contains(&format!("DNS:app1.{}.svc,", ns.name)),
        "{text}"
    );
    let purpose = openssl(&["x509", "-noout", "-purpose"], chain);
    assert!(purpose.contains("SSL server : Yes"), "{purpose}");
    assert_eq!(ns.list("secrets", ""), Vec::<Value>::new(), "{ready:?}");
    let writes: Vec<_> = ns.operator_writes().into_iter().collect();
    let of_requests = writes
        .iter()
        .filter(|(write, _)| write.what.contains("podcertificaterequests"));
    let of_requests: Vec<_> = of_requests
        .map(|(write, count)| (write.what.as_str(), write.code, *count))
        .collect();
    assert_eq!(
        of_requests,
        [("patch podcertificaterequests/status", 200, 1)]
    );
    let pki = ns.get("pki", "app1-pki").unwrap();
    assert_eq!(pki["status"]["secretName"], Value::Null);
    let log = SHARED.operator.process.log();
    let record = log
        .lines()
        .find(|line| line.contains("signed a pod certificate") && line.contains(&ns.name));
    let record = record.unwrap();
    for part in [
        "serial",
        "service_account",
        "node-1",
        "pki-operator-allowed-names",
    ] {
        assert!(record.contains(part), "{part}: {record}");
    }
}

#[test]
fn nothing_of_a_request_but_its_key_gets_into_the_certificate() {
    let ns = SHARED.namespace("greedy");
    let node = Node::of(&ns);
    for_pods(&ns, "app1-pki");
    let (pod, key) = (
        node.pod("app1", Some("app1-pki")),
        key(&rcgen::PKCS_ECDSA_P256_SHA256),
    );
    let mut greedy = CertificateParams::new(vec!["victim.svc".to_owned()]).unwrap();
    greedy.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = greedy.serialize_request(&key).unwrap();
    let mut request = node.request(&pod, &key);
    request["spec"]["stubPKCS10Request"] = json!(ByteString(csr.der().to_vec()));
    let status = node.is_issued(&node.ask(&request));
    let chain = status["certificateChain"].as_str().unwrap();
    let text = openssl(&["x509", "-noout", "-text"], chain);
    assert!(
        text.contains("CA:FALSE") && !text.contains("victim"),
        "{text}"
    );
    let public = openssl(&["x509", "-noout", "-pubkey"], chain);
    assert_eq!(public.trim(), key.public_key_pem().trim());
}

#[test]
fn a_pod_that_names_no_pki_gets_the_only_one_for_pods() {
    let ns = SHARED.namespace("pods");
    let node = Node::of(&ns);
    for_pods(&ns, "one");
    ns.apply_pki("other", r#"{"serviceName": "app2"}"#);
    node.is_issued(&node.ask_for(&node.pod("a", None)));
    for_pods(&ns, "two");
    node.ask_for(&node.pod("b", None));
    let found = node.notes("b", 1);
    let start = format!(
        "Warning: the volume names no Pki, and several Pkis of namespace {} have delivery: Pod: [one, two]; write userAnnotations",
        ns.name
    );
    assert!(found[0].starts_with(&start), "{found:?}");
}

#[test]
fn a_fault_is_published_on_the_pod_and_once_cured_it_is_signed_also_after_a_restart() {
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    arena.without_webhooks();
    let ns = arena.namespace("cured");
    let node = Node::of(&ns);
    let pod = node.pod("app1", Some("app1-pki"));
    let request = node.ask_for(&pod);
    let found = node.notes("app1", 1);
    let missing = format!(
        "Warning: the volume names Pki app1-pki, which is not found in namespace {}; apply",
        ns.name
    );
    assert!(found[0].starts_with(&missing), "{found:?}");

    ns.apply_pki("app1-pki", r#"{"serviceName": "appp1", "delivery": "Pod"}"#);
    let found = node.notes("app1", 2);
    let sentence = "Warning: ServiceName: appp1 in pki: app1-pki is not found in allowedNames: [app1 app2]; did you mean \"app1\"?";
    assert!(found.iter().any(|note| note == sentence), "{found:?}");

    operator.stop().unwrap();
    for_pods(&ns, "app1-pki");
    arena.restore_release().unwrap();
    let operator = arena.first_replica("operator-2", &[]).unwrap();
    node.is_issued(&request);

    // Faults of before a restart are not known, so the next one shows the end.
    let waits = node.pod("second", Some("second-pki"));
    let request = node.ask_for(&waits);
    node.notes("second", 1);
    for_pods(&ns, "second-pki");
    node.is_issued(&request);
    let found = node.notes("second", 2);
    assert!(
        found
            .iter()
            .any(|note| note.starts_with("Normal: the certificate of the pod is signed")),
        "{found:?}"
    );
    operator.stop().unwrap();
}

#[test]
fn what_nothing_cures_is_denied_with_the_remedy() {
    let ns = SHARED.namespace("denied");
    let node = Node::of(&ns);
    for_pods(&ns, "app1-pki");
    let p256 = || key(&rcgen::PKCS_ECDSA_P256_SHA256);
    let pod = |name| node.pod(name, Some("app1-pki"));
    let changed = |name, key: &KeyPair, change: &dyn Fn(&mut Value)| {
        let mut request = node.request(&pod(name), key);
        change(&mut request["spec"]);
        request
    };
    for (request, reason, message) in [
        (
            changed("a", &key(&rcgen::PKCS_ECDSA_P521_SHA512), &|_| {}),
            "UnsupportedKeyType",
            "the signer does not take such a key: write one of these as keyType",
        ),
        (
            changed("b", &p256(), &|spec| {
                spec["unverifiedUserAnnotations"]["example.com/x"] = json!("y");
            }),
            "InvalidUnverifiedUserAnnotations",
            "example.com/x is no key that the signer knows",
        ),
        (
            changed("c", &p256(), &|spec| {
                spec["unverifiedUserAnnotations"]["box.com/pki"] = json!("other");
            }),
            "PodMismatch",
            "pod c mounts no certificate of it",
        ),
        (
            changed("d", &key(&rcgen::PKCS_ED25519), &|_| {}),
            "PodMismatch",
            "pod d mounts no certificate of it",
        ),
        (
            changed("e", &p256(), &|spec| {
                spec["maxExpirationSeconds"] = json!(7_862_400);
            }),
            "PodMismatch",
            "pod e mounts no certificate of it",
        ),
        (
            changed("f", &p256(), &|spec| spec["podUID"] = json!("1234")),
            "PodMismatch",
            "there is no pod f with the UID 1234",
        ),
        (
            changed("g", &p256(), &|spec| spec["nodeUID"] = json!("1234")),
            "PodMismatch",
            "there is no node node-1 with the UID 1234",
        ),
        (
            changed("h", &p256(), &|spec| {
                spec["serviceAccountUID"] = json!("1234");
            }),
            "PodMismatch",
            "there is no service account default with the UID 1234",
        ),
    ] {
        let (condition, status) = node.end(&node.ask(&request));
        assert_eq!(
            (&condition["type"], &condition["reason"]),
            (&json!("Denied"), &json!(reason)),
            "{condition}"
        );
        let found = condition["message"].as_str().unwrap();
        assert!(found.starts_with(message), "{found}");
        assert_eq!(status["certificateChain"], Value::Null);
    }
}

#[test]
fn nobody_but_the_node_of_the_pod_may_ask() {
    let ns = SHARED.namespace("strangers");
    let node = Node::of(&ns);
    for_pods(&ns, "app1-pki");
    let pod = node.pod("app1", Some("app1-pki"));
    let request = node.request(&pod, &key(&rcgen::PKCS_ECDSA_P256_SHA256));
    let kubeconfig = ns.installed.cluster.kubeconfig();
    let says =
        "only the kubelet of the pod's node may ask the signer box.com/pki for a pod certificate";
    for (user, groups) in [
        ("kubernetes-admin", &["system:masters"][..]),
        ("system:node:other", &["system:nodes", "system:masters"]),
        ("system:node:node-1", &["system:masters"]),
    ] {
        let stranger = Api::acting_as(kubeconfig, user, groups).unwrap();
        let refused = stranger.create(&ns.name, &request).unwrap_err().to_string();
        assert!(refused.contains(says), "{user}: {refused}");
    }
}

#[test]
fn a_pki_of_another_namespace_is_as_if_it_were_not_there() {
    let (ns, victim) = (SHARED.namespace("thief"), SHARED.namespace("victim"));
    for_pods(&victim, "victims-pki");
    let node = Node::of(&ns);
    node.ask_for(&node.pod("app1", Some("victims-pki")));
    let found = node.notes("app1", 1);
    let start = format!(
        "Warning: the volume names Pki victims-pki, which is not found in namespace {}; apply",
        ns.name
    );
    assert!(found[0].starts_with(&start), "{found:?}");
}

#[test]
fn a_pki_that_is_delivered_to_pods_keeps_its_secret_until_no_pod_uses_it() {
    let ns = SHARED.namespace("moves");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("app1-pki");
    ns.pod_with("old", "app1-pki");
    for_pods(&ns, "app1-pki");
    eventually("the Secret is a former one", || {
        let pki = ns.get("pki", "app1-pki")?;
        (pki["status"]["formerSecrets"][0]["name"] == "app1-pki").then_some(())
    });
    ns.barrier();
    assert!(ns.get("secret", "app1-pki").is_some());
    ns.delete("pod", "old");
    eventually("the Secret is removed", || {
        ns.get("secret", "app1-pki").is_none().then_some(())
    });
    let pki = ns.get("pki", "app1-pki").unwrap();
    assert_eq!(pki["status"]["serialNumber"], Value::Null);
    ns.apply_pki(
        "app1-pki",
        r#"{"serviceName": "app1", "delivery": "Secret"}"#,
    );
    eventually("there is a Secret again", || ns.get("secret", "app1-pki"));
}

#[test]
fn fields_about_a_secret_are_refused_beside_delivery_to_pods() {
    let ns = SHARED.namespace("fields");
    for (field, message) in [
        (
            r#""secretName": "tls""#,
            "spec.delivery: Invalid value: secretName, secretTemplate and outputs have no effect",
        ),
        (
            r#""outputs": {"derKey": true}"#,
            "spec.delivery: Invalid value: secretName, secretTemplate and outputs have no effect",
        ),
        (
            r#""privateKey": {"size": 384}"#,
            "spec.privateKey: Invalid value: privateKey has no effect with delivery: Pod",
        ),
    ] {
        let spec = format!(r#"{{"serviceName": "app1", "delivery": "Pod", {field}}}"#);
        let refused = ns.try_apply_pki("app1-pki", &spec).unwrap_err();
        assert!(refused.contains(message), "{refused}");
    }
}

#[test]
fn the_end_of_pod_certificates_is_recorded_before_the_first_is_signed() {
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("recorded");
    let node = Node::of(&ns);
    for_pods(&ns, "app1-pki");
    let status = node.is_issued(&node.ask_for(&node.pod("app1", Some("app1-pki"))));
    let recorded = recorded_end(&arena);
    let end = status["notAfter"].as_str().unwrap();
    assert!(recorded.as_str() >= end, "{recorded} {end}");
    // The next one needs no other record.
    node.is_issued(&node.ask_for(&node.pod("second", Some("app1-pki"))));
    assert_eq!(recorded_end(&arena), recorded);
    operator.stop().unwrap();
}

fn recorded_end(arena: &Installed) -> String {
    let map = arena
        .api
        .get("configmap", RELEASE, "pki-operator-ca")
        .unwrap()
        .unwrap();
    map["data"]["pod-certificates-until"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn an_installation_without_secrets_serves_pods_alone() {
    let arena = arena();
    arena.install_with(&["secrets=false"]).unwrap();
    let operator = arena
        .first_replica("operator-1", &["--secrets=false"])
        .unwrap();
    let ns = arena.namespace("secretless");
    let refused = ns
        .try_apply_pki("app1-pki", r#"{"serviceName": "app1"}"#)
        .unwrap_err();
    assert!(
        refused.contains("spec.delivery: this installation writes no Secrets: write delivery: Pod"),
        "{refused}"
    );
    let node = Node::of(&ns);
    for_pods(&ns, "app1-pki");
    node.is_issued(&node.ask_for(&node.pod("app1", Some("app1-pki"))));
    for verb in ["get", "list", "create", "delete"] {
        let action = json!({"verb": verb, "resource": "secrets", "namespace": ns.name});
        assert!(!arena.operator_may(&action), "{verb}");
    }
    operator.stop().unwrap();
    arena.install().unwrap();
}
