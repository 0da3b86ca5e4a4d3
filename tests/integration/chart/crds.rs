//! `pki-operator crd --apply`, with no more than what the chart's hook may do.

use crate::harness::{Hook, Installed, arena, chart_before, eventually, operator_binary};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use pki_cluster::install::{self, RELEASE};
use pki_operator::api;
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::process::{Command, Output};

const OURS: &str = env!("CARGO_PKG_VERSION");

#[test]
fn definitions_of_the_chart_before_become_ours_and_objects_stay_as_they_are() {
    let arena = arena();
    let crds = Definitions::of(&arena);
    let mut before = of_the_chart_before();
    // A field that is no longer in the schema goes, also one that the chart did not add.
    before[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        ["old"] = json!({"type": "string"});
    crds.replace(&before).unwrap();
    arena.without_webhooks();
    let ns = arena.namespace("crds");
    ns.apply_pki("full", &full_spec().to_string());
    ns.apply_pki("short", r#"{"serviceName": "app1", "old": "kept"}"#);
    let stored = |name: &str| ns.get("pki", name).unwrap();
    let full = stored("full");
    assert_eq!(full["spec"], full_spec(), "the schema has every field");
    assert_eq!(stored("short")["spec"]["old"], "kept");

    let said = said(&crds.apply());
    for (name, ours) in ours() {
        let sentence = format!("CustomResourceDefinition {name}: updated to version {OURS}\n");
        assert!(said.contains(&sentence), "{said}");
        let live = crds.live(name);
        // As numbers of a type: the API server writes 90 where we write 90.0.
        let schema = |crd: &Value| {
            let crd = CustomResourceDefinition::deserialize(crd).unwrap();
            crd.spec.versions[0].schema.clone()
        };
        assert!(schema(&live) == schema(&ours), "{name}: {live}");
        assert_eq!(
            live["metadata"]["labels"]["app.kubernetes.io/version"],
            OURS
        );
    }
    assert_eq!(stored("full"), full);
    assert_eq!(stored("short")["spec"], json!({"serviceName": "app1"}));

    for (name, _) in ours() {
        let live = crds.live(name);
        let entries = live["metadata"]["managedFields"].as_array().unwrap();
        let mut managers = entries.iter().map(|entry| entry["manager"].as_str());
        let is_known = |manager| matches!(manager, Some("helm" | "kube-apiserver"));
        assert!(managers.all(is_known), "stands in Helm's way: {entries:?}");
    }

    let again = self::said(&crds.apply());
    assert_eq!(
        again
            .matches(&format!(": applied again, of version {OURS}\n"))
            .count(),
        2,
        "{again}"
    );
}

#[test]
fn definitions_that_are_newer_stay_and_so_does_what_only_they_know() {
    let arena = arena();
    let crds = Definitions::of(&arena);
    let mut newer = ours().map(|(_, crd)| crd);
    for crd in &mut newer {
        crd["metadata"]["labels"]["app.kubernetes.io/version"] = json!("99.0.0");
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            ["future"] = json!({"type": "string"});
    }
    crds.replace(&newer).unwrap();
    arena.without_webhooks();
    let ns = arena.namespace("crds");
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1", "future": "kept"}"#);
    let before = (crds.live("pkis.box.com"), ns.get("pki", "app1-pki"));

    let said = said(&crds.apply());
    let line = format!(": left as it is: of version 99.0.0, newer than {OURS}\n");
    assert_eq!(said.matches(&line).count(), 2, "{said}");
    let after = (crds.live("pkis.box.com"), ns.get("pki", "app1-pki"));
    assert_eq!(after, before);
    assert_eq!(after.1.unwrap()["spec"]["future"], "kept");
}

#[test]
fn objects_that_we_could_not_read_keep_all_definitions_as_they_are() {
    let arena = arena();
    let crds = Definitions::of(&arena);
    let mut other = of_the_chart_before();
    let version = &mut other[1]["spec"]["versions"][0];
    version["name"] = json!("v1alpha1");
    crds.replace(&other).unwrap();
    let before = [crds.live("pkis.box.com"), crds.live("pkipolicies.box.com")];

    let output = crds.apply();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    let sentence = "CustomResourceDefinition pkipolicies.box.com: objects are stored as v1alpha1, which this version cannot read: \
                    install a version that has both, ";
    assert!(said.contains(sentence), "{said}");
    let after = [crds.live("pkis.box.com"), crds.live("pkipolicies.box.com")];
    assert_eq!(after, before);
}

#[test]
fn definitions_that_are_missing_are_made_and_the_hook_may_do_no_more() {
    let arena = arena();
    let crds = Definitions::of(&arena);
    crds.replace(&[]).unwrap();
    let said = said(&crds.apply());
    let line = format!(": created, of version {OURS}\n");
    assert_eq!(said.matches(&line).count(), 2, "{said}");
    let ns = arena.namespace("crds");
    arena.without_webhooks();
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);

    let account = format!("system:serviceaccount:{RELEASE}:{ACCOUNT}");
    let crds = ("apiextensions.k8s.io", "customresourcedefinitions");
    for (may, verb, (group, resource), name) in [
        (true, "patch", crds, "pkis.box.com"),
        (false, "delete", crds, "pkis.box.com"),
        (false, "list", crds, ""),
        (false, "patch", crds, "pods.example.com"),
        (false, "create", crds, ""),
        (false, "get", ("box.com", "pkis"), ""),
        (false, "get", ("", "secrets"), ""),
    ] {
        let action = json!({"verb": verb, "group": group, "resource": resource, "name": name, "namespace": RELEASE});
        let is_permitted = arena.api.is_permitted(&account, &action).unwrap();
        assert_eq!(is_permitted, may, "{action}");
    }
}

/// What the chart calls the account of its hook.
const ACCOUNT: &str = "pki-operator-crds";

/// The definitions of a cluster, which are ours again in the end.
struct Definitions<'a> {
    installed: &'a Installed,
    hook: Hook<'a>,
}

