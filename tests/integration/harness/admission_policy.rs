//! The chart's `ValidatingAdmissionPolicy`, put in force and taken away.

use super::{Installed, eventually};
use pki_cluster::install;
use pki_cluster::testing::{manifest, result};
use serde_json::{Value, json};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/pki-operator");

/// Addresses that no certificate is for; the first is the API server's own.
pub(crate) const RESERVED: [&str; 3] = ["10.246.0.1", "10.96.0.0/12", "fd00::1"];

impl Installed {
    /// Has the API server hold by itself what no policy can change.
    pub(crate) fn with_admission_policy(&self) {
        let mut helm = self.cluster.helm().expect("helm is there");
        helm.args([
            "template",
            install::RELEASE,
            CHART,
            "--namespace",
            install::RELEASE,
        ])
        .args(["--set", "admissionPolicy.enabled=true"])
        .args(["--set-json", &format!("reservedAddresses={RESERVED:?}")])
        .args([
            "--api-versions",
            "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy",
        ])
        .args(["--show-only", "templates/admission-policy.yaml"]);
        let manifest = result(&helm.output().expect("helm runs")).expect("it renders");
        let objects: Vec<Value> = serde_saphyr::from_multiple(&manifest).expect("YAML");
        for object in objects {
            self.api.apply("", &object).expect("it is taken");
        }
        eventually("it is in force", || {
            self.has_admission_policy().then_some(())
        });
    }

    /// Removes it where it is.
    pub(super) fn remove_admission_policy(&self) {
        let mut was_there = false;
        for kind in [
            "validatingadmissionpolicybinding",
            "validatingadmissionpolicy",
        ] {
            let found = self
                .api
                .get(kind, "", install::RELEASE)
                .expect("it can be read");
            if found.is_some() {
                was_there = true;
                let deleted = self.api.delete(kind, "", install::RELEASE);
                deleted.expect("it is deleted");
            }
        }
        if was_there {
            eventually("it is in force no more", || {
                (!self.has_admission_policy()).then_some(())
            });
        }
    }

    fn has_admission_policy(&self) -> bool {
        let bad = manifest::pki("probe", &json!({"serviceName": "app1", "uris": ["-"]}));
        let refused = self.api.dry_run("default", &bad).err();
        refused.is_some_and(|it| it.to_string().contains("ValidatingAdmissionPolicy"))
    }
}
