use super::*;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

fn pod(name: &str, owner: &str, created: &str, status: &Value) -> Arc<SecretUser> {
    let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": owner, "uid": "o", "controller": true});
    let pod = json!({
        "metadata": {"namespace": "ns", "name": name, "uid": name, "creationTimestamp": created, "ownerReferences": [owner]},
        "spec": {"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "tls"}}]}, "status": status
    });
    Arc::new(serde_json::from_value::<Pod>(pod).unwrap().into())
}

#[test]
fn a_certificate_is_of_interest_when_pods_are_older_and_of_a_kind_that_can_be_restarted() {
    let (renewals, mut told) = Renewals::new();
    let pki: Pki = serde_json::from_value(json!({"apiVersion": "box.com/v1", "kind": "Pki",
        "metadata": {"namespace": "ns", "name": "web", "uid": "p"}, "spec": {"serviceName": "web", "secretName": "tls"}}))
    .unwrap();
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let certificate = Certificate {
        serial: "AB".into(),
        // Issued at 12:00.
        not_before: at("2030-01-01T11:55:00Z"),
        not_after: at("2030-04-01T12:00:00Z"),
        cut_short: false,
        renew_at: at("2030-03-01T12:00:00Z"),
        issuer: String::new(),
        trust: String::new(),
        terms: Box::default(),
    };
    let (running, pending) = (json!({"phase": "Running"}), json!({"phase": "Pending"}));
    let (before, after) = ("2030-01-01T11:59:59Z", "2030-01-01T12:00:00Z");
    for (users, behind) in [
        (vec![], [].as_slice()),
        (vec![pod("a-0", "a", after, &running)], &[]),
        // It has waited for its first certificate.
        (vec![pod("a-0", "a", before, &pending)], &[]),
        (
            vec![
                pod("a-0", "a", before, &running),
                pod("a-1", "a", before, &running),
                pod("b-0", "b", before, &running),
                pod("c-0", "c", after, &running),
            ],
            &["StatefulSet ns/a", "StatefulSet ns/b"],
        ),
    ] {
        renewals.found(&pki, &certificate, &users);
        let told = told.try_recv().ok();
        let found: Vec<_> = told
            .iter()
            .flat_map(|renewal| renewal.behind.iter().map(ToString::to_string))
            .collect();
        assert_eq!(found, behind);
        if let Some(renewal) = told {
            let expected = Cause {
                secret: Key::new("ns", "tls"),
                pki: "web".into(),
                pki_uid: Some("p".into()),
                serial: "AB".into(),
                issued: at(after),
            };
            assert_eq!(renewal.cause, expected);
        }
    }
}
