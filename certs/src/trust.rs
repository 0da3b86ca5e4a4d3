//! The roots that clients trust: `ca.crt`.

use rustls_pki_types::CertificateDer;

use crate::ca::CaCertificate;
use crate::encoding;

/// The trust anchors of `pem`, each in its own PEM. `None` if one cannot be read or be an anchor.
pub fn anchors(pem: &[u8]) -> Option<Vec<String>> {
    let certificates = encoding::certificates(pem)?;
    let is_anchor = |der: &CertificateDer<'_>| webpki::anchor_from_trusted_cert(der).is_ok();
    let pem = |der: &CertificateDer<'_>| is_anchor(der).then(|| encoding::certificate_pem(der));
    certificates.iter().map(pem).collect()
}

/// The roots that clients are to trust, several while a CA is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    roots: Vec<CertificateDer<'static>>,
    pem: String,
    fingerprint: String,
}

impl Trust {
    /// The roots of these CAs in the given order, each once.
    pub fn of<'a>(cas: impl IntoIterator<Item = &'a CaCertificate>) -> Self {
        let mut roots: Vec<CertificateDer<'static>> = Vec::new();
        for ca in cas {
            if !roots.contains(ca.root()) {
                roots.push(ca.root().clone());
            }
        }
        let concatenated: Vec<u8> = roots.iter().flat_map(|root| root.iter().copied()).collect();
        Self {
            pem: roots.iter().map(encoding::certificate_pem).collect(),
            fingerprint: encoding::fingerprint(&concatenated),
            roots,
        }
    }

    /// The roots in PEM, one after the other: `ca.crt`.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 over the DER of all roots, in their order, in lower-case hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether `ca_crt` holds exactly these roots, in this order. Blank lines do not matter.
    pub fn is_published_in(&self, ca_crt: &[u8]) -> bool {
        encoding::only_certificates(ca_crt).is_some_and(|found| found == self.roots)
    }

    pub(crate) fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }
}
