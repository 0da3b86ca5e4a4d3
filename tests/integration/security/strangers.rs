//! A stranger who reaches the webhook's port, but is not the API server.

use crate::admission::webhook::client::{Dialer, Webhook};
use crate::admission::webhook::{JSON, ask, review};
use crate::ca::webhook_ca::{CONFIGURATIONS, OVERLAP, Pair, SECRET};
use crate::harness::{Installed, arena, eventually, file, quiet};
use pki_cluster::Options;
use pki_cluster::install::{Operator, RELEASE};
use pki_cluster::testing::manifest;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};

/// The label by which the replicas find each other here.
const SELECTOR: &str = "--replica-selector=app.kubernetes.io/name=pki-operator";
pub(crate) const PLAIN: [&str; 3] = ["/validate", "/validate", "/validate"];

#[test]
fn a_stranger_gets_no_information_from_the_port_and_the_api_server_is_served() {
    let arena = arena();
    // As an installation begins.
    arena.without_webhooks();
    arena.install().unwrap();
    assert_eq!(paths(&arena), PLAIN);
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let segment = segment_of(&arena);
    assert!(segment.len() == 64, "256 bits in hexadecimal");
    wait_until_closed(&[&operator]);

    let ns = arena.namespace("stranger");
    ns.foreign_secret("taken");
    let mut of_secret = review("1", "app1");
    of_secret["request"]["object"]["spec"]["secretName"] = json!("taken");
    of_secret["request"]["object"]["metadata"]["namespace"] = json!(ns.name);
    of_secret["request"]["namespace"] = json!(ns.name);
    let mut of_policy = review("2", "app1");
    let kind = json!({"group": "box.com", "version": "v1", "kind": "PkiPolicy"});
    of_policy["request"]["kind"] = kind;
    let judged = counted(&operator, "admission_requests_total");
    let other = format!("/{}", segment.chars().rev().collect::<String>());
    for base in ["", &other, "/validate"] {
        // The second one was answered by version 0.2.
        for leaf in ["/validate", "/mutate"] {
            for body in [
                of_secret.to_string(),
                of_policy.to_string(),
                review("3", "appp1").to_string(),
                "no JSON".to_owned(),
            ] {
                let mut stranger = Webhook::new(&Dialer::of(&arena).of_stranger());
                let answer = stranger.post(&format!("{base}{leaf}"), JSON, body.as_bytes());
                assert_eq!(answer, (404, String::new()), "{base}{leaf}");
            }
        }
    }
    // Before the body, which never comes.
    for (method, size) in [("POST", 3_000_000), ("GET", 0), ("DELETE", 0), ("BREW", 0)] {
        let mut stranger = Webhook::new(&Dialer::of(&arena).of_stranger());
        let answer = match method {
            "POST" => stranger.announce("/validate", JSON, size),
            _ => stranger.send(method, "/validate", "text/plain", b""),
        };
        assert_eq!(answer, (404, String::new()), "{method}");
    }
    assert_eq!(counted(&operator, "admission_requests_total"), judged);
    assert!(counted(&operator, "requests_refused_total{reason=\"path\"}") >= 28);

    // A caller who knows the path learns all of that.
    let answer = ask(&mut Webhook::of(&arena), "/validate", &of_secret);
    assert!(answer.to_string().contains("taken"), "{answer}");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("app1-pki");
    let (_, page) = operator.get("/metrics").unwrap();
    for published in [operator.process.log(), page] {
        assert!(!published.contains(&segment), "{published}");
    }
    let events = arena.api.list("events", "", "", "").unwrap();
    assert!(!json!(events).to_string().contains(&segment));
}

