//! The settled numbers of a room's clients: so that an action is applied once, however often it is
//! sent.
//!
//! Part of a replica's state: what is remembered follows from the batches alone, and so does what is
//! forgotten, by the journal's time. A client is remembered from its first settled action.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use crate::{
    entry::{Batch, Made, Refusal, Refused, Remembered},
    ids::{ClientId, Millis, Revision},
    limits::{
        MAX_MADE_BYTES, MAX_REFUSED_BYTES, REMEMBER, REMEMBER_AT_LEAST, REMEMBER_KEY_AT_LEAST,
        WINDOW,
    },
    rejection::Rejection,
};

/// Who was settled up to which number, and what the room said.
///
/// What is remembered is bounded in clients and, apart from them, in the bytes of what was refused:
/// so whoever is refused much takes no place from those who are not.
#[derive(Debug, Default)]
pub struct Settled {
    clients: HashMap<ClientId, Remembered>,
    order: ByTime,
    /// Those of whom a refusal is remembered.
    refusing: ByTime,
    refused_bytes: usize,
}

/// Clients by the time of their last number, those of HTTP's keys apart.
#[derive(Debug, Default)]
struct ByTime([BTreeSet<(Millis, ClientId)>; 2]);

/// How much more may be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spare {
    pub clients: usize,
    /// As [`Refused::bytes`] counts them.
    pub refused_bytes: usize,
}

/// What a room said to a number when it was settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// What it made, where the number is the client's last and the value is not too long.
    Accepted(Option<(Revision, Box<str>)>),
    Refused(Rejection),
}

impl Settled {
    /// What a snapshot holds.
    pub fn from_remembered(remembered: impl IntoIterator<Item = Remembered>) -> Self {
        let mut settled = Self::default();
        for client in remembered {
            settled.insert(client);
        }
        settled
    }

    /// For a snapshot: the longest settled first.
    pub fn to_remembered(&self) -> Vec<Remembered> {
        let mut all: Vec<_> = self.clients.values().cloned().collect();
        all.sort_unstable_by_key(|client| (client.at, client.client));
        all
    }

    /// How many clients are remembered.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// How much there is to write down, in clients: so much as a hundred bytes of refusals.
    pub fn weight(&self) -> usize {
        self.clients.len() + self.refused_bytes / 100
    }

    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// The last number of a client that is settled; 0 where it is not known.
    pub fn last(&self, client: ClientId) -> u64 {
        self.clients.get(&client).map_or(0, |known| known.n)
    }

    /// The refusals among the last [`WINDOW`] numbers of a client, oldest first.
    pub fn refused(&self, client: ClientId) -> &[Refused] {
        self.clients
            .get(&client)
            .map_or(&[], |known| &known.refused)
    }

    /// What was said to a number that is settled.
    pub fn first(&self, client: ClientId, n: u64) -> First {
        let Some(known) = self.clients.get(&client) else {
            return First::Accepted(None);
        };
        if let Some(refused) = known.refused.iter().find(|refused| refused.n == n) {
            return First::Refused(refused.to_rejection());
        }
        let made = known.made.as_ref().filter(|_| known.n == n);
        First::Accepted(made.and_then(|made| Some((made.rev, made.value.clone()?))))
    }

    /// How much a batch at that time may add, with what may be forgotten for it; `wanted` at most.
    pub fn spare(&self, now: Millis, max: Option<usize>, wanted: Spare) -> Spare {
        let Some(max) = max else {
            return wanted;
        };
        let mut spare = Spare {
            clients: max.saturating_sub(self.clients.len()),
            refused_bytes: MAX_REFUSED_BYTES.saturating_sub(self.refused_bytes),
        };
        let mut oldest = self.order.going(now);
        while spare.clients < wanted.clients && oldest.next().is_some() {
            spare.clients += 1;
        }
        let mut oldest = self.refusing.going(now);
        while spare.refused_bytes < wanted.refused_bytes
            && let Some(client) = oldest.next()
        {
            spare.refused_bytes += bytes(self.refused(client));
        }
        Spare {
            clients: spare.clients.min(wanted.clients),
            refused_bytes: spare.refused_bytes.min(wanted.refused_bytes),
        }
    }

