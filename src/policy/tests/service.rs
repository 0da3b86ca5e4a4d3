//! Which service names a namespace may use, and which policy is quoted.

use super::*;

#[test]
fn a_service_name_that_is_not_allowed_is_refused_in_the_words_of_box() {
    let begin =
        "spec.serviceName: ServiceName: appp1 in pki: app1-pki is not found in allowedNames: ";
    for (allowed, end) in [
        (
            &["app2", "app1"][..],
            r#"[app1 app2]; did you mean "app1"?"#,
        ),
        (
            &["{namespace}-x", "app1"],
            r#"[app1 ns-x]; did you mean "app1"?"#,
        ),
        (
            &["{namespace}p1"],
            "[nsp1]; use one of these names, or ask the platform team to allow yours in PkiPolicy policy-0",
        ),
        (
            &["payments"],
            "[payments]; use one of these names, or ask the platform team to allow yours in PkiPolicy policy-0",
        ),
        (
            &["pp*"],
            "[pp*]; use one of these names, or ask the platform team to allow yours in PkiPolicy policy-0",
        ),
    ] {
        let refusal = refuse(&allowing(allowed), "ns", &json!({ "serviceName": "appp1" }));
        assert_eq!(refusal, [format!("{begin}{end}")]);
    }
}

#[test]
fn a_guess_is_made_only_where_the_names_are_alike() {
    for (written, allowed, guess) in [
        ("payment", "payments", true),
        ("pyaments", "payments", true),
        ("payments", "billing", false),
        ("ab", "xy", false),
        ("web", "api", false),
        ("frontend-internal", "frontend-external", true),
    ] {
        let refusal = refuse(
            &allowing(&[allowed]),
            "ns",
            &json!({ "serviceName": written }),
        );
        assert_eq!(refusal[0].contains("did you mean"), guess, "{refusal:?}");
    }
}

