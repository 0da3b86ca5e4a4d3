//! Private keys that take long to make: made beside the reconciler, so that no slot is held for
//! one.
//!
//! A reconcile that needs such a key orders it and ends; when the key is made, the Pki is
//! reconciled again. Orders are served by priority and by namespace in turn, as Pkis are. A key
//! waits here until its certificate is written, and no longer than its Pki wants one of that kind.

use super::priority_queue::{Priority, Queue};
use crate::api::Pki;
use crate::k8s::object_key::Key;
use crate::util::sync::lock;
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::ResourceExt as _;
use pki_certs::{IssueError, KeyAlgorithm, PrivateKeyPem};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Number of keys that are kept at most. A Pki whose key had to make way orders another one.
const MAX_KEPT_KEYS: usize = 256;

/// The keys that are made, or to be made.
#[derive(Debug)]
pub(super) struct Keys {
    orders: Mutex<HashMap<Key, Order>>,
    queue: Arc<Queue>,
    /// Number of keys that are made at the same time.
    threads: usize,
}

/// A key of one Pki.
#[derive(Clone, Debug)]
struct Order {
    /// UID of the Pki.
    uid: Option<String>,
    algorithm: KeyAlgorithm,
    since: Timestamp,
    /// The key, once it is made, and when that was.
    made: Option<(Timestamp, Result<PrivateKeyPem, IssueError>)>,
}

impl Order {
    fn is_for(&self, uid: Option<&str>, algorithm: KeyAlgorithm) -> bool {
        self.uid.as_deref() == uid && self.algorithm == algorithm
    }

    fn is_kept(&self) -> bool {
        self.made.is_some()
    }
}

impl Default for Keys {
    /// All cores but one make keys, and one does in any case.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (cores - 1).max(1);
        Self {
            orders: Mutex::default(),
            queue: Arc::new(Queue::new(threads)),
            threads,
        }
    }
}

impl Keys {
    /// The key that was made for this Pki. The error is the time since when it waits; the call
    /// orders the key.
    pub(super) fn get(
        &self,
        pki: &Pki,
        algorithm: KeyAlgorithm,
        priority: Priority,
        now: Timestamp,
    ) -> Result<Result<PrivateKeyPem, IssueError>, Timestamp> {
        let (key, uid) = (Key::of(pki), pki.uid());
        let mut orders = self.orders();
        if let Some(order) = orders.get(&key)
            && order.is_for(uid.as_deref(), algorithm)
        {
            let Some((_, made)) = order.made.clone() else {
                return Err(order.since);
            };
            if made.is_err() {
                orders.remove(&key);
            }
            return Ok(made);
        }
        let order = Order {
            uid,
            algorithm,
            since: now,
            made: None,
        };
        orders.insert(key.clone(), order);
        drop(orders);
        self.queue.push(key, priority);
        Err(now)
    }

    /// Drops the key of a Pki that needs none any more, or its order.
    pub(super) fn forget(&self, pki: &Key) {
        self.orders().remove(pki);
    }

    /// Makes the ordered keys, for as long as it is polled. Calls `made` with the Pki of each.
    pub(super) async fn run(&self, made: impl Fn(Key)) {
        let (turns, made) = (self.queue.clone().keys(), &made);
        turns
            .for_each_concurrent(self.threads, |key| async move {
                if self.make(&key).await {
                    made(key.clone());
                }
                self.queue.done(&key);
            })
            .await;
    }

    /// Makes the key of this Pki, if one is ordered. Whether the Pki still wants it then.
    async fn make(&self, key: &Key) -> bool {
        let order = self.orders().get(key).cloned();
        let Some(order) = order.filter(|order| !order.is_kept()) else {
            return false;
        };
        let algorithm = order.algorithm;
        let made = tokio::task::spawn_blocking(move || algorithm.private_key()).await;
        let made = made.expect("making a key does not panic");
        self.keep(key, &order, made, Timestamp::now())
    }