    /// Takes note of what a batch settles, and forgets whom it is time to forget.
    ///
    /// `view` gives the value after the entry of that place in the batch, as JSON.
    pub fn settle<'a>(
        &mut self,
        batch: &Batch,
        view: impl Fn(usize) -> &'a [u8],
        max: Option<usize>,
    ) {
        for (client, change) in changes(batch) {
            let known = self.forget(client);
            let mut refused = known.map_or_else(Vec::new, |known| known.refused);
            refused.extend(change.refused.into_iter().cloned());
            refused.retain(|refused| refused.n + WINDOW > change.n);
            let made = change
                .nth
                .map(|nth| made(batch.entries[nth].rev, view(nth)));
            self.insert(Remembered {
                client,
                n: change.n,
                at: batch.at,
                refused,
                made,
            });
        }
        self.expire(batch.at, max);
    }

    /// Forgets those whose time is over, and the oldest of those that may go while it is too much.
    fn expire(&mut self, now: Millis, max: Option<usize>) {
        let over = |at: Millis| at.0 + as_millis(REMEMBER) <= now.0;
        while let Some((at, client)) = self.order.oldest(now)
            && (over(at) || max.is_some_and(|max| self.clients.len() > max))
        {
            self.forget(client);
        }
        while max.is_some()
            && self.refused_bytes > MAX_REFUSED_BYTES
            && let Some((_, client)) = self.refusing.oldest(now)
        {
            self.forget(client);
        }
    }

    fn insert(&mut self, client: Remembered) {
        self.order.insert(client.at, client.client);
        if !client.refused.is_empty() {
            self.refusing.insert(client.at, client.client);
        }
        self.refused_bytes += bytes(&client.refused);
        self.clients.insert(client.client, client);
    }

    fn forget(&mut self, client: ClientId) -> Option<Remembered> {
        let known = self.clients.remove(&client)?;
        self.order.remove(known.at, client);
        self.refusing.remove(known.at, client);
        self.refused_bytes -= bytes(&known.refused);
        Some(known)
    }
}

impl ByTime {
    fn insert(&mut self, at: Millis, client: ClientId) {
        self.0[usize::from(client.is_key())].insert((at, client));
    }

    fn remove(&mut self, at: Millis, client: ClientId) {
        self.0[usize::from(client.is_key())].remove(&(at, client));
    }

    /// Those that may be forgotten by then, if it is too much.
    fn going(&self, now: Millis) -> impl Iterator<Item = ClientId> {
        let may_go = move |(at, client): &&(Millis, ClientId)| may_go_since(*at, *client, now);
        let going = self
            .0
            .iter()
            .flat_map(move |order| order.iter().take_while(may_go));
        going.map(|(_, client)| *client)
    }

    /// Who settled nothing for the longest, of those that may go.
    fn oldest(&self, now: Millis) -> Option<(Millis, ClientId)> {
        let oldest = self.0.iter().filter_map(BTreeSet::first);
        let may_go = |(at, client): &&(Millis, ClientId)| may_go_since(*at, *client, now);
        oldest.filter(may_go).min().copied()
    }
}

fn bytes(refused: &[Refused]) -> usize {
    refused.iter().map(Refused::bytes).sum()
}

/// What a batch settles of one client.
#[derive(Default)]
struct Change<'a> {
    n: u64,
    /// The place of its entry in the batch, where `n` was accepted.
    nth: Option<usize>,
    refused: Vec<&'a Refused>,
}

fn changes(batch: &Batch) -> HashMap<ClientId, Change<'_>> {
    let mut changes: HashMap<ClientId, Change<'_>> = HashMap::new();
    for (nth, entry) in batch.entries.iter().enumerate() {
        if let (Some(client), Some(n)) = (entry.client, entry.n) {
            let change = changes.entry(client).or_default();
            (change.n, change.nth) = (n, Some(nth));
        }
    }
    for Refusal { client, refused } in &batch.refusals {
        let change = changes.entry(*client).or_default();
        if refused.n > change.n {
            (change.n, change.nth) = (refused.n, None);
        }
        change.refused.push(refused);
    }
    changes
}

fn made(rev: Revision, view: &[u8]) -> Made {
    let short = view.len() <= MAX_MADE_BYTES;
    let text = short.then(|| std::str::from_utf8(view).ok()).flatten();
    Made {
        rev,
        value: text.map(Into::into),
    }
}

