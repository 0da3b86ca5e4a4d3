//! `kubectl pki check`: judges Pkis in files as the webhook would, in the same words.

use super::finding::{Fault, Finding, Severity, reason};
use super::manifests::{Manifest, Manifests, as_stored, in_namespace};
use super::schema::{self, Kind};
use crate::admission::{self, Request, World};
use crate::api::{GROUP, Pki, PkiPolicy, VERSION};
use crate::index::BySecret;
use crate::locks;
use crate::pkis::KnownPki;
use crate::policy::{RuleBook, text};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource as _;
use kube::core::admission::AdmissionResponse;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::iter;
use std::sync::{Mutex, RwLock};

/// What a check rests on besides the files.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The policies, and the labels of namespaces.
    pub rules: &'a RuleBook,
    /// The namespace of what names none.
    pub namespace: &'a str,
    /// The present.
    pub now: Timestamp,
}

/// The outcome of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of the files.
    pub findings: Vec<Finding>,
    /// How many Pkis were judged.
    pub pkis: usize,
    /// How many policies were read.
    pub policies: usize,
}

impl Report {
    /// How many findings keep `kubectl apply` from taking something.
    pub fn violations(&self) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.is_violation())
            .count()
    }

    /// How many do not.
    pub fn warnings(&self) -> usize {
        self.findings.len() - self.violations()
    }
}

/// The policies in these files; of those of one name, the last. One that cannot be read is none; [`check`] says why.
pub fn policies(files: &[Manifests]) -> Vec<PkiPolicy> {
    let objects = files.iter().flat_map(|file| &file.objects);
    let policies = objects.filter(|manifest| manifest.kind == Kind::PkiPolicy);
    let read = policies.filter_map(|manifest| {
        let policy = serde_json::from_value(as_stored(&manifest.node)).ok()?;
        Some((manifest.metadata("name").to_owned(), policy))
    });
    read.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// Judges everything in these files. `progress` hears of each object.
pub fn check(files: &[Manifests], settings: &Settings<'_>, mut progress: impl FnMut()) -> Report {
    let mut judge = Judge::new(settings);
    let mut report = Report::default();
    for file in files {
        let mut findings = file.faults.clone();
        for manifest in &file.objects {
            findings.extend(judge.judge(&file.file, manifest));
            progress();
            match manifest.kind {
                Kind::Pki => report.pkis += 1,
                Kind::PkiPolicy => report.policies += 1,
            }
        }
        findings.sort_by_key(|finding| (finding.at, finding.severity));
        report.findings.extend(findings);
    }
    report
}

/// What becomes of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What keeps it from being taken.
    pub(super) errors: Vec<Fault>,
    /// What its author should know.
    pub(super) warnings: Vec<Fault>,
    /// The policy that permits it.
    pub(super) policy: Option<String>,
}

/// Judges a Pki by the schema, then as the webhook would.
pub(super) fn judge_pki(manifest: &Manifest, namespace: &str, world: &World<'_>) -> Verdict {
    let mut verdict = Verdict::of_shape(manifest);
    let object = in_namespace(&manifest.node, namespace);
    match request(
        Kind::Pki,
        &object,
        Some(namespace),
        manifest.metadata("name"),
    ) {
        Ok(request) => {
            let response = admission::validate(&request, world);
            let warnings = response.warnings.iter().flatten();
            verdict.warnings.extend(warnings.map(|line| conflict(line)));
            verdict.policy = response.audit_annotations.get("policy").cloned();
            merge(&mut verdict.errors, causes(response));
        }
        Err(error) => verdict.unreadable("metadata", reason::METADATA, &error),
    }
    verdict
}

fn judge_policy(manifest: &Manifest, rules: &RuleBook) -> Verdict {
    let mut verdict = Verdict::of_shape(manifest);
    let object = as_stored(&manifest.node);
    match request(Kind::PkiPolicy, &object, None, manifest.metadata("name")) {
        Ok(request) => {
            // By itself: whom it would leave without a policy is for the API server to tell.
            let alone = RuleBook::new(rules.settings.clone(), []);
            let response = admission::validate_policy(&request, &alone, iter::empty(), || true);
            merge(&mut verdict.errors, causes(response));
        }
        Err(error) => verdict.unreadable("metadata", reason::METADATA, &error),
    }
    verdict
}

