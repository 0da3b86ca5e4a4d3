//! A [`PkiPolicy`], ready to be asked.

use super::expression::{Facts, Rule};
use super::name_list::NameList;
use super::violation::{AllowedNames, Violation};
use super::wanted::{Key, Wanted};
use super::{Labels, faults, identifiers, names};
use crate::api::{LabelOperator, NamespaceSelector, PermittedKey, PkiPolicy, Usage};
use ipnet::IpNet;
use jiff::SignedDuration;
use kube::ResourceExt;
use kube::core::{Expression, Selector, SelectorExt as _};
use std::borrow::Cow;
use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What one policy permits. What it has that cannot be read, stored under another schema, permits nothing.
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
    ip_addresses: Vec<IpNet>,
    uris: Vec<String>,
    /// Empty: all.
    private_keys: Vec<PermittedKey>,
    /// Empty: all.
    usages: Vec<Usage>,
    max_duration: Option<SignedDuration>,
    validations: Vec<Rule>,
}

impl Policy {
    pub(super) fn compile(policy: &PkiPolicy) -> Self {
        let spec = &policy.spec;
        let is_pattern = |name: &&String| name.contains(['*', '{']);
        let (patterns, exact): (Vec<_>, Vec<_>) = spec.service_names.iter().partition(is_pattern);
        let ranges = spec.ip_addresses.iter();
        Self {
            name: policy.name_any(),
            namespaces: spec
                .namespaces
                .iter()
                .flat_map(|scope| scope.names.clone())
                .collect(),
            selector: spec
                .namespaces
                .as_ref()
                .and_then(|scope| scope.selector.as_ref().map(selector)),
            exact: exact.into_iter().map(String::as_str).collect(),
            patterns: patterns.into_iter().cloned().collect(),
            dns_names: spec
                .dns_names
                .iter()
                // Folded, {NAMESPACE} would be a placeholder.
                .filter(|name| !names::has_unknown_placeholder(name))
                .map(|name| names::fold(name))
                .collect(),
            ip_addresses: ranges
                .filter_map(|range| identifiers::range(range))
                .collect(),
            uris: spec.uris.clone(),
            private_keys: spec.private_keys.clone(),
            usages: spec.usages.clone(),
            max_duration: spec
                .max_duration
                .as_deref()
                .map(|text| names::duration(text).unwrap_or(SignedDuration::ZERO)),
            validations: spec.validations.iter().map(Rule::compile).collect(),
        }
    }

    /// Whether it is for a namespace of this name, with these labels if they are known.
    pub(super) fn is_for(&self, namespace: &str, labels: Option<&Labels>) -> bool {
        let mut names = self.namespaces.iter();
        let is_named =
            self.namespaces.is_empty() || names.any(|glob| names::glob_matches(glob, namespace));
        // Of a namespace that is not known it cannot be said that it lacks a label.
        let is_selected =
            |selector: &Selector| labels.is_some_and(|labels| selector.matches(labels));
        is_named && self.selector.as_ref().is_none_or(is_selected)
    }

    /// Whether that, or what it permits, depends on labels of the namespace.
    pub(super) fn reads_labels(&self) -> bool {
        self.selector.is_some() || self.validations.iter().any(Rule::reads_namespace)
    }

    /// The namespaces that it is for, if they are but these.
    pub(super) fn only_namespaces(&self) -> Option<&[String]> {
        let is_exact =
            !self.namespaces.is_empty() && self.namespaces.iter().all(|name| !name.contains('*'));
        is_exact.then_some(&self.namespaces)
    }

    /// A service name that cannot be read is no policy's business.
    pub(super) fn allows_service(&self, wanted: &Wanted<'_>) -> bool {
        let is_match = |pattern: &String, name| {
            names::glob_matches(&names::expand(pattern, wanted.namespace), name)
        };
        wanted.service.is_none_or(|name| {
            self.exact.contains(name) || self.patterns.iter().any(|p| is_match(p, name))
        })
    }

    /// Whether it allows just this service name, in whatever namespace. Patterns say less: `*` nothing about a name, and
    /// `{namespace}-*` that there is such a namespace.
    pub(super) fn names_service(&self, name: &str) -> bool {
        self.exact.contains(name)
    }

    /// Whether it permits all of it. `facts` are about the same Pki.
    pub(super) fn permits(
        &self,
        wanted: &Wanted<'_>,
        facts: &LazyCell<Facts, impl FnOnce() -> Facts>,
    ) -> bool {
        let namespace = wanted.namespace;
        let (mut names, mut uris) = (wanted.dns_names.iter(), wanted.uris.iter());
        let mut addresses = wanted.ip_addresses.iter();
        self.allows_service(wanted)
            && names.all(|(_, name)| self.allows_dns_name(name, namespace))
            && addresses.all(|(_, address)| self.allows_address(*address))
            && uris.all(|(_, uri)| self.allows_uri(uri, namespace))
            && wanted.usages.iter().all(|usage| self.allows_usage(*usage))
            && self.allows_key(wanted.key)
            && self.exceeded(wanted.duration).is_none()
            && self
                .validations
                .iter()
                .all(|rule| rule.objection(facts).is_none())
    }

