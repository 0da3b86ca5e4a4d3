//! The limits: what the API server takes from clients that do nothing else, in Secrets like those
//! of the operator, and in all three writes of an issuance.

use crate::clients::send;
use crate::report::Row;
use crate::rows::admission::pki;
use crate::stage::Stage;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use pki_operator::api::{Pki, PkiStatus};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const NAMESPACE: &str = "bare";

pub(crate) async fn secrets(stage: &Stage) -> anyhow::Result<Row> {
    stage.kubectl(&["create", "namespace", NAMESPACE])?;
    let secrets = Api::<Secret>::namespaced(stage.client.clone(), NAMESPACE);
    let times = send(stage.objects, |number| {
        let (secrets, secret) = (secrets.clone(), secret(number));
        async move { secrets.create(&PostParams::default(), &secret).await }
    })
    .await?;
    // They would weigh on what is measured next.
    secrets
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await?;
    Ok(Row {
        ratio: Some(1.0),
        ..Row::of("bare creates of Secrets", stage.objects, &times)
    })
}

/// The three writes of an issuance, as fast as clients can send them: a Pki, without admission, its
/// Secret and its status.
pub(crate) async fn issuances(stage: &Stage, bare: f64) -> anyhow::Result<Row> {
    stage.remove_webhooks().await?;
    let secrets = Api::<Secret>::namespaced(stage.client.clone(), NAMESPACE);
    let pkis = Api::<Pki>::namespaced(stage.client.clone(), NAMESPACE);
    let status: PkiStatus = serde_json::from_value(status())?;
    let times = send(stage.objects, |number| {
        let (secrets, pkis, status) = (secrets.clone(), pkis.clone(), status.clone());
        async move {
            let (post, name) = (PostParams::default(), format!("pki-{number}"));
            let mut stored = pkis.create(&post, &pki(&name, "app1")).await?;
            secrets.create(&post, &secret(number)).await?;
            stored.status = Some(status);
            stored.metadata.managed_fields = None;
            pkis.replace_status(&name, &post, &stored).await
        }
    })
    .await?;
    let (delete, all) = (DeleteParams::default(), ListParams::default());
    pkis.delete_collection(&delete, &all).await?;
    secrets.delete_collection(&delete, &all).await?;
    stage.allow(&["app1", "app2"])?;
    Ok(Row {
        ratio: Some(times.rate() / bare),
        ..Row::of(
            "the three writes of an issuance, by clients alone",
            stage.objects,
            &times,
        )
    })
}

/// As long as one of ours.
fn status() -> Value {
    let fingerprint = "ab".repeat(32);
    let message = "Secret pki-1000 holds a certificate for app1, valid until 2030-04-01T00:00:00Z";
    json!({
        "observedGeneration": 1, "secretName": "pki-1000", "serialNumber": "0A".repeat(20),
        "notBefore": "2030-01-01T00:00:00Z", "notAfter": "2030-04-01T00:00:00Z", "renewalTime": "2030-03-01T00:00:00Z",
        "issuerFingerprint": fingerprint, "trustFingerprint": fingerprint,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "PkiReady", "message": message, "observedGeneration": 1,
            "lastTransitionTime": "2030-01-01T00:00:00Z"
        }]
    })
}

/// As large as one of ours.
fn secret(number: usize) -> Secret {
    let file = |name: &str, length| (name.to_owned(), ByteString(vec![b'x'; length]));
    Secret {
        metadata: ObjectMeta {
            name: Some(format!("secret-{number}")),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".into()),
        data: Some(BTreeMap::from([
            file("tls.crt", 800),
            file("tls.key", 240),
            file("ca.crt", 600),
        ])),
        ..Secret::default()
    }
}
