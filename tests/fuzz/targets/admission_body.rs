//! The body of a request to the webhook.
//!
//! What is admitted has the names of its own service and what a policy permits; what is refused is
//! refused in words that people can read; and defaults, once filled in, are filled in.

use super::{oracle, pki, policy, rule_book};
use kube::core::admission::{AdmissionResponse, Operation};
use kube::runtime::watcher::Event;
use pki_certs::{KeyAlgorithm, Usage};
use pki_operator::api::{Pki, PkiPolicy, PkiPolicySpec, PkiSpec};
use pki_operator::model::ca::CaSummary;
use pki_operator::policy::{Approved, RuleBook, faults};
use pki_operator::store::cached_pki::KnownPki;
use pki_operator::store::cached_secret::KnownSecret;
use pki_operator::store::secret_index::SharedIndex;
use pki_operator::webhook::review::{self, Request, ValidationContext};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::LazyLock;

/// Among them one that gives away what none can, as it may have been stored when nobody checked it.
static POLICIES: LazyLock<Vec<PkiPolicy>> = LazyLock::new(|| {
    let policies = [
        (
            "careless",
            json!({
                "namespaces": {"names": ["careless", "pki-system"]}, "serviceNames": ["*"],
                "dnsNames": ["*.svc", "*.*.svc", "*.*", "*", "*.victim.svc.corp.example", "db.victim.svc.cluster.local", "*.pod", "LOCALHOST.", "*.*.com"],
                "ipAddresses": ["0.0.0.0/0", "::/0"],
                "uris": ["spiffe://*/ns/victim", "*", "urn:*", "spiffe://example.com/*"],
            }),
        ),
        (
            "exact",
            json!({"serviceNames": ["app1", "app2", "payments-api"]}),
        ),
        (
            "few",
            json!({
                "serviceNames": ["app*"], "dnsNames": ["*.example.com"],
                "validations": [{"expression": "pki.spec.dnsNames.size() <= 1", "message": "write one DNS name at most"}],
            }),
        ),
        (
            "labelled",
            json!({
                "namespaces": {"selector": {"matchLabels": {"team": "payments"}}},
                "serviceNames": ["pay-*"], "uris": ["urn:example:{namespace}:*"],
            }),
        ),
        (
            "own",
            json!({
                "serviceNames": ["{namespace}-*", "*-web"], "dnsNames": ["*.{namespace}.example.com", "api.example.org"],
                "ipAddresses": ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"],
                "uris": ["spiffe://example.com/ns/{namespace}/*", "https://*.example.com/a"],
            }),
        ),
        (
            "strict",
            json!({
                "namespaces": {"names": ["strict-*"]}, "serviceNames": ["*"], "usages": ["server auth"], "podNames": false,
                "privateKeys": [{"algorithm": "RSA", "minSize": 3072}, {"algorithm": "Ed25519"}], "maxDuration": "48h",
            }),
        ),
    ];
    policies
        .into_iter()
        .map(|(name, spec)| policy(name, spec))
        .collect()
});

static RULES: LazyLock<RuleBook> = LazyLock::new(|| rule_book(&*POLICIES));

static STORED: LazyLock<Vec<Pki>> = LazyLock::new(|| {
    let specs = [
        ("team-a", json!({"serviceName": "app1"})),
        ("team-a", json!({"serviceName": "pay-1"})),
        (
            "careless",
            json!({"serviceName": "a", "dnsNames": ["db.victim.svc", "a.b"]}),
        ),
        (
            "team-b",
            json!({"serviceName": "team-b-1", "uris": ["spiffe://example.com/ns/team-b/a"]}),
        ),
    ];
    specs
        .into_iter()
        .map(|(namespace, spec)| pki(namespace, spec))
        .collect()
});

type Neighbours = (SharedIndex<KnownPki>, SharedIndex<KnownSecret>);

/// Secrets that are claimed, or there already.
static NEIGHBOURS: LazyLock<Neighbours> = LazyLock::new(|| {
    let (pkis, secrets) = (SharedIndex::default(), SharedIndex::default());
    let mut claiming = pki(
        "team-a",
        json!({"serviceName": "app1", "secretName": "tls"}),
    );
    claiming.metadata.uid = Some("a".into());
    pkis.write().apply(Event::Apply(claiming.into()));
    let foreign = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "team-a", "name": "foreign"}});
    let foreign: kube::core::PartialObjectMeta<_> =
        serde_json::from_value(foreign).expect("metadata");
    secrets.write().apply(Event::Apply(foreign.into()));
    (pkis, secrets)
});

/// Judges a review.
pub fn admission_body(data: &[u8]) {
    let Ok(request) = review::read(data) else {
        return;
    };
    if review::is_about_policy(&request) {
        judge_policy(&request);
    } else {
        judge_pki(&request);
    }
}

