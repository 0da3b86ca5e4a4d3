//! Projections of objects, made while they are read: a whole page of five hundred pods would take
//! up ten megabytes until the last pod is handled.

use crate::k8s::scope::Named;
use kube::Resource;
use kube::core::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;

/// The part of an object that is kept.
pub(crate) trait Projection: Clone + fmt::Debug + Send + 'static {
    /// The object, as the API server sends it.
    type Whole: Resource<DynamicType = ()> + DeserializeOwned + Named;

    /// Takes what is kept out of it.
    fn of(whole: Self::Whole) -> Self;
}

/// An object as a watch needs it, with what is kept of it.
#[derive(Clone, Debug)]
pub(crate) struct Projected<T> {
    /// Namespace, name and resource version.
    meta: ObjectMeta,
    /// The part that is kept.
    pub(crate) kept: T,
}

impl<T: Projection> Projected<T> {
    fn of(whole: T::Whole) -> Self {
        let meta = whole.meta();
        Self {
            meta: ObjectMeta {
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
                resource_version: meta.resource_version.clone(),
                ..ObjectMeta::default()
            },
            kept: T::of(whole),
        }
    }
}

impl<'de, T: Projection> Deserialize<'de> for Projected<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::Whole::deserialize(deserializer).map(Self::of)
    }
}

impl<T: Projection> Named for Projected<T> {
    fn with(metadata: ObjectMeta) -> Self {
        Self::of(T::Whole::with(metadata))
    }
}

impl<T: Projection> Resource for Projected<T> {
    type DynamicType = ();
    type Scope = <T::Whole as Resource>::Scope;

    fn metadata_api() -> bool {
        T::Whole::metadata_api()
    }

    fn kind((): &()) -> Cow<'_, str> {
        T::Whole::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        T::Whole::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        T::Whole::version(&())
    }

    fn api_version((): &()) -> Cow<'_, str> {
        T::Whole::api_version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        T::Whole::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}
