//! Objects by the Secrets they name: which Pkis claim a Secret or take a password from it, which
//! pods use it.
//!
//! An index follows a watch ([`SecretIndex::apply`]) and answers without a scan. What it keeps of
//! each object is small, so that ten thousand pods cost hundreds of bytes each and not tens of
//! thousands.

use crate::k8s::object_key::Key;
use crate::k8s::relist::Relist;
use crate::util::sync;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use smallvec::SmallVec;
use std::borrow::Borrow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The part of an object that an index keeps.
pub trait ReferencesSecrets: PartialEq {
    /// The object's own key.
    fn key(&self) -> &Key;
    /// The Secrets of its namespace that it names.
    fn secrets(&self) -> impl Iterator<Item = &Arc<str>>;
}

/// Objects, findable by their own key and by the Secrets they name.
#[derive(Debug)]
pub struct SecretIndex<T> {
    objects: HashSet<ByKey<T>>,
    /// The objects that name a Secret, in the order of their names. Most often there is one.
    users: HashMap<Key, SmallVec<[Arc<T>; 2]>>,
    relist: Relist<Key>,
}

/// An object that is found by its key, which is not kept twice.
#[derive(Debug)]
struct ByKey<T>(Arc<T>);

impl<T: ReferencesSecrets> Borrow<Key> for ByKey<T> {
    fn borrow(&self) -> &Key {
        self.0.key()
    }
}

impl<T: ReferencesSecrets> Hash for ByKey<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key().hash(state);
    }
}

impl<T: ReferencesSecrets> PartialEq for ByKey<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl<T: ReferencesSecrets> Eq for ByKey<T> {}

impl<T> Default for SecretIndex<T> {
    fn default() -> Self {
        Self {
            objects: HashSet::new(),
            users: HashMap::new(),
            relist: Relist::default(),
        }
    }
}

/// An index that others read while a watch changes it.
#[derive(Debug)]
pub struct SharedIndex<T>(RwLock<SecretIndex<T>>);

impl<T> Default for SharedIndex<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T> SharedIndex<T> {
    /// The index as it is now. A change waits until the guard is dropped.
    pub fn read(&self) -> RwLockReadGuard<'_, SecretIndex<T>> {
        sync::read(&self.0)
    }

    /// The index, to change it.
    pub fn write(&self) -> RwLockWriteGuard<'_, SecretIndex<T>> {
        sync::write(&self.0)
    }
}

/// The change of one object.
#[derive(Debug)]
pub struct Change<T> {
    /// The object before, if it was known.
    pub before: Option<Arc<T>>,
    /// The object now, unless it is gone.
    pub after: Option<Arc<T>>,
}

impl<T: ReferencesSecrets> SecretIndex<T> {
    /// Follows the watch: returns what changed in the part that is kept, which is often nothing.
    pub fn apply(&mut self, event: Event<T>) -> Vec<Change<T>> {
        match event {
            Event::Apply(object) => self.insert(object).into_iter().collect(),
            Event::Delete(object) => self.remove(object.key()).into_iter().collect(),
            Event::Init => {
                let known = self.objects.iter().map(|ByKey(object)| object.key());
                self.relist.begin(known);
                Vec::new()
            }
            Event::InitApply(object) => {
                self.relist.name(object.key());
                self.insert(object).into_iter().collect()
            }
            Event::InitDone => {
                let gone = self.relist.end();
                gone.iter().filter_map(|key| self.remove(key)).collect()
            }
        }
    }

    /// As [`apply`](Self::apply), for an index of which only some objects are a part.
    pub fn apply_some<K: ResourceExt>(
        &mut self,
        event: &Event<K>,
        part: impl Fn(&K) -> Option<T>,
    ) -> Vec<Change<T>> {
        match event {
            Event::Apply(object) => match part(object) {
                Some(part) => self.insert(part).into_iter().collect(),
                None => self.remove(&Key::of(object)).into_iter().collect(),
            },
            Event::Delete(object) => self.remove(&Key::of(object)).into_iter().collect(),
            Event::Init => self.apply(Event::Init),
            // An object that the list does not name is removed at its end.
            Event::InitApply(object) => match part(object) {
                Some(part) => self.apply(Event::InitApply(part)),
                None => Vec::new(),
            },
            Event::InitDone => self.apply(Event::InitDone),
        }
    }

