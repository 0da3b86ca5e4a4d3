//! Finds the objects that are gone when a watch lists anew.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;

/// The known keys that a list has not named so far.
#[derive(Debug)]
pub struct Relist<K>(HashSet<K>);

impl<K> Default for Relist<K> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<K: Clone + Eq + Hash> Relist<K> {
    /// Begins a list. These keys are known from before.
    pub fn begin<'a>(&mut self, known: impl Iterator<Item = &'a K>)
    where
        K: 'a,
    {
        self.0 = known.cloned().collect();
    }

    /// Notes that the list, or the watch meanwhile, names a key.
    pub fn name<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.0.remove(key);
    }

    /// Ends the list. Returns the keys that are gone.
    pub fn end(&mut self) -> HashSet<K> {
        std::mem::take(&mut self.0)
    }
}