    fn keep(
        &self,
        key: &Key,
        order: &Order,
        made: Result<PrivateKeyPem, IssueError>,
        now: Timestamp,
    ) -> bool {
        let mut orders = self.orders();
        let is_same = |known: &&mut Order| known.is_for(order.uid.as_deref(), order.algorithm);
        let Some(known) = orders.get_mut(key).filter(is_same) else {
            return false;
        };
        known.made = Some((now, made));
        let kept = orders.iter().filter(|(_, order)| order.is_kept());
        if kept.clone().count() > MAX_KEPT_KEYS {
            let oldest = kept.min_by_key(|(_, order)| order.made.as_ref().map(|(at, _)| *at));
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                orders.remove(&oldest);
            }
        }
        true
    }

    fn orders(&self) -> MutexGuard<'_, HashMap<Key, Order>> {
        lock(&self.orders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api;
    use crate::util::time::tests::at;
    use futures::FutureExt as _;
    use serde_json::json;
    use std::time::Duration;

    fn pki(namespace: &str, name: &str) -> Pki {
        let mut pki = api::tests::pki(json!({}));
        pki.metadata.namespace = Some(namespace.into());
        pki.metadata.name = Some(name.into());
        pki
    }

    /// Orders a key, or takes it.
    fn get(keys: &Keys, pki: &Pki, algorithm: KeyAlgorithm) -> Option<String> {
        let made = keys.get(pki, algorithm, Priority::New, at(0)).ok()?;
        Some(made.unwrap().as_str().to_owned())
    }

    /// Makes all that is ordered: which, in order.
    async fn made(keys: &Keys) -> String {
        let made = Mutex::new(Vec::new());
        let run = keys.run(|key| lock(&made).push(key.to_string()));
        let _ = tokio::time::timeout(Duration::from_secs(2), run).await;
        lock(&made).join(" ")
    }

    const FAST: KeyAlgorithm = KeyAlgorithm::EcdsaP256;

    #[tokio::test]
    async fn a_key_is_kept_for_its_pki_until_that_wants_another_or_none() {
        let (keys, pki) = (Keys::default(), pki("ns", "a"));
        assert_eq!(get(&keys, &pki, FAST), None);
        assert_eq!(
            keys.get(&pki, FAST, Priority::New, at(5)).unwrap_err(),
            at(0)
        );
        assert_eq!(made(&keys).await, "ns/a");
        let first = get(&keys, &pki, FAST).expect("it is made");
        assert_eq!(get(&keys, &pki, FAST), Some(first), "for another attempt");
        assert!(!format!("{keys:?}").contains("BEGIN"), "{keys:?}");
        assert_eq!(
            get(&keys, &pki, KeyAlgorithm::Ed25519),
            None,
            "another kind"
        );
        assert_eq!(get(&keys, &pki, FAST), None, "the first one is gone");
        made(&keys).await;
        let mut anew = pki.clone();
        anew.metadata.uid = Some("another".into());
        assert_eq!(get(&keys, &anew, FAST), None, "it is not that Pki's");
        keys.forget(&Key::of(&anew));
        assert_eq!(made(&keys).await, "", "nobody wants it");
        assert!(keys.orders().is_empty());
    }

    #[tokio::test]
    async fn namespaces_take_turns() {
        let keys = Keys {
            queue: Arc::new(Queue::new(1)),
            threads: 1,
            ..Keys::default()
        };
        for name in ["1", "2", "3"] {
            get(&keys, &pki("flood", name), FAST);
        }
        get(&keys, &pki("other", "1"), FAST);
        assert_eq!(made(&keys).await, "flood/1 other/1 flood/2 flood/3");
    }

    #[test]
    fn no_more_than_so_many_are_kept() {
        let keys = Keys::default();
        let key = FAST.private_key().unwrap();
        for number in 0..=i64::try_from(MAX_KEPT_KEYS).unwrap() {
            let pki = pki("ns", &number.to_string());
            get(&keys, &pki, FAST);
            let order = keys.orders()[&Key::of(&pki)].clone();
            assert!(keys.keep(&Key::of(&pki), &order, Ok(key.clone()), at(number)));
        }
        assert_eq!(keys.orders().len(), MAX_KEPT_KEYS);
        assert!(
            !keys.orders().contains_key(&Key::new("ns", "0")),
            "the oldest"
        );
        assert!(keys.run(|_| ()).now_or_never().is_none(), "it goes on");
    }
}
