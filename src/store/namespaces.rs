//! The UIDs of namespaces: one that was deleted and made again has another one, and another tenant.

use crate::k8s::relist::Relist;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use std::collections::HashMap;
use std::sync::Arc;

/// The UID of each namespace, by its name.
#[derive(Debug, Default)]
pub(super) struct NamespaceUids {
    known: HashMap<String, Arc<str>>,
    relist: Relist<String>,
}

impl NamespaceUids {
    /// Follows the watch.
    pub(super) fn apply(&mut self, event: &Event<PartialObjectMeta<Namespace>>) {
        match event {
            Event::Init => self.relist.begin(self.known.keys()),
            Event::InitApply(namespace) | Event::Apply(namespace) => {
                let (name, uid) = (namespace.name_any(), namespace.uid().unwrap_or_default());
                self.relist.name(&name);
                self.known.insert(name, uid.into());
            }
            Event::Delete(namespace) => drop(self.known.remove(&namespace.name_any())),
            Event::InitDone => {
                let gone = self.relist.end();
                self.known.retain(|name, _| !gone.contains(name));
            }
        }
    }

    /// The UID of the namespace that has this name now.
    pub(super) fn get(&self, name: &str) -> Option<Arc<str>> {
        self.known.get(name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn namespace(name: &str, uid: &str) -> PartialObjectMeta<Namespace> {
        serde_json::from_value(json!({"metadata": {"name": name, "uid": uid}})).unwrap()
    }

    #[test]
    fn a_namespace_that_is_made_again_has_another_uid() {
        let mut uids = NamespaceUids::default();
        for (event, a) in [
            (Event::Init, None),
            (Event::InitApply(namespace("a", "1")), Some("1")),
            (Event::InitDone, Some("1")),
            (Event::Apply(namespace("b", "2")), Some("1")),
            (Event::Delete(namespace("a", "1")), None),
            (Event::Apply(namespace("a", "3")), Some("3")),
            (Event::Init, Some("3")),
            (Event::InitApply(namespace("a", "4")), Some("4")),
            (Event::InitDone, Some("4")),
        ] {
            uids.apply(&event);
            assert_eq!(uids.get("a").as_deref(), a, "{event:?}");
        }
        assert_eq!(uids.get("b"), None, "the list did not name it");
    }
}
