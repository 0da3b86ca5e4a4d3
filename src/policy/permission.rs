//! A compiled [`PkiPolicy`].

use super::effective::Effective;
use super::expression::{Facts, FailedRule, Rules};
use super::in_force::DefaultValues;
use super::key::Key;
use super::limits::Limits;
use super::name_list::NameList;
use super::namespace_selector::selector;
use super::parsed_spec::ParsedSpec;
use super::violation::{AllowedNames, BrokenRule, Field, Violation};
use super::{Labels, identifiers, names};
use crate::api::{PermittedKey, PkiPolicy};
use ipnet::IpNet;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt as _};
use std::borrow::Cow;
use std::cell::LazyCell;
use std::net::IpAddr;
use std::sync::Arc;

/// The permissions of one policy. Unreadable entries, stored under another schema, permit nothing.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) name: String,
    /// Globs; empty: all namespaces.
    namespaces: Vec<String>,
    /// Labels of the namespace.
    selector: Option<Selector>,
    /// Names without glob or placeholder.
    exact: NameList,
    /// The others.
    patterns: Vec<String>,
    dns_names: Vec<String>,
    /// Whether names of pods below the Service are permitted.
    pod_names: bool,
    ip_addresses: Vec<IpNet>,
    uris: Vec<String>,
    limits: Limits,
    /// For what a Pki leaves out.
    pub(super) defaults: Arc<DefaultValues>,
    validations: Rules,
}

impl Policy {
    pub(super) fn compile(policy: &PkiPolicy) -> Self {
        let spec = &policy.spec;
        let is_pattern = |name: &&String| name.contains(['*', '{']);
        let (patterns, exact): (Vec<_>, Vec<_>) = spec.service_names.iter().partition(is_pattern);
        let scope = spec.namespaces.as_ref();
        let ranges = spec
            .ip_addresses
            .iter()
            .filter_map(|range| identifiers::range(range));
        // Folded, {NAMESPACE} would be a placeholder.
        let is_readable = |name: &&String| !names::has_unknown_placeholder(name);
        let dns_names = spec.dns_names.iter().filter(is_readable);
        let defaults = spec.defaults.as_ref().map(DefaultValues::read);
        Self {
            name: policy.name_any(),
            namespaces: scope.map(|scope| scope.names.clone()).unwrap_or_default(),
            selector: scope.and_then(|scope| scope.selector.as_ref().map(selector)),
            exact: exact.into_iter().map(String::as_str).collect(),
            patterns: patterns.into_iter().cloned().collect(),
            dns_names: dns_names.map(|name| names::fold(name)).collect(),
            pod_names: spec.pod_names.unwrap_or(true),
            ip_addresses: ranges.collect(),
            uris: spec.uris.clone(),
            limits: Limits::of(spec),
            defaults: Arc::new(defaults.unwrap_or_default()),
            validations: Rules::compile(&spec.validations),
        }
    }

    /// Whether it is for a namespace of this name, with these labels if they are known.
    pub(super) fn is_for(&self, namespace: &str, labels: Option<&Labels>) -> bool {
        let mut names = self.namespaces.iter();
        let is_named =
            self.namespaces.is_empty() || names.any(|glob| names::glob_matches(glob, namespace));
        // An unknown namespace is not selected.
        let is_selected =
            |selector: &Selector| labels.is_some_and(|labels| selector.matches(labels));
        is_named && self.selector.as_ref().is_none_or(is_selected)
    }

    /// Whether its selection or its rules depend on labels of the namespace.
    pub(super) fn reads_labels(&self) -> bool {
        self.selector.is_some() || self.validations.reads_namespace()
    }

    /// Its rules in CEL.
    pub(super) fn rules(&self) -> &Rules {
        &self.validations
    }

    /// The namespaces that it is for, if it names each.
    pub(super) fn only_namespaces(&self) -> Option<&[String]> {
        let is_exact =
            !self.namespaces.is_empty() && self.namespaces.iter().all(|name| !name.contains('*'));
        is_exact.then_some(&self.namespaces)
    }

    /// Whether it allows the service name. Policies do not judge a malformed one.
    pub(super) fn allows_service(&self, parsed: &ParsedSpec<'_>) -> bool {
        let is_match = |pattern: &String, name| {
            names::glob_matches(&names::expand(pattern, parsed.namespace), name)
        };
        parsed.service.is_none_or(|name| {
            self.exact.contains(name) || self.patterns.iter().any(|p| is_match(p, name))
        })
    }

    /// Whether it allows exactly this service name, in any namespace. Patterns do not count.
    pub(super) fn names_service(&self, name: &str) -> bool {
        self.exact.contains(name)
    }

    /// The values that count for a Pki under this policy.
    pub(super) fn effective(&self, parsed: &ParsedSpec<'_>) -> Effective {
        Effective::resolve(&parsed.specified, &self.defaults.values, &self.limits)
    }

