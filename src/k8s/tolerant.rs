//! Objects as anybody may have written them.
//!
//! Anybody who may update an object may write its `managedFields`. The API server takes times there
//! that the library cannot read (the last two hours of the year 9999). One such object must neither
//! keep a whole list from being read nor its Secret from being repaired, so a time that cannot be
//! read is left out.

use futures::{Stream, StreamExt, TryStreamExt, future};
use jiff::Timestamp;
use k8s_openapi::serde::de::{DeserializeOwned, Error as _};
use kube::core::ObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::borrow::Cow;

/// An object that is read in spite of times in its `managedFields` that cannot be.
#[derive(Clone, Debug)]
pub struct Lenient<K>(pub K);

impl<'de, K: DeserializeOwned> Deserialize<'de> for Lenient<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Value::deserialize(deserializer)?;
        drop_unreadable_times(&mut object);
        let read = serde_json::from_value(object).map_err(D::Error::custom)?;
        Ok(Self(read))
    }
}

/// Leaves out the times in an object's `managedFields` that cannot be read. Whether there were any.
pub fn drop_unreadable_times(object: &mut Value) -> bool {
    let mut is_changed = false;
    let managed = object.pointer_mut("/metadata/managedFields");
    let entries = managed.and_then(Value::as_array_mut).into_iter().flatten();
    for entry in entries.filter_map(Value::as_object_mut) {
        let is_readable = |time: &Value| {
            let time = time.as_str().map(str::parse::<Timestamp>);
            time.is_some_and(|time| time.is_ok())
        };
        if entry.get("time").is_some_and(|time| !is_readable(time)) {
            entry.remove("time");
            is_changed = true;
        }
    }
    is_changed
}

impl<K: Serialize> Serialize for Lenient<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<K: Resource> Resource for Lenient<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    /// Forgotten, whole objects would come where metadata alone is asked for.
    fn metadata_api() -> bool {
        K::metadata_api()
    }

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn api_version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::api_version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

/// The number of objects in a page of a list. Anybody who may store objects may make each as large
/// as the API server takes, 1.5 MiB, and a page is in memory twice while it is read.
const PAGE: u32 = 50;

/// A watch, of metadata alone where `K` is that. One that breaks is taken up again, with a growing
/// pause.
pub(crate) fn try_watch<K>(
    api: Api<Lenient<K>>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K>
where
    K: Resource + DeserializeOwned + Clone + std::fmt::Debug + Send + 'static,
{
    let events = watcher(api, config.page_size(PAGE)).default_backoff();
    events.map_ok(|event| map(event, |Lenient(object)| object))
}

/// A watch that logs its errors and goes on.
pub(crate) fn watch<K>(
    what: &'static str,
    api: Api<Lenient<K>>,
    config: watcher::Config,
) -> impl Stream<Item = Event<K>> + Send + use<K>
where
    K: Resource + DeserializeOwned + Clone + std::fmt::Debug + Send + 'static,
{
    try_watch(api, config)
        .inspect_err(move |error| {
            tracing::warn!(what, %error, "failed to watch; retrying");
        })
        .filter_map(|event| future::ready(event.ok()))
}

/// The event of a watch, about something made of the object.
pub fn map<K, T>(event: Event<K>, f: impl FnOnce(K) -> T) -> Event<T> {
    match event {
        Event::Apply(object) => Event::Apply(f(object)),
        Event::Delete(object) => Event::Delete(f(object)),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(f(object)),
        Event::InitDone => Event::InitDone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Secret;
    use kube::core::PartialObjectMeta;
    use serde_json::json;

    #[test]
    fn of_what_is_wanted_as_metadata_nothing_else_is_asked_for() {
        assert!(Lenient::<PartialObjectMeta<Secret>>::metadata_api());
        assert!(!Lenient::<Secret>::metadata_api());
    }

    #[test]
    fn a_time_that_cannot_be_read_is_left_out_and_the_rest_is_read() {
        let secret = json!({"metadata": {"name": "a", "managedFields": [
            {"manager": "x", "time": "9999-12-31T23:59:59Z"}, {"manager": "y", "time": "2030-01-01T00:00:00Z"},
            {"manager": "z", "time": 5}, {"manager": "none"},
        ]}});
        assert!(
            serde_json::from_value::<Secret>(secret.clone()).is_err(),
            "else this is not needed"
        );
        let Lenient(read) = serde_json::from_value::<Lenient<Secret>>(secret).unwrap();
        let managed = read.metadata.managed_fields.unwrap();
        let times: Vec<_> = managed.iter().map(|entry| entry.time.is_some()).collect();
        assert_eq!(times, [false, true, false, false]);
        assert_eq!(read.metadata.name.as_deref(), Some("a"));
    }
}
