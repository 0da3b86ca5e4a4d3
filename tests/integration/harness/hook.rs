//! What the chart gives to its hooks: an account, and no more than that account may do.

use super::Installed;
use super::removal::place_of;
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
        let values = values.iter().map(|value| format!("--set={value}"));
        let options: Vec<_> = std::iter::once("--is-upgrade".to_owned())
            .chain(values)
            .collect();
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let mut objects = installed.render(template, &options);
        objects.retain(|object| object["kind"] != "Job" && object["kind"] != "Pod");
        for object in &objects {
            let applied = installed.api.apply(RELEASE, object);
            applied.expect("the account is made");
        }
        let kubeconfig = installed
            .cluster
            .dir()
            .join(format!("{account}.kubeconfig"));
        let kubectl = || installed.cluster.kubectl();
        let written = install::account_kubeconfig(kubectl, RELEASE, account, &kubeconfig);
        written.expect("the account has a token");
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
            let kind = object["kind"].as_str().unwrap_or_default();
            let (namespace, name) = place_of(object);
            if let Err(error) = self.installed.api.delete_later(kind, namespace, name) {
                // To panic while a test does would end the others as well.
                eprintln!("{kind} {name} of a hook stays: {error:#}");
            }
        }
    }
}
