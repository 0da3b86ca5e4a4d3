//! One rule book, asked in three ways: the webhook, `kubectl pki check` and the reconciler say the
//! same of thousands of Pkis.

use crate::admission::webhook::client::Webhook;
use crate::admission::webhook::review;
use crate::harness::random::{self, Random};
use crate::harness::{Installed, Namespace, RESERVED, arena, eventually};
use pki_cluster::testing::manifest;
use pki_operator::policy::reason_of;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

/// So many are judged by the webhook and by the command line.
const JUDGED: usize = 4_000;
/// So many of them are stored, and judged by the reconciler.
const STORED: usize = 400;

/// Fields and messages of what is wrong with an object.
type Faults = BTreeSet<(String, String)>;

#[test]
fn webhook_command_line_and_reconciler_say_the_same_of_thousands_of_pkis() {
    let arena = arena();
    let reserved = format!("--reserved-addresses={}", RESERVED.join(","));
    let _operator = arena
        .first_replica("operator-agreement", &[&reserved])
        .unwrap();
    let ns = arena.namespace("agreement");
    ns.label("stage", Some("live"));
    for policy in policies(&ns.name) {
        arena.api.create("", &policy).unwrap();
    }
    wait_until_in_force(&ns);
    let mut random = Random(random::seed());
    let pkis: Vec<_> = (0..JUDGED)
        .map(|number| pki(&ns.name, number, &mut random))
        .collect();

    let by_command_line = by_command_line(&arena, &pkis);
    let mut denied = BTreeMap::new();
    let mut webhook = Webhook::of(&arena);
    for pki in &pkis {
        let name = pki["metadata"]["name"].as_str().unwrap();
        let causes = by_webhook(&mut webhook, pki);
        let known = by_command_line.get(name).cloned().unwrap_or_default();
        assert_eq!(known, causes.iter().cloned().collect(), "{pki}");
        denied.insert(name, causes);
    }
    let refused = denied.values().filter(|causes| !causes.is_empty()).count();
    println!("{refused} of {JUDGED} break rules");
    assert!(
        (JUDGED / 10..JUDGED * 9 / 10).contains(&refused),
        "else little was tried"
    );

    arena.without_webhooks();
    by_reconciler(&ns, &pkis, &denied);
}

