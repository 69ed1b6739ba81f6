//! The actions that wait for a room's next batch, bounded over all rooms of a server.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::answers::Queued;
use crate::limits::{MAX_WAITING_ACTIONS, MAX_WAITING_BYTES};

/// How much waits in all rooms of a server.
///
/// A session bounds what it has underway; but whoever comes, acts and goes again and again leaves
/// more behind than the store commits.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    actions: AtomicUsize,
    bytes: AtomicUsize,
}

/// What waits in one room, oldest first.
pub struct Queue<A> {
    actions: VecDeque<Queued<A>>,
    bytes: usize,
    all: Waiting,
}

impl<A> Queue<A> {
    /// An empty one, which counts towards `all`.
    pub fn new(all: Waiting) -> Self {
        Self {
            actions: VecDeque::new(),
            bytes: 0,
            all,
        }
    }

    pub fn len(&self) -> usize {
        self.actions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Queued<A>> {
        self.actions.iter_mut()
    }

    /// Lets an action wait; gives it back where as many wait as may.
    #[must_use]
    pub fn push(&mut self, queued: Queued<A>) -> Option<Queued<A>> {
        if self.all.is_full() {
            return Some(queued);
        }
        self.count(1, queued.bytes);
        self.actions.push_back(queued);
        None
    }

    /// Takes the oldest.
    pub fn take(&mut self, count: usize) -> Vec<Queued<A>> {
        let taken: Vec<_> = self.actions.drain(..count).collect();
        self.discount(taken.len(), taken.iter().map(|queued| queued.bytes).sum());
        taken
    }

    /// Puts back what was taken last.
    pub fn put_back(&mut self, taken: Vec<Queued<A>>) {
        for queued in taken.into_iter().rev() {
            self.count(1, queued.bytes);
            self.actions.push_front(queued);
        }
    }

    fn count(&mut self, actions: usize, bytes: usize) {
        self.bytes += bytes;
        let Counts {
            actions: all,
            bytes: all_bytes,
        } = &*self.all.0;
        all.fetch_add(actions, Ordering::Relaxed);
        all_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn discount(&mut self, actions: usize, bytes: usize) {
        self.bytes -= bytes;
        let Counts {
            actions: all,
            bytes: all_bytes,
        } = &*self.all.0;
        all.fetch_sub(actions, Ordering::Relaxed);
        all_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl<A> Drop for Queue<A> {
    fn drop(&mut self) {
        self.discount(self.actions.len(), self.bytes);
    }
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.0.actions.load(Ordering::Relaxed) >= MAX_WAITING_ACTIONS
            || self.0.bytes.load(Ordering::Relaxed) >= MAX_WAITING_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;
    use crate::{replica::Asked, room::answers::Asker};

    fn queued(bytes: usize) -> Queued<usize> {
        Queued {
            from: Asker::Request(oneshot::channel().0),
            bytes,
            asked: Asked {
                number: None,
                action: Ok(bytes),
                hold: Duration::ZERO,
            },
        }
    }

    fn counts(all: &Waiting) -> (usize, usize) {
        let load = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (load(&all.0.actions), load(&all.0.bytes))
    }

    #[test]
    fn whatever_happens_to_it_is_counted_over_all_rooms() {
        let all = Waiting::default();
        let (mut one, mut other) = (Queue::new(all.clone()), Queue::new(all.clone()));
        for bytes in 1..=4 {
            assert!(one.push(queued(bytes)).is_none());
            assert!(other.push(queued(10 * bytes)).is_none());
        }
        assert_eq!(counts(&all), (8, 110));
        let taken = one.take(3);
        let order: Vec<usize> = taken.iter().map(|queued| queued.bytes).collect();
        assert_eq!((order, counts(&all)), (vec![1, 2, 3], (5, 104)));
        one.put_back(taken);
        assert_eq!((one.take(2)[1].bytes, one.len()), (2, 2));
        drop(other);
        assert_eq!(counts(&all), (2, 7));
        drop(one);
        assert_eq!(counts(&all), (0, 0));
    }

    #[test]
    fn past_either_limit_nothing_more_waits_in_any_room() {
        for (bytes, most) in [
            (1, MAX_WAITING_ACTIONS),
            (1024 * 1024, MAX_WAITING_BYTES / (1024 * 1024)),
        ] {
            let all = Waiting::default();
            let (mut one, mut other) = (Queue::new(all.clone()), Queue::new(all));
            for _ in 0..most {
                assert!(one.push(queued(bytes)).is_none());
            }
            let turned_away = other.push(queued(bytes));
            assert!(turned_away.is_some_and(|queued| queued.bytes == bytes));
            one.take(1);
            assert!(other.push(queued(bytes)).is_none());
        }
    }
}
