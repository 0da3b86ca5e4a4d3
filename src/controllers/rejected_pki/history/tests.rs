use super::*;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

#[derive(Default)]
struct Cluster {
    secrets: Vec<Key>,
    pods: Vec<Arc<SecretUser>>,
    provider: Option<Provider>,
    /// Its namespace was deleted, or made anew.
    is_gone: bool,
    is_another: bool,
}

impl ClusterView for Cluster {
    fn namespace_uid(&self, name: &str) -> Option<Arc<str>> {
        let uid = if self.is_another { "another" } else { name };
        (!self.is_gone).then(|| uid.into())
    }

    fn has_secret(&self, secret: &Key) -> bool {
        self.secrets.contains(secret)
    }

    fn users(&self, secret: &Key) -> Vec<Arc<SecretUser>> {
        let is_user = |pod: &&Arc<SecretUser>| {
            pod.key.namespace == secret.namespace && pod.use_of(&secret.name).is_some()
        };
        self.pods.iter().filter(is_user).cloned().collect()
    }

    fn certified(&self, pki: &Key) -> Vec<Arc<SecretUser>> {
        let names_it = |pod: &&Arc<SecretUser>| {
            let certified = pod.certified.as_deref();
            certified.is_some_and(|pod| pod.names_pki(&pki.name, false))
        };
        self.pods.iter().filter(names_it).cloned().collect()
    }

    fn provider(&self, _: &Key, _: &Key) -> Option<Provider> {
        self.provider.clone()
    }
}

impl Cluster {
    /// With these pods in `ns` that mount the Secret `tls`.
    fn with(pods: &[&str]) -> Self {
        let pods = pods.iter().map(|name| {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"namespace": "ns", "name": name, "uid": name},
                "spec": {"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "tls"}}]}
            }))
            .unwrap();
            Arc::new(SecretUser::from(pod))
        });
        Self {
            pods: pods.collect(),
            ..Self::default()
        }
    }
}

fn at(seconds: i64) -> Timestamp {
    "2030-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

fn refusal(line: &str) -> Rejection {
    Rejection {
        pki: Key::new("ns", "app1-pki"),
        secret: "tls".into(),
        is_edit: false,
        reason: "PkiServiceNameError".into(),
        rules: format!("spec.serviceName: {line}"),
    }
}

/// To whom what is said, as in `a: Warning`.
fn said(history: &mut RejectionHistory, cluster: &Cluster, seconds: i64) -> Vec<String> {
    let notices = history.due(cluster, at(seconds));
    let said = notices.iter().map(|notice| {
        let name = notice.regarding.name.as_deref().unwrap();
        format!("{name}: {}", notice.kind.as_str())
    });
    said.collect()
}

#[test]
fn waiting_pods_get_the_rule_and_the_time_of_the_refusal() {
    let mut history = RejectionHistory::default();
    history.record(refusal("no such name"), at(0));
    let notices = history.due(&Cluster::with(&["a"]), at(1));
    assert_eq!(notices.len(), 1);
    let notice = &notices[0];
    assert_eq!(notice.reason, "PkiServiceNameError");
    assert_eq!(notice.kind, EventKind::Warning);
    assert_eq!(
        notice.note,
        "Pki app1-pki was refused at 2030-01-01T00:00:00Z and is not stored: spec.serviceName: no such name"
    );
    let edit = Rejection {
        is_edit: true,
        ..refusal("no such name")
    };
    history.record(edit, at(0));
    let notices = history.due(&Cluster::with(&["a"]), at(1));
    assert_eq!(
        notices[0].note,
        "a change of Pki app1-pki was refused at 2030-01-01T00:00:00Z: spec.serviceName: no such name"
    );
    assert_eq!(
        notice.related.as_ref().unwrap().name.as_deref(),
        Some("app1-pki")
    );
}

#[test]
fn pods_that_ask_for_the_certificate_by_themselves_get_it_too() {
    let mut history = RejectionHistory::default();
    history.record(refusal("no"), at(0));
    let pod = |name: &str, pki: &str| {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": name, "uid": name},
            "spec": {"containers": [], "volumes": [{"name": "v", "projected": {"sources": [{"podCertificate": {
                "signerName": "box.com/pki", "keyType": "ED25519", "userAnnotations": {"box.com/pki": pki}}}]}}]}
        }))
        .unwrap();
        Arc::new(SecretUser::from(pod))
    };
    let cluster = Cluster {
        pods: vec![pod("a", "app1-pki"), pod("b", "other")],
        ..Cluster::default()
    };
    assert_eq!(said(&mut history, &cluster, 1), ["a: Warning"]);
}

