//! A fair queue of keys, round robin by namespace: a namespace with a thousand keys delays another
//! one by one key.

use crate::k8s::object_key::Key;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The keys that wait. Within a namespace they are served in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Fair {
    /// The namespaces with keys, each once, the next one first.
    turns: VecDeque<Arc<str>>,
    waiting: HashMap<Arc<str>, VecDeque<Key>>,
}

impl Fair {
    /// Adds a key at the end of its namespace.
    pub(crate) fn push(&mut self, key: Key) {
        let namespace = key.namespace.clone();
        let of_namespace = self.waiting.entry(namespace.clone()).or_default();
        if of_namespace.is_empty() {
            self.turns.push_back(namespace);
        }
        of_namespace.push_back(key);
    }

    /// Takes the next key. A namespace that is not `allowed` loses its turn, and a key that is not
    /// `wanted` any more is dropped.
    pub(crate) fn pop(
        &mut self,
        allowed: impl Fn(&str) -> bool,
        wanted: impl Fn(&Key) -> bool,
    ) -> Option<Key> {
        for _ in 0..self.turns.len() {
            let namespace = self.turns.pop_front()?;
            if !allowed(&namespace) {
                self.turns.push_back(namespace);
                continue;
            }
            let Some(of_namespace) = self.waiting.get_mut(&namespace) else {
                continue;
            };
            let key = std::iter::from_fn(|| of_namespace.pop_front()).find(&wanted);
            if of_namespace.is_empty() {
                self.waiting.remove(&namespace);
            } else {
                self.turns.push_back(namespace);
            }
            if key.is_some() {
                return key;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fair(keys: &[&str]) -> Fair {
        let mut fair = Fair::default();
        for key in keys {
            let (namespace, name) = key.split_once('/').unwrap();
            fair.push(Key::new(namespace, name));
        }
        fair
    }

    fn all(
        fair: &mut Fair,
        allowed: impl Fn(&str) -> bool,
        wanted: impl Fn(&Key) -> bool,
    ) -> String {
        let keys = std::iter::from_fn(|| fair.pop(&allowed, &wanted));
        let keys: Vec<_> = keys.map(|key| key.to_string()).collect();
        keys.join(" ")
    }

    #[test]
    fn namespaces_take_turns_and_keep_their_own_order() {
        for (pushed, popped) in [
            (&["a/1", "a/2", "a/3", "b/1"][..], "a/1 b/1 a/2 a/3"),
            (&["a/2", "a/1", "b/2", "c/1", "b/1"], "a/2 b/2 c/1 a/1 b/1"),
            (&[], ""),
        ] {
            let mut fair = fair(pushed);
            assert_eq!(all(&mut fair, |_| true, |_| true), popped);
            assert!(fair.turns.is_empty() && fair.waiting.is_empty(), "{fair:?}");
        }
    }

    #[test]
    fn a_namespace_that_comes_later_waits_for_one_key_of_each_other() {
        let keys: Vec<_> = (0..150).map(|number| format!("flood/{number}")).collect();
        let mut fair = fair(&keys.iter().map(String::as_str).collect::<Vec<_>>());
        for _ in 0..3 {
            fair.pop(|_| true, |_| true).unwrap();
        }
        fair.push(Key::new("other", "1"));
        let next = [0, 1].map(|_| fair.pop(|_| true, |_| true).unwrap().to_string());
        assert_eq!(next, ["flood/3", "other/1"]);
    }

    #[test]
    fn what_is_not_wanted_any_more_takes_no_turn_and_what_is_not_allowed_stays() {
        let mut fair = fair(&["a/1", "a/2", "b/1", "b/2", "c/1"]);
        let wanted = |key: &Key| &*key.name != "1";
        assert_eq!(all(&mut fair, |namespace| namespace != "a", wanted), "b/2");
        assert_eq!(all(&mut fair, |_| true, wanted), "a/2");
        assert!(fair.turns.is_empty() && fair.waiting.is_empty(), "{fair:?}");
    }
}
