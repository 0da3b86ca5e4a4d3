//! A spec as read: names folded, defaults in place, and what is wrong with it whatever any policy says.

use super::reserved::{self, Reserved};
use super::violation::{Field, NameOwner, Violation};
use super::{Settings, identifiers, names, template};
use crate::api::{
    DEFAULT_DURATION, KeyAlgorithm, KeyEncoding, Pki, PrivateKey, RotationPolicy, Usage,
};
use jiff::SignedDuration;
use pki_certs::LeafRequest;
use pki_certs::renewal::RenewBefore;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

pub(super) const SHORTEST: SignedDuration = SignedDuration::from_hours(1);
/// A hundred years: beyond any CA's own end, and far from where times overflow.
const LONGEST: SignedDuration = SignedDuration::from_hours(876_000);
/// The upper bound of X.520 and of RFC 5280, appendix A.
const LONGEST_COMMON_NAME: usize = 64;
/// As in the schema. It also keeps an object that never saw the schema from costing more than a moment.
pub(super) const MOST_NAMES: usize = 100;
/// A renewal so early that hardly any time is left before it would renew for ever.
const MOST_PERCENT: u8 = 90;

/// What a Pki asks for.
pub(super) struct Wanted<'a> {
    /// As it was written.
    pub(super) object: &'a Pki,
    pub(super) pki: &'a str,
    pub(super) namespace: &'a str,
    /// `None` if it is malformed, which no policy needs to say again.
    pub(super) service: Option<&'a str>,
    /// `None` if the default would be too long.
    pub(super) common_name: Option<String>,
    /// The default of version 0.2, where the default is in force.
    former_common_name: Option<String>,
    own_names: [String; 2],
    /// Further names, addresses and URIs with their place in the spec's lists.
    pub(super) dns_names: Vec<(usize, String)>,
    pub(super) ip_addresses: Vec<(usize, IpAddr)>,
    pub(super) uris: Vec<(usize, String)>,
    pub(super) usages: BTreeSet<Usage>,
    pub(super) duration: SignedDuration,
    pub(super) renew_before: Option<RenewBefore>,
    pub(super) key: Key,
    pub(super) keeps_key: bool,
}

/// The kind of key, with its default size. Ed25519 has none to speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) algorithm: KeyAlgorithm,
    pub(super) size: i32,
    pub(super) encoding: KeyEncoding,
}

impl<'a> Wanted<'a> {
    /// Reads the spec, fills in defaults and notes what is wrong.
    pub(super) fn read(pki: &'a Pki, settings: &Settings, violations: &mut Vec<Violation>) -> Self {
        let spec = &pki.spec;
        let namespace = pki.metadata.namespace.as_deref().unwrap_or_default();
        let service = spec.service_name.as_str();
        let fault = check_service_name(service, namespace);
        let well_named = fault.is_none();
        violations.extend(fault);
        let own = format!("{service}.{namespace}.svc");
        let own_names = [own.clone(), format!("{own}.{}", settings.cluster_domain)];
        let own_service = OwnService {
            service,
            namespace,
            names: &own_names,
        };
        let dns_names = read_dns_names(&spec.dns_names, own_service, settings, violations);
        let (common_name, former_common_name) =
            read_common_name(pki, &own_names, &dns_names, violations);
        let ip_addresses = read_ip_addresses(&spec.ip_addresses, &own, settings, violations);
        let uris = read_uris(&spec.uris, &own, settings, violations);
        read_secret_name(pki, settings, violations);
        let (duration, renew_before) = read_lifetime(pki, violations);
        let key = read_key(spec.private_key.as_ref(), violations);
        if let Some(template) = &spec.secret_template {
            template::check(template, violations);
        }
        read_outputs(pki, settings, violations);
        let usages = match spec.usages.as_slice() {
            [] => BTreeSet::from([Usage::ServerAuth, Usage::ClientAuth]),
            some => some.iter().copied().collect(),
        };
        let rotation = spec
            .private_key
            .as_ref()
            .and_then(|key| key.rotation_policy);
        Self {
            object: pki,
            pki: pki.metadata.name.as_deref().unwrap_or_default(),
            namespace,
            service: well_named.then_some(service),
            common_name,
            former_common_name,
            own_names,
            dns_names,
            ip_addresses,
            uris,
            usages,
            duration,
            renew_before,
            key,
            keeps_key: rotation == Some(RotationPolicy::Never),
        }
    }

    /// The name that pods of all namespaces reach the Service by.
    pub(super) fn own_name(&self) -> &str {
        &self.own_names[0]
    }

