//! The webhook is trusted at every moment, whatever becomes of its CA.

use crate::ca::rotation::intermediate;
use crate::harness::{Installed, arena, eventually, file, openssl};
use pki_cluster::install::{Operator, RELEASE};
use pki_cluster::testing::manifest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

pub(crate) const SECRET: [&str; 3] = [
    "secret",
    "pki-operator-webhook-ca",
    "--namespace=pki-operator",
];
const CA: &str = SECRET[1];
pub(crate) const CONFIGURATIONS: &str = "validatingwebhookconfiguration";
/// Long enough for both replicas to serve from the new CA on a slow machine: they do so after the
/// propagation time of 5 s. Short enough for a test to see the old CA withdrawn.
pub(crate) const OVERLAP: &str = "--webhook-ca-overlap-seconds=15";
/// The overlap where the test delays the publication of the new CA.
const LONG_OVERLAP: &str = "--webhook-ca-overlap-seconds=20";
/// The pause between two rounds of requests, which leaves the processor to the programs under test.
const PAUSE: Duration = Duration::from_millis(20);
/// Pkis that are asked about before the load begins, so that both replicas answer some.
const PROBES: usize = 20;

#[test]
fn while_the_webhooks_ca_is_replaced_no_request_fails() {
    let arena = arena();
    let pair = Pair::start(&arena);
    let old = pair.ca();
    pair.under_load(|| {
        rotate(&arena);
        let new = pair.expect_replacement_of(&old);
        assert!(!pair.serve_from(&old) && pair.serve_from(&new));
        let annotations = &pair.secret()["metadata"]["annotations"];
        assert!(annotations["box.com/rotate-now"].is_null(), "{annotations}");
    });
}

#[test]
fn a_webhook_ca_that_is_deleted_damaged_or_replaced_makes_no_request_fail() {
    let arena = arena();
    let pair = Pair::start(&arena);
    let before = pair.secret()["data"].clone();
    let old = pair.ca();
    let expect_as_before = || {
        eventually("the Secret is as it was", || {
            (pair.secret()["data"] == before).then_some(())
        });
        assert!(pair.carry(&old));
        assert!(pair.serve_from(&old));
    };
    pair.under_load(|| {
        let delete = || arena.api.delete("secret", RELEASE, CA).unwrap();
        delete();
        expect_as_before();

        for damage in [
            json!({"tls.crt": "bm9uZQ=="}),
            json!({"tls.key": "bm9uZQ==", "previous.crt": "bm9uZQ=="}),
        ] {
            pair.patch_secret(&json!({ "data": damage }));
            expect_as_before();
        }

        // Not one that the operator made: it is left alone, until somebody deletes it.
        let strange = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": CA}, "stringData": {"tls.crt": "none", "tls.key": "none"}});
        arena.api.replace(RELEASE, &strange).unwrap();
        eventually("both say so", || {
            let says = |replica: &Operator| {
                let log = replica.process.log();
                log.contains("Secret pki-operator/pki-operator-webhook-ca holds no usable CA")
            };
            pair.replicas.iter().all(says).then_some(())
        });
        arena.barrier();
        assert_eq!(file(&pair.secret(), "tls.crt"), "none");
        assert!(pair.carry(&old));
        assert!(pair.are_ready() && pair.serve_from(&old));
        delete();
        expect_as_before();

        let [certificate, key, root] = intermediate(&arena.cluster.dir().join("webhook"));
        let files = json!({"tls.crt": certificate, "tls.key": key, "ca.crt": root});
        pair.patch_secret(&json!({ "stringData": files }));
        assert_eq!(pair.expect_replacement_of(&old), certificate);
        let before = pair.secret()["data"].clone();
        delete();
        eventually("that one is restored too", || {
            (pair.secret()["data"] == before).then_some(())
        });
        eventually("it alone is trusted", || {
            pair.carry(&certificate).then_some(())
        });

        pair.patch_secret(&json!({"data": {"tls.key": "bm9uZQ=="}}));
        eventually("from now on the operator repairs it", || {
            (pair.secret()["data"] == before).then_some(())
        });
    });
}

