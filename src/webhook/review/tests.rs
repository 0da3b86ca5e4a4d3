//! Reviews as the API server sends them, and the answers.

use super::*;
use crate::api::PkiPolicy;
use crate::util::time::tests::now;
use std::sync::Arc;

fn rules() -> RuleBook {
    let spec = json!({ "serviceNames": ["app1", "app2"] });
    let policy = PkiPolicy::new("policy", serde_json::from_value(spec).unwrap());
    RuleBook::new(Arc::default(), [&policy])
}

/// A review of a Pki `ns/app1-pki`, as the API server writes it.
fn review(operation: &str, object: &Value, old: &Value) -> Value {
    let kind = json!({ "group": "box.com", "version": "v1", "kind": "Pki" });
    let resource = json!({ "group": "box.com", "version": "v1", "resource": "pkis" });
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "0c9a8d74", "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "name": "app1-pki", "namespace": "ns", "operation": operation,
            "userInfo": { "username": "ann", "groups": ["system:authenticated"] },
            "object": object, "oldObject": old, "dryRun": false,
            "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" }
        }
    })
}

fn pki(spec: &Value) -> Value {
    json!({
        "apiVersion": "box.com/v1", "kind": "Pki", "spec": spec,
        "metadata": { "name": "app1-pki", "namespace": "ns", "creationTimestamp": null }
    })
}

fn with_metadata(mut pki: Value, field: &str, value: Value) -> Value {
    pki["metadata"][field] = value;
    pki
}

fn request(review: &Value) -> Request {
    read(review.to_string().as_bytes()).expect("a review")
}

fn judge(review: &Value) -> AdmissionResponse {
    judge_by(review, &rules())
}

/// Where no other Pki is, and the CA lives for ever.
fn judge_by(review: &Value, rules: &RuleBook) -> AdmissionResponse {
    let context = ValidationContext {
        rules,
        pkis: &SharedIndex::default(),
        secrets: &SharedIndex::default(),
        pods: &SharedIndex::default(),
        ca: None,
        now: now(),
    };
    validate(&request(review), &context)
}

fn create(spec: &Value) -> AdmissionResponse {
    judge(&review("CREATE", &pki(spec), &Value::Null))
}

fn update(object: &Value, old: &Value) -> AdmissionResponse {
    judge(&review("UPDATE", object, old))
}

/// Reason and field of each cause.
fn causes(response: &AdmissionResponse) -> Vec<(&str, &str)> {
    let details = response.result.details.as_ref().expect("details");
    let causes = details.causes.iter();
    causes
        .map(|c| (c.reason.as_str(), c.field.as_str()))
        .collect()
}

#[test]
fn a_good_pki_is_allowed() {
    let response = create(&json!({ "serviceName": "app1" }));
    assert!(response.allowed);
    assert_eq!(response.uid, "0c9a8d74");
    assert_eq!(response.warnings, None);
}

#[test]
fn a_refusal_is_the_one_that_the_api_server_gives_an_invalid_object() {
    let response = create(&json!({ "serviceName": "appp1" }));
    assert!(!response.allowed);
    assert_eq!(response.uid, "0c9a8d74");
    let answer = serde_json::to_value(response.into_review()).unwrap();
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    let message = "ServiceName: appp1 in pki: app1-pki is not found in allowedNames: [app1 app2]; did you mean \"app1\"?";
    let status = &answer["response"]["status"];
    assert_eq!(status["code"], 422);
    assert_eq!(status["reason"], "Invalid");
    assert_eq!(status["status"], "Failure");
    assert_eq!(
        status["message"],
        format!("Pki ns/app1-pki: spec.serviceName: {message}")
    );
    let details = &status["details"];
    assert_eq!(
        (&details["kind"], &details["name"], &details["group"]),
        (&json!("Pki"), &json!("app1-pki"), &json!("box.com"))
    );
    assert_eq!(
        details["causes"],
        json!([{ "reason": "FieldValueNotSupported", "field": "spec.serviceName", "message": message }])
    );
}

#[test]
fn every_fault_is_a_cause_and_a_line() {
    let response = create(&json!({ "serviceName": "appp1", "secretName": "A", "duration": "1d" }));
    assert_eq!(
        causes(&response),
        [
            ("FieldValueInvalid", "spec.secretName"),
            ("FieldValueInvalid", "spec.duration"),
            ("FieldValueNotSupported", "spec.serviceName"),
        ]
    );
    let lines: Vec<_> = response.result.message.lines().collect();
    assert_eq!(lines[0], "Pki ns/app1-pki:");
    assert!(
        lines[1].starts_with("  spec.secretName: \"A\" is not"),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 4);
}

