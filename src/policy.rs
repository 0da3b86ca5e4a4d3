//! The rule book: may this [`Pki`] have its certificate, and if not, what should its author write instead?
//!
//! [`RuleBook::evaluate`] is the only place that answers. Admission asks it at `kubectl apply`, the reconciler
//! asks it about what is already stored; both show the same [`Violation`]s. It is a pure function over plain
//! data, and it does not rely on the schema: what the API server should have refused is refused here as well.

use crate::api::{Outputs, Pki, PkiPolicy, SecretTemplate};
use permission::Policy;
use pki_certs::LeafRequest;
use pki_certs::renewal::RenewBefore;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use wanted::Wanted;

pub use violation::{
    AllowedNames, Field, Violation, is_reason, reason_of, summary as violation_summary,
};

mod identifiers;
mod names;
mod permission;
mod template;
pub mod text;
mod violation;
mod wanted;

/// Whether this can be a service name.
pub fn is_service_name(name: &str) -> bool {
    names::is_label(name)
}

/// Everything that decides about a [`Pki`] besides the object itself.
#[derive(Clone, Debug, Default)]
pub struct RuleBook {
    /// What the installation fixes.
    pub settings: Arc<Settings>,
    policies: Arc<[Policy]>,
    namespaces: Arc<Namespaces>,
}

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;
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
}

impl Settings {
    /// Whether this Secret holds a CA.
    pub fn is_reserved(&self, namespace: &str, secret: &str) -> bool {
        namespace == self.namespace && self.reserved_secrets.iter().any(|name| name == secret)
    }
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
    pub renew_before: Option<RenewBefore>,
    /// Whether a renewed certificate keeps the key.
    pub keeps_key: bool,
    /// Labels and annotations for the Secret.
    pub template: SecretTemplate,
    /// Further files for the Secret.
    pub outputs: Outputs,
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
        Self {
            settings,
            policies: policies.into(),
            namespaces: Arc::default(),
        }
    }

    /// The same for these namespaces. Before, none is known, and no policy that selects by labels is for any.
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

    /// Whether it knows enough of this namespace to judge its Pkis.
    pub fn knows(&self, namespace: &str) -> bool {
        !self.selects_by_labels() || self.namespaces.contains_key(namespace)
    }

    /// Whether some policy is for namespaces of certain labels.
    pub fn selects_by_labels(&self) -> bool {
        self.policies.iter().any(Policy::selects_by_labels)
    }

    /// Judges one Pki. On refusal every violation is listed: first what is wrong in itself, then what the
    /// policy that comes nearest does not permit.
    pub fn evaluate(&self, pki: &Pki) -> Result<Approved, Vec<Violation>> {
        let mut violations = Vec::new();
        let wanted = Wanted::read(pki, &self.settings, &mut violations);
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
            keeps_key: wanted.keeps_key,
            template: pki.spec.secret_template.clone().unwrap_or_default(),
            outputs: pki.spec.outputs.clone().unwrap_or_default(),
            certificate: wanted.request(),
        })
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
        let labels = self.namespaces.get(namespace);
        self.policies
            .iter()
            .filter(move |policy| policy.is_for(namespace, labels))
    }
}

#[cfg(test)]
mod tests;
