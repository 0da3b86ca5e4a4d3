//! Names of pods below a Service, and refusals of names that look like permitted ones.

use crate::harness::{Namespace, SHARED, file};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use webpki::EndEntityCert;

/// The faults that `kubectl apply` prints, each on a line.
fn refusal(ns: &Namespace<'_>, spec: &Value) -> Vec<String> {
    let refused = ns.kubectl_apply_pki("db-pki", &spec.to_string());
    let refused = refused.expect_err(&spec.to_string()).to_string();
    let (_, faults) = refused
        .split_once("The Pki \"db-pki\" is invalid: ")
        .unwrap_or_else(|| panic!("{refused}"));
    let lines = faults.trim_start().lines();
    lines
        .map(|line| line.trim_start_matches("* ").to_owned())
        .collect()
}

/// Whether a TLS client that dials this name accepts the certificate in a Secret.
fn is_accepted(secret: &Value, name: &str) -> bool {
    let certificate = CertificateDer::from_pem_slice(file(secret, "tls.crt").as_bytes()).unwrap();
    let leaf = EndEntityCert::try_from(&certificate).unwrap();
    let name = ServerName::try_from(name).unwrap();
    leaf.verify_is_valid_for_subject_name(&name).is_ok()
}

#[test]
fn a_clustered_database_has_the_names_of_its_members_and_nobody_elses() {
    let ns = SHARED.namespace("members");
    ns.permit(&["db"], "");
    let name = &ns.name;
    let names = [
        format!("db-0.db.{name}.svc"),
        format!("*.DB.{name}.svc.cluster.local."),
    ];
    let spec = json!({ "serviceName": "db", "dnsNames": names });
    ns.apply_pki("db-pki", &spec.to_string());
    ns.wait_until_ready("db-pki");
    let secret = ns.get("secret", "db-pki").unwrap();
    for (dialled, is_ours) in [
        ("db-0.db.{}.svc", true),
        ("db-7.db.{}.svc.cluster.local", true),
        ("db.{}.svc", true),
        ("db-1.db.{}.svc", false),
        ("a.db-0.db.{}.svc.cluster.local", false),
        ("web.{}.svc", false),
        ("db-0.db.victim.svc", false),
    ] {
        let dialled = dialled.replace("{}", name);
        assert_eq!(is_accepted(&secret, &dialled), is_ours, "{dialled}");
    }

    let spec = json!({ "serviceName": "db", "dnsNames": [
        format!("web-0.web.{name}.svc"), "db-0.db.victim.svc", format!("a.b.db.{name}.svc"), format!("*.*.db.{name}.svc")
    ]});
    assert_eq!(
        refusal(&ns, &spec),
        [
            format!(
                "spec.dnsNames[0]: \"web-0.web.{name}.svc\" is a name inside the cluster, which belongs to Service web of \
                 this namespace: write it into a Pki with serviceName: web; the certificate always includes db.{name}.svc"
            ),
            format!(
                "spec.dnsNames[1]: \"db-0.db.victim.svc\" is a name inside the cluster, which belongs to Service db of \
                 namespace victim: remove it; the certificate always includes db.{name}.svc"
            ),
            format!(
                "spec.dnsNames[2]: \"a.b.db.{name}.svc\" is not the name of a pod of the Service: write one label \
                 that does not begin with xn-- before db.{name}.svc, or '*' for all pods: *.db.{name}.svc"
            ),
            format!(
                "spec.dnsNames[3]: \"*.*.db.{name}.svc\" is not a DNS name: write labels of letters, digits and '-' separated \
                 by dots, for example api.example.com; '*' can only be the whole first label, as in *.example.com"
            ),
        ]
    );
}

