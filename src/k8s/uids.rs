//! The UIDs of objects by their keys: one that was deleted and made again has another UID.

use crate::k8s::object_key::Key;
use crate::k8s::relist::Relist;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use std::collections::HashMap;
use std::sync::Arc;

/// The UID of each object of a kind, by its key.
#[derive(Debug, Default)]
pub(crate) struct Uids {
    known: HashMap<Key, Arc<str>>,
    relist: Relist<Key>,
}

impl Uids {
    /// Follows the watch.
    pub(crate) fn apply<K: Resource<DynamicType = ()>>(
        &mut self,
        event: &Event<PartialObjectMeta<K>>,
    ) {
        match event {
            Event::Init => self.relist.begin(self.known.keys()),
            Event::InitApply(object) | Event::Apply(object) => {
                let (key, uid) = (Key::of(object), object.uid().unwrap_or_default());
                self.relist.name(&key);
                self.known.insert(key, uid.into());
            }
            Event::Delete(object) => drop(self.known.remove(&Key::of(object))),
            Event::InitDone => {
                let gone = self.relist.end();
                self.known.retain(|key, _| !gone.contains(key));
            }
        }
    }

    /// The UID of the object that has this key now.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<str>> {
        self.known.get(key).cloned()
    }

    /// The UID of the object of this name, of a kind without namespaces.
    pub(crate) fn of_name(&self, name: &str) -> Option<Arc<str>> {
        self.get(&Key::new("", name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Namespace;
    use serde_json::json;

    fn namespace(name: &str, uid: &str) -> PartialObjectMeta<Namespace> {
        serde_json::from_value(json!({"metadata": {"name": name, "uid": uid}})).unwrap()
    }

    #[test]
    fn a_namespace_that_is_made_again_has_another_uid() {
        let mut uids = Uids::default();
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
            assert_eq!(uids.of_name("a").as_deref(), a, "{event:?}");
        }
        assert_eq!(uids.of_name("b"), None, "the list did not name it");
    }
}
