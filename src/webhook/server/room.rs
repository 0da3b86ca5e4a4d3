//! A room that never refuses: when it is full, whoever takes up the most places makes way for who
//! comes, and among equals who came first. Honest clients have a request or a few at a time, which
//! stay for milliseconds. So those that ask in masses displace their own, and those that are slow
//! on purpose shut out nobody.

use crate::util::sync::lock;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// Holds so many requests, or so many bytes of them.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    used: usize,
    count: usize,
    /// By their client, and then in the order of their coming.
    guests: HashMap<u64, BTreeMap<u64, Guest>>,
}

#[derive(Debug)]
struct Guest {
    size: usize,
    go: CancellationToken,
}

/// A place in the room, until it is dropped or [taken away](Self::lost).
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    client: u64,
    number: u64,
    go: CancellationToken,
}

impl Room {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            inside: Mutex::default(),
        })
    }

    /// Who does not fit even alone has the room to itself.
    pub(super) fn enter(self: &Arc<Self>, client: u64, size: usize) -> Place {
        let go = CancellationToken::new();
        let mut inside = lock(&self.inside);
        let number = inside.next;
        inside.next += 1;
        inside.used += size;
        inside.count += 1;
        let guest = Guest {
            size,
            go: go.clone(),
        };
        let others = inside.guests.entry(client).or_default();
        others.insert(number, guest);
        inside.make_room(self.most);
        Place {
            room: self.clone(),
            client,
            number,
            go,
        }
    }
}

impl Inside {
    /// The last one stays, however large.
    fn make_room(&mut self, most: usize) {
        while self.used > most && self.count > 1 {
            let crowd = self.guests.iter().filter_map(|(client, guests)| {
                let (first, _) = guests.first_key_value()?;
                Some((guests.len(), Reverse(*first), *client))
            });
            let Some((_, Reverse(number), client)) = crowd.max() else {
                break;
            };
            if let Some(displaced) = self.remove(client, number) {
                displaced.go.cancel();
            }
        }
    }

    fn remove(&mut self, client: u64, number: u64) -> Option<Guest> {
        let guests = self.guests.get_mut(&client)?;
        let guest = guests.remove(&number)?;
        if guests.is_empty() {
            self.guests.remove(&client);
        }
        self.used -= guest.size;
        self.count -= 1;
        Some(guest)
    }
}

impl Place {
    /// Takes up more.
    pub(super) fn grow(&self, by: usize) {
        let mut inside = lock(&self.room.inside);
        let guests = inside.guests.get_mut(&self.client);
        if let Some(guest) = guests.and_then(|guests| guests.get_mut(&self.number)) {
            guest.size += by;
            inside.used += by;
            inside.make_room(self.room.most);
        }
    }

    /// Waits until somebody else needs the place.
    pub(super) async fn lost(&self) {
        self.go.cancelled().await;
    }

    /// Whether somebody else has needed it.
    pub(super) fn is_lost(&self) -> bool {
        self.go.is_cancelled()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.room.inside).remove(self.client, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(places: &[Place]) -> Vec<bool> {
        places.iter().map(Place::is_lost).collect()
    }

    #[test]
    fn among_clients_with_one_request_each_who_came_first_makes_way() {
        let room = Room::new(2);
        let mut places: Vec<_> = (1..=3).map(|client| room.enter(client, 1)).collect();
        assert_eq!(lost(&places), [true, false, false]);
        places.remove(1);
        places.push(room.enter(4, 1));
        assert_eq!(lost(&places), [true, false, false]);
    }

    #[test]
    fn who_asks_in_masses_displaces_their_own() {
        let room = Room::new(4);
        let honest = [room.enter(1, 1), room.enter(2, 1)];
        let many: Vec<_> = (0..100).map(|_| room.enter(3, 1)).collect();
        assert_eq!(lost(&honest), [false, false]);
        assert_eq!(lost(&many[98..]), [false, false]);
        assert!(many[..98].iter().all(Place::is_lost));
        // Who comes now does not have to be the one that goes.
        let newcomer = room.enter(4, 1);
        assert!(!newcomer.is_lost() && many[98].is_lost() && !many[99].is_lost());
    }

    #[test]
    fn as_many_make_way_as_have_to() {
        let room = Room::new(10);
        let mut places: Vec<_> = (1..=3).map(|client| room.enter(client, 3)).collect();
        places.push(room.enter(4, 5));
        assert_eq!(lost(&places), [true, true, false, false]);
        let all = room.enter(5, 99);
        assert!(places.iter().all(Place::is_lost) && !all.is_lost());
    }

    #[test]
    fn who_grows_displaces_whoever_came_first_which_may_be_themselves() {
        let room = Room::new(10);
        let mut places: Vec<_> = (1..=2).map(|client| room.enter(client, 4)).collect();
        places[1].grow(3);
        assert_eq!(lost(&places), [true, false]);
        // It has left.
        places[0].grow(99);
        places.push(room.enter(3, 1));
        places[1].grow(3);
        assert_eq!(lost(&places), [true, true, false]);
        assert_eq!(lock(&room.inside).used, 1);
    }

    #[test]
    fn who_was_displaced_gives_nothing_back_a_second_time() {
        let room = Room::new(1);
        let first = room.enter(1, 1);
        let second = room.enter(2, 1);
        drop(first);
        assert_eq!(lock(&room.inside).used, 1);
        drop(second);
        let inside = lock(&room.inside);
        assert_eq!((inside.used, inside.count, inside.guests.len()), (0, 0, 0));
    }
}
