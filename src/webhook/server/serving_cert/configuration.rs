//! The webhook configuration: the address by which the API server asks, and the CAs that it trusts.

use super::decision::ServingCas;
use super::path::{self, PublishedPath, SECRET_PATH, Segment};
use super::trust_problem::{TrustProblem, verify};
use crate::k8s::patch;
use jiff::Timestamp;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::api::Patch;
use kube::{Api, Client, Resource, ResourceExt};
use pki_certs::Authority;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

#[derive(Clone, Copy)]
pub(super) struct DesiredFields<'a> {
    pub(super) bundle: Bundle<'a>,
    pub(super) path: Path<'a>,
}

#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    /// The present one; the plain one where there is none.
    Same,
    /// Without a secret segment.
    Plain,
    /// With this segment.
    Secret(&'a Segment),
}

#[derive(Clone, Copy)]
pub(super) enum Bundle<'a> {
    /// These CAs and nothing else.
    Exactly(&'a ServingCas),
    /// These CAs beside the present ones, which another replica may know better.
    AtLeast(&'a ServingCas),
}

/// The webhook configuration as it is stored. A missing one may come again.
pub(super) struct Configuration {
    name: String,
    stored: Option<ValidatingWebhookConfiguration>,
}

impl Configuration {
    pub(super) async fn read(client: &Client, name: &str) -> Result<Self, kube::Error> {
        let stored = api(client).get_opt(name).await?;
        let name = name.to_owned();
        Ok(Self { name, stored })
    }

    pub(super) fn carry(&self, authority: &Authority) -> bool {
        let pem = authority.ca().certificate_pem();
        let mut clients = self.clients();
        clients.all(|(_, client)| anchors(client).iter().any(|anchor| anchor == pem))
    }

    pub(super) fn trust(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> bool {
        self.clients()
            .any(|(_, client)| verify(chain, client, now).is_ok())
    }

    /// Why the API server would not take this chain.
    pub(super) fn trust_problems(
        &self,
        chain: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Option<String> {
        let (kind, name) = (ValidatingWebhookConfiguration::kind(&()), &self.name);
        if self.stored.is_none() {
            return Some(format!(
                "there is no {kind} {name}, which the chart installs"
            ));
        }
        let problem = |(webhook, client): (&str, &_)| {
            let problem: TrustProblem = verify(chain, client, now).err()?;
            Some(format!("webhook {webhook} of {kind} {name}: {problem}"))
        };
        self.clients().find_map(problem)
    }

    pub(super) fn hold(&self, desired: DesiredFields<'_>) -> bool {
        self.operations(desired).is_empty()
    }

    /// Writes bundle and path where they differ.
    ///
    /// Errors: a conflict if the configuration was changed since it was read.
    pub(super) async fn publish(
        &mut self,
        client: &Client,
        desired: DesiredFields<'_>,
    ) -> Result<(), kube::Error> {
        let stale = self.operations(desired);
        let Some(seen) = self.stored.as_mut().filter(|_| !stale.is_empty()) else {
            return Ok(());
        };
        let patch = Patch::<()>::Json(patch::unless_changed(seen, stale));
        let name = seen.name_any();
        let patched = api(client).patch(&name, &patch::patch(), &patch).await;
        *seen = patched.map_err(|error| without_segment(error, desired.path))?;
        tracing::info!(kind = %ValidatingWebhookConfiguration::kind(&()), name, "set the caBundle and the path");
        Ok(())
    }

    /// Whether the chart that installed it knows of secret paths, and asks for them.
    pub(super) fn asks_for_secret_path(&self) -> bool {
        self.stored.iter().all(|stored| {
            let annotation = stored.annotations().get(SECRET_PATH);
            annotation.is_some_and(|it| it == "true")
        })
    }

    /// The paths by which API servers ask.
    pub(super) fn paths(&self) -> Vec<PublishedPath> {
        let addresses = self.clients().map(|(_, client)| address(client).1);
        addresses.map(path::published).collect()
    }

    fn clients(&self) -> impl Iterator<Item = (&str, &WebhookClientConfig)> {
        let webhooks = self.stored.iter().flat_map(|it| &it.webhooks).flatten();
        webhooks.map(|webhook| (webhook.name.as_str(), &webhook.client_config))
    }

    fn operations(&self, desired: DesiredFields<'_>) -> Vec<PatchOperation> {
        let DesiredFields { bundle, path } = desired;
        let of_webhook = self.clients().enumerate().flat_map(|(index, (_, client))| {
            let add = |field: &[&str], value: Value| {
                let index = index.to_string();
                let webhook = ["webhooks", &index, "clientConfig"];
                let path =
                    PointerBuf::from_tokens(webhook.into_iter().chain(field.iter().copied()));
                PatchOperation::Add(AddOperation { path, value })
            };
            let bundle = (!bundle.is_held_by(client)).then(|| {
                let value = ByteString(bundle.in_place_of(client).into_bytes());
                add(&["caBundle"], json!(value))
            });
            let (field, address) = address(client);
            let path = path.in_place_of(address);
            let path = path.filter(|desired| desired != address);
            let path = path.map(|desired| add(field, json!(desired)));
            bundle.into_iter().chain(path)
        });
        of_webhook.collect()
    }
}

fn api(client: &Client) -> Api<ValidatingWebhookConfiguration> {
    Api::all(client.clone())
}

/// The field with the path of a webhook, and its value: a path or a whole URL.
fn address(client: &WebhookClientConfig) -> (&'static [&'static str], &str) {
    match &client.service {
        Some(service) => (
            &["service", "path"],
            service.path.as_deref().unwrap_or_default(),
        ),
        None => (&["url"], client.url.as_deref().unwrap_or_default()),
    }
}

/// Removes the segment from an error, which is logged: the API server may quote it.
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
    fn in_place_of(self, address: &str) -> Option<String> {
        match self {
            Self::Same if !address.is_empty() => None,
            Self::Same | Self::Plain => path::with(address, None),
            Self::Secret(segment) => path::with(address, Some(segment)),
        }
    }
}

impl Bundle<'_> {
    fn is_held_by(self, client: &WebhookClientConfig) -> bool {
        match self {
            Self::Exactly(cas) => {
                let present = client.ca_bundle.as_ref();
                present.is_some_and(|present| present.0 == cas.bundle().as_bytes())
            }
            Self::AtLeast(cas) => {
                let present = anchors(client);
                let mut certificates = cas.certificates();
                certificates.all(|certificate| present.iter().any(|it| it == certificate))
            }
        }
    }

    fn in_place_of(self, client: &WebhookClientConfig) -> String {
        match self {
            Self::Exactly(cas) => cas.bundle(),
            Self::AtLeast(cas) => {
                let mut all = anchors(client);
                for certificate in cas.certificates() {
                    if all.iter().all(|present| present != certificate) {
                        all.push(certificate.to_owned());
                    }
                }
                all.concat()
            }
        }
    }
}

/// The certificates in the `caBundle`; none if unreadable.
fn anchors(client: &WebhookClientConfig) -> Vec<String> {
    let bundle = client.ca_bundle.as_ref();
    let anchors = bundle.and_then(|pem| pki_certs::anchors(&pem.0));
    anchors.unwrap_or_default()
}