impl Verdict {
    /// What the schema has to say.
    fn of_shape(manifest: &Manifest) -> Self {
        let faults = schema::faults(manifest.kind, &manifest.node).into_iter();
        let is_taken = |fault: &Fault| fault.reason == reason::DUPLICATE_FIELD;
        let (warnings, mut errors): (Vec<_>, Vec<_>) = faults.partition(is_taken);
        errors.extend(name_fault(manifest));
        Self {
            errors,
            warnings,
            policy: None,
        }
    }

    /// Notes that a part cannot be read, unless the schema has said better why.
    fn unreadable(&mut self, field: &str, reason: &'static str, error: &serde_json::Error) {
        let is_said = |fault: &Fault| is_of_shape(fault) && overlap(&fault.field, field);
        if !self.errors.iter().any(is_said) {
            let message = format!("cannot be read: {}", text::printable(&error.to_string()));
            self.errors.push(Fault::new(field, reason, message));
        }
    }
}

/// Remembers what came before.
struct Judge<'a> {
    settings: &'a Settings<'a>,
    pkis: RwLock<BySecret<KnownPki>>,
    seen: HashMap<String, String>,
    unknown_namespaces: HashSet<String>,
    judged: i64,
}

impl<'a> Judge<'a> {
    fn new(settings: &'a Settings<'a>) -> Self {
        Self {
            settings,
            pkis: RwLock::default(),
            seen: HashMap::new(),
            unknown_namespaces: HashSet::new(),
            judged: 0,
        }
    }

    fn judge(&mut self, file: &str, manifest: &Manifest) -> Vec<Finding> {
        self.judged += 1;
        let mut verdict = match manifest.kind {
            Kind::Pki => self.judge_pki(manifest),
            Kind::PkiPolicy => judge_policy(manifest, self.settings.rules),
        };
        verdict.warnings.extend(self.seen_before(file, manifest));
        let finding = |severity, mut fault: Fault| {
            let of_default = || place_of_default(manifest, &fault.field);
            fault.at = fault.at.or_else(of_default);
            manifest.finding(file, severity, self.settings.namespace, fault)
        };
        let errors = verdict.errors.into_iter();
        let warnings = verdict.warnings.into_iter();
        errors
            .map(|fault| finding(Severity::Error, fault))
            .chain(warnings.map(|fault| finding(Severity::Warning, fault)))
            .collect()
    }

    fn judge_pki(&mut self, manifest: &Manifest) -> Verdict {
        let namespace = manifest.namespace(self.settings.namespace);
        let world = World {
            rules: self.settings.rules,
            pkis: &self.pkis,
            secrets: &Mutex::default(),
            ca: None,
            now: self.settings.now,
        };
        let mut verdict = judge_pki(manifest, namespace, &world);
        verdict.warnings.extend(self.unknown_labels(namespace));
        if verdict.errors.is_empty() {
            self.claim(in_namespace(&manifest.node, namespace));
        }
        verdict
    }

    /// Whoever comes later, and names the same Secret, hears that this one was first.
    fn claim(&mut self, object: Value) {
        let Ok(mut pki) = serde_json::from_value::<Pki>(object) else {
            return;
        };
        // With `generateName` it has no name yet, and its Secret neither.
        if pki.metadata.name.is_none() {
            return;
        }
        let order = Timestamp::from_second(self.judged);
        pki.metadata.creation_timestamp = order.ok().map(Time);
        pki.status = None;
        locks::write(&self.pkis).apply(Event::Apply(pki.into()));
    }

    fn seen_before(&mut self, file: &str, manifest: &Manifest) -> Option<Fault> {
        let field = "metadata.name";
        if manifest.metadata("name").is_empty() {
            return None;
        }
        let object = manifest.object(self.settings.namespace).to_string();
        let place = format!("{}:{}", text::line(file), manifest.node.locate(field));
        let before = self.seen.insert(object, place)?;
        let message = format!(
            "this object is at {before} too: of the two, the one that is applied last counts"
        );
        Some(Fault::new(field, reason::DUPLICATE_OBJECT, message))
    }