impl<'a> Definitions<'a> {
    fn of(installed: &'a Installed) -> Self {
        let hook = Hook::of(installed, "templates/crds-hook.yaml", ACCOUNT);
        Self { installed, hook }
    }

    /// With no more than the account of the chart's hook may do.
    fn apply(&self) -> Output {
        let mut operator = Command::new(operator_binary());
        operator.args(["crd", "--apply"]);
        operator.env("KUBECONFIG", &self.hook.kubeconfig);
        operator.output().expect("it runs")
    }

    fn live(&self, name: &str) -> Value {
        let get = ["get", "crd", name, "--output=json", "--show-managed-fields"];
        let printed = self.installed.kubectl(&get).expect("there is one");
        serde_json::from_str(&printed).expect("JSON")
    }

    /// Puts these in the place of those that there are. All objects go.
    fn replace(&self, crds: &[Value]) -> anyhow::Result<()> {
        self.installed.delete_definitions()?;
        for crd in crds {
            let create = ["create", "--filename=-", "--field-manager=helm"];
            self.installed.kubectl_with(&crd.to_string(), &create)?;
        }
        if !crds.is_empty() {
            eventually("the definitions are established", || {
                let definitions = self.installed.api.list("crd", "", "", "").ok()?;
                let ours = definitions
                    .iter()
                    .filter(|it| it["spec"]["group"] == "box.com");
                (ours.filter(|it| is_established(it)).count() == crds.len()).then_some(())
            });
        }
        Ok(())
    }
}

impl Drop for Definitions<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.replace(&api::definitions()) {
            // To panic while a test does would end the others as well.
            eprintln!("the cluster is of no more use: {error:#}");
        }
    }
}

fn is_established(crd: &Value) -> bool {
    let conditions = crd["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|it| it["type"] == "Established" && it["status"] == "True")
}

/// By name.
fn ours() -> [(&'static str, Value); 2] {
    let [pkis, policies] = api::definitions();
    [("pkis.box.com", pkis), ("pkipolicies.box.com", policies)]
}

fn of_the_chart_before() -> [Value; 2] {
    let mut tar = Command::new("tar");
    tar.arg("-xzOf").arg(chart_before());
    tar.arg("pki-operator/crds/pkis.yaml");
    let yaml = install::run(&mut tar).expect("it is unpacked");
    let crds: Vec<Value> = serde_saphyr::from_multiple(&yaml).expect("it is YAML");
    crds.try_into().expect("there are two")
}

fn said(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    said
}

/// Every field that there is.
fn full_spec() -> Value {
    let keystore = json!({"passwordSecretRef": {"name": "password", "key": "password"}});
    json!({
        "serviceName": "app1", "commonName": "app1", "dnsNames": ["app1.example.com"], "ipAddresses": ["192.0.2.1"],
        "uris": ["spiffe://example.com/app1"], "secretName": "app1-tls", "duration": "720h", "renewBefore": "240h",
        "usages": ["server auth", "client auth"],
        "privateKey": {"algorithm": "ECDSA", "size": 384, "encoding": "PKCS8", "rotationPolicy": "Never"},
        "secretTemplate": {"labels": {"team": "a"}, "annotations": {"example.com/note": "1"}},
        "outputs": {"combinedPem": true, "derKey": true, "pkcs12": keystore, "jks": keystore},
    })
}
