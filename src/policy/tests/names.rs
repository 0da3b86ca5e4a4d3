//! The names of a certificate besides its service: none leads to another service.

use super::*;

#[test]
fn further_names_are_permitted_label_by_label_and_taken_once() {
    let names = ["*.{namespace}.example.com", "WWW.example.com."];
    let book = rules(&[json!({ "serviceNames": ["app1"], "dnsNames": names })]);
    let spec = json!({ "serviceName": "app1", "dnsNames": [
        "a.ns.example.com", "A.NS.Example.Com.", "www.example.com", "*.ns.example.com",
        "app1.ns.svc", "APP1.ns.svc.cluster.local."
    ]});
    assert_eq!(
        approve(&book, "ns", &spec).certificate.dns_names,
        [
            "app1.ns.svc",
            "app1.ns.svc.cluster.local",
            "a.ns.example.com",
            "www.example.com",
            "*.ns.example.com"
        ]
    );
    let stretched = |here| {
        format!(
            "; '*' matches exactly one label: *.ns.example.com has 4 labels, and this name has {here}"
        )
    };
    for (name, why) in [
        ("a.other.example.com", String::new()),
        ("a.b.ns.example.com", stretched(5)),
        ("ns.example.com", stretched(3)),
        ("example.com", String::new()),
        ("x.www.example.com", String::new()),
    ] {
        let refusal = refuse(
            &book,
            "ns",
            &json!({ "serviceName": "app1", "dnsNames": ["www.example.com", name] }),
        );
        assert_eq!(
            refusal,
            [format!(
                "spec.dnsNames[1]: \"{name}\" is not permitted: PkiPolicy policy-0 permits \
                 [*.ns.example.com www.example.com]{why}; remove it, or ask the platform team to permit it"
            )]
        );
    }
}

/// Names by which something else is reached, or that a client might take for one.
#[rustfmt::skip]
const SPOOFS: &[&str] = &[
    "db.victim.svc", "DB.Victim.SVC", "db.victim.svc.", "db.victim.SVC.cluster.LOCAL.",
    "db.victim", "db", "victim", "*.svc", "*.victim.svc", "*.victim.svc.cluster.local",
    "*.victim", "*", "*.*", "svc", "cluster.local", "*.cluster.local", "kubernetes",
    "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
    "localhost", "LOCALHOST.", "a.localhost", "10-0-0-1.victim.pod",
    "10-0-0-1.victim.pod.cluster.local", "10.0.0.1", "0x7f.1", "10.0.0.0x1", "2130706433",
    "::1", "::ffff:10.0.0.1", "[::ffff:10.0.0.1]", "xn--db-kmc.victim.svc",
    "xn--pple-43d.example.com", "аpple.example.com", "db.victim.svc\0.example.com",
    "db.victim.svc\n", " db.victim.svc", "db.victim.svc ", "db..svc", ".svc", ".", "",
    "db_.example.com", "db.victim.svc/.example.com", "a,DNS:db.victim.svc", "*b.example.com",
    "a.*.example.com", "app1.evil.svc.cluster.local.cluster.local", "app1.victim.svc",
    "app1.evil", "app1.svc", "db-0.db.victim.svc", "*.db.victim.svc", "app1-0.app1.victim.svc", "app1-0.app1",
    "app1-0.app1.evil", "x.app2.evil.svc", "*.evil.svc", "app2.evil.svc", "a.b.app1.evil.svc", "*.*.app1.evil.svc",
    "a.*.app1.evil.svc", "app1-*.app1.evil.svc", "*.*.evil.svc", "*.*.*.svc", "-a.app1.evil.svc",
    "xn--db-foa.app1.evil.svc", "а.app1.evil.svc", "a.app1.evil.svc..", ".app1.evil.svc", "a.xapp1.evil.svc",
    "a.app1.evil.svc.cluster.local.cluster.local", "a.app1.evil.svc.evil", "a.app1.evil.svc.svc",
    "db.victim.svc.app1.evil.svc", "kubernetes.default.svc.app1.evil.svc", "_a.app1.evil.svc",
];

