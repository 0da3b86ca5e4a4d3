//! Updates the custom resource definitions of a cluster before an operator of this version runs.
//!
//! Helm applies the `crds/` of a chart only when it installs. So a hook of the chart runs
//! `pki-operator crd --apply` first in an upgrade. The [step](decide) for each definition is
//! decided before any of them is changed.

use crate::api::{self, VERSION_LABEL};
use crate::k8s::client;
use crate::util::text::printable;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use semver::Version;
use serde::Deserialize as _;
use std::fmt;
use std::time::{Duration, Instant};

/// The field manager of Helm, whose next installation would conflict with another manager.
const FIELD_MANAGER: &str = "helm";
const ESTABLISH_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Why a definition is not of this version.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CrdError {
    /// Objects would become unreadable.
    #[error(
        "CustomResourceDefinition {name}: objects are stored as {versions}, which this version cannot read: install a version that \
         has both, write every object again (kubectl get {name} --all-namespaces --output json | kubectl replace --filename -), \
         take it out of status.storedVersions, and then try again"
    )]
    Stored {
        /// The name of the definition.
        name: String,
        /// The versions that would be lost, separated by commas.
        versions: String,
    },
    /// The API server refuses a request about this definition, or is not there.
    #[error("CustomResourceDefinition {0}: {1}")]
    Api(String, #[source] client::ClientError),
    /// The API server does not serve this definition; its conditions say why.
    #[error("CustomResourceDefinition {0} is not established after {ESTABLISH_TIMEOUT:?}: {1}")]
    NotEstablished(String, String),
}

/// The step for a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is no live one.
    Create,
    /// The live one becomes ours.
    Update {
        /// Its version, if it has one.
        from: Option<Version>,
    },
    /// The live one is newer: its fields include ours, and objects may use the others.
    Leave {
        /// Its version.
        newer: Version,
    },
}

/// Decides the step from the `live` definition to `ours`.
pub fn decide(
    live: Option<&CustomResourceDefinition>,
    ours: &CustomResourceDefinition,
) -> Result<Step, CrdError> {
    let Some(live) = live else {
        return Ok(Step::Create);
    };
    let from = version(live);
    if let (Some(from), Some(to)) = (&from, version(ours))
        && from.cmp_precedence(&to).is_gt()
    {
        let newer = from.clone();
        return Ok(Step::Leave { newer });
    }
    let stored = live.status.iter().flat_map(|it| &it.stored_versions);
    let is_known = |stored: &&String| ours.spec.versions.iter().any(|it| it.name == **stored);
    let lost = stored.flatten().filter(|stored| !is_known(stored));
    let lost: Vec<_> = lost.map(|it| printable(it)).collect();
    if lost.is_empty() {
        return Ok(Step::Update { from });
    }
    Err(CrdError::Stored {
        name: ours.name_any(),
        versions: lost.join(", "),
    })
}

fn version(crd: &CustomResourceDefinition) -> Option<Version> {
    Version::parse(crd.labels().get(VERSION_LABEL)?).ok()
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ours = env!("CARGO_PKG_VERSION");
        match self {
            Self::Create => write!(f, "created, of version {ours}"),
            Self::Update { from: Some(from) } if from.to_string() == ours => {
                write!(f, "applied again, of version {ours}")
            }
            Self::Update { from: Some(from) } => write!(f, "updated from version {from} to {ours}"),
            Self::Update { from: None } => write!(f, "updated to version {ours}"),
            Self::Leave { newer } => {
                write!(f, "left as it is: of version {newer}, newer than {ours}")
            }
        }
    }
}

/// Applies all definitions, and waits until they are served. Calls `on_line` with each step.
pub async fn apply(client: &Client, mut on_line: impl FnMut(&str)) -> Result<(), CrdError> {
    let crds = Api::<CustomResourceDefinition>::all(client.clone());
    let mut steps = Vec::new();
    for ours in api::definitions() {
        let crd = CustomResourceDefinition::deserialize(&ours).expect("a definition can be read");
        let live = crds.get_opt(&crd.name_any()).await;
        let live = live.map_err(|error| failed(&crd, "get it", error))?;
        let step = decide(live.as_ref(), &crd)?;
        steps.push((ours, crd, step));
    }
    let params = PatchParams::apply(FIELD_MANAGER).force();
    for (ours, crd, step) in steps {
        let name = crd.name_any();
        if !matches!(step, Step::Leave { .. }) {
            let applied = crds.patch(&name, &params, &Patch::Apply(&ours)).await;
            applied.map_err(|error| failed(&crd, "apply it", error))?;
        }
        wait_until_established(&crds, &crd).await?;
        on_line(&format!("CustomResourceDefinition {name}: {step}"));
    }
    Ok(())
}