#[test]
fn while_the_path_is_reset_restored_and_replaced_no_request_fails() {
    let arena = arena();
    let pair = Pair::start_with(&arena, &[OVERLAP]);
    let segment = segment_of(&arena);
    let replicas = pair.replicas.each_ref();
    wait_until_closed(&replicas);
    pair.under_load(|| {
        for _ in 0..3 {
            set_paths(&arena, PLAIN);
            eventually("the secret path is put back", || {
                let all = segments(&arena);
                all.iter()
                    .all(|it| it.as_ref() == Some(&segment))
                    .then_some(())
            });
        }
        // The chart renders what it finds.
        arena.install().unwrap();
        assert_eq!(segment_of(&arena), segment);
        wait_until_closed(&replicas);

        arena.api.delete("secret", RELEASE, SECRET[1]).unwrap();
        eventually("the Secret is as it was", || {
            (file(&pair.secret(), "path") == segment).then_some(())
        });
        let damage = json!({"data": {"path": "bm9uZQ=="}});
        let api = &arena.api;
        api.merge("secret", RELEASE, SECRET[1], &damage).unwrap();
        eventually("the segment is put back", || {
            (file(&pair.secret(), "path") == segment).then_some(())
        });
        assert_eq!(segment_of(&arena), segment);

        let old = pair.ca();
        let key = "box.com/rotate-now";
        api.annotate("secret", RELEASE, SECRET[1], key, Some(""))
            .unwrap();
        let new = eventually("there is another segment", || {
            Some(segment_of(&arena)).filter(|new| *new != segment)
        });
        for replica in &pair.replicas {
            for known in [&new, &segment] {
                assert_eq!(
                    status_at(&arena, replica, &format!("/{known}/validate")),
                    200
                );
            }
            assert_eq!(status_at(&arena, replica, "/validate"), 404);
        }
        pair.expect_replacement_of(&old);
        assert_eq!(file(&pair.secret(), "previous-path"), "");
        eventually("the old path is answered no more", || {
            let path = format!("/{segment}/validate");
            let statuses = replicas.map(|replica| status_at(&arena, replica, &path));
            (statuses == [404, 404]).then_some(())
        });
        assert_eq!(segment_of(&arena), new);
    });
}

#[test]
fn while_an_older_replica_may_be_asked_the_path_is_the_plain_one_and_no_request_fails() {
    let arena = arena();
    arena.without_webhooks();
    arena.install().unwrap();
    older_replica(&arena, "older");
    let pair = Pair::start_with(&arena, &[OVERLAP, SELECTOR]);
    let replicas = pair.replicas.each_ref();
    pair.under_load(|| {
        for round in 0..2 {
            quiet();
            assert_eq!(paths(&arena), PLAIN);
            assert!(pair.are_ready());
            for replica in &pair.replicas {
                assert_eq!(counted(replica, "webhook_plain_path"), 1);
                assert_eq!(status_at(&arena, replica, "/validate"), 200);
                let log = replica.process.log();
                assert!(log.contains("pod older has no annotation"), "{log}");
            }
            arena.api.delete("pod", RELEASE, "older").unwrap();
            eventually("the path is the secret one", || {
                segments(&arena).iter().all(Option::is_some).then_some(())
            });
            wait_until_closed(&replicas);
            if round == 0 {
                // The upgrade is rolled back.
                older_replica(&arena, "older");
                eventually("the path is the plain one", || {
                    (paths(&arena) == PLAIN).then_some(())
                });
            }
        }
        // Nor does it stay if it is not wanted any more.
        arena.install_with(&["webhook.secretPath=false"]).unwrap();
        eventually("the path is the plain one", || {
            (paths(&arena) == PLAIN).then_some(())
        });
        arena.install().unwrap();
        wait_until_closed(&replicas);
    });
}

