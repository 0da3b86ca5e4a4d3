//! A parsed spec: names folded, and the violations that no policy can permit.

use super::effective::Effective;
use super::reserved::{self, Reserved};
use super::values::Values;
use super::violation::{BrokenRule, Field, NameOwner, Violation};
use super::{Settings, identifiers, names, template};
use crate::api::Pki;
use crate::util::text::is_subdomain;
use pki_certs::LeafRequest;
use std::net::IpAddr;

/// Maximum length of a common name in X.520 and RFC 5280, appendix A.
const MAX_COMMON_NAME: usize = 64;
/// Maximum length of each list, as in the schema, for objects that were stored without it.
pub(super) const MAX_NAMES: usize = 100;

pub(super) struct ParsedSpec<'a> {
    /// The object as it was written.
    pub(super) object: &'a Pki,
    pub(super) pki: &'a str,
    pub(super) namespace: &'a str,
    /// `None` if it is malformed, which is a violation of its own.
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
    /// The values of the spec for which policies have defaults.
    pub(super) specified: Values,
}

impl<'a> ParsedSpec<'a> {
    /// Parses the spec, and adds its violations.
    pub(super) fn read(pki: &'a Pki, settings: &Settings, violations: &mut Vec<Violation>) -> Self {
        let spec = &pki.spec;
        let namespace = pki.metadata.namespace.as_deref().unwrap_or_default();
        let service = spec.service_name.as_str();
        let fault = check_service_name(service, namespace);
        let well_named = fault.is_none();
        violations.extend(fault);
        let own = format!("{service}.{namespace}.svc");
        let own_names = [own.clone(), format!("{own}.{}", settings.cluster_domain)];
        let names = &own_names;
        let own_service = OwnService {
            service,
            namespace,
            names,
        };
        let dns_names = read_dns_names(&spec.dns_names, own_service, settings, violations);
        let (common_name, former_common_name) =
            read_common_name(pki, &own_names, &dns_names, violations);
        let ip_addresses = read_ip_addresses(&spec.ip_addresses, &own, settings, violations);
        let uris = read_uris(&spec.uris, &own, settings, violations);
        read_secret_name(pki, settings, violations);
        let specified = Values::read(spec, violations);
        if let Some(template) = &spec.secret_template {
            template::check(template, violations);
        }
        read_outputs(pki, settings, violations);
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
            specified,
        }
    }

    /// The name by which pods of all namespaces reach the Service.
    pub(super) fn own_name(&self) -> &str {
        &self.own_names[0]
    }

    /// Whether a further name is that of a pod of the Service. None is that of another Service.
    pub(super) fn is_pod_name(&self, name: &str) -> bool {
        let is_below = |own: &String| {
            let below = name.strip_suffix(own.as_str());
            below.is_some_and(|below| below.ends_with('.'))
        };
        self.own_names.iter().any(is_below)
    }

    /// The request for the certificate.
    pub(super) fn request(self, effective: &Effective) -> LeafRequest {
        let further = self.dns_names.into_iter().map(|(_, name)| name);
        LeafRequest {
            common_name: self.common_name,
            former_common_name: self.former_common_name,
            dns_names: self.own_names.into_iter().chain(further).collect(),
            ip_addresses: self.ip_addresses.into_iter().map(|(_, ip)| ip).collect(),
            uris: self.uris.into_iter().map(|(_, uri)| uri).collect(),
            usages: effective.certified_usages(),
            duration: effective.duration.value,
            backdating: LeafRequest::BACKDATING,
            key: effective.key().certified(),
            key_encoding: effective.key().certified_encoding(),
        }
    }
}

/// Checks a service name for faults that no policy can permit.
fn check_service_name(service: &str, namespace: &str) -> Option<Violation> {
    if !names::is_label(service) {
        return Some(Violation::service_name(service));
    }
    reserved::is_api_server(service, namespace).then(|| {
        let (name, namespace) = (service.to_owned(), namespace.to_owned());
        let rule = BrokenRule::ServiceReserved { name, namespace };
        Violation::new(Field::of("spec.serviceName"), rule)
    })
}

/// The Service of a Pki, and the names that every certificate of it has.
#[derive(Clone, Copy)]
struct OwnService<'a> {
    service: &'a str,
    namespace: &'a str,
    names: &'a [String; 2],
}

/// The well-formed names, folded, each once, with their index; without those of every certificate.
fn read_dns_names(
    written: &[String],
    own: OwnService<'_>,
    settings: &Settings,
    violations: &mut Vec<Violation>,
) -> Vec<(usize, String)> {
    read_list("spec.dnsNames", written, violations, |name| {
        let folded = names::fold(name);
        if own.names.contains(&folded) {
            Ok(None)
        } else if !names::is_certifiable(&folded) {
            Err(BrokenRule::DnsNameShape(name.to_owned()))
        } else if reserved::is_name_of_api_server(&folded) {
            Err(is_reserved(name, Reserved::ApiServer, &own.names[0]))
        } else if !names::is_cluster_internal(&folded, &settings.cluster_domain) {
            Ok(Some(folded))
        } else {
            read_internal(name, folded, own, &settings.cluster_domain).map(Some)
        }
    })
}