#[test]
fn what_the_api_server_does_not_know_is_not_served() {
    let arena = arena();
    let pair = Pair::start_with(&arena, &[LONG_OVERLAP]);
    let old = pair.ca();
    let role = arena.api.get("clusterrole", "", "pki-operator");
    let role = role.unwrap().unwrap();
    let permit = |verbs: &Value| {
        let mut rules = role["rules"].clone();
        let mut theirs = rules.as_array_mut().unwrap().iter_mut();
        let ours = theirs.find(|rule| rule["apiGroups"][0] == "admissionregistration.k8s.io");
        ours.unwrap()["verbs"] = verbs.clone();
        let change = json!({ "rules": rules });
        let changed = arena.api.merge("clusterrole", "", "pki-operator", &change);
        changed.unwrap();
    };
    pair.under_load(|| {
        permit(&json!(["get", "list", "watch"]));
        let patch = json!({"verb": "patch", "group": "admissionregistration.k8s.io",
            "resource": "validatingwebhookconfigurations", "name": "pki-operator"});
        eventually("it may not write a caBundle", || {
            (!arena.operator_may(&patch)).then_some(())
        });
        rotate(&arena);
        eventually("there is another CA", || (pair.ca() != old).then_some(()));
        eventually("both try to publish it", || {
            let tries = |replica: &Operator| {
                let log = replica.process.log();
                log.contains("failed to reconcile the webhook's CA") && log.contains("cannot patch")
            };
            pair.replicas.iter().all(tries).then_some(())
        });
        // Each replica tries again every 2 s.
        thread::sleep(Duration::from_millis(2500));
        assert!(pair.are_ready() && pair.serve_from(&old));
        permit(&json!(["get", "list", "watch", "patch"]));
        pair.expect_replacement_of(&old);

        permit(&json!(["list", "watch", "patch"]));
        eventually("neither knows for long whether it is trusted", || {
            let says = |replica: &Operator| {
                let (status, body) = replica.get("/readyz").unwrap();
                status == 503 && body.contains("is not known") && body.contains("cannot get")
            };
            pair.replicas.iter().all(says).then_some(())
        });
        permit(&json!(["get", "list", "watch", "patch"]));
        eventually("both are ready again", || pair.are_ready().then_some(()));
    });
}

#[test]
fn a_webhook_ca_that_was_damaged_while_no_replica_ran_is_made_again() {
    let arena = arena();
    let pair = Pair::start(&arena);
    let old = pair.ca();
    let Pair {
        relay, replicas, ..
    } = pair;
    for replica in &replicas {
        replica.process.kill().unwrap();
    }
    drop(relay);
    change(&arena, &json!({"data": {"tls.key": "bm9uZQ=="}}));

    let pair = Pair::start(&arena);
    let new = pair.ca();
    assert_ne!(new, old);
    assert!(pair.carry(&new));
    assert!(pair.is_admitted(PROBES).is_ok());
}

#[test]
fn a_webhook_ca_that_is_of_no_use_keeps_no_certificate_from_being_issued_and_is_not_taken_over() {
    let arena = arena();
    let first = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("useless");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("app1-pki");
    first.process.kill().unwrap();

    let [certificate, key] = constrained(&arena.cluster.dir().join("constrained"));
    let files = json!({"stringData": {"tls.crt": certificate, "tls.key": key}});
    change(&arena, &files);
    ns.delete("secret", "app1-pki");
    let second = thread::scope(|scope| {
        let second = scope.spawn(|| arena.first_replica("operator-1", &[]).unwrap());
        eventually("it issues", || ns.get("secret", "app1-pki").map(drop));
        assert!(!second.is_finished(), "it must not be ready");
        rotate(&arena);
        second.join().unwrap()
    });
    let ca = || file(&stored(&arena), "tls.crt");
    let made = ca();
    assert_ne!(made, certificate);

    change(&arena, &files);
    eventually("it says that it does not take it over", || {
        let log = second.process.log();
        let says = "holds a CA that the webhook cannot use";
        log.contains(&format!("{says}: cannot make the serving certificate"))
            .then_some(())
    });
    arena.barrier();
    assert_eq!(ca(), certificate);
    assert!(handshake(second.webhook, &made).is_ok());
    assert!(matches!(second.get("/readyz"), Ok((200, _))));
    arena.api.delete("secret", RELEASE, CA).unwrap();
    eventually("its own is there again", || (ca() == made).then_some(()));
}

