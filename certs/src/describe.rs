//! What is in a PEM file, for people to read.

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::EndEntityCert;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_SIG_ED25519,
};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::fault::Fault;
use crate::usage::Usage;
use crate::validity::Validity;
use crate::{alternative, bundle, encoding, key, usage};
use rcgen::PublicKeyData as _;

/// One certificate. What it says of itself is as it says it: whoever shows it makes it fit to be
/// shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The holder. It may be empty: the names then say all.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The names that it is valid for.
    pub names: Vec<String>,
    /// The kind of its key, as in `ECDSA P-256`.
    pub key: String,
    /// What it may be used for; empty if it does not say.
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

/// The certificates in a file, in its order, whatever else is in it. `None` if one of them cannot
/// be read.
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

/// Whether clients that trust these roots, and know nothing else, accept the first certificate of
/// the chain now, for something that it is for.
pub fn check_chain(chain: &[u8], roots: &[u8], now: Timestamp) -> Result<(), Fault> {
    let chain = encoding::certificates(chain).ok_or(Fault::CertificateUnreadable)?;
    let roots = encoding::certificates(roots).ok_or(Fault::CertificateUnreadable)?;
    let (leaf, between) = chain.split_first().ok_or(Fault::CertificateUnreadable)?;
    let parsed = bundle::parse(leaf)?;
    let validity = Validity::of(&parsed).ok_or(Fault::CertificateUnreadable)?;
    bundle::check_in_force(validity, now)?;
    // A file may hold the chain beside its roots, and a leaf vouches for nobody.
    let is_ca = |root: &&CertificateDer<'_>| bundle::parse(root).is_ok_and(|root| root.is_ca());
    let anchors = roots
        .iter()
        .filter(is_ca)
        .map(webpki::anchor_from_trusted_cert);
    let anchors = anchors.collect::<Result<Vec<_>, _>>();
    let anchors = anchors.map_err(|_| Fault::CertificateUnreadable)?;
    if parsed.is_ca() {
        // A root by itself is trusted or not.
        let is_trusted = roots.contains(leaf);
        return is_trusted.then_some(()).ok_or(Fault::OtherIssuer);
    }
    let listed = usages(&parsed);
    let is_for = |usage: Usage| listed.contains(&usage.to_string());
    let is_for_clients = is_for(Usage::ClientAuth) && !is_for(Usage::ServerAuth);
    let purpose = if is_for_clients {
        Usage::ClientAuth
    } else {
        Usage::ServerAuth
    };
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let leaf = EndEntityCert::try_from(leaf).map_err(bundle::rejected)?;
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    leaf.verify_for_usage(
        algorithms,
        &anchors,
        between,
        now,
        purpose.on_path(),
        None,
        None,
    )
    .map(drop)
    .map_err(bundle::rejected)
}

fn describe(der: &CertificateDer<'static>) -> Option<Description> {
    let parsed = bundle::parse(der).ok()?;
    let validity = Validity::of(&parsed)?;
    Some(Description {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        names: alternative::names(&parsed),
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
        let curve = algorithm
            .parameters
            .as_ref()
            .and_then(|it| it.as_oid().ok());
        let known = [
            (OID_EC_P256, "P-256"),
            (OID_NIST_EC_P384, "P-384"),
            (OID_NIST_EC_P521, "P-521"),
        ];
        let name = known
            .into_iter()
            .find(|(oid, _)| Some(oid) == curve.as_ref());
        return format!(
            "ECDSA {}",
            name.map_or("on another curve", |(_, name)| name)
        );
    }
    match key.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        _ => format!("of another kind ({})", algorithm.algorithm),
    }
}
