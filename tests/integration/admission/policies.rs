//! Policies as platform teams meet them: what is refused, what is warned of, and what their status
//! tells.

use crate::harness::{Namespace, SHARED, arena, eventually};
use pki_cluster::testing::manifest;
use serde_json::{Value, json};
use std::process::Output;

/// `kubectl apply` of a policy for one namespace, with warnings and all.
fn apply(ns: &Namespace<'_>, spec: &Value) -> Output {
    let mut spec = spec.clone();
    spec["namespaces"] = json!({ "names": [ns.name] });
    let policy = manifest::policy(&ns.name, &spec);
    let path = SHARED.cluster.dir().join(format!("{}.json", ns.name));
    std::fs::write(&path, policy.to_string()).expect("a file is written");
    let mut kubectl = SHARED.cluster.kubectl();
    // As `permit` does, or kubectl would warn of the change from one way to the other.
    kubectl
        .args(["apply", "--server-side", "--filename"])
        .arg(path);
    kubectl.output().expect("kubectl runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_policy_whose_rules_can_never_match_is_refused_with_each_of_them() {
    let ns = SHARED.namespace("faulty");
    let spec = json!({
        "serviceNames": ["app1", "{ns}-*", "-x"],
        "dnsNames": ["*.svc"],
        "ipAddresses": ["10.1.2.3/8"],
        "validations": [{ "expression": "pki.spec.servicename == 'a'", "message": "no" }]
    });
    let output = apply(&ns, &spec);
    assert!(!output.status.success());
    let said = said(&output);
    let name = &ns.name;
    for line in [
        format!("The PkiPolicy \"{name}\" is invalid: "),
        r#"* spec.serviceNames[1]: "{ns}-*" has an unknown placeholder: write {namespace} for the namespace of the Pki"#.into(),
        r#"* spec.serviceNames[2]: "-x" can never match a service name"#.into(),
        r#"* spec.dnsNames[0]: "*.svc" is a name inside the cluster, which no policy can permit"#.into(),
        r#"* spec.ipAddresses[0]: "10.1.2.3/8" is not the beginning of a range: write 10.0.0.0/8"#.into(),
        "* spec.validations[0].expression: pki.spec has no field servicename: the fields are commonName, ".into(),
    ] {
        assert!(said.contains(&line), "{line} is not in {said}");
    }
}

#[test]
fn a_warning_names_the_pkis_that_a_changed_policy_no_longer_permits() {
    let ns = SHARED.namespace("narrowed");
    ns.permit(&["web", "db"], "");
    for service in ["web", "db"] {
        ns.apply_pki(service, &format!(r#"{{"serviceName": "{service}"}}"#));
        ns.wait_until_ready(service);
    }
    let narrowed = apply(&ns, &json!({ "serviceNames": ["web"] }));
    assert!(narrowed.status.success(), "{narrowed:?}");
    let name = &ns.name;
    assert_eq!(
        said(&narrowed),
        format!(
            "Warning: 1 Pki is no longer permitted: {name}/db; it keeps its Secret, but is not renewed\n"
        )
    );
    ns.wait_until_refused("db", "PkiServiceNameError");

    let mut kubectl = SHARED.cluster.kubectl();
    let deleted = kubectl
        .args(["delete", "pkipolicy", name])
        .output()
        .unwrap();
    assert!(deleted.status.success(), "{deleted:?}");
    assert_eq!(
        said(&deleted),
        format!(
            "Warning: 1 Pki is no longer permitted: {name}/web; it keeps its Secret, but is not renewed\n"
        )
    );
}

#[test]
fn a_policy_counts_the_pkis_it_admits_and_those_that_no_policy_admits() {
    let ns = SHARED.namespace("counted");
    ns.permit(&["web", "db"], "");
    for service in ["web", "db"] {
        ns.apply_pki(service, &format!(r#"{{"serviceName": "{service}"}}"#));
    }
    let row = || {
        let printed = SHARED.kubectl(&[
            "get",
            "pkipolicy",
            &ns.name,
            "--no-headers",
            "--output=wide",
        ]);
        printed
            .unwrap()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let counted = |admitted: u64, refused: u64| {
        let counts = json!([admitted, refused]);
        eventually(
            &format!("{admitted} are admitted and {refused} refused"),
            || {
                let status = ns.get("pkipolicy", &ns.name)?["status"].take();
                (json!([status["admitted"], status["refused"]]) == counts).then_some(())
            },
        );
        let (row, cells) = (row(), [admitted, refused].map(|count| count.to_string()));
        assert!(row.windows(2).any(|some| *some == cells), "{row:?}");
    };
    counted(2, 0);
    apply(&ns, &json!({ "serviceNames": ["web"] }));
    counted(1, 1);
    let policy = || ns.get("pkipolicy", &ns.name).unwrap();
    let status = policy()["status"].take();
    assert_eq!(status["conditions"][0]["type"], "Valid");
    assert_eq!(status["conditions"][0]["status"], "True");
    ns.delete("pki", "db");
    counted(1, 0);
    let version = || policy()["metadata"]["resourceVersion"].take();
    let settled = version();
    ns.barrier();
    assert_eq!(version(), settled, "what is the same is not written again");
}

#[test]
fn a_rule_in_cel_is_reported_in_the_words_of_the_platform_team() {
    let ns = SHARED.namespace("cel");
    let more = r#", "dnsNames": ["*.example.com"], "validations": [{
        "expression": "pki.spec.dnsNames.all(name, !name.startsWith('admin.'))",
        "message": "names that begin with admin are for the platform team: choose another"}, {
        "expression": "namespaceObject.metadata.labels['kubernetes.io/metadata.name'] == pki.metadata.namespace",
        "message": "this is true of every namespace"}]"#;
    ns.permit(&["web"], more);
    ns.apply_pki(
        "good",
        r#"{"serviceName": "web", "dnsNames": ["api.example.com"]}"#,
    );
    let refusal = ns.kubectl_apply_pki(
        "bad",
        r#"{"serviceName": "web", "dnsNames": ["ADMIN.example.com"]}"#,
    );
    let name = &ns.name;
    assert_eq!(
        refusal.unwrap_err().to_string(),
        format!(
            "The Pki \"bad\" is invalid: spec: names that begin with admin are for the platform team: choose another (PkiPolicy {name})"
        )
    );
    ns.wait_until_ready("good");
    // While a policy reads labels, a namespace that there is not is waited for, which is no help to
    // the tests of odd requests.
    ns.withdraw();
}

#[test]
fn the_faults_of_an_unchecked_policy_are_in_its_status() {
    let arena = arena();
    let _operator = arena.first_replica("operator-unchecked", &[]).unwrap();
    arena.without_webhooks();
    let ns = arena.namespace("unchecked");
    let spec = json!({ "serviceNames": ["web", "-x"],
        "validations": [{ "expression": "pki.", "message": "m" }] });
    let policy = manifest::policy(&ns.name, &spec);
    // The API server goes on asking the webhook for a moment.
    eventually("the policy is stored", || arena.api.apply("", &policy).ok());
    let problem = eventually("the status has the message", || {
        let policy = ns.get("pkipolicy", &ns.name)?;
        let mut conditions = policy["status"]["conditions"].as_array()?.iter();
        let failed = conditions.find(|condition| condition["status"] == "False")?;
        failed["message"].as_str().map(str::to_owned)
    });
    assert!(
        problem.contains(r#"spec.serviceNames[1]: "-x" can never match"#),
        "{problem}"
    );
    assert!(
        problem.contains("spec.validations[0].expression: line 1, column 5"),
        "{problem}"
    );
    ns.delete("pkipolicy", &ns.name);
}
