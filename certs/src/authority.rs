//! The certificate authority: a self-signed root and its key, checked before it may sign.

use std::collections::BTreeSet;
use std::fmt;

use aws_lc_rs::digest;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SerialNumber,
};
use rustls_pki_types::{CertificateDer, TrustAnchor};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER;
use zeroize::Zeroizing;

use crate::encoding;
use crate::key::{self, KeyAlgorithm, PrivateKeyPem};
use crate::names::{NameProblem, check_common_name};
use crate::validity::{Validity, asn1_time};

/// A CA certificate and its key, ready to sign.
pub struct Authority {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    key: Zeroizing<KeyPair>,
    private_key_pem: PrivateKeyPem,
    fingerprint: String,
    subject_key_id: Vec<u8>,
    validity: Validity,
}

impl Authority {
    /// Makes a new self-signed root with an ECDSA P-256 key, valid from five minutes before `now`
    /// until `lifetime` after it.
    ///
    /// It may sign leaves, but no further authority. Its distinguished name is the common name and
    /// a random serialNumber: while an authority is being replaced, clients hold two of them, and
    /// many look an issuer up by its name alone.
    pub fn generate(
        common_name: &str,
        lifetime: SignedDuration,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        check_common_name(common_name).map_err(|problem| AuthorityError::CommonName {
            name: common_name.to_owned(),
            problem,
        })?;
        let validity = Validity::from_now(now, lifetime, Timestamp::MAX)
            .ok_or(AuthorityError::Lifetime { lifetime, now })?;
        let key = KeyAlgorithm::EcdsaP256
            .generate()
            .map_err(AuthorityError::Generate)?;
        let certificate = root_profile(common_name, validity)
            .and_then(|profile| profile.self_signed(&*key))
            .map_err(AuthorityError::Generate)?;
        let private_key_pem = PrivateKeyPem::new(key.serialize_pem());
        Self::checked(certificate.into(), key, private_key_pem, now)
    }

    /// Reads an authority, and checks that it can sign at `now`.
    ///
    /// The certificate must be one self-signed root in PEM. The key may be PKCS#8, SEC 1 or PKCS#1,
    /// and ECDSA on P-256 or P-384, RSA or Ed25519.
    pub fn from_pem(
        certificate: &[u8],
        private_key: &[u8],
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let mut certificates =
            encoding::certificates(certificate).ok_or(AuthorityError::Unreadable)?;
        let certificate = match certificates.len() {
            0 => return Err(AuthorityError::Unreadable),
            1 => certificates.remove(0),
            found => return Err(AuthorityError::NotOneCertificate { found }),
        };
        let key = key::read(private_key).ok_or(AuthorityError::PrivateKeyUnreadable)?;
        let private_key_pem = std::str::from_utf8(private_key)
            .map(|pem| PrivateKeyPem::new(pem.to_owned()))
            .map_err(|_| AuthorityError::PrivateKeyUnreadable)?;
        Self::checked(certificate, key, private_key_pem, now)
    }

    /// The certificate in PEM: what clients must trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key in PEM.
    pub fn private_key_pem(&self) -> &PrivateKeyPem {
        &self.private_key_pem
    }

    /// SHA-256 of the certificate's DER, in lower-case hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The end of the authority, and of everything it signs.
    pub fn not_after(&self) -> Timestamp {
        self.validity.not_after
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(crate) fn trust_anchor(&self) -> TrustAnchor<'_> {
        webpki::anchor_from_trusted_cert(&self.certificate)
            .expect("an authority is made only of a certificate that can be an anchor")
    }

    pub(crate) fn subject_key_id(&self) -> &[u8] {
        &self.subject_key_id
    }

    pub(crate) fn validity(&self) -> Validity {
        self.validity
    }

    pub(crate) fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, rcgen::Error> {
        Issuer::from_ca_cert_der(&self.certificate, &*self.key)
    }

