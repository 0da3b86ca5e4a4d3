//! The two webhook configurations, which tell the API server whom to ask and whom to trust.

use super::decision::Cas;
use super::distrust::{Distrust, verify};
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
use serde_json::json;
use std::fmt;

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

    /// Whether every webhook has this bundle.
    pub(super) fn hold(&self, bundle: Bundle<'_>) -> bool {
        self.clients().all(|client| bundle.is_held_by(client))
    }

    /// Writes the bundle where another one stands, unless somebody has changed the configuration since it was read: that is
    /// a conflict.
    pub(super) async fn publish(
        &mut self,
        client: &Client,
        bundle: Bundle<'_>,
    ) -> Result<(), kube::Error> {
        let (validating, mutating) = tokio::join!(
            publish(client, self.validating.as_mut(), bundle),
            publish(client, self.mutating.as_mut(), bundle),
        );
        validating.and(mutating)
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
    bundle: Bundle<'_>,
) -> Result<(), kube::Error> {
    let Some(seen) = configuration else {
        return Ok(());
    };
    let stale: Vec<_> = seen
        .clients()
        .enumerate()
        .filter(|(_, (_, client))| !bundle.is_held_by(client))
        .map(|(index, (_, client))| {
            let path = format!("/webhooks/{index}/clientConfig/caBundle");
            let value = ByteString(bundle.in_place_of(client).into_bytes());
            json!({"op": "add", "path": path, "value": value})
        })
        .collect();
    if stale.is_empty() {
        return Ok(());
    }
    let version = json!({"op": "replace", "path": "/metadata/resourceVersion", "value": seen.resource_version()});
    let patch: Vec<_> = std::iter::once(version).chain(stale).collect();
    let patch = serde_json::from_value(json!(patch)).expect("these are a JSON patch");
    let (api, name) = (Api::<K>::all(client.clone()), seen.name_any());
    let patch = Patch::<()>::Json(patch);
    *seen = api.patch(&name, &write::patch(), &patch).await?;
    tracing::info!(kind = %K::kind(&()), name, "set the caBundle");
    Ok(())
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
    /// Name and client configuration of each webhook.
    fn clients(&self) -> impl Iterator<Item = (&str, &WebhookClientConfig)>;
}

impl Webhooks for ValidatingWebhookConfiguration {
    fn clients(&self) -> impl Iterator<Item = (&str, &WebhookClientConfig)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| (webhook.name.as_str(), &webhook.client_config))
    }
}

impl Webhooks for MutatingWebhookConfiguration {
    fn clients(&self) -> impl Iterator<Item = (&str, &WebhookClientConfig)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| (webhook.name.as_str(), &webhook.client_config))
    }
}
