//! The cache of Pkis: what the watch delivers, and own writes that it has not delivered yet.

use super::after;
use crate::api::Pki;
use crate::k8s::object_key::Key;
use crate::k8s::secret;
use crate::k8s::tolerant::map;
use crate::store::cached_pki::KnownPki;
use crate::store::claims;
use crate::store::secret_index::{Change, ReferencesSecrets as _, SecretIndex};
use crate::store::watched::Watched;
use crate::store::{Cache, Removal};
use crate::util::sync::lock;
use crate::util::time::whole_second;
use jiff::Timestamp;
use kube::runtime::watcher::Event;
use std::sync::Arc;

impl Cache {
    /// Applies an event of the watch of Pkis. `affected` collects the Pkis to reconcile until a
    /// list is complete: half of the claimants of a Secret must not seem to be all.
    pub(super) fn apply_pki(&self, event: Event<KnownPki>, affected: &mut Vec<Key>) {
        let is_listing = matches!(event, Event::Init | Event::InitApply(_));
        let is_done = matches!(event, Event::InitDone);
        let mut pkis = self.pkis.write();
        let event = map(event, |watched| unless_behind(watched, &pkis));
        let changes = pkis.apply(event);
        affected.extend(affected_by(&pkis, &changes));
        drop(pkis);
        self.note_ignored(after(&changes).map(|pki| &pki.ignored));
        for change in &changes {
            self.note_removal(change);
            if let Some(pki) = change.after.as_ref().or(change.before.as_ref()) {
                self.touched.note(&pki.key().namespace);
            }
        }
        if !is_listing {
            self.trigger_affected(std::mem::take(affected));
        }
        if is_done {
            self.mark(Watched::Pkis);
        }
    }

    /// Records the Secret that is removed with a deleted Pki.
    fn note_removal(&self, change: &Change<KnownPki>) {
        let is_gone = change
            .after
            .as_ref()
            .is_none_or(|pki| pki.is_being_deleted());
        let before = change.before.as_ref().filter(|_| is_gone);
        let claimed = before.and_then(|pki| Some((pki, pki.claimed()?)));
        let Some((known, secret)) = claimed else {
            return;
        };
        let secret = known.key().beside(secret);
        let Ok(pki) = known.unpack().0 else { return };
        if secret::is_kept(&pki) {
            return;
        }
        let status = pki.status.as_ref();
        let removal = Removal {
            pki: known.key().name.clone(),
            at: whole_second(Timestamp::now()),
            was_written: status.is_some_and(|status| status.serial_number.is_some()),
        };
        let uid = self.namespace_uid(&secret.namespace);
        lock(&self.removals).note(&secret, removal, uid);
    }

    /// Applies the answer to an own write before the watch delivers it. A reconcile on the older
    /// state would write the same again with another time, or serve a request a second time.
    pub fn apply_own_write(&self, written: Pki) {
        let written = KnownPki::from(written);
        let mut pkis = self.pkis.write();
        // A Pki that is gone, or was created again, does not come back by that.
        let Some(known) = pkis.get(written.key()).filter(|it| it.precedes(&written)) else {
            return;
        };
        let watched = known.last_watched().unwrap_or(known).clone();
        let changes = pkis.apply(Event::Apply(written.unconfirmed(watched)));
        let affected = affected_by(&pkis, &changes);
        drop(pkis);
        self.trigger_affected(affected);
    }

    /// Returns to the state that the watch delivered last, after a conflict. The watch may never
    /// deliver an own write if the cluster was restored from a backup.
    pub fn discard_own_write(&self, pki: &Key) {
        let mut pkis = self.pkis.write();
        let watched = pkis
            .get(pki)
            .and_then(|known| known.last_watched().cloned());
        let event = watched.map(|watched| Event::Apply(Arc::unwrap_or_clone(watched)));
        let changes = event.map_or_else(Vec::new, |event| pkis.apply(event));
        let affected = affected_by(&pkis, &changes);
        drop(pkis);
        self.trigger_affected(affected);
    }

    fn trigger_affected(&self, affected: Vec<Key>) {
        if !affected.is_empty() {
            self.verdicts_changed.notify_one();
        }
        self.trigger(affected);
    }
}

/// The state that the watch delivers, or the own write to the same Pki that it has not reached yet.
fn unless_behind(watched: KnownPki, pkis: &SecretIndex<KnownPki>) -> KnownPki {
    match pkis.get(watched.key()) {
        Some(known) if known.last_watched().is_some() && watched.precedes(known) => {
            KnownPki::clone(known).unconfirmed(Arc::new(watched))
        }
        _ => watched,
    }
}

/// The Pkis to reconcile after these changes.
fn affected_by(pkis: &SecretIndex<KnownPki>, changes: &[Change<KnownPki>]) -> Vec<Key> {
    let affected = changes
        .iter()
        .flat_map(|change| claims::affected(pkis, change));
    affected.collect()
}
