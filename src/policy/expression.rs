//! Rules of a policy that are written in CEL, the Common Expression Language in which Kubernetes has its own
//! (<https://github.com/google/cel-spec>).
//!
//! An expression sees the Pki as its certificate will be, not as it was typed: a rule that forbids `admin.example.com`
//! forbids `ADMIN.example.com.` as well. What cannot be told is taken for broken: a rule that is false for some Pki is
//! never true because something was not known.

use super::Labels;
use super::names::display_duration;
use super::wanted::Wanted;
use crate::api::Validation;
use cel::common::ast::IdedExpr;
use cel::{Context, Env, ExecutionError, Value};
use serde_json::json;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

pub(super) use fault::fault;

mod fault;
mod syntax;

/// As in a `ValidatingAdmissionPolicy`: `namespace` is a reserved word of CEL.
const NAMESPACE: &str = "namespaceObject";
/// Of labels and annotations an author may write any number, and a rule may look at each of them for each of the others.
const MOST_KEYS: usize = 100;

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A [`Validation`], ready to be asked.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// `None` for an expression that cannot be read, which is true for no Pki.
    expression: Option<Arc<IdedExpr>>,
    message: String,
}

/// What a rule has against a Pki.
pub(super) struct Objection {
    /// What the platform team says.
    pub(super) message: String,
    /// Why it could not be told whether the rule holds, if that is so.
    pub(super) error: Option<&'static str>,
}

impl Rule {
    pub(super) fn compile(validation: &Validation) -> Self {
        Self {
            expression: syntax::parse(&validation.expression).ok().map(Arc::new),
            message: validation.message.clone(),
        }
    }

    /// Says why it does not hold, if it does not.
    pub(super) fn objection(&self, facts: &Facts) -> Option<Objection> {
        let error = match self.verdict(facts) {
            Ok(true) => return None,
            Ok(false) => None,
            Err(error) => Some(error),
        };
        let message = self.message.clone();
        Some(Objection { message, error })
    }

    /// Whether it holds. Errors are fixed sentences: the interpreter's own name what it came upon first, which differs from
    /// one look to the next, and are not for authors of Pkis.
    fn verdict(&self, facts: &Facts) -> Result<bool, &'static str> {
        let expression = self.expression.as_ref().ok_or("it cannot be read")?;
        if !facts.is_namespace_known && self.reads_namespace() {
            return Err("the labels of the namespace are not known yet");
        }
        if facts.has_too_many_keys {
            return Err("the Pki has more than 100 labels or annotations");
        }
        match facts.resolve(expression) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err("it is neither true nor false"),
            Err(ExecutionError::NoSuchKey(_)) => Err("a key that it reads is not there"),
            Err(ExecutionError::IndexOutOfBounds(_)) => {
                Err("a list that it reads is not that long")
            }
            Err(_) => Err("it cannot be evaluated for this Pki"),
        }
    }

    /// Whether it may depend on the labels of the namespace.
    pub(super) fn reads_namespace(&self) -> bool {
        let expression = self.expression.as_ref();
        expression.is_some_and(|expression| expression.references().has_variable(NAMESPACE))
    }
}

/// What expressions are asked about: one Pki and its namespace.
pub(super) struct Facts {
    context: Context<'static, 'static>,
    is_namespace_known: bool,
    has_too_many_keys: bool,
}

impl Facts {
    /// Without labels where the namespace is not known.
    pub(super) fn of(wanted: &Wanted<'_>, labels: Option<&Labels>) -> Self {
        let metadata = &wanted.object.metadata;
        let maps = [
            metadata.labels.as_ref(),
            metadata.annotations.as_ref(),
            labels,
        ];
        let has_too_many_keys = maps.into_iter().flatten().any(|map| map.len() > MOST_KEYS);
        // What is not looked at need not be copied.
        let facts = if has_too_many_keys {
            json!({})
        } else {
            facts(wanted, labels)
        };
        Self {
            is_namespace_known: labels.is_some(),
            has_too_many_keys,
            ..Self::of_json(&facts)
        }
    }

    fn of_json(facts: &serde_json::Value) -> Self {
        let mut context = Context::with_env(ENV.clone());
        for (name, fact) in facts.as_object().into_iter().flatten() {
            context.add_variable_from_value(name, value(fact));
        }
        Self {
            context,
            is_namespace_known: true,
            has_too_many_keys: false,
        }
    }

    fn resolve(&self, expression: &IdedExpr) -> Result<Value, ExecutionError> {
        let internal = || Err(ExecutionError::InternalError(String::new()));
        guarded(|| Value::resolve(expression, &self.context)).unwrap_or_else(internal)
    }
}

/// A policy is read wherever the operator starts: a defect of the interpreter must not keep it from starting.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
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

fn facts(wanted: &Wanted<'_>, labels: Option<&Labels>) -> serde_json::Value {
    let object = wanted.object;
    let (spec, metadata) = (&object.spec, &object.metadata);
    let template = spec.secret_template.clone().unwrap_or_default();
    json!({
        "pki": {
            "metadata": {
                "name": wanted.pki, "namespace": wanted.namespace,
                "labels": metadata.labels.clone().unwrap_or_default(),
                "annotations": metadata.annotations.clone().unwrap_or_default(),
            },
            "spec": {
                "serviceName": spec.service_name,
                "commonName": wanted.common_name,
                "dnsNames": values(&wanted.dns_names),
                "ipAddresses": values(&wanted.ip_addresses),
                "uris": values(&wanted.uris),
                "usages": wanted.usages,
                "secretName": object.secret_name(),
                "duration": display_duration(wanted.duration),
                "privateKey": {
                    "algorithm": wanted.key.algorithm, "size": wanted.key.size, "encoding": wanted.key.encoding,
                    "rotationPolicy": if wanted.keeps_key { "Never" } else { "Always" },
                },
                "secretTemplate": { "labels": template.labels, "annotations": template.annotations },
            },
        },
        NAMESPACE: { "metadata": { "name": wanted.namespace, "labels": labels.cloned().unwrap_or_default() } },
    })
}

fn values<T: ToString>(listed: &[(usize, T)]) -> Vec<String> {
    listed.iter().map(|(_, value)| value.to_string()).collect()
}
