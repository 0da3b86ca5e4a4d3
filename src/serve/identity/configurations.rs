//! The two webhook configurations, which tell the API server whom to ask, where, and whom to trust.

use super::decision::Cas;
use super::distrust::{Distrust, verify};
use super::path::{self, Carried, SECRET_PATH, Segment};
use crate::reconcile::write;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::api::Patch;
use kube::{Api, Client, Resource, ResourceExt};
use pki_certs::Authority;
use rustls_pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt;

/// The fields that every webhook is to have.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) bundle: Bundle<'a>,
    pub(super) path: Path<'a>,
}

/// The path that every webhook is to have.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    /// As it is.
    Same,
    /// Without a secret segment.
    Plain,
    /// With this segment.
    Secret(&'a Segment),
}

/// What every `caBundle` is to hold.
#[derive(Clone, Copy)]
pub(super) enum Bundle<'a> {
    /// These CAs and nothing else.
    Exactly(&'a Cas),
    /// These CAs, beside whatever is there: another replica may know better.
    AtLeast(&'a Cas),
}

/// Both, as they are stored; one that is missing may come again.
pub(super) struct Configurations {
    name: String,
    validating: Option<ValidatingWebhookConfiguration>,
    mutating: Option<MutatingWebhookConfiguration>,
}

impl Configurations {
    pub(super) async fn read(client: &Client, name: &str) -> Result<Self, kube::Error> {
        let validating = Api::<ValidatingWebhookConfiguration>::all(client.clone());
        let mutating = Api::<MutatingWebhookConfiguration>::all(client.clone());
        let (validating, mutating) =
            tokio::try_join!(validating.get_opt(name), mutating.get_opt(name))?;
        Ok(Self {
            name: name.to_owned(),
            validating,
            mutating,
        })
    }

    /// Whether every webhook carries this CA. What is not there keeps nobody waiting.
    pub(super) fn carry(&self, authority: &Authority) -> bool {
        let wanted = authority.ca().certificate_pem();
        self.clients()
            .all(|client| anchors(client).iter().any(|anchor| anchor == wanted))
    }

    /// Whether any webhook takes this chain.
    pub(super) fn trust(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> bool {
        self.clients()
            .any(|client| verify(chain, client, now).is_ok())
    }

    /// Why the API server would not take this chain, in words.
    pub(super) fn distrust(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Vec<String> {
        let validating = distrust(self.validating.as_ref(), &self.name, chain, now);
        validating
            .into_iter()
            .chain(distrust(self.mutating.as_ref(), &self.name, chain, now))
            .collect()
    }

    /// Whether every webhook has this already.
    pub(super) fn hold(&self, wanted: Wanted<'_>) -> bool {
        operations(self.validating.as_ref(), wanted).is_empty()
            && operations(self.mutating.as_ref(), wanted).is_empty()
    }

    /// Writes bundle and path where others stand, unless somebody has changed the configuration since it was read: that is
    /// a conflict.
    pub(super) async fn publish(
        &mut self,
        client: &Client,
        wanted: Wanted<'_>,
    ) -> Result<(), kube::Error> {
        let (validating, mutating) = tokio::join!(
            publish(client, self.validating.as_mut(), wanted),
            publish(client, self.mutating.as_mut(), wanted),
        );
        validating.and(mutating)
    }

    /// Whether the chart that installed both knows of secret paths, and has them wanted.
    pub(super) fn ask_for_secret_path(&self) -> bool {
        let metadata = [
            self.validating.as_ref().map(|it| &it.metadata),
            self.mutating.as_ref().map(|it| &it.metadata),
        ];
        metadata.iter().flatten().all(|metadata| {
            let annotations = metadata.annotations.as_ref();
            annotations.is_some_and(|them| them.get(SECRET_PATH).is_some_and(|it| it == "true"))
        })
    }

    /// The paths at which API servers ask.
    pub(super) fn paths(&self) -> Vec<Carried> {
        let validating = self.validating.as_ref().map(paths).unwrap_or_default();
        let mutating = self.mutating.as_ref().map(paths).unwrap_or_default();
        [validating, mutating].concat()
    }

    fn clients(&self) -> impl Iterator<Item = &WebhookClientConfig> {
        let validating = self.validating.iter().flat_map(Webhooks::clients);
        let mutating = self.mutating.iter().flat_map(Webhooks::clients);
        validating.chain(mutating).map(|(_, client)| client)
    }
}

fn distrust<K: Webhooks>(
    configuration: Option<&K>,
    name: &str,
    chain: &[CertificateDer<'_>],
    now: Timestamp,
) -> Option<String> {
    let kind = K::kind(&());
    let Some(configuration) = configuration else {
        return Some(format!(
            "there is no {kind} {name}, which the chart installs"
        ));
    };
    let problem = |(webhook, client): (&str, &_)| {
        let problem: Distrust = verify(chain, client, now).err()?;
        Some(format!("webhook {webhook} of {kind} {name}: {problem}"))
    };
    configuration.clients().find_map(problem)
}

async fn publish<K: Webhooks>(
    client: &Client,
    configuration: Option<&mut K>,
    wanted: Wanted<'_>,
) -> Result<(), kube::Error> {
    let stale = operations(configuration.as_deref(), wanted);
    let Some(seen) = configuration.filter(|_| !stale.is_empty()) else {
        return Ok(());
    };
    let version = json!({"op": "replace", "path": "/metadata/resourceVersion", "value": seen.resource_version()});
    let patch: Vec<_> = std::iter::once(version).chain(stale).collect();
    let patch = serde_json::from_value(json!(patch)).expect("these are a JSON patch");
    let (api, name) = (Api::<K>::all(client.clone()), seen.name_any());
    let patch = Patch::<()>::Json(patch);
    let patched = api.patch(&name, &write::patch(), &patch).await;
    *seen = patched.map_err(|error| without_segment(error, wanted.path))?;
    tracing::info!(kind = %K::kind(&()), name, "set the caBundle and the path");
    Ok(())
}

/// The JSON patch after which every webhook has these fields.
fn operations<K: Webhooks>(configuration: Option<&K>, wanted: Wanted<'_>) -> Vec<Value> {
    let Wanted { bundle, path } = wanted;
    let webhooks = configuration.into_iter().flat_map(Webhooks::clients);
    let of_webhook = webhooks.enumerate().flat_map(|(index, (_, client))| {
        let add = |field: &str, value: Value| {
            let path = format!("/webhooks/{index}/clientConfig/{field}");
            json!({"op": "add", "path": path, "value": value})
        };
        let bundle = (!bundle.is_held_by(client)).then(|| {
            let value = ByteString(bundle.in_place_of(client).into_bytes());
            add("caBundle", json!(value))
        });
        let (field, address) = address(client);
        let path = path.in_place_of(address, K::LEAF);
        let path = path.filter(|wanted| wanted != address);
        let path = path.map(|wanted| add(field, json!(wanted)));
        bundle.into_iter().chain(path)
    });
    of_webhook.collect()
}

/// The field with the path of a webhook, and what stands there: a path or a whole URL.
fn address(client: &WebhookClientConfig) -> (&'static str, &str) {
    match &client.service {
        Some(service) => ("service/path", service.path.as_deref().unwrap_or_default()),
        None => ("url", client.url.as_deref().unwrap_or_default()),
    }
}

fn paths<K: Webhooks>(configuration: &K) -> Vec<Carried> {
    let webhooks = configuration.clients();
    webhooks
        .map(|(_, client)| path::carried(address(client).1, K::LEAF))
        .collect()
}

/// The error is logged, and the API server may quote what was written.
fn without_segment(error: kube::Error, path: Path<'_>) -> kube::Error {
    match (error, path) {
        (kube::Error::Api(mut status), Path::Secret(segment)) => {
            status.message = status.message.replace(segment.as_str(), "…");
            kube::Error::Api(status)
        }
        (error, _) => error,
    }
}

impl Path<'_> {
    fn in_place_of(self, address: &str, leaf: &str) -> Option<String> {
        match self {
            Self::Same => None,
            Self::Plain => path::with(address, leaf, None),
            Self::Secret(segment) => path::with(address, leaf, Some(segment)),
        }
    }
}

impl Bundle<'_> {
    fn is_held_by(self, client: &WebhookClientConfig) -> bool {
        match self {
            Self::Exactly(cas) => {
                let found = client.ca_bundle.as_ref();
                found.is_some_and(|found| found.0 == cas.bundle().as_bytes())
            }
            Self::AtLeast(cas) => {
                let present = anchors(client);
                cas.certificates()
                    .all(|wanted| present.iter().any(|it| it == wanted))
            }
        }
    }

    fn in_place_of(self, client: &WebhookClientConfig) -> String {
        match self {
            Self::Exactly(cas) => cas.bundle(),
            Self::AtLeast(cas) => {
                let mut all = anchors(client);
                for wanted in cas.certificates() {
                    if all.iter().all(|present| present != wanted) {
                        all.push(wanted.to_owned());
                    }
                }
                all.concat()
            }
        }
    }
}

/// The certificates in the `caBundle`; none if it cannot be read.
fn anchors(client: &WebhookClientConfig) -> Vec<String> {
    let bundle = client.ca_bundle.as_ref();
    let anchors = bundle.and_then(|pem| pki_certs::anchors(&pem.0));
    anchors.unwrap_or_default()
}

/// What the two kinds of webhook configuration have in common.
trait Webhooks:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static
{
    /// The last part of the path of each webhook.
    const LEAF: &'static str;

    /// Name and client configuration of each webhook.
    fn clients(&self) -> impl Iterator<Item = (&str, &WebhookClientConfig)>;
}

impl Webhooks for ValidatingWebhookConfiguration {
    const LEAF: &'static str = "/validate";

    fn clients(&self) -> impl Iterator<Item = (&str, &WebhookClientConfig)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| (webhook.name.as_str(), &webhook.client_config))
    }
}

impl Webhooks for MutatingWebhookConfiguration {
    const LEAF: &'static str = "/mutate";

    fn clients(&self) -> impl Iterator<Item = (&str, &WebhookClientConfig)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| (webhook.name.as_str(), &webhook.client_config))
    }
}
