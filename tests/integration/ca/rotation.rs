//! The CA is replaced without stranding anybody, and lost without being replaced.

use crate::harness::{Installed, Namespace, arena, eventually, file, notes};
use pki_cluster::install::{Operator, RELEASE};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::Duration;

mod blocked;

const CA: &str = "pki-operator-ca";
/// How long each step of a rotation takes at least. A client that reloads within that time trusts
/// every certificate.
const STEP: &str = "--ca-step-seconds=6";
const RELOAD: Duration = Duration::from_secs(2);

#[test]
fn during_a_rotation_of_the_ca_no_handshake_fails() {
    let arena = arena();
    arena.forget_cas();
    let _operator = arena.first_replica("operator-1", &[STEP]).unwrap();
    let ns = arena.namespace("rotation");
    for name in ["server", "client"] {
        ns.apply_pki(name, r#"{"serviceName": "app1"}"#);
    }
    let before = [ns.wait_until_ready("server"), ns.wait_until_ready("client")];
    shaking_hands(&ns, || rotate(&arena, &ns));
    for (name, before) in ["server", "client"].into_iter().zip(before) {
        expect_replaced(&ns, name, &before);
    }
}

/// Does this while `server` and `client`, who reload what they mount, shake hands all the time; no
/// handshake may fail.
fn shaking_hands(ns: &Namespace<'_>, work: impl FnOnce()) {
    let (server, client) = (Peer::new(ns, "server"), Peer::new(ns, "client"));
    let (stop, handshakes) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for peer in [&server, &client] {
            scope.spawn(|| peer.reload_until(&stop));
        }
        let shakes = scope.spawn(|| {
            let mut failures = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match handshake(&server, &client, &format!("app1.{}.svc", ns.name)) {
                    Ok(()) => drop(handshakes.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => failures.push(error.to_string()),
                }
                thread::sleep(Duration::from_millis(5));
            }
            failures
        });
        // Whatever fails in here, the threads must end.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        thread::sleep(2 * RELOAD);
        stop.store(true, Ordering::Relaxed);
        let failures = shakes.join().expect("handshakes end");
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
        println!(
            "{} handshakes during the rotation, {} failed",
            handshakes.load(Ordering::Relaxed),
            failures.len()
        );
        assert_eq!(failures, Vec::<String>::new());
    });
    assert!(handshakes.load(Ordering::Relaxed) > 500);
}

/// The certificate is another one, of another CA, beside other roots.
fn expect_replaced(ns: &Namespace<'_>, name: &str, before: &Value) {
    let now = ns.wait_until_ready(name);
    for field in ["serialNumber", "issuerFingerprint", "trustFingerprint"] {
        assert_ne!(
            now["status"][field], before["status"][field],
            "{name}: {field}"
        );
    }
}

/// Asks for another CA, and waits until the one before is withdrawn. Every step is seen.
fn rotate(arena: &Installed, ns: &Namespace<'_>) {
    let old = ledger(arena)["ca.crt"].clone();
    annotate(arena, "box.com/rotate-now", "1");
    let next = eventually("the next CA is published", || {
        ledger(arena)["next.crt"].as_str().map(str::to_owned)
    });
    eventually("every ca.crt holds both", || {
        let secrets = ["server", "client"].map(|name| ns.get("secret", name));
        secrets
            .into_iter()
            .all(|secret| certificates(&file(&secret.unwrap(), "ca.crt")) == 2)
            .then_some(())
    });
    eventually("it signs", || {
        (ledger(arena)["current.crt"] == next).then_some(())
    });
    eventually("the one before is withdrawn", || {
        let ledger = ledger(arena);
        (ledger["previous.crt"].is_null() && ledger["ca.crt"] == next).then_some(())
    });
    assert_ne!(old, next.as_str());
    let secret = secret(arena);
    eventually("it lies in its place", || {
        let data = &self::secret(arena)["data"];
        (data["next.crt"].is_null() && data["next.key"].is_null()).then_some(())
    });
    let kept = retired_keys(&secret);
    assert_eq!(kept.len(), 1, "the key of the one before is kept: {kept:?}");
    assert_eq!(
        secret["metadata"]["annotations"]["box.com/rotate-now"],
        Value::Null
    );
    eventually("every ca.crt holds the new one alone", || {
        let secrets = ["server", "client"].map(|name| ns.get("secret", name));
        secrets
            .into_iter()
            .all(|secret| file(&secret.unwrap(), "ca.crt") == next)
            .then_some(())
    });
}

