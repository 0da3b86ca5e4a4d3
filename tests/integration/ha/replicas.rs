//! Several replicas: one issues, all answer, and losing any of them loses nothing.

use crate::admission::webhook::client::Dialer;
use crate::harness::{Installed, Namespace, arena, eventually, file, openssl};
use pki_cluster::Signal;
use pki_cluster::install::{Operator, RELEASE};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};
use webpki::EndEntityCert;

const SPEC: &str = r#"{"serviceName": "app1"}"#;
/// After which a Lease that nobody renews or releases may be taken.
const LEASE_DURATION: Duration = Duration::from_secs(15);

/// Two replicas, and the first leads.
fn pair(arena: &Installed) -> (Operator, Operator) {
    let first = arena.first_replica("operator-1", &[]).unwrap();
    wait_for_leader(arena, "operator-1");
    (first, arena.replica("operator-2", &[]).unwrap())
}

fn wait_for_leader(arena: &Installed, identity: &str) {
    eventually(&format!("{identity} leads"), || {
        arena.leader().filter(|leader| leader == identity).map(drop)
    });
}

#[test]
fn two_replicas_that_start_at_once_make_one_ca_and_one_of_them_issues() {
    let arena = arena();
    arena.forget_cas();
    let before = arena.operator_writes("pki-operator").len();
    let (first, second) = thread::scope(|scope| {
        let second = scope.spawn(|| arena.replica("operator-2", &[]).unwrap());
        (
            arena.first_replica("operator-1", &[]).unwrap(),
            second.join().unwrap(),
        )
    });
    let ns = arena.namespace("both");
    ns.apply_pki("app1-pki", SPEC);
    ns.wait_until_ready("app1-pki");
    let writes = arena.operator_writes("pki-operator").split_off(before);
    let made = writes
        .iter()
        .filter(|write| write.what == "create secrets" && write.code == 201);
    assert_eq!(
        made.count(),
        2,
        "one CA for certificates, one for the webhook: {writes:?}"
    );

    let leading: Vec<_> = [&first, &second]
        .map(|replica| metric(replica, "pki_operator_leader"))
        .into();
    assert_eq!(leading.iter().sum::<u64>(), 1, "{leading:?}");
    let issued = [&first, &second].map(|replica| metric(replica, "pki_operator_issuances_total"));
    assert_eq!(issued.iter().sum::<u64>(), 1, "{issued:?}");
    assert_eq!(issued.as_slice(), leading.as_slice(), "who leads issues");
    for replica in [&first, &second] {
        assert!(is_allowed(&arena, replica.webhook, "app1"));
        assert!(!is_allowed(&arena, replica.webhook, "appp1"));
    }
}

#[test]
fn when_the_leader_is_killed_the_other_takes_over_and_nothing_is_lost_or_doubled() {
    let arena = arena();
    let (first, second) = pair(&arena);
    let ns = arena.namespace("killed");
    arena.without_webhooks();
    apply_many(&ns, 0..20);
    first.process.kill().unwrap();
    apply_many(&ns, 20..40);
    wait_for_leader(&arena, "operator-2");
    expect_one_issuance_each(&ns, 40);
    assert_eq!(metric(&second, "pki_operator_leader"), 1);
}

#[test]
fn a_leader_that_gets_sigterm_hands_over_at_once() {
    let arena = arena();
    let (first, second) = pair(&arena);
    let ns = arena.namespace("handover");
    arena.without_webhooks();
    apply_many(&ns, 0..10);
    let begin = Instant::now();
    first.process.signal(Signal::TERM).unwrap();
    let status = first.process.wait(Duration::from_secs(20)).unwrap();
    assert!(
        status.success(),
        "{status}: {}",
        first.process.last_lines(20)
    );
    wait_for_leader(&arena, "operator-2");
    assert!(
        begin.elapsed() < LEASE_DURATION,
        "it waited until the Lease ran out: {:?}",
        begin.elapsed()
    );
    apply_many(&ns, 10..20);
    expect_one_issuance_each(&ns, 20);
    assert_eq!(metric(&second, "pki_operator_leader"), 1);
}