    /// The object of this key.
    pub fn get(&self, key: &Key) -> Option<&Arc<T>> {
        self.objects.get(key).map(|ByKey(object)| object)
    }

    /// All of them, in no order.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &Arc<T>> {
        self.objects.iter().map(|ByKey(object)| object)
    }

    /// The objects that name this Secret, by name.
    pub fn referencing(&self, secret: &Key) -> impl Iterator<Item = &Arc<T>> {
        self.users.get(secret).into_iter().flatten()
    }

    /// The Secrets that some object names.
    pub fn referenced(&self) -> impl Iterator<Item = &Key> {
        self.users.keys()
    }

    fn insert(&mut self, object: T) -> Option<Change<T>> {
        let known = self.get(object.key());
        if known.is_some_and(|known| **known == object) {
            return None;
        }
        let before = self.remove(object.key()).and_then(|change| change.before);
        let after = Arc::new(object);
        let key = after.key();
        for name in after.secrets() {
            let secret = key.beside(name);
            let users = self.users.entry(secret).or_default();
            if let Err(place) = place(users, key) {
                users.insert(place, after.clone());
            }
        }
        self.objects.insert(ByKey(after.clone()));
        Some(Change {
            before,
            after: Some(after),
        })
    }

    fn remove(&mut self, key: &Key) -> Option<Change<T>> {
        let ByKey(before) = self.objects.take(key)?;
        for name in before.secrets() {
            let secret = key.beside(name);
            if let Entry::Occupied(mut users) = self.users.entry(secret) {
                if let Ok(place) = place(users.get(), key) {
                    users.get_mut().remove(place);
                }
                if users.get().is_empty() {
                    users.remove();
                }
            }
        }
        Some(Change {
            before: Some(before),
            after: None,
        })
    }
}

/// Where the object of this key is, or would be.
fn place<T: ReferencesSecrets>(users: &[Arc<T>], key: &Key) -> Result<usize, usize> {
    users.binary_search_by(|user| user.key().cmp(key))
}

