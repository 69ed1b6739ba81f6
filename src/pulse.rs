//! Whether a session's peer is still there and takes what it is sent. It is told the time.

use std::time::{Duration, Instant};

use crate::limits::Limits;

/// A time within a worker's life, in milliseconds; it begins again after 49 days, so that only
/// shorter spans can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick(u32);

impl Tick {
    /// The time `now` in a life that began at `start`.
    pub fn new(start: Instant, now: Instant) -> Self {
        // What is cut off is the number of times that it began again.
        Self(now.saturating_duration_since(start).as_millis() as u32)
    }

    /// Whether this time has come.
    pub fn is_past(self, now: Self) -> bool {
        now.0.wrapping_sub(self.0) < u32::MAX / 2
    }

    /// How long ago an earlier time is.
    pub fn since(self, earlier: Self) -> Duration {
        match earlier.is_past(self) {
            true => Duration::from_millis(self.0.wrapping_sub(earlier.0).into()),
            false => Duration::ZERO,
        }
    }
}

/// The signs of life of one session.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    heard_at: Tick,
    pinged_at: Option<Tick>,
    took_at: Tick,
    told_at: Tick,
}

/// What is due when nothing was heard or taken for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// Nothing was heard for a heartbeat: ask whether it is still there.
    Ping,
    /// Nor was the ping answered for as long: it is gone.
    Silent,
    /// It took nothing of what waits for it for the slow time-out.
    Slow,
}

impl Pulse {
    pub fn new(now: Tick) -> Self {
        Self {
            heard_at: now,
            pinged_at: None,
            took_at: now,
            told_at: now,
        }
    }

    /// The peer sent something, whatever it was.
    pub fn heard(&mut self, now: Tick) {
        self.heard_at = now;
        self.pinged_at = None;
    }

    /// The peer took something of what waits for it.
    pub fn took(&mut self, now: Tick) {
        self.took_at = now;
    }

    /// The peer was sent a message, not just a ping.
    pub fn told(&mut self, now: Tick) {
        self.told_at = now;
    }

    /// Whether it was sent no message for a heartbeat.
    pub fn beat_due(&self, now: Tick, limits: &Limits) -> bool {
        let silence = now.since(self.told_at);
        limits
            .heartbeat
            .is_some_and(|heartbeat| silence >= heartbeat)
    }

    /// What is due now. `behind`: something waits for it; `listening`: its socket is being read, so
    /// that its silence is its own.
    pub fn check(
        &mut self,
        now: Tick,
        behind: bool,
        listening: bool,
        limits: &Limits,
    ) -> Option<Alarm> {
        if !behind {
            self.took(now);
        }
        if !listening {
            self.heard(now);
        }
        if limits
            .slow_timeout
            .is_some_and(|limit| now.since(self.took_at) >= limit)
        {
            return Some(Alarm::Slow);
        }
        let heartbeat = limits.heartbeat?;
        match self.pinged_at {
            None if now.since(self.heard_at) >= heartbeat => {
                self.pinged_at = Some(now);
                Some(Alarm::Ping)
            }
            Some(pinged_at) if now.since(pinged_at) >= heartbeat => Some(Alarm::Silent),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        let start = Instant::now();
        Tick::new(start, start + Duration::from_secs(seconds))
    }

    #[test]
    fn silence_is_asked_about_once_and_then_final() {
        let limits = Limits::default();
        let mut pulse = Pulse::new(at(0));
        let mut check = |seconds, answered| {
            if answered {
                pulse.heard(at(seconds));
            }
            pulse.check(at(seconds), false, true, &limits)
        };
        assert_eq!(check(19, false), None);
        assert_eq!(check(20, false), Some(Alarm::Ping));
        assert_eq!(check(39, false), None);
        assert_eq!(check(39, true), None);
        assert_eq!(check(59, false), Some(Alarm::Ping));
        assert_eq!(check(79, false), Some(Alarm::Silent));
    }

    #[test]
    fn who_takes_nothing_while_behind_is_slow_and_who_is_not_read_is_not_silent() {
        let limits = Limits::default();
        let mut pulse = Pulse::new(at(0));
        assert_eq!(pulse.check(at(25), true, false, &limits), None);
        pulse.took(at(26));
        assert_eq!(pulse.check(at(55), true, false, &limits), None);
        assert_eq!(pulse.check(at(56), true, false, &limits), Some(Alarm::Slow));
    }

    #[test]
    fn spans_are_told_when_the_time_has_begun_again() {
        const ALL: u64 = 1 << 32;
        let start = Instant::now();
        let at = |millis| Tick::new(start, start + Duration::from_millis(millis));
        assert_eq!(at(ALL + 5), at(5));
        assert_eq!(at(ALL + 5).since(at(ALL - 5)), Duration::from_millis(10));
        assert_eq!(at(ALL - 5).since(at(ALL + 5)), Duration::ZERO);
        assert!(at(ALL - 5).is_past(at(ALL + 5)) && !at(ALL + 5).is_past(at(ALL - 5)));
    }
}
