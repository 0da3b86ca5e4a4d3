//! What lies in a Secret, and whether it still is what was asked for.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::EndEntityCert;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER};

use crate::alternative;
use crate::ca::CaCertificate;
use crate::encoding;
use crate::fault::Fault;
use crate::key::{self, KeyAlgorithm, KeyEncoding};
use crate::request::LeafRequest;
use crate::usage::{self, Usage};
use crate::validity::{self, Validity};

/// What was issued, as it lies in a TLS Secret. An absent entry is an empty one.
///
/// Its third entry, `ca.crt`, is for [`Trust`](crate::Trust) to judge.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bundle<'a> {
    /// `tls.crt`: the certificate and those between it and the root, in PEM.
    pub certificate: &'a [u8],
    /// `tls.key`: its private key, in PEM.
    pub private_key: &'a [u8],
}

/// Hides the entries: one of them is a private key.
impl fmt::Debug for Bundle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bundle(..)")
    }
}

/// A certificate found sound.
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

/// Does what lies in a Secret still match the request, one of the issuers and the time?
///
/// While a CA is being replaced there are two issuers, and the leaves of both are sound. The first
/// fault found is returned. A bundle without fault is to be left alone; whether it is due for
/// renewal is for [`renewal::at`](crate::renewal::at) to say.
pub fn verify(
    bundle: &Bundle<'_>,
    request: &LeafRequest,
    issuers: &[&CaCertificate],
    now: Timestamp,
) -> Result<Verified, Fault> {
    let chain =
        encoding::only_certificates(bundle.certificate).ok_or(Fault::CertificateUnreadable)?;
    let (der, rest) = chain.split_first().ok_or(Fault::CertificateUnreadable)?;
    let certificate = parse(der)?;
    let validity = Validity::of(&certificate).ok_or(Fault::CertificateUnreadable)?;
    let (key, key_encoding) =
        key::read_only(bundle.private_key).ok_or(Fault::PrivateKeyUnreadable)?;

    // It is ours, by name and by key.
    let candidates = named_as_issuer(&certificate, issuers)?;
    // Its time has come and is not over.
    check_in_force(validity, now)?;
    // It can be served.
    check_key(&certificate, &key)?;
    // It is what was asked for.
    check_key_algorithm(&key, request.key)?;
    check_key_encoding(key_encoding, request)?;
    check_common_name(&certificate, request)?;
    alternative::check(&certificate, request)?;
    let usages = usage::distinct(&request.usages);
    check_usages(&certificate, &usages)?;
    // Clients and servers accept it, for as long as was asked for.
    let issuer = first_without_fault(&candidates, |issuer| {
        check_accepted(der, issuer, &usages, now)?;
        check_chain(rest, issuer)?;
        check_duration(validity, request, issuer)
    })?;

    let uncut = validity::end(validity.not_before, request.duration, Timestamp::MAX);
    Ok(Verified {
        serial: printed_serial(certificate.raw_serial()),
        not_before: validity.not_before,
        not_after: validity.not_after,
        issuer: issuer.fingerprint().to_owned(),
        cut_short: validity.not_after < uncut,
    })
}

/// Proves that what lies in a Secret was issued here for these names, whatever else has changed
/// since.
///
/// One of the issuers signed the certificate, the private key is its own, and common name and
/// names are exactly the requested ones. Time, usages, duration and kind of key prove nothing: a
/// certificate from a backup may have ended, and the defaults may be others by now.
pub fn recognize(
    bundle: &Bundle<'_>,
    request: &LeafRequest,
    issuers: &[&CaCertificate],
) -> Result<(), Fault> {
    let chain =
        encoding::only_certificates(bundle.certificate).ok_or(Fault::CertificateUnreadable)?;
    let der = chain.first().ok_or(Fault::CertificateUnreadable)?;
    let certificate = parse(der)?;
    let validity = Validity::of(&certificate).ok_or(Fault::CertificateUnreadable)?;
    let (key, _) = key::read_only(bundle.private_key).ok_or(Fault::PrivateKeyUnreadable)?;

    let candidates = named_as_issuer(&certificate, issuers)?;
    check_key(&certificate, &key)?;
    check_common_name(&certificate, request)?;
    alternative::check(&certificate, request)?;
    // No leaf outlives its CA, so that its last second is one of every certificate on the path.
    let last = validity.not_after;
    let signed = |issuer: &CaCertificate| check_accepted(der, issuer, &BTreeSet::new(), last);
    first_without_fault(&candidates, signed).map(drop)
}

/// As OpenSSL prints it: without the byte that DER puts before a number whose first bit is set.
pub(crate) fn printed_serial(der: &[u8]) -> String {
    let number = match der {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    encoding::hex(number).to_uppercase()
}

pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Fault> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Fault::CertificateUnreadable),
    }
}

/// The name alone would not do: an authority may be replaced by one of the same name. More than one
/// can be left: a CA certificate that was renewed for the same key has the same identifier.
fn named_as_issuer<'a>(
    certificate: &X509Certificate<'_>,
    issuers: &[&'a CaCertificate],
) -> Result<Vec<&'a CaCertificate>, Fault> {
    let extension = certificate
        .get_extension_unique(&OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER)
        .map_err(|_| Fault::CertificateUnreadable)?;
    let key_id = match extension.map(X509Extension::parsed_extension) {
        Some(ParsedExtension::AuthorityKeyIdentifier(aki)) => aki.key_identifier.as_ref(),
        _ => None,
    };
    let named: Vec<_> = issuers
        .iter()
        .copied()
        .filter(|issuer| key_id.is_some_and(|id| id.0 == issuer.subject_key_id()))
        .collect();
    if named.is_empty() {
        Err(Fault::OtherIssuer)
    } else {
        Ok(named)
    }
}

