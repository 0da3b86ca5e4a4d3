//! Names of pods below a Service: those of one's own, and nobody else's.

use super::*;

fn with_names(names: &[&str]) -> Value {
    json!({ "serviceName": "db", "dnsNames": names })
}

#[test]
fn the_pods_of_a_service_have_names_below_it_in_both_forms() {
    let book = allowing(&["db"]);
    for (written, certified) in [
        ("db-0.db.ns.svc", "db-0.db.ns.svc"),
        ("*.db.ns.svc", "*.db.ns.svc"),
        ("DB-0.db.NS.svc.", "db-0.db.ns.svc"),
        (
            "db-0.db.ns.svc.cluster.local",
            "db-0.db.ns.svc.cluster.local",
        ),
        ("*.DB.ns.SVC.Cluster.Local.", "*.db.ns.svc.cluster.local"),
        ("10-1-2-3.db.ns.svc", "10-1-2-3.db.ns.svc"),
        ("0.db.ns.svc", "0.db.ns.svc"),
        ("svc.db.ns.svc", "svc.db.ns.svc"),
        ("db.db.ns.svc", "db.db.ns.svc"),
    ] {
        let certificate = approve(&book, "ns", &with_names(&[written, certified])).certificate;
        assert_eq!(certificate.dns_names[2..], [certified], "{written}");
    }
    let own = json!({ "serviceName": "db", "commonName": "db-0.db.ns.svc", "dnsNames": ["db-0.db.ns.svc"] });
    let common_name = approve(&book, "ns", &own).certificate.common_name;
    assert_eq!(common_name.as_deref(), Some("db-0.db.ns.svc"));
}

#[test]
fn a_policy_may_permit_the_service_and_not_its_pods() {
    for (pod_names, is_permitted) in [
        (Value::Null, true),
        (json!(true), true),
        (json!(false), false),
    ] {
        // Patterns for further names make no difference.
        let book = rules(&[
            json!({ "serviceNames": ["db"], "podNames": pod_names, "dnsNames": ["*.db.ns.svc", "*.com"] }),
        ]);
        approve(&book, "ns", &with_names(&["db.ns.svc", "a.com"]));
        for name in ["DB-0.db.ns.svc", "*.db.ns.svc.cluster.local"] {
            let spec = with_names(&["a.com", name]);
            if is_permitted {
                approve(&book, "ns", &spec);
                continue;
            }
            let name = name.to_lowercase();
            assert_eq!(
                refuse(&book, "ns", &spec),
                [format!(
                    "spec.dnsNames[1]: \"{name}\" is the name of a pod of the Service, and PkiPolicy policy-0 has podNames: \
                     false; remove it, or ask the platform team to permit it"
                )]
            );
            let violations = judge(&book, "ns", &spec).unwrap_err();
            assert_eq!(violations[0].policy(), Some("policy-0"));
            assert_eq!(violations[0].reason(), "PkiDnsNameError");
        }
    }
    // One that permits them is enough.
    let both = rules(&[
        json!({ "serviceNames": ["db"], "podNames": false }),
        json!({ "serviceNames": ["d*"] }),
    ]);
    let approved = approve(&both, "ns", &with_names(&["*.db.ns.svc"]));
    assert_eq!(approved.policy, "policy-1");
    // Without the Service there are no pods.
    let other = rules(&[json!({ "serviceNames": ["web"], "podNames": true })]);
    let refused = refuse(&other, "ns", &with_names(&["*.db.ns.svc"]));
    assert!(refused[0].starts_with("spec.serviceName: "), "{refused:?}");
}

#[test]
fn rules_in_cel_see_the_names_of_pods() {
    let rule = json!({ "expression": "!pki.spec.dnsNames.exists(n, n.startsWith('*'))", "message": "no wildcard" });
    let book = rules(&[json!({ "serviceNames": ["db"], "validations": [rule] })]);
    approve(&book, "ns", &with_names(&["db-0.db.ns.svc"]));
    let refused = refuse(&book, "ns", &with_names(&["*.db.ns.svc"]));
    assert_eq!(refused, ["spec: no wildcard (PkiPolicy policy-0)"]);
}

/// All that is said of one name, by a Pki for the service db in the namespace ns.
fn message(name: &str) -> String {
    let book = rules(&[json!({ "serviceNames": ["*"], "dnsNames": ["*.svc", "*.db.ns.svc"] })]);
    let refused = refuse(&book, "ns", &with_names(&[name]));
    assert_eq!(refused.len(), 1, "{refused:?}");
    let rest = refused[0].strip_prefix(&format!("spec.dnsNames[0]: \"{name}\" "));
    rest.unwrap_or_else(|| panic!("{refused:?}")).to_owned()
}

