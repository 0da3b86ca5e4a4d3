//! Asks the cluster for the facts of a page on a Pki.

use super::{Facts, Part, PublishedEvent};
use crate::api::{Delivery, Pki};
use crate::k8s::client::{ClientError, Cluster};
use crate::k8s::tolerant::Lenient;
use crate::policy::{Approved, Namespaces, RuleBook, Settings, Violation};
use crate::store::cached_pod::SecretUser;
use crate::util::text;
use k8s_openapi::api::core::v1::{Event, Pod, Secret};
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use std::sync::Arc;

/// Collects the facts about this Pki that the caller may read.
pub async fn facts(
    cluster: &Cluster,
    name: &str,
    settings: Settings,
) -> Result<Facts, ClientError> {
    let pki = cluster.namespaced::<Lenient<Pki>>().get_opt(name).await;
    let pki = pki.map_err(|error| ClientError::of("get pkis", error))?;
    let pki = pki.map(|Lenient(pki)| pki);
    let secret = pki.as_ref().map_or(name, |pki| pki.secret_name());
    let (judgement, near) = match &pki {
        Some(pki) => (judgement(cluster, pki, settings).await, None),
        None => (Part::Unknown(String::new()), near(cluster, name).await),
    };
    Ok(Facts {
        namespace: cluster.namespace.clone(),
        name: name.to_owned(),
        near,
        judgement,
        secret: secret_of(cluster, secret).await,
        users: users(cluster, name, pki.as_ref()).await,
        events: published(cluster, name).await,
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
    let by_status = "so this page shows the last result of the operator";
    let forbidden = format!("you may not read the policies (pkipolicies), {by_status}");
    let policies = match known(cluster.policies().await, &forbidden) {
        Part::Known(policies) => policies,
        Part::Unknown(why) => return Part::Unknown(why),
    };
    let mut rules = RuleBook::new(Arc::new(settings), &policies);
    if rules.reads_labels() {
        let forbidden = format!(
            "policies select namespaces by label, and you may not read this namespace, {by_status}"
        );
        let labels = match known(cluster.labels(&cluster.namespace).await, &forbidden) {
            Part::Known(labels) => labels,
            Part::Unknown(why) => return Part::Unknown(why),
        };
        let namespaces = Namespaces::from([(cluster.namespace.clone(), labels)]);
        rules = rules.with_namespaces(Arc::new(namespaces));
    }
    Part::Known(rules.evaluate(pki).map(Box::new))
}

async fn secret_of(cluster: &Cluster, name: &str) -> Part<Option<Secret>> {
    let secret = cluster.namespaced::<Lenient<Secret>>().get_opt(name).await;
    let secret = secret.map_err(|error| ClientError::of("get secrets", error));
    let secret = secret.map(|secret| secret.map(|Lenient(secret)| secret));
    known(secret, "you may not read Secrets here")
}

/// The pods that use the Secret of the Pki, or its pod certificates.
async fn users(cluster: &Cluster, name: &str, pki: Option<&Pki>) -> Part<Vec<SecretUser>> {
    let secret = pki.map_or(name, Pki::secret_name);
    let is_for_pods = pki.is_some_and(|pki| pki.delivery() == Delivery::Pod);
    let pods = cluster.list::<Lenient<Pod>>("pods", Some(&cluster.namespace), "");
    let users = pods.await.map(|pods| {
        let users = pods.into_iter().map(|Lenient(pod)| SecretUser::from(pod));
        let is_certified = |user: &SecretUser| {
            let certified = user.certified.as_deref();
            certified.is_some_and(|pod| pod.names_pki(name, is_for_pods))
        };
        let uses_it = |user: &SecretUser| user.use_of(secret).is_some() || is_certified(user);
        let is_user = |user: &SecretUser| !user.is_ending && uses_it(user);
        users.filter(is_user).collect()
    });
    known(users, "you may not list pods here")
}

async fn published(cluster: &Cluster, name: &str) -> Part<Vec<PublishedEvent>> {
    let ours = "reportingComponent=pki-operator";
    let events = cluster.list::<Lenient<Event>>("events", Some(&cluster.namespace), ours);
    let events = events.await.map(|events| {
        let events = events.into_iter().map(|Lenient(event)| event);
        PublishedEvent::about(name, events)
    });
    known(events, "you may not list Events here")
}

fn known<T>(result: Result<T, ClientError>, if_forbidden: &str) -> Part<T> {
    match result {
        Ok(known) => Part::Known(known),
        Err(error) if error.is_forbidden() => Part::Unknown(if_forbidden.to_owned()),
        Err(error) => Part::Unknown(error.to_string()),
    }
}