fn judge_pki(request: &Request) {
    let (pkis, secrets) = &*NEIGHBOURS;
    let world = ValidationContext {
        rules: &RULES,
        pkis,
        secrets,
        pods: &SharedIndex::default(),
        ca: Some(CaSummary {
            end: "2030-01-03T00:00:00Z".parse().expect("a time"),
            is_being_replaced: false,
        }),
        now: "2030-01-01T00:00:00Z".parse().expect("a time"),
    };
    let response = review::validate(request, &world);
    check_texts(request, &response);
    if !is_written(request) || request.kind.kind != "Pki" {
        return;
    }
    let asked = asked(request);
    if let Some(pki) = &asked {
        let mut pki = pki.clone();
        // Times that the API server sets.
        (
            pki.metadata.creation_timestamp,
            pki.metadata.deletion_timestamp,
        ) = (None, None);
        let unpacked = KnownPki::from(pki.clone()).unpack().0;
        let unpacked = unpacked.expect("what was packed can be unpacked");
        assert_eq!(unpacked.spec, pki.spec);
    }
    let asked = asked.map(|pki| RULES.evaluate(&pki).map(|approved| (pki, approved)));
    match asked {
        Some(Ok((pki, approved))) => {
            assert!(response.allowed, "refused, and no rule is broken");
            assert_eq!(RULES.admits(&pki), Some(approved.policy.as_str()));
            check_certificate(&pki, &approved);
        }
        Some(Err(violations)) => {
            assert!(!violations.is_empty(), "refused without a word");
            check_refused(request, &response);
        }
        None => check_refused(request, &response),
    }
}

/// Whether the request writes an object of ours that lives on.
fn is_written(request: &Request) -> bool {
    let is_ours = request.kind.group == "box.com" && request.kind.version == "v1";
    let lives = |object: &review::ReviewedObject| object.metadata.deletion_timestamp.is_none();
    let is_write = matches!(request.operation, Operation::Create | Operation::Update);
    is_ours && is_write && request.object.as_ref().is_some_and(lives)
}

/// What may be stored although it breaks a rule is an object that broke it before.
fn check_refused(request: &Request, response: &AdmissionResponse) {
    let is_kept = request.operation == Operation::Update && request.old_object.is_some();
    assert!(!response.allowed || is_kept && response.warnings.is_some());
}

/// The Pki that the review is about, if it is one.
fn asked(request: &Request) -> Option<Pki> {
    let object = request.object.as_ref()?;
    let spec: PkiSpec = serde_json::from_value(object.spec.clone()).ok()?;
    let metadata = &object.metadata;
    let mut names = [
        Some(&request.name),
        metadata.name.as_ref(),
        metadata.generate_name.as_ref(),
    ]
    .into_iter()
    .flatten();
    let name = names.find(|name| !name.is_empty()).cloned();
    let mut pki = Pki::new("", spec);
    pki.metadata = metadata.clone();
    pki.metadata.name = Some(name.unwrap_or_default());
    pki.metadata.namespace = request.namespace.clone().or(pki.metadata.namespace);
    Some(pki)
}

/// A certificate has the two names of its own service, and otherwise what the policy that permits
/// it says.
fn check_certificate(pki: &Pki, approved: &Approved) {
    let namespace = pki.metadata.namespace.as_deref().unwrap_or_default();
    let service = &pki.spec.service_name;
    let certificate = &approved.certificate;
    let policy = POLICIES
        .iter()
        .find(|policy| policy.metadata.name.as_deref() == Some(&approved.policy));
    let policy = &policy.expect("a policy of this name").spec;
    let own = format!("{service}.{namespace}.svc");
    let own = [own.clone(), format!("{own}.{}", oracle::CLUSTER_DOMAIN)];

    assert!(
        (service.as_str(), namespace) != ("kubernetes", "default"),
        "the API server's own"
    );
    assert!(
        oracle::is_for(policy, namespace),
        "another namespace's policy"
    );
    assert!(
        oracle::allows_service(policy, namespace, service),
        "{service} is not allowed"
    );
    let (two, further) = certificate.dns_names.split_at(2);
    assert_eq!(two, own, "not the names of its own service");
    for name in further {
        assert!(
            !oracle::is_api_server(name) && oracle::is_host_name(name),
            "{name:?} may be in no certificate"
        );
        if oracle::is_internal(name) {
            assert!(
                policy.pod_names != Some(false) && oracle::is_pod_of(service, namespace, name),
                "{name:?} is inside the cluster, and not that of a pod of the service"
            );
            continue;
        }
        let is_permitted = |pattern: &String| oracle::dns_pattern_permits(pattern, namespace, name);
        assert!(
            policy.dns_names.iter().any(is_permitted),
            "{name:?} is not permitted"
        );
    }
    for address in &certificate.ip_addresses {
        assert!(
            is_address_permitted(policy, *address),
            "{address} is not permitted"
        );
    }
    for uri in &certificate.uris {
        assert_eq!(oracle::uri(uri).as_ref(), Some(uri), "two spellings");
        let is_permitted = |pattern: &String| oracle::uri_pattern_permits(pattern, namespace, uri);
        assert!(
            policy.uris.iter().any(is_permitted),
            "{uri:?} is not permitted"
        );
    }
    let common_name = &certificate.common_name;
    let is_own = |name: &String| name == service || certificate.dns_names.contains(name);
    let is_short = |name: &String| name.len() <= 64;
    match common_name {
        Some(name) => assert!(
            is_own(name) && is_short(name) && name != "kubernetes",
            "{name:?} is another's name"
        ),
        None => assert!(!is_short(&own[0]), "there is room for {}", own[0]),
    }
    check_further_rules(namespace, approved);
}