#[test]
fn each_pod_gets_one_event_within_ten_minutes_and_another_after_another_refusal() {
    let mut history = RejectionHistory::default();
    history.record(refusal("no"), at(0));
    assert_eq!(said(&mut history, &Cluster::default(), 1), [""; 0]);
    assert_eq!(
        said(&mut history, &Cluster::with(&["a"]), 2),
        ["a: Warning"]
    );
    let both = Cluster::with(&["a", "b"]);
    assert_eq!(said(&mut history, &both, 3), ["b: Warning"]);
    assert_eq!(said(&mut history, &both, 4), [""; 0]);
    history.record(refusal("no"), at(300));
    assert_eq!(said(&mut history, &both, 301), ["a: Warning", "b: Warning"]);
    let later = Cluster::with(&["c"]);
    assert_eq!(said(&mut history, &later, 899), ["c: Warning"]);
    assert_eq!(said(&mut history, &Cluster::with(&["d"]), 900), [""; 0]);
}

#[test]
fn pods_with_an_event_get_the_resolution_within_an_hour() {
    let ready = Provider::Ready {
        message: "Secret tls holds a certificate".into(),
        since: at(0),
    };
    for (seconds, expected) in [(3599, &["a: Normal"][..]), (3600, &[])] {
        let (mut history, mut cluster) = (RejectionHistory::default(), Cluster::with(&["a"]));
        history.record(refusal("no"), at(0));
        assert_eq!(said(&mut history, &cluster, 1), ["a: Warning"]);
        assert_eq!(said(&mut history, &cluster, 1800), [""; 0]);
        cluster.provider = Some(ready.clone());
        assert_eq!(said(&mut history, &cluster, seconds), expected);
        assert!(history.is_empty());
    }
    let mut history = RejectionHistory::default();
    history.record(refusal("no"), at(0));
    assert_eq!(said(&mut history, &Cluster::default(), 600), [""; 0]);
    assert!(history.is_empty(), "nothing was published");
}

#[test]
fn the_same_refusal_is_one_message_and_another_rule_another_in_the_same_event() {
    let cluster = Cluster::with(&["a"]);
    let mut history = RejectionHistory::default();
    let mut refuse = |line, seconds| {
        history.record(refusal(line), at(seconds));
        history.due(&cluster, at(seconds)).remove(0)
    };
    let first = refuse("no", 0);
    let again = refuse("no", 60);
    assert_eq!(again.topic, first.topic);
    assert_eq!(again.note, first.note, "it tells the first time");
    let other = refuse("still no", 120);
    assert_eq!(other.event_name(), first.event_name());
    assert_ne!(other.topic, first.topic);
    assert!(other.note.contains("00:02:00Z"), "{}", other.note);
    assert_eq!(refuse("no", 180).topic, first.topic, "whenever that is");
}

#[test]
fn a_pod_that_has_the_secret_does_not_wait() {
    let mut history = RejectionHistory::default();
    history.record(refusal("no"), at(0));
    let mut cluster = Cluster::with(&["a"]);
    cluster.secrets.push(Key::new("ns", "tls"));
    assert_eq!(said(&mut history, &cluster, 1), [""; 0]);
    cluster.secrets.clear();
    assert_eq!(said(&mut history, &cluster, 2), ["a: Warning"]);
}

#[test]
fn a_valid_pki_ends_the_events_and_a_ready_one_is_published_to_pods_that_had_one() {
    let ready = Provider::Ready {
        message: "Secret tls holds a certificate".into(),
        since: at(3),
    };
    let mut history = RejectionHistory::default();
    history.record(refusal("no"), at(0));
    assert_eq!(
        said(&mut history, &Cluster::with(&["a"]), 1),
        ["a: Warning"]
    );
    let mut cluster = Cluster::with(&["a", "b"]);
    cluster.provider = Some(Provider::Valid);
    assert_eq!(history.missed(), [Key::new("ns", "tls")].into());
    assert_eq!(said(&mut history, &cluster, 2), [""; 0]);
    assert!(history.missed().is_empty());
    cluster.provider = Some(ready.clone());
    assert_eq!(said(&mut history, &cluster, 3), ["a: Normal"]);
    assert!(history.is_empty());

    history.record(refusal("no"), at(0));
    assert_eq!(said(&mut history, &Cluster::default(), 1), [""; 0]);
    cluster.provider = Some(Provider::Valid);
    assert_eq!(said(&mut history, &cluster, 2), [""; 0]);
    assert!(history.is_empty(), "nobody is owed a word");
}

