//! The limit: what the API server takes in Secrets like those of the operator, from clients that do nothing else.

use crate::clients::send;
use crate::report::Row;
use crate::stage::Stage;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
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
        name: "bare creates of Secrets".into(),
        objects: stage.objects,
        rate: times.rate(),
        p50: Some(times.within(50)),
        p99: Some(times.within(99)),
        ratio: Some(1.0),
        ..Row::default()
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