fn is_address_permitted(policy: &PkiPolicySpec, address: IpAddr) -> bool {
    let contains = |range: &str| oracle::range_contains(range, address);
    let is_mapped = oracle::range_contains("::ffff:0:0/96", address);
    policy.ip_addresses.iter().any(|range| contains(range))
        && !oracle::is_reserved(address)
        && !is_mapped
}

/// The rules of single policies, in other words.
fn check_further_rules(namespace: &str, approved: &Approved) {
    let certificate = &approved.certificate;
    match approved.policy.as_str() {
        "few" => assert!(certificate.dns_names.len() <= 2 + 1),
        "labelled" => assert_eq!(namespace, "team-a"),
        "strict" => {
            let permitted = [
                KeyAlgorithm::Rsa3072,
                KeyAlgorithm::Rsa4096,
                KeyAlgorithm::Ed25519,
            ];
            assert!(permitted.contains(&certificate.key));
            assert_eq!(certificate.usages, [Usage::ServerAuth]);
            assert!(certificate.duration.as_secs() <= 48 * 3600);
        }
        _ => {}
    }
}

fn judge_policy(request: &Request) {
    let response = review::validate_policy(request, &RULES, STORED.iter().cloned(), || true);
    check_texts(request, &response);
    let object = request.object.as_ref().filter(|_| is_written(request));
    let Some(object) = object else { return };
    let spec = object.spec.clone();
    let Ok(spec) = serde_json::from_value::<PkiPolicySpec>(spec) else {
        return check_refused_policy(request, &response);
    };
    let faults = faults(&spec, &RULES.settings);
    if !faults.is_empty() {
        check_refused_policy(request, &response);
    }
    gives_away_nothing(&PkiPolicy::new("new", spec));
}

fn check_refused_policy(request: &Request, response: &AdmissionResponse) {
    let is_edit = request.operation == Operation::Update;
    assert!(!response.allowed || is_edit, "a fault, and it is taken");
}

/// Whatever a policy says, it does not permit what no policy can.
fn gives_away_nothing(policy: &PkiPolicy) {
    let rules = RULES.with_policy(policy);
    for name in [
        "db.victim.svc",
        "*.victim.svc.corp.example",
        "db.victim",
        "a-0.db.victim.svc",
        "*.db.victim.svc.corp.example",
        "b.a.svc.svc.svc",
        "victim",
        "kubernetes.default.svc.cluster.local",
        "localhost.",
        "1-2-3-4.victim.pod",
    ] {
        for namespace in ["team-a", "victim", "svc"] {
            let asked = pki(namespace, json!({"serviceName": "a", "dnsNames": [name]}));
            let permitted = rules
                .evaluate(&asked)
                .map_or(Vec::new(), |approved| approved.certificate.dns_names);
            assert!(
                permitted.is_empty() || permitted.len() == 3 && name == "db.victim",
                "{name}"
            );
        }
    }
}

/// What is said is for people to read, and not without end.
fn check_texts(request: &Request, response: &AdmissionResponse) {
    let message = &response.result.message;
    let details = response.result.details.as_ref();
    let causes = details
        .map(|details| details.causes.as_slice())
        .unwrap_or_default();
    if !response.allowed {
        assert!(!message.trim().is_empty(), "refused without a word");
        assert!(
            message.len() < 1 << 20,
            "a message of {} bytes",
            message.len()
        );
        let is_about_us = request.object.is_some()
            && request.kind.group == "box.com"
            && request.kind.version == "v1";
        let is_about_us = is_about_us && ["Pki", "PkiPolicy"].contains(&request.kind.kind.as_str());
        assert!(
            !causes.is_empty() || !is_about_us,
            "refused without a cause"
        );
    }
    assert!(message.split('\n').all(oracle::is_readable), "{message:?}");
    for cause in causes {
        assert!(!cause.field.is_empty() && !cause.message.is_empty());
        assert!(
            oracle::is_readable(&cause.field) && oracle::is_readable(&cause.message),
            "{cause:?}"
        );
    }
    for warning in response.warnings.iter().flatten() {
        assert!(oracle::is_readable(warning), "{warning:?}");
    }
    for (key, value) in &response.audit_annotations {
        assert!(
            oracle::is_readable(key) && oracle::is_readable(value),
            "{key:?}: {value:?}"
        );
    }
    if let Some(refusal) = review::refusal(request, response) {
        assert!(
            !response.allowed && refusal.rules.len() <= 1024 && oracle::is_readable(&refusal.rules)
        );
        assert!(refusal.reason.len() <= 128 && refusal.secret.len() <= 253);
    }
    let answer = serde_json::to_value(response.clone().into_review()).expect("an answer");
    assert_eq!(answer["response"]["allowed"], Value::Bool(response.allowed));
}
