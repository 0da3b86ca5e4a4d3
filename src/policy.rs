//! The rule book: may this [`Pki`] have its certificate, and if not, what should its author write instead?
//!
//! [`RuleBook::evaluate`] is the only place that answers. Admission asks it at `kubectl apply`, the reconciler
//! asks it about what is already stored; both show the same [`Violation`]s. It is a pure function over plain
//! data, and it does not rely on the schema: what the API server should have refused is refused here as well.

use crate::api::{DEFAULT_DURATION, Pki, PkiPolicy};
use jiff::SignedDuration;
use kube::ResourceExt;
use pki_certs::{KeyAlgorithm, LeafRequest};
use std::collections::HashSet;
use std::sync::Arc;

pub use violation::{Field, Violation, summary as violation_summary};

mod names;
pub mod text;
mod violation;

/// Everything that decides about a [`Pki`] besides the object itself.
#[derive(Clone, Debug, Default)]
pub struct RuleBook {
    /// What the installation fixes.
    pub settings: Arc<Settings>,
    policies: Vec<Policy>,
}

/// The part of the rule book that is fixed when the operator starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's DNS domain, `cluster.local` unless the platform team chose another.
    pub cluster_domain: String,
    /// The operator's own namespace, and the Secrets in it that no Pki may name.
    pub namespace: String,
    /// Names of the Secrets that hold the operator's CAs.
    pub reserved_secrets: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".into(),
            namespace: String::new(),
            reserved_secrets: Vec::new(),
        }
    }
}

/// What the rule book permits: all that issuing needs to know, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approved {
    /// The certificate to make.
    pub certificate: LeafRequest,
    /// The Secret to put it in.
    pub secret_name: String,
    /// How long before expiry to renew; `None` leaves it to [`pki_certs::renewal`].
    pub renew_before: Option<SignedDuration>,
    /// The policy that permits it.
    pub policy: String,
}

