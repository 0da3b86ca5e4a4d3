//! The certificate authority: a certificate that peers accept and its key, ready to sign.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::authority_error::AuthorityError;
use crate::ca::CaCertificate;
use crate::encoding;
use crate::key::{self, KeyAlgorithm, PrivateKeyPem};
use crate::names::check_common_name;
use crate::path;
use crate::validity::{BACKDATING, Validity, asn1_time};

/// A CA certificate and its key, ready to sign.
pub struct Authority {
    ca: CaCertificate,
    key: Zeroizing<KeyPair>,
    private_key_pem: PrivateKeyPem,
}

impl Authority {
    /// Makes a new self-signed root with an ECDSA P-256 key, valid from five minutes before `now`
    /// until `lifetime` after it.
    ///
    /// An authority may sign leaves, but no further authority. A random serialNumber in its name
    /// distinguishes it from the one that it replaces: many clients find an issuer by name alone.
    /// many look an issuer up by its name alone.
    pub fn generate(
        common_name: &str,
        lifetime: SignedDuration,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        check_common_name(common_name)
            .map_err(|problem| AuthorityError::CommonName(common_name.to_owned(), problem))?;
        let validity = Validity::from_now(now, BACKDATING, lifetime, Timestamp::MAX)
            .ok_or(AuthorityError::Lifetime { lifetime, now })?;
        let key = KeyAlgorithm::EcdsaP256
            .generate()
            .map_err(AuthorityError::Generate)?;
        let certificate = root_profile(common_name, validity, &key)
            .and_then(|profile| profile.self_signed(&*key))
            .map_err(AuthorityError::Generate)?;
        let private_key_pem = PrivateKeyPem::new(key.serialize_pem());
        Self::checked(vec![certificate.into()], key, private_key_pem, now)
    }

    /// Reads an authority, and checks that it can sign at `now`.
    ///
    /// `chain` and `root` are those of [`CaCertificate::from_pem`]. The key may be PKCS#8, SEC 1 or
    /// PKCS#1, and ECDSA on P-256 or P-384, RSA of 2048 to 8192 bits, or Ed25519.
    pub fn from_pem(
        chain: &[u8],
        root: &[u8],
        private_key: &[u8],
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let path = path::read(chain, root)?;
        let key = key::read(private_key).ok_or(AuthorityError::PrivateKeyUnreadable)?;
        let private_key_pem = std::str::from_utf8(private_key)
            .map(|pem| PrivateKeyPem::new(pem.to_owned()))
            .map_err(|_| AuthorityError::PrivateKeyUnreadable)?;
        Self::checked(path, key, private_key_pem, now)
    }

    /// The public half: the certificate and the path from it to a root.
    pub fn ca(&self) -> &CaCertificate {
        &self.ca
    }

    /// The private key in PEM.
    pub fn private_key_pem(&self) -> &PrivateKeyPem {
        &self.private_key_pem
    }

    pub(crate) fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, rcgen::Error> {
        Issuer::from_ca_cert_der(self.ca.certificate(), &*self.key)
    }

    fn checked(
        path: Vec<CertificateDer<'static>>,
        key: Zeroizing<KeyPair>,
        private_key_pem: PrivateKeyPem,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let ca = CaCertificate::of_path(path, now)?;
        check_key(&ca, &key)?;
        Ok(Self {
            ca,
            key,
            private_key_pem,
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("ca", &self.ca)
            .finish_non_exhaustive()
    }
}

fn root_profile(
    common_name: &str,
    validity: Validity,
    key: &KeyPair,
) -> Result<CertificateParams, rcgen::Error> {
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
    profile.key_identifier_method = key::identifier(key);
    profile.use_authority_key_identifier_extension = true;
    Ok(profile)
}

/// 127 random bits: unpredictable, positive, and practically unique.
pub(crate) fn random_serial() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = [0; 16];
    while bytes == [0; 16] {
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
        bytes[0] &= 0x7f;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

fn check_key(ca: &CaCertificate, key: &KeyPair) -> Result<(), AuthorityError> {
    let supported = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_ED25519,
    ];
    let (_, certificate) = x509_parser::parse_x509_certificate(ca.certificate())
        .map_err(|_| AuthorityError::Unreadable)?;
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