impl<T: ReferencesSecrets> Change<T> {
    /// Every Secret that the object named before or names now.
    pub fn secrets(&self) -> BTreeSet<Key> {
        let sides = self.before.iter().chain(&self.after);
        sides
            .flat_map(|object| {
                let secrets = object.secrets();
                secrets.map(|name| object.key().beside(name))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct User(Key, Vec<Arc<str>>);

    fn user(name: &str, secrets: &[&str]) -> User {
        let secrets = secrets.iter().map(|secret| Arc::from(*secret));
        User(Key::new("ns", name), secrets.collect())
    }

    impl ReferencesSecrets for User {
        fn key(&self) -> &Key {
            &self.0
        }
        fn secrets(&self) -> impl Iterator<Item = &Arc<str>> {
            self.1.iter()
        }
    }

    fn referencing<'a>(index: &'a SecretIndex<User>, secret: &str) -> Vec<&'a str> {
        index
            .referencing(&Key::new("ns", secret))
            .map(|user| &*user.0.name)
            .collect()
    }

    #[test]
    fn an_object_is_found_by_each_secret_it_names_until_it_names_another() {
        let mut index = SecretIndex::default();
        index.apply(Event::Apply(user("a", &["x", "y"])));
        index.apply(Event::Apply(user("b", &["x"])));
        assert_eq!(
            (referencing(&index, "x"), referencing(&index, "y")),
            (vec!["a", "b"], vec!["a"])
        );

        let changes = index.apply(Event::Apply(user("a", &["z"])));
        let secrets: Vec<_> = changes[0]
            .secrets()
            .into_iter()
            .map(|key| key.name)
            .collect();
        assert_eq!(secrets, ["x", "y", "z"].map(Arc::from));
        assert_eq!(
            (referencing(&index, "x"), referencing(&index, "y")),
            (vec!["b"], vec![])
        );

        index.apply(Event::Delete(user("b", &[])));
        assert!(referencing(&index, "x").is_empty() && index.users.len() == 1);
    }

    #[test]
    fn what_did_not_change_is_no_change() {
        let mut index = SecretIndex::default();
        assert_eq!(index.apply(Event::Apply(user("a", &["x"]))).len(), 1);
        assert!(index.apply(Event::Apply(user("a", &["x"]))).is_empty());
    }

    #[test]
    fn keys_of_one_namespace_share_its_name() {
        let key = |namespace: &str, name: &str| {
            let mut map = map(&[]);
            map.metadata.namespace = Some(namespace.into());
            map.metadata.name = Some(name.into());
            Key::of(&map)
        };
        let (a, b, other) = (key("shared", "a"), key("shared", "b"), key("other", "a"));
        assert!(Arc::ptr_eq(&a.namespace, &b.namespace));
        assert!(a != b && a != other);
        for number in 0..5000 {
            assert_eq!(
                *key(&format!("ns-{number}"), "a").namespace,
                format!("ns-{number}")
            );
        }
        assert!(Arc::ptr_eq(&a.namespace, &key("shared", "c").namespace));
        let long = "n".repeat(64);
        let (a, b) = (key(&long, "a"), key(&long, "b"));
        assert!(a.namespace == b.namespace && !Arc::ptr_eq(&a.namespace, &b.namespace));
    }

    #[test]
    fn a_new_list_removes_what_it_does_not_name() {
        let mut index = SecretIndex::default();
        for event in [
            Event::Apply(user("a", &["x"])),
            Event::Apply(user("b", &["x"])),
            Event::Init,
        ] {
            index.apply(event);
        }
        assert!(index.apply(Event::InitApply(user("b", &["x"]))).is_empty());
        assert_eq!(
            referencing(&index, "x"),
            ["a", "b"],
            "the old list serves until the new one is whole"
        );
        let gone = index.apply(Event::InitDone);
        assert!(gone.len() == 1 && gone[0].after.is_none());
        assert_eq!(referencing(&index, "x"), ["b"]);
    }

    /// Only a map with data is a part, and names what its key says.
    fn part(map: &k8s_openapi::api::core::v1::ConfigMap) -> Option<User> {
        let secrets: &[&str] = match map.data.as_ref()?.keys().next()?.as_str() {
            "x" => &["x"],
            _ => &["y"],
        };
        Some(user("a", secrets))
    }

    fn map(data: &[&str]) -> k8s_openapi::api::core::v1::ConfigMap {
        let mut map = k8s_openapi::api::core::v1::ConfigMap::default();
        (map.metadata.namespace, map.metadata.name) = (Some("ns".into()), Some("a".into()));
        map.data = Some(
            data.iter()
                .map(|key| ((*key).to_owned(), String::new()))
                .collect(),
        );
        map
    }

    #[test]
    fn what_is_no_part_of_an_index_any_more_is_removed_from_it() {
        let mut index = SecretIndex::default();
        let events = [
            (Event::Apply(map(&["x"])), ["a"].as_slice(), [].as_slice()),
            (Event::Apply(map(&["y"])), &[], &["a"]),
            (Event::Apply(map(&[])), &[], &[]),
            (Event::Apply(map(&["x"])), &["a"], &[]),
            (Event::Init, &["a"], &[]),
            (Event::InitApply(map(&["y"])), &[], &["a"]),
            (Event::InitDone, &[], &["a"]),
            (Event::Init, &[], &["a"]),
            (Event::InitApply(map(&[])), &[], &["a"]),
            (Event::InitDone, &[], &[]),
            (Event::Apply(map(&["x"])), &["a"], &[]),
            (Event::Delete(map(&["x"])), &[], &[]),
        ];
        for (event, x, y) in events {
            index.apply_some(&event, part);
            assert_eq!(
                (&*referencing(&index, "x"), &*referencing(&index, "y")),
                (x, y),
                "{event:?}"
            );
        }
    }
}
