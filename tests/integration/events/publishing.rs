//! How Events are sent: to whom when there are many, when they may not be sent, and when sending is
//! slow.

use crate::harness::{Installed, Namespace, SHARED, arena, eventually, notes};
use axum::routing::post;
use axum_server::tls_rustls::RustlsConfig;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use pki_certs::Authority;
use pki_operator::webhook::server::serving_cert::ServingCert;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

const SPEC: &str = r#"{"serviceName": "app1"}"#;
const BAD: &str = r#"{"serviceName": "appp1"}"#;

#[test]
fn a_renewal_is_published_once_unless_renewal_events_are_off() {
    let ns = SHARED.namespace("renewal");
    ns.pod_with("volume", "app1-pki");
    ns.pod(
        "env",
        r#""initContainers": [{"name": "i", "image": "i", "envFrom": [{"secretRef": {"name": "app1-pki"}}]}]"#,
    );
    ns.apply_pki("app1-pki", SPEC);
    let first = ns.wait_until_ready("app1-pki");
    let renew = || {
        ns.forget_renewal("app1-pki");
        let before = ns.get("pki", "app1-pki").unwrap()["status"]["serialNumber"].clone();
        ns.annotate("pki", "app1-pki", "box.com/renew-now", "");
        eventually("it is renewed", || {
            let pki = ns.get("pki", "app1-pki")?;
            (pki["status"]["serialNumber"] != before).then_some(pki)
        })
    };
    assert_eq!(
        notes(&ns.events("Pod", "volume")),
        Vec::<String>::new(),
        "{first}"
    );
    let pki = renew();
    let sentence = format!(
        "Normal: Secret app1-pki of Pki {}/app1-pki holds a renewed certificate, valid until {}",
        ns.name,
        pki["status"]["notAfter"].as_str().unwrap()
    );
    let published = |pod| {
        eventually(&format!("{pod} has its Event"), || {
            Some(notes(&ns.events("Pod", pod))).filter(|notes| !notes.is_empty())
        })
    };
    assert_eq!(published("volume"), std::slice::from_ref(&sentence));
    let usage_note =
        "; a container that has it in its environment keeps the previous one until it is restarted";
    assert_eq!(published("env"), [sentence + usage_note]);

    ns.annotate("pki", "app1-pki", "box.com/renewal-events", "false");
    renew();
    ns.barrier();
    assert_eq!(ns.events("Pod", "volume").len(), 1);
}

#[test]
fn the_controller_of_more_than_a_hundred_pods_gets_a_summary() {
    let ns = SHARED.namespace("many");
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many"}, "spec": {
        "replicas": 104, "selector": {"matchLabels": {"app": "many"}}, "template": {
            "metadata": {"labels": {"app": "many"}}, "spec": {
                "schedulingGates": [{"name": "example.com/never"}], "containers": [{"name": "c", "image": "c"}],
                "volumes": [{"name": "v", "secret": {"secretName": "app1-pki"}}]}}}});
    ns.apply_object(&deployment);
    eventually("all pods are there", || {
        (ns.list("pods", "").len() == 104).then_some(())
    });
    ns.try_apply_pki("app1-pki", BAD).unwrap_err();
    let set = ns.list("replicasets", "")[0]["metadata"]["name"].clone();
    let summary = eventually("the ReplicaSet has an Event", || {
        ns.events("ReplicaSet", set.as_str()?).pop()
    });
    let note = summary["note"].as_str().unwrap();
    assert!(
        note.starts_with("to 4 of its pods that use Secret app1-pki, which get no Events of their own: Pki app1-pki was refused"),
        "{note}"
    );
    let of_pods = || {
        let selector = "reason=PkiServiceNameError,regarding.kind=Pod";
        let events = SHARED.api.list("events", &ns.name, "", selector);
        events.unwrap().len()
    };
    eventually("a hundred pods have an Event", || {
        (of_pods() == 100).then_some(())
    });
    ns.barrier();
    assert_eq!(of_pods(), 100);
}

