//! `kubectl pki policy test`: a table of Pkis, and the expected verdict on each.
//!
//! ```yaml
//! policies: [policies/]          # files or directories, relative to this file
//! cases:
//!   - name: teams get their own names
//!     namespace: team-a
//!     labels: {stage: live}      # of the namespace
//!     spec: {serviceName: team-a-web}
//!     expect: admitted
//!     policy: teams              # the one that permits it
//!     effective: {duration: 720h, usages: server auth} # also values that the spec leaves out
//!   - name: but not those of others
//!     namespace: team-a
//!     spec: {serviceName: team-b-web}
//!     expect: refused
//!     reason: PkiServiceNameError
//!     message: team-a-*          # somewhere in the message
//! ```

use super::check::{self, Verdict};
use super::manifests::{self, Manifest};
use super::schema::ManifestKind;
use super::{values, words};
use crate::api::Pki;
use crate::policy::{Labels, Namespaces, RuleBook};
use crate::store::secret_index::SharedIndex;
use crate::util::text;
use crate::util::yaml::{self, Node, Position, SyntaxError};
use crate::webhook::review::ValidationContext;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A file of cases.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Files with policies, relative to this one.
    pub policies: Vec<String>,
    /// The cases, in the order of the file.
    pub cases: Vec<Case>,
}

/// A Pki and the expected verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    at: Position,
    spec: Node,
    expected: Expected,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    name: String,
    namespace: String,
    #[serde(default)]
    labels: Labels,
    #[serde(default = "some_pki")]
    pki: String,
    #[serde(rename = "spec")]
    _spec: Value,
    expect: Answer,
    policy: Option<String>,
    #[serde(default)]
    effective: BTreeMap<String, Value>,
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Admitted,
    Refused,
}

fn some_pki() -> String {
    "test".to_owned()
}

/// Reads a file of cases. Total: any text gives a table or a fault with its place.
pub fn parse(text: &str) -> Result<Table, SyntaxError> {
    let mut documents = yaml::documents(text).into_iter();
    let root = documents
        .next()
        .unwrap_or_else(|| Err(no_cases(Position::START)))?;
    if let Some(next) = documents.next() {
        let message = "write all cases in one document, without ---";
        return Err(next.map_or_else(|error| error, |node| SyntaxError::new(node.at, message)));
    }
    let mut table = Table::default();
    for (key, value) in root.entries() {
        match key.name.as_str() {
            "policies" => table.policies = read(value)?,
            "cases" => {
                let cases = value.elements().iter().map(case);
                table.cases = cases.collect::<Result<_, _>>()?;
            }
            other => {
                let other = text::printable(other);
                let message = format!("unknown field \"{other}\": write policies or cases");
                return Err(SyntaxError::new(key.at, message));
            }
        }
    }
    if table.cases.is_empty() {
        return Err(no_cases(root.at));
    }
    Ok(table)
}

fn no_cases(at: Position) -> SyntaxError {
    SyntaxError::new(at, "there are no cases: write a list of them as `cases`")
}

fn case(node: &Node) -> Result<Case, SyntaxError> {
    let expected: Expected = read(node)?;
    let of_refused = expected.reason.is_some() || expected.message.is_some();
    let contradiction = match expected.expect {
        Answer::Admitted if of_refused => "a Pki that is admitted has no reason and no message",
        Answer::Refused if expected.policy.is_some() => "a Pki that is refused has no policy",
        Answer::Refused if !expected.effective.is_empty() => {
            "a Pki that is refused has no effective values"
        }
        _ => "",
    };
    if !contradiction.is_empty() {
        let message = format!("{contradiction}: leave that out");
        return Err(SyntaxError::new(node.at, message));
    }
    let spec = node.get("spec").cloned();
    Ok(Case {
        at: node.at,
        spec: spec.expect("a case is read with its spec"),
        expected,
    })
}

fn read<T: for<'de> Deserialize<'de>>(node: &Node) -> Result<T, SyntaxError> {
    serde_json::from_value(node.to_json()).map_err(|error| {
        let message = format!("cannot be read: {}", text::printable(&error.to_string()));
        SyntaxError::new(node.at, message)
    })
}

/// The results of the cases of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestOutcome {
    /// A paragraph for each case that failed.
    pub failures: String,
    /// The effective values of each Pki that is admitted, with their origin.
    pub values: String,
    /// The number of cases that passed.
    pub passed: usize,
    /// The number of cases that failed.
    pub failed: usize,
}

impl TestOutcome {
    /// A summary in one line.
    pub fn summary(&self) -> String {
        let cases = words::count(self.passed + self.failed, "case", "cases");
        format!("{cases}: {} passed, {} failed", self.passed, self.failed)
    }
}

