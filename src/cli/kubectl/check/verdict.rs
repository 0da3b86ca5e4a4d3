//! The verdict on one object: by schema, by rule book or API server, and by earlier Pkis.

use crate::api::annotations::Carrier;
use crate::api::{GROUP, Pki, VERSION};
use crate::cli::kubectl::finding::{Answer, Fault, reason};
use crate::cli::kubectl::manifests::{Manifest, as_new, as_stored, in_namespace};
use crate::cli::kubectl::schema::{self, ManifestKind};
use crate::cli::kubectl::{metadata, template};
use crate::k8s::object_key::Key;
use crate::policy::RuleBook;
use crate::util::text;
use crate::util::yaml::Node;
use crate::webhook::review::{self, Request, ValidationContext};
use kube::core::GroupVersionKind;
use kube::core::admission::{AdmissionResponse, Operation};
use serde_json::Value;
use std::iter;

/// The verdict on one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli::kubectl) struct Verdict {
    /// Faults that keep it from being stored.
    pub(in crate::cli::kubectl) errors: Vec<Fault>,
    /// Warnings for its author.
    pub(in crate::cli::kubectl) warnings: Vec<Fault>,
    /// The policy that permits it.
    pub(in crate::cli::kubectl) policy: Option<String>,
}

/// Judges a Pki by the schema, then as the webhook would.
pub(in crate::cli::kubectl) fn judge_pki(
    manifest: &Manifest,
    namespace: &str,
    context: &ValidationContext<'_>,
) -> Verdict {
    Verdict::of_shape(manifest, |verdict| {
        let object = in_namespace(&manifest.node, namespace);
        verdict.review(manifest, object, Some(namespace), |request| {
            review::validate(request, context)
        });
        verdict.blame_name(manifest);
    })
}

/// Judges a Pki by the schema, by the answer of the API server, and by earlier Pkis of the files.
pub(super) fn judge_by_answer(
    manifest: &Manifest,
    namespace: &str,
    answer: Option<&Answer>,
    context: &ValidationContext<'_>,
) -> Verdict {
    Verdict::of_shape(manifest, |verdict| {
        if let Some(answer) = answer {
            verdict.warnings.extend(answer.warnings.clone());
            let errors = answer.errors.iter().cloned();
            verdict.merge(errors.map(|fault| (fault, false)).collect());
        }
        let object = in_namespace(&manifest.node, namespace);
        if verdict.errors.is_empty()
            && let Ok(pki) = serde_json::from_value::<Pki>(object)
        {
            let (own, secret) = (Key::of(&pki), Key::new(namespace, pki.secret_name()));
            let line = review::secret_warning(&pki, &own, &secret, context);
            let conflict = line.as_deref().and_then(warning);
            // The API server may have warned of one that is stored.
            let is_known =
                |it: &Fault| verdict.warnings.iter().any(|known| known.field == it.field);
            let conflict = conflict.filter(|it| !is_known(it));
            verdict.warnings.extend(conflict);
        }
        verdict.blame_name(manifest);
    })
}

pub(super) fn judge_policy(manifest: &Manifest, rules: &RuleBook) -> Verdict {
    Verdict::of_shape(manifest, |verdict| {
        // By itself: only the API server knows the Pkis that it would leave without a policy.
        let alone = RuleBook::new(rules.settings.clone(), []);
        verdict.review(manifest, as_stored(&manifest.node), None, |request| {
            review::validate_policy(request, &alone, iter::empty(), || true)
        });
    })
}

/// Whether to ask the API server about a Pki: its answer would have only the faults of the schema.
pub(in crate::cli::kubectl) fn is_well_formed(manifest: &Manifest) -> bool {
    Verdict::of_shape(manifest, |_| {}).errors.is_empty()
}

impl Verdict {
    /// Judges by the schema, the rules for metadata, then `judge`. A template has no other fault.
    fn of_shape(manifest: &Manifest, judge: impl FnOnce(&mut Self)) -> Self {
        if let Some(fault) = template::fault(manifest.kind, &manifest.node) {
            return Self {
                errors: vec![fault],
                ..Self::default()
            };
        }
        let faults = schema::faults(manifest.kind, &manifest.node).into_iter();
        let is_taken = |fault: &Fault| fault.reason == reason::DUPLICATE_FIELD;
        let (warnings, errors) = faults.partition(is_taken);
        let mut verdict = Self {
            errors,
            warnings,
            policy: None,
        };
        verdict.errors.extend(name_fault(manifest));
        let metadata = metadata::errors(manifest.kind, &manifest.node);
        verdict.errors.extend(metadata);
        let carrier = match manifest.kind {
            ManifestKind::Pki => Carrier::Pki,
            ManifestKind::PkiPolicy => Carrier::PkiPolicy,
        };
        let ignored = metadata::ignored(carrier, &manifest.node);
        verdict.warnings.extend(ignored);
        judge(&mut verdict);
        verdict
    }

