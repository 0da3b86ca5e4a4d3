//! Whatever a team writes, however generous a policy is, and whoever is there to judge it, no
//! certificate is for the service of another namespace.

use crate::harness::{Installed, Namespace, RESERVED, SHARED, arena, eventually, file, openssl};
use pki_cluster::install::Operator;
use pki_cluster::testing::manifest;
use pki_operator::policy::reason_of;
use serde::Deserialize;
use serde_json::{Value, json};

/// As much as a policy can permit.
const GENEROUS: &str = r#", "dnsNames": ["*.default", "*.local", "*.example.com", "*.*.com"],
    "ipAddresses": ["0.0.0.0/0", "::/0"], "uris": ["spiffe://example.com/*"]"#;

/// The Service of the API server itself.
const API_SERVER: &str = r#"{"serviceName": "kubernetes"}"#;
const API_SERVER_IS_NOBODYS: &str =
    r#"spec.serviceName: "kubernetes" in namespace default is the service of the API server"#;

/// Patterns that a platform team might write without thinking of names inside the cluster. They are
/// refused at apply, but may be there since before the operator was. (Others, such as `*.*`, not
/// even the schema takes.)
const INSIDE: [&str; 10] = [
    "kubernetes.default",
    "kubernetes.default.svc.corp.example",
    "*.svc",
    "*.*.svc",
    "*.*.*.*.svc",
    "*.*.svc.cluster.local",
    "*.cluster.local",
    "localhost",
    "*.localhost",
    "*.*.pod.cluster.local",
];

const TABLE: &str = include_str!("spoofing/table.yaml");

/// Who refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
enum Judge {
    /// The schema.
    Schema,
    /// The rule book, whatever policies say.
    Nature,
    /// A policy, generous as it is.
    Policy,
}
use Judge::{Nature, Policy, Schema};

/// Attempts of one kind, as the table has them.
#[derive(Deserialize)]
struct Kind {
    field: String,
    judge: Judge,
    said: String,
    values: Vec<String>,
}

/// An attempt, and what is said of it.
struct Row {
    field: String,
    value: String,
    judge: Judge,
    said: String,
}

impl Row {
    fn spec(&self) -> Value {
        let mut spec = json!({ "serviceName": "app1" });
        spec[&self.field] = match self.field.as_str() {
            "serviceName" | "commonName" => json!(self.value),
            _ => json!([self.value]),
        };
        spec
    }

    /// Whether this tells where the fault is, and which rule it breaks.
    fn is_told_in(&self, words: &str) -> bool {
        words.contains(&format!("spec.{}", self.field)) && words.contains(&self.said)
    }
}

/// Attempts of a team in this namespace.
fn table(evil: &str) -> Vec<Row> {
    let (label, name) = ("a".repeat(64), "a.".repeat(127));
    let fill = |value: &str| {
        let value = value.replace("{evil}", evil);
        value.replace("{64}", &label).replace("{254}", &name)
    };
    let kinds: Vec<Kind> = serde_saphyr::from_str(TABLE).expect("a table");
    let mut rows = Vec::new();
    for kind in &kinds {
        rows.extend(kind.values.iter().map(|value| Row {
            field: kind.field.clone(),
            value: fill(value),
            judge: kind.judge,
            said: kind.said.clone(),
        }));
    }
    rows
}

/// A replica that knows the API server's address, as in a pod, where all that could permit
/// something is in force.
fn start(ns: &Namespace<'_>) -> Operator {
    let arena = ns.installed;
    let service = arena.api.get("service", "default", "kubernetes");
    let service = service.unwrap().expect("Kubernetes makes it");
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    assert_eq!(address, RESERVED[0]);
    let spec = json!({
        "namespaces": { "names": [ns.name, "default"] }, "serviceNames": ["*"], "dnsNames": INSIDE,
        "ipAddresses": ["127.0.0.1", "169.254.169.254", "::1"], "uris": ["https://localhost/*", "https://127.0.0.1/*"],
    });
    ns.apply_object(&manifest::policy(&format!("{}-inside", ns.name), &spec));
    let operator = arena
        .first_replica("operator-1", &["--api-server-address", address])
        .unwrap();
    ns.permit(&["*", "app1"], GENEROUS);
    operator
}