#[test]
fn a_ca_that_is_deleted_raises_an_alarm_and_is_not_replaced() {
    let arena = arena();
    arena.forget_cas();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("lost");
    ns.apply_pki("before", r#"{"serviceName": "app1"}"#);
    let before = ns.wait_until_ready("before");
    let backup = secret(&arena);
    arena.api.delete("secret", RELEASE, CA).unwrap();
    wait_for_alarm(&operator, "lost");

    ns.pod_with("app1", "after");
    ns.apply_pki("after", r#"{"serviceName": "app1"}"#);
    let said = ns.wait_until_refused("after", "PkiCaUnavailable");
    let fingerprint = before["status"]["issuerFingerprint"].as_str().unwrap();
    let sentence = format!(
        "Secret pki-operator/pki-operator-ca with the CA {fingerprint} is gone: restore it from a backup; or, to begin \
         with a new CA that no client trusts yet, delete ConfigMap pki-operator/pki-operator-ca too"
    );
    assert_eq!(
        said,
        format!(
            "Secret after of Pki {}/after gets no new certificate until the platform team has repaired the CA: {sentence}",
            ns.name
        )
    );
    eventually("the pod hears it", || {
        let published = notes(&ns.events("Pod", "app1"));
        published
            .contains(&format!("Warning: {said}"))
            .then_some(())
    });
    eventually("the platform team hears it", || {
        let events = arena.api.list("events", RELEASE, "", "").ok()?;
        let mut reasons = events.iter().map(|event| &event["reason"]);
        reasons
            .any(|reason| reason == "CaUnavailable")
            .then_some(())
    });

    operator.stop().unwrap();
    let operator = arena.first_replica("operator-2", &[]).unwrap();
    wait_for_alarm(&operator, "lost");
    // No later Pki can show that the operator has settled: without a CA none becomes ready.
    thread::sleep(Duration::from_secs(2));
    let ca = arena.api.get("secret", RELEASE, CA).unwrap();
    assert_eq!(ca, None, "no new CA");
    assert_eq!(
        ns.ready_field("before", "status"),
        "True",
        "a valid Secret stays ready"
    );

    restore(&arena, &backup);
    ns.wait_until_ready("after");
    assert_eq!(ns.get("pki", "before").unwrap()["status"], before["status"]);
    let page = operator.get("/metrics").unwrap().1;
    assert!(!page.contains("pki_operator_ca_alarm{"), "{page}");
}

#[test]
fn a_ca_that_is_corrupt_or_a_strangers_signs_nothing() {
    let arena = arena();
    arena.forget_cas();
    let operator = arena.first_replica("operator-1", &[STEP]).unwrap();
    let ns = arena.namespace("stranger");
    ns.apply_pki("before", r#"{"serviceName": "app1"}"#);
    let before = ns.wait_until_ready("before");
    let backup = secret(&arena);

    patch(&arena, &json!({"stringData": {"tls.key": "garbage"}}));
    wait_for_alarm(&operator, "unusable");
    ns.apply_pki("after", r#"{"serviceName": "app1"}"#);
    let said = ns.wait_until_refused("after", "PkiCaUnavailable");
    assert!(said.contains("holds no usable CA in tls.crt: "), "{said}");
    patch(&arena, &json!({"data": backup["data"]}));
    ns.wait_until_ready("after");

    let now = jiff::Timestamp::now();
    let lifetime = jiff::SignedDuration::from_hours(1000);
    let stranger = pki_certs::Authority::generate("Stranger", lifetime, now).unwrap();
    let files = json!({"tls.crt": stranger.ca().root_pem(), "tls.key": stranger.private_key_pem().as_str()});
    patch(&arena, &json!({"stringData": files}));
    wait_for_alarm(&operator, "replaced");
    ns.apply_pki("stranger", r#"{"serviceName": "app2"}"#);
    let said = ns.wait_until_refused("stranger", "PkiCaUnavailable");
    let fingerprint = stranger.ca().fingerprint();
    let end = format!("annotate it with box.com/accept-ca={fingerprint}");
    assert!(said.ends_with(&end), "{said}");
    assert_eq!(ns.get("pki", "before").unwrap()["status"], before["status"]);

    annotate(&arena, "box.com/accept-ca", fingerprint);
    let issued = ns.wait_until_ready("stranger");
    assert_eq!(issued["status"]["issuerFingerprint"], fingerprint);
    let bundle = file(&ns.get("secret", "stranger").unwrap(), "ca.crt");
    assert_eq!(certificates(&bundle), 2, "old servers are trusted still");
    eventually("the others follow", || {
        let status = ns.get("pki", "before")?["status"].clone();
        (status["issuerFingerprint"] == fingerprint).then_some(())
    });
}

#[test]
fn the_platform_team_brings_an_intermediate_and_the_chain_is_served() {
    let arena = arena();
    arena.forget_cas();
    let operator = arena.first_replica("operator-1", &["--ca=bring"]).unwrap();
    wait_for_alarm(&operator, "missing");
    let ns = arena.namespace("brought");
    ns.apply_pki(
        "app1-pki",
        r#"{"serviceName": "app1", "duration": "2160h"}"#,
    );
    let said = ns.wait_until_refused("app1-pki", "PkiCaUnavailable");
    assert!(
        said.contains("there is no Secret pki-operator/pki-operator-ca: create it"),
        "{said}"
    );

    let dir = arena.cluster.dir().join("brought");
    let [certificate, key, root] = intermediate(&dir);
    restore(
        &arena,
        &json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": CA, "namespace": "pki-operator"},
            "stringData": {"tls.crt": certificate, "tls.key": key, "ca.crt": root}}),
    );
    let pki = ns.wait_until_ready("app1-pki");
    let secret = ns.get("secret", "app1-pki").unwrap();
    assert_eq!(
        certificates(&file(&secret, "tls.crt")),
        2,
        "leaf and intermediate"
    );
    assert_eq!(file(&secret, "ca.crt").trim(), root.trim());
    let message = pki["status"]["conditions"][0]["message"].as_str().unwrap();
    let cut = ", when the CA ends, which is earlier than spec.duration asks for";
    assert!(message.ends_with(cut), "{message}");
    std::fs::write(dir.join("leaf.crt"), file(&secret, "tls.crt")).unwrap();
    let host = format!("app1.{}.svc", ns.name);
    let verified = std::process::Command::new("openssl")
        .args([
            "verify",
            "-x509_strict",
            "-CAfile",
            "root.crt",
            "-untrusted",
            "leaf.crt",
        ])
        .args([
            "-purpose",
            "sslserver",
            "-verify_hostname",
            &host,
            "leaf.crt",
        ])
        .current_dir(&dir)
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

/// A CA below a root, as openssl makes it in this folder: its certificate, its key, and the root.
pub(crate) fn intermediate(dir: &Path) -> [String; 3] {
    std::fs::create_dir_all(dir).unwrap();
    let script = r"set -e
        root='-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign'
        openssl req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.crt -subj /CN=Root -days 100 $root
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -keyout ca.key -out ca.csr -subj /CN=Issuing
        printf 'basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n' > ca.ext
        printf 'subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n' >> ca.ext
        openssl x509 -req -in ca.csr -CA root.crt -CAkey root.key -days 30 -extfile ca.ext -out ca.crt";
    let made = std::process::Command::new("bash")
        .args(["-c", script])
        .current_dir(dir)
        .output();
    let made = made.unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    ["ca.crt", "ca.key", "root.crt"].map(|name| std::fs::read_to_string(dir.join(name)).unwrap())
}

/// Somebody who mounts a Secret, and reads it again from time to time.
struct Peer<'a> {
    ns: &'a Namespace<'a>,
    secret: &'a str,
    current: RwLock<(Arc<ServerConfig>, Arc<ClientConfig>)>,
}

impl<'a> Peer<'a> {
    fn new(ns: &'a Namespace<'a>, secret: &'a str) -> Self {
        let current = RwLock::new(configs(&ns.get("secret", secret).unwrap()));
        Self {
            ns,
            secret,
            current,
        }
    }

    fn reload_until(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(RELOAD);
            if let Some(secret) = self.ns.get("secret", self.secret) {
                *self.current.write().unwrap() = configs(&secret);
            }
        }
    }
}

/// To serve and to call with what is in the Secret; both sides ask for the other's certificate.
fn configs(secret: &Value) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let pem = |name: &str| file(secret, name).into_bytes();
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem("tls.crt"))
        .map(Result::unwrap)
        .collect();
    let key = || PrivateKeyDer::from_pem_slice(&pem("tls.key")).unwrap();
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&pem("ca.crt")) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = Arc::new(roots);
    let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(chain.clone(), key())
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key())
        .unwrap();
    (Arc::new(server), Arc::new(client))
}

