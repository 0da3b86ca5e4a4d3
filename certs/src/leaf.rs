//! Leaves: the certificates an authority issues.

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};

use crate::alternative;
use crate::authority::{Authority, random_serial};
use crate::bundle::{Bundle, verify};
use crate::encoding;
use crate::fault::Fault;
use crate::key::{self, KeyAlgorithm, KeyEncoding, PrivateKeyPem};
use crate::names::{NameProblem, check_common_name, check_dns_name, check_uri};
use crate::request::LeafRequest;
use crate::usage::{self, Usage};
use crate::validity::{Validity, asn1_time};

/// An issued certificate and its key.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The certificate, and those between it and the root: what belongs into `tls.crt`.
    pub chain_pem: String,
    /// The key, in the requested encoding: what belongs into `tls.key`.
    pub private_key_pem: PrivateKeyPem,
    /// The serial number in upper-case hexadecimal, as OpenSSL prints it.
    pub serial: String,
    /// Five minutes before the issue, for clients whose clocks are slow.
    pub not_before: Timestamp,
    /// The last second of its validity.
    pub not_after: Timestamp,
    /// Whether it ends with its authority, before the requested duration is over.
    pub cut_short: bool,
}

impl KeyAlgorithm {
    /// Makes a new private key of this kind, in PKCS#8, for [`Authority::issue_for`].
    pub fn private_key(self) -> Result<PrivateKeyPem, IssueError> {
        let key = self.generate()?;
        key::write(&key, KeyEncoding::Pkcs8)
            .map_err(|_| IssueError::Signing(rcgen::Error::RingUnspecified))
    }
}

impl Authority {
    /// Makes a key and signs the certificate for it.
    ///
    /// What comes back has passed [`verify`] for the same request and time.
    pub fn issue(&self, request: &LeafRequest, now: Timestamp) -> Result<Leaf, IssueError> {
        // First, because making a key may take seconds.
        self.check(request, now)?;
        let key = request.key.generate()?;
        self.sign(request, &key, now)
    }

    /// Signs a certificate for a key there is, and writes that key in the requested encoding.
    ///
    /// Of `private_key_pem` the first private key counts: PKCS#8, SEC 1 or PKCS#1, not encrypted.
    /// What comes back has passed [`verify`] for the same request and time.
    pub fn issue_for(
        &self,
        request: &LeafRequest,
        private_key_pem: &[u8],
        now: Timestamp,
    ) -> Result<Leaf, IssueError> {
        self.check(request, now)?;
        let key = key::read(private_key_pem).ok_or(IssueError::PrivateKeyUnreadable)?;
        if KeyAlgorithm::of(&key) != Some(request.key) {
            let requested = request.key;
            return Err(IssueError::KeyAlgorithm { requested });
        }
        self.sign(request, &key, now)
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
        let validity = self.validity_of(request, now)?;
        let certificate = leaf_profile(request, validity, key)?.signed_by(key, &self.issuer()?)?;
        let chain_pem = encoding::certificate_pem(certificate.der()) + self.ca().chain_pem();
        let private_key_pem = key::write(key, request.key_encoding)
            .map_err(|_| IssueError::Signing(rcgen::Error::RingUnspecified))?;

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

    fn validity_of(&self, request: &LeafRequest, now: Timestamp) -> Result<Validity, IssueError> {
        let authority = self.ca().validity();
        let Validity {
            not_before,
            not_after,
        } = authority;
        if authority.not_yet(now) {
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
    /// A URI cannot stand in a certificate.
    #[error("the URI {uri:?} {problem}")]
    Uri {
        /// The URI.
        uri: String,
        /// What is wrong with it.
        problem: NameProblem,
    },
    /// Clients look at nothing but these names.
    #[error("there is no DNS name, IP address or URI to issue for")]
    NoNames,
    /// A certificate for nothing, or, as some clients read it, for everything.
    #[error("there is no usage to issue for: server authentication, client authentication or both")]
    NoUsages,
    /// The key there is cannot be parsed.
    #[error("the private key to issue for is not readable")]
    PrivateKeyUnreadable,
    /// The key there is, is of another kind than requested.
    #[error("the private key to issue for is not an {requested} key")]
    KeyAlgorithm {
        /// The kind requested.
        requested: KeyAlgorithm,
    },
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
    if let Some(name) = &request.common_name {
        check_common_name(name).map_err(|problem| IssueError::CommonName {
            name: name.clone(),
            problem,
        })?;
    }
    for name in &request.dns_names {
        check_dns_name(name).map_err(|problem| IssueError::DnsName {
            name: name.clone(),
            problem,
        })?;
    }
    for uri in &request.uris {
        check_uri(uri).map_err(|problem| IssueError::Uri {
            uri: uri.clone(),
            problem,
        })?;
    }
    if request.dns_names.is_empty() && request.ip_addresses.is_empty() && request.uris.is_empty() {
        return Err(IssueError::NoNames);
    }
    Ok(())
}

/// Spelled out in full, because what rcgen fills in is not what a leaf needs: it lives until the
/// year 4096, its serial number repeats with its key, and it has no key identifiers.
fn leaf_profile(
    request: &LeafRequest,
    validity: Validity,
    key: &KeyPair,
) -> Result<CertificateParams, rcgen::Error> {
    let mut subject = DistinguishedName::new();
    if let Some(name) = &request.common_name {
        subject.push(DnType::CommonName, name.as_str());
    }

    let mut profile = CertificateParams::default();
    profile.distinguished_name = subject;
    profile.subject_alt_names = alternative::write(request)?;
    profile.serial_number = Some(random_serial()?);
    profile.not_before = asn1_time(validity.not_before);
    profile.not_after = asn1_time(validity.not_after);
    // Explicit, because only then the subject key identifier is written too.
    profile.is_ca = IsCa::ExplicitNoCa;
    // For RSA too: keyEncipherment would only serve the key exchange without forward secrecy, which
    // TLS 1.3 dropped and 1.2 need not use. All others sign.
    profile.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    profile.extended_key_usages = usage::distinct(&request.usages)
        .into_iter()
        .map(Usage::purpose)
        .collect();
    profile.key_identifier_method = key::identifier(key);
    profile.use_authority_key_identifier_extension = true;
    Ok(profile)
}