impl RuleBook {
    /// A rule book of these policies. Their order does not matter.
    pub fn new<'a>(
        settings: Arc<Settings>,
        policies: impl IntoIterator<Item = &'a PkiPolicy>,
    ) -> Self {
        let mut policies: Vec<_> = policies.into_iter().map(Policy::compile).collect();
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        Self { settings, policies }
    }

    /// Judges one Pki. On refusal every violation is listed: first what is wrong in itself, then what the
    /// policy that comes nearest does not permit.
    pub fn evaluate(&self, pki: &Pki) -> Result<Approved, Vec<Violation>> {
        let mut violations = Vec::new();
        let wanted = self.read(pki, &mut violations);
        let policy = match self.permitting(&wanted) {
            Ok(policy) if violations.is_empty() => policy,
            Ok(_) => return Err(violations),
            Err(objections) => {
                violations.extend(objections);
                return Err(violations);
            }
        };
        Ok(Approved {
            policy: policy.name.clone(),
            secret_name: pki.secret_name().to_owned(),
            renew_before: wanted.renew_before,
            certificate: LeafRequest {
                dns_names: wanted.all_names(),
                common_name: wanted.common_name,
                ip_addresses: Vec::new(),
                duration: wanted.duration,
                key: KeyAlgorithm::EcdsaP256,
            },
        })
    }

    /// Reads the spec, fills in defaults and notes what is wrong whatever any policy says.
    fn read<'a>(&self, pki: &'a Pki, violations: &mut Vec<Violation>) -> Wanted<'a> {
        let spec = &pki.spec;
        let namespace = pki.metadata.namespace.as_deref().unwrap_or_default();
        let service = spec.service_name.as_str();
        let well_named = names::is_label(service);
        if !well_named {
            violations.push(Violation::ServiceNameShape {
                name: service.into(),
            });
        }

        let own = format!("{service}.{namespace}.svc");
        let own_names = [
            own.clone(),
            format!("{own}.{}", self.settings.cluster_domain),
        ];
        let dns_names = self.read_dns_names(&spec.dns_names, &own_names, violations);
        let common_name = names::fold(spec.common_name.as_deref().unwrap_or(service));
        if let Some(written) = &spec.common_name {
            let is_of_this_certificate = common_name == service
                || own_names.contains(&common_name)
                || dns_names.iter().any(|(_, name)| *name == common_name);
            if !is_of_this_certificate || common_name.len() > LONGEST_COMMON_NAME {
                violations.push(Violation::CommonName {
                    name: written.clone(),
                    service: service.into(),
                });
            }
        }

        // By default it is the name of the Pki, which the API server has judged, and may yet have to generate.
        if let Some(secret) = &spec.secret_name
            && !names::is_subdomain(secret)
        {
            violations.push(Violation::SecretNameShape {
                name: secret.clone(),
            });
        }
        let secret = pki.secret_name();
        let settings = &self.settings;
        if namespace == settings.namespace && settings.reserved_secrets.iter().any(|r| r == secret)
        {
            violations.push(Violation::SecretReserved {
                name: secret.into(),
            });
        }

        let (duration, renew_before) = read_lifetime(pki, violations);
        if let Some(key) = &spec.private_key
            && key.size != 256
        {
            violations.push(Violation::KeySize { size: key.size });
        }
        Wanted {
            pki: pki.metadata.name.as_deref().unwrap_or_default(),
            namespace,
            service: well_named.then_some(service),
            common_name,
            own_names,
            dns_names,
            duration,
            renew_before,
        }
    }

    /// The names that are well formed, folded, each once, with their place in the list; without those that every
    /// certificate has.
    fn read_dns_names(
        &self,
        written: &[String],
        own_names: &[String; 2],
        violations: &mut Vec<Violation>,
    ) -> Vec<(usize, String)> {
        if written.len() > MOST_DNS_NAMES {
            let count = written.len();
            violations.push(Violation::DnsNameCount { count });
            return Vec::new();
        }
        let mut read: Vec<(usize, String)> = Vec::new();
        for (index, name) in written.iter().enumerate() {
            let folded = names::fold(name);
            if own_names.contains(&folded) || read.iter().any(|(_, known)| *known == folded) {
                continue;
            }
            let name = name.clone();
            if !names::is_certifiable(&folded) {
                violations.push(Violation::DnsNameShape { index, name });
            } else if names::is_cluster_internal(&folded, &self.settings.cluster_domain) {
                let own = own_names[0].clone();
                violations.push(Violation::DnsNameInternal { index, name, own });
            } else {
                read.push((index, folded));
            }
        }
        read
    }

    /// The first policy that permits all of it, or what the nearest one objects to. A policy that allows the service
    /// name is nearer than any that does not, so that "not found in allowedNames" is said only when no policy of this
    /// namespace allows it.
    fn permitting(&self, wanted: &Wanted<'_>) -> Result<&Policy, Vec<Violation>> {
        let mut nearest: Option<(bool, Vec<Violation>)> = None;
        for policy in self.policies_for(wanted.namespace) {
            let is_denied = !policy.allows_service(wanted);
            let objections = policy.objections(wanted);
            if !is_denied && objections.is_empty() {
                return Ok(policy);
            }
            let is_nearer = nearest.as_ref().is_none_or(|(denied, known)| {
                (is_denied, objections.len()) < (*denied, known.len())
            });
            if is_nearer {
                nearest = Some((is_denied, objections));
            }
        }
        let violation = match (&nearest, wanted.service) {
            (None, Some(name)) => Some(Violation::NoPolicy {
                name: name.into(),
                pki: wanted.pki.into(),
                namespace: wanted.namespace.into(),
            }),
            (Some((true, _)), Some(name)) => {
                let allowed = self
                    .policies_for(wanted.namespace)
                    .flat_map(|policy| policy.service_names(wanted.namespace));
                Some(Violation::service_name(name, wanted.pki, allowed))
            }
            _ => None,
        };
        let objections = nearest.map(|(_, objections)| objections);
        Err(violation
            .into_iter()
            .chain(objections.into_iter().flatten())
            .collect())
    }

    fn policies_for(&self, namespace: &str) -> impl Iterator<Item = &Policy> {
        self.policies
            .iter()
            .filter(move |policy| policy.is_for(namespace))
    }
}

/// `spec.duration` and `spec.renewBefore`, with their defaults.
fn read_lifetime(
    pki: &Pki,
    violations: &mut Vec<Violation>,
) -> (SignedDuration, Option<SignedDuration>) {
    let text = pki.spec.duration.as_deref().unwrap_or(DEFAULT_DURATION);
    let within = |d: &SignedDuration| (SHORTEST..=LONGEST).contains(d);
    let Some(duration) = names::duration(text).filter(within) else {
        violations.push(Violation::Duration { value: text.into() });
        return (SHORTEST, None);
    };
    let renew_before = pki.spec.renew_before.as_deref().and_then(|text| {
        let read = names::duration(text).filter(|d| d.is_positive() && *d <= duration * 9 / 10);
        if read.is_none() {
            let value = text.into();
            violations.push(Violation::RenewBefore { value, duration });
        }
        read
    });
    (duration, renew_before)
}