#[test]
fn a_long_list_has_the_nearest_names_and_the_number_of_others() {
    let mut names: Vec<_> = (0..5000).map(|n| format!("service-{n:04}")).collect();
    names.push("app1".into());
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let refusal = refuse(&allowing(&names), "ns", &json!({ "serviceName": "appp1" }));
    assert!(refusal[0].contains("allowedNames: [app1 "), "{refusal:?}");
    assert!(
        refusal[0].ends_with(r#"] and 4991 more; did you mean "app1"?"#),
        "{refusal:?}"
    );
    assert!(refusal[0].len() < 400);
}

#[test]
fn without_a_policy_for_the_namespace_nothing_is_permitted() {
    let elsewhere =
        json!({ "serviceNames": ["secret-of-others"], "namespaces": { "names": ["team-*", "x"] } });
    for book in [rules(&[]), rules(&[elsewhere])] {
        assert_eq!(
            refuse(&book, "ns", &json!({ "serviceName": "app1" })),
            [
                "spec.serviceName: ServiceName: app1 in pki: app1-pki is not found in allowedNames: []; no PkiPolicy applies \
              to namespace ns: ask the platform team for one that allows it"
            ]
        );
    }
}

#[test]
fn a_policy_is_for_the_namespaces_that_it_names() {
    let book =
        rules(&[json!({ "serviceNames": ["app1"], "namespaces": { "names": ["team-*", "one"] } })]);
    for namespace in ["team-a", "team-", "one"] {
        approve(&book, namespace, &json!({ "serviceName": "app1" }));
    }
    for namespace in ["team", "my-team-a", "one2", "on", ""] {
        refuse(&book, namespace, &json!({ "serviceName": "app1" }));
    }
    let everywhere = json!({ "serviceNames": ["app1"], "namespaces": { "names": [] } });
    approve(
        &rules(&[everywhere]),
        "any",
        &json!({ "serviceName": "app1" }),
    );
}

#[test]
fn names_that_only_other_namespaces_may_use_are_not_shown() {
    let book = rules(&[
        json!({ "serviceNames": ["app2"] }),
        json!({ "serviceNames": ["secret-of-victim"], "namespaces": { "names": ["victim"] } }),
    ]);
    let refusal = refuse(&book, "evil", &json!({ "serviceName": "app1" }));
    assert!(refusal[0].contains("allowedNames: [app2];"), "{refusal:?}");
}

#[test]
fn a_pattern_matches_many_service_names_and_the_namespace() {
    let book = allowing(&["{namespace}-*", "*-web", "shared"]);
    for service in ["ns-a", "ns-", "a-web", "-web", "shared"] {
        let judged = judge(&book, "ns", &json!({ "serviceName": service }));
        let is_label = !service.starts_with('-') && !service.ends_with('-');
        assert_eq!(judged.is_ok(), is_label, "{service}");
    }
    for service in ["ns", "other-a", "web", "shared2", "web-a"] {
        refuse(&book, "ns", &json!({ "serviceName": service }));
    }
}

#[test]
fn one_policy_must_permit_all_of_it() {
    let book = rules(&[
        json!({ "serviceNames": ["app1"], "maxDuration": "24h" }),
        json!({ "serviceNames": ["app2"], "dnsNames": ["*.example.com"] }),
    ]);
    let spec = |service| json!({ "serviceName": service, "duration": "48h", "dnsNames": ["a.example.com"] });
    assert_eq!(approve(&book, "ns", &spec("app2")).policy, "policy-1");
    // Two faults by the policy that allows the name, against one by the other.
    let refusal = refuse(&book, "ns", &spec("app1"));
    assert_eq!(refusal.len(), 2, "{refusal:?}");
    assert!(
        refusal[0].contains("PkiPolicy policy-0 permits none; remove it"),
        "{refusal:?}"
    );
    assert!(
        refusal[1].contains("PkiPolicy policy-0 permits at most 24h"),
        "{refusal:?}"
    );
}

#[test]
fn the_policy_that_comes_nearest_is_the_one_that_is_quoted() {
    let book = rules(&[
        json!({ "serviceNames": ["app1"], "maxDuration": "24h" }),
        json!({ "serviceNames": ["app1"], "maxDuration": "24h", "dnsNames": ["*.example.com"] }),
        json!({ "serviceNames": ["app1"], "maxDuration": "24h", "namespaces": { "names": ["other"] }, "dnsNames": ["*.example.org"] }),
    ]);
    let spec = json!({ "serviceName": "app1", "dnsNames": ["a.example.com"], "duration": "2160h" });
    assert_eq!(
        refuse(&book, "ns", &spec),
        [
            "spec.duration: 2160h is too long: PkiPolicy policy-1 permits at most 24h; write duration: 24h"
        ]
    );
}

/// Whether a Pki of a namespace with these labels is permitted by a policy for such namespaces;
/// `None` is not known yet.
fn is_permitted(scope: &Value, labels: Option<&Value>) -> bool {
    let book = rules(&[json!({ "serviceNames": ["app1"], "namespaces": scope })]);
    let labels = labels.map(|labels| serde_json::from_value(labels.clone()).expect("labels"));
    let namespaces = labels.map(|labels| ("ns".to_owned(), labels));
    let book = book.with_namespaces(Arc::new(namespaces.into_iter().collect()));
    judge(&book, "ns", &json!({ "serviceName": "app1" })).is_ok()
}

#[test]
fn a_policy_is_for_the_namespaces_whose_names_and_labels_it_selects() {
    let require = |operator: &str, values: &[&str]| json!({ "selector": { "matchExpressions": [{ "key": "env", "operator": operator, "values": values }] } });
    let env = |value: &str| json!({ "env": value });
    for (scope, labels, expected) in [
        (json!({ "selector": {} }), json!({}), true),
        (
            json!({ "selector": { "matchLabels": { "env": "dev" } } }),
            env("dev"),
            true,
        ),
        (
            json!({ "selector": { "matchLabels": { "env": "dev" } } }),
            env("prod"),
            false,
        ),
        (
            json!({ "selector": { "matchLabels": { "env": "dev", "a": "b" } } }),
            env("dev"),
            false,
        ),
        (require("In", &["dev", "test"]), env("test"), true),
        (require("In", &["dev", "test"]), json!({}), false),
        (require("NotIn", &["prod"]), env("dev"), true),
        (require("NotIn", &["prod"]), json!({}), true),
        (require("NotIn", &["prod"]), env("prod"), false),
        (require("Exists", &[]), env(""), true),
        (require("Exists", &[]), json!({ "other": "dev" }), false),
        (require("DoesNotExist", &[]), json!({}), true),
        (require("DoesNotExist", &[]), env("dev"), false),
        (
            json!({ "names": ["n*"], "selector": { "matchLabels": { "env": "dev" } } }),
            env("dev"),
            true,
        ),
        (
            json!({ "names": ["m*"], "selector": { "matchLabels": { "env": "dev" } } }),
            env("dev"),
            false,
        ),
    ] {
        assert_eq!(
            is_permitted(&scope, Some(&labels)),
            expected,
            "{scope} {labels}"
        );
        let selects = scope.get("selector").is_some();
        assert!(
            selects && !is_permitted(&scope, None),
            "{scope} for a namespace that is not known"
        );
    }
    assert!(is_permitted(&json!({ "names": ["ns"] }), None));
}

#[test]
fn the_right_name_in_the_wrong_namespace_is_reported_without_naming_the_other() {
    let of_team = json!({ "serviceNames": ["orders", "{namespace}-web"], "namespaces": { "names": ["team-*"] } });
    let all = json!({ "serviceNames": ["*"], "namespaces": { "names": ["ops"] } });
    let own = json!({ "serviceNames": ["app1"], "namespaces": { "names": ["other"] } });
    let book = rules(&[of_team, own, all]);
    for (namespace, name, end) in [
        (
            "other",
            "orders",
            "[app1]; a PkiPolicy allows that name in another namespace: check the namespace",
        ),
        ("other", "app", r#"[app1]; did you mean "app1"?"#),
        (
            "other",
            "team-b-web",
            "[app1]; use one of these names, or ask the platform team to allow yours in PkiPolicy policy-1",
        ),
        (
            "other",
            "ordres",
            "[app1]; use one of these names, or ask the platform team to allow yours in PkiPolicy policy-1",
        ),
        (
            "team-a",
            "app1",
            "[orders team-a-web]; a PkiPolicy allows that name in another namespace: check the namespace",
        ),
        (
            "nowhere",
            "app1",
            "[]; no PkiPolicy applies to namespace nowhere: one allows that name in another namespace; check the namespace",
        ),
        (
            "nowhere",
            "app9",
            "[]; no PkiPolicy applies to namespace nowhere: ask the platform team for one that allows it",
        ),
    ] {
        let refusal = refuse(&book, namespace, &json!({ "serviceName": name }));
        assert!(
            refusal[0].ends_with(&format!("allowedNames: {end}")),
            "{refusal:?}"
        );
        assert!(!refusal[0].contains("namespace team"), "{refusal:?}");
    }
}

#[test]
fn a_policy_is_one_of_many_whether_it_names_its_namespaces_or_not() {
    let of = |names: &[&str], service: &str| json!({ "serviceNames": [service], "namespaces": { "names": names } });
    let book = rules(&[
        of(&["a", "b", "a"], "exact"),
        of(&["a*"], "glob"),
        of(&[], "all"),
        of(&["b"], "other"),
    ]);
    for (namespace, services) in [
        ("a", &["exact", "glob", "all"][..]),
        ("b", &["exact", "all", "other"]),
        ("ab", &["glob", "all"]),
        ("c", &["all"]),
    ] {
        for service in ["exact", "glob", "all", "other"] {
            let verdict = judge(&book, namespace, &json!({ "serviceName": service }));
            assert_eq!(
                verdict.is_ok(),
                services.contains(&service),
                "{namespace} {service}"
            );
        }
    }
}

#[test]
fn a_rule_book_with_one_policy_changed_is_as_if_it_were_made_anew() {
    let policy = |name: &str, service: &str| {
        PkiPolicy::new(
            name,
            serde_json::from_value(json!({ "serviceNames": [service] })).unwrap(),
        )
    };
    let book = RuleBook::new(Arc::default(), &[policy("p", "app1"), policy("q", "app2")]);
    let may = |book: &RuleBook, service: &str| {
        judge(book, "ns", &json!({ "serviceName": service })).is_ok()
    };
    let edited = book.with_policy(&policy("p", "app3"));
    assert_eq!(
        ["app1", "app2", "app3"].map(|name| may(&edited, name)),
        [false, true, true]
    );
    let added = book.with_policy(&policy("a", "app3"));
    assert_eq!(
        ["app1", "app2", "app3"].map(|name| may(&added, name)),
        [true, true, true]
    );
    let removed = book.without_policy("q");
    assert_eq!(
        ["app1", "app2"].map(|name| may(&removed, name)),
        [true, false]
    );
}