    /// The values that count, if it permits all of them. `facts` are about the same Pki.
    pub(super) fn permits<'f>(
        &self,
        parsed: &ParsedSpec<'_>,
        facts: &LazyCell<Facts<'f>, impl FnOnce() -> Facts<'f>>,
    ) -> Option<Effective> {
        if !self.allows_service(parsed) {
            return None;
        }
        let effective = self.effective(parsed);
        let is_permitted = self.violations(parsed, &effective, facts).next().is_none();
        is_permitted.then_some(effective)
    }

    /// The other violations than that of the service name, lazily. `facts` are about the same Pki.
    pub(super) fn violations<'f>(
        &self,
        parsed: &ParsedSpec<'_>,
        effective: &Effective,
        facts: &LazyCell<Facts<'f>, impl FnOnce() -> Facts<'f>>,
    ) -> impl Iterator<Item = Violation> {
        let (policy, namespace) = (self.name.as_str(), parsed.namespace);
        let dns_names = parsed.dns_names.iter();
        let dns_names = dns_names
            .filter_map(move |(index, name)| self.dns_name_violation(*index, name, parsed));
        let addresses = parsed.ip_addresses.iter();
        let addresses = addresses.filter(|(_, address)| !self.allows_address(*address));
        let addresses = addresses.map(move |(index, address)| {
            Violation::ip_address(*index, *address, policy, &self.ip_addresses)
        });
        let uris = parsed.uris.iter();
        let uris = uris.filter(move |(_, uri)| !self.allows_uri(uri, namespace));
        let uris = uris.map(move |(index, uri)| {
            Violation::uri(*index, uri, policy, &expanded(&self.uris, namespace))
        });
        let usages = effective.usages.value.iter();
        let usages = usages.filter(|usage| !self.limits.allows_usage(**usage));
        let usages = usages.map(move |usage| {
            let permitted = self.limits.usages.iter().map(ToString::to_string);
            Violation::usage(*usage, policy, permitted)
        });
        let specified = parsed.object.spec.secret_template.as_ref();
        let template = move || self.defaults.template(specified).into_owned();
        let values = LazyCell::new(move || (effective.clone(), template()));
        let rules = self.validations.failures(policy, values, facts);
        let rules = rules.map(move |FailedRule { message, error }| {
            let policy = policy.into();
            let rule = BrokenRule::Validation {
                message,
                error,
                policy,
            };
            Violation::new(Field::of("spec"), rule)
        });
        let key = self.key_violation(effective.key());
        let duration = self.duration_violation(effective);
        let mismatches = effective.mismatches(&parsed.object.spec);
        let names = dns_names.chain(addresses).chain(uris);
        let values = usages.chain(key).chain(duration).chain(mismatches);
        names.chain(values).chain(rules)
    }

    fn dns_name_violation(
        &self,
        index: usize,
        name: &str,
        parsed: &ParsedSpec<'_>,
    ) -> Option<Violation> {
        let (policy, namespace) = (&self.name, parsed.namespace);
        if parsed.is_pod_name(name) {
            return (!self.pod_names).then(|| {
                let (name, policy) = (name.into(), policy.clone());
                let rule = BrokenRule::PodNames { name, policy };
                Violation::new(Field::at("spec.dnsNames", index), rule)
            });
        }
        let own = parsed.own_name();
        (!self.allows_dns_name(name, namespace)).then(|| {
            let permitted = expanded(&self.dns_names, namespace);
            Violation::dns_name(index, name, own, policy, &permitted)
        })
    }

    fn key_violation(&self, key: Key) -> Option<Violation> {
        let permitted = || self.limits.private_keys.iter().map(described);
        (!self.limits.allows_key(key.algorithm, key.size))
            .then(|| Violation::key(key, &self.name, permitted()))
    }

    fn duration_violation(&self, effective: &Effective) -> Option<Violation> {
        let duration = effective.duration.value;
        let max = self.limits.max_duration.filter(|max| duration > *max)?;
        let policy = self.name.clone();
        let rule = BrokenRule::DurationTooLong {
            duration,
            max,
            policy,
        };
        Some(Violation::new(Field::of("spec.duration"), rule))
    }

    fn allows_dns_name(&self, name: &str, namespace: &str) -> bool {
        let mut patterns = self.dns_names.iter();
        patterns.any(|pattern| names::labels_match(&names::expand(pattern, namespace), name))
    }

    fn allows_address(&self, address: IpAddr) -> bool {
        self.ip_addresses
            .iter()
            .any(|range| range.contains(&address))
    }

    fn allows_uri(&self, uri: &str, namespace: &str) -> bool {
        let mut patterns = self.uris.iter();
        patterns.any(|pattern| identifiers::uri_matches(&names::expand(pattern, namespace), uri))
    }

    /// How many service names it allows, counting a pattern as one.
    pub(super) fn count_service_names(&self) -> usize {
        self.exact.len() + self.patterns.len()
    }

    /// The service names as people of `namespace` may read them.
    pub(super) fn service_names<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = Cow<'a, str>> {
        self.patterns_for(namespace)
            .chain(self.exact.iter().map(Cow::Borrowed))
    }

    /// The service names that may be near `name`, of many.
    pub(super) fn service_names_near<'a>(
        &'a self,
        name: &'a str,
        namespace: &'a str,
    ) -> impl Iterator<Item = Cow<'a, str>> {
        let exact = self.exact.candidates(name, AllowedNames::MAX_LISTED);
        self.patterns_for(namespace).chain(exact.map(Cow::Borrowed))
    }

    fn patterns_for<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        let patterns = self.patterns.iter();
        patterns.map(move |pattern| names::expand(pattern, namespace))
    }
}

/// Patterns as people of `namespace` may read them.
fn expanded(patterns: &[String], namespace: &str) -> Vec<String> {
    let expanded = patterns
        .iter()
        .map(|pattern| names::expand(pattern, namespace));
    expanded.map(Cow::into_owned).collect()
}

fn described(key: &PermittedKey) -> String {
    match key.min_size {
        None | Some(0) => key.algorithm.to_string(),
        Some(least) => format!("{}-{least}", key.algorithm),
    }
}