#[test]
fn a_replica_is_not_ready_while_the_api_server_would_not_trust_it() {
    let arena = arena();
    let pair = Pair::start(&arena);
    let call = |index, host: &str| {
        let url = format!("https://{host}:{}/validate", arena.webhook.port());
        arena.set_webhook_urls([(index, url)]);
    };
    for (index, webhook) in [
        (1, "validate.pkipolicies.box.com"),
        (0, "validate.pkis.box.com"),
    ] {
        call(index, "localhost");
        let expected = format!(
            "not ready: webhook {webhook} of ValidatingWebhookConfiguration pki-operator: the API server calls localhost, but the serving certificate \
             is not for that name; give the name as --webhook-host\n"
        );
        eventually(&expected, || {
            let said = pair.replicas.each_ref().map(|it| it.get("/readyz").ok());
            let expected = Some((503, expected.clone()));
            (said == [expected.clone(), expected]).then_some(())
        });
        call(index, "127.0.0.1");
        eventually("both are ready again", || pair.are_ready().then_some(()));
    }
    // The paths without a secret, which were written above, are not left there.
    eventually("the secret path is put back", || {
        let configurations = arena.api.list(CONFIGURATIONS, "", "", "").ok()?;
        let webhooks = configurations
            .iter()
            .filter_map(|it| it["webhooks"].as_array());
        let mut urls = webhooks
            .flatten()
            .map(|it| it["clientConfig"]["url"].as_str());
        urls.all(|url| url.is_some_and(|url| url.split('/').any(|part| part.len() == 64)))
            .then_some(())
    });
    let (_, page) = pair.replicas[0].get("/metrics").unwrap();
    for role in ["ca", "serving"] {
        let line = format!("pki_operator_webhook_expiry_timestamp_seconds{{role=\"{role}\"}} ");
        assert!(page.contains(&line), "{line} is not in\n{page}");
    }
}

/// Two replicas behind the address that the API server asks.
pub(crate) struct Pair<'a> {
    arena: &'a Installed,
    pub(crate) replicas: [Operator; 2],
    relay: Relay,
}

impl<'a> Pair<'a> {
    fn start(arena: &'a Installed) -> Self {
        Self::start_with(arena, &[OVERLAP])
    }

    /// Starts both with these flags.
    pub(crate) fn start_with(arena: &'a Installed, flags: &[&str]) -> Self {
        let replicas = ["operator-1", "operator-2"].map(|name| arena.replica(name, flags).unwrap());
        let relay = Relay::start(arena.webhook, replicas.each_ref().map(|it| it.webhook));
        let pair = Self {
            arena,
            replicas,
            relay,
        };
        // The policies may have come a moment ago.
        eventually("both answer", || pair.is_admitted(PROBES).ok());
        pair
    }

    pub(crate) fn secret(&self) -> Value {
        stored(self.arena)
    }

    fn patch_secret(&self, patch: &Value) {
        change(self.arena, patch);
    }

    /// The certificate of the CA that the Secret holds.
    pub(crate) fn ca(&self) -> String {
        file(&self.secret(), "tls.crt")
    }

    /// Whether every webhook has this bundle and no other.
    fn carry(&self, bundle: &str) -> bool {
        self.bundles().iter().all(|known| known == bundle)
    }

    /// Whom the API server trusts, webhook by webhook.
    fn bundles(&self) -> Vec<String> {
        let ours = self.arena.api.get(CONFIGURATIONS, "", "pki-operator");
        let ours = ours.unwrap().unwrap();
        let bundles = ours["webhooks"].as_array().unwrap().iter().map(|webhook| {
            let bundle = json!({"data": {"caBundle": webhook["clientConfig"]["caBundle"]}});
            file(&bundle, "caBundle")
        });
        let bundles: Vec<_> = bundles.collect();
        assert!(bundles.len() > 1, "the chart has several webhooks");
        bundles
    }

    pub(crate) fn are_ready(&self) -> bool {
        let is_ready = |replica: &Operator| matches!(replica.get("/readyz"), Ok((200, _)));
        self.replicas.iter().all(is_ready)
    }

    /// Whether both have a leaf of this CA.
    fn serve_from(&self, ca: &str) -> bool {
        let mut replicas = self.replicas.iter();
        replicas.all(|replica| handshake(replica.webhook, ca).is_ok())
    }

    /// Waits until everybody has left this CA, step by step; returns the one that took its place.
    pub(crate) fn expect_replacement_of(&self, old: &str) -> String {
        let new = eventually("there is another CA", || {
            Some(self.ca()).filter(|new| !new.is_empty() && new != old)
        });
        let both = format!("{new}{old}");
        eventually("both are trusted", || self.carry(&both).then_some(()));
        assert_eq!(file(&self.secret(), "previous.crt"), old);
        eventually("both replicas serve from the new one", || {
            self.serve_from(&new).then_some(())
        });
        eventually("the old one is withdrawn", || {
            self.carry(&new).then_some(())
        });
        assert_eq!(file(&self.secret(), "previous.crt"), "");
        assert!(self.are_ready());
        new
    }

    /// Asks the API server about so many Pkis, each for itself.
    fn is_admitted(&self, pkis: usize) -> Result<usize, String> {
        let pki = manifest::pki("p", &json!({"serviceName": "app1"}));
        for _ in 0..pkis {
            let asked = self.arena.api.dry_run("default", &pki);
            asked.map_err(|error| format!("{error:#}"))?;
        }
        Ok(pkis)
    }

