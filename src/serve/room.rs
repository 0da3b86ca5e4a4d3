//! A room that never refuses: when it is full, who has been in for the longest makes way for who comes. Honest requests
//! stay for milliseconds, so that is never one of them, while those that are slow on purpose shut out nobody.

use crate::locks::lock;
use std::collections::BTreeMap;
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
    /// By the order of their coming.
    guests: BTreeMap<u64, Guest>,
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
    pub(super) fn enter(self: &Arc<Self>, size: usize) -> Place {
        let size = size.min(self.most);
        let go = CancellationToken::new();
        let mut inside = lock(&self.inside);
        while inside.used > self.most - size {
            let Some((_, displaced)) = inside.guests.pop_first() else {
                break;
            };
            inside.used -= displaced.size;
            displaced.go.cancel();
        }
        let number = inside.next;
        inside.next += 1;
        inside.used += size;
        let guest = Guest {
            size,
            go: go.clone(),
        };
        inside.guests.insert(number, guest);
        Place {
            room: self.clone(),
            number,
            go,
        }
    }
}

impl Place {
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
        let mut inside = lock(&self.room.inside);
        if let Some(guest) = inside.guests.remove(&self.number) {
            inside.used -= guest.size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_been_in_for_the_longest_makes_way() {
        let room = Room::new(2);
        let (first, second) = (room.enter(1), room.enter(1));
        assert!(!first.is_lost() && !second.is_lost());
        let third = room.enter(1);
        assert!(first.is_lost() && !second.is_lost() && !third.is_lost());
        drop(second);
        let fourth = room.enter(1);
        assert!(!third.is_lost() && !fourth.is_lost());
    }

    #[test]
    fn as_many_make_way_as_have_to() {
        let room = Room::new(10);
        let mut places: Vec<_> = [3, 3, 3].map(|size| room.enter(size)).into();
        places.push(room.enter(5));
        let lost: Vec<_> = places.iter().map(Place::is_lost).collect();
        assert_eq!(lost, [true, true, false, false]);
        let all = room.enter(99);
        assert!(places.iter().all(Place::is_lost) && !all.is_lost());
    }

    #[test]
    fn who_was_displaced_gives_nothing_back_a_second_time() {
        let room = Room::new(1);
        let first = room.enter(1);
        let second = room.enter(1);
        drop(first);
        assert_eq!(lock(&room.inside).used, 1);
        drop(second);
        assert_eq!(lock(&room.inside).used, 0);
    }
}