#[test]
fn a_value_that_is_not_offered_has_another_reason_than_a_malformed_one() {
    let response = create(&json!({
        "serviceName": "app1", "ipAddresses": ["::ffff:10.1.2.3", "10.1.2.3"], "uris": ["app1"],
        "privateKey": { "algorithm": "RSA", "size": 1024, "encoding": "SEC1" },
        "renewBefore": "720h", "renewBeforePercentage": 33,
        "secretTemplate": { "annotations": { "box.com/adopt": "app1-pki" } },
        "outputs": { "pkcs12": { "passwordSecretRef": { "name": "app1-pki" } } }
    }));
    assert_eq!(
        causes(&response),
        [
            ("FieldValueInvalid", "spec.ipAddresses[0]"),
            ("FieldValueInvalid", "spec.uris[0]"),
            ("FieldValueInvalid", "spec.renewBeforePercentage"),
            ("FieldValueNotSupported", "spec.privateKey.size"),
            ("FieldValueNotSupported", "spec.privateKey.encoding"),
            ("FieldValueInvalid", "spec.secretTemplate.annotations"),
            (
                "FieldValueInvalid",
                "spec.outputs.pkcs12.passwordSecretRef.name"
            ),
            ("FieldValueInvalid", "spec.ipAddresses[1]"),
        ]
    );
    let lines: Vec<_> = response.result.message.lines().collect();
    assert_eq!(
        lines[1],
        "  spec.ipAddresses[0]: \"::ffff:10.1.2.3\" is an IPv4 address written as IPv6: write 10.1.2.3"
    );
    assert_eq!(lines.len(), 9);
}

#[test]
fn an_answer_has_a_bounded_size_and_counts_the_faults_that_are_not_listed() {
    let names = vec!["\u{1b}".repeat(253); 100];
    let response = create(&json!({ "serviceName": "app1", "dnsNames": names }));
    let length = response.result.message.len();
    assert!((60 * 1024..80 * 1024).contains(&length), "{length}");
    let causes = &response.result.details.as_ref().unwrap().causes;
    let last = causes.last().unwrap();
    assert_eq!(last.field, format!("spec.dnsNames[{}]", causes.len() - 1));
    let expected = format!(
        "{} more faults are not listed: correct those above first",
        101 - causes.len()
    );
    assert_eq!(last.message, expected);
}

#[test]
fn the_namespace_is_the_one_that_the_author_was_authorized_for() {
    let spec = json!({ "serviceNames": ["app1"], "namespaces": { "names": ["victim"] } });
    let policy = PkiPolicy::new("policy", serde_json::from_value(spec).unwrap());
    let rules = RuleBook::new(Arc::default(), [&policy]);
    let object = with_metadata(
        pki(&json!({ "serviceName": "app1" })),
        "namespace",
        json!("victim"),
    );
    let response = judge_by(&review("CREATE", &object, &Value::Null), &rules);
    assert!(!response.allowed);
}

#[test]
fn a_generated_name_is_shown_as_far_as_it_is_known() {
    let mut object = pki(&json!({ "serviceName": "appp1" }));
    object["metadata"] = json!({ "generateName": "app1-", "namespace": "ns" });
    let mut review = review("CREATE", &object, &Value::Null);
    review["request"].as_object_mut().unwrap().remove("name");
    let response = judge(&review);
    assert!(
        response.result.message.starts_with("Pki ns/app1-: "),
        "{}",
        response.result.message
    );
    assert_eq!(response.result.details.unwrap().name, "app1-");

    review["request"]["object"]["metadata"]["name"] = json!("app1-x7k2p");
    let response = judge(&review);
    assert!(
        response.result.message.contains("in pki: app1-x7k2p is"),
        "{}",
        response.result.message
    );
}

#[test]
fn an_edit_of_metadata_passes_on_an_object_that_has_become_invalid() {
    let old = pki(&json!({ "serviceName": "appp1", "secretName": "app1-pki" }));
    for (field, value) in [
        ("labels", json!({ "a": "b" })),
        ("annotations", json!({ "a": "b" })),
        ("finalizers", json!([])),
        ("ownerReferences", json!([])),
    ] {
        let response = update(&with_metadata(old.clone(), field, value), &old);
        assert!(response.allowed, "{field}");
        let warnings = response.warnings.expect("a warning");
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].starts_with(
                "still invalid: spec.serviceName: ServiceName: appp1 in pki: app1-pki"
            ),
            "{warnings:?}"
        );
    }
}