    /// Whether one of the further names is that of a pod of the Service. No further name is that of
    /// another Service.
    pub(super) fn is_pod_name(&self, name: &str) -> bool {
        let is_below = |own: &String| {
            let below = name.strip_suffix(own.as_str());
            below.is_some_and(|below| below.ends_with('.'))
        };
        self.own_names.iter().any(is_below)
    }

    /// The certificate to ask for.
    pub(super) fn request(self) -> LeafRequest {
        let further = self.dns_names.into_iter().map(|(_, name)| name);
        LeafRequest {
            common_name: self.common_name,
            former_common_name: self.former_common_name,
            dns_names: self.own_names.into_iter().chain(further).collect(),
            ip_addresses: self.ip_addresses.into_iter().map(|(_, ip)| ip).collect(),
            uris: self.uris.into_iter().map(|(_, uri)| uri).collect(),
            usages: self.usages.into_iter().map(usage).collect(),
            duration: self.duration,
            key: self.key.certified(),
            key_encoding: match self.key.encoding {
                KeyEncoding::Pkcs8 => pki_certs::KeyEncoding::Pkcs8,
                KeyEncoding::Pkcs1 | KeyEncoding::Sec1 => pki_certs::KeyEncoding::Traditional,
            },
        }
    }
}

fn usage(usage: Usage) -> pki_certs::Usage {
    match usage {
        Usage::ServerAuth => pki_certs::Usage::ServerAuth,
        Usage::ClientAuth => pki_certs::Usage::ClientAuth,
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.has_one_size() {
            self.algorithm.fmt(f)
        } else {
            write!(f, "{}-{}", self.algorithm, self.size)
        }
    }
}

impl Key {
    /// The sizes that are offered, the default first.
    pub(super) fn sizes(algorithm: KeyAlgorithm) -> &'static [i32] {
        match algorithm {
            KeyAlgorithm::Ecdsa => &[256, 384],
            KeyAlgorithm::Rsa => &[2048, 3072, 4096],
            KeyAlgorithm::Ed25519 => &[],
        }
    }

    pub(super) fn has_one_size(self) -> bool {
        Self::sizes(self.algorithm).is_empty()
    }

    fn certified(self) -> pki_certs::KeyAlgorithm {
        use pki_certs::KeyAlgorithm as Certified;
        match (self.algorithm, self.size) {
            (KeyAlgorithm::Ecdsa, 384) => Certified::EcdsaP384,
            (KeyAlgorithm::Ecdsa, _) => Certified::EcdsaP256,
            (KeyAlgorithm::Rsa, 4096) => Certified::Rsa4096,
            (KeyAlgorithm::Rsa, 3072) => Certified::Rsa3072,
            (KeyAlgorithm::Rsa, _) => Certified::Rsa2048,
            (KeyAlgorithm::Ed25519, _) => Certified::Ed25519,
        }
    }
}

fn read_key(written: Option<&PrivateKey>, violations: &mut Vec<Violation>) -> Key {
    let written = written.cloned().unwrap_or_default();
    let algorithm = written.algorithm;
    let offered = Key::sizes(algorithm);
    if let Some(size) = written.size.filter(|size| !offered.contains(size)) {
        violations.push(Violation::KeySize { algorithm, size });
    }
    let encoding = written.encoding.unwrap_or_default();
    let goes_together = match encoding {
        KeyEncoding::Pkcs8 => true,
        KeyEncoding::Pkcs1 => algorithm == KeyAlgorithm::Rsa,
        KeyEncoding::Sec1 => algorithm == KeyAlgorithm::Ecdsa,
    };
    if !goes_together {
        violations.push(Violation::KeyEncoding {
            algorithm,
            encoding,
        });
    }
    let default = || offered.first().copied().unwrap_or_default();
    Key {
        algorithm,
        size: written.size.unwrap_or_else(default),
        encoding,
    }
}

/// Checks a service name for faults that no policy can permit.
fn check_service_name(service: &str, namespace: &str) -> Option<Violation> {
    let name = service.to_owned();
    if !names::is_label(service) {
        Some(Violation::ServiceNameShape { name })
    } else if reserved::is_api_server(service, namespace) {
        let namespace = namespace.to_owned();
        Some(Violation::ServiceReserved { name, namespace })
    } else {
        None
    }
}

/// The Service of a Pki, and the names that every certificate of it has.
#[derive(Clone, Copy)]
struct OwnService<'a> {
    service: &'a str,
    namespace: &'a str,
    names: &'a [String; 2],
}

