//! Usages of a certificate: extended key usages ([RFC 5280, 4.2.1.12]).
//!
//! [RFC 5280, 4.2.1.12]: https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.12

use std::collections::BTreeSet;
use std::fmt;

use rcgen::ExtendedKeyUsagePurpose;
use webpki::{ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage, RequiredEkuNotFoundContext};
use x509_parser::extensions::ExtendedKeyUsage;

/// A usage of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Usage {
    /// Authentication of a TLS server.
    ServerAuth,
    /// Authentication of a TLS client.
    ClientAuth,
}

impl Usage {
    pub(crate) fn purpose(self) -> ExtendedKeyUsagePurpose {
        match self {
            Self::ServerAuth => ExtendedKeyUsagePurpose::ServerAuth,
            Self::ClientAuth => ExtendedKeyUsagePurpose::ClientAuth,
        }
    }

    /// The usage as webpki checks it on the whole path, where certificates without usages pass;
    /// [`verify`](crate::verify) checks those of the leaf.
    pub(crate) fn on_path(self) -> KeyUsage {
        match self {
            Self::ServerAuth => KeyUsage::server_auth(),
            Self::ClientAuth => KeyUsage::client_auth(),
        }
    }
}

/// Several usages, each checked as by [`Usage::on_path`] in one costly validation of the path.
#[derive(Clone, Copy)]
pub(crate) struct AllOnPath<'a>(pub(crate) &'a BTreeSet<Usage>);

impl ExtendedKeyUsageValidator for AllOnPath<'_> {
    fn validate(&self, listed: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let listed = listed.map(|id| Ok(id?.to_decoded_oid()));
        let present = listed.collect::<Result<Vec<_>, webpki::Error>>()?;
        let mut required = self.0.iter().map(|usage| usage.on_path());
        let is_missing = |usage: &KeyUsage| {
            let mut present = present.iter();
            !present.any(|id| usage.oid_values().eq(id.iter().copied()))
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

/// The usages of a request, each once, in one order.
pub(crate) fn distinct(requested: &[Usage]) -> BTreeSet<Usage> {
    requested.iter().copied().collect()
}

/// The names of all usages that an extension lists.
pub(crate) fn names(extension: &ExtendedKeyUsage<'_>) -> Vec<String> {
    let (known, others) = read(extension);
    known.iter().map(Usage::to_string).chain(others).collect()
}

/// The usages that an extension lists, and the names of the others.
pub(crate) fn read(extension: &ExtendedKeyUsage<'_>) -> (BTreeSet<Usage>, Vec<String>) {
    let server = extension.server_auth.then_some(Usage::ServerAuth);
    let client = extension.client_auth.then_some(Usage::ClientAuth);
    let others = [
        (extension.any, "any purpose"),
        (extension.code_signing, "code signing"),
        (extension.email_protection, "email protection"),
        (extension.time_stamping, "time stamping"),
        (extension.ocsp_signing, "OCSP signing"),
    ];
    let named = others.into_iter().filter(|(is_listed, _)| *is_listed);
    let named = named.map(|(_, name)| name.to_owned());
    let unnamed = extension.other.iter().map(ToString::to_string);
    let known = server.into_iter().chain(client).collect();
    (known, named.chain(unnamed).collect())
}
