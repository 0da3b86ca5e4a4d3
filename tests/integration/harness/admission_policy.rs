//! The chart's `ValidatingAdmissionPolicy`, put in force and taken away.

use super::{Installed, eventually};
use pki_cluster::install;
use pki_cluster::testing::manifest;
use serde_json::json;

/// Addresses that no certificate is for; the first is the API server's own.
pub(crate) const RESERVED: [&str; 3] = ["10.246.0.1", "10.96.0.0/12", "fd00::1"];

impl Installed {
    /// Has the API server hold by itself what no policy can change.
    pub(crate) fn with_admission_policy(&self) {
        let reserved = format!("--set-json=reservedAddresses={RESERVED:?}");
        let served = "--api-versions=admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy";
        let options = ["--set=admissionPolicy.enabled=true", &reserved, served];
        for object in self.render("templates/admission-policy.yaml", &options) {
            self.api.apply("", &object).expect("it is taken");
        }
        eventually("it is in force", || {
            self.has_admission_policy().then_some(())
        });
    }

    /// Removes it where it is.
    pub(super) fn remove_admission_policy(&self) {
        let kinds = [
            "validatingadmissionpolicybinding",
            "validatingadmissionpolicy",
        ];
        let was_there = kinds.map(|kind| {
            let deleted = self.api.delete_if_there(kind, "", install::RELEASE);
            deleted.expect("it is deleted")
        });
        if was_there.contains(&true) {
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
