//! Who the webhook is to the API server: the serving certificate, and the `caBundle` that makes it trusted.
//!
//! All replicas share one CA, kept in a Secret; each makes itself a short-lived leaf and keeps it in memory. The
//! operator owns the field `caBundle` of its two webhook configurations: it sets it, and sets it again when somebody
//! wipes it.

use crate::locks::{read, write};
use crate::reconcile::write::patch as patch_params;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::api::Patch;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use pki_certs::{Authority, KeyAlgorithm, KeyEncoding, LeafRequest, Usage};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::watch;

/// How long a serving certificate is valid; it is renewed when a third of that is left.
const LIFETIME: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The serving certificate, and whether the API server has been told to trust it.
pub struct Identity {
    authority: Authority,
    request: LeafRequest,
    current: RwLock<Current>,
    trusted: watch::Sender<Trusted>,
}

struct Current {
    key: Arc<CertifiedKey>,
    renew_at: Timestamp,
}

/// Which of the webhook configurations carry the CA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    /// The validating one.
    pub validating: bool,
    /// The mutating one.
    pub mutating: bool,
}

/// Why there is no serving certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The CA did not sign; most likely a `--webhook-host` is no host.
    #[error("cannot make the serving certificate: {0}")]
    Issue(#[from] pki_certs::IssueError),
    /// The TLS library does not take what was made.
    #[error("cannot serve with the certificate: {0}")]
    Tls(#[from] rustls::Error),
}

impl Identity {
    /// A fresh leaf for these hosts, which are DNS names or addresses.
    pub fn new(authority: Authority, hosts: &[String]) -> Result<Arc<Self>, Error> {
        let (ip_addresses, dns_names): (Vec<_>, Vec<_>) = hosts
            .iter()
            .map(|host| host.parse::<IpAddr>().map_err(|_| host.to_lowercase()))
            .partition(Result::is_ok);
        let request = LeafRequest {
            common_name: "pki-operator".into(),
            dns_names: dns_names.into_iter().filter_map(Result::err).collect(),
            ip_addresses: ip_addresses.into_iter().filter_map(Result::ok).collect(),
            uris: vec![],
            usages: vec![Usage::ServerAuth],
            duration: LIFETIME,
            key: KeyAlgorithm::EcdsaP256,
            key_encoding: KeyEncoding::Pkcs8,
        };
        let current = RwLock::new(issue(&authority, &request, Timestamp::now())?);
        Ok(Arc::new(Self {
            authority,
            request,
            current,
            trusted: watch::Sender::default(),
        }))
    }

    /// TLS 1.2 and above, with whatever leaf is current at the handshake.
    pub fn server_config(self: &Arc<Self>) -> ServerConfig {
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }

    /// Which webhook configurations carry the CA at this moment.
    pub fn trusted(&self) -> Trusted {
        *self.trusted.borrow()
    }

    /// Keeps the leaf fresh and the CA in both webhook configurations, for as long as it is polled.
    pub async fn keep(self: Arc<Self>, client: Client, configuration: String) {
        tokio::join!(
            self.renew(),
            self.keep_trusted::<ValidatingWebhookConfiguration>(&client, &configuration, |t| {
                &mut t.validating
            }),
            self.keep_trusted::<MutatingWebhookConfiguration>(&client, &configuration, |t| &mut t
                .mutating),
        );
    }

    /// By the wall clock, polled: a timer would stop while the machine sleeps.
    async fn renew(&self) {
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let now = Timestamp::now();
            if now < read(&self.current).renew_at {
                continue;
            }
            match issue(&self.authority, &self.request, now) {
                Ok(fresh) => {
                    tracing::info!(renew_at = %fresh.renew_at, "renewed the serving certificate");
                    *write(&self.current) = fresh;
                }
                Err(error) => tracing::error!(%error, "cannot renew the serving certificate"),
            }
        }
    }

    async fn keep_trusted<K: WebhookConfiguration>(
        &self,
        client: &Client,
        name: &str,
        field: fn(&mut Trusted) -> &mut bool,
    ) {
        let api = Api::<K>::all(client.clone());
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut events = std::pin::pin!(watcher(api.clone(), only).default_backoff());
        let mut found = false;
        while let Some(event) = events.next().await {
            let is_trusted = match event {
                Ok(Event::Apply(seen) | Event::InitApply(seen)) => {
                    found = true;
                    if self.is_in(&seen) {
                        true
                    } else {
                        self.trusted.send_modify(|trusted| *field(trusted) = false);
                        self.ensure_trusted(&api, name, seen).await
                    }
                }
                Ok(Event::Init) => {
                    found = false;
                    continue;
                }
                Ok(Event::InitDone) if found => continue,
                Ok(Event::InitDone | Event::Delete(_)) => {
                    let kind = K::kind(&());
                    tracing::warn!(
                        "there is no {kind} {name}: the chart installs it; not ready until it is there"
                    );
                    false
                }
                Err(error) => {
                    tracing::warn!(%error, kind = %K::kind(&()), "the watch broke; taking it up again");
                    continue;
                }
            };
            self.trusted
                .send_modify(|trusted| *field(trusted) = is_trusted);
        }
    }

    fn bundle(&self) -> ByteString {
        ByteString(self.authority.ca().certificate_pem().as_bytes().to_vec())
    }

    fn is_in<K: WebhookConfiguration>(&self, seen: &K) -> bool {
        let bundle = self.bundle();
        seen.bundles().all(|(_, known)| known == Some(&bundle))
    }

    /// Sets the bundle where it differs; tries until the API server takes it.
    async fn ensure_trusted<K: WebhookConfiguration>(
        &self,
        api: &Api<K>,
        name: &str,
        mut seen: K,
    ) -> bool {
        let bundle = self.bundle();
        loop {
            let stale: Vec<_> = seen
                .bundles()
                .enumerate()
                .filter(|(_, (_, known))| *known != Some(&bundle))
                .collect();
            if stale.is_empty() {
                return true;
            }
            let patch: Vec<_> = stale
                .iter()
                .flat_map(|(index, (webhook, _))| {
                    // The test keeps the bundle from a webhook that has taken this place in the list meanwhile.
                    [
                        json!({"op": "test", "path": format!("/webhooks/{index}/name"), "value": webhook}),
                        json!({"op": "add", "path": format!("/webhooks/{index}/clientConfig/caBundle"), "value": bundle}),
                    ]
                })
                .collect();
            let patch =
                serde_json::from_value(json!(patch)).expect("tests and adds are a JSON patch");
            let patch = Patch::<()>::Json(patch);
            match api.patch(name, &patch_params(), &patch).await {
                Ok(written) => {
                    tracing::info!(kind = %K::kind(&()), name, "set the caBundle");
                    seen = written;
                }
                Err(kube::Error::Api(status)) if status.is_not_found() => return false,
                Err(error) => {
                    tracing::warn!(%error, kind = %K::kind(&()), name, "cannot set the caBundle");
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    if let Ok(Some(current)) = api.get_opt(name).await {
                        seen = current;
                    }
                }
            }
        }
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(read(&self.current).key.clone())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

fn issue(authority: &Authority, request: &LeafRequest, now: Timestamp) -> Result<Current, Error> {
    let leaf = authority.issue(request, now)?;
    let chain = CertificateDer::pem_slice_iter(leaf.chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .expect("a chain made a moment ago is PEM");
    let key = PrivateKeyDer::from_pem_slice(leaf.private_key_pem.as_bytes())
        .expect("a key made a moment ago is PEM");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Ok(Current {
        key: Arc::new(CertifiedKey::from_der(chain, key, &provider)?),
        renew_at: pki_certs::renewal::at(leaf.not_before, leaf.not_after, None),
    })
}

/// What the two kinds of webhook configuration have in common.
trait WebhookConfiguration:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static
{
    /// Name and `caBundle` of each webhook.
    fn bundles(&self) -> impl Iterator<Item = (&str, Option<&ByteString>)>;
}

impl WebhookConfiguration for ValidatingWebhookConfiguration {
    fn bundles(&self) -> impl Iterator<Item = (&str, Option<&ByteString>)> {
        self.webhooks
            .iter()
            .flatten()
            .map(|hook| (hook.name.as_str(), hook.client_config.ca_bundle.as_ref()))
    }
}

impl WebhookConfiguration for MutatingWebhookConfiguration {
    fn bundles(&self) -> impl Iterator<Item = (&str, Option<&ByteString>)> {
        self.webhooks
            .iter()
            .flatten()
            .map(|hook| (hook.name.as_str(), hook.client_config.ca_bundle.as_ref()))
    }
}
