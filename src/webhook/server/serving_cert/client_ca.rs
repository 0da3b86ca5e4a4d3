//! The CA of the webhook's clients: a client without a certificate of it fails in the handshake.

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why clients cannot be verified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientCaError {
    /// The file cannot be read.
    #[error("cannot read certificates in PEM from --webhook-client-ca {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: pem::Error,
    },
    /// The file has no certificate, or one that is unusable.
    #[error(
        "--webhook-client-ca {} holds no usable certificate; put the CA there that signs the API server's client certificate",
        .0.display()
    )]
    Empty(PathBuf),
}

/// Reads the CAs of this file; clients are to have a certificate of one of them.
pub fn verifier(file: &Path) -> Result<Arc<dyn ClientCertVerifier>, ClientCaError> {
    let unreadable = |source| ClientCaError::Read {
        file: file.to_owned(),
        source,
    };
    let unusable = || ClientCaError::Empty(file.to_owned());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
        let certificate = certificate.map_err(unreadable)?;
        roots.add(certificate).map_err(|_| unusable())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    verifier.build().map_err(|_| unusable())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::{SignedDuration, Timestamp};
    use pki_certs::Authority;

    #[test]
    fn a_file_has_cas_or_is_refused_by_its_name() {
        let day = SignedDuration::from_hours(24);
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let ca = Authority::generate("Clients", day, now).unwrap();
        let ca = ca.ca().certificate_pem();
        let name = format!("pki-operator-{}-clients.crt", std::process::id());
        let file = std::env::temp_dir().join(name);
        let read = |content: &str| {
            std::fs::write(&file, content).unwrap();
            verifier(&file).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(read(ca), Ok(()));
        assert_eq!(read(&ca.repeat(2)), Ok(()));
        let damaged = ca.replacen("MII", "AAA", 1);
        for (content, said) in [
            ("", "holds no usable certificate"),
            ("text", "holds no usable certificate"),
            (&damaged, "holds no usable certificate"),
            (&ca[..ca.len() / 2], "cannot read certificates in PEM"),
        ] {
            let error = read(content).unwrap_err();
            assert!(
                error.contains(said) && error.contains("--webhook-client-ca /"),
                "{error}"
            );
        }
        std::fs::remove_file(&file).unwrap();
        let missing = verifier(&file).map(drop).unwrap_err().to_string();
        assert!(missing.contains("clients.crt"), "{missing}");
    }
}