/// Whether a client may be forgotten by then, if there are too many.
pub fn may_go(client: &Remembered, now: Millis) -> bool {
    may_go_since(client.at, client.client, now)
}

fn may_go_since(at: Millis, client: ClientId, now: Millis) -> bool {
    let at_least = match client.is_key() {
        true => REMEMBER_KEY_AT_LEAST,
        false => REMEMBER_AT_LEAST,
    };
    at.0 + as_millis(at_least) <= now.0
}

fn as_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::value::to_raw_value;
    use uuid::Uuid;

    use super::*;
    use crate::{
        entry::{Entry, Position},
        ids::{BatchId, Epoch},
    };

    fn client(id: u128) -> ClientId {
        ClientId(Uuid::from_u128(id))
    }

    /// A batch at that time in which each client's number is accepted or refused.
    fn batch(at: u64, settles: &[(ClientId, u64, bool)]) -> Batch {
        let mut batch = Batch {
            id: BatchId(Uuid::from_u128(1)),
            after: Position::start(Epoch(Uuid::from_u128(1))),
            at: Millis(at),
            version: 1,
            entries: Vec::new(),
            refusals: Vec::new(),
        };
        for (client, n, accepted) in settles.iter().copied() {
            if accepted {
                batch.entries.push(Entry {
                    rev: Revision(batch.entries.len() as u64 + 1),
                    client: Some(client),
                    n: Some(n),
                    action: to_raw_value(&n).unwrap(),
                    acting: None,
                });
            } else {
                let (code, message) = ("no".to_owned(), format!("not {n}"));
                let refused = Refused { n, code, message };
                batch.refusals.push(Refusal { client, refused });
            }
        }
        batch
    }

    fn settle(
        settled: &mut Settled,
        max: Option<usize>,
        at: u64,
        numbers: &[(ClientId, u64, bool)],
    ) {
        settled.settle(&batch(at, numbers), |_| b"7", max);
    }

    const WANTED: Spare = Spare {
        clients: 60,
        refused_bytes: 9000,
    };

    fn spare(settled: &Settled, now: u64, max: Option<usize>) -> Spare {
        settled.spare(Millis(now), max, WANTED)
    }

    fn refused(settled: &Settled, client: ClientId) -> Vec<u64> {
        let refused = settled.refused(client).iter();
        refused.map(|refused| refused.n).collect()
    }

    #[test]
    fn the_last_number_is_remembered_with_what_it_made_and_the_refusals_before_it() {
        let (ann, bob) = (client(1), client(2));
        let mut settled = Settled::default();
        assert_eq!(settled.last(ann), 0);
        settle(
            &mut settled,
            None,
            1,
            &[
                (ann, 1, true),
                (bob, 1, false),
                (ann, 2, false),
                (ann, 3, true),
            ],
        );
        assert_eq!((settled.last(ann), settled.last(bob)), (3, 1));
        let made = First::Accepted(Some((Revision(2), "7".into())));
        assert_eq!(settled.first(ann, 3), made);
        assert_eq!(
            settled.first(ann, 2),
            First::Refused(Rejection::new("no", "not 2"))
        );
        assert_eq!(settled.first(ann, 1), First::Accepted(None));
        settle(&mut settled, None, 2, &[(ann, 4, false)]);
        assert_eq!(
            settled.first(ann, 3),
            First::Accepted(None),
            "not the last any more"
        );
        assert_eq!(refused(&settled, ann), [2, 4]);
        let again = Settled::from_remembered(settled.to_remembered());
        assert_eq!(again.to_remembered(), settled.to_remembered());
        assert_eq!((again.last(ann), again.weight()), (4, settled.weight()));
    }

    #[test]
    fn refusals_are_remembered_among_the_last_numbers_alone() {
        let ann = client(1);
        let mut settled = Settled::default();
        for n in 1..=WINDOW + 3 {
            settle(&mut settled, None, n, &[(ann, n, false)]);
        }
        assert_eq!(refused(&settled, ann), (4..=WINDOW + 3).collect::<Vec<_>>());
        let last = 3 * WINDOW;
        for n in WINDOW + 4..=last {
            settle(&mut settled, None, n, &[(ann, n, true)]);
        }
        assert_eq!(refused(&settled, ann), [0; 0]);
    }

    #[test]
    fn a_value_that_is_too_long_is_not_remembered() {
        let ann = client(1);
        let mut settled = Settled::default();
        let long = vec![b'1'; MAX_MADE_BYTES + 1];
        settled.settle(&batch(1, &[(ann, 1, true)]), |_| &long, None);
        assert_eq!(settled.first(ann, 1), First::Accepted(None));
        settled.settle(&batch(1, &[(ann, 2, true)]), |_| &long[1..], None);
        assert!(matches!(settled.first(ann, 2), First::Accepted(Some(_))));
    }

    #[test]
    fn a_client_is_forgotten_after_30_days_by_the_journals_time() {
        let (ann, bob, key) = (client(1), client(2), ClientId::of_key("a"));
        let days = |days: u64| days * 24 * 3600 * 1000;
        let mut settled = Settled::default();
        settle(&mut settled, None, 0, &[(ann, 1, true), (key, 1, true)]);
        settle(&mut settled, None, days(30) - 1, &[(bob, 1, true)]);
        assert_eq!(settled.len(), 3);
        settle(&mut settled, None, days(30), &[(bob, 2, true)]);
        assert_eq!(
            (settled.len(), settled.last(ann), settled.last(bob)),
            (1, 0, 2)
        );
    }

    #[test]
    fn of_too_many_the_oldest_goes_but_none_before_its_time() {
        let hour = 3600 * 1000;
        let key = ClientId::of_key("a");
        let mut settled = Settled::default();
        settle(
            &mut settled,
            Some(2),
            0,
            &[(key, 1, true), (client(1), 1, true)],
        );
        settle(&mut settled, Some(2), 1, &[(client(2), 1, true)]);
        assert_eq!(settled.len(), 3, "all of them are too young");
        assert_eq!(spare(&settled, 1, Some(2)).clients, 0);
        assert_eq!(spare(&settled, hour, Some(2)).clients, 1, "the first's");
        settle(&mut settled, Some(2), hour + 1, &[(client(3), 1, true)]);
        let known = [key, client(1), client(2), client(3)].map(|client| settled.last(client));
        assert_eq!(known, [1, 0, 0, 1], "a key is kept for a day");
        settle(&mut settled, Some(2), 24 * hour, &[(client(4), 1, true)]);
        assert_eq!((settled.last(key), settled.last(client(4))), (0, 1));
        assert_eq!(spare(&settled, 0, None), WANTED);
    }

    #[test]
    fn of_too_many_refusals_the_oldest_go_with_their_client_and_nobody_elses_place() {
        let hour = 3600 * 1000;
        let long = "x".repeat(Rejection::MAX_MESSAGE);
        let refuse_all = |settled: &mut Settled, who: ClientId, at: u64| {
            let numbers: Vec<_> = (1..=WINDOW).map(|n| (who, n, false)).collect();
            let mut batch = batch(at, &numbers);
            for refusal in &mut batch.refusals {
                refusal.refused.message = long.clone();
            }
            settled.settle(&batch, |_| b"7", Some(100));
        };
        let mut settled = Settled::default();
        let quiet = client(1000);
        settle(&mut settled, Some(100), 0, &[(quiet, 1, true)]);
        let mut noisy = 0;
        while spare(&settled, 1, Some(100)).refused_bytes > 0 {
            noisy += 1;
            refuse_all(&mut settled, client(noisy), noisy as u64);
        }
        assert_eq!(settled.len(), 1 + noisy as usize, "all are too young to go");
        assert!(spare(&settled, 1, Some(100)).clients > 50);
        assert_eq!(spare(&settled, hour + 2, Some(100)), WANTED);
        settle(
            &mut settled,
            Some(100),
            hour + 2,
            &[(client(2000), 1, true)],
        );
        let known = [client(1), quiet, client(noisy)].map(|who| settled.last(who));
        assert_eq!(known, [0, 1, WINDOW]);
        assert!(settled.refused_bytes <= MAX_REFUSED_BYTES);
        let again = Settled::from_remembered(settled.to_remembered());
        assert_eq!(again.refused_bytes, settled.refused_bytes);
    }
}
