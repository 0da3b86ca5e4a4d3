//! The findings about a file.

use crate::util::text;
use crate::util::yaml::Position;
use kube::core::response::StatusCause;
use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// `kubectl apply` refuses the object.
    Error,
    /// The object is stored, and will not do what its author expects.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// The reasons of findings that are not those of a rule.
pub mod reason {
    macro_rules! reasons {
        ($($name:ident = $reason:literal, $meaning:literal;)*) => {
            $(#[doc = $meaning] pub const $name: &str = $reason;)*
            /// Each reason, with its meaning.
            pub const ALL: &[(&str, &str)] = &[$(($name, $meaning)),*];
        };
    }

    reasons! {
        SYNTAX = "InvalidYaml", "the file is not YAML";
        UNKNOWN_FIELD = "UnknownField", "the API has no such field";
        DUPLICATE_FIELD = "DuplicateField", "a field is written twice";
        SCHEMA = "InvalidField", "a value is not what the API accepts";
        METADATA = "InvalidMetadata", "the metadata are not what the API accepts";
        UNKNOWN_KIND = "UnknownKind", "the API has no such kind";
        DUPLICATE_OBJECT = "DuplicateObject", "an object is written twice";
        CONFLICT = "PkiSecretConflict", "two Pkis claim one Secret";
        UNKNOWN_LABELS = "UnknownNamespaceLabels", "policies select by labels that are not known";
        TEMPLATE = "UnrenderedTemplate", "a template is not rendered";
        API_SERVER = "ApiServerWarning", "the API server warns of it";
        ALLOWED_NAMES = "InvalidAllowedName", "a line of allowed names is not a service name";
    }
}

/// A fault or a warning, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, as it was named; `-` for standard input.
    pub file: String,
    /// The place in the file.
    pub at: Position,
    /// Its severity.
    pub severity: Severity,
    /// The object, as in `Pki app1/app1-pki`; empty where there is none.
    pub object: FindingObject,
    /// The path of the field; empty where none is to blame.
    pub field: String,
    /// In CamelCase, as Events and conditions have it.
    pub reason: String,
    /// The fault, and the remedy.
    pub message: String,
}

/// The object that a finding is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FindingObject {
    /// Its kind; empty if there is no object.
    pub kind: String,
    /// Its namespace; empty if its kind has none.
    pub namespace: String,
    /// Its name; empty if it has none.
    pub name: String,
}

impl FindingObject {
    pub(super) fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for FindingObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = (text::printable(&self.kind), text::printable(&self.name));
        match self.namespace.as_str() {
            "" => write!(f, "{kind} {name}"),
            namespace => write!(f, "{kind} {}/{name}", text::printable(namespace)),
        }
    }
}

impl Finding {
    /// The finding in one line, without its place, as the API server writes it:
    /// `Pki app1/app1-pki: spec.serviceName: ...`.
    pub fn text(&self) -> String {
        let mut parts = Vec::new();
        if !self.object.kind.is_empty() {
            parts.push(self.object.to_string());
        }
        if !self.field.is_empty() {
            parts.push(text::printable(&self.field));
        }
        parts.push(text::line(&self.message));
        parts.join(": ")
    }

    /// The place, as compilers write it.
    pub fn place(&self) -> String {
        format!("{}:{}", text::line(&self.file), self.at)
    }

    /// Whether it keeps `kubectl apply` from taking the object.
    pub fn is_violation(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// A fault of an object, before its place is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The path of the field.
    pub field: String,
    /// The place, if the path does not lead there.
    pub at: Option<Position>,
    /// The reason.
    pub reason: &'static str,
    /// The fault, and the remedy.
    pub message: String,
}

impl Fault {
    pub(super) fn new(
        field: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            at: None,
            reason,
            message: message.into(),
        }
    }

    /// The fault at this place.
    pub(super) fn at(mut self, at: Position) -> Self {
        self.at = Some(at);
        self
    }

    /// The finding about this fault, at `at` unless the fault has a place of its own.
    pub(super) fn finding(
        self,
        file: &str,
        at: Position,
        severity: Severity,
        object: FindingObject,
    ) -> Finding {
        Finding {
            file: file.to_owned(),
            at: self.at.unwrap_or(at),
            severity,
            object,
            field: self.field,
            reason: self.reason.to_owned(),
            message: self.message,
        }
    }
}

impl From<StatusCause> for Fault {
    fn from(cause: StatusCause) -> Self {
        let reason = crate::policy::reason_of(&cause.field);
        Self::new(cause.field, reason, cause.message)
    }
}

/// The verdict of the API server on one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Faults that keep the object from being stored.
    pub errors: Vec<Fault>,
    /// Warnings for its author.
    pub warnings: Vec<Fault>,
}