    /// Whether both replicas are who each webhook configuration says.
    fn is_trusted(&self) -> Result<usize, String> {
        let bundles = self.bundles();
        // A handshake with one of equal bundles answers for all of them.
        let distinct = BTreeSet::from_iter(&bundles);
        for replica in &self.replicas {
            for bundle in &distinct {
                let shaken = handshake(replica.webhook, bundle);
                // What was trusted when this began may be withdrawn before it ends.
                if let Err(error) = shaken
                    && self.bundles() == bundles
                {
                    return Err(format!("{error} with {bundle}"));
                }
            }
        }
        Ok(distinct.len() * self.replicas.len())
    }

    /// Asks all the time while `disturb` does what it does; nothing may fail.
    pub(crate) fn under_load(&self, disturb: impl FnOnce()) {
        let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
        let ask = |question: &dyn Fn() -> Result<usize, String>| {
            let mut failures = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match question() {
                    Ok(count) => drop(asked.fetch_add(count, Ordering::Relaxed)),
                    Err(failure) => failures.push(failure),
                }
                thread::sleep(PAUSE);
            }
            failures
        };
        thread::scope(|scope| {
            let admissions = scope.spawn(|| ask(&|| self.is_admitted(1)));
            let handshakes = scope.spawn(|| ask(&|| self.is_trusted()));
            // Whatever fails in there, the threads must end.
            let disturbed = catch_unwind(AssertUnwindSafe(disturb));
            stop.store(true, Ordering::Relaxed);
            let failures = [admissions, handshakes].map(|thread| thread.join().unwrap());
            if let Err(panic) = disturbed {
                resume_unwind(panic);
            }
            let asked = asked.load(Ordering::Relaxed);
            println!("{asked} requests and handshakes, failed: {failures:?}");
            assert_eq!(failures.concat(), Vec::<String>::new());
            assert!(asked > 100, "{asked}");
        });
    }
}

/// The Secret of the webhook's CA, or one without files if it is not there.
fn stored(arena: &Installed) -> Value {
    let secret = arena.api.get("secret", RELEASE, CA).unwrap();
    secret.unwrap_or(json!({"data": {}}))
}

/// Changes that Secret by a merge patch.
fn change(arena: &Installed, change: &Value) {
    arena.api.merge("secret", RELEASE, CA, change).unwrap();
}

/// Asks for another CA of the webhook.
fn rotate(arena: &Installed) {
    let annotated = arena
        .api
        .annotate("secret", RELEASE, CA, "box.com/rotate-now", Some(""));
    annotated.unwrap();
}

/// Certificate and key of a CA that may not sign for the address of the webhook.
fn constrained(dir: &Path) -> [String; 2] {
    std::fs::create_dir_all(dir).unwrap();
    let [certificate, key] = ["ca.crt", "ca.key"].map(|name| dir.join(name));
    let [crt, pem] = [&certificate, &key].map(|file| file.to_str().unwrap());
    let request = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=Constrained",
        "-days",
        "100",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
        "-addext",
        "nameConstraints=critical,excluded;IP:127.0.0.0/255.0.0.0",
        "-keyout",
        pem,
        "-out",
        crt,
    ];
    openssl(&request, "");
    [certificate, key].map(|file| std::fs::read_to_string(file).unwrap())
}

/// A TLS handshake with a replica by a client that trusts these certificates alone.
fn handshake(replica: SocketAddr, trusted: &str) -> anyhow::Result<()> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
        roots.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = IpAddr::from([127, 0, 0, 1]).into();
    let mut client = ClientConnection::new(Arc::new(config), name)?;
    let mut stream = TcpStream::connect(replica)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    while client.is_handshaking() {
        client.complete_io(&mut stream)?;
    }
    Ok(())
}

/// Hands the connections to one address to others in turn, as a Service does.
struct Relay {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Relay {
    fn start(address: SocketAddr, targets: [SocketAddr; 2]) -> Self {
        let listener = TcpListener::bind(address).expect("no replica listens there");
        let is_over = Arc::new(AtomicBool::new(false));
        let end = is_over.clone();
        thread::spawn(move || {
            for (client, target) in listener.incoming().zip(targets.into_iter().cycle()) {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(target)) else {
                    continue;
                };
                for (mut from, mut to) in [
                    (client.try_clone().unwrap(), server.try_clone().unwrap()),
                    (server, client),
                ] {
                    thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Self { address, is_over }
    }
}

impl Drop for Relay {
    /// Frees the address for who comes next.
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}
