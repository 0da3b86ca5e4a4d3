//! The facts about a Pki and its namespace that expressions see, and the limits of one verdict.

use super::compiled::{Compiled, Reading};
use super::largest::{MAX_KEY_BYTES, MAX_KEYS, MAX_LABEL_BYTES, MAX_NAME_BYTES, MAX_VALUE_BYTES};
use super::shape::Shape;
use super::{NAMESPACE, guarded, pattern};
use crate::api::{Pki, SecretTemplate, Usage};
use crate::policy::effective::Effective;
use crate::policy::limits::Limits;
use crate::policy::names::display_duration;
use crate::policy::parsed_spec::ParsedSpec;
use crate::policy::permission::Policy;
use crate::policy::values::Values;
use crate::policy::{Labels, Settings};
use cel::common::ast::IdedExpr;
use cel::{Context, Env, ExecutionError, Value};
use serde_json::json;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// Maximum number of steps of one verdict, for the rules of all policies of a namespace.
pub(super) const VERDICT_STEPS: u64 = 300_000;
/// No rule is begun after that time, even if the estimate was wrong.
const MAX_VERDICT_TIME: Duration = Duration::from_secs(2);

pub(super) const TOO_MUCH: &str =
    "the rules of all policies for this namespace take more steps together than one decision may";
const TOO_LATE: &str = "the decision takes too long";
const UNKNOWN_ERROR: &str = "it cannot be evaluated for this Pki";

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(pattern::environment()));

/// The present, for limits of time.
pub type RuleClock = fn() -> Instant;
/// Whether a rule holds, or the reason why that is unknown.
pub(super) type Verdict = Result<bool, &'static str>;

/// The facts about one Pki, with the limits of one verdict.
pub(in crate::policy) struct Facts<'a> {
    parsed: &'a ParsedSpec<'a>,
    labels: Option<&'a Labels>,
    pub(super) is_namespace_known: bool,
    pub(super) has_too_many_keys: bool,
    /// The policies that are over the limit of the verdict.
    beyond_budget: HashSet<String>,
    deadline: Option<(RuleClock, Instant)>,
    /// The facts so far, by the values that count under the policies.
    scopes: RefCell<HashMap<RuleValues, Rc<Scope>>>,
    /// The results so far: each rule is evaluated once for the same facts.
    verdicts: RefCell<HashMap<(*const Scope, *const Reading), Verdict>>,
}

/// The values that count under a policy, as its expressions see them.
pub(in crate::policy) type RuleValues = (Effective, SecretTemplate);

/// The facts that expressions of one policy see.
pub(super) struct Scope(Context<'static, 'static>);

impl<'a> Facts<'a> {
    /// The facts about a Pki, for the rules of these policies. No labels: the namespace is unknown.
    pub(in crate::policy) fn of(
        parsed: &'a ParsedSpec<'a>,
        labels: Option<&'a Labels>,
        policies: &[&Policy],
        clock: Option<RuleClock>,
    ) -> Self {
        let has_too_many_keys = maps(parsed, labels).any(|(map, _)| map.len() > MAX_KEYS);
        let mut facts = Self {
            parsed,
            labels,
            is_namespace_known: labels.is_some(),
            has_too_many_keys,
            beyond_budget: HashSet::new(),
            deadline: clock.map(|clock| (clock, clock() + MAX_VERDICT_TIME)),
            scopes: RefCell::default(),
            verdicts: RefCell::default(),
        };
        // No rule is evaluated then, so no estimate is needed.
        if !has_too_many_keys {
            facts.beyond_budget = beyond_budget(policies, &facts);
        }
        facts
    }

