//! Builds the path from an authority to its root, and checks each link.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rcgen::{CertificateParams, Issuer, PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::ToDer as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::oid_registry::{
    OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA, OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
};
use x509_parser::x509::AlgorithmIdentifier;

use crate::authority_error::{AuthorityError, PathMember};
use crate::encoding;
use crate::validity::Validity;

/// Maximum number of certificates on a path. webpki follows six between leaf and root.
const MAX_PATH_CERTIFICATES: usize = 7;

/// Reads a path: the CA's certificate first, the root last.
pub(crate) fn read(
    chain: &[u8],
    root: &[u8],
) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let mut path = encoding::certificates(chain)
        .filter(|chain| !chain.is_empty())
        .ok_or(AuthorityError::Unreadable)?;
    let (ends_itself, end) = {
        let parsed = parse(&path)?;
        let end = PathMember::of(&parsed, parsed.len() - 1);
        (parsed.last().is_some_and(is_self_signed), end)
    };
    match read_root(root)? {
        Some(root) if path.last() == Some(&root) => {}
        Some(_) if ends_itself => return Err(AuthorityError::OtherRoot),
        Some(root) => path.push(root),
        None if ends_itself => {}
        None => return Err(AuthorityError::NoRoot(end)),
    }
    Ok(path)
}

fn read_root(pem: &[u8]) -> Result<Option<CertificateDer<'static>>, AuthorityError> {
    if pem.trim_ascii().is_empty() {
        return Ok(None);
    }
    let mut roots = encoding::certificates(pem).ok_or(AuthorityError::RootUnreadable)?;
    match roots.len() {
        1 => Ok(roots.pop()),
        0 => Err(AuthorityError::RootUnreadable),
        found => Err(AuthorityError::TooManyRoots(found)),
    }
}

pub(crate) fn parse<'a>(
    path: &'a [CertificateDer<'_>],
) -> Result<Vec<X509Certificate<'a>>, AuthorityError> {
    path.iter()
        .map(|der| match x509_parser::parse_x509_certificate(der) {
            // webpki is the stricter one of both parsers, as clients are.
            Ok(([], certificate)) if webpki::anchor_from_trusted_cert(der).is_ok() => {
                Ok(certificate)
            }
            _ => Err(AuthorityError::Unreadable),
        })
        .collect()
}

