//! What the chart gives to its hooks: an account, and no more than that account may do.

use super::{Installed, chart};
use pki_cluster::install::{self, RELEASE};
use std::path::PathBuf;

/// The account of a hook, for as long as this lives.
pub(crate) struct Hook<'a> {
    installed: &'a Installed,
    manifest: String,
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
        let runs = |object: &&str| object.contains("kind: Job") || object.contains("kind: Pod");
        let objects = rendered.split("\n---\n").filter(|object| !runs(object));
        let manifest = objects.collect::<Vec<_>>().join("\n---\n");
        installed
            .kubectl_with(&manifest, &["apply", "--filename=-"])
            .expect("the account is made");
        let kubeconfig = installed
            .cluster
            .dir()
            .join(format!("{account}.kubeconfig"));
        install::account_kubeconfig(|| installed.cluster.kubectl(), account, &kubeconfig)
            .expect("the account has a token");
        Self {
            installed,
            manifest,
            kubeconfig,
        }
    }
}

impl Drop for Hook<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "--filename=-"];
        if let Err(error) = self.installed.kubectl_with(&self.manifest, &delete) {
            // To panic while a test does would end the others as well.
            eprintln!("the account of a hook stays: {error:#}");
        }
    }
}
