//! How long actions took to reach the clients.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest that is told from longer ones.
const MAX: Duration = Duration::from_secs(3600);
/// Values are kept with so many digits.
const DIGITS: u8 = 3;

/// All latencies of a run.
pub struct Latency {
    nanoseconds: Histogram<u64>,
}

/// In milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Default for Latency {
    fn default() -> Self {
        let made = Histogram::new_with_bounds(1, MAX.as_nanos() as u64, DIGITS);
        Self {
            nanoseconds: made.expect("1 ns to 1 h, to 3 digits, are bounds"),
        }
    }
}

impl Latency {
    pub fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.saturating_record(nanoseconds);
    }

    /// `None` where nothing was recorded.
    pub fn quantiles(&self) -> Option<Quantiles> {
        let at = |quantile| milliseconds(self.nanoseconds.value_at_quantile(quantile));
        (!self.nanoseconds.is_empty()).then(|| Quantiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: milliseconds(self.nanoseconds.max()),
        })
    }
}

/// To 3 digits, since no more are known.
fn milliseconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_thousandth() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantiles(), None);
        (1..=10_000).for_each(|n| latency.record(Duration::from_micros(n)));
        let found = latency.quantiles().unwrap();
        let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.002;
        for (found, expected) in [
            (found.p50, 5.0),
            (found.p90, 9.0),
            (found.p99, 9.9),
            (found.max, 10.0),
        ] {
            assert!(near(found, expected), "{found} is not {expected}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_kept_at_them() {
        let mut latency = Latency::default();
        latency.record(Duration::ZERO);
        latency.record(Duration::from_secs(1 << 40));
        assert!(latency.quantiles().unwrap().max >= 3_600_000.0);
    }
}
