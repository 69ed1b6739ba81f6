//! Who is connected to a room, and when the others are told.
//!
//! A newcomer is told the count at once, by whoever lets it in. The others are told at once in
//! small rooms and on average at most every *members ÷ 10 000* seconds in larger ones, so that N joins
//! cost O(N) events and not O(N²). Once, the time between two tellings may be shorter: when nobody has
//! come or gone for a moment, so that the count is right soon after a storm. It is told the time and
//! never asks it.

use std::time::{Duration, Instant};

/// Rooms of up to this many sessions tell every count at once.
pub const TELL_AT_ONCE: usize = 50;

/// After this nobody has come or gone for a moment.
const QUIET: Duration = Duration::from_millis(150);

/// Counts that the others have yet to be told.
#[derive(Debug, Default)]
pub struct Presence {
    count: usize,
    changed_at: Option<Instant>,
    /// What everybody was told last.
    told: usize,
    /// When that many may be told again, all that they were told counted; and for how long each
    /// telling counts.
    next: Option<(Instant, Duration)>,
    scheduled: bool,
}

/// When the others are told of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// This count.
    Now(usize),
    /// Call [`Presence::due`] then.
    After(Duration),
    /// It is scheduled already, or there is nothing to tell.
    Not,
}

impl Presence {
    /// Takes note of how many sessions there are now.
    pub fn change(&mut self, count: usize, now: Instant) -> Tell {
        self.count = count;
        self.changed_at = Some(now);
        match self.scheduled {
            true => Tell::Not,
            false => self.tell(now),
        }
    }

    /// The time of a scheduled telling has come.
    pub fn due(&mut self, now: Instant) -> Tell {
        self.scheduled = false;
        self.tell(now)
    }

    fn tell(&mut self, now: Instant) -> Tell {
        if self.count == self.told {
            return Tell::Not;
        }
        let wait = self.tell_at(now).saturating_duration_since(now);
        if !wait.is_zero() {
            self.scheduled = true;
            return Tell::After(wait);
        }
        let counts_for = match self.count {
            ..=TELL_AT_ONCE => Duration::ZERO,
            crowd => Duration::from_secs(1) * crowd as u32 / 10_000,
        };
        let from = self.next.map_or(now, |(next, _)| next.max(now));
        self.next = Some((from + counts_for, counts_for));
        self.told = self.count;
        Tell::Now(self.count)
    }

    fn tell_at(&self, now: Instant) -> Instant {
        match self.next {
            Some((next, counts_for)) if self.count > TELL_AT_ONCE => {
                let quiet_at = self.changed_at.unwrap_or(now) + QUIET;
                let one_early = next.checked_sub(counts_for).unwrap_or(now);
                next.min(quiet_at.max(one_early))
            }
            _ => now,
        }
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
            assert_eq!(presence.change(count, now), Tell::Now(count));
        }
        assert_eq!(presence.change(48, now), Tell::Not);
    }

    /// One comes every so often; how often the others were told, and the last that they were.
    fn storm(
        presence: &mut Presence,
        from: Instant,
        counts: std::ops::Range<usize>,
        every: Duration,
    ) -> (usize, usize) {
        let mut now = from;
        let (mut told, mut last, mut due_at) = (0, 0, None::<Instant>);
        let end = now + every * counts.len() as u32 + Duration::from_secs(5);
        let mut counts = counts.peekable();
        while now < end {
            let due = due_at.is_some_and(|at| at <= now);
            let tell = match counts.next_if(|_| !due) {
                _ if due => presence.due(now),
                Some(count) => {
                    now += every;
                    presence.change(count, now)
                }
                None => {
                    now = due_at.unwrap_or(end);
                    continue;
                }
            };
            if due {
                due_at = None;
            }
            match tell {
                Tell::Now(count) => (told, last) = (told + 1, count),
                Tell::After(wait) => due_at = Some(now + wait),
                Tell::Not => {}
            }
        }
        (told, last)
    }

    #[test]
    fn joins_one_after_the_other_cost_a_few_events_each() {
        for micros in [1, 10, 100, 1000] {
            let mut presence = Presence::default();
            let every = Duration::from_micros(micros);
            let (told, last) = storm(&mut presence, Instant::now(), 51..10_001, every);
            assert!(told < 150, "{told} at {every:?}");
            assert_eq!(last, 10_000);
        }
    }

    #[test]
    fn on_average_large_rooms_tell_at_most_every_10000th_of_their_members_a_second() {
        for millis in [100, 160, 300] {
            let mut presence = Presence::default();
            let every = Duration::from_millis(millis);
            let (told, _) = storm(&mut presence, Instant::now(), 10_000..10_100, every);
            let seconds = (millis * 100 / 1000) as usize;
            assert!(told <= seconds + 3, "{told} at {every:?}");
        }
    }

    #[test]
    fn soon_after_a_storm_the_count_is_told() {
        for last in [9_000, 9_990, 9_999] {
            let start = Instant::now();
            let mut presence = Presence::default();
            presence.change(last, start);
            let now = start + Duration::from_millis(1);
            assert_eq!(presence.change(10_000, now), Tell::After(QUIET));
            assert_eq!(presence.due(now + QUIET), Tell::Now(10_000));
        }
    }

    #[test]
    fn a_count_that_came_back_is_not_told_again() {
        let now = Instant::now();
        let mut presence = Presence::default();
        presence.change(100, now);
        assert_eq!(
            presence.change(101, now),
            Tell::After(Duration::from_millis(10))
        );
        assert_eq!(presence.change(100, now), Tell::Not);
        assert_eq!(presence.due(now + Duration::from_secs(1)), Tell::Not);
        let later = now + Duration::from_secs(1);
        assert_eq!(presence.change(101, later), Tell::Now(101));
    }
}