    /// Whether a rule of this policy holds, where these values count.
    pub(super) fn evaluate(
        &self,
        reading: &Arc<Reading>,
        compiled: &Compiled,
        policy: &str,
        values: &RuleValues,
    ) -> Verdict {
        if self.beyond_budget.contains(policy) {
            return Err(TOO_MUCH);
        }
        let known = self.scopes.borrow().get(values).cloned();
        let key = |scope: &Rc<Scope>| (Rc::as_ptr(scope), Arc::as_ptr(reading));
        let scope = known.as_ref();
        let verdict = scope.and_then(|scope| self.verdicts.borrow().get(&key(scope)).copied());
        if let Some(verdict) = verdict {
            return verdict;
        }
        if self
            .deadline
            .is_some_and(|(clock, deadline)| clock() > deadline)
        {
            return Err(TOO_LATE);
        }
        let scope = known.unwrap_or_else(|| {
            let (effective, template) = values;
            let facts = facts(self.parsed, effective, template, self.labels);
            let scope = Rc::new(Scope::of_json(&facts));
            self.scopes
                .borrow_mut()
                .insert(values.clone(), scope.clone());
            scope
        });
        let verdict = match scope.resolve(&compiled.expression, compiled) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err("it is neither true nor false"),
            Err(error) => Err(in_words(&error)),
        };
        self.verdicts.borrow_mut().insert(key(&scope), verdict);
        verdict
    }

    /// The shape of the facts for a policy.
    fn shape(&self, policy: &Policy) -> Shape {
        let specified = self.parsed.object.spec.secret_template.as_ref();
        let template = policy.defaults.template(specified);
        let mut effective = policy.effective(self.parsed);
        effective.usages.value = BTreeSet::from([Usage::ServerAuth, Usage::ClientAuth]);
        Shape::of(&facts(self.parsed, &effective, &template, self.labels))
    }
}

impl Scope {
    pub(super) fn of_json(facts: &serde_json::Value) -> Self {
        Self::in_environment(&ENV, facts)
    }

    pub(super) fn in_environment(env: &Arc<Env>, facts: &serde_json::Value) -> Self {
        let mut context = Context::with_env(env.clone());
        for (name, fact) in facts.as_object().into_iter().flatten() {
            context.add_variable_from_value(name, value(fact));
        }
        Self(context)
    }

    /// Evaluates a part of an expression.
    pub(super) fn resolve(
        &self,
        part: &IdedExpr,
        compiled: &Compiled,
    ) -> Result<Value, ExecutionError> {
        let internal = || Err(ExecutionError::InternalError(String::new()));
        let mut patterns = compiled.patterns().peekable();
        if patterns.peek().is_none() {
            return guarded(|| Value::resolve(part, &self.0)).unwrap_or_else(internal);
        }
        let mut scope = self.0.new_inner_scope();
        for (name, pattern) in patterns {
            scope.add_variable_as_val(name, Box::new(pattern.clone()));
        }
        guarded(|| Value::resolve(part, &scope)).unwrap_or_else(internal)
    }
}

/// A fixed sentence for an error. The interpreter's own differ from one evaluation to the next.
fn in_words(error: &ExecutionError) -> &'static str {
    match error {
        ExecutionError::NoSuchKey(_) => "it reads a key that does not exist",
        ExecutionError::IndexOutOfBounds(_) => "it reads an element beyond the end of a list",
        ExecutionError::FunctionError { message, .. } => {
            let mut known = [pattern::TOO_LONG, pattern::NOT_ASCII].into_iter();
            known
                .find(|known| message == known)
                .unwrap_or(UNKNOWN_ERROR)
        }
        _ => UNKNOWN_ERROR,
    }
}

/// The policies over the limit of the verdict. The cheapest come first, so that none is pushed out
/// by a more expensive one. No estimate is needed if the largest Pki is within the limit.
fn beyond_budget(policies: &[&Policy], facts: &Facts<'_>) -> HashSet<String> {
    let mut policies = policies.to_vec();
    policies.retain(|policy| policy.rules().steps() > 0);
    let most = policies.iter().map(|policy| policy.rules().steps());
    let is_larger = is_larger(facts.parsed, facts.labels);
    if most.fold(0, u64::saturating_add) <= VERDICT_STEPS && !is_larger {
        return HashSet::new();
    }
    let mut shapes = HashMap::new();
    policies.sort_by_key(|policy| policy.rules().steps());
    let (mut beyond, mut left) = (HashSet::new(), VERDICT_STEPS);
    for policy in policies {
        let rules = policy.rules();
        let estimated = left.checked_sub(rules.estimate_steps());
        left = estimated.unwrap_or_default();
        // Other values have the same size under each policy.
        let shape = shapes.entry(&policy.defaults.template);
        let shape = shape.or_insert_with(|| facts.shape(policy));
        let rest = left.checked_sub(rules.steps_for(shape));
        if let Some(rest) = rest.filter(|_| estimated.is_some()) {
            left = rest;
        } else {
            beyond.insert(policy.name.clone());
        }
    }
    beyond
}