/// A whole handshake, with a certificate on both sides.
fn handshake(server: &Peer<'_>, client: &Peer<'_>, host: &str) -> anyhow::Result<()> {
    let mut serving = ServerConnection::new(server.current.read().unwrap().0.clone())?;
    let name = ServerName::try_from(host.to_owned())?;
    let mut calling = ClientConnection::new(client.current.read().unwrap().1.clone(), name)?;
    while serving.is_handshaking() || calling.is_handshaking() {
        let mut wire = Vec::new();
        while calling.wants_write() {
            calling.write_tls(&mut wire)?;
        }
        let mut read = wire.as_slice();
        while !read.is_empty() {
            serving.read_tls(&mut read)?;
            serving.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while serving.wants_write() {
            serving.write_tls(&mut wire)?;
        }
        let mut read = wire.as_slice();
        while !read.is_empty() {
            calling.read_tls(&mut read)?;
            calling.process_new_packets()?;
        }
    }
    Ok(())
}

fn wait_for_alarm(operator: &Operator, reason: &str) {
    eventually(&format!("the alarm is raised: {reason}"), || {
        let page = operator.get("/metrics").ok()?.1;
        page.contains(&format!("pki_operator_ca_alarm{{reason=\"{reason}\"}} 1"))
            .then_some(())
    });
}

fn certificates(pem: &str) -> usize {
    pem.matches("-----BEGIN CERTIFICATE-----").count()
}

fn secret(arena: &Installed) -> Value {
    let secret = arena.api.get("secret", RELEASE, CA).unwrap();
    secret.expect("there is a CA")
}

/// The names of the keys of the CAs that signed before.
fn retired_keys(secret: &Value) -> Vec<String> {
    let names = secret["data"].as_object().unwrap().keys();
    let is_key = |name: &&String| name.starts_with("retired-") && name.ends_with("key");
    names.filter(is_key).cloned().collect()
}

/// The data of the ConfigMap about the CA.
fn ledger(arena: &Installed) -> Value {
    let map = arena.api.get("configmap", RELEASE, CA).unwrap();
    map.expect("there is a state of the CA")["data"].take()
}

fn patch(arena: &Installed, change: &Value) {
    arena.api.merge("secret", RELEASE, CA, change).unwrap();
}

/// Sets an annotation of the Secret of the CA.
fn annotate(arena: &Installed, key: &str, value: &str) {
    let annotated = arena.api.annotate("secret", RELEASE, CA, key, Some(value));
    annotated.unwrap();
}

/// Creates the Secret of the CA, as from a backup.
fn restore(arena: &Installed, backup: &Value) {
    let mut secret = backup.clone();
    for field in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "managedFields",
    ] {
        secret["metadata"].as_object_mut().unwrap().remove(field);
    }
    arena.api.create(RELEASE, &secret).unwrap();
}