/// Stores some of them, as far as the rules of the schema permit, and compares.
fn by_reconciler(
    ns: &Namespace<'_>,
    pkis: &[Value],
    denied: &BTreeMap<&str, Vec<(String, String)>>,
) {
    // Some of them break rules of the schema.
    let pkis = pkis[..STORED].iter().cloned();
    ns.installed.api.create_all(&ns.name, pkis, false);
    let judged = eventually("each has a condition", || {
        let pkis = ns.list("pkis", "");
        let is_judged = |pki: &Value| !pki["status"]["conditions"][0].is_null();
        pkis.iter().all(is_judged).then_some(pkis)
    });
    assert!(judged.len() > STORED / 2, "{} are stored", judged.len());
    let name = |pki: &Value| {
        pki["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    for pki in &judged {
        let ready = &pki["status"]["conditions"][0];
        let (reason, message) = (
            ready["reason"].as_str().unwrap(),
            ready["message"].as_str().unwrap(),
        );
        match denied
            .get(name(pki).as_str())
            .and_then(|causes| causes.first())
        {
            None => assert!(!reason.ends_with("Error"), "{pki}"),
            Some((field, said)) => {
                assert_eq!(reason, reason_of(field), "{pki}");
                assert!(
                    message.contains(said.as_str()),
                    "{said} is not in {message}"
                );
            }
        }
    }
}

/// What the webhook refuses it for, in its order.
fn by_webhook(webhook: &mut Webhook, pki: &Value) -> Vec<(String, String)> {
    let mut review = review("0c9a8d74", "app1");
    let request = &mut review["request"];
    request["object"] = pki.clone();
    request["name"] = pki["metadata"]["name"].clone();
    request["namespace"] = pki["metadata"]["namespace"].clone();
    let (status, answer) = webhook.post(
        "/validate",
        "application/json",
        review.to_string().as_bytes(),
    );
    assert_eq!(status, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let response = &answer["response"];
    let causes = response["status"]["details"]["causes"].as_array();
    let causes = causes.map(Vec::as_slice).unwrap_or_default();
    assert_eq!(response["allowed"] == true, causes.is_empty(), "{answer}");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    causes
        .iter()
        .map(|cause| (text(&cause["field"]), text(&cause["message"])))
        .collect()
}

/// What the command line says of each, by its name.
fn by_command_line(arena: &Installed, pkis: &[Value]) -> BTreeMap<String, Faults> {
    let dir = arena.cluster.dir().join("agreement");
    fs::create_dir_all(&dir).expect("a directory is made");
    let write = |name: &str, content: &str| {
        let path = dir.join(name);
        fs::write(&path, content).expect("a file is written");
        path
    };
    let dump = |kind: &str| arena.kubectl(&["get", kind, "--output=yaml"]).unwrap();
    let pkis = write(
        "pkis.json",
        &json!({ "apiVersion": "v1", "kind": "List", "items": pkis }).to_string(),
    );
    let mut check = Command::new(env!("CARGO_BIN_EXE_kubectl-pki"));
    check
        .args(["check", "--output=json", "--filename"])
        .arg(pkis);
    for kind in ["pkipolicies", "namespaces"] {
        check
            .arg("--policy")
            .arg(write(&format!("{kind}.yaml"), &dump(kind)));
    }
    check.arg("--reserved-addresses").arg(RESERVED.join(","));
    let output = check.output().expect("it runs");
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    // Four policies are among them.
    assert_eq!(report["checked"], JUDGED + 4);
    let mut known = BTreeMap::<_, Faults>::new();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let errors = report["findings"].as_array().unwrap().iter();
    for finding in errors.filter(|finding| finding["severity"] == "error") {
        let fault = (text(&finding["field"]), text(&finding["message"]));
        let known = known.entry(text(&finding["name"])).or_default();
        known.insert(fault);
    }
    known
}

fn wait_until_in_force(ns: &Namespace<'_>) {
    eventually("the policies are in force", || {
        let probe = manifest::pki("probe", &json!({"serviceName": "web", "duration": "1h"}));
        ns.installed.api.dry_run(&ns.name, &probe).ok()
    });
}

fn policies(namespace: &str) -> [Value; 3] {
    let wide = json!({
        "namespaces": { "names": [namespace, "other"], "selector": { "matchLabels": { "stage": "live" } } },
        "serviceNames": ["web", "{namespace}-*", "db-*"],
        "dnsNames": ["*.example.com", "*.{namespace}.example.org", "www.example.net"],
        "ipAddresses": ["10.0.0.0/8", "2001:db8::/32"],
        "uris": ["spiffe://example.com/ns/{namespace}/*"],
        "maxDuration": "2160h"
    });
    let narrow = json!({
        "namespaces": { "names": ["agree*"] },
        "serviceNames": ["web", "cache"],
        "podNames": false,
        "privateKeys": [{ "algorithm": "ECDSA", "minSize": 384 }, { "algorithm": "RSA", "minSize": 3072 }],
        "usages": ["server auth"],
        "validations": [{ "expression": "pki.spec.dnsNames.size() == 0 && namespaceObject.metadata.labels.stage == 'live'",
            "message": "no further names here" }]
    });
    let elsewhere = json!({ "namespaces": { "names": ["elsewhere"] }, "serviceNames": ["billing", "{namespace}-x"] });
    [
        manifest::policy("wide", &wide),
        manifest::policy("narrow", &narrow),
        manifest::policy("elsewhere", &elsewhere),
    ]
}

/// A Pki with some fields, good and bad, of types that the schema takes.
fn pki(namespace: &str, number: usize, random: &mut Random) -> Value {
    let mut spec = json!({ "serviceName": random.pick(&SERVICES).replace("{ns}", namespace) });
    let list = |from: &[&str], random: &mut Random| -> Value {
        let many = 1 + random.below(2);
        (0..many)
            .map(|_| random.pick(from).replace("{ns}", namespace))
            .collect::<Vec<_>>()
            .into()
    };
    let mut field = |name: &str, value: Value, random: &mut Random| {
        if random.below(8) == 0 {
            spec[name] = value;
        }
    };
    field(
        "commonName",
        json!(random.pick(&COMMON_NAMES).replace("{ns}", namespace)),
        random,
    );
    field("dnsNames", list(&DNS_NAMES, random), random);
    field("ipAddresses", list(&ADDRESSES, random), random);
    field("uris", list(&URIS, random), random);
    field(
        "usages",
        json!([random.pick(&["server auth", "client auth"])]),
        random,
    );
    field(
        "duration",
        json!(random.pick(&["1h", "720h", "721h", "2160h", "999999h", "1h30m"])),
        random,
    );
    field(
        "renewBefore",
        json!(random.pick(&["1m", "10h", "700h", "2000h"])),
        random,
    );
    field("renewBeforePercentage", json!(1 + random.below(90)), random);
    field("privateKey", private_key(random), random);
    field(
        "secretTemplate",
        json!({
            "labels": { random.pick(&["team", "a b", "box.com/x", "example.com/y"]): random.pick(&["", "a", "a b", "-"]) },
            "annotations": { random.pick(&["note", "kubernetes.io/z", "/", "x.k8s.io/a"]): "any text" }
        }),
        random,
    );
    let pki = manifest::pki(&format!("pki-{number:04}"), &spec);
    manifest::in_namespace(namespace, pki)
}

fn private_key(random: &mut Random) -> Value {
    let mut key = json!({ "algorithm": random.pick(&["ECDSA", "ECDSA", "Ed25519", "RSA"]) });
    if random.below(2) == 0 {
        key["size"] = json!([256, 384, 2048, 3072, 512][random.below(5)]);
    }
    if random.below(3) == 0 {
        key["encoding"] = json!(random.pick(&["PKCS8", "PKCS1", "SEC1"]));
    }
    key
}

const SERVICES: [&str; 10] = [
    "web",
    "web",
    "web",
    "cache",
    "{ns}-api",
    "db-1",
    "billing",
    "wbe",
    "other-x",
    "elsewhere-x",
];
const COMMON_NAMES: [&str; 6] = [
    "web",
    "web.{ns}.svc",
    "cache",
    "api.example.com",
    "WEB",
    "victim.svc",
];
const DNS_NAMES: [&str; 23] = [
    "web-0.web.{ns}.svc",
    "*.WEB.{ns}.svc.cluster.local.",
    "cache-0.cache.{ns}.svc",
    "a.b.web.{ns}.svc",
    "*.{ns}.svc",
    "a.b.example.com",
    "bücher.example.com",
    "kubernetes.default.svc.corp.example",
    "*.default",
    "api.example.com",
    "API.Example.COM.",
    "*.example.com",
    "a.{ns}.example.org",
    "www.example.net",
    "www.example.org",
    "db.victim.svc",
    "localhost",
    "*",
    "a..b",
    "web.{ns}.svc",
    "xn--a.example.com",
    "ümlaut.example.com",
    "10.0.0.1",
];
const ADDRESSES: [&str; 12] = [
    "127.0.0.1",
    "64:ff9b::169.254.169.254",
    "2002:a60:1::1",
    "10.1.2.3",
    "10.1.2.4",
    "192.0.2.1",
    "2001:db8::1",
    "2001:DB8:0::2",
    "::ffff:10.1.2.3",
    "10.1",
    "fe80::1%eth0",
    "::",
];
const URIS: [&str; 9] = [
    "https://localhost/a",
    "https://0x7f.1/a",
    "spiffe://example.com/ns/{ns}/web",
    "SPIFFE://Example.com/ns/{ns}/web",
    "spiffe://example.com/ns/other/web",
    "https://example.com",
    "spiffe://example.com/a/../b",
    "urn:x:y",
    "no uri",
];
