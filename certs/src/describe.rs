//! Describes the certificates of a PEM file for people.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_SIG_ED25519,
};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::usage::Usage;
use crate::validity::Validity;
use crate::verify_error::VerifyError::{self, CertificateUnreadable};
use crate::{bundle, encoding, key, san, usage};
use rcgen::PublicKeyData as _;

/// One certificate. Its texts are as they were written: a caller makes them printable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The holder, which may be empty.
    pub subject: String,
    /// The issuer.
    pub issuer: String,
    /// The names that it is valid for.
    pub names: Vec<String>,
    /// The kind of its key, as in `ECDSA P-256`.
    pub key: String,
    /// Its usages; empty if it lists none.
    pub usages: Vec<String>,
    /// Whether it is that of a CA.
    pub is_ca: bool,
    /// The serial number in upper-case hexadecimal, as OpenSSL prints it.
    pub serial: String,
    /// The first second of its validity.
    pub not_before: Timestamp,
    /// The last second of its validity.
    pub not_after: Timestamp,
    /// SHA-256 of its DER, in lower-case hexadecimal.
    pub fingerprint: String,
}

/// The certificates in a file, in its order. `None` if one of them cannot be read.
pub fn certificates(pem: &[u8]) -> Option<Vec<Description>> {
    let certificates = encoding::certificates(pem)?;
    certificates.iter().map(describe).collect()
}

/// Whether the private key is that of the first certificate. `None` if one of them cannot be read.
pub fn key_matches(certificate: &[u8], private_key: &[u8]) -> Option<bool> {
    let chain = encoding::certificates(certificate)?;
    let leaf = bundle::parse(chain.first()?).ok()?;
    let key = key::read(private_key)?;
    Some(key.subject_public_key_info() == leaf.public_key().raw)
}

/// Whether clients that trust only these roots accept the chain now, for any use of its leaf.
pub fn check_chain(chain: &[u8], roots: &[u8], now: Timestamp) -> Result<(), VerifyError> {
    let chain = encoding::certificates(chain).ok_or(CertificateUnreadable)?;
    let roots = encoding::certificates(roots).ok_or(CertificateUnreadable)?;
    let (leaf, between) = chain.split_first().ok_or(CertificateUnreadable)?;
    let parsed = bundle::parse(leaf)?;
    let validity = Validity::of(&parsed).ok_or(CertificateUnreadable)?;
    bundle::check_in_force(validity, now)?;
    // A file may hold the chain beside its roots, and a leaf signs nothing.
    let is_ca = |root: &&CertificateDer<'_>| bundle::parse(root).is_ok_and(|root| root.is_ca());
    let cas = roots.iter().filter(is_ca);
    let anchors: Result<Vec<_>, _> = cas.map(webpki::anchor_from_trusted_cert).collect();
    let anchors = anchors.map_err(|_| CertificateUnreadable)?;
    if parsed.is_ca() {
        // A root by itself is trusted or not.
        let is_trusted = roots.contains(leaf);
        return is_trusted.then_some(()).ok_or(VerifyError::OtherIssuer);
    }
    let listed = usages(&parsed);
    let is_for = |usage: Usage| listed.contains(&usage.to_string());
    let is_for_clients = is_for(Usage::ClientAuth) && !is_for(Usage::ServerAuth);
    let purpose = if is_for_clients {
        Usage::ClientAuth
    } else {
        Usage::ServerAuth
    };
    let leaf = EndEntityCert::try_from(leaf).map_err(bundle::rejected)?;
    bundle::verify_path(&leaf, &anchors, between, purpose.on_path(), now).map_err(bundle::rejected)
}

fn describe(der: &CertificateDer<'static>) -> Option<Description> {
    let parsed = bundle::parse(der).ok()?;
    let validity = Validity::of(&parsed)?;
    Some(Description {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        names: san::names(&parsed),
        key: kind_of_key(parsed.public_key()),
        usages: usages(&parsed),
        is_ca: parsed.is_ca(),
        serial: bundle::printed_serial(parsed.raw_serial()),
        not_before: validity.not_before,
        not_after: validity.not_after,
        fingerprint: encoding::fingerprint(der),
    })
}

fn usages(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extension = certificate.extended_key_usage().ok().flatten();
    extension.map_or_else(Vec::new, |extension| usage::names(extension.value))
}

fn kind_of_key(key: &SubjectPublicKeyInfo<'_>) -> String {
    let algorithm = &key.algorithm;
    if algorithm.algorithm == OID_SIG_ED25519 {
        return "Ed25519".to_owned();
    }
    if algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = algorithm.parameters.as_ref();
        let name = match curve.and_then(|it| it.as_oid().ok()) {
            Some(curve) if curve == OID_EC_P256 => "P-256",
            Some(curve) if curve == OID_NIST_EC_P384 => "P-384",
            Some(curve) if curve == OID_NIST_EC_P521 => "P-521",
            _ => "on another curve",
        };
        return format!("ECDSA {name}");
    }
    match key.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        _ => format!("of another kind ({})", algorithm.algorithm),
    }
}
