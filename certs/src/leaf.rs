//! Leaves: the certificates an authority issues.

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData,
};

use crate::authority::{Authority, random_serial};
use crate::bundle::{Bundle, Verified, verify, verify_for};
use crate::encoding;
use crate::key::{self, KeyAlgorithm, KeyEncoding, PrivateKeyPem};
use crate::names::{NameProblem, check_common_name, check_dns_name, check_uri};
use crate::public_key::PublicKey;
use crate::request::LeafRequest;
use crate::san;
use crate::usage::{self, Usage};
use crate::validity::{Validity, asn1_time};
use crate::verify_error::VerifyError;

/// An issued certificate and its key.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// `tls.crt`: the certificate, and those between it and the root, in PEM.
    pub chain_pem: String,
    /// `tls.key`: the key, in the requested encoding.
    pub private_key_pem: PrivateKeyPem,
    /// The serial number in upper-case hexadecimal, as OpenSSL prints it.
    pub serial: String,
    /// Some minutes before the issue, for clients whose clocks are slow.
    pub not_before: Timestamp,
    /// The last second of its validity.
    pub not_after: Timestamp,
    /// Whether it ends with its authority, before the requested duration is over.
    pub cut_short: bool,
}

/// An issued certificate whose key is somebody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The certificate, and those between it and the root, in PEM.
    pub chain_pem: String,
    /// Serial number, validity and issuer.
    pub verified: Verified,
}

impl KeyAlgorithm {
    /// Makes a new private key of this kind, in PKCS#8, for [`Authority::issue_for`].
    pub fn private_key(self) -> Result<PrivateKeyPem, IssueError> {
        Ok(key::write(&*self.generate()?, KeyEncoding::Pkcs8)?)
    }
}

impl Authority {
    /// Makes a key and signs the certificate for it.
    ///
    /// The leaf has passed [`verify`] for the same request and time.
    pub fn issue(&self, request: &LeafRequest, now: Timestamp) -> Result<Leaf, IssueError> {
        // First, because making a key may take seconds.
        self.check(request, now)?;
        let key = request.key.generate()?;
        self.sign(request, &key, now)
    }

    /// Signs a certificate for an existing key, and writes that key in the requested encoding.
    ///
    /// The first private key of `private_key_pem` is used: PKCS#8, SEC 1 or PKCS#1, not encrypted.
    /// The leaf has passed [`verify`] for the same request and time.
    pub fn issue_for(
        &self,
        request: &LeafRequest,
        private_key_pem: &[u8],
        now: Timestamp,
    ) -> Result<Leaf, IssueError> {
        self.check(request, now)?;
        let key = key::read(private_key_pem).ok_or(IssueError::PrivateKeyUnreadable)?;
        if KeyAlgorithm::of(&*key) != Some(request.key) {
            return Err(IssueError::KeyAlgorithm(request.key));
        }
        self.sign(request, &key, now)
    }

    /// Signs a certificate for the key of somebody else, which is of the requested kind.
    ///
    /// The certificate has passed the checks of [`verify`] for the same request and time.
    pub fn certify(
        &self,
        request: &LeafRequest,
        key: &PublicKey,
        now: Timestamp,
    ) -> Result<Certified, IssueError> {
        self.check(request, now)?;
        let chain_pem = self.sign_chain(request, key.info(), now)?;
        let verified = verify_for(chain_pem.as_bytes(), key, request, &[self.ca()], now);
        Ok(Certified {
            verified: verified.map_err(IssueError::Unusable)?,
            chain_pem,
        })
    }

    fn check(&self, request: &LeafRequest, now: Timestamp) -> Result<Validity, IssueError> {
        check_names(request)?;
        if request.usages.is_empty() {
            return Err(IssueError::NoUsages);
        }
        self.validity_of(request, now)
    }

    fn sign(
        &self,
        request: &LeafRequest,
        key: &KeyPair,
        now: Timestamp,
    ) -> Result<Leaf, IssueError> {
        let chain_pem = self.sign_chain(request, key, now)?;
        let private_key_pem = key::write(key, request.key_encoding)?;

        let bundle = Bundle {
            certificate: chain_pem.as_bytes(),
            private_key: private_key_pem.as_bytes(),
        };
        let verified = verify(&bundle, request, &[self.ca()], now).map_err(IssueError::Unusable)?;
        Ok(Leaf {
            chain_pem,
            private_key_pem,
            serial: verified.serial,
            not_before: verified.not_before,
            not_after: verified.not_after,
            cut_short: verified.cut_short,
        })
    }

