//! The content of a TLS Secret, and whether it still matches the request.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use rcgen::PublicKeyData as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER};

use crate::ca::CaCertificate;
use crate::encoding;
use crate::key::{self, KeyAlgorithm, KeyEncoding};
use crate::public_key::PublicKey;
use crate::request::LeafRequest;
use crate::san;
use crate::usage::{self, Usage};
use crate::validity::{self, Validity};
use crate::verify_error::VerifyError::{self, CertificateUnreadable};

/// Certificate and key, as a TLS Secret holds them. An absent entry is an empty one.
///
/// Its third entry, `ca.crt`, is for [`Trust`](crate::Trust) to judge.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bundle<'a> {
    /// `tls.crt`: the certificate and those between it and the root, in PEM.
    pub certificate: &'a [u8],
    /// `tls.key`: its private key, in PEM.
    pub private_key: &'a [u8],
}

impl fmt::Debug for Bundle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bundle(..)")
    }
}

/// A certificate that matches its request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Verified {
    /// The serial number in upper-case hexadecimal, as OpenSSL prints it.
    pub serial: String,
    /// The first second of its validity.
    pub not_before: Timestamp,
    /// The last second of its validity.
    pub not_after: Timestamp,
    /// The [fingerprint](CaCertificate::fingerprint) of the CA that signed it.
    pub issuer: String,
    /// Whether it ends with its CA, before the requested duration is over.
    pub cut_short: bool,
}

/// Verifies that the content of a Secret matches the request, one of the issuers and the time.
///
/// While a CA is being replaced there are two issuers, and the leaves of both are valid. Returns
/// the first fault. A bundle without fault stays; [`renewal::at`](crate::renewal::at) returns when
/// it is due for renewal.
pub fn verify(
    bundle: &Bundle<'_>,
    request: &LeafRequest,
    issuers: &[&CaCertificate],
    now: Timestamp,
) -> Result<Verified, VerifyError> {
    let key = key::read_only(bundle.private_key);
    let key = key.map(|(key, encoding)| ExpectedKey {
        algorithm: KeyAlgorithm::of(&*key),
        encoding: Some(encoding),
        info: key.subject_public_key_info(),
    });
    verify_chain(bundle.certificate, key, request, issuers, now)
}

/// Verifies a chain that was made for a public key, as [`verify`] does where the private key is
/// known.
pub(crate) fn verify_for(
    chain_pem: &[u8],
    key: &PublicKey,
    request: &LeafRequest,
    issuers: &[&CaCertificate],
    now: Timestamp,
) -> Result<Verified, VerifyError> {
    let key = ExpectedKey {
        algorithm: Some(key.algorithm()),
        encoding: None,
        info: key.info().subject_public_key_info(),
    };
    verify_chain(chain_pem, Some(key), request, issuers, now)
}

/// The key that a certificate is to have.
struct ExpectedKey {
    algorithm: Option<KeyAlgorithm>,
    /// The encoding of the private key, if that is stored.
    encoding: Option<KeyEncoding>,
    /// The `SubjectPublicKeyInfo` in DER.
    info: Vec<u8>,
}

fn verify_chain(
    chain_pem: &[u8],
    key: Option<ExpectedKey>,
    request: &LeafRequest,
    issuers: &[&CaCertificate],
    now: Timestamp,
) -> Result<Verified, VerifyError> {
    let chain = encoding::only_certificates(chain_pem).ok_or(CertificateUnreadable)?;
    let (der, rest) = chain.split_first().ok_or(CertificateUnreadable)?;
    let certificate = parse(der)?;
    let validity = Validity::of(&certificate).ok_or(CertificateUnreadable)?;
    let key = key.ok_or(VerifyError::PrivateKeyUnreadable)?;

    let candidates = named_as_issuer(&certificate, issuers)?;
    check_in_force(validity, now)?;
    check_key(&certificate, &key.info)?;
    let (algorithm, encoding) = (request.key, request.key_encoding.for_keys(request.key));
    ensure(key.algorithm == Some(algorithm), || {
        VerifyError::KeyAlgorithm(algorithm)
    })?;
    ensure(key.encoding.is_none_or(|it| it == encoding), || {
        VerifyError::KeyEncoding(encoding)
    })?;
    check_common_name(&certificate, request)?;
    san::check(&certificate, request)?;
    let usages = usage::distinct(&request.usages);
    check_usages(&certificate, &usages)?;
    let issuer = first_without_fault(&candidates, |issuer| {
        check_accepted(der, issuer, &usages, now)?;
        check_chain(rest, issuer)?;
        check_duration(validity, request, issuer)
    })?;

    let uncut = requested_end(validity, request, Timestamp::MAX);
    Ok(Verified {
        serial: printed_serial(certificate.raw_serial()),
        not_before: validity.not_before,
        not_after: validity.not_after,
        issuer: issuer.fingerprint().to_owned(),
        cut_short: validity.not_after < uncut,
    })
}