/// The labels and annotations that rules see, each with the length of the longest value of the
/// largest Pki.
fn maps<'a>(
    parsed: &ParsedSpec<'a>,
    labels: Option<&'a Labels>,
) -> impl Iterator<Item = (&'a Labels, u64)> {
    let metadata = &parsed.object.metadata;
    let template = parsed.object.spec.secret_template.as_ref();
    let of_template = template.map(|template| (&template.labels, &template.annotations));
    [
        (metadata.labels.as_ref(), MAX_LABEL_BYTES),
        (labels, MAX_LABEL_BYTES),
        (of_template.map(|(labels, _)| labels), MAX_LABEL_BYTES),
        (metadata.annotations.as_ref(), MAX_VALUE_BYTES),
        (of_template.map(|(_, entries)| entries), MAX_VALUE_BYTES),
    ]
    .into_iter()
    .filter_map(|(map, longest)| Some((map?, longest)))
}

/// Whether something is larger than in the [`largest`] Pki.
fn is_larger(parsed: &ParsedSpec<'_>, labels: Option<&Labels>) -> bool {
    let object = parsed.object;
    let names = [
        parsed.pki,
        parsed.namespace,
        &object.spec.service_name,
        parsed.common_name.as_deref().unwrap_or_default(),
        object.secret_name(),
    ];
    let is_longer = |text: &str, most: u64| text.len() as u64 > most;
    names.iter().any(|name| is_longer(name, MAX_NAME_BYTES))
        || maps(parsed, labels).any(|(map, longest)| {
            let mut entries = map.iter();
            entries.any(|(key, value)| is_longer(key, MAX_KEY_BYTES) || is_longer(value, longest))
        })
}

/// Numbers are of CEL's type int, as in Kubernetes.
fn value(fact: &serde_json::Value) -> Value {
    match fact {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(fact) => Value::Bool(*fact),
        serde_json::Value::Number(fact) => Value::Int(fact.as_i64().unwrap_or_default()),
        serde_json::Value::String(fact) => Value::from(fact.as_str()),
        serde_json::Value::Array(facts) => Value::List(Arc::new(facts.iter().map(value).collect())),
        serde_json::Value::Object(facts) => {
            let entries = facts.iter().map(|(name, fact)| (name.clone(), value(fact)));
            Value::Map(entries.collect::<HashMap<_, _>>().into())
        }
    }
}

/// The facts about a Pki under a policy without defaults and limits, in a namespace without labels.
pub(super) fn facts_of(pki: &Pki) -> serde_json::Value {
    let parsed = ParsedSpec::read(pki, &Settings::default(), &mut Vec::new());
    let effective = Effective::resolve(&parsed.specified, &Values::default(), &Limits::default());
    let template = pki.spec.secret_template.clone().unwrap_or_default();
    facts(&parsed, &effective, &template, Some(&Labels::new()))
}

fn facts(
    parsed: &ParsedSpec<'_>,
    effective: &Effective,
    template: &SecretTemplate,
    labels: Option<&Labels>,
) -> serde_json::Value {
    let object = parsed.object;
    let (spec, metadata, key) = (&object.spec, &object.metadata, effective.key());
    json!({
        "pki": {
            "metadata": {
                "name": parsed.pki, "namespace": parsed.namespace,
                "labels": metadata.labels.clone().unwrap_or_default(),
                "annotations": metadata.annotations.clone().unwrap_or_default(),
            },
            "spec": {
                "serviceName": spec.service_name,
                // Empty where the certificate has none.
                "commonName": parsed.common_name.as_deref().unwrap_or_default(),
                "dnsNames": values(&parsed.dns_names),
                "ipAddresses": values(&parsed.ip_addresses),
                "uris": values(&parsed.uris),
                "usages": effective.usages.value,
                "secretName": object.secret_name(),
                "duration": display_duration(effective.duration.value),
                "privateKey": {
                    "algorithm": key.algorithm, "size": key.size, "encoding": key.encoding,
                    "rotationPolicy": effective.rotation.value,
                },
                "secretTemplate": { "labels": template.labels, "annotations": template.annotations },
            },
        },
        NAMESPACE: { "metadata": { "name": parsed.namespace, "labels": labels.cloned().unwrap_or_default() } },
    })
}

fn values<T: ToString>(listed: &[(usize, T)]) -> Vec<String> {
    listed.iter().map(|(_, value)| value.to_string()).collect()
}
