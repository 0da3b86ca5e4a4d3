//! What an installation leaves behind when it is removed.

use crate::node::Node;
use pki_cluster::install::{self, RELEASE};

impl Node {
    /// Removes the installation, if there is one, and what it leaves behind on purpose.
    pub(crate) fn uninstall(&self) {
        let mut helm = self.cluster.helm().unwrap();
        helm.args([
            "uninstall",
            RELEASE,
            "--namespace",
            RELEASE,
            "--wait",
            "--ignore-not-found",
        ]);
        install::run(&mut helm).unwrap();
        for what in [
            &["namespace", "app1", "app2", RELEASE][..],
            &["crd", "pkis.box.com", "pkipolicies.box.com"],
        ] {
            let delete = ["delete", "--ignore-not-found"];
            self.kubectl(&[&delete, what].concat()).unwrap();
        }
    }
}