#[test]
fn no_namespace_gets_a_name_of_the_service_of_another() {
    // As generous as a platform team could be by mistake.
    let patterns = [
        "*",
        "*.*",
        "*.*.*",
        "*.*.*.*.*",
        "*.svc",
        "db.*",
        "*.*.svc",
        "*.svc.cluster.local",
        "*.*.svc.cluster.local",
        "localhost",
        "kubernetes.default.svc",
        "*.example.com",
        "*.com",
    ];
    let book = rules(&[json!({ "serviceNames": ["*"], "dnsNames": patterns })]);
    for name in SPOOFS {
        let refusal = refuse(
            &book,
            "evil",
            &json!({ "serviceName": "app1", "dnsNames": [name] }),
        );
        assert!(
            refusal[0].starts_with("spec.dnsNames[0]: "),
            "{name:?}: {refusal:?}"
        );
        let refusal = refuse(
            &book,
            "evil",
            &json!({ "serviceName": "app1", "commonName": name }),
        );
        assert!(
            refusal[0].starts_with("spec.commonName: "),
            "{name:?}: {refusal:?}"
        );
    }
    for service in [
        "db.victim",
        "db.victim.svc",
        "*",
        "DB",
        "app1.",
        "a_b",
        "-a",
        "a-",
        "",
        "a b",
        "a\0",
        "ä",
        "app1.victim.svc.cluster.local",
    ] {
        let refusal = refuse(&book, "evil", &json!({ "serviceName": service }));
        assert_eq!(refusal.len(), 1, "{refusal:?}");
        assert!(
            refusal[0].starts_with("spec.serviceName: "),
            "{service:?}: {refusal:?}"
        );
    }
}

#[test]
fn the_cluster_domain_is_as_internal_as_cluster_local() {
    let settings = Settings {
        cluster_domain: "corp.example".into(),
        ..Settings::default()
    };
    let policy = PkiPolicy::new(
        "p",
        serde_json::from_value(json!({ "serviceNames": ["*"],
        "dnsNames": ["*.*.*.*.example", "*.*.*.cluster.local", "*.example"] }))
        .unwrap(),
    );
    let book = RuleBook::new(Arc::new(settings), [&policy]);
    for name in [
        "db.victim.svc.corp.example",
        "db.victim.svc.cluster.local",
        "corp.example",
    ] {
        let refusal = refuse(
            &book,
            "evil",
            &json!({ "serviceName": "app1", "dnsNames": [name] }),
        );
        assert!(
            refusal[0].contains("is a name inside the cluster, which belongs to "),
            "{refusal:?}"
        );
        assert!(
            refusal[0].ends_with("the certificate always includes app1.evil.svc"),
            "{refusal:?}"
        );
    }
    let approved = approve(&book, "evil", &json!({ "serviceName": "app1" }));
    assert_eq!(
        approved.certificate.dns_names[1],
        "app1.evil.svc.corp.example"
    );
}

#[test]
fn the_common_name_is_one_of_the_certificates_names() {
    let book = rules(&[json!({ "serviceNames": ["*"], "dnsNames": ["*.example.com"] })]);
    for (common_name, issued) in [
        ("app1", "app1"),
        ("APP1.ns.svc.", "app1.ns.svc"),
        ("app1.ns.svc.cluster.local", "app1.ns.svc.cluster.local"),
        ("a.example.com", "a.example.com"),
    ] {
        let spec = json!({ "serviceName": "app1", "commonName": common_name, "dnsNames": ["a.example.com"] });
        let certificate = approve(&book, "ns", &spec).certificate;
        assert_eq!(certificate.common_name.as_deref(), Some(issued));
        assert_eq!(certificate.former_common_name, None, "it was written");
    }
    for common_name in [
        "",
        "app2",
        "b.example.com",
        "app1 ",
        "CN=app1",
        "app1.other.svc",
    ] {
        let spec = json!({ "serviceName": "app1", "commonName": common_name, "dnsNames": ["a.example.com"] });
        assert_eq!(
            refuse(&book, "ns", &spec),
            [format!(
                "spec.commonName: \"{common_name}\" cannot be the common name: write app1 or one of the \
                      certificate's DNS names, with at most 64 characters, or leave commonName out"
            )]
        );
    }
    let long = format!("{}.example.com", "a".repeat(60));
    let spec = json!({ "serviceName": "app1", "commonName": long, "dnsNames": [long] });
    assert!(refuse(&book, "ns", &spec)[0].starts_with("spec.commonName: "));
}

