//! Leaves: the certificates an authority issues.

use std::collections::HashSet;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType,
};

use crate::authority::{Authority, random_serial};
use crate::bundle::{Bundle, verify};
use crate::encoding;
use crate::fault::Fault;
use crate::key::{KeyAlgorithm, PrivateKeyPem};
use crate::names::{NameProblem, check_common_name, check_dns_name};
use crate::validity::{Validity, asn1_time};

/// What a leaf is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafRequest {
    /// The subject: the common name and nothing else. At most 64 characters.
    pub common_name: String,
    /// Host names, lower-case. `*` may be the whole first label. A name given twice counts once.
    pub dns_names: Vec<String>,
    /// Addresses. Of names and addresses together there must be at least one.
    pub ip_addresses: Vec<IpAddr>,
    /// How long the leaf is valid from now on, in whole seconds; the end of the authority cuts it
    /// short.
    pub duration: SignedDuration,
    /// The kind of key to make.
    pub key: KeyAlgorithm,
}

/// An issued certificate and its new key.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The certificate, and those between it and the root, of which there are none today.
    pub chain_pem: String,
    /// The key, in PKCS#8.
    pub private_key_pem: PrivateKeyPem,
    /// The serial number in upper-case hexadecimal, as OpenSSL prints it.
    pub serial: String,
    /// Five minutes before the issue, for clients whose clocks are slow.
    pub not_before: Timestamp,
    /// The last second of its validity.
    pub not_after: Timestamp,
}

impl Authority {
    /// Makes a key and signs the certificate for it.
    ///
    /// What comes back has passed [`verify`] for the same request and time.
    pub fn issue(&self, request: &LeafRequest, now: Timestamp) -> Result<Leaf, IssueError> {
        check_names(request)?;
        let validity = self.validity_of(request, now)?;
        let key = request.key.generate()?;
        let certificate = leaf_profile(request, validity)?.signed_by(&*key, &self.issuer()?)?;
        let chain_pem = encoding::certificate_pem(certificate.der());
        let private_key_pem = PrivateKeyPem::new(key.serialize_pem());

        let bundle = Bundle {
            certificate: chain_pem.as_bytes(),
            private_key: private_key_pem.as_bytes(),
            authority: self.certificate_pem().as_bytes(),
        };
        let verified = verify(&bundle, request, self, now).map_err(IssueError::Unusable)?;
        Ok(Leaf {
            chain_pem,
            private_key_pem,
            serial: verified.serial,
            not_before: verified.not_before,
            not_after: verified.not_after,
        })
    }

    fn validity_of(&self, request: &LeafRequest, now: Timestamp) -> Result<Validity, IssueError> {
        let Validity {
            not_before,
            not_after,
        } = self.validity();
        if self.validity().not_yet(now) {
            return Err(IssueError::AuthorityNotYetValid { not_before });
        }
        // Its very last second is too late: nothing can be valid from then on.
        if not_after <= now {
            return Err(IssueError::AuthorityExpired { not_after });
        }
        Validity::from_now(now, request.duration, not_after).ok_or(IssueError::Duration {
            duration: request.duration,
        })
    }
}

/// Why there is no leaf.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The common name cannot stand in a certificate.
    #[error("the common name {name:?} {problem}")]
    CommonName {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: NameProblem,
    },
    /// A DNS name cannot stand in a certificate.
    #[error("the DNS name {name:?} {problem}")]
    DnsName {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: NameProblem,
    },
    /// Clients look at nothing but these names.
    #[error("there is neither a DNS name nor an IP address to issue for")]
    NoNames,
    /// There is no time in which the leaf would be valid.
    #[error("the duration {duration:#} is shorter than a second")]
    Duration {
        /// The duration asked for.
        duration: SignedDuration,
    },
    /// The authority has ended.
    #[error("the CA expired at {not_after}")]
    AuthorityExpired {
        /// When it ended.
        not_after: Timestamp,
    },
    /// The authority has not begun.
    #[error("the CA is not valid before {not_before}")]
    AuthorityNotYetValid {
        /// When it begins.
        not_before: Timestamp,
    },
    /// The CA forbids this leaf, by a name constraint, say: clients would reject it.
    #[error("clients would reject the certificate: {0}")]
    Unusable(#[source] Fault),
    /// The cryptographic library failed.
    #[error("the certificate could not be signed: {0}")]
    Signing(#[from] rcgen::Error),
}

fn check_names(request: &LeafRequest) -> Result<(), IssueError> {
    check_common_name(&request.common_name).map_err(|problem| IssueError::CommonName {
        name: request.common_name.clone(),
        problem,
    })?;
    for name in &request.dns_names {
        check_dns_name(name).map_err(|problem| IssueError::DnsName {
            name: name.clone(),
            problem,
        })?;
    }
    if request.dns_names.is_empty() && request.ip_addresses.is_empty() {
        return Err(IssueError::NoNames);
    }
    Ok(())
}

/// Spelled out in full, because what rcgen fills in is not what a leaf needs: it lives until the
/// year 4096, its serial number repeats with its key, and it has no key identifiers.
fn leaf_profile(
    request: &LeafRequest,
    validity: Validity,
) -> Result<CertificateParams, rcgen::Error> {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, request.common_name.as_str());

    let mut profile = CertificateParams::default();
    profile.distinguished_name = subject;
    profile.subject_alt_names = alternative_names(request)?;
    profile.serial_number = Some(random_serial()?);
    profile.not_before = asn1_time(validity.not_before);
    profile.not_after = asn1_time(validity.not_after);
    // Explicit, because only then the subject key identifier is written too.
    profile.is_ca = IsCa::ExplicitNoCa;
    profile.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    profile.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    profile.use_authority_key_identifier_extension = true;
    Ok(profile)
}

fn alternative_names(request: &LeafRequest) -> Result<Vec<SanType>, rcgen::Error> {
    let mut seen = HashSet::new();
    let names = request
        .dns_names
        .iter()
        .map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)));
    let addresses = request
        .ip_addresses
        .iter()
        .map(|address| Ok(SanType::IpAddress(*address)));
    names
        .chain(addresses)
        .filter(|name| name.as_ref().map_or(true, |name| seen.insert(name.clone())))
        .collect()
}
