//! What an installation leaves behind when it is removed.

use crate::node::{Node, node};
use crate::story::{apply, wait_until_running};
use pki_cluster::install::{self, RELEASE};

#[test]
#[ignore = "needs root and packages: cargo test --test e2e -- --ignored"]
fn what_was_issued_outlives_the_installation_and_the_next_one_takes_it_over() {
    let node = node();
    node.install(&[]);
    apply(&node, "app2").unwrap();
    wait_until_running(&node, "app2");
    let secret = || node.get(&["secret", "app2-pki", "--namespace=app2"]);
    let issued = secret();

    node.helm_uninstall();
    let webhooks = "validatingwebhookconfigurations";
    assert_eq!(
        node.kubectl(&["get", webhooks, "--output=name"]).unwrap(),
        ""
    );
    let pki = node.get(&["pki", "app2-pki", "--namespace=app2"]);
    assert!(pki["metadata"]["deletionTimestamp"].is_null(), "{pki}");
    assert_eq!(secret(), issued);
    // Nothing stands in anybody's way, and nothing is refused either.
    apply(&node, "app1-typo").unwrap();
    node.kubectl(&[
        "delete",
        "pki",
        "app1-pki",
        "--namespace=app1",
        "--timeout=30s",
    ])
    .unwrap();
    wait_until_running(&node, "app2");

    node.install(&[]);
    apply(&node, "app1").unwrap();
    wait_until_running(&node, "app1");
    assert_eq!(secret(), issued);
}

impl Node {
    /// Removes the installation, if there is one, and what it leaves behind on purpose.
    pub(crate) fn uninstall(&self) {
        self.helm_uninstall();
        for what in [
            &["namespace", "app1", "app2", RELEASE][..],
            &["crd", "pkis.box.com", "pkipolicies.box.com"],
        ] {
            let delete = ["delete", "--ignore-not-found"];
            self.kubectl(&[&delete, what].concat()).unwrap();
        }
    }

    fn helm_uninstall(&self) {
        let mut helm = self.cluster.helm().unwrap();
        helm.args(["uninstall", RELEASE, "--namespace", RELEASE]);
        helm.args(["--wait", "--ignore-not-found"]);
        install::run(&mut helm).unwrap();
    }
}