#[test]
fn with_a_client_ca_the_webhook_speaks_with_the_api_server_alone() {
    let options = Options {
        webhook_client: true,
        ..Options::default()
    };
    let installed = Installed::start(&["app1", "app2"], options).unwrap();
    let authority = installed.cluster.dir().join("credentials/ca.crt");
    let flag = format!("--webhook-client-ca={}", authority.display());
    let operator = installed.first_replica("operator-1", &[&flag]).unwrap();
    let ns = installed.namespace("clients");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("app1-pki");
    let refusal = ns.try_apply_pki("wrong", r#"{"serviceName": "appp1"}"#);
    let refusal = refusal.unwrap_err();
    assert!(refusal.contains("did you mean \"app1\"?"), "{refusal}");

    // Not even who knows the path is answered.
    let asked = |dialer: &Dialer| -> std::io::Result<String> {
        let mut stream = dialer.dial("http/1.1")?;
        let path = dialer.at("/validate");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: webhook\r\n\r\n")?;
        stream.flush()?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let error = asked(&Dialer::of(&installed)).unwrap_err();
    println!("a stranger: {error}");
    let [certificate, key] = ["crt", "key"].map(|end| {
        let dir = installed.cluster.dir().join("credentials");
        dir.join(format!("webhook-client.{end}"))
    });
    let known = Dialer::showing(&installed, &certificate, &key);
    assert_eq!(asked(&known).unwrap(), "HTTP/1.1 405");
    // Health and metrics are for everybody, as before.
    assert_eq!(operator.get("/readyz").unwrap().0, 200);
    assert_eq!(operator.get("/metrics").unwrap().0, 200);
}

#[test]
fn made_up_refusals_do_not_keep_the_event_of_a_fault_from_a_pod() {
    let arena = arena();
    let _operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("made-up");
    ns.pod_with("pod", "app1-pki");
    for number in 0..31 {
        let pki = format!(r#"{{"serviceName": "made-up-{number}", "secretName": "app1-pki"}}"#);
        ns.try_apply_pki(&format!("made-up-{number}"), &pki)
            .unwrap_err();
    }
    let published = || ns.events("Pod", "pod");
    let refusals = eventually("it hears of so many and no more", || {
        Some(published()).filter(|events| events.len() >= 25)
    });
    ns.barrier();
    assert_eq!((refusals.len(), published().len()), (25, 25));

    // A Pki is stored, and cannot be issued for.
    ns.permit(&["made-up"], "");
    ns.apply_pki("app1-pki", r#"{"serviceName": "made-up"}"#);
    ns.wait_until_ready("app1-pki");
    ns.withdraw();
    ns.wait_until_refused("app1-pki", "PkiServiceNameError");
    eventually("it hears of the fault", || {
        let events = published();
        let is_fault = |event: &&Value| {
            let note = event["note"].as_str().unwrap_or_default();
            event["type"] == "Warning" && !note.contains("was refused")
        };
        events.iter().find(is_fault).map(drop)
    });
}

/// The path of each webhook.
pub(crate) fn paths(arena: &Installed) -> Vec<String> {
    let configuration = arena.api.get(CONFIGURATIONS, "", "pki-operator");
    let configuration = configuration.unwrap().expect("it is there");
    let host = format!("https://{}", arena.webhook);
    let path = |webhook: &Value| {
        let url = webhook["clientConfig"]["url"].as_str().expect("a URL");
        url.strip_prefix(&host).expect("the host stays").to_owned()
    };
    let webhooks = configuration["webhooks"].as_array().expect("a list");
    webhooks.iter().map(path).collect()
}

/// The secret segment in each path.
fn segments(arena: &Installed) -> [Option<String>; 3] {
    let all = paths(arena).into_iter().zip(PLAIN).map(|(path, leaf)| {
        let base = path.strip_suffix(leaf).expect("the end stays");
        base.strip_prefix('/').map(str::to_owned)
    });
    all.collect::<Vec<_>>().try_into().expect("there are three")
}

/// The one segment that all paths have, which is that of the Secret.
pub(crate) fn segment_of(arena: &Installed) -> String {
    eventually("all paths have the segment of the Secret", || {
        let secret = arena.api.get("secret", RELEASE, SECRET[1]).ok()??;
        let segment = file(&secret, "path");
        let all = segments(arena);
        all.iter()
            .all(|it| it.as_ref() == Some(&segment))
            .then_some(segment)
    })
}

/// As `kubectl edit`, or a chart that is rendered without a look at the cluster.
fn set_paths(arena: &Installed, paths: [&str; 3]) {
    let url = |path: &str| format!("https://{}{path}", arena.webhook);
    arena.set_webhook_urls(paths.map(url).into_iter().enumerate());
}

/// A pod as the chart before has them; no node runs it.
fn older_replica(arena: &Installed, name: &str) {
    let mut pod = manifest::pod(name, &json!({}));
    pod["metadata"]["labels"] = json!({"app.kubernetes.io/name": "pki-operator"});
    arena.api.create(RELEASE, &pod).unwrap();
}

fn wait_until_closed(replicas: &[&Operator]) {
    eventually("nobody is answered at the plain path any more", || {
        let is_closed = |replica: &&Operator| counted(replica, "webhook_plain_path") == 0;
        replicas.iter().all(is_closed).then_some(())
    });
}

/// The status of a replica's answer to a good review at this path.
fn status_at(arena: &Installed, replica: &Operator, path: &str) -> u16 {
    let dialer = Dialer::of(arena).of_stranger().to(replica.webhook);
    let review = review("1", "app1").to_string();
    Webhook::new(&dialer).post(path, JSON, review.as_bytes()).0
}

/// The sum of the metrics whose line begins so.
fn counted(replica: &Operator, metric: &str) -> u64 {
    let (_, page) = replica.get("/metrics").unwrap();
    let prefix = format!("pki_operator_{metric}");
    let lines = page.lines().filter(|line| line.starts_with(&prefix));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}
