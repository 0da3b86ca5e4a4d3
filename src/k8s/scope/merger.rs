//! One stream of events out of those of several watches, each of a namespace of its own: on plain
//! data, without I/O.
//!
//! The first lists of all become one list, which is done when the last of them is. After that a
//! watch that lists anew tells of what it finds as if it had changed, and of what it does not find
//! any more as deleted, so that nothing of the other namespaces is touched. For that the names of
//! all objects are kept, and nothing else of them.

use super::Named;
use kube::core::ObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use std::collections::HashSet;

/// The merger. Whoever follows has been told [`Event::Init`] before the first event that it lets
/// through.
#[derive(Debug)]
pub(super) struct Merger {
    sources: Vec<Source>,
    /// Whether the first lists are done.
    is_whole: bool,
}

/// What is known of one namespace.
#[derive(Debug, Default)]
struct Source {
    namespace: String,
    /// The objects that were told of.
    names: HashSet<Box<str>>,
    /// While it lists anew: those that the list has not named so far.
    unlisted: HashSet<Box<str>>,
    /// Those that are gone, which has yet to be told.
    gone: HashSet<Box<str>>,
    /// Whether the others need not wait for it any more.
    is_settled: bool,
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

    /// What an event of one watch is to those who follow all.
    pub(super) fn take<K: Resource + Named>(
        &mut self,
        place: usize,
        event: Event<K>,
    ) -> Vec<Event<K>> {
        let source = &mut self.sources[place];
        match event {
            Event::Init => {
                source.unlisted = source.names.clone();
                Vec::new()
            }
            Event::InitApply(object) | Event::Apply(object) => {
                source.see(&object.name_any());
                let event = if self.is_whole {
                    Event::Apply
                } else {
                    Event::InitApply
                };
                vec![event(object)]
            }
            Event::Delete(object) => {
                source.lose(object.name_any().into());
                self.tell()
            }
            Event::InitDone => {
                for name in std::mem::take(&mut source.unlisted) {
                    source.lose(name);
                }
                source.is_settled = true;
                self.tell()
            }
        }
    }

    /// The others do not wait for this watch any more, which may not list.
    pub(super) fn give_up<K: Named>(&mut self, place: usize) -> Vec<Event<K>> {
        self.sources[place].is_settled = true;
        self.tell()
    }

    /// That the first lists are done, if they are; and then, what is gone.
    fn tell<K: Named>(&mut self) -> Vec<Event<K>> {
        let mut events = Vec::new();
        if !self.is_whole {
            if !self.sources.iter().all(|source| source.is_settled) {
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
    fn see(&mut self, name: &str) {
        self.unlisted.remove(name);
        self.gone.remove(name);
        if !self.names.contains(name) {
            self.names.insert(name.into());
        }
    }

    fn lose(&mut self, name: Box<str>) {
        self.unlisted.remove(&name);
        if self.names.remove(&name) {
            self.gone.insert(name);
        }
    }
}

#[cfg(test)]
mod tests;
