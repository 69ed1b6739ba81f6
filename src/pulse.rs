//! Whether a session's peer is still there and takes what it is sent. It is told the time.

use std::time::Instant;

use crate::limits::Limits;

/// The signs of life of one session.
#[derive(Debug)]
pub struct Pulse {
    heard_at: Instant,
    pinged_at: Option<Instant>,
    took_at: Instant,
    told_at: Instant,
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
    pub fn new(now: Instant) -> Self {
        Self {
            heard_at: now,
            pinged_at: None,
            took_at: now,
            told_at: now,
        }
    }

    /// The peer sent something, whatever it was.
    pub fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.pinged_at = None;
    }

    /// The peer took something of what waits for it.
    pub fn took(&mut self, now: Instant) {
        self.took_at = now;
    }

    /// The peer was sent a message, not just a ping.
    pub fn told(&mut self, now: Instant) {
        self.told_at = now;
    }

    /// Whether it was sent no message for a heartbeat.
    pub fn beat_due(&self, now: Instant, limits: &Limits) -> bool {
        let silence = now.saturating_duration_since(self.told_at);
        limits
            .heartbeat
            .is_some_and(|heartbeat| silence >= heartbeat)
    }

    /// What is due now. `behind`: something waits for it; `listening`: its socket is being read, so
    /// that its silence is its own.
    pub fn check(
        &mut self,
        now: Instant,
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
            .is_some_and(|limit| now - self.took_at >= limit)
        {
            return Some(Alarm::Slow);
        }
        let heartbeat = limits.heartbeat?;
        match self.pinged_at {
            None if now - self.heard_at >= heartbeat => {
                self.pinged_at = Some(now);
                Some(Alarm::Ping)
            }
            Some(pinged_at) if now - pinged_at >= heartbeat => Some(Alarm::Silent),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn silence_is_asked_about_once_and_then_final() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let limits = Limits::default();
        let mut pulse = Pulse::new(start);
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
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let limits = Limits::default();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.check(at(25), true, false, &limits), None);
        pulse.took(at(26));
        assert_eq!(pulse.check(at(55), true, false, &limits), None);
        assert_eq!(pulse.check(at(56), true, false, &limits), Some(Alarm::Slow));
    }
}
