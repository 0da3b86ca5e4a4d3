//! What lies in a Secret, and whether it still is what was asked for.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER};

use crate::authority::Authority;
use crate::encoding;
use crate::fault::Fault;
use crate::key::{self, KeyAlgorithm};
use crate::leaf::LeafRequest;
use crate::validity::{self, Validity};

/// The three entries of a TLS Secret, as they are. An absent entry is an empty one.
#[derive(Clone, Copy)]
pub struct Bundle<'a> {
    /// `tls.crt`: the certificate, in PEM.
    pub certificate: &'a [u8],
    /// `tls.key`: its private key, in PEM.
    pub private_key: &'a [u8],
    /// `ca.crt`: the authorities to trust, in PEM. More than one while an authority is replaced.
    pub authority: &'a [u8],
}

/// Hides the entries: one of them is a private key.
impl fmt::Debug for Bundle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bundle(..)")
    }
}

/// A certificate found sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The serial number in upper-case hexadecimal, as OpenSSL prints it.
    pub serial: String,
    /// The first second of its validity.
    pub not_before: Timestamp,
    /// The last second of its validity.
    pub not_after: Timestamp,
}

/// Does what lies in a Secret still match the request, the authority and the time?
///
/// The first fault found is returned. A bundle without fault is to be left alone; whether it is due
/// for renewal is for [`renewal::at`](crate::renewal::at) to say.
pub fn verify(
    bundle: &Bundle<'_>,
    request: &LeafRequest,
    authority: &Authority,
    now: Timestamp,
) -> Result<Verified, Fault> {
    let der = the_certificate(bundle.certificate)?;
    let certificate = parse(&der)?;
    let validity = Validity::of(&certificate).ok_or(Fault::CertificateUnreadable)?;
    let key = key::read_only(bundle.private_key).ok_or(Fault::PrivateKeyUnreadable)?;

    // Clients find the authority in ca.crt.
    check_published(authority, bundle.authority)?;
    // It is ours, by name and by key.
    check_issuer(&certificate, authority)?;
    // Its time has come and is not over.
    check_in_force(validity, now)?;
    // Clients and servers accept it.
    check_accepted(&der, authority, now)?;
    // It can be served.
    check_key(&certificate, &key)?;
    // It is what was asked for.
    check_key_algorithm(&key, request.key)?;
    check_common_name(&certificate, &request.common_name)?;
    check_names(&certificate, request)?;
    check_duration(validity, request, authority)?;

    Ok(Verified {
        serial: printed_serial(certificate.raw_serial()),
        not_before: validity.not_before,
        not_after: validity.not_after,
    })
}

/// As OpenSSL prints it: without the byte that DER puts before a number whose first bit is set.
fn printed_serial(der: &[u8]) -> String {
    let number = match der {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    encoding::hex(number).to_uppercase()
}

fn the_certificate(pem: &[u8]) -> Result<CertificateDer<'static>, Fault> {
    let mut found = encoding::only_certificates(pem).ok_or(Fault::CertificateUnreadable)?;
    match found.len() {
        0 => Err(Fault::CertificateUnreadable),
        1 => Ok(found.remove(0)),
        found => Err(Fault::NotOneCertificate { found }),
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Fault> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Fault::CertificateUnreadable),
    }
}

fn check_published(authority: &Authority, pem: &[u8]) -> Result<(), Fault> {
    let published = encoding::only_certificates(pem).ok_or(Fault::AuthorityUnreadable)?;
    published
        .contains(authority.certificate())
        .then_some(())
        .ok_or(Fault::AuthorityMissing)
}

/// The name alone would not do: an authority may be replaced by one of the same name.
fn check_issuer(certificate: &X509Certificate<'_>, authority: &Authority) -> Result<(), Fault> {
    let extension = certificate
        .get_extension_unique(&OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER)
        .map_err(|_| Fault::CertificateUnreadable)?;
    let key_id = match extension.map(X509Extension::parsed_extension) {
        Some(ParsedExtension::AuthorityKeyIdentifier(aki)) => aki.key_identifier.as_ref(),
        _ => None,
    };
    if key_id.is_some_and(|id| id.0 == authority.subject_key_id()) {
        Ok(())
    } else {
        Err(Fault::OtherIssuer)
    }
}

fn check_in_force(validity: Validity, now: Timestamp) -> Result<(), Fault> {
    let Validity {
        not_before,
        not_after,
    } = validity;
    if validity.is_over(now) {
        Err(Fault::Expired { not_after })
    } else if validity.not_yet(now) {
        Err(Fault::NotYetValid { not_before })
    } else {
        Ok(())
    }
}

