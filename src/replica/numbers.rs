//! Which numbers of clients a batch takes.

use std::{collections::HashMap, time::Duration};

use super::asked::{Asked, Declined, Number, Retry, Verdict, gap};
use crate::{
    entry::Refused,
    ids::{ClientId, Millis},
    limits::{MAX_BATCH_ACTIONS, WINDOW},
    rejection::Rejection,
    settled::{Settled, Spare},
};

/// How long a client waits at least where the room remembers as much as it may.
const CROWDED: Duration = Duration::from_secs(10);

/// More than two batches can add.
const WANTED: Spare = Spare {
    clients: 2 * MAX_BATCH_ACTIONS + 1,
    refused_bytes: (2 * MAX_BATCH_ACTIONS + 1) * 1024,
};

/// The numbers that a batch takes.
#[derive(Debug, Default)]
pub struct Taken {
    /// The last of each client.
    last: HashMap<ClientId, u64>,
    /// How many of the clients are new.
    clients: usize,
    refused_bytes: usize,
}

/// Which numbers a batch takes: each client's next, those before it in the batch included.
pub struct Numbers<'a> {
    settled: &'a Settled,
    /// Those of the batch before, which is in flight.
    before: Option<&'a Taken>,
    taken: Taken,
    at: Millis,
    max: Option<usize>,
    /// How much more may be remembered without the batches; counted when it is first asked for.
    spare: Option<Spare>,
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
        if last == 0 && self.spare().clients == 0 {
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

    /// Takes a number for an action that is accepted.
    pub fn accept(&mut self, Number { client, n }: Number) {
        self.taken.clients += usize::from(self.last(client) == 0);
        self.taken.last.insert(client, n);
    }

    /// Takes a number for an action that is refused, if there is room to remember it.
    ///
    /// # Errors
    ///
    /// What is said instead: it is not taken.
    pub fn refuse(&mut self, number: Number, refused: &Refused) -> Result<(), Verdict> {
        let bytes = refused.bytes();
        if bytes > self.spare().refused_bytes {
            let expected = Some(number.n);
            return Err(Verdict::Retry(Retry::new(crowded(), expected, CROWDED)));
        }
        self.accept(number);
        self.taken.refused_bytes += bytes;
        Ok(())
    }

    /// How much more may be remembered.
    fn spare(&mut self) -> Spare {
        let spare = || self.settled.spare(self.at, self.max, WANTED);
        let mut spare = *self.spare.get_or_insert_with(spare);
        for taken in self.before.into_iter().chain([&self.taken]) {
            spare.clients = spare.clients.saturating_sub(taken.clients);
            spare.refused_bytes = spare.refused_bytes.saturating_sub(taken.refused_bytes);
        }
        spare
    }
}

fn beyond_window() -> Rejection {
    let message =
        format!("{WINDOW} numbers are unsettled, as many as may be; wait until some are settled");
    Rejection::new("overloaded", message)
}

fn crowded() -> Rejection {
    let message = "the room remembers as many clients (--max-clients-per-room) and refusals as it \
        may; try again later";
    Rejection::new("overloaded", message)
}