#[test]
fn an_edit_of_metadata_passes_on_a_spec_of_another_schema() {
    for spec in [
        json!({ "serviceName": 5 }),
        json!({}),
        json!("text"),
        Value::Null,
    ] {
        let old = pki(&spec);
        let new = with_metadata(old.clone(), "labels", json!({ "a": "b" }));
        assert!(update(&new, &old).allowed, "{spec}");
    }
}

#[test]
fn a_change_of_the_spec_is_judged_whatever_it_was_before() {
    let old = pki(&json!({ "serviceName": "appp1" }));
    assert!(update(&pki(&json!({ "serviceName": "app1" })), &old).allowed);
    for spec in [
        json!({ "serviceName": "appp2" }),
        json!({ "serviceName": "appp1", "secretName": "other" }),
        json!({ "serviceName": "appp1", "duration": "24h" }),
    ] {
        assert!(!update(&pki(&spec), &old).allowed, "{spec}");
    }
    let good = pki(&json!({ "serviceName": "app1" }));
    assert!(!update(&old, &good).allowed);
    assert!(
        !update(&old, &Value::Null).allowed,
        "without the old object it counts as a change"
    );
}

#[test]
fn what_is_being_deleted_is_let_go() {
    let old = with_metadata(
        pki(&json!({ "serviceName": "appp1" })),
        "deletionTimestamp",
        json!("2030-01-01T00:00:00Z"),
    );
    let response = update(&with_metadata(old.clone(), "finalizers", json!([])), &old);
    assert!(response.allowed);
    let delete = review(
        "DELETE",
        &Value::Null,
        &pki(&json!({ "serviceName": "appp1" })),
    );
    assert!(judge(&delete).allowed);
}

#[test]
fn an_object_that_is_no_pki_is_refused_by_its_kind() {
    for (field, value, said) in [
        ("kind", "Pod", "Pod of box.com/v1"),
        ("group", "", "Pki of /v1"),
        ("version", "v2", "Pki of box.com/v2"),
        ("kind", "\u{1b}[2J", r"\u{1b}[2J of box.com/v1"),
    ] {
        let mut review = review(
            "CREATE",
            &pki(&json!({ "serviceName": "app1" })),
            &Value::Null,
        );
        review["request"]["kind"][field] = json!(value);
        let response = judge(&review);
        assert!(!response.allowed);
        assert_eq!(
            response.result.message,
            format!("this webhook judges Pkis and PkiPolicies of box.com/v1, not {said}")
        );
    }
}

#[test]
fn a_missing_service_name_is_asked_for() {
    for spec in [
        json!({}),
        json!({ "serviceName": null }),
        Value::Null,
        json!("text"),
        json!([1]),
    ] {
        let response = create(&spec);
        assert_eq!(
            causes(&response),
            [("FieldValueRequired", "spec.serviceName")],
            "{spec}"
        );
        assert_eq!(
            response.result.message,
            "Pki ns/app1-pki: spec.serviceName: write the name of the service that the certificate is for, for example app1"
        );
    }
    let without = judge(&review("CREATE", &Value::Null, &Value::Null));
    assert_eq!(
        (without.allowed, without.result.message.as_str()),
        (false, "the request has no object")
    );
}