    /// Adds what the webhook would answer to a request that creates the object.
    fn review(
        &mut self,
        manifest: &Manifest,
        object: Value,
        namespace: Option<&str>,
        validate: impl FnOnce(&Request) -> AdmissionResponse,
    ) {
        let object = match serde_json::from_value(as_new(object)) {
            Ok(object) => object,
            Err(error) => return self.unreadable_metadata(&error),
        };
        let response = validate(&Request {
            uid: String::new(),
            kind: GroupVersionKind::gvk(GROUP, VERSION, &manifest.kind.name()),
            name: manifest.metadata("name").to_owned(),
            namespace: namespace.map(str::to_owned),
            operation: Operation::Create,
            object: Some(object),
            old_object: None,
            dry_run: false,
            options: None,
        });
        let warnings = response.warnings.iter().flatten();
        self.warnings.extend(warnings.filter_map(|it| warning(it)));
        self.policy = response.audit_annotations.get("policy").cloned();
        let details = response.result.details.into_iter();
        let causes = details.flat_map(|details| details.causes).map(|cause| {
            let is_type = cause.reason == "FieldValueTypeInvalid";
            (Fault::from(cause), is_type)
        });
        self.merge(causes.collect());
    }

    /// Blames `metadata.name`, once, for faults of a `spec.secretName` that is not written.
    fn blame_name(&mut self, manifest: &Manifest) {
        let spec = manifest.node.get("spec");
        if spec.is_some_and(|spec| spec.get("secretName").is_some_and(|it| !it.is_null())) {
            return;
        }
        let name = "metadata.name";
        let is_known = self.errors.iter().any(|fault| fault.field == name);
        self.errors
            .retain(|fault| !(is_known && fault.field == "spec.secretName"));
        for fault in self.errors.iter_mut().chain(&mut self.warnings) {
            if fault.field == "spec.secretName" {
                name.clone_into(&mut fault.field);
            }
        }
    }

    /// Notes that the metadata cannot be read, unless the schema has the better reason.
    fn unreadable_metadata(&mut self, error: &serde_json::Error) {
        let field = "metadata";
        if !self.has_shape_fault(field) {
            let message = format!("cannot be read: {}", text::printable(&error.to_string()));
            self.errors
                .push(Fault::new(field, reason::METADATA, message));
        }
    }

    /// Adds faults of the webhook, each with whether it is a wrong type, to those of the schema:
    /// the rule book has the better remedy, the schema the better place of a wrong type.
    fn merge(&mut self, refused: Vec<(Fault, bool)>) {
        let ruled: Vec<_> = refused
            .iter()
            // A fault of the spec as a whole names no field.
            .filter(|(fault, is_type)| !is_type && fault.field != "spec")
            .map(|(fault, _)| fault.field.clone())
            .collect();
        self.errors.retain(|fault| {
            !is_of_shape(fault) || !ruled.iter().any(|field| overlap(field, &fault.field))
        });
        for (fault, is_type) in refused {
            if !(is_type && self.has_shape_fault(&fault.field)) {
                self.errors.push(fault);
            }
        }
    }

    fn has_shape_fault(&self, field: &str) -> bool {
        let mut errors = self.errors.iter();
        errors.any(|fault| is_of_shape(fault) && overlap(&fault.field, field))
    }
}

fn name_fault(manifest: &Manifest) -> Option<Fault> {
    let names = ["name", "generateName"].map(|field| manifest.metadata(field));
    let metadata = manifest.node.get("metadata");
    let name = metadata.and_then(|metadata| metadata.get("name"));
    let is_missing = names == ["", ""] && name.is_none_or(Node::is_null);
    let advice = "write a name, for example app1-pki";
    is_missing.then(|| Fault::new("metadata.name", reason::METADATA, advice))
}

fn is_of_shape(fault: &Fault) -> bool {
    fault.reason == reason::SCHEMA
}

/// A warning of the webhook, which begins with its field. Metadata are judged here, with places.
pub(in crate::cli::kubectl) fn warning(line: &str) -> Option<Fault> {
    let is_field = |text: &str| text.starts_with("spec.") || text.starts_with("metadata.");
    let (field, message) = line
        .split_once(": ")
        .filter(|(field, _)| is_field(field))
        .unwrap_or(("", line));
    let reason = match field {
        "metadata.labels" | "metadata.annotations" => return None,
        "spec.secretName" | "metadata.name" => reason::CONFLICT,
        _ => reason::API_SERVER,
    };
    Some(Fault::new(field, reason, message))
}

/// Whether one of two paths leads into the other.
fn overlap(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() <= other.len() {
        (one, other)
    } else {
        (other, one)
    };
    let rest = long.strip_prefix(short);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