/// The names that are well formed, folded, each once, with their place in the list; without those that every
/// certificate has.
fn read_dns_names(
    written: &[String],
    own: OwnService<'_>,
    settings: &Settings,
    violations: &mut Vec<Violation>,
) -> Vec<(usize, String)> {
    let field = Field::of("spec.dnsNames");
    read_list(field, written, violations, |index, name| {
        let folded = names::fold(name);
        if own.names.contains(&folded) {
            Ok(None)
        } else if !names::is_certifiable(&folded) {
            let name = name.to_owned();
            Err(Violation::DnsNameShape { index, name })
        } else if reserved::stands_for_api_server(&folded) {
            let field = Field::at("spec.dnsNames", index);
            let why = Reserved::ApiServer;
            Err(is_reserved(field, name, why, &own.names[0]))
        } else if !names::is_cluster_internal(&folded, &settings.cluster_domain) {
            Ok(Some(folded))
        } else {
            read_internal(index, name, folded, own, &settings.cluster_domain).map(Some)
        }
    })
}

/// A name inside the cluster, if it is that of a pod of the Service.
fn read_internal(
    index: usize,
    written: &str,
    folded: String,
    own: OwnService<'_>,
    cluster_domain: &str,
) -> Result<String, Violation> {
    let name = || written.to_owned();
    let service = own.names[0].clone();
    let owner = match names::service_name(&folded, cluster_domain) {
        None => NameOwner::Any,
        Some(read)
            if read.namespace != own.namespace
                || reserved::is_api_server(read.service, read.namespace) =>
        {
            NameOwner::OfNamespace {
                service: read.service.to_owned(),
                namespace: read.namespace.to_owned(),
            }
        }
        Some(read) if read.service != own.service => NameOwner::Neighbour(read.service.to_owned()),
        Some(read) if read.below.is_some_and(names::is_pod) => return Ok(folded),
        Some(_) => {
            return Err(Violation::PodNameShape {
                index,
                name: name(),
                own: service,
            });
        }
    };
    Err(Violation::DnsNameInternal {
        index,
        name: name(),
        owner,
        own: service,
    })
}

fn read_ip_addresses(
    written: &[String],
    own: &str,
    settings: &Settings,
    violations: &mut Vec<Violation>,
) -> Vec<(usize, IpAddr)> {
    let field = Field::of("spec.ipAddresses");
    read_list(field, written, violations, |index, text| {
        let value = text.to_owned();
        let Ok(address) = text.parse::<IpAddr>() else {
            return Err(Violation::IpAddressShape { index, value });
        };
        if let Some(v4) = identifiers::mapped(address) {
            return Err(Violation::IpAddressMapped { index, value, v4 });
        }
        match settings.reserved_address(address) {
            Some(why) => Err(is_reserved(
                Field::at("spec.ipAddresses", index),
                text,
                why,
                own,
            )),
            None => Ok(Some(address)),
        }
    })
}

fn read_uris(
    written: &[String],
    own: &str,
    settings: &Settings,
    violations: &mut Vec<Violation>,
) -> Vec<(usize, String)> {
    let field = Field::of("spec.uris");
    read_list(field, written, violations, |index, text| {
        let value = text.to_owned();
        let uri = identifiers::uri(text).ok_or(Violation::UriShape { index, value })?;
        if identifiers::host(&uri).is_some_and(|host| settings.is_reserved_host(host)) {
            let field = Field::at("spec.uris", index);
            return Err(is_reserved(field, text, Reserved::Host, own));
        }
        Ok(Some(uri))
    })
}

fn is_reserved(field: Field, value: &str, why: Reserved, own: &str) -> Violation {
    let (value, own) = (value.to_owned(), own.to_owned());
    Violation::Reserved {
        field,
        value,
        why,
        own,
    }
}

/// What is well formed, each once, with its place in the list.
fn read_list<T: PartialEq>(
    field: Field,
    written: &[String],
    violations: &mut Vec<Violation>,
    read: impl Fn(usize, &str) -> Result<Option<T>, Violation>,
) -> Vec<(usize, T)> {
    if written.len() > MOST_NAMES {
        let count = written.len();
        let most = MOST_NAMES;
        violations.push(Violation::Count { field, count, most });
        return Vec::new();
    }
    let mut all: Vec<(usize, T)> = Vec::new();
    for (index, text) in written.iter().enumerate() {
        match read(index, text) {
            Ok(Some(value)) if !all.iter().any(|(_, known)| *known == value) => {
                all.push((index, value));
            }
            Ok(_) => {}
            Err(violation) => violations.push(violation),
        }
    }
    all
}

