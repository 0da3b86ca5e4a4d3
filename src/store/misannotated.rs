//! Objects of which nothing is kept but annotations and labels without an effect.

use super::Cache;
use crate::api::annotations::Carrier;
use crate::store::ignored::{Ignored, MisannotatedObject};
use crate::store::secret_index::SecretIndex;
use crate::util::sync::lock;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use std::sync::Arc;

impl Cache {
    /// Follows the watch of objects of which nothing else is kept, for their annotations and labels
    /// without an effect.
    pub fn watch_misannotated<K: ResourceExt>(&self, carrier: Carrier, event: &Event<K>) {
        let mut misannotated = lock(&self.misannotated);
        let known = misannotated.entry(carrier).or_default();
        let changes = known.apply_some(event, |object| MisannotatedObject::of(carrier, object));
        if !changes.is_empty() {
            self.ignored_changed.notify_one();
        }
    }

    /// The objects of which nothing is kept but annotations and labels without an effect.
    pub fn misannotated(&self) -> Vec<(Carrier, Arc<MisannotatedObject>)> {
        let misannotated = lock(&self.misannotated);
        let of_carrier = |(carrier, objects): (&Carrier, &SecretIndex<MisannotatedObject>)| {
            let (carrier, objects) = (*carrier, objects.all().cloned());
            objects
                .map(move |object| (carrier, object))
                .collect::<Vec<_>>()
        };
        misannotated.iter().flat_map(of_carrier).collect()
    }

    /// Drops what is kept of objects that are no longer watched.
    pub fn forget_misannotated(&self, is_watched: impl Fn(Carrier) -> bool) {
        lock(&self.misannotated).retain(|carrier, _| is_watched(*carrier));
    }

    /// Returns when an annotation or label without an effect may have come since the last call. For
    /// one listener.
    pub async fn ignored_changed(&self) {
        self.ignored_changed.notified().await;
    }

    /// Notifies the listener if one of these objects has such entries.
    pub(super) fn note_ignored<'a>(&self, mut changed: impl Iterator<Item = &'a Ignored>) {
        if changed.any(|ignored| !ignored.is_empty()) {
            self.ignored_changed.notify_one();
        }
    }
}
