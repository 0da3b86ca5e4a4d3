//! Rules of a policy in CEL, the Common Expression Language in which Kubernetes has its own
//! (<https://github.com/google/cel-spec>).
//!
//! An expression sees the Pki as its certificate will be: a rule that forbids `admin.example.com`
//! forbids `ADMIN.example.com.` as well. A rule that cannot be evaluated is broken.
//!
//! The steps of each rule are [estimated](cost) when the rule is compiled. A rule over the limit is
//! refused at apply; stored all the same, it permits no Pki. The rules of all policies share a
//! limit for each verdict.

use crate::api::Validation;
use compiled::{Compiled, Reading};
use facts::RuleValues;
use shape::Shape;
use std::cell::LazyCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub use compiled::RULE_STEPS;
pub(super) use facts::Facts;
pub use facts::RuleClock;
pub(super) use fault::fault;
pub use meter::{Steps, measure};

mod compiled;
mod cost;
mod facts;
mod fault;
mod largest;
mod meter;
mod pattern;
mod shape;
mod syntax;

/// As in a `ValidatingAdmissionPolicy`: `namespace` is a reserved word of CEL.
const NAMESPACE: &str = "namespaceObject";
/// Maximum number of rules of a policy, as in the schema.
pub(super) const MAX_RULES: usize = 10;
/// Maximum number of steps of all rules of one policy, for the largest Pki.
pub(super) const POLICY_STEPS: u64 = 300_000;

/// The compiled [`Validation`]s of a policy.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    /// The reason why none of them is evaluated, if there is one.
    excess: Option<&'static str>,
}

/// A compiled [`Validation`].
#[derive(Clone, Debug)]
struct Rule {
    /// A rule that cannot be read is true for no Pki.
    reading: Arc<Reading>,
    message: String,
}

/// A rule that a Pki does not meet.
pub(super) struct FailedRule {
    /// The message of the platform team.
    pub(super) message: String,
    /// The reason why the rule could not be evaluated.
    pub(super) error: Option<&'static str>,
}

impl Rules {
    pub(super) fn compile(validations: &[Validation]) -> Self {
        let few = validations.iter().take(MAX_RULES);
        let rules: Vec<_> = few.map(Rule::compile).collect();
        let excess = if validations.len() > MAX_RULES {
            Some("its policy has more than 10 rules")
        } else if steps(&rules) > POLICY_STEPS {
            Some("the rules of its policy take more steps together than one policy may")
        } else {
            None
        };
        Self { rules, excess }
    }

    /// Yields each rule that does not hold, lazily, for the values under the policy of this name.
    pub(super) fn failures<'f>(
        &self,
        policy: &str,
        values: LazyCell<RuleValues, impl FnOnce() -> RuleValues>,
        facts: &LazyCell<Facts<'f>, impl FnOnce() -> Facts<'f>>,
    ) -> impl Iterator<Item = FailedRule> {
        let rules = self.rules.iter();
        rules.filter_map(move |rule| {
            let verdict = match self.excess {
                Some(excess) => Err(excess),
                None => rule.verdict(facts, policy, &values),
            };
            let error = match verdict {
                Ok(true) => return None,
                Ok(false) => None,
                Err(error) => Some(error),
            };
            let message = rule.message.clone();
            Some(FailedRule { message, error })
        })
    }

    /// Whether one of them may depend on the labels of the namespace.
    pub(super) fn reads_namespace(&self) -> bool {
        self.rules.iter().any(Rule::reads_namespace)
    }

    /// Estimates the steps of all of them for the largest Pki; 0 if they are not evaluated.
    pub(super) fn steps(&self) -> u64 {
        match self.excess {
            Some(_) => 0,
            None => steps(&self.rules),
        }
    }

    /// The estimated steps of all of them, if these are over the limit.
    pub(super) fn excess_steps(&self) -> Option<u64> {
        let steps = steps(&self.rules);
        (steps > POLICY_STEPS).then_some(steps)
    }

    /// The steps that an estimate for a certain Pki takes itself.
    fn estimate_steps(&self) -> u64 {
        let compiled = self.rules.iter().filter_map(Rule::compiled);
        compiled.map(|compiled| compiled.estimate_steps).sum()
    }

    /// Estimates the steps of all of them for facts of this shape.
    fn steps_for(&self, shape: &Shape) -> u64 {
        let compiled = self.rules.iter().filter_map(Rule::compiled);
        let steps = compiled.map(|compiled| cost::steps(&compiled.expression, shape));
        steps.fold(0, u64::saturating_add)
    }
}

fn steps(rules: &[Rule]) -> u64 {
    let compiled = rules.iter().filter_map(Rule::compiled);
    compiled.map(|compiled| compiled.steps).sum()
}

impl Rule {
    fn compile(validation: &Validation) -> Self {
        Self {
            reading: Compiled::of(&validation.expression),
            message: validation.message.clone(),
        }
    }

    fn compiled(&self) -> Option<&Compiled> {
        (*self.reading).as_ref().ok()
    }

    /// Whether the rule holds.
    fn verdict(
        &self,
        facts: &Facts<'_>,
        policy: &str,
        values: &RuleValues,
    ) -> Result<bool, &'static str> {
        let compiled = match &*self.reading {
            Ok(compiled) => compiled,
            Err(unreadable) => return Err(unreadable.reason),
        };
        if !facts.is_namespace_known && self.reads_namespace() {
            return Err("the labels of the namespace are not known yet");
        }
        if facts.has_too_many_keys {
            return Err("the Pki has more than 100 labels or annotations");
        }
        facts.evaluate(&self.reading, compiled, policy, values)
    }

    fn reads_namespace(&self) -> bool {
        let compiled = self.compiled();
        compiled.is_some_and(|it| it.expression.references().has_variable(NAMESPACE))
    }
}

/// A defect of the interpreter must not keep the operator from starting.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}
