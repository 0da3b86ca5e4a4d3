//! Rules of a policy that are written in CEL, the Common Expression Language in which Kubernetes has its own
//! (<https://github.com/google/cel-spec>).
//!
//! An expression sees the Pki as its certificate will be, not as it was typed: a rule that forbids `admin.example.com`
//! forbids `ADMIN.example.com.` as well.

use super::names::display_duration;
use super::wanted::Wanted;
use super::{Labels, text};
use crate::api::Validation;
use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use cel::parser::PrattParser;
use cel::{Context, Env, ExecutionError, Value};
use serde_json::json;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

/// As in a `ValidatingAdmissionPolicy`: `namespace` is a reserved word of CEL.
const NAMESPACE: &str = "namespaceObject";
/// As in the schema.
const LONGEST: usize = 1024;
/// Evaluation recurses, on the stack of a worker thread.
const DEEPEST: usize = 32;
/// Loops over lists within loops over lists: two take a hundred times a hundred steps, which is milliseconds.
const DEEPEST_LOOP: usize = 2;

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
    /// What went wrong, if it could not be told whether the rule holds.
    pub(super) error: Option<String>,
}

impl Rule {
    pub(super) fn compile(validation: &Validation) -> Self {
        Self {
            expression: parse(&validation.expression).ok().map(Arc::new),
            message: validation.message.clone(),
        }
    }

    /// Says why it does not hold, if it does not.
    pub(super) fn objection(&self, facts: &Facts) -> Option<Objection> {
        let error = match &self.expression {
            None => Some("it cannot be read".to_owned()),
            Some(expression) => match facts.resolve(expression) {
                Ok(Value::Bool(true)) => return None,
                Ok(Value::Bool(false)) => None,
                Ok(other) => Some(format!("it is of type {}, not bool", other.type_of())),
                Err(error) => Some(error.to_string()),
            },
        };
        Some(Objection {
            message: self.message.clone(),
            error,
        })
    }

    /// Whether it may depend on the labels of the namespace.
    pub(super) fn reads_namespace(&self) -> bool {
        let expression = self.expression.as_ref();
        expression.is_some_and(|expression| expression.references().has_variable(NAMESPACE))
    }
}

/// What is wrong with an expression, and what to write instead.
pub(super) fn fault(source: &str) -> Option<String> {
    let fault = found(source)?;
    // The interpreter quotes what is written, and draws patterns on several lines.
    let words: Vec<_> = fault.split_whitespace().collect();
    Some(text::cut(&text::line(&words.join(" ")), LONGEST))
}

fn found(source: &str) -> Option<String> {
    let expression = match parse(source) {
        Ok(expression) => expression,
        Err(fault) => return Some(fault),
    };
    let sample = sample();
    let mut parts = Vec::new();
    collect(&expression, 0, &mut parts);
    let unknown = parts.iter().find_map(|(part, _)| unknown(part, &sample));
    let undeclared = || undeclared(&expression, &parts);
    let facts = Facts::of_json(&sample);
    let mistyped = || {
        // Part by part, since the sample need not lead to each. Those in a loop are reached by the loop.
        let free = parts.iter().filter(|(_, loops)| *loops == 0);
        free.filter_map(|(part, _)| facts.resolve(part).err())
            .find(is_mistake)
            .map(|error| error.to_string())
    };
    let result = || match facts.resolve(&expression) {
        Ok(Value::Bool(false)) if expression.references().variables().is_empty() => {
            Some("it is false for every Pki, so that the policy permits nothing".to_owned())
        }
        Ok(Value::Bool(_)) | Err(_) => None,
        Ok(other) => Some(format!(
            "it is of type {}: write one that is true or false",
            other.type_of()
        )),
    };
    unknown
        .or_else(undeclared)
        .or_else(mistyped)
        .or_else(result)
}

/// Reads an expression, or says why it cannot be read.
fn parse(source: &str) -> Result<IdedExpr, String> {
    if source.len() > LONGEST {
        return Err(format!("it is too long: write at most {LONGEST} bytes"));
    }
    let parsed = guarded(|| PrattParser::new().parse(source))
        .ok_or_else(|| "it cannot be read".to_owned())?;
    let expression = parsed.map_err(|errors| match errors.errors.first() {
        Some(error) => {
            let (line, column) = error.pos;
            let hint = match error.msg.as_str() {
                "reserved identifier: namespace" => "; write namespaceObject",
                _ => "",
            };
            format!("line {line}, column {column}: {}{hint}", error.msg)
        }
        None => "it cannot be read".to_owned(),
    })?;
    let mut parts = Vec::new();
    if depth(&expression) > DEEPEST {
        return Err(format!(
            "it is nested too deeply: write at most {DEEPEST} levels"
        ));
    }
    collect(&expression, 0, &mut parts);
    if parts.iter().any(|(_, loops)| *loops > DEEPEST_LOOP) {
        return Err(format!(
            "it has too many loops within loops: write at most {DEEPEST_LOOP}"
        ));
    }
    Ok(expression)
}

