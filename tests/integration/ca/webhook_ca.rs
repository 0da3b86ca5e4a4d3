//! The webhook is trusted at every moment, whatever becomes of its CA.

use crate::ca::rotation::intermediate;
use crate::harness::{Installed, arena, eventually, file, openssl, quiet};
use pki_cluster::install::Operator;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::{Value, json};
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
pub(crate) const CONFIGURATIONS: &str = "validatingwebhookconfiguration";
/// So long that a test on a slow machine sees both CAs trusted, and so short that it sees the old
/// one withdrawn.
pub(crate) const OVERLAP: &str = "--webhook-ca-overlap-seconds=40";

#[test]
fn while_the_webhooks_ca_is_replaced_no_request_fails() {
    let arena = arena();
    let pair = Pair::start(&arena);
    let old = pair.ca();
    pair.under_load(|| {
        let annotate = [&["annotate"], &SECRET[..], &["box.com/rotate-now="]].concat();
        arena.kubectl(&annotate).unwrap();
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
        let delete = [&["delete"], &SECRET[..]].concat();
        arena.kubectl(&delete).unwrap();
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
            "metadata": {"name": SECRET[1]}, "stringData": {"tls.crt": "none", "tls.key": "none"}});
        let replace = ["replace", "--filename=-", SECRET[2]];
        arena.kubectl_with(&strange.to_string(), &replace).unwrap();
        eventually("both say so", || {
            let says = |replica: &Operator| {
                let log = replica.process.log();
                log.contains("Secret pki-operator/pki-operator-webhook-ca holds no usable CA")
            };
            pair.replicas.iter().all(says).then_some(())
        });
        quiet();
        assert_eq!(file(&pair.secret(), "tls.crt"), "none");
        assert!(pair.carry(&old));
        assert!(pair.are_ready() && pair.serve_from(&old));
        arena.kubectl(&delete).unwrap();
        expect_as_before();

        let [certificate, key, root] = intermediate(&arena.cluster.dir().join("webhook"));
        let files = json!({"tls.crt": certificate, "tls.key": key, "ca.crt": root});
        pair.patch_secret(&json!({ "stringData": files }));
        assert_eq!(pair.expect_replacement_of(&old), certificate);
        let before = pair.secret()["data"].clone();
        arena.kubectl(&delete).unwrap();
        eventually("that one is restored too", || {
            (pair.secret()["data"] == before).then_some(())
        });
        eventually("it alone is trusted", || {
            pair.carry(&certificate).then_some(())
        });

        pair.patch_secret(&json!({"data": {"tls.key": "bm9uZQ=="}}));
        eventually("from now on it is the operator's to mend", || {
            (pair.secret()["data"] == before).then_some(())
        });
    });
}

