//! How often something may happen: a token bucket that is told the time.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Lets `rate` actions a second pass, with a burst of as many after a quiet second.
///
/// Kept as the time at which the bucket will be full again (the virtual scheduling form of the
/// generic cell rate algorithm, ITU-T I.371), so that it is one number, whatever the rate.
#[derive(Debug)]
pub struct Rate {
    /// A second.
    rate: u32,
    full_at: Instant,
}

impl Rate {
    /// `rate` is in actions a second; 0 counts as 1.
    pub fn new(rate: u32, now: Instant) -> Self {
        let rate = rate.max(1);
        Self { rate, full_at: now }
    }

    /// How many pass in a second.
    pub fn a_second(&self) -> u32 {
        self.rate
    }

    /// How long each one counts.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.rate
    }

    fn burst(&self) -> Duration {
        self.interval() * self.rate
    }

    /// How long it takes until one more may pass.
    pub fn wait(&self, now: Instant) -> Duration {
        let full_at = self.full_at.max(now) + self.interval();
        full_at.duration_since(now).saturating_sub(self.burst())
    }

    /// Whether one more may pass now; what may not is not counted.
    pub fn allows(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + self.interval();
        let fits = full_at.duration_since(now) <= self.burst();
        if fits {
            self.full_at = full_at;
        }
        fits
    }
}

/// A rate of each of many, who are remembered only while they are not at rest.
#[derive(Debug)]
pub struct Rates<K> {
    rate: u32,
    each: HashMap<K, Rate>,
    /// How many there may be before those at rest are forgotten.
    sweep_at: usize,
}

impl<K: Eq + Hash> Rates<K> {
    /// `rate` is in actions a second, of each.
    pub fn new(rate: u32) -> Self {
        Self {
            rate,
            each: HashMap::new(),
            sweep_at: Self::FEW,
        }
    }

    const FEW: usize = 1024;

    /// Lets one more pass.
    ///
    /// # Errors
    ///
    /// How long it takes until one may.
    pub fn check(&mut self, who: K, now: Instant) -> Result<(), Duration> {
        if self.each.len() >= self.sweep_at {
            self.each.retain(|_, rate| rate.full_at > now);
            self.sweep_at = Self::FEW.max(self.each.len() * 2);
        }
        let rate = self.each.entry(who);
        let rate = rate.or_insert_with(|| Rate::new(self.rate, now));
        match rate.allows(now) {
            true => Ok(()),
            false => Err(rate.wait(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let mut rate = Rate::new(10, start);
        assert_eq!((0..50).filter(|_| rate.allows(start)).count(), 10);
        assert_eq!(rate.wait(start), Duration::from_millis(100));
        let later = start + Duration::from_millis(350);
        assert_eq!((0..50).filter(|_| rate.allows(later)).count(), 3);
        let much_later = start + Duration::from_secs(60);
        assert_eq!((0..50).filter(|_| rate.allows(much_later)).count(), 10);
    }

    #[test]
    fn each_has_a_rate_of_its_own_and_is_forgotten_at_rest() {
        let start = Instant::now();
        let mut rates = Rates::new(2);
        for who in ["ann", "bob"] {
            let passed = [(); 3].map(|()| rates.check(who, start));
            assert_eq!(passed, [Ok(()), Ok(()), Err(Duration::from_millis(500))]);
        }
        let mut rates = Rates::new(1);
        for who in 0..100_000u64 {
            let _ = rates.check(who, start + Duration::from_millis(who));
        }
        assert!(rates.each.len() < 3000, "{}", rates.each.len());
    }
}
