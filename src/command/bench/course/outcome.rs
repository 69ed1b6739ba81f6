//! What became of a run: what was done, and what is missing.

use std::time::{Duration, Instant};

use super::{Course, Stage};
use crate::command::bench::{
    latency::Latency,
    plan::Dialect,
    seen::{Seen, Stalled, State, Told},
};

impl Course {
    /// How long it took, or has taken so far.
    pub fn took(&self, now: Instant) -> Duration {
        match self.stage {
            Stage::Gathering => Duration::ZERO,
            Stage::Running(start) => now.saturating_duration_since(start.at),
            Stage::Over(_, took) => took,
        }
    }

    /// How many actions somebody saw in effect.
    pub fn in_effect(&self) -> u64 {
        let (Stage::Running(start) | Stage::Over(start, _)) = self.stage else {
            return 0;
        };
        let places = self
            .clients
            .iter()
            .filter_map(|client| Some(client.state?.place));
        let most = places.max().unwrap_or(0).saturating_sub(start.state.place);
        u64::try_from(most).unwrap_or(0)
    }

    pub fn told(&self) -> Told {
        self.told
    }

    pub fn latency(&self) -> &Latency {
        &self.latency
    }

    pub fn stalled(&self) -> Stalled {
        let (_, stalled) = self.clients.split_at(self.plan.active());
        let (caught_up, others): (Vec<_>, Vec<_>) = stalled
            .iter()
            .partition(|client| self.is_at_the_end(client));
        Stalled {
            count: stalled.len(),
            caught_up: caught_up.len(),
            dropped: others.iter().filter(|client| client.dropped).count(),
        }
    }

    /// What is missing for every client to have seen everything as the dialect promises it.
    pub fn shortcomings(&self) -> Vec<String> {
        let of = self.plan.active();
        let late = of - self.arrived;
        let unsettled = self.plan.actions.saturating_sub(self.accepted);
        let astray = self.clients[..of]
            .iter()
            .filter(|client| !self.is_at_the_end(client))
            .count();
        let stalled = self.stalled();
        let v1 = self.plan.dialect == Dialect::V1;
        let Told {
            skipped,
            repeated,
            back,
            ..
        } = self.told;
        let found = [
            (
                late > 0,
                format!("{late} of {of} clients did not see the last state"),
            ),
            (
                late == 0 && astray > 0,
                format!("{astray} of {of} clients ended at another state"),
            ),
            (
                stalled.left() > 0,
                format!(
                    "{} of {} stalled clients did not come to the last state",
                    stalled.left(),
                    stalled.count
                ),
            ),
            (
                v1 && unsettled > 0,
                so_many(unsettled as u64, "action", "not acknowledged"),
            ),
            (!v1 && skipped > 0, so_many(skipped, "state", "left out")),
            (repeated > 0, so_many(repeated, "state", "told twice")),
            (back > 0, so_many(back, "state", "told after newer ones")),
        ];
        found
            .into_iter()
            .filter_map(|(is_so, what)| is_so.then_some(what))
            .collect()
    }

    fn is_at_the_end(&self, client: &Seen) -> bool {
        let (Stage::Running(start) | Stage::Over(start, _)) = self.stage else {
            return false;
        };
        let actions = self.plan.actions as i64;
        let end = State {
            place: start.state.place.saturating_add(actions),
            value: start.state.value.saturating_add(actions),
        };
        client.state == Some(end)
    }
}

fn so_many(count: u64, of: &str, what: &str) -> String {
    match count {
        1 => format!("1 {of} was {what}"),
        count => format!("{count} {of}s were {what}"),
    }
}
