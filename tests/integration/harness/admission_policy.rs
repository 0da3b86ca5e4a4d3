//! The chart's `ValidatingAdmissionPolicy`, put in force and taken away.

use super::{Installed, eventually, result};
use pki_cluster::install;

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
        self.kubectl_with(&manifest, &["apply", "--filename=-"])
            .expect("it is taken");
        eventually("it is in force", || {
            self.has_admission_policy().then_some(())
        });
    }

    /// Undoes that, where it was done.
    pub(super) fn without_admission_policy(&self) {
        let kinds = "validatingadmissionpolicybinding,validatingadmissionpolicy";
        let delete = ["delete", kinds, install::RELEASE, "--ignore-not-found"];
        let deleted = self.kubectl(&delete).expect("they are deleted");
        if !deleted.is_empty() {
            eventually("it is in force no more", || {
                (!self.has_admission_policy()).then_some(())
            });
        }
    }

    fn has_admission_policy(&self) -> bool {
        let bad = r#"{"apiVersion": "box.com/v1", "kind": "Pki", "metadata": {"name": "probe"},
            "spec": {"serviceName": "app1", "uris": ["-"]}}"#;
        let create = ["create", "--dry-run=server", "--filename=-"];
        let refused = self.kubectl_with(bad, &create).err();
        refused.is_some_and(|it| it.to_string().contains("ValidatingAdmissionPolicy"))
    }
}
