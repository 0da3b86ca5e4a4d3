//! `kubectl pki check`: judges Pkis in files as the webhook would, in the same words.

use super::finding::{Answer, Fault, Finding, Severity, reason};
use super::manifests::{Manifest, Manifests, Other, as_stored, in_namespace};
use super::metadata;
use super::schema::ManifestKind;
use crate::api::annotations::Carrier;
use crate::api::{Pki, PkiPolicy};
use crate::policy::RuleBook;
use crate::store::cached_pki::KnownPki;
use crate::store::secret_index::SharedIndex;
use crate::util::text;
use crate::webhook::review::ValidationContext;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::watcher::Event;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use verdict::{judge_by_answer, judge_policy};

mod verdict;

pub(super) use verdict::{Verdict, is_well_formed, judge_pki, warning};

/// The context of a check besides the files.
#[derive(Clone, Copy, Debug)]
pub struct CheckSettings<'a> {
    /// The policies, and the labels of namespaces.
    pub rules: &'a RuleBook,
    /// The answers of the API server in place of the policies, in the order of the objects.
    pub answers: Option<&'a [Answer]>,
    /// The namespace of objects that name none.
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
        let findings = self.findings.iter();
        findings.filter(|finding| finding.is_violation()).count()
    }

    /// How many findings do not.
    pub fn warnings(&self) -> usize {
        self.findings.len() - self.violations()
    }
}

/// The policies in these files; of several with one name, the last. [`check`] reports faulty ones.
pub fn policies(files: &[Manifests]) -> Vec<PkiPolicy> {
    let objects = files.iter().flat_map(|file| &file.objects);
    let policies = objects.filter(|manifest| manifest.kind == ManifestKind::PkiPolicy);
    let read = policies.filter_map(|manifest| {
        let policy = serde_json::from_value(as_stored(&manifest.node)).ok()?;
        Some((manifest.metadata("name").to_owned(), policy))
    });
    read.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// Judges everything in these files. Calls `progress` after each object.
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
        let errors = verdict.errors.into_iter();
        let errors = errors.map(|fault| (Severity::Error, fault));
        let warnings = verdict.warnings.into_iter();
        let faults = errors.chain(warnings.map(|fault| (Severity::Warning, fault)));
        let namespace = self.settings.namespace;
        faults
            .map(|(severity, fault)| manifest.finding(file, severity, namespace, fault))
            .collect()
    }

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
        let at = other.node.at;
        faults
            .map(|fault| fault.finding(file, at, Severity::Warning, object.clone()))
            .collect()
    }

    fn judge_pki(&mut self, manifest: &Manifest) -> Verdict {
        let namespace = manifest.namespace(self.settings.namespace);
        let context = ValidationContext {
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
            Some(answer) => judge_by_answer(manifest, namespace, answer, &context),
            None => judge_pki(manifest, namespace, &context),
        };
        if answer.is_none() {
            verdict.warnings.extend(self.unknown_labels(namespace));
        }
        if verdict.errors.is_empty() {
            self.claim(in_namespace(&manifest.node, namespace));
        }
        verdict
    }

    /// Claims the Secret, so that a later Pki with the same Secret gets a warning.
    fn claim(&mut self, object: Value) {
        let Ok(mut pki) = serde_json::from_value::<Pki>(object) else {
            return;
        };
        // With `generateName` it has no name yet, and neither has its Secret.
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
        let message =
            format!("this object is also at {before}: the one that is applied last counts");
        Some(Fault::new(field, reason::DUPLICATE_OBJECT, message))
    }

    /// A fault about labels that are not known, once for each namespace.
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

#[cfg(test)]
mod tests;