    fn sign_chain(
        &self,
        request: &LeafRequest,
        key: &impl PublicKeyData,
        now: Timestamp,
    ) -> Result<String, IssueError> {
        let validity = self.validity_of(request, now)?;
        let certificate = leaf_profile(request, validity, key)?.signed_by(key, &self.issuer()?)?;
        Ok(encoding::certificate_pem(certificate.der()) + self.ca().chain_pem())
    }

    fn validity_of(&self, request: &LeafRequest, now: Timestamp) -> Result<Validity, IssueError> {
        let authority = self.ca().validity();
        if authority.not_yet(now) {
            return Err(IssueError::AuthorityNotYetValid(authority.not_before));
        }
        // In its last second no leaf can become valid any more.
        if authority.not_after <= now {
            return Err(IssueError::AuthorityExpired(authority.not_after));
        }
        let (backdating, duration) = (request.backdating, request.duration);
        Validity::from_now(now, backdating, duration, authority.not_after)
            .ok_or(IssueError::Duration(duration))
    }
}

/// The reason why no leaf was issued.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// A certificate cannot have this common name, for this reason.
    #[error("the common name {0:?} {1}")]
    CommonName(String, NameProblem),
    /// A certificate cannot have this DNS name, for this reason.
    #[error("the DNS name {0:?} {1}")]
    DnsName(String, NameProblem),
    /// A certificate cannot have this URI, for this reason.
    #[error("the URI {0:?} {1}")]
    Uri(String, NameProblem),
    /// The request has no name that clients verify.
    #[error("there is no DNS name, IP address or URI to issue for")]
    NoNames,
    /// The request has no usage: some clients read that as every usage.
    #[error("there is no usage to issue for: server authentication, client authentication or both")]
    NoUsages,
    /// The existing key cannot be parsed.
    #[error("the private key to issue for is not readable")]
    PrivateKeyUnreadable,
    /// The existing key is not of the requested kind.
    #[error("the private key to issue for is not an {0} key")]
    KeyAlgorithm(KeyAlgorithm),
    /// The leaf would not be valid at any time: the requested duration.
    #[error("the duration {0:#} is shorter than a second")]
    Duration(SignedDuration),
    /// The authority has expired, at this time.
    #[error("the CA expired at {0}")]
    AuthorityExpired(Timestamp),
    /// The authority is valid from this time on.
    #[error("the CA is not valid before {0}")]
    AuthorityNotYetValid(Timestamp),
    /// The CA forbids this leaf, as by a name constraint: clients would reject it.
    #[error("clients would reject the certificate: {0}")]
    Unusable(#[source] VerifyError),
    /// The cryptographic library failed.
    #[error("the certificate could not be signed: {0}")]
    Signing(#[from] rcgen::Error),
}

fn check_names(request: &LeafRequest) -> Result<(), IssueError> {
    if let Some(name) = &request.common_name {
        check_common_name(name).map_err(|problem| IssueError::CommonName(name.clone(), problem))?;
    }
    for name in &request.dns_names {
        check_dns_name(name).map_err(|problem| IssueError::DnsName(name.clone(), problem))?;
    }
    for uri in &request.uris {
        check_uri(uri).map_err(|problem| IssueError::Uri(uri.clone(), problem))?;
    }
    if request.dns_names.is_empty() && request.ip_addresses.is_empty() && request.uris.is_empty() {
        return Err(IssueError::NoNames);
    }
    Ok(())
}

/// Sets every field, because the defaults of rcgen do not suit a leaf.
fn leaf_profile(
    request: &LeafRequest,
    validity: Validity,
    key: &impl PublicKeyData,
) -> Result<CertificateParams, rcgen::Error> {
    let mut subject = DistinguishedName::new();
    if let Some(name) = &request.common_name {
        subject.push(DnType::CommonName, name.as_str());
    }

    let mut profile = CertificateParams::default();
    profile.distinguished_name = subject;
    profile.subject_alt_names = san::write(request)?;
    profile.serial_number = Some(random_serial()?);
    profile.not_before = asn1_time(validity.not_before);
    profile.not_after = asn1_time(validity.not_after);
    // Explicit, because only then the subject key identifier is written too.
    profile.is_ca = IsCa::ExplicitNoCa;
    // For RSA too: keyEncipherment serves only the key exchange without forward secrecy.
    profile.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    profile.extended_key_usages = usage::distinct(&request.usages)
        .into_iter()
        .map(Usage::purpose)
        .collect();
    profile.key_identifier_method = key::identifier(key);
    profile.use_authority_key_identifier_extension = true;
    Ok(profile)
}
