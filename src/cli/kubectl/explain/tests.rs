use super::*;
use crate::k8s::object_key::Key;
use crate::policy::RuleBook;
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::{Value, json};
use std::sync::Arc;

fn now() -> Timestamp {
    "2030-01-01T00:10:00Z".parse().unwrap()
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn pki(ready: Option<(&str, &str, &str)>) -> Pki {
    let condition = |(status, reason, message): (&str, &str, &str)| {
        json!({"type": "Ready", "status": status, "reason": reason, "message": message, "observedGeneration": 1,
            "lastTransitionTime": "2030-01-01T00:00:00Z"})
    };
    let conditions: Vec<_> = ready.into_iter().map(condition).collect();
    read(json!({
        "apiVersion": "box.com/v1", "kind": "Pki",
        "metadata": {"namespace": "ns", "name": "app1-pki", "uid": "u", "generation": 1},
        "spec": {"serviceName": "appp1"},
        "status": {"conditions": conditions, "serialNumber": "0A", "notAfter": "2030-03-01T00:00:00Z", "renewalTime": "2030-02-01T00:00:00Z"},
    }))
}

fn user() -> SecretUser {
    let pod: Pod = read(json!({
        "metadata": {"namespace": "ns", "name": "web"}, "status": {"phase": "Pending"},
        "spec": {"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "app1-pki"}}]},
    }));
    pod.into()
}

fn facts(pki: Option<Pki>) -> Facts {
    let rules = RuleBook::new(Arc::default(), []);
    let event: Event = read(json!({
        "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "web"}, "related": {"kind": "Pki", "name": "app1-pki"},
        "type": "Warning", "reason": "PkiServiceNameError", "message": "no\u{1b}[2J", "eventTime": "2030-01-01T00:00:00.000000Z",
        "series": {"count": 3, "lastObservedTime": "2030-01-01T00:08:00.000000Z"},
    }));
    Facts {
        namespace: "ns".into(),
        name: "app1-pki".into(),
        near: None,
        judgement: pki.as_ref().map_or(Part::Unknown(String::new()), |pki| {
            Part::Known(rules.evaluate(pki).map(Box::new))
        }),
        secret: Part::Known(None),
        users: Part::Known(vec![user()]),
        events: Part::Known(PublishedEvent::about("app1-pki", vec![event])),
        pki,
    }
}

const REFUSED: (&str, &str, &str) = ("False", "PkiServiceNameError", "ServiceName: no");

#[test]
fn a_refused_pki_is_explained_with_its_cause_and_remedy() {
    let expected = "\
Pki ns/app1-pki for the service appp1
  Not ready for 10m: PkiServiceNameError
  ServiceName: no

Why (PkiServiceNameError)
  {cause}

What to do
  {remedy}

Policies
  no policy permits it as it is:
    spec.serviceName: {violation}

Secret app1-pki
  does not exist
  renewal: none while the Pki is refused

Pods that use it
  web has not started: it waits for the Secret
  all their Events: kubectl describe pod web --show-events -n ns

Events of the operator
  Warning to Pod web, 2m ago, 3 times: PkiServiceNameError: no\\u{1b}[2J
";
    let facts = facts(Some(pki(Some(REFUSED))));
    let advice = guide::advice("PkiServiceNameError").unwrap();
    let Part::Known(Err(violations)) = &facts.judgement else {
        panic!()
    };
    let expected = expected
        .replace("{cause}", &advice.cause)
        .replace("{remedy}", &advice.remedy)
        .replace("{violation}", &violations[0].to_string());
    assert_eq!(page(&facts, now()), expected);
}

#[test]
fn secrets_that_were_written_before_are_named_until_their_end() {
    let mut pki = pki(None);
    let former = |name: &str, end: &str| json!({"name": name, "notAfter": end});
    let formers = [
        former("ended", "2030-01-01T00:09:00Z"),
        former("old", "2030-02-01T00:00:00Z"),
    ];
    pki.status.as_mut().unwrap().former_secrets = read(json!(formers));
    let shown = page(&facts(Some(pki)), now());
    let line = "\n  written instead of Secret old, which stays while pods use it, at the latest until 2030-02-01T00:00:00Z\n";
    assert!(shown.contains(line) && !shown.contains("ended"), "{shown}");
}

#[test]
fn a_missing_pki_is_explained_by_the_events_of_pods() {
    let shown = page(&facts(None), now());
    for expected in [
        "There is no Pki ns/app1-pki\n  It was never applied, was denied",
        "Why (PkiServiceNameError)\n",
        "Secret app1-pki\n  does not exist",
        "Warning to Pod web",
    ] {
        assert!(shown.contains(expected), "{expected}\n{shown}");
    }
    assert!(!shown.contains("Policies"), "{shown}");
    let near = Some("app1-pk".to_owned());
    let facts = Facts {
        near,
        ..facts(None)
    };
    assert!(page(&facts, now()).contains("Did you mean app1-pk?"));
}

#[test]
fn missing_permissions_are_shown_and_the_status_is_used() {
    let mut issued = pki(Some(("True", "PkiReady", "fine")));
    let status = issued.status.as_mut().unwrap();
    status.policy = Some("teams".into());
    status.defaults = Some(read(
        json!({"duration": "24h", "usages": ["server auth"], "privateKey": {"algorithm": "ECDSA"}}),
    ));
    let facts = Facts {
        judgement: Part::Unknown("no policies".into()),
        secret: Part::Unknown("no Secrets".into()),
        users: Part::Unknown("no pods".into()),
        events: Part::Unknown("no Events".into()),
        ..facts(Some(issued))
    };
    let shown = page(&facts, now());
    for expected in [
        "  Ready for 10m: PkiReady\n  fine\n\nPolicies\n  no policies\n  PkiPolicy teams permitted the certificate that is in use\n",
        "Values of that certificate that the Pki leaves out\n  duration: 24h\n  privateKey: {\"algorithm\":\"ECDSA\"}\n  usages: [\"server auth\"]\n",
        "Secret app1-pki\n  no Secrets\n  according to the status, it holds the certificate 0A, valid until 2030-03-01T00:00:00Z (58d left)\n",
        "Pods that use it\n  no pods\n",
        "Events of the operator\n  no Events\n",
    ] {
        assert!(shown.contains(expected), "{expected}\n{shown}");
    }
}

#[test]
fn the_owner_of_a_secret_and_unknown_facts_are_shown() {
    let secret = |owner: Value| {
        Part::Known(Some(read(
            json!({"metadata": {"name": "app1-pki", "ownerReferences": owner}, "type": "kubernetes.io/tls"}),
        )))
    };
    let reference = |kind: &str, uid: &str| json!([{"apiVersion": "box.com/v1", "kind": kind, "name": "x", "uid": uid, "controller": true}]);
    for (owner, expected) in [
        (
            json!([]),
            "of type kubernetes.io/tls, does not belong to this Pki: it has no owner\n",
        ),
        (reference("Pki", "u"), "belongs to this Pki"),
        (reference("Pki", "v"), "belongs to Pki x"),
    ] {
        let facts = Facts {
            secret: secret(owner),
            ..facts(Some(pki(None)))
        };
        let shown = page(&facts, now());
        assert!(
            shown.contains(expected) && shown.contains("without a certificate"),
            "{expected}\n{shown}"
        );
        assert!(
            shown.contains("The operator has not processed it yet"),
            "{shown}"
        );
    }
    let mut edited = pki(Some(REFUSED));
    edited.metadata.generation = Some(2);
    assert!(page(&facts(Some(edited)), now()).contains("It was edited since"));
}

#[test]
fn of_many_pods_some_are_listed_and_the_others_counted() {
    let users = (0..30).map(|index| {
        let mut user = user();
        user.key = Key::new("ns", format!("p{index}"));
        user
    });
    let facts = Facts {
        users: Part::Known(users.collect()),
        ..facts(None)
    };
    let shown = page(&facts, now());
    assert!(
        shown.contains("  p19 ") && !shown.contains("  p20 ") && shown.contains("  and 10 more\n"),
        "{shown}"
    );
    let command = "kubectl describe pod p0 p1 p2 --show-events -n ns\n";
    assert!(shown.contains(command), "{shown}");
}