/// Validates the path as a TLS client does, and as a TLS server does.
fn check_accepted(
    der: &CertificateDer<'_>,
    authority: &Authority,
    now: Timestamp,
) -> Result<(), Fault> {
    // DER of id-kp-serverAuth and id-kp-clientAuth (RFC 5280, 4.2.1.12). webpki's own constants
    // accept a certificate that lists no usage; ours always list both.
    const USAGES: [(&str, KeyUsage); 2] = [
        (
            "server authentication",
            KeyUsage::required(&[0x2b, 6, 1, 5, 5, 7, 3, 1]),
        ),
        (
            "client authentication",
            KeyUsage::required(&[0x2b, 6, 1, 5, 5, 7, 3, 2]),
        ),
    ];

    let anchors = [authority.trust_anchor()];
    let leaf = EndEntityCert::try_from(der).map_err(rejected)?;
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    for (usage, required) in USAGES {
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &[],
            now,
            required,
            None,
            None,
        )
        .map_err(|error| match error {
            webpki::Error::RequiredEkuNotFoundContext(_) => Fault::Usage { usage },
            other => rejected(other),
        })?;
    }
    Ok(())
}

fn rejected(error: webpki::Error) -> Fault {
    match error {
        webpki::Error::UnknownIssuer => Fault::OtherIssuer,
        webpki::Error::InvalidSignatureForPublicKey => Fault::Signature,
        other => Fault::Rejected {
            reason: other.to_string(),
        },
    }
}

fn check_key(certificate: &X509Certificate<'_>, key: &KeyPair) -> Result<(), Fault> {
    let belongs = key.subject_public_key_info() == certificate.public_key().raw;
    belongs.then_some(()).ok_or(Fault::PrivateKeyMismatch)
}

fn check_key_algorithm(key: &KeyPair, requested: KeyAlgorithm) -> Result<(), Fault> {
    requested
        .is_that_of(key)
        .then_some(())
        .ok_or(Fault::KeyAlgorithm { requested })
}

fn check_common_name(certificate: &X509Certificate<'_>, requested: &str) -> Result<(), Fault> {
    let subject = certificate.subject();
    let mut attributes = subject.iter_attributes();
    match (attributes.next(), attributes.next()) {
        (Some(only), None)
            if *only.attr_type() == OID_X509_COMMON_NAME && only.as_str() == Ok(requested) =>
        {
            Ok(())
        }
        _ => Err(Fault::CommonName {
            found: subject.to_string(),
            requested: requested.to_owned(),
        }),
    }
}

fn check_names(certificate: &X509Certificate<'_>, request: &LeafRequest) -> Result<(), Fault> {
    let requested = Name::requested(request);
    let found = Name::found(certificate)?;
    if requested == found {
        return Ok(());
    }
    let but_not =
        |these: &BTreeSet<Name>, those| these.difference(those).map(Name::to_string).collect();
    Err(Fault::Names {
        missing: but_not(&requested, &found),
        extra: but_not(&found, &requested),
    })
}

/// A subject alternative name. The kinds are kept apart: a DNS name that looks like an address is
/// none.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Dns(String),
    Ip(IpAddr),
    Other(String),
}

impl Name {
    fn requested(request: &LeafRequest) -> BTreeSet<Self> {
        let names = request.dns_names.iter().cloned().map(Self::Dns);
        names
            .chain(request.ip_addresses.iter().copied().map(Self::Ip))
            .collect()
    }

    fn found(certificate: &X509Certificate<'_>) -> Result<BTreeSet<Self>, Fault> {
        let extension = certificate
            .subject_alternative_name()
            .map_err(|_| Fault::CertificateUnreadable)?;
        let names = extension.map(|extension| extension.value.general_names.as_slice());
        Ok(names.unwrap_or_default().iter().map(Self::of).collect())
    }

    fn of(name: &GeneralName<'_>) -> Self {
        match name {
            GeneralName::DNSName(name) => Self::Dns((*name).to_owned()),
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
            Self::Dns(name) | Self::Other(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

fn check_duration(
    validity: Validity,
    request: &LeafRequest,
    authority: &Authority,
) -> Result<(), Fault> {
    let Validity {
        not_before,
        not_after,
    } = validity;
    let requested = validity::end(not_before, request.duration, authority.not_after());
    if not_after == requested {
        Ok(())
    } else {
        Err(Fault::Duration {
            not_after,
            requested,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::printed_serial;

    #[test]
    fn a_serial_is_printed_as_openssl_prints_it() {
        for (der, printed) in [
            (&[0x00, 0xda, 0x01][..], "DA01"),
            (&[0x7f, 0x00], "7F00"),
            (&[0x0a], "0A"),
            (&[0x00], "00"),
        ] {
            assert_eq!(printed_serial(der), printed);
        }
    }
}