async fn wait_until_established(
    crds: &Api<CustomResourceDefinition>,
    crd: &CustomResourceDefinition,
) -> Result<(), CrdError> {
    let start = Instant::now();
    loop {
        let live = crds.get(&crd.name_any()).await;
        let live = live.map_err(|error| failed(crd, "get it", error))?;
        let conditions = live.status.and_then(|status| status.conditions);
        let conditions = conditions.unwrap_or_default();
        let mut established = conditions.iter().filter(|it| it.type_ == "Established");
        if established.any(|it| it.status == "True") {
            return Ok(());
        }
        if start.elapsed() > ESTABLISH_TIMEOUT {
            let messages = conditions.into_iter().filter_map(|it| it.message);
            let messages = printable(&messages.collect::<Vec<_>>().join("; "));
            return Err(CrdError::NotEstablished(crd.name_any(), messages));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn failed(crd: &CustomResourceDefinition, what: &str, error: kube::Error) -> CrdError {
    CrdError::Api(crd.name_any(), client::ClientError::of(what, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const OURS: &str = env!("CARGO_PKG_VERSION");

    fn crd(labels: &Value, versions: &[&str], stored: &[&str]) -> CustomResourceDefinition {
        let versions = versions
            .iter()
            .map(|name| json!({"name": name, "served": true, "storage": true}));
        let crd = json!({
            "metadata": {"name": "pkis.box.com", "labels": labels},
            "spec": {"group": "box.com", "scope": "Namespaced", "names": {"kind": "Pki", "plural": "pkis"},
                "versions": versions.collect::<Vec<_>>()},
            "status": {"storedVersions": stored},
        });
        serde_json::from_value(crd).expect("a definition")
    }

    #[test]
    fn an_older_definition_is_updated_and_a_newer_one_is_left_as_it_is() {
        let ours = crd(&json!({VERSION_LABEL: "1.10.0"}), &["v1"], &[]);
        let of = |version: &str| Version::parse(version).unwrap();
        let updated = |from: Option<&str>| Step::Update { from: from.map(of) };
        for (live, expected) in [
            (json!({}), updated(None)),
            (json!({VERSION_LABEL: "latest"}), updated(None)),
            (json!({VERSION_LABEL: "1.9.0"}), updated(Some("1.9.0"))),
            (
                json!({VERSION_LABEL: "1.10.0-rc.1"}),
                updated(Some("1.10.0-rc.1")),
            ),
            (json!({VERSION_LABEL: "1.10.0"}), updated(Some("1.10.0"))),
            (
                json!({VERSION_LABEL: "1.10.1-rc.1"}),
                Step::Leave {
                    newer: of("1.10.1-rc.1"),
                },
            ),
            (
                json!({VERSION_LABEL: "2.0.0"}),
                Step::Leave { newer: of("2.0.0") },
            ),
        ] {
            let step = decide(Some(&crd(&live, &["v1"], &["v1"])), &ours).unwrap();
            assert_eq!(step, expected, "{live}");
        }
        assert_eq!(decide(None, &ours).unwrap(), Step::Create);
    }

    #[test]
    fn objects_that_this_version_cannot_read_stop_the_update_with_a_remedy() {
        let ours = crd(&json!({VERSION_LABEL: OURS}), &["v1", "v2"], &[]);
        for (stored, lost) in [
            (&["v1"][..], None),
            (&["v1", "v2"], None),
            (&[], None),
            (&["v1alpha1"], Some("stored as v1alpha1, which")),
            (
                &["v1alpha1", "v1", "v1beta1"],
                Some("stored as v1alpha1, v1beta1, which"),
            ),
        ] {
            let decided = decide(Some(&crd(&json!({}), &["v1"], stored)), &ours);
            match lost {
                None => assert_eq!(decided.unwrap(), Step::Update { from: None }),
                Some(lost) => {
                    let said = decided.unwrap_err().to_string();
                    assert!(said.contains(lost), "{said}");
                    assert!(
                        said.contains("CustomResourceDefinition pkis.box.com: "),
                        "{said}"
                    );
                    assert!(said.contains("kubectl get pkis.box.com "), "{said}");
                }
            }
        }
        // A newer definition is not changed, whatever it stores.
        let newer = crd(&json!({VERSION_LABEL: "999.0.0"}), &["v3"], &["v3"]);
        assert!(matches!(
            decide(Some(&newer), &ours),
            Ok(Step::Leave { .. })
        ));
    }

    #[test]
    fn a_step_is_shown_with_its_versions() {
        let older = Version::new(0, 0, 9);
        let newer = Version::new(999, 0, 0);
        let same = Version::parse(OURS).unwrap();
        for (step, said) in [
            (Step::Create, format!("created, of version {OURS}")),
            (
                Step::Update { from: None },
                format!("updated to version {OURS}"),
            ),
            (
                Step::Update { from: Some(older) },
                format!("updated from version 0.0.9 to {OURS}"),
            ),
            (
                Step::Update { from: Some(same) },
                format!("applied again, of version {OURS}"),
            ),
            (
                Step::Leave { newer },
                format!("left as it is: of version 999.0.0, newer than {OURS}"),
            ),
        ] {
            assert_eq!(step.to_string(), said);
        }
    }

    #[test]
    fn our_definitions_have_their_version_and_outlive_a_release() {
        for ours in api::definitions() {
            let crd = CustomResourceDefinition::deserialize(&ours).unwrap();
            assert_eq!(version(&crd), Version::parse(OURS).ok());
            assert_eq!(crd.annotations()["helm.sh/resource-policy"], "keep");
        }
    }
}
