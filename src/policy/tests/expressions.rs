//! Rules in CEL: the values that they see, their messages, and those that cannot be written.

use super::*;
use crate::policy::expression::fault;

fn with(expressions: &[&str]) -> RuleBook {
    let validations: Vec<_> = expressions
        .iter()
        .map(|expression| json!({ "expression": expression, "message": "write something else" }))
        .collect();
    let everything = json!({
        "serviceNames": ["*"], "dnsNames": ["*.example.com"], "ipAddresses": ["10.0.0.0/8"],
        "validations": validations
    });
    rules(&[everything])
}

#[test]
fn an_expression_sees_the_pki_as_its_certificate_will_be() {
    let spec = json!({ "serviceName": "app1", "dnsNames": ["ADMIN.Example.com."], "ipAddresses": ["10.1.2.3"] });
    for holds in [
        "pki.metadata.name == 'app1-pki' && pki.metadata.namespace == 'ns'",
        "pki.spec.serviceName == 'app1' && pki.spec.commonName == 'app1.ns.svc'",
        "pki.spec.dnsNames == ['admin.example.com']",
        "pki.spec.ipAddresses.all(ip, ip.startsWith('10.'))",
        "pki.spec.uris.size() == 0 && pki.spec.secretName == 'app1-pki'",
        "pki.spec.usages == ['server auth', 'client auth']",
        "pki.spec.privateKey.algorithm == 'ECDSA' && pki.spec.privateKey.size >= 256",
        "pki.spec.privateKey.rotationPolicy == 'Always' && pki.spec.duration == '2160h'",
        "!has(pki.metadata.labels.team) && !('team' in pki.metadata.annotations)",
        "pki.spec.serviceName.matches('^app[0-9]+$')",
        "namespaceObject.metadata.name == 'ns'",
    ] {
        assert_eq!(fault(holds), None, "{holds}");
        let known = Namespaces::from([("ns".to_owned(), Labels::new())]);
        approve(
            &with(&[holds]).with_namespaces(Arc::new(known)),
            "ns",
            &spec,
        );
    }
}

#[test]
fn a_rule_that_does_not_hold_is_reported_with_the_message_of_its_author() {
    let spec = json!({ "serviceName": "app1", "dnsNames": ["ADMIN.example.com"] });
    let refusal = |expression| refuse(&with(&[expression]), "ns", &spec);
    assert_eq!(
        refusal("pki.spec.dnsNames.all(name, !name.startsWith('admin.'))"),
        ["spec: write something else (PkiPolicy policy-0)"]
    );
    assert_eq!(
        refusal("pki.metadata.labels.team == 'a'"),
        [
            "spec: write something else; the rule fails: it reads a key that does not exist (PkiPolicy policy-0)"
        ]
    );
    assert_eq!(
        refusal("pki.spec."),
        ["spec: write something else; the rule fails: it cannot be read (PkiPolicy policy-0)"]
    );
    assert_eq!(
        refusal("'yes'"),
        [
            "spec: write something else; the rule fails: it is neither true nor false (PkiPolicy policy-0)"
        ]
    );
    let two = with(&["pki.spec.dnsNames.size() == 0", "true", "false"]);
    assert_eq!(
        refuse(&two, "ns", &spec).len(),
        2,
        "each that does not hold"
    );
}

#[test]
fn a_rule_about_a_namespace_needs_its_labels() {
    let rules = with(&["namespaceObject.metadata.labels.stage == 'live'"]);
    let spec = json!({ "serviceName": "app1" });
    assert!(rules.reads_labels() && !rules.knows("ns"));
    refuse(&rules, "ns", &spec);
    let labels = Labels::from([("stage".to_owned(), "live".to_owned())]);
    let rules = rules.with_namespaces(Arc::new([("ns".to_owned(), labels)].into()));
    assert!(rules.knows("ns"));
    approve(&rules, "ns", &spec);
    assert!(!with(&["pki.metadata.namespace == 'ns'"]).reads_labels());
}