#[test]
fn the_default_common_name_is_that_of_the_service_in_its_namespace_if_it_fits() {
    let book = rules(&[json!({ "serviceNames": ["*"] })]);
    for (service, namespace, name) in [
        ("app1", "ns", Some("app1.ns.svc")),
        ("app1", "other", Some("app1.other.svc")),
        (
            &"a".repeat(57),
            "ns",
            Some(&*format!("{}.ns.svc", "a".repeat(57))),
        ),
        (&"a".repeat(58), "ns", None),
        (&"a".repeat(63), &"b".repeat(63), None),
    ] {
        let certificate = approve(&book, namespace, &json!({ "serviceName": service })).certificate;
        assert_eq!(
            certificate.common_name.as_deref(),
            name,
            "{service} {namespace}"
        );
        assert_eq!(certificate.former_common_name.as_deref(), Some(service));
        assert!(name.is_none_or(|name| name.len() <= 64), "{name:?}");
    }
}

#[test]
fn no_policy_permits_names_of_the_api_server() {
    let names = [
        "*.default",
        "*.default.svc.corp.example",
        "kubernetes.default",
        "kubernetes.default.svc.corp.example",
    ];
    let book = rules(&[json!({ "serviceNames": ["*"], "dnsNames": names })]);
    for name in [
        "kubernetes",
        "Kubernetes.Default.",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "kubernetes.default.svc.corp.example",
        "*.default",
        "*.default.svc.corp.example",
    ] {
        let spec = json!({ "serviceName": "app1", "dnsNames": [name] });
        assert_eq!(
            refuse(&book, "evil", &spec),
            [format!(
                "spec.dnsNames[0]: \"{name}\" is a name of the API server, which no policy can permit: remove it; \
                 the certificate always includes app1.evil.svc"
            )]
        );
    }
    assert_eq!(
        refuse(&book, "default", &json!({ "serviceName": "kubernetes" })),
        [
            "spec.serviceName: \"kubernetes\" in namespace default is the service of the API server, which no policy \
             can permit: write the name of the service in front of your pods"
        ]
    );
    let elsewhere = json!({ "serviceName": "kubernetes" });
    let certificate = approve(&book, "evil", &elsewhere).certificate;
    assert_eq!(
        certificate.common_name.as_deref(),
        Some("kubernetes.evil.svc")
    );
    let spec = json!({ "serviceName": "kubernetes", "commonName": "Kubernetes" });
    assert_eq!(
        refuse(&book, "evil", &spec),
        [
            "spec.commonName: \"Kubernetes\" is a name of the API server, which no policy can permit: remove it; \
             the certificate always includes kubernetes.evil.svc"
        ]
    );
    approve(
        &book,
        "default",
        &json!({ "serviceName": "app1", "dnsNames": ["app2.default"] }),
    );
}

#[test]
fn a_common_name_that_nobody_wrote_is_no_fault() {
    let refusal = refuse(
        &allowing(&["*"]),
        "ns",
        &json!({ "serviceName": "a".repeat(70) }),
    );
    assert_eq!(refusal.len(), 1, "{refusal:?}");
    assert!(refusal[0].starts_with("spec.serviceName: "), "{refusal:?}");
}

#[test]
fn more_names_than_a_certificate_takes_are_refused_before_they_are_read() {
    let names: Vec<_> = (0..200_000).map(|n| format!("n{n}.example.com")).collect();
    let refusal = refuse(
        &allowing(&["app1"]),
        "ns",
        &json!({ "serviceName": "app1", "dnsNames": names }),
    );
    assert_eq!(
        refusal,
        ["spec.dnsNames: 200000 are too many: write at most 100"]
    );
}

#[test]
fn a_placeholder_in_upper_case_permits_nothing() {
    let book = rules(&[
        json!({ "serviceNames": ["app1"], "dnsNames": ["a.{NAMESPACE}.com", "b.{namespace}.COM"] }),
    ]);
    let spec = |name: &str| json!({ "serviceName": "app1", "dnsNames": [name] });
    refuse(&book, "ns", &spec("a.ns.com"));
    approve(&book, "ns", &spec("b.ns.com"));
}
