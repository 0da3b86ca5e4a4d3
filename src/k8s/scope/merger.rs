//! One stream of events out of those of several watches, each of a namespace of its own: on plain
//! data, without I/O.
//!
//! The first lists of all watches become one list, which is done when the last of them is. A watch
//! that lists again later yields a change for each object that it finds, and a deletion for each
//! that it does not find, so that other namespaces stay untouched. For that the names of all
//! objects are kept.

use super::Named;
use crate::k8s::relist::Relist;
use kube::core::ObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use std::collections::HashSet;

/// Merges the events. The caller emits [`Event::Init`] before the first of them.
#[derive(Debug)]
pub(super) struct Merger {
    sources: Vec<Source>,
    /// Whether the first lists are done.
    is_whole: bool,
}

/// State of the watch of one namespace.
#[derive(Debug, Default)]
struct Source {
    namespace: String,
    /// The objects that were emitted.
    names: HashSet<Box<str>>,
    relist: Relist<Box<str>>,
    /// The objects whose deletion has yet to be emitted.
    gone: HashSet<Box<str>>,
    /// Whether the first list of this watch is done or given up.
    is_listed: bool,
}

impl Merger {
    /// One for the watches of these namespaces, which are known by their place from then on.
    pub(super) fn of(namespaces: impl IntoIterator<Item = String>) -> Self {
        let sources = namespaces.into_iter().map(|namespace| Source {
            namespace,
            ..Source::default()
        });
        Self {
            sources: sources.collect(),
            is_whole: false,
        }
    }

    /// Translates an event of one watch into events of the merged watch.
    pub(super) fn take<K: Resource + Named>(
        &mut self,
        place: usize,
        event: Event<K>,
    ) -> Vec<Event<K>> {
        let source = &mut self.sources[place];
        match event {
            Event::Init => {
                source.relist.begin(source.names.iter());
                Vec::new()
            }
            Event::InitApply(object) | Event::Apply(object) => {
                source.add(&object.name_any());
                let event = if self.is_whole {
                    Event::Apply
                } else {
                    Event::InitApply
                };
                vec![event(object)]
            }
            Event::Delete(object) => {
                source.remove(object.name_any().into());
                self.flush()
            }
            Event::InitDone => {
                for name in source.relist.end() {
                    source.remove(name);
                }
                source.is_listed = true;
                self.flush()
            }
        }
    }

    /// The others do not wait for this watch any more, which may not list.
    pub(super) fn give_up<K: Named>(&mut self, place: usize) -> Vec<Event<K>> {
        self.sources[place].is_listed = true;
        self.flush()
    }

    /// Emits the end of the first lists, once all are done, and the deletions after that.
    fn flush<K: Named>(&mut self) -> Vec<Event<K>> {
        let mut events = Vec::new();
        if !self.is_whole {
            if !self.sources.iter().all(|source| source.is_listed) {
                return events;
            }
            self.is_whole = true;
            events.push(Event::InitDone);
        }
        for source in &mut self.sources {
            let namespace = &source.namespace;
            let gone = source.gone.drain().map(|name| ObjectMeta {
                name: Some(name.into()),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            });
            events.extend(gone.map(|metadata| Event::Delete(K::with(metadata))));
        }
        events
    }
}

impl Source {
    fn add(&mut self, name: &str) {
        self.relist.name(name);
        self.gone.remove(name);
        if !self.names.contains(name) {
            self.names.insert(name.into());
        }
    }

    fn remove(&mut self, name: Box<str>) {
        self.relist.name(&name);
        if self.names.remove(&name) {
            self.gone.insert(name);
        }
    }
}

#[cfg(test)]
mod tests;
