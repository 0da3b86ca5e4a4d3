//! How a cluster gets rid of Pkis and their definitions, where no operator runs.

use super::{Installed, eventually};
use std::sync::atomic::{AtomicU32, Ordering};

impl Installed {
    /// Takes the finalizers off all Pkis, where nobody is there any more to see to them.
    pub(crate) fn release_pkis(&self) -> anyhow::Result<()> {
        let held = "--output=jsonpath={range .items[?(@.metadata.finalizers)]}{.metadata.namespace} {.metadata.name}{'\\n'}{end}";
        // There may be no such kind.
        let held = self.kubectl(&["get", "pkis", "--all-namespaces", held]);
        for held in held.unwrap_or_default().lines() {
            let (namespace, name) = held.split_once(' ').unwrap_or_default();
            let none = r#"--patch={"metadata": {"finalizers": null}}"#;
            self.kubectl(&[
                "patch",
                "pki",
                name,
                "--namespace",
                namespace,
                "--type=merge",
                none,
            ])?;
        }
        Ok(())
    }

    /// Deletes all objects of a kind and waits until these very ones are gone: the API server makes
    /// its own Lease again at once. kubectl itself would wait for ever if somebody else, such as
    /// the controller of namespaces, deletes them too.
    pub(crate) fn delete_all(&self, kind: &str) {
        let uids = "--output=jsonpath={.items[*].metadata.uid}";
        let get = ["get", kind, "--all-namespaces", uids];
        let before = self.kubectl(&get).expect("they can be listed");
        let delete = ["delete", kind, "--all", "--all-namespaces", "--wait=false"];
        self.kubectl(&delete).expect("they are deleted");
        eventually(&format!("the {kind} of before are gone"), || {
            let left = self.kubectl(&get).ok()?;
            let gone = |uid: &str| !left.contains(uid);
            before.split_whitespace().all(gone).then_some(())
        });
    }

    /// Deletes both definitions, and every object with them.
    pub(crate) fn delete_definitions(&self) -> anyhow::Result<()> {
        let names = ["crd", "pkis.box.com", "pkipolicies.box.com"];
        let delete = ["delete", "--ignore-not-found", "--wait=false"];
        self.kubectl(&[&delete[..], &names].concat())?;
        eventually("the definitions are deleted", || {
            (self.press_deletions().ok()? == 0).then_some(())
        });
        Ok(())
    }

    /// How many definitions are being deleted. An API server that meets the storage of one while
    /// that starts again puts the deletion off by minutes; any edit has it try at once.
    pub(crate) fn press_deletions(&self) -> anyhow::Result<usize> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let going = "--output=jsonpath={.items[?(@.metadata.deletionTimestamp)].metadata.name}";
        let going = self.kubectl(&["get", "crd", going])?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        for name in going.split_whitespace() {
            // It may be gone by now.
            let _ = self.kubectl(&[
                "annotate",
                "crd",
                name,
                "--overwrite",
                &format!("press={number}"),
            ]);
        }
        Ok(going.split_whitespace().count())
    }
}
