//! Merges the watches of a list of namespaces into one.

use super::merger::Merger;
use super::{List, Named};
use crate::k8s::tolerant::{self, Lenient};
use crate::util::sync::lock;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, future, stream};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Between two attempts to read what may not be read.
const PAUSE: Duration = Duration::from_secs(15);

/// The events of the watches of a list, in its order, as those of one. If `may_be_refused`, a
/// namespace that may not be read counts as read, and keeps nobody waiting for the others.
pub(super) fn merged<K>(
    what: &'static str,
    list: Arc<List>,
    watches: Vec<impl Stream<Item = watcher::Result<Event<K>>> + Send + Unpin + 'static>,
    may_be_refused: bool,
) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource + Named + Send + 'static,
{
    let namespaces: Vec<_> = list.namespaces.iter().cloned().collect();
    let watches = watches.into_iter().enumerate();
    let watches = watches.map(|(place, watch)| watch.map(move |event| (place, event)));
    let mut merger = Merger::of(namespaces.iter().cloned());
    let access = Access { list, what };
    let events = stream::select_all(watches).flat_map(move |(place, event)| {
        let namespace = &namespaces[place];
        let events = match event {
            Ok(event) => {
                // A list that has begun may still be refused.
                if !matches!(event, Event::Init | Event::InitApply(_)) {
                    access.note_permitted(namespace);
                }
                merger.take(place, event)
            }
            Err(error) if is_forbidden(&error) => {
                access.note_refused(namespace, &error);
                if may_be_refused {
                    merger.give_up(place)
                } else {
                    Vec::new()
                }
            }
            Err(error) => {
                tracing::warn!(what, namespace, %error, "failed to watch; retrying");
                Vec::new()
            }
        };
        stream::iter(events)
    });
    stream::once(future::ready(Event::Init)).chain(events)
}

/// A watch that begins with a list after it was refused. A watch that is continued would yield
/// nothing after the permission is given, until something happens in the namespace.
pub(super) fn watch_until_permitted<K>(
    api: Api<Lenient<K>>,
    config: watcher::Config,
) -> BoxStream<'static, watcher::Result<Event<K>>>
where
    K: Resource + DeserializeOwned + Clone + fmt::Debug + Send + 'static,
{
    let begin = move || tolerant::try_watch(api.clone(), config.clone()).boxed();
    let events = stream::unfold((Some(begin()), begin), |(watch, begin)| async move {
        let mut watch = if let Some(watch) = watch {
            watch
        } else {
            tokio::time::sleep(PAUSE).await;
            begin()
        };
        let event = watch.next().await?;
        let is_refused = event.as_ref().is_err_and(is_forbidden);
        Some((event, ((!is_refused).then_some(watch), begin)))
    });
    events.boxed()
}

fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.is_forbidden(),
        _ => false,
    }
}

/// Keeps note of what one watch may not read, for as long as there is the watch.
struct Access {
    list: Arc<List>,
    what: &'static str,
}

impl Access {
    fn note_refused(&self, namespace: &str, error: &watcher::Error) {
        let entry = (namespace.to_owned(), self.what);
        if lock(&self.list.refused).insert(entry) {
            tracing::error!(
                namespace, what = self.what, %error,
                "the operator may not read a namespace that it serves: check that the namespace exists, and install the chart with it in the value \
                 namespaces; or remove it from that list"
            );
        }
    }

    fn note_permitted(&self, namespace: &str) {
        let entry = (namespace.to_owned(), self.what);
        if lock(&self.list.refused).remove(&entry) {
            tracing::info!(namespace, what = self.what, "the namespace may be read now");
        }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        lock(&self.list.refused).retain(|(_, what)| *what != self.what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::scope::Scope;
    use futures::FutureExt;
    use futures::channel::mpsc::{UnboundedSender, unbounded};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::core::{PartialObjectMeta, Status};

    type Object = PartialObjectMeta<ConfigMap>;
    type Told = watcher::Result<Event<Object>>;

    /// A list of two, a watch of both, and the ways to tell what each of them meets.
    struct Bench {
        scope: Scope,
        events: BoxStream<'static, Event<Object>>,
        watches: [UnboundedSender<Told>; 2],
    }

    impl Bench {
        fn new(may_be_refused: bool) -> Self {
            let scope = Scope::of(["a", "b"].map(str::to_owned));
            let Scope::Namespaces(list) = &scope else {
                panic!("{scope:?}")
            };
            let (a, a_told) = unbounded();
            let (b, b_told) = unbounded();
            let events = merged("pods", list.clone(), vec![a_told, b_told], may_be_refused);
            Self {
                events: events.boxed(),
                watches: [a, b],
                scope,
            }
        }

        /// How many events come of this one, which `a` or `b` meets.
        fn meets(&mut self, place: usize, told: Told) -> usize {
            self.watches[place].unbounded_send(told).unwrap();
            // A stream of several gives way now and then while there is more to come.
            let polls = (0..10).map(|_| self.events.next().now_or_never());
            polls.flatten().count()
        }

        fn refused(&self) -> Vec<String> {
            let refused = self.scope.refused().into_iter();
            let words = refused.map(|(namespace, what)| format!("{namespace} {}", what.join(" ")));
            words.collect()
        }
    }

    fn error(reason: &str) -> Told {
        let status = Status::failure("no", reason).boxed();
        Err(watcher::Error::InitialListFailed(kube::Error::Api(status)))
    }

    #[test]
    fn a_namespace_that_may_not_be_read_is_named_until_it_may() {
        let mut bench = Bench::new(true);
        assert_eq!(bench.meets(0, Ok(Event::Init)), 1, "the list begins");
        assert_eq!(bench.meets(0, Ok(Event::InitDone)), 0);
        assert_eq!(
            bench.meets(1, error("InternalError")),
            0,
            "that may mend itself soon"
        );
        assert!(bench.refused().is_empty());
        assert_eq!(bench.meets(1, error("Forbidden")), 1, "the list is done");
        assert_eq!(bench.refused(), ["b pods"]);
        assert!(bench.scope.is_served(), "in part");
        bench.meets(0, error("Forbidden"));
        assert!(!bench.scope.is_served());
        for (told, refused) in [
            (Ok(Event::Init), &["a pods", "b pods"][..]),
            (error("InternalError"), &["a pods", "b pods"]),
            (Ok(Event::InitDone), &["a pods"]),
        ] {
            bench.meets(1, told);
            assert_eq!(bench.refused(), refused);
        }
        drop(bench.events);
        assert!(bench.scope.refused().is_empty(), "nobody asks any more");
    }

    #[test]
    fn nothing_is_concluded_from_a_list_of_namespaces_that_is_refused() {
        let mut bench = Bench::new(false);
        bench.meets(0, Ok(Event::InitDone));
        assert_eq!(bench.meets(1, error("Forbidden")), 0);
        assert_eq!(bench.refused(), ["b pods"]);
        assert_eq!(bench.meets(1, Ok(Event::InitDone)), 1);
    }
}