fn specs(rows: &[Row]) -> Vec<Value> {
    rows.iter().map(Row::spec).collect()
}

/// A Pki that is permitted, which comes after all that is not.
fn expect_that_the_good_alone_gets_a_secret(ns: &Namespace<'_>) {
    let good =
        r#"{"serviceName": "app1", "dnsNames": ["www.example.com"], "ipAddresses": ["10.1.2.3"]}"#;
    ns.apply_pki("good", good);
    ns.wait_until_ready("good");
    let secrets = ns.list("secrets", "").into_iter();
    let secrets: Vec<_> = secrets
        .map(|mut it| it["metadata"]["name"].take())
        .collect();
    assert_eq!(secrets, ["good"]);
    let writes = ns.operator_writes();
    let secrets = writes
        .iter()
        .filter(|(write, _)| write.what.ends_with(" secrets"));
    assert_eq!(
        secrets.map(|(_, count)| count).sum::<usize>(),
        1,
        "{writes:?}"
    );
}

#[test]
fn nobody_gets_the_name_of_another_past_the_webhook() {
    let arena = arena();
    let ns = arena.namespace("evil");
    let _operator = start(&ns);
    let rows = table(&ns.name);
    let refusals = ns.create_all(&specs(&rows), false);
    for (index, row) in rows.iter().enumerate() {
        let said = refusals.get(&index).map_or("nothing", String::as_str);
        assert!(row.is_told_in(said), "{:?} is answered: {said}", row.spec());
    }
    let refusal = in_default(&arena).try_apply_pki("kubernetes", API_SERVER);
    let refusal = refusal.unwrap_err();
    assert!(refusal.contains(API_SERVER_IS_NOBODYS), "{refusal}");
    expect_that_the_good_alone_gets_a_secret(&ns);
}

fn in_default(arena: &Installed) -> Namespace<'_> {
    Namespace {
        installed: arena,
        name: "default".into(),
    }
}

#[test]
fn nobody_gets_the_name_of_another_while_there_is_no_webhook() {
    let arena = arena();
    let ns = arena.namespace("evil");
    let _operator = start(&ns);
    arena.without_webhooks();
    let rows = table(&ns.name);
    // The API server goes on asking for a moment.
    eventually("nobody is asked", || {
        let stored = |row: &&Row| row.judge != Schema;
        let dry_run = ns.create_all(&specs(&rows), true);
        (dry_run.len() + rows.iter().filter(stored).count() == rows.len()).then_some(())
    });
    let refusals = ns.create_all(&specs(&rows), false);
    let default = in_default(&arena);
    default.apply_pki("kubernetes", API_SERVER);
    let message = default.wait_until_refused("kubernetes", "PkiServiceNameError");
    assert!(message.contains(API_SERVER_IS_NOBODYS), "{message}");
    assert_eq!(default.get("secret", "kubernetes"), None);
    default.delete("pki", "kubernetes");
    let pkis = eventually("every one is judged", || {
        let pkis = ns.list("pkis", "");
        let is_judged = |pki: &Value| !pki["status"]["conditions"][0]["message"].is_null();
        pkis.iter().all(is_judged).then_some(pkis)
    });
    for (index, row) in rows.iter().enumerate() {
        let name = format!("p-{index}");
        let pki = pkis.iter().find(|pki| pki["metadata"]["name"] == *name);
        if row.judge == Schema {
            assert!(
                pki.is_none() && row.is_told_in(&refusals[&index]),
                "{:?}",
                row.spec()
            );
            continue;
        }
        let ready = &pki.expect("it is stored")["status"]["conditions"][0];
        assert_eq!(
            (&ready["type"], &ready["status"]),
            (&json!("Ready"), &json!("False"))
        );
        assert_eq!(ready["reason"], reason_of(&format!("spec.{}", row.field)));
        assert!(
            row.is_told_in(ready["message"].as_str().unwrap()),
            "{ready}"
        );
    }
    expect_that_the_good_alone_gets_a_secret(&ns);
}

