//! `kubectl pki check`: judges Pkis in files as the webhook would, in the same words.

use super::finding::{Answer, Fault, Finding, Severity, reason};
use super::manifests::{Manifest, Manifests, Other, as_stored, in_namespace};
use super::schema::{self, ManifestKind};
use super::{metadata, template};
use crate::api::annotations::Carrier;
use crate::api::{GROUP, Pki, PkiPolicy, VERSION};
use crate::k8s::object_key::Key;
use crate::policy::RuleBook;
use crate::store::cached_pki::KnownPki;
use crate::store::secret_index::SharedIndex;
use crate::util::text;
use crate::webhook::review::{self, Request, ValidationContext};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource as _;
use kube::core::admission::AdmissionResponse;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::iter;

/// What a check rests on besides the files.
#[derive(Clone, Copy, Debug)]
pub struct CheckSettings<'a> {
    /// The policies, and the labels of namespaces.
    pub rules: &'a RuleBook,
    /// The answers of the API server in place of the policies, to each object in the order of the
    /// files.
    pub answers: Option<&'a [Answer]>,
    /// The namespace of what names none.
    pub namespace: &'a str,
    /// The present.
    pub now: Timestamp,
}

/// The outcome of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// In the order of the files.
    pub findings: Vec<Finding>,
    /// How many Pkis were judged.
    pub pkis: usize,
    /// How many policies were read.
    pub policies: usize,
}

