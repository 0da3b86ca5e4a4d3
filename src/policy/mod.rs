//! The rule book: decides whether a [`Pki`] may have its certificate, and if not, what its author
//! writes instead.
//!
//! Admission calls [`RuleBook::evaluate`] at `kubectl apply`, the reconciler for stored objects.
//! The function is pure, and refuses again what the schema should have refused.

use crate::api::{Outputs, Pki, PkiPolicy, PrivateKey, SecretTemplate};
use effective::Effective;
use expression::Facts;
use in_force::DefaultValues;
use ipnet::IpNet;
use parsed_spec::ParsedSpec;
use permission::Policy;
use pki_certs::LeafRequest;
use pki_certs::renewal::RenewBefore;
use policies::Policies;
use std::borrow::Cow;
use std::cell::LazyCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use violation::{AllowedNames, BrokenRule, Hint};

pub use crate::api::Labels;
pub use effective::Origin;
pub use expression::{RULE_STEPS, RuleClock, Steps, measure};
pub use faults::{PolicyFault, faults};
pub use identifiers::range;
pub use in_force::EffectiveValue;
pub use key::ignored_size;
pub(crate) use names::{is_certifiable, is_label};
pub(crate) use template::{is_key, is_label_value};
pub use violation::{Field, Violation, is_reason, reason_of, summary as violation_summary};

mod delivery;
mod effective;
mod expression;
mod faults;
mod identifiers;
mod in_force;
mod key;
mod limits;
mod name_list;
mod names;
mod namespace_selector;
mod parsed_spec;
mod permission;
mod policies;
mod punycode;
mod reserved;
mod template;
mod values;
mod violation;

/// Rules in CEL with more steps keep a thread busy for part of a millisecond.
const SLOW_STEPS: u64 = 10_000;

/// Whether this can be a service name.
pub fn is_service_name(name: &str) -> bool {
    names::is_label(name)
}

/// All data that decide about a [`Pki`], besides the object itself.
#[derive(Clone, Debug, Default)]
pub struct RuleBook {
    /// The settings of the installation.
    pub settings: Arc<Settings>,
    policies: Arc<Policies>,
    namespaces: Arc<Namespaces>,
    /// Bounds the time of a verdict.
    clock: Option<RuleClock>,
}

/// The labels of all namespaces that there are, by name.
pub type Namespaces = HashMap<String, Labels>;

/// The part of the rule book that is fixed when the operator starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's DNS domain, `cluster.local` unless the platform team chose another.
    pub cluster_domain: String,
    /// The operator's own namespace, and the Secrets in it that no Pki may name.
    pub namespace: String,
    /// Names of the Secrets that hold the operator's CAs.
    pub reserved_secrets: Vec<String>,
    /// Whether certificates are written into Secrets. Otherwise pods alone get them.
    pub has_secrets: bool,
    /// Reserved addresses: that of the API server, and those that the platform team keeps.
    pub reserved_addresses: Vec<IpNet>,
}

impl Settings {
    /// Whether this Secret holds a CA.
    pub fn is_reserved(&self, namespace: &str, secret: &str) -> bool {
        namespace == self.namespace && self.reserved_secrets.iter().any(|name| name == secret)
    }

    /// Reserves the address in the API server's URL. A host name there reserves nothing.
    pub fn reserve_api_server(&mut self, host: &str) {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = host.parse::<IpAddr>().ok();
        self.reserved_addresses.extend(address.map(IpNet::from));
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".into(),
            namespace: String::new(),
            reserved_secrets: Vec::new(),
            has_secrets: true,
            reserved_addresses: Vec::new(),
        }
    }
}

/// A permitted certificate: all values for its issue, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Approved {
    /// The certificate to make.
    pub certificate: LeafRequest,
    /// The Secret to put it in.
    pub secret_name: String,
    /// How long before expiry to renew; `None` leaves it to [`pki_certs::renewal`].
    pub renew_before: Option<RenewBefore>,
    /// Whether a renewed certificate keeps the key.
    pub keeps_key: bool,
    /// Labels and annotations for the Secret.
    pub template: SecretTemplate,
    /// Further files for the Secret.
    pub outputs: Outputs,
    /// The policy that permits it.
    pub policy: String,
    effective: Effective,
    defaults: Arc<DefaultValues>,
    /// Approval for the present certificate, if defaults have changed since its issue.
    in_force: Option<Box<Approved>>,
}