#[test]
fn a_pki_that_became_invalid_again_has_its_own_status() {
    let mut history = RejectionHistory::default();
    history.record(refusal("no"), at(0));
    let mut cluster = Cluster::with(&["a"]);
    said(&mut history, &cluster, 1);
    cluster.provider = Some(Provider::Valid);
    said(&mut history, &cluster, 2);
    cluster.provider = None;
    assert_eq!(said(&mut history, &Cluster::with(&["a", "b"]), 3), [""; 0]);
    history.record(refusal("no"), at(4));
    assert_eq!(said(&mut history, &cluster, 5), ["a: Warning"]);
}

#[test]
fn a_stored_invalid_pki_has_its_own_status_and_its_refused_change_does_not() {
    let mut cluster = Cluster::with(&["a"]);
    cluster.provider = Some(Provider::Other);
    for (is_edit, expected) in [(false, &[][..]), (true, &["a: Warning"])] {
        let mut history = RejectionHistory::default();
        let refusal = Rejection {
            is_edit,
            ..refusal("no")
        };
        history.record(refusal, at(0));
        assert_eq!(said(&mut history, &cluster, 1), expected, "{is_edit}");
    }
}

#[test]
fn the_history_is_bounded_and_one_namespace_does_not_push_the_others_out() {
    let mut history = RejectionHistory::default();
    let of = |namespace: &str, number: usize| Rejection {
        pki: Key::new(namespace, number.to_string()),
        ..refusal("no")
    };
    for number in 0..2 * MAX_PER_NAMESPACE {
        history.record(of("loud", number), at(0));
    }
    assert_eq!(history.by_namespace["loud"].len(), MAX_PER_NAMESPACE);
    let last = history.by_namespace["loud"].last().unwrap();
    assert_eq!(
        *last.refusal.pki.name,
        *(2 * MAX_PER_NAMESPACE - 1).to_string()
    );
    for number in 0..2 * MAX_REJECTIONS {
        history.record(of(&format!("ns-{number}"), 0), at(0));
    }
    let count: usize = history.by_namespace.values().map(Vec::len).sum();
    assert_eq!(count, MAX_REJECTIONS);
    assert!(history.by_namespace["loud"].len() <= 1);
}

#[test]
fn a_namespace_made_anew_gets_no_event_about_the_tenant_before() {
    let here = Cluster::with(&["a"]);
    let another = Cluster {
        is_another: true,
        ..Cluster::with(&["b"])
    };
    let gone = Cluster {
        is_gone: true,
        ..Cluster::with(&["a"])
    };
    let mut history = RejectionHistory::default();
    history.record(refusal("no"), at(0));
    assert_eq!(said(&mut history, &here, 1), ["a: Warning"]);
    assert_eq!(said(&mut history, &another, 2), [""; 0]);
    assert!(history.is_empty() && history.missed().is_empty());

    history.record(refusal("no"), at(10));
    assert_eq!(said(&mut history, &gone, 11), [""; 0], "it may come yet");
    assert_eq!(said(&mut history, &here, 12), ["a: Warning"]);
    assert_eq!(said(&mut history, &gone, 13), [""; 0]);
    assert!(history.is_empty(), "it was there");

    history.record(refusal("no"), at(20));
    assert_eq!(said(&mut history, &gone, 79), [""; 0]);
    assert_eq!(said(&mut history, &gone, 80), [""; 0]);
    assert!(history.is_empty(), "nobody has heard of such a namespace");

    history.record(refusal("no"), at(100));
    said(&mut history, &here, 101);
    history.forget_namespaces(&another, at(102));
    history.record(refusal("no"), at(103));
    let notices = history.due(&another, at(104));
    assert_eq!(notices.len(), 1, "{notices:?}");
    let first = whole_second(at(103)).to_string();
    assert!(
        notices[0].note.contains(&first),
        "not when it was refused to others: {notices:?}"
    );
}