#[test]
fn an_expression_without_a_meaning_is_a_fault() {
    for (expression, expected) in [
        (
            "namespace.metadata.name == 'a'",
            "reserved identifier: namespace; write namespaceObject",
        ),
        (
            "pki.spec.",
            "line 1, column 10: expected identifier after '.'",
        ),
        ("a b", "line 1, column 3: Syntax error"),
        ("true &&\n  &&", "line 2, column 3: "),
        (
            "pki.spec.servicename == 'a'",
            "pki.spec has no field servicename: the fields are commonName, dnsNames,",
        ),
        (
            "has(pki.status)",
            "pki has no field status: the fields are metadata, spec",
        ),
        (
            "namespaceObject == 'a' || namespaceObject.name == 'b'",
            "namespaceObject has no field name: the fields are metadata",
        ),
        (
            "object.spec.serviceName == 'a'",
            "there is no variable object: the variables are pki and namespaceObject",
        ),
        (
            "pki.spec.dnsNames.all(n, m == 'a')",
            "there is no variable m",
        ),
        (
            "pki.spec.serviceName",
            "it is of type string: write an expression that is true or false",
        ),
        ("pki.spec.serviceName > 5", "found no matching overload"),
        (
            "true || pki.spec.dnsNames.first() == 'a'",
            "Undeclared reference to 'first'",
        ),
        ("pki.spec.serviceName.matches('(')", "not a valid regex"),
        (
            "pki.spec.dnsNames.all(n, n > 5)",
            "found no matching overload",
        ),
        ("1 == 2", "it is false for every Pki"),
        ("", "line 1, column 1: "),
    ] {
        let fault = fault(expression).unwrap_or_else(|| panic!("{expression:?} is taken"));
        assert!(fault.contains(expected), "{expression:?}: {fault}");
    }
    let listed = |inner: &str| format!("pki.spec.dnsNames.all(a, {inner})");
    let within = listed(&listed("a != 'b'").replace("(a,", "(b,"));
    assert_eq!(fault(&within), None);
    assert!(
        fault(&listed(&listed(&listed("true"))))
            .unwrap()
            .contains("too many loops")
    );
}

#[test]
fn no_expression_takes_more_memory_than_the_pki_that_it_reads() {
    let grow = |first: &str, step: &str| first.to_owned() + &step.repeat(25);
    for expression in [
        grow("[0]", ".map(x,[x,x,x,x,x,x,x,x,x,x])") + " == []",
        grow("['aaaa']", ".map(s,s+s)") + " == []",
        grow("[0]", ".map(x,true,[x,x])") + " == []",
        "pki.spec.uris.map(a, pki.spec.uris.map(b, pki.spec.uris)).size() > 0".into(),
        "pki.spec.uris.filter(a, pki.spec.uris.map(b, [b]).size() > 0).size() > 0".into(),
    ] {
        let fault = fault(&expression).unwrap_or_else(|| panic!("{expression} is taken"));
        assert!(fault.starts_with("map() is not supported"), "{fault}");
        refuse(
            &with(&[&expression]),
            "ns",
            &json!({ "serviceName": "app1" }),
        );
    }
    for (within, taken) in [
        ("b.matches(a)", false),
        ("a + b == 'c'", false),
        ("[a].filter(c, c == b).size() > 0", false),
        ("b.startsWith(a)", true),
    ] {
        let expression = format!("pki.spec.uris.all(a, pki.spec.dnsNames.all(b, {within}))");
        assert_eq!(fault(&expression).is_none(), taken, "{expression}");
    }
    assert_eq!(
        fault(
            "pki.spec.uris.filter(a, a.matches('^spiffe:')).size() == 1 || pki.spec.uris.exists_one(a, a == 'b')"
        ),
        None
    );
}

