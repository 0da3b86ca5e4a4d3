//! How a cluster gets rid of Pkis and their definitions, where no operator runs.

use super::{Installed, eventually};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};

const DEFINITIONS: [&str; 2] = ["pkis.box.com", "pkipolicies.box.com"];

impl Installed {
    /// Takes the finalizers off all Pkis, where nobody is there any more to see to them.
    pub(crate) fn release_pkis(&self) -> anyhow::Result<()> {
        // There may be no such kind.
        for pki in self.api.list("pkis", "", "", "").unwrap_or_default() {
            if !pki["metadata"]["finalizers"].is_null() {
                let (namespace, name) = place_of(&pki);
                let none = json!({"metadata": {"finalizers": null}});
                self.api.merge("pki", namespace, name, &none)?;
            }
        }
        Ok(())
    }

    /// Deletes all objects of a kind and waits until these very ones are gone. Somebody else, such
    /// as the controller of namespaces, may delete them too.
    pub(crate) fn delete_all(&self, kind: &str) {
        let list = || self.api.list(kind, "", "", "");
        let before = list().expect("they can be listed");
        for object in &before {
            let (namespace, name) = place_of(object);
            self.api
                .delete_later(kind, namespace, name)
                .expect("it is deleted");
        }
        eventually(&format!("the {kind} of before are gone"), || {
            let left = list().ok()?;
            let uid = |object: &Value| object["metadata"]["uid"].clone();
            let is_left = |object: &Value| left.iter().any(|it| uid(it) == uid(object));
            (!before.iter().any(is_left)).then_some(())
        });
    }

    /// Deletes both definitions, and every object with them.
    pub(crate) fn delete_definitions(&self) -> anyhow::Result<()> {
        for name in DEFINITIONS {
            self.api.delete_later("crd", "", name)?;
        }
        eventually("the definitions are deleted", || {
            (self.press_deletions().ok()? == 0).then_some(())
        });
        Ok(())
    }

    /// How many definitions are being deleted. An API server that meets the storage of one while
    /// that starts again puts the deletion off by minutes; any edit has it try at once.
    pub(crate) fn press_deletions(&self) -> anyhow::Result<usize> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut going = self.api.list("crd", "", "", "")?;
        going.retain(|crd| !crd["metadata"]["deletionTimestamp"].is_null());
        let number = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
        for crd in &going {
            let (_, name) = place_of(crd);
            // It may be gone by now.
            let _ = self.api.annotate("crd", "", name, "press", Some(&number));
        }
        Ok(going.len())
    }
}

/// Namespace and name of an object.
pub(super) fn place_of(object: &Value) -> (&str, &str) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    (text("namespace"), text("name"))
}