/// A page of metrics of the leader.
fn events_total(page: &str, labels: &str) -> u64 {
    let begin = format!("pki_operator_events_total{{{labels}");
    let lines = page.lines().filter(|line| line.starts_with(&begin));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

fn store(ns: &Namespace<'_>, name: &str, spec: &str) {
    eventually("it is stored", || ns.try_apply_pki(name, spec).ok());
}

#[test]
fn forbidden_events_are_counted_and_published_when_they_are_permitted_again() {
    let arena = arena();
    let operator = arena
        .first_replica("operator-1", &["--reminder-seconds", "2"])
        .unwrap();
    let ns = arena.namespace("forbidden");
    ns.pod_with("app1", "app1-pki");
    arena.without_webhooks();
    let rules = change_rules(&arena, |rules| {
        rules.retain(|rule| rule["resources"] != json!(["events"]));
    });

    store(&ns, "app1-pki", BAD);
    store(&ns, "good", SPEC);
    eventually("it is counted", || {
        let (_, page) = operator.get("/metrics").ok()?;
        let labels = r#"result="dropped",cause="forbidden",reason="PkiServiceNameError"}"#;
        (events_total(&page, labels) > 0).then_some(())
    });
    ns.wait_until_ready("good");
    assert_eq!(notes(&ns.events("Pod", "app1")), Vec::<String>::new());
    assert!(operator.process.log().contains("failed to write the Event"));

    set_rules(&arena, &rules);
    eventually("the pod has its Event", || {
        let published = ns.events("Pod", "app1");
        (published.len() == 1).then_some(())
    });
}

/// Changes the permissions of the operator in every namespace. Returns those of the chart.
fn change_rules(arena: &Installed, change: impl FnOnce(&mut Vec<Value>)) -> Value {
    let role = arena.api.get("clusterrole", "", "pki-operator-namespace");
    let rules = role.unwrap().expect("the chart has it")["rules"].take();
    let mut changed = rules.clone();
    change(changed.as_array_mut().unwrap());
    set_rules(arena, &changed);
    rules
}

fn set_rules(arena: &Installed, rules: &Value) {
    let (api, rules) = (&arena.api, json!({ "rules": rules }));
    api.merge("clusterrole", "", "pki-operator-namespace", &rules)
        .unwrap();
}

#[test]
fn a_missing_permission_is_published_on_the_waiting_pod_and_needs_no_restart_when_it_is_back() {
    let arena = arena();
    let _operator = arena.first_replica("operator-1", &[]).unwrap();
    let keystore = r#"{"serviceName": "app1", "outputs": {"jks": {"passwordSecretRef": {"name": "password"}}}}"#;
    // Only for a password a Secret has to be read before the one of a new Pki is made.
    for (verb, spec) in [("get", keystore), ("create", SPEC)] {
        let ns = arena.namespace("permission");
        ns.pod_with("app1", "app1-pki");
        ns.password();
        let rules = change_rules(&arena, |rules| {
            let secrets = rules
                .iter_mut()
                .find(|rule| rule["resources"] == json!(["secrets"]));
            let verbs = secrets.unwrap()["verbs"].as_array_mut().unwrap();
            verbs.retain(|other| other != verb);
        });
        // The API server's authorizer hears of it moments later.
        eventually("it may not", || {
            let action = json!({"verb": verb, "resource": "secrets", "namespace": ns.name});
            (!arena.operator_may(&action)).then_some(())
        });
        ns.apply_pki("app1-pki", spec);
        let message = ns.wait_until_refused("app1-pki", "PkiIssuanceFailed");
        assert!(
            message.contains(&format!("cannot {verb} resource \"secrets\"")),
            "{message}"
        );
        let published = notes(&ns.wait_for_events("Pod", "app1", 1));
        assert_eq!(published, [format!("Warning: {message}")]);
        set_rules(&arena, &rules);
        ns.wait_until_ready("app1-pki");
    }
}

#[test]
fn events_that_hang_delay_neither_certificates_nor_the_events_of_others() {
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let (slow, quick) = (arena.namespace("slow"), arena.namespace("quick"));
    // Takes connections and never answers: so each Event takes as long as the API server waits for
    // it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    thread::spawn(move || silent.incoming().collect::<Vec<_>>());
    judge_events(&slow, address, None);
    arena.without_webhooks();
    for number in 0..20 {
        slow.pod_with(&format!("app1-{number}"), "app1-pki");
    }
    quick.pod_with("app1", "app1-pki");
    store(&slow, "app1-pki", BAD);
    slow.wait_until_refused("app1-pki", "PkiServiceNameError");
    store(&quick, "app1-pki", BAD);
    store(&slow, "good", SPEC);
    slow.wait_until_ready("good");
    eventually("the pod of the other namespace has its Event", || {
        (quick.events("Pod", "app1").len() == 1).then_some(())
    });
    let published =
        (0..20).filter(|number| !slow.events("Pod", &format!("app1-{number}")).is_empty());
    assert_eq!(published.count(), 0, "else nothing was slow");

    judge_events_no_more(&arena);
    // The queue asks the namespace again within half a minute.
    eventually("all have their Events in the end", || {
        let (_, page) = operator.get("/metrics").ok()?;
        let labels = r#"result="sent",cause="",reason="PkiServiceNameError"}"#;
        let sent = events_total(&page, labels);
        (sent >= 23).then_some(())
    });
    slow.barrier();
    for number in 0..20 {
        assert_eq!(slow.events("Pod", &format!("app1-{number}")).len(), 1);
    }
}

/// Has the API server ask this address, whose certificate is signed by this CA, about every new
/// Event of a namespace.
fn judge_events(ns: &Namespace<'_>, address: SocketAddr, ca: Option<&str>) {
    let url = format!("https://{address}/");
    let bundle = ca.map(|ca| ByteString(ca.into()));
    let webhook = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "judge"}, "webhooks": [{
            "name": "judge.example.com", "clientConfig": {"url": url, "caBundle": bundle}, "timeoutSeconds": 5,
            "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name}},
            "rules": [{"apiGroups": ["events.k8s.io"], "apiVersions": ["v1"], "resources": ["events"], "operations": ["CREATE"]}]}]});
    ns.installed.api.apply("", &webhook).unwrap();
}

