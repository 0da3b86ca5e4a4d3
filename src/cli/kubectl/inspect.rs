//! `kubectl pki inspect`: a Secret or a PEM file. The private key is compared and never shown.

use super::words;
use crate::k8s::secret::file;
use crate::util::text::{first_of, printable, sentence};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use pki_certs::describe::{self, Description};

/// The content of a Secret or a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Files and their certificates; `None` where these cannot be read.
    files: Vec<(String, Option<Vec<Description>>)>,
    /// Whether the key is that of the certificate, in a sentence.
    key: String,
    /// Whether clients accept the certificate, in a sentence.
    chain: String,
}

/// Inspects a TLS Secret.
pub fn secret(secret: &Secret, now: Timestamp) -> Inspection {
    let (certificate, roots) = (file(secret, "tls.crt"), file(secret, "ca.crt"));
    let files = [("tls.crt", certificate), ("ca.crt", roots)];
    let files = files.map(|(name, pem)| (name.to_owned(), describe::certificates(pem)));
    Inspection {
        files: files.to_vec(),
        key: key("tls.key", certificate, file(secret, "tls.key")),
        chain: chain(certificate, roots, "ca.crt", now),
    }
}

/// Inspects a PEM file: a chain that begins with its leaf, with or without CAs and a key.
pub fn pem(name: &str, pem: &[u8], now: Timestamp) -> Inspection {
    let holds_key = pem.windows(KEY.len()).any(|part| part == KEY);
    let certificates = describe::certificates(pem);
    let has_ca = certificates.iter().flatten().any(|it| it.is_ca);
    let key = holds_key.then(|| key(name, pem, pem));
    let chain = has_ca.then(|| chain(pem, pem, "a CA of this file", now));
    Inspection {
        files: vec![(name.to_owned(), certificates)],
        key: key.unwrap_or_default(),
        chain: chain.unwrap_or_default(),
    }
}

const KEY: &[u8] = b"PRIVATE KEY-----";

/// The number of names, and of certificates, that are shown of a file. Others may have written it.
const MAX_SHOWN: usize = 20;
/// The number of both on a page that has other parts.
const MAX_SHOWN_BRIEFLY: usize = 5;

fn key(name: &str, certificate: &[u8], key: &[u8]) -> String {
    let name = printable(name);
    match describe::key_matches(certificate, key) {
        _ if key.is_empty() => format!("{name} is missing"),
        Some(true) => format!("the private key in {name} is that of the certificate"),
        Some(false) => format!("the private key in {name} is NOT that of the certificate"),
        None => format!(
            "the private key in {name} cannot be read, or there is no certificate to compare it with"
        ),
    }
}

fn chain(chain: &[u8], roots: &[u8], name: &str, now: Timestamp) -> String {
    if chain.is_empty() {
        return String::new();
    }
    match describe::check_chain(chain, roots, now) {
        Ok(()) => format!("clients that trust {name} accept the certificate"),
        Err(fault) => format!(
            "clients that trust {name} do NOT accept the certificate: {}",
            sentence(&fault.to_string())
        ),
    }
}

/// The page.
pub fn render(inspection: &Inspection, now: Timestamp) -> String {
    let mut page = String::new();
    for (name, certificates) in &inspection.files {
        page += &file_lines(name, certificates.as_deref(), now);
    }
    for sentence in [&inspection.key, &inspection.chain] {
        if !sentence.is_empty() {
            page = page + sentence + "\n";
        }
    }
    page
}

fn file_lines(name: &str, certificates: Option<&[Description]>, now: Timestamp) -> String {
    let name = printable(name);
    match certificates {
        None => format!("{name}: cannot be read as certificates in PEM\n"),
        Some([]) => format!("{name}: no certificate\n"),
        Some(certificates) => {
            let mut lines = String::new();
            let count = certificates.len();
            for (number, certificate) in (1..).zip(certificates).take(MAX_SHOWN) {
                let header = format!("{name}, certificate {number} of {count}:\n");
                lines += &(header + &certificate_lines(certificate, now));
            }
            lines + &more_certificates(certificates, MAX_SHOWN)
        }
    }
}

fn more_certificates(certificates: &[Description], shown: usize) -> String {
    match certificates.len().saturating_sub(shown) {
        0 => String::new(),
        1 => "and 1 more certificate\n".to_owned(),
        more => format!("and {more} more certificates\n"),
    }
}

/// A subject, which is empty where the names are too long for a common name.
fn subject(written: &str) -> String {
    match written {
        "" => "none; the names count".to_owned(),
        written => printable(written),
    }
}

fn certificate_lines(certificate: &Description, now: Timestamp) -> String {
    let list = |items: &[String], none: &str| match items {
        [] => none.to_owned(),
        some => first_of(some, MAX_SHOWN),
    };
    let usages = if certificate.is_ca {
        "signing certificates"
    } else {
        "any"
    };
    let rows = [
        ("subject", subject(&certificate.subject)),
        ("issuer", printable(&certificate.issuer)),
        ("names", list(&certificate.names, "none")),
        ("key", printable(&certificate.key)),
        ("usages", list(&certificate.usages, usages)),
        ("serial", printable(&certificate.serial)),
        ("valid", validity(certificate, now)),
        ("SHA-256", certificate.fingerprint.clone()),
    ];
    let rows = rows.map(|(name, value)| format!("  {name:<9}{value}\n"));
    rows.concat()
}

/// The validity, and how much of it is left.
fn validity(certificate: &Description, now: Timestamp) -> String {
    let Description {
        not_before,
        not_after,
        ..
    } = certificate;
    let left = if now < *not_before {
        format!("begins in {}", words::until(*not_before, now))
    } else if now > *not_after {
        format!("EXPIRED {}", words::until(*not_after, now))
    } else {
        format!("{} left", words::until(*not_after, now))
    };
    format!("{not_before} to {not_after}, {left}")
}

/// The content of a TLS Secret in a few lines, for a page about its Pki.
pub fn brief(secret: &Secret, now: Timestamp) -> Vec<String> {
    let inspection = self::secret(secret, now);
    let certificates = match inspection.files[0].1.as_deref() {
        None => return vec!["tls.crt cannot be read".into()],
        Some([]) => return vec!["without a certificate".into()],
        Some(certificates) => certificates,
    };
    let mut lines = Vec::new();
    for certificate in certificates.iter().take(MAX_SHOWN_BRIEFLY) {
        lines.push(match certificate.names.as_slice() {
            [] => "certificate of a CA between it and the root".to_owned(),
            names => format!("certificate for {}", first_of(names, MAX_SHOWN_BRIEFLY)),
        });
        let subject = subject(&certificate.subject);
        let issuer = printable(&certificate.issuer);
        let serial = printable(&certificate.serial);
        lines.push(format!(
            "  subject {subject}, issuer {issuer}, serial {serial}"
        ));
        lines.push(format!("  valid {}", validity(certificate, now)));
    }
    let more = more_certificates(certificates, MAX_SHOWN_BRIEFLY);
    lines.extend(more.lines().map(str::to_owned));
    lines.extend([inspection.key, inspection.chain]);
    lines
}

#[cfg(test)]
mod tests;
