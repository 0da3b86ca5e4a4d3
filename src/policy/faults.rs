//! Faults of a policy: rules that cannot be read, and rules that can never match.

use super::key::Key;
use super::namespace_selector::{has_readable_labels, label, selector};
use super::reserved::Reserved;
use super::values::lifetime;
use super::{Labels, Settings, expression, identifiers, names, punycode, reserved};
use crate::api::{NamespaceScope, NamespaceSelector, PermittedKey, PkiPolicySpec, Validation};
use crate::util::text::printable;
use ipnet::IpNet;
use kube::core::SelectorExt as _;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// A rule of a policy that does not do what its author thinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFault {
    /// The field, as in `spec.serviceNames[0]`.
    pub field: String,
    /// The fault, with a remedy.
    pub message: String,
}

mod defaults;

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// All faults of a policy. Like [`evaluate`](super::RuleBook::evaluate), not relying on the schema.
pub fn faults(spec: &PkiPolicySpec, settings: &Settings) -> Vec<PolicyFault> {
    let mut faults = Faults::default();
    if let Some(scope) = &spec.namespaces {
        faults.of_scope(scope);
    }
    let is_for_default_alone = is_for_default_alone(spec);
    faults.of_each("spec.serviceNames", &spec.service_names, |name| {
        let is_api_server = is_for_default_alone && reserved::is_api_server(name, "default");
        service_name(name).or_else(|| is_api_server.then(|| API_SERVER.into()))
    });
    if spec.service_names.is_empty() {
        faults.add(
            "spec.serviceNames",
            "it is empty, so nothing is permitted: write at least one name or pattern",
        );
    }
    let dns_name = |name: &str| dns_name(name, &settings.cluster_domain);
    faults.of_each("spec.dnsNames", &spec.dns_names, dns_name);
    let ip_range = |range: &str| ip_range(range, settings);
    faults.of_each("spec.ipAddresses", &spec.ip_addresses, ip_range);
    faults.of_each("spec.uris", &spec.uris, |pattern| uri(pattern, settings));
    for (index, key) in spec.private_keys.iter().enumerate() {
        if let Some(message) = private_key(key) {
            faults.add(format!("spec.privateKeys[{index}].minSize"), message);
        }
    }
    if let Some(message) = spec.max_duration.as_deref().and_then(max_duration) {
        faults.add("spec.maxDuration", message);
    }
    faults.of_defaults(spec);
    faults.of_rules(&spec.validations);
    faults.0
}

/// Maximum number of faults. An answer must not grow with a list of a million wrong entries.
const MAX_FAULTS: usize = 100;

#[derive(Default)]
struct Faults(Vec<PolicyFault>);

impl Faults {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        if self.0.len() == MAX_FAULTS {
            return;
        }
        let (field, message) = (field.into(), message.into());
        self.0.push(PolicyFault { field, message });
    }

    fn of_each(&mut self, list: &str, values: &[String], fault: impl Fn(&str) -> Option<String>) {
        let faults = values.iter().enumerate();
        let faults = faults.filter_map(|(index, value)| Some((index, value, fault(value)?)));
        for (index, value, message) in faults.take(MAX_FAULTS - self.0.len()) {
            let message = format!("\"{}\" {message}", printable(value));
            self.add(format!("{list}[{index}]"), message);
        }
    }

    fn of_rules(&mut self, validations: &[Validation]) {
        let (list, most) = ("spec.validations", expression::MAX_RULES);
        let rules = expression::Rules::compile(validations);
        let count = validations.len();
        if count > most {
            self.add(
                list,
                format!("{count} rules are too many: write at most {most}"),
            );
        }
        for (index, validation) in validations.iter().enumerate().take(most) {
            let field = |name| format!("{list}[{index}].{name}");
            if let Some(message) = expression::fault(&validation.expression) {
                self.add(field("expression"), message);
            }
            if validation.message.trim().is_empty() {
                self.add(
                    field("message"),
                    "it is empty: write a message that says what to write instead",
                );
            }
        }
        let most = expression::POLICY_STEPS;
        if let Some(steps) = rules.excess_steps() {
            self.add(list, format!("together they take up to {steps} steps for the largest Pki: write rules that take at most {most}"));
        }
    }

    fn of_scope(&mut self, scope: &NamespaceScope) {
        self.of_each("spec.namespaces.names", &scope.names, namespace);
        if let Some(selector) = &scope.selector {
            self.of_selector(selector);
        }
    }

    fn of_selector(&mut self, written: &NamespaceSelector) {
        let field = "spec.namespaces.selector";
        for (key, value) in &written.match_labels {
            if let Some(message) = label(key, [value]) {
                self.add(format!("{field}.matchLabels"), message);
            }
        }
        for (index, required) in written.match_expressions.iter().enumerate() {
            if let Some(message) = label(&required.key, &required.values) {
                self.add(format!("{field}.matchExpressions[{index}]"), message);
            }
        }
        if !has_readable_labels(written) {
            return;
        }
        for key in contradicted(written) {
            let key = printable(key);
            self.add(field, format!("no namespace can meet the requirements on label \"{key}\": they contradict each other"));
        }
    }
}

