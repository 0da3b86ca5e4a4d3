//! The serving certificate of the webhook, and the `caBundle` by which the API server trusts it.
//!
//! All replicas share one CA, kept in a Secret. Each replica issues itself a leaf for a day and
//! keeps it in memory. The API server trusts the field `caBundle` of the webhook configuration,
//! which the operator writes. So the CA is replaced without asking anybody, and no request fails:
//!
//! 1. The Secret gets another CA: in the last third of the present one, on
//!    [request](crate::api::annotations::ROTATE_NOW), or by hand. `previous.crt` keeps the old one.
//! 2. Every `caBundle` gets both.
//! 3. When every API server has had time to see both, each replica issues itself a leaf of the new
//!    one.
//! 4. After a day no leaf of the one before is valid any more. The CA is withdrawn.
//!
//! The Secret also holds a secret segment for the webhook's path, which the operator writes and
//! replaces together with the CA. Callers who may not read the configuration do not know the path
//! (`accepted_paths`). The segment waits for replicas of older versions to end ([`Replicas`]).
//!
//! A Secret that is deleted or damaged is written again by a replica that knows its content.
//! [`decision`] decides, and the [`ServingCertController`] acts.

use crate::util::sync::{read, write};
use accepted_paths::AcceptedPaths;
use decision::Served;
use jiff::{SignedDuration, Timestamp};
use pki_certs::{Authority, KeyAlgorithm, KeyEncoding, LeafRequest, Usage, renewal};
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, RwLock};

pub use controller::{ServingCertController, ServingCertSettings};
pub use replicas::Replicas;

mod accepted_paths;
pub mod client_ca;
mod configuration;
mod controller;
pub mod decision;
mod path;
mod path_decision;
mod replicas;
mod store;
mod trust_problem;
mod watch;

/// How long a serving certificate is valid; it is renewed when a third of that is left.
const LIFETIME: SignedDuration = SignedDuration::from_hours(24);

/// The serving certificate, and the problems that keep the API server from trusting it.
pub struct ServingCert {
    request: LeafRequest,
    leaf: RwLock<Arc<Leaf>>,
    trust_problems: RwLock<Vec<String>>,
    paths: AcceptedPaths,
}

struct Leaf {
    issuer: Arc<Authority>,
    key: Arc<CertifiedKey>,
    renew_at: Timestamp,
    not_after: Timestamp,
}

/// Why there is no serving certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServingCertError {
    /// The CA did not sign, most likely because it may not for a `--webhook-host`.
    #[error("cannot make the serving certificate: {0}")]
    Issue(#[from] pki_certs::IssueError),
    /// The TLS library refuses the certificate.
    #[error("cannot serve with the certificate: {0}")]
    Tls(#[from] rustls::Error),
}

impl ServingCert {
    /// A fresh leaf for these hosts, which are DNS names or addresses. Not known to be trusted yet.
    pub fn new(
        issuer: Arc<Authority>,
        hosts: &[String],
        now: Timestamp,
    ) -> Result<Arc<Self>, ServingCertError> {
        let request = request(hosts);
        let leaf = Leaf::issue(issuer, &request, now)?;
        let unknown = "the webhook configuration has not been read yet".to_owned();
        Ok(Arc::new(Self {
            request,
            leaf: RwLock::new(Arc::new(leaf)),
            trust_problems: RwLock::new(vec![unknown]),
            paths: AcceptedPaths::default(),
        }))
    }

    /// TLS 1.2 and above, with the present leaf, for `clients` alone if these are known.
    pub fn server_config(
        self: &Arc<Self>,
        clients: Option<Arc<dyn ClientCertVerifier>>,
    ) -> ServerConfig {
        let clients = clients.unwrap_or_else(WebPkiClientVerifier::no_client_auth);
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(clients)
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }

    /// The paths that are answered.
    pub fn paths(&self) -> &AcceptedPaths {
        &self.paths
    }

    /// Why the API server would refuse the serving certificate; empty if it would not.
    pub fn trust_problems(&self) -> Vec<String> {
        read(&self.trust_problems).clone()
    }

    /// Checks that this CA can issue a leaf.
    fn check_issuer(
        &self,
        issuer: &Arc<Authority>,
        now: Timestamp,
    ) -> Result<(), ServingCertError> {
        Leaf::issue(issuer.clone(), &self.request, now).map(drop)
    }

    fn leaf(&self) -> Arc<Leaf> {
        read(&self.leaf).clone()
    }

    /// Serves with a fresh leaf of this CA from the next handshake on.
    fn renew(&self, issuer: Arc<Authority>, now: Timestamp) -> Result<(), ServingCertError> {
        let leaf = Leaf::issue(issuer, &self.request, now)?;
        tracing::info!(ca = leaf.issuer.ca().fingerprint(), renew_at = %leaf.renew_at, "renewed the serving certificate");
        *write(&self.leaf) = Arc::new(leaf);
        Ok(())
    }

    fn set_trust_problems(&self, trust_problems: Vec<String>) {
        let mut known = write(&self.trust_problems);
        if *known != trust_problems {
            if trust_problems.is_empty() {
                tracing::info!("the API server can trust the serving certificate");
            } else {
                tracing::warn!(why = trust_problems.join("; "), "not ready");
            }
            *known = trust_problems;
        }
    }
}

impl ResolvesServerCert for ServingCert {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.leaf().key.clone())
    }
}

impl fmt::Debug for ServingCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServingCert")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

fn request(hosts: &[String]) -> LeafRequest {
    let is_address = |host: &&String| host.parse::<IpAddr>().is_ok();
    let (addresses, names): (Vec<_>, Vec<_>) = hosts.iter().partition(is_address);
    LeafRequest {
        common_name: Some("pki-operator".into()),
        former_common_name: None,
        dns_names: names.iter().map(|name| name.to_lowercase()).collect(),
        ip_addresses: addresses.iter().flat_map(|it| it.parse()).collect(),
        uris: vec![],
        usages: vec![Usage::ServerAuth],
        duration: LIFETIME,
        backdating: LeafRequest::BACKDATING,
        key: KeyAlgorithm::EcdsaP256,
        key_encoding: KeyEncoding::Pkcs8,
    }
}

impl Leaf {
    fn issue(
        issuer: Arc<Authority>,
        request: &LeafRequest,
        now: Timestamp,
    ) -> Result<Self, ServingCertError> {
        let leaf = issuer.issue(request, now)?;
        let chain = CertificateDer::pem_slice_iter(leaf.chain_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .expect("a chain made a moment ago is PEM");
        let key = PrivateKeyDer::from_pem_slice(leaf.private_key_pem.as_bytes())
            .expect("a key made a moment ago is PEM");
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Ok(Self {
            issuer,
            key: Arc::new(CertifiedKey::from_der(chain, key, &provider)?),
            renew_at: renewal::at(leaf.not_before, leaf.not_after, None),
            not_after: leaf.not_after,
        })
    }

    /// The leaf, as data for a decision.
    fn served(&self, is_trusted: bool) -> Served<'_> {
        Served {
            issuer: &self.issuer,
            renew_at: self.renew_at,
            is_trusted,
        }
    }
}
