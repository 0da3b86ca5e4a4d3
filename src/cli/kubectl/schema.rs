//! Validates the shape of an object by the schema of its kind, as the API server does, and
//! finds unknown fields and duplicate keys. CEL rules are left to the rule book.

use super::finding::{Fault, reason};
use crate::api::{self, Pki, PkiPolicy};
use crate::util::text::{nearest, printable};
use crate::util::yaml::{Node, Position, YamlContent, YamlKey};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Display;
use std::sync::LazyLock;

static PKI: LazyLock<Value> = LazyLock::new(|| with_metadata(api::schema::<Pki>()));
static POLICY: LazyLock<Value> = LazyLock::new(|| with_metadata(api::schema::<PkiPolicy>()));

/// One of the two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestKind {
    /// The kind of application teams.
    Pki,
    /// The kind of platform teams.
    PkiPolicy,
}

impl ManifestKind {
    /// The value of `kind`.
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Self::Pki => Pki::kind(&()),
            Self::PkiPolicy => PkiPolicy::kind(&()),
        }
    }
}

fn with_metadata(mut schema: Value) -> Value {
    let metadata = schemars::schema_for!(ObjectMeta);
    let text = || serde_json::json!({ "type": "string" });
    let properties = &mut schema["properties"];
    properties["apiVersion"] = text();
    properties["kind"] = text();
    properties["metadata"] = metadata.into();
    schema
}

/// The faults in the shape of an object of this kind.
pub fn faults(kind: ManifestKind, object: &Node) -> Vec<Fault> {
    let schema = match kind {
        ManifestKind::Pki => &*PKI,
        ManifestKind::PkiPolicy => &*POLICY,
    };
    let mut validator = Validator {
        kind: kind.name().to_ascii_lowercase(),
        faults: Vec::new(),
    };
    validator.node(object, object.at, schema, "");
    validator.faults.sort_by_key(|fault| fault.at);
    validator.faults
}

struct Validator {
    /// The name of the kind for `kubectl explain`.
    kind: String,
    faults: Vec<Fault>,
}

impl Validator {
    fn node(&mut self, node: &Node, place: Position, schema: &Value, path: &str) {
        if let Some(message) = fault(node, schema) {
            self.note(place, path.to_owned(), reason::SCHEMA, message);
            return;
        }
        match &node.content {
            YamlContent::Mapping(entries) => self.mapping(entries, schema, path),
            YamlContent::Sequence(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.node(element, element.at, &schema["items"], &path);
                }
            }
            YamlContent::Scalar(..) => {}
        }
    }

    fn mapping(&mut self, entries: &[(YamlKey, Node)], schema: &Value, path: &str) {
        let mut known = HashSet::new();
        // The last one counts.
        for (key, value) in entries.iter().rev() {
            let inner = join(path, &key.name);
            if !known.insert(key.name.as_str()) {
                let message = "this key is written twice, and the last one counts: remove this one";
                self.note(key.at, inner, reason::DUPLICATE_FIELD, message.to_owned());
                continue;
            }
            let property = schema["properties"].get(&key.name);
            match property.or_else(|| schema.get("additionalProperties")) {
                // To the API server, null is no value.
                Some(_) if value.is_null() => {}
                Some(schema) => self.node(value, key.place_of(value), schema, &inner),
                None if schema["properties"].is_object() => {
                    let message = self.unknown_field(&key.name, schema, path);
                    self.note(key.at, inner, reason::UNKNOWN_FIELD, message);
                }
                // The schema allows any content; duplicate keys are still faults.
                None => self.node(value, key.at, &Value::Null, &inner),
            }
        }
        self.missing(entries, schema, path);
    }

    fn missing(&mut self, entries: &[(YamlKey, Node)], schema: &Value, path: &str) {
        let is_there = |name: &&str| {
            let mut entries = entries.iter().rev();
            let last = entries.find(|(key, _)| key.name == *name);
            last.is_some_and(|(_, value)| !value.is_null())
        };
        let required = schema["required"].as_array().into_iter().flatten();
        let names = required.filter_map(Value::as_str);
        for name in names.filter(|name| !is_there(name)) {
            let field = join(path, name);
            let message = format!("write it: `{}` says what", self.explain(&field));
            self.faults.push(Fault::new(field, reason::SCHEMA, message));
        }
    }

    fn unknown_field(&self, name: &str, schema: &Value, path: &str) -> String {
        let known = schema["properties"].as_object().into_iter().flatten();
        let hint = match nearest(name, known.map(|(name, _)| name.as_str())) {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => format!("`{}` lists the fields", self.explain(path)),
        };
        format!("unknown field \"{}\"; {hint}", printable(&join(path, name)))
    }

    fn explain(&self, path: &str) -> String {
        format!("kubectl explain {}", join(&self.kind, &fields_of(path)))
    }

    fn note(&mut self, place: Position, path: String, reason: &'static str, message: String) {
        self.faults
            .push(Fault::new(path, reason, message).at(place));
    }
}

