//! The Secrets that were removed with deleted Pkis. Pods that wait for one of them get an Event
//! that names the Pki.
//!
//! Every replica keeps them in memory, within bounds. The leader publishes the Events.

use crate::k8s::object_key::Key;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// How long a removal is kept after it happened, and after a pod last waited for the Secret.
const MEMORY: SignedDuration = SignedDuration::from_hours(1);
/// The number of removals that are kept of one namespace.
const MAX_OF_NAMESPACE: usize = 50;
/// The number of removals that are kept in all.
const MAX: usize = 1000;

/// A Pki that was deleted, and with it the Secret that it claimed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Removal {
    /// The name of the Pki.
    pub pki: Arc<str>,
    /// When it was deleted.
    pub at: Timestamp,
    /// Whether it had written the Secret.
    pub was_written: bool,
}

/// The removals of each namespace, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Removals {
    by_namespace: BTreeMap<Arc<str>, VecDeque<Entry>>,
}

#[derive(Debug)]
struct Entry {
    secret: Arc<str>,
    /// A namespace of the same name with another UID belongs to another tenant.
    namespace_uid: Option<Arc<str>>,
    removal: Removal,
    forget_at: Timestamp,
}

impl Removals {
    pub(super) fn note(&mut self, secret: &Key, removal: Removal, namespace_uid: Option<Arc<str>>) {
        self.prune(removal.at);
        let namespace = secret.namespace.clone();
        let entries = self.by_namespace.entry(namespace).or_default();
        entries.retain(|known| known.secret != secret.name);
        if entries.len() >= MAX_OF_NAMESPACE {
            entries.pop_front();
        }
        entries.push_back(Entry {
            secret: secret.name.clone(),
            namespace_uid,
            forget_at: later(removal.at),
            removal,
        });
        let count: usize = self.by_namespace.values().map(VecDeque::len).sum();
        let largest = self.by_namespace.values_mut().max_by_key(|all| all.len());
        if let Some(largest) = largest.filter(|_| count > MAX) {
            largest.pop_front();
        }
    }

    /// The last removal of this Secret, in the namespace of this UID, which pods wait for now.
    pub(super) fn awaited(
        &mut self,
        secret: &Key,
        namespace_uid: Option<&Arc<str>>,
        now: Timestamp,
    ) -> Option<Removal> {
        let entries = self.by_namespace.get_mut(&secret.namespace)?;
        let known = entries
            .iter_mut()
            .find(|known| known.secret == secret.name)?;
        if known.namespace_uid.as_ref() != namespace_uid || known.forget_at <= now {
            return None;
        }
        known.forget_at = later(now);
        Some(known.removal.clone())
    }

    fn prune(&mut self, now: Timestamp) {
        self.by_namespace.retain(|_, all| {
            all.retain(|known| known.forget_at > now);
            !all.is_empty()
        });
    }
}

fn later(now: Timestamp) -> Timestamp {
    now.saturating_add(MEMORY).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_900_000_000 + 60 * minute).unwrap()
    }

    fn removal(pki: &str, minute: i64) -> Removal {
        Removal {
            pki: pki.into(),
            at: at(minute),
            was_written: true,
        }
    }

    fn uid(uid: &str) -> Arc<str> {
        uid.into()
    }

    #[test]
    fn a_removal_is_known_for_an_hour_and_as_long_as_pods_wait() {
        let (mut removals, secret) = (Removals::default(), Key::new("ns", "tls"));
        removals.note(&secret, removal("a", 0), Some(uid("1")));
        let mut awaited = |minute| removals.awaited(&secret, Some(&uid("1")), at(minute));
        assert_eq!(awaited(59), Some(removal("a", 0)));
        assert_eq!(awaited(118), Some(removal("a", 0)), "pods waited");
        assert_eq!(awaited(178), None);
        removals.note(&secret, removal("b", 200), Some(uid("1")));
        let now = removals.awaited(&secret, Some(&uid("1")), at(201));
        assert_eq!(now, Some(removal("b", 200)), "the last one counts");
        let other = Key::new("ns", "other");
        assert_eq!(removals.awaited(&other, Some(&uid("1")), at(201)), None);
    }

    #[test]
    fn the_next_tenant_of_a_namespace_hears_nothing() {
        let (mut removals, secret) = (Removals::default(), Key::new("ns", "tls"));
        removals.note(&secret, removal("a", 0), Some(uid("1")));
        for other in [Some(uid("2")), None] {
            assert_eq!(removals.awaited(&secret, other.as_ref(), at(1)), None);
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_no_namespace_displaces_the_others() {
        let mut removals = Removals::default();
        let quiet = Key::new("quiet", "tls");
        removals.note(&quiet, removal("a", 0), None);
        for number in 0..2 * MAX {
            let namespace = format!("flood-{}", number % 30);
            let secret = Key::new(namespace, number.to_string());
            removals.note(&secret, removal("b", 1), None);
        }
        let count: usize = removals.by_namespace.values().map(VecDeque::len).sum();
        let most = removals.by_namespace.values().map(VecDeque::len).max();
        assert!(
            count <= MAX && most <= Some(MAX_OF_NAMESPACE),
            "{count} {most:?}"
        );
        assert!(removals.awaited(&quiet, None, at(2)).is_some());
    }
}