/// A field that is not there: `pki.spec.servicename`.
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
                return Some(format!("{parent} has no field {field}: there are {known}"));
            }
        };
    }
    None
}

/// The names in `a.b.c`, if that is what it is.
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

/// A variable that there is not.
fn undeclared(expression: &IdedExpr, parts: &[(&IdedExpr, usize)]) -> Option<String> {
    const TYPES: [&str; 9] = [
        "bool",
        "bytes",
        "double",
        "int",
        "list",
        "map",
        "null_type",
        "string",
        "uint",
    ];
    let mut declared = HashSet::from(["pki", NAMESPACE, "type"]);
    declared.extend(TYPES);
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
        "there is no variable {unknown}: there are pki and {NAMESPACE}"
    ))
}

/// Whether an expression fails like this whatever Pki it is asked about.
fn is_mistake(error: &ExecutionError) -> bool {
    match error {
        // A label that the sample lacks, a list that is longer elsewhere.
        ExecutionError::NoSuchKey(_) | ExecutionError::IndexOutOfBounds(_) => false,
        // Text that is a number elsewhere; a pattern is wrong for good.
        ExecutionError::FunctionError { function, .. } => function == "matches",
        _ => true,
    }
}

/// Every part of an expression, the inner ones first, with the number of loops around it.
fn collect<'e>(expression: &'e IdedExpr, loops: usize, parts: &mut Vec<(&'e IdedExpr, usize)>) {
    for (child, is_repeated) in children(expression) {
        collect(child, loops + usize::from(is_repeated), parts);
    }
    parts.push((expression, loops));
}

fn depth(expression: &IdedExpr) -> usize {
    let depths = children(expression)
        .into_iter()
        .map(|(child, _)| depth(child));
    1 + depths.max().unwrap_or_default()
}

/// The parts of an expression, and whether each is evaluated once for every element of a list.
fn children(expression: &IdedExpr) -> Vec<(&IdedExpr, bool)> {
    let once = |part| (part, false);
    match &expression.expr {
        Expr::Call(call) => call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .map(once)
            .collect(),
        Expr::Comprehension(each) => vec![
            (&each.iter_range, false),
            (&each.accu_init, false),
            (&each.loop_cond, true),
            (&each.loop_step, true),
            // Of the loop's own variable too, so no part of its own.
            (&each.result, true),
        ],
        Expr::List(list) => list.elements.iter().map(once).collect(),
        Expr::Map(map) => map
            .entries
            .iter()
            .flat_map(|entry| of_entry(&entry.expr))
            .map(once)
            .collect(),
        Expr::Struct(of) => of
            .entries
            .iter()
            .flat_map(|entry| of_entry(&entry.expr))
            .map(once)
            .collect(),
        Expr::Select(select) => vec![(&*select.operand, false)],
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
    }
}

fn of_entry(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

/// What expressions are asked about: one Pki and its namespace.
pub(super) struct Facts(Context<'static, 'static>);

impl Facts {
    /// Without labels where the namespace is not known.
    pub(super) fn of(wanted: &Wanted<'_>, labels: Option<&Labels>) -> Self {
        Self::of_json(&facts(wanted, labels))
    }

    fn of_json(facts: &serde_json::Value) -> Self {
        let mut context = Context::with_env(ENV.clone());
        for (name, value) in facts.as_object().into_iter().flatten() {
            let added = context.add_variable(name, value);
            added.expect("JSON of maps, lists, text and numbers has a value in CEL");
        }
        Self(context)
    }

    fn resolve(&self, expression: &IdedExpr) -> Result<Value, ExecutionError> {
        let internal = || {
            Err(ExecutionError::InternalError(
                "it cannot be evaluated".into(),
            ))
        };
        guarded(|| Value::resolve(expression, &self.0)).unwrap_or_else(internal)
    }
}

/// A policy is read wherever the operator starts: a defect of the interpreter must not keep it from starting.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
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

/// The facts about a Pki that has something everywhere, to try expressions on.
fn sample() -> serde_json::Value {
    let spec = json!({
        "serviceName": "app1", "dnsNames": ["api.example.com"], "ipAddresses": ["192.0.2.1"],
        "uris": ["spiffe://example.com/app1"]
    });
    let mut pki = crate::api::Pki::new("app1-pki", serde_json::from_value(spec).expect("a spec"));
    pki.metadata.namespace = Some("team-a".into());
    let wanted = Wanted::read(&pki, &super::Settings::default(), &mut Vec::new());
    facts(&wanted, None)
}