fn judge_events_no_more(arena: &Installed) {
    let configuration = "validatingwebhookconfiguration";
    arena.api.delete(configuration, "", "judge").unwrap();
}

/// Answers every Event with 429 Too Many Requests for as long as it is busy, and counts them.
#[derive(Default)]
struct Busy {
    is_over: AtomicBool,
    asked: AtomicUsize,
}

impl Busy {
    fn answer(&self, review: &Value) -> Value {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let response = json!({"uid": review["request"]["uid"], "allowed": self.is_over.load(Ordering::SeqCst),
            "status": {"code": 429, "reason": "TooManyRequests", "message": "busy", "details": {"retryAfterSeconds": 1}}});
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }

    /// Serves in the background until the process ends; where, and the CA.
    fn serve(self: Arc<Self>) -> (SocketAddr, String) {
        let day = SignedDuration::from_hours(24);
        let authority = Authority::generate("busy", day, Timestamp::now()).unwrap();
        let ca = authority.ca().root_pem().to_owned();
        let identity = ServingCert::new(
            Arc::new(authority),
            &["127.0.0.1".to_owned()],
            Timestamp::now(),
        )
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let answer = move |axum::Json(review): axum::Json<Value>| async move {
            axum::Json(self.answer(&review))
        };
        let router = axum::Router::new().route("/", post(answer));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(async {
                let tls = RustlsConfig::from_config(Arc::new(identity.server_config(None)));
                let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
                server.serve(router.into_make_service()).await.unwrap();
            });
        });
        (address, ca)
    }
}

