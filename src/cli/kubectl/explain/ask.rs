//! Asks the cluster for what a page on a Pki is made of.

use super::{Facts, Part, Told};
use crate::api::Pki;
use crate::k8s::client::{ClientError, Cluster};
use crate::k8s::tolerant::Lenient;
use crate::policy::{Approved, Namespaces, RuleBook, Settings, Violation};
use crate::store::cached_pod::SecretUser;
use crate::util::text;
use k8s_openapi::api::core::v1::{Event, Pod, Secret};
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use std::sync::Arc;

/// Learns what may be learnt of this Pki.
pub async fn facts(
    cluster: &Cluster,
    name: &str,
    settings: Settings,
) -> Result<Facts, ClientError> {
    let pki = cluster.namespaced::<Lenient<Pki>>().get_opt(name).await;
    let pki = pki
        .map_err(|error| ClientError::of("get pkis", error))?
        .map(|Lenient(pki)| pki);
    let secret = pki
        .as_ref()
        .map_or(name, |pki| pki.secret_name())
        .to_owned();
    let judgement = match &pki {
        Some(pki) => judgement(cluster, pki, settings).await,
        None => Part::Unknown(String::new()),
    };
    Ok(Facts {
        namespace: cluster.namespace.clone(),
        name: name.to_owned(),
        near: match &pki {
            Some(_) => None,
            None => near(cluster, name).await,
        },
        judgement,
        secret: secret_of(cluster, &secret).await,
        users: users(cluster, &secret).await,
        told: told(cluster, name).await,
        pki,
    })
}

async fn near(cluster: &Cluster, name: &str) -> Option<String> {
    let namespace = Some(cluster.namespace.as_str());
    let pkis = cluster.list::<PartialObjectMeta<Pki>>("pkis", namespace, "");
    let names: Vec<_> = pkis.await.ok()?.iter().map(ResourceExt::name_any).collect();
    text::nearest(name, names.iter().map(String::as_str)).map(str::to_owned)
}

async fn judgement(
    cluster: &Cluster,
    pki: &Pki,
    settings: Settings,
) -> Part<Result<Box<Approved>, Vec<Violation>>> {
    let what = "you may not read the policies (pkipolicies), so this page goes by what the operator said last";
    let policies = match cluster.policies().await {
        Ok(policies) => policies,
        Err(error) => return unknown(what, &error),
    };
    let mut rules = RuleBook::new(Arc::new(settings), &policies);
    if rules.reads_labels() {
        match cluster.labels(&cluster.namespace).await {
            Ok(labels) => {
                let namespaces = Namespaces::from([(cluster.namespace.clone(), labels)]);
                rules = rules.with_namespaces(Arc::new(namespaces));
            }
            Err(error) => {
                let what = "policies select namespaces by label, and you may not read this namespace, so this page goes by what the operator said last";
                return unknown(what, &error);
            }
        }
    }
    Part::Known(rules.evaluate(pki).map(Box::new))
}

async fn secret_of(cluster: &Cluster, name: &str) -> Part<Option<Secret>> {
    match cluster.namespaced::<Lenient<Secret>>().get_opt(name).await {
        Ok(secret) => Part::Known(secret.map(|Lenient(secret)| secret)),
        Err(error) => unknown(
            "you may not read Secrets here",
            &ClientError::of("get secrets", error),
        ),
    }
}

async fn users(cluster: &Cluster, secret: &str) -> Part<Vec<SecretUser>> {
    match cluster
        .list::<Lenient<Pod>>("pods", Some(&cluster.namespace), "")
        .await
    {
        Ok(pods) => {
            let users = pods.into_iter().map(|Lenient(pod)| SecretUser::from(pod));
            let is_user = |user: &SecretUser| !user.is_ending && user.use_of(secret).is_some();
            Part::Known(users.filter(is_user).collect())
        }
        Err(error) => unknown("you may not list pods here", &error),
    }
}

async fn told(cluster: &Cluster, name: &str) -> Part<Vec<Told>> {
    let ours = "reportingComponent=pki-operator";
    match cluster
        .list::<Lenient<Event>>("events", Some(&cluster.namespace), ours)
        .await
    {
        Ok(events) => Part::Known(Told::about(
            name,
            events.into_iter().map(|Lenient(event)| event).collect(),
        )),
        Err(error) => unknown("you may not list Events here", &error),
    }
}

fn unknown<T>(if_forbidden: &str, error: &ClientError) -> Part<T> {
    Part::Unknown(if error.is_forbidden() {
        if_forbidden.to_owned()
    } else {
        error.to_string()
    })
}