#[test]
fn a_name_of_another_service_is_refused_with_its_owner() {
    let inside = "is a name inside the cluster, which belongs to";
    let own = "the certificate always includes db.ns.svc";
    for (name, owner) in [
        (
            "web.ns.svc",
            "Service web of this namespace: write it into a Pki with serviceName: web",
        ),
        (
            "WEB-0.web.ns.svc.",
            "Service web of this namespace: write it into a Pki with serviceName: web",
        ),
        (
            "*.web.ns.svc.cluster.local",
            "Service web of this namespace: write it into a Pki with serviceName: web",
        ),
        (
            "a.db.web.ns.svc",
            "Service web of this namespace: write it into a Pki with serviceName: web",
        ),
        ("*.ns.svc", "each Service of this namespace: remove it"),
        ("db.victim.svc", "Service db of namespace victim: remove it"),
        (
            "db-0.db.victim.svc",
            "Service db of namespace victim: remove it",
        ),
        (
            "*.db.victim.svc.cluster.local",
            "Service db of namespace victim: remove it",
        ),
        (
            "*.victim.svc",
            "each Service of namespace victim: remove it",
        ),
        // The own Service, read as a namespace or as a domain.
        ("ns.db.svc", "Service ns of namespace db: remove it"),
        ("x.ns.db.svc", "Service ns of namespace db: remove it"),
        (
            "db.ns.svc.victim.svc",
            "Service svc of namespace victim: remove it",
        ),
        ("db.ns.svc.svc", "Service ns of namespace svc: remove it"),
        (
            "db-0.db.ns.svc.svc",
            "Service ns of namespace svc: remove it",
        ),
        ("db-0.db", ""),
        ("db-0.db.ns.pod", "the service it points to: remove it"),
        ("db-0.db.svc", "Service db-0 of namespace db: remove it"),
        ("*.svc", "the service it points to: remove it"),
        ("db", "the service it points to: remove it"),
    ] {
        let expected = match owner {
            "" => "is not permitted: PkiPolicy policy-0 permits [*.db.ns.svc *.svc]; remove it, or ask the platform team to \
                   permit it"
                .to_owned(),
            owner => format!("{inside} {owner}; {own}"),
        };
        assert_eq!(message(name), expected, "{name}");
    }
    for name in [
        "a.b.db.ns.svc",
        "xn--a-0ca.db.ns.svc",
        "a.b.db.ns.svc.cluster.local",
        "web.ns.svc.db.ns.svc",
    ] {
        assert_eq!(
            message(name),
            "is not the name of a pod of the Service: write one label that does not begin with xn-- before db.ns.svc, or '*' for \
             all pods: *.db.ns.svc"
        );
    }
    for name in [
        "*.*.db.ns.svc",
        "a.*.db.ns.svc",
        "db-*.db.ns.svc",
        "-a.db.ns.svc",
        "a_b.db.ns.svc",
        ".db.ns.svc",
    ] {
        assert!(message(name).starts_with("is not a DNS name: "), "{name}");
    }
    let long = format!("{}.db.ns.svc", "a".repeat(64));
    assert!(message(&long).ends_with("a label has at most 63 characters, and one here has 64"));
}

#[test]
fn a_name_is_at_most_253_characters_long() {
    let (service, namespace) = ("s".repeat(63), "n".repeat(63));
    let pod = "p".repeat(63);
    let settings = |length: usize| Settings {
        cluster_domain: format!("{}.d", "c".repeat(length - 2)),
        ..Settings::default()
    };
    let policy = PkiPolicy::new(
        "p",
        serde_json::from_value(json!({ "serviceNames": ["*"] })).unwrap(),
    );
    // Three labels of 63, `svc` and four dots before the domain.
    for (length, is_permitted) in [(253 - 196, true), (253 - 195, false)] {
        let settings = settings(length);
        let name = format!(
            "{pod}.{service}.{namespace}.svc.{}",
            settings.cluster_domain
        );
        let book = RuleBook::new(Arc::new(settings), [&policy]);
        let spec = json!({ "serviceName": service, "dnsNames": [name] });
        let judged = judge(&book, &namespace, &spec);
        assert_eq!(judged.is_ok(), is_permitted, "{} {judged:?}", name.len());
    }
}

/// No combination of cluster domain, namespace and Service gives away a name of another Service or
/// of its pods.
#[test]
fn no_policy_permits_names_of_another_service() {
    let policy = json!({ "serviceNames": ["*"], "dnsNames": ["*.*.svc", "*.*.*.svc", "*.*.*.*.svc", "*.svc.svc"] });
    let policy = PkiPolicy::new("p", serde_json::from_value(policy).unwrap());
    let labels = ["db", "victim", "svc", "b", "*"];
    let mut tried = 0;
    for domain in [
        "cluster.local",
        "svc",
        "b.svc",
        "svc.b",
        "victim.svc",
        "b",
        "db.victim.svc",
    ] {
        let settings = Settings {
            cluster_domain: domain.into(),
            ..Settings::default()
        };
        let book = RuleBook::new(Arc::new(settings), [&policy]);
        // Names by which pods reach the Service db of the namespace victim, or a pod of it.
        let service = "db.victim.svc";
        let victims = [service.to_owned(), format!("{service}.{domain}")];
        let victims = victims.iter().flat_map(|name| {
            [
                name.clone(),
                format!("*.{name}"),
                format!("b.{name}"),
                format!("svc.{name}"),
            ]
        });
        for victim in victims {
            for service in labels {
                for namespace in labels {
                    if (service, namespace) == ("db", "victim")
                        || service == "*"
                        || namespace == "*"
                    {
                        continue;
                    }
                    let spec = json!({ "serviceName": service, "dnsNames": [victim] });
                    refuse(&book, namespace, &spec);
                    tried += 1;
                }
            }
        }
    }
    assert_eq!(tried, 7 * 8 * 15);
}

#[test]
fn many_names_of_pods_are_judged_in_a_moment() {
    let names: Vec<_> = (0..100)
        .map(|n| format!("{}{n:03}.db.ns.svc", "p".repeat(60)))
        .collect();
    let book = allowing(&["db"]);
    let begin = std::time::Instant::now();
    let spec = json!({ "serviceName": "db", "dnsNames": names });
    assert_eq!(approve(&book, "ns", &spec).certificate.dns_names.len(), 102);
    let hundred = begin.elapsed();
    assert!(
        hundred < std::time::Duration::from_millis(500),
        "{hundred:?}"
    );
    let spec = json!({ "serviceName": "db", "dnsNames": vec!["a.db.ns.svc"; 101] });
    assert_eq!(
        refuse(&book, "ns", &spec),
        ["spec.dnsNames: 101 are too many: write at most 100"]
    );
}
