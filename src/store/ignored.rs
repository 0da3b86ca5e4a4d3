//! The annotations and labels of `box.com/` that have no effect, as the caches keep them of each
//! watched object.

use crate::api::annotations::{self, Carrier, MAX_FAULTS, Place};
use crate::k8s::object_key::Key;
use crate::store::secret_index::ReferencesSecrets;
use crate::util::text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use std::sync::Arc;

/// The most bytes that are kept of a value: more than any valid one has.
const MAX_VALUE_BYTES: usize = 256;

/// The entries of an object's metadata that have no effect. Most objects have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignored(Option<Box<Entries>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entries {
    uid: String,
    entries: Box<[Entry]>,
}

/// Where it stands, its key and its value.
type Entry = (Place, Box<str>, Box<str>);

impl Ignored {
    /// The entries of these metadata. An object that is being deleted has none.
    pub fn of(carrier: Carrier, meta: &ObjectMeta) -> Self {
        if meta.deletion_timestamp.is_some() {
            return Self::default();
        }
        let entries = annotations::entries(meta)
            .filter(|(place, key, value)| annotations::fault(carrier, *place, key, value).is_some())
            .take(MAX_FAULTS)
            .map(|(place, key, value)| {
                (
                    place,
                    key.into(),
                    text::start(value, MAX_VALUE_BYTES).into(),
                )
            });
        let entries: Box<[_]> = entries.collect();
        let uid = || meta.uid.clone().unwrap_or_default();
        Self((!entries.is_empty()).then(|| {
            Box::new(Entries {
                uid: uid(),
                entries,
            })
        }))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The UID of the object, and the faults of these entries on such an object, each with its
    /// field. `None` if all of them have an effect there.
    pub fn faults(&self, carrier: Carrier) -> Option<(&str, Vec<String>)> {
        let Entries { uid, entries } = self.0.as_deref()?;
        let faults = entries.iter().filter_map(|(place, key, value)| {
            annotations::field_fault(carrier, *place, key, value)
        });
        let faults: Vec<_> = faults.collect();
        (!faults.is_empty()).then_some((uid, faults))
    }
}

/// An object with such entries of which the caches keep nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MisannotatedObject {
    /// The key of the object.
    pub key: Key,
    /// Its entries.
    pub ignored: Ignored,
}

impl MisannotatedObject {
    /// `None` if all of its entries have an effect.
    pub fn of(carrier: Carrier, object: &impl ResourceExt) -> Option<Self> {
        let ignored = Ignored::of(carrier, object.meta());
        let key = || Key::of(object);
        (!ignored.is_empty()).then(|| Self {
            key: key(),
            ignored,
        })
    }
}

/// An index finds it by its key alone.
impl ReferencesSecrets for MisannotatedObject {
    fn key(&self) -> &Key {
        &self.key
    }

    fn secrets(&self) -> impl Iterator<Item = &Arc<str>> {
        std::iter::empty()
    }
}