/// The fault of a pattern of DNS labels, in which `{namespace}` is replaced.
fn label_pattern(pattern: &str, what: &str) -> Option<String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '*');
    let least = pattern.chars().filter(|c| *c != '*').count();
    if pattern.is_empty()
        || !pattern.chars().all(inner)
        || pattern.starts_with('-')
        || pattern.ends_with('-')
    {
        return Some(format!(
            "can never match {what}: write lower-case letters, digits and '-', beginning and ending with a letter or digit, and '*' for any run of characters"
        ));
    }
    (least > 63).then(|| {
        format!("can never match {what}, which has at most 63 characters: write a shorter one")
    })
}

const API_SERVER: &str =
    "can never match: it is a name of the API server, which no policy can permit; remove it";

/// Whether a policy is for the namespace of the API server's Service and no other.
fn is_for_default_alone(spec: &PkiPolicySpec) -> bool {
    let names = spec.namespaces.as_ref().map(|scope| scope.names.as_slice());
    names.is_some_and(|names| !names.is_empty() && names.iter().all(|name| name == "default"))
}

fn service_name(pattern: &str) -> Option<String> {
    let expanded = names::expand(pattern, "n");
    unknown_placeholder(pattern).or_else(|| label_pattern(&expanded, "a service name"))
}

fn namespace(glob: &str) -> Option<String> {
    if glob.contains(['{', '}']) {
        return Some("has a placeholder, which only service names, DNS names and URIs can have: write the name of a namespace, or a glob such as team-*".into());
    }
    label_pattern(glob, "the name of a namespace")
}

fn unknown_placeholder(pattern: &str) -> Option<String> {
    names::has_unknown_placeholder(pattern).then(|| {
        "has an unknown placeholder: write {namespace} for the namespace of the Pki".into()
    })
}

fn dns_name(pattern: &str, cluster_domain: &str) -> Option<String> {
    if let Some(message) = unknown_placeholder(pattern) {
        return Some(message);
    }
    let folded = names::fold(&names::expand(pattern, "n"));
    let mut labels = folded.split('.');
    if !labels
        .clone()
        .all(|label| label == "*" || names::is_label(label))
    {
        return Some("is not a DNS name pattern: write labels of letters, digits and '-' separated by dots, where each but the last may be '*', for example *.{namespace}.example.com".to_owned() + &in_ascii(pattern));
    }
    if labels.next_back() == Some("*") {
        return Some("can never match: '*' does not match the last label; write that label".into());
    }
    if !folded.contains('*') && reserved::is_name_of_api_server(&folded) {
        return Some(API_SERVER.into());
    }
    if names::is_cluster_internal(&folded, cluster_domain) {
        return Some("is a name inside the cluster, which no policy can permit: remove it; each Pki always has the names of its own service, and podNames permits those of its pods".into());
    }
    let host = folded.replace('*', "a");
    (!names::is_certifiable(&host)).then(|| {
        "can never match a DNS name of a certificate: it is too long, or ends like an IP address".into()
    })
}

/// Returns the ASCII form of an internationalized name, to be appended to a message.
fn in_ascii(pattern: &str) -> String {
    let ascii = punycode::ascii_name(pattern);
    ascii.map_or_else(String::new, |ascii| format!("; in ASCII this is {ascii}"))
}