/// Verifies that the content of a Secret was issued here for these names.
///
/// One of the issuers signed the certificate, the private key is its own, and common name and
/// names are exactly the requested ones. Time, usages, duration and kind of key may differ: a
/// certificate from a backup may have expired, and the defaults may have changed.
pub fn recognize(
    bundle: &Bundle<'_>,
    request: &LeafRequest,
    issuers: &[&CaCertificate],
) -> Result<(), VerifyError> {
    let chain = encoding::only_certificates(bundle.certificate).ok_or(CertificateUnreadable)?;
    let der = chain.first().ok_or(CertificateUnreadable)?;
    let certificate = parse(der)?;
    let validity = Validity::of(&certificate).ok_or(CertificateUnreadable)?;
    let (key, _) = key::read_only(bundle.private_key).ok_or(VerifyError::PrivateKeyUnreadable)?;

    let candidates = named_as_issuer(&certificate, issuers)?;
    check_key(&certificate, &key.subject_public_key_info())?;
    check_common_name(&certificate, request)?;
    san::check(&certificate, request)?;
    // No leaf outlives its CA: in its last second every certificate on the path is valid.
    let last = validity.not_after;
    let signed = |issuer: &CaCertificate| check_accepted(der, issuer, &BTreeSet::new(), last);
    first_without_fault(&candidates, signed).map(drop)
}

/// Formats a serial number as OpenSSL does: without the zero byte before a first bit that is set.
pub(crate) fn printed_serial(der: &[u8]) -> String {
    let number = match der {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    encoding::hex(number).to_uppercase()
}

pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, VerifyError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(CertificateUnreadable),
    }
}

/// The issuers with the key identifier that the certificate names. Names alone are not enough: an
/// authority may be replaced by one of the same name, and one key may have several certificates.
fn named_as_issuer<'a>(
    certificate: &X509Certificate<'_>,
    issuers: &[&'a CaCertificate],
) -> Result<Vec<&'a CaCertificate>, VerifyError> {
    let extension = certificate
        .get_extension_unique(&OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER)
        .map_err(|_| CertificateUnreadable)?;
    let key_id = match extension.map(X509Extension::parsed_extension) {
        Some(ParsedExtension::AuthorityKeyIdentifier(aki)) => aki.key_identifier.as_ref(),
        _ => None,
    };
    let is_named =
        |issuer: &&CaCertificate| key_id.is_some_and(|id| id.0 == issuer.subject_key_id());
    let named: Vec<_> = issuers.iter().copied().filter(is_named).collect();
    ensure(!named.is_empty(), || VerifyError::OtherIssuer)?;
    Ok(named)
}

/// The first issuer that passes a check, or the fault of the first one.
fn first_without_fault<'a>(
    candidates: &[&'a CaCertificate],
    check: impl Fn(&CaCertificate) -> Result<(), VerifyError>,
) -> Result<&'a CaCertificate, VerifyError> {
    let mut first_fault = None;
    for candidate in candidates {
        match check(candidate) {
            Ok(()) => return Ok(candidate),
            Err(fault) => first_fault = first_fault.or(Some(fault)),
        }
    }
    Err(first_fault.unwrap_or(VerifyError::OtherIssuer))
}

pub(crate) fn check_in_force(validity: Validity, now: Timestamp) -> Result<(), VerifyError> {
    ensure(!validity.is_over(now), || {
        VerifyError::Expired(validity.not_after)
    })?;
    ensure(!validity.not_yet(now), || {
        VerifyError::NotYetValid(validity.not_before)
    })
}

fn ensure(holds: bool, error: impl FnOnce() -> VerifyError) -> Result<(), VerifyError> {
    if holds { Ok(()) } else { Err(error()) }
}

/// Validates the path as a TLS client does, as a TLS server does, or as both do.
fn check_accepted(
    der: &CertificateDer<'_>,
    issuer: &CaCertificate,
    usages: &BTreeSet<Usage>,
    now: Timestamp,
) -> Result<(), VerifyError> {
    let anchors = [issuer.trust_anchor()];
    let leaf = EndEntityCert::try_from(der).map_err(rejected)?;
    let (between, usage) = (issuer.below_root(), usage::AllOnPath(usages));
    let accepted = verify_path(&leaf, &anchors, between, usage, now);
    accepted.map_err(|error| match &error {
        // The leaf itself lists the usage, as was checked before.
        webpki::Error::RequiredEkuNotFoundContext(missing) => {
            let mut usages = usages.iter();
            match usages.find(|usage| usage.on_path() == missing.required) {
                Some(usage) => VerifyError::Rejected(format!("its CA is not for {usage}")),
                None => rejected(error),
            }
        }
        _ => rejected(error),
    })
}