/// Asks the rule book about each case. `file` is what failures call the file.
pub fn run(file: &str, table: &Table, rules: &RuleBook, now: Timestamp) -> TestOutcome {
    let mut outcome = TestOutcome::default();
    for case in &table.cases {
        let verdict = case.judge(rules, now);
        let values = if verdict.errors.is_empty() {
            case.values(rules)
        } else {
            Vec::new()
        };
        let place = format!("{}:{}", text::line(file), case.at);
        let name = text::printable(&case.expected.name);
        if !values.is_empty() {
            let header = format!("{place}: {name}\n  {}\n", got(&verdict));
            outcome.values += &(header + &indented(&values));
        }
        match case.failure(&verdict, &values) {
            None => outcome.passed += 1,
            Some(failure) => {
                outcome.failed += 1;
                let failure = format!("{place}: FAILED {name}\n{failure}\n");
                outcome.failures += &failure;
            }
        }
    }
    outcome
}

fn indented(lines: &[String]) -> String {
    let lines = lines.iter().map(|line| format!("    {line}\n"));
    lines.collect()
}

/// A value of the file as [`values::lines`] begins with it.
fn shown(field: &str, value: &Value) -> String {
    let one = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let value = match value {
        Value::Array(all) => all.iter().map(one).collect::<Vec<_>>().join(", "),
        other => one(other),
    };
    text::line(&format!("{field}: {value}"))
}

impl Case {
    fn rules(&self, rules: &RuleBook) -> RuleBook {
        let namespace = self.expected.namespace.as_str();
        let mut labels = self.expected.labels.clone();
        labels.insert("kubernetes.io/metadata.name".into(), namespace.to_owned());
        rules.with_namespaces(Arc::new(Namespaces::from([(namespace.to_owned(), labels)])))
    }

    /// The effective values of a Pki that is admitted, and their origin.
    fn values(&self, rules: &RuleBook) -> Vec<String> {
        let Ok(spec) = serde_json::from_value(manifests::as_stored(&self.spec)) else {
            return Vec::new();
        };
        let mut pki = Pki::new(&self.expected.pki, spec);
        pki.metadata.namespace = Some(self.expected.namespace.clone());
        let approved = self.rules(rules).evaluate(&pki);
        approved.as_ref().map_or_else(|_| Vec::new(), values::lines)
    }

    fn judge(&self, rules: &RuleBook, now: Timestamp) -> Verdict {
        let namespace = self.expected.namespace.as_str();
        let context = ValidationContext {
            rules: &self.rules(rules),
            pkis: &SharedIndex::default(),
            secrets: &SharedIndex::default(),
            pods: &SharedIndex::default(),
            ca: None,
            now,
        };
        let around = json!({
            "apiVersion": "box.com/v1", "kind": "Pki",
            "metadata": {"name": self.expected.pki, "namespace": namespace},
        });
        let node = Node::of(&around, self.at).with("spec", self.spec.clone());
        let manifest = Manifest {
            kind: ManifestKind::Pki,
            node,
        };
        check::judge_pki(&manifest, namespace, &context)
    }

    /// The expected and the actual verdict; `None` if they agree.
    fn failure(&self, verdict: &Verdict, values: &[String]) -> Option<String> {
        let expected = &self.expected;
        let has = |(field, value): (&String, &Value)| {
            let wanted = format!("{} (", shown(field, value));
            values.iter().any(|line| line.starts_with(&wanted))
        };
        let is_as_expected = match expected.expect {
            Answer::Admitted => {
                let is_policy = |policy| verdict.policy.as_ref() == Some(policy);
                verdict.errors.is_empty()
                    && expected.policy.as_ref().is_none_or(is_policy)
                    && expected.effective.iter().all(has)
            }
            Answer::Refused => verdict.errors.iter().any(|fault| {
                let has = |part: &String| fault.message.contains(part.as_str());
                let is_reason = |reason: &String| reason == fault.reason;
                expected.reason.as_ref().is_none_or(is_reason)
                    && expected.message.as_ref().is_none_or(has)
            }),
        };
        if is_as_expected {
            return None;
        }
        let failure = format!("  expected: {expected}\n  got: {}", got(verdict));
        if expected.effective.is_empty() || values.is_empty() {
            return Some(failure);
        }
        Some(failure + "\n" + indented(values).trim_end())
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.expect {
            Answer::Admitted => "admitted",
            Answer::Refused => "refused",
        })?;
        for (before, part) in [
            (" by PkiPolicy ", &self.policy),
            (" for the reason ", &self.reason),
            (", saying ", &self.message),
        ] {
            if let Some(part) = part {
                write!(f, "{before}{}", text::printable(part))?;
            }
        }
        let values = self.effective.iter();
        let values: Vec<_> = values.map(|(field, value)| shown(field, value)).collect();
        if values.is_empty() {
            return Ok(());
        }
        write!(f, ", with {}", values.join("; "))
    }
}

fn got(verdict: &Verdict) -> String {
    if verdict.errors.is_empty() {
        let policy = verdict.policy.as_deref().unwrap_or_default();
        return format!("admitted by PkiPolicy {}", text::printable(policy));
    }
    let faults = verdict.errors.iter();
    let lines = faults.map(|fault| {
        let (field, message) = (text::printable(&fault.field), text::line(&fault.message));
        format!("\n    {}: {field}: {message}", fault.reason)
    });
    format!("refused{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests;