#[test]
fn a_rule_that_depends_on_unknown_labels_is_not_met() {
    let spec = json!({ "serviceName": "app1" });
    let rules = with(&["!('guest' in namespaceObject.metadata.labels)"]);
    assert_eq!(
        refuse(&rules, "ns", &spec),
        [
            "spec: write something else; the rule fails: the labels of the namespace are not known yet (PkiPolicy policy-0)"
        ]
    );
    let known = Namespaces::from([("ns".to_owned(), Labels::new())]);
    approve(&rules.with_namespaces(Arc::new(known)), "ns", &spec);

    let mut pki = Pki::new("app1-pki", serde_json::from_value(spec).unwrap());
    pki.metadata.namespace = Some("ns".into());
    let many = (0..101).map(|number| (format!("key-{number}"), String::new()));
    pki.metadata.annotations = Some(many.collect());
    let violations = with(&["pki.spec.serviceName == 'app1'"])
        .evaluate(&pki)
        .unwrap_err();
    assert!(
        violations[0]
            .to_string()
            .contains("more than 100 labels or annotations"),
        "{violations:?}"
    );
    approve(&with(&[]), "ns", &json!({ "serviceName": "app1" }));
}

#[test]
fn a_rule_that_fails_only_for_the_sample_is_no_fault() {
    for expression in [
        "pki.spec.dnsNames.size() == 1 || 10 / (pki.spec.dnsNames.size() - 1) > 2",
        "pki.spec.dnsNames[5] == 'a'",
        "pki.metadata.labels.team == 'a'",
        "pki.spec.privateKey.size / 2 >= 128",
    ] {
        assert_eq!(fault(expression), None, "{expression}");
    }
}

#[test]
fn no_expression_takes_the_operator_down() {
    let nested = |open: &str, inner: &str, close: &str, levels: usize| {
        open.repeat(levels) + inner + &close.repeat(levels)
    };
    for (open, inner, close) in [
        ("(", "true", ")"),
        ("[", "1", "]"),
        ("{1:", "1", "}"),
        ("!", "true", ""),
        ("-", "1", ""),
        ("", "1", "+1"),
        ("", "pki", ".a"),
        ("true?", "true", ":true"),
        ("", "true", "?true:true"),
        ("f(", "1", ")"),
        ("", "true", "&&true"),
        ("[1].all(x,", "true", ")"),
        ("", "(", ""),
        ("'", "\u{0}", "'"),
    ] {
        for levels in [1, 10, 31, 33, 100, 500, 100_000] {
            let expression = nested(open, inner, close, levels);
            let _ = fault(&expression);
            let _ = judge(
                &with(&[&expression]),
                "ns",
                &json!({ "serviceName": "app1" }),
            );
        }
    }
    for source in [
        "(",
        "[",
        "{",
        "\"",
        "'",
        "\\",
        "b'",
        "r\"",
        "//",
        "\u{feff}",
        "1e999",
        "0x",
        "18446744073709551616u",
        "-9223372036854775808 / -1",
        "-9223372036854775808 % -1",
        "9223372036854775807 + 1",
        "1 / 0",
        "1 % 0",
        "[][0]",
        "{}.a",
        "{}['a']",
        "'a'[0]",
        "size(1)",
        "type(pki)",
        "pki",
        "has(pki)",
        "pki.all(k, true)",
        "''.matches('a{1000}{1000}')",
    ] {
        let _ = fault(source);
        let _ = judge(&with(&[source]), "ns", &json!({ "serviceName": "app1" }));
    }
}

#[test]
fn a_fault_is_one_line_without_terminal_control() {
    for expression in [
        "''.matches('[')",
        "''.matches('(\\x1b[31m\\n\\u202e')",
        "a\u{1b}\u{202e}",
    ] {
        let fault = fault(expression).unwrap_or_else(|| panic!("{expression:?} is taken"));
        assert!(fault.chars().all(crate::util::text::is_plain), "{fault:?}");
    }
    let long = fault(&format!("''.matches('({}')", "\u{1b}".repeat(900))).unwrap();
    assert!(long.len() <= 1024, "{}", long.len());
}
