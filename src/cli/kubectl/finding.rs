//! What there is to say about a file: one finding each.

use crate::util::text;
use crate::util::yaml::Position;
use kube::core::response::StatusCause;
use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// `kubectl apply` refuses it.
    Error,
    /// It is taken, and will not do what its author expects.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// The reasons of findings that are not those of a rule.
pub mod reason {
    /// A file that is no YAML.
    pub const SYNTAX: &str = "InvalidYaml";
    /// A field that the schema lacks.
    pub const UNKNOWN_FIELD: &str = "UnknownField";
    /// A key that is there twice.
    pub const DUPLICATE_FIELD: &str = "DuplicateField";
    /// A value that the schema does not take.
    pub const SCHEMA: &str = "InvalidField";
    /// An object without a name, or with metadata that cannot be read.
    pub const METADATA: &str = "InvalidMetadata";
    /// A kind or version that there is none of.
    pub const UNKNOWN_KIND: &str = "UnknownKind";
    /// A Pki that is there twice.
    pub const DUPLICATE_OBJECT: &str = "DuplicateObject";
    /// A Secret that another Pki claims.
    pub const CONFLICT: &str = "PkiSecretConflict";
    /// A namespace whose labels decide, and are not known.
    pub const UNKNOWN_LABELS: &str = "UnknownNamespaceLabels";
    /// A template that nobody has rendered.
    pub const TEMPLATE: &str = "UnrenderedTemplate";
    /// A warning of the API server.
    pub const API_SERVER: &str = "ApiServerWarning";
    /// A file of allowed names that cannot be read.
    pub const ALLOWED_NAMES: &str = "InvalidAllowedName";

    /// Each of them, with what it means.
    pub const ALL: [(&str, &str); 12] = [
        (SYNTAX, "the file is no YAML"),
        (UNKNOWN_FIELD, "the API has no such field"),
        (DUPLICATE_FIELD, "a field is written twice"),
        (SCHEMA, "a value is not what the API takes"),
        (METADATA, "the metadata are not what the API takes"),
        (UNKNOWN_KIND, "the API has no such kind"),
        (DUPLICATE_OBJECT, "an object is written twice"),
        (CONFLICT, "two Pkis claim one Secret"),
        (
            UNKNOWN_LABELS,
            "policies select by labels that are not known",
        ),
        (TEMPLATE, "a template is not rendered"),
        (API_SERVER, "the API server warns of it"),
        (ALLOWED_NAMES, "a line of allowed names is no service name"),
    ];
}

/// Something to mend, or to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, as it was named; `-` for standard input.
    pub file: String,
    /// Where in it.
    pub at: Position,
    /// How bad it is.
    pub severity: Severity,
    /// The object, as in `Pki app1/app1-pki`; empty where there is none.
    pub object: FindingObject,
    /// The path of the field; empty where none is to blame.
    pub field: String,
    /// In CamelCase, as Events and conditions have it.
    pub reason: String,
    /// What is wrong, and what to write instead.
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
    /// The finding in one line, without its place: `Pki app1/app1-pki: spec.serviceName: ...`, as
    /// the API server says it.
    pub fn text(&self) -> String {
        let object = Some(&self.object).filter(|object| !object.kind.is_empty());
        let object = object.map(ToString::to_string);
        let field = Some(text::printable(&self.field)).filter(|field| !field.is_empty());
        let parts = [object, field, Some(text::line(&self.message))];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
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

/// What is wrong with an object, before it is known where that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The path of the field.
    pub field: String,
    /// The place, if the path does not lead there.
    pub at: Option<Position>,
    /// The reason.
    pub reason: &'static str,
    /// What is wrong, and what to write instead.
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