    fn checked(
        certificate: CertificateDer<'static>,
        key: Zeroizing<KeyPair>,
        private_key_pem: PrivateKeyPem,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let (rest, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|_| AuthorityError::Unreadable)?;
        let validity = Validity::of(&parsed).ok_or(AuthorityError::Unreadable)?;
        // Of the two parsers webpki is the stricter one, as clients are.
        if !rest.is_empty() || webpki::anchor_from_trusted_cert(&certificate).is_err() {
            return Err(AuthorityError::Unreadable);
        }
        check_may_sign_leaves(&parsed)?;
        check_subject(&parsed)?;
        check_key(&parsed, &key)?;
        check_self_signed(&parsed)?;
        check_in_force(validity, now)?;
        let subject_key_id = subject_key_id(&parsed)?;

        Ok(Self {
            certificate_pem: encoding::certificate_pem(&certificate),
            fingerprint: encoding::hex(digest::digest(&digest::SHA256, &certificate).as_ref()),
            certificate,
            key,
            private_key_pem,
            subject_key_id,
            validity,
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("fingerprint", &self.fingerprint)
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// Why an authority could not be made or read: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A new authority was to have an impossible name.
    #[error("the common name {name:?} of the CA {problem}; choose another")]
    CommonName {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: NameProblem,
    },
    /// A new authority was to have no lifetime, or one that begins before 1970.
    #[error(
        "a CA cannot live for {lifetime:#} from {now}: give a lifetime of at least a second, \
         and check the clock"
    )]
    Lifetime {
        /// The lifetime asked for.
        lifetime: SignedDuration,
        /// Where it was to begin.
        now: Timestamp,
    },
    /// The certificate cannot be parsed.
    #[error("the CA certificate is not readable; give one X.509 certificate in PEM")]
    Unreadable,
    /// More than one certificate was given.
    #[error("the CA certificate is a chain of {found}; give the self-signed root alone")]
    NotOneCertificate {
        /// How many there are.
        found: usize,
    },
    /// The private key cannot be parsed.
    #[error(
        "the private key of the CA is not readable; give it in PEM (PKCS#8, SEC 1 or PKCS#1), \
         not encrypted"
    )]
    PrivateKeyUnreadable,
    /// The private key is of a kind whose signatures too few clients accept.
    #[error(
        "the private key of the CA is of a kind not supported; use ECDSA P-256 or P-384, \
         RSA of 2048 to 8192 bits, or Ed25519"
    )]
    PrivateKeyUnsupported,
    /// The private key is that of another certificate.
    #[error(
        "the private key does not belong to the CA certificate; give the two that were made together"
    )]
    PrivateKeyMismatch,
    /// `basicConstraints` does not say CA.
    #[error("the certificate is not that of a CA; make one with basicConstraints CA:TRUE")]
    NotAnAuthority,
    /// `keyUsage` does not allow signing certificates.
    #[error("the CA certificate may not sign certificates; make one with keyUsage keyCertSign")]
    MayNotSign,
    /// Issued by another authority, or not signed with its own key.
    #[error("the CA certificate is not a self-signed root; give the root itself")]
    NotSelfSigned,
    /// There is nothing for leaves to refer to their issuer by.
    #[error(
        "the CA certificate has no subjectKeyIdentifier; make one with it, as RFC 5280 requires"
    )]
    NoSubjectKeyId,
    /// The subject cannot be copied faithfully into the issuer field of leaves.
    #[error(
        "the subject of the CA certificate is empty, or has an attribute twice or two together; \
         make one that has a common name, and each attribute once and alone"
    )]
    Subject,
    /// The authority has ended.
    #[error("the CA certificate expired at {not_after}; replace it and its key")]
    Expired {
        /// When it ended.
        not_after: Timestamp,
    },
    /// The authority has not begun.
    #[error("the CA certificate is not valid before {not_before}; wait, or check the clock")]
    NotYetValid {
        /// When it begins.
        not_before: Timestamp,
    },
    /// The cryptographic library failed.
    #[error("the CA could not be made: {0}")]
    Generate(#[source] rcgen::Error),
}