/// Checks that peers accept at `now` what the first certificate of the path signs.
pub(crate) fn check(path: &[X509Certificate<'_>], now: Timestamp) -> Result<(), AuthorityError> {
    if path.len() > MAX_PATH_CERTIFICATES {
        return Err(AuthorityError::TooManyCertificates(path.len()));
    }
    for (index, certificate) in path.iter().enumerate() {
        let which = || PathMember::of(path, index);
        check_may_sign(certificate, index == 0, which)?;
        check_in_force(certificate, now, which)?;
    }
    check_links(path)?;
    for (below, certificate) in path.iter().enumerate() {
        check_path_length(certificate, below, || PathMember::of(path, below))?;
    }
    Ok(())
}

fn check_links(path: &[X509Certificate<'_>]) -> Result<(), AuthorityError> {
    let at = |index| PathMember::of(path, index);
    for (index, link) in path.windows(2).enumerate() {
        if is_self_signed(&link[0]) {
            return Err(AuthorityError::AfterRoot(at(index)));
        }
        if is_signed_with_sha1(&link[0]) {
            return Err(AuthorityError::Sha1(at(index)));
        }
        if !is_named_by(&link[0], &link[1]) || !is_verified_by(&link[0], &link[1]) {
            return Err(AuthorityError::BrokenPath {
                which: at(index),
                next: at(index + 1),
            });
        }
    }
    match path.last() {
        Some(root) if is_self_signed(root) => Ok(()),
        _ => Err(AuthorityError::NotSelfSigned(at(path.len() - 1))),
    }
}

/// The time in which the whole path is valid.
pub(crate) fn validity(path: &[X509Certificate<'_>]) -> Result<Validity, AuthorityError> {
    let mut whole = Validity {
        not_before: Timestamp::MIN,
        not_after: Timestamp::MAX,
    };
    for certificate in path {
        let validity = Validity::of(certificate).ok_or(AuthorityError::Unreadable)?;
        whole.not_before = whole.not_before.max(validity.not_before);
        whole.not_after = whole.not_after.min(validity.not_after);
    }
    Ok(whole)
}

pub(crate) fn subject_key_id(certificate: &X509Certificate<'_>) -> Result<Vec<u8>, AuthorityError> {
    let extension = certificate.get_extension_unique(&OID_X509_EXT_SUBJECT_KEY_IDENTIFIER);
    let extension = extension.ok().flatten();
    match extension.map(X509Extension::parsed_extension) {
        Some(ParsedExtension::SubjectKeyIdentifier(id)) => Ok(id.0.to_vec()),
        _ => Err(AuthorityError::NoSubjectKeyId),
    }
}

/// Checks that rcgen repeats a subject faithfully as the issuer of leaves. rcgen drops repeated
/// attributes, such as a second domainComponent, and refuses some characters.
pub(crate) fn check_subject(
    certificate: &X509Certificate<'_>,
    der: &CertificateDer<'_>,
) -> Result<(), AuthorityError> {
    let subject = certificate.subject();
    let levels = subject.iter_rdn().count();
    let attributes = subject.iter_attributes().count();
    let kinds: BTreeSet<_> = subject
        .iter_attributes()
        .map(|attribute| attribute.attr_type().as_bytes())
        .collect();
    // First, because rcgen panics at a level without attributes.
    let each_once = levels > 0 && levels == attributes && attributes == kinds.len();
    (each_once && is_repeated_by_rcgen(subject.as_raw(), der))
        .then_some(())
        .ok_or(AuthorityError::Subject)
}

fn is_repeated_by_rcgen(subject: &[u8], der: &CertificateDer<'_>) -> bool {
    Issuer::from_ca_cert_der(der, NoKey)
        .and_then(|issuer| CertificateParams::default().signed_by(&NoKey, &issuer))
        .is_ok_and(|probe| {
            x509_parser::parse_x509_certificate(probe.der())
                .is_ok_and(|(_, probe)| probe.issuer().as_raw() == subject)
        })
}

/// A key that signs nothing, for a certificate that is read only for its issuer.
struct NoKey;

impl PublicKeyData for NoKey {
    fn der_bytes(&self) -> &[u8] {
        &[0; 32]
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl SigningKey for NoKey {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(vec![0; 64])
    }
}

/// The CA itself must have a keyUsage. Above it, a missing keyUsage allows everything
/// ([RFC 5280, 6.1.4 (n)]), and old roots have none.
///
/// [RFC 5280, 6.1.4 (n)]: https://www.rfc-editor.org/rfc/rfc5280#section-6.1.4
fn check_may_sign(
    certificate: &X509Certificate<'_>,
    itself: bool,
    which: impl Fn() -> PathMember,
) -> Result<(), AuthorityError> {
    if !certificate.is_ca() {
        return Err(AuthorityError::NotAnAuthority(which()));
    }
    match certificate.key_usage() {
        Ok(Some(usage)) if usage.value.key_cert_sign() => Ok(()),
        Ok(None) if !itself => Ok(()),
        _ => Err(AuthorityError::MayNotSign(which())),
    }
}

fn check_in_force(
    certificate: &X509Certificate<'_>,
    now: Timestamp,
    which: impl Fn() -> PathMember,
) -> Result<(), AuthorityError> {
    let validity = Validity::of(certificate).ok_or(AuthorityError::Unreadable)?;
    if validity.is_over(now) {
        Err(AuthorityError::Expired(which(), validity.not_after))
    } else if validity.not_yet(now) {
        Err(AuthorityError::NotYetValid(which(), validity.not_before))
    } else {
        Ok(())
    }
}

/// `below` counts the authorities between this certificate and the leaf ([RFC 5280, 4.2.1.9]).
/// webpki ignores this constraint of a root.
///
/// [RFC 5280, 4.2.1.9]: https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.9
fn check_path_length(
    certificate: &X509Certificate<'_>,
    below: usize,
    which: impl Fn() -> PathMember,
) -> Result<(), AuthorityError> {
    let constraint = match certificate.basic_constraints() {
        Ok(Some(constraints)) => constraints.value.path_len_constraint,
        _ => return Err(AuthorityError::NotAnAuthority(which())),
    };
    match constraint {
        Some(allowed) if below > usize::try_from(allowed).unwrap_or(usize::MAX) => {
            Err(AuthorityError::PathLength {
                which: which(),
                allowed,
                below,
            })
        }
        _ => Ok(()),
    }
}

/// The signature may be of any algorithm: clients ignore that of a root.
fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    is_named_by(certificate, certificate)
        && (is_verified_by(certificate, certificate) || certificate.verify_signature(None).is_ok())
}

fn is_named_by(certificate: &X509Certificate<'_>, by: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == by.subject().as_raw()
}

/// Verifies with webpki's algorithms: x509-parser has fewer, and some that clients refuse.
fn is_verified_by(certificate: &X509Certificate<'_>, by: &X509Certificate<'_>) -> bool {
    let (signature, key) = (&certificate.signature_algorithm, by.public_key());
    let (Some(signature_id), Some(key_id)) = (contents(signature), contents(&key.algorithm)) else {
        return false;
    };
    webpki::ALL_VERIFICATION_ALGS.iter().any(|algorithm| {
        *algorithm.signature_alg_id() == *signature_id
            && *algorithm.public_key_alg_id() == *key_id
            && algorithm
                .verify_signature(
                    &key.subject_public_key.data,
                    certificate.tbs_certificate.as_ref(),
                    &certificate.signature_value.data,
                )
                .is_ok()
    })
}

/// An algorithm without tag and length, as webpki compares it.
fn contents(algorithm: &AlgorithmIdentifier<'_>) -> Option<Vec<u8>> {
    let mut contents = algorithm.algorithm.to_der_vec().ok()?;
    if let Some(parameters) = &algorithm.parameters {
        contents.extend(parameters.to_der_vec().ok()?);
    }
    Some(contents)
}

/// Clients refuse SHA-1, except in the signature of a root by itself.
fn is_signed_with_sha1(certificate: &X509Certificate<'_>) -> bool {
    let algorithm = &certificate.signature_algorithm.algorithm;
    [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(algorithm)
}
