//! What the chart gives to its hooks: an account, and no more than that account may do.

use super::{Installed, chart};
use pki_cluster::install::{self, RELEASE};
use serde_json::Value;
use std::path::PathBuf;

/// The account of a hook, for as long as this lives.
pub(crate) struct Hook<'a> {
    installed: &'a Installed,
    objects: Vec<Value>,
    pub(crate) kubeconfig: PathBuf,
}

impl<'a> Hook<'a> {
    /// What the chart has in this template, but for what runs.
    pub(crate) fn of(installed: &'a Installed, template: &str, account: &str) -> Self {
        Self::with(installed, template, account, &[])
    }

    /// The same with further values.
    pub(crate) fn with(
        installed: &'a Installed,
        template: &str,
        account: &str,
        values: &[&str],
    ) -> Self {
        let mut helm = installed.cluster.helm().expect("there is Helm");
        helm.args(["template", RELEASE]).arg(chart());
        helm.args(["--namespace", RELEASE, "--is-upgrade"]);
        helm.arg("--show-only").arg(template);
        helm.args(values.iter().map(|value| format!("--set={value}")));
        let rendered = install::run(&mut helm).expect("it is rendered");
        let mut objects: Vec<Value> = serde_saphyr::from_multiple(&rendered).expect("it is YAML");
        objects.retain(|object| object["kind"] != "Job" && object["kind"] != "Pod");
        for object in &objects {
            let applied = installed.api.apply(RELEASE, object);
            applied.expect("the account is made");
        }
        let kubeconfig = installed
            .cluster
            .dir()
            .join(format!("{account}.kubeconfig"));
        install::account_kubeconfig(|| installed.cluster.kubectl(), account, &kubeconfig)
            .expect("the account has a token");
        Self {
            installed,
            objects,
            kubeconfig,
        }
    }
}

impl Drop for Hook<'_> {
    fn drop(&mut self) {
        for object in &self.objects {
            let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
            let kind = text(&object["kind"]).to_lowercase();
            let metadata = &object["metadata"];
            let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
            if let Err(error) = self.installed.api.delete_later(&kind, &namespace, &name) {
                // To panic while a test does would end the others as well.
                eprintln!("{kind} {name} of a hook stays: {error:#}");
            }
        }
    }
}
