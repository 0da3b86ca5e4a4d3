//! PEM and hexadecimal.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use pem::{EncodeConfig, LineEnding, Pem};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// Reads the certificates, and ignores other text around them.
pub(crate) fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .ok()
}

/// Reads the certificates, if `pem` is nothing else.
pub(crate) fn only_certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let certificates = certificates(pem)?;
    let canonical: String = certificates.iter().map(certificate_pem).collect();
    is(pem, &canonical).then_some(certificates)
}

/// Whether `text` is this PEM, but for blank lines and line ends. Readers disagree on other
/// differences, such as a tab in the middle.
pub(crate) fn is(text: &[u8], canonical: &str) -> bool {
    str::from_utf8(text).is_ok_and(|text| {
        text.lines()
            .filter(|line| !line.is_empty())
            .eq(canonical.lines())
    })
}

pub(crate) fn certificate_pem(der: &CertificateDer<'_>) -> String {
    pem("CERTIFICATE", der)
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    // LF on every platform: stored bytes are compared.
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new(label, der), config)
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, der).as_ref())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a string does not fail");
            hex
        })
}