    /// Said once of each namespace.
    fn unknown_labels(&mut self, namespace: &str) -> Option<Fault> {
        let is_news = !self.settings.rules.knows(namespace)
            && self.unknown_namespaces.insert(namespace.to_owned());
        let message = || {
            let namespace = text::printable(namespace);
            format!(
                "policies select namespaces by label, and the labels of namespace {namespace} are not known: add its manifest with --policy"
            )
        };
        is_news.then(|| Fault::new("metadata.namespace", reason::UNKNOWN_LABELS, message()))
    }
}

fn name_fault(manifest: &Manifest) -> Option<Fault> {
    let names = ["name", "generateName"].map(|field| manifest.metadata(field));
    let is_other = |field| {
        manifest
            .node
            .get("metadata")
            .is_some_and(|it| it.get(field).is_some_and(|it| !it.is_null()))
    };
    let is_missing = names == ["", ""] && !is_other("name");
    is_missing.then(|| {
        Fault::new(
            "metadata.name",
            reason::METADATA,
            "write a name, for example app1-pki",
        )
    })
}

/// The Secret's name is by default that of the Pki.
fn place_of_default(manifest: &Manifest, field: &str) -> Option<crate::yaml::Position> {
    let spec = manifest.node.get("spec");
    let is_default =
        field == "spec.secretName" && spec.is_some_and(|spec| spec.get("secretName").is_none());
    is_default.then(|| manifest.node.locate("metadata.name"))
}

fn is_of_shape(fault: &Fault) -> bool {
    fault.reason == reason::SCHEMA
}

const OF_THE_API_SERVER: [&str; 8] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// The question that the API server would ask about a new object.
fn request(
    kind: Kind,
    object: &Value,
    namespace: Option<&str>,
    name: &str,
) -> Result<Request, serde_json::Error> {
    let (kind, resource) = match kind {
        Kind::Pki => (Pki::kind(&()), Pki::plural(&())),
        Kind::PkiPolicy => (PkiPolicy::kind(&()), PkiPolicy::plural(&())),
    };
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        // The API server sets these itself, whatever a manifest says: an object that was going when it was copied, say.
        for field in OF_THE_API_SERVER {
            metadata.remove(field);
        }
    }
    serde_json::from_value(json!({
        "uid": "",
        "kind": {"group": GROUP, "version": VERSION, "kind": kind},
        "resource": {"group": GROUP, "version": VERSION, "resource": resource},
        "operation": "CREATE",
        "userInfo": {},
        "name": name,
        "namespace": namespace,
        "object": object,
    }))
}

fn causes(response: AdmissionResponse) -> Vec<(Fault, bool)> {
    let causes = response
        .result
        .details
        .into_iter()
        .flat_map(|details| details.causes);
    let with_type = causes.map(|cause| {
        let is_type = cause.reason == "FieldValueTypeInvalid";
        (Fault::from(cause), is_type)
    });
    with_type.collect()
}

/// A warning of the webhook, which begins with its field.
fn conflict(line: &str) -> Fault {
    let (field, message) = line.split_once(": ").unwrap_or(("", line));
    Fault::new(field, reason::CONFLICT, message)
}

/// Adds what the webhook says to what the schema says: of one field, the rule book knows better what to write, but the
/// schema knows better which value has the wrong type.
fn merge(errors: &mut Vec<Fault>, refused: Vec<(Fault, bool)>) {
    let ruled: Vec<_> = refused
        .iter()
        // What is said of the spec as a whole says nothing of a field.
        .filter(|(fault, is_type)| !is_type && fault.field != "spec")
        .map(|(fault, _)| fault.field.clone())
        .collect();
    errors.retain(|fault| {
        !is_of_shape(fault) || !ruled.iter().any(|field| overlap(field, &fault.field))
    });
    for (fault, is_type) in refused {
        let is_said = |known: &Fault| is_of_shape(known) && overlap(&known.field, &fault.field);
        if !(is_type && errors.iter().any(is_said)) {
            errors.push(fault);
        }
    }
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

#[cfg(test)]
mod tests;
