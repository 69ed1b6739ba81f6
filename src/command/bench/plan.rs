//! What a run is to do: who takes part, how fast, and in which dialect.

use std::{fmt, iter::repeat_n, time::Duration};

use crate::config::bench::{BenchArgs, MAX_UNANSWERED};

/// At how many clients latency is measured at most: each that measures looks at every action.
const MAX_MEASURED: usize = 100;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// That of the well-known counter example.
    Classic,
    /// `tallyroom.v1`
    V1,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Classic => "the classic dialect",
            Self::V1 => "tallyroom.v1",
        })
    }
}

/// What one client does in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which writer it is, if it is one.
    pub writer: Option<usize>,
    /// Whether latency is measured at it.
    pub measured: bool,
    /// Whether it reads nothing while the run goes on.
    pub stalled: bool,
}

/// A run, as it was asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    pub dialect: Dialect,
    pub subscribers: usize,
    /// At least 1.
    pub writers: usize,
    /// Clients that read nothing while the run goes on.
    pub stalled: usize,
    pub pipeline: usize,
    pub actions: usize,
    /// Actions a second; `None`: as many as the pipeline allows.
    pub rate: Option<usize>,
}

impl Plan {
    pub fn new(args: &BenchArgs) -> Self {
        Self {
            dialect: if args.v1 {
                Dialect::V1
            } else {
                Dialect::Classic
            },
            subscribers: args.subscribers,
            writers: args.writers,
            stalled: args.stalled,
            pipeline: args.pipeline,
            actions: args.actions,
            rate: args.rate,
        }
    }

    pub fn clients(&self) -> usize {
        self.active() + self.stalled
    }

    /// The clients that read all the time: the first of all.
    pub fn active(&self) -> usize {
        self.subscribers + self.writers
    }

    /// What each client does.
    pub fn parts(&self) -> Vec<Part> {
        let part = |client| Part {
            writer: self.writer(client),
            measured: self.is_measured(client),
            stalled: false,
        };
        let stalled = Part {
            writer: None,
            measured: false,
            stalled: true,
        };
        let active = (0..self.active()).map(part);
        active.chain(repeat_n(stalled, self.stalled)).collect()
    }

    /// Which writer an active client is. They are spread evenly over all that are, each in the middle of its share, since
    /// a server may tell those first that came first.
    fn writer(&self, client: usize) -> Option<usize> {
        let before = self.writers_before(client);
        (self.writers_before(client + 1) > before).then_some(before)
    }

    fn writers_before(&self, client: usize) -> usize {
        (client * self.writers + self.active() / 2) / self.active()
    }

    /// Whether latency is measured at a client: at subscribers, evenly chosen, or where there are none at writers.
    fn is_measured(&self, client: usize) -> bool {
        let (place, of) = match (self.writer(client), self.subscribers) {
            (Some(writer), 0) => (writer, self.writers),
            (None, subscribers) => (client - self.writers_before(client), subscribers),
            _ => return false,
        };
        place % of.div_ceil(MAX_MEASURED) == 0
    }

    /// How many actions a writer may have that are not answered.
    pub fn max_unanswered(&self) -> usize {
        match self.rate {
            None => self.pipeline,
            Some(_) => MAX_UNANSWERED as usize,
        }
    }

    /// When an action is due, counted from the start, where a rate says so.
    pub fn due(&self, action: usize) -> Option<Duration> {
        let rate = self.rate?;
        Some(Duration::from_secs_f64(action as f64 / rate as f64))
    }

    /// How many actions are due by then, where a rate says so.
    pub fn due_by(&self, gone: Duration) -> usize {
        let Some(rate) = self.rate else { return 0 };
        let due = (gone.as_secs_f64() * rate as f64).floor() as usize + 1;
        due.min(self.actions)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn plan(dialect: Dialect, subscribers: usize, writers: usize, actions: usize) -> Plan {
        Plan {
            dialect,
            subscribers,
            writers,
            stalled: 0,
            pipeline: 1,
            actions,
            rate: None,
        }
    }

    #[test]
    fn writers_are_spread_over_the_clients() {
        for (subscribers, writers) in [(100, 1), (0, 3), (7, 3), (1, 64), (10_000, 8)] {
            let plan = plan(Dialect::Classic, subscribers, writers, 1);
            let found: Vec<usize> = (0..plan.clients())
                .filter_map(|at| plan.writer(at))
                .collect();
            assert_eq!(found, (0..writers).collect::<Vec<_>>());
        }
    }

    #[test]
    fn stalled_clients_are_the_last_and_change_nothing_for_the_others() {
        let without = plan(Dialect::Classic, 5, 2, 1);
        let with = Plan {
            stalled: 3,
            ..without.clone()
        };
        let parts = with.parts();
        let (active, stalled) = parts.split_at(7);
        assert_eq!(active, without.parts());
        assert_eq!(stalled.len(), 3);
        let reads = |part: &Part| !part.stalled || part.measured || part.writer.is_some();
        assert!(!stalled.iter().any(reads));
    }

    #[test]
    fn latency_is_measured_at_subscribers_if_there_are_any() {
        for (subscribers, writers, measured) in [
            (100, 1, 100),
            (1000, 8, 100),
            (150, 2, 75),
            (3, 4, 3),
            (0, 5, 5),
            (0, 400, 100),
        ] {
            let plan = plan(Dialect::Classic, subscribers, writers, 1);
            let found: Vec<usize> = (0..plan.clients())
                .filter(|at| plan.is_measured(*at))
                .collect();
            assert_eq!(found.len(), measured, "{subscribers} and {writers}");
            assert!(
                found
                    .iter()
                    .all(|at| subscribers == 0 || plan.writer(*at).is_none())
            );
        }
    }

    #[test]
    fn a_rate_says_when_each_action_is_due() {
        let plan = Plan {
            rate: Some(200),
            ..plan(Dialect::Classic, 1, 1, 50)
        };
        assert_eq!(plan.due(0), Some(Duration::ZERO));
        assert_eq!(plan.due(3), Some(Duration::from_millis(15)));
        assert_eq!(plan.due_by(Duration::ZERO), 1);
        assert_eq!(plan.due_by(Duration::from_millis(16)), 4);
        assert_eq!(plan.due_by(Duration::from_secs(100)), 50);
    }
}