#[test]
fn events_that_a_busy_api_server_refuses_are_published_later_and_block_nothing() {
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let (ns, other) = (arena.namespace("busy"), arena.namespace("idle"));
    let busy = Arc::<Busy>::default();
    let (address, ca) = busy.clone().serve();
    judge_events(&ns, address, Some(&ca));
    for number in 0..10 {
        ns.pod_with(&format!("app1-{number}"), "app1-pki");
    }
    other.pod_with("app1", "app1-pki");
    ns.try_apply_pki("app1-pki", BAD).unwrap_err();
    eventually("it is tried again, after a pause", || {
        (busy.asked.load(Ordering::SeqCst) >= 4).then_some(())
    });
    other.try_apply_pki("app1-pki", BAD).unwrap_err();
    eventually("the pod of another namespace has its Event", || {
        (other.events("Pod", "app1").len() == 1).then_some(())
    });
    ns.apply_pki("good", SPEC);
    ns.wait_until_ready("good");
    let published = |number| ns.events("Pod", &format!("app1-{number}")).len();
    assert_eq!((0..10).map(published).sum::<usize>(), 0);
    // Without a pause it would be thousands.
    assert!(busy.asked.load(Ordering::SeqCst) < 500, "it pauses");

    busy.is_over.store(true, Ordering::SeqCst);
    eventually("all have their Events", || {
        (0..10).all(|number| published(number) == 1).then_some(())
    });
    let (_, page) = operator.get("/metrics").unwrap();
    assert!(!page.contains(r#"result="dropped""#), "{page}");
    judge_events_no_more(&arena);
}

#[test]
fn another_leader_publishes_nothing_twice() {
    let arena = arena();
    let first = arena.first_replica("operator-1", &[]).unwrap();
    eventually("the first leads", || {
        (arena.leader()? == "operator-1").then_some(())
    });
    let _second = arena.replica("operator-2", &[]).unwrap();
    let ns = arena.namespace("leaders");
    arena.without_webhooks();
    ns.pod_with("app1", "app1-pki");
    store(&ns, "app1-pki", BAD);
    let events = || [ns.events("Pod", "app1"), ns.events("Pki", "app1-pki")];
    let published = eventually("the fault has its Event", || {
        Some(events()).filter(|events| events.iter().all(|events| events.len() == 1))
    });
    first.process.kill().unwrap();
    eventually("the second leads", || {
        (arena.leader()? == "operator-2").then_some(())
    });
    // The new leader has processed everything when a new pod has its Event.
    ns.pod_with("later", "app1-pki");
    eventually("a later pod has its Event", || {
        (ns.events("Pod", "later").len() == 1).then_some(())
    });
    ns.barrier();
    assert_eq!(events(), published, "the very same Events, with no count");
}

#[test]
fn what_is_refused_and_what_waits_is_on_the_page_of_metrics() {
    let arena = arena();
    let operator = arena.first_replica("operator-1", &[]).unwrap();
    let ns = arena.namespace("page");
    let wait_for = |lines: &[String]| {
        eventually(&format!("the page has {lines:?}"), || {
            let (_, page) = operator.get("/metrics").ok()?;
            lines
                .iter()
                .all(|line| page.lines().any(|other| other == line))
                .then_some(())
        });
    };
    let none = [
        r#"pki_operator_pkis_refused{namespace="",reason=""} 0"#.to_owned(),
        r#"pki_operator_pods_waiting{namespace=""} 0"#.to_owned(),
    ];
    wait_for(&none);
    ns.pod_with("waits", "app1-pki");
    ns.pod_with("waits-too", "app1-pki");
    ns.pod_with("for-another", "another");
    ns.try_apply_pki("app1-pki", BAD).unwrap_err();
    let waiting = format!(r#"pki_operator_pods_waiting{{namespace="{}"}} 2"#, ns.name);
    wait_for(&[waiting.clone(), none[0].clone()]);
    arena.without_webhooks();
    store(&ns, "app1-pki", BAD);
    let refused = format!(
        r#"pki_operator_pkis_refused{{namespace="{}",reason="PkiServiceNameError"}} 1"#,
        ns.name
    );
    wait_for(&[refused, waiting]);
    ns.apply_pki("app1-pki", SPEC);
    wait_for(&none);
}
