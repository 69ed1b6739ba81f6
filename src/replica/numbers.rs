//! Which numbers of clients a batch takes.

use std::{collections::HashMap, time::Duration};

use super::asked::{Asked, Declined, Number, Retry, Verdict, gap};
use crate::{
    ids::{ClientId, Millis},
    limits::{MAX_BATCH_ACTIONS, WINDOW},
    rejection::Rejection,
    settled::Settled,
};

/// How long a client waits at least where the room remembers as many clients as it may.
const CROWDED: Duration = Duration::from_secs(10);

/// The numbers that a batch takes.
#[derive(Debug, Default)]
pub struct Taken {
    /// The last of each client.
    last: HashMap<ClientId, u64>,
    /// How many places they need among those that are remembered.
    places: usize,
}

/// Which numbers a batch takes: each client's next, those before it in the batch included.
pub struct Numbers<'a> {
    settled: &'a Settled,
    /// Those of the batch before, which is in flight.
    before: Option<&'a Taken>,
    taken: Taken,
    at: Millis,
    max: Option<usize>,
    /// How many more clients and refusals may be remembered; counted when it is first asked for.
    spare: Option<usize>,
}

impl<'a> Numbers<'a> {
    /// `before`: what the batch in flight takes. `max`: how many clients a room remembers.
    pub fn new(
        settled: &'a Settled,
        before: Option<&'a Taken>,
        at: Millis,
        max: Option<usize>,
    ) -> Self {
        Self {
            settled,
            before,
            taken: Taken::default(),
            at,
            max,
            spare: None,
        }
    }

    pub fn into_taken(self) -> Taken {
        self.taken
    }

    /// What is said to an action without judging it.
    pub fn precludes<A>(&mut self, asked: &Asked<A>) -> Option<Verdict> {
        let retry = |why: Rejection, expected, after: Duration| {
            let after = after.max(asked.hold);
            Some(Verdict::Retry(Retry::new(why, expected, after)))
        };
        let Some(Number { client, n }) = asked.number else {
            return match &asked.action {
                Err(Declined::NotTaken(why)) => retry(why.clone(), None, Duration::ZERO),
                _ => None,
            };
        };
        let last = self.last(client);
        let expected = Some(last + 1);
        if n <= last {
            return Some(Verdict::Repeated);
        }
        if n > last + 1 {
            return retry(gap(n, last + 1), expected, Duration::ZERO);
        }
        if let Err(Declined::NotTaken(why)) = &asked.action {
            return retry(why.clone(), expected, Duration::ZERO);
        }
        if n > self.settled.last(client) + WINDOW {
            return retry(beyond_window(), expected, Duration::ZERO);
        }
        if self.spare() < 2 {
            return retry(crowded(), expected, CROWDED);
        }
        None
    }

    fn last(&self, client: ClientId) -> u64 {
        let taken = self.taken.last.get(&client);
        let before = || self.before.and_then(|before| before.last.get(&client));
        let last = taken.or_else(before).copied();
        last.unwrap_or_else(|| self.settled.last(client))
    }

    /// Takes a number, if there is one.
    pub fn settle(&mut self, number: Option<Number>, refused: bool) -> Option<u64> {
        let Number { client, n } = number?;
        let new = self.last(client) == 0;
        self.taken.last.insert(client, n);
        self.taken.places += usize::from(new) + usize::from(refused);
        Some(n)
    }

    /// How many places are left.
    fn spare(&mut self) -> usize {
        /// More than two batches can take: a client and a refusal for each of their actions.
        const WANTED: usize = 4 * MAX_BATCH_ACTIONS + 2;
        let spare = || self.settled.spare(self.at, self.max, WANTED);
        let spare = *self.spare.get_or_insert_with(spare);
        let before = self.before.map_or(0, |before| before.places);
        spare.saturating_sub(before + self.taken.places)
    }
}

fn beyond_window() -> Rejection {
    let message =
        format!("{WINDOW} numbers are unsettled, as many as may be; wait until some are settled");
    Rejection::new("overloaded", message)
}

fn crowded() -> Rejection {
    let message =
        "the room remembers as many clients as it may (--max-clients-per-room); try again later";
    Rejection::new("overloaded", message)
}
