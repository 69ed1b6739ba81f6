//! A moment, by the two clocks that a program has.
//!
//! Neither alone tells how much time has gone by: the monotonic clock may stand still while the machine sleeps, and the
//! wall clock may be set.

use std::time::{Duration, Instant};

use crate::ids::Millis;

/// When something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub monotonic: Instant,
    pub wall: Millis,
}

impl Moment {
    /// Whether surely less than `span` has gone by since an earlier moment: by both clocks, and the wall clock was not
    /// set back, as far as can be seen.
    pub fn is_within(self, span: Duration, earlier: Self) -> bool {
        let awake = self.monotonic.saturating_duration_since(earlier.monotonic);
        let by_the_wall = self.wall.0.checked_sub(earlier.wall.0);
        awake < span && by_the_wall.is_some_and(|gone| Duration::from_millis(gone) < span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_clocks_know_is_surely_within() {
        let hour = Duration::from_secs(3600);
        let start = Instant::now();
        let at = |awake: u64, wall: u64| Moment {
            monotonic: start + Duration::from_secs(awake),
            wall: Millis(1_800_000_000_000 + wall * 1000),
        };
        let earlier = at(10, 10);
        assert!(at(10, 10).is_within(hour, earlier));
        assert!(at(3609, 3609).is_within(hour, earlier));
        assert!(!at(3610, 3609).is_within(hour, earlier));
        assert!(!at(15, 3610).is_within(hour, earlier), "it slept");
        assert!(!at(15, 9).is_within(hour, earlier), "it was set back");
    }
}