#[test]
fn a_follower_that_dies_is_not_missed() {
    let arena = arena();
    let (first, second) = pair(&arena);
    let ns = arena.namespace("follower");
    apply_many(&ns, 0..5);
    second.process.kill().unwrap();
    apply_many(&ns, 5..10);
    expect_one_issuance_each(&ns, 10);
    assert_eq!(metric(&first, "pki_operator_leader"), 1);
}

#[test]
fn a_leader_that_slept_writes_nothing_late() {
    let arena = arena();
    let (first, _second) = pair(&arena);
    let ns = arena.namespace("slept");
    arena.without_webhooks();
    apply_many(&ns, 0..30);
    first.process.signal(Signal::STOP).unwrap();
    apply_many(&ns, 30..35);
    wait_for_leader(&arena, "operator-2");
    expect_one_issuance_each(&ns, 35);
    first.process.signal(Signal::CONT).unwrap();
    eventually("it notices", || {
        (metric(&first, "pki_operator_leader") == 0).then_some(())
    });
    assert!(first.process.log().contains("no longer leading"));
    // A request that it sent before it noticed may still be under way.
    thread::sleep(Duration::from_secs(1));
    apply_many(&ns, 35..40);
    expect_one_issuance_each(&ns, 40);
    assert_eq!(arena.leader().as_deref(), Some("operator-2"));
}

