//! Manifests: what a file has that concerns the rule book, and what is wrong with the file itself.
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

/// What a file has.
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
    /// What keeps the file, or a document of it, from being read.
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

/// An object of another kind, with what is wrong with its metadata.
#[derive(Clone, Debug)]
pub struct Other {
    /// Whether it is a Secret, among which those of the CAs take other annotations.
    pub is_secret: bool,
    /// As written.
    pub node: Node,
}

impl Other {
    /// `None` if all of its annotations and labels have an effect, or are no concern of the
    /// operator.
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
        let metadata = self.node.get("metadata");
        let text = |field| {
            metadata
                .and_then(|node| node.text(field))
                .unwrap_or_default()
        };
        let kind = self.node.text("kind").unwrap_or_default();
        let namespace = match (kind, text("namespace")) {
            ("Namespace", _) => "",
            (_, "") => default_namespace,
            (_, own) => own,
        };
        FindingObject {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: text("name").to_owned(),
        }
    }
}

impl Manifest {
    /// A text in its metadata; empty if it is not there.
    pub fn metadata(&self, field: &str) -> &str {
        let metadata = self.node.get("metadata");
        metadata
            .and_then(|node| node.text(field))
            .unwrap_or_default()
    }

    /// What findings about it call it.
    pub fn object(&self, default_namespace: &str) -> FindingObject {
        let name = [self.metadata("name"), self.metadata("generateName")];
        FindingObject {
            kind: self.kind.name().into_owned(),
            namespace: match self.kind {
                ManifestKind::Pki => self.namespace(default_namespace).to_owned(),
                ManifestKind::PkiPolicy => String::new(),
            },
            name: name
                .into_iter()
                .find(|name| !name.is_empty())
                .unwrap_or_default()
                .to_owned(),
        }
    }

    /// Its namespace, or else this one.
    pub fn namespace<'a>(&'a self, default: &'a str) -> &'a str {
        Some(self.metadata("namespace"))
            .filter(|own| !own.is_empty())
            .unwrap_or(default)
    }

    /// A finding about it.
    pub fn finding(
        &self,
        file: &str,
        severity: Severity,
        default_namespace: &str,
        fault: Fault,
    ) -> Finding {
        Finding {
            file: file.to_owned(),
            at: fault.at.unwrap_or_else(|| self.node.locate(&fault.field)),
            severity,
            object: self.object(default_namespace),
            field: fault.field,
            reason: fault.reason.to_owned(),
            message: fault.message,
        }
    }
}

/// Reads the manifests of one file, YAML or JSON. Objects of other kinds are skipped; those in a
/// `List` are not.
pub fn parse(file: &str, bytes: &[u8]) -> Manifests {
    let mut found = Manifests {
        file: file.to_owned(),
        ..Manifests::default()
    };
    match yaml::text(bytes) {
        Ok(text) => {
            for document in yaml::documents(text) {
                match document {
                    Ok(node) => found.take(node),
                    Err(error) => match template::in_document(text, error.at) {
                        Some((at, message)) => found.fault(at, reason::TEMPLATE, message),
                        None => found.fault(error.at, reason::SYNTAX, error.message),
                    },
                }
            }
        }
        Err(error) => found.fault(error.at, reason::SYNTAX, error.message),
    }
    found
}

impl Manifests {
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
                let meant = kinds
                    .iter()
                    .find(|known| known.name().eq_ignore_ascii_case(kind));
                let hint = meant.map_or("write Pki or PkiPolicy".to_owned(), |known| {
                    format!("did you mean \"{}\"?", known.name())
                });
                let message = format!("{GROUP} has no kind \"{}\"; {hint}", printable(kind));
                self.fault(node.locate("kind"), reason::UNKNOWN_KIND, message);
            }
        }
    }

    fn fault(&mut self, at: Position, reason: &str, message: String) {
        self.faults.push(Finding {
            file: self.file.clone(),
            at,
            severity: Severity::Error,
            object: FindingObject::default(),
            field: String::new(),
            reason: reason.to_owned(),
            message,
        });
    }
}

/// The API server gives each namespace a label with its name.
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

/// The same in a namespace, if it names none.
pub fn in_namespace(node: &Node, namespace: &str) -> Value {
    let mut object = as_stored(node);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let own = metadata
            .get("namespace")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if own.is_empty() {
            metadata.insert("namespace".into(), namespace.into());
        }
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
