//! The actions that wait for a room's next batch.

use std::collections::VecDeque;

use super::answers::Queued;
use crate::waiting::{Waiting, Waits};

/// What waits in one room, oldest first.
pub struct Queue<A> {
    actions: VecDeque<Queued<A>>,
    waits: Waits,
    /// How many there ever were.
    pushed: u64,
}

impl<A> Queue<A> {
    /// An empty one, which counts towards what waits in all rooms.
    pub fn new(waiting: &Waiting) -> Self {
        Self {
            actions: VecDeque::new(),
            waits: waiting.count(0, 0),
            pushed: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.actions.len()
    }

    /// How many there ever were, those that were taken included.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Queued<A>> {
        self.actions.iter_mut()
    }

    /// Lets actions wait, which are counted by `waits`.
    pub fn push(&mut self, queued: impl IntoIterator<Item = Queued<A>>, waits: Waits) {
        let before = self.actions.len();
        self.actions.extend(queued);
        self.pushed += (self.actions.len() - before) as u64;
        self.waits.merge(waits);
    }

    /// How many of the oldest have so many bytes at most.
    pub fn fitting(&self, mut bytes: usize) -> usize {
        let fits = |queued: &&Queued<A>| {
            let left = bytes.checked_sub(queued.bytes);
            bytes = left.unwrap_or(bytes);
            left.is_some()
        };
        self.actions.iter().take_while(fits).count()
    }

    /// Takes the oldest.
    pub fn take(&mut self, count: usize) -> Vec<Queued<A>> {
        let taken: Vec<_> = self.actions.drain(..count).collect();
        self.waits.subtract(taken.len(), bytes(&taken));
        taken
    }

    /// Puts back what was taken last.
    pub fn put_back(&mut self, taken: Vec<Queued<A>>) {
        self.waits.add(taken.len(), bytes(&taken));
        for queued in taken.into_iter().rev() {
            self.actions.push_front(queued);
        }
    }
}

fn bytes<A>(queued: &[Queued<A>]) -> usize {
    queued.iter().map(|queued| queued.bytes).sum()
}