    /// What it does not permit, besides the service name. `facts` are about the same Pki.
    pub(super) fn objections(
        &self,
        wanted: &Wanted<'_>,
        facts: &LazyCell<Facts, impl FnOnce() -> Facts>,
    ) -> Vec<Violation> {
        let (policy, namespace) = (&self.name, wanted.namespace);
        let mut objections = Vec::new();
        for (index, name) in &wanted.dns_names {
            if !self.allows_dns_name(name, namespace) {
                let permitted = self.dns_names.iter().map(|p| names::expand(p, namespace));
                let permitted = permitted.map(Into::into);
                objections.push(Violation::dns_name(*index, name, policy, permitted));
            }
        }
        for (index, address) in &wanted.ip_addresses {
            if !self.allows_address(*address) {
                let permitted = self.ip_addresses.iter().map(ToString::to_string);
                objections.push(Violation::ip_address(*index, *address, policy, permitted));
            }
        }
        for (index, uri) in &wanted.uris {
            if !self.allows_uri(uri, namespace) {
                let permitted = self.uris.iter().map(|p| names::expand(p, namespace));
                let permitted = permitted.map(Into::into);
                objections.push(Violation::uri(*index, uri, policy, permitted));
            }
        }
        for usage in &wanted.usages {
            if !self.allows_usage(*usage) {
                let permitted = self.usages.iter().map(ToString::to_string);
                objections.push(Violation::usage(*usage, policy, permitted));
            }
        }
        if !self.allows_key(wanted.key) {
            let permitted = self.private_keys.iter().map(described);
            objections.push(Violation::key(wanted.key, policy, permitted));
        }
        if let Some(max) = self.exceeded(wanted.duration) {
            objections.push(Violation::DurationTooLong {
                wanted: wanted.duration,
                max,
                policy: policy.clone(),
            });
        }
        for rule in &self.validations {
            if let Some(objection) = rule.objection(facts) {
                objections.push(Violation::Validation {
                    message: objection.message,
                    error: objection.error,
                    policy: policy.clone(),
                });
            }
        }
        objections
    }

    fn allows_dns_name(&self, name: &str, namespace: &str) -> bool {
        self.dns_names
            .iter()
            .any(|pattern| names::labels_match(&names::expand(pattern, namespace), name))
    }

    fn allows_address(&self, address: IpAddr) -> bool {
        self.ip_addresses
            .iter()
            .any(|range| range.contains(&address))
    }

    fn allows_uri(&self, uri: &str, namespace: &str) -> bool {
        self.uris
            .iter()
            .any(|pattern| identifiers::uri_matches(&names::expand(pattern, namespace), uri))
    }

    fn allows_usage(&self, usage: Usage) -> bool {
        self.usages.is_empty() || self.usages.contains(&usage)
    }

    /// The limit that a lifetime is beyond.
    fn exceeded(&self, duration: SignedDuration) -> Option<SignedDuration> {
        self.max_duration.filter(|max| duration > *max)
    }

    fn allows_key(&self, key: Key) -> bool {
        let is_match = |permitted: &PermittedKey| {
            permitted.algorithm == key.algorithm
                && permitted
                    .min_size
                    .is_none_or(|least| key.size >= least || key.has_one_size())
        };
        self.private_keys.is_empty() || self.private_keys.iter().any(is_match)
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

    /// Of many service names those that may come near `name`.
    pub(super) fn service_names_near<'a>(
        &'a self,
        name: &'a str,
        namespace: &'a str,
    ) -> impl Iterator<Item = Cow<'a, str>> {
        let exact = self.exact.candidates(name, AllowedNames::LISTED);
        self.patterns_for(namespace).chain(exact.map(Cow::Borrowed))
    }

    fn patterns_for<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        let patterns = self.patterns.iter();
        patterns.map(move |pattern| names::expand(pattern, namespace))
    }
}

/// The labels that a namespace must have. What cannot be read selects none.
pub(super) fn selector(written: &NamespaceSelector) -> Selector {
    if !faults::has_readable_labels(written) {
        return Selector::from_iter([Expression::In(String::new(), BTreeSet::new())]);
    }
    let labels = written.match_labels.clone().into_iter();
    let equal = labels.map(|(key, value)| Expression::Equal(key, value));
    let required = written.match_expressions.iter().map(|required| {
        let (key, values) = (required.key.clone(), required.values.clone());
        match required.operator {
            LabelOperator::In => Expression::In(key, values),
            LabelOperator::NotIn => Expression::NotIn(key, values),
            LabelOperator::Exists => Expression::Exists(key),
            LabelOperator::DoesNotExist => Expression::DoesNotExist(key),
        }
    });
    equal.chain(required).collect()
}

fn described(key: &PermittedKey) -> String {
    match key.min_size {
        None | Some(0) => key.algorithm.to_string(),
        Some(least) => format!("{}-{least}", key.algorithm),
    }
}