fn ip_range(text: &str, settings: &Settings) -> Option<String> {
    let Some(range) = identifiers::range(text) else {
        return Some("is neither an IP address nor a range: write one in CIDR notation, for example 10.0.0.0/8".into());
    };
    if range.addr() != range.network() {
        return Some(format!(
            "is not the beginning of a range: write {}",
            range.trunc()
        ));
    }
    if let Some((reserved, why)) = settings.reserved_range(&range) {
        let addresses = match why {
            Reserved::ClusterAddress => "addresses of the cluster itself",
            _ => {
                "loopback, unspecified, link-local, multicast, broadcast or cloud metadata addresses"
            }
        };
        return Some(format!(
            "is within {reserved}, {addresses}, which no policy can permit: remove it"
        ));
    }
    let IpNet::V6(v6) = range else { return None };
    let v4 = identifiers::mapped(IpAddr::V6(v6.addr())).filter(|_| v6.prefix_len() >= 96)?;
    Some(format!(
        "can never match, because IPv4 addresses in IPv6 form are refused: write {v4}/{}",
        v6.prefix_len() - 96
    ))
}

fn uri(pattern: &str, settings: &Settings) -> Option<String> {
    if let Some(message) = unknown_placeholder(pattern) {
        return Some(message);
    }
    let expanded = names::expand(pattern, "n");
    let segments = expanded.split('/').map(|segment| match segment {
        "*" => "a",
        other => other,
    });
    let filled = segments.collect::<Vec<_>>().join("/");
    // Without a host, the part after the last colon may be a segment too.
    let urn = filled.strip_suffix(":*").map(|root| format!("{root}:a"));
    let filled = urn.unwrap_or(filled);
    if filled.contains('*') {
        return Some(
            "can never match: '*' matches one whole segment between two slashes, not a part of one"
                .into(),
        );
    }
    let uri = identifiers::uri(&filled);
    let host = uri.as_deref().and_then(identifiers::host);
    if host.is_some_and(|host| settings.is_reserved_host(host)) {
        return Some(format!(
            "{}, which no policy can permit: remove it",
            Reserved::Host
        ));
    }
    let can_match = uri.is_some_and(|uri| identifiers::uri_matches(&expanded, &uri));
    (!can_match).then(|| {
        "can never match a URI of a certificate: write scheme and host, and a path without query, escapes or empty segments, for example spiffe://example.com/ns/{namespace}/*".into()
    })
}

fn private_key(key: &PermittedKey) -> Option<String> {
    let least = key.min_size?;
    let sizes = Key::sizes(key.algorithm);
    match sizes.iter().max() {
        None if least == 0 => None,
        None => Some(format!(
            "{} keys have only one size: leave minSize out",
            key.algorithm
        )),
        Some(most) if least > *most => Some(format!(
            "{least} is too large: {} keys have at most {most} bits",
            key.algorithm
        )),
        Some(_) => None,
    }
}

fn max_duration(text: &str) -> Option<String> {
    lifetime(text).is_none().then(|| {
        format!("\"{}\" is not a lifetime that a certificate can have: write at least 1h in hours, minutes and seconds, for example 2160h", printable(text))
    })
}

/// The label keys whose requirements no namespace can meet. Each key is checked alone, with each
/// written value, with another one, and without a label.
fn contradicted(written: &NamespaceSelector) -> Vec<&str> {
    let mut required = BTreeMap::<&str, NamespaceSelector>::new();
    for (key, value) in &written.match_labels {
        let of_key = required.entry(key).or_default();
        of_key.match_labels.insert(key.clone(), value.clone());
    }
    for requirement in &written.match_expressions {
        let of_key = required.entry(&requirement.key).or_default();
        of_key.match_expressions.push(requirement.clone());
    }
    required.retain(|key, required| {
        let values = required
            .match_expressions
            .iter()
            .flat_map(|each| &each.values);
        let values = values.chain(required.match_labels.values()).cloned();
        let another = String::from("\0");
        let labels = values
            .chain([another])
            .map(|value| Labels::from([((*key).to_owned(), value)]));
        let selector = selector(required);
        !labels
            .chain([Labels::new()])
            .any(|labels| selector.matches(&labels))
    });
    required.into_keys().collect()
}