#[test]
fn what_the_api_server_does_not_know_is_not_served() {
    let arena = arena();
    let pair = Pair::start(&arena);
    let old = pair.ca();
    let role = ["get", "clusterrole", "pki-operator", "--output=json"];
    let role: Value = serde_json::from_str(&arena.kubectl(&role).unwrap()).unwrap();
    let permit = |verbs: &Value| {
        let mut rules = role["rules"].clone();
        let mut theirs = rules.as_array_mut().unwrap().iter_mut();
        let ours = theirs.find(|rule| rule["apiGroups"][0] == "admissionregistration.k8s.io");
        ours.unwrap()["verbs"] = verbs.clone();
        let patch = json!({ "rules": rules }).to_string();
        let patch = ["patch", "clusterrole", "pki-operator", "--patch", &patch];
        arena.kubectl(&patch).unwrap();
    };
    pair.under_load(|| {
        permit(&json!(["get", "list", "watch"]));
        let ask = [
            "auth",
            "can-i",
            "patch",
            "validatingwebhookconfigurations/pki-operator",
            "--as=system:serviceaccount:pki-operator:pki-operator",
        ];
        // The answer no is a failure of kubectl's.
        eventually("it may not write a caBundle", || arena.kubectl(&ask).err());
        let annotate = [&["annotate"], &SECRET[..], &["box.com/rotate-now="]].concat();
        arena.kubectl(&annotate).unwrap();
        eventually("there is another CA", || (pair.ca() != old).then_some(()));
        eventually("both try to publish it", || {
            let tries = |replica: &Operator| {
                let log = replica.process.log();
                log.contains("failed to reconcile the webhook's CA") && log.contains("cannot patch")
            };
            pair.replicas.iter().all(tries).then_some(())
        });
        quiet();
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
    let damage = json!({"data": {"tls.key": "bm9uZQ=="}}).to_string();
    let patch = [&["patch"], &SECRET[..], &["--patch", &damage]].concat();
    arena.kubectl(&patch).unwrap();

    let pair = Pair::start(&arena);
    let new = pair.ca();
    assert_ne!(new, old);
    assert!(pair.carry(&new));
    assert!(pair.is_admitted().is_ok());
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
    let files = json!({"stringData": {"tls.crt": certificate, "tls.key": key}}).to_string();
    let patch = [&["patch"], &SECRET[..], &["--patch", &files]].concat();
    arena.kubectl(&patch).unwrap();
    ns.delete("secret", "app1-pki");
    let annotate = [&["annotate"], &SECRET[..], &["box.com/rotate-now="]].concat();
    let second = thread::scope(|scope| {
        let second = scope.spawn(|| arena.first_replica("operator-1", &[]).unwrap());
        eventually("it issues", || ns.get("secret", "app1-pki").map(drop));
        assert!(!second.is_finished(), "it must not be ready");
        arena.kubectl(&annotate).unwrap();
        second.join().unwrap()
    });
    let ca = || file(&stored(&arena), "tls.crt");
    let made = ca();
    assert_ne!(made, certificate);

    arena.kubectl(&patch).unwrap();
    eventually("it says that it does not take it over", || {
        let log = second.process.log();
        let says = "holds a CA that the webhook cannot use";
        log.contains(&format!("{says}: cannot make the serving certificate"))
            .then_some(())
    });
    quiet();
    assert_eq!(ca(), certificate);
    assert!(handshake(second.webhook, &made).is_ok());
    assert!(matches!(second.get("/readyz"), Ok((200, _))));
    let delete = [&["delete"], &SECRET[..]].concat();
    arena.kubectl(&delete).unwrap();
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
        let urls = "--output=jsonpath={.items[*].webhooks[*].clientConfig.url}";
        let urls = arena.kubectl(&["get", CONFIGURATIONS, urls]).ok()?;
        let mut urls = urls.split_whitespace();
        urls.all(|url| url.split('/').any(|part| part.len() == 64))
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
        eventually("both answer", || pair.is_admitted().ok());
        pair
    }

    pub(crate) fn secret(&self) -> Value {
        stored(self.arena)
    }

    fn patch_secret(&self, patch: &Value) {
        let patch = patch.to_string();
        let patch = [&["patch"], &SECRET[..], &["--patch", &patch]].concat();
        self.arena.kubectl(&patch).unwrap();
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
        let get = ["get", CONFIGURATIONS, "--output=json"];
        let list: Value = serde_json::from_str(&self.arena.kubectl(&get).unwrap()).unwrap();
        let items = list["items"].as_array().unwrap().iter();
        let ours = items.filter(|item| item["metadata"]["name"] == "pki-operator");
        let webhooks = ours.flat_map(|item| item["webhooks"].as_array().unwrap());
        let bundles = webhooks.map(|webhook| {
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

    /// Twenty Pkis that the API server asks about, each for itself.
    fn is_admitted(&self) -> Result<usize, String> {
        let pki = |number| {
            json!({"apiVersion": "box.com/v1", "kind": "Pki",
            "metadata": {"name": format!("p-{number}"), "namespace": "default"}, "spec": {"serviceName": "app1"}})
        };
        let pkis: Vec<_> = (0..20).map(pki).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": pkis}).to_string();
        let create = ["create", "--dry-run=server", "--filename=-"];
        match self.arena.kubectl_with(&list, &create) {
            Ok(_) => Ok(pkis.len()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether both replicas are who each webhook configuration says.
    fn is_trusted(&self) -> Result<usize, String> {
        let bundles = self.bundles();
        for replica in &self.replicas {
            for bundle in &bundles {
                let shaken = handshake(replica.webhook, bundle);
                // What was trusted when this began may be withdrawn before it ends.
                if let Err(error) = shaken
                    && self.bundles() == bundles
                {
                    return Err(format!("{error} with {bundle}"));
                }
            }
        }
        Ok(bundles.len() * self.replicas.len())
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
            }
            failures
        };
        thread::scope(|scope| {
            let admissions = scope.spawn(|| ask(&|| self.is_admitted()));
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
    let get = [&["get", "--ignore-not-found", "--output=json"], &SECRET[..]].concat();
    let secret = arena.kubectl(&get).unwrap();
    serde_json::from_str(&secret).unwrap_or(json!({"data": {}}))
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