#[test]
fn a_wrong_type_is_reported_by_its_field_in_plain_words() {
    for (field, value) in [
        ("serviceName", json!(5)),
        ("serviceName", json!({ "a": 1 })),
        ("commonName", json!(["app1"])),
        ("dnsNames", json!("a.example.com")),
        ("dnsNames", json!([1])),
        ("secretName", json!(true)),
        ("duration", json!(2160)),
        ("renewBefore", json!({})),
        ("privateKey", json!("ECDSA")),
        ("privateKey", json!({ "algorithm": "DSA" })),
        ("privateKey", json!({ "algorithm": "rsa" })),
        ("privateKey", json!({ "size": 1e99 })),
        ("privateKey", json!({ "encoding": "DER" })),
        ("privateKey", json!({ "rotationPolicy": true })),
        ("ipAddresses", json!("10.1.2.3")),
        ("uris", json!([{}])),
        ("usages", json!(["signing"])),
        ("usages", json!("server auth")),
        ("renewBeforePercentage", json!("33")),
        ("renewBeforePercentage", json!(33.5)),
        ("secretTemplate", json!({ "labels": { "a": 1 } })),
        ("secretTemplate", json!("text")),
        ("outputs", json!({ "combinedPem": "true" })),
        ("outputs", json!({ "jks": {} })),
    ] {
        let mut spec = json!({ "serviceName": "app1" });
        spec[field] = value;
        let response = create(&spec);
        let path = format!("spec.{field}");
        assert_eq!(
            causes(&response),
            [("FieldValueTypeInvalid", path.as_str())],
            "{spec}"
        );
        assert_eq!(
            response.result.message,
            format!(
                "Pki ns/app1-pki: {path}: wrong type; `kubectl explain pki.spec.{field}` says what to write"
            )
        );
    }
    let several = create(&json!({ "serviceName": 1, "dnsNames": 2, "unknown": 3 }));
    assert_eq!(causes(&several).len(), 2);
}

#[test]
fn nothing_is_written_into_the_object() {
    for spec in [
        json!({ "serviceName": "app1" }),
        json!({ "serviceName": "app1", "privateKey": {} }),
        json!({ "serviceName": "appp1" }),
    ] {
        assert_eq!(create(&spec).patch, None, "{spec}");
    }
}

#[test]
fn a_size_that_version_0_2_stored_is_ignored_with_a_warning() {
    let stored =
        json!({ "serviceName": "app1", "privateKey": { "algorithm": "ECDSA", "size": 256 } });
    for (algorithm, is_ignored) in [("ECDSA", false), ("RSA", true), ("Ed25519", true)] {
        let mut changed = stored.clone();
        changed["privateKey"]["algorithm"] = json!(algorithm);
        let response = update(&pki(&changed), &pki(&stored));
        assert!(response.allowed, "{algorithm}");
        let warning = format!(
            "spec.privateKey.size: 256 is not a size of an {algorithm} key, and is ignored because version 0.2 stored it as \
             a default: leave it out, or write a size of {algorithm} keys"
        );
        assert_eq!(response.warnings, is_ignored.then(|| vec![warning]));
    }
}

#[test]
fn the_policy_that_the_status_records_is_the_one_that_is_named() {
    let object = pki(&json!({ "serviceName": "app1" }));
    for recorded in [
        json!("all"),
        json!("gone"),
        json!(5),
        json!({}),
        json!("x".repeat(5000)),
    ] {
        let mut old = object.clone();
        old["status"] = json!({ "policy": recorded });
        let response = update(
            &pki(&json!({ "serviceName": "app1", "duration": "24h" })),
            &old,
        );
        assert!(response.allowed, "{recorded}");
        assert!(response.audit_annotations.contains_key("policy"));
    }
}

#[test]
fn a_body_without_a_request_has_another_error_than_one_that_cannot_be_read() {
    let error = |body: &Value| read(body.to_string().as_bytes()).unwrap_err().to_string();
    assert_eq!(
        error(&json!({ "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1" })),
        "the AdmissionReview has no request"
    );
    let good = review(
        "CREATE",
        &pki(&json!({ "serviceName": "app1" })),
        &Value::Null,
    );
    for (field, value) in [("kind", "Pki"), ("apiVersion", "admission.k8s.io/v1beta1")] {
        let mut other = good.clone();
        other[field] = json!(value);
        assert!(
            error(&other).ends_with("not an AdmissionReview of admission.k8s.io/v1"),
            "{}",
            error(&other)
        );
        assert!(error(&other).contains(value));
    }
    for body in [
        "",
        "null",
        "[]",
        "{}",
        "{",
        "\"\"",
        "\0",
        &"[".repeat(100_000),
    ] {
        let error = read(body.as_bytes()).unwrap_err().to_string();
        assert!(
            error.starts_with("the body is not an AdmissionReview: "),
            "{error}"
        );
    }
}

#[test]
fn dry_run_is_judged_alike() {
    for (service, allowed) in [("app1", true), ("appp1", false)] {
        let mut review = review(
            "CREATE",
            &pki(&json!({ "serviceName": service })),
            &Value::Null,
        );
        for dry_run in [json!(true), json!(false)] {
            review["request"]["dryRun"] = dry_run;
            assert_eq!(judge(&review).allowed, allowed);
        }
        review["request"].as_object_mut().unwrap().remove("dryRun");
        assert_eq!(judge(&review).allowed, allowed);
    }
}