#[test]
fn a_policy_keeps_the_names_of_pods_and_says_so() {
    let ns = SHARED.namespace("no-members");
    ns.permit(&["db"], r#", "podNames": false"#);
    let name = &ns.name;
    let spec = json!({ "serviceName": "db", "dnsNames": [format!("*.db.{name}.svc")] });
    let said = format!(
        "spec.dnsNames[0]: \"*.db.{name}.svc\" is the name of a pod of the Service, and PkiPolicy {name} has podNames: false; \
         remove it, or ask the platform team to permit it"
    );
    assert_eq!(refusal(&ns, &spec), [said]);
    let policy = ns.get("pkipolicy", name).unwrap();
    assert_eq!(policy["spec"]["podNames"], false);
    // A default is not stored.
    ns.permit(&["db"], "");
    assert_eq!(
        ns.get("pkipolicy", name).unwrap()["spec"].get("podNames"),
        None
    );
    ns.apply_pki("db-pki", &spec.to_string());
    ns.wait_until_ready("db-pki");
}

#[test]
fn a_refusal_says_what_makes_the_difference_to_what_looks_alike() {
    let ns = SHARED.namespace("alike");
    let name = &ns.name;
    ns.permit(
        &["{namespace}-*", "db"],
        r#", "dnsNames": ["*.example.com"], "ipAddresses": ["192.0.2.0/25"], "uris": ["https://example.com/a/*"]"#,
    );
    let spec = json!({
        "serviceName": "db",
        "dnsNames": [
            "a.b.example.com", "xn--bcher-kva.example.com", "bücher.example.com", "www.example.com:443", format!("db-0.db.{name}"),
        ],
        "ipAddresses": ["192.0.2.200", "2001:db8::1", "192.0.2.0/25"],
        "uris": ["https://example.com:8443/a/b", "https://example.com/a/b/"]
    });
    let remedy = "remove it, or ask the platform team to permit it";
    let said = refusal(&ns, &spec);
    for (field, value, why) in [
        (
            "dnsNames[2]",
            "bücher.example.com",
            "'ü' is U+00FC, which is not ASCII: write xn--bcher-kva.example.com, which the policy must contain",
        ),
        (
            "dnsNames[3]",
            "www.example.com:443",
            "a name has no port: write www.example.com",
        ),
        (
            "ipAddresses[2]",
            "192.0.2.0/25",
            "it is a range: write single addresses",
        ),
        (
            "uris[1]",
            "https://example.com/a/b/",
            "there is a '/' at its end",
        ),
        (
            "dnsNames[0]",
            "a.b.example.com",
            "'*' matches exactly one label: *.example.com has 3 labels, and this name has 4",
        ),
        (
            "dnsNames[1]",
            "xn--bcher-kva.example.com",
            "'*' matches no internationalized label (xn--): the policy must contain xn--bcher-kva",
        ),
        (
            "dnsNames[4]",
            &format!("db-0.db.{name}"),
            &format!("write db-0.db.{name}.svc for a name inside the cluster"),
        ),
        (
            "ipAddresses[0]",
            "192.0.2.200",
            "192.0.2.0/25 is 192.0.2.0 to 192.0.2.127",
        ),
        (
            "ipAddresses[1]",
            "2001:db8::1",
            "it is an IPv6 address, and the permitted ones are IPv4",
        ),
        (
            "uris[0]",
            "https://example.com:8443/a/b",
            "https://example.com/a/* does not match, because the ports differ",
        ),
    ] {
        let begin = format!("spec.{field}: \"{value}\" is not ");
        let ends = [format!("; {why}"), format!("; {why}; {remedy}")];
        let is_said =
            |line: &&String| line.starts_with(&begin) && ends.iter().any(|end| line.ends_with(end));
        assert_eq!(
            said.iter().filter(is_said).count(),
            1,
            "{field} in {said:#?}"
        );
    }
    assert_eq!(said.len(), 10, "{said:#?}");

    let service = refusal(&ns, &json!({ "serviceName": name }));
    let words = format!("; {name}-* allows names such as {name}-x; ");
    assert!(service[0].contains(&words), "{service:#?}");
}
