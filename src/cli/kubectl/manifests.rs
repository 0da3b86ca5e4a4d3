//! Manifests: the objects of a file that concern the rule book, and the faults of the file itself.
//!
//! [`parse`] is total: any bytes give objects, faults, or nothing.

use super::finding::{Fault, Finding, FindingObject, Severity, reason};
use super::schema::ManifestKind;
use super::{metadata, template};
use crate::api::annotations::Carrier;
use crate::api::{GROUP, VERSION};
use crate::util::text::printable;
use crate::util::yaml::{self, Node, Position};
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use serde_json::Value;

/// The content of a file.
#[derive(Debug, Default)]
pub struct Manifests {
    /// The file, as it was named.
    pub file: String,
    /// Pkis and policies, in the order of the file.
    pub objects: Vec<Manifest>,
    /// Objects of other kinds with annotations or labels that have no effect.
    pub others: Vec<Other>,
    /// Namespaces, for their labels.
    pub namespaces: Vec<Namespace>,
    /// Faults that keep the file, or a document of it, from being read.
    pub faults: Vec<Finding>,
}

/// One Pki or `PkiPolicy`.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Its kind.
    pub kind: ManifestKind,
    /// As written, with positions.
    pub node: Node,
}

/// An object of another kind, with faults in its metadata.
#[derive(Clone, Debug)]
pub struct Other {
    /// Whether it is a Secret, among which those of the CAs take other annotations.
    pub is_secret: bool,
    /// As written.
    pub node: Node,
}

fn metadata_text<'a>(object: &'a Node, field: &str) -> &'a str {
    let metadata = object.get("metadata");
    let text = metadata.and_then(|node| node.text(field));
    text.unwrap_or_default()
}

fn first_of<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

impl Other {
    /// `None` if all of its annotations and labels have an effect, or belong to other programs.
    fn of(node: Node) -> Option<Self> {
        let carrier = metadata::carrier(&node);
        let has_faults = !metadata::ignored(carrier, &node).is_empty();
        has_faults.then_some(Self {
            is_secret: carrier == Carrier::Secret,
            node,
        })
    }

    /// The object, as findings name it.
    pub fn object(&self, default_namespace: &str) -> FindingObject {
        let kind = self.node.text("kind").unwrap_or_default();
        let namespace = match kind {
            "Namespace" => "",
            _ => first_of(metadata_text(&self.node, "namespace"), default_namespace),
        };
        FindingObject::new(kind, namespace, metadata_text(&self.node, "name"))
    }
}

impl Manifest {
    /// A text in its metadata; empty if it is missing.
    pub fn metadata(&self, field: &str) -> &str {
        metadata_text(&self.node, field)
    }

    /// The object, as findings name it.
    pub fn object(&self, default_namespace: &str) -> FindingObject {
        let namespace = match self.kind {
            ManifestKind::Pki => self.namespace(default_namespace),
            ManifestKind::PkiPolicy => "",
        };
        let name = first_of(self.metadata("name"), self.metadata("generateName"));
        FindingObject::new(&self.kind.name(), namespace, name)
    }

    /// Its namespace, or else this one.
    pub fn namespace<'a>(&'a self, default: &'a str) -> &'a str {
        first_of(self.metadata("namespace"), default)
    }

    /// A finding about it.
    pub fn finding(
        &self,
        file: &str,
        severity: Severity,
        default_namespace: &str,
        fault: Fault,
    ) -> Finding {
        let at = self.node.locate(&fault.field);
        fault.finding(file, at, severity, self.object(default_namespace))
    }
}

/// Reads the manifests of one file, YAML or JSON, also in a `List`. Other objects are skipped.
pub fn parse(file: &str, bytes: &[u8]) -> Manifests {
    let mut found = Manifests::named(file);
    let text = match yaml::text(bytes) {
        Ok(text) => text,
        Err(error) => {
            found.fault(error.at, reason::SYNTAX, error.message);
            return found;
        }
    };
    for document in yaml::documents(text) {
        match document {
            Ok(node) => found.take(node),
            Err(error) => match template::in_document(text, error.at) {
                Some((at, message)) => found.fault(at, reason::TEMPLATE, message),
                None => found.fault(error.at, reason::SYNTAX, error.message),
            },
        }
    }
    found
}

impl Manifests {
    pub(super) fn named(file: &str) -> Self {
        let file = file.to_owned();
        Self {
            file,
            ..Self::default()
        }
    }

    fn take(&mut self, node: Node) {
        let kind = node.text("kind").unwrap_or_default();
        if kind.ends_with("List") && node.get("items").is_some() {
            return node.into_items().for_each(|item| self.take(item));
        }
        let api_version = node.text("apiVersion").unwrap_or_default();
        let (group, _) = api_version.split_once('/').unwrap_or_default();
        if (api_version, kind) == ("v1", "Namespace") {
            let namespace = serde_json::from_value::<Namespace>(as_stored(&node));
            self.namespaces.extend(namespace.ok().map(with_own_label));
        }
        if group == GROUP {
            self.take_ours(node);
        } else {
            self.others.extend(Other::of(node));
        }
    }

    fn take_ours(&mut self, node: Node) {
        let kinds = [ManifestKind::Pki, ManifestKind::PkiPolicy];
        let kind = node.text("kind").unwrap_or_default();
        let api_version = node.text("apiVersion").unwrap_or_default();
        let (_, version) = api_version.split_once('/').unwrap_or_default();
        match kinds.into_iter().find(|known| known.name() == kind) {
            Some(kind) if version == VERSION => self.objects.push(Manifest { kind, node }),
            Some(kind) => {
                let message = format!(
                    "there is no version \"{}\" of {}: write {GROUP}/{VERSION}",
                    printable(version),
                    kind.name()
                );
                self.fault(node.locate("apiVersion"), reason::UNKNOWN_KIND, message);
            }
            None => {
                let mut kinds = kinds.iter();
                let meant = kinds.find(|known| known.name().eq_ignore_ascii_case(kind));
                let hint = meant.map_or("write Pki or PkiPolicy".to_owned(), |known| {
                    format!("did you mean \"{}\"?", known.name())
                });
                let message = format!("{GROUP} has no kind \"{}\"; {hint}", printable(kind));
                self.fault(node.locate("kind"), reason::UNKNOWN_KIND, message);
            }
        }
    }

    pub(super) fn fault(&mut self, at: Position, reason: &'static str, message: String) {
        let fault = Fault::new("", reason, message);
        let object = FindingObject::default();
        self.faults
            .push(fault.finding(&self.file, at, Severity::Error, object));
    }
}

fn with_own_label(mut namespace: Namespace) -> Namespace {
    let name = namespace.name_any();
    namespace
        .labels_mut()
        .insert("kubernetes.io/metadata.name".into(), name);
    namespace
}

/// An object as the API server has it: without what is null.
pub fn as_stored(node: &Node) -> Value {
    let mut object = node.to_json();
    drop_nulls(&mut object);
    object
}

/// The object as stored, in this namespace if it names none.
pub fn in_namespace(node: &Node, namespace: &str) -> Value {
    let mut object = as_stored(node);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let own = metadata.get("namespace").and_then(Value::as_str);
        if own.unwrap_or_default().is_empty() {
            metadata.insert("namespace".into(), namespace.into());
        }
    }
    object
}

/// The fields that the API server sets itself.
const SERVER_FIELDS: [&str; 8] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// The object as the author of a new one writes it. A manifest may be a copy of a stored object.
pub(super) fn as_new(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|field, _| !SERVER_FIELDS.contains(&field.as_str()));
    }
    object
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
