//! Public keys whose private halves stay with their owners.

use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use crate::key::KeyAlgorithm;

/// A public key to certify. Its owner has proved that it holds the private half.
#[derive(Clone, Debug)]
pub struct PublicKey {
    info: SubjectPublicKeyInfo,
    algorithm: KeyAlgorithm,
}

/// The reason why the key of a certificate signing request cannot be certified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CsrError {
    /// The bytes are no request in DER.
    #[error("the certificate signing request is not readable")]
    Unreadable,
    /// The key is of a kind that no leaf has.
    #[error("the key is none of {}", KeyAlgorithm::all_names())]
    KeyAlgorithm,
    /// The request is not signed with the key that it names.
    #[error("the certificate signing request is not signed with its own key")]
    Signature,
}

impl PublicKey {
    /// Reads the key of a certificate signing request ([RFC 2986]) in DER, and verifies that its
    /// owner signed the request. Nothing else of the request counts.
    ///
    /// [RFC 2986]: https://www.rfc-editor.org/rfc/rfc2986
    pub fn from_csr(der: &[u8]) -> Result<Self, CsrError> {
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|_| CsrError::Unreadable)?;
        if !rest.is_empty() {
            return Err(CsrError::Unreadable);
        }
        let info = &request.certification_request_info.subject_pki;
        // rcgen knows no other algorithms than these and ECDSA P-521.
        let info = SubjectPublicKeyInfo::from_der(info.raw).map_err(|_| CsrError::KeyAlgorithm)?;
        let algorithm = KeyAlgorithm::of(&info).ok_or(CsrError::KeyAlgorithm)?;
        request
            .verify_signature()
            .map_err(|_| CsrError::Signature)?;
        Ok(Self { info, algorithm })
    }

    /// The kind of the key.
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    pub(crate) fn info(&self) -> &impl PublicKeyData {
        &self.info
    }
}
