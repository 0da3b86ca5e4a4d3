//! A change of a policy judges every Pki anew, both ways, without a restart.

use crate::harness::{SHARED, eventually};
use pki_cluster::testing::manifest;

#[test]
fn a_policy_that_is_made_edited_or_deleted_judges_what_is_stored_anew() {
    // A name that no policy of another test allows in another namespace.
    let ns = SHARED.namespace("reload");
    ns.permit(&["quartz", "cache"], "");
    ns.apply_pki("quartz", r#"{"serviceName": "quartz", "duration": "48h"}"#);
    ns.wait_until_ready("quartz");

    ns.withdraw();
    let message = ns.wait_until_refused("quartz", "PkiServiceNameError");
    assert_eq!(
        message,
        "ServiceName: quartz in pki: quartz is not found in allowedNames: [app1 app2]; use one of these names, or ask the \
         platform team to allow yours in PkiPolicy pki-operator-allowed-names"
    );

    ns.permit(&["quartz", "cache"], "");
    ns.wait_until_ready("quartz");

    ns.permit(&["quarts", "cache"], "");
    let message = ns.wait_until_refused("quartz", "PkiServiceNameError");
    assert!(
        message.ends_with("allowedNames: [app1 app2 cache quarts]; did you mean \"quarts\"?"),
        "{message}"
    );

    ns.permit(&["quarts", "quartz"], r#", "maxDuration": "24h""#);
    let message = ns.wait_until_refused("quartz", "PkiDurationError");
    assert!(
        message.contains(&format!("PkiPolicy {} permits at most 24h", ns.name)),
        "{message}"
    );
    ns.permit(&["quarts", "quartz"], "");
    ns.wait_until_ready("quartz");
    ns.withdraw();
}

#[test]
fn the_secret_of_a_refused_pki_stays_as_it_is_and_is_kept_when_the_policy_comes_back() {
    let ns = SHARED.namespace("kept");
    ns.permit(&["db"], "");
    ns.apply_pki("db", r#"{"serviceName": "db"}"#);
    let issued = ns.wait_until_ready("db")["status"].clone();
    let secret = ns.get("secret", "db").unwrap();
    ns.withdraw();
    ns.wait_until_refused("db", "PkiServiceNameError");
    ns.barrier();
    assert_eq!(ns.get("secret", "db").unwrap(), secret);
    let refused = ns.get("pki", "db").unwrap()["status"].clone();
    for field in ["serialNumber", "notAfter", "renewalTime"] {
        assert_eq!(
            refused[field], issued[field],
            "the certificate in use stays known"
        );
    }
    ns.permit(&["db"], "");
    assert_eq!(
        ns.wait_until_ready("db")["status"]["serialNumber"],
        issued["serialNumber"]
    );
    assert_eq!(ns.get("secret", "db").unwrap(), secret);
    ns.withdraw();
}

#[test]
fn a_change_that_does_not_concern_a_pki_writes_nothing_for_it() {
    let (ns, other) = (SHARED.namespace("bystander"), SHARED.namespace("concerned"));
    ns.apply_pki("app1-pki", r#"{"serviceName": "app1"}"#);
    ns.wait_until_ready("app1-pki");
    ns.barrier();
    let before = ns.operator_writes();
    other.permit(&["db"], "");
    other.withdraw();
    ns.barrier();
    assert_eq!(ns.operator_writes(), before);
}

#[test]
fn a_policy_follows_the_labels_of_the_namespaces_it_selects() {
    let ns = SHARED.namespace("labels");
    let spec = serde_json::json!({"serviceNames": ["db"],
        "namespaces": {"selector": {"matchLabels": {"example.com/stage": ns.name}}}});
    ns.apply_object(&manifest::policy(&ns.name, &spec));
    let label = |value: Option<&str>| ns.label("example.com/stage", value);
    let db = r#"{"serviceName": "db"}"#;
    ns.try_apply_pki("db", db).unwrap_err();
    label(Some(&ns.name));
    eventually("the label is known", || ns.try_apply_pki("db", db).ok());
    ns.wait_until_ready("db");
    label(None);
    ns.wait_until_refused("db", "PkiServiceNameError");
    label(Some(&ns.name));
    ns.wait_until_ready("db");

    // In one manifest, so that the Pki comes moments after its namespace.
    let manifest = |namespace: &str| {
        format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}, labels: {{example.com/stage: {}}}}}}}\n---\n\
             {{apiVersion: box.com/v1, kind: Pki, metadata: {{name: db, namespace: {namespace}}}, spec: {{serviceName: db}}}}\n",
            ns.name
        )
    };
    for number in 0..10 {
        let namespace = format!("{}-{number}", ns.name);
        let apply = ["apply", "--filename=-"];
        SHARED.kubectl_with(&manifest(&namespace), &apply).unwrap();
    }
    ns.withdraw();
}
