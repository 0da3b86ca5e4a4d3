//! Who the webhook is to the API server: the serving certificate, and the `caBundle` that makes it
//! trusted.
//!
//! All replicas share one CA, kept in a Secret; each makes itself a leaf for a day and keeps it in
//! memory. Nothing that the operator could lose in there is precious: the API server trusts what
//! the operator writes into the field `caBundle` of its webhook configuration. So the CA is
//! replaced without asking anybody, but never in a way that a request fails:
//!
//! 1. The Secret gets another CA: because the one there has come into its last third, because
//!    somebody asks for it ([`ROTATE_NOW`](crate::controllers::ca::ROTATE_NOW)), or because
//!    somebody put it there. The one before stays in its `previous.crt`.
//! 2. Every `caBundle` gets both.
//! 3. When both have been there for a while, so that every API server knows, each replica makes
//!    itself a leaf of the new one.
//! 4. After a day no leaf of the one before is valid any more. It is withdrawn.
//!
//! The same Secret holds a secret segment for the path by which the API server asks. The operator
//! writes the segment into the configuration together with the `caBundle`, and replaces it together
//! with the CA. Callers who may not read the configuration do not know where to ask (`accepted`).
//! The segment waits for replicas of older versions to end ([`Replicas`]).
//!
//! A Secret that is deleted or damaged is written again by a replica that knows what was in it.
//! [`decision`] decides all that; the [`ServingCertKeeper`] looks, and does it.

use crate::util::sync::{read, write};
use accepted::AcceptedPaths;
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

pub use keeper::{ServingCertKeeper, ServingCertSettings};
pub use replicas::Replicas;

mod accepted;
pub mod client_ca;
mod configuration;
pub mod decision;
mod keeper;
mod path;
mod replicas;
mod store;
mod trust_problem;
mod watch;
mod withheld;

/// How long a serving certificate is valid; it is renewed when a third of that is left.
const LIFETIME: SignedDuration = SignedDuration::from_hours(24);

/// The serving certificate, and what keeps the API server from trusting it.
pub struct Identity {
    request: LeafRequest,
    leaf: RwLock<Arc<Leaf>>,
    trust_problems: RwLock<Vec<String>>,
    paths: AcceptedPaths,
}

/// A leaf in use.
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
    /// The CA did not sign; most likely it may not for a `--webhook-host`.
    #[error("cannot make the serving certificate: {0}")]
    Issue(#[from] pki_certs::IssueError),
    /// The TLS library does not take what was made.
    #[error("cannot serve with the certificate: {0}")]
    Tls(#[from] rustls::Error),
}

impl Identity {
    /// A fresh leaf for these hosts, which are DNS names or addresses. Nobody is known to trust it
    /// yet.
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

    /// TLS 1.2 and above, with whatever leaf is current at the handshake, for `clients` alone if
    /// these are known.
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

    /// Where requests are answered.
    pub fn paths(&self) -> &AcceptedPaths {
        &self.paths
    }

    /// Why the API server would refuse the serving certificate, in words; nothing if it takes it.
    pub fn trust_problems(&self) -> Vec<String> {
        read(&self.trust_problems).clone()
    }

    /// Whether there can be a leaf of this CA.
    fn can_be_of(&self, issuer: &Arc<Authority>, now: Timestamp) -> Result<(), ServingCertError> {
        Leaf::issue(issuer.clone(), &self.request, now).map(drop)
    }

    fn leaf(&self) -> Arc<Leaf> {
        read(&self.leaf).clone()
    }

    /// Serves with a fresh leaf of this CA from the next handshake on.
    fn serve_from(&self, issuer: Arc<Authority>, now: Timestamp) -> Result<(), ServingCertError> {
        let leaf = Leaf::issue(issuer, &self.request, now)?;
        tracing::info!(ca = leaf.issuer.ca().fingerprint(), renew_at = %leaf.renew_at, "renewed the serving certificate");
        *write(&self.leaf) = Arc::new(leaf);
        Ok(())
    }

    fn judged(&self, trust_problems: Vec<String>) {
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

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.leaf().key.clone())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

fn request(hosts: &[String]) -> LeafRequest {
    let (ip_addresses, dns_names): (Vec<_>, Vec<_>) = hosts
        .iter()
        .map(|host| host.parse::<IpAddr>().map_err(|_| host.to_lowercase()))
        .partition(Result::is_ok);
    LeafRequest {
        common_name: Some("pki-operator".into()),
        former_common_name: None,
        dns_names: dns_names.into_iter().filter_map(Result::err).collect(),
        ip_addresses: ip_addresses.into_iter().filter_map(Result::ok).collect(),
        uris: vec![],
        usages: vec![Usage::ServerAuth],
        duration: LIFETIME,
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

    /// The leaf as it is decided on.
    fn served(&self, is_trusted: bool) -> Served<'_> {
        Served {
            issuer: &self.issuer,
            renew_at: self.renew_at,
            is_trusted,
        }
    }
}