impl RuleBook {
    /// A rule book of these policies. Their order does not matter.
    pub fn new<'a>(
        settings: Arc<Settings>,
        policies: impl IntoIterator<Item = &'a PkiPolicy>,
    ) -> Self {
        let policies = policies.into_iter().map(Policy::compile).map(Arc::new);
        Self {
            settings,
            policies: Arc::new(Policies::new(policies.collect())),
            namespaces: Arc::default(),
            clock: None,
        }
    }

    /// Adds a clock. A verdict that takes longer than two seconds evaluates no further rule in CEL.
    #[must_use]
    pub fn with_clock(&self, clock: RuleClock) -> Self {
        Self {
            clock: Some(clock),
            ..self.clone()
        }
    }

    /// A copy with this policy, which replaces one of the same name.
    #[must_use]
    pub fn with_policy(&self, policy: &PkiPolicy) -> Self {
        let policy = Policy::compile(policy);
        self.replaced(&policy.name.clone(), Some(policy))
    }

    /// A copy without the policy of this name.
    #[must_use]
    pub fn without_policy(&self, name: &str) -> Self {
        self.replaced(name, None)
    }

    fn replaced(&self, name: &str, by: Option<Policy>) -> Self {
        Self {
            policies: Arc::new(self.policies.replaced(name, by)),
            ..self.clone()
        }
    }

    /// A copy with these namespaces. Without them, a policy that selects by labels selects none.
    #[must_use]
    pub fn with_namespaces(&self, namespaces: Arc<Namespaces>) -> Self {
        Self {
            namespaces,
            ..self.clone()
        }
    }

    /// The namespaces that it knows.
    pub fn namespaces(&self) -> Arc<Namespaces> {
        self.namespaces.clone()
    }

    /// Whether it knows enough of this namespace to evaluate its Pkis.
    pub fn knows(&self, namespace: &str) -> bool {
        !self.reads_labels() || self.namespaces.contains_key(namespace)
    }

    /// Whether a verdict may depend on the labels of a namespace.
    pub fn reads_labels(&self) -> bool {
        self.policies.reads_labels()
    }

    /// Evaluates a Pki. A refusal lists violations of the spec, then of the nearest policy.
    pub fn evaluate(&self, pki: &Pki) -> Result<Approved, Vec<Violation>> {
        let mut violations = Vec::new();
        let parsed = ParsedSpec::read(pki, &self.settings, &mut violations);
        delivery::check(pki, &self.settings, &mut violations);
        self.judge(pki, parsed, violations)
    }

    /// Evaluates the certificate of a pod, whose key is this one, or one that the Pki has by
    /// default.
    pub fn evaluate_for_pod(
        &self,
        pki: &Pki,
        key: Option<PrivateKey>,
    ) -> Result<Approved, Vec<Violation>> {
        let mut pki = Cow::Borrowed(pki);
        if key.is_some() {
            pki.to_mut().spec.private_key = key;
        }
        let mut violations = Vec::new();
        let parsed = ParsedSpec::read(&pki, &self.settings, &mut violations);
        self.judge(&pki, parsed, violations)
    }

    fn judge(
        &self,
        pki: &Pki,
        parsed: ParsedSpec<'_>,
        mut violations: Vec<Violation>,
    ) -> Result<Approved, Vec<Violation>> {
        let (policy, effective) = match self.permitting(&parsed) {
            Ok(permitted) if violations.is_empty() => permitted,
            Ok(_) => return Err(violations),
            Err(further) => {
                violations.extend(further);
                return Err(violations);
            }
        };
        let (policy, defaults) = (policy.name.clone(), policy.defaults.clone());
        let request = parsed.request(&effective);
        let mut approved = Approved::new(policy, request, effective, defaults, pki, &self.settings);
        approved.in_force = approved.recorded_for(pki, &self.settings).map(Box::new);
        Ok(approved)
    }

    /// The policy that admits a Pki, if one does: [`evaluate`](Self::evaluate) without violations.
    pub fn admits(&self, pki: &Pki) -> Option<&str> {
        let mut violations = Vec::new();
        let parsed = ParsedSpec::read(pki, &self.settings, &mut violations);
        delivery::check(pki, &self.settings, &mut violations);
        if !violations.is_empty() {
            return None;
        }
        let labels = self.namespaces.get(parsed.namespace);
        let policies = self.policies_of(&parsed, labels);
        let facts = LazyCell::new(|| self.facts(&parsed, labels, &policies));
        let permitted = first_permitting(&policies, &parsed, &facts);
        permitted.map(|(policy, _)| policy.name.as_str())
    }

    /// The policies for a Pki: first the one that its status records, then the others by name.
    fn policies_of(&self, parsed: &ParsedSpec<'_>, labels: Option<&Labels>) -> Vec<&Policy> {
        let mut policies = self.policies.of(parsed.namespace, labels);
        let status = parsed.object.status.as_ref();
        let recorded = status.and_then(|status| status.policy.as_deref());
        let mut names = policies.iter().map(|policy| Some(policy.name.as_str()));
        if let Some(place) = names.position(|name| name == recorded) {
            policies[..=place].rotate_right(1);
        }
        policies
    }

    fn facts<'a>(
        &self,
        parsed: &'a ParsedSpec<'a>,
        labels: Option<&'a Labels>,
        policies: &[&Policy],
    ) -> Facts<'a> {
        Facts::of(parsed, labels, policies, self.clock)
    }

    /// Whether the rules in CEL for this namespace are too slow for an async worker.
    pub fn is_slow(&self, namespace: &str) -> bool {
        if !self.policies.has_rules() {
            return false;
        }
        let policies = self.policies.of(namespace, self.namespaces.get(namespace));
        let mut left = SLOW_STEPS;
        policies.iter().any(|policy| {
            let rest = left.checked_sub(policy.rules().steps());
            left = rest.unwrap_or_default();
            rest.is_none()
        })
    }

    /// The names of the policies that are for a namespace.
    pub fn policies_for(&self, namespace: &str) -> impl Iterator<Item = &str> {
        let policies = self.policies.of(namespace, self.namespaces.get(namespace));
        policies.into_iter().map(|policy| policy.name.as_str())
    }

    /// The first policy that permits a Pki, or the violations of the nearest one. A policy that
    /// allows the service name is nearer than any that does not.
    fn permitting(&self, parsed: &ParsedSpec<'_>) -> Result<(&Policy, Effective), Vec<Violation>> {
        let labels = self.namespaces.get(parsed.namespace);
        let policies = self.policies_of(parsed, labels);
        let facts = LazyCell::new(|| self.facts(parsed, labels, &policies));
        if let Some(permitted) = first_permitting(&policies, parsed, &facts) {
            return Ok(permitted);
        }
        let evaluated = policies.iter().map(|policy| {
            let is_denied = !policy.allows_service(parsed);
            let effective = policy.effective(parsed);
            let violations: Vec<_> = policy.violations(parsed, &effective, &facts).collect();
            (is_denied, policy, violations)
        });
        let nearest = evaluated.min_by_key(|(is_denied, _, found)| (*is_denied, found.len()));
        let denial = parsed.service.and_then(|name| match &nearest {
            None => Some(self.no_policy(name, parsed)),
            Some((true, nearest, _)) => Some(self.not_allowed(name, parsed, &policies, nearest)),
            Some((false, ..)) => None,
        });
        let violations = nearest.into_iter().flat_map(|(.., violations)| violations);
        Err(denial.into_iter().chain(violations).collect())
    }

    fn no_policy(&self, name: &str, parsed: &ParsedSpec<'_>) -> Violation {
        let rule = BrokenRule::NoPolicy {
            name: name.into(),
            pki: parsed.pki.into(),
            namespace: parsed.namespace.into(),
            is_elsewhere: self.is_allowed_somewhere(name),
        };
        Violation::new(Field::of("spec.serviceName"), rule)
    }

    /// The violation of a service name that none of these policies of the namespace allows.
    fn not_allowed(
        &self,
        name: &str,
        parsed: &ParsedSpec<'_>,
        policies: &[&Policy],
        nearest: &Policy,
    ) -> Violation {
        // More names are not compared one by one: those near are searched for.
        const MANY_NAMES: usize = 1000;
        let policies = policies.iter();
        let all = policies
            .clone()
            .map(|policy| policy.count_service_names())
            .sum();
        let allowed = if all <= MANY_NAMES {
            let names = policies.flat_map(|policy| policy.service_names(parsed.namespace));
            AllowedNames::nearest(names, name, all)
        } else {
            let near =
                policies.flat_map(|policy| policy.service_names_near(name, parsed.namespace));
            AllowedNames::nearest(near, name, all)
        };
        let hint = Hint::new(
            name,
            &allowed,
            self.is_allowed_somewhere(name),
            &nearest.name,
        );
        let rule = BrokenRule::ServiceName {
            name: name.into(),
            pki: parsed.pki.into(),
            allowed,
            hint: Box::new(hint),
        };
        Violation::new(Field::of("spec.serviceName"), rule)
    }

    fn is_allowed_somewhere(&self, name: &str) -> bool {
        self.policies
            .iter()
            .any(|policy| policy.names_service(name))
    }
}

fn first_permitting<'a, 'f>(
    policies: &[&'a Policy],
    parsed: &ParsedSpec<'_>,
    facts: &LazyCell<Facts<'f>, impl FnOnce() -> Facts<'f>>,
) -> Option<(&'a Policy, Effective)> {
    let mut policies = policies.iter().copied();
    policies.find_map(|policy| Some((policy, policy.permits(parsed, facts)?)))
}

#[cfg(test)]
mod tests;
