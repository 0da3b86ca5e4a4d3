//! The public half of an authority: its certificate, and the path from it to a root.

use std::fmt;

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::authority_error::AuthorityError;
use crate::encoding;
use crate::path;
use crate::validity::Validity;

/// The public half of an [`Authority`](crate::Authority), which verifies what the authority signed.
#[derive(Clone, PartialEq, Eq)]
pub struct CaCertificate {
    /// Its own certificate first, the root last. For a root these are the same one.
    path: Vec<CertificateDer<'static>>,
    chain_pem: String,
    certificate_pem: String,
    root_pem: String,
    fingerprint: String,
    subject: String,
    subject_key_id: Vec<u8>,
    validity: Validity,
}

impl CaCertificate {
    /// Reads the certificate of an authority, and checks that peers accept what it signs at `now`.
    ///
    /// `chain` is PEM: the CA's own certificate first, then those between it and the root, each
    /// followed by the one that signed it, with or without the root at the end. `root` is PEM of
    /// the root (`ca.crt`), and may be empty when `chain` ends with it.
    ///
    /// Every certificate on the path must be that of a CA, in force, and signed by the next; no
    /// path length constraint may forbid what lies below it; and the root must be self-signed
    /// ([RFC 5280, 6.1]). The CA itself must have a subject key identifier, and a subject that
    /// leaves can repeat.
    ///
    /// [RFC 5280, 6.1]: https://www.rfc-editor.org/rfc/rfc5280#section-6.1
    pub fn from_pem(chain: &[u8], root: &[u8], now: Timestamp) -> Result<Self, AuthorityError> {
        Self::of_path(path::read(chain, root)?, now)
    }

    /// The CA's certificate and those up to the root, without it, in PEM: they follow the leaf in
    /// `tls.crt`. Empty for a root.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The CA's own certificate alone, in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The root in PEM, which clients trust.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// SHA-256 of the DER of the CA's own certificate, in lower-case hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The time from which on the whole path is valid.
    pub fn not_before(&self) -> Timestamp {
        self.validity.not_before
    }

    /// The last second of the certificate on the path that ends first. No leaf ends later.
    pub fn not_after(&self) -> Timestamp {
        self.validity.not_after
    }

    /// The subject of the CA's own certificate, for people.
    pub fn subject(&self) -> String {
        self.subject.clone()
    }

    pub(crate) fn of_path(
        path: Vec<CertificateDer<'static>>,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let parsed = path::parse(&path)?;
        path::check(&parsed, now)?;
        let own = &parsed[0];
        path::check_subject(own, &path[0])?;

        let (root, below_root) = path.split_last().expect("a path is not empty");
        Ok(Self {
            chain_pem: below_root.iter().map(encoding::certificate_pem).collect(),
            certificate_pem: encoding::certificate_pem(&path[0]),
            root_pem: encoding::certificate_pem(root),
            fingerprint: encoding::fingerprint(&path[0]),
            subject: own.subject().to_string(),
            subject_key_id: path::subject_key_id(own)?,
            validity: path::validity(&parsed)?,
            path,
        })
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.path[0]
    }

    pub(crate) fn root(&self) -> &CertificateDer<'static> {
        self.path.last().expect("a path is not empty")
    }

    /// The certificates that follow the leaf in `tls.crt`.
    pub(crate) fn below_root(&self) -> &[CertificateDer<'static>] {
        &self.path[..self.path.len() - 1]
    }

    pub(crate) fn trust_anchor(&self) -> TrustAnchor<'_> {
        webpki::anchor_from_trusted_cert(self.root())
            .expect("a path is made only of certificates that can be anchors")
    }

    pub(crate) fn subject_key_id(&self) -> &[u8] {
        &self.subject_key_id
    }

    pub(crate) fn validity(&self) -> Validity {
        self.validity
    }
}

impl fmt::Debug for CaCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaCertificate")
            .field("subject", &self.subject)
            .field("fingerprint", &self.fingerprint)
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}