#[test]
fn nobody_gets_the_name_of_another_past_the_api_server_alone_but_what_is_for_a_policy_to_say() {
    let arena = arena();
    arena.without_webhooks();
    arena.with_admission_policy();
    let ns = arena.namespace("evil");
    let rows = table(&ns.name);
    let refusals = ns.create_all(&specs(&rows), true);
    for (index, row) in rows.iter().enumerate() {
        match refusals.get(&index) {
            None => assert_eq!(row.judge, Policy, "{:?}", row.spec()),
            Some(said) => assert!(row.is_told_in(said), "{:?} is answered: {said}", row.spec()),
        }
    }
    let refusal = in_default(&arena).try_apply_pki("kubernetes", API_SERVER);
    let refusal = refusal.unwrap_err();
    assert!(refusal.contains(API_SERVER_IS_NOBODYS), "{refusal}");
}

#[test]
fn one_refusal_lists_all_faults() {
    let ns = SHARED.namespace("evil");
    ns.permit(&["app1"], GENEROUS);
    let rows = table(&ns.name);
    let names = rows
        .iter()
        .filter(|row| row.field == "dnsNames" && row.judge == Nature);
    let names: Vec<_> = names.map(|row| &row.value).collect();
    let spec = json!({ "serviceName": "app1", "dnsNames": names });
    let refusal = ns
        .kubectl_apply_pki("spoof", &spec.to_string())
        .unwrap_err()
        .to_string();
    for (index, name) in names.iter().enumerate() {
        let field = format!("* spec.dnsNames[{index}]: ");
        assert!(refusal.contains(&field), "{name:?} is not in {refusal}");
    }
    assert_eq!(refusal.lines().count(), names.len() + 1, "{refusal}");
}

/// Subject and names of the certificate in a Secret.
fn certified(ns: &Namespace<'_>, secret: &str) -> [String; 2] {
    let certificate = file(
        &ns.get("secret", secret).expect("there is a Secret"),
        "tls.crt",
    );
    let print = ["x509", "-noout", "-subject", "-ext", "subjectAltName"];
    let printed = openssl(&print, &certificate);
    let lines: Vec<_> = printed.lines().map(str::trim).collect();
    let [subject, _, names] = lines[..] else {
        panic!("{printed}")
    };
    [subject.replace(' ', ""), names.to_owned()]
}

#[test]
fn a_certificate_is_for_the_names_of_its_own_service_and_nothing_else() {
    let ns = SHARED.namespace("own");
    ns.permit(&["db"], GENEROUS);
    let name = &ns.name;
    let names = [
        "WWW.Example.com.",
        "www.example.com",
        &format!("db.{name}.svc"),
    ];
    let spec = json!({ "serviceName": "db", "dnsNames": names });
    ns.apply_pki("db", &spec.to_string());
    ns.wait_until_ready("db");
    let names = format!("DNS:db.{name}.svc, DNS:db.{name}.svc.cluster.local, DNS:www.example.com");
    let subject = format!("subject=CN=db.{name}.svc");
    assert_eq!(certified(&ns, "db"), [subject, names]);
}

#[test]
fn a_namespace_called_like_a_top_level_domain_has_no_names_on_the_internet() {
    SHARED.kubectl(&["create", "namespace", "com"]).unwrap();
    let ns = Namespace {
        installed: &SHARED,
        name: "com".into(),
    };
    ns.permit(&["google"], GENEROUS);
    let refusal = ns.kubectl_apply_pki(
        "spoof",
        r#"{"serviceName": "google", "dnsNames": ["google.com"]}"#,
    );
    let refusal = refusal.unwrap_err().to_string();
    assert!(
        refusal.contains("spec.dnsNames[0]: \"google.com\" is not permitted"),
        "{refusal}"
    );
    ns.apply_pki("google", r#"{"serviceName": "google"}"#);
    ns.wait_until_ready("google");
    let names = "DNS:google.com.svc, DNS:google.com.svc.cluster.local";
    assert_eq!(
        certified(&ns, "google"),
        ["subject=CN=google.com.svc", names]
    );
}
