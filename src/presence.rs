//! Who is connected to a room, and when the others are told.
//!
//! A newcomer is told the count at once, by whoever lets it in. The others are told at once in
//! small rooms and at most every *members ÷ 10 000* seconds in larger ones, so that N joins cost
//! O(N) events and not O(N²). It is told the time and never asks it.

use std::time::{Duration, Instant};

/// Rooms of up to this many sessions tell every count at once.
pub const TELL_AT_ONCE: usize = 50;

/// Counts that the others have yet to be told.
#[derive(Debug, Default)]
pub struct Presence {
    count: usize,
    /// What everybody was told last.
    told: usize,
    told_at: Option<Instant>,
    scheduled: bool,
}

/// When the others are told of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    Now,
    /// Call [`Presence::due`] then.
    After(Duration),
    /// It is scheduled already, or there is nothing to tell.
    Not,
}

impl Presence {
    pub fn count(&self) -> usize {
        self.count
    }

    /// Takes note of how many sessions there are now.
    pub fn change(&mut self, count: usize, now: Instant) -> Tell {
        self.count = count;
        if self.scheduled || self.count == self.told {
            return Tell::Not;
        }
        let wait = match self.told_at {
            Some(told_at) if count > TELL_AT_ONCE => {
                let interval = Duration::from_secs(1) * count as u32 / 10_000;
                (told_at + interval).saturating_duration_since(now)
            }
            _ => Duration::ZERO,
        };
        if wait.is_zero() {
            self.tell(now);
            Tell::Now
        } else {
            self.scheduled = true;
            Tell::After(wait)
        }
    }

    /// The time of a scheduled telling has come: the count to tell, or `None` where it is again
    /// what everybody was told last.
    pub fn due(&mut self, now: Instant) -> Option<usize> {
        self.scheduled = false;
        let changed = self.count != self.told;
        changed.then(|| self.tell(now))
    }

    fn tell(&mut self, now: Instant) -> usize {
        self.told = self.count;
        self.told_at = Some(now);
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_rooms_tell_every_count_at_once() {
        let now = Instant::now();
        let mut presence = Presence::default();
        for count in (1..=50).chain([49, 48]) {
            assert_eq!(presence.change(count, now), Tell::Now);
        }
        assert_eq!(presence.change(48, now), Tell::Not);
    }

    #[test]
    fn large_rooms_tell_at_most_every_10000th_of_their_members_a_second() {
        let start = Instant::now();
        let mut presence = Presence::default();
        let mut told = 0;
        let mut due_at = None;
        let mut now = start;
        for count in 1..=10_000 {
            now += Duration::from_micros(100);
            if due_at.is_some_and(|at| at <= now) {
                due_at = None;
                told += usize::from(presence.due(now).is_some());
            }
            match presence.change(count, now) {
                Tell::Now => told += 1,
                Tell::After(wait) => due_at = Some(now + wait),
                Tell::Not => {}
            }
        }
        assert!((50..150).contains(&told), "{told}");
        assert_eq!(presence.due(now + Duration::from_secs(1)), Some(10_000));
    }

    #[test]
    fn a_count_that_came_back_is_not_told_again() {
        let now = Instant::now();
        let mut presence = Presence::default();
        presence.change(100, now);
        assert_eq!(
            presence.change(101, now),
            Tell::After(Duration::from_micros(10_100))
        );
        assert_eq!(presence.change(100, now), Tell::Not);
        assert_eq!(presence.due(now + Duration::from_secs(1)), None);
        assert_eq!(
            presence.change(101, now + Duration::from_secs(1)),
            Tell::Now
        );
    }
}
