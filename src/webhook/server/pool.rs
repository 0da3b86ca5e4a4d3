//! A pool that never refuses. When it is full, the client with the most entries loses its oldest,
//! and among equals the oldest entry of all goes. Honest clients hold few entries, for
//! milliseconds; clients that ask in masses evict their own.

use crate::util::sync::lock;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(super) struct Pool {
    max: usize,
    state: Mutex<PoolState>,
}

#[derive(Debug, Default)]
struct PoolState {
    next: u64,
    used: usize,
    count: usize,
    /// By client, then by age.
    entries: HashMap<u64, BTreeMap<u64, PoolEntry>>,
}

#[derive(Debug)]
struct PoolEntry {
    size: usize,
    evicted: CancellationToken,
}

/// Keeps an entry in the pool until it is dropped or [evicted](Self::evicted).
#[derive(Debug)]
pub(super) struct PoolGuard {
    pool: Arc<Pool>,
    client: u64,
    number: u64,
    evicted: CancellationToken,
}

impl Pool {
    pub(super) fn new(max: usize) -> Arc<Self> {
        let state = Mutex::default();
        Arc::new(Self { max, state })
    }

    /// Adds an entry. One that is larger than the pool has the pool to itself.
    pub(super) fn enter(self: &Arc<Self>, client: u64, size: usize) -> PoolGuard {
        let evicted = CancellationToken::new();
        let mut state = lock(&self.state);
        let number = state.next;
        state.next += 1;
        state.used += size;
        state.count += 1;
        let entry = PoolEntry {
            size,
            evicted: evicted.clone(),
        };
        let of_client = state.entries.entry(client).or_default();
        of_client.insert(number, entry);
        state.evict_down_to(self.max);
        PoolGuard {
            pool: self.clone(),
            client,
            number,
            evicted,
        }
    }
}

impl PoolState {
    /// Evicts until the pool is not over its limit. The last entry stays, however large.
    fn evict_down_to(&mut self, max: usize) {
        while self.used > max && self.count > 1 {
            let clients = self.entries.iter().filter_map(|(client, entries)| {
                let (oldest, _) = entries.first_key_value()?;
                Some((entries.len(), Reverse(*oldest), *client))
            });
            let Some((_, Reverse(number), client)) = clients.max() else {
                break;
            };
            if let Some(entry) = self.remove(client, number) {
                entry.evicted.cancel();
            }
        }
    }

    fn remove(&mut self, client: u64, number: u64) -> Option<PoolEntry> {
        let entries = self.entries.get_mut(&client)?;
        let entry = entries.remove(&number)?;
        if entries.is_empty() {
            self.entries.remove(&client);
        }
        self.used -= entry.size;
        self.count -= 1;
        Some(entry)
    }
}

impl PoolGuard {
    pub(super) fn grow(&self, by: usize) {
        let mut state = lock(&self.pool.state);
        let entries = state.entries.get_mut(&self.client);
        if let Some(entry) = entries.and_then(|entries| entries.get_mut(&self.number)) {
            entry.size += by;
            state.used += by;
            state.evict_down_to(self.pool.max);
        }
    }

    /// Waits until the entry is evicted.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.is_cancelled()
    }
}

impl Drop for PoolGuard {
    fn drop(&mut self) {
        lock(&self.pool.state).remove(self.client, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evicted(guards: &[PoolGuard]) -> Vec<bool> {
        guards.iter().map(PoolGuard::is_evicted).collect()
    }

    #[test]
    fn among_clients_with_one_request_each_the_oldest_is_evicted() {
        let pool = Pool::new(2);
        let mut guards: Vec<_> = (1..=3).map(|client| pool.enter(client, 1)).collect();
        assert_eq!(evicted(&guards), [true, false, false]);
        guards.remove(1);
        guards.push(pool.enter(4, 1));
        assert_eq!(evicted(&guards), [true, false, false]);
    }

    #[test]
    fn a_client_that_asks_in_masses_evicts_its_own_requests() {
        let pool = Pool::new(4);
        let honest = [pool.enter(1, 1), pool.enter(2, 1)];
        let many: Vec<_> = (0..100).map(|_| pool.enter(3, 1)).collect();
        assert_eq!(evicted(&honest), [false, false]);
        assert_eq!(evicted(&many[98..]), [false, false]);
        assert!(many[..98].iter().all(PoolGuard::is_evicted));
        // The newcomer is not the one that is evicted.
        let newcomer = pool.enter(4, 1);
        assert!(!newcomer.is_evicted() && many[98].is_evicted() && !many[99].is_evicted());
    }

    #[test]
    fn as_many_are_evicted_as_have_to_be() {
        let pool = Pool::new(10);
        let mut guards: Vec<_> = (1..=3).map(|client| pool.enter(client, 3)).collect();
        guards.push(pool.enter(4, 5));
        assert_eq!(evicted(&guards), [true, true, false, false]);
        let all = pool.enter(5, 99);
        assert!(guards.iter().all(PoolGuard::is_evicted) && !all.is_evicted());
    }

    #[test]
    fn an_entry_that_grows_evicts_the_oldest_which_may_be_itself() {
        let pool = Pool::new(10);
        let mut guards: Vec<_> = (1..=2).map(|client| pool.enter(client, 4)).collect();
        guards[1].grow(3);
        assert_eq!(evicted(&guards), [true, false]);
        // This one is evicted already.
        guards[0].grow(99);
        guards.push(pool.enter(3, 1));
        guards[1].grow(3);
        assert_eq!(evicted(&guards), [true, true, false]);
        assert_eq!(lock(&pool.state).used, 1);
    }

    #[test]
    fn an_evicted_entry_gives_nothing_back_a_second_time() {
        let pool = Pool::new(1);
        let first = pool.enter(1, 1);
        let second = pool.enter(2, 1);
        drop(first);
        assert_eq!(lock(&pool.state).used, 1);
        drop(second);
        let state = lock(&pool.state);
        assert_eq!((state.used, state.count, state.entries.len()), (0, 0, 0));
    }
}
