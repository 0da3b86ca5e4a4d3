//! Subject alternative names: written for a request, read from a certificate.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use rcgen::SanType;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::request::LeafRequest;
use crate::verify_error::VerifyError;

/// The names of a request in its order, each once.
pub(crate) fn write(request: &LeafRequest) -> Result<Vec<SanType>, rcgen::Error> {
    let mut seen = BTreeSet::new();
    requested(request)
        .filter(|name| seen.insert(name.clone()))
        .map(|name| {
            Ok(match name {
                Name::Dns(name) => SanType::DnsName(name.try_into()?),
                Name::Ip(address) => SanType::IpAddress(address),
                Name::Uri(uri) | Name::Other(uri) => SanType::URI(uri.try_into()?),
            })
        })
        .collect()
}

/// Checks that a certificate has exactly the names of the request, in any order.
pub(crate) fn check(
    certificate: &X509Certificate<'_>,
    request: &LeafRequest,
) -> Result<(), VerifyError> {
    let requested = requested(request).collect();
    let found = found(certificate)?;
    if requested == found {
        return Ok(());
    }
    let but_not =
        |these: &BTreeSet<Name>, those| these.difference(those).map(Name::to_string).collect();
    Err(VerifyError::Names {
        missing: but_not(&requested, &found),
        extra: but_not(&found, &requested),
    })
}

/// The names of a certificate; none if they cannot be read.
pub(crate) fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = found(certificate).unwrap_or_default();
    names.iter().map(Name::to_string).collect()
}

/// A name and its kind: a DNS name that looks like an address is no address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Dns(String),
    Ip(IpAddr),
    Uri(String),
    /// Another kind, which cannot be requested.
    Other(String),
}

fn requested(request: &LeafRequest) -> impl Iterator<Item = Name> {
    let names = request.dns_names.iter().cloned().map(Name::Dns);
    let addresses = request.ip_addresses.iter().copied().map(Name::Ip);
    let uris = request.uris.iter().cloned().map(Name::Uri);
    names.chain(addresses).chain(uris)
}

fn found(certificate: &X509Certificate<'_>) -> Result<BTreeSet<Name>, VerifyError> {
    let extension = certificate
        .subject_alternative_name()
        .map_err(|_| VerifyError::CertificateUnreadable)?;
    let names = extension.map(|extension| extension.value.general_names.as_slice());
    Ok(names.unwrap_or_default().iter().map(Name::of).collect())
}

impl Name {
    fn of(name: &GeneralName<'_>) -> Self {
        match name {
            GeneralName::DNSName(name) => Self::Dns((*name).to_owned()),
            GeneralName::URI(uri) => Self::Uri((*uri).to_owned()),
            GeneralName::IPAddress(octets) => {
                let v4 = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
                let v6 = <[u8; 16]>::try_from(*octets).map(IpAddr::from);
                v4.or(v6)
                    .map_or_else(|_| Self::Other(name.to_string()), Self::Ip)
            }
            other => Self::Other(other.to_string()),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) | Self::Uri(name) | Self::Other(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}