fn join(path: &str, name: &str) -> String {
    match (path, name) {
        ("", one) | (one, "") => one.to_owned(),
        _ => format!("{path}.{name}"),
    }
}

fn fields_of(path: &str) -> String {
    let parts = path.split('.');
    let fields: Vec<_> = parts.filter_map(|part| part.split('[').next()).collect();
    fields.join(".")
}

fn fault(node: &Node, schema: &Value) -> Option<String> {
    let sized = |size: usize, least: &str, most: &str, unit: &str| {
        let bound = |name: &str| usize::try_from(schema[name].as_u64()?).ok();
        out_of_bounds(size, bound(least), bound(most), unit)
    };
    match &node.content {
        YamlContent::Scalar(value, written) => wrong_type(value, written.as_deref(), schema)
            .or_else(|| not_offered(value, schema))
            .or_else(|| match value {
                Value::String(text) => {
                    let count = text.chars().count();
                    sized(count, "minLength", "maxLength", " characters")
                }
                Value::Number(number) => {
                    let [least, most] = ["minimum", "maximum"].map(|it| schema[it].as_f64());
                    out_of_bounds(number.as_f64()?, least, most, "")
                }
                _ => None,
            }),
        YamlContent::Sequence(elements) => wrong_kind("array", schema)
            .or_else(|| sized(elements.len(), "minItems", "maxItems", " of them")),
        YamlContent::Mapping(entries) => wrong_kind("object", schema)
            .or_else(|| sized(entries.len(), "minProperties", "maxProperties", " of them")),
    }
}

fn wrong_type(value: &Value, written: Option<&str>, schema: &Value) -> Option<String> {
    let fits = match schema["type"].as_str()? {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => false,
    };
    let written = written.filter(|_| schema["type"] == "string" && !value.is_null());
    let hint = written.map(|written| format!("; in quotes it is one: \"{}\"", printable(written)));
    let message = || format!("{}{}", what_to_write(schema), hint.unwrap_or_default());
    (!fits).then(message)
}

fn wrong_kind(kind: &str, schema: &Value) -> Option<String> {
    let expected = schema["type"].as_str()?;
    (expected != kind).then(|| what_to_write(schema))
}

fn what_to_write(schema: &Value) -> String {
    let wanted = match schema["type"].as_str() {
        Some("string") => "a text",
        Some("boolean") => "true or false",
        Some("integer") => "a whole number",
        Some("number") => "a number",
        Some("array") => "a list",
        _ => "a mapping",
    };
    format!("wrong type: write {wanted}")
}

fn not_offered(value: &Value, schema: &Value) -> Option<String> {
    let offered = schema["enum"].as_array()?;
    if offered.contains(value) {
        return None;
    }
    let names: Vec<_> = offered.iter().filter_map(Value::as_str).collect();
    let value = value.as_str().unwrap_or_default();
    let hint = nearest(value, names.iter().copied());
    let hint = hint.map(|name| format!("; did you mean \"{name}\"?"));
    Some(format!(
        "\"{}\" is not supported: write one of [{}]{}",
        printable(value),
        names.join(", "),
        hint.unwrap_or_default()
    ))
}

fn out_of_bounds<T: PartialOrd + Display + Copy>(
    count: T,
    least: Option<T>,
    most: Option<T>,
    what: &str,
) -> Option<String> {
    let least = least.filter(|least| count < *least);
    let most = most.filter(|most| count > *most);
    let bound = least.map(|least| format!("at least {least}"));
    let bound = bound.or_else(|| most.map(|most| format!("at most {most}")))?;
    Some(format!("write {bound}{what}, not {count}"))
}

#[cfg(test)]
mod tests;