impl CheckReport {
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

/// The policies in these files; of those of one name, the last. One that cannot be read is none;
/// [`check`] says why.
pub fn policies(files: &[Manifests]) -> Vec<PkiPolicy> {
    let objects = files.iter().flat_map(|file| &file.objects);
    let policies = objects.filter(|manifest| manifest.kind == ManifestKind::PkiPolicy);
    let read = policies.filter_map(|manifest| {
        let policy = serde_json::from_value(as_stored(&manifest.node)).ok()?;
        Some((manifest.metadata("name").to_owned(), policy))
    });
    read.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// Judges everything in these files. `progress` hears of each object.
pub fn check(
    files: &[Manifests],
    settings: &CheckSettings<'_>,
    mut progress: impl FnMut(),
) -> CheckReport {
    let mut judge = Judge::new(settings);
    let mut report = CheckReport::default();
    for file in files {
        let mut findings = file.faults.clone();
        for manifest in &file.objects {
            findings.extend(judge.judge(&file.file, manifest));
            progress();
            match manifest.kind {
                ManifestKind::Pki => report.pkis += 1,
                ManifestKind::PkiPolicy => report.policies += 1,
            }
        }
        for other in &file.others {
            findings.extend(judge.other(&file.file, other));
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
pub(super) fn judge_pki(
    manifest: &Manifest,
    namespace: &str,
    world: &ValidationContext<'_>,
) -> Verdict {
    let mut verdict = match Verdict::of_shape(manifest) {
        Ok(verdict) => verdict,
        Err(verdict) => return verdict,
    };
    let object = in_namespace(&manifest.node, namespace);
    match request(
        ManifestKind::Pki,
        &object,
        Some(namespace),
        manifest.metadata("name"),
    ) {
        Ok(request) => {
            let response = review::validate(&request, world);
            let warnings = response.warnings.iter().flatten();
            verdict
                .warnings
                .extend(warnings.filter_map(|line| warning(line)));
            verdict.policy = response.audit_annotations.get("policy").cloned();
            merge(&mut verdict.errors, causes(response));
        }
        Err(error) => verdict.unreadable("metadata", reason::METADATA, &error),
    }
    verdict.blame_name(manifest);
    verdict
}

/// Judges a Pki by the schema, by what the API server answered, and by the Pkis before it in the
/// files.
fn judge_by_answer(
    manifest: &Manifest,
    namespace: &str,
    answer: Option<&Answer>,
    world: &ValidationContext<'_>,
) -> Verdict {
    let mut verdict = match Verdict::of_shape(manifest) {
        Ok(verdict) => verdict,
        Err(verdict) => return verdict,
    };
    if let Some(answer) = answer {
        verdict.warnings.extend(answer.warnings.clone());
        let errors = answer.errors.iter().cloned();
        let errors = errors.map(|fault| (fault, false));
        merge(&mut verdict.errors, errors.collect());
    }
    let object = in_namespace(&manifest.node, namespace);
    if verdict.errors.is_empty()
        && let Ok(pki) = serde_json::from_value::<Pki>(object)
    {
        let (own, secret) = (Key::of(&pki), Key::new(namespace, pki.secret_name()));
        let line = review::secret_warning(&pki, &own, &secret, world);
        let conflict = line.as_deref().and_then(warning);
        // The API server may have said it of one that is stored.
        let is_said = |it: &Fault| verdict.warnings.iter().any(|known| known.field == it.field);
        let conflict = conflict.filter(|it| !is_said(it));
        verdict.warnings.extend(conflict);
    }
    verdict.blame_name(manifest);
    verdict
}

/// Whether the API server is to be asked about a Pki: it says nothing else of one that it cannot
/// even read.
pub(super) fn is_well_formed(manifest: &Manifest) -> bool {
    Verdict::of_shape(manifest).is_ok_and(|verdict| verdict.errors.is_empty())
}

fn judge_policy(manifest: &Manifest, rules: &RuleBook) -> Verdict {
    let mut verdict = match Verdict::of_shape(manifest) {
        Ok(verdict) => verdict,
        Err(verdict) => return verdict,
    };
    let object = as_stored(&manifest.node);
    match request(
        ManifestKind::PkiPolicy,
        &object,
        None,
        manifest.metadata("name"),
    ) {
        Ok(request) => {
            // By itself: whom it would leave without a policy is for the API server to tell.
            let alone = RuleBook::new(rules.settings.clone(), []);
            let response = review::validate_policy(&request, &alone, iter::empty(), || true);
            merge(&mut verdict.errors, causes(response));
        }
        Err(error) => verdict.unreadable("metadata", reason::METADATA, &error),
    }
    verdict
}

impl Verdict {
    /// Judges by the schema, and by the rules for metadata. A template has no other fault.
    fn of_shape(manifest: &Manifest) -> Result<Self, Self> {
        if let Some(fault) = template::fault(manifest.kind, &manifest.node) {
            return Err(Self {
                errors: vec![fault],
                ..Self::default()
            });
        }
        let faults = schema::faults(manifest.kind, &manifest.node).into_iter();
        let is_taken = |fault: &Fault| fault.reason == reason::DUPLICATE_FIELD;
        let (mut warnings, mut errors): (Vec<_>, Vec<_>) = faults.partition(is_taken);
        errors.extend(name_fault(manifest));
        errors.extend(metadata::errors(manifest.kind, &manifest.node));
        let carrier = match manifest.kind {
            ManifestKind::Pki => Carrier::Pki,
            ManifestKind::PkiPolicy => Carrier::PkiPolicy,
        };
        warnings.extend(metadata::ignored(carrier, &manifest.node));
        Ok(Self {
            errors,
            warnings,
            policy: None,
        })
    }

    /// Blames `metadata.name` where no `spec.secretName` is written: it names the Secret then. A
    /// fault of that name is not repeated.
    fn blame_name(&mut self, manifest: &Manifest) {
        let spec = manifest.node.get("spec");
        if spec.is_some_and(|spec| spec.get("secretName").is_some_and(|it| !it.is_null())) {
            return;
        }
        let name = "metadata.name";
        let is_told = self.errors.iter().any(|fault| fault.field == name);
        self.errors
            .retain(|fault| !(is_told && fault.field == "spec.secretName"));
        for fault in self.errors.iter_mut().chain(&mut self.warnings) {
            if fault.field == "spec.secretName" {
                name.clone_into(&mut fault.field);
            }
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
    settings: &'a CheckSettings<'a>,
    pkis: SharedIndex<KnownPki>,
    seen: HashMap<String, String>,
    unknown_namespaces: HashSet<String>,
    judged: i64,
}

impl<'a> Judge<'a> {
    fn new(settings: &'a CheckSettings<'a>) -> Self {
        Self {
            settings,
            pkis: SharedIndex::default(),
            seen: HashMap::new(),
            unknown_namespaces: HashSet::new(),
            judged: 0,
        }
    }

    fn judge(&mut self, file: &str, manifest: &Manifest) -> Vec<Finding> {
        self.judged += 1;
        let mut verdict = match manifest.kind {
            ManifestKind::Pki => self.judge_pki(manifest),
            ManifestKind::PkiPolicy => judge_policy(manifest, self.settings.rules),
        };
        verdict.warnings.extend(self.seen_before(file, manifest));
        let finding = |severity, fault: Fault| {
            manifest.finding(file, severity, self.settings.namespace, fault)
        };
        let errors = verdict.errors.into_iter();
        let warnings = verdict.warnings.into_iter();
        errors
            .map(|fault| finding(Severity::Error, fault))
            .chain(warnings.map(|fault| finding(Severity::Warning, fault)))
            .collect()
    }

    /// Judges the metadata of an object of another kind.
    fn other(&self, file: &str, other: &Other) -> Vec<Finding> {
        let object = other.object(self.settings.namespace);
        let rules = &self.settings.rules.settings;
        let is_of_ca = other.is_secret && rules.is_reserved(&object.namespace, &object.name);
        let carrier = if is_of_ca {
            Carrier::CaSecret
        } else {
            metadata::carrier(&other.node)
        };
        let faults = metadata::ignored(carrier, &other.node).into_iter();
        let finding = |fault: Fault| Finding {
            file: file.to_owned(),
            at: fault.at.unwrap_or(other.node.at),
            severity: Severity::Warning,
            object: object.clone(),
            field: fault.field,
            reason: fault.reason.to_owned(),
            message: fault.message,
        };
        faults.map(finding).collect()
    }

    fn judge_pki(&mut self, manifest: &Manifest) -> Verdict {
        let namespace = manifest.namespace(self.settings.namespace);
        let world = ValidationContext {
            rules: self.settings.rules,
            pkis: &self.pkis,
            secrets: &SharedIndex::default(),
            pods: &SharedIndex::default(),
            ca: None,
            now: self.settings.now,
        };
        let answer = self.settings.answers.map(|answers| {
            let number = usize::try_from(self.judged).unwrap_or_default();
            number.checked_sub(1).and_then(|index| answers.get(index))
        });
        let mut verdict = match answer {
            Some(answer) => judge_by_answer(manifest, namespace, answer, &world),
            None => judge_pki(manifest, namespace, &world),
        };
        if answer.is_none() {
            verdict.warnings.extend(self.unknown_labels(namespace));
        }
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
        self.pkis.write().apply(Event::Apply(pki.into()));
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

/// An object as somebody writes it who makes a new one. The API server sets the fields that go here
/// itself, whatever a manifest says: an object that was going when it was copied, say.
pub(super) fn as_new(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in OF_THE_API_SERVER {
            metadata.remove(field);
        }
    }
    object
}

/// The question that the API server would ask about a new object.
fn request(
    kind: ManifestKind,
    object: &Value,
    namespace: Option<&str>,
    name: &str,
) -> Result<Request, serde_json::Error> {
    let (kind, resource) = match kind {
        ManifestKind::Pki => (Pki::kind(&()), Pki::plural(&())),
        ManifestKind::PkiPolicy => (PkiPolicy::kind(&()), PkiPolicy::plural(&())),
    };
    let object = as_new(object.clone());
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

/// A warning of the webhook, which begins with its field. Annotations and labels are judged here,
/// with their places.
pub(super) fn warning(line: &str) -> Option<Fault> {
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

/// Adds what the webhook says to what the schema says: of one field, the rule book knows better
/// what to write, but the schema knows better which value has the wrong type.
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
