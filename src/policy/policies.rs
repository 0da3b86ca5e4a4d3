//! All policies, by the namespaces that they are for.

use super::Labels;
use super::permission::Policy;
use std::collections::HashMap;
use std::sync::Arc;

/// Policies in the order of their names.
#[derive(Clone, Debug, Default)]
pub(super) struct Policies {
    all: Vec<Arc<Policy>>,
    /// Those that name all of their namespaces: a thousand teams do not slow each other down.
    by_namespace: HashMap<String, Vec<usize>>,
    /// The others.
    general: Vec<usize>,
    /// Whether one of them depends on labels of namespaces; read for every request.
    reads_labels: bool,
    /// Whether one of them has rules in CEL; read for every request.
    has_rules: bool,
}

impl Policies {
    pub(super) fn new(mut all: Vec<Arc<Policy>>) -> Self {
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let mut by_namespace = HashMap::<_, Vec<_>>::new();
        let mut general = Vec::new();
        for (index, policy) in all.iter().enumerate() {
            match policy.only_namespaces() {
                Some(names) => {
                    for name in names {
                        let known = by_namespace.entry(name.clone()).or_default();
                        // A name may be there twice.
                        if known.last() != Some(&index) {
                            known.push(index);
                        }
                    }
                }
                None => general.push(index),
            }
        }
        Self {
            reads_labels: all.iter().any(|policy| policy.reads_labels()),
            has_rules: all.iter().any(|policy| policy.rules().steps() > 0),
            all,
            by_namespace,
            general,
        }
    }

    /// A copy without the policy of this name, and with the other one.
    pub(super) fn replaced(&self, name: &str, by: Option<Policy>) -> Self {
        let others = self.all.iter().filter(|policy| policy.name != name);
        Self::new(others.cloned().chain(by.map(Arc::new)).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.all.iter().map(AsRef::as_ref)
    }

    pub(super) fn reads_labels(&self) -> bool {
        self.reads_labels
    }

    pub(super) fn has_rules(&self) -> bool {
        self.has_rules
    }

    /// Those that are for this namespace, with these labels if they are known.
    pub(super) fn of(&self, namespace: &str, labels: Option<&Labels>) -> Vec<&Policy> {
        let by_name = self.by_namespace.get(namespace).into_iter().flatten();
        let mut candidates: Vec<_> = by_name.chain(&self.general).collect();
        candidates.sort_unstable();
        let policies = candidates
            .into_iter()
            .map(|index| self.all[*index].as_ref());
        policies
            .filter(|policy| policy.is_for(namespace, labels))
            .collect()
    }
}