fn root_profile(common_name: &str, validity: Validity) -> Result<CertificateParams, rcgen::Error> {
    let serial = random_serial()?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    let serial_number_attribute = DnType::CustomDnType(vec![2, 5, 4, 5]);
    let disambiguation = encoding::hex(&serial.as_ref()[..8]);
    subject.push(
        serial_number_attribute,
        DnValue::PrintableString(disambiguation.try_into()?),
    );

    let mut profile = CertificateParams::default();
    profile.distinguished_name = subject;
    profile.serial_number = Some(serial);
    profile.not_before = asn1_time(validity.not_before);
    profile.not_after = asn1_time(validity.not_after);
    profile.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    profile.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    profile.use_authority_key_identifier_extension = true;
    Ok(profile)
}

/// 127 random bits: unpredictable, positive, and as good as unique.
pub(crate) fn random_serial() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = [0; 16];
    while bytes == [0; 16] {
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
        bytes[0] &= 0x7f;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

fn check_may_sign_leaves(certificate: &X509Certificate<'_>) -> Result<(), AuthorityError> {
    if !certificate.is_ca() {
        return Err(AuthorityError::NotAnAuthority);
    }
    match certificate.key_usage() {
        Ok(Some(usage)) if usage.value.key_cert_sign() => Ok(()),
        _ => Err(AuthorityError::MayNotSign),
    }
}

/// rcgen writes an issuer as one attribute a level, and each attribute once: it drops repeated ones
/// (two domainComponents, say) without a word, and the leaf then names an issuer nobody knows.
fn check_subject(certificate: &X509Certificate<'_>) -> Result<(), AuthorityError> {
    let subject = certificate.subject();
    let levels = subject.iter_rdn().count();
    let attributes = subject.iter_attributes().count();
    let kinds: BTreeSet<_> = subject
        .iter_attributes()
        .map(|attribute| attribute.attr_type().as_bytes())
        .collect();
    if levels > 0 && levels == attributes && attributes == kinds.len() {
        Ok(())
    } else {
        Err(AuthorityError::Subject)
    }
}

fn check_key(certificate: &X509Certificate<'_>, key: &KeyPair) -> Result<(), AuthorityError> {
    let supported = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_ED25519,
    ];
    if !supported
        .into_iter()
        .any(|algorithm| key.is_compatible(algorithm))
    {
        Err(AuthorityError::PrivateKeyUnsupported)
    } else if key.subject_public_key_info() != certificate.public_key().raw {
        Err(AuthorityError::PrivateKeyMismatch)
    } else {
        Ok(())
    }
}

fn check_self_signed(certificate: &X509Certificate<'_>) -> Result<(), AuthorityError> {
    let by_itself = certificate.issuer().as_raw() == certificate.subject().as_raw()
        && certificate.verify_signature(None).is_ok();
    by_itself.then_some(()).ok_or(AuthorityError::NotSelfSigned)
}

fn check_in_force(validity: Validity, now: Timestamp) -> Result<(), AuthorityError> {
    let Validity {
        not_before,
        not_after,
    } = validity;
    if validity.is_over(now) {
        Err(AuthorityError::Expired { not_after })
    } else if validity.not_yet(now) {
        Err(AuthorityError::NotYetValid { not_before })
    } else {
        Ok(())
    }
}

fn subject_key_id(certificate: &X509Certificate<'_>) -> Result<Vec<u8>, AuthorityError> {
    let extension = certificate.get_extension_unique(&OID_X509_EXT_SUBJECT_KEY_IDENTIFIER);
    match extension
        .ok()
        .flatten()
        .map(X509Extension::parsed_extension)
    {
        Some(ParsedExtension::SubjectKeyIdentifier(id)) => Ok(id.0.to_vec()),
        _ => Err(AuthorityError::NoSubjectKeyId),
    }
}
