//! Verifies the serving certificate as the API server does, but by the clock of this machine.

use axum::http::Uri;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use std::time::Duration;

/// Why the API server would not send a request to a server with a certificate.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum TrustProblem {
    /// Neither a Service nor a URL with a host.
    #[error("its clientConfig has no host; install the chart again")]
    NoHost,
    /// The host is none.
    #[error("its clientConfig has the host {0:?}, which is neither a DNS name nor an address")]
    Host(String),
    /// The operator is about to write the `caBundle`, or may not.
    #[error("its caBundle is not set yet")]
    NoBundle,
    /// Not PEM, or not certificates.
    #[error("its caBundle cannot be read")]
    Bundle,
    /// The `caBundle` was changed, or this replica's CA was withdrawn.
    #[error("its caBundle does not hold the CA of the serving certificate")]
    UnknownIssuer,
    /// The API server calls the webhook by another name.
    #[error(
        "the API server calls {0}, but the serving certificate is not for that name; give the name as --webhook-host"
    )]
    OtherHost(String),
    /// Anything else, such as a wrong clock.
    #[error("the serving certificate does not verify: {0}")]
    Other(Error),
}

/// Verifies a chain as a client with this configuration does.
pub(super) fn verify(
    chain: &[CertificateDer<'_>],
    client: &WebhookClientConfig,
    now: Timestamp,
) -> Result<(), TrustProblem> {
    let host = host(client).ok_or(TrustProblem::NoHost)?;
    let name = ServerName::try_from(host.as_str()).map_err(|_| TrustProblem::Host(host.clone()))?;
    let roots = Arc::new(roots(client)?);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
        .build()
        .expect("there are roots, and no revocation lists");
    let (leaf, between) = chain.split_first().expect("a chain begins with its leaf");
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    match verifier.verify_server_cert(leaf, between, &name, &[], now) {
        Ok(_) => Ok(()),
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            Err(TrustProblem::UnknownIssuer)
        }
        Err(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => Err(TrustProblem::OtherHost(host)),
        Err(error) => Err(TrustProblem::Other(error)),
    }
}

/// The host that the API server expects in the certificate.
fn host(client: &WebhookClientConfig) -> Option<String> {
    if let Some(service) = &client.service {
        return Some(format!("{}.{}.svc", service.name, service.namespace));
    }
    let url: Uri = client.url.as_ref()?.parse().ok()?;
    let host = url.host()?;
    Some(host.trim_matches(['[', ']']).to_owned())
}

fn roots(client: &WebhookClientConfig) -> Result<RootCertStore, TrustProblem> {
    let bundle = client.ca_bundle.as_ref().filter(|pem| !pem.0.is_empty());
    let bundle = bundle.ok_or(TrustProblem::NoBundle)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bundle.0) {
        let certificate = certificate.map_err(|_| TrustProblem::Bundle)?;
        roots.add(certificate).map_err(|_| TrustProblem::Bundle)?;
    }
    if roots.is_empty() {
        return Err(TrustProblem::Bundle);
    }
    Ok(roots)
}

#[cfg(test)]
mod tests;
