//! Faults that a rule has for every Pki.

use super::compiled::{Compiled, RULE_STEPS};
use super::facts::{Scope, facts_of};
use super::shape::Shape;
use super::syntax::{MAX_RULE_BYTES, is_internal, parts};
use super::{NAMESPACE, cost};
use crate::api::Pki;
use crate::util::text;
use cel::common::ast::{Expr, IdedExpr};
use cel::{ExecutionError, Value};
use serde_json::json;
use std::collections::HashSet;

/// The fault of an expression, with a remedy.
pub(in crate::policy) fn fault(source: &str) -> Option<String> {
    let fault = found(source)?;
    // The interpreter quotes what is written, and draws patterns on several lines.
    let words: Vec<_> = fault.split_whitespace().collect();
    Some(text::cut(&text::line(&words.join(" ")), MAX_RULE_BYTES))
}

fn found(source: &str) -> Option<String> {
    let reading = Compiled::of(source);
    let compiled = match &*reading {
        Ok(compiled) => compiled,
        Err(unreadable) => return Some(unreadable.fault.clone()),
    };
    let (expression, sample) = (&compiled.expression, sample());
    let parts = parts(expression);
    let unknown = parts.iter().find_map(|(part, _)| unknown(part, &sample));
    let facts = Scope::of_json(&sample);
    unknown
        .or_else(|| undeclared(expression, &parts))
        .or_else(|| mistaken(&parts, compiled, &facts, &Shape::of(&sample)))
        .or_else(|| of_wrong_type(compiled, &facts))
}

/// An unknown field: `pki.spec.servicename`.
fn unknown(part: &IdedExpr, sample: &serde_json::Value) -> Option<String> {
    let path = path(part)?;
    let mut known = sample;
    for (index, field) in path.iter().enumerate() {
        // Labels and annotations may be any.
        let fields = known.as_object().filter(|fields| !fields.is_empty())?;
        known = match fields.get(*field) {
            Some(known) => known,
            None if index == 0 => return None,
            None => {
                let known: Vec<_> = fields.keys().map(String::as_str).collect();
                let (parent, known) = (path[..index].join("."), known.join(", "));
                return Some(format!(
                    "{parent} has no field {field}: the fields are {known}"
                ));
            }
        };
    }
    None
}

fn path(part: &IdedExpr) -> Option<Vec<&str>> {
    match &part.expr {
        Expr::Ident(name) => Some(vec![name]),
        Expr::Select(select) => {
            let mut path = path(&select.operand)?;
            path.push(&select.field);
            Some(path)
        }
        _ => None,
    }
}

fn undeclared(expression: &IdedExpr, parts: &[(&IdedExpr, usize)]) -> Option<String> {
    const TYPES: &str = "bool bytes double int list map null_type string type uint";
    let mut declared: HashSet<_> = TYPES.split(' ').chain(["pki", NAMESPACE]).collect();
    for (part, _) in parts {
        if let Expr::Comprehension(each) = &part.expr {
            declared.extend([each.iter_var.as_str(), &each.accu_var]);
            declared.extend(each.iter_var2.as_deref());
        }
    }
    let references = expression.references();
    let mut used = references.variables();
    used.sort_unstable();
    let unknown = used.into_iter().find(|name| !declared.contains(name))?;
    Some(format!(
        "there is no variable {unknown}: the variables are pki and {NAMESPACE}"
    ))
}

/// A part that fails. All are tried, as the sample need not lead to each, within the steps of one
/// rule; those in a loop are reached by the loop.
fn mistaken(
    parts: &[(&IdedExpr, usize)],
    compiled: &Compiled,
    facts: &Scope,
    sample: &Shape,
) -> Option<String> {
    let free = parts.iter().filter(|(_, loops)| *loops == 0);
    let mut left = RULE_STEPS;
    let affordable = free.filter(|(part, _)| {
        let rest = left.checked_sub(cost::steps(part, sample));
        left = rest.unwrap_or(left);
        // The variable of a compiled pattern cannot be evaluated alone.
        rest.is_some() && !is_internal(Some(part))
    });
    let mut errors = affordable.filter_map(|(part, _)| facts.resolve(part, compiled).err());
    errors.find(is_mistake).map(|error| error.to_string())
}

fn of_wrong_type(compiled: &Compiled, facts: &Scope) -> Option<String> {
    let expression = &compiled.expression;
    match facts.resolve(expression, compiled) {
        Ok(Value::Bool(false)) if expression.references().variables().is_empty() => {
            Some("it is false for every Pki, so the policy permits nothing".to_owned())
        }
        Ok(Value::Bool(_)) | Err(_) => None,
        Ok(other) => Some(format!(
            "it is of type {}: write an expression that is true or false",
            other.type_of()
        )),
    }
}

/// Whether an expression fails with this error for every Pki.
fn is_mistake(error: &ExecutionError) -> bool {
    match error {
        // A label that the sample lacks, a list that has another length elsewhere.
        ExecutionError::NoSuchKey(_)
        | ExecutionError::IndexOutOfBounds(_)
        | ExecutionError::DivisionByZero(_)
        | ExecutionError::RemainderByZero(_)
        | ExecutionError::Overflow(..)
        // Text that is a number elsewhere, or shorter.
        | ExecutionError::FunctionError { .. } => false,
        _ => true,
    }
}

/// The facts about a Pki with a value in every field, to try expressions on.
fn sample() -> serde_json::Value {
    let spec = json!({
        "serviceName": "app1", "dnsNames": ["api.example.com"], "ipAddresses": ["192.0.2.1"],
        "uris": ["spiffe://example.com/app1"]
    });
    let mut pki = Pki::new("app1-pki", serde_json::from_value(spec).expect("a spec"));
    pki.metadata.namespace = Some("team-a".into());
    facts_of(&pki)
}
