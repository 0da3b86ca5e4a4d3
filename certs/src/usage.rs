//! What a certificate may be used for: extended key usages ([RFC 5280, 4.2.1.12]).
//!
//! [RFC 5280, 4.2.1.12]: https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.12

use std::collections::BTreeSet;
use std::fmt;

use rcgen::ExtendedKeyUsagePurpose;
use webpki::{ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage, RequiredEkuNotFoundContext};
use x509_parser::extensions::ExtendedKeyUsage;

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Usage {
    /// To prove who a TLS server is.
    ServerAuth,
    /// To prove who a TLS client is.
    ClientAuth,
}

impl Usage {
    pub(crate) fn purpose(self) -> ExtendedKeyUsagePurpose {
        match self {
            Self::ServerAuth => ExtendedKeyUsagePurpose::ServerAuth,
            Self::ClientAuth => ExtendedKeyUsagePurpose::ClientAuth,
        }
    }

    /// As webpki checks it on the whole path. It accepts a certificate that lists no usage, which
    /// is how most CAs are made; that the leaf lists its own is for [`verify`](crate::verify) to
    /// say.
    pub(crate) fn on_path(self) -> KeyUsage {
        match self {
            Self::ServerAuth => KeyUsage::server_auth(),
            Self::ClientAuth => KeyUsage::client_auth(),
        }
    }
}

/// Several usages at once, each checked as [`Usage::on_path`] would have it: one validation of the
/// path serves all of them, and its signatures are what takes time.
#[derive(Clone, Copy)]
pub(crate) struct AllOnPath<'a>(pub(crate) &'a BTreeSet<Usage>);

impl ExtendedKeyUsageValidator for AllOnPath<'_> {
    fn validate(&self, listed: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let listed = listed.map(|id| Ok(id?.to_decoded_oid()));
        let present = listed.collect::<Result<Vec<_>, webpki::Error>>()?;
        let mut required = self.0.iter().map(|usage| usage.on_path());
        let is_missing = |usage: &KeyUsage| {
            !present
                .iter()
                .any(|id| usage.oid_values().eq(id.iter().copied()))
        };
        match required.find(is_missing) {
            Some(required) if !present.is_empty() => {
                let context = RequiredEkuNotFoundContext { required, present };
                Err(webpki::Error::RequiredEkuNotFoundContext(context))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServerAuth => "server authentication",
            Self::ClientAuth => "client authentication",
        })
    }
}

/// Each once, in one order.
pub(crate) fn distinct(requested: &[Usage]) -> BTreeSet<Usage> {
    requested.iter().copied().collect()
}

/// Everything that it lists.
pub(crate) fn names(extension: &ExtendedKeyUsage<'_>) -> Vec<String> {
    let (known, others) = read(extension);
    known.iter().map(Usage::to_string).chain(others).collect()
}

/// The usages that an extension lists, and the names of the others.
pub(crate) fn read(extension: &ExtendedKeyUsage<'_>) -> (BTreeSet<Usage>, Vec<String>) {
    let known = [
        (extension.server_auth, Usage::ServerAuth),
        (extension.client_auth, Usage::ClientAuth),
    ];
    let others = [
        (extension.any, "any purpose"),
        (extension.code_signing, "code signing"),
        (extension.email_protection, "email protection"),
        (extension.time_stamping, "time stamping"),
        (extension.ocsp_signing, "OCSP signing"),
    ];
    let known = known
        .into_iter()
        .filter_map(|(is, usage)| is.then_some(usage));
    let named = others.into_iter().filter(|(is, _)| *is);
    let unnamed = extension.other.iter().map(ToString::to_string);
    (
        known.collect(),
        named
            .map(|(_, name)| name.to_owned())
            .chain(unnamed)
            .collect(),
    )
}
