//! Watches the objects that the serving certificate depends on.

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

/// An item for every change of the Secret, of the webhook configuration, or of the operator's pods.
pub(super) fn changes(
    client: &Client,
    settings: &ServingCertSettings,
) -> impl Stream<Item = ()> + Unpin + use<> {
    let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
    let secrets = Api::namespaced(client.clone(), &settings.secret.namespace);
    let configurations = Api::all(client.clone());
    let replicas = settings.replicas.as_ref().map(|it| it.watched(client));
    let watches = [
        watch::<Secret>(secrets, named(&settings.secret.name)),
        watch::<ValidatingWebhookConfiguration>(configurations, named(&settings.configuration)),
    ];
    let pods = replicas.map(|(pods, selected)| watch::<Pod>(pods, selected));
    stream::select_all(watches.into_iter().chain(pods))
}

fn watch<K>(api: Api<PartialObjectMeta<K>>, only: watcher::Config) -> BoxStream<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + fmt::Debug + Send + Sync + 'static,
{
    let events = watcher(api, only).default_backoff();
    let change = |event| {
        future::ready(match event {
            Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone) => Some(()),
            Ok(Event::Init | Event::InitApply(_)) => None,
            Err(error) => {
                tracing::warn!(%error, kind = %K::kind(&()), "failed to watch; retrying");
                None
            }
        })
    };
    events.filter_map(change).boxed()
}