/// Validates the path from a leaf to one of the anchors at this time.
pub(crate) fn verify_path(
    leaf: &EndEntityCert<'_>,
    anchors: &[TrustAnchor<'_>],
    between: &[CertificateDer<'_>],
    usage: impl ExtendedKeyUsageValidator,
    now: Timestamp,
) -> Result<(), webpki::Error> {
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    leaf.verify_for_usage(algorithms, anchors, between, now, usage, None, None)
        .map(drop)
}

pub(crate) fn rejected(error: webpki::Error) -> VerifyError {
    match error {
        webpki::Error::UnknownIssuer => VerifyError::OtherIssuer,
        webpki::Error::InvalidSignatureForPublicKey => VerifyError::Signature,
        other => VerifyError::Rejected(other.to_string()),
    }
}

/// The certificates between leaf and root come with the leaf, in this order ([RFC 5246, 7.4.2]):
/// peers know only the root.
///
/// [RFC 5246, 7.4.2]: https://www.rfc-editor.org/rfc/rfc5246#section-7.4.2
fn check_chain(rest: &[CertificateDer<'_>], issuer: &CaCertificate) -> Result<(), VerifyError> {
    let expected = issuer.below_root();
    if rest.len() != expected.len() {
        return Err(VerifyError::ChainLength {
            found: rest.len() + 1,
            expected: expected.len() + 1,
        });
    }
    ensure(rest == expected, || VerifyError::Chain)
}

fn check_key(certificate: &X509Certificate<'_>, info: &[u8]) -> Result<(), VerifyError> {
    let belongs = info == certificate.public_key().raw;
    ensure(belongs, || VerifyError::PrivateKeyMismatch)
}

/// The certificate is for exactly these usages.
fn check_usages(
    certificate: &X509Certificate<'_>,
    requested: &BTreeSet<Usage>,
) -> Result<(), VerifyError> {
    let extension = certificate
        .extended_key_usage()
        .map_err(|_| CertificateUnreadable)?;
    let (found, others) =
        extension.map_or_else(Default::default, |extension| usage::read(extension.value));
    if let Some(&usage) = requested.difference(&found).next() {
        return Err(VerifyError::Usage(usage));
    }
    let extra = found.difference(requested).map(Usage::to_string);
    match extra.chain(others).next() {
        Some(usage) => Err(VerifyError::ExtraUsage(usage)),
        None => Ok(()),
    }
}

/// The subject is the common name that would be issued, or the former one, and nothing else.
fn check_common_name(
    certificate: &X509Certificate<'_>,
    request: &LeafRequest,
) -> Result<(), VerifyError> {
    let subject = certificate.subject();
    let mut attributes = subject.iter_attributes();
    let is_requested = match (attributes.next(), attributes.next()) {
        (None, _) => request.common_name.is_none(),
        (Some(only), None) if *only.attr_type() == OID_X509_COMMON_NAME => {
            let accepted = [&request.common_name, &request.former_common_name];
            let mut accepted = accepted.into_iter().flatten();
            accepted.any(|name| only.as_str() == Ok(name))
        }
        _ => false,
    };
    ensure(is_requested, || VerifyError::CommonName {
        found: subject.to_string(),
        requested: request.common_name.clone(),
    })
}

fn check_duration(
    validity: Validity,
    request: &LeafRequest,
    issuer: &CaCertificate,
) -> Result<(), VerifyError> {
    let not_after = validity.not_after;
    let requested = requested_end(validity, request, issuer.not_after());
    ensure(not_after == requested, || VerifyError::Duration {
        not_after,
        requested,
    })
}

fn requested_end(validity: Validity, request: &LeafRequest, latest: Timestamp) -> Timestamp {
    let (backdating, duration) = (request.backdating, request.duration);
    validity::end(validity.not_before, backdating, duration, latest)
}

#[cfg(test)]
mod tests {
    use super::printed_serial;

    #[test]
    fn a_serial_is_printed_as_openssl_prints_it() {
        for (der, printed) in [
            (&[0x00, 0xda, 0x01][..], "DA01"),
            (&[0x7f, 0x00], "7F00"),
            (&[0x0a], "0A"),
            (&[0x00], "00"),
        ] {
            assert_eq!(printed_serial(der), printed);
        }
    }
}