#[test]
fn a_cabundle_that_is_wiped_is_set_again() {
    let arena = arena();
    let _operator = arena.first_replica("operator-1", &[]).unwrap();
    let kind = "validatingwebhookconfiguration";

    let bundle = || {
        let configuration = arena.api.get(kind, "", "pki-operator").unwrap().unwrap();
        let bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"].as_str();
        bundle.unwrap_or_default().to_owned()
    };
    let before = bundle();
    assert!(!before.is_empty());
    for change in [
        json!({"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}),
        json!({"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": &before[..before.len() / 8 * 4]}),
    ] {
        // A bundle that is cut short is no PEM, which the API server may refuse to store.
        let patch = arena.api.patch(kind, "", "pki-operator", &json!([change]));
        if patch.is_ok() {
            eventually("the caBundle is back", || {
                (bundle() == before).then_some(())
            });
        }
    }
}

#[test]
fn the_page_of_metrics_counts_what_was_done() {
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("metrics");
    apply_many(&ns, 0..3);
    expect_one_issuance_each(&ns, 3);
    ns.try_apply_pki("typo", r#"{"serviceName": "appp1"}"#)
        .unwrap_err();
    let (status, page) = operator.get("/metrics").unwrap();
    assert_eq!(status, 200);
    // Three, and one of the barrier.
    for line in [
        "pki_operator_build_info{version=\"",
        "pki_operator_admission_requests_total{webhook=\"validate\",verdict=\"allowed\"} 4\n",
        "pki_operator_admission_requests_total{webhook=\"validate\",verdict=\"denied\"} 1\n",
        "pki_operator_issuances_total{reason=\"missing\"} 4\n",
        "pki_operator_issuance_failures_total{reason=\"api\"} 0\n",
        "pki_operator_ca_expiry_timestamp_seconds{role=\"current\"} ",
        "pki_operator_reconcile_errors_total 0\n",
        "pki_operator_reconcile_duration_seconds_count ",
        "pki_operator_leader 1\n",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    assert!(page.ends_with("# EOF\n"));
}

fn apply_many(ns: &Namespace<'_>, numbers: std::ops::Range<usize>) {
    for number in numbers {
        ns.apply_pki(&format!("p{number}"), SPEC);
    }
}

/// Waits until so many Pkis are ready, and none has been issued twice.
pub(crate) fn expect_one_issuance_each(ns: &Namespace<'_>, pkis: usize) {
    eventually(&format!("{pkis} Pkis are ready"), || {
        let list = ns.installed.api.list("pkis", &ns.name, "", "").ok()?;
        let is_ready = |pki: &&Value| pki["status"]["conditions"][0]["status"] == "True";
        (list.iter().filter(is_ready).count() == pkis).then_some(())
    });
    ns.installed.barrier_of_pkis();
    let (mut stored, mut given_up) = (0, 0);
    let writes = ns.operator_writes();
    for (write, count) in &writes {
        match (write.what.as_str(), write.code) {
            // When its client is killed, the API server gives up on a request, and logs an error
            // for a Secret that may be stored all the same.
            ("create secrets", 0 | 499..) => given_up += count,
            ("create secrets", ..300) => stored += count,
            (what, ..300) => assert!(!what.contains(" secrets"), "issued twice: {writes:?}"),
            _ => {}
        }
    }
    assert!(
        stored <= pkis && pkis <= stored + given_up,
        "{pkis} Pkis: {writes:?}"
    );
    expect_status_and_secret_to_agree(ns, pkis);
}

/// Every Secret holds one key and the certificate for it. The status of its Pki has the serial
/// number of that certificate.
fn expect_status_and_secret_to_agree(ns: &Namespace<'_>, pkis: usize) {
    let list = |kind| ns.installed.api.list(kind, &ns.name, "", "").unwrap();
    let (stored, secrets) = (list("pkis"), list("secrets"));
    assert_eq!((stored.len(), secrets.len()), (pkis, pkis));
    let uid = |object: &Value| object["uid"].as_str().map(str::to_owned);
    let owner = |secret: &Value| uid(&secret["metadata"]["ownerReferences"][0]);
    let by_owner: HashMap<_, _> = secrets.iter().map(|it| (owner(it), it)).collect();
    for pki in &stored {
        let secret = by_owner.get(&uid(&pki["metadata"]));
        let secret = secret.expect("every Pki has its Secret");
        let serial = serial_of_matching_pair(&file(secret, "tls.crt"), &file(secret, "tls.key"));
        let published = pki["status"]["serialNumber"].as_str().unwrap();
        assert_eq!(serial, published);
    }
}

/// The serial number of a certificate in hexadecimal, as rustls and webpki read it: thousands of
/// processes of OpenSSL would take half a minute.
///
/// Panics if the key is not that of the certificate.
fn serial_of_matching_pair(certificate: &str, key: &str) -> String {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
    let chain: Vec<_> = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let leaf = EndEntityCert::try_from(&chain[0]).unwrap();
    let serial = leaf.serial().iter().map(|byte| format!("{byte:02X}"));
    let serial: String = serial.collect();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let pair = CertifiedKey::from_der(chain, key, &provider).unwrap();
    pair.keys_match()
        .expect("the key is that of the certificate");
    serial.strip_prefix("00").unwrap_or(&serial).to_owned()
}

fn metric(replica: &Operator, name: &str) -> u64 {
    let (_, page) = replica.get("/metrics").unwrap_or_default();
    let lines = page.lines().filter(|line| line.starts_with(name));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Asks a replica itself, as the API server would: over TLS that chains up to the webhook's CA.
fn is_allowed(arena: &Installed, replica: SocketAddr, service: &str) -> bool {
    let ca = arena.cluster.dir().join("webhook-ca.crt");
    let secret = arena.api.get("secret", RELEASE, "pki-operator-webhook-ca");
    let secret = secret.unwrap().unwrap();
    std::fs::write(&ca, file(&secret, "tls.crt")).unwrap();
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "kind": {"group": "box.com", "version": "v1", "kind": "Pki"},
        "resource": {"group": "box.com", "version": "v1", "resource": "pkis"},
        "name": "app1-pki", "namespace": "app1", "operation": "CREATE", "userInfo": {},
        "object": {"apiVersion": "box.com/v1", "kind": "Pki", "metadata": {"name": "app1-pki", "namespace": "app1"},
            "spec": {"serviceName": service}}
    }});
    let review = review.to_string();
    let path = Dialer::of(arena).at("/validate");
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: operator\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{review}",
        review.len()
    );
    let address = replica.to_string();
    let connect = [
        "s_client",
        "-quiet",
        "-verify_return_error",
        "-verify_ip",
        "127.0.0.1",
        "-CAfile",
        ca.to_str().unwrap(),
        "-connect",
        &address,
    ];
    let answer = openssl(&connect, &request);
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    let body: Value = serde_json::from_str(body).expect("an AdmissionReview");
    body["response"]["allowed"].as_bool().expect("a verdict")
}