/// The common name, and the one that a certificate may have had before by default.
fn read_common_name(
    pki: &Pki,
    own_names: &[String; 2],
    dns_names: &[(usize, String)],
    violations: &mut Vec<Violation>,
) -> (Option<String>, Option<String>) {
    let service = pki.spec.service_name.as_str();
    let Some(written) = &pki.spec.common_name else {
        let default = own_names[0].clone();
        let default = Some(default).filter(|name| name.len() <= LONGEST_COMMON_NAME);
        return (default, Some(names::fold(service)));
    };
    let folded = names::fold(written);
    let is_of_this_certificate = folded == service
        || own_names.contains(&folded)
        || dns_names.iter().any(|(_, name)| *name == folded);
    if !is_of_this_certificate || folded.len() > LONGEST_COMMON_NAME {
        violations.push(Violation::CommonName {
            name: written.clone(),
            service: service.into(),
        });
    } else if reserved::stands_for_api_server(&folded) && folded == service {
        // The service is called so, in another namespace.
        let field = Field::of("spec.commonName");
        violations.push(is_reserved(
            field,
            written,
            Reserved::ApiServer,
            &own_names[0],
        ));
    }
    (Some(folded), None)
}

fn read_secret_name(pki: &Pki, settings: &Settings, violations: &mut Vec<Violation>) {
    // By default it is the name of the Pki, which the API server has judged, and may yet have to generate.
    let field = Field::of("spec.secretName");
    if let Some(name) = &pki.spec.secret_name {
        check_secret_name(field, name, violations);
    }
    check_not_reserved(field, pki, pki.secret_name(), settings, violations);
}

fn read_outputs(pki: &Pki, settings: &Settings, violations: &mut Vec<Violation>) {
    let Some(outputs) = &pki.spec.outputs else {
        return;
    };
    for (field, keystore) in [
        (
            "spec.outputs.pkcs12.passwordSecretRef.name",
            &outputs.pkcs12,
        ),
        ("spec.outputs.jks.passwordSecretRef.name", &outputs.jks),
    ] {
        let Some(keystore) = keystore else { continue };
        let (field, name) = (Field::of(field), &keystore.password_secret_ref.name);
        check_secret_name(field, name, violations);
        check_not_reserved(field, pki, name, settings, violations);
        if name == pki.secret_name() {
            violations.push(Violation::PasswordInOwnSecret {
                field,
                name: name.clone(),
            });
        }
    }
}

fn check_secret_name(field: Field, name: &str, violations: &mut Vec<Violation>) {
    if !names::is_subdomain(name) {
        let name = name.into();
        violations.push(Violation::SecretNameShape { field, name });
    }
}

fn check_not_reserved(
    field: Field,
    pki: &Pki,
    name: &str,
    settings: &Settings,
    violations: &mut Vec<Violation>,
) {
    let namespace = pki.metadata.namespace.as_deref().unwrap_or_default();
    if settings.is_reserved(namespace, name) {
        let name = name.into();
        violations.push(Violation::SecretReserved { field, name });
    }
}

/// `spec.duration` and when to renew, with their defaults.
fn read_lifetime(
    pki: &Pki,
    violations: &mut Vec<Violation>,
) -> (SignedDuration, Option<RenewBefore>) {
    let text = pki.spec.duration.as_deref().unwrap_or(DEFAULT_DURATION);
    let within = |d: &SignedDuration| (SHORTEST..=LONGEST).contains(d);
    let Some(duration) = names::duration(text).filter(within) else {
        violations.push(Violation::Duration { value: text.into() });
        return (SHORTEST, None);
    };
    let before = pki.spec.renew_before.as_deref().map(|text| {
        let read = names::duration(text).filter(|d| d.is_positive() && *d <= duration * 9 / 10);
        let value = || text.into();
        read.map(RenewBefore::Duration)
            .ok_or_else(|| Violation::RenewBefore {
                value: value(),
                duration,
            })
    });
    let percentage = pki.spec.renew_before_percentage.map(|value| {
        let read = u8::try_from(value)
            .ok()
            .filter(|p| (1..=MOST_PERCENT).contains(p));
        read.map(RenewBefore::Percentage)
            .ok_or(Violation::RenewBeforePercentage { value })
    });
    let read = match (before, percentage) {
        (Some(_), Some(_)) => Err(Violation::RenewBeforeTwice),
        (Some(read), None) | (None, Some(read)) => read.map(Some),
        (None, None) => Ok(None),
    };
    match read {
        Ok(renew_before) => (duration, renew_before),
        Err(violation) => {
            violations.push(violation);
            (duration, None)
        }
    }
}
