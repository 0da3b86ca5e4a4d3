//! What is fuzzed: each target takes any bytes, and panics where something does not hold that must
//! hold of all bytes.
//!
//! `cargo fuzz` runs them on what it makes up, and `cargo test` on what it has found before
//! (`corpus/`). What a policy means is told by an [`oracle`] of its own.

use pki_operator::api::{Pki, PkiPolicy};
use pki_operator::policy::{Namespaces, RuleBook, Settings};
use serde_json::{Value, json};
use std::sync::Arc;

pub use admission_body::admission_body;
pub use allowed_names::allowed_names;
pub use cost::cost;
pub use expression::expression;
pub use glob::glob;
pub use manifests::manifests;
pub use uri_and_dns_patterns::uri_and_dns_patterns;

#[path = "targets/admission_body.rs"]
mod admission_body;
#[path = "targets/allowed_names.rs"]
mod allowed_names;
#[path = "targets/cost.rs"]
mod cost;
#[path = "targets/expression.rs"]
mod expression;
#[path = "targets/glob.rs"]
mod glob;
#[path = "targets/manifests.rs"]
mod manifests;
#[path = "targets/oracle.rs"]
mod oracle;
#[path = "targets/uri_and_dns_patterns.rs"]
mod uri_and_dns_patterns;

/// A target, and its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 7] = [
    ("admission_body", admission_body),
    ("allowed_names", allowed_names),
    ("cost", cost),
    ("expression", expression),
    ("glob", glob),
    ("manifests", manifests),
    ("uri_and_dns_patterns", uri_and_dns_patterns),
];

fn settings() -> Settings {
    let range = |text| pki_operator::policy::range(text).expect("a range");
    Settings {
        cluster_domain: oracle::CLUSTER_DOMAIN.into(),
        namespace: "pki-system".into(),
        reserved_secrets: vec!["pki-operator-ca".into()],
        has_secrets: true,
        reserved_addresses: RESERVED_RANGES.into_iter().map(range).collect(),
    }
}

/// The addresses that no certificate is for.
const RESERVED_RANGES: [&str; 2] = ["10.96.0.0/12", "fd00::1"];

fn policy(name: &str, spec: Value) -> PkiPolicy {
    PkiPolicy::new(name, serde_json::from_value(spec).expect("a policy"))
}

/// A Pki `a` of this namespace.
fn pki(namespace: &str, spec: Value) -> Pki {
    let mut pki = Pki::new("a", serde_json::from_value(spec).expect("a Pki"));
    pki.metadata.namespace = Some(namespace.into());
    pki
}

/// A rule book of these policies, in a cluster of two namespaces with labels.
fn rule_book<'a>(policies: impl IntoIterator<Item = &'a PkiPolicy>) -> RuleBook {
    let labels = json!({
        "team-a": {"team": "payments", "kubernetes.io/metadata.name": "team-a"},
        "team-b": {"kubernetes.io/metadata.name": "team-b"},
    });
    let namespaces: Namespaces = serde_json::from_value(labels).expect("labels");
    RuleBook::new(Arc::new(settings()), policies).with_namespaces(Arc::new(namespaces))
}

/// The text of the bytes, as far as there is one.
fn lossy(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}
