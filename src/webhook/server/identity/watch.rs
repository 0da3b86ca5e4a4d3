//! Hears of every change that the keeper has to look at.

use super::ServingCertSettings;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use std::fmt;
use std::future;

/// Something for every change of the Secret, of the webhook configuration, or of the operator's
/// pods.
pub(super) fn touched(
    client: &Client,
    settings: &ServingCertSettings,
) -> impl Stream<Item = ()> + Unpin + use<> {
    let ServingCertSettings {
        secret,
        configuration,
        ..
    } = settings;
    let secrets = Api::namespaced(client.clone(), &secret.namespace);
    let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
    let pods = settings.replicas.as_ref().map(|it| it.watched(client));
    let watches = [
        changes::<Secret>(secrets, named(&secret.name)),
        changes::<ValidatingWebhookConfiguration>(Api::all(client.clone()), named(configuration)),
    ];
    let pods = pods.map(|(pods, of_the_operator)| changes::<Pod>(pods, of_the_operator));
    stream::select_all(watches.into_iter().chain(pods))
}

fn changes<K>(api: Api<PartialObjectMeta<K>>, only: watcher::Config) -> BoxStream<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + fmt::Debug + Send + Sync + 'static,
{
    let events = watcher(api, only).default_backoff();
    let change = |event| {
        future::ready(match event {
            Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone) => Some(()),
            Ok(Event::Init | Event::InitApply(_)) => None,
            Err(error) => {
                tracing::warn!(%error, kind = %K::kind(&()), "the watch broke; taking it up again");
                None
            }
        })
    };
    events.filter_map(change).boxed()
}
