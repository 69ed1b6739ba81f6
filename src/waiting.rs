//! How much waits in all rooms of a server, on its way to a batch.
//!
//! A session bounds what it has underway; but whoever comes, acts and goes, again and again, would leave
//! more behind than the store commits. So where too much waits nobody's actions are read.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::limits::{MAX_WAITING_ACTIONS, MAX_WAITING_BYTES};

/// A count that all threads share.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    actions: AtomicUsize,
    bytes: AtomicUsize,
}

/// Some of what waits; dropping it says that it waits no more.
#[derive(Debug)]
pub struct Waits {
    all: Waiting,
    actions: usize,
    bytes: usize,
}

impl Waiting {
    /// Whether as much waits as may.
    pub fn is_full(&self) -> bool {
        self.0.actions.load(Ordering::Relaxed) >= MAX_WAITING_ACTIONS
            || self.0.bytes.load(Ordering::Relaxed) >= MAX_WAITING_BYTES
    }

    /// Counts actions, and the bytes of the messages that asked for them.
    pub fn count(&self, actions: usize, bytes: usize) -> Waits {
        let mut waits = Waits {
            all: self.clone(),
            actions: 0,
            bytes: 0,
        };
        waits.add(actions, bytes);
        waits
    }
}

impl Waits {
    /// Counts more.
    pub fn add(&mut self, actions: usize, bytes: usize) {
        self.actions += actions;
        self.bytes += bytes;
        self.all.0.actions.fetch_add(actions, Ordering::Relaxed);
        self.all.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts on what was counted elsewhere.
    pub fn merge(&mut self, mut other: Self) {
        self.actions += std::mem::take(&mut other.actions);
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// These wait no more.
    pub fn subtract(&mut self, actions: usize, bytes: usize) {
        self.actions -= actions;
        self.bytes -= bytes;
        self.all.0.actions.fetch_sub(actions, Ordering::Relaxed);
        self.all.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.subtract(self.actions, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(all: &Waiting) -> (usize, usize) {
        let load = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (load(&all.0.actions), load(&all.0.bytes))
    }

    #[test]
    fn whatever_waits_anywhere_is_counted_until_it_waits_no_more() {
        let all = Waiting::default();
        let mut room = all.count(0, 0);
        let (one, other) = (all.count(3, 30), all.count(4, 40));
        assert_eq!(counts(&all), (7, 70));
        room.merge(one);
        room.subtract(2, 20);
        assert_eq!(counts(&all), (5, 50));
        room.add(1, 5);
        drop(other);
        assert_eq!(counts(&all), (2, 15));
        drop(room);
        assert_eq!(counts(&all), (0, 0));
    }

    #[test]
    fn past_either_limit_it_is_full() {
        let all = Waiting::default();
        let most = all.count(MAX_WAITING_ACTIONS - 1, MAX_WAITING_BYTES - 1);
        assert!(!all.is_full());
        assert!(all.count(1, 0).all.is_full());
        assert!(all.count(0, 1).all.is_full());
        drop(most);
        assert!(!all.is_full());
    }
}