const SHORTEST: SignedDuration = SignedDuration::from_hours(1);
/// A hundred years: beyond any CA's own end, and far from where times overflow.
const LONGEST: SignedDuration = SignedDuration::from_hours(876_000);
/// The upper bound of X.520 and of RFC 5280, appendix A.
const LONGEST_COMMON_NAME: usize = 64;
/// As in the schema. It also keeps an object that never saw the schema from costing more than a moment.
const MOST_DNS_NAMES: usize = 100;

/// A spec as read: names folded, defaults in place.
struct Wanted<'a> {
    pki: &'a str,
    namespace: &'a str,
    /// `None` when it is not even a DNS label, which is then the violation, whatever a policy says.
    service: Option<&'a str>,
    common_name: String,
    own_names: [String; 2],
    /// Further names, with their place in `spec.dnsNames`.
    dns_names: Vec<(usize, String)>,
    duration: SignedDuration,
    renew_before: Option<SignedDuration>,
}

impl Wanted<'_> {
    fn all_names(&self) -> Vec<String> {
        let further = self.dns_names.iter().map(|(_, name)| name);
        self.own_names.iter().chain(further).cloned().collect()
    }
}

/// A [`PkiPolicy`], ready to be asked.
#[derive(Clone, Debug)]
struct Policy {
    name: String,
    /// Globs; empty: all namespaces.
    namespaces: Vec<String>,
    /// Names without glob or placeholder: one look-up, however many there are.
    exact: HashSet<String>,
    /// The others.
    patterns: Vec<String>,
    dns_names: Vec<String>,
    max_duration: Option<SignedDuration>,
}

impl Policy {
    fn compile(policy: &PkiPolicy) -> Self {
        let spec = &policy.spec;
        let is_pattern = |name: &&String| name.contains(['*', '{']);
        let (patterns, exact): (Vec<_>, Vec<_>) = spec.service_names.iter().partition(is_pattern);
        Self {
            name: policy.name_any(),
            namespaces: spec
                .namespaces
                .iter()
                .flat_map(|scope| scope.names.clone())
                .collect(),
            exact: exact.into_iter().cloned().collect(),
            patterns: patterns.into_iter().cloned().collect(),
            dns_names: spec
                .dns_names
                .iter()
                .map(|name| names::fold(name))
                .collect(),
            // An unreadable limit, stored under another schema, permits nothing rather than everything.
            max_duration: spec
                .max_duration
                .as_deref()
                .map(|text| names::duration(text).unwrap_or(SignedDuration::ZERO)),
        }
    }

    fn is_for(&self, namespace: &str) -> bool {
        self.namespaces.is_empty()
            || self
                .namespaces
                .iter()
                .any(|glob| names::glob_matches(glob, namespace))
    }

    /// What it does not permit, besides the service name.
    fn objections(&self, wanted: &Wanted<'_>) -> Vec<Violation> {
        let namespace = wanted.namespace;
        let is_refused = |(_, name): &&(usize, String)| !self.allows_dns_name(name, namespace);
        let mut objections: Vec<_> = wanted
            .dns_names
            .iter()
            .filter(is_refused)
            .map(|(index, name)| {
                let permitted = self.dns_names.iter().map(|p| names::expand(p, namespace));
                Violation::dns_name(*index, name, &self.name, permitted.map(Into::into))
            })
            .collect();
        if let Some(max) = self.max_duration.filter(|max| wanted.duration > *max) {
            objections.push(Violation::DurationTooLong {
                wanted: wanted.duration,
                max,
                policy: self.name.clone(),
            });
        }
        objections
    }

    /// A service name that cannot be read is no policy's business.
    fn allows_service(&self, wanted: &Wanted<'_>) -> bool {
        let is_match = |pattern: &String, name| {
            names::glob_matches(&names::expand(pattern, wanted.namespace), name)
        };
        wanted.service.is_none_or(|name| {
            self.exact.contains(name) || self.patterns.iter().any(|p| is_match(p, name))
        })
    }

    fn allows_dns_name(&self, name: &str, namespace: &str) -> bool {
        self.dns_names
            .iter()
            .any(|pattern| names::labels_match(&names::expand(pattern, namespace), name))
    }

    /// The service names as people of `namespace` may read them.
    fn service_names(&self, namespace: &str) -> impl Iterator<Item = String> {
        let patterns = self
            .patterns
            .iter()
            .map(|p| names::expand(p, namespace).into_owned());
        patterns.chain(self.exact.iter().cloned())
    }
}

#[cfg(test)]
mod tests;