#[test]
fn a_time_that_cannot_be_read_does_not_prevent_an_answer() {
    let managed =
        json!([{ "manager": "x", "operation": "Update", "time": "9999-12-31T23:59:59Z" }]);
    let object = with_metadata(
        pki(&json!({ "serviceName": "app1" })),
        "managedFields",
        managed,
    );
    assert!(update(&object, &object).allowed);
    let twice = review("CREATE", &pki(&json!({})), &Value::Null).to_string();
    let twice = twice.replacen('{', r#"{"request": {"uid": "1"}, "#, 1);
    assert!(
        read(twice.as_bytes()).is_err(),
        "a field that is there twice"
    );
}

#[test]
fn an_unexpected_outcome_is_a_warning() {
    let stored = |name: &str, secret: &str, created: &str, ready: &str| {
        let pki = json!({
            "apiVersion": "box.com/v1", "kind": "Pki",
            "metadata": { "namespace": "ns", "name": name, "uid": name, "generation": 1, "creationTimestamp": created },
            "spec": { "serviceName": "app1", "secretName": secret },
            "status": { "conditions": [{ "type": "Ready", "status": ready, "reason": "r", "message": "m",
                "observedGeneration": 1, "lastTransitionTime": created }] }
        });
        serde_json::from_value::<Pki>(pki).unwrap()
    };
    let pkis = SharedIndex::default();
    for pki in [
        stored("older", "shared", "2029-01-01T00:00:00Z", "False"),
        stored("holder", "held", "2029-06-01T00:00:00Z", "True"),
        stored("app1-pki", "held", "2029-01-01T00:00:00Z", "False"),
    ] {
        pkis.write()
            .apply(kube::runtime::watcher::Event::Apply(pki.into()));
    }
    let secrets = SharedIndex::default();
    let foreign = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "namespace": "ns", "name": "foreign" } });
    let foreign: kube::core::PartialObjectMeta<_> = serde_json::from_value(foreign).unwrap();
    secrets
        .write()
        .apply(kube::runtime::watcher::Event::Apply(foreign.into()));
    let warnings = |spec: &Value, ca_end: &str, is_being_replaced: bool| {
        let rules = rules();
        let context = ValidationContext {
            rules: &rules,
            pkis: &pkis,
            secrets: &secrets,
            pods: &SharedIndex::default(),
            ca: Some(CaSummary {
                end: ca_end.parse().unwrap(),
                is_being_replaced,
            }),
            now: now(),
        };
        let review = review("CREATE", &pki(spec), &Value::Null);
        let response = validate(&request(&review), &context);
        assert!(response.allowed);
        response.warnings.unwrap_or_default()
    };
    let taken = |secret: &str, by: &str| {
        format!(
            "spec.secretName: Secret {secret} belongs to Pki ns/{by}, which claimed it first: choose another \
             spec.secretName for Pki ns/app1-pki"
        )
    };
    let spec =
        |secret: &str| json!({ "serviceName": "app1", "secretName": secret, "duration": "24h" });
    let end = "2030-01-02T00:00:00Z";
    assert_eq!(warnings(&spec("free"), end, false), Vec::<String>::new());
    assert_eq!(
        warnings(&spec("shared"), end, false),
        [taken("shared", "older")]
    );
    assert_eq!(
        warnings(&spec("held"), end, false),
        [taken("held", "holder")]
    );
    assert_eq!(
        warnings(&spec("foreign"), end, false),
        [
            "spec.secretName: Secret foreign exists and does not belong to Pki ns/app1-pki, so it is left as it is: delete the \
          Secret, choose another spec.secretName, or, if its type is kubernetes.io/tls and its content may be replaced, \
          annotate the Secret with box.com/adopt=app1-pki"
        ]
    );
    assert_eq!(
        warnings(&spec("free"), "2030-01-01T23:59:59Z", false),
        [
            "spec.duration: the certificate will end with the CA at 2030-01-01T23:59:59Z, earlier than asked for; it is renewed when the CA is"
        ]
    );
    assert_eq!(
        warnings(&spec("free"), end, true),
        [
            "the CA is being replaced: the certificate is renewed when the next one signs; let clients read ca.crt again"
        ]
    );
}