/// The fault of the first one, if all have some.
fn first_without_fault<'a>(
    candidates: &[&'a CaCertificate],
    check: impl Fn(&CaCertificate) -> Result<(), Fault>,
) -> Result<&'a CaCertificate, Fault> {
    let mut first_fault = None;
    for candidate in candidates {
        match check(candidate) {
            Ok(()) => return Ok(candidate),
            Err(fault) => first_fault = first_fault.or(Some(fault)),
        }
    }
    Err(first_fault.unwrap_or(Fault::OtherIssuer))
}

pub(crate) fn check_in_force(validity: Validity, now: Timestamp) -> Result<(), Fault> {
    let Validity {
        not_before,
        not_after,
    } = validity;
    if validity.is_over(now) {
        Err(Fault::Expired { not_after })
    } else if validity.not_yet(now) {
        Err(Fault::NotYetValid { not_before })
    } else {
        Ok(())
    }
}

/// Validates the path as a TLS client does, as a TLS server does, or as both do.
fn check_accepted(
    der: &CertificateDer<'_>,
    issuer: &CaCertificate,
    usages: &BTreeSet<Usage>,
    now: Timestamp,
) -> Result<(), Fault> {
    let anchors = [issuer.trust_anchor()];
    let leaf = EndEntityCert::try_from(der).map_err(rejected)?;
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let accepted = leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        issuer.below_root(),
        now,
        usage::AllOnPath(usages),
        None,
        None,
    );
    accepted.map(drop).map_err(|error| match &error {
        // The leaf itself lists it: that was checked before.
        webpki::Error::RequiredEkuNotFoundContext(missing) => {
            let mut usages = usages.iter();
            match usages.find(|usage| usage.on_path() == missing.required) {
                Some(usage) => Fault::Rejected {
                    reason: format!("its CA is not for {usage}"),
                },
                None => rejected(error),
            }
        }
        _ => rejected(error),
    })
}

pub(crate) fn rejected(error: webpki::Error) -> Fault {
    match error {
        webpki::Error::UnknownIssuer => Fault::OtherIssuer,
        webpki::Error::InvalidSignatureForPublicKey => Fault::Signature,
        other => Fault::Rejected {
            reason: other.to_string(),
        },
    }
}

/// Peers know the root only, so what lies between it and the leaf has to come with the leaf; and in
/// this order ([RFC 5246, 7.4.2]).
///
/// [RFC 5246, 7.4.2]: https://www.rfc-editor.org/rfc/rfc5246#section-7.4.2
fn check_chain(rest: &[CertificateDer<'_>], issuer: &CaCertificate) -> Result<(), Fault> {
    let expected = issuer.below_root();
    if rest.len() != expected.len() {
        return Err(Fault::ChainLength {
            found: rest.len() + 1,
            expected: expected.len() + 1,
        });
    }
    if rest == expected {
        Ok(())
    } else {
        Err(Fault::Chain)
    }
}

fn check_key(certificate: &X509Certificate<'_>, key: &KeyPair) -> Result<(), Fault> {
    let belongs = key.subject_public_key_info() == certificate.public_key().raw;
    belongs.then_some(()).ok_or(Fault::PrivateKeyMismatch)
}

fn check_key_algorithm(key: &KeyPair, requested: KeyAlgorithm) -> Result<(), Fault> {
    (KeyAlgorithm::of(key) == Some(requested))
        .then_some(())
        .ok_or(Fault::KeyAlgorithm { requested })
}

/// The certificate is for exactly these usages.
fn check_usages(
    certificate: &X509Certificate<'_>,
    requested: &BTreeSet<Usage>,
) -> Result<(), Fault> {
    let extension = certificate
        .extended_key_usage()
        .map_err(|_| Fault::CertificateUnreadable)?;
    let (found, others) =
        extension.map_or_else(Default::default, |extension| usage::read(extension.value));
    if let Some(&usage) = requested.difference(&found).next() {
        return Err(Fault::Usage { usage });
    }
    let extra = found.difference(requested).map(Usage::to_string);
    match extra.chain(others).next() {
        Some(usage) => Err(Fault::ExtraUsage { usage }),
        None => Ok(()),
    }
}

fn check_key_encoding(found: KeyEncoding, request: &LeafRequest) -> Result<(), Fault> {
    let requested = request.key_encoding.for_keys(request.key);
    (found == requested)
        .then_some(())
        .ok_or(Fault::KeyEncoding { requested })
}

/// The subject is the common name that would be issued, or the former one, and nothing else.
fn check_common_name(
    certificate: &X509Certificate<'_>,
    request: &LeafRequest,
) -> Result<(), Fault> {
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
    if is_requested {
        return Ok(());
    }
    Err(Fault::CommonName {
        found: subject.to_string(),
        requested: request.common_name.clone(),
    })
}

fn check_duration(
    validity: Validity,
    request: &LeafRequest,
    issuer: &CaCertificate,
) -> Result<(), Fault> {
    let Validity {
        not_before,
        not_after,
    } = validity;
    let requested = validity::end(not_before, request.duration, issuer.not_after());
    if not_after == requested {
        Ok(())
    } else {
        Err(Fault::Duration {
            not_after,
            requested,
        })
    }
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