/// A name inside the cluster, if it is that of a pod of the Service.
fn read_internal(
    written: &str,
    folded: String,
    own_service: OwnService<'_>,
    cluster_domain: &str,
) -> Result<String, BrokenRule> {
    let (name, own) = (written.to_owned(), own_service.names[0].clone());
    let owner = match names::service_name(&folded, cluster_domain) {
        None => NameOwner::Any,
        Some(read)
            if read.namespace != own_service.namespace
                || reserved::is_api_server(read.service, read.namespace) =>
        {
            NameOwner::OfNamespace {
                service: read.service.to_owned(),
                namespace: read.namespace.to_owned(),
            }
        }
        Some(read) if read.service != own_service.service => {
            NameOwner::Neighbour(read.service.to_owned())
        }
        Some(read) if read.below.is_some_and(names::is_pod) => return Ok(folded),
        Some(_) => return Err(BrokenRule::PodNameShape { name, own }),
    };
    Err(BrokenRule::DnsNameInternal { name, owner, own })
}

fn read_ip_addresses(
    written: &[String],
    own: &str,
    settings: &Settings,
    violations: &mut Vec<Violation>,
) -> Vec<(usize, IpAddr)> {
    read_list("spec.ipAddresses", written, violations, |text| {
        let value = text.to_owned();
        let Ok(address) = text.parse::<IpAddr>() else {
            return Err(BrokenRule::IpAddressShape(value));
        };
        if let Some(v4) = identifiers::mapped(address) {
            return Err(BrokenRule::IpAddressMapped { value, v4 });
        }
        match settings.reserved_address(address) {
            Some(why) => Err(is_reserved(text, why, own)),
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
    read_list("spec.uris", written, violations, |text| {
        let uri = identifiers::uri(text).ok_or_else(|| BrokenRule::UriShape(text.to_owned()))?;
        if identifiers::host(&uri).is_some_and(|host| settings.is_reserved_host(host)) {
            return Err(is_reserved(text, Reserved::Host, own));
        }
        Ok(Some(uri))
    })
}

fn is_reserved(value: &str, why: Reserved, own: &str) -> BrokenRule {
    let (value, own) = (value.to_owned(), own.to_owned());
    BrokenRule::Reserved { value, why, own }
}

/// The elements that are well formed, each once, with its place in the list.
fn read_list<T: PartialEq>(
    path: &'static str,
    written: &[String],
    violations: &mut Vec<Violation>,
    read: impl Fn(&str) -> Result<Option<T>, BrokenRule>,
) -> Vec<(usize, T)> {
    if written.len() > MAX_NAMES {
        let (count, most) = (written.len(), MAX_NAMES);
        violations.push(Violation::new(
            Field::of(path),
            BrokenRule::Count { count, most },
        ));
        return Vec::new();
    }
    let mut all: Vec<(usize, T)> = Vec::new();
    for (index, text) in written.iter().enumerate() {
        match read(text) {
            Ok(Some(value)) if !all.iter().any(|(_, known)| *known == value) => {
                all.push((index, value));
            }
            Ok(_) => {}
            Err(rule) => violations.push(Violation::new(Field::at(path, index), rule)),
        }
    }
    all
}

/// The common name, and a former default.
fn read_common_name(
    pki: &Pki,
    own_names: &[String; 2],
    dns_names: &[(usize, String)],
    violations: &mut Vec<Violation>,
) -> (Option<String>, Option<String>) {
    let service = pki.spec.service_name.as_str();
    let Some(written) = &pki.spec.common_name else {
        let default = own_names[0].clone();
        let default = Some(default).filter(|name| name.len() <= MAX_COMMON_NAME);
        return (default, Some(names::fold(service)));
    };
    let folded = names::fold(written);
    let is_of_this_certificate = folded == service
        || own_names.contains(&folded)
        || dns_names.iter().any(|(_, name)| *name == folded);
    let field = Field::of("spec.commonName");
    if !is_of_this_certificate || folded.len() > MAX_COMMON_NAME {
        let (name, service) = (written.clone(), service.into());
        violations.push(Violation::new(
            field,
            BrokenRule::CommonName { name, service },
        ));
    } else if reserved::is_name_of_api_server(&folded) && folded == service {
        // A service of another namespace has the name of the API server.
        let rule = is_reserved(written, Reserved::ApiServer, &own_names[0]);
        violations.push(Violation::new(field, rule));
    }
    (Some(folded), None)
}

fn read_secret_name(pki: &Pki, settings: &Settings, violations: &mut Vec<Violation>) {
    // The default is the name of the Pki, which the API server checks and may still generate.
    let field = Field::of(pki.secret_name_field());
    if let Some(name) = &pki.spec.secret_name {
        check_secret_name(field, name, violations);
    }
    check_not_reserved(field, pki, pki.secret_name(), settings, violations);
}

fn read_outputs(pki: &Pki, settings: &Settings, violations: &mut Vec<Violation>) {
    let Some(outputs) = &pki.spec.outputs else {
        return;
    };
    let pkcs12 = outputs
        .pkcs12
        .iter()
        .map(|it| ("spec.outputs.pkcs12.passwordSecretRef.name", it));
    let jks = outputs
        .jks
        .iter()
        .map(|it| ("spec.outputs.jks.passwordSecretRef.name", it));
    for (path, keystore) in pkcs12.chain(jks) {
        let (field, name) = (Field::of(path), &keystore.password_secret_ref.name);
        check_secret_name(field, name, violations);
        check_not_reserved(field, pki, name, settings, violations);
        if name == pki.secret_name() {
            violations.push(Violation::new(
                field,
                BrokenRule::PasswordInOwnSecret(name.clone()),
            ));
        }
    }
}

fn check_secret_name(field: Field, name: &str, violations: &mut Vec<Violation>) {
    if !is_subdomain(name) {
        violations.push(Violation::new(
            field,
            BrokenRule::SecretNameShape(name.to_owned()),
        ));
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
        violations.push(Violation::new(
            field,
            BrokenRule::SecretReserved(name.to_owned()),
        ));
    }
}