/// The refusal of this review, as in `secret: reason: lines`.
fn refusal_line(review: &Value) -> Option<String> {
    let refusal = refusal(&request(review), &judge(review))?;
    let (pki, lines) = (refusal.pki.to_string(), refusal.rules);
    let change = if refusal.is_edit { "change" } else { "create" };
    Some(format!(
        "{change} {pki}: {}: {}: {lines}",
        refusal.secret, refusal.reason
    ))
}

#[test]
fn a_refusal_concerns_the_pods_of_the_secret_that_it_would_have_written() {
    let bad = pki(&json!({ "serviceName": "appp1" }));
    let sentence = "spec.serviceName: ServiceName: appp1 in pki: app1-pki is not found in allowedNames: [app1 app2]; \
                    did you mean \"app1\"?";
    let review_of = |object: &Value| review("CREATE", object, &Value::Null);
    assert_eq!(
        refusal_line(&review_of(&bad)),
        Some(format!(
            "create ns/app1-pki: app1-pki: PkiServiceNameError: {sentence}"
        ))
    );
    let good = pki(&json!({ "serviceName": "app1" }));
    assert_eq!(
        refusal_line(&review("UPDATE", &bad, &good)),
        Some(format!(
            "change ns/app1-pki: app1-pki: PkiServiceNameError: {sentence}"
        ))
    );
    let other = pki(&json!({ "serviceName": "appp1", "secretName": "tls" }));
    assert!(
        refusal_line(&review_of(&other))
            .unwrap()
            .starts_with("create ns/app1-pki: tls: ")
    );
    let typed = pki(&json!({ "serviceName": "app1", "dnsNames": 5 }));
    assert_eq!(
        refusal_line(&review_of(&typed)).unwrap(),
        "create ns/app1-pki: app1-pki: PkiDnsNameError: spec.dnsNames: wrong type; `kubectl explain pki.spec.dnsNames` \
         says what to write"
    );
}

#[test]
fn an_allowed_or_tried_or_nameless_object_is_no_refusal() {
    let bad = pki(&json!({ "serviceName": "appp1" }));
    let mut tried = review("CREATE", &bad, &Value::Null);
    tried["request"]["dryRun"] = json!(true);
    assert_eq!(refusal_line(&tried), None);
    let good = pki(&json!({ "serviceName": "app1" }));
    assert_eq!(refusal_line(&review("CREATE", &good, &Value::Null)), None);
    assert_eq!(
        refusal_line(&review("UPDATE", &bad, &bad)),
        None,
        "its spec is kept"
    );

    let mut nameless = review("CREATE", &bad, &Value::Null);
    nameless["request"]["name"] = json!("");
    nameless["request"]["object"]["metadata"] = json!({ "generateName": "app1-" });
    assert_eq!(refusal_line(&nameless), None);
    nameless["request"]["object"]["spec"]["secretName"] = json!("tls");
    assert!(
        refusal_line(&nameless)
            .unwrap()
            .starts_with("create ns/app1-: tls: ")
    );
    nameless["request"]["object"]["spec"]["secretName"] = json!("t".repeat(254));
    assert_eq!(refusal_line(&nameless), None, "no pod can name it");
    let mut other = review("CREATE", &bad, &Value::Null);
    other["request"]["kind"]["kind"] = json!("Other");
    assert_eq!(refusal_line(&other), None);
}

#[test]
fn the_audit_log_keeps_the_verdict_the_policy_and_the_rules_behind_it() {
    let noted = |response: AdmissionResponse| {
        let mut noted: Vec<_> = response.audit_annotations.into_iter().collect();
        noted.sort();
        noted
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
    };
    let good = json!({ "serviceName": "app1" });
    assert_eq!(noted(create(&good)), ["policy=policy", "verdict=allowed"]);
    let bad = json!({ "serviceName": "appp1", "dnsNames": ["_", "*"], "duration": "1d" });
    let rules = "rules=PkiDnsNameError,PkiDurationError,PkiServiceNameError";
    let nearest = "policy=policy";
    assert_eq!(noted(create(&bad)), [nearest, rules, "verdict=denied"]);
    let kept = with_metadata(pki(&bad), "labels", json!({ "a": "b" }));
    assert_eq!(
        noted(update(&kept, &pki(&bad))),
        [nearest, rules, "verdict=allowed"]
    );
    assert!(noted(judge(&review("DELETE", &Value::Null, &pki(&good)))).is_empty());
}
